//! What a resource needs before traffic may meet it: the clusters that a route table names, the route tables and clusters
//! that a listener names. Pure.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::config::{
    config_source::{Discovered, ResourceKey},
    http_connection_manager::RouteSource,
    listener::Listener,
    network_filter::NetworkFilter,
    route::RouteTable,
    tcp_proxy::TcpCluster,
};

/// The needs of a listener, over all of its filter chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerNeeds {
    /// Names of route tables that come by themselves.
    pub route_tables: BTreeSet<ResourceKey>,
    /// Named by `tcp_proxy` and by route tables that stand in the listener.
    pub clusters: BTreeSet<Arc<str>>,
    /// The longest `initial_fetch_timeout` of the route tables.
    pub fetch_timeout: FetchTimeout,
    pub secrets: SecretNeeds,
}

/// Secrets that TLS contexts name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretNeeds {
    pub keys: BTreeSet<ResourceKey>,
    /// The longest `initial_fetch_timeout`.
    pub fetch_timeout: FetchTimeout,
}

impl SecretNeeds {
    pub fn of<'a>(secrets: impl Iterator<Item = &'a Discovered>) -> SecretNeeds {
        let mut needs = SecretNeeds::default();
        for Discovered { key, initial_fetch_timeout } in secrets {
            needs.keys.insert(key.clone());
            needs.fetch_timeout = needs.fetch_timeout.max((*initial_fetch_timeout).into());
        }
        needs
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FetchTimeout {
    After(Duration),
    Never,
}

impl Default for FetchTimeout {
    fn default() -> Self {
        FetchTimeout::After(Duration::ZERO)
    }
}

impl From<Option<Duration>> for FetchTimeout {
    fn from(timeout: Option<Duration>) -> Self {
        timeout.map_or(FetchTimeout::Never, FetchTimeout::After)
    }
}

impl ListenerNeeds {
    pub fn of(listener: &Listener) -> ListenerNeeds {
        let secrets = SecretNeeds::of(listener.tls_contexts().flat_map(|tls| tls.secrets()));
        let mut needs = ListenerNeeds { secrets, ..ListenerNeeds::default() };
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            match &chain.network_filter {
                NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
                    RouteSource::Inline(table) => needs.clusters.extend(clusters_of(table)),
                    RouteSource::Rds(table) => {
                        needs.route_tables.insert(table.key.clone());
                        needs.fetch_timeout = needs.fetch_timeout.max(table.initial_fetch_timeout.into());
                    }
                },
                NetworkFilter::TcpProxy(proxy) => match &proxy.cluster {
                    TcpCluster::Single(name) => {
                        needs.clusters.insert(name.clone());
                    }
                    TcpCluster::Weighted(clusters) => {
                        needs.clusters.extend(clusters.iter().map(|cluster| cluster.name.clone()));
                    }
                },
                NetworkFilter::Echo | NetworkFilter::DirectResponse(_) | NetworkFilter::Close => {}
            }
        }
        needs
    }
}

/// The clusters that requests can reach by this table.
pub fn clusters_of(table: &RouteTable) -> BTreeSet<Arc<str>> {
    table.clusters().map(|(_, name)| name.clone()).collect()
}
