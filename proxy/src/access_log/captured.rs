//! The headers that access logs will want, kept before the messages that have them move on.

use bytes::Bytes;
use http::{HeaderMap, Response, request};

use crate::{
    config::access_log::{AccessLog, Command},
    http::request_headers::authority,
};

/// Values in the order in which the formats' operators ask for them.
#[derive(Debug, Default)]
pub struct CapturedHeaders {
    request: Vec<Option<Bytes>>,
    response: Vec<Option<Bytes>>,
}

/// Reading them in the same order.
#[derive(Default)]
pub struct CapturedReader<'a> {
    request: &'a [Option<Bytes>],
    response: &'a [Option<Bytes>],
}

impl CapturedHeaders {
    /// The first call counts: later ones see a request that was readied for a retry.
    pub fn capture_request(&mut self, logs: &[AccessLog], head: &request::Parts) {
        if !self.request.is_empty() {
            return;
        }
        for command in commands(logs) {
            if let Command::RequestHeader(name, alternative) = command {
                let first = request_value(head, name);
                let value = first.or_else(|| alternative.as_ref().and_then(|name| request_value(head, name)));
                self.request.push(value);
            }
        }
    }

    pub fn capture_response<B>(&mut self, logs: &[AccessLog], response: &Response<B>) {
        for command in commands(logs) {
            if let Command::ResponseHeader(name, alternative) = command {
                let status = || response.status().as_str().to_owned().into();
                let value = |name: &str| {
                    if name == ":status" { Some(status()) } else { header(response.headers(), name) }
                };
                self.response.push(value(name).or_else(|| alternative.as_ref().and_then(|name| value(name))));
            }
        }
    }

    pub fn read(&self) -> CapturedReader<'_> {
        CapturedReader { request: &self.request, response: &self.response }
    }
}

impl<'a> CapturedReader<'a> {
    pub fn next_request(&mut self) -> Option<&'a [u8]> {
        next(&mut self.request)
    }

    pub fn next_response(&mut self) -> Option<&'a [u8]> {
        next(&mut self.response)
    }
}

fn next<'a>(values: &mut &'a [Option<Bytes>]) -> Option<&'a [u8]> {
    let (first, rest) = values.split_first()?;
    *values = rest;
    first.as_deref()
}

fn commands(logs: &[AccessLog]) -> impl Iterator<Item = &Command> {
    logs.iter().flat_map(|log| log.format.iter()).map(|operator| &operator.command)
}

fn request_value(head: &request::Parts, name: &str) -> Option<Bytes> {
    let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    match name.to_ascii_lowercase().as_str() {
        ":method" => text(head.method.as_str()),
        ":path" => text(head.uri.path_and_query()?.as_str()),
        ":scheme" => text(head.uri.scheme_str().unwrap_or("http")),
        ":authority" | "host" => Some(Bytes::copy_from_slice(authority(head))).filter(|host| !host.is_empty()),
        name => header(&head.headers, name),
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<Bytes> {
    headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()))
}
