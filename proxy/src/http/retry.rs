//! Whether and when a failed try is followed by another: pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::{
    config::{
        metadata::{LB_NAMESPACE, Value},
        route::{BackOff, HostPredicates, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy},
    },
    http::route::matcher::response_header_matches,
    upstream::host::Host,
};

/// How a try failed before its response began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryFailure {
    /// No connection: nothing was sent.
    Connect,
    /// The peer said that it has not processed the stream (RFC 9113 section 8.7).
    RefusedStream,
    /// A connection from the pool was closed by the peer before anything of the request was written to it.
    ResetBeforeRequest,
    /// Reset or closed after the request, or a part of it, was sent.
    Reset,
    PerTryTimeout,
}

/// The names of Envoy's `retry_on` that a failure without a response answers to.
pub fn retries_failure(on: &RetryOn, failure: TryFailure) -> bool {
    match failure {
        TryFailure::Connect => {
            on.connect_failure || on.reset_before_request || on.gateway_error || on.server_error || on.reset
        }
        TryFailure::RefusedStream => on.refused_stream || on.gateway_error || on.server_error || on.reset,
        TryFailure::ResetBeforeRequest => on.reset_before_request || on.gateway_error || on.server_error || on.reset,
        TryFailure::Reset | TryFailure::PerTryTimeout => on.gateway_error || on.server_error || on.reset,
    }
}

pub fn retries_response(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = &policy.retry_on;
    // Somebody upstream limits the rate: more of the same would not help, unless that is asked for.
    if headers.contains_key("x-envoy-ratelimited") {
        return on.envoy_rate_limited;
    }
    let code = status.as_u16();
    let by_status = (on.server_error && status.is_server_error())
        || (on.gateway_error && matches!(code, 502..=504))
        || (on.retriable_4xx && code == 409)
        || (on.retriable_status_codes && policy.retriable_status_codes.contains(&status))
        || (on.retriable_headers
            && policy.retriable_headers.iter().any(|matcher| response_header_matches(matcher, status, headers)));
    // Only a trailers-only response tells the gRPC status in time.
    by_status || headers.get("grpc-status").is_some_and(|status| retries_grpc(on, status.as_bytes()))
}

fn retries_grpc(on: &RetryOn, status: &[u8]) -> bool {
    match status {
        b"1" => on.grpc_cancelled,
        b"4" => on.grpc_deadline_exceeded,
        b"8" => on.grpc_resource_exhausted,
        b"13" => on.grpc_internal,
        b"14" => on.grpc_unavailable,
        _ => false,
    }
}

/// Whether a later try does without the host. `tried`: the ids of those before.
pub fn refuses_host(predicates: &HostPredicates, host: &Host, tried: &[u64]) -> bool {
    let labels = || host.metadata.namespace(LB_NAMESPACE);
    // A list stands for any of its values.
    let has = |name: &str, wanted: &Value| match labels().and_then(|labels| labels.get(name)) {
        Some(Value::List(values)) => values.contains(wanted),
        found => found == Some(wanted),
    };
    predicates.previous_hosts && tried.contains(&host.id)
        || predicates.omit_canary && has("canary", &Value::Bool(true))
        || predicates.omit_metadata.iter().any(|wanted| wanted.iter().all(|(name, value)| has(name, value)))
}

/// The priorities that a request has tried, and those that it passes over from now on.
#[derive(Debug, Default)]
pub struct PassedOver {
    tried: Vec<usize>,
    levels: Vec<bool>,
}

impl PassedOver {
    pub fn tried(&mut self, level: usize) {
        self.tried.push(level);
    }

    /// Before a try. `has_others`: whether there is anybody besides these. Empty: none is passed over.
    pub fn next(&mut self, after: u32, has_others: impl FnOnce(&[bool]) -> bool) -> &[bool] {
        let tries = self.tried.len() as u32;
        if tries > 0 && tries.is_multiple_of(after) {
            for &level in &self.tried {
                if self.levels.len() <= level {
                    self.levels.resize(level + 1, false);
                }
                self.levels[level] = true;
            }
            if !has_others(&self.levels) {
                // All were tried: it begins anew.
                self.levels.clear();
                self.tried.clear();
            }
        }
        &self.levels
    }
}

/// When the response says to come again, if that is not too far away: `random` is in 0..1, `now` since 1970.
pub fn reset_interval(
    config: &RateLimitedBackOff,
    headers: &HeaderMap,
    now: Duration,
    random: f64,
) -> Option<Duration> {
    let interval = config.reset_headers.iter().find_map(|(name, format)| {
        let seconds: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        let interval = match format {
            ResetFormat::Seconds => Duration::from_secs(seconds),
            ResetFormat::UnixTimestamp => Duration::from_secs(seconds).checked_sub(now)?,
        };
        (interval <= config.max_interval).then_some(interval)
    })?;
    // Not all at once: up to half of it later.
    Some(interval + interval.mul_f64(random / 2.0))
}

/// Full jitter over a doubling interval. `retry` counts from 0; `random` is in 0..1.
pub fn back_off(config: &BackOff, retry: u32, random: f64) -> Duration {
    let doubled = config.base_interval.saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX));
    doubled.min(config.max_interval).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retry_on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            retry_on,
            retriable_status_codes: vec![StatusCode::SERVICE_UNAVAILABLE],
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn a_response_says_when_to_come_again() {
        let name = http::HeaderName::from_static("x-reset");
        let config = |format| RateLimitedBackOff {
            reset_headers: vec![(name.clone(), format)],
            max_interval: Duration::from_secs(60),
        };
        let headers = |value: &str| HeaderMap::from_iter([(name.clone(), value.parse().expect("a value"))]);
        let now = Duration::from_secs(1_000);
        let wait = |format, value: &str, random| reset_interval(&config(format), &headers(value), now, random);
        assert_eq!(wait(ResetFormat::Seconds, "10", 0.0), Some(Duration::from_secs(10)));
        assert_eq!(wait(ResetFormat::Seconds, "10", 1.0), Some(Duration::from_secs(15)));
        assert_eq!(wait(ResetFormat::UnixTimestamp, "1005", 0.0), Some(Duration::from_secs(5)));
        assert_eq!(wait(ResetFormat::Seconds, "61", 0.0), None);
        assert_eq!(wait(ResetFormat::UnixTimestamp, "5", 0.0), None);
        assert_eq!(wait(ResetFormat::Seconds, "soon", 0.0), None);
    }

    #[test]
    fn a_rate_limited_response_is_left_alone_unless_asked_for() {
        let limited =
            HeaderMap::from_iter([("x-envoy-ratelimited".parse().expect("a name"), "true".parse().expect("a value"))]);
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let on = |retry_on| retries_response(&policy(retry_on), status, &limited);
        assert!(!on(RetryOn { server_error: true, ..Default::default() }));
        assert!(on(RetryOn { envoy_rate_limited: true, ..Default::default() }));
    }

    #[test]
    fn a_request_that_may_have_been_processed_is_repeated_only_when_the_policy_names_it() {
        let safe =
            RetryOn { connect_failure: true, refused_stream: true, reset_before_request: true, ..Default::default() };
        assert!(retries_failure(&safe, TryFailure::Connect));
        assert!(retries_failure(&safe, TryFailure::RefusedStream));
        assert!(retries_failure(&safe, TryFailure::ResetBeforeRequest));
        assert!(!retries_failure(&safe, TryFailure::Reset));
        assert!(!retries_failure(&safe, TryFailure::PerTryTimeout));
        let before = RetryOn { reset_before_request: true, ..Default::default() };
        assert!(retries_failure(&before, TryFailure::Connect), "without a connection nothing of it was sent");
        let reset = RetryOn { reset: true, ..Default::default() };
        assert!(retries_failure(&reset, TryFailure::Reset) && retries_failure(&reset, TryFailure::Connect));
    }

    #[test]
    fn responses_by_status_and_by_grpc_status() {
        let none = HeaderMap::new();
        let status = |code: u16| StatusCode::from_u16(code).expect("a status");
        let server_error = policy(RetryOn { server_error: true, ..Default::default() });
        assert!(
            retries_response(&server_error, status(500), &none) && !retries_response(&server_error, status(404), &none)
        );
        let gateway = policy(RetryOn { gateway_error: true, ..Default::default() });
        assert!(retries_response(&gateway, status(502), &none) && !retries_response(&gateway, status(500), &none));
        let codes = policy(RetryOn { retriable_status_codes: true, ..Default::default() });
        assert!(retries_response(&codes, status(503), &none) && !retries_response(&codes, status(502), &none));
        let grpc = policy(RetryOn { grpc_unavailable: true, ..Default::default() });
        let headers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "14".parse().expect("a value"))]);
        assert!(retries_response(&grpc, status(200), &headers) && !retries_response(&grpc, status(200), &none));
    }

    #[test]
    fn priorities_are_passed_over_until_none_is_left() {
        let mut passed = PassedOver::default();
        let others = |of: usize| move |levels: &[bool]| levels.iter().filter(|passed| **passed).count() < of;
        assert!(passed.next(1, others(2)).is_empty());
        passed.tried(0);
        assert_eq!(passed.next(1, others(2)), [true]);
        passed.tried(1);
        assert!(passed.next(1, others(2)).is_empty(), "both were tried");
        let mut passed = PassedOver::default();
        passed.tried(1);
        assert!(passed.next(2, others(2)).is_empty(), "only after two");
        passed.tried(1);
        assert_eq!(passed.next(2, others(2)), [false, true]);
    }

    #[test]
    fn hosts_are_refused_by_what_they_are() {
        let host = |labels: &str| {
            let yaml = format!(
                "{{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}, \
                 metadata: {{filter_metadata: {{envoy.lb: {labels}}}}}}}]}}]}}"
            );
            let message: weft_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment =
                weft_xds::json::from_yaml(&yaml).expect("YAML");
            let assignment = crate::config::endpoint::LoadAssignment::from_proto(message).expect("an assignment");
            let endpoint = assignment.endpoints().next().expect("one endpoint");
            Host::new(endpoint, 1)
        };
        let canary = HostPredicates { omit_canary: true, ..Default::default() };
        assert!(
            refuses_host(&canary, &host("{canary: true}"), &[]) && !refuses_host(&canary, &host("{canary: no}"), &[])
        );
        let wanted = [("a".into(), Value::Text("1".into())), ("b".into(), Value::Text("2".into()))].into();
        let labelled = HostPredicates { omit_metadata: vec![wanted], ..Default::default() };
        assert!(refuses_host(&labelled, &host("{a: '1', b: ['2', '3']}"), &[]));
        assert!(!refuses_host(&labelled, &host("{a: '1'}"), &[]));
        let tried = host("{}");
        let previous = HostPredicates { previous_hosts: true, ..Default::default() };
        assert!(refuses_host(&previous, &tried, &[tried.id]) && !refuses_host(&previous, &tried, &[]));
    }

    #[test]
    fn back_off_doubles_up_to_its_cap() {
        let config = policy(RetryOn::default()).back_off;
        assert_eq!(back_off(&config, 0, 1.0), Duration::from_millis(25));
        assert_eq!(back_off(&config, 2, 0.5), Duration::from_millis(50));
        assert_eq!(back_off(&config, 9, 1.0), Duration::from_millis(250));
        assert_eq!(back_off(&config, 99, 1.0), Duration::from_millis(250));
    }
}
