//! `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`: so many requests in a time, for the pod as a whole or for
//! each connection. The bucket of tokens lives as long as the configuration that describes it.

use std::time::Duration;

use http::StatusCode;
use weft_xds::{
    FieldError,
    pb::envoy::{
        extensions::{
            common::ratelimit::v3::{VhRateLimitsOptions, XRateLimitHeadersRfcVersion},
            filters::http::local_ratelimit::v3::LocalRateLimit as ProtoLocalRateLimit,
        },
        r#type::v3::{HttpStatus, TokenBucket as ProtoTokenBucket},
    },
};

use crate::{
    config::{
        field::{self, Result, Within as _, refuse, required},
        fraction::Fraction,
        header_mutation::AppendHeader,
        token_bucket::TokenBucket as BucketSettings,
    },
    token_bucket::TokenBucket,
};

#[derive(Debug)]
pub struct LocalRateLimit {
    /// None: nothing is limited here; routes may have limits of their own.
    pub settings: Option<BucketSettings>,
    /// The pod's, where not every connection has its own.
    pub shared: Option<TokenBucket>,
    pub status: StatusCode,
    pub enabled: Fraction,
    pub enforced: Fraction,
    pub request_headers_when_not_enforced: Vec<AppendHeader>,
    pub response_headers: Vec<AppendHeader>,
    /// `x-ratelimit-limit` and the like.
    pub rate_limit_headers: bool,
    /// To gRPC callers: RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
}

const STATUS: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const FILL_INTERVAL_MIN: Duration = Duration::from_millis(50);

impl LocalRateLimit {
    pub(super) fn from_proto(message: ProtoLocalRateLimit) -> Result<Self> {
        let ProtoLocalRateLimit {
            stat_prefix: _, // counted with the connection manager
            status,
            token_bucket,
            filter_enabled,
            filter_enforced,
            request_headers_to_add_when_not_enforced,
            response_headers_to_add,
            descriptors,
            stage,
            local_rate_limit_per_downstream_connection,
            local_cluster_rate_limit,
            enable_x_ratelimit_headers,
            vh_rate_limits,
            always_consume_default_token_bucket: _, // the default bucket is the only one
            rate_limited_as_resource_exhausted,
            rate_limits,
            max_dynamic_descriptors: _, // there are no descriptors
            enable_retry_after_header,
        } = message;
        refuse!(descriptors, stage, local_cluster_rate_limit, rate_limits, enable_retry_after_header);
        // Only descriptors, which are refused, look at a virtual host's limits.
        let _: VhRateLimitsOptions = field::enumeration(vh_rate_limits, "vh_rate_limits")?;
        let version: XRateLimitHeadersRfcVersion =
            field::enumeration(enable_x_ratelimit_headers, "enable_x_ratelimit_headers")?;
        let settings = token_bucket.map(bucket).transpose().within("token_bucket")?;
        let share = |message: Option<_>, path| match message {
            None => Ok(Fraction::NEVER),
            Some(message) => Fraction::from_runtime(message).within(path),
        };
        Ok(Self {
            shared: settings.filter(|_| !local_rate_limit_per_downstream_connection).map(TokenBucket::new),
            settings,
            status: status.map_or(Ok(STATUS), limited_status).within("status")?,
            enabled: share(filter_enabled, "filter_enabled")?,
            enforced: share(filter_enforced, "filter_enforced")?,
            request_headers_when_not_enforced: field::each(
                request_headers_to_add_when_not_enforced,
                "request_headers_to_add_when_not_enforced",
                AppendHeader::from_proto,
            )?,
            response_headers: field::each(
                response_headers_to_add,
                "response_headers_to_add",
                AppendHeader::from_proto,
            )?,
            rate_limit_headers: version == XRateLimitHeadersRfcVersion::DraftVersion03,
            resource_exhausted: rate_limited_as_resource_exhausted,
        })
    }
}

/// As Envoy: what is no error says 429 all the same.
fn limited_status(message: HttpStatus) -> Result<StatusCode> {
    let HttpStatus { code } = message;
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    Ok(code.filter(|code| code.as_u16() >= 400).unwrap_or(STATUS))
}

fn bucket(message: ProtoTokenBucket) -> Result<BucketSettings> {
    let ProtoTokenBucket { max_tokens, tokens_per_fill, fill_interval } = message;
    let fill_interval = required(field::duration(fill_interval, "fill_interval")?, "fill_interval")?;
    if fill_interval < FILL_INTERVAL_MIN {
        return Err(FieldError::new("fill_interval", "local rate limit token bucket fill timer must be >= 50ms"));
    }
    Ok(BucketSettings { tokens_max: max_tokens, tokens_per_fill: field::u32_or(tokens_per_fill, 1), fill_interval })
}
