//! `/stats` and `/stats/prometheus`.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    admin::Admin,
    config::route::RoutingPriority,
    stats::{PromText, write_prometheus},
    upstream::{circuit_breaker::Resource, cluster::Cluster},
    xds::counters::SampleKind,
};

const BREAKERS: [(&str, Resource); 4] = [
    ("cx", Resource::Connections),
    ("rq_pending", Resource::PendingRequests),
    ("rq", Resource::Requests),
    ("rq_retry", Resource::Retries),
];

/// Envoy names what remains of retries in the plural and leaves `rq` out of what is pending.
fn remaining_name(breaker: &str) -> &str {
    match breaker {
        "rq_retry" => "retries",
        "rq_pending" => "pending",
        other => other,
    }
}

impl Admin {
    pub(super) fn prometheus(&self) -> String {
        let mut out = PromText::with_tags(&self.stats_tags);
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
        out.gauge("envoy_server_concurrency", &[], self.args.concurrency);
        out.gauge("envoy_server_total_connections", &[], self.shared.connections.load(Relaxed));
        out.type_line("envoy_access_log_file_write_failed", "counter");
        out.sample("envoy_access_log_file_write_failed", &[], self.files.dropped());
        out.finish()
    }

    /// What clusters are now, rather than what happened to them.
    fn membership(&self, out: &mut PromText) {
        let snapshot = self.shared.snapshot.load();
        let mut clusters: Vec<_> = snapshot.clusters.values().collect();
        clusters.sort_by(|a, b| a.config.stat_name.cmp(&b.config.stat_name));
        let mut gauge = |name: &str, value: &dyn Fn(&Cluster) -> Option<usize>| {
            out.type_line(name, "gauge");
            for cluster in &clusters {
                if let Some(value) = value(cluster) {
                    out.sample(name, &[("envoy_cluster_name", &cluster.config.stat_name)], value);
                }
            }
        };
        gauge("envoy_cluster_membership_total", &|cluster| Some(cluster.endpoints.load().members.len()));
        gauge("envoy_cluster_membership_healthy", &|cluster| {
            Some(cluster.endpoints.load().priorities.iter().map(|priority| priority.healthy.len()).sum())
        });
        for (name, resource) in BREAKERS {
            let in_use = |cluster: &Cluster| cluster.circuit_breakers.in_use(RoutingPriority::Default, resource);
            let limit = |cluster: &Cluster| cluster.circuit_breakers.limit(RoutingPriority::Default, resource);
            gauge(&format!("envoy_cluster_circuit_breakers_default_{name}_open"), &|cluster| {
                Some(usize::from(in_use(cluster) >= limit(cluster)))
            });
            gauge(&format!("envoy_cluster_circuit_breakers_default_remaining_{}", remaining_name(name)), &|cluster| {
                let tracked = cluster.config.circuit_breakers.track_remaining;
                tracked.then(|| limit(cluster).saturating_sub(in_use(cluster)) as usize)
            });
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
