//! An application that answers with bytes as they are written here, right or wrong: what a proxy makes of other people's mistakes.
//!
//! The path says which answer: `/raw/NAME`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits for another request.
    Waits,
    Closes,
    /// By RST.
    Resets,
}

/// Answers until the process ends. To be called where the proxies are.
pub(crate) fn start(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("raw origin")?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Its end is the other side's business.
            std::thread::spawn(move || serve(stream).ok());
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    loop {
        let mut request = Vec::new();
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            request.extend_from_slice(&bytes[..count]);
        }
        let text = String::from_utf8_lossy(&request);
        let name = text.split(' ').nth(1).and_then(|path| path.strip_prefix("/raw/")).unwrap_or_default();
        if name == "names" {
            stream.write_all(&names_of(&text))?;
            continue;
        }
        let answer = ANSWERS.iter().find(|answer| answer.name == name);
        let answer = answer.with_context(|| format!("no answer called {name:?}"))?;
        stream.write_all(answer.bytes)?;
        match answer.then {
            Then::Waits => {}
            Then::Closes => return Ok(()),
            Then::Resets => return Ok(set_socket_linger(&stream, Some(Duration::ZERO))?),
        }
    }
}

/// Says how the names of the request's fields were written, in a way of its own.
fn names_of(request: &str) -> Vec<u8> {
    let fields = request.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut names: Vec<&str> = fields.map(|(name, _)| name).collect();
    names.sort_unstable();
    let body = names.join(",");
    format!("HTTP/1.1 200 Fine By Me\r\nX-OtheR: 1\r\nContent-LENGTH: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const PATIENCE: Duration = Duration::from_secs(20);

const fn keeps(name: &'static str, bytes: &'static [u8]) -> Answer {
    Answer { name, bytes, then: Then::Waits }
}

const fn closes(name: &'static str, bytes: &'static [u8]) -> Answer {
    Answer { name, bytes, then: Then::Closes }
}

const fn resets(name: &'static str, bytes: &'static [u8]) -> Answer {
    Answer { name, bytes, then: Then::Resets }
}

pub(crate) const ANSWERS: &[Answer] = &[
    keeps("plain", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("names-in-capitals", b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\nX-A: 1\r\n\r\nok"),
    keeps("reason-of-its-own", b"HTTP/1.1 200 Fine By Me\r\ncontent-length: 2\r\n\r\nok"),
    keeps("no-reason", b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok"),
    keeps("status-299", b"HTTP/1.1 299 x\r\ncontent-length: 0\r\n\r\n"),
    keeps("status-999", b"HTTP/1.1 999 x\r\ncontent-length: 2\r\n\r\nok"),
    keeps("status-418", b"HTTP/1.1 418 x\r\ncontent-length: 0\r\n\r\n"),
    keeps("bare-line-feeds", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
    keeps("folded-field", b"HTTP/1.1 200 OK\r\nx-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\nok"),
    // Lengths.
    closes("until-close", b"HTTP/1.1 200 OK\r\n\r\nuntil close"),
    closes("until-close-1.0", b"HTTP/1.0 200 OK\r\n\r\nuntil close"),
    keeps("kept-alive-1.0", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"),
    keeps("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n"),
    keeps("trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\n\r\n"),
    keeps("no-content", b"HTTP/1.1 204 No Content\r\n\r\n"),
    keeps("no-content-of-length-0", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"),
    keeps("no-content-with-length", b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc"),
    keeps("no-content-in-chunks", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    keeps("not-modified", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    keeps("not-modified-with-length", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n"),
    keeps("reset-content", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
    // Two readings of where it ends.
    closes("gzip-coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"),
    keeps("gzip-and-chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    closes("identity-coding", b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nabc"),
    keeps("two-codings", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    keeps("length-and-chunks", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    keeps("length-twice", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok"),
    keeps("two-lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok"),
    keeps("list-of-lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok"),
    keeps("length-of-letters", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok"),
    keeps("negative-length", b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok"),
    keeps("length-with-a-plus", b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"),
    // Too little and too much.
    closes("nothing", b""),
    closes("half-a-head", b"HTTP/1.1 200 OK\r\ncontent-le"),
    closes("half-a-body", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"),
    closes("half-a-chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok"),
    closes("no-last-chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"),
    resets("nothing-and-reset", b""),
    resets("half-a-head-and-reset", b"HTTP/1.1 200 OK\r\ncontent-le"),
    resets("half-a-body-and-reset", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"),
    resets("half-a-chunk-and-reset", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok"),
    resets("until-reset", b"HTTP/1.1 200 OK\r\n\r\nuntil reset"),
    keeps("bad-chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"),
    keeps("more-than-its-length", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEXTRA"),
    keeps("two-answers", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"),
    // No HTTP.
    closes("garbage", b"garbage\r\n\r\n"),
    keeps("NUL-in-a-field", b"HTTP/1.1 200 OK\r\nx-a: a\0b\r\ncontent-length: 2\r\n\r\nok"),
    keeps("space-before-the-colon", b"HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 2\r\n\r\nok"),
    keeps("no-colon", b"HTTP/1.1 200 OK\r\nx-a\r\ncontent-length: 2\r\n\r\nok"),
    keeps("status-of-two-digits", b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("status-below-100", b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("status-of-letters", b"HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\nok"),
    // Connections.
    closes("close", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
    keeps("upgrade-offered", b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok"),
    keeps("upgrade-required", b"HTTP/1.1 426 x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n"),
    keeps("field-nominated", b"HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok"),
    keeps("unasked-switch", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nraw"),
    keeps("only-here", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: y\r\n\r\nraw"),
    // Interim responses.
    keeps("continue", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("processing", b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("hints", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("interim-199", b"HTTP/1.1 199 Odd\r\nx-a: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    keeps("hints-with-length", b"HTTP/1.1 103 Early Hints\r\ncontent-length: 3\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
];
