//! Responses that the proxy gives itself, worded as Envoy words them. To gRPC callers they are trailers-only responses.

use std::{borrow::Cow, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::http::{
    body::Body,
    exchange::{Exchange, ResponseBody},
    response_flags::ResponseFlags,
};

#[derive(Clone, Debug)]
pub struct LocalReply {
    pub status: StatusCode,
    pub body: Bytes,
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    /// More than what every reply has. Few have any.
    headers: Option<Box<HeaderMap>>,
    /// None: by the HTTP status.
    pub grpc_status: Option<u32>,
}

impl LocalReply {
    pub fn new(status: StatusCode, flags: ResponseFlags, details: impl Into<Cow<'static, str>>) -> LocalReply {
        LocalReply { status, body: Bytes::new(), flags, details: details.into(), headers: None, grpc_status: None }
    }

    #[must_use]
    pub fn with_body(self, body: impl Into<Bytes>) -> LocalReply {
        LocalReply { body: body.into(), ..self }
    }

    #[must_use]
    pub fn with_grpc_status(self, status: u32) -> LocalReply {
        LocalReply { grpc_status: Some(status), ..self }
    }

    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers.get_or_insert_default()
    }

    pub fn into_response(self, exchange: &Rc<Exchange>) -> Response<ResponseBody> {
        exchange.add_flag(self.flags);
        *exchange.details.borrow_mut() = self.details.clone();
        let response = if exchange.is_grpc { self.grpc() } else { self.plain() };
        response.map(|body| ResponseBody::local(body, exchange.clone()))
    }

    fn plain(&self) -> Response<Body> {
        let mut response = Response::new(Body::Full(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.as_deref().cloned().unwrap_or_default();
        if !self.body.is_empty() {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, self.body.len().into());
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        response
    }

    fn grpc(&self) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        *response.headers_mut() = self.headers.as_deref().cloned().unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status).into());
        headers.entry("grpc-status").or_insert_with(|| status.into());
        if !self.body.is_empty()
            && let Ok(message) = HeaderValue::from_maybe_shared(percent_encoded(&self.body))
        {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// gRPC's "HTTP to gRPC Status Code Mapping".
pub fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// gRPC over HTTP/2, "Responses": everything but printable ASCII, and the percent sign, is encoded.
pub fn percent_encoded(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_callers_get_a_status_and_an_encoded_message() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, ResponseFlags::NO_HEALTHY_UPSTREAM, "x");
        let response = reply.with_body("100% bad\n").grpc();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "100%25 bad%0A");
    }
}
