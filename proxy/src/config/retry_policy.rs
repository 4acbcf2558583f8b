//! `envoy.config.route.v3.RetryPolicy`: when a request is tried again, how often, how soon and where.

use std::time::Duration;

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::{
            RetryPolicy as ProtoRetryPolicy,
            retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate::ConfigType},
        },
        extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    },
};

use crate::config::field::{self, Extension, Result, Within as _, refuse, required, timeout_or, without_typed_config};

#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub retry_on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<http::StatusCode>,
    /// `envoy.retry_host_predicates.previous_hosts`.
    pub previous_hosts: bool,
    /// How often another host is asked for when a predicate refuses one. Default 1.
    pub host_selection_retry_max_attempts: u32,
    pub back_off: BackOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Default 25 ms.
    pub base_interval: Duration,
    /// Default ten times the base.
    pub max_interval: Duration,
}

/// `retry_on` and `retry_grpc_on`, each a comma list; one field a name that Envoy knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    pub server_error: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub retriable_4xx: bool,
    pub refused_stream: bool,
    pub retriable_status_codes: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

const BASE_INTERVAL: Duration = Duration::from_millis(25);
/// Envoy counts whole milliseconds, and never fewer than one.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const MAX_INTERVAL_FACTOR: u32 = 10;

impl RetryPolicy {
    pub(crate) fn from_proto(message: ProtoRetryPolicy) -> Result<Self> {
        let ProtoRetryPolicy {
            retry_on,
            num_retries,
            per_try_timeout,
            per_try_idle_timeout,
            retry_priority,
            retry_host_predicate,
            retry_options_predicates,
            host_selection_retry_max_attempts,
            retriable_status_codes,
            retry_back_off,
            rate_limited_retry_back_off,
            retriable_headers,
            retriable_request_headers,
            refresh_cluster_on_retry,
        } = message;
        refuse!(per_try_idle_timeout, retry_priority, retry_options_predicates, rate_limited_retry_back_off);
        refuse!(retriable_headers, retriable_request_headers, refresh_cluster_on_retry);
        let predicates = field::each(retry_host_predicate, "retry_host_predicate", previous_hosts)?;
        Ok(Self {
            retry_on: RetryOn::from_proto(&retry_on)?,
            num_retries: field::u32_or(num_retries, 1),
            per_try_timeout: timeout_or(per_try_timeout, None, "per_try_timeout")?,
            retriable_status_codes: field::each(retriable_status_codes, "retriable_status_codes", status_code)?,
            previous_hosts: !predicates.is_empty(),
            host_selection_retry_max_attempts: attempts(host_selection_retry_max_attempts)?,
            back_off: BackOff::from_proto(retry_back_off).within("retry_back_off")?,
        })
    }
}

/// The one predicate that there is: it has no settings, so that naming it twice is naming it once.
fn previous_hosts(message: RetryHostPredicate) -> Result<()> {
    let RetryHostPredicate { name: _, config_type } = message;
    let Some(ConfigType::TypedConfig(typed_config)) = config_type else { return Err(without_typed_config()) };
    let extension = Extension::new(typed_config)?;
    if !extension.is::<PreviousHostsPredicate>() {
        return Err(extension.unsupported());
    }
    extension.unpack::<PreviousHostsPredicate>().map(|PreviousHostsPredicate {}| ())
}

fn status_code(code: u32) -> Result<http::StatusCode> {
    let code = u16::try_from(code).ok().and_then(|code| http::StatusCode::from_u16(code).ok());
    code.ok_or_else(|| FieldError::new("", "not an HTTP status code"))
}

fn attempts(count: i64) -> Result<u32> {
    match u32::try_from(count) {
        Ok(0) => Ok(1),
        Ok(count) => Ok(count),
        Err(_) => Err(FieldError::new("host_selection_retry_max_attempts", format!("{count} is out of range"))),
    }
}

impl BackOff {
    fn from_proto(message: Option<RetryBackOff>) -> Result<Self> {
        let Some(RetryBackOff { base_interval, max_interval }) = message else { return Ok(Self::default()) };
        let base_interval = required(field::duration(base_interval, "base_interval")?, "base_interval")?;
        let max_interval = field::duration(max_interval, "max_interval")?;
        if max_interval.is_some_and(|max_interval| max_interval < base_interval) {
            return Err(FieldError::new("max_interval", "value must not be less than base_interval"));
        }
        let base_interval = base_interval.max(INTERVAL_MIN);
        let max_interval = max_interval.map_or(base_interval * MAX_INTERVAL_FACTOR, |bound| bound.max(INTERVAL_MIN));
        Ok(Self { base_interval, max_interval })
    }
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base_interval: BASE_INTERVAL, max_interval: BASE_INTERVAL * MAX_INTERVAL_FACTOR }
    }
}

impl RetryOn {
    /// Refuses the one condition that Envoy would act on and that is not known here.
    fn from_proto(list: &str) -> Result<Self> {
        if names(list).any(|name| name == "envoy-ratelimited") {
            return Err(FieldError::new("retry_on", "envoy-ratelimited is not supported"));
        }
        Ok(Self::parse(list))
    }

    /// A comma list, as `retry_on` and the request headers `x-envoy-retry-on` and `x-envoy-retry-grpc-on` have it. Envoy
    /// passes over names that it does not know, so that lists may be written for newer versions. `retriable-headers`
    /// and `http3-post-connect-failure` are passed over too: the first needs headers to be listed, which is refused, the
    /// second an HTTP/3 upstream.
    pub fn parse(list: &str) -> Self {
        let mut retry_on = Self::default();
        for name in names(list) {
            match name {
                "5xx" => retry_on.server_error = true,
                "gateway-error" => retry_on.gateway_error = true,
                "reset" => retry_on.reset = true,
                "reset-before-request" => retry_on.reset_before_request = true,
                "connect-failure" => retry_on.connect_failure = true,
                "retriable-4xx" => retry_on.retriable_4xx = true,
                "refused-stream" => retry_on.refused_stream = true,
                "retriable-status-codes" => retry_on.retriable_status_codes = true,
                "cancelled" => retry_on.grpc_cancelled = true,
                "deadline-exceeded" => retry_on.grpc_deadline_exceeded = true,
                "internal" => retry_on.grpc_internal = true,
                "resource-exhausted" => retry_on.grpc_resource_exhausted = true,
                "unavailable" => retry_on.grpc_unavailable = true,
                _ => {}
            }
        }
        retry_on
    }
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

#[cfg(test)]
mod tests;
