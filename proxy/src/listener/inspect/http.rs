//! Is it HTTP, and which: told from the first line, or from HTTP/2's preface.

use crate::listener::inspect::Verdict;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A first line longer than this is taken for no HTTP; as long as Envoy's limit.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

impl HttpVersion {
    /// What filter chains match as an application protocol.
    pub fn application_protocol(self) -> &'static str {
        match self {
            HttpVersion::Http10 => "http/1.0",
            HttpVersion::Http11 => "http/1.1",
            HttpVersion::Http2 => "h2c",
        }
    }
}

/// `Done(None)`: not HTTP.
pub fn inspect(seen: &[u8]) -> Verdict<Option<HttpVersion>> {
    match is_http2_preface(seen) {
        Some(true) => return Verdict::Done(Some(HttpVersion::Http2)),
        None => return Verdict::NeedMore,
        Some(false) => {}
    }
    let line_end = seen.iter().position(|&byte| byte == b'\n');
    let Some(line) = line_end.map(|end| &seen[..end]) else {
        let is_method = |method: &[u8]| {
            // RFC 9110 section 9.1: any token may be a method; those that are registered are of capitals and dashes.
            method.len() <= METHOD_BYTES_MAX && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-')
        };
        let may_be_http = seen.len() < LINE_BYTES_MAX && seen.split(is_blank).next().is_some_and(is_method);
        return if may_be_http { Verdict::NeedMore } else { Verdict::Done(None) };
    };
    Verdict::Done(read_request_line(line.strip_suffix(b"\r").unwrap_or(line)))
}

/// RFC 9112 section 3. Without a version it is HTTP/0.9, which counts as 1.0, as does every version but 1.1.
fn read_request_line(line: &[u8]) -> Option<HttpVersion> {
    if line.first().is_none_or(is_blank) {
        return None;
    }
    let mut parts = line.split(is_blank).filter(|part| !part.is_empty());
    let (method, target) = (parts.next()?, parts.next()?);
    let version = parts.next();
    if parts.next().is_some() || !method.iter().all(is_token) || !is_target(method, target) {
        return None;
    }
    match version {
        Some(b"HTTP/1.1") => Some(HttpVersion::Http11),
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if [major, minor].iter().all(|it| it.is_ascii_digit()) =>
        {
            Some(HttpVersion::Http10)
        }
        None => Some(HttpVersion::Http10),
        Some(_) => None,
    }
}

/// RFC 9112 section 3.2: a path, a whole URI, an asterisk, or for CONNECT an authority.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let has_scheme = || {
        let scheme = target.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        scheme > 0 && target[scheme..].starts_with(b"://")
    };
    method == b"CONNECT" || target.starts_with(b"/") || target == b"*" || has_scheme()
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The longest registered method, UPDATEREDIRECTREF.
const METHOD_BYTES_MAX: usize = 17;

/// Whether a connection starts with HTTP/2's preface (RFC 9113 section 3.4); None: too few bytes to tell.
pub fn is_http2_preface(seen: &[u8]) -> Option<bool> {
    let compared = seen.len().min(HTTP2_PREFACE.len());
    if seen[..compared] != HTTP2_PREFACE[..compared] {
        return Some(false);
    }
    // "PRI" begins no HTTP/1 method in use, but only the whole line tells for sure.
    (compared >= HTTP2_PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn http_is_told_from_its_first_line() {
        use HttpVersion::{Http2, Http10, Http11};
        assert_eq!(inspect(b"GET / HTTP/1.1\r\nho"), Verdict::Done(Some(Http11)));
        assert_eq!(inspect(b"GET / HTTP/1.0\n"), Verdict::Done(Some(Http10)));
        assert_eq!(inspect(b"GET / HTT"), Verdict::NeedMore);
        assert_eq!(inspect(b""), Verdict::NeedMore);
        assert_eq!(inspect(HTTP2_PREFACE), Verdict::Done(Some(Http2)));
        assert_eq!(inspect(b"PRI * HT"), Verdict::NeedMore);
        assert_eq!(inspect(b"\x00\x01"), Verdict::Done(None));
        assert_eq!(inspect(b"GET / SPDY/3\r\n"), Verdict::Done(None));
        assert_eq!(inspect(b" / HTTP/1.1\r\n"), Verdict::Done(None));
        assert_eq!(inspect(b"AVERYLONGMETHODTHATISNONE"), Verdict::Done(None));
        let endless = [b"GET /".as_slice(), &[b'x'; LINE_BYTES_MAX]].concat();
        assert_eq!(inspect(&endless), Verdict::Done(None), "no line is that long");
    }

    /// What Envoy says of the same lines.
    #[test]
    fn the_version_is_read_from_the_whole_line() {
        use HttpVersion::{Http10, Http11};
        for (line, expected) in [
            (&b"get / HTTP/1.1\r\n"[..], Some(Http11)),
            (b"1OO / HTTP/1.1\r\n", Some(Http11)),
            (b"GET  / HTTP/1.1 \r\n", Some(Http11)),
            (b"GET\t/\tHTTP/1.1\r\n", Some(Http11)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Http11)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Http11)),
            (b"GET http://a/ HTTP/1.1\r\n", Some(Http11)),
            (b"GET / HTTP/1.2\r\n", Some(Http10)),
            (b"GET / HTTP/0.9\r\n", Some(Http10)),
            (b"HELO /x\r\n", Some(Http10)),
            (b"EHLO a.b\r\n", None),
            (b"USER anonymous\r\n", None),
            (b"SSH-2.0-x\r\n", None),
            (b"GET\r\n", None),
            (b"GET / a HTTP/1.1\r\n", None),
            (b"G@T / HTTP/1.1\r\n", None),
            (b"{\"a\":1}\r\n", None),
            (b"*1\r\n$4\r\nPING\r\n", None),
            (b"\r\nGET / HTTP/1.1\r\n", None),
        ] {
            assert_eq!(inspect(line), Verdict::Done(expected), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn a_verdict_of_a_whole_line_stands_whatever_follows(
            line in "(GET|PUT|[A-Z]{0,20}|[a-zA-Z ]{0,5}) [ -~]{0,20}( HTTP/1\\.[01])?\r?\n",
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let verdict = inspect(line.as_bytes());
            prop_assert!(verdict != Verdict::NeedMore, "a whole line is enough");
            prop_assert_eq!(verdict, inspect(&[line.as_bytes(), &tail].concat()));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            inspect(&bytes);
        }
    }
}
