//! `envoy.filters.http.health_check`: health checks of this proxy are answered here, or marked as such on their way.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::Passing;
use crate::{
    config::http_filter::{CachedAnswer, HealthCheckFilter, HealthCheckMode},
    http::{
        exchange::{Exchange, ResponseBody},
        local_reply::LocalReply,
        request_headers::authority,
        response_flags::ResponseFlags,
        route::matcher::header_matches,
    },
    stats::ClusterStat,
    worker::Worker,
};

const HEALTH_CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// None: the request is no health check, or goes on. Some: its answer.
pub(super) fn request(filter: &HealthCheckFilter, passing: &Passing<'_>) -> Option<LocalReply> {
    let head = &passing.head;
    if !filter.headers.iter().all(|matcher| header_matches(matcher, head, authority(head))) {
        return None;
    }
    passing.exchange.is_health_check.set(true);
    let worker = &passing.exchange.connection.downstream.worker;
    match &filter.mode {
        HealthCheckMode::PassThrough => None,
        HealthCheckMode::Cache(cache) => cache.read(now()).map(cached),
        HealthCheckMode::Answer { cluster_min_healthy_percentages } => {
            let missing =
                cluster_min_healthy_percentages.iter().find_map(|(name, percent)| missing(worker, name, *percent));
            Some(match missing {
                None => LocalReply::new(StatusCode::OK, ResponseFlags::default(), "health_check_ok"),
                Some(details) => unwell(StatusCode::SERVICE_UNAVAILABLE, details),
            })
        }
    }
}

fn cached((status, degraded): (StatusCode, bool)) -> LocalReply {
    let details = "health_check_cached";
    let mut reply = match status {
        StatusCode::OK => LocalReply::new(status, ResponseFlags::default(), details),
        status => unwell(status, details),
    };
    if degraded {
        reply.headers_mut().insert(DEGRADED, TRUE);
    }
    reply
}

fn unwell(status: StatusCode, details: &'static str) -> LocalReply {
    LocalReply::new(status, ResponseFlags::FAILED_LOCAL_HEALTH_CHECK, details)
}

/// What is wrong with a cluster of which so many percent have to be well.
fn missing(worker: &Worker, name: &std::sync::Arc<str>, percent: u64) -> Option<&'static str> {
    let Some(pools) = worker.cluster(name) else { return Some("health_check_failed_cluster_not_found") };
    let gauge = |stat| pools.cluster().stats.cells.sum(stat);
    let counted = gauge(ClusterStat::MembershipTotal).saturating_sub(gauge(ClusterStat::MembershipExcluded));
    if counted == 0 {
        return (percent > 0).then_some("health_check_failed_cluster_empty");
    }
    let well = gauge(ClusterStat::MembershipHealthy) + gauge(ClusterStat::MembershipDegraded);
    (100 * well < counted * percent).then_some("health_check_failed_cluster_unhealthy")
}

pub(super) fn response(filter: &HealthCheckFilter, exchange: &Exchange, response: &mut Response<ResponseBody>) {
    if !exchange.is_health_check.get() {
        return;
    }
    if let HealthCheckMode::Cache(cache) = &filter.mode {
        keep(cache, response);
    }
    let local_cluster = &exchange.connection.downstream.worker.shared.node_cluster;
    if let Ok(name) = HeaderValue::from_str(local_cluster) {
        response.headers_mut().insert(HEALTH_CHECKED_CLUSTER, name);
    }
}

fn keep(cache: &CachedAnswer, response: &Response<ResponseBody>) {
    // What came from here stands for its time and no longer.
    if cache.read(now()).is_none() {
        cache.write(now(), response.status(), response.headers().contains_key(DEGRADED));
    }
}

fn now() -> Duration {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Never zero, which is what an empty cache is good until.
    STARTED.elapsed()
}
