//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::{sync::Arc, time::Duration};

use crate::config::{access_log::AccessLog, route::RouteTable};

#[derive(Debug)]
pub struct HttpConnectionManager {
    pub stat_prefix: Arc<str>,
    pub codec_type: CodecType,
    pub routes: RouteSource,
    /// In order; the router is last.
    pub http_filters: Vec<HttpFilter>,
    pub server_name: http::HeaderValue,
    pub server_header_transformation: ServerHeaderTransformation,
    /// `common_http_protocol_options.idle_timeout`: no request on the connection for this long. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// None: unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Default 5 minutes; None: never.
    pub stream_idle_timeout: Option<Duration>,
    /// The whole request must have arrived. None: never.
    pub request_timeout: Option<Duration>,
    /// The request's headers must have arrived. None: never.
    pub request_headers_timeout: Option<Duration>,
    /// Default 5 s.
    pub drain_timeout: Duration,
    /// Default 1 s.
    pub delayed_close_timeout: Duration,
    /// Default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_headers_count: u32,
    pub http1: Http1Options,
    pub http2: Http2Options,
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub always_set_request_id_in_response: bool,
    pub via: Option<http::HeaderValue>,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub access_log: Vec<AccessLog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    Rds { route_config_name: Arc<str>, initial_fetch_timeout: Option<Duration> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeaderTransformation {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Clone, Debug)]
pub enum HttpFilter {
    Router(RouterFilter),
}

#[derive(Clone, Debug)]
pub struct RouterFilter {
    pub suppress_envoy_headers: bool,
    /// Adds `x-envoy-upstream-service-time`... and per-cluster dynamic statistics by response code.
    pub dynamic_stats: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<String>,
}

/// Defaults are Envoy's; sizes in bytes.
#[derive(Clone, Debug)]
pub struct Http2Options {
    pub hpack_table_size: u32,
    pub max_concurrent_streams: u32,
    pub initial_stream_window_size: u32,
    pub initial_connection_window_size: u32,
    pub keepalive: Option<Http2Keepalive>,
}

#[derive(Clone, Debug)]
pub struct Http2Keepalive {
    pub interval: Duration,
    pub timeout: Duration,
}
