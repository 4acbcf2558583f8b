//! Where groups live: found by name when a configuration is built (never on the request path) and listed when scraped.
//!
//! A group is kept as long as somebody holds it, so counters survive a changed cluster or listener of the same name and
//! go with the last one that has it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use crate::stats::{
    ClusterStat, CodeCounters, ConnectionLimitStat, HealthCheckStat, Histogram, Http2Stat, HttpInspectorStat, HttpStat,
    ListenerStat, OutlierStat, ProxyProtocolStat, RateLimitStat, ServerStat, Sharded, StatGroup, TcpStat,
    TlsInspectorStat, WorkerIndex,
};

pub struct Registry {
    workers: usize,
    pub server: Sharded<ServerStat>,
    /// Of all downstream connections.
    pub http2: Arc<Sharded<Http2Stat>>,
    clusters: Named<ClusterStats>,
    http: Named<HttpStats>,
    tcp: Named<GroupStats<TcpStat>>,
    listeners: Named<ListenerStats>,
    /// Of all listeners together, under an empty name.
    tls_inspectors: Named<GroupStats<TlsInspectorStat>>,
    http_inspectors: Named<GroupStats<HttpInspectorStat>>,
    proxy_protocols: Named<GroupStats<ProxyProtocolStat>>,
    listener_rate_limits: Named<GroupStats<RateLimitStat>>,
    network_rate_limits: Named<GroupStats<RateLimitStat>>,
    connection_limits: Named<GroupStats<ConnectionLimitStat>>,
}

type Named<T> = Mutex<BTreeMap<Arc<str>, Weak<T>>>;

pub struct GroupStats<S: StatGroup> {
    pub name: Arc<str>,
    pub cells: Sharded<S>,
}

pub struct ClusterStats {
    pub name: Arc<str>,
    pub cells: Sharded<ClusterStat>,
    pub http2: Arc<Sharded<Http2Stat>>,
    /// Of clusters that have it.
    pub outlier_detection: OnceLock<Arc<Sharded<OutlierStat>>>,
    pub health_check: OnceLock<Arc<Sharded<HealthCheckStat>>>,
    /// Final answers of routed requests, as Envoy's `upstream_rq`.
    pub codes: CodeCounters,
    pub rq_time: Histogram,
    pub cx_connect: Histogram,
}

pub struct HttpStats {
    pub name: Arc<str>,
    pub cells: Sharded<HttpStat>,
    pub codes: CodeCounters,
    pub rq_time: Histogram,
}

pub struct ListenerStats {
    pub name: Arc<str>,
    pub cells: Sharded<ListenerStat>,
    /// How long connections were open.
    pub cx_length: Histogram,
}

impl Registry {
    pub fn new(workers: usize) -> Registry {
        Registry {
            workers,
            server: Sharded::new(workers + 1),
            http2: Arc::new(Sharded::new(workers + 1)),
            clusters: Default::default(),
            http: Default::default(),
            tcp: Default::default(),
            listeners: Default::default(),
            tls_inspectors: Default::default(),
            http_inspectors: Default::default(),
            proxy_protocols: Default::default(),
            listener_rate_limits: Default::default(),
            network_rate_limits: Default::default(),
            connection_limits: Default::default(),
        }
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Shards that a group has: the workers' and the main thread's.
    pub fn shards(&self) -> usize {
        self.workers + 1
    }

    pub fn main_thread(&self) -> WorkerIndex {
        WorkerIndex(self.workers)
    }

    pub fn cluster(&self, name: &Arc<str>) -> Arc<ClusterStats> {
        let shards = self.shards();
        find_or_add(&self.clusters, name, || ClusterStats {
            name: name.clone(),
            cells: Sharded::new(shards),
            http2: Arc::new(Sharded::new(shards)),
            outlier_detection: OnceLock::new(),
            health_check: OnceLock::new(),
            codes: CodeCounters::new(shards),
            rq_time: Histogram::new(shards),
            cx_connect: Histogram::new(shards),
        })
    }

    pub fn http(&self, stat_prefix: &Arc<str>) -> Arc<HttpStats> {
        let shards = self.shards();
        find_or_add(&self.http, stat_prefix, || HttpStats {
            name: stat_prefix.clone(),
            cells: Sharded::new(shards),
            codes: CodeCounters::new(shards),
            rq_time: Histogram::new(shards),
        })
    }

    pub fn tcp(&self, stat_prefix: &Arc<str>) -> Arc<GroupStats<TcpStat>> {
        self.group(&self.tcp, stat_prefix)
    }

    pub fn listener(&self, stat_prefix: &Arc<str>) -> Arc<ListenerStats> {
        let shards = self.shards();
        find_or_add(&self.listeners, stat_prefix, || ListenerStats {
            name: stat_prefix.clone(),
            cells: Sharded::new(shards),
            cx_length: Histogram::new(shards),
        })
    }

    pub fn tls_inspector(&self) -> Arc<GroupStats<TlsInspectorStat>> {
        self.group(&self.tls_inspectors, &Arc::default())
    }

    pub fn http_inspector(&self) -> Arc<GroupStats<HttpInspectorStat>> {
        self.group(&self.http_inspectors, &Arc::default())
    }

    pub fn proxy_protocol(&self, stat_prefix: &Arc<str>) -> Arc<GroupStats<ProxyProtocolStat>> {
        self.group(&self.proxy_protocols, stat_prefix)
    }

    pub fn listener_rate_limit(&self, stat_prefix: &Arc<str>) -> Arc<GroupStats<RateLimitStat>> {
        self.group(&self.listener_rate_limits, stat_prefix)
    }

    pub fn network_rate_limit(&self, stat_prefix: &Arc<str>) -> Arc<GroupStats<RateLimitStat>> {
        self.group(&self.network_rate_limits, stat_prefix)
    }

    pub fn connection_limit(&self, stat_prefix: &Arc<str>) -> Arc<GroupStats<ConnectionLimitStat>> {
        self.group(&self.connection_limits, stat_prefix)
    }

    pub fn clusters(&self) -> Vec<Arc<ClusterStats>> {
        live(&self.clusters)
    }

    pub fn http_connection_managers(&self) -> Vec<Arc<HttpStats>> {
        live(&self.http)
    }

    pub fn tcp_proxies(&self) -> Vec<Arc<GroupStats<TcpStat>>> {
        live(&self.tcp)
    }

    pub fn listeners(&self) -> Vec<Arc<ListenerStats>> {
        live(&self.listeners)
    }

    pub fn tls_inspectors(&self) -> Vec<Arc<GroupStats<TlsInspectorStat>>> {
        live(&self.tls_inspectors)
    }

    pub fn http_inspectors(&self) -> Vec<Arc<GroupStats<HttpInspectorStat>>> {
        live(&self.http_inspectors)
    }

    pub fn proxy_protocols(&self) -> Vec<Arc<GroupStats<ProxyProtocolStat>>> {
        live(&self.proxy_protocols)
    }

    pub fn listener_rate_limits(&self) -> Vec<Arc<GroupStats<RateLimitStat>>> {
        live(&self.listener_rate_limits)
    }

    pub fn network_rate_limits(&self) -> Vec<Arc<GroupStats<RateLimitStat>>> {
        live(&self.network_rate_limits)
    }

    pub fn connection_limits(&self) -> Vec<Arc<GroupStats<ConnectionLimitStat>>> {
        live(&self.connection_limits)
    }

    fn group<S: StatGroup>(&self, named: &Named<GroupStats<S>>, name: &Arc<str>) -> Arc<GroupStats<S>> {
        find_or_add(named, name, || GroupStats { name: name.clone(), cells: Sharded::new(self.shards()) })
    }
}

fn find_or_add<T>(named: &Named<T>, name: &Arc<str>, new: impl FnOnce() -> T) -> Arc<T> {
    let mut named = lock(named);
    if let Some(found) = named.get(name).and_then(Weak::upgrade) {
        return found;
    }
    let added = Arc::new(new());
    named.insert(name.clone(), Arc::downgrade(&added));
    added
}

fn live<T>(named: &Named<T>) -> Vec<Arc<T>> {
    let mut named = lock(named);
    named.retain(|_, group| group.strong_count() > 0);
    named.values().filter_map(Weak::upgrade).collect()
}

/// A panic elsewhere leaves the map whole: each change of it is one insert or remove.
fn lock<T>(named: &Named<T>) -> MutexGuard<'_, BTreeMap<Arc<str>, Weak<T>>> {
    named.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_shared_by_name_and_goes_with_its_last_holder() {
        let registry = Registry::new(2);
        let name: Arc<str> = "a".into();
        let first = registry.cluster(&name);
        first.cells.inc(WorkerIndex(1), ClusterStat::RqTotal);
        assert_eq!(registry.cluster(&name).cells.sum(ClusterStat::RqTotal), 1);
        drop(first);
        assert!(registry.clusters().is_empty());
        assert_eq!(registry.cluster(&name).cells.sum(ClusterStat::RqTotal), 0);
    }
}
