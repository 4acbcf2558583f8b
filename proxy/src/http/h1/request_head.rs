//! Requests' heads: bytes to `http::request::Parts` and what they say about framing. Pure.
//!
//! As strict as RFC 9112 asks for, and where it leaves a choice, as Envoy chooses.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header, request, uri};

use super::{
    body_length::BodyLength,
    fields::{self, Fields, TransferEncoding},
    header_case,
    violation::Violation,
};
use crate::{
    config::http_protocol::PreserveCase,
    http::tunnel::{self, Tunnel},
};

/// What a listener takes.
#[derive(Clone, Copy, Debug)]
pub struct RequestRules {
    pub head_bytes_max: usize,
    pub fields_max: usize,
    pub accept_http_10: bool,
    /// Where both are given, `transfer-encoding` holds and `content-length` goes.
    pub allow_chunked_length: bool,
    /// Methods beyond those that IANA lists.
    pub allow_custom_methods: bool,
    /// Some: how names are written is remembered.
    pub preserve_case: Option<PreserveCase>,
}

#[derive(Debug)]
pub struct RequestHead {
    pub parts: request::Parts,
    pub length: BodyLength,
    /// The caller means to send more requests.
    pub keep_alive: bool,
    pub tunnel: Option<Tunnel>,
}

/// Takes a head from the front of `input`; None: more of it is to come.
pub fn parse_request(input: &mut BytesMut, rules: &RequestRules) -> Result<Option<RequestHead>, Violation> {
    // RFC 9112 section 2.2: empty lines before a request are overlooked.
    let empty = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    input.advance(empty);
    if input.is_empty() {
        return Ok(None);
    }
    match fields::head_length(input) {
        Some(length) if length <= rules.head_bytes_max => {
            let bytes = fields::take_front(input, length);
            match parse(&bytes, rules) {
                // RFC 9112 section 5.2: a folding becomes a space. So rare that a copy is no matter.
                Err(Fault::Folded) => parse(&fields::unfolded(&bytes), rules),
                parsed => parsed,
            }
            .map(Some)
            .map_err(Fault::violation)
        }
        None if input.len() <= rules.head_bytes_max => match parse(&input.clone().freeze(), rules) {
            Err(Fault::Violation(violation)) => Err(violation),
            Ok(_) | Err(Fault::Incomplete | Fault::Folded) => Ok(None),
        },
        Some(_) | None => Err(Violation::FieldsTooLarge),
    }
}

enum Fault {
    Violation(Violation),
    Incomplete,
    /// A line begins with white space: an obsolete folding.
    Folded,
}

impl Fault {
    fn violation(self) -> Violation {
        match self {
            Fault::Violation(violation) => violation,
            Fault::Incomplete | Fault::Folded => Violation::Grammar,
        }
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Fault {
        Fault::Violation(violation)
    }
}

fn parse(bytes: &Bytes, rules: &RequestRules) -> Result<RequestHead, Fault> {
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    fields::with_room(rules.fields_max, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        match config.parse_request_with_uninit_headers(&mut parsed, bytes, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Fault::Incomplete),
            Err(error) => return Err(diagnose(bytes, error, rules)),
        }
        let (Some(given_method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Fault::Incomplete);
        };
        let line = Line {
            method: method(given_method, rules)?,
            target: bytes.slice_ref(target.as_bytes()),
            version: if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 },
        };
        let mut head = build(line, Fields::collect(bytes, parsed.headers)?, rules)?;
        if let Some(options) = rules.preserve_case {
            header_case::keep(&mut head.parts.extensions, options, bytes, parsed.headers, None);
        }
        Ok(head)
    })
}

struct Line {
    method: Method,
    target: Bytes,
    version: Version,
}

/// Methods are tokens; which of them are known is Envoy's list, made of IANA's.
fn method(text: &str, rules: &RequestRules) -> Result<Method, Violation> {
    if !rules.allow_custom_methods && !METHODS.contains(&text) {
        return Err(Violation::Grammar);
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| Violation::Grammar)
}

const METHODS: [&str; 35] = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What exactly is wrong with bytes that are no head.
fn diagnose(bytes: &[u8], error: httparse::Error, rules: &RequestRules) -> Fault {
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let mut words = first.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let known_method =
        words.next().and_then(|word| std::str::from_utf8(word).ok()).is_some_and(|word| method(word, rules).is_ok());
    let violation = match error {
        httparse::Error::TooManyHeaders => Violation::TooManyFields,
        _ if !known_method => Violation::Grammar,
        _ if bytes.iter().any(fields::is_control) => Violation::Characters,
        httparse::Error::Version | httparse::Error::NewLine | httparse::Error::Token
            if is_other_version(words.nth(1), words.next()) =>
        {
            Violation::Version
        }
        httparse::Error::HeaderName if fields::is_folded(bytes) => return Fault::Folded,
        _ => Violation::Grammar,
    };
    Fault::Violation(violation)
}

/// HTTP of a version that is neither 1.0 nor 1.1, or of none (0.9).
fn is_other_version(version: Option<&[u8]>, further: Option<&[u8]>) -> bool {
    match version.map(|version| version.strip_prefix(b"HTTP/")) {
        None => true,
        Some(Some(b"1.0" | b"1.1")) => false,
        Some(Some([major, b'.', minor])) => further.is_none() && major.is_ascii_digit() && minor.is_ascii_digit(),
        Some(_) => false,
    }
}

fn build(line: Line, fields: Fields, rules: &RequestRules) -> Result<RequestHead, Violation> {
    let Fields { mut headers, content_length, transfer_encoding, close, keep_alive } = fields;
    let Line { method, target, version } = line;
    if version == Version::HTTP_10 && !rules.accept_http_10 {
        return Err(Violation::Version);
    }
    let uri = target_uri(target, &method, &mut headers)?;
    overlook_h2c(&mut headers);
    let mut parts = Request::new(()).into_parts().0;
    parts.method = method;
    parts.version = version;
    parts.uri = uri;
    parts.headers = headers;
    let tunnel = Tunnel::requested_by(&parts);
    let length = request_length(&mut parts, tunnel, content_length, transfer_encoding, rules)?;
    check_host(&parts.headers)?;
    if parts.headers.contains_key(header::CONNECTION) {
        fields::remove_nominated(&mut parts.headers)?;
    }
    // RFC 9112 section 9.3.
    let keep_alive = !close && (version == Version::HTTP_11 || keep_alive);
    Ok(RequestHead { parts, length, keep_alive, tunnel })
}

/// RFC 9112 section 6.3, for requests.
fn request_length(
    parts: &mut request::Parts,
    tunnel: Option<Tunnel>,
    content_length: Option<u64>,
    transfer_encoding: TransferEncoding,
    rules: &RequestRules,
) -> Result<BodyLength, Violation> {
    let is_connect = tunnel == Some(Tunnel::Connect);
    if is_connect && content_length.is_some_and(|length| length > 0) {
        return Err(Violation::BodyOfConnect);
    }
    if transfer_encoding != TransferEncoding::Absent && content_length.is_some() {
        // Section 6.1: this is what request smuggling looks like.
        if !rules.allow_chunked_length || transfer_encoding != TransferEncoding::Chunked {
            return Err(Violation::LengthAndChunks);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    match transfer_encoding {
        TransferEncoding::Unknown => return Err(Violation::TransferEncoding),
        TransferEncoding::Chunked if is_connect => return Err(Violation::TransferEncoding),
        // Section 6.1: HTTP/1.0 has no transfer codings, and who sends one anyway may mean anything.
        TransferEncoding::Chunked if parts.version == Version::HTTP_10 => return Err(Violation::TransferEncoding),
        TransferEncoding::Chunked | TransferEncoding::Absent => {}
    }
    if is_connect {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(match (tunnel, transfer_encoding, content_length) {
        (Some(_), ..) => BodyLength::UntilClose,
        (None, TransferEncoding::Chunked, _) => BodyLength::Chunked,
        (None, _, Some(length)) => BodyLength::Known(length),
        (None, _, None) => BodyLength::Known(0),
    })
}

/// RFC 9112 section 3.2: the four forms. The absolute form's authority replaces Host (section 3.2.2).
fn target_uri(target: Bytes, method: &Method, headers: &mut HeaderMap) -> Result<Uri, Violation> {
    // http::Uri would let them through.
    if !target.is_ascii() {
        return Err(Violation::Grammar);
    }
    if *method == Method::CONNECT {
        return authority_form(target);
    }
    if target.contains(&b'#') {
        return Err(Violation::Fragment);
    }
    match &target[..] {
        [b'/', ..] => Uri::from_maybe_shared(target).map_err(|_| Violation::Grammar),
        b"*" if *method == Method::OPTIONS => Uri::from_maybe_shared(target).map_err(|_| Violation::Grammar),
        b"*" => Err(Violation::Target),
        [first, ..] if first.is_ascii_alphabetic() && target.windows(3).any(|three| three == b"://") => {
            absolute_form(&target, headers)
        }
        _ => Err(Violation::Grammar),
    }
}

fn authority_form(target: Bytes) -> Result<Uri, Violation> {
    let authority = uri::Authority::from_maybe_shared(target).map_err(|_| Violation::Target)?;
    // Section 3.2.3: host and port, nothing else.
    if authority.port_u16().is_none() || authority.as_str().contains('@') {
        return Err(Violation::Target);
    }
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority);
    Uri::from_parts(parts).map_err(|_| Violation::Target)
}

fn absolute_form(target: &Bytes, headers: &mut HeaderMap) -> Result<Uri, Violation> {
    let text = std::str::from_utf8(target).map_err(|_| Violation::Grammar)?;
    let (scheme, rest) = text.split_once("://").ok_or(Violation::Grammar)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Violation::Scheme);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9110 section 4.2.4: user information is not passed on.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map(|(_, port)| port);
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Violation::Target);
    }
    headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|_| Violation::Target)?);
    // RFC 9112 section 3.2.1: an empty path is "/".
    let path = if path.starts_with('/') { path.parse() } else { format!("/{path}").parse() };
    path.map_err(|_| Violation::Target)
}

/// RFC 9110 section 7.2, by what may stand in an authority (RFC 3986 section 3.2).
fn check_host(headers: &HeaderMap) -> Result<(), Violation> {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%@[]".contains(byte);
    match headers.get_all(header::HOST).iter().all(|host| host.as_bytes().iter().all(valid)) {
        true => Ok(()),
        false => Err(Violation::Authority),
    }
}

/// RFC 9113 section 3.1 took `h2c` out of use: an offer of it is as if not made.
fn overlook_h2c(headers: &mut HeaderMap) {
    let is_h2c = |protocol: &HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    if !headers.get(header::UPGRADE).is_some_and(is_h2c) || !tunnel::is_upgrade(headers) {
        return;
    }
    headers.remove(header::UPGRADE);
    headers.remove("http2-settings");
}

#[cfg(test)]
mod tests;
