//! Network filters that decide about connections, and the process's limit of them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use weft_tests::bootstrap::{socket, static_cluster};
use weft_tests::facts::Facts;
use weft_tests::wait;

use crate::Case;
use crate::config::{ORIGIN_TCP, Ports, local};
use crate::listeners::client_hello;
use crate::pair::{TIMEOUT, Target};

const LISTENERS: [&str; 7] = ["plain", "exempt", "two at a time", "two in all", "by name", "echo", "few"];
const CONNECTIONS_MAX: usize = 4;

fn port(ports: Ports, listener: &str) -> u16 {
    let at = LISTENERS.iter().position(|name| *name == listener).expect("a listener of this file");
    ports.first + 100 + u16::try_from(at).expect("few listeners")
}

pub(crate) fn bootstrap(ports: Ports, _access_log: &Path) -> String {
    let filter = |kind: &str, fields: Value| {
        let mut config = fields;
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.network.{kind}"));
        json!({"name": kind, "typed_config": config})
    };
    let listeners = LISTENERS.map(|name| {
        let tcp = filter("tcp_proxy.v3.TcpProxy", json!({"stat_prefix": name, "cluster": "tcp"}));
        let filters = match name {
            "two at a time" => {
                let limit = json!({"stat_prefix": "limited", "max_connections": 2, "delay": "0.1s"});
                vec![filter("connection_limit.v3.ConnectionLimit", limit), tcp]
            }
            "two in all" => {
                let bucket = json!({"max_tokens": 2, "fill_interval": "1000s"});
                let limit = json!({"stat_prefix": "limited", "token_bucket": bucket});
                vec![filter("local_ratelimit.v3.LocalRateLimit", limit), tcp]
            }
            "by name" => vec![filter("sni_cluster.v3.SniCluster", json!({})), tcp],
            "echo" => vec![filter("echo.v3.Echo", json!({}))],
            _ => vec![tcp],
        };
        let inspector = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}});
        json!({
            "name": name, "stat_prefix": name.replace(' ', "_"),
            "address": socket("127.0.0.1", port(ports, name)),
            "listener_filters": if name == "by name" { vec![inspector] } else { vec![] },
            "ignore_global_conn_limit": name != "plain",
            "filter_chains": [{"filters": filters}],
        })
    });
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": CONNECTIONS_MAX,
            },
        }]},
        "layered_runtime": {"layers": [{
            "name": "limits", "static_layer": {"envoy.resource_limits.listener.few.connection_limit": 2},
        }]},
        "static_resources": {"listeners": listeners, "clusters": [
            static_cluster("tcp", local(ORIGIN_TCP)),
            static_cluster("other", local(ORIGIN_TCP)),
        ]},
    });
    format!("{document:#}\n")
}

/// For proxies of its own: connections of other cases that end meanwhile give Envoy places that they never took.
pub(crate) fn global_cases() -> Vec<Case> {
    vec![Case { name: "connections of the process", observe: Box::new(global) }]
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, observe: fn(&Target) -> Result<Facts>| Case { name, observe: Box::new(observe) };
    vec![
        case("connections of a listener", of_a_listener),
        case("connections of a chain", at_a_time),
        case("connections at a rate", in_all),
        case("a cluster by name", by_name),
        case("echo", echo),
    ]
}

/// Opens as many connections as there may be and one more, and one after the first has ended.
fn one_too_many(target: &Target, listener: &str, most: usize, counters: &[&str]) -> Result<Facts> {
    let mut facts = Facts::default();
    let mut open = Vec::new();
    for number in 0..=most {
        let (stream, said) = converse(target, listener)?;
        facts.append(said.within(&format!("connection {number}")));
        open.push(stream);
    }
    drop(open.remove(0));
    // When the place is free again is for each to say.
    let again = wait::until("a place", TIMEOUT, || {
        let (stream, said) = converse(target, listener)?;
        anyhow::ensure!(said.only(|name| name == "answer").count() == 1, "no answer");
        Ok(stream)
    });
    facts.add("after one has ended", if again.is_ok() { "taken" } else { "refused" });
    let counted = target.counters(counters)?;
    let of_listener = format!("\"{}\"", listener.replace(' ', "_"));
    facts.append(
        counted.only(|name| name.contains(&of_listener) && name.contains("active") || name.contains("limited")),
    );
    Ok(facts)
}

fn global(target: &Target) -> Result<Facts> {
    let mut facts = Facts::default();
    let exempt: Vec<TcpStream> =
        (0..CONNECTIONS_MAX).map(|_| converse(target, "exempt").map(|(stream, _)| stream)).collect::<Result<_>>()?;
    facts.append(one_too_many(target, "plain", CONNECTIONS_MAX, &["envoy_listener_downstream_cx_active"])?);
    drop(exempt);
    let (_, said) = converse(target, "exempt")?;
    facts.append(said.within("exempt"));
    Ok(facts)
}

fn of_a_listener(target: &Target) -> Result<Facts> {
    one_too_many(target, "few", 2, &["envoy_listener_downstream_cx_active"])
}

fn at_a_time(target: &Target) -> Result<Facts> {
    one_too_many(target, "two at a time", 2, &["envoy_listener_downstream_cx_active", "envoy_connection_limit_active"])
}

fn in_all(target: &Target) -> Result<Facts> {
    let mut facts = Facts::default();
    for number in 0..3 {
        let (_, said) = converse(target, "two in all")?;
        facts.append(said.within(&format!("connection {number}")));
    }
    facts.append(target.counters(&["envoy_local_rate_limit_"])?);
    Ok(facts)
}

/// What the upstream says to a ClientHello is nonsense; that it says it is what counts.
fn by_name(target: &Target) -> Result<Facts> {
    let mut facts = Facts::default();
    for name in [Some("tcp"), Some("other"), Some("nowhere.test"), None] {
        let mut stream = TcpStream::connect_timeout(&local(port(target.ports, "by name")), TIMEOUT)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(&client_hello(name, &[], 0))?;
        // An end at once would be one before a filter chain has it.
        let _answer_or_end = stream.read(&mut [0; 64]);
    }
    let counters = target.counters(&["envoy_cluster_upstream_cx_total", "envoy_tcp_downstream_cx_no_route"])?;
    let of_case = |name: &str| name.contains("\"other\"") || name.contains("\"by name\"");
    facts.append(counters.only(of_case));
    Ok(facts)
}

fn echo(target: &Target) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&local(port(target.ports, "echo")), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut facts = Facts::default();
    for said in ["one\n", "two\n"] {
        stream.write_all(said.as_bytes())?;
        let mut heard = [0; 4];
        stream.read_exact(&mut heard)?;
        facts.add(format!("after {said:?}"), String::from_utf8_lossy(&heard));
    }
    stream.shutdown(Shutdown::Write)?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    facts.add("after the end", heard);
    Ok(facts)
}

/// Says a line; the answer, if one comes, and how long a refusal took.
fn converse(target: &Target, listener: &str) -> Result<(TcpStream, Facts)> {
    let mut stream = TcpStream::connect_timeout(&local(port(target.ports, listener)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let begun = Instant::now();
    let _refused = stream.write_all(b"x\n");
    let mut answer = [0; 4];
    let mut facts = Facts::default();
    match stream.read_exact(&mut answer) {
        Ok(()) => facts.add("answer", String::from_utf8_lossy(&answer)),
        Err(_ended) => {
            facts.add("refused", if begun.elapsed() < Duration::from_millis(80) { "at once" } else { "after a while" });
        }
    }
    Ok((stream, facts))
}
