//! `envoy.extensions.filters.http.header_to_metadata.v3.Config`: what headers and cookies say becomes dynamic metadata.

use std::sync::Arc;

use http::HeaderName;
use weft_xds::{
    FieldError,
    pb::envoy::extensions::filters::http::header_to_metadata::v3::{
        Config,
        config::{KeyValuePair, Rule as ProtoRule, ValueEncode, ValueType},
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse},
    matcher::RegexRewrite,
};

#[derive(Debug)]
pub struct HeaderToMetadata {
    pub request_rules: Vec<HeaderRule>,
    pub response_rules: Vec<HeaderRule>,
}

#[derive(Debug)]
pub struct HeaderRule {
    pub source: HeaderSource,
    pub on_present: Option<MetadataEntry>,
    pub on_missing: Option<MetadataEntry>,
    /// The header goes no further.
    pub remove: bool,
}

#[derive(Debug)]
pub enum HeaderSource {
    Header(HeaderName),
    Cookie(String),
}

#[derive(Debug)]
pub struct MetadataEntry {
    pub namespace: Arc<str>,
    pub key: Arc<str>,
    /// In the place of what the header says.
    pub value: Option<String>,
    pub rewrite: Option<RegexRewrite>,
    pub is_number: bool,
    pub is_base64: bool,
}

const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

impl HeaderToMetadata {
    pub(crate) fn from_proto(message: Config) -> Result<Self> {
        let Config { request_rules, response_rules, stat_prefix } = message;
        refuse!(stat_prefix);
        if request_rules.is_empty() && response_rules.is_empty() {
            return Err(FieldError::new("", "neither request_rules nor response_rules are there"));
        }
        Ok(Self {
            request_rules: field::each(request_rules, "request_rules", HeaderRule::from_proto)?,
            response_rules: field::each(response_rules, "response_rules", |rule| {
                match HeaderRule::from_proto(rule)? {
                    HeaderRule { source: HeaderSource::Cookie(_), .. } => {
                        Err(FieldError::new("cookie", "a response has no cookies"))
                    }
                    rule => Ok(rule),
                }
            })?,
        })
    }
}

impl HeaderRule {
    fn from_proto(message: ProtoRule) -> Result<Self> {
        let ProtoRule { header, cookie, on_header_present, on_header_missing, remove } = message;
        let source = match (header.is_empty(), cookie.is_empty()) {
            (false, true) => HeaderSource::Header(
                HeaderName::from_bytes(header.as_bytes())
                    .map_err(|_| FieldError::new("header", "not a header name"))?,
            ),
            (true, false) => HeaderSource::Cookie(cookie),
            _ => return Err(FieldError::new("header", "one of header and cookie is required")),
        };
        if matches!(source, HeaderSource::Cookie(_)) && remove {
            return Err(FieldError::new("remove", "cannot remove a cookie"));
        }
        if on_header_present.is_none() && on_header_missing.is_none() {
            return Err(FieldError::new("", "rule has neither on_header_present nor on_header_missing"));
        }
        let entry =
            |message: Option<KeyValuePair>, path| message.map(MetadataEntry::from_proto).transpose().within(path);
        let on_present = entry(on_header_present, "on_header_present")?;
        let on_missing = entry(on_header_missing, "on_header_missing")?;
        if on_missing.as_ref().is_some_and(|entry| entry.value.is_none()) {
            return Err(FieldError::new("on_header_missing.value", "cannot specify on_missing rule without a value"));
        }
        Ok(Self { source, on_present, on_missing, remove })
    }
}

impl MetadataEntry {
    fn from_proto(message: KeyValuePair) -> Result<Self> {
        let KeyValuePair { metadata_namespace, key, value, regex_value_rewrite, r#type, encode } = message;
        if !value.is_empty() && regex_value_rewrite.is_some() {
            return Err(FieldError::new("value", "cannot be set together with regex_value_rewrite"));
        }
        let is_number = match field::enumeration(r#type, "type")? {
            ValueType::String => false,
            ValueType::Number => true,
            ValueType::ProtobufValue => return Err(FieldError::new("type", "PROTOBUF_VALUE is not supported")),
        };
        Ok(Self {
            namespace: if metadata_namespace.is_empty() { NAMESPACE.into() } else { metadata_namespace.into() },
            key: key.into(),
            value: Some(value).filter(|value| !value.is_empty()),
            rewrite: regex_value_rewrite.map(RegexRewrite::from_proto).transpose().within("regex_value_rewrite")?,
            is_number,
            is_base64: field::enumeration::<ValueEncode>(encode, "encode")? == ValueEncode::Base64,
        })
    }
}
