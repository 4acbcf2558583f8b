//! Prometheus text exposition (version 0.0.4) of a registry, under Envoy's names.

use std::fmt::Write as _;

use crate::stats::{
    ClusterStats, CodeCounters, Histogram, HttpStats, Registry, ServerStat, Sharded, StatGroup, StatKind,
    sharded::HISTOGRAM_BUCKETS_MS,
};

/// Text under construction: each metric's `# TYPE` line once, then its samples.
#[derive(Default)]
pub struct PromText {
    text: String,
    /// Labels that every sample has, behind its own.
    tags: String,
}

impl PromText {
    /// Of two tags of one name the first holds.
    pub fn with_tags(tags: &[(String, String)]) -> PromText {
        let mut out = PromText::default();
        for (at, (name, value)) in tags.iter().enumerate() {
            if !tags[..at].iter().any(|(known, _)| known == name) {
                let _ = write!(out.tags, ",{}=\"{}\"", label_name(name), escaped(value));
            }
        }
        out
    }

    pub fn type_line(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    /// A sample; `labels` are (name, value) pairs.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{");
        for (at, (label, text)) in labels.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(self.text, "{comma}{label}=\"{}\"", escaped(text));
        }
        let tags = if labels.is_empty() { self.tags.trim_start_matches(',') } else { &self.tags };
        let _ = writeln!(self.text, "{tags}}} {value}");
    }

    pub fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.type_line(name, "gauge");
        self.sample(name, labels, value);
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// What may not stand in a label's name becomes an underscore.
fn label_name(tag: &str) -> String {
    tag.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Everything in the registry.
pub fn write_prometheus(registry: &Registry, out: &mut PromText) {
    let clusters = registry.clusters();
    let label = "envoy_cluster_name";
    cells(out, "envoy_cluster_", label, clusters.iter().map(|c| (&*c.name, &c.cells)));
    codes(
        out,
        "envoy_cluster_upstream_rq",
        label,
        clusters.iter().map(|c: &std::sync::Arc<ClusterStats>| (&*c.name, &c.codes)),
    );
    histogram(out, "envoy_cluster_upstream_rq_time", label, clusters.iter().map(|c| (&*c.name, &c.rq_time)));
    histogram(out, "envoy_cluster_upstream_cx_connect_ms", label, clusters.iter().map(|c| (&*c.name, &c.cx_connect)));

    let http = registry.http_connection_managers();
    let label = "envoy_http_conn_manager_prefix";
    cells(out, "envoy_http_", label, http.iter().map(|h| (&*h.name, &h.cells)));
    classes(
        out,
        "envoy_http_downstream_rq",
        label,
        http.iter().map(|h: &std::sync::Arc<HttpStats>| (&*h.name, &h.codes)),
    );
    histogram(out, "envoy_http_downstream_rq_time", label, http.iter().map(|h| (&*h.name, &h.rq_time)));

    let tcp = registry.tcp_proxies();
    cells(out, "envoy_tcp_", "envoy_tcp_prefix", tcp.iter().map(|t| (&*t.name, &t.cells)));
    let listeners = registry.listeners();
    cells(out, "envoy_listener_", "envoy_listener_address", listeners.iter().map(|l| (&*l.name, &l.cells)));

    for &(stat, name, kind) in ServerStat::CELLS {
        let name = format!("envoy_{name}");
        out.type_line(&name, kind_name(kind));
        out.sample(&name, &[], registry.server.sum(stat));
    }
}

fn cells<'a, S: StatGroup>(
    out: &mut PromText,
    prefix: &str,
    label: &str,
    groups: impl Iterator<Item = (&'a str, &'a Sharded<S>)> + Clone,
) {
    for &(stat, name, kind) in S::CELLS {
        let name = format!("{prefix}{name}");
        let mut samples = groups.clone().peekable();
        if samples.peek().is_some() {
            out.type_line(&name, kind_name(kind));
        }
        for (group, cells) in samples {
            out.sample(&name, &[(label, group)], cells.sum(stat));
        }
    }
}

/// By class, as Envoy's `..._xx` with `envoy_response_code_class`.
fn classes<'a>(
    out: &mut PromText,
    prefix: &str,
    label: &str,
    groups: impl Iterator<Item = (&'a str, &'a CodeCounters)>,
) {
    let name = format!("{prefix}_xx");
    out.type_line(&name, "counter");
    for (group, codes) in groups {
        let totals = codes.totals();
        for class in 1..=5u16 {
            let count: u64 = totals.iter().filter(|(code, _)| code / 100 == class).map(|(_, count)| count).sum();
            let labels = [("envoy_response_code_class", &*class.to_string()), (label, group)];
            out.sample(&name, &labels, count);
        }
    }
}

/// By class and by code.
fn codes<'a>(
    out: &mut PromText,
    prefix: &str,
    label: &str,
    groups: impl Iterator<Item = (&'a str, &'a CodeCounters)> + Clone,
) {
    classes(out, prefix, label, groups.clone());
    out.type_line(prefix, "counter");
    for (group, codes) in groups {
        for (code, count) in codes.totals() {
            out.sample(prefix, &[("envoy_response_code", &*code.to_string()), (label, group)], count);
        }
    }
}

fn histogram<'a>(out: &mut PromText, name: &str, label: &str, groups: impl Iterator<Item = (&'a str, &'a Histogram)>) {
    let mut typed = false;
    for (group, histogram) in groups {
        let Some((counts, sum_ms)) = histogram.totals() else { continue };
        if !typed {
            out.type_line(name, "histogram");
            typed = true;
        }
        let bucket = format!("{name}_bucket");
        for (bound, count) in HISTOGRAM_BUCKETS_MS.iter().zip(&counts) {
            out.sample(&bucket, &[(label, group), ("le", &*bound.to_string())], count);
        }
        let all = counts[HISTOGRAM_BUCKETS_MS.len()];
        out.sample(&bucket, &[(label, group), ("le", "+Inf")], all);
        out.sample(&format!("{name}_sum"), &[(label, group)], sum_ms);
        out.sample(&format!("{name}_count"), &[(label, group)], all);
    }
}

fn kind_name(kind: StatKind) -> &'static str {
    match kind {
        StatKind::Counter => "counter",
        StatKind::Gauge => "gauge",
    }
}

fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['\\', '"', '\n']) {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{ClusterStat, WorkerIndex};
    use std::time::Duration;

    #[test]
    fn tags_stand_behind_the_labels_of_every_sample() {
        let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut out = PromText::with_tags(&[tag("a.b", "x"), tag("c", "y"), tag("c", "z")]);
        out.sample("plain", &[], 1);
        out.sample("labelled", &[("l", "m")], 2);
        assert_eq!(out.finish(), "plain{a_b=\"x\",c=\"y\"} 1\nlabelled{l=\"m\",a_b=\"x\",c=\"y\"} 2\n");
    }

    #[test]
    fn text_has_one_type_line_a_metric_and_escaped_labels() {
        let registry = Registry::new(1);
        let a = registry.cluster(&"a\"b".into());
        let b = registry.cluster(&"b".into());
        a.cells.inc(WorkerIndex(0), ClusterStat::RqTotal);
        a.codes.count(WorkerIndex(0), http::StatusCode::OK);
        b.rq_time.record(WorkerIndex(0), Duration::from_millis(3));
        let mut out = PromText::default();
        write_prometheus(&registry, &mut out);
        let text = out.finish();
        assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_total counter").count(), 1);
        assert!(text.contains("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\"} 1\n"), "{text}");
        assert!(
            text.contains("envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\\\"b\"} 1")
        );
        assert!(text.contains("envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"b\",le=\"5\"} 1"));
        assert!(text.contains("envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"b\"} 1"));
    }
}
