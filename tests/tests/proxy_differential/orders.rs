//! What trusted callers ask of the router in headers, and what routes say about retries.

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, acting, exchange, filter, one_host, to};

pub(crate) fn scenes() -> Vec<Scene> {
    let ours = || json!({"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
    let manager = |router: Value| {
        json!({
            "use_remote_address": true,
            "internal_address_config": ours(),
            "http_filters": [filter("router", "router.v3.Router", router)],
        })
    };
    let scene = |name, router| Scene { name, manager: manager(router), routes: routes(), internal: true };
    vec![
        scene("orders", json!({})),
        scene(
            "strict",
            json!({"strict_check_headers": [
            "x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-max-retries",
            "x-envoy-retry-grpc-on", "x-envoy-retry-on"]}),
        ),
        scene("respect", json!({"respect_expected_rq_timeout": true})),
        scene("suppress", json!({"suppress_envoy_headers": true})),
        Scene { internal: false, manager: json!({}), ..scene("stranger", json!({})) },
    ]
}

fn routes() -> Value {
    let retry = |fields: Value| json!({"retry_policy": fields});
    one_host(&[
        acting("/retried", "origin", retry(json!({"retry_on": "5xx", "num_retries": 1}))),
        acting(
            "/by-header",
            "origin",
            retry(
                json!({"retry_on": "retriable-headers", "num_retries": 2, "retriable_headers": [{"name": "x-retry-me", "string_match": {"exact": "yes"}}]}),
            ),
        ),
        acting(
            "/by-request",
            "origin",
            retry(
                json!({"retry_on": "5xx", "num_retries": 2, "retriable_request_headers": [{"name": "x-may", "present_match": true}]}),
            ),
        ),
        acting("/limited", "origin", retry(json!({"retry_on": "envoy-ratelimited", "num_retries": 2}))),
        acting(
            "/paused",
            "origin",
            retry(
                json!({"retry_on": "5xx", "num_retries": 1, "rate_limited_retry_back_off": {"reset_headers": [{"name": "retry-after"}], "max_interval": "5s"}}),
            ),
        ),
        acting("/conflict", "origin", retry(json!({"retry_on": "retriable-4xx", "num_retries": 1}))),
        acting(
            "/timed",
            "origin",
            json!({"timeout": "0.4s", "retry_policy": {"retry_on": "5xx", "num_retries": 3, "per_try_timeout": "0.1s"}}),
        ),
        acting(
            "/too-long-a-try",
            "origin",
            json!({"timeout": "0.2s", "retry_policy": {"retry_on": "5xx", "num_retries": 3, "per_try_timeout": "5s"}}),
        ),
        acting("/no-timeout", "origin", json!({"timeout": "0s"})),
        to("/", "origin", json!({})),
    ])
}

pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("orders", "orders: nothing asked", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("orders", "orders: all of them are taken", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 1\r\nx-envoy-retry-on: 5xx\r\nx-envoy-retry-grpc-on: cancelled\r\nx-envoy-retriable-status-codes: 418\r\nx-envoy-retriable-header-names: x-a\r\nx-envoy-upstream-rq-timeout-ms: 2000\r\nx-envoy-upstream-rq-per-try-timeout-ms: 1000\r\nx-envoy-hedge-on-per-try-timeout: true\r\nx-envoy-upstream-alt-stat-name: alt\r\n"),
    exchange("orders", "orders: some without retries", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 1\r\nx-envoy-retriable-status-codes: 418\r\nx-envoy-retriable-header-names: x-a\r\nx-envoy-hedge-on-per-try-timeout: true\r\n"),
    exchange("orders", "orders: given expected timeout", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-expected-rq-timeout-ms: 7000\r\n"),
    exchange("respect", "orders: respected expected timeout", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-expected-rq-timeout-ms: 7000\r\nx-envoy-upstream-rq-timeout-ms: 5000\r\n"),
    exchange("respect", "orders: expected timeout is over", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-expected-rq-timeout-ms: 150\r\nx-origin-do: delay/2s\r\n"),
    exchange("orders", "orders: timeout", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 150\r\nx-origin-do: delay/2s\r\n"),
    exchange("orders", "orders: no timeout", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 0\r\n"),
    exchange("orders", "orders: bad timeout", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: soon\r\n"),
    exchange("orders", "orders: timeout of a try", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-per-try-timeout-ms: 150\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 1\r\nx-origin-do: delay/2s\r\n").look(Look::Attempts),
    exchange("orders", "orders: try as long as the whole", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-per-try-timeout-ms: 2000\r\nx-envoy-upstream-rq-timeout-ms: 2000\r\n"),
    exchange("orders", "orders: retries", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-origin-do: flaky/3\r\n").look(Look::Attempts),
    exchange("orders", "orders: one retry", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx\r\nx-origin-do: flaky/9\r\n").look(Look::Attempts),
    exchange("orders", "orders: more than the route's", "GET /retried HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 4\r\nx-origin-do: flaky/4\r\n").look(Look::Attempts),
    exchange("orders", "orders: besides the route's", "GET /retried HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: retriable-4xx\r\nx-origin-do: flaky/1/status/409\r\n").look(Look::Attempts),
    exchange("orders", "orders: no retries", "GET /retried HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 0\r\nx-origin-do: flaky/1\r\n").look(Look::Attempts),
    exchange("orders", "orders: status codes", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: retriable-status-codes\r\nx-envoy-retriable-status-codes: 403, 410\r\nx-origin-do: flaky/1/status/410\r\n").look(Look::Attempts),
    exchange("orders", "orders: header names", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: retriable-headers\r\nx-envoy-retriable-header-names: X-Retry-Me, x-other\r\nx-origin-do: header/x-retry-me/1\r\n").look(Look::Attempts),
    exchange("orders", "orders: grpc", "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nx-envoy-retry-grpc-on: unavailable\r\nx-envoy-max-retries: 2\r\nx-origin-do: grpc-only/14\r\n").look(Look::Attempts),
    exchange("orders", "retry: by header", "GET /by-header HTTP/1.1\r\nhost: any.test\r\nx-origin-do: header/x-retry-me/yes\r\n").look(Look::Attempts),
    exchange("orders", "retry: by another header", "GET /by-header HTTP/1.1\r\nhost: any.test\r\nx-origin-do: header/x-retry-me/no\r\n").look(Look::Attempts),
    exchange("orders", "retry: request may", "GET /by-request HTTP/1.1\r\nhost: any.test\r\nx-may: 1\r\nx-origin-do: flaky/1\r\n").look(Look::Attempts),
    exchange("orders", "retry: request may not", "GET /by-request HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/1\r\n").look(Look::Attempts),
    exchange("orders", "retry: rate limited", "GET /limited HTTP/1.1\r\nhost: any.test\r\nx-origin-do: header/x-envoy-ratelimited/true/status/429\r\n").look(Look::Attempts),
    exchange("orders", "retry: rate limited is no 5xx", "GET /retried HTTP/1.1\r\nhost: any.test\r\nx-origin-do: header/x-envoy-ratelimited/true/status/503\r\n").look(Look::Attempts),
    exchange("orders", "retry: when it says", "GET /paused HTTP/1.1\r\nhost: any.test\r\nx-origin-do: header/retry-after/0/flaky/1\r\n").look(Look::Attempts),
    exchange("orders", "retry: conflict", "GET /conflict HTTP/1.1\r\nhost: any.test\r\nx-origin-do: flaky/1/status/409\r\n").look(Look::Attempts),
    exchange("orders", "retry: until the time is over", "GET /timed HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/2s\r\n"),
    exchange("orders", "retry: try longer than the whole", "GET /too-long-a-try HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/2s\r\n").look(Look::Attempts),
    exchange("orders", "timeout: none", "GET /no-timeout HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("strict", "strict: bad timeout", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: soon\r\n"),
    exchange("strict", "strict: negative timeout of a try", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-per-try-timeout-ms: -1\r\n"),
    exchange("strict", "strict: bad retries", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 1.5\r\n"),
    exchange("strict", "strict: unknown condition", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx,foo\r\n"),
    exchange("strict", "strict: condition of grpc", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: cancelled\r\n"),
    exchange("strict", "strict: unknown condition of grpc", "GET / HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-grpc-on: 5xx\r\n"),
    exchange("strict", "strict: all good", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-retry-on: 5xx, reset\r\nx-envoy-retry-grpc-on: cancelled\r\nx-envoy-max-retries: 2\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\n"),
    exchange("suppress", "suppress: nothing of ours", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\n"),
    exchange("stranger", "stranger: is not heard", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-max-retries: 1\r\nx-envoy-retry-on: 5xx\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\nx-envoy-upstream-alt-stat-name: a\r\nx-envoy-expected-rq-timeout-ms: 1\r\n"),
];
