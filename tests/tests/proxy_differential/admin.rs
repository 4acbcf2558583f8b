//! The admin server: which paths there are, who may use them and what they say.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use weft_tests::bootstrap::{socket, static_cluster};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;

use crate::Case;
use crate::config::{ORIGIN_HTTP, Ports, local};
use crate::pair::{TIMEOUT, Target};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case { name: "admin paths", observe: Box::new(paths) }]
}

pub(crate) fn bootstrap(ports: Ports, _: &Path) -> String {
    let echo = json!({"name": "echo", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
    }});
    let document = json!({
        "node": {"id": "node", "cluster": "cluster"},
        "admin": {
            "address": socket("127.0.0.1", ports.admin().port()),
            "allow_paths": [{"safe_regex": {"regex": "/[^x].*"}}],
        },
        "static_resources": {
            "listeners": [{
                "name": "echo", "address": socket("127.0.0.1", ports.first + 100), "filter_chains": [{"filters": [echo]}],
            }],
            "clusters": [
                static_cluster("web", local(ORIGIN_HTTP)),
                {"name": "weighed", "load_assignment": {"cluster_name": "weighed", "endpoints": [
                    {"locality": {"region": "r", "zone": "z"}, "lb_endpoints": [{
                        "load_balancing_weight": 7, "health_status": "UNHEALTHY",
                        "endpoint": {"hostname": "h", "address": socket("127.0.0.1", 1)},
                        "metadata": {"filter_metadata": {"envoy.lb": {"canary": true}}},
                    }]},
                    {"priority": 1, "lb_endpoints": [{"endpoint": {"address": socket("127.0.0.1", 2)}}]},
                ]}},
            ],
        },
    });
    format!("{document:#}\n")
}

/// What each says is compared word for word.
const ASKED: [(&str, &str); 31] = [
    ("GET", "/ready"),
    ("POST", "/ready"),
    ("PUT", "/ready"),
    ("GET", "/xyz"),
    ("GET", "/listeners"),
    ("GET", "/listeners?format=json"),
    ("GET", "/clusters"),
    ("GET", "/clusters?format=json"),
    ("GET", "/clusters?filter=web"),
    ("GET", "/clusters?filter=("),
    ("GET", "/contention"),
    ("GET", "/init_dump"),
    ("GET", "/runtime"),
    ("GET", "/logging"),
    ("GET", "/quitquitquit"),
    ("GET", "/drain_listeners"),
    ("GET", "/healthcheck/fail"),
    ("GET", "/reset_counters"),
    ("GET", "/config_dump?resource=static_clusters&mask=cluster.name"),
    ("GET", "/config_dump?resource=static_clusters&name_regex=we&mask=cluster.name"),
    ("GET", "/config_dump?resource=dynamic_listeners"),
    ("GET", "/config_dump?resource=nope"),
    ("GET", "/config_dump?resource=bootstrap"),
    ("GET", "/config_dump?mask=nope"),
    ("POST", "/drain_listeners?skip_exit"),
    ("GET", "/stats?format=nope"),
    ("GET", "/stats?type=nope"),
    ("POST", "/healthcheck/fail"),
    ("GET", "/ready"),
    ("POST", "/healthcheck/ok"),
    ("POST", "/drain_listeners?graceful"),
];

fn paths(target: &Target) -> Result<Facts> {
    let mut facts = Facts::default();
    for (at, (method, path)) in ASKED.into_iter().enumerate() {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\n\r\n");
        let mut connection = Connection::open(target.ports.admin(), TIMEOUT)?;
        connection.send(request.as_bytes())?;
        let answer = connection.receive(false)?;
        let label = format!("{at} {method} {path}");
        facts.add(format!("{label}: status"), answer.status);
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        // Of a refusal of Envoy's own insides the charset is left out there.
        facts.add(format!("{label}: type"), content_type.split(';').next().unwrap_or_default());
        let mut text = answer.text().replace(&(target.ports.first + 100).to_string(), "PORT");
        if path.starts_with("/stats?format") {
            text = text.replace("html|active-html|", "");
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(mut value) if content_type.contains("json") && path.starts_with("/clusters") => {
                forget_pending(&mut value);
                add_json(&mut facts, &label, value);
            }
            Ok(value) if content_type.contains("json") => add_json(&mut facts, &label, value),
            _ => {
                let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains(PENDING)).collect();
                lines.sort_unstable(); // clusters come in any order
                facts.add(format!("{label}: says"), lines.join("\n"));
            }
        }
    }
    let connected = Connection::open(local(target.ports.first + 100), TIMEOUT).is_ok();
    facts.add("connections are taken while draining", connected);
    Ok(facts)
}

/// Of a host: waiting requests are counted for the cluster alone, so that a host's counters are one cache line.
const PENDING: &str = "rq_pending_active";

fn forget_pending(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(forget_pending),
        Value::Array(elements) => {
            elements.retain(|element| element["name"] != PENDING);
            elements.iter_mut().for_each(forget_pending);
        }
        _ => {}
    }
}

/// Clusters by name, for they come in any order.
fn add_json(facts: &mut Facts, label: &str, mut value: Value) {
    for field in ["cluster_statuses", "configs"] {
        if let Some(Value::Array(elements)) = value.get_mut(field) {
            elements.sort_by_key(Value::to_string);
        }
    }
    facts.add(format!("{label}: says"), sorted(&value).to_string());
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            names.into_iter().map(|name| (name.clone(), sorted(&fields[name]))).collect()
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
