//! `envoy.config.route.v3.RetryPolicy`: when a request is tried again, how often, how soon and where.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::{
            RetryPolicy as ProtoRetryPolicy,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
                RetryPriority, retry_host_predicate::ConfigType as HostConfig,
                retry_priority::ConfigType as PriorityConfig,
            },
        },
        extensions::retry::{
            host::{
                omit_canary_hosts::v3::OmitCanaryHostsPredicate, omit_host_metadata::v3::OmitHostMetadataConfig,
                previous_hosts::v3::PreviousHostsPredicate,
            },
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
};

use crate::config::{
    field::{self, Extension, Result, Within as _, refuse, required, timeout_or, without_typed_config},
    matcher::HeaderMatcher,
    metadata::{Fields, Metadata},
};

#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub retry_on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<http::StatusCode>,
    /// Of responses, with `retriable-headers`: any of them.
    pub retriable_headers: Vec<Arc<HeaderMatcher>>,
    /// Only requests that match any are retried. Empty: all.
    pub retriable_request_headers: Vec<Arc<HeaderMatcher>>,
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Nothing comes from the upstream, and nothing goes to it, for so long.
    pub per_try_idle_timeout: Option<Duration>,
    pub host_predicates: HostPredicates,
    /// `envoy.retry_priorities.previous_priorities`: each time that there were so many tries, their priorities are passed
    /// over from then on.
    pub previous_priorities_after: Option<u32>,
    /// How often another host is asked for when a predicate refuses one. Default 1.
    pub host_selection_retry_max_attempts: u32,
    pub back_off: BackOff,
}

/// Which hosts a later try does without.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostPredicates {
    /// Those that were tried.
    pub previous_hosts: bool,
    /// Those whose metadata calls them canaries.
    pub omit_canary: bool,
    /// Those whose metadata has all of these, for each of the predicates.
    pub omit_metadata: Vec<Fields>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// Default 25 ms.
    pub base_interval: Duration,
    /// Default ten times the base.
    pub max_interval: Duration,
}

/// A response may say when to come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// The first that is there, and not too far away, counts.
    pub reset_headers: Vec<(http::HeaderName, ResetFormat)>,
    /// Default 300 s.
    pub max_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    Seconds,
    UnixTimestamp,
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
    pub retriable_headers: bool,
    pub envoy_rate_limited: bool,
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
const RATE_LIMITED_MAX_INTERVAL: Duration = Duration::from_secs(300);

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
        refuse!(retry_options_predicates, refresh_cluster_on_retry);
        let matcher = |message| HeaderMatcher::from_proto(message).map(Arc::new);
        Ok(Self {
            retry_on: RetryOn::parse(&retry_on),
            retriable_headers: field::each(retriable_headers, "retriable_headers", matcher)?,
            retriable_request_headers: field::each(retriable_request_headers, "retriable_request_headers", matcher)?,
            rate_limited_back_off: rate_limited_retry_back_off
                .map(RateLimitedBackOff::from_proto)
                .transpose()
                .within("rate_limited_retry_back_off")?,
            num_retries: field::u32_or(num_retries, 1),
            per_try_timeout: timeout_or(per_try_timeout, None, "per_try_timeout")?,
            retriable_status_codes: field::each(retriable_status_codes, "retriable_status_codes", status_code)?,
            per_try_idle_timeout: timeout_or(per_try_idle_timeout, None, "per_try_idle_timeout")?,
            host_predicates: HostPredicates::from_proto(retry_host_predicate)?,
            previous_priorities_after: retry_priority.map(previous_priorities).transpose().within("retry_priority")?,
            host_selection_retry_max_attempts: attempts(host_selection_retry_max_attempts)?,
            back_off: BackOff::from_proto(retry_back_off).within("retry_back_off")?,
        })
    }
}

impl Default for RetryPolicy {
    /// Of a request that asks for retries where its route has none.
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            rate_limited_back_off: None,
            per_try_idle_timeout: None,
            host_predicates: HostPredicates::default(),
            previous_priorities_after: None,
            host_selection_retry_max_attempts: 1,
            back_off: BackOff::default(),
        }
    }
}

impl RateLimitedBackOff {
    fn from_proto(message: RateLimitedRetryBackOff) -> Result<Self> {
        let RateLimitedRetryBackOff { reset_headers, max_interval } = message;
        Ok(Self {
            reset_headers: field::each(reset_headers, "reset_headers", |ResetHeader { name, format }| {
                let name = http::HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| FieldError::new("name", "not a header name"))?;
                let format = match field::enumeration(format, "format")? {
                    ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                    ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
                };
                Ok((name, format))
            })?,
            max_interval: field::duration_or(max_interval, RATE_LIMITED_MAX_INTERVAL, "max_interval")?,
        })
    }
}

impl HostPredicates {
    fn from_proto(messages: Vec<RetryHostPredicate>) -> Result<Self> {
        let mut predicates = Self::default();
        for (index, message) in messages.into_iter().enumerate() {
            predicates.add(message).at("retry_host_predicate", index)?;
        }
        Ok(predicates)
    }

    /// But for metadata, naming one twice is naming it once.
    fn add(&mut self, message: RetryHostPredicate) -> Result<()> {
        let RetryHostPredicate { name: _, config_type } = message;
        let Some(HostConfig::TypedConfig(typed_config)) = config_type else { return Err(without_typed_config()) };
        let extension = Extension::new(typed_config)?;
        if extension.is::<PreviousHostsPredicate>() {
            let PreviousHostsPredicate {} = extension.unpack()?;
            self.previous_hosts = true;
        } else if extension.is::<OmitCanaryHostsPredicate>() {
            let OmitCanaryHostsPredicate {} = extension.unpack()?;
            self.omit_canary = true;
        } else if extension.is::<OmitHostMetadataConfig>() {
            let OmitHostMetadataConfig { metadata_match } = extension.unpack()?;
            // Without any metadata it is about no host.
            self.omit_metadata.extend(
                metadata_match.and_then(Metadata::load_balancing_criteria).filter(|criteria| !criteria.is_empty()),
            );
        } else {
            return Err(extension.unsupported());
        }
        Ok(())
    }

    pub fn are_any(&self) -> bool {
        self.previous_hosts || self.omit_canary || !self.omit_metadata.is_empty()
    }
}

fn previous_priorities(message: RetryPriority) -> Result<u32> {
    let RetryPriority { name: _, config_type } = message;
    let Some(PriorityConfig::TypedConfig(typed_config)) = config_type else { return Err(without_typed_config()) };
    let extension = Extension::new(typed_config)?;
    if !extension.is::<PreviousPrioritiesConfig>() {
        return Err(extension.unsupported());
    }
    let PreviousPrioritiesConfig { update_frequency } = extension.unpack()?;
    let out_of_range = |_| FieldError::new("typed_config.update_frequency", "value must be greater than 0");
    u32::try_from(update_frequency).map_err(out_of_range)
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
    /// What either asks for.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            server_error: self.server_error || other.server_error,
            gateway_error: self.gateway_error || other.gateway_error,
            reset: self.reset || other.reset,
            reset_before_request: self.reset_before_request || other.reset_before_request,
            connect_failure: self.connect_failure || other.connect_failure,
            retriable_4xx: self.retriable_4xx || other.retriable_4xx,
            refused_stream: self.refused_stream || other.refused_stream,
            retriable_status_codes: self.retriable_status_codes || other.retriable_status_codes,
            retriable_headers: self.retriable_headers || other.retriable_headers,
            envoy_rate_limited: self.envoy_rate_limited || other.envoy_rate_limited,
            grpc_cancelled: self.grpc_cancelled || other.grpc_cancelled,
            grpc_deadline_exceeded: self.grpc_deadline_exceeded || other.grpc_deadline_exceeded,
            grpc_internal: self.grpc_internal || other.grpc_internal,
            grpc_resource_exhausted: self.grpc_resource_exhausted || other.grpc_resource_exhausted,
            grpc_unavailable: self.grpc_unavailable || other.grpc_unavailable,
        }
    }

    /// Nothing but conditions of gRPC.
    pub fn is_grpc_alone(self) -> bool {
        let Self {
            grpc_cancelled,
            grpc_deadline_exceeded,
            grpc_internal,
            grpc_resource_exhausted,
            grpc_unavailable,
            ..
        } = self;
        let grpc = Self {
            grpc_cancelled,
            grpc_deadline_exceeded,
            grpc_internal,
            grpc_resource_exhausted,
            grpc_unavailable,
            ..Self::default()
        };
        self == grpc
    }

    /// A comma list, as `retry_on` and the request headers `x-envoy-retry-on` and `x-envoy-retry-grpc-on` have it. Envoy
    /// passes over names that it does not know, so that lists may be written for newer versions. `http3-post-connect-failure`
    /// is passed over too: it needs an HTTP/3 upstream.
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
                "retriable-headers" => retry_on.retriable_headers = true,
                "envoy-ratelimited" => retry_on.envoy_rate_limited = true,
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
