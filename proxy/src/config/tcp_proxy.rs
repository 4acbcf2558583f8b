//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use std::{sync::Arc, time::Duration};

use crate::config::{access_log::AccessLog, route::WeightedCluster};

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
