use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message};

const BASE: &str = "num_retries: 1";

fn policy(yaml: &str) -> RetryPolicy {
    RetryPolicy::from_proto(message(yaml)).unwrap()
}

#[test]
fn a_meshs_default_policy_is_read() {
    let policy = policy(
        "
retry_on: connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes
num_retries: 2
retriable_status_codes: [503]
host_selection_retry_max_attempts: 5
retry_host_predicate:
- name: envoy.retry_host_predicates.previous_hosts
  typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}",
    );
    assert_eq!(
        policy.retry_on,
        RetryOn {
            connect_failure: true,
            refused_stream: true,
            grpc_unavailable: true,
            grpc_cancelled: true,
            retriable_status_codes: true,
            ..RetryOn::default()
        }
    );
    assert_eq!((policy.num_retries, policy.host_selection_retry_max_attempts), (2, 5));
    assert!(policy.host_predicates.previous_hosts && !policy.host_predicates.omit_canary);
    assert_eq!(policy.retriable_status_codes, [http::StatusCode::SERVICE_UNAVAILABLE]);
}

#[test]
fn defaults_are_envoys() {
    let policy = policy("{}");
    assert_eq!(
        (policy.num_retries, policy.host_selection_retry_max_attempts, policy.host_predicates.are_any()),
        (1, 1, false)
    );
    assert_eq!(policy.per_try_timeout, None);
    assert_eq!(policy.retry_on, RetryOn::default());
    assert_eq!(
        policy.back_off,
        BackOff { base_interval: Duration::from_millis(25), max_interval: Duration::from_millis(250) }
    );
}

#[test]
fn a_back_off_has_a_floor_and_a_ceiling() {
    let back_off = |yaml: &str| policy(&format!("retry_back_off: {yaml}")).back_off;
    let ms = Duration::from_millis;
    assert_eq!(back_off("{base_interval: 0.1s}"), BackOff { base_interval: ms(100), max_interval: ms(1000) });
    let both = BackOff { base_interval: ms(100), max_interval: ms(200) };
    assert_eq!(back_off("{base_interval: 0.1s, max_interval: 0.2s}"), both);
    assert_eq!(back_off("{base_interval: 0.0005s}"), BackOff { base_interval: ms(1), max_interval: ms(10) });
}

#[test]
fn every_condition_has_its_name_and_unknown_ones_are_passed_over() {
    let all = RetryOn::parse(
        "5xx, gateway-error,reset,reset-before-request,connect-failure,retriable-4xx,refused-stream,\
         retriable-status-codes,retriable-headers,envoy-ratelimited,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable",
    );
    let RetryOn {
        server_error,
        gateway_error,
        reset,
        reset_before_request,
        connect_failure,
        retriable_4xx,
        refused_stream,
        retriable_status_codes,
        retriable_headers,
        envoy_rate_limited,
        grpc_cancelled,
        grpc_deadline_exceeded,
        grpc_internal,
        grpc_resource_exhausted,
        grpc_unavailable,
    } = all;
    assert!(server_error && gateway_error && reset && reset_before_request && connect_failure && retriable_4xx);
    assert!(refused_stream && retriable_status_codes && grpc_cancelled && grpc_deadline_exceeded);
    assert!(grpc_internal && grpc_resource_exhausted && grpc_unavailable && retriable_headers && envoy_rate_limited);
    assert_eq!(RetryOn::parse(",foo, ,http3-post-connect-failure"), RetryOn::default());
    assert!(RetryOn::parse("cancelled,internal").is_grpc_alone() && !RetryOn::parse("cancelled,5xx").is_grpc_alone());
    assert_eq!(RetryOn::parse("5xx").or(RetryOn::parse("reset")), RetryOn::parse("reset,5xx"));
}

#[test]
fn headers_decide_about_retries() {
    let policy = policy(
        "{retriable_headers: [{name: a}], retriable_request_headers: [{name: b}], \
         rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: x, format: UNIX_TIMESTAMP}]}}",
    );
    assert_eq!((policy.retriable_headers.len(), policy.retriable_request_headers.len()), (1, 1));
    let name = http::HeaderName::from_static;
    let back_off = RateLimitedBackOff {
        reset_headers: vec![(name("retry-after"), ResetFormat::Seconds), (name("x"), ResetFormat::UnixTimestamp)],
        max_interval: Duration::from_secs(300),
    };
    assert_eq!(policy.rate_limited_back_off, Some(back_off));
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        BASE,
        RetryPolicy::from_proto,
        &["retry_options_predicates: [{name: x}]", "refresh_cluster_on_retry: true"],
    );
    assert_refused(
        BASE,
        RetryPolicy::from_proto,
        &[
            ("host_selection_retry_max_attempts: -5", "host_selection_retry_max_attempts: -5 is out of range"),
            ("retriable_status_codes: [503, 99]", "retriable_status_codes[1]: not an HTTP status code"),
            ("per_try_timeout: -1s", "per_try_timeout: duration must not be negative"),
            ("retry_back_off: {}", "retry_back_off.base_interval: value is required"),
            (
                "retry_back_off: {base_interval: 1s, max_interval: 0.5s}",
                "retry_back_off.max_interval: value must not be less than base_interval",
            ),
            (
                "retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]",
                "retry_host_predicate[0].typed_config: value is required",
            ),
            (
                "retry_host_predicate: [{name: x, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}}]",
                "retry_host_predicate[0].typed_config: google.protobuf.Empty is not supported",
            ),
        ],
    );
}

#[test]
fn later_tries_may_do_without_some_hosts_and_priorities() {
    let policy = policy(
        "
per_try_idle_timeout: 2s
retry_priority:
  name: envoy.retry_priorities.previous_priorities
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig
    update_frequency: 2
retry_host_predicate:
- name: canaries
  typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate}
- name: metadata
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig
    metadata_match: {filter_metadata: {envoy.lb: {slow: true}}}",
    );
    assert_eq!(policy.previous_priorities_after, Some(2));
    assert_eq!(policy.per_try_idle_timeout, Some(Duration::from_secs(2)));
    assert!(policy.host_predicates.omit_canary && !policy.host_predicates.previous_hosts);
    assert_eq!(policy.host_predicates.omit_metadata.len(), 1);
}
