//! Peers that send what is cheap for them and costly for us: each connection ends, is counted under Envoy's name for it, and
//! takes little memory; others are served as before.

mod frames;
mod target;

use std::time::{Duration, Instant};

use frames::{frame, kind};
use target::Target;

/// One kind of attack on an HTTP/2 connection.
struct Attack {
    name: &'static str,
    /// Sent over and over, with the next stream's id each time.
    bytes: fn(stream: u32) -> Vec<u8>,
    times: u32,
    /// What counts it.
    counter: &'static str,
}

const fn attack(name: &'static str, times: u32, counter: &'static str, bytes: fn(u32) -> Vec<u8>) -> Attack {
    Attack { name, bytes, times, counter }
}

const PROTOCOL_ERROR: &str = "envoy_http_downstream_cx_protocol_error";

const ATTACKS: &[Attack] = &[
    // CVE-2023-44487.
    attack("rapid reset", 5_000, "envoy_http_downstream_rq_too_many_premature_resets", |stream| {
        [frames::get(stream), frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    }),
    // CVE-2025-8671: the resets are ours.
    attack("made you reset", 5_000, "envoy_http_downstream_rq_too_many_premature_resets", |stream| {
        [frames::post(stream, "1"), frame(kind::DATA, 0, stream, b"xx")].concat()
    }),
    // CVE-2024-27316.
    attack("continuations", 200_000, "envoy_http2_header_overflow", |stream| match stream {
        1 => frame(kind::HEADERS, 0, 1, &frames::GET),
        _ => frame(kind::CONTINUATION, 0, 1, &frames::FIELD.repeat(10)),
    }),
    attack("empty continuations", 200_000, "envoy_http2_inbound_empty_frames_flood", |stream| match stream {
        1 => frame(kind::HEADERS, 0, 1, &frames::GET),
        _ => frame(kind::CONTINUATION, 0, 1, b""),
    }),
    attack("empty data", 200_000, "envoy_http2_inbound_empty_frames_flood", |stream| match stream {
        1 => frames::post(1, "100"),
        _ => frame(kind::DATA, 0, 1, b""),
    }),
    attack("settings", 2_000_000, "envoy_http2_outbound_control_flood", |_| frame(kind::SETTINGS, 0, 0, b"")),
    attack("pings", 2_000_000, "envoy_http2_outbound_control_flood", |_| frame(kind::PING, 0, 0, b"12345678")),
    attack("windows in one frame", 1_000, PROTOCOL_ERROR, |_| {
        frame(kind::SETTINGS, 0, 0, &[[0, 4, 0, 0, 0, 1], [0, 4, 0, 1, 0, 0]].concat().repeat(1300))
    }),
    attack("priorities", 200_000, "envoy_http2_inbound_priority_frames_flood", |stream| {
        frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 1])
    }),
    attack("window updates", 200_000, "envoy_http2_inbound_window_update_frames_flood", |_| {
        frame(kind::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())
    }),
    attack("streams that never end", 100_000, "envoy_http2_stream_refused_errors", |stream| frames::post(stream, "9")),
    // A field of 3,900 bytes, and then requests that name it by an index of one byte, 10,000 times each.
    attack("header bomb", 1_000, "envoy_http2_header_list_size_too_large", |stream| match stream {
        1 => frames::headers(1, &frames::literal(b"x", &[b'v'; 3900])),
        _ => frames::headers(stream, &[0xbe; 10_000]),
    }),
];

/// What an attack may cost while it lasts: a connection's buffers, and the streams that it may have.
const BYTES_MAX: u64 = 32 << 20;

#[test]
fn floods_end_the_connection_and_cost_little() {
    for attack in ATTACKS {
        let target = Target::start("");
        let before = target.memory_bytes();
        let mut connection = target.connect();
        connection.send(frames::PREFACE);
        connection.send(&frame(kind::SETTINGS, 0, 0, b""));
        let whole_at_once: Vec<u8> = (0..attack.times.min(1000)).flat_map(|at| (attack.bytes)(1 + 2 * at)).collect();
        connection.send(&whole_at_once);
        let mut sent = attack.times.min(1000);
        while sent < attack.times && connection.is_writable() {
            let part: Vec<u8> = (sent..sent + 1000).flat_map(|at| (attack.bytes)(1 + 2 * at)).collect();
            connection.send(&part);
            sent += 1000;
        }
        target.counts(attack.counter, attack.name);
        connection.ends(attack.name);
        let cost = target.memory_peak_bytes().saturating_sub(before);
        assert!(cost < BYTES_MAX, "{}: {cost} bytes", attack.name);
        target.serves(attack.name);
    }
}

/// The block that does not end holds up all others: the request is answered, and the connection goes on once it does end.
#[test]
fn a_head_that_does_not_end_is_answered_in_time() {
    let target = Target::start("request_headers_timeout: 0.3s");
    let mut connection = target.connect();
    connection.send(frames::PREFACE);
    connection.send(&frame(kind::SETTINGS, 0, 0, b""));
    let begun = Instant::now();
    connection.send(&frame(kind::HEADERS, 1, 1, &frames::GET));
    let (status, body) = connection.answer(1);
    assert_eq!((status, &body[..]), (408, &b"request header timeout"[..]));
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    target.counts("envoy_http_downstream_rq_header_timeout", "late head");
    connection.send(&frame(kind::CONTINUATION, frames::END_HEADERS, 1, &frames::FIELD));
    connection.send(&frames::get(3));
    assert_eq!(connection.answer(3).0, 200);
}
