//! `envoy.config.listener.v3.Listener`: where to listen, what to learn of a connection, which filter chains there are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weft_xds::{
    FieldError, canonical,
    pb::envoy::{
        config::{
            core::v3::TrafficDirection as ProtoTrafficDirection,
            listener::v3::{
                AdditionalAddress, FilterChain as ProtoFilterChain, Listener as ProtoListener,
                ListenerFilter as ProtoListenerFilter, listener_filter::ConfigType,
            },
        },
        extensions::filters::listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector,
        },
    },
};

use crate::config::{
    access_log::AccessLog,
    address::TcpAddress,
    config_source::Discovered,
    field::{
        self, Extension, Result, Within as _, element, refuse, required, timeout_or, unsupported, without_typed_config,
    },
    filter_chain::{self, FilterChain, FilterChainMatch, NetworkFilter},
    http_connection_manager::RouteSource,
    tls::DownstreamTls,
};

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
    /// In the order of the message. Names may repeat; matches do not overlap.
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

/// The kernel cuts what is asked for to `net.core.somaxconn`, so that this asks for just that.
const TCP_BACKLOG_SIZE: u32 = i32::MAX as u32;
const PER_CONNECTION_BUFFER_LIMIT_BYTES: u32 = 1 << 20;
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

impl Listener {
    #[expect(deprecated, reason = "named to be refused")]
    pub fn from_proto(message: ProtoListener) -> Result<Self> {
        let hash = canonical::hash(&message);
        let ProtoListener {
            name,
            address,
            additional_addresses,
            stat_prefix,
            stats_matcher,
            filter_chains,
            fcds_config,
            filter_chain_matcher,
            use_original_dst,
            default_filter_chain,
            per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout,
            metadata: _, // for extensions' eyes, and none reads it
            deprecated_v1,
            drain_type,
            listener_filters,
            listener_filters_timeout,
            continue_on_listener_filters_timeout,
            transparent,
            freebind,
            socket_options,
            tcp_fast_open_queue_length,
            traffic_direction,
            udp_listener_config,
            api_listener,
            connection_balance_config,
            reuse_port,
            enable_reuse_port,
            access_log,
            tcp_backlog_size,
            max_connections_to_accept_per_socket_event: _, // how an event loop shares its turns: no one sees it outside
            bind_to_port,
            enable_mptcp,
            ignore_global_conn_limit: _, // there is no such limit to be exempt from
            bypass_overload_manager: _,  // nor an overload manager: the bootstrap is refused one
            tcp_keepalive,
            listener_specifier,
        } = message;
        refuse!(stats_matcher, fcds_config, filter_chain_matcher, per_connection_buffer_high_watermark_timeout);
        refuse!(deprecated_v1, drain_type, socket_options, tcp_fast_open_queue_length, udp_listener_config);
        refuse!(api_listener, connection_balance_config, reuse_port, enable_mptcp, tcp_keepalive);
        field::only(transparent, false, "transparent")?;
        field::only(freebind, false, "freebind")?;
        field::unset(&listener_specifier, "internal_listener")?;

        let addresses = addresses(address, additional_addresses)?;
        let first = addresses.first().expect("the required address is the first").address;
        let traffic_direction = TrafficDirection::from_proto(traffic_direction)?;
        let buffer_limit_bytes = field::u32_or(per_connection_buffer_limit_bytes, PER_CONNECTION_BUFFER_LIMIT_BYTES);
        let seed = connection_seed(buffer_limit_bytes, traffic_direction);
        let chains = FilterChains::from_proto(filter_chains, default_filter_chain, seed)?;
        Ok(Self {
            // Envoy draws a random name; the address tells people more, and stays the same.
            name: if name.is_empty() { first.to_string().into() } else { name.into() },
            hash,
            addresses,
            bind_to_port: field::bool_or(bind_to_port, true),
            use_original_dst: field::bool_or(use_original_dst, false),
            traffic_direction,
            stat_prefix: if stat_prefix.is_empty() { stat_name(first).into() } else { stat_prefix.into() },
            tcp_backlog_size: field::u32_or(tcp_backlog_size, TCP_BACKLOG_SIZE).min(TCP_BACKLOG_SIZE),
            enable_reuse_port: field::bool_or(enable_reuse_port, true),
            per_connection_buffer_limit_bytes: buffer_limit_bytes,
            listener_filters: field::each(listener_filters, "listener_filters", ListenerFilter::from_proto)?,
            listener_filters_timeout: timeout_or(
                listener_filters_timeout,
                Some(LISTENER_FILTERS_TIMEOUT),
                "listener_filters_timeout",
            )?,
            continue_on_listener_filters_timeout,
            filter_chains: chains.matched,
            default_filter_chain: chains.default,
            access_log: field::each(access_log, "access_log", AccessLog::from_proto)?,
        })
    }

    /// Refuses the first cluster that is not known and that an inline route table asks to be. Clusters of tables that come
    /// by RDS, and of TCP proxies, may come later.
    pub fn check_clusters(&self, is_known: impl Fn(&str) -> bool) -> Result<()> {
        let matched =
            self.filter_chains.iter().enumerate().map(|(index, chain)| (element("filter_chains", index), chain));
        let default = self.default_filter_chain.iter().map(|chain| ("default_filter_chain".to_owned(), chain));
        for (path, chain) in matched.chain(default) {
            chain.check_clusters(&is_known).within(&path)?;
        }
        Ok(())
    }

    pub fn tls_contexts(&self) -> impl Iterator<Item = &Arc<DownstreamTls>> {
        self.all_filter_chains().filter_map(|chain| chain.transport_socket.as_ref())
    }

    /// What comes apart from it and it waits for.
    pub fn discovered(&self) -> impl Iterator<Item = &Discovered> {
        let tables = self.all_filter_chains().filter_map(|chain| match &chain.network_filter {
            NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
                RouteSource::Rds(table) => Some(table),
                RouteSource::Inline(_) => None,
            },
            NetworkFilter::TcpProxy(_) => None,
        });
        tables.chain(self.tls_contexts().flat_map(|tls| tls.secrets()))
    }

    /// Every chain, the default one last.
    pub fn all_filter_chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }
}

/// A chain whose connections would be carried otherwise is another chain.
fn connection_seed(per_connection_buffer_limit_bytes: u32, traffic_direction: TrafficDirection) -> u64 {
    u64::from(per_connection_buffer_limit_bytes) << 8 | traffic_direction as u64
}

/// As Envoy writes an address into the names of metrics.
fn stat_name(address: SocketAddr) -> String {
    address.to_string().replace(':', "_")
}

fn addresses(
    address: Option<weft_xds::pb::envoy::config::core::v3::Address>,
    additional_addresses: Vec<AdditionalAddress>,
) -> Result<Vec<ListenerAddress>> {
    let first = ListenerAddress::from_proto(required(address, "address")?).within("address")?;
    let others = field::each(additional_addresses, "additional_addresses", |message| {
        let AdditionalAddress { address, socket_options, tcp_keepalive } = message;
        refuse!(socket_options, tcp_keepalive);
        ListenerAddress::from_proto(required(address, "address")?).within("address")
    })?;
    Ok(std::iter::once(first).chain(others).collect())
}

impl ListenerAddress {
    fn from_proto(message: weft_xds::pb::envoy::config::core::v3::Address) -> Result<Self> {
        TcpAddress::from_proto(message).map(|TcpAddress { address, ipv4_compat }| Self { address, ipv4_compat })
    }
}

struct FilterChains {
    matched: Vec<Arc<FilterChain>>,
    default: Option<Arc<FilterChain>>,
}

impl FilterChains {
    fn from_proto(matched: Vec<ProtoFilterChain>, default: Option<ProtoFilterChain>, seed: u64) -> Result<Self> {
        if matched.is_empty() && default.is_none() {
            return Err(FieldError::new("filter_chains", "at least one filter chain is required"));
        }
        let chain = |message| FilterChain::from_proto(message, seed).map(Arc::new);
        let matched = field::each(matched, "filter_chains", chain)?;
        filter_chain::refuse_overlaps(matched.iter().map(|chain| &chain.filter_chain_match))?;
        let default = default.map(chain).transpose().within("default_filter_chain")?;
        if default.as_ref().is_some_and(|chain| chain.filter_chain_match != FilterChainMatch::default()) {
            // Envoy passes over it: it would look like a restriction and be none.
            let error = FieldError::new("filter_chain_match", "the default filter chain takes every connection left");
            return Err(error).within("default_filter_chain");
        }
        Ok(Self { matched, default })
    }
}

impl TrafficDirection {
    fn from_proto(direction: i32) -> Result<Self> {
        Ok(match field::enumeration(direction, "traffic_direction")? {
            ProtoTrafficDirection::Unspecified => Self::Unspecified,
            ProtoTrafficDirection::Inbound => Self::Inbound,
            ProtoTrafficDirection::Outbound => Self::Outbound,
        })
    }
}

impl ListenerFilter {
    fn from_proto(message: ProtoListenerFilter) -> Result<Self> {
        let ProtoListenerFilter { name: _, filter_disabled, config_type } = message;
        refuse!(filter_disabled);
        let extension = match config_type {
            Some(ConfigType::TypedConfig(typed_config)) => Extension::new(typed_config)?,
            Some(ConfigType::ConfigDiscovery(_)) => return Err(unsupported("config_discovery")),
            None => return Err(without_typed_config()),
        };
        if extension.is::<OriginalDst>() {
            extension.unpack().map(|OriginalDst {}| Self::OriginalDst)
        } else if extension.is::<HttpInspector>() {
            extension.unpack().map(|HttpInspector {}| Self::HttpInspector)
        } else if extension.is::<TlsInspector>() {
            tls_inspector(extension.unpack()?).within("typed_config").map(|()| Self::TlsInspector)
        } else {
            Err(extension.unsupported())
        }
    }
}

fn tls_inspector(message: TlsInspector) -> Result<()> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size: _, // how the peeking begins: no one sees it outside
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = message;
    refuse!(close_connection_on_client_hello_parsing_errors, max_client_hello_size);
    field::only(enable_ja3_fingerprinting, false, "enable_ja3_fingerprinting")?;
    field::only(enable_ja4_fingerprinting, false, "enable_ja4_fingerprinting")
}

#[cfg(test)]
mod tests;
