//! `envoy.config.listener.v3.Listener`: where to listen, what to learn of a connection, which filter chains there are.

mod bind;
mod filter;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weft_xds::{
    FieldError, canonical,
    pb::envoy::config::{
        core::v3::TrafficDirection as ProtoTrafficDirection,
        listener::v3::{FilterChain as ProtoFilterChain, Listener as ProtoListener, listener::DrainType},
    },
};

use self::bind::AddressFields;
pub use self::{
    bind::{BindOptions, ConnectionBalance, ListenerAddress},
    filter::{ListenerFilter, ListenerFilterKind, LocalRateLimit, Predicate, TlsInspector},
};
use crate::config::{
    access_log::AccessLog,
    config_source::Discovered,
    field::{self, Result, Within as _, element, refuse, timeout_or},
    filter_chain::{self, FilterChain, FilterChainMatch},
    http_connection_manager::RouteSource,
    network_filter::NetworkFilter,
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
    pub bind_options: BindOptions,
    /// Connections end while health checks of the proxy are to fail; false: only when the configuration changes.
    pub drains_when_unhealthy: bool,
    pub connection_balance: ConnectionBalance,
    /// The process's limit of downstream connections is not for this listener.
    pub ignore_global_limit: bool,
    /// How many connections are accepted before others of the worker have their turn.
    pub accepts_per_turn: u32,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// The kernel cuts what is asked for to `net.core.somaxconn`, so that this asks for just that.
const TCP_BACKLOG_SIZE: u32 = i32::MAX as u32;
const ACCEPTS_PER_TURN: u32 = 32;
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
            udp_listener_config: _, // of UDP addresses, which are refused
            api_listener,
            connection_balance_config,
            reuse_port,
            enable_reuse_port,
            access_log,
            tcp_backlog_size,
            max_connections_to_accept_per_socket_event,
            bind_to_port,
            enable_mptcp,
            ignore_global_conn_limit,
            bypass_overload_manager: _, // of the overload manager's actions, which are refused
            tcp_keepalive,
            listener_specifier,
        } = message;
        refuse!(stats_matcher, fcds_config, filter_chain_matcher, per_connection_buffer_high_watermark_timeout);
        refuse!(deprecated_v1, api_listener, reuse_port);
        field::unset(&listener_specifier, "internal_listener")?;
        let drain_type: DrainType = field::enumeration(drain_type, "drain_type")?;

        let addresses = AddressFields { address, additional_addresses, socket_options, tcp_keepalive };
        let addresses = addresses.into_addresses()?;
        let first = addresses.first().expect("the required address is the first").address;
        let traffic_direction = TrafficDirection::from_proto(traffic_direction)?;
        let buffer_limit_bytes = field::u32_or(per_connection_buffer_limit_bytes, PER_CONNECTION_BUFFER_LIMIT_BYTES);
        let seed = connection_seed(buffer_limit_bytes, traffic_direction);
        let has_proxy_protocol =
            filter_chains.first().is_some_and(|chain| field::bool_or(chain.use_proxy_proto, false));
        let mut listener_filters = field::each(listener_filters, "listener_filters", ListenerFilter::from_proto)?;
        if has_proxy_protocol {
            listener_filters.push(ListenerFilter::proxy_protocol());
        }
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
            bind_options: BindOptions {
                enable_reuse_port: field::bool_or(enable_reuse_port, true),
                tcp_backlog_size: field::u32_or(tcp_backlog_size, TCP_BACKLOG_SIZE).min(TCP_BACKLOG_SIZE),
                transparent: transparent.map(|wrapper| wrapper.value),
                freebind: freebind.map(|wrapper| wrapper.value),
                tcp_fast_open_queue_length: tcp_fast_open_queue_length.map(|wrapper| wrapper.value),
                enable_mptcp,
            },
            connection_balance: ConnectionBalance::from_proto(connection_balance_config)
                .within("connection_balance_config")?,
            drains_when_unhealthy: drain_type == DrainType::Default,
            ignore_global_limit: ignore_global_conn_limit,
            accepts_per_turn: field::limit(max_connections_to_accept_per_socket_event).unwrap_or(ACCEPTS_PER_TURN),
            per_connection_buffer_limit_bytes: buffer_limit_bytes,
            listener_filters,
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
            NetworkFilter::TcpProxy(_)
            | NetworkFilter::Echo
            | NetworkFilter::DirectResponse(_)
            | NetworkFilter::Close => None,
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

#[cfg(test)]
mod tests;
