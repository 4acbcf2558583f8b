//! `envoy.data.core.v3.HealthCheckEvent`, one JSON object a line, as Envoy writes it. Pure.

use std::{net::SocketAddr, time::SystemTime};

use serde_json::{Map, Value, json};

use super::verdict::{FailureKind, News};
use crate::{config::endpoint::Locality, upstream::event_log};

pub(super) fn line(
    checker: &str,
    cluster: &str,
    (host, locality): (SocketAddr, &Locality),
    at: SystemTime,
    news: &News,
) -> Value {
    // In the order of the message's fields.
    let (number, name, event) = match news {
        News::BecameUnhealthy(failure) => (
            4,
            "eject_unhealthy_event",
            json!({"failure_type": failure_type(failure.kind), "http_status_code": failure.status}),
        ),
        News::BecameHealthy { first_check } => (5, "add_healthy_event", json!({"first_check": first_check})),
        News::Failed { failure, first_check } => (
            7,
            "health_check_failure_event",
            json!({
                "failure_type": failure_type(failure.kind),
                "first_check": first_check,
                "http_status_code": failure.status,
            }),
        ),
        News::Degraded => (8, "degraded_healthy_host", json!({})),
        News::NoLongerDegraded => (9, "no_longer_degraded_host", json!({})),
        News::Passed => (12, "successful_health_check_event", json!({})),
    };
    let locality = json!({"region": *locality.region, "zone": *locality.zone, "sub_zone": *locality.sub_zone});
    let address = json!({"socket_address": {
        "protocol": "TCP",
        "address": host.ip().to_string(),
        "port_value": host.port(),
        "resolver_name": "",
        "ipv4_compat": false,
        "network_namespace_filepath": "",
    }});
    let mut fields = vec![
        (1, "health_checker_type", json!(checker)),
        (2, "host", address),
        (3, "cluster_name", json!(cluster)),
        (number, name, event),
        (6, "timestamp", json!(event_log::timestamp(at))),
        (11, "locality", locality),
    ];
    fields.sort_by_key(|(number, ..)| *number);
    Value::Object(fields.into_iter().map(|(_, name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn failure_type(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Active => "ACTIVE",
        FailureKind::Passive => "PASSIVE",
        FailureKind::Network => "NETWORK",
        FailureKind::Timeout => "NETWORK_TIMEOUT",
    }
}
