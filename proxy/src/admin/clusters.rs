//! `/clusters`: each cluster's hosts with their counters, as Envoy prints them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    config::{endpoint::HealthStatus, route::RoutingPriority},
    runtime::snapshot::Snapshot,
    stats::{HostStat, StatGroup},
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

pub(super) fn to_text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for cluster in sorted(snapshot) {
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
        for member in &cluster.endpoints.load().members {
            host_text(&mut out, name, member);
        }
    }
    out
}

fn host_text(out: &mut String, cluster: &str, member: &Member) {
    let address = member.host.address;
    for &(stat, name, _) in HostStat::CELLS {
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
pub(super) fn to_json(snapshot: &Snapshot) -> Value {
    let clusters = sorted(snapshot).into_iter().map(|cluster| {
        let thresholds = PRIORITIES.map(|(label, priority)| {
            let mut threshold = json!({ "priority": label.to_ascii_uppercase() });
            for (name, resource) in RESOURCES {
                threshold[format!("max_{name}")] = cluster.circuit_breakers.limit(priority, resource).into();
            }
            threshold
        });
        json!({
            "name": *cluster.config.name,
            "observability_name": *cluster.config.stat_name,
            "circuit_breakers": { "thresholds": thresholds },
            "host_statuses": cluster.endpoints.load().members.iter().map(host_json).collect::<Vec<_>>(),
        })
    });
    json!({ "cluster_statuses": clusters.collect::<Vec<_>>() })
}

fn host_json(member: &Member) -> Value {
    let stats = HostStat::CELLS.iter().map(|&(stat, name, kind)| {
        let kind = format!("{kind:?}").to_ascii_uppercase();
        json!({ "name": name, "type": kind, "value": member.host.stats.sum(stat).to_string() })
    });
    let status = match member.health_status {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Degraded => "DEGRADED",
    };
    json!({
        "address": { "socket_address": {
            "address": member.host.address.ip().to_string(), "port_value": member.host.address.port(),
        } },
        "hostname": *member.host.hostname,
        "stats": stats.collect::<Vec<_>>(),
        "health_status": { "eds_health_status": status },
        "weight": member.weight,
        "priority": member.priority,
        "locality": {
            "region": *member.locality.region, "zone": *member.locality.zone, "sub_zone": *member.locality.sub_zone,
        },
    })
}

fn sorted(snapshot: &Snapshot) -> Vec<&Arc<Cluster>> {
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    clusters
}
