//! `/stats` and `/stats/prometheus`: which statistics, and how they are shown, as the query says.

use std::sync::{Arc, atomic::Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use regex::Regex;

use crate::{
    admin::{Admin, Answer, memory::MemoryUse, parameters, text},
    config::route::RoutingPriority,
    stats::{
        MetricName, PrometheusHistograms, PrometheusText, Reading, Readings, Scope, Tag, reading,
        text::{self as stats_text, HistogramMode},
    },
    upstream::{circuit_breaker::Resource, cluster::Cluster},
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

/// What a query asks for.
#[derive(Debug, Default)]
struct Wish {
    format: Format,
    kind: Option<Kind>,
    used_only: bool,
    filter: Option<Regex>,
    inverted: bool,
    histograms: HistogramMode,
    prometheus_histograms: PrometheusHistograms,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Text,
    Json,
    Prometheus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

impl Wish {
    /// Err: what is wrong with it, in Envoy's words.
    fn parse(path: &str, query: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (name, value) in parameters(query) {
            match name.as_str() {
                "usedonly" => wish.used_only = true,
                "invert_filter" => wish.inverted = true,
                "filter" if !value.is_empty() => {
                    let regex = Regex::new(&value);
                    wish.filter = Some(regex.map_err(|_| format!("Invalid re2 regex: {value}"))?);
                }
                "format" => {
                    wish.format = match value.as_str() {
                        "text" => Format::Text,
                        "json" => Format::Json,
                        "prometheus" => Format::Prometheus,
                        _ => return Err("usage: /stats?format=(json|prometheus|text)\n\n".to_owned()),
                    };
                }
                "type" => {
                    wish.kind = match value.as_str() {
                        "All" | "" => None,
                        "Counters" => Some(Kind::Counters),
                        "Gauges" => Some(Kind::Gauges),
                        "Histograms" => Some(Kind::Histograms),
                        "TextReadouts" => Some(Kind::TextReadouts),
                        _ => return Err("invalid &type= param".to_owned()),
                    };
                }
                "histogram_buckets" => wish.histogram_buckets(&value)?,
                _ => {}
            }
        }
        if path == "/stats/prometheus" {
            wish.format = Format::Prometheus;
        }
        Ok(wish)
    }

    fn histogram_buckets(&mut self, value: &str) -> Result<(), String> {
        self.histograms = match value {
            "" | "summary" => HistogramMode::Summary,
            "cumulative" => HistogramMode::Cumulative,
            "disjoint" => HistogramMode::Disjoint,
            "detailed" => HistogramMode::Detailed,
            _ => {
                let usage = "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n";
                return Err(usage.to_owned());
            }
        };
        if value == "summary" {
            self.prometheus_histograms = PrometheusHistograms::Summaries;
        }
        Ok(())
    }

    fn takes(&self, name: &str, reading: &Reading) -> bool {
        let kind = match reading {
            Reading::Counter(_) => Kind::Counters,
            Reading::Gauge(_) => Kind::Gauges,
            Reading::Text(_) => Kind::TextReadouts,
            Reading::Histogram { .. } => Kind::Histograms,
        };
        self.kind.is_none_or(|wanted| wanted == kind)
            && (!self.used_only || reading.is_used())
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(name) != self.inverted)
    }
}

impl Admin {
    pub(super) fn stats(&self, path: &str, query: &str) -> Answer {
        let wish = match Wish::parse(path, query) {
            Ok(wish) => wish,
            Err(usage) => return text(StatusCode::BAD_REQUEST, usage),
        };
        if self.stats_flush_interval.is_none() {
            self.flush();
        }
        match wish.format {
            Format::Prometheus => {
                let mut out = PrometheusText::new(&self.stats_rules, wish.prometheus_histograms);
                self.read(&wish, |name, reading| out.add(name, &reading));
                text(StatusCode::OK, out.finish())
            }
            Format::Text => {
                text(StatusCode::OK, stats_text::to_text(&self.named(&wish), &self.stats_rules, wish.histograms))
            }
            Format::Json => {
                let value = stats_text::to_json(&self.named(&wish), &self.stats_rules, wish.histograms);
                let mut answer = text(StatusCode::OK, value.to_string());
                let json = HeaderValue::from_static("application/json");
                answer.headers_mut().insert(header::CONTENT_TYPE, json);
                answer
            }
        }
    }

    /// What is shown of counters begins anew.
    pub(super) fn reset_counters(&self) {
        for scope in self.scopes() {
            scope.reset();
        }
    }

    fn named(&self, wish: &Wish) -> stats_text::NamedReadings {
        let mut named = Vec::new();
        self.read(wish, |name, reading| named.push((name.text().to_owned(), reading)));
        stats_text::sort(&mut named);
        named
    }

    fn read(&self, wish: &Wish, mut take: impl FnMut(&MetricName, Reading)) {
        for scope in self.scopes() {
            reading::read(&*scope, &mut |name, reading| {
                if wish.takes(name.text(), &reading) && self.stats_rules.matcher.takes(name.text()) {
                    take(name, reading);
                }
            });
        }
    }

    fn scopes(&self) -> Vec<Arc<dyn Scope>> {
        let mut scopes = self.registry.scopes();
        scopes.push(self.registry.clone());
        scopes.push(self.runtime.counters().clone());
        scopes.push(Arc::new(self.process()));
        let snapshot = self.shared.snapshot.load();
        scopes.extend(snapshot.clusters.values().map(|cluster| Arc::new(Breakers(cluster.clone())) as Arc<dyn Scope>));
        scopes
    }

    fn flush(&self) {
        for scope in self.registry.scopes() {
            scope.flush();
        }
    }

    fn process(&self) -> Process {
        let workers = self.args.concurrency as u64;
        let memory = MemoryUse::now();
        let state = match self.state() {
            "LIVE" => 0,
            "DRAINING" => 1,
            _ => 2,
        };
        Process(vec![
            ("filesystem.write_failed", Reading::Counter(self.files.dropped())),
            ("listener_manager.workers_started", Reading::Gauge(u64::from(self.runtime.is_initialized()))),
            ("runtime.num_keys", Reading::Gauge(self.runtime_values.names().count() as u64)),
            ("runtime.num_layers", Reading::Gauge(self.runtime_values.layer_count() as u64)),
            ("server.concurrency", Reading::Gauge(workers)),
            ("server.hot_restart_epoch", Reading::Gauge(self.args.restart_epoch.into())),
            ("server.hot_restart_generation", Reading::Gauge(1)),
            ("server.live", Reading::Gauge(u64::from(self.state() == "LIVE"))),
            ("server.memory_allocated", Reading::Gauge(memory.heap_bytes)),
            ("server.memory_heap_size", Reading::Gauge(memory.heap_bytes)),
            ("server.memory_physical_size", Reading::Gauge(memory.resident_bytes)),
            ("server.state", Reading::Gauge(state)),
            ("server.total_connections", Reading::Gauge(self.shared.connections.load(Relaxed) as u64)),
            ("server.version", Reading::Gauge(self.stats_version)),
            ("server.uptime", Reading::Gauge(self.started.elapsed().as_secs())),
        ])
    }
}

/// Ends the intervals of histograms.
pub(super) async fn flush_regularly(admin: Arc<Admin>, interval: Duration) {
    let mut times = tokio::time::interval(interval);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        times.tick().await;
        admin.flush();
    }
}

/// Of the process itself.
struct Process(Vec<(&'static str, Reading)>);

impl Scope for Process {
    fn prefix(&self) -> MetricName {
        MetricName::default()
    }

    fn read(&self, readings: &mut Readings<'_>) {
        for (name, reading) in &self.0 {
            readings.say(name, reading.clone());
        }
    }
}

/// What clusters are now, rather than what happened to them.
struct Breakers(Arc<Cluster>);

impl Scope for Breakers {
    fn prefix(&self) -> MetricName {
        MetricName::new("cluster.").tagged(Tag::ClusterName, &self.0.config.stat_name).then("circuit_breakers.")
    }

    fn read(&self, readings: &mut Readings<'_>) {
        let breakers = &self.0.circuit_breakers;
        for (label, priority) in PRIORITIES {
            for (open, remaining, resource) in BREAKERS {
                let is_open = u64::from(breakers.is_open(priority, resource));
                readings.gauge(&format!("{label}.{open}_open"), is_open);
                if breakers.tracks_remaining(priority) {
                    let limit = breakers.limit(priority, resource);
                    let left = limit.saturating_sub(breakers.in_use(priority, resource));
                    readings.gauge(&format!("{label}.remaining_{remaining}"), left.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let wish = Wish::parse("/stats", "usedonly&filter=a%2Eb&format=json&type=Counters&histogram_buckets=disjoint");
        let wish = wish.unwrap();
        assert_eq!((wish.format, wish.histograms), (Format::Json, HistogramMode::Disjoint));
        assert!(wish.takes("xa.by", &Reading::Counter(1)));
        assert!(!wish.takes("xa.by", &Reading::Counter(0)), "was never used");
        assert!(!wish.takes("xa.by", &Reading::Gauge(1)), "is no counter");
        assert!(!wish.takes("axc", &Reading::Counter(1)));
        assert!(Wish::parse("/stats", "filter=a&invert_filter").unwrap().takes("b", &Reading::Gauge(0)));
        assert_eq!(Wish::parse("/stats/prometheus", "").unwrap().format, Format::Prometheus);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (query, expected) in [
            ("format=x", "usage: /stats?format=(json|prometheus|text)\n\n"),
            ("type=x", "invalid &type= param"),
            ("filter=(", "Invalid re2 regex: ("),
            ("histogram_buckets=x", "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n"),
        ] {
            assert_eq!(Wish::parse("/stats", query).unwrap_err(), expected, "{query}");
        }
    }
}
