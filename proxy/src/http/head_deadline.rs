//! How long a request's head may take, from its first byte to its last: the first of what the connection manager sets. Both
//! codecs ask; what is late is answered all the same.

use std::time::Duration;

use http::StatusCode;

use crate::{
    config::http_connection_manager::HttpConnectionManager,
    http::{local_reply::LocalReply, response_flags::ResponseFlags},
    stats::HttpStat,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadDeadline {
    RequestHeaders,
    Request,
    StreamIdle,
}

impl HeadDeadline {
    /// None: a head may take as long as it wants.
    pub fn first(config: &HttpConnectionManager) -> Option<(HeadDeadline, Duration)> {
        let deadlines = [
            (HeadDeadline::RequestHeaders, config.request_headers_timeout),
            (HeadDeadline::Request, config.request_timeout),
            (HeadDeadline::StreamIdle, config.stream_idle_timeout),
        ];
        deadlines.into_iter().filter_map(|(which, after)| Some((which, after?))).min_by_key(|(_, after)| *after)
    }

    pub fn stat(self) -> HttpStat {
        match self {
            HeadDeadline::RequestHeaders => HttpStat::RqHeaderTimeout,
            HeadDeadline::Request => HttpStat::RqTimeout,
            HeadDeadline::StreamIdle => HttpStat::RqIdleTimeout,
        }
    }

    pub fn reply(self) -> LocalReply {
        let (flags, details, body) = match self {
            HeadDeadline::RequestHeaders => {
                (ResponseFlags::default(), "request_header_timeout", "request header timeout")
            }
            HeadDeadline::Request => (ResponseFlags::default(), "request_overall_timeout", "request timeout"),
            HeadDeadline::StreamIdle => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout", "stream timeout"),
        };
        LocalReply::new(StatusCode::REQUEST_TIMEOUT, flags, details).with_body(body)
    }
}
