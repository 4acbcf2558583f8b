//! `envoy.config.route.v3.InternalRedirectPolicy`: redirects of upstreams that the proxy follows itself.

use http::{HeaderName, StatusCode};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{core::v3::TypedExtensionConfig, route::v3::InternalRedirectPolicy},
        extensions::internal_redirect::{
            allow_listed_routes::v3::AllowListedRoutesConfig, previous_routes::v3::PreviousRoutesConfig,
            safe_cross_scheme::v3::SafeCrossSchemeConfig,
        },
    },
};

use crate::config::field::{self, Extension, Result, required};

#[derive(Debug)]
pub struct InternalRedirects {
    /// How many one request may be sent on by.
    pub max: u32,
    pub statuses: Vec<StatusCode>,
    /// All must hold.
    pub predicates: Vec<RedirectPredicate>,
    /// From http to https and back.
    pub allows_cross_scheme: bool,
    /// What of the redirect goes into the request that follows it.
    pub response_headers_to_copy: Vec<HeaderName>,
}

#[derive(Debug)]
pub enum RedirectPredicate {
    /// To one of these routes, by name.
    AllowListedRoutes(Vec<String>),
    /// Not to a route that this one has sent the request to already.
    PreviousRoutes,
    /// Not from http to https.
    SafeCrossScheme,
}

const REDIRECTS_MAX: u32 = 1;

impl InternalRedirects {
    pub(super) fn from_proto(message: InternalRedirectPolicy) -> Result<Self> {
        let InternalRedirectPolicy {
            max_internal_redirects,
            redirect_response_codes,
            predicates,
            allow_cross_scheme_redirect,
            response_headers_to_copy,
        } = message;
        let mut statuses = Vec::new();
        for code in redirect_response_codes {
            // As Envoy: codes that are no redirects are overlooked.
            if matches!(code, 301 | 302 | 303 | 307 | 308) {
                statuses.extend(StatusCode::from_u16(code as u16));
            }
        }
        if statuses.is_empty() {
            statuses.push(StatusCode::FOUND);
        }
        Ok(Self {
            max: field::u32_or(max_internal_redirects, REDIRECTS_MAX),
            statuses,
            predicates: field::each(predicates, "predicates", RedirectPredicate::from_proto)?,
            allows_cross_scheme: allow_cross_scheme_redirect,
            response_headers_to_copy: field::each(response_headers_to_copy, "response_headers_to_copy", |name| {
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldError::new("", "not a header name"))
            })?,
        })
    }
}

impl RedirectPredicate {
    fn from_proto(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message; // the type alone says which
        let extension = Extension::new(required(typed_config, "typed_config")?)?;
        if extension.is::<AllowListedRoutesConfig>() {
            let AllowListedRoutesConfig { allowed_route_names } = extension.unpack()?;
            return Ok(Self::AllowListedRoutes(allowed_route_names));
        }
        if extension.is::<PreviousRoutesConfig>() {
            return Ok(Self::PreviousRoutes);
        }
        if extension.is::<SafeCrossSchemeConfig>() {
            return Ok(Self::SafeCrossScheme);
        }
        Err(extension.unsupported())
    }
}
