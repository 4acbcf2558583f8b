//! `envoy.extensions.filters.http.ratelimit.v3.RateLimit`: a service says which requests are too many.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{core::v3::ApiVersion, ratelimit::v3::RateLimitServiceConfig},
        extensions::filters::http::ratelimit::v3::{
            RateLimit as ProtoRateLimit, RateLimitPerRoute,
            rate_limit::XRateLimitHeadersRfcVersion,
            rate_limit_per_route::{OverrideOptions, VhRateLimitsOptions},
        },
        r#type::v3::HttpStatus,
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required},
    fraction::Fraction,
    grpc_service::GrpcTarget,
    header_mutation::AppendHeader,
    rate_limit::RateLimitEntry,
};

#[derive(Debug)]
pub struct RateLimit {
    pub domain: Arc<str>,
    pub stage: u32,
    pub callers: Callers,
    pub service: GrpcTarget,
    /// How often a request is refused that the service said nothing of.
    pub failure_denied: Fraction,
    pub status_on_error: StatusCode,
    pub limited_status: StatusCode,
    /// To gRPC callers: RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `x-ratelimit-limit` and the like.
    pub rate_limit_headers: bool,
    /// `x-envoy-ratelimited`.
    pub says_limited: bool,
    pub response_headers: Vec<AppendHeader>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    /// In the place of the routes'.
    pub entries: Vec<RateLimitEntry>,
    /// Behind the names of its counters.
    pub metadata_namespace: String,
}

/// Whose requests are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    All,
    Internal,
    External,
}

#[derive(Debug)]
pub struct RateLimitOverride {
    /// None: the filter's.
    pub domain: Option<Arc<str>>,
    pub virtual_host: VirtualHostLimits,
    /// In the place of the route's and the filter's.
    pub entries: Vec<RateLimitEntry>,
}

/// When the entries of the virtual host count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualHostLimits {
    WithoutOthers,
    Always,
    Never,
}

const TIMEOUT: Duration = Duration::from_millis(20);
const NAMESPACE: &str = "envoy.filters.http.ratelimit";

impl RateLimit {
    pub(super) fn from_proto(message: ProtoRateLimit) -> Result<Self> {
        let ProtoRateLimit {
            domain,
            stage,
            request_type,
            timeout,
            failure_mode_deny,
            rate_limited_as_resource_exhausted,
            rate_limit_service,
            enable_x_ratelimit_headers,
            disable_x_envoy_ratelimited_header,
            rate_limited_status,
            response_headers_to_add,
            status_on_error,
            stat_prefix,
            filter_enabled,
            filter_enforced,
            failure_mode_deny_percent,
            rate_limits,
            metadata_namespace,
            enable_retry_after_header,
        } = message;
        refuse!(stat_prefix, enable_retry_after_header);
        let RateLimitServiceConfig { grpc_service, transport_api_version } =
            required(rate_limit_service, "rate_limit_service")?;
        if field::enumeration::<ApiVersion>(transport_api_version, "rate_limit_service.transport_api_version")?
            != ApiVersion::V3
        {
            return Err(FieldError::new("rate_limit_service.transport_api_version", "only V3 is supported"));
        }
        let timeout = field::timeout_or(timeout, Some(TIMEOUT), "timeout")?;
        let service = required(grpc_service, "rate_limit_service.grpc_service")?;
        let service = GrpcTarget::from_proto(service, timeout).within("rate_limit_service.grpc_service")?;
        let version: XRateLimitHeadersRfcVersion =
            field::enumeration(enable_x_ratelimit_headers, "enable_x_ratelimit_headers")?;
        let share = |message: Option<_>, default, path| match message {
            None => Ok(default),
            Some(message) => Fraction::from_runtime(message).within(path),
        };
        let denied = if failure_mode_deny { Fraction::ALWAYS } else { Fraction::NEVER };
        Ok(Self {
            domain: domain.into(),
            stage,
            callers: match request_type.as_str() {
                "internal" => Callers::Internal,
                "external" => Callers::External,
                _ => Callers::All,
            },
            // The call is bounded by the filter's timeout, whatever the service's message says.
            service: GrpcTarget { timeout, ..service },
            failure_denied: share(failure_mode_deny_percent, denied, "failure_mode_deny_percent")?,
            status_on_error: status(status_on_error, StatusCode::INTERNAL_SERVER_ERROR),
            limited_status: status(rate_limited_status, StatusCode::TOO_MANY_REQUESTS),
            resource_exhausted: rate_limited_as_resource_exhausted,
            rate_limit_headers: version == XRateLimitHeadersRfcVersion::DraftVersion03,
            says_limited: !disable_x_envoy_ratelimited_header,
            response_headers: field::each(
                response_headers_to_add,
                "response_headers_to_add",
                AppendHeader::from_proto,
            )?,
            enabled: share(filter_enabled, Fraction::ALWAYS, "filter_enabled")?,
            enforced: share(filter_enforced, Fraction::ALWAYS, "filter_enforced")?,
            entries: field::each(rate_limits, "rate_limits", RateLimitEntry::of_filter)?,
            metadata_namespace: if metadata_namespace.is_empty() { NAMESPACE.to_owned() } else { metadata_namespace },
        })
    }
}

/// As Envoy: what is no error says the default all the same.
fn status(message: Option<HttpStatus>, default: StatusCode) -> StatusCode {
    let code = message.and_then(|message| u16::try_from(message.code).ok());
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    code.filter(|code| code.as_u16() >= 400).unwrap_or(default)
}

impl RateLimitOverride {
    pub(super) fn from_proto(message: RateLimitPerRoute) -> Result<Self> {
        let RateLimitPerRoute { vh_rate_limits, override_option, rate_limits, domain } = message;
        let option: OverrideOptions = field::enumeration(override_option, "override_option")?;
        field::unset(&(option as i32), "override_option")?;
        Ok(Self {
            domain: Some(domain).filter(|domain| !domain.is_empty()).map(Into::into),
            virtual_host: match field::enumeration(vh_rate_limits, "vh_rate_limits")? {
                VhRateLimitsOptions::Override => VirtualHostLimits::WithoutOthers,
                VhRateLimitsOptions::Include => VirtualHostLimits::Always,
                VhRateLimitsOptions::Ignore => VirtualHostLimits::Never,
            },
            entries: field::each(rate_limits, "rate_limits", RateLimitEntry::of_filter)?,
        })
    }
}
