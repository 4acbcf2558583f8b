//! A listener as it lives in a snapshot: its configuration, its compiled filter chains, and what their connections share.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;

use crate::{
    config::{
        config_source::ResourceKey,
        filter_chain::FilterChain,
        http_connection_manager::{HttpConnectionManager, RouteSource},
        listener::{ConnectionBalance, Listener, ListenerFilter, ListenerFilterKind},
        network_filter::NetworkFilter,
        tcp_proxy::TcpProxy,
    },
    drain::Drain,
    http::{
        filter::FilterStats,
        route::table::{CompiledRoutes, RouteSlot},
    },
    listener::{
        arrival::{ActiveListenerFilter, ActiveListenerFilterKind, OriginalSrc},
        balance::Balance,
        filter_chain::{ConnectionFacts, FilterChainIndex},
        network_filter::ActiveConnectionFilter,
        open_limit::OpenLimit,
    },
    stats::{GroupStats, Http2Stat, HttpStats, ListenerHttpStat, ListenerStats, Registry, Sharded, TcpStat},
    token_bucket::TokenBucket,
};

pub struct ActiveListener {
    pub config: Arc<Listener>,
    pub stats: Arc<ListenerStats>,
    pub filters: Vec<ActiveListenerFilter>,
    /// Of its open connections. None: there may be any number.
    pub limit: Option<Arc<OpenLimit>>,
    /// None: connections stay with the worker that accepts them.
    pub balance: Option<Arc<Balance>>,
    chains: Vec<Arc<ActiveChain>>,
    default_chain: Option<Arc<ActiveChain>>,
    index: FilterChainIndex,
}

/// A filter chain and its connections' shared state. Kept over listener updates that don't change it.
pub struct ActiveChain {
    pub config: Arc<FilterChain>,
    pub connection_filters: Vec<ActiveConnectionFilter>,
    pub filter: ActiveFilter,
    /// Given when the chain is gone from the configuration.
    pub drain: Drain,
}

pub enum ActiveFilter {
    Http(Arc<ActiveHttp>),
    Tcp(Arc<ActiveTcp>),
    Echo,
    DirectResponse(Arc<[u8]>),
    Close,
}

pub struct ActiveHttp {
    pub config: Arc<HttpConnectionManager>,
    pub routes: RouteSlot,
    pub stats: Arc<HttpStats>,
    pub http2_stats: Arc<Sharded<Http2Stat>>,
    /// Of each of the filters.
    pub filter_stats: Vec<FilterStats>,
    /// The same for the filters that upgrades have of their own, in the order of the upgrades.
    pub upgrade_filter_stats: Vec<Vec<FilterStats>>,
    pub listener_stats: Arc<GroupStats<ListenerHttpStat>>,
}

pub struct ActiveTcp {
    pub config: Arc<TcpProxy>,
    pub stats: Arc<GroupStats<TcpStat>>,
}

impl ActiveListener {
    /// Chains that `previous` has with the same content are taken over as they are. `routes` gives the slot of a route
    /// configuration's name; `connections_max` is what the runtime says of the listener.
    pub fn new(
        config: Arc<Listener>,
        previous: Option<&ActiveListener>,
        routes: &dyn Fn(&ResourceKey) -> RouteSlot,
        registry: &Registry,
        connections_max: Option<usize>,
    ) -> Arc<ActiveListener> {
        let known: HashMap<u64, &Arc<ActiveChain>> =
            previous.into_iter().flat_map(ActiveListener::all_chains).map(|chain| (chain.config.hash, chain)).collect();
        let activate = |chain: &Arc<FilterChain>| match known.get(&chain.hash) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(ActiveChain::new(chain.clone(), &config.stat_prefix, routes, registry)),
        };
        let balance = match config.connection_balance {
            ConnectionBalance::Kernel => None,
            // What is open stays counted.
            ConnectionBalance::Exact => Some(
                previous
                    .and_then(|listener| listener.balance.clone())
                    .unwrap_or_else(|| Balance::new(registry.workers())),
            ),
        };
        Arc::new(ActiveListener {
            stats: registry.listener(&config.stat_prefix),
            limit: match (previous.and_then(|listener| listener.limit.as_ref()), connections_max) {
                // What is open stays counted.
                (Some(known), Some(max)) if known.max() == max => Some(known.clone()),
                (_, max) => max.map(OpenLimit::new),
            },
            filters: active_filters(&config, registry),
            balance,
            chains: config.filter_chains.iter().map(activate).collect(),
            default_chain: config.default_filter_chain.as_ref().map(activate),
            index: FilterChainIndex::new(config.filter_chains.iter().map(|chain| &chain.filter_chain_match)),
            config,
        })
    }

    pub fn find_chain(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<ActiveChain>> {
        self.index.find(facts).map(|at| &self.chains[at]).or(self.default_chain.as_ref())
    }

    /// The default chain too.
    pub fn all_chains(&self) -> impl Iterator<Item = &Arc<ActiveChain>> {
        self.chains.iter().chain(&self.default_chain)
    }
}

/// In their order; one that restores the destination for the hand-off comes last, as in Envoy.
fn active_filters(config: &Listener, registry: &Registry) -> Vec<ActiveListenerFilter> {
    let hand_off = config
        .use_original_dst
        .then_some(ActiveListenerFilter { kind: ActiveListenerFilterKind::OriginalDst, disabled: None });
    let configured = config.listener_filters.iter().map(|filter| ActiveListenerFilter::new(filter, registry));
    configured.chain(hand_off).collect()
}

impl ActiveListenerFilter {
    fn new(filter: &ListenerFilter, registry: &Registry) -> ActiveListenerFilter {
        use ActiveListenerFilterKind as Active;
        let kind = match &filter.kind {
            ListenerFilterKind::OriginalDst => Active::OriginalDst,
            ListenerFilterKind::OriginalSrc { mark } => Active::OriginalSrc(OriginalSrc { mark: *mark }),
            ListenerFilterKind::TlsInspector(config) => {
                Active::TlsInspector { config: *config, stats: registry.tls_inspector() }
            }
            ListenerFilterKind::HttpInspector => Active::HttpInspector { stats: registry.http_inspector() },
            ListenerFilterKind::ProxyProtocol(config) => {
                Active::ProxyProtocol { stats: registry.proxy_protocol(&config.stat_prefix), config: config.clone() }
            }
            ListenerFilterKind::LocalRateLimit(config) => Active::LocalRateLimit {
                bucket: TokenBucket::new(config.token_bucket),
                stats: registry.listener_rate_limit(&config.stat_prefix),
            },
        };
        ActiveListenerFilter { kind, disabled: filter.disabled.clone() }
    }
}

impl ActiveChain {
    /// `listener` is what it is called in statistics.
    fn new(
        config: Arc<FilterChain>,
        listener: &str,
        routes: &dyn Fn(&ResourceKey) -> RouteSlot,
        registry: &Registry,
    ) -> ActiveChain {
        let filter = match &config.network_filter {
            NetworkFilter::HttpConnectionManager(manager) => ActiveFilter::Http(Arc::new(ActiveHttp {
                routes: match &manager.routes {
                    RouteSource::Inline(table) => {
                        Arc::new(ArcSwapOption::from_pointee(CompiledRoutes::new(table.clone())))
                    }
                    RouteSource::Rds(table) => routes(&table.key),
                },
                stats: registry.http(&manager.stat_prefix),
                http2_stats: registry.http2.clone(),
                filter_stats: FilterStats::of_all(&manager.http_filters, &manager.stat_prefix, registry),
                upgrade_filter_stats: manager
                    .upgrades
                    .filters()
                    .map(|filters| FilterStats::of_all(filters, &manager.stat_prefix, registry))
                    .collect(),
                listener_stats: registry.listener_http(listener, &manager.stat_prefix),
                config: manager.clone(),
            })),
            NetworkFilter::TcpProxy(proxy) => ActiveFilter::Tcp(Arc::new(ActiveTcp {
                stats: registry.tcp(&proxy.stat_prefix),
                config: proxy.clone(),
            })),
            NetworkFilter::Echo => ActiveFilter::Echo,
            NetworkFilter::DirectResponse(bytes) => ActiveFilter::DirectResponse(bytes.clone()),
            NetworkFilter::Close => ActiveFilter::Close,
        };
        let connection_filters =
            config.connection_filters.iter().map(|filter| ActiveConnectionFilter::new(filter, registry)).collect();
        ActiveChain { config, connection_filters, filter, drain: Drain::default() }
    }
}
