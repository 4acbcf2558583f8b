//! `envoy.extensions.filters.http.router.v3.Router`.

use weft_xds::{FieldError, pb::envoy::extensions::filters::http::router::v3::Router};

use crate::config::field::{self, Result, refuse};

#[derive(Clone, Debug)]
pub struct RouterFilter {
    pub suppress_envoy_headers: bool,
    /// Statistics by response code.
    pub dynamic_stats: bool,
    /// Request headers whose bad values are refused instead of overlooked.
    pub strict_check_headers: Vec<http::HeaderName>,
    /// A given `x-envoy-expected-rq-timeout-ms` is how long the caller waits: believed, and no longer the route's timeout.
    pub respect_expected_rq_timeout: bool,
}

impl RouterFilter {
    #[expect(deprecated, reason = "named to be refused")]
    pub(super) fn from_proto(message: Router) -> Result<Self> {
        let Router {
            dynamic_stats,
            start_child_span,
            upstream_log,
            upstream_log_options,
            suppress_envoy_headers,
            strict_check_headers,
            respect_expected_rq_timeout,
            suppress_grpc_request_failure_code_stats,
            upstream_http_filters,
            reject_connect_request_early_data: _, // CONNECT is refused, early data with it
        } = message;
        refuse!(start_child_span, upstream_log, upstream_log_options, upstream_http_filters);
        refuse!(suppress_grpc_request_failure_code_stats);
        Ok(Self {
            suppress_envoy_headers,
            dynamic_stats: field::bool_or(dynamic_stats, true),
            strict_check_headers: field::each(strict_check_headers, "strict_check_headers", |name| {
                http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldError::new("", "not a header name"))
            })?,
            respect_expected_rq_timeout,
        })
    }
}
