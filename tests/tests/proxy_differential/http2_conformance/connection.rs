//! The connection as a whole: RFC 9113 sections 3, 4, 6.5, 6.7, 6.8 and 6.9.

use super::*;
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame, settings,
};

pub(super) fn checks() -> Vec<Check> {
    [prefaces(), frames(), settings_frames(), pings(), goaways(), windows()].into_iter().flatten().collect()
}

fn prefaces() -> Vec<Check> {
    let greeting = |more: Vec<u8>| [frames::PREFACE, &more].concat();
    vec![
        ungreeted(
            "3.4 SETTINGS come first",
            frames::PREFACE,
            Wants::Settings(&[(1, 4096), (3, 1024), (4, 16 << 20), (8, 1)]),
        ),
        ungreeted(
            "3.4 another protocol's first bytes",
            *b"GET / HTTP/1.1\r\n\r\n........",
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        ungreeted(
            "3.4 a preface that is nearly right",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"[..], &settings(&[])].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        ungreeted(
            "3.4 a PING ahead of SETTINGS",
            greeting(frame(PING, 0, 0, b"12345678")),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        ungreeted("3.4 a request ahead of SETTINGS", greeting(get()), Wants::ConnectionError(&[PROTOCOL_ERROR])),
        ungreeted(
            "3.4 SETTINGS that only acknowledge",
            greeting(frame(SETTINGS, frames::ACK, 0, b"")),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        ungreeted(
            "3.4 a request with the preface",
            greeting([settings(&[(1, 0)]), get()].concat()),
            Wants::Answer(1, 200),
        ),
        check("3.5 a GET", get(), Wants::Answer(1, 200)),
    ]
}

fn frames() -> Vec<Check> {
    let half = |from: usize, to: usize| block_of(&GET[from..to]);
    vec![
        check("4.1 a frame of an unknown type", [frame(0x42, 0xff, 0, b"any"), get()].concat(), Wants::Answer(1, 200)),
        check(
            "4.1 an unknown type on a stream",
            [post(), frame(0x42, 0, 1, b"x"), data(END_STREAM, 1, b"x")].concat(),
            Wants::Answer(1, 200),
        ),
        check("4.1 unknown flags", [frame(PING, 0x16, 0, b"12345678"), get()].concat(), Wants::Answer(1, 200)),
        check(
            "4.1 the reserved bit of a stream's number",
            frame(HEADERS, END_STREAM | END_HEADERS, 0x8000_0001, &block_of(GET)),
            Wants::Answer(1, 200),
        ),
        check("4.2 the largest DATA", [post(), data(END_STREAM, 1, &[b'x'; 16384])].concat(), Wants::Answer(1, 200)),
        check(
            "4.2 DATA one byte larger",
            [post(), data(END_STREAM, 1, &[b'x'; 16385])].concat(),
            Wants::StreamError(&[FRAME_SIZE_ERROR]),
        ),
        check("4.2 HEADERS too large", frame(HEADERS, 5, 1, &[0; 16385]), Wants::ConnectionError(&[FRAME_SIZE_ERROR])),
        check(
            "4.2 SETTINGS too large",
            frame(SETTINGS, 0, 0, &[0xff; 6 * 2731]),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "4.3 a PING within a header block",
            [
                frame(HEADERS, END_STREAM, 1, &half(0, 2)),
                frame(PING, 0, 0, b"12345678"),
                frame(CONTINUATION, END_HEADERS, 1, &half(2, 4)),
            ]
            .concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "4.3 an unknown frame within a header block",
            [
                frame(HEADERS, END_STREAM, 1, &half(0, 2)),
                frame(0x42, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, &half(2, 4)),
            ]
            .concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "4.3 HEADERS within a header block",
            [frame(HEADERS, END_STREAM, 1, &half(0, 2)), get_on(3)].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
        check(
            "4.3 DATA within a header block",
            [frame(HEADERS, 0, 1, &block_of(POST)), data(END_STREAM, 1, b"x")].concat(),
            Wants::ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn block_of(fields: Fields<'_>) -> Vec<u8> {
    frames::block(fields)
}

fn settings_frames() -> Vec<Check> {
    let protocol = || Wants::ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        check("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), protocol()),
        check(
            "6.5 an acknowledgement that says something",
            frame(SETTINGS, frames::ACK, 0, &[0, 3, 0, 0, 0, 1]),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.5 part of a setting",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0]),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check("6.5.2 pushes neither on nor off", settings(&[(2, 2)]), protocol()),
        check("6.5.2 pushes on", settings(&[(2, 1)]), Wants::Nothing),
        check("6.5.2 pushes off", settings(&[(2, 0)]), Wants::Nothing),
        check(
            "6.5.2 a window beyond the largest",
            settings(&[(4, 0x8000_0000)]),
            Wants::ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        check("6.5.2 the largest window", settings(&[(4, 0x7fff_ffff)]), Wants::Nothing),
        check("6.5.2 frames below the least", settings(&[(5, 16_383)]), protocol()),
        check("6.5.2 frames above the largest", settings(&[(5, 1 << 24)]), protocol()),
        check("6.5.2 the largest frames", settings(&[(5, (1 << 24) - 1)]), Wants::Nothing),
        check("6.5.2 an unknown setting", settings(&[(0xff, 1)]), Wants::Nothing),
        check("6.5.2 a setting twice", settings(&[(4, 1), (4, 65_535)]), Wants::Nothing),
        check(
            "6.5.3 many SETTINGS, each acknowledged",
            [settings(&[(3, 1)]), settings(&[(3, 2)])].concat(),
            Wants::Nothing,
        ),
        check("RFC 8441 3 extended CONNECT neither on nor off", settings(&[(8, 2)]), protocol()),
        check(
            "RFC 8441 3 extended CONNECT taken back",
            [settings(&[(8, 1)]), settings(&[(8, 0)])].concat(),
            protocol(),
        ),
        check("RFC 8441 3 extended CONNECT on", settings(&[(8, 1)]), Wants::Nothing),
    ]
}

fn pings() -> Vec<Check> {
    vec![
        check("6.7 a PING is answered", b"", Wants::Nothing),
        check("6.7 an answer that nobody asked for", frame(PING, frames::ACK, 0, b"12345678"), Wants::Nothing),
        check("6.7 a PING on a stream", frame(PING, 0, 1, b"12345678"), Wants::ConnectionError(&[PROTOCOL_ERROR])),
        check("6.7 a short PING", frame(PING, 0, 0, b"1234567"), Wants::ConnectionError(&[FRAME_SIZE_ERROR])),
        check("6.7 a long PING", frame(PING, 0, 0, b"123456789"), Wants::ConnectionError(&[FRAME_SIZE_ERROR])),
    ]
}

fn goaways() -> Vec<Check> {
    vec![
        check("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Wants::ConnectionError(&[PROTOCOL_ERROR])),
        check("6.8 a short GOAWAY", frame(GOAWAY, 0, 0, &[0; 7]), Wants::ConnectionError(&[FRAME_SIZE_ERROR])),
        check(
            "6.8 what is under way is finished after GOAWAY",
            [post(), frame(GOAWAY, 0, 0, &[0; 8]), data(END_STREAM, 1, b"x")].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "6.8 GOAWAY with a text",
            [frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye"), get()].concat(),
            Wants::Answer(1, 200),
        ),
    ]
}

fn windows() -> Vec<Check> {
    let update = |stream: u32, increment: u32| frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    vec![
        check("6.9 nothing added to the connection's window", update(0, 0), Wants::ConnectionError(&[PROTOCOL_ERROR])),
        check(
            "6.9 nothing added to a stream's window",
            [post(), update(1, 0)].concat(),
            Wants::StreamError(&[PROTOCOL_ERROR]),
        ),
        check(
            "6.9 a short WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.9 a long WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &[1; 5]),
            Wants::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        check(
            "6.9.1 the connection's window grows beyond the largest",
            update(0, 0x7fff_ffff),
            Wants::ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        check(
            "6.9.1 a stream's window grows beyond the largest",
            [post(), update(1, 0x7fff_ffff)].concat(),
            Wants::StreamError(&[FLOW_CONTROL_ERROR]),
        ),
        check("6.9.1 no more than the window", [settings(&[(4, 1)]), get()].concat(), Wants::OneByte),
        check(
            "6.9.2 a window opened by SETTINGS",
            [settings(&[(4, 0)]), get(), settings(&[(4, 100)])].concat(),
            Wants::Answer(1, 200),
        ),
        check(
            "6.9.2 a window opened by WINDOW_UPDATE",
            [settings(&[(4, 1)]), get(), update(1, 1), update(1, 100)].concat(),
            Wants::Answer(1, 200),
        ),
        in_steps(
            "6.9.2 a window below nothing",
            [[settings(&[(4, 3)]), get()].concat(), [settings(&[(4, 0)]), update(1, 3), update(1, 2)].concat()],
            Wants::Answer(1, 200),
        ),
        check(
            "6.9.2 SETTINGS make a stream's window too large",
            [post(), update(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])].concat(),
            Wants::ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        in_steps(
            "6.9 WINDOW_UPDATE on a stream that has ended",
            [get(), [update(1, 1), get_on(3)].concat()],
            Wants::Answer(3, 200),
        ),
        check("6.9 WINDOW_UPDATE on an idle stream", update(1, 1), Wants::ConnectionError(&[PROTOCOL_ERROR])),
    ]
}
