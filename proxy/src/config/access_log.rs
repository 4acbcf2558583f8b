//! `envoy.config.accesslog.v3.AccessLog`: the file and stdout loggers with a text format, parsed once into operators.

use std::{path::PathBuf, sync::Arc};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{
            accesslog::v3::{AccessLog as ProtoAccessLog, access_log::ConfigType},
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
        },
    },
};

use crate::config::{
    data_source,
    field::{Extension, Result, Within as _, refuse, required, unset, unsupported, without_typed_config},
};

mod format;

pub use format::DEFAULT_FORMAT;

#[derive(Debug)]
pub struct AccessLog {
    pub sink: AccessLogSink,
    pub format: Arc<[Operator]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    File(PathBuf),
    Stdout,
    Stderr,
}

/// One piece of a format string; `max_length` cuts the value after so many bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    pub command: Command,
    pub max_length: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Literal(String),
    /// `%START_TIME%` and `%START_TIME(format)%`.
    StartTime(Option<String>),
    /// `%REQ(A?B)%`: the first header that is there. Pseudo-headers by their names.
    RequestHeader(String, Option<String>),
    ResponseHeader(String, Option<String>),
    ResponseTrailer(String, Option<String>),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ConnectionTerminationDetails,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    RouteName,
    VirtualClusterName,
    RequestedServerName,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    ConnectionId,
    Hostname,
}

impl AccessLog {
    pub(crate) fn from_proto(message: ProtoAccessLog) -> Result<Self> {
        let ProtoAccessLog { name: _, filter, config_type } = message;
        refuse!(filter);
        let Some(ConfigType::TypedConfig(typed_config)) = config_type else { return Err(without_typed_config()) };
        let extension = Extension::new(typed_config)?;
        if extension.is::<FileAccessLog>() {
            Self::file(extension.unpack()?).within("typed_config")
        } else if extension.is::<StdoutAccessLog>() {
            let StdoutAccessLog { access_log_format } = extension.unpack()?;
            let format = access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            Self::stream(AccessLogSink::Stdout, format).within("typed_config")
        } else if extension.is::<StderrAccessLog>() {
            let StderrAccessLog { access_log_format } = extension.unpack()?;
            let format = access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            Self::stream(AccessLogSink::Stderr, format).within("typed_config")
        } else {
            Err(extension.unsupported())
        }
    }

    #[expect(deprecated, reason = "the older spelling of a text format, and others named to be refused")]
    fn file(message: FileAccessLog) -> Result<Self> {
        let FileAccessLog { path, access_log_format } = message;
        let format = match access_log_format {
            None => default_format(),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => default_format(),
            Some(AccessLogFormat::Format(text)) => format::parse(&text).within("format")?,
            Some(AccessLogFormat::LogFormat(message)) => text_format(message).within("log_format")?,
            Some(AccessLogFormat::JsonFormat(_)) => return Err(unsupported("json_format")),
            Some(AccessLogFormat::TypedJsonFormat(_)) => return Err(unsupported("typed_json_format")),
        };
        Ok(Self { sink: AccessLogSink::File(path.into()), format: format.into() })
    }

    fn stream(sink: AccessLogSink, message: Option<SubstitutionFormatString>) -> Result<Self> {
        let format = message.map(text_format).transpose().within("log_format")?.unwrap_or_else(default_format);
        Ok(Self { sink, format: format.into() })
    }
}

fn default_format() -> Vec<Operator> {
    format::parse(DEFAULT_FORMAT).expect("a test parses the default format")
}

fn text_format(message: SubstitutionFormatString) -> Result<Vec<Operator>> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } = message;
    refuse!(omit_empty_values, content_type, formatters);
    unset(&json_format_options, "json_format_options")?;
    #[expect(deprecated, reason = "the older spelling of a text format")]
    match required(format, "format")? {
        Format::TextFormat(text) => format::parse(&text).within("text_format"),
        Format::TextFormatSource(source) => {
            let bytes = data_source::read(source).within("text_format_source")?;
            let text = String::from_utf8(bytes).map_err(|_| FieldError::new("text_format_source", "not UTF-8 text"))?;
            format::parse(&text).within("text_format_source")
        }
        Format::JsonFormat(_) => Err(unsupported("json_format")),
    }
}

#[cfg(test)]
mod tests;
