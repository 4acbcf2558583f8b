//! Upgrades over HTTP/1: which are granted, what passes then, and what becomes of those that are not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;
use weft_tests::facts::Facts;

use crate::Case;
use crate::pair::Target;

pub(crate) fn cases() -> Vec<Case> {
    REQUESTS
        .iter()
        .map(|(name, request)| Case { name, observe: Box::new(move |target| observe(target, request)) })
        .collect()
}

const REQUESTS: [(&str, &str); 6] = [
    ("upgrade: granted", "GET /raw/unasked-switch HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\n"),
    (
        "upgrade: any case",
        "GET /raw/unasked-switch HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, upgrade\r\nupgrade: X\r\n\r\n",
    ),
    (
        "upgrade: not configured",
        "GET /raw/unasked-switch HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: y\r\n\r\n",
    ),
    ("upgrade: disabled", "GET /raw/unasked-switch HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: z\r\n\r\n"),
    (
        "upgrade: not for this route",
        "GET /raw/no-upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ),
    ("upgrade: for this route", "GET /raw/only-here HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: y\r\n\r\n"),
];

/// The status, the fields about the connection, and whether the application's own bytes came.
fn observe(target: &Target, request: &str) -> Result<Facts> {
    let mut stream = TcpStream::connect(target.ports.http_lenient())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut seen = Vec::new();
    let mut space = [0; 4096];
    while !is_complete(&seen) {
        match stream.read(&mut space) {
            Ok(0) | Err(_) => break,
            Ok(count) => seen.extend_from_slice(&space[..count]),
        }
    }
    let text = String::from_utf8_lossy(&seen).to_lowercase();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut facts = Facts::default();
    facts.add("status", head.split(' ').nth(1).unwrap_or("none"));
    for name in ["connection: ", "upgrade: "] {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        facts.add(name.trim_end_matches(": "), line.unwrap_or("absent"));
    }
    facts.add("raw bytes", rest);
    Ok(facts)
}

fn is_complete(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    match text.split_once("\r\n\r\n") {
        Some((head, rest)) => !head.contains(" 101 ") || rest.contains("raw"),
        None => false,
    }
}
