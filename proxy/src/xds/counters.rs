//! What is counted about the configuration stream, under Envoy's names. Written by the main thread, read by the admin
//! server when it is scraped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh64::xxh64;

use crate::xds::kind::ResourceKind;

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

/// One value to be scraped, without labels. The name is complete but for the `envoy_` in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub name: &'static str,
    pub kind: SampleKind,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    Counter,
    Gauge,
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

    /// All values. Those of clusters and listeners have Envoy's names; endpoints and routes, which Envoy counts by cluster
    /// and by route table, are summed.
    pub fn samples(&self) -> Vec<Sample> {
        let gauges = [
            ("cluster_manager_active_clusters", &self.clusters_active),
            ("cluster_manager_warming_clusters", &self.clusters_warming),
            ("listener_manager_total_listeners_active", &self.listeners_active),
            ("listener_manager_total_listeners_warming", &self.listeners_warming),
        ];
        let gauge = |(name, value): (&'static str, &AtomicU64)| Sample {
            name,
            kind: SampleKind::Gauge,
            value: value.load(Relaxed),
        };
        let connected = u64::from(self.connected.load(Relaxed) > 0);
        let mut samples: Vec<Sample> = gauges.into_iter().map(gauge).collect();
        let name = "control_plane_connected_state";
        samples.insert(0, Sample { name, kind: SampleKind::Gauge, value: connected });
        for kind in ResourceKind::ALL {
            let counters = self.of(kind);
            let values = [
                &counters.update_attempt,
                &counters.update_success,
                &counters.update_failure,
                &counters.update_rejected,
                &counters.init_fetch_timeout,
                &counters.version,
                &counters.update_time_ms,
            ];
            for ((name, kind), value) in names(kind).iter().zip(values) {
                samples.push(Sample { name, kind: *kind, value: value.load(Relaxed) });
            }
        }
        samples
    }

    fn attempt(&self, kind: ResourceKind) {
        self.of(kind).update_attempt.fetch_add(1, Relaxed);
    }

    fn of(&self, kind: ResourceKind) -> &KindCounters {
        &self.kinds[kind.index()]
    }
}

macro_rules! names_under {
    ($prefix:literal) => {
        &[
            (concat!($prefix, "_update_attempt"), SampleKind::Counter),
            (concat!($prefix, "_update_success"), SampleKind::Counter),
            (concat!($prefix, "_update_failure"), SampleKind::Counter),
            (concat!($prefix, "_update_rejected"), SampleKind::Counter),
            (concat!($prefix, "_init_fetch_timeout"), SampleKind::Counter),
            (concat!($prefix, "_version"), SampleKind::Gauge),
            (concat!($prefix, "_update_time"), SampleKind::Gauge),
        ]
    };
}

fn names(kind: ResourceKind) -> &'static [(&'static str, SampleKind); 7] {
    match kind {
        ResourceKind::Cluster => names_under!("cluster_manager_cds"),
        ResourceKind::Endpoints => names_under!("cluster_manager_eds"),
        ResourceKind::Listener => names_under!("listener_manager_lds"),
        ResourceKind::Routes => names_under!("http_rds"),
        ResourceKind::Secret => names_under!("sds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(counters: &DiscoveryCounters, name: &str) -> u64 {
        counters.samples().iter().find(|sample| sample.name == name).expect("a known name").value
    }

    #[test]
    fn counts_under_envoys_names() {
        let counters = DiscoveryCounters::default();
        counters.connected();
        counters.subscribed(ResourceKind::Cluster);
        counters.accepted(ResourceKind::Cluster, "v1", 1234);
        counters.rejected(ResourceKind::Listener);
        counters.fetch_timed_out(ResourceKind::Listener);
        assert_eq!(value(&counters, "control_plane_connected_state"), 1);
        assert_eq!(value(&counters, "cluster_manager_cds_update_attempt"), 2);
        assert_eq!(value(&counters, "cluster_manager_cds_update_success"), 1);
        assert_eq!(value(&counters, "cluster_manager_cds_version"), xxh64(b"v1", 0));
        assert_eq!(value(&counters, "cluster_manager_cds_update_time"), 1234);
        assert_eq!(value(&counters, "listener_manager_lds_update_rejected"), 1);
        assert_eq!(value(&counters, "listener_manager_lds_init_fetch_timeout"), 1);
        counters.disconnected();
        counters.failed([ResourceKind::Cluster].into_iter());
        assert_eq!(value(&counters, "control_plane_connected_state"), 0);
        assert_eq!(value(&counters, "cluster_manager_cds_update_failure"), 1);
        assert_eq!(value(&counters, "listener_manager_lds_update_failure"), 0);
    }

    #[test]
    fn names_are_unique() {
        let samples = DiscoveryCounters::default().samples();
        let names: std::collections::HashSet<_> = samples.iter().map(|sample| sample.name).collect();
        assert_eq!(names.len(), samples.len());
    }
}
