//! `envoy.extensions.filters.http.router.v3.Router`.

use weft_xds::pb::envoy::extensions::filters::http::router::v3::Router;

use crate::config::field::{self, Result, refuse};

#[derive(Clone, Debug)]
pub struct RouterFilter {
    pub suppress_envoy_headers: bool,
    /// Statistics by response code.
    pub dynamic_stats: bool,
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
        refuse!(strict_check_headers, respect_expected_rq_timeout, suppress_grpc_request_failure_code_stats);
        Ok(Self { suppress_envoy_headers, dynamic_stats: field::bool_or(dynamic_stats, true) })
    }
}
