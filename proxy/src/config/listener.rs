//! `envoy.config.listener.v3.Listener`: where to listen, what to learn of a connection, which filter chains there are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::config::{access_log::AccessLog, filter_chain::FilterChain};

#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    /// Of the whole message's canonical bytes: equal hash, equal configuration.
    pub hash: u64,
    /// The first is `address`, the others `additional_addresses`. Never empty.
    pub addresses: Vec<ListenerAddress>,
    /// False: reached only by hand-off from a listener with `use_original_dst`.
    pub bind_to_port: bool,
    pub use_original_dst: bool,
    pub traffic_direction: TrafficDirection,
    /// What stands in `envoy_listener_*` metrics: `stat_prefix`, or the first address as Envoy writes it.
    pub stat_prefix: Arc<str>,
    pub tcp_backlog_size: u32,
    /// One socket a worker; false: one socket, accepted from by every worker.
    pub enable_reuse_port: bool,
    pub per_connection_buffer_limit_bytes: u32,
    pub listener_filters: Vec<ListenerFilter>,
    /// None: wait for ever.
    pub listener_filters_timeout: Option<Duration>,
    pub continue_on_listener_filters_timeout: bool,
    /// In the order of the message; names are unique where given.
    pub filter_chains: Vec<Arc<FilterChain>>,
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// For connections that no filter chain takes.
    pub access_log: Vec<AccessLog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerAddress {
    pub address: SocketAddr,
    /// An IPv6 wildcard that takes IPv4 as well.
    pub ipv4_compat: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerFilter {
    OriginalDst,
    TlsInspector,
    HttpInspector,
}
