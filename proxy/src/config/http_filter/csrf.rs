//! `envoy.extensions.filters.http.csrf.v3.CsrfPolicy`: requests that change something come from pages of the same host.

use weft_xds::pb::envoy::extensions::filters::http::csrf::v3::CsrfPolicy as ProtoPolicy;

use crate::config::{
    field::{self, Result, Within as _, required},
    fraction::Fraction,
    matcher::StringMatcher,
};

#[derive(Debug)]
pub struct CsrfPolicy {
    pub enabled: Fraction,
    /// Counts, and refuses nothing.
    pub shadow_enabled: Fraction,
    /// Hosts with their ports that are as good as the request's own.
    pub additional_origins: Vec<StringMatcher>,
}

impl CsrfPolicy {
    pub(super) fn from_proto(message: ProtoPolicy) -> Result<Self> {
        let ProtoPolicy { filter_enabled, shadow_enabled, additional_origins } = message;
        Ok(Self {
            enabled: Fraction::from_runtime(required(filter_enabled, "filter_enabled")?).within("filter_enabled")?,
            shadow_enabled: match shadow_enabled {
                None => Fraction::NEVER,
                Some(share) => Fraction::from_runtime(share).within("shadow_enabled")?,
            },
            additional_origins: field::each(additional_origins, "additional_origins", StringMatcher::from_proto)?,
        })
    }
}
