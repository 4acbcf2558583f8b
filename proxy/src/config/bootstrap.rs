//! `envoy.config.bootstrap.v3.Bootstrap`: who this proxy is, what it starts with, and where more comes from.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weft_xds::pb::envoy::config::core::v3::Node;

use crate::config::{cluster::ClusterConfig, listener::Listener};

#[derive(Debug)]
pub struct Bootstrap {
    /// Sent with the first request of each xDS stream.
    pub node: Node,
    /// None: no admin server.
    pub admin: Option<SocketAddr>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<ClusterConfig>>,
    pub ads: Option<AdsConfig>,
    /// Listeners come by ADS.
    pub lds: Option<DiscoverySource>,
    /// Clusters come by ADS.
    pub cds: Option<DiscoverySource>,
}

#[derive(Clone, Debug)]
pub struct AdsConfig {
    /// A static cluster of this bootstrap.
    pub cluster_name: Arc<str>,
    pub set_node_on_first_message_only: bool,
}

#[derive(Clone, Debug)]
pub struct DiscoverySource {
    /// Default 15 s; None: wait for ever.
    pub initial_fetch_timeout: Option<Duration>,
}
