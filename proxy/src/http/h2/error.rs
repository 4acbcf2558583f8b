//! How streams and connections end before their time, with the words of Envoy's `%RESPONSE_CODE_DETAILS%`.

use super::{frame::Reason, limits::Flood};
use crate::stats::Http2Stat;

/// Why a stream ended without both sides having finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("the peer reset the stream: {0}")]
    RemoteReset(Reason),
    /// What the peer sent on it broke a rule, and it was reset.
    #[error("the peer broke a rule of HTTP/2: {0}")]
    Violation(&'static str),
    /// There was more of a header block than is taken, and it was reset.
    #[error("headers over a limit: {0}")]
    HeadersOverLimit(&'static str),
    /// Reset by us.
    #[error("reset: {0}")]
    LocalReset(Reason),
    /// RFC 9113 section 6.8: the peer went away and says that it has not processed the request.
    #[error("the peer went away before the stream was processed")]
    Unprocessed,
    /// The peer broke a rule, on this stream or another, and the connection ended.
    #[error("the connection ended: {0}")]
    ConnectionViolation(&'static str),
    #[error("the connection was closed")]
    Disconnected,
}

/// The connection ends: RFC 9113 section 5.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {debug}")]
pub struct ConnectionFault {
    pub reason: Reason,
    /// What the peer is told.
    pub debug: &'static str,
    pub stat: Option<Http2Stat>,
    /// What is logged of the stream at fault, where one is.
    pub details: &'static str,
    /// No rule was broken, but too much was asked for.
    pub is_flood: bool,
}

/// Of the streams that were not at fault when the connection ended.
pub const OTHER_STREAMS_DETAILS: &str = "codec_error:The_user_callback_function_failed";

impl ConnectionFault {
    pub const fn new(reason: Reason, debug: &'static str) -> ConnectionFault {
        ConnectionFault { reason, debug, stat: None, details: OTHER_STREAMS_DETAILS, is_flood: false }
    }

    pub const fn protocol(debug: &'static str) -> ConnectionFault {
        Self::new(Reason::PROTOCOL_ERROR, debug)
    }
}

impl From<Flood> for ConnectionFault {
    fn from(Flood { stat, details }: Flood) -> Self {
        ConnectionFault { reason: Reason::ENHANCE_YOUR_CALM, debug: "flood", stat, details, is_flood: stat.is_some() }
    }
}

/// What is wrong with the fields of a message: RFC 9113 section 8.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// One field by itself.
    Field,
    /// The message as a whole.
    Message,
    TooMany,
    TooLarge,
}

impl Malformed {
    pub fn details(self) -> &'static str {
        match self {
            Malformed::Field => "http2.invalid.header.field",
            Malformed::Message => "http2.violation.of.messaging.rule",
            Malformed::TooMany => "http2.too_many_headers",
            Malformed::TooLarge => "http2.header_list_size_too_large",
        }
    }
}
