//! The bootstrap that both proxies get, but for the ports that they listen on and the file that they log to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::http2_upstream;
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster, with_downstream_protocol, with_http2};

/// Where the application listens, and where it does not.
pub(crate) const ORIGIN_HTTP: u16 = 9080;
pub(crate) const ORIGIN_TCP: u16 = 9000;
pub(crate) const ORIGIN_SERVER_FIRST: u16 = 9001;
pub(crate) const ORIGIN_RAW: u16 = 9090;
pub(crate) const NOBODY: u16 = 9999;

/// The ports of one proxy, counted from its first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) first: u16,
}

impl Ports {
    pub(crate) fn admin(self) -> SocketAddr {
        local(self.first)
    }
    pub(crate) fn http(self) -> SocketAddr {
        local(self.first + 1)
    }
    pub(crate) fn tcp(self) -> SocketAddr {
        local(self.first + 2)
    }
    pub(crate) fn tcp_to_nobody(self) -> SocketAddr {
        local(self.first + 3)
    }
    pub(crate) fn tcp_server_first(self) -> SocketAddr {
        local(self.first + 4)
    }
    pub(crate) fn tcp_to_no_endpoints(self) -> SocketAddr {
        local(self.first + 5)
    }
    /// As [`Self::http`], but the other side is known by its address: x-forwarded-for is ours to write.
    pub(crate) fn http_edge(self) -> SocketAddr {
        local(self.first + 6)
    }
    /// As [`Self::http`], with every leniency that HTTP/1 has, towards both sides.
    pub(crate) fn http_lenient(self) -> SocketAddr {
        local(self.first + 9)
    }
    /// The listener of a scene.
    pub(crate) fn scene(self, number: usize) -> SocketAddr {
        local(self.first + 20 + u16::try_from(number).expect("few scenes"))
    }
    /// The same, reached from an internal address.
    pub(crate) fn http_internal(self) -> SocketAddr {
        SocketAddr::from((INTERNAL, self.first + 7))
    }
}

impl Ports {
    /// HTTP/2 only, with extended CONNECT; a connection that breaks the rules is closed at once.
    pub(crate) fn http2(self) -> SocketAddr {
        local(self.first + 10)
    }
}

/// An address that counts as internal (RFC 1918), which the loopback does not.
pub(crate) const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

/// The bootstrap's text.
pub(crate) fn bootstrap(ports: Ports, access_log: &Path) -> String {
    let mut document = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(ports.admin())},
        "static_resources": {
            "clusters": [
                static_cluster("origin", local(ORIGIN_HTTP)),
                static_cluster("raw", local(ORIGIN_RAW)),
                lenient_cluster("lenient", ORIGIN_HTTP),
                lenient_cluster("lenient-raw", ORIGIN_RAW),
                with_http2(static_cluster("origin-h2", local(ORIGIN_HTTP))),
                with_downstream_protocol(static_cluster("origin-as-asked", local(ORIGIN_HTTP))),
                static_cluster("nobody", local(NOBODY)),
                with_http2(static_cluster("nobody-h2", local(NOBODY))),
                half_dead_cluster(),
                {"name": "empty", "type": "STATIC", "connect_timeout": "1s"},
                static_cluster("tcp", local(ORIGIN_TCP)),
                static_cluster("tcp-server-first", local(ORIGIN_SERVER_FIRST)),
            ],
            "listeners": [
                http_listener("http", ports.http(), access_log, false),
                lenient_listener(ports.http_lenient(), access_log),
                http_listener("http-edge", ports.http_edge(), access_log, true),
                http_listener("http-internal", ports.http_internal(), access_log, true),
                http2_listener("http2", ports.http2(), access_log),
                tcp_listener("tcp", ports.tcp()),
                tcp_listener("nobody", ports.tcp_to_nobody()),
                tcp_listener("tcp-server-first", ports.tcp_server_first()),
                tcp_listener("empty", ports.tcp_to_no_endpoints()),
            ],
        },
    });
    add_scripted(&mut document);
    // Several cases run at a time: by default the fourth retry that is under way would be one too many.
    for cluster in document["static_resources"]["clusters"].as_array_mut().into_iter().flatten() {
        cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1000}]});
    }
    format!("{document:#}\n")
}

/// A cluster and a route for each script of `http2_upstream`.
fn add_scripted(document: &mut Value) {
    for at in 0..http2_upstream::SCRIPTS.len() {
        let name = http2_upstream::cluster(at);
        let cluster = with_http2(static_cluster(&name, local(http2_upstream::port(at))));
        if let Some(clusters) = document["static_resources"]["clusters"].as_array_mut() {
            clusters.push(cluster);
        }
        let mut scripted = route(&format!("/{name}/"), &name);
        if http2_upstream::retries(at) {
            let policy = json!({"retry_on": "refused-stream,reset", "num_retries": 2});
            scripted = with(scripted, json!({"retry_policy": policy}));
        }
        let listeners = document["static_resources"]["listeners"].as_array_mut();
        let manager = listeners.and_then(|listeners| listeners.first_mut()).map(|listener| {
            &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
        });
        let hosts = manager.and_then(Value::as_array_mut);
        let all = hosts.and_then(|hosts| hosts.iter_mut().find(|host| host["name"] == "all"));
        if let Some(routes) = all.and_then(|host| host["routes"].as_array_mut()) {
            routes.insert(0, scripted);
        }
    }
}

/// Two endpoints, of which only one is alive: without a retry every other request fails.
fn half_dead_cluster() -> Value {
    let mut cluster = static_cluster("half-dead", local(NOBODY));
    let alive = json!({"endpoint": {"address": address(local(ORIGIN_HTTP))}});
    if let Some(endpoints) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array_mut() {
        endpoints.push(alive);
    }
    cluster
}

fn http_listener(name: &str, at: SocketAddr, access_log: &Path, edge: bool) -> Value {
    let mut filter = http_filter(name, &routes());
    filter["typed_config"]["access_log"] = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": access_log,
            "log_format": {"text_format_source": {"inline_string": LOG_FORMAT}},
        },
    }]);
    if edge {
        filter["typed_config"]["use_remote_address"] = json!(true);
    }
    json!({"name": name, "address": address(at), "filter_chains": [{"filters": [filter]}]})
}

fn lenient_cluster(name: &str, port: u16) -> Value {
    let mut cluster = static_cluster(name, local(port));
    cluster["http_protocol_options"] = json!({"enable_trailers": true, "header_key_format": {"proper_case_words": {}}});
    cluster
}

fn upgrading_route(prefix: &str, upgrades: Value) -> Value {
    let mut route = route(prefix, "lenient-raw");
    route["route"]["upgrade_configs"] = upgrades;
    route
}

fn lenient_listener(at: SocketAddr, access_log: &Path) -> Value {
    let mut listener = http_listener("http-lenient", at, access_log, false);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["http_protocol_options"] = json!({
        "accept_http_10": true,
        "default_host_for_http_10": "old.test",
        "enable_trailers": true,
        "allow_chunked_length": true,
        "allow_custom_methods": true,
        "header_key_format": {"proper_case_words": {}},
    });
    manager["proxy_100_continue"] = json!(true);
    manager["upgrade_configs"] = json!([{"upgrade_type": "x"}, {"upgrade_type": "z", "enabled": false}]);
    manager["request_headers_timeout"] = json!("0.5s");
    manager["route_config"] = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        upgrading_route("/raw/no-upgrade", json!([{"upgrade_type": "x", "enabled": false}])),
        upgrading_route("/raw/only-here", json!([{"upgrade_type": "y"}])),
        route("/raw/", "lenient-raw"),
        route("/", "lenient"),
    ]}]});
    listener
}

fn http2_listener(name: &str, at: SocketAddr, access_log: &Path) -> Value {
    let mut listener = http_listener(name, at, access_log, false);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["codec_type"] = json!("HTTP2");
    manager["delayed_close_timeout"] = json!("0.05s");
    manager["http2_protocol_options"] = json!({"allow_connect": true});
    listener
}

/// What a line of the access log says, after the case's own name.
pub(crate) const LOG_FACTS: [&str; 8] =
    ["method", "path", "protocol", "status", "flags", "bytes received", "bytes sent", "cluster"];
pub(crate) const LOG_FORMAT: &str = "%REQ(X-TEST-ID)%\t%REQ(:METHOD)%\t%REQ(:PATH)%\t%PROTOCOL%\t%RESPONSE_CODE%\t%RESPONSE_FLAGS%\t%BYTES_RECEIVED%\t%BYTES_SENT%\t%UPSTREAM_CLUSTER%\n";

fn routes() -> Value {
    json!({
        "name": "routes",
        // One route names a cluster that does not exist, which is what a mesh sees while configuration is on its way.
        "validate_clusters": false,
        "virtual_hosts": [
            {"name": "narrow", "domains": ["narrow.test", "*.narrow.test:81"], "routes": [route("/narrow", "origin")]},
            {"name": "suffix", "domains": ["*.suffix.test"], "routes": [route("/", "origin")]},
            {"name": "all", "domains": ["*"], "routes": [
                route("/raw/", "raw"),
                route("/to-nobody", "nobody"),
                route("/h2-to-nobody", "nobody-h2"),
                route("/to-empty", "empty"),
                route("/to-unknown", "no-such-cluster"),
                with(route("/impatient", "origin"), json!({"timeout": "0.3s"})),
                with(route("/h2-impatient", "origin-h2"), json!({"timeout": "0.3s"})),
                with(route("/retry-5xx", "origin"), json!({"retry_policy": {"retry_on": "5xx", "num_retries": 2}})),
                with(route("/retry-once", "origin"), json!({"retry_policy": {"retry_on": "5xx"}})),
                with(route("/retry-reset", "origin"), json!({"retry_policy": {"retry_on": "reset", "num_retries": 3}})),
                with(route("/retry-gateway", "origin"), json!({"retry_policy": {"retry_on": "gateway-error", "num_retries": 2}})),
                with(route("/retry-codes", "origin"), json!({"retry_policy": {
                    "retry_on": "retriable-status-codes", "retriable_status_codes": [418], "num_retries": 2}})),
                with(route("/retry-connect", "half-dead"), json!({"retry_policy": {
                    "retry_on": "connect-failure", "num_retries": 3,
                    "retry_host_predicate": [{
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                    }],
                    "host_selection_retry_max_attempts": "5"}})),
                with(route("/retry-nobody", "nobody"), json!({"retry_policy": {"retry_on": "connect-failure", "num_retries": 2}})),
                with(route("/per-try", "origin"), json!({"timeout": "2s", "retry_policy": {
                    "retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"}})),
                route("/h2", "origin-h2"),
                route("/as-asked", "origin-as-asked"),
                route("/", "origin"),
            ]},
        ],
    })
}

fn route(prefix: &str, cluster: &str) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}})
}

fn with(mut route: Value, more: Value) -> Value {
    if let (Some(action), Value::Object(more)) = (route["route"].as_object_mut(), more) {
        action.extend(more);
    }
    route
}

/// The listener of this name goes to the cluster of this name.
fn tcp_listener(name: &str, at: SocketAddr) -> Value {
    json!({"name": format!("{name}-listener"), "address": address(at), "filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
        },
    }]}]})
}

fn address(at: SocketAddr) -> Value {
    socket(&at.ip().to_string(), at.port())
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
