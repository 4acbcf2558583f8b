//! What upstreams are told of a downstream: the PROXY protocol's header on connections to them, and the address that they see.
//!
//! The application of each scene listens in the scene itself, and keeps what comes first on its connection.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster};
use weft_tests::facts::Facts;

use crate::Case;
use crate::config::{INTERNAL, Ports, local};
use crate::pair::{TIMEOUT, Target};

/// A listener and its cluster.
struct Scene {
    name: &'static str,
    /// Of `ProxyProtocolConfig`, as JSON; empty: none.
    cluster: &'static str,
    /// Of the TCP proxy besides its cluster, as JSON; empty: it is a connection manager.
    filter: &'static str,
    /// What the client says first.
    header: &'static [u8],
    listener_filter: Option<&'static str>,
}

const V2_HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x19\x01\x02\x03\x04\x05\x06\x07\x08\x10\0\0\x50\x04\0\x02hi\x05\0\x01z\x04\0\x01q";
const V1_HEADER: &[u8] = b"PROXY TCP6 1::2 3::4 5 6\r\n";
const LOCAL_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const TAKES: Option<&str> = Some(
    r#"{"pass_through_tlvs": {}, "allow_requests_without_proxy_protocol": true, "kind": "proxy_protocol.v3.ProxyProtocol"}"#,
);
const TAKES_WITHOUT_EXTENSIONS: Option<&str> = Some(r#"{"kind": "proxy_protocol.v3.ProxyProtocol"}"#);
const V2_ALL: &str = r#"{"version": "V2", "pass_through_tlvs": {}}"#;
const ADDS: &str = r#"{"proxy_protocol_tlvs": [{"type": 4, "value": "WFg="}, {"type": 9, "value": "WVk="}]}"#;
const OVERWRITES: &str = r#"{"proxy_protocol_tlvs": [{"type": 4, "value": "WFg="}, {"type": 9, "value": "WVk="}],
    "proxy_protocol_tlv_merge_policy": "OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD"}"#;
const APPENDS: &str = r#"{"proxy_protocol_tlvs": [{"type": 4, "value": "WFg="}, {"type": 9, "value": "WVk="}],
    "proxy_protocol_tlv_merge_policy": "APPEND_IF_EXISTS_OR_ADD"}"#;
const CLUSTER_ADDS: &str = r#"{"version": "V2", "pass_through_tlvs": {},
    "added_tlvs": [{"type": 4, "value": "QQ=="}, {"type": 7, "value": "Qg=="}]}"#;

const fn scene(name: &'static str, cluster: &'static str, filter: &'static str, header: &'static [u8]) -> Scene {
    Scene { name, cluster, filter, header, listener_filter: TAKES }
}

const SCENES: &[Scene] = &[
    Scene { listener_filter: None, ..scene("v1", r#"{"version": "V1"}"#, "{}", b"") },
    Scene { listener_filter: None, ..scene("v2", r#"{"version": "V2"}"#, "{}", b"") },
    scene("v1 after none", r#"{"version": "V1"}"#, "{}", b""),
    scene("v1 after v1", r#"{"version": "V1"}"#, "{}", V1_HEADER),
    scene("v1 after v2", r#"{"version": "V1"}"#, "{}", V2_HEADER),
    scene("v1 after local", r#"{"version": "V1"}"#, "{}", LOCAL_HEADER),
    scene("v2 after v1", r#"{"version": "V2"}"#, "{}", V1_HEADER),
    scene("v2 after v2", r#"{"version": "V2"}"#, "{}", V2_HEADER),
    scene("all extensions", V2_ALL, "{}", V2_HEADER),
    scene(
        "one extension",
        r#"{"version": "V2", "pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [5]}}"#,
        "{}",
        V2_HEADER,
    ),
    Scene { listener_filter: TAKES_WITHOUT_EXTENSIONS, ..scene("extensions that ended", V2_ALL, "{}", V2_HEADER) },
    scene("the cluster adds", CLUSTER_ADDS, "{}", b""),
    scene("the cluster adds to some", CLUSTER_ADDS, "{}", V2_HEADER),
    scene("the cluster cannot add", r#"{"version": "V1", "added_tlvs": [{"type": 7, "value": "Qg=="}]}"#, "{}", b""),
    scene("the filter adds", V2_ALL, ADDS, b""),
    scene("the filter adds what may not pass", r#"{"version": "V2"}"#, ADDS, b""),
    scene("the filter does not add", V2_ALL, ADDS, V2_HEADER),
    scene("the filter does not add to none", V2_ALL, ADDS, V1_HEADER),
    scene("the filter overwrites", V2_ALL, OVERWRITES, V2_HEADER),
    scene("the filter overwrites none", V2_ALL, OVERWRITES, V1_HEADER),
    scene("the filter appends", V2_ALL, APPENDS, V2_HEADER),
    scene("the filter appends to none", V2_ALL, APPENDS, LOCAL_HEADER),
    scene("a request", r#"{"version": "V1"}"#, "", b""),
    scene("a request of another", V2_ALL, "", V2_HEADER),
    Scene {
        listener_filter: Some(r#"{"kind": "original_src.v3.OriginalSrc"}"#),
        ..scene("original source", "", "{}", b"")
    },
    Scene {
        listener_filter: Some(r#"{"kind": "original_src.v3.OriginalSrc"}"#),
        ..scene("source of a request", "", "", b"")
    },
];

pub(crate) fn cases() -> Vec<Case> {
    let observe = |number: usize| move |target: &Target| play(target, number);
    let scenes = SCENES.iter().enumerate();
    scenes.map(|(number, scene)| Case { name: scene.name, observe: Box::new(observe(number)) }).collect()
}

fn listener_address(ports: Ports, number: usize) -> SocketAddr {
    SocketAddr::from((INTERNAL, ports.first + 100 + u16::try_from(number).expect("few scenes")))
}

fn application_address(ports: Ports, number: usize) -> SocketAddr {
    local(ports.first + 200 + u16::try_from(number).expect("few scenes"))
}

pub(crate) fn bootstrap(ports: Ports, _access_log: &Path) -> String {
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON of this file");
    let clusters = SCENES.iter().enumerate().map(|(number, scene)| {
        let mut cluster = static_cluster(scene.name, application_address(ports, number));
        if !scene.cluster.is_empty() {
            cluster["transport_socket"] = json!({"name": "proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
                "config": parse(scene.cluster),
                "transport_socket": {"name": "raw", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}},
            }});
        }
        cluster
    });
    let listeners = SCENES.iter().enumerate().map(|(number, scene)| {
        let filter = if scene.filter.is_empty() {
            let route = json!({"match": {"prefix": "/"}, "route": {"cluster": scene.name}});
            http_filter(scene.name, &json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}))
        } else {
            let mut config = parse(scene.filter);
            config["@type"] = json!("type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy");
            config["stat_prefix"] = json!(scene.name);
            config["cluster"] = json!(scene.name);
            json!({"name": "tcp", "typed_config": config})
        };
        let listener_filters: Vec<Value> = scene
            .listener_filter
            .map(|text| {
                let mut config = parse(text);
                let kind = config.as_object_mut().and_then(|fields| fields.remove("kind")).expect("a kind");
                let kind = kind.as_str().expect("a string").to_owned();
                config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}"));
                json!({"name": kind, "typed_config": config})
            })
            .into_iter()
            .collect();
        let address = listener_address(ports, number);
        json!({
            "name": scene.name,
            "address": socket(&address.ip().to_string(), address.port()),
            "listener_filters": listener_filters,
            "filter_chains": [{"filters": [filter]}],
        })
    });
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {"listeners": listeners.collect::<Vec<_>>(), "clusters": clusters.collect::<Vec<_>>()},
    });
    format!("{document:#}\n")
}

const END: &[u8] = b"\r\n\r\nthe end";

fn play(target: &Target, number: usize) -> Result<Facts> {
    let scene = &SCENES[number];
    let application = TcpListener::bind(application_address(target.ports, number))?;
    application.set_nonblocking(true)?;
    let address = listener_address(target.ports, number);
    let mut client = TcpStream::connect_timeout(&address, TIMEOUT)?;
    client.write_all(scene.header)?;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 7")?;
    client.write_all(END)?;
    let (mut stream, peer) = accept(&application)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut came = Vec::new();
    while !came.ends_with(END) && !came.ends_with(b"the end") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).context("nothing more comes")?;
        ensure!(read > 0, "it ended after {:?}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&buffer[..read]);
    }
    let mut facts = Facts::default();
    let from_client = peer.ip() == IpAddr::V4(INTERNAL);
    facts.add("comes from", if from_client { "the client" } else { "the proxy" });
    ensure!(from_client || peer.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST), "{peer}");
    facts.add("begins with", before_the_request(&came, client.local_addr()?, address));
    Ok(facts)
}

fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    let until = Instant::now() + TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false)?;
                return Ok((stream, peer));
            }
            Err(error) => ensure!(Instant::now() < until, "no connection: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Escaped, with names for the ports that differ from run to run, in text and in bytes.
fn before_the_request(came: &[u8], client: SocketAddr, listener: SocketAddr) -> String {
    let begin = came.windows(5).position(|window| window == b"POST ").unwrap_or(came.len());
    let mut bytes = came[..begin].to_vec();
    for (port, name) in [(client.port(), "CLIENT"), (listener.port(), "LISTENER")] {
        for spelt in [port.to_string().into_bytes(), port.to_be_bytes().to_vec()] {
            if let Some(at) = bytes.windows(spelt.len()).position(|window| window == spelt) {
                bytes.splice(at..at + spelt.len(), name.bytes());
            }
        }
    }
    bytes.escape_ascii().to_string()
}
