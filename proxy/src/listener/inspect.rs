//! Listener filters that look at the first bytes: is it TLS, and for whom; is it HTTP, and which. Bytes are peeked, never
//! taken. The decisions are pure functions over what has been seen so far.

use std::{io, time::Duration};

use tokio::net::TcpStream;

use crate::{config::listener::ListenerFilter, net::peek::peek_more};

/// What the first bytes told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    pub is_tls: bool,
    pub server_name: Option<String>,
    pub application_protocols: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<T> {
    NeedMore,
    Done(T),
}

/// A ClientHello longer than this is taken for no TLS; as long as Envoy's limit.
const PEEK_BYTES_MAX: usize = 16 * 1024;

/// Runs the filters that need bytes. Times out as a whole; `Ok(None)`: the time is up.
pub async fn inspect(
    stream: &TcpStream,
    filters: &[ListenerFilter],
    timeout: Option<Duration>,
) -> io::Result<Option<Inspected>> {
    let wants = |filter| filters.contains(&filter);
    let (tls, http) = (wants(ListenerFilter::TlsInspector), wants(ListenerFilter::HttpInspector));
    if !tls && !http {
        return Ok(Some(Inspected::default()));
    }
    let looking = look(stream, tls, http);
    match timeout {
        None => looking.await.map(Some),
        Some(timeout) => match tokio::time::timeout(timeout, looking).await {
            Ok(inspected) => inspected.map(Some),
            Err(_elapsed) => Ok(None),
        },
    }
}

async fn look(stream: &TcpStream, tls: bool, http: bool) -> io::Result<Inspected> {
    let mut buffer = vec![0; 1024];
    let mut seen = 0;
    loop {
        let now = peek_more(stream, &mut buffer, seen).await?;
        let closed = now <= seen;
        seen = now;
        if let Verdict::Done(inspected) = decide(&buffer[..seen], tls, http) {
            return Ok(inspected);
        }
        if closed || seen == PEEK_BYTES_MAX {
            return Ok(Inspected::default()); // no more will come, and what came is neither
        }
        if seen == buffer.len() {
            buffer.resize((buffer.len() * 2).min(PEEK_BYTES_MAX), 0);
        }
    }
}

fn decide(seen: &[u8], tls: bool, http: bool) -> Verdict<Inspected> {
    if tls {
        match decide_tls(seen) {
            Verdict::NeedMore => return Verdict::NeedMore,
            Verdict::Done(Some(inspected)) => return Verdict::Done(inspected),
            Verdict::Done(None) => {}
        }
    }
    if !http {
        return Verdict::Done(Inspected::default());
    }
    match decide_http(seen) {
        Verdict::NeedMore => Verdict::NeedMore,
        Verdict::Done(protocol) => Verdict::Done(Inspected {
            application_protocols: protocol.map(str::to_owned).into_iter().collect(),
            ..Default::default()
        }),
    }
}

/// `Done(None)`: not TLS.
fn decide_tls(seen: &[u8]) -> Verdict<Option<Inspected>> {
    // RFC 8446 section 5.1: handshake(22), legacy version 3.x.
    if seen.first().is_some_and(|&kind| kind != 22) || seen.get(1).is_some_and(|&major| major != 3) {
        return Verdict::Done(None);
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut bytes = seen;
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Verdict::Done(None);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Err(_not_a_client_hello) => return Verdict::Done(None),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let protocols = hello.alpn().into_iter().flatten();
                return Verdict::Done(Some(Inspected {
                    is_tls: true,
                    server_name: hello.server_name().map(str::to_ascii_lowercase),
                    application_protocols: protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
                }));
            }
        }
    }
    Verdict::NeedMore
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The names are those of Envoy's http_inspector. `Done(None)`: not HTTP.
fn decide_http(seen: &[u8]) -> Verdict<Option<&'static str>> {
    match is_http2_preface(seen) {
        Some(true) => return Verdict::Done(Some("h2c")),
        None => return Verdict::NeedMore,
        Some(false) => {}
    }
    let line_end = seen.iter().position(|&byte| byte == b'\n');
    let line = &seen[..line_end.unwrap_or(seen.len())];
    // RFC 9110 section 9.1: a method is a token; every registered one is of capital letters and dashes.
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    if method.len() > METHOD_BYTES_MAX || !method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-') {
        return Verdict::Done(None);
    }
    if line_end.is_none() {
        return Verdict::NeedMore;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Verdict::Done(match line {
        _ if method.is_empty() => None,
        _ if line.ends_with(b" HTTP/1.1") => Some("http/1.1"),
        _ if line.ends_with(b" HTTP/1.0") => Some("http/1.0"),
        _ => None,
    })
}

/// The longest registered method, UPDATEREDIRECTREF.
const METHOD_BYTES_MAX: usize = 17;

/// Whether a connection starts with HTTP/2's preface (RFC 9113 section 3.4); None: too few bytes to tell.
pub fn is_http2_preface(seen: &[u8]) -> Option<bool> {
    let compared = seen.len().min(HTTP2_PREFACE.len());
    if seen[..compared] != HTTP2_PREFACE[..compared] {
        return Some(false);
    }
    // "PRI" begins no HTTP/1 method in use, but only the whole line tells for sure.
    (compared >= HTTP2_PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(bytes: &[u8]) -> Verdict<Option<&'static str>> {
        decide_http(bytes)
    }

    #[test]
    fn http_is_told_from_its_first_line() {
        assert_eq!(http(b"GET / HTTP/1.1\r\nho"), Verdict::Done(Some("http/1.1")));
        assert_eq!(http(b"GET / HTTP/1.0\n"), Verdict::Done(Some("http/1.0")));
        assert_eq!(http(b"GET / HTT"), Verdict::NeedMore);
        assert_eq!(http(b""), Verdict::NeedMore);
        assert_eq!(http(HTTP2_PREFACE), Verdict::Done(Some("h2c")));
        assert_eq!(http(b"PRI * HT"), Verdict::NeedMore);
        assert_eq!(http(b"\x00\x01"), Verdict::Done(None));
        assert_eq!(http(b"GET / SPDY/3\r\n"), Verdict::Done(None));
        assert_eq!(http(b" / HTTP/1.1\r\n"), Verdict::Done(None));
        assert_eq!(http(b"AVERYLONGMETHODTHATISNONE"), Verdict::Done(None));
    }

    #[test]
    fn a_client_hello_gives_its_names_however_it_is_cut() {
        let hello = client_hello();
        let whole = decide_tls(&hello);
        let Verdict::Done(Some(inspected)) = &whole else { panic!("{whole:?}") };
        assert!(inspected.is_tls);
        assert_eq!(inspected.server_name.as_deref(), Some("app.test"));
        assert_eq!(inspected.application_protocols, ["h2", "istio"]);
        for cut in 0..hello.len() {
            assert_eq!(decide_tls(&hello[..cut]), Verdict::NeedMore, "{cut}");
        }
        assert_eq!(decide_tls(b"GET /"), Verdict::Done(None));
        assert_eq!(decide_tls(&[22, 3, 1, 0, 4, 9, 9, 9, 9]), Verdict::Done(None));
    }

    fn client_hello() -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("default versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"istio".to_vec()];
        let name = "App.test".try_into().expect("a name");
        let mut connection = rustls::ClientConnection::new(config.into(), name).expect("a connection");
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("written");
        hello
    }
}
