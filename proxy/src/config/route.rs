//! `envoy.config.route.v3.RouteConfiguration`: virtual hosts, their routes, and what a route does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use weft_xds::{
    FieldError, canonical,
    pb::envoy::config::route::v3::{DirectResponseAction, Route as ProtoRoute, RouteConfiguration, route::Action},
};

pub(crate) use self::forward_action::check_weights;
pub use self::{
    hash_policy::{HashCookie, HashPolicy, HashSource, HashedHeader},
    internal_redirect::{InternalRedirects, RedirectPredicate},
    redirect::{Redirect, RedirectPath},
    route_match::{CookieMatcher, PathMatch, QueryParameterMatcher, QueryParameterValue, RouteMatch, TlsContextMatch},
    uri_template::{UriTemplate, UriTemplateRewrite},
    virtual_host::{BufferLimit, TlsRequirement, VirtualHost},
};
pub use crate::config::retry_policy::{BackOff, HostPredicates, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};
use crate::config::{
    data_source,
    field::{self, Result, Within as _, element, refuse, required, unsupported},
    header_mutation::HeaderRules,
    http_filter::{CorsPolicy, RouteFilters},
    match_tree::MatchTree,
    matcher::RegexRewrite,
    metadata::{Fields, Metadata},
    mirror::MirrorPolicy,
    rate_limit::RateLimitEntry,
    substitution::{Operator, SubstitutionFormat},
    upgrade::Upgrades,
};

mod forward_action;
mod hash_policy;
mod internal_redirect;
mod redirect;
mod route_match;
mod uri_template;
mod virtual_host;

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
    /// Names the virtual host in the place of the request's host.
    pub virtual_host_header: Option<http::HeaderName>,
    /// What stands behind a semicolon is no part of the path.
    pub ignore_path_parameters: bool,
    /// For virtual hosts and routes that say nothing.
    pub mirrors: Arc<[MirrorPolicy]>,
}

#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub route_match: RouteMatch,
    pub action: RouteAction,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
    pub metadata: Metadata,
    /// None: the virtual host's.
    pub buffer_limit: Option<BufferLimit>,
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
    /// Where copies go. Empty: the virtual host says.
    pub mirrors: Arc<[MirrorPolicy]>,
    pub rate_limits: Vec<RateLimitEntry>,
    /// The virtual host's count too.
    pub includes_host_rate_limits: bool,
    pub internal_redirects: Option<InternalRedirects>,
    /// How long the caller may take nothing of the response. None: as `idle_timeout`. Some(None): any time.
    pub flush_timeout: Option<Option<Duration>>,
    pub grpc_timeout: Option<GrpcTimeout>,
}

/// `max_grpc_timeout`: the `timeout` of gRPC requests is what they say themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// Zero: whatever it is.
    pub max: Duration,
    /// Taken from what they say.
    pub offset: Duration,
}

#[derive(Debug)]
pub enum PathRewrite {
    /// In the place of what the route matched.
    Prefix(String),
    /// Over the path without its query.
    Regex(RegexRewrite),
    /// Of what the route's template matched.
    Template(UriTemplateRewrite),
    /// In the place of the path without its query; nothing where it is empty.
    Format(Vec<Operator>),
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
    /// Where it is not empty.
    Format(Vec<Operator>),
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
    Weighted(WeightedClusters),
    /// As a match tree says.
    Matched(MatchTree<Arc<str>>),
}

#[derive(Debug)]
pub struct WeightedClusters {
    /// Weights sum to at least 1.
    pub clusters: Vec<WeightedCluster>,
    pub drawn_by: WeightedDraw,
}

/// What decides between weighted clusters.
#[derive(Debug)]
pub enum WeightedDraw {
    Random,
    /// The number in a request header, where it has one.
    Header(http::HeaderName),
    /// The hash of the route's policies, where the request has one.
    HashPolicy,
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub cluster: WeightedTarget,
    pub weight: u32,
    /// With what the route asks of a host; this one's have the last word.
    pub metadata_match: Option<Arc<Fields>>,
    pub request_headers: HeaderRules,
    pub response_headers: HeaderRules,
    pub filters: RouteFilters,
    pub host_rewrite_literal: Option<http::HeaderValue>,
}

#[derive(Debug)]
pub enum WeightedTarget {
    Named(Arc<str>),
    /// As a request header says.
    Header(http::HeaderName),
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
    /// What the body is written by instead.
    pub body_format: Option<SubstitutionFormat>,
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
        if vhds.is_some() {
            return Err(FieldError::new("vhds", "not supported: all virtual hosts of a table come with it"));
        }
        refuse!(route_specifiers);
        let plugins = forward_action::cluster_specifier_plugins(cluster_specifier_plugins)?;
        let limits = Limits {
            body_bytes_max: field::u32_or(max_direct_response_body_size_bytes, DIRECT_RESPONSE_BODY_BYTES_MAX),
            plugins,
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
            virtual_host_header: match vhost_header.as_str() {
                "" => None,
                name => Some(
                    http::HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| FieldError::new("vhost_header", "not a header name"))?,
                ),
            },
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
            mirrors: MirrorPolicy::all_from_proto(request_mirror_policies)?,
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
                let names = match &message.action {
                    RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => Vec::new(),
                    RouteAction::Forward(action) => action.named_clusters(),
                };
                names.into_iter().map(move |(field, name)| (ClusterPath { virtual_host, route, field }, name))
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
    field: ClusterField,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClusterField {
    Cluster,
    Weighted(usize),
    Mirror(usize),
}

impl std::fmt::Display for ClusterPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "virtual_hosts[{}].routes[{}].route.", self.virtual_host, self.route)?;
        match self.field {
            ClusterField::Cluster => f.write_str("cluster"),
            ClusterField::Weighted(index) => write!(f, "weighted_clusters.clusters[{index}].name"),
            ClusterField::Mirror(index) => write!(f, "request_mirror_policies[{index}].cluster"),
        }
    }
}

/// What the table sets for all of its routes.
struct Limits {
    body_bytes_max: u32,
    plugins: forward_action::ClusterPlugins,
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

impl Route {
    /// `retry_policy` is the virtual host's: it holds for routes without one of their own.
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoRoute, retry_policy: Option<&RetryPolicy>, limits: &Limits) -> Result<Self> {
        let ProtoRoute {
            name,
            r#match,
            metadata,
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
        refuse!(stat_prefix, route_specifiers);
        let action = required(action, "action")?;
        let route_match = RouteMatch::from_proto(required(r#match, "match")?).within("match")?;
        let action = match action {
            Action::Route(message) => RouteAction::Forward(Box::new(
                ForwardAction::from_proto(message, retry_policy, &route_match.path, limits).within("route")?,
            )),
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
            route_match,
            action,
            request_headers: HeaderRules::from_proto(request_headers_to_add, request_headers_to_remove, "request")?,
            response_headers: HeaderRules::from_proto(response_headers_to_add, response_headers_to_remove, "response")?,
            filters: RouteFilters::from_proto(typed_per_filter_config)?,
            metadata: metadata.map(Metadata::from_proto).unwrap_or_default(),
            buffer_limit: BufferLimit::from_proto(per_request_buffer_limit_bytes, request_body_buffer_limit)?,
        })
    }

    /// What stands in the place of all routes of a virtual host for those who have to come by TLS.
    fn to_https() -> Self {
        Self {
            name: Arc::default(),
            route_match: RouteMatch::of_prefix(String::new()),
            action: RouteAction::Redirect(Box::new(Redirect::to_https())),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            filters: RouteFilters::default(),
            metadata: Metadata::default(),
            buffer_limit: None,
        }
    }

    fn has_response_formats(&self) -> bool {
        let of_clusters = match &self.action {
            RouteAction::Forward(action) => match &action.cluster {
                ClusterSpecifier::Weighted(weighted) => {
                    weighted.clusters.iter().any(|cluster| cluster.response_headers.reads_request())
                }
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) | ClusterSpecifier::Matched(_) => false,
            },
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => false,
        };
        of_clusters || self.response_headers.reads_request()
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
        let body = body.map(data_source::read).transpose().within("body")?.unwrap_or_default();
        if body.len() > limits.body_bytes_max as usize {
            let reason = format!("body is {} bytes; maximum is {}", body.len(), limits.body_bytes_max);
            return Err(FieldError::new("body", reason));
        }
        let status = u16::try_from(status).ok().and_then(|status| http::StatusCode::from_u16(status).ok());
        Ok(Self {
            status: status.ok_or_else(|| FieldError::new("status", "not an HTTP status code"))?,
            body: Bytes::from(body),
            body_format: body_format.map(SubstitutionFormat::from_proto).transpose().within("body_format")?,
        })
    }
}

#[cfg(test)]
mod tests;
