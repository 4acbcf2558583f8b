//! Messages to bytes: heads, and bodies in the framing that their heads announce. Pure.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header, request, response};

use super::{header_case::Names, transport::Transport};
use crate::{config::http_protocol::HeaderCase, http::tunnel::Tunnel};

/// How a body is put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoder {
    /// Nothing may come: the head has said so, or forbids it.
    Empty,
    /// So many bytes are to come.
    Known(u64),
    Chunked,
    /// The connection's end is its end: tunnels, and responses to HTTP/1.0.
    UntilClose,
}

/// The body is not as long as its head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body differs from its content-length")]
pub(super) struct WrongLength;

impl BodyEncoder {
    pub(super) fn data(&mut self, data: Bytes, transport: &mut Transport) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            BodyEncoder::Empty => {}
            BodyEncoder::UntilClose => transport.put(data),
            // A byte more than announced would be taken for the next message.
            BodyEncoder::Known(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                transport.put(data);
            }
            BodyEncoder::Chunked => {
                put_chunk_size(transport.tail(), data.len());
                transport.put(data);
                transport.tail().put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    pub(super) fn end(self, trailers: Option<&HeaderMap>, transport: &mut Transport) -> Result<(), WrongLength> {
        match self {
            BodyEncoder::Empty | BodyEncoder::UntilClose | BodyEncoder::Known(0) => Ok(()),
            BodyEncoder::Known(_) => Err(WrongLength),
            BodyEncoder::Chunked => {
                transport.tail().put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    put_fields(transport.tail(), trailers, HeaderCase::Lower.into());
                }
                transport.tail().put_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

fn put_chunk_size(out: &mut BytesMut, size: usize) {
    write!(out.writer(), "{size:x}\r\n").expect("memory takes it");
}

fn put_fields(out: &mut BytesMut, headers: &HeaderMap, names: Names<'_>) {
    for (name, value) in headers {
        names.put(name, out);
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
}

/// Writes a request's head; tells how its body goes.
pub(super) fn request_head(
    head: &request::Parts,
    tunnel: Option<Tunnel>,
    is_bodiless: bool,
    format: RequestFormat,
    out: &mut BytesMut,
) -> BodyEncoder {
    let RequestFormat { case, absolute_form } = format;
    let names = Names::of(case, &head.extensions);
    out.reserve(HEAD_BYTES_TYPICAL);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    put_target(head, absolute_form, out);
    out.put_slice(b" HTTP/1.1\r\n");
    put_fields(out, &head.headers, names);
    let encoder = match tunnel {
        Some(_) => BodyEncoder::UntilClose,
        None => match content_length(&head.headers) {
            Some(length) => BodyEncoder::Known(length),
            None if !is_bodiless => {
                put_chunked(out, names);
                BodyEncoder::Chunked
            }
            None => {
                // RFC 9110 section 8.6: methods that usually have a body say that there is none.
                if ![Method::GET, Method::HEAD, Method::DELETE, Method::TRACE].contains(&head.method) {
                    put_no_length(out, names);
                }
                BodyEncoder::Empty
            }
        },
    };
    out.put_slice(b"\r\n");
    encoder
}

/// How an upstream wants its requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestFormat {
    pub(super) case: HeaderCase,
    pub(super) absolute_form: Option<&'static str>,
}

fn put_target(head: &request::Parts, absolute_form: Option<&str>, out: &mut BytesMut) {
    let host = || head.headers.get(header::HOST).map_or(&b""[..], |host| host.as_bytes());
    if head.method == Method::CONNECT {
        // RFC 9112 section 3.2.3: the authority form.
        match head.uri.authority() {
            Some(authority) => out.put_slice(authority.as_str().as_bytes()),
            None => out.put_slice(host()),
        }
        return;
    }
    if let Some(scheme) = absolute_form {
        out.put_slice(scheme.as_bytes());
        out.put_slice(b"://");
        out.put_slice(host());
    }
    out.put_slice(head.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
}

/// What of the request decides how its response goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseTo {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) tunnel: Option<Tunnel>,
}

/// Writes a final response's head; tells how its body goes.
pub(super) fn response_head(
    head: &response::Parts,
    to: ResponseTo,
    is_bodiless: bool,
    case: HeaderCase,
    out: &mut BytesMut,
) -> BodyEncoder {
    let names = Names::of(case, &head.extensions);
    out.reserve(HEAD_BYTES_TYPICAL);
    put_status_line(out, head.status, to.version, names.reason());
    put_fields(out, &head.headers, names);
    let encoder = response_encoder(head, to, is_bodiless, names, out);
    out.put_slice(b"\r\n");
    encoder
}

fn response_encoder(
    head: &response::Parts,
    to: ResponseTo,
    is_bodiless: bool,
    names: Names<'_>,
    out: &mut BytesMut,
) -> BodyEncoder {
    if to.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(head.status)) {
        return BodyEncoder::UntilClose;
    }
    let never_has_body = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    if never_has_body || head.status == StatusCode::NOT_MODIFIED {
        return BodyEncoder::Empty;
    }
    let length = content_length(&head.headers);
    match length {
        _ if to.is_head => {
            // RFC 9112 section 6.1 allows to say what a GET would be answered with.
            if length.is_none() && to.version == Version::HTTP_11 {
                put_chunked(out, names);
            }
            BodyEncoder::Empty
        }
        Some(length) => BodyEncoder::Known(length),
        None if is_bodiless => {
            put_no_length(out, names);
            BodyEncoder::Empty
        }
        None if to.version == Version::HTTP_11 => {
            put_chunked(out, names);
            BodyEncoder::Chunked
        }
        // RFC 9112 section 6.1: HTTP/1.0 knows no transfer codings.
        None => BodyEncoder::UntilClose,
    }
}

/// Writes an interim response: a head without a body (RFC 9110 section 15.2).
pub(super) fn interim_head(status: StatusCode, headers: &HeaderMap, case: HeaderCase, out: &mut BytesMut) {
    put_status_line(out, status, Version::HTTP_11, None);
    put_fields(out, headers, case.into());
    out.put_slice(b"\r\n");
}

fn put_status_line(out: &mut BytesMut, status: StatusCode, version: Version, phrase: Option<&Bytes>) {
    out.put_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    match phrase {
        Some(phrase) => out.put_slice(phrase),
        None => out.put_slice(reason(status).as_bytes()),
    }
    out.put_slice(b"\r\n");
}

/// RFC 9112 section 4 gives the phrase no meaning; it is always the registered one, as Envoy has it.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::IM_A_TEAPOT => "Unknown",
        status if status.as_u16() == 599 => "Last Unassigned Server Error Code",
        status => status.canonical_reason().unwrap_or("Unknown"),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn put_chunked(out: &mut BytesMut, names: Names<'_>) {
    put_field(out, &header::TRANSFER_ENCODING, b"chunked", names);
}

fn put_no_length(out: &mut BytesMut, names: Names<'_>) {
    put_field(out, &header::CONTENT_LENGTH, b"0", names);
}

fn put_field(out: &mut BytesMut, name: &HeaderName, value: &[u8], names: Names<'_>) {
    names.put(name, out);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Of a head: what is reserved for it at once.
const HEAD_BYTES_TYPICAL: usize = 1024;
