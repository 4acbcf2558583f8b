//! `envoy.extensions.filters.http.fault.v3.HTTPFault`: delays and aborts that are asked for, to see what they do.

use std::time::Duration;

use http::StatusCode;
use weft_xds::{
    FieldError,
    pb::envoy::{
        extensions::filters::{
            common::fault::v3::{
                FaultDelay, FaultRateLimit, fault_delay::FaultDelaySecifier, fault_rate_limit::LimitType,
            },
            http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
        },
        r#type::v3::FractionalPercent,
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required},
    fraction::Fraction,
    matcher::HeaderMatcher,
};

#[derive(Debug)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
    pub response_rate_limit: Option<RateLimit>,
    /// Only requests to this cluster. Empty: to any.
    pub upstream_cluster: String,
    /// Only requests that match all.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests of these callers (`x-envoy-downstream-service-node`). Empty: of any.
    pub downstream_nodes: Vec<String>,
    /// None: any number at a time.
    pub active_faults_max: Option<u32>,
}

#[derive(Debug)]
pub struct Delay {
    /// None: `x-envoy-fault-delay-request` says, in milliseconds.
    pub fixed: Option<Duration>,
    pub share: Fraction,
}

#[derive(Debug)]
pub struct Abort {
    pub status: AbortStatus,
    pub share: Fraction,
    /// None: Envoy's words.
    pub body: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    Http(StatusCode),
    Grpc(u32),
    /// `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// In KiB a second. None: `x-envoy-fault-throughput-response` says.
    pub fixed_kbps: Option<u64>,
    pub share: Fraction,
}

impl Fault {
    pub(super) fn from_proto(message: HttpFault) -> Result<Self> {
        let HttpFault {
            delay,
            abort,
            upstream_cluster,
            headers,
            downstream_nodes,
            max_active_faults,
            response_rate_limit,
            // Keys of a runtime that is not there to override anything.
            delay_percent_runtime: _,
            abort_percent_runtime: _,
            delay_duration_runtime: _,
            abort_http_status_runtime: _,
            max_active_faults_runtime: _,
            response_rate_limit_percent_runtime: _,
            abort_grpc_status_runtime: _,
            disable_downstream_cluster_stats: _, // statistics by downstream cluster are not kept
            filter_metadata,
        } = message;
        refuse!(filter_metadata);
        Ok(Self {
            delay: delay.map(Delay::from_proto).transpose().within("delay")?,
            abort: abort.map(Abort::from_proto).transpose().within("abort")?,
            response_rate_limit: response_rate_limit
                .map(RateLimit::from_proto)
                .transpose()
                .within("response_rate_limit")?,
            upstream_cluster,
            headers: field::each(headers, "headers", HeaderMatcher::from_proto)?,
            downstream_nodes,
            active_faults_max: max_active_faults.map(|wrapper| wrapper.value),
        })
    }
}

/// Without a share nothing is ever done.
fn share(message: Option<FractionalPercent>) -> Result<Fraction> {
    message.map_or(Ok(Fraction::NEVER), Fraction::from_proto).within("percentage")
}

impl Delay {
    fn from_proto(message: FaultDelay) -> Result<Self> {
        let FaultDelay { percentage, fault_delay_secifier } = message;
        let fixed = match required(fault_delay_secifier, "fault_delay_secifier")? {
            FaultDelaySecifier::FixedDelay(delay) => field::duration(Some(delay), "fixed_delay")?,
            FaultDelaySecifier::HeaderDelay(_) => None,
        };
        Ok(Self { fixed, share: share(percentage)? })
    }
}

impl Abort {
    fn from_proto(message: FaultAbort) -> Result<Self> {
        let FaultAbort { percentage, response_body, error_type } = message;
        let status = match required(error_type, "error_type")? {
            ErrorType::HttpStatus(code) => {
                let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
                AbortStatus::Http(code.ok_or_else(|| FieldError::new("http_status", "not an HTTP status code"))?)
            }
            ErrorType::GrpcStatus(status) => AbortStatus::Grpc(status),
            ErrorType::HeaderAbort(_) => AbortStatus::Header,
        };
        Ok(Self { status, share: share(percentage)?, body: Some(response_body).filter(|body| !body.is_empty()) })
    }
}

impl RateLimit {
    fn from_proto(message: FaultRateLimit) -> Result<Self> {
        let FaultRateLimit { percentage, limit_type } = message;
        let fixed_kbps = match required(limit_type, "limit_type")? {
            LimitType::FixedLimit(limit) => Some(limit.limit_kbps),
            LimitType::HeaderLimit(_) => None,
        };
        Ok(Self { fixed_kbps, share: share(percentage)? })
    }
}
