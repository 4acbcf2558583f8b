//! What both proxies make of an application that breaks the rules of HTTP/2, goes away or takes requests back: a scripted one,
//! of which each script has a port, so that it needs not understand what it is asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;

use crate::Case;
use crate::config;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, headers, settings,
};
use crate::pair::{TIMEOUT, Target};

/// What the application does to a request on a stream of this number.
pub(crate) struct Script {
    name: &'static str,
    answer: fn(u32) -> Vec<u8>,
    /// Whether it closes the connection then.
    closes: bool,
    retries: bool,
}

const fn script(name: &'static str, answer: fn(u32) -> Vec<u8>) -> Script {
    Script { name, answer, closes: false, retries: false }
}

const fn closing(name: &'static str, answer: fn(u32) -> Vec<u8>) -> Script {
    Script { name, answer, closes: true, retries: false }
}

const fn retried(name: &'static str, answer: fn(u32) -> Vec<u8>) -> Script {
    Script { name, answer, closes: false, retries: true }
}

fn head(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    headers(END_HEADERS, stream, &[&[(":status", "200")][..], more].concat())
}

fn last(stream: u32, text: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, text)
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

fn goaway(last_stream: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), reason.to_be_bytes()].concat())
}

fn whole(stream: u32) -> Vec<u8> {
    [head(stream, &[]), last(stream, b"ok")].concat()
}

pub(crate) const SCRIPTS: &[Script] = &[
    script("answers", whole),
    script("answers without a body", |id| headers(END_HEADERS | END_STREAM, id, &[(":status", "204")])),
    script("announces what it sends", |id| [head(id, &[("content-length", "2")]), last(id, b"ok")].concat()),
    script("sends trailers", |id| {
        [head(id, &[]), frame(DATA, 0, id, b"ok"), headers(END_HEADERS | END_STREAM, id, &[("x-t", "1")])].concat()
    }),
    script("sends an interim response", |id| {
        [headers(END_HEADERS, id, &[(":status", "103"), ("link", "</x>")]), whole(id)].concat()
    }),
    script("ends with an interim response", |id| headers(END_HEADERS | END_STREAM, id, &[(":status", "103")])),
    script("switches protocols", |id| headers(END_HEADERS | END_STREAM, id, &[(":status", "101")])),
    script("refuses the stream", |id| reset(id, 7)),
    script("cancels the stream", |id| reset(id, 8)),
    script("resets the stream for no reason", |id| reset(id, 0)),
    script("fails on the stream", |id| reset(id, 2)),
    script("finds a fault with the stream", |id| reset(id, 1)),
    script("resets within the body", |id| [head(id, &[]), frame(DATA, 0, id, b"par"), reset(id, 2)].concat()),
    script("resets after the answer", |id| [whole(id), reset(id, 0)].concat()),
    closing("closes", |_| Vec::new()),
    closing("closes within the body", |id| [head(id, &[]), frame(DATA, 0, id, b"par")].concat()),
    closing("goes away before the request", |_| goaway(0, 0)),
    closing("goes away angrily before the request", |_| goaway(0, 11)),
    closing("goes away after the request", |id| [goaway(id, 0), whole(id)].concat()),
    retried("refuses each stream, retried", |id| reset(id, 7)),
    retried("cancels each stream, retried", |id| reset(id, 8)),
    script("sends no status", |id| headers(END_HEADERS | END_STREAM, id, &[("x", "y")])),
    script("sends a status twice", |id| {
        headers(END_HEADERS | END_STREAM, id, &[(":status", "200"), (":status", "200")])
    }),
    script("sends a status of two digits", |id| headers(END_HEADERS | END_STREAM, id, &[(":status", "20")])),
    script("sends a status late", |id| headers(END_HEADERS | END_STREAM, id, &[("x", "y"), (":status", "200")])),
    script("sends a path", |id| headers(END_HEADERS | END_STREAM, id, &[(":status", "200"), (":path", "/")])),
    script("sends a name with capitals", |id| [head(id, &[("X-Test", "y")]), last(id, b"ok")].concat()),
    script("sends a value with NUL", |id| [head(id, &[("x", "a\0b")]), last(id, b"ok")].concat()),
    script("sends connection", |id| [head(id, &[("connection", "close")]), last(id, b"ok")].concat()),
    script("sends transfer-encoding", |id| [head(id, &[("transfer-encoding", "chunked")]), last(id, b"ok")].concat()),
    script("announces more than it sends", |id| [head(id, &[("content-length", "3")]), last(id, b"ok")].concat()),
    script("announces less than it sends", |id| [head(id, &[("content-length", "1")]), last(id, b"ok")].concat()),
    script("announces two lengths", |id| {
        [head(id, &[("content-length", "2"), ("content-length", "3")]), last(id, b"ok")].concat()
    }),
    script("announces a length and sends nothing", |id| {
        headers(END_HEADERS | END_STREAM, id, &[(":status", "200"), ("content-length", "3")])
    }),
    script("sends a status in trailers", |id| {
        [head(id, &[]), frame(DATA, 0, id, b"ok"), headers(END_HEADERS | END_STREAM, id, &[(":status", "200")])]
            .concat()
    }),
    script("sends trailers that end nothing", |id| {
        [head(id, &[]), frame(DATA, 0, id, b"ok"), headers(END_HEADERS, id, &[("x-t", "1")])].concat()
    }),
    script("sends DATA before HEADERS", |id| last(id, b"ok")),
    script("sends DATA on no stream", |_| last(0, b"ok")),
    script("sends DATA on an idle stream", |_| last(99, b"ok")),
    script("pushes", |id| {
        frame(
            PUSH_PROMISE,
            END_HEADERS,
            id,
            &[&2u32.to_be_bytes()[..], &crate::frames::block(&[(":method", "GET")])].concat(),
        )
    }),
    script("sends a block that cannot be read", |id| frame(HEADERS, END_HEADERS | END_STREAM, id, b"\x80")),
    script("sends a frame that is too large", |id| [head(id, &[]), last(id, &[b'x'; 16385])].concat()),
    script("sends an unknown frame", |id| [frame(0x42, 0, id, b"x"), whole(id)].concat()),
    script("sends a PING of seven bytes", |_| frame(PING, 0, 0, b"1234567")),
    script("asks for a PING and answers", |id| [frame(PING, 0, 0, b"12345678"), whole(id)].concat()),
    script("sends a priority", |id| [frame(PRIORITY, 0, id, &[0, 0, 0, 0, 16]), whole(id)].concat()),
    script("adds nothing to a window", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
    script("allows pushes", |id| [settings(&[(2, 1)]), whole(id)].concat()),
    script("splits its head", |id| {
        let block = crate::frames::block(&[(":status", "200"), ("x", "y")]);
        let (first, rest) = block.split_at(5);
        [frame(HEADERS, 0, id, first), frame(CONTINUATION, END_HEADERS, id, rest), last(id, b"ok")].concat()
    }),
    script("sends many fields", |id| {
        let names: Vec<String> = (0..120).map(|at| format!("x-{at}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
        [head(id, &fields), last(id, b"ok")].concat()
    }),
];

/// Where the script of this place is performed.
pub(crate) fn port(at: usize) -> u16 {
    FIRST_PORT + at as u16
}
const FIRST_PORT: u16 = 9200;

/// The name of its cluster; its route is the same after a slash.
pub(crate) fn cluster(at: usize) -> String {
    format!("scripted-{at}")
}

pub(crate) fn retries(at: usize) -> bool {
    SCRIPTS[at].retries
}

/// Performs all scripts in the namespace until the test ends.
pub(crate) fn perform(namespace: &Namespace) -> Result<()> {
    for (at, script) in SCRIPTS.iter().enumerate() {
        let listener = namespace.enter(|| TcpListener::bind(config::local(port(at))).context("a script's port"))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || perform_on(stream, script));
            }
        });
    }
    Ok(())
}

/// Err: the proxy has closed, which ends the performance.
fn perform_on(mut stream: TcpStream, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    stream.write_all(&settings(&[(1, 0)]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, b""))?,
            HEADERS => {
                stream.write_all(&(script.answer)(u32::from_be_bytes(id)))?;
                if script.closes {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    SCRIPTS
        .iter()
        .enumerate()
        .map(|(at, script)| Case { name: script.name, observe: Box::new(move |target| observe(target, at)) })
        .collect()
}

/// Called over HTTP/1, whose answers say all of what a proxy makes of it.
fn observe(target: &Target, at: usize) -> Result<Facts> {
    let name = SCRIPTS[at].name;
    let key = target.key(name);
    let mut facts = Facts::default();
    let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
    let request =
        format!("GET /{}/ HTTP/1.1\r\nHost: any.test\r\nx-test-id: {key}\r\nx-test-key: {key}\r\n\r\n", cluster(at));
    connection.send(request.as_bytes())?;
    let outcome = connection.receive(false);
    facts.add_outcome(&outcome);
    facts.append(target.logged(name)?);
    Ok(facts)
}
