//! Requests as HTTP/2 expresses them: RFC 9113 section 8.

use super::*;
use crate::frames::{END_HEADERS, END_STREAM, headers};

pub(super) fn checks() -> Vec<Check> {
    [
        names_and_values(),
        connection_fields(),
        pseudo_header_fields(),
        targets(),
        bodies(),
        trailers(),
        connects(),
        sizes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn malformed() -> Wants {
    Wants::StreamError(&[PROTOCOL_ERROR])
}

fn ok() -> Wants {
    Wants::Answer(1, 200)
}

/// GET with another value of a pseudo-header field.
fn get_but(name: &str, value: &str) -> Vec<u8> {
    let fields: Vec<(&str, &str)> =
        GET.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect();
    headers(END_STREAM | END_HEADERS, 1, &fields)
}

/// GET without a pseudo-header field.
fn get_without(name: &str) -> Vec<u8> {
    let fields: Vec<(&str, &str)> = GET.iter().filter(|field| field.0 != name).copied().collect();
    headers(END_STREAM | END_HEADERS, 1, &fields)
}

fn names_and_values() -> Vec<Check> {
    vec![
        check("8.2 a name with capitals", get_with(&[("X-Test", "x")]), malformed()),
        check("8.2.1 no name", get_with(&[("", "x")]), malformed()),
        check("8.2.1 a name with a space", get_with(&[("a b", "x")]), malformed()),
        check("8.2.1 a name with a colon", get_with(&[("a:b", "x")]), malformed()),
        check("8.2.1 a name beyond ASCII", get_with(&[("a\u{e9}", "x")]), malformed()),
        check("8.2.1 a name with a bracket", get_with(&[("a(b", "x")]), malformed()),
        check("8.2.1 a name of everything that a token may hold", get_with(&[("a!#$%&'*+-.^`|~_", "x")]), ok()),
        check("8.2.1 a value with NUL", get_with(&[("a", "x\0y")]), malformed()),
        check("8.2.1 a value with LF", get_with(&[("a", "x\ny")]), malformed()),
        check("8.2.1 a value with CR", get_with(&[("a", "x\ry")]), malformed()),
        check("8.2.1 a value with a control character", get_with(&[("a", "x\u{1}y")]), malformed()),
        check("8.2.1 a value with DEL", get_with(&[("a", "x\u{7f}y")]), malformed()),
        check("8.2.1 a value beyond ASCII", get_with(&[("a", "x\u{e9}y")]), ok()),
        check("8.2.1 a value with a tab", get_with(&[("a", "x\ty")]), ok()),
        check("8.2.1 an empty value", get_with(&[("a", "")]), ok()),
        check("8.2.3 a cookie in pieces", get_with(&[("cookie", "a=1"), ("cookie", "b=2")]), ok()),
    ]
}

fn connection_fields() -> Vec<Check> {
    vec![
        check("8.2.2 connection", get_with(&[("connection", "close")]), malformed()),
        check("8.2.2 connection: keep-alive", get_with(&[("connection", "keep-alive")]), malformed()),
        check("8.2.2 keep-alive", get_with(&[("keep-alive", "5")]), malformed()),
        check("8.2.2 proxy-connection", get_with(&[("proxy-connection", "x")]), malformed()),
        check("8.2.2 transfer-encoding", get_with(&[("transfer-encoding", "chunked")]), malformed()),
        check("8.2.2 upgrade", get_with(&[("upgrade", "websocket")]), malformed()),
        check("8.2.2 te", get_with(&[("te", "gzip")]), malformed()),
        check("8.2.2 te: trailers and more", get_with(&[("te", "trailers, gzip")]), malformed()),
        check("8.2.2 te: trailers", get_with(&[("te", "trailers")]), ok()),
    ]
}

fn pseudo_header_fields() -> Vec<Check> {
    let late = [&GET[..3], &[("a", "b"), GET[3]]].concat();
    vec![
        check("8.3 an unknown one", get_with(&[(":other", "x")]), malformed()),
        check("8.3 one of responses", get_with(&[(":status", "200")]), malformed()),
        check("8.3 one after a field", headers(END_STREAM | END_HEADERS, 1, &late), malformed()),
        check("8.3 one twice", get_with(&[(":path", "/")]), malformed()),
        check("8.3.1 no method", get_without(":method"), malformed()),
        check("8.3.1 no scheme", get_without(":scheme"), malformed()),
        check("8.3.1 no path", get_without(":path"), malformed()),
        check("8.3.1 neither authority nor host", get_without(":authority"), malformed()),
        check("8.3.1 an empty method", get_but(":method", ""), malformed()),
        check("8.3.1 an empty scheme", get_but(":scheme", ""), malformed()),
        check("8.3.1 an empty path", get_but(":path", ""), malformed()),
        check("8.3.1 an empty authority", get_but(":authority", ""), malformed()),
        check("8.3.1 two methods", get_with(&[(":method", "GET")]), malformed()),
        check("8.3.1 two schemes", get_with(&[(":scheme", "http")]), malformed()),
        check("8.3.1 two authorities", get_with(&[(":authority", "any.test")]), malformed()),
    ]
}

fn targets() -> Vec<Check> {
    let by_host = [&GET[..3], &[("host", "any.test")]].concat();
    let two_hosts = [&GET[..3], &[("host", "any.test"), ("host", "any.test")]].concat();
    vec![
        check("8.3.1 a host and no authority", headers(END_STREAM | END_HEADERS, 1, &by_host), ok()),
        check("8.3.1 two hosts", headers(END_STREAM | END_HEADERS, 1, &two_hosts), malformed()),
        check("8.3.1 an authority and the same host", get_with(&[("host", "any.test")]), ok()),
        check("8.3.1 an authority and another host", get_with(&[("host", "other.test")]), ok()),
        check("8.3.1 an authority with a user", get_but(":authority", "user@any.test"), malformed()),
        check("8.3.1 an authority with a space", get_but(":authority", "any test"), malformed()),
        check("8.3.1 an authority with a slash", get_but(":authority", "any/test"), malformed()),
        check("8.3.1 a path that does not begin with a slash", get_but(":path", "bytes/5"), malformed()),
        check("8.3.1 a path with a scheme", get_but(":path", "http://any.test/"), malformed()),
        check("8.3.1 a path with a space", get_but(":path", "/bytes/5 "), malformed()),
        check("8.3.1 a path with NUL", get_but(":path", "/bytes/5\0"), malformed()),
        check("8.3.1 an asterisk without OPTIONS", get_but(":path", "*"), malformed()),
        check("8.3.1 a path with a fragment", get_but(":path", "/bytes/5#x"), Wants::Answer(1, 400)),
        check("8.3.1 a method that is no token", get_but(":method", "G T"), malformed()),
        check("8.3.1 a method that nobody knows", get_but(":method", "BREW"), ok()),
        check("8.3.1 a scheme that is none", get_but(":scheme", "ht tp"), malformed()),
        check("8.3.1 another scheme", get_but(":scheme", "ftp"), ok()),
    ]
}

fn bodies() -> Vec<Check> {
    let with_length =
        |length: &str, body: &[u8]| [post_with(&[("content-length", length)]), data(END_STREAM, 1, body)].concat();
    vec![
        check("8.1 a body", [post(), data(END_STREAM, 1, b"hello")].concat(), ok()),
        check("8.1 a body of a GET", [headers(END_HEADERS, 1, GET), data(END_STREAM, 1, b"hello")].concat(), ok()),
        check("8.1 HEAD", get_but(":method", "HEAD"), ok()),
        check("8.1.1 a length that is right", with_length("5", b"hello"), ok()),
        check("8.1.1 a length that is too large", with_length("6", b"hello"), malformed()),
        check("8.1.1 a length that is too small", with_length("4", b"hello"), malformed()),
        check(
            "8.1.1 a length of several DATA that is too small",
            [post_with(&[("content-length", "4")]), data(0, 1, b"hel"), data(END_STREAM, 1, b"lo")].concat(),
            malformed(),
        ),
        check("8.1.1 a length and no body", get_with(&[("content-length", "1")]), malformed()),
        check("8.1.1 a length of nothing and no body", get_with(&[("content-length", "0")]), ok()),
        check(
            "8.1.1 equal lengths",
            [post_with(&[("content-length", "2"), ("content-length", "2")]), data(END_STREAM, 1, b"ab")].concat(),
            malformed(),
        ),
        check(
            "8.1.1 unequal lengths",
            [post_with(&[("content-length", "2"), ("content-length", "3")]), data(END_STREAM, 1, b"ab")].concat(),
            malformed(),
        ),
        check("8.1.1 a list of lengths", with_length("2, 2", b"ab"), malformed()),
        check("8.1.1 a length below nothing", with_length("-1", b"ab"), malformed()),
        check("8.1.1 a length with a sign", with_length("+2", b"ab"), malformed()),
        check("8.1.1 a length that is no number", with_length("two", b"ab"), malformed()),
        check("8.1.1 a length that says nothing", with_length("", b"ab"), malformed()),
        check(
            "8.1 an expectation",
            [post_with(&[("expect", "100-continue")]), data(END_STREAM, 1, b"ab")].concat(),
            Wants::Interim(100, 200),
        ),
    ]
}

fn trailers() -> Vec<Check> {
    let after_body = |flags: u8, fields: Fields<'_>| [post(), data(0, 1, b"hello"), headers(flags, 1, fields)].concat();
    let last = END_STREAM | END_HEADERS;
    vec![
        check("8.1 trailers", after_body(last, &[("x-t", "1")]), ok()),
        check("8.1 no trailers but a block", after_body(last, &[]), ok()),
        check("8.1 trailers without a body", [post(), headers(last, 1, &[("x-t", "1")])].concat(), ok()),
        check("8.1 trailers that end nothing", after_body(END_HEADERS, &[("x-t", "1")]), malformed()),
        check(
            "8.1 a second block of trailers",
            [after_body(END_HEADERS, &[("x-t", "1")]), headers(last, 1, &[("x-t", "1")])].concat(),
            malformed(),
        ),
        check("8.1 a pseudo-header field in trailers", after_body(last, &[(":path", "/")]), malformed()),
        check("8.1 a name with capitals in trailers", after_body(last, &[("X-T", "1")]), malformed()),
        check("8.1 connection in trailers", after_body(last, &[("connection", "close")]), malformed()),
        check(
            "8.1.1 trailers before the length is reached",
            [post_with(&[("content-length", "6")]), data(0, 1, b"hello"), headers(last, 1, &[("x-t", "1")])].concat(),
            malformed(),
        ),
    ]
}

fn connects() -> Vec<Check> {
    let connect: Fields<'_> = &[(":method", "CONNECT"), (":authority", "any.test:80")];
    let with = |more: Fields<'_>| headers(END_HEADERS, 1, &[connect, more].concat());
    vec![
        check("8.5 CONNECT without an authority", headers(END_HEADERS, 1, &connect[..1]), malformed()),
        check("8.5 CONNECT with a path", with(&[(":scheme", "http"), (":path", "/")]), malformed()),
        check("RFC 8441 4 extended CONNECT without a path", with(&[(":protocol", "websocket")]), malformed()),
        check("RFC 8441 4 a protocol without CONNECT", get_with(&[(":protocol", "websocket")]), malformed()),
    ]
}

fn sizes() -> Vec<Check> {
    let large = "x".repeat(12_000);
    let names: Vec<String> = (0..97).map(|at| format!("x-{at}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let part = |flags: u8| frames::frame(frames::CONTINUATION, flags, 1, &frames::block(&[("x", &large)]));
    let parts = [
        frames::frame(frames::HEADERS, END_STREAM, 1, &frames::block(GET)),
        part(0),
        part(0),
        part(0),
        part(0),
        part(0),
        part(END_HEADERS),
    ];
    vec![
        check("10.5.1 as many fields as allowed", get_with(&many[..96]), ok()),
        check("10.5.1 one field more", get_with(&many), Wants::StreamError(&[2])),
        check("10.5.1 more bytes than allowed", parts.concat(), Wants::StreamError(&[2])),
        check("10.5.1 fewer bytes than allowed", [&parts[..3], &[part(END_HEADERS)]].concat().concat(), ok()),
    ]
}
