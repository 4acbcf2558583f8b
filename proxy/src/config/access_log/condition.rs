//! `envoy.config.accesslog.v3.AccessLogFilter`: of which requests and connections something is logged, or a local reply
//! rewritten.

use weft_xds::{
    FieldError,
    pb::envoy::config::{
        accesslog::v3::{
            AccessLogFilter, ComparisonFilter, DurationFilter, GrpcStatusFilter, HeaderFilter, LogTypeFilter,
            MetadataFilter, ResponseFlagFilter, RuntimeFilter, StatusCodeFilter, access_log_filter::FilterSpecifier,
            comparison_filter::Op,
        },
        core::v3::RuntimeUInt32,
    },
};

use crate::{
    config::{
        access_log::LogType,
        field::{self, Result, Within as _, required, unsupported},
        fraction::Fraction,
        matcher::HeaderMatcher,
    },
    http::response_flags::ResponseFlags,
};

#[derive(Debug)]
pub enum Condition {
    StatusCode(Comparison),
    /// In milliseconds.
    Duration(Comparison),
    NotHealthCheck,
    /// Never: no request is traced.
    Traceable,
    Sampled(Fraction),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Header(HeaderMatcher),
    /// Any of these; `None`: any at all.
    ResponseFlag(Option<ResponseFlags>),
    GrpcStatus {
        statuses: Vec<i64>,
        exclude: bool,
    },
    /// No metadata is ever written: what counts is whether an absent key matches.
    MetadataAbsent {
        matches: bool,
    },
    LogType {
        types: Vec<LogType>,
        exclude: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    pub operator: ComparisonOperator,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperator {
    Equal,
    AtLeast,
    AtMost,
    Not,
}

impl Comparison {
    fn from_proto(message: ComparisonFilter) -> Result<Self> {
        let ComparisonFilter { op, value } = message;
        let operator = match field::enumeration(op, "op")? {
            Op::Eq => ComparisonOperator::Equal,
            Op::Ge => ComparisonOperator::AtLeast,
            Op::Le => ComparisonOperator::AtMost,
            Op::Ne => ComparisonOperator::Not,
        };
        let RuntimeUInt32 { default_value, runtime_key: _ } = required(value, "value")?; // no runtime holds the key
        Ok(Self { operator, value: default_value.into() })
    }

    pub fn holds(self, value: u64) -> bool {
        match self.operator {
            ComparisonOperator::Equal => value == self.value,
            ComparisonOperator::AtLeast => value >= self.value,
            ComparisonOperator::AtMost => value <= self.value,
            ComparisonOperator::Not => value != self.value,
        }
    }
}

impl Condition {
    pub(crate) fn from_proto(message: AccessLogFilter) -> Result<Self> {
        let AccessLogFilter { filter_specifier } = message;
        let comparison = |message: Option<ComparisonFilter>, path: &str| {
            Comparison::from_proto(required(message, "comparison")?).within("comparison").within(path)
        };
        Ok(match required(filter_specifier, "filter_specifier")? {
            FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison: message }) => {
                Self::StatusCode(comparison(message, "status_code_filter")?)
            }
            FilterSpecifier::DurationFilter(DurationFilter { comparison: message }) => {
                Self::Duration(comparison(message, "duration_filter")?)
            }
            FilterSpecifier::NotHealthCheckFilter(_) => Self::NotHealthCheck,
            FilterSpecifier::TraceableFilter(_) => Self::Traceable,
            FilterSpecifier::RuntimeFilter(message) => sampled(message).within("runtime_filter")?,
            FilterSpecifier::AndFilter(message) => {
                Self::All(field::each(message.filters, "filters", Self::from_proto).within("and_filter")?)
            }
            FilterSpecifier::OrFilter(message) => {
                Self::Any(field::each(message.filters, "filters", Self::from_proto).within("or_filter")?)
            }
            FilterSpecifier::HeaderFilter(HeaderFilter { header }) => {
                let header = required(header, "header_filter.header")?;
                Self::Header(HeaderMatcher::from_proto(header).within("header_filter.header")?)
            }
            FilterSpecifier::ResponseFlagFilter(message) => response_flag(message).within("response_flag_filter")?,
            FilterSpecifier::GrpcStatusFilter(GrpcStatusFilter { statuses, exclude }) => {
                Self::GrpcStatus { statuses: statuses.into_iter().map(i64::from).collect(), exclude }
            }
            FilterSpecifier::MetadataFilter(MetadataFilter { matcher: _, match_if_key_not_found }) => {
                Self::MetadataAbsent { matches: field::bool_or(match_if_key_not_found, true) }
            }
            FilterSpecifier::LogTypeFilter(LogTypeFilter { types, exclude }) => {
                Self::LogType { types: types.into_iter().filter_map(LogType::from_proto).collect(), exclude }
            }
            FilterSpecifier::ExtensionFilter(_) => return Err(unsupported("extension_filter")),
        })
    }

    /// Whether it looks at the request's headers.
    pub fn reads_request(&self) -> bool {
        match self {
            Self::Header(_) => true,
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().any(Self::reads_request),
            _ => false,
        }
    }

    /// Whether it looks at the response's headers and trailers.
    pub fn reads_response(&self) -> bool {
        match self {
            Self::GrpcStatus { .. } => true,
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().any(Self::reads_response),
            _ => false,
        }
    }
}

fn sampled(message: RuntimeFilter) -> Result<Condition> {
    // Each draw is independent, which is all that the last field could ask for; no runtime holds the key.
    let RuntimeFilter { runtime_key: _, percent_sampled, use_independent_randomness: _ } = message;
    Ok(Condition::Sampled(match percent_sampled {
        None => Fraction::NEVER,
        Some(share) => Fraction::from_proto(share).within("percent_sampled")?,
    }))
}

fn response_flag(message: ResponseFlagFilter) -> Result<Condition> {
    let ResponseFlagFilter { flags } = message;
    let parsed = field::each(&flags, "flags", |name| {
        ResponseFlags::parse(name).ok_or_else(|| FieldError::new("", "not a response flag"))
    })?;
    Ok(Condition::ResponseFlag(parsed.into_iter().reduce(ResponseFlags::with)))
}
