//! `envoy.config.accesslog.v3.AccessLog`: where lines go, what they say, and of which requests.

use std::path::PathBuf;

use weft_xds::pb::envoy::{
    config::{
        accesslog::v3::{AccessLog as ProtoAccessLog, access_log::ConfigType},
        core::v3::SubstitutionFormatString,
    },
    extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
};

pub use self::{
    condition::{Comparison, ComparisonOperator, Condition},
    log_type::LogType,
};
use crate::config::{
    field::{Extension, Result, Within as _, without_typed_config},
    substitution::SubstitutionFormat,
};

mod condition;
mod log_type;

#[derive(Debug)]
pub struct AccessLog {
    pub sink: AccessLogSink,
    pub format: SubstitutionFormat,
    /// None: of all.
    pub condition: Option<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    File(PathBuf),
    Stdout,
    Stderr,
}

impl AccessLog {
    pub(crate) fn from_proto(message: ProtoAccessLog) -> Result<Self> {
        let ProtoAccessLog { name: _, filter, config_type } = message;
        let condition = filter.map(Condition::from_proto).transpose().within("filter")?;
        let Some(ConfigType::TypedConfig(typed_config)) = config_type else { return Err(without_typed_config()) };
        let extension = Extension::new(typed_config)?;
        let (sink, format) = if extension.is::<FileAccessLog>() {
            file(extension.unpack()?).within("typed_config")?
        } else if extension.is::<StdoutAccessLog>() {
            let StdoutAccessLog { access_log_format } = extension.unpack()?;
            let format = access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            (AccessLogSink::Stdout, stream_format(format).within("typed_config")?)
        } else if extension.is::<StderrAccessLog>() {
            let StderrAccessLog { access_log_format } = extension.unpack()?;
            let format = access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            (AccessLogSink::Stderr, stream_format(format).within("typed_config")?)
        } else {
            return Err(extension.unsupported());
        };
        Ok(Self { sink, format, condition })
    }
}

#[expect(deprecated, reason = "the older spellings of a format mean the same")]
fn file(message: FileAccessLog) -> Result<(AccessLogSink, SubstitutionFormat)> {
    let FileAccessLog { path, access_log_format } = message;
    let format = match access_log_format {
        None => SubstitutionFormat::default_access_log(),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => SubstitutionFormat::default_access_log(),
        Some(AccessLogFormat::Format(text)) => SubstitutionFormat::text(&text).within("format")?,
        Some(AccessLogFormat::LogFormat(message)) => SubstitutionFormat::from_proto(message).within("log_format")?,
        Some(AccessLogFormat::JsonFormat(fields)) => SubstitutionFormat::json(fields).within("json_format")?,
        Some(AccessLogFormat::TypedJsonFormat(fields)) => {
            SubstitutionFormat::json(fields).within("typed_json_format")?
        }
    };
    Ok((AccessLogSink::File(path.into()), format))
}

fn stream_format(message: Option<SubstitutionFormatString>) -> Result<SubstitutionFormat> {
    match message {
        None => Ok(SubstitutionFormat::default_access_log()),
        Some(message) => SubstitutionFormat::from_proto(message).within("log_format"),
    }
}

#[cfg(test)]
mod tests;
