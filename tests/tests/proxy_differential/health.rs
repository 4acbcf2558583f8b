//! Active health checks: what is asked, what counts as well, and what becomes of the hosts.

use serde_json::{Value, json};
use weft_tests::bootstrap::socket;

use crate::resilience::Step::{Asked, AtLeast, Become, Count, Events, Flags, Look, Pause, Send};
use crate::resilience::{DEAD, Scenario, hosts, scenario};

const FAILED: &str = "/failed_active_hc";
const HEALTHY: &str = "healthy";

fn merged(mut into: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (into.as_object_mut(), more) {
        fields.extend(more);
    }
    into
}

/// Every tenth of a second.
fn checking(more: Value) -> Value {
    json!({"health_checks": [merged(
        json!({
            "timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s", "unhealthy_threshold": 2, "healthy_threshold": 2,
        }),
        more,
    )]})
}

fn http(more: Value) -> Value {
    json!({"http_health_check": merged(json!({"path": "CHECK"}), more)})
}

/// Once, and then not for a long time.
fn once(more: Value) -> Value {
    checking(merged(json!({"interval": "300s", "no_traffic_interval": "300s"}), more))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    [by_status(), by_answer(), by_bytes(), of_endpoints(), with_requests()].into_iter().flatten().collect()
}

fn by_status() -> Vec<Scenario> {
    vec![
        scenario(
            "check passes",
            checking(http(json!({}))),
            vec![Flags(9501, HEALTHY), Flags(9502, HEALTHY), Send(4, ""), Count(&["health_check_healthy", "membership_"]), Asked(9501)],
        ),
        scenario(
            "check fails and passes again",
            merged(checking(http(json!({}))), json!({})),
            vec![
                Flags(9501, HEALTHY),
                Become(9501, "503"),
                Flags(9501, FAILED),
                Pause(1200),
                Send(6, "9501=500"),
                Count(&["health_check_healthy", "membership_"]),
                Become(9501, "200"),
                Flags(9501, HEALTHY),
                Count(&["health_check_healthy"]),
            ],
        ),
        scenario(
            "check fails and is logged",
            checking(merged(http(json!({})), json!({"event_log_path": "LOG"}))),
            vec![Flags(9501, HEALTHY), Flags(9502, HEALTHY), Become(9501, "503"), Flags(9501, FAILED), Become(9501, "200"), Flags(9501, HEALTHY), Count(&["health_check_healthy"])],
        ),
        scenario(
            "check logged by a sink",
            checking(merged(
                http(json!({})),
                json!({"event_logger": [{
                    "name": "file",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
                        "event_log_path": "LOG",
                    },
                }]}),
            ))
            .on(&[9503]),
            vec![Flags(9503, HEALTHY), Become(9503, "500"), Flags(9503, FAILED), Events],
        ),
        scenario(
            "check of nobody is logged",
            once(merged(http(json!({})), json!({"event_log_path": "LOG", "always_log_health_check_failures": true}))).on(&[DEAD]),
            vec![AtLeast("health_check_failure", 1), Look, Events, Count(&["health_check_"])],
        ),
        scenario(
            "check says a retriable status",
            checking(http(json!({"retriable_statuses": [{"start": 500, "end": 504}]}))),
            vec![Flags(9501, HEALTHY), Become(9501, "503"), Flags(9501, FAILED), Look],
        ),
        scenario(
            "check expects other statuses",
            checking(http(json!({"expected_statuses": [{"start": 201, "end": 203}, {"start": 418, "end": 419}]}))),
            vec![Become(9501, "418"), Flags(9501, HEALTHY), Flags(9502, FAILED), Become(9501, "203"), Flags(9501, FAILED)],
        ),
        scenario(
            "check finds all of them bad",
            checking(http(json!({}))),
            vec![Become(9501, "500"), Become(9502, "500"), Flags(9501, FAILED), Flags(9502, FAILED), Pause(1200), Send(4, ""), Count(&["lb_healthy_panic", "membership_"])],
        ),
        scenario(
            "check finds all of them bad without panic",
            merged(checking(http(json!({}))), json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}})),
            vec![Become(9501, "500"), Become(9502, "500"), Flags(9501, FAILED), Flags(9502, FAILED), Pause(1200), Send(4, ""), Count(&["membership_"])],
        ),
    ]
}

fn by_answer() -> Vec<Scenario> {
    vec![
        scenario(
            "check asks with fields",
            checking(http(json!({
                "host": "asked.test", "method": "HEAD",
                "request_headers_to_add": [
                    {"header": {"key": "x-a", "value": "1"}},
                    {"header": {"key": "x-a", "value": "2"}},
                    {"header": {"key": "x-b", "value": "3"}, "append_action": "OVERWRITE_IF_EXISTS"},
                    {"header": {"key": "user-agent", "value": "own"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                ],
            }))),
            vec![AtLeast("health_check_success", 2), Asked(9501)],
        ),
        scenario(
            "check asks without a field",
            checking(http(json!({"request_headers_to_remove": ["user-agent"]}))),
            vec![Flags(9501, HEALTHY), Asked(9501)],
        ),
        scenario(
            "check says degraded",
            checking(http(json!({}))),
            vec![
                Become(9501, "200,x-envoy-degraded:true"),
                Flags(9501, "/degraded_active_hc"),
                Flags(9502, HEALTHY),
                Pause(1200),
                Count(&["health_check_degraded", "health_check_healthy", "membership_"]),
                Become(9501, "200"),
                Flags(9501, HEALTHY),
            ],
        ),
        scenario(
            "check says to leave it alone",
            checking(http(json!({}))),
            vec![
                Flags(9501, HEALTHY),
                Become(9501, "503,x-envoy-immediate-health-check-fail:true"),
                AtLeast("health_check_failure", 1),
                Pause(300),
                Look,
                Count(&["membership_"]),
                Become(9501, "200"),
                Flags(9501, HEALTHY),
            ],
        ),
        scenario(
            "check hangs",
            checking(merged(http(json!({})), json!({"timeout": "0.2s"}))),
            vec![
                Flags(9501, HEALTHY),
                Become(9501, "hang"),
                Flags(9501, "/failed_active_hc/active_hc_timeout"),
                Become(9501, "200"),
                Flags(9501, HEALTHY),
            ],
        ),
        scenario(
            "check breaks off",
            checking(http(json!({}))),
            vec![
                Flags(9501, HEALTHY),
                Become(9501, "close"),
                Flags(9501, FAILED),
                AtLeast("health_check_network_failure", 2),
            ],
        ),
        scenario(
            "check of a service by name",
            checking(http(json!({"service_name_matcher": {"prefix": "loc"}}))),
            vec![
                Become(9501, "200,x-envoy-upstream-healthchecked-cluster:local"),
                Become(9502, "200,x-envoy-upstream-healthchecked-cluster:other"),
                Flags(9501, HEALTHY),
                Flags(9502, FAILED),
                AtLeast("health_check_verify_cluster", 2),
            ],
        ),
        scenario(
            "check looks at the body",
            checking(http(json!({"receive": [{"text": hex("from")}, {"text": hex("9501")}]}))),
            vec![Flags(9501, HEALTHY), Flags(9502, FAILED)],
        ),
        scenario(
            "check without reuse",
            checking(merged(http(json!({})), json!({"reuse_connection": false}))),
            vec![AtLeast("health_check_success", 6), Look],
        ),
    ]
}

fn by_bytes() -> Vec<Scenario> {
    let asks = hex("GET / HTTP/1.1\r\n\r\n");
    vec![
        scenario(
            "check by connecting",
            checking(json!({"tcp_health_check": {}})).on(&[9501, DEAD]),
            vec![Flags(9501, HEALTHY), AtLeast("health_check_failure", 1), Look, Count(&["membership_"])],
        ),
        scenario(
            "check by bytes",
            checking(
                json!({"tcp_health_check": {"send": {"text": asks}, "receive": [{"text": hex("200")}, {"text": hex("9501")}]}, "timeout": "0.3s"}),
            ),
            vec![Flags(9501, HEALTHY), AtLeast("health_check_failure", 1), Look],
        ),
        scenario(
            "check by gRPC of one that knows none",
            merged(checking(json!({"grpc_health_check": {}})).on(&[9501]), json!({"http2_protocol_options": {}})),
            vec![AtLeast("health_check_failure", 1), Look],
        ),
    ]
}

fn of_endpoints() -> Vec<Scenario> {
    let host = |port: u16, check: Value| json!({"endpoint": {"address": socket("127.0.0.1", port), "health_check_config": check}});
    let on = |hosts: Vec<Value>, more: Value| {
        merged(checking(more), json!({"load_assignment": {"endpoints": [{"lb_endpoints": hosts}]}}))
    };
    vec![
        scenario(
            "check of an endpoint without checks",
            on(vec![host(9501, json!({})), host(DEAD, json!({"disable_active_health_check": true}))], http(json!({}))),
            vec![Flags(9501, HEALTHY), Look, Count(&["health_check_healthy", "membership_"])],
        ),
        scenario(
            "check at another port",
            on(vec![host(9501, json!({"port_value": DEAD})), host(9502, json!({"port_value": 9503}))], http(json!({}))),
            vec![Flags(9502, HEALTHY), AtLeast("health_check_failure", 1), Look],
        ),
        scenario(
            "check by another name",
            on(vec![host(9501, json!({"hostname": "named.test"}))], http(json!({"host": "asked.test"}))),
            vec![Flags(9501, HEALTHY), Asked(9501)],
        ),
        scenario(
            "check of hosts that discovery calls bad",
            merged(
                checking(http(json!({}))),
                json!({"load_assignment": {"endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket("127.0.0.1", 9501)}, "health_status": "UNHEALTHY"},
                    {"endpoint": {"address": socket("127.0.0.1", 9502)}, "health_status": "DEGRADED"},
                    {"endpoint": {"address": socket("127.0.0.1", 9503)}},
                ]}]}}),
            ),
            vec![
                Flags(9503, HEALTHY),
                AtLeast("health_check_healthy", 3),
                Look,
                Count(&["health_check_healthy", "membership_"]),
            ],
        ),
    ]
}

fn with_requests() -> Vec<Scenario> {
    let ejecting = |more: Value| {
        json!({"outlier_detection": merged(
            json!({"consecutive_5xx": 1, "interval": "300s", "base_ejection_time": "300s", "max_ejection_percent": 100}),
            more,
        )})
    };
    vec![
        scenario(
            "an answer says to leave it alone",
            once(http(json!({}))),
            vec![
                Flags(9501, HEALTHY),
                Flags(9502, HEALTHY),
                Send(2, "9501=503,x-envoy-immediate-health-check-fail:true"),
                AtLeast("health_check_passive_failure", 1),
                Pause(1200),
                Look,
                Send(4, ""),
                Count(&["health_check_passive_failure", "health_check_failure", "health_check_healthy", "membership_"]),
            ],
        ),
        scenario(
            "an answer says to leave it alone and nobody checks",
            json!({}),
            vec![Send(4, "9501=503,x-envoy-immediate-health-check-fail:true"), Look],
        ),
        scenario(
            "a check ends an ejection",
            merged(checking(http(json!({}))), ejecting(json!({}))),
            vec![
                Flags(9501, HEALTHY),
                Flags(9502, HEALTHY),
                Send(2, "9501=500"),
                Flags(9501, HEALTHY),
                Count(&["outlier_detection_ejections_enforced", "outlier_detection_ejections_active"]),
            ],
        ),
        scenario(
            "a check ends no ejection",
            merged(checking(http(json!({}))), ejecting(json!({"successful_active_health_check_uneject_host": false}))),
            vec![
                Flags(9501, HEALTHY),
                Flags(9502, HEALTHY),
                Send(2, "9501=500"),
                Flags(9501, "/failed_outlier_check"),
                Pause(400),
                Look,
            ],
        ),
        scenario(
            "ejected and failed",
            merged(once(http(json!({}))), ejecting(json!({}))),
            vec![
                Flags(9501, HEALTHY),
                Flags(9502, HEALTHY),
                Send(2, "9501=503,x-envoy-immediate-health-check-fail:true"),
                AtLeast("health_check_passive_failure", 1),
                AtLeast("outlier_detection_ejections_active", 1),
                Look,
            ],
        ),
    ]
}

/// A cluster's hosts.
trait On {
    fn on(self, ports: &[u16]) -> Value;
}

impl On for Value {
    fn on(self, ports: &[u16]) -> Value {
        merged(self, json!({"load_assignment": {"endpoints": hosts(ports)}}))
    }
}
