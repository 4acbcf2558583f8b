//! Which host gets a request: hash placement key by key, distributions, priorities, localities, panic, subsets, names from a
//! DNS server of our own, original destinations by header, circuit breakers.
//!
//! The hosts are small servers of this file that answer with their own port.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;

use crate::Case;
use crate::config::{Ports, local};
use crate::pair::{TIMEOUT, Target};

/// The hosts' ports.
const HOSTS: [u16; 6] = [9401, 9402, 9403, 9404, 9405, 9406];
const DNS: u16 = 9453;

/// A cluster is reached by a path of its name.
struct Cluster {
    name: &'static str,
    fields: Value,
    route: Value,
}

fn cluster(name: &'static str, endpoints: Value, fields: Value) -> Cluster {
    let mut all = json!({"type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}});
    merge(&mut all, fields);
    Cluster { name, fields: all, route: json!({}) }
}

impl Cluster {
    fn route(self, route: Value) -> Self {
        Self { route, ..self }
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn host(port: u16) -> Value {
    json!({"endpoint": {"address": socket("127.0.0.1", port), "hostname": format!("host-{port}")}})
}

fn weighing(port: u16, weight: u32) -> Value {
    let mut host = host(port);
    host["load_balancing_weight"] = json!(weight);
    host
}

fn being(port: u16, health: &str) -> Value {
    let mut host = host(port);
    host["health_status"] = json!(health);
    host
}

fn with_metadata(port: u16, metadata: Value) -> Value {
    let mut host = host(port);
    host["metadata"] = json!({"filter_metadata": {"envoy.lb": metadata}});
    host
}

fn one_locality(hosts: Vec<Value>) -> Value {
    json!([{"lb_endpoints": hosts}])
}

fn all_hosts() -> Value {
    one_locality(HOSTS.iter().map(|port| host(*port)).collect())
}

fn zone(name: &str, weight: u32, hosts: Vec<Value>) -> Value {
    json!({"locality": {"zone": name}, "load_balancing_weight": weight, "lb_endpoints": hosts})
}

fn by_header() -> Value {
    json!({"hash_policy": [{"header": {"header_name": "x-key"}}]})
}

fn asking(metadata: Value) -> Value {
    json!({"metadata_match": {"filter_metadata": {"envoy.lb": metadata}}})
}

fn dns(name: &'static str, kind: &str, host: &str, more: Value) -> Cluster {
    let endpoint = json!({"endpoint": {"address": socket(host, HOSTS[0])}});
    let mut fields = json!({
        "type": kind,
        "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [socket("127.0.0.1", DNS)],
                "dns_resolver_options": {"no_default_search_domain": true},
            },
        },
    });
    merge(&mut fields, more);
    cluster(name, one_locality(vec![endpoint]), fields)
}

fn hashing_clusters() -> Vec<Cluster> {
    let weighted = || one_locality(HOSTS.iter().zip(1..).map(|(port, weight)| weighing(*port, weight)).collect());
    let zones = || json!([zone("a", 1, vec![host(9401), host(9402)]), zone("b", 3, vec![host(9403), host(9404)])]);
    vec![
        cluster("ring", all_hosts(), json!({"lb_policy": "RING_HASH"})),
        cluster("ring-weighted", weighted(), json!({"lb_policy": "RING_HASH"})),
        cluster(
            "ring-murmur",
            all_hosts(),
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}),
        ),
        cluster(
            "ring-small",
            all_hosts(),
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 10, "maximum_ring_size": 20}}),
        ),
        cluster(
            "ring-zones",
            zones(),
            json!({"lb_policy": "RING_HASH", "common_lb_config": {"locality_weighted_lb_config": {}}}),
        ),
        cluster("maglev", all_hosts(), json!({"lb_policy": "MAGLEV"})),
        cluster("maglev-weighted", weighted(), json!({"lb_policy": "MAGLEV"})),
        cluster(
            "maglev-small",
            all_hosts(),
            json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 101}}),
        ),
        cluster(
            "maglev-failover",
            json!([
                {"lb_endpoints": [host(9401), being(9402, "UNHEALTHY"), being(9403, "UNHEALTHY")]},
                {"priority": 1, "lb_endpoints": [host(9404), host(9405)]},
            ]),
            json!({"lb_policy": "MAGLEV"}),
        ),
    ]
    .into_iter()
    .map(|cluster| cluster.route(by_header()))
    .collect()
}

fn spreading_clusters() -> Vec<Cluster> {
    let weighted = || one_locality(vec![weighing(9401, 1), weighing(9402, 2), weighing(9403, 5)]);
    let zones = || json!([zone("a", 1, vec![host(9401), host(9402)]), zone("b", 3, vec![host(9403)])]);
    let levels = || {
        json!([
            {"lb_endpoints": [host(9401), being(9402, "UNHEALTHY")]},
            {"priority": 1, "lb_endpoints": [host(9403)]},
        ])
    };
    let panic = |value: u32| json!({"healthy_panic_threshold": {"value": value}});
    let weak = || one_locality(vec![host(9401), being(9402, "UNHEALTHY"), being(9403, "UNHEALTHY")]);
    vec![
        cluster("even", all_hosts(), json!({})),
        cluster("weighted", weighted(), json!({})),
        cluster("least", all_hosts(), json!({"lb_policy": "LEAST_REQUEST"})),
        cluster("least-weighted", weighted(), json!({"lb_policy": "LEAST_REQUEST"})),
        cluster("random", all_hosts(), json!({"lb_policy": "RANDOM"})),
        cluster("zones", zones(), json!({"common_lb_config": {"locality_weighted_lb_config": {}}})),
        cluster("zones-ignored", zones(), json!({})),
        cluster("levels", levels(), json!({})),
        cluster(
            "degraded",
            one_locality(vec![host(9401), being(9402, "DEGRADED"), being(9403, "DEGRADED")]),
            json!({}),
        ),
        cluster("panic", weak(), json!({})),
        cluster("no-panic", weak(), json!({"common_lb_config": panic(0)})),
        cluster("calm", weak(), json!({"common_lb_config": panic(20)})),
        cluster(
            "draining",
            one_locality(vec![host(9401), being(9402, "DRAINING"), being(9403, "TIMEOUT")]),
            json!({"common_lb_config": panic(0)}),
        ),
        Cluster {
            name: "aggregate",
            fields: json!({
                "lb_policy": "CLUSTER_PROVIDED",
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                        "clusters": ["levels", "calm"],
                    },
                },
            }),
            route: json!({}),
        },
    ]
}

fn subset_clusters() -> Vec<Cluster> {
    let hosts = || {
        one_locality(vec![
            with_metadata(9401, json!({"v": "a", "stage": "x"})),
            with_metadata(9402, json!({"v": "b", "stage": "x"})),
            with_metadata(9403, json!({"v": "b", "stage": "y"})),
            host(9404),
        ])
    };
    let subsets = |more: Value| {
        let mut subsets = json!({"subset_selectors": [
            {"keys": ["v"]},
            {"keys": ["stage", "v"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["v"]},
        ]});
        merge(&mut subsets, more);
        json!({"lb_subset_config": subsets})
    };
    let asked = asking(json!({"v": "b"}));
    vec![
        cluster("subset", hosts(), subsets(json!({}))).route(asked.clone()),
        cluster("subset-two-keys", hosts(), subsets(json!({}))).route(asking(json!({"v": "b", "stage": "y"}))),
        cluster("subset-fewer-keys", hosts(), subsets(json!({}))).route(asking(json!({"v": "a", "stage": "y"}))),
        cluster("subset-none", hosts(), subsets(json!({}))).route(asking(json!({"v": "c"}))),
        cluster("subset-unasked", hosts(), subsets(json!({}))),
        cluster("subset-other-key", hosts(), subsets(json!({}))).route(asking(json!({"w": "a"}))),
        cluster("subset-any", hosts(), subsets(json!({"fallback_policy": "ANY_ENDPOINT"})))
            .route(asking(json!({"v": "c"}))),
        cluster(
            "subset-default",
            hosts(),
            subsets(json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "x"}})),
        )
        .route(asking(json!({"v": "c"}))),
        cluster(
            "subset-panic",
            hosts(),
            subsets(
                json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "z"}, "panic_mode_any": true}),
            ),
        )
        .route(asking(json!({"v": "c"}))),
    ]
}

fn other_clusters() -> Vec<Cluster> {
    let limited = |limits: Value| json!({"circuit_breakers": {"thresholds": [limits]}});
    vec![
        dns("strict", "STRICT_DNS", "three.test", json!({})),
        dns("logical", "LOGICAL_DNS", "one.test", json!({})),
        dns("unknown-name", "STRICT_DNS", "none.test", json!({})),
        dns("address", "STRICT_DNS", "127.0.0.1", json!({})),
        dns("over-tcp", "STRICT_DNS", "large.test", json!({})),
        cluster("no-requests", all_hosts(), limited(json!({"max_requests": 0}))),
        cluster("no-pending", all_hosts(), limited(json!({"max_pending_requests": 0}))),
        cluster("no-pools", all_hosts(), limited(json!({"max_connection_pools": 0}))),
        Cluster {
            name: "original",
            fields: json!({
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "original_dst_lb_config": {"use_http_header": true},
            }),
            route: json!({}),
        },
        Cluster {
            name: "original-port",
            fields: json!({
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "original_dst_lb_config": {"use_http_header": true, "http_header_name": "x-to", "upstream_port_override": 9403},
            }),
            route: json!({}),
        },
    ]
}

/// The bootstrap's text.
pub(crate) fn bootstrap(ports: Ports, _access_log: &Path) -> String {
    let clusters: Vec<Cluster> =
        [hashing_clusters(), spreading_clusters(), subset_clusters(), other_clusters()].into_iter().flatten().collect();
    let routes: Vec<Value> = clusters
        .iter()
        .map(|cluster| {
            let mut action = json!({"cluster": cluster.name});
            merge(&mut action, cluster.route.clone());
            json!({"match": {"path": format!("/{}", cluster.name)}, "route": action})
        })
        .collect();
    let routes = json!({"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]});
    let address = |at: SocketAddr| socket(&at.ip().to_string(), at.port());
    let clusters = clusters.into_iter().map(|cluster| {
        let mut all = json!({"name": cluster.name, "connect_timeout": "1s"});
        merge(&mut all, cluster.fields);
        all
    });
    let document = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(ports.admin())},
        "static_resources": {
            "clusters": clusters.collect::<Vec<_>>(),
            "listeners": [{
                "name": "http",
                "address": address(ports.http()),
                "filter_chains": [{"filters": [http_filter("http", &routes)]}],
            }],
        },
    });
    format!("{document:#}\n")
}

/// The hosts and the name server, for as long as the test's process lives.
pub(crate) fn start_peers(namespace: &Namespace) -> Result<()> {
    namespace.enter(|| {
        for port in HOSTS {
            let listener = TcpListener::bind(local(port)).context("a host")?;
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || answer(stream, port));
                }
            });
        }
        let udp = UdpSocket::bind(local(DNS)).context("the name server")?;
        let tcp = TcpListener::bind(local(DNS)).context("the name server")?;
        std::thread::spawn(move || serve_names(&udp));
        std::thread::spawn(move || serve_names_over_tcp(&tcp));
        Ok(())
    })
}

/// Says its port to each request.
fn answer(stream: TcpStream, port: u16) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            writer.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{port}").as_bytes())?;
        }
    }
    Ok(())
}

/// How often each host was chosen.
fn spread(target: &Target, path: &str, turns: usize) -> Result<BTreeMap<String, usize>> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    let mut counts = BTreeMap::new();
    for _ in 0..turns {
        *counts.entry(connection.get("any.test", path, &[])?.text()).or_default() += 1;
    }
    Ok(counts)
}

/// The host of each key.
fn placement(target: &Target, path: &str, keys: usize) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    let mut facts = Facts::default();
    for hundred in 0..keys / 100 {
        let mut hosts = Vec::new();
        for key in hundred * 100..(hundred + 1) * 100 {
            let response = connection.get("any.test", path, &[("x-key", &format!("key-{key}"))])?;
            hosts.push(response.text().get(3..).unwrap_or("?").to_owned());
        }
        facts.add(format!("hosts of keys from {}", hundred * 100), hosts.concat());
    }
    Ok(facts)
}

/// Whether what was counted could come of these shares: Pearson's test at a level of one in a hundred thousand.
fn is_spread(counts: &BTreeMap<String, usize>, shares: &[(u16, f64)]) -> Result<()> {
    let total: usize = counts.values().sum();
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    let expected = |port: u16| shares.iter().find(|(at, _)| *at == port).map_or(0.0, |(_, share)| share / sum);
    let mut statistic = 0.0;
    for (port, _) in shares {
        let wanted = expected(*port) * total as f64;
        let found = counts.get(&port.to_string()).copied().unwrap_or(0) as f64;
        statistic += (found - wanted).powi(2) / wanted;
    }
    let others: Vec<_> = counts.keys().filter(|port| !shares.iter().any(|(at, _)| at.to_string() == **port)).collect();
    ensure!(others.is_empty(), "also to {others:?}: {counts:?}");
    // Quantiles of chi-square for 1 to 5 degrees of freedom.
    let bound = [19.51, 23.03, 25.90, 28.47, 30.86][shares.len().saturating_sub(2).min(4)];
    ensure!(statistic <= bound, "{statistic:.1} is over {bound}: {counts:?}");
    Ok(())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, path, keys) in [
        ("ring hash", "/ring", 10_000),
        ("ring hash by weight", "/ring-weighted", 1_000),
        ("ring hash by murmur", "/ring-murmur", 1_000),
        ("ring hash on a small ring", "/ring-small", 500),
        ("ring hash by localities", "/ring-zones", 1_000),
        ("maglev", "/maglev", 10_000),
        ("maglev by weight", "/maglev-weighted", 1_000),
        ("maglev with a small table", "/maglev-small", 500),
        ("maglev with a second priority", "/maglev-failover", 1_000),
    ] {
        cases.push(Case { name, observe: Box::new(move |target| placement(target, path, keys)) });
    }
    let even: Shares = &[(9401, 1.), (9402, 1.), (9403, 1.), (9404, 1.), (9405, 1.), (9406, 1.)];
    let weighted: Shares = &[(9401, 1.), (9402, 2.), (9403, 5.)];
    let three: Shares = &[(9401, 1.), (9402, 1.), (9403, 1.)];
    let spreads: [(&str, &str, Shares); 15] = [
        ("round robin", "/even", even),
        ("round robin by weight", "/weighted", weighted),
        ("least request", "/least", even),
        ("least request by weight", "/least-weighted", weighted),
        ("random", "/random", even),
        ("localities by weight", "/zones", &[(9401, 1.), (9402, 1.), (9403, 6.)]),
        ("localities that do not count", "/zones-ignored", three),
        ("a second priority takes the rest", "/levels", &[(9401, 7.), (9403, 3.)]),
        // One of three is healthy: its third, times the overprovisioning of 1.4, stays with it.
        ("degraded hosts take the rest", "/degraded", &[(9401, 7.), (9402, 4.), (9403, 4.)]),
        ("panic", "/panic", three),
        ("aggregate", "/aggregate", &[(9401, 70.), (9403, 30.)]),
        ("subset", "/subset", &[(9402, 1.), (9403, 1.)]),
        ("subset falls back to any", "/subset-any", &[(9401, 1.), (9402, 1.), (9403, 1.), (9404, 1.)]),
        ("subset falls back to the default", "/subset-default", &[(9401, 1.), (9402, 1.)]),
        ("subset in panic", "/subset-panic", &[(9401, 1.), (9402, 1.), (9403, 1.), (9404, 1.)]),
    ];
    for (name, path, shares) in spreads {
        cases.push(Case { name, observe: Box::new(move |target| spread_facts(target, path, shares)) });
    }
    for (name, path, headers) in [
        ("nobody is healthy enough and panic is off", "/no-panic", &[][..]),
        ("one is healthy and there is no panic", "/calm", &[]),
        ("draining hosts get nothing", "/draining", &[]),
        ("subset of two keys", "/subset-two-keys", &[]),
        ("subset of fewer keys", "/subset-fewer-keys", &[]),
        ("subset that is not there", "/subset-none", &[]),
        ("subset not asked for", "/subset-unasked", &[]),
        ("subset by an unknown key", "/subset-other-key", &[]),
        ("logical name", "/logical", &[]),
        ("name that nobody knows", "/unknown-name", &[]),
        ("address in the place of a name", "/address", &[]),
        ("name whose answer needs TCP", "/over-tcp", &[]),
        ("no requests allowed", "/no-requests", &[]),
        ("no pending requests allowed", "/no-pending", &[]),
        ("no pools allowed", "/no-pools", &[]),
        ("destination by header", "/original", &[("x-envoy-original-dst-host", "127.0.0.1:9404")]),
        ("destination by header that is none", "/original", &[("x-envoy-original-dst-host", "somewhere")]),
        ("destination by header and port by configuration", "/original-port", &[("x-to", "127.0.0.1:1")]),
    ] {
        cases.push(Case { name, observe: Box::new(move |target| answered(target, path, headers)) });
    }
    cases.push(Case { name: "strict names", observe: Box::new(|target| spread_facts(target, "/strict", STRICT)) });
    cases
}

/// By address: three of them answer on one port.
const STRICT: Shares = &[(9401, 1.)];

/// Hosts by their ports, and what of the requests each is to get.
type Shares = &'static [(u16, f64)];

fn spread_facts(target: &Target, path: &str, shares: &[(u16, f64)]) -> Result<Facts> {
    let counts = spread(target, path, 800)?;
    let mut facts = Facts::default();
    facts.add("hosts", format!("{:?}", counts.keys().collect::<Vec<_>>()));
    facts.add(
        "spread",
        is_spread(&counts, shares).map_or_else(|error| error.to_string(), |()| "as configured".to_owned()),
    );
    Ok(facts)
}

fn answered(target: &Target, path: &str, headers: &[(&str, &str)]) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    let mut facts = Facts::default();
    facts.add_outcome(&connection.get("any.test", path, headers));
    Ok(facts)
}

/// What a name stands for.
fn addresses_of(name: &str) -> Option<Vec<Ipv4Addr>> {
    let loopback = |last: u8| Ipv4Addr::new(127, 0, 0, last);
    match name {
        "one.test" => Some(vec![loopback(1)]),
        "three.test" => Some(vec![loopback(1), loopback(1), loopback(1)]),
        "large.test" => Some(vec![loopback(1); 40]),
        _ => None,
    }
}

/// An answer to the question in a message (RFC 1035), cut to what fits.
fn reply(question: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
    let question_end = at + 5;
    let is_a = question.get(at + 1..at + 3)? == [0, 1];
    let found = addresses_of(&name.join("."));
    let addresses = found.clone().filter(|_| is_a).unwrap_or_default();
    let is_cut = question_end + addresses.len() * 16 > bytes_max;
    let shown = if is_cut { 0 } else { addresses.len() };
    let mut reply = question.get(..2)?.to_vec();
    reply.push(0b1000_0101 | if is_cut { 0b10 } else { 0 });
    reply.push(if found.is_some() { 0x80 } else { 0x83 });
    reply.extend([0, 1, 0, shown as u8, 0, 0, 0, 0]);
    reply.extend(question.get(12..question_end)?);
    for address in addresses.iter().take(shown) {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

fn serve_names(socket: &UdpSocket) {
    let mut question = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        if let Some(reply) = reply(&question[..length], 512) {
            let _ = socket.send_to(&reply, from); // Err: whoever asked is gone
        }
    }
}

fn serve_names_over_tcp(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || -> Result<()> {
            use std::io::Read as _;
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question)?;
                let reply = reply(&question, usize::MAX).context("not a question")?;
                stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat())?;
            }
            Ok(())
        });
    }
}
