//! TCP connections through `tcp_proxy`: what is heard, logged and counted.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use weft_tests::bootstrap::{socket, static_cluster};
use weft_tests::facts::Facts;

use crate::Case;
use crate::config::{NOBODY, ORIGIN_SERVER_FIRST, ORIGIN_TCP, Ports, local};
use crate::pair::{TIMEOUT, Target};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, observe: fn(&Target) -> Result<Facts>| Case { name, observe: Box::new(observe) };
    vec![
        case("a line and its answer", |target| converse(target.ports.tcp(), b"hello\n")),
        case("many lines", |target| converse(target.ports.tcp(), "line\n".repeat(10_000).as_bytes())),
        case("nothing but the end", |target| converse(target.ports.tcp(), b"")),
        case("the server speaks first", |target| converse(target.ports.tcp_server_first(), b"")),
        case("the server greets before the client speaks", greeted_first),
        case("nobody listens", |target| only_listen(target.ports.tcp_to_nobody())),
        case("no endpoints", |target| only_listen(target.ports.tcp_to_no_endpoints())),
    ]
}

/// Says `words` and half-closes; what comes back, and how it ends.
fn converse(address: SocketAddr, words: &[u8]) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let spoken = std::thread::scope(|scope| {
        let mut writer = stream.try_clone()?;
        let writing = scope.spawn(move || writer.write_all(words).and_then(|()| writer.shutdown(Shutdown::Write)));
        let heard = listen(&mut stream);
        let _ended_early = writing.join();
        anyhow::Ok(heard)
    })?;
    Ok(spoken)
}

/// Says nothing: whether words that nobody reads turn an end into a reset is a matter of timing.
fn only_listen(address: SocketAddr) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(listen(&mut stream))
}

fn greeted_first(target: &Target) -> Result<Facts> {
    let mut stream = TcpStream::connect_timeout(&target.ports.tcp_server_first(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    stream.write_all(b"thanks\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut facts = listen(&mut stream);
    facts.add("greeting", String::from_utf8_lossy(&greeting));
    Ok(facts)
}

fn listen(stream: &mut TcpStream) -> Facts {
    let mut heard = Vec::new();
    let end = match stream.read_to_end(&mut heard) {
        Ok(_) => "end".to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut facts = Facts::default();
    facts.add("bytes", heard.len());
    facts.add("first line", String::from_utf8_lossy(heard.split(|byte| *byte == b'\n').next().unwrap_or_default()));
    facts.add("ending", end);
    facts
}

/// A listener with a TCP proxy, and what a client does on it.
struct Scene {
    name: &'static str,
    cluster: &'static str,
    /// Of the filter's configuration, besides its cluster.
    fields: fn() -> Value,
    client: Client,
}

#[derive(Clone, Copy)]
enum Client {
    /// Says this, ends, and hears the rest.
    Says(&'static str),
    /// Says this, hears as much, and then the rest.
    SaysAndStays(&'static str),
    /// Hears what there is.
    Listens,
    /// Says this, and after the answer resets the connection.
    Resets(&'static str),
    /// As `Listens`, while another connection is open.
    ComesSecond,
    /// Says this in two pieces, the second after a while.
    SaysLater(&'static str),
}

const SCENES: &[Scene] = &[
    Scene { name: "echoed", cluster: "tcp", fields: none, client: Client::Says("hello\n") },
    Scene { name: "greeted", cluster: "greets", fields: none, client: Client::Listens },
    Scene { name: "nobody", cluster: "nobody", fields: none, client: Client::Listens },
    Scene { name: "unknown", cluster: "no-such-cluster", fields: none, client: Client::Listens },
    Scene { name: "empty", cluster: "empty", fields: none, client: Client::Listens },
    Scene { name: "overflow", cluster: "one-connection", fields: none, client: Client::ComesSecond },
    Scene { name: "reset", cluster: "tcp", fields: none, client: Client::Resets("hello\n") },
    Scene {
        name: "retried",
        cluster: "nobody",
        fields: || json!({"max_connect_attempts": 3}),
        client: Client::Listens,
    },
    Scene {
        name: "retried after a while",
        cluster: "nobody",
        fields: || json!({"max_connect_attempts": 2, "backoff_options": {"base_interval": "0.01s"}}),
        client: Client::Listens,
    },
    Scene {
        name: "half dead",
        cluster: "half-dead",
        fields: || json!({"max_connect_attempts": 5}),
        client: Client::Says("hello\n"),
    },
    Scene {
        name: "idle",
        cluster: "tcp",
        fields: || json!({"idle_timeout": "0.5s"}),
        client: Client::SaysAndStays("hello\n"),
    },
    Scene {
        name: "too long",
        cluster: "tcp",
        fields: || json!({"max_downstream_connection_duration": "0.5s"}),
        client: Client::SaysAndStays("hello\n"),
    },
    Scene {
        name: "too long by chance",
        cluster: "tcp",
        fields: || {
            json!({
                "max_downstream_connection_duration": "0.4s",
                "max_downstream_connection_duration_jitter_percentage": {"value": 50},
            })
        },
        client: Client::SaysAndStays("hello\n"),
    },
    Scene {
        name: "weighted",
        cluster: "",
        fields: || json!({"weighted_clusters": {"clusters": [{"name": "tcp", "weight": 1}]}}),
        client: Client::Says("hello\n"),
    },
    Scene {
        name: "on data",
        cluster: "tcp",
        fields: || json!({"upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": 3}),
        client: Client::SaysLater("hello\n"),
    },
    Scene {
        name: "early data",
        cluster: "tcp",
        fields: || json!({"max_early_data_bytes": 100}),
        client: Client::Says("hello\n"),
    },
    Scene {
        name: "on handshake",
        cluster: "tcp",
        fields: || json!({"upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE", "max_early_data_bytes": 0}),
        client: Client::Says("hello\n"),
    },
    Scene {
        name: "logged thrice",
        cluster: "tcp",
        fields: || json!({"access_log_options": {"flush_access_log_on_start": true, "flush_access_log_on_connected": true}}),
        client: Client::Says("hello\n"),
    },
];

fn none() -> Value {
    json!({})
}

pub(crate) fn counted_cases() -> Vec<Case> {
    let observe = |number: usize| move |target: &Target| play(target, number);
    let scenes = SCENES.iter().enumerate();
    scenes.map(|(number, scene)| Case { name: scene.name, observe: Box::new(observe(number)) }).collect()
}

pub(crate) fn bootstrap(ports: Ports, access_log: &Path) -> String {
    let listeners = SCENES.iter().enumerate().map(|(number, scene)| {
        let mut config = (scene.fields)();
        config["@type"] = json!("type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy");
        config["stat_prefix"] = json!(stat_prefix(scene));
        config["access_log"] = json!([{"name": "log", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": access_log, "log_format": {"text_format_source": {"inline_string": LOG_FORMAT}},
        }}]);
        if !scene.cluster.is_empty() {
            config["cluster"] = json!(scene.cluster);
        }
        json!({
            "name": scene.name, "stat_prefix": stat_prefix(scene),
            "address": socket("127.0.0.1", scene_port(ports, number)),
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": config}]}],
        })
    });
    let mut half_dead = static_cluster("half-dead", local(NOBODY));
    if let Some(endpoints) = half_dead["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array_mut() {
        endpoints.push(json!({"endpoint": {"address": socket("127.0.0.1", ORIGIN_TCP)}}));
    }
    let mut one_connection = static_cluster("one-connection", local(ORIGIN_TCP));
    one_connection["circuit_breakers"] = json!({"thresholds": [{"max_connections": 1}]});
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {
            "listeners": listeners.collect::<Vec<_>>(),
            "clusters": [
                static_cluster("tcp", local(ORIGIN_TCP)),
                static_cluster("greets", local(ORIGIN_SERVER_FIRST)),
                static_cluster("nobody", local(NOBODY)),
                {"name": "empty", "type": "STATIC"},
                half_dead,
                one_connection,
            ],
        },
    });
    format!("{document:#}\n")
}

fn stat_prefix(scene: &Scene) -> String {
    scene.name.replace(' ', "_")
}

fn scene_port(ports: Ports, number: usize) -> u16 {
    ports.first + 100 + u16::try_from(number).expect("few scenes")
}

const LOG_FORMAT: &str = "%DOWNSTREAM_REMOTE_ADDRESS%\t%RESPONSE_FLAGS%\t%RESPONSE_CODE%\t%RESPONSE_CODE_DETAILS%\t\
    %BYTES_RECEIVED%\t%BYTES_SENT%\t%UPSTREAM_CLUSTER%\t%UPSTREAM_REQUEST_ATTEMPT_COUNT%\t%PROTOCOL%\n";
const LOGGED: [&str; 8] =
    ["flags", "code", "details", "bytes received", "bytes sent", "cluster", "attempts", "protocol"];

fn play(target: &Target, number: usize) -> Result<Facts> {
    let scene = &SCENES[number];
    let address = local(scene_port(target.ports, number));
    let (from, mut facts) = scene.client.play(address)?;
    let line = target.last_line(&from.to_string())?;
    for (name, value) in LOGGED.iter().zip(line.split('\t')) {
        // Which of two hosts comes first is a matter of chance.
        if scene.cluster != "half-dead" || *name != "attempts" && *name != "flags" {
            facts.add(format!("log {name}"), value);
        }
    }
    facts.add("lines", target.lines(&from.to_string())?);
    let of_scene = [
        format!("envoy_tcp_prefix=\"{}\"", stat_prefix(scene)),
        format!("envoy_listener_address=\"{}\"", stat_prefix(scene)),
    ];
    let counters = target.counters(&["envoy_tcp_", "envoy_listener_downstream_cx_"])?;
    let is_compared = |name: &str| {
        // Whether words or the upstream come first is a race unless the filter waits for words.
        let is_race = name.contains("early_data") && scene.name != "on data";
        of_scene.iter().any(|of| name.contains(of)) && !name.contains("_length_ms_") && !is_race
    };
    facts.append(counters.only(is_compared));
    Ok(facts)
}

impl Client {
    fn play(self, address: SocketAddr) -> Result<(SocketAddr, Facts)> {
        let connect = || -> Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let hear = |stream: &mut TcpStream, bytes: usize| stream.read_exact(&mut vec![0; bytes]);
        let mut stream = connect()?;
        let mut from = stream.local_addr()?;
        let mut facts = Facts::default();
        match self {
            Self::Says(words) => {
                stream.write_all(words.as_bytes())?;
                stream.shutdown(Shutdown::Write)?;
                facts.append(listen(&mut stream));
            }
            Self::SaysLater(words) => {
                let (first, second) = words.as_bytes().split_at(words.len() / 2);
                stream.write_all(first)?;
                std::thread::sleep(Duration::from_millis(50));
                stream.write_all(second)?;
                stream.shutdown(Shutdown::Write)?;
                facts.append(listen(&mut stream));
            }
            Self::SaysAndStays(words) => {
                stream.write_all(words.as_bytes())?;
                facts.append(listen(&mut stream));
            }
            Self::Listens => {
                stream.set_read_timeout(Some(Duration::from_millis(500)))?;
                facts.append(listen(&mut stream));
            }
            Self::Resets(words) => {
                stream.write_all(words.as_bytes())?;
                hear(&mut stream, 1)?;
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                drop(stream);
            }
            Self::ComesSecond => {
                stream.write_all(b"hello\n")?;
                hear(&mut stream, 1)?;
                let mut second = connect()?;
                from = second.local_addr()?;
                facts.append(listen(&mut second));
            }
        }
        Ok((from, facts))
    }
}
