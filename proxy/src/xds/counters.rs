//! What is counted about the configuration stream, under Envoy's names. Written by the main thread, read by the admin
//! server when it is scraped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh64::xxh64;

use crate::{
    stats::{MetricName, Readings, Scope},
    xds::kind::ResourceKind,
};

#[derive(Debug, Default)]
pub struct DiscoveryCounters {
    /// Streams that are open.
    connected: AtomicU64,
    clusters_active: AtomicU64,
    clusters_warming: AtomicU64,
    listeners_active: AtomicU64,
    listeners_warming: AtomicU64,
    /// By `ResourceKind::index`.
    kinds: [KindCounters; ResourceKind::COUNT],
}

#[derive(Debug, Default)]
struct KindCounters {
    update_attempt: AtomicU64,
    update_success: AtomicU64,
    update_failure: AtomicU64,
    update_rejected: AtomicU64,
    init_fetch_timeout: AtomicU64,
    /// xxHash64 of the version, as Envoy shows it: equal numbers are equal versions.
    version: AtomicU64,
    /// Of the last accepted answer, milliseconds since 1970.
    update_time_ms: AtomicU64,
}

impl DiscoveryCounters {
    pub fn connected(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    /// An open stream is lost.
    pub fn disconnected(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }

    /// A stream is lost or could not be opened, or a file not be read: a failed update of every kind that it is for.
    pub fn failed(&self, asked_for: impl Iterator<Item = ResourceKind>) {
        for kind in asked_for {
            self.of(kind).update_failure.fetch_add(1, Relaxed);
            self.attempt(kind);
        }
    }

    pub fn subscribed(&self, kind: ResourceKind) {
        self.attempt(kind);
    }

    pub fn accepted(&self, kind: ResourceKind, version_info: &str, now_ms: u64) {
        let counters = self.of(kind);
        counters.update_success.fetch_add(1, Relaxed);
        counters.version.store(xxh64(version_info.as_bytes(), 0), Relaxed);
        counters.update_time_ms.store(now_ms, Relaxed);
        self.attempt(kind);
    }

    pub fn rejected(&self, kind: ResourceKind) {
        self.of(kind).update_rejected.fetch_add(1, Relaxed);
        self.attempt(kind);
    }

    pub fn fetch_timed_out(&self, kind: ResourceKind) {
        self.of(kind).init_fetch_timeout.fetch_add(1, Relaxed);
    }

    pub fn set_clusters(&self, active: usize, warming: usize) {
        self.clusters_active.store(active as u64, Relaxed);
        self.clusters_warming.store(warming as u64, Relaxed);
    }

    pub fn set_listeners(&self, active: usize, warming: usize) {
        self.listeners_active.store(active as u64, Relaxed);
        self.listeners_warming.store(warming as u64, Relaxed);
    }

    fn attempt(&self, kind: ResourceKind) {
        self.of(kind).update_attempt.fetch_add(1, Relaxed);
    }

    fn of(&self, kind: ResourceKind) -> &KindCounters {
        &self.kinds[kind.index()]
    }
}

/// Those of clusters and listeners have Envoy's names; endpoints, routes and secrets, which Envoy counts by resource, are
/// summed.
fn name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "cluster_manager.cds.",
        ResourceKind::Endpoints => "eds.",
        ResourceKind::Listener => "listener_manager.lds.",
        ResourceKind::Routes => "rds.",
        ResourceKind::Secret => "sds.",
    }
}

impl Scope for DiscoveryCounters {
    fn prefix(&self) -> MetricName {
        MetricName::default()
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.gauge("control_plane.connected_state", u64::from(self.connected.load(Relaxed) > 0));
        for (name, value) in [
            ("cluster_manager.active_clusters", &self.clusters_active),
            ("cluster_manager.warming_clusters", &self.clusters_warming),
            ("listener_manager.total_listeners_active", &self.listeners_active),
            ("listener_manager.total_listeners_warming", &self.listeners_warming),
        ] {
            readings.gauge(name, value.load(Relaxed));
        }
        for kind in ResourceKind::ALL {
            let counters = self.of(kind);
            for (rest, value) in [
                ("update_attempt", &counters.update_attempt),
                ("update_success", &counters.update_success),
                ("update_failure", &counters.update_failure),
                ("update_rejected", &counters.update_rejected),
                ("init_fetch_timeout", &counters.init_fetch_timeout),
            ] {
                readings.counter(&format!("{}{rest}", name(kind)), value.load(Relaxed));
            }
            for (rest, value) in [("version", &counters.version), ("update_time", &counters.update_time_ms)] {
                readings.gauge(&format!("{}{rest}", name(kind)), value.load(Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Reading, reading};

    fn all(counters: &DiscoveryCounters) -> Vec<(String, Reading)> {
        let mut all = Vec::new();
        reading::read(counters, &mut |name, reading| all.push((name.text().to_owned(), reading)));
        all
    }

    fn value(counters: &DiscoveryCounters, name: &str) -> u64 {
        match all(counters).into_iter().find(|(known, _)| known == name) {
            Some((_, Reading::Counter(value) | Reading::Gauge(value))) => value,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn counts_under_envoys_names() {
        let counters = DiscoveryCounters::default();
        counters.connected();
        counters.subscribed(ResourceKind::Cluster);
        counters.accepted(ResourceKind::Cluster, "v1", 1234);
        counters.rejected(ResourceKind::Listener);
        counters.fetch_timed_out(ResourceKind::Listener);
        assert_eq!(value(&counters, "control_plane.connected_state"), 1);
        assert_eq!(value(&counters, "cluster_manager.cds.update_attempt"), 2);
        assert_eq!(value(&counters, "cluster_manager.cds.update_success"), 1);
        assert_eq!(value(&counters, "cluster_manager.cds.version"), xxh64(b"v1", 0));
        assert_eq!(value(&counters, "cluster_manager.cds.update_time"), 1234);
        assert_eq!(value(&counters, "listener_manager.lds.update_rejected"), 1);
        assert_eq!(value(&counters, "listener_manager.lds.init_fetch_timeout"), 1);
        counters.disconnected();
        counters.failed([ResourceKind::Cluster].into_iter());
        assert_eq!(value(&counters, "control_plane.connected_state"), 0);
        assert_eq!(value(&counters, "cluster_manager.cds.update_failure"), 1);
        assert_eq!(value(&counters, "listener_manager.lds.update_failure"), 0);
    }

    #[test]
    fn names_are_unique() {
        let all = all(&DiscoveryCounters::default());
        let names: std::collections::HashSet<_> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all.len());
    }
}
