//! `envoy.config.cluster.v3.Cluster`: how a set of upstream hosts is found, chosen from and spoken to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::config::{endpoint::LoadAssignment, http_connection_manager::Http2Options, tls::UpstreamTls};

#[derive(Debug)]
pub struct ClusterConfig {
    pub name: Arc<str>,
    pub hash: u64,
    /// What stands in `envoy_cluster_name` of metrics: `alt_stat_name`, or the name.
    pub stat_name: Arc<str>,
    pub discovery: Discovery,
    /// Default 5 s.
    pub connect_timeout: Duration,
    pub lb_policy: LbPolicy,
    pub circuit_breakers: CircuitBreakerThresholds,
    pub high_priority_circuit_breakers: CircuitBreakerThresholds,
    pub protocol: UpstreamProtocol,
    /// Pooled connections without a request for this long are closed. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub per_connection_buffer_limit_bytes: u32,
    /// `upstream_bind_config`: the source address by family of the destination.
    pub bind_v4: Option<SocketAddr>,
    pub bind_v6: Option<SocketAddr>,
    pub transport_socket: Option<Arc<UpstreamTls>>,
}

#[derive(Debug)]
pub enum Discovery {
    Static(LoadAssignment),
    Eds { service_name: Arc<str>, initial_fetch_timeout: Option<Duration> },
    OriginalDst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbPolicy {
    RoundRobin,
    /// The better of `choice_count` (at least 2) hosts drawn at random.
    LeastRequest {
        choice_count: u32,
    },
    Random,
    /// Of `Discovery::OriginalDst`.
    ClusterProvided,
}

/// Defaults are Envoy's: 1024 each, 3 retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreakerThresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub track_remaining: bool,
}

impl Default for CircuitBreakerThresholds {
    fn default() -> Self {
        CircuitBreakerThresholds {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            track_remaining: false,
        }
    }
}

#[derive(Clone, Debug)]
pub enum UpstreamProtocol {
    Http1,
    Http2(Http2Options),
}
