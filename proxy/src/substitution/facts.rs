//! The commands without parameters: one fact of a request or connection each.

use std::{fmt::Display, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderMap;

use super::{Context, Subject, bytes, grpc_status, text, tls};
use crate::{
    config::substitution::{Fact, GrpcStatusForm, TimePoint, TimePrecision},
    http::{
        exchange::Exchange,
        request_headers::{X_REQUEST_ID, authority, scheme},
        request_id,
    },
    listener::connection::Downstream,
    tcp_proxy::TcpSession,
};

/// False: there is no such value.
pub(super) fn write(fact: Fact, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
    match context.subject {
        Subject::Http(exchange) => {
            write_status(fact, exchange, context, out)
                || write_http(fact, exchange, out)
                || write_message(fact, context, out)
                || write_connection(fact, &exchange.connection.downstream, exchange.remote_address.get(), out)
        }
        Subject::Tcp(session) => {
            let downstream = &session.downstream;
            write_tcp(fact, session, out) || write_connection(fact, downstream, downstream.remote_address, out)
        }
        Subject::Connection(downstream) => match fact {
            Fact::ResponseFlags => text(out, Some(downstream.flags.get())),
            Fact::ResponseFlagsLong => text(out, Some(downstream.flags.get().long())),
            Fact::ResponseCodeDetails => text(out, downstream.details.get()),
            Fact::Duration => text(out, Some(downstream.started.elapsed().as_millis())),
            Fact::BytesReceived => text(out, Some(downstream.bytes_received.get())),
            Fact::BytesSent => text(out, Some(downstream.bytes_sent.get())),
            Fact::ResponseCode | Fact::UpstreamRequestAttemptCount => text(out, Some(0)),
            Fact::AccessLogType => text(out, Some(context.subject.log_type().name())),
            fact => write_connection(fact, downstream, downstream.remote_address, out),
        },
    }
}

/// While a response is being made its status is not the exchange's yet.
fn write_status(fact: Fact, exchange: &Exchange, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
    let status = context.response.map(|(status, _)| status).or(exchange.status.get());
    fact == Fact::ResponseCode && text(out, Some(status.map_or(0, |status| status.as_u16())))
}

fn write_http(fact: Fact, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let ms = |since: Option<Duration>| since.map(|since| since.as_millis());
    match fact {
        Fact::Protocol => text(out, Some(protocol_name(exchange.protocol))),
        Fact::UpstreamProtocol => text(out, exchange.upstream_protocol.get().map(protocol_name)),
        Fact::ResponseCodeDetails => text(out, Some(&*exchange.details.borrow()).filter(|details| !details.is_empty())),
        Fact::ResponseFlags => text(out, Some(exchange.flags.get())),
        Fact::ResponseFlagsLong => text(out, Some(exchange.flags.get().long())),
        Fact::BytesReceived => text(out, Some(exchange.bytes_received.get())),
        Fact::BytesSent => text(out, Some(exchange.bytes_sent.get())),
        Fact::Duration => text(out, Some(exchange.started.elapsed().as_millis())),
        Fact::RequestDuration => text(out, ms(exchange.request_received.get())),
        Fact::RequestTxDuration => text(out, ms(point(TimePoint::UpstreamSendEnd, exchange))),
        Fact::ResponseDuration => text(out, ms(exchange.upstream_response_begun.get())),
        Fact::ResponseTxDuration => {
            let sending = exchange.response_sent.get().zip(exchange.upstream_response_begun.get());
            text(out, ms(sending.map(|(sent, begun)| sent.saturating_sub(begun))))
        }
        Fact::UpstreamHost => text(out, exchange.upstream_host.get()),
        Fact::UpstreamRemoteAddress => text(out, upstream_remote(exchange)),
        Fact::UpstreamRemoteAddressWithoutPort => text(out, upstream_remote(exchange).map(|host| host.ip())),
        Fact::UpstreamRemotePort => text(out, upstream_remote(exchange).map(|host| host.port())),
        Fact::UpstreamHostName => upstream_host_name(exchange, out, |host| host.to_string()),
        Fact::UpstreamHostNameWithoutPort => upstream_host_name(exchange, out, |host| host.ip().to_string()),
        Fact::UpstreamCluster | Fact::UpstreamClusterRaw => name(out, exchange.upstream_cluster.borrow().as_ref()),
        Fact::UpstreamTransportFailureReason => {
            text(out, exchange.upstream_failure.borrow().as_ref().map(|reason| reason.replace(' ', "_")))
        }
        Fact::UpstreamRequestAttemptCount => text(out, Some(exchange.attempts.get())),
        Fact::RouteName => name(out, exchange.route_name.borrow().as_ref()),
        Fact::VirtualClusterName => name(out, exchange.virtual_cluster_name.borrow().as_ref()),
        Fact::AccessLogType => text(out, Some(exchange.log_type.get().name())),
        _ => false,
    }
}

/// Who was connected: nobody where that failed.
fn upstream_remote(exchange: &Exchange) -> Option<SocketAddr> {
    exchange.upstream_host.get().filter(|_| exchange.upstream_failure.borrow().is_none())
}

fn upstream_host_name(exchange: &Exchange, out: &mut Vec<u8>, address: fn(SocketAddr) -> String) -> bool {
    match exchange.upstream_hostname.borrow().as_ref().filter(|name| !name.is_empty()) {
        Some(name) => bytes(out, Some(name.as_bytes())),
        None => text(out, exchange.upstream_host.get().map(address)),
    }
}

/// What the messages themselves say.
fn write_message(fact: Fact, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
    match fact {
        Fact::RequestHeadersBytes => text(
            out,
            context.request.map(|head| {
                let path = head.uri.path_and_query().map_or(0, |path| ":path".len() + path.as_str().len());
                let host = if head.headers.contains_key(http::header::HOST) { 0 } else { authority(head).len() };
                path + host
                    + ":authority".len()
                    + ":method".len()
                    + head.method.as_str().len()
                    + ":scheme".len()
                    + scheme(head).len()
                    + headers_bytes(&head.headers)
            }),
        ),
        Fact::ResponseHeadersBytes => {
            text(out, context.response.map(|(_, headers)| headers_bytes(headers) + ":status".len() + 3))
        }
        Fact::ResponseTrailersBytes => text(out, Some(context.trailers.map_or(0, headers_bytes))),
        Fact::GrpcStatusNumber => grpc_status::write(GrpcStatusForm::Number, context, out),
        Fact::LocalReplyBody => bytes(out, Some(context.local_reply_body)),
        Fact::StreamId => {
            bytes(out, context.request.and_then(|head| head.headers.get(X_REQUEST_ID)).map(|id| id.as_bytes()))
        }
        _ => false,
    }
}

/// Names and values, as Envoy counts the size of a header map. `host` counts as `:authority` does.
fn headers_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| value.len() + if name == http::header::HOST { 0 } else { name.as_str().len() })
        .sum()
}

fn write_tcp(fact: Fact, session: &TcpSession, out: &mut Vec<u8>) -> bool {
    match fact {
        Fact::ResponseCode => text(out, Some(0)),
        Fact::ResponseCodeDetails => text(out, Some(&*session.details.borrow())),
        Fact::ResponseFlags => text(out, Some(session.flags.get())),
        Fact::ResponseFlagsLong => text(out, Some(session.flags.get().long())),
        Fact::BytesReceived => text(out, Some(session.bytes_received.get())),
        Fact::BytesSent => text(out, Some(session.bytes_sent.get())),
        Fact::Duration => text(out, Some(session.started.elapsed().as_millis())),
        Fact::UpstreamHost | Fact::UpstreamRemoteAddress => text(out, session.upstream_host.get()),
        Fact::UpstreamRemoteAddressWithoutPort => text(out, session.upstream_host.get().map(|host| host.ip())),
        Fact::UpstreamRemotePort => text(out, session.upstream_host.get().map(|host| host.port())),
        Fact::UpstreamCluster | Fact::UpstreamClusterRaw => name(out, session.upstream_cluster.borrow().as_ref()),
        Fact::UpstreamTransportFailureReason => {
            text(out, session.upstream_failure.borrow().as_ref().map(|reason| reason.replace(' ', "_")))
        }
        Fact::UpstreamRequestAttemptCount => text(out, Some(session.attempts.get())),
        Fact::AccessLogType => text(out, Some(session.log_type.get().name())),
        _ => false,
    }
}

fn write_connection(fact: Fact, downstream: &Downstream, remote: SocketAddr, out: &mut Vec<u8>) -> bool {
    let (local, direct) = (downstream.local_address, downstream.direct_remote_address);
    match fact {
        Fact::ConnectionId => text(out, Some(downstream.id)),
        Fact::RequestedServerName => text(out, downstream.requested_server_name.as_deref()),
        Fact::FilterChainName => text(out, downstream.filter_chain_name().filter(|name| !name.is_empty())),
        Fact::Hostname => text(out, Some(rustix::system::uname().nodename().to_string_lossy())),
        Fact::UniqueId => bytes(out, Some(downstream.worker.with_random(request_id::generate).as_bytes())),
        Fact::DownstreamLocalAddress | Fact::DownstreamDirectLocalAddress => text(out, Some(local)),
        Fact::DownstreamLocalAddressWithoutPort | Fact::DownstreamDirectLocalAddressWithoutPort => {
            text(out, Some(local.ip()))
        }
        Fact::DownstreamLocalPort | Fact::DownstreamDirectLocalPort => text(out, Some(local.port())),
        Fact::DownstreamRemoteAddress => text(out, Some(remote)),
        Fact::DownstreamRemoteAddressWithoutPort => text(out, Some(remote.ip())),
        Fact::DownstreamRemotePort => text(out, Some(remote.port())),
        Fact::DownstreamDirectRemoteAddress => text(out, Some(direct)),
        Fact::DownstreamDirectRemoteAddressWithoutPort => text(out, Some(direct.ip())),
        Fact::DownstreamDirectRemotePort => text(out, Some(direct.port())),
        fact => tls::write(fact, downstream, out),
    }
}

pub(super) fn between(
    from: TimePoint,
    to: TimePoint,
    precision: TimePrecision,
    subject: Subject<'_>,
) -> Option<impl Display> {
    let Subject::Http(exchange) = subject else { return None };
    let passed = point(to, exchange)?.checked_sub(point(from, exchange)?)?;
    Some(match precision {
        TimePrecision::Milliseconds => passed.as_millis(),
        TimePrecision::Microseconds => passed.as_micros(),
        TimePrecision::Nanoseconds => passed.as_nanos(),
    })
}

/// Since the request began.
fn point(point: TimePoint, exchange: &Exchange) -> Option<Duration> {
    match point {
        TimePoint::DownstreamReceiveBegin => Some(Duration::ZERO),
        TimePoint::DownstreamReceiveEnd => exchange.request_received.get(),
        TimePoint::UpstreamSendBegin => exchange.upstream_request_begun.get(),
        // A body is passed on as it comes: the last of it goes out with its arrival.
        TimePoint::UpstreamSendEnd => {
            Some(exchange.upstream_request_begun.get()?.max(exchange.request_received.get()?))
        }
        TimePoint::UpstreamReceiveBegin => exchange.upstream_response_begun.get(),
        TimePoint::UpstreamReceiveEnd => exchange.upstream_response_ended.get(),
        TimePoint::DownstreamSendBegin => exchange.response_begun.get(),
        TimePoint::DownstreamSendEnd => exchange.response_sent.get(),
    }
}

fn name(out: &mut Vec<u8>, value: Option<&Arc<str>>) -> bool {
    bytes(out, value.map(|name| name.as_bytes()))
}

fn protocol_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
