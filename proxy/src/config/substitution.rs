//! Envoy's substitution format strings: literal text with commands such as `%REQ(:PATH)%`, parsed once into operators. Access
//! logs, header mutations, local replies and direct responses are written with them.
//!
//! `%%` is a percent sign; any other `%` begins a command `%NAME%`, `%NAME(parameters)%` or `%NAME(parameters):LENGTH%`.

use std::sync::Arc;

use weft_xds::{
    FieldError,
    pb::{
        envoy::config::core::v3::{
            JsonFormatOptions, SubstitutionFormatString, substitution_format_string::Format as ProtoFormat,
        },
        google::protobuf::Struct,
    },
};

pub use self::{
    command::{Command, Fact, GrpcStatusForm, HeaderKey, Operator, PathSource, TimePoint, TimePrecision},
    json::JsonTemplate,
};
use crate::config::{
    data_source,
    field::{self, Result, Within as _, refuse, required},
};

mod command;
mod json;
mod parse;

pub(crate) use self::parse::parse;

/// What Envoy writes where no format is given, for HTTP and TCP alike.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A whole format: what one message is written by.
#[derive(Clone, Debug, PartialEq)]
pub struct SubstitutionFormat {
    pub template: Template,
    /// What is not there is an empty text instead of `-`, and no key in JSON.
    pub omit_empty_values: bool,
    /// None: `text/plain` or `application/json`.
    pub content_type: Option<http::HeaderValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    Text(Arc<[Operator]>),
    /// One line an object.
    Json(Arc<JsonTemplate>),
}

impl SubstitutionFormat {
    pub(crate) fn from_proto(message: SubstitutionFormatString) -> Result<Self> {
        let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } =
            message;
        refuse!(formatters);
        // Keys are always sorted, which is all that these options could ask for.
        #[expect(deprecated, reason = "named to be ignored")]
        if let Some(options) = json_format_options {
            let JsonFormatOptions { sort_properties: _ } = options;
        }
        #[expect(deprecated, reason = "the older spelling of a text format")]
        let template = match required(format, "format")? {
            ProtoFormat::TextFormat(text) => Template::Text(parse(&text).within("text_format")?.into()),
            ProtoFormat::TextFormatSource(source) => {
                let bytes = data_source::read(source).within("text_format_source")?;
                let text =
                    String::from_utf8(bytes).map_err(|_| FieldError::new("text_format_source", "not UTF-8 text"))?;
                Template::Text(parse(&text).within("text_format_source")?.into())
            }
            ProtoFormat::JsonFormat(fields) => Self::json(fields).within("json_format")?.template,
        };
        let content_type = match content_type.as_str() {
            "" => None,
            text => Some(field::header_value(text, "content_type")?),
        };
        Ok(Self { template, omit_empty_values, content_type })
    }

    pub(crate) fn text(text: &str) -> Result<Self> {
        Ok(Self { template: Template::Text(parse(text)?.into()), omit_empty_values: false, content_type: None })
    }

    pub(crate) fn json(fields: Struct) -> Result<Self> {
        let template = Template::Json(JsonTemplate::from_struct(fields)?.into());
        Ok(Self { template, omit_empty_values: false, content_type: None })
    }

    pub(crate) fn default_access_log() -> Self {
        Self::text(DEFAULT_FORMAT).expect("a test parses the default format")
    }

    /// Whether any of its commands is such.
    pub fn any(&self, is_such: impl Fn(&Command) -> bool) -> bool {
        match &self.template {
            Template::Text(operators) => operators.iter().any(|operator| is_such(&operator.command)),
            Template::Json(template) => template.any(&is_such),
        }
    }
}

#[cfg(test)]
mod tests;
