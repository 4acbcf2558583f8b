//! Responses that the proxy gives itself, worded as Envoy words them. To gRPC callers they are trailers-only responses.

use std::{borrow::Cow, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};

use crate::{
    access_log,
    config::{
        http_connection_manager::LocalReplyConfig,
        substitution::{SubstitutionFormat, Template},
    },
    http::{
        body::Body,
        exchange::{Exchange, ResponseBody},
        header_mutation,
        response_flags::ResponseFlags,
    },
    substitution::{self, Context},
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

    /// In the place of the body that it has, which the format may name.
    pub fn write_body(&mut self, format: &SubstitutionFormat, exchange: &Exchange, request: &request::Parts) {
        let mut body = Vec::new();
        exchange.with_messages(|facts| {
            let facts = Context { request: Some(request), local_reply_body: &self.body, ..facts };
            let access_logs = &exchange.connection.downstream.worker.access_logs;
            access_logs.with_clock(|clock| substitution::write(format, &facts, clock, &mut body));
        });
        self.body = body.into();
        self.headers_mut().insert(header::CONTENT_TYPE, content_type(format));
    }

    pub fn into_response(mut self, exchange: &Rc<Exchange>) -> Response<ResponseBody> {
        exchange.add_flag(self.flags);
        exchange.answered_locally(self.status);
        *exchange.details.borrow_mut() = self.details.clone();
        let config = &exchange.connection.active.config.local_reply;
        let content_type = if config.is_plain() { None } else { self.reword(config, exchange) };
        let response = if exchange.is_grpc { self.grpc() } else { self.plain(content_type) };
        response.map(|body| ResponseBody::local(body, exchange.clone()))
    }

    /// As `local_reply_config` wants it. Some: the body was written by a format, of this type.
    fn reword(&mut self, config: &LocalReplyConfig, exchange: &Rc<Exchange>) -> Option<HeaderValue> {
        exchange.status.set(Some(self.status));
        let mut format = config.body_format.as_ref();
        let mapper = exchange.with_messages(|facts| {
            let own = self.headers.as_deref().cloned().unwrap_or_default();
            let facts = Context { response: Some((self.status, &own)), ..facts };
            config.mappers.iter().find(|mapper| access_log::holds(&mapper.condition, &facts))
        });
        if let Some(mapper) = mapper {
            let mut head = Response::new(());
            *head.status_mut() = self.status;
            *head.headers_mut() = self.headers.take().map(|headers| *headers).unwrap_or_default();
            header_mutation::append_to_response(&mapper.headers, exchange, &mut head);
            self.headers = Some(Box::new(std::mem::take(head.headers_mut())));
            self.status = mapper.status.unwrap_or(self.status);
            if let Some(body) = &mapper.body {
                self.body = body.clone();
            }
            format = mapper.body_format.as_ref().or(format);
        }
        exchange.status.set(Some(self.status));
        let format = format?;
        let mut body = Vec::new();
        exchange.with_messages(|facts| {
            let headers = self.headers.as_deref().cloned().unwrap_or_default();
            let facts = Context { response: Some((self.status, &headers)), local_reply_body: &self.body, ..facts };
            let access_logs = &exchange.connection.downstream.worker.access_logs;
            access_logs.with_clock(|clock| substitution::write(format, &facts, clock, &mut body));
        });
        self.body = body.into();
        Some(content_type(format))
    }

    fn plain(&self, content_type: Option<HeaderValue>) -> Response<Body> {
        let mut response = Response::new(Body::Full(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.as_deref().cloned().unwrap_or_default();
        let headers = response.headers_mut();
        // RFC 9110 sections 15.3.5 and 15.4.5: these have none.
        let has_no_body = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&self.status);
        if self.body.is_empty() || has_no_body {
            headers.remove(header::CONTENT_TYPE);
            return response.map(|_| Body::Empty);
        }
        headers.insert(header::CONTENT_LENGTH, self.body.len().into());
        match content_type {
            Some(content_type) => {
                headers.insert(header::CONTENT_TYPE, content_type);
            }
            None => {
                headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
            }
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

fn content_type(format: &SubstitutionFormat) -> HeaderValue {
    let by_template = match format.template {
        Template::Text(_) => HeaderValue::from_static("text/plain"),
        Template::Json(_) => HeaderValue::from_static("application/json"),
    };
    format.content_type.clone().unwrap_or(by_template)
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
