//! `envoy.config.route.v3.RouteConfiguration`: virtual hosts, their routes, and what a route does.

use std::{sync::Arc, time::Duration};

use crate::config::matcher::{HeaderMatcher, StringMatcher};

#[derive(Debug)]
pub struct RouteTable {
    pub name: Arc<str>,
    pub hash: u64,
    /// A domain stands in at most one of them.
    pub virtual_hosts: Vec<VirtualHost>,
    pub ignore_port_in_host_matching: bool,
    /// Refuse the table when it names a cluster that does not exist.
    pub validate_clusters: bool,
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
}

#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub route_match: RouteMatch,
    pub action: RouteAction,
}

#[derive(Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// Only meaningful for prefix and exact paths.
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    pub query_parameters: Vec<QueryParameterMatcher>,
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
pub enum QueryParameterValue {
    Present(bool),
    Match(StringMatcher),
}

#[derive(Debug)]
pub enum RouteAction {
    Forward(Box<ForwardAction>),
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
    pub retry_policy: Option<RetryPolicy>,
    pub priority: RoutingPriority,
    pub prefix_rewrite: Option<String>,
    pub host_rewrite_literal: Option<http::HeaderValue>,
}

#[derive(Debug)]
pub enum ClusterSpecifier {
    Cluster(Arc<str>),
    /// Weights sum to at least 1.
    Weighted(Vec<WeightedCluster>),
}

#[derive(Clone, Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
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
    pub body: bytes::Bytes,
}

#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub retry_on: RetryOn,
    pub num_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
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

/// One of them, as often as its weight says.
pub fn choose_weighted<'a>(clusters: &'a [WeightedCluster], random: &mut fastrand::Rng) -> &'a Arc<str> {
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    let mut left = random.u64(0..total.max(1));
    for cluster in clusters {
        let weight = u64::from(cluster.weight);
        if left < weight {
            return &cluster.name;
        }
        left -= weight;
    }
    unreachable!("what is drawn is less than the sum of the weights, which is at least 1")
}
