//! `/clusters`: each cluster's hosts with their counters, as Envoy prints them.

use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    config::{
        endpoint::{HealthStatus, Locality},
        metadata::{LB_NAMESPACE, Value as MetadataValue},
        route::RoutingPriority,
    },
    runtime::snapshot::Snapshot,
    stats::{HostStat, StatGroup, StatKind},
    upstream::{circuit_breaker::Resource, cluster::Cluster, endpoint_set::Member, host::HealthFlag},
};
use std::sync::Arc;

const PRIORITIES: [(&str, RoutingPriority); 2] =
    [("default", RoutingPriority::Default), ("high", RoutingPriority::High)];
const RESOURCES: [(&str, Resource); 4] = [
    ("connections", Resource::Connections),
    ("pending_requests", Resource::PendingRequests),
    ("requests", Resource::Requests),
    ("retries", Resource::Retries),
];

/// Of all, or of those whose names match.
pub(super) fn to_text(snapshot: &Snapshot, filter: Option<&Regex>) -> String {
    let mut out = String::new();
    for cluster in sorted(snapshot, filter) {
        let name = &cluster.config.name;
        let _ = writeln!(out, "{name}::observability_name::{}", cluster.config.stat_name);
        if let Some(outliers) = &cluster.outliers {
            for (prefix, rate) in [("", &outliers.rates.external), ("local_origin_", &outliers.rates.local)] {
                let (average, threshold) = (rate.average(), rate.ejection_threshold());
                let _ = writeln!(out, "{name}::outlier::{prefix}success_rate_average::{average}");
                let _ = writeln!(out, "{name}::outlier::{prefix}success_rate_ejection_threshold::{threshold}");
            }
        }
        for (label, priority) in PRIORITIES {
            for (resource_name, resource) in RESOURCES {
                let limit = cluster.circuit_breakers.limit(priority, resource);
                let _ = writeln!(out, "{name}::{label}_priority::max_{resource_name}::{limit}");
            }
        }
        let _ = writeln!(out, "{name}::added_via_api::{}", cluster.config.added_via_api);
        for member in &cluster.endpoints.load().members {
            host_text(&mut out, name, member);
        }
    }
    out
}

fn host_text(out: &mut String, cluster: &str, member: &Member) {
    let address = member.host.address;
    for (stat, name, _) in host_stats() {
        let _ = writeln!(out, "{cluster}::{address}::{name}::{}", member.host.stats.sum(stat));
    }
    let locality = &member.locality;
    let health = health_flags(member);
    for (name, value) in [
        ("hostname", &*member.host.hostname),
        ("health_flags", &health),
        ("weight", &member.weight.to_string()),
        ("region", &locality.region),
        ("zone", &locality.zone),
        ("sub_zone", &locality.sub_zone),
        ("canary", if is_canary(member) { "true" } else { "false" }),
        ("priority", &member.priority.to_string()),
        ("success_rate", &member.host.outlier.external.percent().to_string()),
        ("local_origin_success_rate", &member.host.outlier.local.percent().to_string()),
    ] {
        let _ = writeln!(out, "{cluster}::{address}::{name}::{value}");
    }
}

/// Each reason stands behind a slash, as in Envoy.
fn health_flags(member: &Member) -> String {
    let host = &member.host;
    let reasons = [
        (host.has(HealthFlag::FailedActiveCheck), "/failed_active_hc"),
        (host.has(HealthFlag::Ejected), "/failed_outlier_check"),
        (member.health_status == HealthStatus::Unhealthy, "/failed_eds_health"),
        (host.has(HealthFlag::DegradedByActiveCheck), "/degraded_active_hc"),
        (member.health_status == HealthStatus::Degraded, "/degraded_eds_health"),
        (host.has(HealthFlag::DegradedByOutlierDetection), "/degraded_outlier_detection"),
        (host.has(HealthFlag::PendingRemoval), "/pending_dynamic_removal"),
        (host.has(HealthFlag::PendingActiveCheck), "/pending_active_hc"),
        (host.has(HealthFlag::ExcludedAtOnce), "/excluded_via_immediate_hc_fail"),
        (host.has(HealthFlag::ActiveCheckTimeout), "/active_hc_timeout"),
    ];
    let flags: String = reasons.iter().filter(|(holds, _)| *holds).map(|(_, reason)| *reason).collect();
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// `envoy.admin.v3.Clusters`.
pub(super) fn to_json(snapshot: &Snapshot, filter: Option<&Regex>) -> Value {
    let clusters = sorted(snapshot, filter).into_iter().map(|cluster| {
        let thresholds = PRIORITIES.map(|(label, priority)| {
            let mut threshold = match priority {
                RoutingPriority::Default => json!({}),
                RoutingPriority::High => json!({ "priority": label.to_ascii_uppercase() }),
            };
            for (name, resource) in RESOURCES {
                threshold[format!("max_{name}")] = cluster.circuit_breakers.limit(priority, resource).into();
            }
            threshold
        });
        let mut shown = json!({ "name": *cluster.config.name });
        if cluster.config.added_via_api {
            shown["added_via_api"] = true.into();
        }
        shown["host_statuses"] = cluster.endpoints.load().members.iter().map(host_json).collect();
        shown["circuit_breakers"] = json!({ "thresholds": thresholds });
        shown["observability_name"] = (*cluster.config.stat_name).into();
        shown
    });
    json!({ "cluster_statuses": clusters.collect::<Vec<_>>() })
}

/// As Envoy tells it: by the metadata of the endpoint.
fn is_canary(member: &Member) -> bool {
    member.host.metadata.value(LB_NAMESPACE, ["canary"]) == Some(&MetadataValue::Bool(true))
}

/// In the order of their names, as Envoy has them.
fn host_stats() -> Vec<(HostStat, &'static str, StatKind)> {
    let mut stats = HostStat::CELLS.to_vec();
    stats.sort_by_key(|(_, name, _)| *name);
    stats
}

/// What has protobuf's default is left out.
fn host_json(member: &Member) -> Value {
    let mut stats = host_stats();
    stats.sort_by_key(|(_, _, kind)| *kind == StatKind::Gauge);
    let stats = stats.into_iter().map(|(stat, name, kind)| {
        let mut shown = json!({});
        if kind == StatKind::Gauge {
            shown["type"] = "GAUGE".into();
        }
        let value = member.host.stats.sum(stat);
        if value > 0 {
            shown["value"] = value.to_string().into();
        }
        shown["name"] = name.into();
        shown
    });
    let status = match member.health_status {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Degraded => "DEGRADED",
    };
    let mut health = json!({});
    for (flag, name) in [
        (HealthFlag::FailedActiveCheck, "failed_active_health_check"),
        (HealthFlag::Ejected, "failed_outlier_check"),
        (HealthFlag::DegradedByActiveCheck, "failed_active_degraded_check"),
        (HealthFlag::PendingActiveCheck, "pending_active_hc"),
        (HealthFlag::ExcludedAtOnce, "excluded_via_immediate_hc_fail"),
        (HealthFlag::ActiveCheckTimeout, "active_hc_timeout"),
    ] {
        if member.host.has(flag) {
            health[name] = true.into();
        }
    }
    health["eds_health_status"] = status.into();
    let mut host = json!({
        "address": { "socket_address": {
            "address": member.host.address.ip().to_string(), "port_value": member.host.address.port(),
        } },
        "stats": stats.collect::<Vec<_>>(),
        "health_status": health,
        "weight": member.weight,
    });
    if !member.host.hostname.is_empty() {
        host["hostname"] = (*member.host.hostname).into();
    }
    if member.priority > 0 {
        host["priority"] = member.priority.into();
    }
    let mut locality = json!({});
    let Locality { region, zone, sub_zone } = &*member.locality;
    for (name, part) in [("region", region), ("zone", zone), ("sub_zone", sub_zone)] {
        if !part.is_empty() {
            locality[name] = (**part).into();
        }
    }
    host["locality"] = locality;
    host
}

fn sorted<'a>(snapshot: &'a Snapshot, filter: Option<&Regex>) -> Vec<&'a Arc<Cluster>> {
    let is_wanted = |cluster: &&Arc<Cluster>| filter.is_none_or(|filter| filter.is_match(&cluster.config.name));
    let mut clusters: Vec<_> = snapshot.clusters.values().filter(is_wanted).collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    clusters
}
