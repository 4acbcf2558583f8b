//! `envoy.config.route.v3.VirtualHost`: the routes of some hosts, and what holds for all of them.

use std::{ops::Range, sync::Arc};

use weft_xds::{
    FieldError,
    pb::{
        envoy::config::route::v3::{
            Route as ProtoRoute, RouteList, VirtualHost as ProtoVirtualHost, virtual_host::TlsRequirementType,
        },
        google::protobuf::{UInt32Value, UInt64Value},
        xds::r#type::matcher::v3::Matcher,
    },
};

use super::{Limits, RetryPolicy, Route};
use crate::config::{
    field::{self, Extension, Result, Within as _, refuse},
    header_mutation::HeaderRules,
    http_filter::{CorsPolicy, RouteFilters},
    match_tree::MatchTree,
    mirror::MirrorPolicy,
    rate_limit::RateLimitEntry,
};

#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    /// Lower case: exact, `*suffix`, `prefix*` or `*`.
    pub domains: Vec<String>,
    /// First match wins, where there is no tree.
    pub routes: Vec<Arc<Route>>,
    /// Leads to ranges of the routes.
    pub matcher: Option<MatchTree<Range<usize>>>,
    pub tls_requirement: TlsRequirement,
    /// Where those are sent whom the requirement refuses: the last of the routes, which no request matches by itself.
    pub tls_redirect: Option<usize>,
    /// None: the connection's.
    pub buffer_limit: Option<BufferLimit>,
    /// For routes that say nothing. Empty: the table says.
    pub mirrors: Arc<[MirrorPolicy]>,
    pub rate_limits: Vec<RateLimitEntry>,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
    pub cors: Option<CorsPolicy>,
}

/// Who is sent to `https` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRequirement {
    Nobody,
    /// Callers from outside.
    External,
    Everybody,
}

/// How much of a request's body is kept for other tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferLimit {
    /// But no more than the connection may keep.
    AtMost(u32),
    Exactly(u64),
}

impl BufferLimit {
    pub(super) fn from_proto(at_most: Option<UInt32Value>, exactly: Option<UInt64Value>) -> Result<Option<Self>> {
        match (at_most, exactly) {
            (Some(_), Some(_)) => {
                let reason = "only one of per_request_buffer_limit_bytes and request_body_buffer_limit may be set";
                Err(FieldError::new("request_body_buffer_limit", reason))
            }
            (Some(wrapper), None) => Ok(Some(Self::AtMost(wrapper.value))),
            (None, exactly) => Ok(exactly.map(|wrapper| Self::Exactly(wrapper.value))),
        }
    }

    pub fn bytes(self, connection_bytes_max: u32) -> usize {
        match self {
            Self::AtMost(bytes) => bytes.min(connection_bytes_max) as usize,
            Self::Exactly(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}

impl VirtualHost {
    #[expect(deprecated, reason = "named to be refused")]
    pub(super) fn from_proto(message: ProtoVirtualHost, limits: &Limits) -> Result<Self> {
        let ProtoVirtualHost {
            name,
            domains,
            routes,
            matcher,
            require_tls,
            virtual_clusters,
            rate_limits,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            cors,
            typed_per_filter_config,
            include_request_attempt_count,
            include_attempt_count_in_response,
            retry_policy,
            retry_policy_typed_config,
            hedge_policy,
            include_is_timeout_retry_header,
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
            request_mirror_policies,
            metadata: _, // for extensions' eyes, and none reads it
            route_specifiers,
        } = message;
        refuse!(virtual_clusters);
        refuse!(retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header, route_specifiers);
        let retry_policy = retry_policy.map(RetryPolicy::from_proto).transpose().within("retry_policy")?;
        let to_route = |message| Route::from_proto(message, retry_policy.as_ref(), limits).map(Arc::new);
        let mut routes = field::each(routes, "routes", to_route)?;
        let matcher = matcher.map(|message| matcher_of(message, &mut routes, &to_route)).transpose()?;
        let tls_requirement = match field::enumeration(require_tls, "require_tls")? {
            TlsRequirementType::None => TlsRequirement::Nobody,
            TlsRequirementType::ExternalOnly => TlsRequirement::External,
            TlsRequirementType::All => TlsRequirement::Everybody,
        };
        let tls_redirect = (tls_requirement != TlsRequirement::Nobody).then(|| {
            routes.push(Arc::new(Route::to_https()));
            routes.len() - 1
        });
        Ok(Self {
            name: name.into(),
            domains: domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            routes,
            matcher,
            tls_requirement,
            tls_redirect,
            buffer_limit: BufferLimit::from_proto(per_request_buffer_limit_bytes, request_body_buffer_limit)?,
            mirrors: MirrorPolicy::all_from_proto(request_mirror_policies)?,
            rate_limits: field::each(rate_limits, "rate_limits", RateLimitEntry::from_proto)?,
            include_request_attempt_count,
            include_attempt_count_in_response,
            request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
            response_headers: HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?,
            filters: RouteFilters::from_proto(typed_per_filter_config)?,
            cors: cors.map(CorsPolicy::from_route).transpose().within("cors")?,
        })
    }

    /// Those that requests are matched with one by one.
    pub fn matched_routes(&self) -> &[Arc<Route>] {
        if self.matcher.is_some() { &[] } else { &self.routes[..self.tls_redirect.unwrap_or(self.routes.len())] }
    }

    pub(super) fn has_response_formats(&self) -> bool {
        self.response_headers.reads_request() || self.routes.iter().any(|route| route.has_response_formats())
    }
}

/// The routes of its actions come behind those that are there.
fn matcher_of(
    message: Matcher,
    routes: &mut Vec<Arc<Route>>,
    to_route: &dyn Fn(ProtoRoute) -> Result<Arc<Route>>,
) -> Result<MatchTree<Range<usize>>> {
    if !routes.is_empty() {
        return Err(FieldError::new("matcher", "cannot be set together with routes"));
    }
    let mut to_action = |extension: &Extension| {
        let start = routes.len();
        if extension.is::<ProtoRoute>() {
            routes.push(to_route(extension.unpack()?).within("typed_config")?);
        } else if extension.is::<RouteList>() {
            let RouteList { routes: list } = extension.unpack()?;
            routes.extend(field::each(list, "typed_config.routes", to_route)?);
        } else {
            return Err(extension.unsupported());
        }
        Ok(start..routes.len())
    };
    MatchTree::from_proto(message, &mut to_action).within("matcher")
}
