//! Prometheus text exposition (version 0.0.4) of a registry, under Envoy's names.

use std::fmt::Write as _;

use crate::stats::{
    ClusterStats, CodeCounters, Histogram, HttpStats, ProxyProtocolStat, Registry, Sharded, StatGroup, StatKind,
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
    cells(out, "envoy_cluster_http2_", label, clusters.iter().map(|c| (&*c.name, &*c.http2)));
    let outliers = clusters.iter().filter_map(|c| Some((&*c.name, &**c.outlier_detection.get()?)));
    cells(out, "envoy_cluster_outlier_detection_", label, outliers);
    let checks = clusters.iter().filter_map(|c| Some((&*c.name, &**c.health_check.get()?)));
    cells(out, "envoy_cluster_health_check_", label, checks);
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
    let label = "envoy_listener_address";
    cells(out, "envoy_listener_", label, listeners.iter().map(|l| (&*l.name, &l.cells)));
    histogram(out, "envoy_listener_downstream_cx_length_ms", label, listeners.iter().map(|l| (&*l.name, &l.cx_length)));
    write_connection_filters(registry, out);

    unlabelled(out, "envoy_http2_", &registry.http2);
    unlabelled(out, "envoy_", &registry.server);
}

/// A group of which there is one.
fn unlabelled<S: StatGroup>(out: &mut PromText, prefix: &str, group: &Sharded<S>) {
    for &(stat, name, kind) in S::CELLS {
        let name = format!("{prefix}{name}");
        out.type_line(&name, kind_name(kind));
        out.sample(&name, &[], group.sum(stat));
    }
}

/// Listener filters, and the network filters that only look at connections.
fn write_connection_filters(registry: &Registry, out: &mut PromText) {
    let groups = registry.tls_inspectors();
    cells(out, "envoy_tls_inspector_", "", groups.iter().map(|group| (&*group.name, &group.cells)));
    let groups = registry.http_inspectors();
    cells(out, "envoy_http_inspector_", "", groups.iter().map(|group| (&*group.name, &group.cells)));
    let groups = registry.listener_rate_limits();
    let label = "envoy_local_listener_ratelimit_prefix";
    cells(out, "envoy_listener_local_ratelimit_", label, groups.iter().map(|group| (&*group.name, &group.cells)));
    let groups = registry.network_rate_limits();
    let label = "envoy_local_network_ratelimit_prefix";
    cells(out, "envoy_local_rate_limit_", label, groups.iter().map(|group| (&*group.name, &group.cells)));
    let groups = registry.connection_limits();
    let label = "envoy_connection_limit_prefix";
    cells(out, "envoy_connection_limit_", label, groups.iter().map(|group| (&*group.name, &group.cells)));
    write_proxy_protocol(registry, out);
}

/// What is the same of both versions differs by a label; the errors of all filters together have a name of their own.
fn write_proxy_protocol(registry: &Registry, out: &mut PromText) {
    use ProxyProtocolStat::{
        Error, NotFoundAllowed, NotFoundDisallowed, V1Disallowed, V1Error, V1Found, V2Disallowed, V2Error, V2Found,
    };
    let groups = registry.proxy_protocols();
    if groups.is_empty() {
        return;
    }
    let names = |name: &str| format!("envoy_proxy_proto_{name}");
    let prefix = |name| [("envoy_proxy_protocol_prefix", name)];
    for (name, stat) in [("not_found_allowed", NotFoundAllowed), ("not_found_disallowed", NotFoundDisallowed)] {
        out.type_line(&names(name), "counter");
        for group in &groups {
            let labels = prefix(&*group.name);
            out.sample(&names(name), if group.name.is_empty() { &[] } else { &labels }, group.cells.sum(stat));
        }
    }
    let of_versions =
        [("found", V1Found, V2Found), ("disallowed", V1Disallowed, V2Disallowed), ("error", V1Error, V2Error)];
    for (name, first, second) in of_versions {
        out.type_line(&names(name), "counter");
        for group in &groups {
            for (version, stat) in [("1", first), ("2", second)] {
                let labels = [("envoy_proxy_protocol_version", version), prefix(&*group.name)[0]];
                let labels = if group.name.is_empty() { &labels[..1] } else { &labels };
                out.sample(&names(name), labels, group.cells.sum(stat));
            }
        }
    }
    let errors: u64 = groups.iter().map(|group| group.cells.sum(Error)).sum();
    out.type_line("envoy_downstream_cx_proxy_proto_error", "counter");
    out.sample("envoy_downstream_cx_proxy_proto_error", &[], errors);
}

/// An empty label: there is none.
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
            let labels = [(label, group)];
            out.sample(&name, if label.is_empty() { &[] } else { &labels }, cells.sum(stat));
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
