//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::BackoffStrategy,
        extensions::filters::network::tcp_proxy::v3::{
            ProxyProtocolTlvMergePolicy, TcpProxy as ProtoTcpProxy, UpstreamConnectMode,
            tcp_proxy::{
                ClusterSpecifier, TcpAccessLogOptions, TunnelingConfig, WeightedCluster as ProtoWeightedCluster,
                weighted_cluster::ClusterWeight,
            },
        },
        r#type::v3::{
            HashPolicy, Percent,
            hash_policy::{PolicySpecifier, SourceIp},
        },
    },
};

use crate::config::{
    access_log::AccessLog,
    field::{self, Result, Within as _, positive_duration, refuse, required, timeout_or, unsupported},
    header_mutation::AppendHeader,
    proxy_protocol::Tlv,
    retry_policy::BackOff,
    route,
    substitution::SubstitutionFormat,
};

#[derive(Debug)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    pub cluster: TcpCluster,
    /// No byte in either direction for this long ends the connection. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_downstream_connection_duration: Option<Duration>,
    /// How much longer than that, by chance, at most: a fraction of it.
    pub max_downstream_connection_duration_jitter: f64,
    /// At least 1.
    pub max_connect_attempts: u32,
    /// Between attempts. None: at once.
    pub back_off: Option<BackOff>,
    /// Ring hash and maglev go by the address that a connection comes from.
    pub hashes_source_ip: bool,
    /// When the upstream is dialled.
    pub connect_on: ConnectOn,
    /// How much of what the downstream says is taken before the upstream is connected. None: nothing.
    pub early_data_bytes_max: Option<usize>,
    /// Draining closes a connection once it has nothing to write.
    pub closes_on_drain: bool,
    /// Connections go on as requests. None: as they are.
    pub tunneling: Option<Tunneling>,
    /// For an upstream that is spoken to in the PROXY protocol.
    pub proxy_protocol_tlvs: Vec<Tlv>,
    pub proxy_protocol_tlv_merge: TlvMerge,
    pub access_log: Vec<AccessLog>,
    pub access_log_options: AccessLogOptions,
}

#[derive(Debug)]
pub struct Tunneling {
    /// What is asked for: usually host and port.
    pub hostname: SubstitutionFormat,
    /// By a POST to it; None: by CONNECT.
    pub post_path: Option<http::uri::PathAndQuery>,
    pub headers: Vec<AppendHeader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOn {
    /// Once the downstream is connected, and secured where it is.
    Connection,
    /// Once the downstream has said something.
    FirstBytes,
}

/// What becomes of configured extensions where a header came from downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvMerge {
    AddIfAbsent,
    OverwriteByType,
    Append,
}

/// Lines besides the one at a connection's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessLogOptions {
    pub flush_interval: Option<Duration>,
    pub flush_on_connected: bool,
    pub flush_on_start: bool,
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
    #[expect(deprecated, reason = "older spellings that control planes still send, and fields named to be refused")]
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
        refuse!(on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout);
        let early_data_bytes_max = max_early_data_bytes.map(|wrapper| wrapper.value as usize);
        let connect_on = match field::enumeration(upstream_connect_mode, "upstream_connect_mode")? {
            UpstreamConnectMode::Immediate => ConnectOn::Connection,
            _ if early_data_bytes_max.is_none() => {
                let reason = "value is required where upstream_connect_mode is not IMMEDIATE";
                return Err(FieldError::new("max_early_data_bytes", reason));
            }
            UpstreamConnectMode::OnDownstreamData => ConnectOn::FirstBytes,
            // A chain's filter gets a connection only when its handshake is done.
            UpstreamConnectMode::OnDownstreamTlsHandshake => ConnectOn::Connection,
        };
        let access_log_options = AccessLogOptions::from_proto(
            access_log_options.unwrap_or_default(),
            (access_log_flush_interval, flush_access_log_on_connected),
        )?;
        Ok(Self {
            stat_prefix: stat_prefix.into(),
            cluster: TcpCluster::from_proto(required(cluster_specifier, "cluster_specifier")?)?,
            idle_timeout: timeout_or(idle_timeout, Some(IDLE_TIMEOUT), "idle_timeout")?,
            max_downstream_connection_duration: positive_duration(
                max_downstream_connection_duration,
                "max_downstream_connection_duration",
            )?,
            max_downstream_connection_duration_jitter: max_downstream_connection_duration_jitter_percentage
                .map_or(0.0, |Percent { value }| value / 100.0),
            max_connect_attempts: field::u32_or(max_connect_attempts, 1).max(1),
            back_off: backoff_options.map(back_off).transpose().within("backoff_options")?,
            hashes_source_ip: hashes_source_ip(hash_policy)?,
            connect_on,
            early_data_bytes_max,
            closes_on_drain: field::bool_or(check_drain_close, false),
            tunneling: tunneling_config.map(Tunneling::from_proto).transpose().within("tunneling_config")?,
            proxy_protocol_tlvs: field::each(proxy_protocol_tlvs, "proxy_protocol_tlvs", Tlv::from_proto)?,
            proxy_protocol_tlv_merge: match field::enumeration(
                proxy_protocol_tlv_merge_policy,
                "proxy_protocol_tlv_merge_policy",
            )? {
                ProxyProtocolTlvMergePolicy::AddIfAbsent => TlvMerge::AddIfAbsent,
                ProxyProtocolTlvMergePolicy::OverwriteByTypeIfExistsOrAdd => TlvMerge::OverwriteByType,
                ProxyProtocolTlvMergePolicy::AppendIfExistsOrAdd => TlvMerge::Append,
            },
            access_log_options,
            access_log: field::each(access_log, "access_log", AccessLog::from_proto)?,
        })
    }
}

impl Tunneling {
    fn from_proto(message: TunnelingConfig) -> Result<Self> {
        let TunnelingConfig {
            hostname,
            use_post,
            headers_to_add,
            propagate_response_headers,
            post_path,
            propagate_response_trailers,
            request_id_extension,
            request_id_header,
            request_id_metadata_key,
            formatters,
        } = message;
        refuse!(propagate_response_headers, propagate_response_trailers, request_id_extension, request_id_header);
        refuse!(request_id_metadata_key, formatters);
        let post_path = match (use_post, &*post_path) {
            (true, path) => {
                let path = if path.is_empty() { "/" } else { path };
                Some(path.parse().map_err(|_| FieldError::new("post_path", "not a path"))?)
            }
            (false, "") => None,
            (false, _) => return Err(FieldError::new("post_path", "needs use_post")),
        };
        Ok(Self {
            hostname: SubstitutionFormat::text(&hostname).within("hostname")?,
            post_path,
            headers: field::each(headers_to_add, "headers_to_add", AppendHeader::from_proto)?,
        })
    }
}

fn hashes_source_ip(policies: Vec<HashPolicy>) -> Result<bool> {
    // One at most, by the rules of the message.
    let sources = field::each(policies, "hash_policy", |HashPolicy { policy_specifier }| match policy_specifier {
        Some(PolicySpecifier::SourceIp(SourceIp {})) => Ok(true),
        Some(PolicySpecifier::FilterState(_)) => Err(unsupported("filter_state")),
        None => Ok(false),
    })?;
    Ok(sources.contains(&true))
}

/// At most ten times the base by default.
fn back_off(message: BackoffStrategy) -> Result<BackOff> {
    let BackoffStrategy { base_interval, max_interval } = message;
    let base_interval = required(positive_duration(base_interval, "base_interval")?, "base_interval")?;
    let max_interval = positive_duration(max_interval, "max_interval")?.unwrap_or(base_interval.saturating_mul(10));
    if max_interval < base_interval {
        return Err(FieldError::new("max_interval", "value must not be less than base_interval"));
    }
    Ok(BackOff { base_interval, max_interval })
}

impl AccessLogOptions {
    /// `older`: the deprecated fields, passed over where the message says the same.
    fn from_proto(
        message: TcpAccessLogOptions,
        older: (Option<weft_xds::pb::google::protobuf::Duration>, bool),
    ) -> Result<Self> {
        let TcpAccessLogOptions { access_log_flush_interval, flush_access_log_on_connected, flush_access_log_on_start } =
            message;
        let older_interval = positive_duration(older.0, "access_log_flush_interval")?;
        let interval = positive_duration(access_log_flush_interval, "access_log_flush_interval");
        Ok(Self {
            flush_interval: interval.within("access_log_options")?.or(older_interval),
            flush_on_connected: flush_access_log_on_connected || older.1,
            flush_on_start: flush_access_log_on_start,
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
