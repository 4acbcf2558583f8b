//! A listener as it lives in a snapshot: its configuration, its compiled filter chains, and what their connections share.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;

use crate::{
    config::{
        config_source::ResourceKey,
        filter_chain::{FilterChain, NetworkFilter},
        http_connection_manager::{HttpConnectionManager, RouteSource},
        listener::Listener,
        tcp_proxy::TcpProxy,
    },
    drain::Drain,
    http::route::table::{CompiledRoutes, RouteSlot},
    listener::filter_chain::{ConnectionFacts, FilterChainIndex},
    stats::{GroupStats, HttpStats, ListenerStat, Registry, TcpStat},
};

pub struct ActiveListener {
    pub config: Arc<Listener>,
    pub stats: Arc<GroupStats<ListenerStat>>,
    chains: Vec<Arc<ActiveChain>>,
    default_chain: Option<Arc<ActiveChain>>,
    index: FilterChainIndex,
}

/// A filter chain and its connections' shared state. Kept over listener updates that don't change it.
pub struct ActiveChain {
    pub config: Arc<FilterChain>,
    pub filter: ActiveFilter,
    /// Given when the chain is gone from the configuration.
    pub drain: Drain,
}

pub enum ActiveFilter {
    Http(Arc<ActiveHttp>),
    Tcp(Arc<ActiveTcp>),
}

pub struct ActiveHttp {
    pub config: Arc<HttpConnectionManager>,
    pub routes: RouteSlot,
    pub stats: Arc<HttpStats>,
}

pub struct ActiveTcp {
    pub config: Arc<TcpProxy>,
    pub stats: Arc<GroupStats<TcpStat>>,
}

impl ActiveListener {
    /// Chains that `previous` has with the same content are taken over as they are. `routes` gives the slot of a route
    /// configuration's name.
    pub fn new(
        config: Arc<Listener>,
        previous: Option<&ActiveListener>,
        routes: &dyn Fn(&ResourceKey) -> RouteSlot,
        registry: &Registry,
    ) -> Arc<ActiveListener> {
        let known: HashMap<u64, &Arc<ActiveChain>> =
            previous.into_iter().flat_map(ActiveListener::all_chains).map(|chain| (chain.config.hash, chain)).collect();
        let activate = |chain: &Arc<FilterChain>| match known.get(&chain.hash) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(ActiveChain::new(chain.clone(), routes, registry)),
        };
        Arc::new(ActiveListener {
            stats: registry.listener(&config.stat_prefix),
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

impl ActiveChain {
    fn new(config: Arc<FilterChain>, routes: &dyn Fn(&ResourceKey) -> RouteSlot, registry: &Registry) -> ActiveChain {
        let filter = match &config.network_filter {
            NetworkFilter::HttpConnectionManager(manager) => ActiveFilter::Http(Arc::new(ActiveHttp {
                routes: match &manager.routes {
                    RouteSource::Inline(table) => {
                        Arc::new(ArcSwapOption::from_pointee(CompiledRoutes::new(table.clone())))
                    }
                    RouteSource::Rds(table) => routes(&table.key),
                },
                stats: registry.http(&manager.stat_prefix),
                config: manager.clone(),
            })),
            NetworkFilter::TcpProxy(proxy) => ActiveFilter::Tcp(Arc::new(ActiveTcp {
                stats: registry.tcp(&proxy.stat_prefix),
                config: proxy.clone(),
            })),
        };
        ActiveChain { config, filter, drain: Drain::default() }
    }
}
