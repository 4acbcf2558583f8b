//! Responses' heads: bytes to `http::response::Parts` and what they say about framing. Pure.

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, Version, header, response};

use super::{
    body_length::BodyLength,
    fields::{self, Fields, TransferEncoding},
    header_case,
    violation::Violation,
};
use crate::{config::http_protocol::PreserveCase, http::tunnel::Tunnel};

/// What is taken from an upstream.
#[derive(Clone, Copy, Debug)]
pub struct ResponseRules {
    pub head_bytes_max: usize,
    pub fields_max: usize,
    pub allow_chunked_length: bool,
    /// Some: how names are written is remembered.
    pub preserve_case: Option<PreserveCase>,
}

/// What of the request decides how its response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub is_head: bool,
    pub tunnel: Option<Tunnel>,
}

impl Asked {
    pub fn new(method: &Method, tunnel: Option<Tunnel>) -> Asked {
        Asked { is_head: *method == Method::HEAD, tunnel }
    }
}

#[derive(Debug)]
pub struct ResponseHead {
    pub parts: response::Parts,
    pub length: BodyLength,
    /// The connection may carry another request.
    pub keep_alive: bool,
}

/// Takes a head from the front of `input`; None: more of it is to come.
pub fn parse_response(
    input: &mut BytesMut,
    rules: &ResponseRules,
    asked: Asked,
) -> Result<Option<ResponseHead>, Violation> {
    match fields::head_length(input) {
        Some(length) if length <= rules.head_bytes_max => {
            let bytes = fields::take_front(input, length);
            // RFC 9112 section 5.2: a proxy turns a folding into a space.
            let bytes = if fields::is_folded(&bytes) { fields::unfolded(&bytes) } else { bytes };
            parse(&bytes, rules, asked)?.ok_or(Violation::Grammar).map(Some)
        }
        // What cannot become a head any more is told before its end.
        None if input.len() <= rules.head_bytes_max => parse(&input.clone().freeze(), rules, asked).map(|_| None),
        Some(_) | None => Err(Violation::FieldsTooLarge),
    }
}

fn parse(bytes: &Bytes, rules: &ResponseRules, asked: Asked) -> Result<Option<ResponseHead>, Violation> {
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true); // as long as it is incomplete; then there are none
    fields::with_room(rules.fields_max, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        match config.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Violation::TooManyFields),
            Err(_) if bytes.iter().any(fields::is_control) => return Err(Violation::Characters),
            Err(_) => return Err(Violation::Grammar),
        }
        let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Ok(None) };
        let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut head = build(code, version, Fields::collect(bytes, parsed.headers)?, rules, asked)?;
        if let Some(options) = rules.preserve_case {
            header_case::keep(&mut head.parts.extensions, options, bytes, parsed.headers, parsed.reason);
        }
        Ok(Some(head))
    })
}

fn build(
    code: u16,
    version: Version,
    fields: Fields,
    rules: &ResponseRules,
    asked: Asked,
) -> Result<ResponseHead, Violation> {
    let Fields { headers, content_length, transfer_encoding, close, keep_alive } = fields;
    let mut parts = Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(code).map_err(|_| Violation::Grammar)?;
    parts.version = version;
    parts.headers = headers;
    let length = response_length(&mut parts, asked, content_length, transfer_encoding, rules)?;
    // RFC 9112 section 9.3.
    let keep_alive = !close && (version == Version::HTTP_11 || keep_alive) && length != BodyLength::UntilClose;
    Ok(ResponseHead { parts, length, keep_alive })
}

/// RFC 9112 section 6.3, for responses.
fn response_length(
    parts: &mut response::Parts,
    asked: Asked,
    content_length: Option<u64>,
    transfer_encoding: TransferEncoding,
    rules: &ResponseRules,
) -> Result<BodyLength, Violation> {
    let status = parts.status;
    let opens_tunnel = asked.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(status));
    // RFC 9110 section 15.2.2: nobody switches protocols unasked.
    if status == StatusCode::SWITCHING_PROTOCOLS && !opens_tunnel {
        return Err(Violation::Grammar);
    }
    let is_bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    // RFC 9110 section 8.6: a length says that there is a body, and in these there is none.
    if is_bodiless && content_length.is_some_and(|length| length > 0) {
        return Err(Violation::LengthOfBodiless);
    }
    if is_bodiless || opens_tunnel {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if transfer_encoding != TransferEncoding::Absent {
        // Section 6.3: what CONNECT is answered with has neither, whatever it says.
        if opens_tunnel && asked.tunnel == Some(Tunnel::Connect) {
            parts.headers.remove(header::TRANSFER_ENCODING);
            return Ok(BodyLength::UntilClose);
        }
        // Section 6.1: not in these; and with a length it is what response splitting looks like.
        if is_bodiless || opens_tunnel {
            return Err(Violation::TransferEncoding);
        }
        if content_length.is_some() {
            if !rules.allow_chunked_length || transfer_encoding != TransferEncoding::Chunked {
                return Err(Violation::LengthAndChunks);
            }
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        if transfer_encoding == TransferEncoding::Unknown {
            return Err(Violation::TransferEncoding);
        }
    }
    Ok(match (transfer_encoding, content_length) {
        _ if opens_tunnel => BodyLength::UntilClose,
        _ if asked.is_head || is_bodiless || status == StatusCode::NOT_MODIFIED => BodyLength::Known(0),
        (TransferEncoding::Chunked, _) => BodyLength::Chunked,
        (_, Some(length)) => BodyLength::Known(length),
        (_, None) => BodyLength::UntilClose,
    })
}

#[cfg(test)]
mod tests;
