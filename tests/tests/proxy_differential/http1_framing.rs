//! HTTP/1 messages that are framed oddly or wrongly (RFC 9112), from callers and from applications.

use anyhow::Result;
use weft_tests::facts::Facts;
use weft_tests::http1::{Connection, Response};

use crate::Case;
use crate::pair::{TIMEOUT, Target};
use crate::raw_origin::ANSWERS;

pub(crate) fn cases() -> Vec<Case> {
    let requests = REQUESTS.iter().map(|request| {
        let request = *request;
        Case { name: request.name, observe: Box::new(move |target| request.observe(target)) }
    });
    let answers = ANSWERS.iter().map(|answer| {
        let name = answer.name;
        Case { name, observe: Box::new(move |target| answered(target, name, "GET", name)) }
    });
    let to_head = TO_HEAD
        .iter()
        .map(|(name, answer)| Case { name, observe: Box::new(move |target| answered(target, name, "HEAD", answer)) });
    requests.chain(answers).chain(to_head).collect()
}

/// What is sent, byte for byte.
#[derive(Debug, Clone, Copy)]
struct Request {
    name: &'static str,
    bytes: &'static [u8],
    lenient: bool,
}

const fn strict(name: &'static str, bytes: &'static [u8]) -> Request {
    Request { name, bytes, lenient: false }
}

/// To the listener with `accept_http_10`, `enable_trailers`, `allow_chunked_length`, `allow_custom_methods`,
/// `proxy_100_continue` and names in capitals.
const fn lenient(name: &'static str, bytes: &'static [u8]) -> Request {
    Request { name, bytes, lenient: true }
}

impl Request {
    fn observe(&self, target: &Target) -> Result<Facts> {
        let address = if self.lenient { target.ports.http_lenient() } else { target.ports.http() };
        let mut connection = Connection::open(address, TIMEOUT)?;
        connection.send(self.bytes)?;
        let outcome = connection.receive(self.bytes.starts_with(b"HEAD "));
        let mut facts = Facts::default();
        add_names(&mut facts, &outcome);
        facts.add_outcome(&outcome);
        facts.add("afterwards", afterwards(&mut connection, outcome.is_ok()));
        Ok(facts)
    }
}

/// One of the raw origin's answers, as it comes out.
fn answered(target: &Target, case: &str, method: &str, answer: &str) -> Result<Facts> {
    let key = target.key(case);
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection
        .send(format!("{method} /raw/{answer} HTTP/1.1\r\nhost: any.test\r\nx-test-id: {key}\r\n\r\n").as_bytes())?;
    let outcome = connection.receive(method == "HEAD");
    let mut facts = Facts::default();
    facts.add_outcome(&outcome);
    facts.add("afterwards", afterwards(&mut connection, outcome.is_ok()));
    facts.append(target.logged(case)?);
    Ok(facts)
}

/// How the names of fields are written, which facts about headers overlook.
fn add_names(facts: &mut Facts, outcome: &Result<Response, weft_tests::http1::Failure>) {
    if let Ok(response) = outcome {
        let mut names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        facts.add("names", names.join(" "));
    }
}

/// Whether another request can be made on the connection.
fn afterwards(connection: &mut Connection, answered: bool) -> &'static str {
    if answered && connection.is_reusable() {
        return match connection.get("again.test", "/", &[]) {
            Ok(response) if response.status == 200 => "takes another request",
            Ok(_) => "takes another request, but badly",
            Err(_) => "promised to stay open, but closes",
        };
    }
    match connection.expect_close() {
        Ok(()) => "closes",
        Err(_) => "stays open, although it should close",
    }
}

const TO_HEAD: [(&str, &str); 5] = [
    ("head: plain", "plain"),
    ("head: until close", "until-close"),
    ("head: chunks", "chunks"),
    ("head: not modified", "not-modified"),
    ("head: nothing", "nothing"),
];

const REQUESTS: &[Request] = &[
    // Transfer codings.
    strict("gzip, chunked", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    strict("chunked, gzip", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    strict("chunked, chunked", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    strict("chunked in two lines", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    strict("chunked and identity", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
    strict("identity", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n"),
    strict("no coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n"),
    strict("quoted coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    strict("nearly chunked", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    strict("chunked with a comma", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n"),
    strict("chunked in capitals", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED \r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    strict("chunked behind a vertical tab", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    strict("chunked get", b"GET /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    strict("chunks, then a length", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    strict("length and gzip", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: gzip\r\n\r\nabc"),
    strict("chunks in HTTP/1.0", b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    // Lengths.
    strict("length twice", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    strict("list of lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc"),
    strict("list of different lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabc"),
    strict("length with a plus sign", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
    strict("hexadecimal length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc"),
    strict("empty length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n"),
    strict("length with a space", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3 3\r\n\r\nabc"),
    strict("length beyond 64 bits", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\nabc"),
    strict("length with zeros before", b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 003\r\n\r\nabc"),
    // Fields.
    strict("tab before the colon", b"GET / HTTP/1.1\r\nhost: a\r\nx-a\t: 1\r\n\r\n"),
    strict("a field without a colon", b"GET / HTTP/1.1\r\nhost: a\r\nx-a\r\n\r\n"),
    strict("a field without a name", b"GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n"),
    strict("control character in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx\x01a: 1\r\n\r\n"),
    strict("separator in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx(a: 1\r\n\r\n"),
    strict("letter beyond ASCII in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx\xe9a: 1\r\n\r\n"),
    strict("underscore in a name", b"GET /headers HTTP/1.1\r\nhost: a\r\nx_a: 1\r\n\r\n"),
    strict("control character in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: a\x01b\r\n\r\n"),
    strict("delete in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: a\x7fb\r\n\r\n"),
    strict("tab in a value", b"GET /headers HTTP/1.1\r\nhost: a\r\nx-a: a\tb\r\n\r\n"),
    strict("letter beyond ASCII in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: a\xe9b\r\n\r\n"),
    strict("carriage return in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: a\rb\r\n\r\n"),
    strict("folding before the first field", b"GET / HTTP/1.1\r\n host: a\r\n\r\n"),
    strict("line feeds alone", b"GET / HTTP/1.1\nhost: a\n\n"),
    strict("one line feed alone", b"GET / HTTP/1.1\r\nhost: a\nx-a: 1\r\n\r\n"),
    // Request lines.
    strict("an empty line first", b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("a space first", b" GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("two spaces", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("tabs for spaces", b"GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("a space at the end", b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n"),
    strict("no version", b"GET /\r\nhost: a\r\n\r\n"),
    strict("HTTP/0.9", b"GET /\r\n\r\n"),
    strict("HTTP/1.2", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    strict("HTTP/2.0", b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    strict("version in small letters", b"GET / http/1.1\r\nhost: a\r\n\r\n"),
    strict("HTTP/1.10", b"GET / HTTP/1.10\r\nhost: a\r\n\r\n"),
    strict("HTTP/1", b"GET / HTTP/1\r\nhost: a\r\n\r\n"),
    strict("another protocol", b"GET / ICE/1.0\r\nhost: a\r\n\r\n"),
    strict("method in small letters", b"get / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("PROPFIND", b"PROPFIND /headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("TRACE", b"TRACE /headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("M-SEARCH", b"M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("method that is no token", b"G@T / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    // Targets.
    strict("asterisk of OPTIONS", b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("asterisk of GET", b"GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("authority of GET", b"GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("relative path", b"GET foo HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("fragment", b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("space in the path", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("tab in the path", b"GET /a\tb HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("control character in the path", b"GET /a\x01b HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("NUL in the path", b"GET /a\0b HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("letter beyond ASCII in the path", b"GET /\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("brackets in the path", b"GET /a<b> HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("odd per cent signs", b"GET /headers/%zz% HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute without a path", b"GET http://b.test HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute without Host", b"GET http://b.test/headers HTTP/1.1\r\n\r\n"),
    strict("absolute and two hosts", b"GET http://b.test/headers HTTP/1.1\r\nhost: a\r\nhost: c\r\n\r\n"),
    strict("absolute with https", b"GET https://b.test/headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute with ftp", b"GET ftp://b.test/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute with a user", b"GET http://u@b.test/headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute without an authority", b"GET http:///headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("absolute with a bad port", b"GET http://b.test:0x/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    // Host.
    strict("empty host", b"GET / HTTP/1.1\r\nhost:\r\n\r\n"),
    strict("space in the host", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
    strict("slash in the host", b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
    strict("hash in the host", b"GET / HTTP/1.1\r\nhost: a#b\r\n\r\n"),
    strict("letter beyond ASCII in the host", b"GET / HTTP/1.1\r\nhost: \xc3\xa9\r\n\r\n"),
    strict("address as host", b"GET /headers HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
    // What `connection` names.
    strict("nominated te", b"GET /headers HTTP/1.1\r\nhost: a\r\nconnection: te\r\nte: trailers, gzip\r\n\r\n"),
    strict("nominated te without trailers", b"GET /headers HTTP/1.1\r\nhost: a\r\nconnection: te\r\nte: gzip\r\n\r\n"),
    strict("nominated forwarding fields", b"GET /headers HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-for\r\nx-forwarded-for: 1.1.1.1\r\n\r\n"),
    strict("nominated pseudo-header", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: :path\r\n\r\n"),
    strict("ten nominated", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: a,b,c,d,e,f,g,h,i,j\r\n\r\n"),
    strict("close among others", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\n"),
    strict("close in a second line", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x-a\r\nconnection: close\r\n\r\n"),
    strict("proxy-connection: close", b"GET / HTTP/1.1\r\nhost: a\r\nproxy-connection: close\r\n\r\n"),
    // Upgrades and CONNECT.
    strict("h2c offered", b"GET /headers HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"),
    strict("upgrade that is not nominated", b"GET /headers HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n"),
    strict("upgrade that is not allowed", b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    strict("CONNECT without a port", b"CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("CONNECT of a path", b"CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n"),
    strict("CONNECT with a length", b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\ncontent-length: 3\r\n\r\nabc"),
    strict("CONNECT in chunks", b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\ntransfer-encoding: chunked\r\n\r\n"),
    // Expectations.
    strict("another expectation", b"GET /headers HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\n\r\n"),
    strict("expectation without a body", b"GET /headers HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\n\r\n"),
    // Chunks.
    strict("chunk extensions", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n"),
    strict("space behind the chunk size", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"),
    strict("space before the chunk size", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"),
    strict("chunk size with 0x", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    strict("chunk size with a sign", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n"),
    strict("no chunk size", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n"),
    strict("chunk size beyond 64 bits", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    strict("chunk size with zeros", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0000000000000000000003\r\nabc\r\n000\r\n\r\n"),
    strict("chunk size and a line feed", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
    strict("carriage return in an extension", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n"),
    strict("control character in an extension", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=\x01\r\nabc\r\n0\r\n\r\n"),
    strict("chunk that ends in a line feed", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
    strict("chunk that is longer than its size", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
    strict("trailers", b"POST /headers HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
    strict("bad trailers", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx t: 1\r\n\r\n"),
    strict("NUL in trailers", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: a\0b\r\n\r\n"),
    // Answers that do not wait for their request.
    strict("answered before the body came", b"POST /to-unknown HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\nabc"),
    strict("answered at once, the body behind", b"POST /to-unknown HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
    strict("application answers before the body came", b"POST /raw/plain HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\nabc"),
    strict("nobody to take a body that never comes", b"POST /to-nobody HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\nabc"),
    // What listeners may be told to take.
    lenient("lenient: slow head", b"GET / HTTP/1.1\r\nhos"),
    lenient("lenient: HTTP/1.0", b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"),
    lenient("lenient: HTTP/1.0 kept alive", b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"),
    lenient("lenient: HTTP/1.0 without a host", b"GET / HTTP/1.0\r\n\r\n"),
    lenient("lenient: HTTP/1.0, answer in chunks", b"GET /chunks/3 HTTP/1.0\r\nhost: a\r\n\r\n"),
    lenient("lenient: HTTP/1.0 kept alive, answer in chunks", b"GET /chunks/3 HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"),
    lenient("lenient: HTTP/1.1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: length and chunks", b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    lenient("lenient: length and gzip", b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: gzip\r\n\r\nabc"),
    lenient("lenient: another method", b"BREW /headers HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: method that is no token", b"G@T / HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: trailers", b"POST /headers HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
    lenient("lenient: trailers of an answer", b"GET /raw/trailers HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: 100 of the application", b"GET /raw/continue HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: hints", b"GET /raw/hints HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: 102", b"GET /raw/processing HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: 199", b"GET /raw/interim-199 HTTP/1.1\r\nhost: a\r\n\r\n"),
    lenient("lenient: expectation", b"POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc"),
];
