//! What RFC 9113, RFC 7541 and RFC 8441 ask of a server, rule by rule: frames are sent by hand, to weft-proxy and to Envoy.
//! Ours has to do what the rule says; and where Envoy ends up elsewhere, that is named here with its reason.

mod connection;
mod hpack;
mod messages;
mod streams;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::config;
use crate::frames::{self, RawConnection, Seen};
use crate::pair::{Pair, Target};

/// One rule.
struct Check {
    /// Begins with the section.
    name: &'static str,
    /// Whether the two prefaces are exchanged first, as is proper.
    greets: bool,
    /// Sent one after the other, each after what came before was answered.
    steps: Vec<Vec<u8>>,
    wants: Wants,
}

enum Wants {
    /// A final response of this status on this stream.
    Answer(u32, u16),
    /// The connection ends for one of these reasons (RFC 9113 section 5.4.1).
    ConnectionError(&'static [u32]),
    /// The stream ends for one of these reasons (section 5.4.2), or the connection does, which a peer may always do.
    StreamError(&'static [u32]),
    /// Nothing happens: the connection answers a PING that follows.
    Nothing,
    /// What the peer says first.
    Settings(&'static [(u16, u32)]),
    /// An interim response, then a final one.
    Interim(u16, u16),
    /// DATA of one byte and no more of it.
    OneByte,
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

fn check(name: &'static str, bytes: impl Into<Vec<u8>>, wants: Wants) -> Check {
    Check { name, greets: true, steps: vec![bytes.into()], wants }
}

fn in_steps<const N: usize>(name: &'static str, steps: [Vec<u8>; N], wants: Wants) -> Check {
    Check { name, greets: true, steps: steps.into(), wants }
}

fn ungreeted(name: &'static str, bytes: impl Into<Vec<u8>>, wants: Wants) -> Check {
    Check { name, greets: false, steps: vec![bytes.into()], wants }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: Fields<'_> = &[(":method", "GET"), (":scheme", "http"), (":path", "/bytes/5"), (":authority", "any.test")];
const POST: Fields<'_> = &[(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "any.test")];

/// A whole request without a body on stream 1.
fn get() -> Vec<u8> {
    get_on(1)
}

fn get_on(stream: u32) -> Vec<u8> {
    frames::headers(frames::END_STREAM | frames::END_HEADERS, stream, GET)
}

fn get_with(more: Fields<'_>) -> Vec<u8> {
    frames::headers(frames::END_STREAM | frames::END_HEADERS, 1, &[GET, more].concat())
}

/// A request on stream 1 that goes on.
fn post() -> Vec<u8> {
    post_with(&[])
}

fn post_with(more: Fields<'_>) -> Vec<u8> {
    frames::headers(frames::END_HEADERS, 1, &[POST, more].concat())
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frames::frame(frames::DATA, flags, stream, payload)
}

/// Where Envoy comes to another end than ours, and why ours is wanted.
const DIFFERENT: &[(&str, &str)] = &[
    ("5.1 closed by both: DATA", "RFC 9113 section 5.1 asks for a connection error; Envoy overlooks it"),
    ("5.1 closed by both: HEADERS", "RFC 9113 section 5.1 asks for a connection error; Envoy overlooks it"),
    ("5.1 closed by RST_STREAM: DATA", "RFC 9113 section 5.1 asks for an error; Envoy overlooks it"),
    ("5.1 closed by RST_STREAM: HEADERS", "RFC 9113 section 5.1 asks for an error; Envoy overlooks it"),
    ("5.1.1 a stream with a lower number than one before", "RFC 9113 section 5.1.1 asks for a connection error"),
    ("5.3.1 a stream that depends on itself", "RFC 7540 section 5.3.1 asks for an error; Envoy overlooks it"),
    ("6.3 PRIORITY on no stream", "RFC 9113 section 6.3 asks for a connection error; Envoy overlooks it"),
    ("6.9.1 a stream's window grows beyond the largest", "RFC 9113 section 6.9.1 asks for a stream error"),
    ("6.9.2 SETTINGS make a stream's window too large", "RFC 9113 section 6.9.2 asks for a connection error"),
    ("RFC 8441 3 extended CONNECT taken back", "RFC 8441 section 3 rules it out; Envoy overlooks it"),
];

impl Check {
    fn observe(&self, target: &Target) -> Result<Seen> {
        let mut connection = RawConnection::open(target.ports.http2())?;
        if self.greets {
            connection.send(&[frames::PREFACE, &frames::settings(&[(1, 0)])].concat());
            connection.read_until(PATIENCE, |seen| seen.settings_acks > 0)?;
        }
        let last = self.steps.len() - 1;
        for (at, step) in self.steps.iter().enumerate() {
            let answers = connection.seen.answers.len();
            connection.send(step);
            if at < last {
                connection.read_until(BETWEEN_STEPS, |seen| seen.answers.len() > answers || !seen.resets.is_empty())?;
            }
        }
        if let Wants::Nothing = self.wants {
            connection.send(&frames::frame(frames::PING, 0, 0, b"12345678"));
        }
        connection.read_until(PATIENCE, |seen| self.is_enough(seen))?;
        if let Wants::OneByte = self.wants {
            connection.read_until(BETWEEN_STEPS, |_| false)?;
        }
        Ok(connection.seen)
    }

    /// Whether there is nothing more to wait for.
    fn is_enough(&self, seen: &Seen) -> bool {
        match &self.wants {
            Wants::Answer(stream, _) => seen.answers.iter().any(|(id, _)| id == stream) || !seen.resets.is_empty(),
            Wants::ConnectionError(_) => false, // it has to close
            Wants::StreamError(_) => !seen.resets.is_empty(),
            Wants::Nothing => seen.ping_acks > 0,
            Wants::Settings(_) => !seen.settings.is_empty(),
            Wants::Interim(..) => !seen.answers.is_empty(),
            Wants::OneByte => !seen.data_frames.is_empty(),
        }
    }

    fn is_met(&self, seen: &Seen) -> bool {
        let ended_for = |reasons: &[u32]| seen.closed && seen.goaway.is_none_or(|reason| reasons.contains(&reason));
        match self.wants {
            Wants::Answer(stream, status) => seen.answers.contains(&(stream, status)) && seen.resets.is_empty(),
            Wants::ConnectionError(reasons) => ended_for(reasons),
            Wants::StreamError(reasons) => {
                seen.resets.iter().any(|(_, reason)| reasons.contains(reason)) || ended_for(reasons)
            }
            Wants::Nothing => seen.ping_acks == 1 && seen.goaway.is_none() && seen.resets.is_empty(),
            Wants::Settings(expected) => expected.iter().all(|pair| seen.settings.contains(pair)),
            Wants::Interim(interim, last) => seen.interim == [(1, interim)] && seen.answers == [(1, last)],
            Wants::OneByte => seen.data_frames == [(1, 1)],
        }
    }
}

/// What it came to, in as far as a caller is concerned.
fn end(seen: &Seen) -> String {
    if seen.closed {
        return "the connection ended".to_owned();
    }
    // Requests of one connection are answered in any order.
    let mut answers = seen.answers.clone();
    answers.sort_unstable();
    format!("answers {answers:?}, interim {:?}, resets {:?}, pings {}", seen.interim, seen.resets, seen.ping_acks)
}

/// How long for an answer; for most rules that are broken it takes the peer's `delayed_close_timeout`.
const PATIENCE: Duration = Duration::from_secs(4);
const BETWEEN_STEPS: Duration = Duration::from_millis(300);
const CHECKS_AT_A_TIME: usize = 16;

#[test]
fn the_rules_of_http2_are_kept() -> Result<()> {
    let pair = Pair::start(&config::bootstrap)?;
    let checks = [connection::checks(), streams::checks(), messages::checks(), hpack::checks()];
    let checks: Vec<Check> = checks.into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CHECKS_AT_A_TIME {
            scope.spawn(|| {
                while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = complaints_about(check, &pair);
                    complaints.lock().expect("no other check panics").extend(found);
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("no check panics");
    println!("{} rules checked", checks.len());
    ensure!(checks.len() >= 140, "only {} rules", checks.len());
    ensure!(complaints.is_empty(), "{} complaints:\n{}\n\n{}", complaints.len(), complaints.join("\n"), pair.logs());
    Ok(())
}

fn complaints_about(check: &Check, pair: &Pair) -> Vec<String> {
    let name = check.name;
    let [envoy, weft] = [&pair.envoy, &pair.weft].map(|target| pair.enter(|| check.observe(target)));
    let (envoy, weft) = match (envoy, weft) {
        (Ok(envoy), Ok(weft)) => (envoy, weft),
        (Err(error), _) | (_, Err(error)) => return vec![format!("{name}: {error:#}")],
    };
    let mut complaints = Vec::new();
    if !check.is_met(&weft) {
        complaints.push(format!("{name}: ours breaks the rule: {weft:?}"));
    }
    let known = DIFFERENT.iter().find(|(different, _)| *different == name);
    let (theirs, ours) = (end(&envoy), end(&weft));
    match known {
        None if theirs != ours => complaints.push(format!("{name}: Envoy: {theirs}; ours: {ours}")),
        Some(_) if theirs == ours => complaints.push(format!("{name}: no difference any more")),
        None | Some(_) => {}
    }
    complaints
}
