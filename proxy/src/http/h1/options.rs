//! What a cluster's HTTP/1 connections are to do.

use super::{encode::RequestFormat, response_head::ResponseRules};
use crate::config::{cluster::ClusterConfig, http_protocol::Http1CodecOptions};

#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    pub(super) codec: Http1CodecOptions,
    pub(super) rules: ResponseRules,
    /// Of a request, waiting to be written.
    pub(super) buffer_bytes_max: usize,
    pub(super) format: RequestFormat,
}

/// Envoy's default for responses over HTTP/1.
const HEAD_BYTES_MAX: u32 = 80 * 1024;

impl ClientOptions {
    pub fn of(cluster: &ClusterConfig) -> ClientOptions {
        let codec = cluster.http1.codec;
        let scheme = if cluster.transport_socket.is_some() { "https" } else { "http" };
        ClientOptions {
            codec,
            rules: ResponseRules {
                head_bytes_max: cluster.max_response_headers_bytes.unwrap_or(HEAD_BYTES_MAX) as usize,
                fields_max: cluster.max_headers_count as usize,
                allow_chunked_length: codec.allow_chunked_length,
                preserve_case: codec.preserve_case,
            },
            buffer_bytes_max: cluster.per_connection_buffer_limit_bytes as usize,
            format: RequestFormat {
                case: codec.header_case,
                absolute_form: cluster.http1.send_fully_qualified_url.then_some(scheme),
            },
        }
    }
}
