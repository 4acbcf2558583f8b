//! The commands of a format string, as data.

use http::HeaderName;

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
    /// The same of now.
    EmitTime(Option<String>),
    /// `%REQ(A?B)%`: the first header that is there.
    RequestHeader(HeaderKey, Option<HeaderKey>),
    ResponseHeader(HeaderKey, Option<HeaderKey>),
    ResponseTrailer(HeaderKey, Option<HeaderKey>),
    Path {
        with_query: bool,
        source: PathSource,
    },
    QueryParameter(String),
    GrpcStatus(GrpcStatusForm),
    /// Of the environment variable when the configuration was read.
    Environment(String),
    /// `%DYNAMIC_METADATA(NAMESPACE:KEY...)%`.
    DynamicMetadata {
        namespace: String,
        path: Vec<String>,
    },
    /// `%FILTER_STATE(KEY:F)%`; typed, a text is quoted.
    FilterState {
        key: String,
        is_plain: bool,
    },
    /// `%UPSTREAM_FILTER_STATE()%`: nothing here writes any, so there never is a value.
    NeverThere,
    /// `%DOWNSTREAM_PEER_CERT_V_START%` and `%DOWNSTREAM_PEER_CERT_V_END%`.
    PeerCertificateTime {
        is_end: bool,
        format: Option<String>,
    },
    CommonDuration {
        from: TimePoint,
        to: TimePoint,
        precision: TimePrecision,
    },
    Fact(Fact),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderKey {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Field(HeaderName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// As it goes on.
    Current,
    /// `x-envoy-original-path`.
    Original,
    OriginalOrCurrent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusForm {
    /// `PermissionDenied`.
    Camel,
    /// `PERMISSION_DENIED`.
    Snake,
    Number,
}

/// The points of `%COMMON_DURATION%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePoint {
    DownstreamReceiveBegin,
    DownstreamReceiveEnd,
    UpstreamSendBegin,
    UpstreamSendEnd,
    UpstreamReceiveBegin,
    UpstreamReceiveEnd,
    DownstreamSendBegin,
    DownstreamSendEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePrecision {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

macro_rules! facts {
    ($($variant:ident $name:literal $kind:ident,)*) => {
        /// The commands that take neither parameters nor a length.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fact { $($variant,)* }
        impl Fact {
            pub(super) fn parse(name: &str) -> Option<Fact> {
                Some(match name {
                    $($name => Fact::$variant,)*
                    _ => return None,
                })
            }
            /// Whether JSON has it as a number.
            pub fn is_number(self) -> bool {
                match self {
                    $(Fact::$variant => facts!(@$kind),)*
                }
            }
        }
        #[cfg(test)]
        pub(super) const FACT_NAMES: &[&str] = &[$($name,)*];
    };
    (@text) => { false };
    (@number) => { true };
}

facts! {
    Protocol "PROTOCOL" text,
    UpstreamProtocol "UPSTREAM_PROTOCOL" text,
    ResponseCode "RESPONSE_CODE" number,
    ResponseCodeDetails "RESPONSE_CODE_DETAILS" text,
    ResponseFlags "RESPONSE_FLAGS" text,
    ResponseFlagsLong "RESPONSE_FLAGS_LONG" text,
    ConnectionTerminationDetails "CONNECTION_TERMINATION_DETAILS" text,
    BytesReceived "BYTES_RECEIVED" number,
    BytesSent "BYTES_SENT" number,
    Duration "DURATION" number,
    RequestDuration "REQUEST_DURATION" number,
    RequestTxDuration "REQUEST_TX_DURATION" number,
    ResponseDuration "RESPONSE_DURATION" number,
    ResponseTxDuration "RESPONSE_TX_DURATION" number,
    RequestHeadersBytes "REQUEST_HEADERS_BYTES" number,
    ResponseHeadersBytes "RESPONSE_HEADERS_BYTES" number,
    ResponseTrailersBytes "RESPONSE_TRAILERS_BYTES" number,
    GrpcStatusNumber "GRPC_STATUS_NUMBER" number,
    LocalReplyBody "LOCAL_REPLY_BODY" text,
    AccessLogType "ACCESS_LOG_TYPE" text,
    UpstreamHost "UPSTREAM_HOST" text,
    UpstreamHostName "UPSTREAM_HOST_NAME" text,
    UpstreamHostNameWithoutPort "UPSTREAM_HOST_NAME_WITHOUT_PORT" text,
    UpstreamCluster "UPSTREAM_CLUSTER" text,
    UpstreamClusterRaw "UPSTREAM_CLUSTER_RAW" text,
    UpstreamRemoteAddress "UPSTREAM_REMOTE_ADDRESS" text,
    UpstreamRemoteAddressWithoutPort "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" text,
    UpstreamRemotePort "UPSTREAM_REMOTE_PORT" number,
    UpstreamTransportFailureReason "UPSTREAM_TRANSPORT_FAILURE_REASON" text,
    UpstreamRequestAttemptCount "UPSTREAM_REQUEST_ATTEMPT_COUNT" number,
    RouteName "ROUTE_NAME" text,
    VirtualClusterName "VIRTUAL_CLUSTER_NAME" text,
    RequestedServerName "REQUESTED_SERVER_NAME" text,
    FilterChainName "FILTER_CHAIN_NAME" text,
    StreamId "STREAM_ID" text,
    UniqueId "UNIQUE_ID" text,
    TraceId "TRACE_ID" text,
    ConnectionId "CONNECTION_ID" number,
    Hostname "HOSTNAME" text,
    DownstreamLocalAddress "DOWNSTREAM_LOCAL_ADDRESS" text,
    DownstreamLocalAddressWithoutPort "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" text,
    DownstreamLocalPort "DOWNSTREAM_LOCAL_PORT" number,
    DownstreamDirectLocalAddress "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" text,
    DownstreamDirectLocalAddressWithoutPort "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" text,
    DownstreamDirectLocalPort "DOWNSTREAM_DIRECT_LOCAL_PORT" number,
    DownstreamRemoteAddress "DOWNSTREAM_REMOTE_ADDRESS" text,
    DownstreamRemoteAddressWithoutPort "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" text,
    DownstreamRemotePort "DOWNSTREAM_REMOTE_PORT" number,
    DownstreamDirectRemoteAddress "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" text,
    DownstreamDirectRemoteAddressWithoutPort "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" text,
    DownstreamDirectRemotePort "DOWNSTREAM_DIRECT_REMOTE_PORT" number,
    DownstreamTlsVersion "DOWNSTREAM_TLS_VERSION" text,
    DownstreamTlsCipher "DOWNSTREAM_TLS_CIPHER" text,
    DownstreamPeerSubject "DOWNSTREAM_PEER_SUBJECT" text,
    DownstreamPeerIssuer "DOWNSTREAM_PEER_ISSUER" text,
    DownstreamPeerSerial "DOWNSTREAM_PEER_SERIAL" text,
    DownstreamPeerUriNames "DOWNSTREAM_PEER_URI_SAN" text,
    DownstreamPeerDnsNames "DOWNSTREAM_PEER_DNS_SAN" text,
    DownstreamPeerIpNames "DOWNSTREAM_PEER_IP_SAN" text,
    DownstreamPeerEmailNames "DOWNSTREAM_PEER_EMAIL_SAN" text,
    DownstreamPeerOtherNames "DOWNSTREAM_PEER_OTHERNAME_SAN" text,
    DownstreamPeerFingerprint256 "DOWNSTREAM_PEER_FINGERPRINT_256" text,
    DownstreamPeerFingerprint1 "DOWNSTREAM_PEER_FINGERPRINT_1" text,
    DownstreamPeerChainFingerprints256 "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256" text,
    DownstreamPeerChainFingerprints1 "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1" text,
    DownstreamPeerChainSerials "DOWNSTREAM_PEER_CHAIN_SERIALS" text,
    DownstreamPeerCertificate "DOWNSTREAM_PEER_CERT" text,
    DownstreamLocalSubject "DOWNSTREAM_LOCAL_SUBJECT" text,
    DownstreamLocalUriNames "DOWNSTREAM_LOCAL_URI_SAN" text,
    DownstreamLocalDnsNames "DOWNSTREAM_LOCAL_DNS_SAN" text,
    DownstreamLocalIpNames "DOWNSTREAM_LOCAL_IP_SAN" text,
    DownstreamLocalEmailNames "DOWNSTREAM_LOCAL_EMAIL_SAN" text,
    DownstreamLocalOtherNames "DOWNSTREAM_LOCAL_OTHERNAME_SAN" text,
}

impl HeaderKey {
    /// None: not the name of a header.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            name => Self::Field(HeaderName::from_bytes(name.as_bytes()).ok()?),
        })
    }
}

impl TimePoint {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "DS_RX_BEG" => Self::DownstreamReceiveBegin,
            "DS_RX_END" => Self::DownstreamReceiveEnd,
            "US_TX_BEG" => Self::UpstreamSendBegin,
            "US_TX_END" => Self::UpstreamSendEnd,
            "US_RX_BEG" => Self::UpstreamReceiveBegin,
            "US_RX_END" => Self::UpstreamReceiveEnd,
            "DS_TX_BEG" => Self::DownstreamSendBegin,
            "DS_TX_END" => Self::DownstreamSendEnd,
            _ => return None,
        })
    }
}

impl TimePrecision {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ms" => Self::Milliseconds,
            "us" => Self::Microseconds,
            "ns" => Self::Nanoseconds,
            _ => return None,
        })
    }
}

impl Command {
    /// Whether JSON has it as a number.
    pub fn is_number(&self) -> bool {
        match self {
            Command::Fact(fact) => fact.is_number(),
            Command::CommonDuration { .. } | Command::GrpcStatus(GrpcStatusForm::Number) => true,
            _ => false,
        }
    }

    pub fn reads_request(&self) -> bool {
        use Fact::{RequestHeadersBytes, StreamId};
        matches!(
            self,
            Command::RequestHeader(..)
                | Command::Path { .. }
                | Command::QueryParameter(_)
                | Command::Fact(RequestHeadersBytes | StreamId)
        )
    }

    pub fn reads_response_headers(&self) -> bool {
        self.reads_grpc_status()
            || matches!(self, Command::ResponseHeader(..) | Command::Fact(Fact::ResponseHeadersBytes))
    }

    pub fn reads_trailers(&self) -> bool {
        self.reads_grpc_status()
            || matches!(self, Command::ResponseTrailer(..) | Command::Fact(Fact::ResponseTrailersBytes))
    }

    fn reads_grpc_status(&self) -> bool {
        matches!(self, Command::GrpcStatus(_) | Command::Fact(Fact::GrpcStatusNumber))
    }
}
