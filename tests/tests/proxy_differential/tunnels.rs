//! Tunnels: WebSockets and CONNECT, from HTTP/1 and HTTP/2 to applications that speak either, or bare TCP where the proxy ends a
//! CONNECT itself.
//!
//! A host's first label says what the application does, its second one which application it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster, with_http2};
use weft_tests::facts::Facts;

use crate::Case;
use crate::config::{NOBODY, Ports, local};
use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, RawConnection, SETTINGS, frame, headers, settings,
};
use crate::pair::Target;
use crate::scene::file_log;

/// What the application does once it is asked for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Says back what it hears.
    Echo,
    /// Says something of its own first.
    Greet,
    /// Says goodbye and ends.
    Leave,
    /// Breaks off.
    Reset,
    Refuse,
    /// Answers as if nobody had asked for a tunnel.
    Ignore,
    Silence,
}

const ALL: [(Does, &str); 7] = [
    (Does::Echo, "echo"),
    (Does::Greet, "greet"),
    (Does::Leave, "leave"),
    (Does::Reset, "reset"),
    (Does::Refuse, "refuse"),
    (Does::Ignore, "ignore"),
    (Does::Silence, "silence"),
];

/// How the caller ends a tunnel that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Leaves,
    /// One direction only.
    Finishes,
    Resets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    WebSocket,
    /// A protocol that is not allowed.
    Unknown,
    Connect,
}

#[derive(Clone, Copy, Debug)]
struct Talk {
    name: &'static str,
    over: u8,
    asks: Asks,
    host: &'static str,
    ends: Ends,
}

const HTTP1_PORT: u16 = 9401;
const TCP_PORT: u16 = 9402;
const HTTP2_FIRST_PORT: u16 = 9410;

pub(crate) fn start_origins() -> Result<()> {
    serve(HTTP1_PORT, application_1)?;
    serve(TCP_PORT, application_tcp)?;
    for (at, (does, _)) in ALL.into_iter().enumerate() {
        serve(HTTP2_FIRST_PORT + at as u16, move |stream| application_2(stream, does))?;
    }
    Ok(())
}

/// Until the process ends. Err of one connection: the proxy has closed it, which ends the performance.
fn serve(port: u16, perform: impl Fn(TcpStream) -> std::io::Result<()> + Send + Copy + 'static) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("an application of tunnels")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ended = perform(stream);
            });
        }
    });
    Ok(())
}

fn application_1(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut seen = Vec::new();
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        if read_some(&mut stream, &mut seen)? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&seen).to_lowercase();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let label = host.split('.').next().unwrap_or_default();
    let accepted: &[u8] = match text.starts_with("connect") {
        true => b"HTTP/1.1 200 Fine\r\nx-a: 1\r\n\r\n",
        false => b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nx-a: 1\r\n\r\n",
    };
    let does = ALL.into_iter().find(|(_, name)| *name == label).map_or(Does::Refuse, |(does, _)| does);
    match does {
        Does::Echo => stream.write_all(accepted)?,
        Does::Greet => stream.write_all(&[accepted, b"hi"].concat())?,
        Does::Leave => return stream.write_all(&[accepted, b"bye"].concat()),
        Does::Reset => {
            stream.write_all(&[accepted, b"oh"].concat())?;
            std::thread::sleep(Duration::from_millis(100)); // for what was said to be read
            return reset(&stream);
        }
        Does::Refuse => stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-a: 1\r\n\r\nno")?,
        Does::Ignore => stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx-a: 1\r\n\r\nok")?,
        Does::Silence => {}
    }
    echo(stream)
}

fn application_tcp(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"hi")?;
    echo(stream)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut heard = Vec::new();
    while read_some(&mut stream, &mut heard)? > 0 {
        match &heard[..] {
            b"leave" => return stream.write_all(b"bye"),
            b"reset" => return reset(&stream),
            _ => stream.write_all(&[b"<", &heard[..], b">"].concat())?,
        }
        heard.clear();
    }
    Ok(())
}

/// To be dropped then.
fn reset(stream: &TcpStream) -> std::io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

fn read_some(stream: &mut TcpStream, seen: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut space = [0; 4096];
    let count = stream.read(&mut space)?;
    seen.extend_from_slice(&space[..count]);
    Ok(count)
}

fn application_2(mut stream: TcpStream, does: Does) -> std::io::Result<()> {
    const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&settings(&[(1, 0), (ENABLE_CONNECT_PROTOCOL, 1)]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let id = u32::from_be_bytes(id);
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, b""))?,
            HEADERS => stream.write_all(&answer_2(does, id))?,
            DATA => {
                let end = flags & END_STREAM;
                let said = if payload.is_empty() { Vec::new() } else { [b"<", &payload[..], b">"].concat() };
                if matches!(does, Does::Echo | Does::Greet) {
                    stream.write_all(&frame(DATA, end, id, &said))?;
                }
            }
            _ => {}
        }
    }
}

fn answer_2(does: Does, id: u32) -> Vec<u8> {
    const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];
    let head = |status: &str| headers(END_HEADERS, id, &[(":status", status), ("x-a", "1")]);
    let data = |end: u8, text: &[u8]| frame(DATA, end, id, text);
    match does {
        Does::Echo => head("200"),
        Does::Greet => [head("200"), data(0, b"hi")].concat(),
        Does::Leave => [head("200"), data(END_STREAM, b"bye")].concat(),
        Does::Reset => [head("200"), data(0, b"oh"), frame(RST_STREAM, 0, id, &INTERNAL_ERROR)].concat(),
        Does::Refuse => [head("403"), data(END_STREAM, b"no")].concat(),
        Does::Ignore => [head("301"), data(END_STREAM, b"ok")].concat(),
        Does::Silence => Vec::new(),
    }
}

/// One listener for all of it.
pub(crate) fn bootstrap(ports: Ports, access_log: &Path) -> String {
    let mut clusters = vec![
        static_cluster("one", local(HTTP1_PORT)),
        static_cluster("tcp", local(TCP_PORT)),
        static_cluster("nobody", local(NOBODY)),
    ];
    let connect = json!([{"upgrade_type": "CONNECT"}]);
    let ending = json!([{"upgrade_type": "CONNECT", "connect_config": {"allow_post": true}}]);
    let mut hosts = vec![
        host("one", "*.one:80", "one", &connect),
        host("ending", "*.tcp:80", "tcp", &ending),
        host("ending-nowhere", "*.nobody:80", "nobody", &ending),
        host("off", "*.off:80", "one", &json!([{"upgrade_type": "CONNECT", "enabled": false}])),
        json!({"name": "pathless", "domains": ["*.pathless:80"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "one"}}]}),
    ];
    for (at, (_, name)) in ALL.into_iter().enumerate() {
        let cluster = format!("two-{name}");
        clusters.push(with_http2(static_cluster(&cluster, local(HTTP2_FIRST_PORT + at as u16))));
        hosts.push(host(&cluster, &format!("{name}.two:80"), &cluster, &connect));
    }
    let mut filter = http_filter("tunnels", &json!({"name": "tunnels", "virtual_hosts": hosts}));
    let manager = &mut filter["typed_config"];
    manager["http2_protocol_options"] = json!({"allow_connect": true});
    manager["upgrade_configs"] = json!([{"upgrade_type": "websocket"}, {"upgrade_type": "connect", "enabled": false}]);
    manager["delayed_close_timeout"] = json!("0.1s");
    manager["access_log_options"] = json!({"flush_log_on_tunnel_successfully_established": true});
    manager["access_log"] =
        json!([file_log(access_log, &json!({"text_format_source": {"inline_string": LOG_FORMAT}}))]);
    let at = ports.http();
    let mut listeners = vec![json!({
        "name": "tunnels",
        "address": socket(&at.ip().to_string(), at.port()),
        "filter_chains": [{"filters": [filter]}],
    })];
    listeners.extend(INTO.iter().enumerate().map(|(at, into)| into.listener(ports.scene(at), access_log)));
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    });
    format!("{document:#}\n")
}

/// A listener that puts TCP connections into tunnels.
struct Into {
    name: &'static str,
    cluster: &'static str,
    /// Of the filter.
    fields: &'static str,
    /// What the application makes of it ends it, or the caller does.
    ends: Option<Ends>,
}

const fn into(name: &'static str, cluster: &'static str, fields: &'static str) -> Into {
    Into { name, cluster, fields, ends: None }
}

const fn into_echo(name: &'static str, cluster: &'static str, fields: &'static str, ends: Ends) -> Into {
    Into { name, cluster, fields, ends: Some(ends) }
}

const INTO: &[Into] = &[
    into_echo("into 1: caller leaves", "one", r#"{"hostname": "echo.one:80"}"#, Ends::Leaves),
    into_echo("into 1: caller finishes", "one", r#"{"hostname": "echo.one:80"}"#, Ends::Finishes),
    into_echo("into 1: caller resets", "one", r#"{"hostname": "echo.one:80"}"#, Ends::Resets),
    into_echo("into 1: greeted", "one", r#"{"hostname": "greet.one:80"}"#, Ends::Leaves),
    into("into 1: leave", "one", r#"{"hostname": "leave.one:80"}"#),
    into("into 1: reset", "one", r#"{"hostname": "reset.one:80"}"#),
    into("into 1: refuse", "one", r#"{"hostname": "refuse.one:80"}"#),
    into("into 1: ignore", "one", r#"{"hostname": "ignore.one:80"}"#),
    into_echo("into 2: caller leaves", "two-echo", r#"{"hostname": "x:80"}"#, Ends::Leaves),
    into_echo("into 2: caller finishes", "two-echo", r#"{"hostname": "x:80"}"#, Ends::Finishes),
    into_echo("into 2: caller resets", "two-echo", r#"{"hostname": "x:80"}"#, Ends::Resets),
    into_echo("into 2: greeted", "two-greet", r#"{"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"}"#, Ends::Leaves),
    into_echo("into 2: post", "two-echo", r#"{"hostname": "x", "use_post": true, "post_path": "/p"}"#, Ends::Leaves),
    into("into 2: leave", "two-leave", r#"{"hostname": "x:80"}"#),
    into("into 2: reset", "two-reset", r#"{"hostname": "x:80"}"#),
    into("into 2: refuse", "two-refuse", r#"{"hostname": "x:80"}"#),
    into("into 2: ignore", "two-ignore", r#"{"hostname": "x:80"}"#),
    into("into nothing", "nobody", r#"{"hostname": "x:80"}"#),
];

impl Into {
    fn listener(&self, at: SocketAddr, access_log: &Path) -> Value {
        let said = "%RESPONSE_FLAGS%|%BYTES_RECEIVED%|%BYTES_SENT%|%UPSTREAM_CLUSTER%|%ACCESS_LOG_TYPE%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%|%UPSTREAM_TRANSPORT_FAILURE_REASON%";
        let text = format!("{}\t{said}\n", self.name);
        let fields: Value = serde_json::from_str(self.fields).expect("the fields are written here");
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": self.name,
            "cluster": self.cluster,
            "max_connect_attempts": 2,
            "tunneling_config": fields,
            "access_log_options": {"flush_access_log_on_start": true, "flush_access_log_on_connected": true},
            "access_log": [file_log(access_log, &json!({"text_format_source": {"inline_string": text}}))],
        });
        json!({"name": self.name, "address": socket(&at.ip().to_string(), at.port()), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.tcp_proxy", "typed_config": config},
        ]}]})
    }

    fn observe(&self, address: SocketAddr, target: &Target) -> Result<Facts> {
        let mut stream = open(address)?;
        stream.write_all(b"abc")?;
        let mut seen = Vec::new();
        match self.ends {
            Some(ends) => {
                while !seen.ends_with(b"<abc>") && read_some(&mut stream, &mut seen)? > 0 {}
                match ends {
                    Ends::Leaves => drop(stream),
                    Ends::Finishes => {
                        stream.shutdown(Shutdown::Write)?;
                        while matches!(read_some(&mut stream, &mut seen), Ok(1..)) {}
                    }
                    Ends::Resets => reset(&stream).map(|()| drop(stream))?,
                }
            }
            // Err: by a reset, which is an end, too.
            None => while matches!(read_some(&mut stream, &mut seen), Ok(1..)) {},
        }
        let mut facts = Facts::default();
        facts.add("inside", String::from_utf8_lossy(&seen));
        facts.add("log lines", target.different_lines(self.name)?);
        Ok(facts)
    }
}

/// What is inside of a tunnel may take longer than the answer to the request for it.
fn host(name: &str, domain: &str, cluster: &str, upgrades: &Value) -> Value {
    let action = json!({"cluster": cluster, "timeout": "0.5s", "upgrade_configs": upgrades});
    json!({"name": name, "domains": [domain], "routes": [
        {"match": {"connect_matcher": {}}, "route": action},
        {"match": {"prefix": "/"}, "route": action},
    ]})
}

const LOG_NAMES: [&str; 10] = [
    "status",
    "flags",
    "details",
    "bytes received",
    "bytes sent",
    "method",
    "path",
    "authority",
    "cluster",
    "upstream protocol",
];
const LOG_FORMAT: &str = "%REQ(X-TEST-ID)%\t%RESPONSE_CODE%\t%RESPONSE_FLAGS%\t%RESPONSE_CODE_DETAILS%\t%BYTES_RECEIVED%\t%BYTES_SENT%\t%REQ(:METHOD)%\t%REQ(:PATH)%\t%REQ(:AUTHORITY)%\t%UPSTREAM_CLUSTER%\t%UPSTREAM_PROTOCOL%\n";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = TALKS
        .iter()
        .map(|talk| Case {
            name: talk.name,
            observe: Box::new(move |target| match talk.over {
                1 => talk.over_http1(target),
                _ => talk.over_http2(target),
            }),
        })
        .collect();
    cases.extend(INTO.iter().enumerate().map(|(at, into)| Case {
        name: into.name,
        observe: Box::new(move |target| into.observe(target.ports.scene(at), target)),
    }));
    cases.extend(POSTS.map(|(name, head, body)| Case {
        name,
        observe: Box::new(move |target| {
            let mut connection = weft_tests::http1::Connection::open(target.ports.http(), crate::pair::TIMEOUT)?;
            let head = format!("{head} HTTP/1.1\r\nhost: x.tcp:80\r\nx-test-id: {}\r\n", target.key(name));
            connection.send(format!("{head}{body}").as_bytes())?;
            let mut facts = Facts::default();
            facts.add_outcome(&connection.receive(false));
            facts.append(logged(target, name)?);
            Ok(facts)
        }),
    }));
    cases
}

/// The bodies of these go the same way.
const POSTS: [(&str, &str, &str); 2] = [
    ("tcp: post", "POST /", "content-length: 3\r\n\r\nabc"),
    ("tcp: post in chunks", "POST /", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
];

const fn talk(name: &'static str, over: u8, asks: Asks, host: &'static str) -> Talk {
    Talk { name, over, asks, host, ends: Ends::Leaves }
}

const fn ending(name: &'static str, over: u8, asks: Asks, host: &'static str, ends: Ends) -> Talk {
    Talk { name, over, asks, host, ends }
}

const TALKS: &[Talk] = &[
    talk("websocket 1 to 1: echo", 1, Asks::WebSocket, "echo.one:80"),
    talk("websocket 1 to 1: greet", 1, Asks::WebSocket, "greet.one:80"),
    talk("websocket 1 to 1: leave", 1, Asks::WebSocket, "leave.one:80"),
    talk("websocket 1 to 1: reset", 1, Asks::WebSocket, "reset.one:80"),
    talk("websocket 1 to 1: refuse", 1, Asks::WebSocket, "refuse.one:80"),
    talk("websocket 1 to 1: ignore", 1, Asks::WebSocket, "ignore.one:80"),
    talk("websocket 1 to 1: silence", 1, Asks::WebSocket, "silence.one:80"),
    ending("websocket 1 to 1: caller finishes", 1, Asks::WebSocket, "echo.one:80", Ends::Finishes),
    ending("websocket 1 to 1: caller resets", 1, Asks::WebSocket, "echo.one:80", Ends::Resets),
    talk("websocket 1 to 2: echo", 1, Asks::WebSocket, "echo.two:80"),
    talk("websocket 1 to 2: greet", 1, Asks::WebSocket, "greet.two:80"),
    talk("websocket 1 to 2: leave", 1, Asks::WebSocket, "leave.two:80"),
    talk("websocket 1 to 2: reset", 1, Asks::WebSocket, "reset.two:80"),
    talk("websocket 1 to 2: refuse", 1, Asks::WebSocket, "refuse.two:80"),
    talk("websocket 1 to 2: ignore", 1, Asks::WebSocket, "ignore.two:80"),
    talk("websocket 1 to 2: silence", 1, Asks::WebSocket, "silence.two:80"),
    ending("websocket 1 to 2: caller finishes", 1, Asks::WebSocket, "echo.two:80", Ends::Finishes),
    ending("websocket 1 to 2: caller resets", 1, Asks::WebSocket, "echo.two:80", Ends::Resets),
    talk("connect 1 to 1: echo", 1, Asks::Connect, "echo.one:80"),
    talk("connect 1 to 1: greet", 1, Asks::Connect, "greet.one:80"),
    talk("connect 1 to 1: leave", 1, Asks::Connect, "leave.one:80"),
    talk("connect 1 to 1: reset", 1, Asks::Connect, "reset.one:80"),
    talk("connect 1 to 1: refuse", 1, Asks::Connect, "refuse.one:80"),
    ending("connect 1 to 1: caller finishes", 1, Asks::Connect, "echo.one:80", Ends::Finishes),
    ending("connect 1 to 1: caller resets", 1, Asks::Connect, "echo.one:80", Ends::Resets),
    talk("connect 1 to 2: echo", 1, Asks::Connect, "echo.two:80"),
    talk("connect 1 to 2: greet", 1, Asks::Connect, "greet.two:80"),
    talk("connect 1 to 2: leave", 1, Asks::Connect, "leave.two:80"),
    talk("connect 1 to 2: reset", 1, Asks::Connect, "reset.two:80"),
    talk("connect 1 to 2: refuse", 1, Asks::Connect, "refuse.two:80"),
    talk("connect 1 to 2: ignore", 1, Asks::Connect, "ignore.two:80"),
    ending("connect 1 to 2: caller finishes", 1, Asks::Connect, "echo.two:80", Ends::Finishes),
    ending("connect 1 to 2: caller resets", 1, Asks::Connect, "echo.two:80", Ends::Resets),
    talk("unknown 1", 1, Asks::Unknown, "echo.one:80"),
    talk("connect 1: not allowed", 1, Asks::Connect, "echo.off:80"),
    talk("connect 1: no route for it", 1, Asks::Connect, "echo.pathless:80"),
    talk("connect 1: no host", 1, Asks::Connect, "echo.nowhere:80"),
    talk("connect 1 ends here", 1, Asks::Connect, "x.tcp:80"),
    ending("connect 1 ends here: caller finishes", 1, Asks::Connect, "x.tcp:80", Ends::Finishes),
    ending("connect 1 ends here: caller resets", 1, Asks::Connect, "x.tcp:80", Ends::Resets),
    talk("connect 1 ends nowhere", 1, Asks::Connect, "y.nobody:80"),
    talk("websocket 2 to 1: echo", 2, Asks::WebSocket, "echo.one:80"),
    talk("websocket 2 to 1: greet", 2, Asks::WebSocket, "greet.one:80"),
    talk("websocket 2 to 1: leave", 2, Asks::WebSocket, "leave.one:80"),
    talk("websocket 2 to 1: reset", 2, Asks::WebSocket, "reset.one:80"),
    talk("websocket 2 to 1: refuse", 2, Asks::WebSocket, "refuse.one:80"),
    talk("websocket 2 to 1: ignore", 2, Asks::WebSocket, "ignore.one:80"),
    talk("websocket 2 to 1: silence", 2, Asks::WebSocket, "silence.one:80"),
    ending("websocket 2 to 1: caller finishes", 2, Asks::WebSocket, "echo.one:80", Ends::Finishes),
    ending("websocket 2 to 1: caller resets", 2, Asks::WebSocket, "echo.one:80", Ends::Resets),
    talk("websocket 2 to 2: echo", 2, Asks::WebSocket, "echo.two:80"),
    talk("websocket 2 to 2: greet", 2, Asks::WebSocket, "greet.two:80"),
    talk("websocket 2 to 2: leave", 2, Asks::WebSocket, "leave.two:80"),
    talk("websocket 2 to 2: reset", 2, Asks::WebSocket, "reset.two:80"),
    talk("websocket 2 to 2: refuse", 2, Asks::WebSocket, "refuse.two:80"),
    talk("websocket 2 to 2: ignore", 2, Asks::WebSocket, "ignore.two:80"),
    talk("websocket 2 to 2: silence", 2, Asks::WebSocket, "silence.two:80"),
    ending("websocket 2 to 2: caller finishes", 2, Asks::WebSocket, "echo.two:80", Ends::Finishes),
    ending("websocket 2 to 2: caller resets", 2, Asks::WebSocket, "echo.two:80", Ends::Resets),
    talk("connect 2 to 1: echo", 2, Asks::Connect, "echo.one:80"),
    talk("connect 2 to 1: greet", 2, Asks::Connect, "greet.one:80"),
    talk("connect 2 to 1: leave", 2, Asks::Connect, "leave.one:80"),
    talk("connect 2 to 1: reset", 2, Asks::Connect, "reset.one:80"),
    talk("connect 2 to 1: refuse", 2, Asks::Connect, "refuse.one:80"),
    ending("connect 2 to 1: caller finishes", 2, Asks::Connect, "echo.one:80", Ends::Finishes),
    ending("connect 2 to 1: caller resets", 2, Asks::Connect, "echo.one:80", Ends::Resets),
    talk("connect 2 to 2: echo", 2, Asks::Connect, "echo.two:80"),
    talk("connect 2 to 2: greet", 2, Asks::Connect, "greet.two:80"),
    talk("connect 2 to 2: leave", 2, Asks::Connect, "leave.two:80"),
    talk("connect 2 to 2: reset", 2, Asks::Connect, "reset.two:80"),
    talk("connect 2 to 2: refuse", 2, Asks::Connect, "refuse.two:80"),
    talk("connect 2 to 2: ignore", 2, Asks::Connect, "ignore.two:80"),
    ending("connect 2 to 2: caller finishes", 2, Asks::Connect, "echo.two:80", Ends::Finishes),
    ending("connect 2 to 2: caller resets", 2, Asks::Connect, "echo.two:80", Ends::Resets),
    talk("unknown 2", 2, Asks::Unknown, "echo.one:80"),
    talk("connect 2: not allowed", 2, Asks::Connect, "echo.off:80"),
    talk("connect 2: no route for it", 2, Asks::Connect, "echo.pathless:80"),
    talk("connect 2: no host", 2, Asks::Connect, "echo.nowhere:80"),
    talk("connect 2 ends here", 2, Asks::Connect, "x.tcp:80"),
    ending("connect 2 ends here: caller finishes", 2, Asks::Connect, "x.tcp:80", Ends::Finishes),
    ending("connect 2 ends here: caller resets", 2, Asks::Connect, "x.tcp:80", Ends::Resets),
    talk("connect 2 ends nowhere", 2, Asks::Connect, "y.nobody:80"),
];

impl Talk {
    fn over_http1(&self, target: &Target) -> Result<Facts> {
        let (key, host) = (target.key(self.name), self.host);
        let request = match self.asks {
            Asks::Connect => format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n"),
            Asks::WebSocket => {
                format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n")
            }
            Asks::Unknown => format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: other\r\n"),
        };
        let mut stream = open(target.ports.http())?;
        stream.write_all(format!("{request}x-test-id: {key}\r\n\r\n").as_bytes())?;
        let mut seen = Vec::new();
        let is_over = |seen: &[u8]| seen.windows(4).any(|four| four == b"\r\n\r\n");
        while !is_over(&seen) && read_some(&mut stream, &mut seen)? > 0 {}
        let is_open = seen.starts_with(b"HTTP/1.1 101") || seen.starts_with(b"HTTP/1.1 200");
        if is_open && self.is_talkative() {
            let wanted = [self.greeting(), b"<abc>"].concat();
            stream.write_all(b"abc")?;
            while !seen.ends_with(&wanted) && read_some(&mut stream, &mut seen)? > 0 {}
            match self.ends {
                Ends::Leaves => drop(stream),
                Ends::Finishes => {
                    stream.shutdown(Shutdown::Write)?;
                    while matches!(read_some(&mut stream, &mut seen), Ok(1..)) {}
                }
                Ends::Resets => reset(&stream).map(|()| drop(stream))?,
            }
        } else {
            // Err: by a reset, which is an end, too.
            while matches!(read_some(&mut stream, &mut seen), Ok(1..)) {}
        }
        let mut facts = logged(target, self.name)?;
        let text = String::from_utf8_lossy(&seen);
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        facts.add("status", head.split(' ').nth(1).unwrap_or("none"));
        facts.add_headers("header", head.lines().skip(1).filter_map(|line| line.split_once(": ")));
        facts.add("inside", rest);
        Ok(facts)
    }

    fn over_http2(&self, target: &Target) -> Result<Facts> {
        let key = target.key(self.name);
        let mut connection = RawConnection::open(target.ports.http())?;
        connection.send(&[PREFACE, &settings(&[(1, 0)])].concat());
        connection.read_until(PATIENCE, |seen| seen.settings_acks > 0)?;
        connection.send(&frame(SETTINGS, ACK, 0, b""));
        let protocol = if self.asks == Asks::Unknown { "other" } else { "websocket" };
        let mut fields = vec![(":method", "CONNECT"), (":authority", self.host)];
        if self.asks != Asks::Connect {
            fields.extend([(":protocol", protocol), (":scheme", "http"), (":path", "/x")]);
        }
        fields.push(("x-test-id", &key));
        connection.send(&headers(END_HEADERS, 1, &fields));
        connection.read_until(PATIENCE, |seen| !seen.begun.is_empty() || !seen.resets.is_empty())?;
        let is_open = connection.seen.begun.contains(&(1, 200));
        if is_open && self.is_talkative() {
            let wanted = [self.greeting(), b"<abc>"].concat();
            connection.send(&frame(DATA, 0, 1, b"abc"));
            connection.read_until(PATIENCE, |seen| seen.bytes == wanted)?;
            match self.ends {
                Ends::Leaves => {}
                Ends::Finishes => {
                    connection.send(&frame(DATA, END_STREAM, 1, b""));
                    connection.read_until(PATIENCE, |seen| !seen.answers.is_empty() || !seen.resets.is_empty())?;
                }
                Ends::Resets => connection.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
            }
        } else {
            connection.read_until(PATIENCE, |seen| !seen.resets.is_empty())?;
        }
        let seen = std::mem::take(&mut connection.seen);
        drop(connection);
        let mut facts = logged(target, self.name)?;
        facts.add("status", format!("{:?}", seen.begun));
        facts.add("inside", String::from_utf8_lossy(&seen.bytes));
        facts.add("complete", format!("{:?}", seen.answers));
        facts.add("resets", format!("{:?}", seen.resets));
        facts.add("going away", format!("{:?}", seen.goaway));
        Ok(facts)
    }

    /// Whether the application goes on for as long as the caller does.
    fn is_talkative(&self) -> bool {
        ["echo", "greet", "x"].contains(&self.label())
    }

    fn greeting(&self) -> &'static [u8] {
        if ["greet", "x"].contains(&self.label()) { b"hi" } else { b"" }
    }

    fn label(&self) -> &str {
        self.host.split('.').next().unwrap_or_default()
    }
}

fn open(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

const PATIENCE: Duration = Duration::from_secs(4);

fn logged(target: &Target, name: &str) -> Result<Facts> {
    let line = target.last_line(&target.key(name))?;
    let mut facts = Facts::default();
    facts.add("log lines", target.lines(&target.key(name))?);
    for (name, value) in LOG_NAMES.iter().zip(line.split('\t')) {
        facts.add(format!("log {name}"), value);
    }
    Ok(facts)
}
