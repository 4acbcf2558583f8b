//! Streams and their states, and the frames about one of them: RFC 9113 sections 5 and 6.1 to 6.6 and 6.10; floods.

use super::*;
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, WITH_PRIORITY, frame, headers,
};

pub(super) fn checks() -> Vec<Check> {
    [states(), numbers(), data_frames(), headers_frames(), priorities(), resets(), continuations(), floods()]
        .into_iter()
        .flatten()
        .collect()
}

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A request whose answer takes a while.
fn slow() -> Vec<u8> {
    get_with(&[("x-origin-do", "delay/1s")])
}

fn states() -> Vec<Check> {
    let closed = || Wants::ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    let protocol = || Wants::ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        check("5.1 idle: DATA", data(END_STREAM, 1, b"x"), protocol()),
        check("5.1 idle: RST_STREAM", frame(RST_STREAM, 0, 1, &CANCEL), protocol()),
        check("5.1 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &frames::block(GET)), protocol()),
        check("5.1 idle: PRIORITY", [frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), get()].concat(), Wants::Answer(1, 200)),
        check("5.1 half closed: DATA", [slow(), data(END_STREAM, 1, b"x")].concat(), closed()),
        check("5.1 half closed: HEADERS", [slow(), get()].concat(), closed()),
        check("5.1 half closed: CONTINUATION", [slow(), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(), closed()),
        check(
            "5.1 half closed: WINDOW_UPDATE",
            [slow(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "5.1 half closed: PRIORITY",
            [slow(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])].concat(),
            Wants::Answer(1, 200),
        ),
        in_steps("5.1 closed by both: DATA", [get(), data(END_STREAM, 1, b"x")], closed()),
        in_steps("5.1 closed by both: HEADERS", [get(), get()], Wants::StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR])),
        in_steps("5.1 closed by both: CONTINUATION", [get(), frame(CONTINUATION, END_HEADERS, 1, b"")], closed()),
        in_steps(
            "5.1 closed by both: PRIORITY",
            [get(), [frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), get_on(3)].concat()],
            Wants::Answer(3, 200),
        ),
        in_steps(
            "5.1 closed by both: RST_STREAM",
            [get(), [frame(RST_STREAM, 0, 1, &CANCEL), get_on(3)].concat()],
            Wants::Answer(3, 200),
        ),
        check(
            "5.1 closed by RST_STREAM: DATA",
            [post(), frame(RST_STREAM, 0, 1, &CANCEL), data(END_STREAM, 1, b"x")].concat(),
            Wants::StreamError(&[STREAM_CLOSED]),
        ),
        check(
            "5.1 closed by RST_STREAM: HEADERS",
            [post(), frame(RST_STREAM, 0, 1, &CANCEL), get()].concat(),
            Wants::StreamError(&[STREAM_CLOSED]),
        ),
        check(
            "5.1 closed by RST_STREAM: others go on",
            [post(), frame(RST_STREAM, 0, 1, &CANCEL), get_on(3)].concat(),
            Wants::Answer(3, 200),
        ),
    ]
}

fn numbers() -> Vec<Check> {
    let many: Vec<u8> = (0..1025)
        .flat_map(|at| headers(END_HEADERS, 1 + 2 * at, &[POST, &[("x-origin-do", "delay/5s")]].concat()))
        .collect();
    vec![
        check("5.1.1 an even number", get_on(2), Wants::ConnectionError(&[PROTOCOL_ERROR])),
        check(
            "5.1.1 a stream with a lower number than one before",
            [get_on(5), get_on(3)].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        check("5.1.1 numbers left out", get_on(77), Wants::Answer(77, 200)),
        check("5.1.1 the largest number", get_on(0x7fff_ffff), Wants::Answer(0x7fff_ffff, 200)),
        check("5.1.2 more streams than allowed", many, Wants::StreamError(&[REFUSED_STREAM, PROTOCOL_ERROR])),
        check(
            "5.3.1 a stream that depends on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 16]),
            Wants::StreamError(&[PROTOCOL_ERROR]),
        ),
        check(
            "5.5 a frame of an unknown type ahead of a request",
            [frame(0xff, 0, 3, b"x"), get()].concat(),
            Wants::Answer(1, 200),
        ),
    ]
}

fn data_frames() -> Vec<Check> {
    let protocol = || Wants::ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        check("6.1 DATA on no stream", data(END_STREAM, 0, b"x"), protocol()),
        check("6.1 padded DATA", [post(), data(END_STREAM | PADDED, 1, b"\x01ab")].concat(), Wants::Answer(1, 200)),
        check(
            "6.1 nothing but padding",
            [post(), data(END_STREAM | PADDED, 1, b"\x02ab")].concat(),
            Wants::Answer(1, 200),
        ),
        check("6.1 more padding than DATA", [post(), data(END_STREAM | PADDED, 1, b"\x03ab")].concat(), protocol()),
        check(
            "6.1 padded without a length",
            [post(), data(END_STREAM | PADDED, 1, b"")].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        check("6.1 an empty last DATA", [post(), data(END_STREAM, 1, b"")].concat(), Wants::Answer(1, 200)),
    ]
}

fn headers_frames() -> Vec<Check> {
    let protocol = || Wants::ConnectionError(&[PROTOCOL_ERROR]);
    let with_priority = |priority: &[u8]| [priority, &frames::block(GET)].concat();
    let flags = END_STREAM | END_HEADERS;
    vec![
        check("6.2 HEADERS on no stream", get_on(0), protocol()),
        check(
            "6.2 padded HEADERS",
            frame(HEADERS, flags | PADDED, 1, &[b"\x02", &frames::block(GET)[..], b"\0\0"].concat()),
            Wants::Answer(1, 200),
        ),
        check(
            "6.2 more padding than HEADERS",
            frame(HEADERS, flags | PADDED, 1, &[b"\xff", &frames::block(GET)[..]].concat()),
            protocol(),
        ),
        check(
            "6.2 HEADERS with a priority",
            frame(HEADERS, flags | WITH_PRIORITY, 1, &with_priority(&[0, 0, 0, 0, 16])),
            Wants::Answer(1, 200),
        ),
        check(
            "6.2 HEADERS padded and with a priority",
            frame(
                HEADERS,
                flags | WITH_PRIORITY | PADDED,
                1,
                &[&[1, 0, 0, 0, 0, 16][..], &frames::block(GET), &[0]].concat(),
            ),
            Wants::Answer(1, 200),
        ),
        check(
            "6.2 HEADERS that depend on themselves",
            frame(HEADERS, flags | WITH_PRIORITY, 1, &with_priority(&[0, 0, 0, 1, 16])),
            Wants::StreamError(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn priorities() -> Vec<Check> {
    vec![
        check(
            "6.3 PRIORITY on no stream",
            frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 16]),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "6.3 a short PRIORITY",
            [post(), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            Wants::StreamError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.3 a long PRIORITY",
            [post(), frame(PRIORITY, 0, 1, &[0; 6])].concat(),
            Wants::StreamError(&[FRAME_SIZE_ERROR]),
        ),
    ]
}

fn resets() -> Vec<Check> {
    let promise = [&[0, 0, 0, 2][..], &frames::block(GET)].concat();
    vec![
        check(
            "6.4 RST_STREAM on no stream",
            frame(RST_STREAM, 0, 0, &CANCEL),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "6.4 a short RST_STREAM",
            [post(), frame(RST_STREAM, 0, 1, &CANCEL[..3])].concat(),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.4 a long RST_STREAM",
            [post(), frame(RST_STREAM, 0, 1, &[0; 5])].concat(),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.4 RST_STREAM for a reason that nobody knows",
            [post(), frame(RST_STREAM, 0, 1, &[0xff; 4]), get_on(3)].concat(),
            Wants::Answer(3, 200),
        ),
        check(
            "6.6 PUSH_PROMISE of a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &promise),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "6.6 PUSH_PROMISE on an open stream",
            [post(), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn continuations() -> Vec<Check> {
    let protocol = || Wants::ConnectionError(&[PROTOCOL_ERROR]);
    let [first, rest] = [frames::block(&GET[..2]), frames::block(&GET[2..])];
    let begun = frame(HEADERS, END_STREAM, 1, &first);
    vec![
        check(
            "6.10 a block in two",
            [begun.clone(), frame(CONTINUATION, END_HEADERS, 1, &rest)].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "6.10 a block in three",
            [begun.clone(), frame(CONTINUATION, 0, 1, &rest[..5]), frame(CONTINUATION, END_HEADERS, 1, &rest[5..])]
                .concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "6.10 an empty part",
            [begun.clone(), frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, &rest)].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "6.10 CONTINUATION on no stream",
            [begun.clone(), frame(CONTINUATION, END_HEADERS, 0, &rest)].concat(),
            protocol(),
        ),
        check(
            "6.10 CONTINUATION on another stream",
            [begun.clone(), frame(CONTINUATION, END_HEADERS, 3, &rest)].concat(),
            protocol(),
        ),
        check(
            "6.10 CONTINUATION after the end of a block",
            [post(), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            protocol(),
        ),
        check(
            "6.10 CONTINUATION after DATA",
            [post(), data(0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            protocol(),
        ),
        check(
            "6.10 CONTINUATION after another's end",
            [begun, frame(CONTINUATION, END_HEADERS, 1, &rest), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            protocol(),
        ),
    ]
}

/// RFC 9113 section 10.5, within the limits that Envoy has by default.
fn floods() -> Vec<Check> {
    let calm = || Wants::ConnectionError(&[ENHANCE_YOUR_CALM]);
    let times = |count: usize, frame: Vec<u8>| frame.repeat(count);
    let resets: Vec<u8> = (0..600)
        .flat_map(|at| [headers(END_HEADERS, 1 + 2 * at, POST), frame(RST_STREAM, 0, 1 + 2 * at, &CANCEL)].concat())
        .collect();
    let endless: Vec<u8> = [
        frame(HEADERS, END_STREAM, 1, &frames::block(GET)),
        times(2000, frame(CONTINUATION, 0, 1, &frames::block(&[("x", "y")]))),
    ]
    .concat();
    vec![
        check(
            "10.5 one empty DATA",
            [post(), data(0, 1, b""), data(END_STREAM, 1, b"x")].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "10.5 empty DATA in a row",
            [post(), times(2, data(0, 1, b"")), data(END_STREAM, 1, b"x")].concat(),
            calm(),
        ),
        check(
            "10.5 empty CONTINUATION in a row",
            [frame(HEADERS, END_STREAM, 1, &frames::block(GET)), times(2, frame(CONTINUATION, 0, 1, b""))].concat(),
            calm(),
        ),
        check(
            "10.5 PRIORITY, a hundred",
            [times(100, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])), get()].concat(),
            Wants::Answer(1, 200),
        ),
        check("10.5 PRIORITY, one more", times(101, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])), calm()),
        check(
            "10.5 WINDOW_UPDATE for nothing sent",
            [post(), times(30, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))].concat(),
            calm(),
        ),
        check("10.5 PING after PING", times(20_000, frame(PING, 0, 0, b"12345678")), calm()),
        check("10.5 SETTINGS after SETTINGS", times(20_000, frame(SETTINGS, 0, 0, b"")), calm()),
        check("10.5 requests taken back at once", resets, calm()),
        check("10.5 a header block without an end", endless, calm()),
    ]
}
