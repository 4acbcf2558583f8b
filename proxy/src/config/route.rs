//! `envoy.config.route.v3.RouteConfiguration`: virtual hosts, their routes, and what a route does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use weft_xds::{
    FieldError, canonical,
    pb::envoy::config::route::v3::{
        CookieMatcher as ProtoCookieMatcher, DirectResponseAction, QueryParameterMatcher as ProtoQueryParameterMatcher,
        Route as ProtoRoute, RouteConfiguration, RouteMatch as ProtoRouteMatch, VirtualHost as ProtoVirtualHost,
        query_parameter_matcher::QueryParameterMatchSpecifier,
        route::Action,
        route_match::{GrpcRouteMatchOptions, PathSpecifier},
    },
};

pub(crate) use self::forward_action::check_weights;
pub use self::redirect::{Redirect, RedirectPath};
pub use crate::config::retry_policy::{BackOff, HostPredicates, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};
use crate::config::{
    data_source,
    field::{self, Result, Within as _, element, refuse, required, unsupported},
    fraction::Fraction,
    header_mutation::HeaderRules,
    http_filter::{CorsPolicy, RouteFilters},
    matcher::{self, HeaderMatcher, RegexRewrite, StringMatcher},
    metadata::Fields,
    upgrade::Upgrades,
};

mod forward_action;
mod hash_policy;
mod redirect;

pub use self::hash_policy::{HashCookie, HashPolicy, HashSource, HashedHeader};

#[derive(Debug)]
pub struct RouteTable {
    pub name: Arc<str>,
    pub hash: u64,
    /// A domain stands in at most one of them.
    pub virtual_hosts: Vec<VirtualHost>,
    pub ignore_port_in_host_matching: bool,
    /// Refuse the table when it names a cluster that does not exist.
    pub validate_clusters: bool,
    /// Taken from callers that are not ours.
    pub internal_only_headers: Vec<http::HeaderName>,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    /// Otherwise the most general place has the last word about a header.
    pub most_specific_header_mutations_wins: bool,
    /// Whether any response header is written with what the request said.
    pub has_response_formats: bool,
    pub filters: RouteFilters,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    /// Lower case: exact, `*suffix`, `prefix*` or `*`.
    pub domains: Vec<String>,
    /// First match wins.
    pub routes: Vec<Arc<Route>>,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
    pub cors: Option<CorsPolicy>,
}

#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub route_match: RouteMatch,
    pub action: RouteAction,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
}

#[derive(Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// Only meaningful for prefix and exact paths.
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    pub query_parameters: Vec<QueryParameterMatcher>,
    pub cookies: Vec<CookieMatcher>,
    /// How often it matches at all.
    pub share: Fraction,
    /// Content type `application/grpc` or `application/grpc+...`.
    pub grpc: bool,
}

#[derive(Debug)]
pub enum PathMatch {
    Prefix(String),
    Exact(String),
    /// Without a trailing slash; matches itself and what follows a slash.
    PathSeparatedPrefix(String),
    /// Matches the whole path, without the query.
    SafeRegex(regex::Regex),
}

#[derive(Debug)]
pub struct QueryParameterMatcher {
    pub name: String,
    pub value: QueryParameterValue,
}

#[derive(Debug)]
pub struct CookieMatcher {
    pub name: String,
    pub value: StringMatcher,
    pub invert_match: bool,
}

#[derive(Debug)]
pub enum QueryParameterValue {
    Present(bool),
    Match(StringMatcher),
}

#[derive(Debug)]
pub enum RouteAction {
    Forward(Box<ForwardAction>),
    Redirect(Box<Redirect>),
    DirectResponse(DirectResponse),
}

/// `RouteAction` of the message: forwards the request upstream.
#[derive(Debug)]
pub struct ForwardAction {
    pub cluster: ClusterSpecifier,
    pub cluster_not_found_response_code: http::StatusCode,
    /// Spans all tries. Default 15 s; None: never.
    pub timeout: Option<Duration>,
    /// None: the connection manager's `stream_idle_timeout` holds. Some(None): never.
    pub idle_timeout: Option<Option<Duration>>,
    /// Set, it takes the place of `timeout`.
    pub max_stream_duration: Option<MaxStreamDuration>,
    pub retry_policy: Option<RetryPolicy>,
    pub priority: RoutingPriority,
    pub hash_policy: Vec<HashPolicy>,
    /// What a host's metadata must have for load balancing: which subset of the cluster is meant.
    pub metadata_match: Option<Arc<Fields>>,
    pub path_rewrite: Option<PathRewrite>,
    pub host_rewrite: Option<HostRewrite>,
    /// Tells the former host where it is rewritten.
    pub append_x_forwarded_host: bool,
    pub upgrades: Upgrades,
    pub cors: Option<CorsPolicy>,
}

#[derive(Debug)]
pub enum PathRewrite {
    /// In the place of what the route matched.
    Prefix(String),
    /// Over the path without its query.
    Regex(RegexRewrite),
}

#[derive(Debug)]
pub enum HostRewrite {
    Literal(http::HeaderValue),
    /// The upstream host's name, where it has one.
    Auto,
    /// As a request header says.
    Header(http::HeaderName),
    /// Made of the path.
    PathRegex(RegexRewrite),
}

/// How long a request may take from its start to the end of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// None: the connection manager's. Zero: no bound.
    pub duration: Option<Duration>,
    /// Set, a given `grpc-timeout` counts, up to this. Zero: whatever it is.
    pub grpc_timeout_max: Option<Duration>,
    /// Taken from a given `grpc-timeout`, so that we notice before the caller does.
    pub grpc_timeout_offset: Duration,
}

#[derive(Debug)]
pub enum ClusterSpecifier {
    Cluster(Arc<str>),
    /// As a request header says.
    Header(http::HeaderName),
    /// Weights sum to at least 1.
    Weighted(Vec<WeightedCluster>),
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
    pub host_rewrite_literal: Option<http::HeaderValue>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingPriority {
    #[default]
    Default,
    High,
}

#[derive(Debug)]
pub struct DirectResponse {
    pub status: http::StatusCode,
    pub body: Bytes,
}

/// Of a direct response, where the table says nothing.
const DIRECT_RESPONSE_BODY_BYTES_MAX: u32 = 4096;

impl RouteTable {
    /// A table that came by itself (RDS): clusters that it names may come later.
    pub fn from_proto(message: RouteConfiguration) -> Result<Self> {
        let hash = canonical::hash(&message);
        let RouteConfiguration {
            name,
            virtual_hosts,
            vhds,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            most_specific_header_mutations_wins,
            validate_clusters,
            max_direct_response_body_size_bytes,
            cluster_specifier_plugins,
            request_mirror_policies,
            ignore_port_in_host_matching,
            vhost_header,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            metadata: _, // for extensions' eyes, and none reads it
            route_specifiers,
        } = message;
        refuse!(vhds, cluster_specifier_plugins, request_mirror_policies);
        refuse!(vhost_header, ignore_path_parameters_in_path_matching, route_specifiers);
        let limits = Limits {
            body_bytes_max: field::u32_or(max_direct_response_body_size_bytes, DIRECT_RESPONSE_BODY_BYTES_MAX),
        };
        let virtual_hosts =
            field::each(virtual_hosts, "virtual_hosts", |message| VirtualHost::from_proto(message, &limits))?;
        refuse_shared_domains(&virtual_hosts, &name)?;
        let response_headers =
            HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?;
        Ok(Self {
            has_response_formats: response_headers.reads_request()
                || virtual_hosts.iter().any(VirtualHost::has_response_formats),
            request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
            response_headers,
            most_specific_header_mutations_wins,
            internal_only_headers: field::each(internal_only_headers, "internal_only_headers", |name| {
                http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldError::new("", "not a header name"))
            })?,
            filters: RouteFilters::from_proto(typed_per_filter_config)?,
            name: name.into(),
            hash,
            virtual_hosts,
            ignore_port_in_host_matching,
            validate_clusters: field::bool_or(validate_clusters, false),
        })
    }

    /// A table that stands inside of a connection manager: unless told otherwise, the clusters that it names must exist.
    pub fn inline(message: RouteConfiguration) -> Result<Self> {
        let validate_clusters = field::bool_or(message.validate_clusters, true);
        Ok(Self { validate_clusters, ..Self::from_proto(message)? })
    }

    /// Every cluster that a route names, with the path of its field. Names may repeat.
    pub fn clusters(&self) -> impl Iterator<Item = (ClusterPath, &Arc<str>)> {
        self.virtual_hosts.iter().enumerate().flat_map(|(virtual_host, message)| {
            message.routes.iter().enumerate().flat_map(move |(route, message)| {
                let names: Vec<(Option<usize>, &Arc<str>)> = match &message.action {
                    RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => Vec::new(),
                    RouteAction::Forward(action) => match &action.cluster {
                        ClusterSpecifier::Header(_) => Vec::new(),
                        ClusterSpecifier::Cluster(name) => vec![(None, name)],
                        ClusterSpecifier::Weighted(clusters) => {
                            clusters.iter().enumerate().map(|(index, cluster)| (Some(index), &cluster.name)).collect()
                        }
                    },
                };
                names.into_iter().map(move |(weighted, name)| (ClusterPath { virtual_host, route, weighted }, name))
            })
        })
    }

    /// Refuses the first cluster that is not known, when the table asks for that.
    pub fn check_clusters(&self, is_known: impl Fn(&str) -> bool) -> Result<()> {
        if !self.validate_clusters {
            return Ok(());
        }
        match self.clusters().find(|(_, name)| !is_known(name)) {
            Some((path, name)) => Err(FieldError::new(path.to_string(), format!("unknown cluster '{name}'"))),
            None => Ok(()),
        }
    }
}

/// Where in a table a cluster is named; displayed as the path of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterPath {
    virtual_host: usize,
    route: usize,
    weighted: Option<usize>,
}

impl std::fmt::Display for ClusterPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "virtual_hosts[{}].routes[{}].route.", self.virtual_host, self.route)?;
        match self.weighted {
            Some(index) => write!(f, "weighted_clusters.clusters[{index}].name"),
            None => f.write_str("cluster"),
        }
    }
}

/// What the table sets for all of its routes.
struct Limits {
    body_bytes_max: u32,
}

/// A host that two virtual hosts claim would be answered by whichever stands first: an accident, as in Envoy.
fn refuse_shared_domains(virtual_hosts: &[VirtualHost], table: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for (host_index, virtual_host) in virtual_hosts.iter().enumerate() {
        for (index, domain) in virtual_host.domains.iter().enumerate() {
            if !seen.insert(domain.as_str()) {
                let reason = format!("domain '{domain}' stands in route table '{table}' already");
                return Err(FieldError::new(element("domains", index), reason)).at("virtual_hosts", host_index);
            }
        }
    }
    Ok(())
}

impl VirtualHost {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoVirtualHost, limits: &Limits) -> Result<Self> {
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
        refuse!(matcher, require_tls, virtual_clusters, rate_limits);
        refuse!(retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header);
        refuse!(per_request_buffer_limit_bytes, request_body_buffer_limit, request_mirror_policies, route_specifiers);
        let retry_policy = retry_policy.map(RetryPolicy::from_proto).transpose().within("retry_policy")?;
        Ok(Self {
            name: name.into(),
            domains: domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            routes: field::each(routes, "routes", |message| {
                Route::from_proto(message, retry_policy.as_ref(), limits).map(Arc::new)
            })?,
            include_request_attempt_count,
            include_attempt_count_in_response,
            request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
            response_headers: HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?,
            filters: RouteFilters::from_proto(typed_per_filter_config)?,
            cors: cors.map(CorsPolicy::from_route).transpose().within("cors")?,
        })
    }

    fn has_response_formats(&self) -> bool {
        self.response_headers.reads_request() || self.routes.iter().any(|route| route.has_response_formats())
    }
}

impl Route {
    /// `retry_policy` is the virtual host's: it holds for routes without one of their own.
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoRoute, retry_policy: Option<&RetryPolicy>, limits: &Limits) -> Result<Self> {
        let ProtoRoute {
            name,
            r#match,
            metadata: _,  // for extensions' eyes, and none reads it
            decorator: _, // names spans of a tracing that a connection manager is refused
            typed_per_filter_config,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            tracing: _, // as the decorator
            per_request_buffer_limit_bytes,
            stat_prefix,
            request_body_buffer_limit,
            route_specifiers,
            action,
        } = message;
        refuse!(per_request_buffer_limit_bytes, stat_prefix, request_body_buffer_limit, route_specifiers);
        let action = match required(action, "action")? {
            Action::Route(message) => {
                RouteAction::Forward(Box::new(ForwardAction::from_proto(message, retry_policy).within("route")?))
            }
            Action::DirectResponse(message) => {
                RouteAction::DirectResponse(DirectResponse::from_proto(message, limits).within("direct_response")?)
            }
            Action::Redirect(message) => {
                RouteAction::Redirect(Box::new(Redirect::from_proto(message).within("redirect")?))
            }
            Action::FilterAction(_) => return Err(unsupported("filter_action")),
            Action::NonForwardingAction(_) => return Err(unsupported("non_forwarding_action")),
        };
        Ok(Self {
            name: name.into(),
            route_match: RouteMatch::from_proto(required(r#match, "match")?).within("match")?,
            action,
            request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
            response_headers: HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?,
            filters: RouteFilters::from_proto(typed_per_filter_config)?,
        })
    }

    fn has_response_formats(&self) -> bool {
        let of_clusters = match &self.action {
            RouteAction::Forward(action) => match &action.cluster {
                ClusterSpecifier::Weighted(clusters) => {
                    clusters.iter().any(|cluster| cluster.response_headers.reads_request())
                }
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => false,
            },
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => false,
        };
        of_clusters || self.response_headers.reads_request()
    }
}

impl RouteMatch {
    fn from_proto(message: ProtoRouteMatch) -> Result<Self> {
        let ProtoRouteMatch {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = message;
        refuse!(tls_context, dynamic_metadata, filter_state);
        Ok(Self {
            path: path_match(required(path_specifier, "path_specifier")?)?,
            case_sensitive: field::bool_or(case_sensitive, true),
            headers: field::each(headers, "headers", HeaderMatcher::from_proto)?,
            query_parameters: field::each(query_parameters, "query_parameters", QueryParameterMatcher::from_proto)?,
            cookies: field::each(cookies, "cookies", CookieMatcher::from_proto)?,
            share: match runtime_fraction {
                None => Fraction::ALWAYS,
                Some(share) => Fraction::from_runtime(share).within("runtime_fraction")?,
            },
            grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
        })
    }
}

fn path_match(specifier: PathSpecifier) -> Result<PathMatch> {
    Ok(match specifier {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix),
        PathSpecifier::Path(path) => PathMatch::Exact(path),
        PathSpecifier::PathSeparatedPrefix(prefix) => PathMatch::PathSeparatedPrefix(prefix),
        PathSpecifier::SafeRegex(message) => PathMatch::SafeRegex(matcher::regex(message).within("safe_regex")?),
        PathSpecifier::ConnectMatcher(_) => return Err(unsupported("connect_matcher")),
        PathSpecifier::PathMatchPolicy(_) => return Err(unsupported("path_match_policy")),
    })
}

impl QueryParameterMatcher {
    fn from_proto(message: ProtoQueryParameterMatcher) -> Result<Self> {
        let ProtoQueryParameterMatcher { name, query_parameter_match_specifier } = message;
        let value = match query_parameter_match_specifier {
            None => QueryParameterValue::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryParameterValue::Present(present),
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                QueryParameterValue::Match(StringMatcher::from_proto(matcher).within("string_match")?)
            }
        };
        Ok(Self { name, value })
    }
}

impl CookieMatcher {
    fn from_proto(message: ProtoCookieMatcher) -> Result<Self> {
        let ProtoCookieMatcher { name, string_match, invert_match } = message;
        let value = StringMatcher::from_proto(required(string_match, "string_match")?).within("string_match")?;
        Ok(Self { name, value, invert_match })
    }
}

impl RoutingPriority {
    pub(crate) fn from_proto(priority: i32, path: &str) -> Result<Self> {
        use weft_xds::pb::envoy::config::core::v3::RoutingPriority as Proto;
        Ok(match field::enumeration(priority, path)? {
            Proto::Default => Self::Default,
            Proto::High => Self::High,
        })
    }
}

impl DirectResponse {
    fn from_proto(message: DirectResponseAction, limits: &Limits) -> Result<Self> {
        let DirectResponseAction { status, body, body_format } = message;
        refuse!(body_format);
        let body = body.map(data_source::read).transpose().within("body")?.unwrap_or_default();
        if body.len() > limits.body_bytes_max as usize {
            let reason = format!("body is {} bytes; maximum is {}", body.len(), limits.body_bytes_max);
            return Err(FieldError::new("body", reason));
        }
        let status = u16::try_from(status).ok().and_then(|status| http::StatusCode::from_u16(status).ok());
        Ok(Self {
            status: status.ok_or_else(|| FieldError::new("status", "not an HTTP status code"))?,
            body: Bytes::from(body),
        })
    }
}

#[cfg(test)]
mod tests;
