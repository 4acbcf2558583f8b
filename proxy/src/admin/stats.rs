//! `/stats` and `/stats/prometheus`.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    admin::Admin,
    config::route::RoutingPriority,
    stats::{PromText, write_prometheus},
    upstream::circuit_breaker::{CircuitBreakers, Resource},
    xds::counters::SampleKind,
};

/// What is open and what remains has names of its own in Envoy.
const BREAKERS: [(&str, &str, Resource); 5] = [
    ("cx", "cx", Resource::Connections),
    ("cx_pool", "cx_pools", Resource::ConnectionPools),
    ("rq_pending", "pending", Resource::PendingRequests),
    ("rq", "rq", Resource::Requests),
    ("rq_retry", "retries", Resource::Retries),
];
const PRIORITIES: [(&str, RoutingPriority); 2] =
    [("default", RoutingPriority::Default), ("high", RoutingPriority::High)];

impl Admin {
    pub(super) fn prometheus(&self) -> String {
        let mut out = PromText::default();
        write_prometheus(&self.registry, &mut out);
        self.circuit_breakers(&mut out);
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
    fn circuit_breakers(&self, out: &mut PromText) {
        let snapshot = self.shared.snapshot.load();
        let mut clusters: Vec<_> = snapshot.clusters.values().collect();
        clusters.sort_by(|a, b| a.config.stat_name.cmp(&b.config.stat_name));
        let mut gauge = |name: &str, value: &dyn Fn(&CircuitBreakers) -> u32| {
            out.type_line(name, "gauge");
            for cluster in &clusters {
                let label = ("envoy_cluster_name", &*cluster.config.stat_name);
                out.sample(name, &[label], value(&cluster.circuit_breakers));
            }
        };
        for (label, priority) in PRIORITIES {
            for (open, remaining, resource) in BREAKERS {
                gauge(&format!("envoy_cluster_circuit_breakers_{label}_{open}_open"), &|breakers| {
                    u32::from(breakers.is_open(priority, resource))
                });
                gauge(&format!("envoy_cluster_circuit_breakers_{label}_remaining_{remaining}"), &|breakers| {
                    let left = breakers.limit(priority, resource).saturating_sub(breakers.in_use(priority, resource));
                    if breakers.tracks_remaining(priority) { left } else { 0 }
                });
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
