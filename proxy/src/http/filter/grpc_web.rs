//! `envoy.filters.http.grpc_web`: gRPC-Web, as browsers speak it, to gRPC and back (grpc/grpc: doc/PROTOCOL-WEB.md). The text form
//! is base64; trailers come as a last frame of the body.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame};

use super::{FilteredBody, Passing};
use crate::http::{
    body::{Body, BodyError, next_frame},
    exchange::{Exchange, ResponseBody},
    local_reply::{LocalReply, grpc_status, percent_encoded},
    response_flags::ResponseFlags,
};

/// Of a gRPC-Web request.
pub(super) struct Pass {
    text_response: bool,
}

const GRPC_WEB: &[u8] = b"application/grpc-web";
const GRPC_WEB_PROTO: &[u8] = b"application/grpc-web+proto";
const GRPC_WEB_TEXT: &[u8] = b"application/grpc-web-text";
const GRPC_WEB_TEXT_PROTO: &[u8] = b"application/grpc-web-text+proto";
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;
/// Of a response that is no gRPC, what becomes the message.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// None: not gRPC-Web.
pub(super) fn request(passing: &mut Passing<'_>) -> Option<Pass> {
    let headers = &mut passing.head.headers;
    let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let is_text = [GRPC_WEB_TEXT, GRPC_WEB_TEXT_PROTO].contains(&content_type);
    if !is_text && ![GRPC_WEB, GRPC_WEB_PROTO].contains(&content_type) {
        return None;
    }
    let text_response = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| [GRPC_WEB_TEXT, GRPC_WEB_TEXT_PROTO].contains(&accept.as_bytes()));
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.entry(GRPC_ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity,deflate,gzip"));
    if is_text && !passing.body.is_end_stream() {
        let inner = std::mem::take(&mut passing.body);
        let decoding = Decoding { inner, rest: BytesMut::new(), exchange: passing.exchange.clone() };
        passing.body = Body::Filtered(Box::new(FilteredBody::GrpcWebDecoding(decoding)));
    }
    Some(Pass { text_response })
}

pub(super) async fn response(pass: Pass, exchange: &Exchange, response: &mut Response<ResponseBody>) {
    let is_grpc =
        response.status() == StatusCode::OK && is_grpc_response(response.headers(), response.body().is_end_stream());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    let content_type = if pass.text_response { GRPC_WEB_TEXT_PROTO } else { GRPC_WEB_PROTO };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(as_str(content_type)));
    if response.body().is_end_stream() {
        return;
    }
    if !is_grpc {
        into_message(response).await;
        exchange.bytes_sent.set(0); // what was read of it has not been sent
        return;
    }
    response.body_mut().change(|inner| {
        let encoding = Encoding { inner, as_text: pass.text_response, partial: BytesMut::new(), ended: false };
        Body::Filtered(Box::new(FilteredBody::GrpcWebEncoding(encoding)))
    });
}

fn as_str(content_type: &'static [u8]) -> &'static str {
    std::str::from_utf8(content_type).expect("ASCII")
}

/// What is gRPC, or gRPC-Web already, passes as it is.
fn is_grpc_response(headers: &HeaderMap, is_over: bool) -> bool {
    if is_over {
        return headers.contains_key(GRPC_STATUS);
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes) else { return false };
    let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    media_type.eq_ignore_ascii_case(GRPC_WEB)
        || media_type.eq_ignore_ascii_case(GRPC_WEB_PROTO)
        || content_type
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A response that is no gRPC becomes a status and a message.
async fn into_message(response: &mut Response<ResponseBody>) {
    let mut message = BytesMut::new();
    while let Some(Ok(frame)) = next_frame(response.body_mut()).await {
        if let Ok(data) = frame.into_data() {
            let room = MESSAGE_BYTES_MAX.saturating_sub(message.len());
            message.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    let status = grpc_status(response.status());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, status.into());
    if let Ok(message) = HeaderValue::from_maybe_shared(percent_encoded(&message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers.insert(header::CONTENT_LENGTH, 0.into());
    response.body_mut().change(|_| Body::Empty);
}

/// A request's body, from base64.
pub struct Decoding {
    inner: Body,
    /// Fewer than four characters.
    rest: BytesMut,
    exchange: Rc<Exchange>,
}

impl Decoding {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                None if !self.rest.is_empty() => {
                    return Poll::Ready(Some(Err(self.refuse("grpc_base_64_decode_failed_bad_size"))));
                }
                ended => return Poll::Ready(ended),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            self.rest.extend_from_slice(&data);
            let whole = self.rest.len() / 4 * 4;
            if whole == 0 {
                continue;
            }
            return Poll::Ready(Some(match decode(&self.rest.split_to(whole)) {
                Some(decoded) => Ok(Frame::data(decoded)),
                None => Err(self.refuse("grpc_base_64_decode_failed")),
            }));
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn refuse(&self, details: &'static str) -> BodyError {
        let reply = LocalReply::new(StatusCode::BAD_REQUEST, ResponseFlags::default(), details);
        self.exchange.refuse(reply.with_body("Bad gRPC-web request, invalid base64 data."));
        BodyError::Source
    }
}

/// Padding may stand between messages, each of which was encoded by itself.
fn decode(text: &[u8]) -> Option<Bytes> {
    let mut decoded = BytesMut::with_capacity(text.len() / 4 * 3);
    for part in text.chunks(4) {
        decoded.extend_from_slice(&STANDARD.decode(part).ok()?);
    }
    Some(decoded.freeze())
}

/// A response's body: trailers become a frame of it, and all of it text where that was asked for.
pub struct Encoding {
    inner: Body,
    as_text: bool,
    /// A message that has not come whole; text encodes whole messages.
    partial: BytesMut,
    ended: bool,
}

impl Encoding {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => {
                    self.ended = true;
                    return Poll::Ready(ended);
                }
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    self.ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let encoded = self.finished(trailers_frame(&trailers));
                    return Poll::Ready(Some(Ok(Frame::data(encoded))));
                }
            };
            if !self.as_text {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.partial.extend_from_slice(&data);
            let messages = self.whole_messages();
            if !messages.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(messages))));
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn finished(&self, frame: Bytes) -> Bytes {
        if self.as_text { STANDARD.encode(&frame).into() } else { frame }
    }

    /// Each encoded by itself.
    fn whole_messages(&mut self) -> Bytes {
        let mut encoded = String::new();
        while let Some(mut length) = self.partial.get(1..5) {
            let whole = 5 + length.get_u32() as usize;
            if self.partial.len() < whole {
                break;
            }
            STANDARD.encode_string(self.partial.split_to(whole), &mut encoded);
        }
        encoded.into()
    }
}

fn trailers_frame(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b":");
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(lines.len() as u32);
    frame.put(lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut encoding: Encoding) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| encoding.poll_frame(cx)).await {
            frames.push(frame.expect("no error").into_data().expect("data alone"));
        }
        frames
    }

    fn grpc(parts: &[&'static [u8]]) -> Body {
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
        let chunks = parts.iter().map(|part| Bytes::from_static(part)).collect();
        let buffered = super::super::body::Buffered { chunks, trailers: Some(trailers) };
        Body::Filtered(Box::new(FilteredBody::Buffered(buffered)))
    }

    #[tokio::test]
    async fn trailers_become_a_frame() {
        let inner = grpc(&[b"\0\0\0\0\x02hi"]);
        let frames = read(Encoding { inner, as_text: false, partial: BytesMut::new(), ended: false }).await;
        assert_eq!(frames, [&b"\0\0\0\0\x02hi"[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n"]);
    }

    #[tokio::test]
    async fn text_encodes_whole_messages() {
        let inner = grpc(&[b"\0\0\0", b"\0\x02h", b"i\0\0\0\0\0"]);
        let frames = read(Encoding { inner, as_text: true, partial: BytesMut::new(), ended: false }).await;
        let first = [STANDARD.encode(b"\0\0\0\0\x02hi"), STANDARD.encode(b"\0\0\0\0\0")].concat();
        assert_eq!(frames[0], first);
        assert_eq!(frames[1], STANDARD.encode(b"\x80\0\0\0\x0fgrpc-status:0\r\n"));
    }

    #[test]
    fn base64_with_padding_inside() {
        assert_eq!(decode(b"aGk=aGk=").as_deref(), Some(&b"hihi"[..]));
        assert_eq!(decode(b"a=bc"), None);
    }
}
