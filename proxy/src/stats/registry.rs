//! Where scopes live: found by name when a configuration is built (never on the request path) and listed when scraped.
//!
//! A scope is kept as long as somebody holds it, so counters survive a changed cluster or listener of the same name and
//! go with the last one that has it.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::stats::{
    ClusterStats, ConnectionLimitStat, GroupStats, Http2Stat, HttpInspectorStat, HttpStats, ListenerHttpStat,
    ListenerStats, MetricName, ProxyProtocolStat, ProxyProtocolStats, RateLimitStat, Readings, Scope, ServerStat,
    Sharded, StatGroup, Tag, TcpStat, TlsInspectorStat, WorkerIndex, scopes::listener_http_prefix,
};

pub struct Registry {
    workers: usize,
    pub server: Sharded<ServerStat>,
    /// Of all downstream connections.
    pub http2: Arc<Sharded<Http2Stat>>,
    scopes: Mutex<Scopes>,
}

/// By type and name, so that the type of what is found is known.
type Scopes = BTreeMap<(TypeId, Arc<str>), Weak<dyn Scope>>;

impl Registry {
    pub fn new(workers: usize) -> Registry {
        Registry {
            workers,
            server: Sharded::new(workers + 1),
            http2: Arc::new(Sharded::new(workers + 1)),
            scopes: Mutex::default(),
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
        self.find_or_add(name, |name| ClusterStats::new(name, self.shards()))
    }

    pub fn http(&self, stat_prefix: &Arc<str>) -> Arc<HttpStats> {
        self.find_or_add(stat_prefix, |name| HttpStats::new(name, self.shards()))
    }

    pub fn tcp(&self, stat_prefix: &str) -> Arc<GroupStats<TcpStat>> {
        self.group(MetricName::new("tcp.").tagged(Tag::TcpPrefix, stat_prefix))
    }

    pub fn listener(&self, stat_prefix: &Arc<str>) -> Arc<ListenerStats> {
        self.find_or_add(stat_prefix, |name| ListenerStats::new(name, self.workers))
    }

    /// What a connection manager counts by listener.
    pub fn listener_http(&self, listener: &str, stat_prefix: &str) -> Arc<GroupStats<ListenerHttpStat>> {
        self.group(listener_http_prefix(listener, stat_prefix))
    }

    pub fn tls_inspector(&self) -> Arc<GroupStats<TlsInspectorStat>> {
        self.group(MetricName::new("tls_inspector."))
    }

    pub fn http_inspector(&self) -> Arc<GroupStats<HttpInspectorStat>> {
        self.group(MetricName::new("http_inspector."))
    }

    pub fn proxy_protocol(&self, stat_prefix: &Arc<str>) -> Arc<ProxyProtocolStats> {
        self.find_or_add(stat_prefix, |prefix| ProxyProtocolStats { prefix, cells: Sharded::new(self.shards()) })
    }

    pub fn listener_rate_limit(&self, stat_prefix: &str) -> Arc<GroupStats<RateLimitStat>> {
        let name = MetricName::new("listener_local_ratelimit.");
        self.group(name.tagged(Tag::LocalListenerRateLimitPrefix, stat_prefix))
    }

    pub fn network_rate_limit(&self, stat_prefix: &str) -> Arc<GroupStats<RateLimitStat>> {
        self.group(MetricName::new("local_rate_limit.").tagged(Tag::LocalNetworkRateLimitPrefix, stat_prefix))
    }

    pub fn connection_limit(&self, stat_prefix: &str) -> Arc<GroupStats<ConnectionLimitStat>> {
        self.group(MetricName::new("connection_limit.").tagged(Tag::ConnectionLimitPrefix, stat_prefix))
    }

    /// A group of cells under this prefix, which ends in a dot.
    pub fn group<S: StatGroup>(&self, prefix: MetricName) -> Arc<GroupStats<S>> {
        let name = prefix.text().into();
        self.find_or_add(&name, |_| GroupStats::new(prefix, self.shards()))
    }

    /// All that are in use.
    pub fn scopes(&self) -> Vec<Arc<dyn Scope>> {
        let mut scopes = lock(&self.scopes);
        scopes.retain(|_, scope| scope.strong_count() > 0);
        scopes.values().filter_map(Weak::upgrade).collect()
    }

    fn find_or_add<T: Scope>(&self, name: &Arc<str>, new: impl FnOnce(Arc<str>) -> T) -> Arc<T> {
        let key = (TypeId::of::<T>(), name.clone());
        let mut scopes = lock(&self.scopes);
        if let Some(found) = scopes.get(&key).and_then(Weak::upgrade) {
            let found: Arc<dyn Any + Send + Sync> = found;
            return found.downcast().expect("the key says which type it is");
        }
        let added = Arc::new(new(name.clone()));
        let scope: Arc<dyn Scope> = added.clone();
        scopes.insert(key, Arc::downgrade(&scope));
        added
    }
}

/// What there is once, whatever the configuration.
impl Scope for Registry {
    fn prefix(&self) -> MetricName {
        MetricName::default()
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.cells("", &self.server);
        if self.http2.is_used() {
            readings.cells("http2.", &self.http2);
        }
        let mut proxy_protocol_errors = None;
        for scope in self.scopes() {
            let scope: Arc<dyn Any + Send + Sync> = scope;
            if let Ok(filter) = scope.downcast::<ProxyProtocolStats>() {
                *proxy_protocol_errors.get_or_insert(0) += filter.cells.value(ProxyProtocolStat::Error);
            }
        }
        if let Some(errors) = proxy_protocol_errors {
            readings.counter("downstream_cx_proxy_proto_error", errors);
        }
    }

    fn reset(&self) {
        self.server.reset();
        self.http2.reset();
    }
}

/// A panic elsewhere leaves the map whole: each change of it is one insert or remove.
fn lock(scopes: &Mutex<Scopes>) -> MutexGuard<'_, Scopes> {
    scopes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{ClusterStat, Reading, reading};

    #[test]
    fn a_scope_is_shared_by_name_and_goes_with_its_last_holder() {
        let registry = Registry::new(2);
        let name: Arc<str> = "a".into();
        let first = registry.cluster(&name);
        first.cells.inc(WorkerIndex(1), ClusterStat::RqTotal);
        assert_eq!(registry.cluster(&name).cells.sum(ClusterStat::RqTotal), 1);
        let http = registry.http(&name);
        assert_eq!(registry.scopes().len(), 2, "a name may be of several kinds");
        drop((first, http));
        assert!(registry.scopes().is_empty());
        assert_eq!(registry.cluster(&name).cells.sum(ClusterStat::RqTotal), 0);
    }

    #[test]
    fn listeners_count_by_worker_too() {
        let registry = Registry::new(2);
        let listener = registry.listener(&"127.0.0.1:80".into());
        listener.cells.inc(WorkerIndex(1), crate::stats::ListenerStat::CxTotal);
        let mut readings = Vec::new();
        reading::read(&*listener, &mut |name, reading| readings.push((name.text().to_owned(), reading)));
        for (name, value) in [("", 1), ("worker_0.", 0), ("worker_1.", 1)] {
            let expected = (format!("listener.127.0.0.1_80.{name}downstream_cx_total"), Reading::Counter(value));
            assert!(readings.contains(&expected), "{expected:?}");
        }
    }
}
