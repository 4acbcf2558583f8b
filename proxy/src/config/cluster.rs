//! `envoy.config.cluster.v3.Cluster`: how a set of upstream hosts is found, chosen from and spoken to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weft_xds::{
    FieldError, canonical,
    pb::envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig,
                    common_lb_config::LocalityConfigSpecifier,
                },
            },
            core::v3::{TransportSocket, transport_socket},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::transport_sockets::{
            proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer, tls::v3::UpstreamTlsContext,
        },
    },
};

use self::{
    bind::BindAddresses,
    http_options::{HttpOptions, LegacyHttpOptions},
};
use crate::config::{
    config_source::DiscoverySource,
    endpoint::LoadAssignment,
    field::{
        self, Extension, Result, Within as _, positive_duration, refuse, required, unsupported, without_typed_config,
    },
    http_connection_manager::Http2Options,
    proxy_protocol::UpstreamProxyProtocol,
    route::RoutingPriority,
    tls::UpstreamTls,
};

mod bind;
mod http_options;
mod load_balancing;

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
    /// A header of the PROXY protocol goes before everything else on a connection.
    pub proxy_protocol: Option<UpstreamProxyProtocol>,
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
            dns_lookup_family: _, // no name is looked up: clusters that would are refused
            dns_resolvers,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            wait_for_warm_on_init,
            outlier_detection,
            cleanup_interval,
            upstream_bind_config,
            lb_subset_config,
            common_lb_config,
            transport_socket,
            metadata: _, // for extensions' eyes, and none reads it
            protocol_selection,
            upstream_connection_options,
            close_connections_on_host_health_failure,
            ignore_health_on_host_removal: _, // of active health checks, which are refused
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
        refuse!(transport_socket_matches, transport_socket_matcher, stats_matcher, health_checks);
        refuse!(per_connection_buffer_high_watermark_timeout, upstream_http_protocol_options, dns_refresh_rate);
        refuse!(dns_jitter, dns_failure_refresh_rate, respect_dns_ttl, dns_resolvers, use_tcp_for_dns_lookups);
        refuse!(dns_resolution_config, typed_dns_resolver_config, outlier_detection, cleanup_interval);
        refuse!(lb_subset_config, protocol_selection, close_connections_on_host_health_failure, filters, lrs_server);
        refuse!(lrs_report_endpoint_metrics, track_timeout_budgets, upstream_config, track_cluster_stats);
        refuse!(preconnect_policy, connection_pool_per_downstream_connection, queuing_policies);
        field::only(wait_for_warm_on_init, true, "wait_for_warm_on_init")?;
        refuse_common_lb_config(common_lb_config.unwrap_or_default()).within("common_lb_config")?;
        refuse_connection_options(upstream_connection_options.unwrap_or_default())
            .within("upstream_connection_options")?;

        let discovery = Discovery::from_proto(cluster_discovery_type, load_assignment, eds_cluster_config, &name)?;
        let lb_policy = LbPolicy::from_proto(lb_policy, lb_config, load_balancing_policy)?;
        lb_policy.check(&discovery)?;
        let http = HttpOptions::from_proto(
            typed_extension_protocol_options,
            LegacyHttpOptions {
                common: common_http_protocol_options,
                http1: http_protocol_options,
                http2: http2_protocol_options,
                max_requests_per_connection: field::limit(max_requests_per_connection),
            },
        )?;
        let bind =
            BindAddresses::from_proto(upstream_bind_config.unwrap_or_default()).within("upstream_bind_config")?;
        let transport_socket = Transport::from_proto(transport_socket).within("transport_socket")?;
        let breakers = Breakers::from_proto(circuit_breakers.unwrap_or_default()).within("circuit_breakers")?;
        Ok(Self {
            stat_name: if alt_stat_name.is_empty() { name.as_str().into() } else { alt_stat_name.into() },
            name: name.into(),
            hash,
            discovery,
            connect_timeout: positive_duration(connect_timeout, "connect_timeout")?.unwrap_or(CONNECT_TIMEOUT),
            lb_policy,
            circuit_breakers: breakers.default,
            high_priority_circuit_breakers: breakers.high,
            protocol: http.protocol,
            idle_timeout: http.idle_timeout,
            max_requests_per_connection: http.max_requests_per_connection,
            per_connection_buffer_limit_bytes: field::u32_or(
                per_connection_buffer_limit_bytes,
                PER_CONNECTION_BUFFER_LIMIT_BYTES,
            ),
            bind_v4: bind.v4,
            bind_v6: bind.v6,
            transport_socket: transport_socket.tls.map(Arc::new),
            proxy_protocol: transport_socket.proxy_protocol,
        })
    }
}

impl Discovery {
    fn from_proto(
        discovery_type: Option<ClusterDiscoveryType>,
        load_assignment: Option<ClusterLoadAssignment>,
        eds_cluster_config: Option<EdsClusterConfig>,
        cluster_name: &str,
    ) -> Result<Self> {
        let discovery_type = match discovery_type {
            None => DiscoveryType::Static,
            Some(ClusterDiscoveryType::Type(value)) => field::enumeration(value, "type")?,
            Some(ClusterDiscoveryType::ClusterType(_)) => return Err(unsupported("cluster_type")),
        };
        if discovery_type != DiscoveryType::Eds && eds_cluster_config.is_some() {
            return Err(FieldError::new("eds_cluster_config", "only for a cluster of type EDS"));
        }
        if discovery_type != DiscoveryType::Static && load_assignment.is_some() {
            return Err(FieldError::new("load_assignment", "only for a cluster of type STATIC"));
        }
        match discovery_type {
            DiscoveryType::Static => Ok(Self::Static(
                LoadAssignment::from_proto(load_assignment.unwrap_or_default()).within("load_assignment")?,
            )),
            DiscoveryType::Eds => {
                let message = required(eds_cluster_config, "eds_cluster_config")?;
                Self::eds(message, cluster_name).within("eds_cluster_config")
            }
            DiscoveryType::OriginalDst => Ok(Self::OriginalDst),
            DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
                Err(FieldError::new("type", format!("{} is not supported", discovery_type.as_str_name())))
            }
        }
    }

    fn eds(message: EdsClusterConfig, cluster_name: &str) -> Result<Self> {
        let EdsClusterConfig { eds_config, service_name } = message;
        let DiscoverySource { initial_fetch_timeout } =
            DiscoverySource::from_proto(required(eds_config, "eds_config")?).within("eds_config")?;
        let service_name = if service_name.is_empty() { cluster_name.into() } else { service_name.into() };
        Ok(Self::Eds { service_name, initial_fetch_timeout })
    }
}

/// The thresholds of both priorities.
struct Breakers {
    default: CircuitBreakerThresholds,
    high: CircuitBreakerThresholds,
}

impl Breakers {
    /// Of several thresholds for one priority the first holds, as in Envoy.
    fn from_proto(message: CircuitBreakers) -> Result<Self> {
        let CircuitBreakers { thresholds, per_host_thresholds } = message;
        refuse!(per_host_thresholds);
        let (mut default, mut high) = (None, None);
        for (index, message) in thresholds.into_iter().enumerate() {
            let (priority, thresholds) = priority_thresholds(message).at("thresholds", index)?;
            let slot = match priority {
                RoutingPriority::Default => &mut default,
                RoutingPriority::High => &mut high,
            };
            slot.get_or_insert(thresholds);
        }
        Ok(Self { default: default.unwrap_or_default(), high: high.unwrap_or_default() })
    }
}

fn priority_thresholds(message: Thresholds) -> Result<(RoutingPriority, CircuitBreakerThresholds)> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    refuse!(retry_budget, max_connection_pools);
    let default = CircuitBreakerThresholds::default();
    let thresholds = CircuitBreakerThresholds {
        max_connections: field::u32_or(max_connections, default.max_connections),
        max_pending_requests: field::u32_or(max_pending_requests, default.max_pending_requests),
        max_requests: field::u32_or(max_requests, default.max_requests),
        max_retries: field::u32_or(max_retries, default.max_retries),
        track_remaining,
    };
    Ok((RoutingPriority::from_proto(priority, "priority")?, thresholds))
}

fn refuse_common_lb_config(message: CommonLbConfig) -> Result<()> {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window: _, // how long Envoy gathers changes of weights and health; here each is taken at once
        ignore_new_hosts_until_first_hc: _, // of active health checks, which are refused
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = message;
    refuse!(healthy_panic_threshold, close_connections_on_host_set_change, consistent_hashing_lb_config);
    refuse!(override_host_status);
    match locality_config_specifier {
        None => Ok(()),
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => Err(unsupported("zone_aware_lb_config")),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Err(unsupported("locality_weighted_lb_config")),
    }
}

fn refuse_connection_options(message: UpstreamConnectionOptions) -> Result<()> {
    let UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config: _, // orders an endpoint's additional addresses, which are refused
    } = message;
    refuse!(tcp_keepalive, set_local_interface_name_on_upstream_connections);
    Ok(())
}

/// What stands between TCP and the bytes, outermost first.
struct Transport {
    proxy_protocol: Option<UpstreamProxyProtocol>,
    tls: Option<UpstreamTls>,
}

impl Transport {
    fn from_proto(message: Option<TransportSocket>) -> Result<Self> {
        let plain = Self { proxy_protocol: None, tls: None };
        let Some(TransportSocket { name: _, config_type }) = message else { return Ok(plain) };
        let Some(transport_socket::ConfigType::TypedConfig(typed_config)) = config_type else {
            return Err(without_typed_config());
        };
        let extension = Extension::new(typed_config)?;
        if extension.is::<UpstreamTlsContext>() {
            let tls = UpstreamTls::from_proto(extension.unpack()?).within("typed_config")?;
            Ok(Self { tls: Some(tls), ..plain })
        } else if extension.is::<RawBuffer>() {
            extension.unpack().map(|RawBuffer {}| plain)
        } else if extension.is::<ProxyProtocolUpstreamTransport>() {
            Self::behind_proxy_protocol(extension.unpack()?).within("typed_config")
        } else {
            Err(extension.unsupported())
        }
    }

    fn behind_proxy_protocol(message: ProxyProtocolUpstreamTransport) -> Result<Self> {
        let ProxyProtocolUpstreamTransport { config, transport_socket, allow_unspecified_address, tlv_as_pool_key: _ } =
            message; // connections are pooled by downstream, whose extensions are always the same
        refuse!(allow_unspecified_address);
        let proxy_protocol = UpstreamProxyProtocol::from_proto(config.unwrap_or_default()).within("config")?;
        let inner =
            Self::from_proto(Some(required(transport_socket, "transport_socket")?)).within("transport_socket")?;
        if inner.proxy_protocol.is_some() {
            return Err(FieldError::new("transport_socket", "one header of the PROXY protocol is enough"));
        }
        Ok(Self { proxy_protocol: Some(proxy_protocol), tls: inner.tls })
    }
}

#[cfg(test)]
mod tests;
