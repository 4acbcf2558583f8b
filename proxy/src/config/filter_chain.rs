//! `envoy.config.listener.v3.FilterChain`: which connections it takes and what it does with them.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::config::{http_connection_manager::HttpConnectionManager, tcp_proxy::TcpProxy, tls::DownstreamTls};

#[derive(Debug)]
pub struct FilterChain {
    pub name: Arc<str>,
    /// Of the chain's canonical bytes and the listener's fields that its connections depend on: a chain of equal hash
    /// keeps its connections over a listener update.
    pub hash: u64,
    pub filter_chain_match: FilterChainMatch,
    /// None: plain text (`raw_buffer`).
    pub transport_socket: Option<Arc<DownstreamTls>>,
    /// Bounds the TLS handshake. None: no bound.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// The one terminal network filter.
    pub network_filter: NetworkFilter,
}

#[derive(Clone, Debug)]
pub enum NetworkFilter {
    HttpConnectionManager(Arc<HttpConnectionManager>),
    TcpProxy(Arc<TcpProxy>),
}

/// Empty lists and `None` match anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub prefix_ranges: Vec<IpNet>,
    /// Lower case. A leading `*.` matches any deeper name by suffix; partial wildcards are refused.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<String>,
    pub application_protocols: Vec<String>,
    pub direct_source_prefix_ranges: Vec<IpNet>,
    pub source_type: SourceType,
    pub source_prefix_ranges: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    #[default]
    Any,
    /// From loopback, or from the address that it is sent to.
    SameIpOrLoopback,
    External,
}
