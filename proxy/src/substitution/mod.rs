//! Writing by a substitution format: what is known of a request or connection, put where the format's commands stand.

mod facts;
pub mod grpc_status;
mod time;
mod tls;

use std::{io::Write, time::SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, request};

pub use self::time::Clock;
use crate::{
    config::{
        access_log::LogType,
        metadata::{Metadata, Value, fields_to_json},
        substitution::{Command, HeaderKey, JsonTemplate, Operator, PathSource, SubstitutionFormat, Template},
    },
    http::{exchange::Exchange, request_headers::authority},
    listener::connection::Downstream,
    tcp_proxy::TcpSession,
};

/// What there is to write about, as far as it is known yet.
pub struct Context<'a> {
    pub subject: Subject<'a>,
    pub request: Option<&'a request::Parts>,
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    pub trailers: Option<&'a HeaderMap>,
    pub local_reply_body: &'a [u8],
}

impl<'a> Context<'a> {
    /// Without messages.
    pub fn of_connection(subject: Subject<'a>) -> Context<'a> {
        Context { subject, request: None, response: None, trailers: None, local_reply_body: b"" }
    }
}

#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Http(&'a Exchange),
    Tcp(&'a TcpSession),
    /// A connection of which nothing more is known: one that no filter chain took, for instance.
    Connection(&'a Downstream),
}

impl<'a> Subject<'a> {
    pub fn downstream(self) -> &'a Downstream {
        match self {
            Subject::Http(exchange) => &exchange.connection.downstream,
            Subject::Tcp(session) => &session.downstream,
            Subject::Connection(downstream) => downstream,
        }
    }

    pub fn log_type(self) -> LogType {
        match self {
            Subject::Http(exchange) => exchange.log_type.get(),
            Subject::Tcp(session) => session.log_type.get(),
            Subject::Connection(_) => LogType::NotSet,
        }
    }

    /// None: there is no request.
    pub fn exchange(self) -> Option<&'a Exchange> {
        match self {
            Subject::Http(exchange) => Some(exchange),
            Subject::Tcp(_) | Subject::Connection(_) => None,
        }
    }

    fn started_at(self) -> SystemTime {
        match self {
            Subject::Http(exchange) => exchange.started_at(),
            Subject::Tcp(session) => session.started_at,
            Subject::Connection(downstream) => downstream.started_at,
        }
    }
}

/// A whole message. JSON ends with a newline.
pub fn write(format: &SubstitutionFormat, context: &Context<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    match &format.template {
        Template::Text(operators) => {
            let missing: &[u8] = if format.omit_empty_values { b"" } else { b"-" };
            write_text(operators, context, missing, clock, out);
        }
        Template::Json(template) => {
            write_json(template, context, format.omit_empty_values, clock, out);
            out.push(b'\n');
        }
    }
}

/// `missing` stands for what is not there.
pub fn write_text(operators: &[Operator], context: &Context<'_>, missing: &[u8], clock: &mut Clock, out: &mut Vec<u8>) {
    for Operator { command, max_length } in operators {
        let begin = out.len();
        if !write_value(command, context, clock, out) {
            out.truncate(begin);
            out.extend_from_slice(missing);
            continue;
        }
        if let Some(max) = max_length {
            out.truncate(out.len().min(begin + max));
        }
    }
}

/// False: there is no such value, and JSON that omits those has nothing here.
fn write_json(
    template: &JsonTemplate,
    context: &Context<'_>,
    omit_empty_values: bool,
    clock: &mut Clock,
    out: &mut Vec<u8>,
) -> bool {
    match template {
        JsonTemplate::Constant(text) => bytes(out, Some(text.as_bytes())),
        JsonTemplate::Text(operators) => write_json_text(operators, context, omit_empty_values, clock, out),
        JsonTemplate::Array(items) => {
            out.push(b'[');
            let mut is_first = true;
            for item in items {
                let begin = out.len();
                if !is_first {
                    out.push(b',');
                }
                if write_json(item, context, omit_empty_values, clock, out) || !omit_empty_values {
                    is_first = false;
                } else {
                    out.truncate(begin);
                }
            }
            out.push(b']');
            true
        }
        JsonTemplate::Object(fields) => {
            out.push(b'{');
            let mut is_first = true;
            for (key, value) in fields {
                let begin = out.len();
                if !is_first {
                    out.push(b',');
                }
                json_string(out, key);
                out.push(b':');
                if write_json(value, context, omit_empty_values, clock, out) || !omit_empty_values {
                    is_first = false;
                } else {
                    out.truncate(begin);
                }
            }
            out.push(b'}');
            true
        }
    }
}

/// A command that stands alone keeps its type; among other text it is text.
fn write_json_text(
    operators: &[Operator],
    context: &Context<'_>,
    omit_empty_values: bool,
    clock: &mut Clock,
    out: &mut Vec<u8>,
) -> bool {
    let mut text = Vec::new();
    if let [Operator { command, max_length }] = operators
        && !matches!(command, Command::Literal(_))
    {
        if !write_value(command, context, clock, &mut text) {
            out.extend_from_slice(b"null");
            return false;
        }
        text.truncate(max_length.unwrap_or(usize::MAX));
        if command.is_number() {
            out.extend_from_slice(&text);
        } else {
            json_string(out, &String::from_utf8_lossy(&text));
        }
        return true;
    }
    write_text(operators, context, if omit_empty_values { b"" } else { b"-" }, clock, &mut text);
    json_string(out, &String::from_utf8_lossy(&text));
    true
}

fn json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes all that is written");
}

/// False: there is no such value.
fn write_value(command: &Command, context: &Context<'_>, clock: &mut Clock, out: &mut Vec<u8>) -> bool {
    match command {
        Command::Literal(text) => bytes(out, Some(text.as_bytes())),
        Command::StartTime(format) => time::write(format.as_deref(), context.subject.started_at(), clock, out),
        Command::EmitTime(format) => time::write(format.as_deref(), SystemTime::now(), clock, out),
        Command::RequestHeader(name, alternative) => match context.request {
            Some(head) => either(name, alternative.as_ref(), |key| write_request(key, head, out)),
            None => false,
        },
        Command::ResponseHeader(name, alternative) => match context.response {
            Some((status, headers)) => either(name, alternative.as_ref(), |key| match key {
                HeaderKey::Status => text(out, Some(status.as_str())),
                key => write_field(key, headers, out),
            }),
            None => false,
        },
        Command::ResponseTrailer(name, alternative) => match context.trailers {
            Some(trailers) => either(name, alternative.as_ref(), |key| write_field(key, trailers, out)),
            None => false,
        },
        Command::Path { with_query, source } => write_path(*with_query, *source, context, out),
        Command::QueryParameter(name) => {
            bytes(out, context.request.and_then(|head| query_parameter(head.uri.query()?, name)).map(str::as_bytes))
        }
        Command::GrpcStatus(form) => grpc_status::write(*form, context, out),
        Command::Environment(value) => bytes(out, Some(value.as_bytes())),
        Command::DynamicMetadata { namespace, path } => context
            .subject
            .exchange()
            .is_some_and(|exchange| write_metadata(&exchange.metadata.borrow(), namespace, path, out)),
        Command::FilterState { key, is_plain } => context.subject.exchange().is_some_and(|exchange| {
            let state = exchange.filter_state.borrow();
            let Some(object) = state.text(key) else { return false };
            if *is_plain {
                return bytes(out, Some(object.as_bytes()));
            }
            json_string(out, object);
            true
        }),
        Command::NeverThere => false,
        Command::PeerCertificateTime { is_end, format } => {
            let at = tls::peer_time(*is_end, context.subject.downstream());
            at.is_some_and(|at| time::write(format.as_deref(), at, clock, out))
        }
        Command::CommonDuration { from, to, precision } => {
            text(out, facts::between(*from, *to, *precision, context.subject))
        }
        Command::Fact(fact) => facts::write(*fact, context, out),
    }
}

/// A text as it is, everything else as JSON.
fn write_metadata(metadata: &Metadata, namespace: &str, path: &[String], out: &mut Vec<u8>) -> bool {
    let value = match path {
        [] => metadata.namespace(namespace).map(fields_to_json),
        path => match metadata.value(namespace, path.iter().map(String::as_str)) {
            Some(Value::Text(value)) => return bytes(out, Some(value.as_bytes())),
            value => value.map(Value::to_json),
        },
    };
    text(out, value)
}

fn either(name: &HeaderKey, alternative: Option<&HeaderKey>, mut write: impl FnMut(&HeaderKey) -> bool) -> bool {
    write(name) || alternative.is_some_and(write)
}

fn write_request(key: &HeaderKey, head: &request::Parts, out: &mut Vec<u8>) -> bool {
    match key {
        HeaderKey::Method => text(out, Some(head.method.as_str())),
        HeaderKey::Path => text(out, head.uri.path_and_query().map(http::uri::PathAndQuery::as_str)),
        HeaderKey::Scheme => text(out, Some(crate::http::request_headers::scheme(head))),
        HeaderKey::Authority => bytes(out, Some(authority(head)).filter(|host| !host.is_empty())),
        HeaderKey::Status => false,
        HeaderKey::Field(_) => write_field(key, &head.headers, out),
    }
}

/// Of several fields of the name, the first.
fn write_field(key: &HeaderKey, headers: &HeaderMap, out: &mut Vec<u8>) -> bool {
    match key {
        HeaderKey::Field(name) => bytes(out, headers.get(name).map(HeaderValue::as_bytes)),
        HeaderKey::Authority => bytes(out, headers.get(http::header::HOST).map(HeaderValue::as_bytes)),
        HeaderKey::Method | HeaderKey::Path | HeaderKey::Scheme | HeaderKey::Status => false,
    }
}

fn write_path(with_query: bool, source: PathSource, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
    let Some(head) = context.request else { return false };
    let current = || head.uri.path_and_query().map(|path| path.as_str().as_bytes());
    let original = || head.headers.get("x-envoy-original-path").map(HeaderValue::as_bytes);
    let path = match source {
        PathSource::Current => current(),
        PathSource::Original => original(),
        PathSource::OriginalOrCurrent => original().or_else(current),
    };
    let without_query = |path: &'_ [u8]| path.iter().position(|&byte| byte == b'?').unwrap_or(path.len());
    bytes(out, path.map(|path| if with_query { path } else { &path[..without_query(path)] }))
}

fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn bytes(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    let Some(value) = value else { return false };
    out.extend_from_slice(value);
    true
}

fn text(out: &mut Vec<u8>, value: Option<impl std::fmt::Display>) -> bool {
    value.is_some_and(|value| write!(out, "{value}").is_ok())
}
