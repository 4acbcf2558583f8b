//! `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol` and `envoy.config.core.v3.ProxyProtocolConfig`: the
//! PROXY protocol on either side.

use std::sync::Arc;

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{
            ProxyProtocolConfig as ProtoConfig, ProxyProtocolPassThroughTlVs, TlvEntry,
            proxy_protocol_config::Version as ProtoVersion, proxy_protocol_pass_through_tl_vs::PassTlVsMatchType,
        },
        extensions::filters::listener::proxy_protocol::v3::{
            ProxyProtocol as ProtoProxyProtocol,
            proxy_protocol::{
                KeyValuePair, Rule, TlvLocation as ProtoTlvLocation, key_value_pair::ValueStringEncoding,
            },
        },
    },
};

use crate::{
    config::field::{self, Result, Within as _, refuse, required},
    listener::inspect::proxy_protocol::{Accepts, Version},
};

/// The listener filter.
#[derive(Debug)]
pub struct ProxyProtocol {
    pub accepts: Accepts,
    pub rules: Vec<TlvRule>,
    /// Extensions that go on to an upstream that is spoken to in the PROXY protocol.
    pub pass_through_tlvs: PassThroughTlvs,
    /// Between `proxy_proto` and the names of its metrics; often empty.
    pub stat_prefix: Arc<str>,
}

/// An extension of this type becomes dynamic metadata of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvRule {
    pub tlv_type: u8,
    pub namespace: Arc<str>,
    pub key: Arc<str>,
    pub encoding: TlvEncoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvEncoding {
    /// What is no UTF-8 becomes `!`.
    SanitizedUtf8,
    Base64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassThroughTlvs {
    #[default]
    None,
    All,
    /// Of these types.
    Some(Vec<u8>),
}

/// What an upstream is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamProxyProtocol {
    pub version: Version,
    pub pass_through_tlvs: PassThroughTlvs,
    /// Take the place of passed-through ones of the same type.
    pub added_tlvs: Vec<Tlv>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    pub tlv_type: u8,
    pub value: Vec<u8>,
}

const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

impl Default for ProxyProtocol {
    /// Every version, no extension.
    fn default() -> Self {
        Self {
            accepts: Accepts { v1: true, v2: true, no_header: false },
            rules: Vec::new(),
            pass_through_tlvs: PassThroughTlvs::None,
            stat_prefix: Arc::default(),
        }
    }
}

impl ProxyProtocol {
    pub(crate) fn from_proto(message: ProtoProxyProtocol) -> Result<Self> {
        let ProtoProxyProtocol {
            rules,
            allow_requests_without_proxy_protocol,
            pass_through_tlvs,
            disallowed_versions,
            stat_prefix,
            tlv_location,
        } = message;
        match field::enumeration(tlv_location, "tlv_location")? {
            ProtoTlvLocation::DynamicMetadata => {}
            ProtoTlvLocation::FilterState => return Err(field::unsupported("tlv_location")),
        }
        let disallowed = field::each(disallowed_versions, "disallowed_versions", version)?;
        let accepts = Accepts {
            v1: !disallowed.contains(&Version::V1),
            v2: !disallowed.contains(&Version::V2),
            no_header: allow_requests_without_proxy_protocol,
        };
        if !accepts.v1 && !accepts.v2 {
            return Err(FieldError::new("disallowed_versions", "all PROXY protocol versions are disallowed"));
        }
        Ok(Self {
            accepts,
            rules: field::each(rules, "rules", TlvRule::from_proto)?.into_iter().flatten().collect(),
            pass_through_tlvs: PassThroughTlvs::from_proto(pass_through_tlvs).within("pass_through_tlvs")?,
            stat_prefix: stat_prefix.into(),
        })
    }

    /// The rule for extensions of this type: the last one, as Envoy has it.
    pub fn rule(&self, tlv_type: u8) -> Option<&TlvRule> {
        self.rules.iter().rfind(|rule| rule.tlv_type == tlv_type)
    }
}

impl TlvRule {
    /// None: it asks for nothing.
    fn from_proto(message: Rule) -> Result<Option<Self>> {
        let Rule { tlv_type, on_tlv_present } = message;
        let tlv_type = byte(tlv_type, "tlv_type")?;
        let Some(KeyValuePair { metadata_namespace, key, value_string_encoding }) = on_tlv_present else {
            return Ok(None);
        };
        let encoding = match field::enumeration(value_string_encoding, "on_tlv_present.value_string_encoding")? {
            ValueStringEncoding::Unspecified | ValueStringEncoding::SanitizedUtf8 => TlvEncoding::SanitizedUtf8,
            ValueStringEncoding::Base64 => TlvEncoding::Base64,
        };
        let namespace = if metadata_namespace.is_empty() { NAMESPACE.into() } else { metadata_namespace.into() };
        Ok(Some(Self { tlv_type, namespace, key: key.into(), encoding }))
    }
}

impl PassThroughTlvs {
    fn from_proto(message: Option<ProxyProtocolPassThroughTlVs>) -> Result<Self> {
        let Some(ProxyProtocolPassThroughTlVs { match_type, tlv_type }) = message else { return Ok(Self::None) };
        Ok(match field::enumeration(match_type, "match_type")? {
            PassTlVsMatchType::IncludeAll => Self::All,
            PassTlVsMatchType::Include => Self::Some(field::each(tlv_type, "tlv_type", |kind| byte(kind, ""))?),
        })
    }

    pub fn includes(&self, tlv_type: u8) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(types) => types.contains(&tlv_type),
        }
    }
}

impl UpstreamProxyProtocol {
    pub(crate) fn from_proto(message: ProtoConfig) -> Result<Self> {
        let ProtoConfig { version: number, pass_through_tlvs, added_tlvs } = message;
        Ok(Self {
            version: version(number).within("version")?,
            pass_through_tlvs: PassThroughTlvs::from_proto(pass_through_tlvs).within("pass_through_tlvs")?,
            added_tlvs: field::each(added_tlvs, "added_tlvs", Tlv::from_proto)?,
        })
    }
}

impl Tlv {
    pub(crate) fn from_proto(message: TlvEntry) -> Result<Self> {
        let TlvEntry { r#type, value, format_string } = message;
        refuse!(format_string);
        if value.is_empty() {
            required(None::<()>, "value")?;
        }
        Ok(Self { tlv_type: byte(r#type, "type")?, value })
    }
}

fn version(number: i32) -> Result<Version> {
    Ok(match field::enumeration(number, "")? {
        ProtoVersion::V1 => Version::V1,
        ProtoVersion::V2 => Version::V2,
    })
}

fn byte(value: u32, path: &str) -> Result<u8> {
    u8::try_from(value).map_err(|_| FieldError::new(path, "value must be less than 256"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refused, message, refusal};

    #[test]
    fn the_listener_filter_is_read() {
        let filter = ProxyProtocol::from_proto(message(
            "
rules: [{tlv_type: 2, on_tlv_present: {key: a}}, {tlv_type: 2, on_tlv_present: {key: b, metadata_namespace: n, value_string_encoding: BASE64}}, {tlv_type: 3}]
allow_requests_without_proxy_protocol: true
pass_through_tlvs: {match_type: INCLUDE, tlv_type: [7]}
disallowed_versions: [V1]
stat_prefix: s",
        ))
        .unwrap();
        assert_eq!(filter.accepts, Accepts { v1: false, v2: true, no_header: true });
        let last = filter.rule(2).unwrap();
        assert_eq!((&*last.namespace, &*last.key, last.encoding), ("n", "b", TlvEncoding::Base64));
        assert_eq!(&*filter.rules[0].namespace, NAMESPACE);
        assert!(filter.rule(3).is_none());
        assert!(filter.pass_through_tlvs.includes(7) && !filter.pass_through_tlvs.includes(8));
        assert_eq!(&*filter.stat_prefix, "s");
        let plain = ProxyProtocol::from_proto(message("{}")).unwrap();
        assert_eq!(plain.accepts, Accepts { v1: true, v2: true, no_header: false });
        assert!(!plain.pass_through_tlvs.includes(7));
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        assert_refused(
            "stat_prefix: s",
            ProxyProtocol::from_proto,
            &[
                ("disallowed_versions: [V1, V2]", "disallowed_versions: all PROXY protocol versions are disallowed"),
                ("tlv_location: FILTER_STATE", "tlv_location: not supported"),
            ],
        );
    }

    #[test]
    fn the_upstream_side_is_read() {
        let config = UpstreamProxyProtocol::from_proto(message(
            "{version: V2, pass_through_tlvs: {}, added_tlvs: [{type: 9, value: aGk=}]}",
        ));
        let added_tlvs = vec![Tlv { tlv_type: 9, value: b"hi".to_vec() }];
        let expected =
            UpstreamProxyProtocol { version: Version::V2, pass_through_tlvs: PassThroughTlvs::All, added_tlvs };
        assert_eq!(config.unwrap(), expected);
        let formatted = message("{added_tlvs: [{type: 9, format_string: {text_format: x}}]}");
        assert_eq!(refusal(UpstreamProxyProtocol::from_proto(formatted)), "added_tlvs[0].format_string: not supported");
    }
}
