//! HTTP/1 requests, written out as bytes.

use anyhow::Result;
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;

use crate::Case;
use crate::pair::{TIMEOUT, Target};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EXCHANGES.iter().map(Exchange::case).collect();
    cases.extend(special_cases());
    cases
}

/// A request and what to look at beyond the answer.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    name: &'static str,
    listener: Listener,
    /// The request line and headers; `x-test-id` and `x-test-key` are put behind the first line.
    head: &'static str,
    body: &'static str,
    look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Mesh,
    /// With `use_remote_address`.
    Edge,
    /// The same, called from an internal address.
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The answer, whether the connection stays open, the access log.
    Whole,
    /// The access log has nothing to compare: the request was never one.
    NoLog,
    /// How often the application was tried, too.
    Attempts,
}

const fn get(name: &'static str, head: &'static str) -> Exchange {
    Exchange { name, listener: Listener::Mesh, head, body: "", look: Look::Whole }
}

impl Exchange {
    const fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }
    const fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }
    const fn internal(self) -> Self {
        Self { listener: Listener::Internal, ..self }
    }
    const fn edge(self) -> Self {
        Self { listener: Listener::Edge, ..self }
    }

    fn case(&self) -> Case {
        let exchange = *self;
        Case { name: self.name, observe: Box::new(move |target| exchange.observe(target)) }
    }

    fn observe(&self, target: &Target) -> Result<Facts> {
        let address = match self.listener {
            Listener::Mesh => target.ports.http(),
            Listener::Edge => target.ports.http_edge(),
            Listener::Internal => target.ports.http_internal(),
        };
        let mut connection = Connection::open(address, TIMEOUT)?;
        connection.send(self.request(target).as_bytes())?;
        let outcome = connection.receive(self.head.starts_with("HEAD "));
        let mut facts = Facts::default();
        facts.add_outcome(&outcome);
        facts.add("afterwards", afterwards(&mut connection, outcome.is_ok()));
        if self.look != Look::NoLog {
            facts.append(target.logged(self.name)?);
        }
        if self.look == Look::Attempts {
            facts.add("attempts", target.attempts(self.name)?);
        }
        Ok(facts)
    }

    fn request(&self, target: &Target) -> String {
        let (first, rest) = self.head.split_once("\r\n").unwrap_or((self.head, ""));
        let key = target.key(self.name);
        format!("{first}\r\nx-test-id: {key}\r\nx-test-key: {key}\r\n{rest}\r\n{}", self.body)
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

const EXCHANGES: &[Exchange] = &[
    // What is added to a request and to its answer.
    get("plain get", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    get("as asked", "GET /as-asked/ HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    get("query and fragment", "GET /headers?a=1&b=%20 HTTP/1.1\r\nhost: any.test\r\n"),
    get("path that is not normal", "GET /headers/../headers//x/./%2e HTTP/1.1\r\nhost: any.test\r\n"),
    get("header case and order", "GET /headers HTTP/1.1\r\nHost: any.test\r\nX-B: 1\r\nX-A: 2\r\nx-b: 3\r\n"),
    get("empty header", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-empty:\r\n"),
    get("given request id", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-request-id: mine\r\n"),
    get("given forwarding headers", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n"),
    get("hop by hop headers", "GET /headers HTTP/1.1\r\nhost: any.test\r\nconnection: x-drop, keep-alive\r\nx-drop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n"),
    get("te trailers", "GET /headers HTTP/1.1\r\nhost: any.test\r\nte: trailers\r\nconnection: te\r\n"),
    get("external envoy headers", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 1\r\nx-envoy-upstream-rq-timeout-ms: 9000\r\n"),
    get("edge plain get", "GET /headers HTTP/1.1\r\nhost: any.test\r\n").edge(),
    get("edge given forwarding headers", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n").edge(),
    get("edge given request id", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-request-id: 00000000-0000-4000-8000-000000000000\r\n").edge(),
    get("server and date of the application", "GET /header/server/mine HTTP/1.1\r\nhost: any.test\r\n"),
    get("answer with hop by hop headers", "GET /header/keep-alive/a/header/proxy-connection/b HTTP/1.1\r\nhost: any.test\r\n"),
    get("answer with envoy headers", "GET /header/x-envoy-upstream-service-time/7 HTTP/1.1\r\nhost: any.test\r\n"),
    // Methods and statuses.
    get("head", "HEAD /bytes/100 HTTP/1.1\r\nhost: any.test\r\n"),
    get("head of a local answer", "HEAD /to-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    get("options", "OPTIONS /headers HTTP/1.1\r\nhost: any.test\r\n"),
    get("delete", "DELETE /headers HTTP/1.1\r\nhost: any.test\r\n"),
    get("unknown method", "BREW /headers HTTP/1.1\r\nhost: any.test\r\n").look(Look::NoLog),
    get("patch with a body", "PATCH /headers HTTP/1.1\r\nhost: any.test\r\ncontent-length: 3\r\n").body("abc"),
    get("no content", "GET /status/204 HTTP/1.1\r\nhost: any.test\r\n"),
    get("not modified", "GET /status/304 HTTP/1.1\r\nhost: any.test\r\n"),
    get("client error of the application", "GET /status/404 HTTP/1.1\r\nhost: any.test\r\n"),
    get("server error of the application", "GET /status/503 HTTP/1.1\r\nhost: any.test\r\n"),
    get("teapot", "GET /status/418 HTTP/1.1\r\nhost: any.test\r\n"),
    get("odd status", "GET /status/599 HTTP/1.1\r\nhost: any.test\r\n"),
    // Bodies.
    get("post with a length", "POST /echo HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\n").body("hello"),
    get("post in chunks", "POST /echo HTTP/1.1\r\nhost: any.test\r\ntransfer-encoding: chunked\r\n").body("3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"),
    get("post in chunks with trailers", "POST /headers HTTP/1.1\r\nhost: any.test\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n").body("3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
    get("post without a body", "POST /headers HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\n"),
    get("get with a body", "GET /headers HTTP/1.1\r\nhost: any.test\r\ncontent-length: 3\r\n").body("abc"),
    get("answer in chunks", "GET /chunks/3 HTTP/1.1\r\nhost: any.test\r\n"),
    get("answer with trailers", "GET /trailers HTTP/1.1\r\nhost: any.test\r\nte: trailers\r\n"),
    get("large answer", "GET /bytes/3000000 HTTP/1.1\r\nhost: any.test\r\n"),
    get("empty answer", "GET /bytes/0 HTTP/1.1\r\nhost: any.test\r\n"),
    // Connections.
    get("connection close", "GET / HTTP/1.1\r\nhost: any.test\r\nconnection: close\r\n"),
    get("connection close in capitals", "GET / HTTP/1.1\r\nhost: any.test\r\nConnection: Close\r\n"),
    get("application hangs up", "GET /hangup HTTP/1.1\r\nhost: any.test\r\n"),
    get("http 1.0", "GET / HTTP/1.0\r\nhost: any.test\r\n").look(Look::NoLog),
    get("http 1.0 keep alive", "GET / HTTP/1.0\r\nhost: any.test\r\nconnection: keep-alive\r\n").look(Look::NoLog),
    get("http 1.0 without a host", "GET / HTTP/1.0\r\n").look(Look::NoLog),
    get("absolute form", "GET http://any.test/headers HTTP/1.1\r\nhost: other.test\r\n"),
    // Routing.
    get("virtual host without a route", "GET /elsewhere HTTP/1.1\r\nhost: narrow.test\r\n"),
    get("virtual host with the route", "GET /narrow HTTP/1.1\r\nhost: narrow.test\r\n"),
    get("virtual host in capitals", "GET /narrow HTTP/1.1\r\nhost: NARROW.test\r\n"),
    get("virtual host with a port", "GET /elsewhere HTTP/1.1\r\nhost: narrow.test:80\r\n"),
    get("virtual host by suffix with a port", "GET /elsewhere HTTP/1.1\r\nhost: a.narrow.test:81\r\n"),
    get("virtual host by suffix", "GET / HTTP/1.1\r\nhost: a.suffix.test\r\n"),
    get("prefix without its slash", "GET /narrower HTTP/1.1\r\nhost: narrow.test\r\n"),
    get("prefix with a query", "GET /narrow?x HTTP/1.1\r\nhost: narrow.test\r\n"),
    // Answers of the proxy itself.
    get("nobody listens", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    get("nobody listens to a post", "POST /to-nobody HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\n").body("hello"),
    get("no endpoints", "GET /to-empty HTTP/1.1\r\nhost: any.test\r\n"),
    get("no cluster", "GET /to-unknown HTTP/1.1\r\nhost: any.test\r\n"),
    get("no cluster for grpc", "POST /to-unknown HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    get("route timeout", "GET /impatient HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/2s\r\n"),
    get("timeout asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 200\r\nx-origin-do: delay/2s\r\n"),
    get("application closes", "GET /close HTTP/1.1\r\nhost: any.test\r\n"),
    // Retries.
    get("retried until good", "GET /retry-5xx HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/2\r\n").look(Look::Attempts),
    get("retried in vain", "GET /retry-5xx HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9\r\n").look(Look::Attempts),
    get("retried once by default", "GET /retry-once HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9/status/500\r\n").look(Look::Attempts),
    get("client error is not retried", "GET /retry-5xx HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9/status/404\r\n").look(Look::Attempts),
    get("post is retried with its body", "POST /retry-5xx HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: flaky/2/echo\r\n").body("hello").look(Look::Attempts),
    get("reset is retried as 5xx", "GET /retry-5xx HTTP/1.1\r\nhost: any.test\r\nx-origin-do: close\r\n").look(Look::Attempts),
    get("reset is retried as reset", "GET /retry-reset HTTP/1.1\r\nhost: any.test\r\nx-origin-do: close\r\n").look(Look::Attempts),
    get("5xx is no reset", "GET /retry-reset HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9\r\n").look(Look::Attempts),
    get("gateway errors are 502 to 504", "GET /retry-gateway HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9/status/502\r\n").look(Look::Attempts),
    get("500 is no gateway error", "GET /retry-gateway HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9/status/500\r\n").look(Look::Attempts),
    get("retriable status code", "GET /retry-codes HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/2/status/418\r\n").look(Look::Attempts),
    get("other status code", "GET /retry-codes HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/9/status/503\r\n").look(Look::Attempts),
    get("dead endpoint, first", "GET /retry-connect HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    get("dead endpoint, second", "GET /retry-connect HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    get("nobody, retried", "GET /retry-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    get("per try timeout", "GET /per-try HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/1s\r\n").look(Look::Attempts),
    get("retries asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-origin-do: flaky/3\r\n").look(Look::Attempts),
    // The edge trusts those who call from internal addresses.
    get("internal: retries asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-origin-do: flaky/3\r\n").internal().look(Look::Attempts),
    get("internal: one retry by default", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-origin-do: flaky/3\r\n").internal().look(Look::Attempts),
    get("internal: timeout asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 200\r\nx-origin-do: delay/2s\r\n").internal(),
    get("internal: timeouts and retries are not passed on", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 2000\r\nx-envoy-max-retries: 1\r\n").internal(),
    get("external: retries asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-origin-do: flaky/3\r\n").edge().look(Look::Attempts),
    get("external: one retry by default", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-origin-do: flaky/3\r\n").edge().look(Look::Attempts),
    get("external: timeout asked for", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 200\r\nx-origin-do: delay/2s\r\n").edge(),
    get("external: timeouts and retries are not passed on", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 2000\r\nx-envoy-max-retries: 1\r\n").edge(),
    get("internal plain get", "GET /headers HTTP/1.1\r\nhost: any.test\r\n").internal(),
    get("internal behind another proxy", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.9.9.9\r\n").internal(),
    // What is no request.
    get("no host", "GET / HTTP/1.1\r\n").look(Look::NoLog),
    get("two hosts", "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n").look(Look::NoLog),
    get("not http", "nonsense\r\n").look(Look::NoLog),
    get("unknown version", "GET / HTTP/3.7\r\nhost: any.test\r\n").look(Look::NoLog),
    get("length and chunks", "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n").body("0\r\n\r\n").look(Look::NoLog),
    get("two lengths", "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 3\r\ncontent-length: 4\r\n").body("abc").look(Look::NoLog),
    get("negative length", "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: -1\r\n").look(Look::NoLog),
    get("unknown transfer coding", "POST / HTTP/1.1\r\nhost: any.test\r\ntransfer-encoding: gzip\r\n").look(Look::NoLog),
    get("space before the colon", "GET / HTTP/1.1\r\nhost: any.test\r\nx-a : 1\r\n").look(Look::NoLog),
    get("folded header", "GET / HTTP/1.1\r\nhost: any.test\r\nx-a: 1\r\n  2\r\n").look(Look::NoLog),
    get("NUL in a header", "GET / HTTP/1.1\r\nhost: any.test\r\nx-a: a\0b\r\n").look(Look::NoLog),
    get("bad chunk size", "POST /echo HTTP/1.1\r\nhost: any.test\r\ntransfer-encoding: chunked\r\n").body("zz\r\nabc\r\n0\r\n\r\n").look(Look::NoLog),
    get("connect", "CONNECT any.test:80 HTTP/1.1\r\nhost: any.test:80\r\n").look(Look::NoLog),
];

/// What takes more than one message.
fn special_cases() -> Vec<Case> {
    let case = |name, observe: fn(&Target) -> Result<Facts>| Case { name, observe: Box::new(observe) };
    vec![
        case("expect 100 and wait for it", expect_continue_and_wait),
        case("expect 100 and do not wait", expect_continue_at_once),
        case("pipelined requests", pipelined),
        case("half closed after the request", half_closed),
        case("headers of 100 KiB", oversized_headers),
        case("client leaves early", client_leaves),
    ]
}

fn expect_continue_and_wait(target: &Target) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection.send(b"POST /echo HTTP/1.1\r\nhost: any.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")?;
    let mut facts = Facts::default();
    facts.add("first", connection.receive_head()?.status);
    connection.send(b"hello")?;
    facts.add_outcome(&connection.receive(false));
    Ok(facts)
}

fn expect_continue_at_once(target: &Target) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection
        .send(b"POST /echo HTTP/1.1\r\nhost: any.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello")?;
    let mut facts = Facts::default();
    facts.add_outcome(&connection.receive(false));
    Ok(facts)
}

fn pipelined(target: &Target) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection.send(b"GET /bytes/3 HTTP/1.1\r\nhost: a.test\r\n\r\nGET /to-empty HTTP/1.1\r\nhost: a.test\r\n\r\nGET /status/204 HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
    let statuses: Result<Vec<u16>, _> =
        (0..3).map(|_| connection.receive(false).map(|response| response.status)).collect();
    let mut facts = Facts::default();
    facts.add("statuses in order", format!("{statuses:?}"));
    Ok(facts)
}

fn half_closed(target: &Target) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection.send(b"GET /delay/200ms HTTP/1.1\r\nhost: any.test\r\n\r\n")?;
    connection.finish_sending()?;
    let mut facts = Facts::default();
    facts.add_outcome(&connection.receive(false));
    Ok(facts)
}

fn oversized_headers(target: &Target) -> Result<Facts> {
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    let filler = "x".repeat(100 * 1024);
    connection.send(format!("GET / HTTP/1.1\r\nhost: any.test\r\nx-filler: {filler}\r\n\r\n").as_bytes())?;
    let outcome = connection.receive(false);
    let mut facts = Facts::default();
    facts.add_outcome(&outcome);
    Ok(facts)
}

/// The application's side of a request whose client is gone is given up, and the log says so.
fn client_leaves(target: &Target) -> Result<Facts> {
    const NAME: &str = "client leaves early";
    let key = target.key(NAME);
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    connection.send(
        format!("GET /delay/600ms HTTP/1.1\r\nhost: any.test\r\nx-test-id: {key}\r\nx-test-key: {key}\r\n\r\n")
            .as_bytes(),
    )?;
    weft_tests::wait::until("the application was asked", TIMEOUT, || {
        anyhow::ensure!(target.attempts(NAME)? == "1", "not yet");
        Ok(())
    })?;
    drop(connection);
    target.logged(NAME)
}
