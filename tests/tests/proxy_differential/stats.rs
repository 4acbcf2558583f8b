//! What both count of the same traffic, under the same names: text, JSON and Prometheus text of the admin server.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{socket, static_cluster};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::wait;

use crate::Case;
use crate::config::{ORIGIN_HTTP, Ports, local};
use crate::pair::{TIMEOUT, Target};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(crate) fn cases() -> Vec<Case> {
    vec![Case { name: "statistics", observe: Box::new(statistics) }]
}

pub(crate) fn bootstrap(ports: Ports, _: &Path) -> String {
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress",
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")}}],
        "route_config": {"name": "r", "validate_clusters": false, "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [
                {"match": {"prefix": "/direct"}, "direct_response": {"status": 201, "body": {"inline_string": "x"}}},
                {"match": {"prefix": "/gone"}, "redirect": {"path_redirect": "/there"}},
                {"match": {"prefix": "/none"}, "route": {"cluster": "missing"}},
                {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
                {"match": {"prefix": "/again"}, "route": {
                    "cluster": "again", "prefix_rewrite": "/", "retry_policy": {"retry_on": "5xx", "num_retries": 1},
                }},
                {"match": {"prefix": "/served"}, "route": {"cluster": "web", "prefix_rewrite": "/"}},
            ],
        }]},
    });
    let tcp = json!({
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "bytes", "cluster": "web:1",
    });
    let listener = |name: &str, at: u16, filter: &Value| {
        json!({
            "name": name, "stat_prefix": name, "address": socket("127.0.0.1", ports.first + 100 + at),
            "filter_chains": [{"filters": [{"name": name, "typed_config": filter}]}],
        })
    };
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        // Or else what was recorded is told seconds later.
        "stats_flush_on_admin": true,
        "stats_config": {
            "stats_tags": [
                {"tag_name": "fixed", "fixed_value": "value"},
                {"tag_name": "part", "regex": "^cluster\\.((web)\\.)upstream_cx"},
                {"tag_name": "any", "regex": "(_total)$"},
            ],
            "histogram_bucket_settings": [{"match": {"prefix": "cluster."}, "buckets": [100_000, 1, 10]}],
            "stats_matcher": {"exclusion_list": {"patterns": [
                {"prefix": "cluster.dead.upstream_cx_h"}, {"suffix": "upstream_rq_404"},
            ]}},
        },
        "static_resources": {
            "listeners": [listener("requests", 0, &manager), listener("bytes", 1, &tcp)],
            "clusters": [
                static_cluster("web", local(ORIGIN_HTTP)), static_cluster("web:1", local(ORIGIN_HTTP)),
                static_cluster("dead", local(1)), static_cluster("again", local(ORIGIN_HTTP)),
            ],
        },
    });
    format!("{document:#}\n")
}

fn statistics(target: &Target) -> Result<Facts> {
    let address = local(target.ports.first + 100);
    for path in [
        "/direct",
        "/gone",
        "/none",
        "/dead",
        "/nothing",
        "/served/status/200",
        "/served/status/404",
        "/served/status/503",
        "/again/status/503",
        "/again/status/200",
    ] {
        // A connection each: how many the upstream sees is then certain.
        let answer = Connection::open(address, TIMEOUT)?.get("web", path, &[("x-forwarded-for", "9.9.9.9")])?;
        ensure!(answer.status > 100, "{path}");
    }
    let mut bytes = TcpStream::connect_timeout(&local(target.ports.first + 101), TIMEOUT)?;
    bytes.set_read_timeout(Some(TIMEOUT))?;
    bytes.write_all(b"GET /status/200 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let _ended = bytes.read_to_end(&mut Vec::new());
    let _ended_already = bytes.shutdown(Shutdown::Both);
    let get = |path: &str| -> Result<String> {
        let answer = Connection::open(target.ports.admin(), TIMEOUT)?.get("admin", path, &[])?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        Ok(answer.text())
    };
    wait::until("everything is counted", Duration::from_secs(5), || {
        let text = get("/stats?filter=downstream_cx_active")?;
        let is_over = |line: &&str| line.contains(".admin.") || line.ends_with(" 0");
        ensure!(text.lines().all(|line| is_over(&line)), "{text}");
        Ok(())
    })?;
    let mut facts = text_facts(&get("/stats")?);
    facts.append(text_facts(&get("/stats?usedonly&type=Counters&filter=web")?).within("used"));
    facts.append(json_facts(&get("/stats?format=json&type=Gauges&filter=%5Ecluster")?)?.within("json"));
    facts.append(prometheus_facts(&get("/stats/prometheus?usedonly&filter=%5E(cluster|http.ingress)")?));
    Ok(facts)
}

/// Names whose values depend on what nothing here decides.
const BY_CHANCE: [&str; 7] = [
    "_buffered",
    "_bytes_total",
    "upstream_cx_active",
    "_length_ms",
    "upstream_cx_destroy",
    // Whether the connection of an answer that was not wanted can be used again depends on how soon all of it came.
    "again.upstream_cx",
    "again.upstream_rq_pending",
];

fn is_compared(name: &str) -> bool {
    COMPARED.iter().any(|prefix| name.contains(prefix)) && !BY_CHANCE.iter().any(|part| name.contains(part))
}

/// Counted here. What Envoy has beside them is of features that are not here, or of its own insides.
const COMPARED: [&str; 40] = [
    "cluster.dead.circuit_breakers.",
    "cluster.web.circuit_breakers.",
    ".upstream_rq_200",
    ".upstream_rq_2xx",
    ".upstream_rq_404",
    ".upstream_rq_4xx",
    ".upstream_rq_503",
    ".upstream_rq_5xx",
    ".upstream_rq_completed",
    ".membership_",
    ".upstream_cx_total",
    ".upstream_cx_http1_total",
    ".upstream_cx_http2_total",
    ".upstream_cx_connect_fail",
    ".upstream_cx_connect_timeout",
    ".upstream_cx_none_healthy",
    ".upstream_cx_overflow",
    ".upstream_rq_total",
    ".upstream_rq_active",
    ".upstream_rq_pending_",
    ".upstream_rq_retry",
    ".upstream_rq_timeout",
    ".upstream_rq_per_try_timeout",
    ".upstream_rq_rx_reset",
    ".upstream_rq_tx_reset",
    ".upstream_rq_cancelled",
    ".lb_healthy_panic",
    "http.ingress.downstream_cx_total",
    "http.ingress.downstream_cx_http",
    "http.ingress.downstream_rq_total",
    "http.ingress.downstream_rq_completed",
    "http.ingress.downstream_rq_active",
    "http.ingress.downstream_rq_2xx",
    "http.ingress.downstream_rq_4xx",
    "http.ingress.rq_total",
    "http.ingress.no_",
    "listener.requests.",
    "tcp.bytes.downstream_cx_total",
    "cluster_manager.active",
    "listener_manager.listener_added",
];

fn text_facts(text: &str) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let is_uncounted = [
            "downstream_cx_overflow",
            "overload",
            "global_cx",
            "extension_config",
            "per_socket_event",
            "active_overflow",
            "rx_reset_no_error",
            "soft_drain",
            "http3",
        ];
        if is_compared(name) && !is_uncounted.iter().any(|part| name.contains(part)) && !name.contains("ssl") {
            // How long something took is a histogram, and never twice the same.
            let value = if value.starts_with("P0(") { "recorded" } else { value };
            facts.add(name, value);
        }
    }
    facts
}

fn json_facts(text: &str) -> Result<Facts> {
    let stats: Value = serde_json::from_str(text)?;
    let mut facts = Facts::default();
    for stat in stats["stats"].as_array().context("no stats")? {
        let name = stat["name"].as_str().context("no name")?;
        if is_compared(name) {
            facts.add(name, &stat["value"]);
        }
    }
    Ok(facts)
}

fn prometheus_facts(text: &str) -> Facts {
    let compared = ["envoy_cluster_upstream_rq", "envoy_http_downstream_rq", "envoy_cluster_upstream_cx_connect_"];
    let mut facts = Facts::default();
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    // A gauge that is back at nothing has been used, says Envoy; here only a value tells.
    let is_compared = |name: &str| {
        let is_left_out = name.starts_with('#') || name.contains("_active{") || name.contains("\"again\"");
        compared.iter().any(|part| name.contains(part)) && !is_left_out
    };
    for (name, value) in samples.filter(|(name, _)| is_compared(name)) {
        let is_timed = name.contains("_ms_") || name.contains("_time_");
        if !is_timed || name.contains("le=\"100000\"") || name.contains("_count") {
            facts.add(name, value);
        }
    }
    facts
}
