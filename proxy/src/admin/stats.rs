//! `/stats` and `/stats/prometheus`.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    admin::Admin,
    config::route::RoutingPriority,
    stats::{PromText, write_prometheus},
    upstream::circuit_breaker::Resource,
    xds::counters::SampleKind,
};

/// Written for clusters that ask for it by `track_remaining`.
const REMAINING: [(&str, Resource); 4] = [
    ("envoy_cluster_circuit_breakers_default_remaining_cx", Resource::Connections),
    ("envoy_cluster_circuit_breakers_default_remaining_pending", Resource::PendingRequests),
    ("envoy_cluster_circuit_breakers_default_remaining_rq", Resource::Requests),
    ("envoy_cluster_circuit_breakers_default_remaining_retries", Resource::Retries),
];

impl Admin {
    pub(super) fn prometheus(&self) -> String {
        let mut out = PromText::default();
        write_prometheus(&self.registry, &mut out);
        self.membership(&mut out);
        for sample in self.runtime.counters().samples() {
            let name = format!("envoy_{}", sample.name);
            out.type_line(&name, if sample.kind == SampleKind::Counter { "counter" } else { "gauge" });
            out.sample(&name, &[], sample.value);
        }
        let live = u64::from(self.state() == "LIVE");
        out.gauge("envoy_server_live", &[], live);
        out.gauge("envoy_server_uptime", &[], self.started.elapsed().as_secs());
        out.gauge("envoy_server_concurrency", &[], self.concurrency);
        out.gauge("envoy_server_total_connections", &[], self.shared.connections.load(Relaxed));
        out.type_line("envoy_access_log_file_write_failed", "counter");
        out.sample("envoy_access_log_file_write_failed", &[], self.files.dropped());
        out.finish()
    }

    fn membership(&self, out: &mut PromText) {
        let snapshot = self.shared.snapshot.load();
        let mut clusters: Vec<_> = snapshot.clusters.values().collect();
        clusters.sort_by(|a, b| a.config.stat_name.cmp(&b.config.stat_name));
        type Value = fn(&crate::upstream::cluster::Cluster) -> usize;
        let healthy: Value = |cluster| cluster.endpoints.load().priorities.iter().map(|p| p.healthy.len()).sum();
        let total: Value = |cluster| cluster.endpoints.load().members.len();
        let breaker = |resource| {
            move |cluster: &crate::upstream::cluster::Cluster| {
                let breakers = &cluster.circuit_breakers;
                let (in_use, limit) = (
                    breakers.in_use(RoutingPriority::Default, resource),
                    breakers.limit(RoutingPriority::Default, resource),
                );
                usize::from(in_use >= limit)
            }
        };
        let gauges: [(&str, Box<dyn Fn(&crate::upstream::cluster::Cluster) -> usize>); 6] = [
            ("envoy_cluster_membership_healthy", Box::new(healthy)),
            ("envoy_cluster_membership_total", Box::new(total)),
            ("envoy_cluster_circuit_breakers_default_cx_open", Box::new(breaker(Resource::Connections))),
            ("envoy_cluster_circuit_breakers_default_rq_pending_open", Box::new(breaker(Resource::PendingRequests))),
            ("envoy_cluster_circuit_breakers_default_rq_open", Box::new(breaker(Resource::Requests))),
            ("envoy_cluster_circuit_breakers_default_rq_retry_open", Box::new(breaker(Resource::Retries))),
        ];
        for (name, resource) in REMAINING {
            out.type_line(name, "gauge");
            for cluster in clusters.iter().filter(|cluster| cluster.config.circuit_breakers.track_remaining) {
                let breakers = &cluster.circuit_breakers;
                let limit = breakers.limit(RoutingPriority::Default, resource);
                let remaining = limit.saturating_sub(breakers.in_use(RoutingPriority::Default, resource));
                out.sample(name, &[("envoy_cluster_name", &cluster.config.stat_name)], remaining);
            }
        }
        for (name, value) in gauges {
            out.type_line(name, "gauge");
            for cluster in &clusters {
                out.sample(name, &[("envoy_cluster_name", &cluster.config.stat_name)], value(cluster));
            }
        }
    }

    /// `name{labels}: value` lines of everything that is neither a comment nor, when asked, zero.
    pub(super) fn plain_stats(&self, used_only: bool) -> String {
        let text = self.prometheus();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.filter_map(|line| line.rsplit_once(' '));
        let wanted = pairs.filter(|(_, value)| !used_only || *value != "0");
        wanted.map(|(name, value)| format!("{}: {value}\n", name.strip_suffix("{}").unwrap_or(name))).collect()
    }
}
