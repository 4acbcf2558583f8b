//! `envoy.config.accesslog.v3.AccessLog`: the file and stdout loggers with a text format, parsed once into operators.

use std::{path::PathBuf, sync::Arc};

#[derive(Debug)]
pub struct AccessLog {
    pub sink: AccessLogSink,
    pub format: Arc<[Operator]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    File(PathBuf),
    Stdout,
    Stderr,
}

/// One piece of a format string; `max_length` cuts the value after so many bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    pub command: Command,
    pub max_length: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Literal(String),
    /// `%START_TIME%` and `%START_TIME(format)%`.
    StartTime(Option<String>),
    /// `%REQ(A?B)%`: the first header that is there. Pseudo-headers by their names.
    RequestHeader(String, Option<String>),
    ResponseHeader(String, Option<String>),
    ResponseTrailer(String, Option<String>),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ConnectionTerminationDetails,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamTransportFailureReason,
    UpstreamRequestAttemptCount,
    RouteName,
    VirtualClusterName,
    RequestedServerName,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    ConnectionId,
    Hostname,
}
