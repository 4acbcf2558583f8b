//! `envoy.config.cluster.v3.Cluster`: how a set of upstream hosts is found, chosen from and spoken to.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError, canonical,
    pb::envoy::config::{cluster::v3::Cluster, core},
};

use self::{
    discovery::HostFields,
    dns::LegacyDns,
    http_options::{HttpOptions, LegacyHttpOptions},
    load_balancing::LoadBalancingFields,
    transport::Transport,
};
use crate::config::{
    config_source::Discovered,
    field::{self, Result, Within as _, positive_duration, refuse},
    http_connection_manager::Http2Options,
    http_protocol::Http1UpstreamOptions,
    metadata::Metadata,
    proxy_protocol::UpstreamProxyProtocol,
    tls::UpstreamTls,
};

mod bind;
mod circuit_breakers;
mod connection;
mod discovery;
mod dns;
mod hashing;
mod health_check;
mod http_options;
mod load_balancing;
mod localities;
mod original_dst;
mod outlier_detection;
mod subsets;
mod transport;

pub(in crate::config) use self::outlier_detection::event_log_path;
pub use self::{
    bind::{SourceSocket, UpstreamBind},
    circuit_breakers::{CircuitBreakerConfig, CircuitBreakerThresholds, PerHostLimits, RetryBudget},
    connection::{ConnectionOptions, FirstAddresses, FirstFamily, Keepalive},
    discovery::Discovery,
    dns::{DnsDiscovery, DnsHosts, LookupFamily, ResolverConfig},
    hashing::{ConsistentHashing, HashFunction, MaglevConfig, RingHashConfig},
    health_check::{CheckIntervals, CheckKind, GrpcCheck, HealthCheck, HttpCheck, TcpCheck},
    load_balancing::{LbPolicy, LeastRequestConfig, LoadBalancing, SlowStart},
    localities::{LocalityPolicy, ZoneAware},
    original_dst::OriginalDst,
    outlier_detection::{Enforcing, FailurePercentage, OutlierDetection, SuccessRate},
    subsets::{Fallback, Selector, SelectorFallback, SubsetConfig},
    transport::TransportMatch,
};

#[derive(Debug)]
pub struct ClusterConfig {
    pub name: Arc<str>,
    pub hash: u64,
    /// It does not stand in the bootstrap.
    pub added_via_api: bool,
    /// What stands in `envoy_cluster_name` of metrics: `alt_stat_name`, or the name.
    pub stat_name: Arc<str>,
    pub discovery: Discovery,
    /// Default 5 s.
    pub connect_timeout: Duration,
    pub load_balancing: LoadBalancing,
    pub circuit_breakers: CircuitBreakerConfig,
    /// Goes live only once its hosts were looked up.
    pub wait_for_warm_on_init: bool,
    pub protocol: UpstreamProtocol,
    pub http1: Http1UpstreamOptions,
    /// None: 60 KiB over HTTP/2, 80 KiB over HTTP/1.
    pub max_response_headers_bytes: Option<u32>,
    /// Of responses; default 100.
    pub max_headers_count: u32,
    /// Pooled connections without a request for this long are closed. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub per_connection_buffer_limit_bytes: u32,
    /// None: as the cluster manager says for all.
    pub bind: Option<Arc<UpstreamBind>>,
    pub transport_socket: Option<Arc<UpstreamTls>>,
    /// Instead of it, for hosts whose metadata says so.
    pub transport_matches: Vec<TransportMatch>,
    /// HTTP's connections are each downstream's own.
    pub pool_per_downstream: bool,
    /// A header of the PROXY protocol goes before everything else on a connection.
    pub proxy_protocol: Option<UpstreamProxyProtocol>,
    pub connection: ConnectionOptions,
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    pub health_check: Option<Arc<HealthCheck>>,
    /// Hosts do not count before their first check.
    pub ignore_new_hosts_until_checked: bool,
    /// Hosts go when discovery drops them, though they pass their checks.
    pub ignore_health_on_host_removal: bool,
}

#[derive(Clone, Debug)]
pub enum UpstreamProtocol {
    Http1,
    Http2(Http2Options),
    /// Whichever of the two the request came by; the options are of connections by HTTP/2.
    AsDownstream(Http2Options),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PER_CONNECTION_BUFFER_LIMIT_BYTES: u32 = 1 << 20;

impl ClusterConfig {
    #[expect(deprecated, reason = "older spellings that control planes still send, and fields named to be refused")]
    pub fn from_proto(message: Cluster) -> Result<Self> {
        let hash = canonical::hash(&message);
        let Cluster {
            transport_socket_matches,
            transport_socket_matcher,
            name,
            alt_stat_name,
            stats_matcher,
            eds_cluster_config,
            connect_timeout,
            per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout,
            lb_policy,
            load_assignment,
            health_checks,
            max_requests_per_connection,
            circuit_breakers,
            upstream_http_protocol_options,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            typed_extension_protocol_options,
            dns_refresh_rate,
            dns_jitter,
            dns_failure_refresh_rate,
            respect_dns_ttl,
            dns_lookup_family,
            dns_resolvers,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            wait_for_warm_on_init,
            outlier_detection,
            cleanup_interval: _, // hosts that are no members go as soon as they have no connection
            upstream_bind_config,
            lb_subset_config,
            common_lb_config,
            transport_socket,
            metadata: _, // for extensions' eyes, and none reads it
            protocol_selection,
            upstream_connection_options,
            close_connections_on_host_health_failure,
            ignore_health_on_host_removal,
            filters,
            load_balancing_policy,
            lrs_server,
            lrs_report_endpoint_metrics,
            track_timeout_budgets,
            upstream_config,
            track_cluster_stats,
            preconnect_policy,
            connection_pool_per_downstream_connection,
            queuing_policies,
            cluster_discovery_type,
            lb_config,
        } = message;
        refuse!(transport_socket_matcher, stats_matcher);
        refuse!(per_connection_buffer_high_watermark_timeout, upstream_http_protocol_options);
        refuse!(protocol_selection, close_connections_on_host_health_failure, filters, lrs_server);
        refuse!(lrs_report_endpoint_metrics, track_timeout_budgets, upstream_config, track_cluster_stats);
        refuse!(preconnect_policy, queuing_policies);
        let common_lb_config = common_lb_config.unwrap_or_default();
        let ignore_new_hosts_until_checked = common_lb_config.ignore_new_hosts_until_first_hc;
        field::unset(
            &common_lb_config.close_connections_on_host_set_change,
            "common_lb_config.close_connections_on_host_set_change",
        )?;

        let dns = LegacyDns {
            refresh_rate: dns_refresh_rate,
            failure_refresh_rate: dns_failure_refresh_rate,
            respect_ttl: respect_dns_ttl,
            jitter: dns_jitter,
            lookup_family: dns_lookup_family,
            resolvers: dns_resolvers,
            use_tcp: use_tcp_for_dns_lookups,
            resolution: dns_resolution_config,
            typed_resolver: typed_dns_resolver_config,
        };
        let hosts = HostFields { discovery_type: cluster_discovery_type, load_assignment, eds_cluster_config, dns };
        let discovery = Discovery::from_proto(hosts, &name)?;
        let load_balancing = LoadBalancing::from_proto(LoadBalancingFields {
            lb_policy,
            lb_config,
            load_balancing_policy,
            common: common_lb_config,
            subsets: lb_subset_config,
        })?;
        discovery.check(&load_balancing)?;
        let http = HttpOptions::from_proto(
            typed_extension_protocol_options,
            LegacyHttpOptions {
                common: common_http_protocol_options,
                http1: http_protocol_options,
                http2: http2_protocol_options,
                max_requests_per_connection: field::limit(max_requests_per_connection),
            },
        )?;
        let health_check = health_check(health_checks, &http.protocol)?;
        let bind = upstream_bind_config.map(UpstreamBind::from_proto).transpose().within("upstream_bind_config")?;
        let transport_socket = Transport::from_proto(transport_socket).within("transport_socket")?;
        Ok(Self {
            stat_name: if alt_stat_name.is_empty() { name.as_str().into() } else { alt_stat_name.into() },
            name: name.into(),
            hash,
            added_via_api: true,
            discovery,
            connect_timeout: positive_duration(connect_timeout, "connect_timeout")?.unwrap_or(CONNECT_TIMEOUT),
            load_balancing,
            circuit_breakers: CircuitBreakerConfig::from_proto(circuit_breakers.unwrap_or_default())
                .within("circuit_breakers")?,
            wait_for_warm_on_init: field::bool_or(wait_for_warm_on_init, true),
            protocol: http.protocol,
            http1: http.http1,
            max_response_headers_bytes: http.max_response_headers_bytes,
            max_headers_count: http.max_headers_count,
            idle_timeout: http.idle_timeout,
            max_requests_per_connection: http.max_requests_per_connection,
            per_connection_buffer_limit_bytes: field::u32_or(
                per_connection_buffer_limit_bytes,
                PER_CONNECTION_BUFFER_LIMIT_BYTES,
            ),
            bind: bind.map(Arc::new),
            transport_matches: TransportMatch::list(transport_socket_matches)?,
            pool_per_downstream: connection_pool_per_downstream_connection,
            connection: ConnectionOptions::from_proto(upstream_connection_options.unwrap_or_default())
                .within("upstream_connection_options")?,
            health_check,
            ignore_new_hosts_until_checked,
            ignore_health_on_host_removal,
            outlier_detection: outlier_detection
                .map(OutlierDetection::from_proto)
                .transpose()
                .within("outlier_detection")?
                .map(Arc::new),
            transport_socket: transport_socket.tls.map(Arc::new),
            proxy_protocol: transport_socket.proxy_protocol,
        })
    }
}

impl ClusterConfig {
    /// Whether it is to look its hosts up, or check them, before it goes live.
    pub fn prepares_itself(&self) -> bool {
        self.wait_for_warm_on_init && (self.health_check.is_some() || matches!(self.discovery, Discovery::Dns(_)))
    }

    pub fn tls_contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.transport_socket.iter().chain(self.transport_matches.iter().filter_map(|found| found.tls.as_ref()))
    }

    /// What a host's metadata says instead of `transport_socket`.
    pub fn transport_match(&self, host: &Metadata) -> Option<&TransportMatch> {
        self.transport_matches.iter().find(|candidate| candidate.takes(host))
    }

    /// Of connections to this host. None: plain text.
    pub fn tls_to(&self, host: &Metadata) -> Option<&Arc<UpstreamTls>> {
        match self.transport_match(host) {
            Some(found) => found.tls.as_ref(),
            None => self.transport_socket.as_ref(),
        }
    }

    /// What comes apart from it and it waits for.
    pub fn discovered(&self) -> impl Iterator<Item = &Discovered> {
        let endpoints = match &self.discovery {
            Discovery::Eds(assignment) => Some(assignment),
            Discovery::Static(_) | Discovery::Dns(_) | Discovery::OriginalDst | Discovery::Aggregate(_) => None,
        };
        endpoints.into_iter().chain(self.tls_contexts().flat_map(|tls| tls.secrets()))
    }
}

fn health_check(messages: Vec<core::v3::HealthCheck>, protocol: &UpstreamProtocol) -> Result<Option<Arc<HealthCheck>>> {
    let mut messages = messages.into_iter();
    let first = messages.next().map(HealthCheck::from_proto).transpose().at("health_checks", 0)?;
    let is_http2 = matches!(protocol, UpstreamProtocol::Http2(_));
    if matches!(&first, Some(HealthCheck { kind: CheckKind::Grpc(_), .. })) && !is_http2 {
        let reason = "cluster must support HTTP/2 for gRPC healthchecking";
        return Err(FieldError::new("health_checks[0].grpc_health_check", reason));
    }
    match messages.next() {
        Some(_) => Err(FieldError::new("health_checks", "Multiple health checks not supported")),
        None => Ok(first.map(Arc::new)),
    }
}

#[cfg(test)]
mod tests;
