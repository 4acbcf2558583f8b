//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::{sync::Arc, time::Duration};

use weft_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy as ProtoTcpProxy,
    tcp_proxy::{ClusterSpecifier, WeightedCluster as ProtoWeightedCluster, weighted_cluster::ClusterWeight},
};

use crate::config::{
    access_log::AccessLog,
    field::{self, Result, Within as _, positive_duration, refuse, required, timeout_or},
    route,
};

#[derive(Debug)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    pub cluster: TcpCluster,
    /// No byte in either direction for this long ends the connection. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_downstream_connection_duration: Option<Duration>,
    /// At least 1.
    pub max_connect_attempts: u32,
    pub access_log: Vec<AccessLog>,
}

#[derive(Debug)]
pub enum TcpCluster {
    Single(Arc<str>),
    /// Weights sum to at least 1.
    Weighted(Vec<WeightedCluster>),
}

#[derive(Clone, Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

impl TcpProxy {
    #[expect(deprecated, reason = "named to be refused")]
    pub(crate) fn from_proto(message: ProtoTcpProxy) -> Result<Self> {
        let ProtoTcpProxy {
            stat_prefix,
            on_demand,
            metadata_match,
            idle_timeout,
            downstream_idle_timeout,
            upstream_idle_timeout,
            access_log,
            max_connect_attempts,
            backoff_options,
            hash_policy,
            tunneling_config,
            max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
            upstream_connect_mode,
            max_early_data_bytes,
            check_drain_close,
            cluster_specifier,
        } = message;
        refuse!(on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options);
        refuse!(hash_policy, tunneling_config, max_downstream_connection_duration_jitter_percentage);
        refuse!(access_log_flush_interval, flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs);
        refuse!(proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes);
        field::only(check_drain_close, false, "check_drain_close")?;
        Ok(Self {
            stat_prefix: stat_prefix.into(),
            cluster: TcpCluster::from_proto(required(cluster_specifier, "cluster_specifier")?)?,
            idle_timeout: timeout_or(idle_timeout, Some(IDLE_TIMEOUT), "idle_timeout")?,
            max_downstream_connection_duration: positive_duration(
                max_downstream_connection_duration,
                "max_downstream_connection_duration",
            )?,
            max_connect_attempts: field::u32_or(max_connect_attempts, 1).max(1),
            access_log: field::each(access_log, "access_log", AccessLog::from_proto)?,
        })
    }
}

impl TcpCluster {
    fn from_proto(specifier: ClusterSpecifier) -> Result<Self> {
        match specifier {
            ClusterSpecifier::Cluster(name) => Ok(Self::Single(name.into())),
            ClusterSpecifier::WeightedClusters(ProtoWeightedCluster { clusters }) => {
                let clusters = field::each(clusters, "clusters", cluster_weight).within("weighted_clusters")?;
                route::check_weights(clusters.iter().map(|cluster| cluster.weight)).within("weighted_clusters")?;
                Ok(Self::Weighted(clusters))
            }
        }
    }
}

fn cluster_weight(message: ClusterWeight) -> Result<WeightedCluster> {
    let ClusterWeight { name, weight, metadata_match } = message;
    refuse!(metadata_match);
    Ok(WeightedCluster { name: name.into(), weight })
}

#[cfg(test)]
mod tests;
