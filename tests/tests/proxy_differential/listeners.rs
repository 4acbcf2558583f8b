//! What listeners learn of connections before a filter chain has them, and which chain that is: the inspectors, the PROXY
//! protocol, rate and connection limits, and the match itself.
//!
//! Chains answer with their own names, so that a client sees which one took it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use weft_tests::bootstrap::{socket, static_cluster};
use weft_tests::facts::Facts;

use crate::Case;
use crate::config::{ORIGIN_TCP, Ports, local};
use crate::pair::{TIMEOUT, Target};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, observe: fn(&Target) -> Result<Facts>| Case { name, observe: Box::new(observe) };
    vec![case("first bytes", first_bytes), case("filter chains by chance", random_chains)]
}

/// One connection: to which listener, what is said in which pieces, and whether that is all.
struct Talk {
    label: String,
    listener: usize,
    pieces: Vec<Vec<u8>>,
    ends: bool,
}

const LISTENERS: [&str; 9] =
    ["inspected", "continued", "proxied", "proxied or not", "proxied v2", "nowhere", "limited", "strict", "small"];

fn listener_port(ports: Ports, listener: usize) -> u16 {
    ports.first + 100 + u16::try_from(listener).expect("few listeners")
}

pub(crate) fn bootstrap(ports: Ports, access_log: &Path) -> String {
    let listeners = LISTENERS.iter().enumerate().map(|(at, name)| {
        let filters: Vec<Value> = match *name {
            "inspected" | "continued" => vec![tls_inspector(&json!({})), http_inspector()],
            "proxied" => vec![proxy_protocol(&json!({"rules": [{"tlv_type": 4, "on_tlv_present": {"key": "k"}}]}))],
            "proxied or not" => vec![
                proxy_protocol(&json!({"allow_requests_without_proxy_protocol": true, "stat_prefix": "either"})),
                tls_inspector(&json!({})),
                http_inspector(),
            ],
            "proxied v2" => vec![proxy_protocol(&json!({"disallowed_versions": ["V1"]}))],
            "limited" => vec![filter(
                "local_ratelimit.v3.LocalRateLimit",
                &json!({"stat_prefix": "limited", "token_bucket": {"max_tokens": 2, "fill_interval": "1000s"}}),
            )],
            "strict" => vec![tls_inspector(&json!({"close_connection_on_client_hello_parsing_errors": true}))],
            "small" => vec![tls_inspector(&json!({"max_client_hello_size": 256}))],
            _ => vec![],
        };
        let chains = match *name {
            "nowhere" => json!([chain("nowhere", json!({"destination_port": 1}))]),
            _ => json!([
                chain("h2c", json!({"application_protocols": ["h2c"]})),
                chain("http/1.1", json!({"application_protocols": ["http/1.1"]})),
                chain("http/1.0", json!({"application_protocols": ["http/1.0"]})),
                chain("a.test", json!({"server_names": ["a.test"]})),
                chain("alpn", json!({"application_protocols": ["h2"]})),
                chain("tls", json!({"transport_protocol": "tls"})),
                chain("plain", json!({})),
            ]),
        };
        json!({
            "name": name, "stat_prefix": name.replace(' ', "_"),
            "address": socket("127.0.0.1", listener_port(ports, at)),
            "listener_filters": filters, "listener_filters_timeout": "0.4s",
            "continue_on_listener_filters_timeout": *name == "continued",
            "filter_chains": chains, "access_log": [log(access_log, name)],
        })
    });
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {
            "listeners": listeners.chain([random_listener(ports)]).collect::<Vec<_>>(),
            "clusters": [static_cluster("tcp", local(ORIGIN_TCP))],
        },
    });
    format!("{document:#}\n")
}

const LOGGED: [&str; 6] = ["flags", "details", "received", "sent", "server name", "from elsewhere"];

/// A line begins with the listener's name and the client's address: the port alone may come again.
fn log(path: &Path, listener: &str) -> Value {
    let line = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%\t%RESPONSE_FLAGS%\t%RESPONSE_CODE_DETAILS%\t%BYTES_RECEIVED%\t%BYTES_SENT%\t\
        %REQUESTED_SERVER_NAME%\t%DOWNSTREAM_REMOTE_ADDRESS% to %DOWNSTREAM_LOCAL_ADDRESS%\n";
    json!({"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path, "log_format": {"text_format_source": {"inline_string": format!("{listener} {line}")}},
    }})
}

fn filter(kind: &str, fields: &Value) -> Value {
    let mut config = fields.clone();
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}"));
    json!({"name": kind, "typed_config": config})
}

fn tls_inspector(fields: &Value) -> Value {
    filter("tls_inspector.v3.TlsInspector", fields)
}

fn http_inspector() -> Value {
    filter("http_inspector.v3.HttpInspector", &json!({}))
}

fn proxy_protocol(fields: &Value) -> Value {
    filter("proxy_protocol.v3.ProxyProtocol", fields)
}

fn chain(name: &str, matching: Value) -> Value {
    json!({"name": name, "filter_chain_match": matching, "filters": [{
        "name": "envoy.filters.network.direct_response",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
            "response": {"inline_string": name},
        },
    }]})
}

fn first_bytes(target: &Target) -> Result<Facts> {
    let mut facts = Facts::default();
    let mut logged = Vec::new();
    for talk in talks() {
        let address = local(listener_port(target.ports, talk.listener));
        let (from, said) = hold(address, &talk)?;
        facts.append(said.within(&talk.label));
        logged.push((talk.label, format!("{} {from}", LISTENERS[talk.listener]), from, address));
    }
    // The last line: by then the others are there.
    if let Some((_, key, _, _)) = logged.last() {
        target.lines(key)?;
    }
    let log = target.log()?;
    for (label, key, from, address) in logged {
        let line = log.lines().find_map(|line| line.strip_prefix(&format!("{key}\t")));
        let line = line.with_context(|| format!("no line of {label} from {from}"))?;
        let mut said = Facts::default();
        for (name, value) in LOGGED.iter().zip(line.split('\t')) {
            let value = value.replace(&from.to_string(), "the client").replace(&address.to_string(), "the listener");
            said.add(*name, value);
        }
        facts.append(said.within(&format!("log of {label}")));
    }
    let counted = target.counters(&[
        "envoy_listener_downstream_",
        "envoy_listener_no_filter_chain_match",
        "envoy_listener_local_ratelimit",
        "envoy_proxy_proto",
        "envoy_downstream_cx_proxy_proto_error",
        "envoy_tls_inspector_",
        "envoy_http_inspector_",
    ])?;
    let is_compared = |name: &str| !["_length_ms_", "bytes_processed"].iter().any(|part| name.contains(part));
    facts.append(counted.only(is_compared));
    Ok(facts)
}

fn talks() -> Vec<Talk> {
    let mut talks = Vec::new();
    let mut talk = |listener: usize, label: &str, pieces: &[&[u8]], ends: bool| {
        let label = format!("{}, {label}", LISTENERS[listener]);
        talks.push(Talk { label, listener, pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), ends });
    };
    let hello = client_hello(Some("A.test"), &["h2"], 0);
    for listener in [0, 1] {
        talk(listener, "nothing", &[], false);
        talk(listener, "the end", &[], true);
        talk(listener, "half a request line", &[b"GET / HT"], false);
        talk(listener, "TLS in three pieces", &[&hello[..3], &hello[3..40], &hello[40..]], false);
        for (label, line) in FIRST_LINES {
            talk(listener, label, &[line], false);
        }
    }
    for (label, name, alpn, padding) in [
        ("TLS to a name", Some("a.test"), &["h2"][..], 0),
        ("TLS to another name with ALPN", Some("b.test"), &["x", "h2"], 0),
        ("TLS to another name without", Some("b.test"), &[], 0),
        ("TLS to nobody", None, &[], 0),
        ("a large hello", Some("a.test"), &[], 8000),
        ("a hello of all that fits", Some("a.test"), &[], 16_000),
        ("a hello that is too large", Some("a.test"), &[], 20_000),
    ] {
        talk(0, label, &[&client_hello(name, alpn, padding)], false);
    }
    for listener in [2, 3, 4] {
        talk(listener, "the end", &[], true);
        talk(listener, "a part of a header", &[b"PROXY TCP4 1.2"], false);
        talk(listener, "in three pieces", &[b"PROXY", b" TCP4 1.2.3.4 5.6.7.8 1 2\r", b"\nGET / HTTP/1.1\r\n"], false);
        for (label, bytes) in proxy_headers() {
            talk(listener, label, &[&bytes], false);
        }
    }
    talk(5, "no chain", &[b"hello"], false);
    for turn in ["first", "second", "third"] {
        talk(6, turn, &[], false);
    }
    for listener in [7, 8] {
        talk(listener, "TLS", &[&hello], false);
        talk(listener, "no TLS", &[b"\0\x01\x02\x03\x04\x05"], false);
    }
    talks
}

const FIRST_LINES: [(&str, &[u8]); 20] = [
    ("GET", b"GET / HTTP/1.1\r\n"),
    ("HTTP 1.0", b"GET / HTTP/1.0\r\n"),
    ("HTTP 1.2", b"GET / HTTP/1.2\r\n"),
    ("HTTP 2.0 in HTTP 1", b"GET / HTTP/2.0\r\n"),
    ("HTTP 0.9", b"GET /\r\n"),
    ("HTTP 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("another method", b"BREW / HTTP/1.1\r\n"),
    ("a lower case method", b"get / HTTP/1.1\r\n"),
    ("an asterisk", b"OPTIONS * HTTP/1.1\r\n"),
    ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\n"),
    ("a whole URI", b"GET http://a/ HTTP/1.1\r\n"),
    ("a bare line feed", b"GET / HTTP/1.1\n"),
    ("no target", b"GET\r\n"),
    ("SMTP", b"EHLO a.b\r\n"),
    ("SSH", b"SSH-2.0-x\r\n"),
    ("Redis", b"*1\r\n$4\r\nPING\r\n"),
    ("JSON", b"{\"a\":1}\r\n"),
    ("binary", b"\0\x01\x02\x03\x04\x05"),
    ("an empty line first", b"\r\nGET / HTTP/1.1\r\n"),
    ("four words", b"GET / a HTTP/1.1\r\n"),
];

const INET: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 0, 80];

fn proxy_headers() -> Vec<(&'static str, Vec<u8>)> {
    let line = |line: &str| format!("PROXY {line}\r\nGET / HTTP/1.1\r\n").into_bytes();
    let binary = |command: u8, family: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).expect("a short header").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body, b"GET / HTTP/1.1\r\n"].concat()
    };
    let inet = |tail: &[u8]| [&INET[..], tail].concat();
    vec![
        ("v1", line("TCP4 1.2.3.4 5.6.7.8 1000 2000")),
        ("v1 over IPv6", line("TCP6 1::2 3::4 1000 2000")),
        ("v1 unknown", line("UNKNOWN")),
        ("v1 unknown with more", line("UNKNOWN ffff 1 2 3")),
        ("v1 with a port too large", line("TCP4 1.2.3.4 5.6.7.8 1 70000")),
        ("v1 without a port", line("TCP4 1.2.3.4 5.6.7.8 1000")),
        ("v1 of the wrong family", line("TCP4 ::1 ::1 1 2")),
        ("v1 with two blanks", line("TCP4  1.2.3.4 5.6.7.8 1 2")),
        ("v1 to everybody", line("TCP4 1.2.3.4 255.255.255.255 1 2")),
        ("v1 too long", [b"PROXY ".to_vec(), vec![b'x'; 200]].concat()),
        ("no header", b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec()),
        ("another line", b"HELLO\r\n".to_vec()),
        ("v2", binary(0x21, 0x11, &INET)),
        ("v2 over IPv6", binary(0x21, 0x21, &[[0; 15].as_slice(), &[1], &[0; 15], &[2, 0, 3, 0, 4]].concat())),
        ("v2 with an extension", binary(0x21, 0x11, &inet(b"\x04\0\x02hi"))),
        ("v2 with an empty extension", binary(0x21, 0x11, &inet(b"\x04\0\0"))),
        ("v2 local", binary(0x20, 0, b"xyz")),
        ("v2 of datagrams", binary(0x21, 0x12, &INET)),
        ("v2 of a Unix socket", binary(0x21, 0x31, &[0; 216])),
        ("v2 of no family", binary(0x21, 0, b"")),
        ("v2 too short", binary(0x21, 0x11, &INET[..8])),
        ("v2 with half an extension", binary(0x21, 0x11, &inet(b"\x04\0\x03h"))),
        ("v2 from many", binary(0x21, 0x11, &[&[224, 0, 0, 1][..], &INET[4..]].concat())),
        ("v2 of version 1", binary(0x11, 0x11, &INET)),
        ("v2 with another command", binary(0x22, 0x11, &INET)),
    ]
}

/// Says the pieces, and hears the rest; with the client's own address.
fn hold(address: SocketAddr, talk: &Talk) -> Result<(SocketAddr, Facts)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let from = stream.local_addr()?;
    for (at, piece) in talk.pieces.iter().enumerate() {
        if at > 0 {
            // For the other side to see one piece at a time.
            std::thread::sleep(Duration::from_millis(30));
        }
        let _closed_early = stream.write_all(piece);
    }
    if talk.ends {
        let _closed_early = stream.shutdown(Shutdown::Write);
    }
    let begun = Instant::now();
    let mut heard = Vec::new();
    let _ended_or_reset = stream.read_to_end(&mut heard);
    let mut facts = Facts::default();
    // Whether words that nobody reads turn an end into a reset is a matter of timing.
    facts.add("answer", String::from_utf8_lossy(&heard));
    facts.add("answered", if begun.elapsed() < Duration::from_millis(300) { "at once" } else { "after the timeout" });
    Ok((from, facts))
}

/// A ClientHello (RFC 8446) of one or more records.
pub(crate) fn client_hello(name: Option<&str>, alpn: &[&str], padding: usize) -> Vec<u8> {
    let vector = |content: &[u8]| [&u16::try_from(content.len()).expect("short").to_be_bytes()[..], content].concat();
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &vector(content)].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        extensions.extend(extension(0, &vector(&[&[0][..], &vector(name.as_bytes())].concat())));
    }
    if !alpn.is_empty() {
        let names: Vec<u8> = alpn
            .iter()
            .flat_map(|name| [&[u8::try_from(name.len()).expect("short")][..], name.as_bytes()].concat())
            .collect();
        extensions.extend(extension(16, &vector(&names)));
    }
    extensions.extend(extension(10, &vector(&[0, 29])));
    extensions.extend(extension(13, &vector(&[4, 3])));
    if padding > 0 {
        extensions.extend(extension(21, &vec![0; padding]));
    }
    let body =
        [&[3, 3][..], &[7; 32], &[0], &vector(&[0xc0, 0x2b, 0xc0, 0x2f]), &[1, 0], &vector(&extensions)].concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    message.chunks(1 << 14).flat_map(|part| [&[22, 3, 1][..], &vector(part)].concat()).collect()
}

/// A generator of its own, so that a failure comes again (Steele and others, SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
    }
}

const RANDOM_CHAINS: usize = 150;
const RANDOM_CONNECTIONS: usize = 400;
/// Not `0.0.0.0/0`: in Envoy that is the same as no network at all, and of chains with the one and chains with the other it
/// finds only some; for us it is the least specific network.
const NETWORKS: [&str; 7] =
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "10.2.0.0/16", "fd00::/8", "fd00:1::/32"];
const ADDRESSES: [&str; 8] =
    ["10.0.0.1", "10.1.0.1", "10.1.1.1", "10.1.1.2", "10.2.0.1", "11.0.0.1", "fd00::1", "fd00:1::1"];
const NAMES: [&str; 6] = ["a.test", "b.a.test", "*.a.test", "*.test", "c.b.a.test", "*.b.a.test"];
const CALLED: [&str; 7] = ["a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "x.test", "test", "else.where"];
const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "x"];

/// Chains that match by everything there is, chosen by chance; each answers with its number. Those that would be
/// ambiguous are left out.
fn random_listener(ports: Ports) -> Value {
    let mut chance = Chance(20_261_120);
    let mut seen = std::collections::BTreeSet::new();
    let mut chains = Vec::new();
    while chains.len() < RANDOM_CHAINS {
        let matching = random_match(&mut chance);
        if seen.insert(matching.to_string()) {
            chains.push(chain(&format!("chain {}", chains.len()), matching));
        }
    }
    json!({
        "name": "random", "stat_prefix": "random",
        "address": socket("127.0.0.1", listener_port(ports, LISTENERS.len())),
        "listener_filters": [proxy_protocol(&json!({})), tls_inspector(&json!({})), http_inspector()],
        "filter_chains": chains,
        "default_filter_chain": chain("default", json!({})),
    })
}

/// One value a criterion, so that two matches are ambiguous only when they are the same.
fn random_match(chance: &mut Chance) -> Value {
    let network = |text: &str| {
        let (prefix, length) = text.split_once('/').expect("a network");
        json!([{"address_prefix": prefix, "prefix_len": length.parse::<u32>().expect("a length")}])
    };
    let mut matching = json!({});
    if chance.below(3) == 0 {
        matching["destination_port"] = json!(chance.below(3) + 80);
    }
    if chance.below(2) == 0 {
        matching["prefix_ranges"] = network(chance.pick(&NETWORKS));
    }
    if chance.below(3) == 0 {
        matching["server_names"] = json!([chance.pick(&NAMES)]);
    }
    if chance.below(4) == 0 {
        matching["transport_protocol"] = json!(chance.pick(&["tls", "raw_buffer"]));
    }
    if chance.below(4) == 0 {
        matching["application_protocols"] = json!([chance.pick(&PROTOCOLS)]);
    }
    if chance.below(6) == 0 {
        matching["direct_source_prefix_ranges"] = network(chance.pick(&["127.0.0.0/8", "127.0.0.1/32", "10.0.0.0/8"]));
    }
    if chance.below(4) == 0 {
        matching["source_type"] = json!(chance.pick(&["SAME_IP_OR_LOOPBACK", "EXTERNAL"]));
    }
    if chance.below(3) == 0 {
        matching["source_prefix_ranges"] = network(chance.pick(&NETWORKS));
    }
    if chance.below(4) == 0 {
        matching["source_ports"] = json!([chance.below(3) + 1000]);
    }
    matching
}

fn random_chains(target: &Target) -> Result<Facts> {
    let mut chance = Chance(7);
    let mut facts = Facts::default();
    let address = local(listener_port(target.ports, LISTENERS.len()));
    for number in 0..RANDOM_CONNECTIONS {
        let family = if chance.below(4) == 0 { "TCP6" } else { "TCP4" };
        let mut ip = || {
            let matching: Vec<&str> =
                ADDRESSES.iter().copied().filter(|ip| ip.contains(':') == (family == "TCP6")).collect();
            chance.pick(&matching)
        };
        let (source, destination) = (ip(), ip());
        let (from, to) = (chance.below(4) + 1000, chance.below(4) + 80);
        let header = format!("PROXY {family} {source} {destination} {from} {to}\r\n");
        let alpn = [chance.pick(&PROTOCOLS)];
        let first = match chance.below(4) {
            0 => b"GET / HTTP/1.1\r\n".to_vec(),
            1 => b"\0\x01\x02\x03\x04\x05".to_vec(),
            2 => client_hello(Some(chance.pick(&CALLED)), &[], 0),
            _ => client_hello(Some(chance.pick(&CALLED)), &alpn, 0),
        };
        let talk = Talk {
            label: String::new(),
            listener: 0,
            pieces: vec![[header.into_bytes(), first].concat()],
            ends: false,
        };
        let (_, said) = hold(address, &talk)?;
        facts.append(said.within(&format!("connection {number}")));
    }
    Ok(facts)
}
