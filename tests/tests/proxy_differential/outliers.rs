//! Outlier detection: who is ejected after what, who comes back, and what statistics and the log say of it.

use serde_json::{Value, json};

use crate::resilience::Step::{AtLeast, Count, Events, Flags, Load, Look, Pause, Send};
use crate::resilience::{DEAD, HOSTS, Scenario, hosts, scenario};

const EJECTED: &str = "/failed_outlier_check";
const STATS: &[&str] = &["outlier_detection_"];

/// Long enough that nothing happens by itself.
fn detecting(more: Value) -> Value {
    let mut fields = json!({"interval": "300s", "base_ejection_time": "300s", "max_ejection_percent": 100});
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    json!({"outlier_detection": fields})
}

fn on(ports: &[u16], more: Value) -> Value {
    let mut cluster = detecting(more);
    cluster["load_assignment"] = json!({"endpoints": hosts(ports)});
    cluster
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    [consecutive(), local_origin(), rates(), recovery()].into_iter().flatten().collect()
}

fn consecutive() -> Vec<Scenario> {
    vec![
        scenario(
            "five in a row",
            detecting(json!({})),
            vec![
                Send(8, "9501=500"),
                Look,
                Send(2, "9501=500"),
                Flags(9501, EJECTED),
                Send(6, "9501=500"),
                Look,
                Count(STATS),
                Events,
            ],
        ),
        scenario(
            "a success between",
            detecting(json!({"consecutive_5xx": 3})),
            vec![Send(4, "9501=500"), Send(2, ""), Send(4, "9501=500"), Look, Count(STATS)],
        ),
        scenario(
            "errors of the caller",
            detecting(json!({"consecutive_5xx": 2})),
            vec![Send(12, "9501=404"), Look, Count(STATS)],
        ),
        scenario(
            "gateway failures",
            detecting(
                json!({"consecutive_5xx": 100, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100}),
            ),
            vec![
                Send(8, "9501=500"),
                Look,
                Send(6, "9501=502"),
                Flags(9501, EJECTED),
                Send(4, "9501=502"),
                Count(STATS),
                Events,
            ],
        ),
        scenario(
            "gateway failures not enforced",
            detecting(json!({"consecutive_5xx": 100, "consecutive_gateway_failure": 2})),
            vec![Send(8, "9501=503"), Look, Count(STATS), Events],
        ),
        scenario(
            "no share to eject",
            detecting(json!({"consecutive_5xx": 2, "max_ejection_percent": 10})),
            vec![Send(8, "9501=500"), Look, Count(STATS), Events],
        ),
        scenario(
            "one at least",
            detecting(json!({"consecutive_5xx": 2, "max_ejection_percent": 10, "always_eject_one_host": true})),
            vec![Send(5, "9501=500"), Flags(9501, EJECTED), Send(4, "9502=500"), Look, Count(STATS), Events],
        ),
        scenario(
            "half of them",
            on(&HOSTS[..4], json!({"consecutive_5xx": 1, "max_ejection_percent": 50})),
            vec![
                Load(40, "9501=500;9502=500;9503=500"),
                Count(&["outlier_detection_ejections_active", "outlier_detection_ejections_enforced"]),
            ],
        ),
        scenario(
            "all of them",
            detecting(json!({"consecutive_5xx": 1})),
            vec![Send(4, "9501=500;9502=500"), Look, Send(4, ""), Count(STATS)],
        ),
        scenario(
            "trailers only",
            detecting(json!({"consecutive_5xx": 1})),
            vec![Send(4, "9501=200,grpc-status:14"), Look, Count(STATS)],
        ),
    ]
}

fn local_origin() -> Vec<Scenario> {
    vec![
        scenario(
            "nobody listens",
            on(&[9501, DEAD], json!({"consecutive_5xx": 2})),
            vec![Send(4, ""), Flags(DEAD, EJECTED), Send(4, ""), Look, Count(STATS), Events],
        ),
        scenario(
            "the connection breaks",
            detecting(json!({"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100})),
            vec![Send(4, "9501=close"), Flags(9501, EJECTED), Look, Count(STATS), Events],
        ),
        scenario(
            "no answer in time",
            detecting(json!({"consecutive_gateway_failure": 1, "enforcing_consecutive_gateway_failure": 100})),
            vec![Send(2, "9501=hang"), Flags(9501, EJECTED), Count(STATS), Events],
        )
        .routed(json!({"timeout": "0.1s"})),
        scenario(
            "no answer in the time of a try",
            detecting(json!({"consecutive_gateway_failure": 1, "enforcing_consecutive_gateway_failure": 100})),
            vec![Send(2, "9501=hang"), Flags(9501, EJECTED), Count(STATS)],
        )
        .routed(json!({"retry_policy": {"retry_on": "5xx", "per_try_timeout": "0.1s"}})),
        scenario(
            "split and nobody listens",
            on(
                &[9501, DEAD],
                json!({"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 2}),
            ),
            vec![Send(4, ""), Flags(DEAD, EJECTED), Look, Count(STATS), Events],
        ),
        scenario(
            "split and errors",
            detecting(json!({
                "split_external_local_origin_errors": true, "consecutive_5xx": 10, "consecutive_gateway_failure": 2,
                "enforcing_consecutive_gateway_failure": 100,
            })),
            vec![Send(4, "9501=500"), Look, Send(4, "9501=502"), Flags(9501, EJECTED), Count(STATS), Events],
        ),
        scenario(
            "split and a broken connection",
            detecting(json!({"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 1})),
            vec![Send(2, "9501=close"), Flags(9501, EJECTED), Count(STATS)],
        ),
    ]
}

fn rates() -> Vec<Scenario> {
    let quick = |more: Value| {
        let mut fields = json!({"interval": "1s", "consecutive_5xx": 1000, "consecutive_gateway_failure": 1000});
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        fields
    };
    vec![
        scenario(
            "success rate",
            on(&HOSTS, quick(json!({"success_rate_minimum_hosts": 5, "success_rate_request_volume": 5}))),
            vec![
                Load(60, "9503=500"),
                Flags(9503, EJECTED),
                Count(&["outlier_detection_ejections_enforced", "outlier_detection_ejections_active"]),
                Events,
            ],
        ),
        scenario(
            "success rate of too few hosts",
            on(&HOSTS[..3], quick(json!({"success_rate_request_volume": 5}))),
            vec![Send(60, "9503=500"), Pause(1100), Look, Count(STATS)],
        ),
        scenario(
            "failure percentage",
            on(
                &HOSTS[..2],
                quick(json!({
                    "failure_percentage_minimum_hosts": 2, "failure_percentage_request_volume": 5, "enforcing_failure_percentage": 100,
                    "enforcing_success_rate": 0,
                })),
            ),
            vec![
                Send(40, "9501=500"),
                Flags(9501, EJECTED),
                Count(&["outlier_detection_ejections_enforced", "outlier_detection_ejections_active"]),
                Events,
            ],
        ),
        scenario(
            "failure percentage not enforced",
            on(
                &HOSTS[..2],
                quick(json!({"failure_percentage_minimum_hosts": 2, "failure_percentage_request_volume": 5})),
            ),
            vec![
                Send(40, "9501=500"),
                AtLeast("outlier_detection_ejections_detected_failure_percentage", 1),
                Look,
                Count(&["outlier_detection_ejections_enforced"]),
            ],
        ),
    ]
}

fn recovery() -> Vec<Scenario> {
    vec![
        scenario(
            "comes back",
            detecting(json!({"consecutive_5xx": 1, "interval": "0.1s", "base_ejection_time": "0.6s"})),
            vec![
                Send(2, "9501=500"),
                Flags(9501, EJECTED),
                Flags(9501, "healthy"),
                Look,
                // Envoy gathers such changes for a second.
                Pause(1200),
                Load(6, "9501=500"),
                Flags(9501, EJECTED),
                Flags(9501, "healthy"),
                Count(STATS),
                Events,
            ],
        ),
        scenario(
            "degraded by answers",
            detecting(json!({"detect_degraded_hosts": true, "interval": "0.1s", "base_ejection_time": "1s"})),
            vec![
                Send(2, "9501=200,x-envoy-degraded:true"),
                Flags(9501, "/degraded_outlier_detection"),
                Count(&["outlier_detection_", "membership_degraded"]),
                Flags(9501, "healthy"),
                Events,
            ],
        ),
        scenario(
            "degraded by answers and not looked for",
            detecting(json!({})),
            vec![Send(4, "9501=200,x-envoy-degraded:true"), Look, Count(STATS)],
        ),
    ]
}
