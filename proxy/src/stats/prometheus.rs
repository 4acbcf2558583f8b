//! Prometheus text exposition (version 0.0.4), under Envoy's names.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use crate::stats::{Bins, MetricName, Reading, StatsRules, tags::Extracted, text::significant};

/// How histograms are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrometheusHistograms {
    #[default]
    Buckets,
    /// Quantiles rather than buckets.
    Summaries,
}

/// Text under construction: each metric's samples together, in the order of their names.
pub struct PrometheusText<'a> {
    rules: &'a StatsRules,
    histograms: PrometheusHistograms,
    metrics: BTreeMap<(Kind, String), String>,
}

/// In the order of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];
/// Envoy writes sums with so many.
const SUM_DIGITS: usize = 32;

impl<'a> PrometheusText<'a> {
    pub fn new(rules: &'a StatsRules, histograms: PrometheusHistograms) -> Self {
        Self { rules, histograms, metrics: BTreeMap::new() }
    }

    /// Texts are no numbers, and left out.
    pub fn add(&mut self, name: &MetricName, reading: &Reading) {
        let kind = match reading {
            Reading::Counter(_) => Kind::Counter,
            Reading::Gauge(_) => Kind::Gauge,
            Reading::Histogram { .. } => Kind::Histogram,
            Reading::Text(_) => return,
        };
        let Extracted { name: metric, tags } = self.rules.extract(name);
        let metric = format!("envoy_{}", sanitized(&metric));
        let mut labels = String::new();
        for (tag, value) in tags {
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = write!(labels, "{comma}{}=\"{}\"", sanitized(tag), escaped(&value));
        }
        let samples = self.metrics.entry((kind, metric.clone())).or_default();
        match reading {
            Reading::Counter(value) | Reading::Gauge(value) => {
                let _ = writeln!(samples, "{metric}{{{labels}}} {value}");
            }
            Reading::Histogram { total, .. } => {
                match self.histograms {
                    PrometheusHistograms::Buckets => {
                        write_buckets(samples, &metric, &labels, total, self.rules.buckets_of(name.text()));
                    }
                    PrometheusHistograms::Summaries => write_quantiles(samples, &metric, &labels, total),
                }
                let _ = writeln!(samples, "{metric}_sum{{{labels}}} {}", significant(total.sum(), SUM_DIGITS));
                let _ = writeln!(samples, "{metric}_count{{{labels}}} {}", total.count());
            }
            Reading::Text(_) => {}
        }
    }

    pub fn finish(self) -> String {
        let mut text = String::new();
        for ((kind, metric), samples) in self.metrics {
            let kind = match (kind, self.histograms) {
                (Kind::Counter, _) => "counter",
                (Kind::Gauge, _) => "gauge",
                (Kind::Histogram, PrometheusHistograms::Buckets) => "histogram",
                (Kind::Histogram, PrometheusHistograms::Summaries) => "summary",
            };
            let _ = writeln!(text, "# TYPE {metric} {kind}");
            text.push_str(&samples);
        }
        text
    }
}

fn write_buckets(samples: &mut String, metric: &str, labels: &str, total: &Bins, bounds: &[f64]) {
    let comma = if labels.is_empty() { "" } else { "," };
    for &bound in bounds {
        let _ = writeln!(samples, "{metric}_bucket{{{labels}{comma}le=\"{bound}\"}} {}", total.count_up_to(bound));
    }
    let _ = writeln!(samples, "{metric}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", total.count());
}

fn write_quantiles(samples: &mut String, metric: &str, labels: &str, total: &Bins) {
    let comma = if labels.is_empty() { "" } else { "," };
    for part in QUANTILES {
        let value = total.quantile(part).map_or_else(|| "nan".to_owned(), |value| value.to_string());
        let _ = writeln!(samples, "{metric}{{{labels}{comma}quantile=\"{part}\"}} {value}");
    }
}

/// What may not stand in a name becomes an underscore.
fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{ClusterStat, Registry, WorkerIndex, reading};

    #[test]
    fn text_has_one_type_line_a_metric_and_escaped_labels() {
        let registry = Registry::new(1);
        let a = registry.cluster(&"a\"b".into());
        let b = registry.cluster(&"b.c".into());
        a.cells.inc(WorkerIndex(0), ClusterStat::RqTotal);
        a.count_response(WorkerIndex(0), http::StatusCode::OK, crate::stats::CallerKind::External);
        b.cx_connect.record(WorkerIndex(0), Duration::from_millis(3));
        let rules = StatsRules::default();
        let mut text = PrometheusText::new(&rules, PrometheusHistograms::Buckets);
        for scope in registry.scopes() {
            reading::read(&*scope, &mut |name, reading| text.add(name, &reading));
        }
        let text = text.finish();
        assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_total counter").count(), 1);
        for sample in [
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_external_upstream_rq_completed{envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"b.c\",le=\"5\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_bucket{envoy_cluster_name=\"b.c\",le=\"+Inf\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_count{envoy_cluster_name=\"b.c\"} 1",
            "envoy_cluster_upstream_cx_connect_ms_count{envoy_cluster_name=\"a\\\"b\"} 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} in {text}");
        }
    }

    #[test]
    fn summaries_have_quantiles() {
        let rules = StatsRules::default();
        let histogram = crate::stats::Histogram::new(1);
        histogram.record_number(WorkerIndex(0), 7);
        let reading = Reading::Histogram { total: histogram.total(), interval: histogram.interval() };
        let mut text = PrometheusText::new(&rules, PrometheusHistograms::Summaries);
        text.add(&MetricName::new("server.a-b"), &reading);
        let text = text.finish();
        assert!(text.starts_with("# TYPE envoy_server_a_b summary\nenvoy_server_a_b{quantile=\"0\"} 7.05\n"), "{text}");
        assert!(text.ends_with("envoy_server_a_b_count{} 1\n"), "{text}");
    }
}
