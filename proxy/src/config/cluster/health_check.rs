//! `health_checks` of a cluster: how its hosts are asked whether they are well.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{
            HealthCheck as Message, RequestMethod, TypedExtensionConfig,
            health_check::{
                GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, TlsOptions,
                payload::Payload as PayloadKind,
            },
        },
        extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink,
        r#type::v3::{CodecClientType, Int64Range},
    },
};

use crate::config::{
    field::{self, Extension, Result, Within as _, duration_or, refuse, required, unsupported},
    header_mutation::{AppendAction, AppendHeader, HeaderFormat, HeaderRules},
    matcher::StringMatcher,
    substitution::HeaderKey,
};

#[derive(Debug)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Of one check, from connecting to the end of the answer.
    pub timeout: Duration,
    pub intervals: CheckIntervals,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
    pub reuse_connection: bool,
    /// Where changes are written.
    pub event_logs: Vec<PathBuf>,
    pub always_log_failures: bool,
    pub always_log_successes: bool,
    /// Offered instead of the cluster's. Empty: the cluster's.
    pub alpn_protocols: Vec<Vec<u8>>,
}

/// The time from the end of a check to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckIntervals {
    pub healthy: Duration,
    pub unhealthy: Duration,
    /// While the thresholds are being counted up.
    pub healthy_edge: Duration,
    pub unhealthy_edge: Duration,
    /// As long as the cluster has never had a connection. Default 60 s.
    pub no_traffic: Duration,
    pub no_traffic_healthy: Duration,
    /// Before the first check, at random up to so much.
    pub initial_jitter: Duration,
    pub jitter: Duration,
    pub jitter_percent: u32,
}

#[derive(Debug)]
pub enum CheckKind {
    Http(HttpCheck),
    Tcp(TcpCheck),
    Grpc(GrpcCheck),
}

#[derive(Debug)]
pub struct HttpCheck {
    /// Empty: the cluster's name.
    pub host: String,
    pub path: String,
    pub method: Method,
    pub body: Bytes,
    /// What the body of the answer has to hold, in this order.
    pub receive: Vec<Bytes>,
    /// How much of it is looked at.
    pub response_bytes_max: usize,
    pub headers: CheckHeaders,
    /// Not empty.
    pub expected_statuses: Vec<StatusRange>,
    /// Those count up to the threshold, where others are final.
    pub retriable_statuses: Vec<StatusRange>,
    pub http2: bool,
    /// Of the header in which the other side says which service it is.
    pub service_name: Option<StringMatcher>,
}

#[derive(Debug)]
pub struct TcpCheck {
    /// Empty: connecting is enough.
    pub send: Bytes,
    pub receive: Vec<Bytes>,
}

#[derive(Debug)]
pub struct GrpcCheck {
    pub service_name: String,
    /// Empty: the cluster's name.
    pub authority: String,
    pub headers: CheckHeaders,
}

/// Changes of a check's own request.
#[derive(Debug, Default)]
pub struct CheckHeaders {
    remove: Vec<HeaderName>,
    add: Vec<(HeaderName, HeaderValue, AppendAction)>,
}

/// From the first to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(u16, u16);

const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
const RESPONSE_BYTES_MAX: u64 = 1024;
/// What "no limit" means here.
const RESPONSE_BYTES_MAX_MAX: u64 = 1 << 20;

impl HealthCheck {
    pub(super) fn from_proto(message: Message) -> Result<Self> {
        #[expect(deprecated, reason = "the older spelling of an event logger")]
        let Message {
            timeout,
            interval,
            initial_jitter,
            interval_jitter,
            interval_jitter_percent,
            unhealthy_threshold,
            healthy_threshold,
            alt_port,
            reuse_connection,
            no_traffic_interval,
            no_traffic_healthy_interval,
            unhealthy_interval,
            unhealthy_edge_interval,
            healthy_edge_interval,
            event_log_path,
            event_logger,
            event_service,
            always_log_health_check_failures,
            always_log_health_check_success,
            tls_options,
            transport_socket_match_criteria,
            health_checker,
        } = message;
        refuse!(alt_port, event_service, transport_socket_match_criteria);
        let interval = required(field::duration(interval, "interval")?, "interval")?;
        let unhealthy = duration_or(unhealthy_interval, interval, "unhealthy_interval")?;
        let no_traffic = duration_or(no_traffic_interval, NO_TRAFFIC_INTERVAL, "no_traffic_interval")?;
        let mut event_logs = field::each(event_logger, "event_logger", event_sink)?;
        event_logs.extend((!event_log_path.is_empty()).then(|| event_log_path.into()));
        let TlsOptions { alpn_protocols } = tls_options.unwrap_or_default();
        Ok(Self {
            timeout: required(field::positive_duration(timeout, "timeout")?, "timeout")?,
            intervals: CheckIntervals {
                healthy: interval,
                unhealthy,
                healthy_edge: duration_or(healthy_edge_interval, interval, "healthy_edge_interval")?,
                unhealthy_edge: duration_or(unhealthy_edge_interval, unhealthy, "unhealthy_edge_interval")?,
                no_traffic,
                no_traffic_healthy: duration_or(
                    no_traffic_healthy_interval,
                    no_traffic,
                    "no_traffic_healthy_interval",
                )?,
                initial_jitter: duration_or(initial_jitter, Duration::ZERO, "initial_jitter")?,
                jitter: duration_or(interval_jitter, Duration::ZERO, "interval_jitter")?,
                jitter_percent: interval_jitter_percent,
            },
            unhealthy_threshold: required(unhealthy_threshold, "unhealthy_threshold")?.value,
            healthy_threshold: required(healthy_threshold, "healthy_threshold")?.value,
            reuse_connection: field::bool_or(reuse_connection, true),
            event_logs,
            always_log_failures: always_log_health_check_failures,
            always_log_successes: always_log_health_check_success,
            alpn_protocols: alpn_protocols.into_iter().map(String::into_bytes).collect(),
            kind: CheckKind::from_proto(required(health_checker, "health_checker")?)?,
        })
    }
}

fn event_sink(message: TypedExtensionConfig) -> Result<PathBuf> {
    let TypedExtensionConfig { name: _, typed_config } = message;
    let extension = Extension::new(required(typed_config, "typed_config")?)?;
    if !extension.is::<HealthCheckEventFileSink>() {
        return Err(extension.unsupported());
    }
    let HealthCheckEventFileSink { event_log_path } = extension.unpack()?;
    Ok(event_log_path.into())
}

impl CheckKind {
    fn from_proto(message: HealthChecker) -> Result<Self> {
        match message {
            HealthChecker::HttpHealthCheck(message) => {
                HttpCheck::from_proto(message).within("http_health_check").map(Self::Http)
            }
            HealthChecker::TcpHealthCheck(message) => {
                TcpCheck::from_proto(message).within("tcp_health_check").map(Self::Tcp)
            }
            HealthChecker::GrpcHealthCheck(message) => {
                GrpcCheck::from_proto(message).within("grpc_health_check").map(Self::Grpc)
            }
            HealthChecker::CustomHealthCheck(_) => Err(unsupported("custom_health_check")),
        }
    }
}

impl HttpCheck {
    fn from_proto(message: HttpHealthCheck) -> Result<Self> {
        let HttpHealthCheck {
            host,
            path,
            send,
            receive,
            response_buffer_size,
            request_headers_to_add,
            request_headers_to_remove,
            expected_statuses,
            retriable_statuses,
            codec_client_type,
            service_name_matcher,
            method,
        } = message;
        let http2 = match field::enumeration(codec_client_type, "codec_client_type")? {
            CodecClientType::Http1 => false,
            CodecClientType::Http2 => true,
            CodecClientType::Http3 => return Err(FieldError::new("codec_client_type", "HTTP3 is not supported")),
        };
        if path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(FieldError::new("path", "not a path"));
        }
        let expected_statuses = field::each(expected_statuses, "expected_statuses", StatusRange::from_proto)?;
        let response_bytes_max = response_buffer_size.map_or(RESPONSE_BYTES_MAX, |size| match size.value {
            0 => RESPONSE_BYTES_MAX_MAX,
            bytes => bytes.min(RESPONSE_BYTES_MAX_MAX),
        });
        Ok(Self {
            host,
            path,
            method: method_of(field::enumeration(method, "method")?)?,
            body: send.map_or(Ok(Bytes::new()), payload).within("send")?,
            receive: field::each(receive, "receive", payload)?,
            response_bytes_max: response_bytes_max as usize,
            headers: CheckHeaders::new(HeaderRules::from_proto(
                request_headers_to_add,
                request_headers_to_remove,
                "request",
            )?)?,
            expected_statuses: if expected_statuses.is_empty() {
                vec![StatusRange(200, 201)]
            } else {
                expected_statuses
            },
            retriable_statuses: field::each(retriable_statuses, "retriable_statuses", StatusRange::from_proto)?,
            http2,
            service_name: service_name_matcher
                .map(StringMatcher::from_proto)
                .transpose()
                .within("service_name_matcher")?,
        })
    }
}

impl TcpCheck {
    fn from_proto(message: TcpHealthCheck) -> Result<Self> {
        let TcpHealthCheck { send, receive, proxy_protocol_config } = message;
        refuse!(proxy_protocol_config);
        Ok(Self {
            send: send.map_or(Ok(Bytes::new()), payload).within("send")?,
            receive: field::each(receive, "receive", payload)?,
        })
    }
}

impl GrpcCheck {
    fn from_proto(message: GrpcHealthCheck) -> Result<Self> {
        let GrpcHealthCheck { service_name, authority, initial_metadata } = message;
        let add = field::each(initial_metadata, "initial_metadata", AppendHeader::from_proto)?;
        let headers = CheckHeaders::new(HeaderRules { remove: Vec::new(), add });
        Ok(Self { service_name, authority, headers: headers? })
    }
}

impl CheckHeaders {
    /// A check has no request of anybody's that a value could be taken from.
    fn new(rules: HeaderRules) -> Result<Self> {
        let HeaderRules { remove, add } = rules;
        let mut fixed = Vec::with_capacity(add.len());
        for (index, AppendHeader { key, value, action, keep_empty_value }) in add.into_iter().enumerate() {
            let path = format!("request_headers_to_add[{index}].header");
            let (HeaderKey::Field(name), HeaderFormat::Literal(value)) = (key, value) else {
                return Err(FieldError::new(format!("{path}.value"), "commands are not supported here"));
            };
            if keep_empty_value || !value.is_empty() {
                fixed.push((name, value, action));
            }
        }
        Ok(Self { remove, add: fixed })
    }

    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value, action) in &self.add {
            let is_there = headers.contains_key(name);
            match action {
                AppendAction::AppendIfExistsOrAdd => {
                    headers.append(name, value.clone());
                }
                AppendAction::AddIfAbsent if is_there => {}
                AppendAction::OverwriteIfExists if !is_there => {}
                AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}

impl StatusRange {
    fn from_proto(message: Int64Range) -> Result<Self> {
        let Int64Range { start, end } = message;
        if start >= end {
            let reason =
                format!("Invalid http status range: expecting start < end, but found start={start} and end={end}");
            return Err(FieldError::new("", reason));
        }
        let bound = |value: i64, path: &str| match u16::try_from(value) {
            Ok(value @ 100..=600) => Ok(value),
            _ => Err(FieldError::new(path, format!("{value} is no bound of HTTP statuses"))),
        };
        Ok(Self(bound(start, "start")?, bound(end, "end")?))
    }

    pub fn contains(self, status: u16) -> bool {
        (self.0..self.1).contains(&status)
    }
}

fn method_of(method: RequestMethod) -> Result<Method> {
    Ok(match method {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => return Err(unsupported("method")),
    })
}

/// Text is in hexadecimal digits.
fn payload(message: Payload) -> Result<Bytes> {
    let Payload { payload } = message;
    match required(payload, "payload")? {
        PayloadKind::Binary(bytes) => Ok(bytes.into()),
        PayloadKind::Text(text) => {
            let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
            let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            });
            let bytes: Option<Vec<u8>> = pairs.collect();
            bytes.map(Bytes::from).ok_or_else(|| FieldError::new("text", format!("invalid hex string '{text}'")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    const BASE: &str = "timeout: 1s, interval: 2s, unhealthy_threshold: 2, healthy_threshold: 3";

    fn parsed(rest: &str) -> Result<HealthCheck> {
        HealthCheck::from_proto(message(&format!("{{{BASE}, {rest}}}")))
    }

    #[test]
    fn intervals_follow_each_other() {
        let intervals = parsed("unhealthy_interval: 3s, tcp_health_check: {}").unwrap().intervals;
        let seconds = [intervals.healthy_edge, intervals.unhealthy_edge, intervals.no_traffic_healthy];
        assert_eq!(seconds.map(|interval| interval.as_secs()), [2, 3, 60]);
    }

    #[test]
    fn text_is_in_hexadecimal_digits() {
        let check = parsed("tcp_health_check: {send: {text: 0aFf}, receive: [{binary: AAE=}]}").unwrap();
        let CheckKind::Tcp(tcp) = check.kind else { panic!("another kind") };
        assert_eq!((&tcp.send[..], &tcp.receive[0][..]), (&[10, 255][..], &[0, 1][..]));
        assert_eq!(
            refusal(parsed("tcp_health_check: {send: {text: 0ax}}")),
            "tcp_health_check.send.text: invalid hex string '0ax'"
        );
    }

    #[test]
    fn statuses_are_ranges_without_their_end() {
        let check = parsed("http_health_check: {path: /, expected_statuses: [{start: 200, end: 300}]}").unwrap();
        let CheckKind::Http(http) = check.kind else { panic!("another kind") };
        assert!(http.expected_statuses[0].contains(299) && !http.expected_statuses[0].contains(300));
        for (range, expected) in [
            (
                "{start: 300, end: 300}",
                "Invalid http status range: expecting start < end, but found start=300 and end=300",
            ),
            ("{start: 99, end: 300}", "99 is no bound of HTTP statuses"),
        ] {
            let error = refusal(parsed(&format!("http_health_check: {{path: /, expected_statuses: [{range}]}}")));
            assert!(
                error.starts_with("http_health_check.expected_statuses[0]") && error.ends_with(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_carried_out_is_refused() {
        for (rest, expected) in [
            ("custom_health_check: {name: envoy.health_checkers.redis}", "custom_health_check: not supported"),
            ("tcp_health_check: {proxy_protocol_config: {}}", "tcp_health_check.proxy_protocol_config: not supported"),
            ("tcp_health_check: {}, alt_port: 1", "alt_port: not supported"),
            (
                "tcp_health_check: {}, transport_socket_match_criteria: {a: b}",
                "transport_socket_match_criteria: not supported",
            ),
            (
                "http_health_check: {path: /, codec_client_type: HTTP3}",
                "http_health_check.codec_client_type: HTTP3 is not supported",
            ),
            (
                "http_health_check: {path: /, request_headers_to_add: [{header: {key: a, value: '%PROTOCOL%'}}]}",
                "http_health_check.request_headers_to_add[0].header.value: commands are not supported here",
            ),
        ] {
            assert_eq!(refusal(parsed(rest)), expected);
        }
    }
}
