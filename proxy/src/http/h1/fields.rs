//! The fields of a head or of trailers, and what they say about the message's length and the connection: pure.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::violation::Violation;

/// A head's fields, and what stands in them about framing.
pub(super) struct Fields {
    pub(super) headers: HeaderMap,
    pub(super) content_length: Option<u64>,
    pub(super) transfer_encoding: TransferEncoding,
    /// `connection` (or `proxy-connection`) says `close`.
    pub(super) close: bool,
    /// ... says `keep-alive`.
    pub(super) keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    Absent,
    Chunked,
    /// Another coding, a list, or the field twice: where the message ends is anybody's guess (RFC 9112 section 6.1).
    Unknown,
}

/// Room for so many fields on the stack: more than Envoy's default limit.
const FIELDS_INLINE: usize = 104;

/// Calls `parse` with room for `fields_max` fields.
pub(super) fn with_room<'b, T>(
    fields_max: usize,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T,
) -> T {
    if fields_max <= FIELDS_INLINE {
        parse(&mut [const { MaybeUninit::uninit() }; FIELDS_INLINE][..fields_max])
    } else {
        let mut room = Vec::new();
        room.resize_with(fields_max, MaybeUninit::uninit);
        parse(&mut room)
    }
}

/// The length of the head at the front of `bytes`, its empty line included. A bare LF ends a line, too (RFC 9112 section
/// 2.2).
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The first `length` bytes. Where they are all there is, nothing has to be shared.
pub(super) fn take_front(input: &mut BytesMut, length: usize) -> Bytes {
    let front = if length == input.len() { std::mem::take(input) } else { input.split_to(length) };
    front.freeze()
}

/// Behind the first field there is a line that begins with white space (RFC 9112 section 5.2).
pub(super) fn is_folded(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n').skip(1);
    let first_is_field = lines.next().is_some_and(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"));
    first_is_field && lines.any(|line| matches!(line, [b' ' | b'\t', ..]))
}

/// The same head with a space for each folding.
pub(super) fn unfolded(bytes: &[u8]) -> Bytes {
    let mut flat = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\n' && matches!(bytes.peek(), Some(b' ' | b'\t')) {
            flat.truncate(flat.trim_ascii_end().len());
            while bytes.next_if(|byte| matches!(byte, b' ' | b'\t')).is_some() {}
            flat.push(b' ');
        } else {
            flat.push(byte);
        }
    }
    flat.into()
}

impl Fields {
    /// `parsed` are parts of `bytes`, whose memory the values share.
    pub(super) fn collect(bytes: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<Fields, Violation> {
        let mut fields = Fields {
            // Room for what the proxy adds, so that the table does not grow on the way.
            headers: HeaderMap::with_capacity(parsed.len() + FIELDS_ADDED),
            content_length: None,
            transfer_encoding: TransferEncoding::Absent,
            close: false,
            keep_alive: false,
        };
        for field in parsed {
            let (name, value) = owned(bytes, field)?;
            fields.note(&name, &value)?;
            fields.headers.append(name, value);
        }
        Ok(fields)
    }

    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Violation> {
        if *name == header::CONTENT_LENGTH {
            // RFC 9112 section 6.3: more than one value, even the same, is not worth guessing at.
            if self.content_length.is_some() {
                return Err(Violation::Grammar);
            }
            self.content_length = Some(content_length(value.as_bytes()).ok_or(Violation::Grammar)?);
        } else if *name == header::TRANSFER_ENCODING {
            let known = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            self.transfer_encoding = match self.transfer_encoding {
                TransferEncoding::Absent if known => TransferEncoding::Chunked,
                _ => TransferEncoding::Unknown,
            };
        } else if *name == header::CONNECTION || name.as_str() == "proxy-connection" {
            for token in value.as_bytes().split(|&byte| byte == b',') {
                let token = token.trim_ascii();
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }
}

/// How many fields a request or a response typically gets on its way.
const FIELDS_ADDED: usize = 6;

fn owned(bytes: &Bytes, field: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), Violation> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Violation::Grammar)?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| Violation::Characters)?;
    Ok((name, value))
}

/// Digits and nothing else (RFC 9110 section 8.6).
fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// RFC 9110 section 7.6.1: what `connection` nominates is for this hop only. As in Envoy, a
/// pseudo-header, a forwarding field, ten or more names, or an overlong `te` are refused.
pub(super) fn remove_nominated(headers: &mut HeaderMap) -> Result<(), Violation> {
    let mut nominated: Vec<HeaderName> = Vec::new();
    let mut count = 0;
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if token.is_empty() {
                continue;
            }
            count += 1;
            let is_forwarding = FORWARDING.iter().any(|name| token.eq_ignore_ascii_case(name));
            if token.starts_with(b":") || is_forwarding || count >= NOMINATED_MAX {
                return Err(Violation::ConnectionField);
            }
            let is_option = OPTIONS.iter().any(|option| token.eq_ignore_ascii_case(option));
            if !is_option && let Ok(name) = HeaderName::from_bytes(token) {
                nominated.push(name);
            }
        }
    }
    for name in nominated {
        match name {
            header::TE => keep_trailers(headers)?,
            name => {
                headers.remove(name);
            }
        }
    }
    Ok(())
}

/// Words in `connection` that are no names of fields to be removed.
const OPTIONS: [&[u8]; 5] = [b"close", b"keep-alive", b"upgrade", b"http2-settings", b"connection"];
/// Whoever nominates these wants to hide where it comes from.
const FORWARDING: [&[u8]; 3] = [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];
const NOMINATED_MAX: usize = 10;
const TE_BYTES_MAX: usize = 256;

/// `te: trailers` is true of the next hop as well, all else in `te` is not.
fn keep_trailers(headers: &mut HeaderMap) -> Result<(), Violation> {
    let Some(te) = headers.get(header::TE) else { return Ok(()) };
    if te.len() > TE_BYTES_MAX {
        return Err(Violation::ConnectionField);
    }
    let trailers = te.as_bytes().split(|&byte| byte == b',').any(|coding| coding.trim_ascii() == b"trailers");
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
    Ok(())
}

/// The trailer section in `bytes`, its empty line included, complete; None: more is to come.
pub(super) fn parse_trailers(bytes: &Bytes, fields_max: usize) -> Result<Option<(usize, HeaderMap)>, Violation> {
    let mut found = vec![httparse::EMPTY_HEADER; fields_max];
    let (length, found) = match httparse::parse_headers(bytes, &mut found) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::TooManyFields),
        Err(_) if bytes.iter().any(is_control) => return Err(Violation::Characters),
        Err(_) => return Err(Violation::Grammar),
    };
    let mut trailers = HeaderMap::with_capacity(found.len());
    for field in found {
        let (name, value) = owned(bytes, field)?;
        // RFC 9110 section 6.5.1: framing, routing and connection management have no business there.
        if !is_forbidden_in_trailers(&name) {
            trailers.append(name, value);
        }
    }
    Ok(Some((length, trailers)))
}

fn is_forbidden_in_trailers(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST, header::CONNECTION, header::TRAILER]
        .contains(name)
        || [header::UPGRADE, header::TE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// What no field value may have (RFC 9110 section 5.5), line ends aside.
pub(super) fn is_control(byte: &u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_that_fit() {
        assert_eq!(content_length(b"003"), Some(3));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"1 1", b"0x1", b"18446744073709551616", b"1,1"] {
            assert_eq!(content_length(bad), None, "{bad:?}");
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(field).collect()
    }

    #[test]
    fn nominated_fields_go() {
        let mut given = headers(&[("connection", "close, X-A,, te"), ("x-a", "1"), ("te", "gzip, trailers")]);
        given.append("connection", HeaderValue::from_static("x-b"));
        given.insert("x-b", HeaderValue::from_static("1"));
        remove_nominated(&mut given).expect("allowed");
        assert!(!given.contains_key("x-a") && !given.contains_key("x-b"));
        assert_eq!(given["te"], "trailers");
        assert!(remove_nominated(&mut headers(&[("connection", "X-Forwarded-For")])).is_err());
        assert!(remove_nominated(&mut headers(&[("connection", ":path")])).is_err());
        assert!(remove_nominated(&mut headers(&[("connection", "a,b,c,d,e,f,g,h,i,j")])).is_err());
    }

    #[test]
    fn trailers_keep_what_belongs_there() {
        let bytes = Bytes::from_static(b"X-T: 1\r\ncontent-length: 5\r\n\r\nrest");
        let (length, trailers) = parse_trailers(&bytes, 10).expect("well-formed").expect("complete");
        assert_eq!((&bytes[length..], trailers), (&b"rest"[..], headers(&[("x-t", "1")])));
        assert_eq!(parse_trailers(&Bytes::from_static(b"x-t: 1\r\n"), 10), Ok(None));
        assert_eq!(parse_trailers(&Bytes::from_static(b"x t: 1\r\n\r\n"), 10), Err(Violation::Grammar));
        assert_eq!(parse_trailers(&Bytes::from_static(b"x: a\0\r\n\r\n"), 10), Err(Violation::Characters));
        assert_eq!(parse_trailers(&Bytes::from_static(b"x: 1\r\ny: 1\r\n\r\n"), 1), Err(Violation::TooManyFields));
    }
}
