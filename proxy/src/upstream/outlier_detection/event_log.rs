//! `envoy.data.cluster.v3.OutlierDetectionEvent`, one JSON object a line, as Envoy writes it. Pure.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::detector::{Cause, Effect, Event};
use crate::upstream::event_log;

/// None: nothing that is logged.
pub(super) fn line(cluster: &str, at: SystemTime, effect: &Effect) -> Option<Value> {
    let (event, kind, action, enforced) = match effect {
        Effect::Ejected { event, cause, enforced } => (event, kind(*cause), "EJECT", *enforced),
        Effect::Degraded { event } => (event, "DEGRADED", "EJECT", true),
        Effect::Unejected { event } | Effect::NoLongerDegraded { event } => {
            (event, kind(Cause::Consecutive5xx), "UNEJECT", false)
        }
        Effect::Detected(_) | Effect::Overflow => return None,
    };
    let Event { host, since_last_action, ejections, .. } = event;
    let mut line = Map::new();
    line.insert("type".into(), kind.into());
    line.insert("timestamp".into(), event_log::timestamp(at).into());
    if let Some(since) = since_last_action {
        line.insert("secs_since_last_action".into(), since.as_secs().to_string().into());
    }
    line.insert("cluster_name".into(), cluster.into());
    line.insert("upstream_url".into(), host.address.to_string().into());
    line.insert("action".into(), action.into());
    line.insert("num_ejections".into(), (*ejections).into());
    line.insert("enforced".into(), enforced.into());
    match effect {
        Effect::Ejected { cause, .. } => {
            let (name, value) = details(*cause, event);
            line.insert(name.into(), value);
        }
        Effect::Degraded { .. } => {
            line.insert("eject_consecutive_event".into(), json!({}));
        }
        _ => {}
    }
    Some(Value::Object(line))
}

fn kind(cause: Cause) -> &'static str {
    match cause {
        Cause::Consecutive5xx => "CONSECUTIVE_5XX",
        Cause::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
        Cause::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        Cause::SuccessRate => "SUCCESS_RATE",
        Cause::LocalOriginSuccessRate => "SUCCESS_RATE_LOCAL_ORIGIN",
        Cause::FailurePercentage => "FAILURE_PERCENTAGE",
        Cause::LocalOriginFailurePercentage => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
    }
}

fn details(cause: Cause, event: &Event) -> (&'static str, Value) {
    // Whole percents; what was not measured is the greatest number there, as in Envoy.
    let percent = |value: f64| value as i64 as u32;
    match cause {
        Cause::Consecutive5xx | Cause::ConsecutiveGatewayFailure | Cause::ConsecutiveLocalOriginFailure => {
            ("eject_consecutive_event", json!({}))
        }
        Cause::SuccessRate | Cause::LocalOriginSuccessRate => (
            "eject_success_rate_event",
            json!({
                "host_success_rate": percent(event.success_rate),
                "cluster_average_success_rate": percent(event.cluster_rate.0),
                "cluster_success_rate_ejection_threshold": percent(event.cluster_rate.1),
            }),
        ),
        Cause::FailurePercentage | Cause::LocalOriginFailurePercentage => {
            ("eject_failure_percentage_event", json!({"host_success_rate": percent(event.success_rate)}))
        }
    }
}
