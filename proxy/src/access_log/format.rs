//! One line of an access log from what is known of a request or connection. `-` stands for what is not there.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    access_log::captured::CapturedReader,
    config::access_log::{Command, Operator},
    http::exchange::Exchange,
    listener::connection::Downstream,
    tcp_proxy::TcpSession,
};

/// What a line is about.
pub(super) enum Entry<'a> {
    Http(&'a Exchange),
    Tcp(&'a TcpSession),
    Connection(&'a Downstream),
}

impl<'a> Entry<'a> {
    /// Captured when the request and the response passed; empty for connections.
    pub(super) fn captured_headers(&self) -> OwnedReader {
        match self {
            Entry::Http(exchange) => OwnedReader(exchange.captured.take()),
            Entry::Tcp(_) | Entry::Connection(_) => OwnedReader::default(),
        }
    }

    fn downstream(&self) -> &'a Downstream {
        match self {
            Entry::Http(exchange) => &exchange.connection.downstream,
            Entry::Tcp(session) => &session.downstream,
            Entry::Connection(downstream) => downstream,
        }
    }
}

#[derive(Default)]
pub(super) struct OwnedReader(super::CapturedHeaders);

/// The current second's text, written once.
#[derive(Default)]
pub(super) struct ClockCache {
    second: u64,
    text: String,
}

pub(super) fn write_line(
    format: &[Operator],
    entry: &Entry<'_>,
    headers: &mut OwnedReader,
    clock: &mut ClockCache,
    out: &mut Vec<u8>,
) {
    let mut captured = headers.0.read();
    for Operator { command, max_length } in format {
        let begin = out.len();
        if !write_value(command, entry, &mut captured, clock, out) {
            out.truncate(begin);
            out.push(b'-');
        }
        if let Some(max) = max_length
            && !matches!(command, Command::Literal(_))
        {
            out.truncate(out.len().min(begin + max));
        }
    }
}

/// False: there is no such value.
fn write_value(
    command: &Command,
    entry: &Entry<'_>,
    captured: &mut CapturedReader<'_>,
    clock: &mut ClockCache,
    out: &mut Vec<u8>,
) -> bool {
    let downstream = entry.downstream();
    match command {
        Command::Literal(text) => bytes(out, Some(text.as_bytes())),
        Command::StartTime(format) => {
            let at = match entry {
                Entry::Http(exchange) => exchange.started_at,
                Entry::Tcp(session) => Some(session.started_at),
                Entry::Connection(downstream) => Some(downstream.started_at),
            };
            at.is_some_and(|at| write_time(format.as_deref(), at, clock, out))
        }
        Command::RequestHeader(..) => bytes(out, captured.next_request()),
        Command::ResponseHeader(..) => bytes(out, captured.next_response()),
        Command::ConnectionId => text(out, Some(downstream.id)),
        Command::RequestedServerName => bytes(out, downstream.requested_server_name.as_deref().map(str::as_bytes)),
        Command::Hostname => text(out, Some(rustix::system::uname().nodename().to_string_lossy())),
        Command::DownstreamLocalAddress => text(out, Some(downstream.local_address)),
        Command::DownstreamLocalAddressWithoutPort => text(out, Some(downstream.local_address.ip())),
        Command::DownstreamLocalPort => text(out, Some(downstream.local_address.port())),
        Command::DownstreamRemoteAddress => text(out, Some(downstream.remote_address)),
        Command::DownstreamDirectRemoteAddress => text(out, Some(downstream.direct_remote_address)),
        Command::DownstreamRemoteAddressWithoutPort => text(out, Some(downstream.remote_address.ip())),
        Command::DownstreamDirectRemoteAddressWithoutPort => text(out, Some(downstream.direct_remote_address.ip())),
        Command::DownstreamRemotePort => text(out, Some(downstream.remote_address.port())),
        _ => match entry {
            Entry::Http(exchange) => write_http(command, exchange, out),
            Entry::Tcp(session) => write_tcp(command, session, out),
            Entry::Connection(downstream) => match command {
                Command::ResponseFlags => text(out, Some(downstream.flags.get())),
                Command::ResponseCodeDetails => text(out, downstream.details.get()),
                Command::Duration => text(out, Some(downstream.started.elapsed().as_millis())),
                Command::BytesReceived => text(out, Some(downstream.bytes_received.get())),
                Command::BytesSent => text(out, Some(downstream.bytes_sent.get())),
                Command::ResponseCode | Command::UpstreamRequestAttemptCount => text(out, Some(0)),
                _ => false,
            },
        },
    }
}

fn write_http(command: &Command, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let ms = |since: Option<Duration>| since.map(|since| since.as_millis());
    match command {
        Command::Protocol => bytes(out, Some(protocol_name(exchange.protocol).as_bytes())),
        Command::ResponseCode => text(out, Some(exchange.status.get().map_or(0, |status| status.as_u16()))),
        Command::ResponseCodeDetails => bytes(out, Some(exchange.details.borrow().as_bytes())),
        Command::ResponseFlags => text(out, Some(exchange.flags.get())),
        Command::BytesReceived => text(out, Some(exchange.bytes_received.get())),
        Command::BytesSent => text(out, Some(exchange.bytes_sent.get())),
        Command::Duration => text(out, Some(exchange.started.elapsed().as_millis())),
        Command::RequestDuration => text(out, ms(exchange.request_received.get())),
        Command::ResponseDuration => text(out, ms(exchange.response_begun.get())),
        Command::ResponseTxDuration => {
            let sending = exchange.response_sent.get().zip(exchange.response_begun.get());
            text(out, ms(sending.map(|(sent, begun)| sent.saturating_sub(begun))))
        }
        Command::UpstreamHost => text(out, exchange.upstream_host.get()),
        Command::UpstreamCluster => name(out, exchange.upstream_cluster.borrow().as_ref()),
        Command::UpstreamTransportFailureReason => text(out, exchange.upstream_failure.borrow().as_ref()),
        Command::UpstreamRequestAttemptCount => text(out, Some(exchange.attempts.get())),
        Command::RouteName => name(out, exchange.route_name.borrow().as_ref()),
        _ => false,
    }
}

fn write_tcp(command: &Command, session: &TcpSession, out: &mut Vec<u8>) -> bool {
    match command {
        Command::ResponseCode => text(out, Some(0)),
        Command::ResponseCodeDetails => bytes(out, Some(session.details.borrow().as_bytes())),
        Command::ResponseFlags => text(out, Some(session.flags.get())),
        Command::BytesReceived => text(out, Some(session.bytes_received.get())),
        Command::BytesSent => text(out, Some(session.bytes_sent.get())),
        Command::Duration => text(out, Some(session.started.elapsed().as_millis())),
        Command::UpstreamHost => text(out, session.upstream_host.get()),
        Command::UpstreamCluster => name(out, session.upstream_cluster.borrow().as_ref()),
        Command::UpstreamTransportFailureReason => text(out, session.upstream_failure.borrow().as_ref()),
        Command::UpstreamRequestAttemptCount => text(out, Some(session.attempts.get())),
        _ => false,
    }
}

fn bytes(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    let Some(value) = value else { return false };
    out.extend_from_slice(value);
    true
}

fn text(out: &mut Vec<u8>, value: Option<impl std::fmt::Display>) -> bool {
    value.is_some_and(|value| write!(out, "{value}").is_ok())
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

/// Envoy's default is `2026-11-20T08:05:03.123Z`; other formats are strftime's.
fn write_time(format: Option<&str>, at: SystemTime, clock: &mut ClockCache, out: &mut Vec<u8>) -> bool {
    let Ok(since_epoch) = at.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let Ok(timestamp) = jiff::Timestamp::try_from(at) else { return false };
    if let Some(format) = format {
        // A directive that it does not know leaves no value rather than half of one.
        return jiff::fmt::strtime::format(format, timestamp)
            .is_ok_and(|formatted| bytes(out, Some(formatted.as_bytes())));
    }
    if clock.text.is_empty() || clock.second != since_epoch.as_secs() {
        clock.second = since_epoch.as_secs();
        clock.text = timestamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    }
    write!(out, "{}.{:03}Z", clock.text, since_epoch.subsec_millis()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds_or_as_asked() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_176_303_045);
        let mut clock = ClockCache::default();
        let mut out = Vec::new();
        assert!(write_time(None, at, &mut clock, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), "2026-11-20T12:05:03.045Z");
        out.clear();
        assert!(write_time(Some("%Y/%m/%d %s"), at, &mut clock, &mut out));
        assert_eq!(String::from_utf8_lossy(&out), "2026/11/20 1795176303");
    }
}
