use super::*;
use crate::config::http_protocol::{HeaderCase, Http1CodecOptions};
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const ROUTER: &str =
    "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const EMPTY: &str = "{'@type': type.googleapis.com/google.protobuf.Empty, value: {}}";

/// Without its filters and routes.
fn open(fields: &str) -> String {
    format!("stat_prefix: in\n{fields}")
}

fn base() -> String {
    open(&format!("http_filters: [{ROUTER}]\nroute_config: {{name: r}}"))
}

fn manager(fields: &str) -> HttpConnectionManager {
    HttpConnectionManager::from_proto(message(&format!("{}\n{fields}", base()))).unwrap()
}

fn refused(fields: &str) -> String {
    refusal(HttpConnectionManager::from_proto(weft_xds::json::from_yaml(&open(fields)).unwrap()))
}

#[test]
fn defaults_are_envoys() {
    let manager = manager("");
    assert_eq!((&*manager.stat_prefix, manager.codec_type), ("in", CodecType::Auto));
    assert!(matches!(&manager.routes, RouteSource::Inline(table) if table.validate_clusters));
    assert_eq!(manager.server_name, "envoy");
    assert_eq!(manager.server_header_transformation, ServerHeaderTransformation::Overwrite);
    assert_eq!(manager.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!((manager.request_timeout, manager.request_headers_timeout), (None, None));
    assert_eq!((manager.max_connection_duration, manager.max_requests_per_connection), (None, None));
    assert_eq!(
        (manager.drain_timeout, manager.delayed_close_timeout),
        (Duration::from_secs(5), Duration::from_secs(1))
    );
    assert_eq!((manager.max_request_headers_bytes, manager.max_headers_count), (60 * 1024, 100));
    let RequestIdOptions { generate, preserve_external, always_set_in_response } = manager.request_id;
    assert!(generate && !preserve_external && !always_set_in_response);
    assert!(!manager.caller.use_remote_address && !manager.caller.skip_xff_append);
    assert_eq!((manager.path, manager.host), (PathOptions::default(), HostOptions::default()));
    assert_eq!((manager.underscores, manager.max_stream_duration), (UnderscoresAction::Allow, None));
    assert_eq!(manager.client_cert, ForwardClientCert::default());
    assert!(manager.local_reply.is_plain() && manager.kept == KeptMessages::default());
    assert!(manager.via.is_none());
    assert!(!manager.http1.accept_http_10 && manager.http1.default_host_for_http_10.is_none());
    let Http2Options {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        stream_error_on_invalid_message,
        custom_settings,
        huffman,
        header_field_bytes_max,
        floods,
        keepalive,
    } = manager.http2;
    assert!(!allow_connect && !stream_error_on_invalid_message && custom_settings.is_empty() && huffman.is_none());
    assert_eq!((header_field_bytes_max, floods.max_outbound_frames), (64 << 10, 10_000));
    assert_eq!((floods.max_outbound_control_frames, floods.max_inbound_priority_frames_per_stream), (1000, 100));
    assert_eq!(floods.max_consecutive_inbound_frames_with_empty_payload, 1);
    assert_eq!(floods.max_inbound_window_update_frames_per_data_frame_sent, 10);
    assert_eq!((floods.stream_reset_burst, floods.stream_reset_rate), (1000, 33));
    assert_eq!((hpack_table_size, max_concurrent_streams), (4096, 1024));
    assert_eq!((initial_stream_window_size, initial_connection_window_size), (16 << 20, 24 << 20));
    assert!(keepalive.is_none());
    let router = &manager.http_filters.router;
    assert!(manager.http_filters.filters.is_empty());
    assert!(router.dynamic_stats && !router.suppress_envoy_headers);
}

#[test]
fn http2_options_are_read() {
    let manager = manager(
        "http2_protocol_options:
  allow_connect: true
  max_outbound_frames: 2
  max_outbound_control_frames: 3
  max_consecutive_inbound_frames_with_empty_payload: 0
  max_inbound_priority_frames_per_stream: 4
  max_inbound_window_update_frames_per_data_frame_sent: 5
  override_stream_error_on_invalid_http_message: true
  custom_settings_parameters: [{identifier: 9, value: 7}, {identifier: 9, value: 7}]
  enable_huffman_encoding: false
  max_header_field_size_kb: 65
  stream_reset_burst: 6
  stream_reset_rate: 7",
    );
    let options = manager.http2;
    assert!(options.allow_connect && options.stream_error_on_invalid_message);
    assert_eq!((&*options.custom_settings, options.huffman), (&[(9, 7)][..], Some(false)));
    assert_eq!(options.header_field_bytes_max, 65 << 10);
    let floods = options.floods;
    assert_eq!((floods.max_outbound_frames, floods.max_outbound_control_frames), (2, 3));
    assert_eq!(floods.max_consecutive_inbound_frames_with_empty_payload, 0);
    assert_eq!(floods.max_inbound_priority_frames_per_stream, 4);
    assert_eq!(floods.max_inbound_window_update_frames_per_data_frame_sent, 5);
    assert_eq!((floods.stream_reset_burst, floods.stream_reset_rate), (6, 7));
    let custom = |parameters: &str| format!("http2_protocol_options: {{custom_settings_parameters: [{parameters}]}}");
    let path = "http2_protocol_options.custom_settings_parameters";
    assert_refused(
        &base(),
        HttpConnectionManager::from_proto,
        &[
            (&custom("{identifier: 1, value: 1}"), &format!("{path}[0].identifier: is set by hpack_table_size")),
            (&custom("{identifier: 2, value: 0}"), &format!("{path}[0].identifier: server push is not supported")),
            (
                &custom("{identifier: 9, value: 1}, {identifier: 9, value: 2}"),
                &format!("{path}[1].identifier: was given another value before"),
            ),
        ],
    );
}

#[test]
fn settings_are_read() {
    let manager = manager(
        "
codec_type: HTTP2
server_name: s
server_header_transformation: PASS_THROUGH
common_http_protocol_options:
  {idle_timeout: 0s, max_connection_duration: 9s, max_requests_per_connection: 5, max_headers_count: 7,
   max_stream_duration: 8s, headers_with_underscores_action: DROP_HEADER}
stream_idle_timeout: 0s
request_timeout: 3s
request_headers_timeout: 4s
drain_timeout: 0s
delayed_close_timeout: 0s
max_request_headers_kb: 8
http_protocol_options: {accept_http_10: true, default_host_for_http_10: h, allow_absolute_url: true, enable_trailers: true,
  allow_chunked_length: true, allow_custom_methods: true, use_balsa_parser: true, header_key_format: {proper_case_words: {}}}
proxy_100_continue: true
http2_protocol_options:
  {max_concurrent_streams: 10, hpack_table_size: 0, connection_keepalive: {interval: 30s, timeout: 5s}}
use_remote_address: true
via: v
generate_request_id: false
normalize_path: true
merge_slashes: true
path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
strip_any_host_port: true
strip_trailing_host_dot: true
scheme_header_transformation: {scheme_to_overwrite: https, match_upstream: true}
internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
xff_num_trusted_hops: 2
append_x_forwarded_port: true
forward_client_cert_details: APPEND_FORWARD
set_current_client_cert_details: {uri: true, subject: true, cert: true}
access_log_options: {flush_access_log_on_new_request: true, access_log_flush_interval: 2s}
request_id_extension: {typed_config: {'@type': type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig}}
local_reply_config: {mappers: [{filter: {not_health_check_filter: {}}, status_code: 510, body: {inline_string: b}}]}",
    );
    assert_eq!((manager.codec_type, manager.server_name), (CodecType::Http2, http::HeaderValue::from_static("s")));
    assert_eq!(manager.server_header_transformation, ServerHeaderTransformation::PassThrough);
    assert_eq!((manager.idle_timeout, manager.stream_idle_timeout), (None, None));
    assert_eq!(manager.max_connection_duration, Some(Duration::from_secs(9)));
    assert_eq!((manager.max_requests_per_connection, manager.max_headers_count), (Some(5), 7));
    assert_eq!(manager.request_timeout, Some(Duration::from_secs(3)));
    assert_eq!(manager.request_headers_timeout, Some(Duration::from_secs(4)));
    assert_eq!((manager.drain_timeout, manager.delayed_close_timeout), (Duration::ZERO, Duration::ZERO));
    assert_eq!(manager.max_request_headers_bytes, 8192);
    assert_eq!(manager.http1.default_host_for_http_10.as_deref(), Some("h"));
    let codec = Http1CodecOptions {
        enable_trailers: true,
        allow_chunked_length: true,
        header_case: HeaderCase::ProperWords,
        preserve_case: None,
    };
    assert_eq!((manager.http1.codec, manager.http1.allow_custom_methods), (codec, true));
    assert!(manager.proxy_100_continue);
    assert_eq!((manager.http2.max_concurrent_streams, manager.http2.hpack_table_size), (10, 0));
    let keepalive = manager.http2.keepalive.unwrap();
    assert_eq!((keepalive.interval, keepalive.timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!(manager.via.unwrap().as_bytes(), b"v");
    assert!(manager.caller.use_remote_address && !manager.request_id.generate);
    assert_eq!((manager.caller.xff_trusted_hops, manager.caller.append_x_forwarded_port), (2, true));
    assert!(
        manager.caller.internal.contains([10, 1, 1, 1].into())
            && !manager.caller.internal.contains([11, 1, 1, 1].into())
    );
    let path =
        PathOptions { escaped_slashes: EscapedSlashes::UnescapeAndRedirect, normalize: true, merge_slashes: true };
    assert_eq!(manager.path, path);
    assert_eq!(manager.host, HostOptions { strip_port: StripPort::Any, strip_trailing_dot: true });
    assert_eq!(manager.scheme, SchemeOptions { overwrite: Some("https"), match_upstream: true });
    assert_eq!(
        (manager.underscores, manager.max_stream_duration),
        (UnderscoresAction::Drop, Some(Duration::from_secs(8)))
    );
    let ForwardClientCert { forwarding, details } = manager.client_cert;
    assert_eq!(forwarding, ClientCertForwarding::AppendForward);
    assert_eq!(details, [ClientCertDetail::Cert, ClientCertDetail::Subject, ClientCertDetail::Uri]);
    let logs = ManagerLogOptions {
        flush_interval: Some(Duration::from_secs(2)),
        flush_on_new_request: true,
        flush_on_tunnel: false,
    };
    assert_eq!(manager.access_log_options, logs);
    let [mapper] = &manager.local_reply.mappers[..] else { panic!("{:?}", manager.local_reply) };
    assert_eq!((mapper.status.unwrap().as_u16(), mapper.body.as_deref()), (510, Some(&b"b"[..])));
    assert!(manager.kept.request && !manager.kept.response);
}

#[test]
fn routes_may_come_by_the_stream() {
    let rds = |config_source: &str| {
        let fields = format!("http_filters: [{ROUTER}]\nrds: {{route_config_name: x, config_source: {config_source}}}");
        HttpConnectionManager::from_proto(message(&open(&fields)))
    };
    let manager = rds("{ads: {}, resource_api_version: V3}").unwrap();
    let RouteSource::Rds(table) = manager.routes else { panic!("not RDS") };
    assert_eq!((&*table.key.name, table.initial_fetch_timeout), ("x", Some(Duration::from_secs(15))));
    let manager = rds("{ads: {}, initial_fetch_timeout: 0s}").unwrap();
    assert!(matches!(manager.routes, RouteSource::Rds(Discovered { initial_fetch_timeout: None, .. })));
    for (source, expected) in [
        ("{self: {}}", "rds.config_source.self: not supported"),
        (
            "{path_config_source: {path: /none}}",
            "rds.config_source.path_config_source.path: paths must refer to an existing path in the system: '/none' does \
             not exist",
        ),
        ("{ads: {}, resource_api_version: V2}", "rds.config_source.resource_api_version: V2 is not supported"),
        ("{ads: {}, authorities: [{name: x}]}", "rds.config_source.authorities: not supported"),
    ] {
        assert_eq!(refusal(rds(source)), expected);
    }
}

#[test]
fn the_router_is_the_last_filter() {
    let chain = |filters: &str| refused(&format!("route_config: {{}}\nhttp_filters: [{filters}]"));
    assert_eq!(chain(""), "http_filters: the last filter must be the router");
    assert_eq!(
        chain(&format!("{ROUTER}, {ROUTER}")),
        "http_filters[0]: the router must be the last filter of its chain"
    );
    let disabled = ROUTER.replace("{name: r", "{name: r, disabled: true");
    assert_eq!(chain(&disabled), "http_filters[0].disabled: the router cannot be disabled");
    assert_eq!(chain("{name: envoy.filters.http.router}"), "http_filters[0].typed_config: value is required");
    assert_eq!(chain("{name: x, config_discovery: {}}"), "http_filters[0].config_discovery: not supported");
    let unknown = format!("{{name: x, typed_config: {EMPTY}}}");
    assert_eq!(
        chain(&format!("{unknown}, {ROUTER}")),
        "http_filters[0].typed_config: google.protobuf.Empty is not supported"
    );
}

#[test]
fn an_optional_filter_that_is_not_known_is_left_out() {
    let filters = format!("http_filters: [{{name: x, is_optional: true, typed_config: {EMPTY}}}, {ROUTER}]");
    let manager = HttpConnectionManager::from_proto(message(&open(&format!("{filters}\nroute_config: {{}}")))).unwrap();
    assert!(manager.http_filters.filters.is_empty());
}

#[test]
fn what_the_router_does_not_do_is_refused() {
    for (fields, expected) in [
        ("start_child_span: true", "start_child_span"),
        ("upstream_log: [{}]", "upstream_log"),
        ("upstream_log_options: {}", "upstream_log_options"),
        ("suppress_grpc_request_failure_code_stats: true", "suppress_grpc_request_failure_code_stats"),
        ("upstream_http_filters: [{name: x}]", "upstream_http_filters"),
    ] {
        let router = ROUTER.replace("v3.Router}", &format!("v3.Router, {fields}}}"));
        let error = refused(&format!("route_config: {{}}\nhttp_filters: [{router}]"));
        assert_eq!(error, format!("http_filters[0].typed_config.{expected}: not supported"));
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        &base(),
        HttpConnectionManager::from_proto,
        &[
            "tracing: {}",
            "http1_safe_max_connection_duration: true",
            "http3_protocol_options: {}",
            "stream_flush_timeout: 1s",
            "drain_timeout_jitter: {value: 1}",
            "forward_client_cert_matcher: {}",
            "path_normalization_options: {}",
            "proxy_status_config: {}",
            "typed_header_validation_config: {}",
            "add_proxy_protocol_connection_state: true",
            "forward_proto_config: {}",
        ],
    );
    assert_refused(
        &base(),
        HttpConnectionManager::from_proto,
        &[
            ("codec_type: HTTP3", "codec_type: HTTP3 is not supported"),
            (
                "access_log_options: {}\nflush_access_log_on_new_request: true",
                "flush_access_log_on_new_request: cannot be set together with access_log_options",
            ),
            (
                "original_ip_detection_extensions: [{name: x}]",
                "original_ip_detection_extensions[0].typed_config: value is required",
            ),
            (
                "early_header_mutation_extensions: [{name: x}]",
                "early_header_mutation_extensions[0].typed_config: value is required",
            ),
            (
                "strip_any_host_port: true\nstrip_matching_host_port: true",
                "strip_any_host_port: cannot be set together with strip_matching_host_port",
            ),
            (
                "use_remote_address: true\noriginal_ip_detection_extensions: [{name: x, typed_config: {'@type': \
                 type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig}}]",
                "original_ip_detection_extensions: original IP detection extensions and use_remote_address may not be mixed",
            ),
            ("add_user_agent: true", "add_user_agent: true is not supported"),
            ("max_request_headers_kb: 4294967295", "max_request_headers_kb: value out of range"),
            ("via: \"a\\nb\"", "via: not a valid header value"),
        ],
    );
    assert_eq!(refused(&format!("http_filters: [{ROUTER}]\nscoped_routes: {{}}")), "scoped_routes: not supported");
    assert_eq!(refused(&format!("http_filters: [{ROUTER}]")), "route_specifier: value is required");
}

#[test]
fn what_connections_do_not_do_is_refused() {
    for (field, line, expected) in [
        ("common_http_protocol_options", "max_connection_duration_jitter: {value: 1}", "not supported"),
        ("common_http_protocol_options", "max_response_headers_kb: 1", "not supported"),
        ("common_http_protocol_options", "max_connection_duration: 0s", "value must be greater than 0s"),
        ("http_protocol_options", "send_fully_qualified_url: true", "not supported"),
        ("http_protocol_options", "ignore_http_11_upgrade: [{}]", "not supported"),
        ("http_protocol_options", "allow_absolute_url: false", "false is not supported"),
        ("http2_protocol_options", "allow_metadata: true", "not supported"),
    ] {
        let (name, _) = line.split_once(':').unwrap();
        assert_refused(
            &base(),
            HttpConnectionManager::from_proto,
            &[(&format!("{field}: {{{line}}}"), &format!("{field}.{name}: {expected}"))],
        );
    }
    let keepalive = |fields: &str| format!("http2_protocol_options: {{connection_keepalive: {{{fields}}}}}");
    let path = "http2_protocol_options.connection_keepalive";
    assert_refused(
        &base(),
        HttpConnectionManager::from_proto,
        &[
            (&keepalive("interval: 1s"), &format!("{path}.timeout: value is required")),
            (
                &keepalive("timeout: 1s, connection_idle_interval: 1s"),
                &format!("{path}.connection_idle_interval: not supported"),
            ),
        ],
    );
}
