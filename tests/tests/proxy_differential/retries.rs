//! Retries: where they go, when they are given up, and what one try may take.

use serde_json::{Value, json};
use weft_tests::bootstrap::socket;

use crate::resilience::Step::{Ask, Count, Send};
use crate::resilience::{Scenario, hosts, scenario};

const RETRIES: &[&str] = &["upstream_rq_retry", "upstream_rq_per_try", "upstream_rq_timeout", "upstream_rq_total"];

fn retrying(more: Value) -> Value {
    let mut policy = json!({"retry_on": "5xx", "num_retries": 3, "retry_back_off": {"base_interval": "0.002s"}});
    if let (Some(fields), Value::Object(more)) = (policy.as_object_mut(), more) {
        fields.extend(more);
    }
    json!({"retry_policy": policy})
}

fn predicate(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/envoy.extensions.retry.host.{kind}"));
    json!({"retry_host_predicate": [{"name": kind, "typed_config": fields}], "host_selection_retry_max_attempts": "30"})
}

fn labelled(port: u16, labels: Value) -> Value {
    json!({"endpoint": {"address": socket("127.0.0.1", port)}, "metadata": {"filter_metadata": {"envoy.lb": labels}}})
}

fn one_locality(endpoints: Vec<Value>) -> Value {
    json!({"load_assignment": {"endpoints": [{"lb_endpoints": endpoints}]}})
}

fn levels(levels: &[&[u16]]) -> Value {
    let level = |(priority, ports): (usize, &&[u16])| {
        let mut level = hosts(ports)[0].clone();
        level["priority"] = json!(priority);
        level
    };
    json!({"load_assignment": {"endpoints": levels.iter().enumerate().map(level).collect::<Vec<_>>()}})
}

fn one() -> Value {
    json!({"load_assignment": {"endpoints": hosts(&[9501])}})
}

fn previous_priorities(update_frequency: u32) -> Value {
    json!({"retry_priority": {"name": "previous", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": update_frequency,
    }}})
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    [places(), times(), conditions(), limits()].into_iter().flatten().collect()
}

fn places() -> Vec<Scenario> {
    let canary = || one_locality(vec![labelled(9501, json!({})), labelled(9502, json!({"canary": true}))]);
    let slow = || one_locality(vec![labelled(9501, json!({"a": "1"})), labelled(9502, json!({"a": "1", "b": "2"}))]);
    let omit = |labels: Value| {
        let matched = json!({"metadata_match": {"filter_metadata": {"envoy.lb": labels}}});
        predicate("omit_host_metadata.v3.OmitHostMetadataConfig", matched)
    };
    vec![
        scenario("not the same host again", json!({}), vec![Send(20, "9501=500"), Count(&["upstream_rq_retry_limit"])])
            .routed(retrying(predicate("previous_hosts.v3.PreviousHostsPredicate", json!({})))),
        scenario("no canary", canary(), vec![Send(20, "9502=500")])
            .routed(retrying(predicate("omit_canary_hosts.v3.OmitCanaryHostsPredicate", json!({})))),
        scenario("no host with labels", slow(), vec![Send(20, "9502=500"), Count(&["upstream_rq_retry_limit"])])
            .routed(retrying(omit(json!({"a": "1", "b": "2"})))),
        scenario("another priority", levels(&[&[9501], &[9502]]), vec![Send(10, "9501=500"), Count(RETRIES)])
            .routed(retrying(previous_priorities(1))),
        scenario("another priority after two", levels(&[&[9501], &[9502]]), vec![Send(10, "9501=500"), Count(RETRIES)])
            .routed(retrying(previous_priorities(2))),
        scenario(
            "all priorities in turn",
            levels(&[&[9501], &[9502]]),
            vec![Send(5, "9501=500;9502=500"), Count(RETRIES)],
        )
        .routed(retrying(previous_priorities(1))),
        scenario(
            "three priorities",
            levels(&[&[9501], &[9502], &[9503]]),
            vec![Send(5, "9501=500;9502=500"), Count(RETRIES)],
        )
        .routed(retrying(previous_priorities(1))),
    ]
}

fn times() -> Vec<Scenario> {
    let of_caller = &[("x-envoy-upstream-rq-timeout-ms", "150"), ("x-envoy-upstream-rq-per-try-timeout-ms", "100")];
    vec![
        scenario("a try that idles", one(), vec![Ask("9501=hang", &[]), Count(RETRIES)])
            .routed(retrying(json!({"per_try_idle_timeout": "0.1s", "num_retries": 1}))),
        scenario("a try that idles and is not tried again", one(), vec![Ask("9501=hang", &[]), Count(RETRIES)])
            .routed(retrying(json!({"per_try_idle_timeout": "0.1s", "retry_on": "connect-failure"}))),
        scenario("a try within its idle time", one(), vec![Ask("", &[]), Count(RETRIES)])
            .routed(retrying(json!({"per_try_idle_timeout": "2s"}))),
        scenario("a try that idles amid its answer", one(), vec![Ask("9501=stall", &[]), Count(RETRIES)])
            .routed(retrying(json!({"per_try_idle_timeout": "0.1s", "num_retries": 1}))),
        scenario("times of the caller", one(), vec![Ask("9501=hang", of_caller), Count(RETRIES)]),
    ]
}

fn conditions() -> Vec<Scenario> {
    let cases: [(&'static str, &str, &'static str); 12] = [
        ("on gateway errors such as 504", "gateway-error", "9501=504"),
        ("on gateway errors other than 500", "gateway-error", "9501=500"),
        ("on 409", "retriable-4xx", "9501=409"),
        ("on 404", "retriable-4xx", "9501=404"),
        ("on a broken connection", "reset", "9501=close"),
        ("on a broken connection and 5xx", "5xx", "9501=close"),
        ("on a broken connection before anything", "reset-before-request", "9501=close"),
        ("on a limited rate", "envoy-ratelimited", "9501=429,x-envoy-ratelimited:true"),
        ("not on a limited rate", "5xx", "9501=503,x-envoy-ratelimited:true"),
        ("on unavailable", "unavailable", "9501=200,grpc-status:14"),
        ("on cancelled", "cancelled", "9501=200,grpc-status:1"),
        ("on internal and not unavailable", "internal", "9501=200,grpc-status:14"),
    ];
    let condition = |(name, on, doing): (&'static str, &str, &'static str)| {
        scenario(name, one(), vec![Ask(doing, &[]), Count(RETRIES)])
            .routed(retrying(json!({"retry_on": on, "num_retries": 2})))
    };
    let mut scenarios: Vec<Scenario> = cases.into_iter().map(condition).collect();
    let again = json!({
        "retry_on": "retriable-headers", "num_retries": 1,
        "retriable_headers": [{"name": "x-again", "string_match": {"exact": "yes"}}],
    });
    scenarios.push(
        scenario("on a field", one(), vec![Ask("9501=200,x-again:yes", &[]), Count(RETRIES)]).routed(retrying(again)),
    );
    let may = json!({"retriable_request_headers": [{"name": "x-may", "present_match": true}], "num_retries": 1});
    let asked = vec![Ask("9501=500", &[]), Ask("9501=500", &[("x-may", "yes")]), Count(RETRIES)];
    scenarios.push(scenario("only of such requests", one(), asked).routed(retrying(may)));
    scenarios
}

fn limits() -> Vec<Scenario> {
    let limited = |thresholds: Value| {
        let mut cluster = one();
        cluster["circuit_breakers"] = json!({"thresholds": [thresholds]});
        cluster
    };
    let budget = json!({"retry_budget": {"budget_percent": {"value": 0.0}, "min_retry_concurrency": 0}});
    let asked = || vec![Ask("9501=500", &[]), Count(RETRIES)];
    vec![
        scenario("no retries allowed", limited(json!({"max_retries": 0})), asked()).routed(retrying(json!({}))),
        scenario("a budget of retries", limited(budget), asked()).routed(retrying(json!({}))),
        scenario("none left", limited(json!({})), asked()).routed(retrying(json!({"num_retries": 0}))),
    ]
}
