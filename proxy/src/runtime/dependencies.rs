//! What a resource needs before traffic may meet it: the clusters that a route table names, the route tables and clusters
//! that a listener names. Pure.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::config::{
    http_connection_manager::RouteSource, listener::Listener, network_filter::NetworkFilter, route::RouteTable,
    tcp_proxy::TcpCluster,
};

/// The needs of a listener, over all of its filter chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerNeeds {
    /// Names of route tables that come by themselves.
    pub route_tables: BTreeSet<Arc<str>>,
    /// Named by `tcp_proxy` and by route tables that stand in the listener.
    pub clusters: BTreeSet<Arc<str>>,
    /// The longest `initial_fetch_timeout` of the route tables.
    pub fetch_timeout: FetchTimeout,
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
        let mut needs = ListenerNeeds::default();
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            match &chain.network_filter {
                NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
                    RouteSource::Inline(table) => needs.clusters.extend(clusters_of(table)),
                    RouteSource::Rds { route_config_name, initial_fetch_timeout } => {
                        needs.route_tables.insert(route_config_name.clone());
                        needs.fetch_timeout = needs.fetch_timeout.max((*initial_fetch_timeout).into());
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
