//! `envoy.extensions.filters.http.cors.v3.CorsPolicy`, and the same fields where virtual hosts and routes still have them.

use http::HeaderValue;
use weft_xds::pb::envoy::{
    config::route::v3::{CorsPolicy as ProtoRoutePolicy, cors_policy::EnabledSpecifier},
    extensions::filters::http::cors::v3::CorsPolicy as ProtoPolicy,
};

use crate::config::{
    field::{self, Result, Within as _},
    fraction::Fraction,
    matcher::StringMatcher,
};

/// What is not set is taken from the next less specific policy.
#[derive(Debug)]
pub struct CorsPolicy {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Option<HeaderValue>,
    pub allow_headers: Option<HeaderValue>,
    pub expose_headers: Option<HeaderValue>,
    pub max_age: Option<HeaderValue>,
    pub allow_credentials: Option<bool>,
    pub allow_private_network_access: Option<bool>,
    pub forward_not_matching_preflights: Option<bool>,
    pub enabled: Fraction,
    /// Counts origins, and does no more.
    pub shadow_enabled: Fraction,
}

impl CorsPolicy {
    pub(crate) fn from_proto(message: ProtoPolicy) -> Result<Self> {
        let ProtoPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        } = message;
        let fraction = |message: Option<_>, default, path| match message {
            None => Ok(default),
            Some(message) => Fraction::from_runtime(message).within(path),
        };
        Ok(Self {
            allow_origins: field::each(
                allow_origin_string_match,
                "allow_origin_string_match",
                StringMatcher::from_proto,
            )?,
            allow_methods: value(&allow_methods, "allow_methods")?,
            allow_headers: value(&allow_headers, "allow_headers")?,
            expose_headers: value(&expose_headers, "expose_headers")?,
            max_age: value(&max_age, "max_age")?,
            allow_credentials: allow_credentials.map(|wrapper| wrapper.value),
            allow_private_network_access: allow_private_network_access.map(|wrapper| wrapper.value),
            forward_not_matching_preflights: forward_not_matching_preflights.map(|wrapper| wrapper.value),
            enabled: fraction(filter_enabled, Fraction::ALWAYS, "filter_enabled")?,
            shadow_enabled: fraction(shadow_enabled, Fraction::NEVER, "shadow_enabled")?,
        })
    }

    pub(crate) fn from_route(message: ProtoRoutePolicy) -> Result<Self> {
        let ProtoRoutePolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
            enabled_specifier,
        } = message;
        Self::from_proto(ProtoPolicy {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled: enabled_specifier.map(|EnabledSpecifier::FilterEnabled(enabled)| enabled),
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        })
    }
}

fn value(text: &str, path: &str) -> Result<Option<HeaderValue>> {
    if text.is_empty() { Ok(None) } else { field::header_value(text, path).map(Some) }
}
