//! `envoy.filters.http.ratelimit`: asks a service whether a request is one too many, by the descriptors that routes make of it.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, Response};

use super::{Passing, override_of};
use crate::{
    config::http_filter::{Callers, RateLimit, RateLimitOverride, RouteFilter, VirtualHostLimits},
    http::{
        exchange::{Exchange, ResponseBody},
        header_mutation,
        local_reply::LocalReply,
        rate_limit_descriptor::{Described, add_descriptors},
        response_flags::ResponseFlags,
        side_call::SideCall,
    },
    stats::ClusterStat,
    xds::rate_limit_service::{self, Answer, Descriptor, LimitStatus, SHOULD_RATE_LIMIT, Verdict},
};

/// What the response gets.
#[derive(Default)]
pub(super) struct Pass {
    headers: Vec<(HeaderName, HeaderValue)>,
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

pub(super) async fn request(name: &str, limit: &RateLimit, passing: &mut Passing<'_>) -> (Pass, Option<LocalReply>) {
    let exchange = passing.exchange;
    let worker = &exchange.connection.downstream.worker;
    let concerns = match limit.callers {
        Callers::All => true,
        callers => {
            let is_internal = passing.head.headers.get("x-envoy-internal").is_some_and(|internal| internal == "true");
            is_internal == (callers == Callers::Internal)
        }
    };
    if !concerns || !worker.with_random(|random| limit.enabled.draw(random)) {
        return (Pass::default(), None);
    }
    let (domain, descriptors) = descriptors(name, limit, passing);
    if descriptors.is_empty() {
        return (Pass::default(), None);
    }
    let message = rate_limit_service::request(domain, descriptors);
    let service = &limit.service;
    let call = SideCall {
        worker,
        cluster: &service.cluster,
        timeout: service.timeout,
        response_bytes_max: service.response_bytes_max,
    };
    let answered = call.grpc(SHOULD_RATE_LIMIT, service.metadata.clone(), &message).await;
    let answer = match &answered {
        Ok(bytes) => rate_limit_service::answer(bytes),
        Err(error) => {
            tracing::debug!(cluster = %service.cluster, %error, "the rate limit service did not answer");
            None
        }
    };
    match answer {
        Some(answer) if answer.verdict != Verdict::Unknown => take(answer, limit, passing),
        Some(_) | None => (Pass::default(), failed(limit, exchange)),
    }
}

/// And the domain that they are of.
fn descriptors<'a>(name: &str, limit: &'a RateLimit, passing: &Passing<'a>) -> (&'a str, Vec<Descriptor>) {
    let mut descriptors = Vec::new();
    let Some(route) = passing.route.filter(|route| route.is_forwarded()) else { return (&limit.domain, descriptors) };
    let said = match override_of(Some(route), name) {
        Some(RouteFilter::RateLimit(said)) => Some(said),
        _ => None,
    };
    let domain = said.and_then(|said| said.domain.as_deref()).unwrap_or(&limit.domain);
    let worker = &passing.exchange.connection.downstream.worker;
    if route.cluster_name(passing.head).is_none_or(|name| worker.cluster(&name).is_none()) {
        return (domain, descriptors);
    }
    let of = Described { exchange: passing.exchange, route, head: passing.head };
    let mut add = |entries| add_descriptors(entries, limit.stage, &of, &mut descriptors);
    match said.filter(|said| !said.entries.is_empty()) {
        Some(said) => add(&said.entries),
        None if !limit.entries.is_empty() => add(&limit.entries),
        None => {
            let (of_route, includes_host) = route.rate_limits();
            add(of_route);
            let host = said.map_or(VirtualHostLimits::WithoutOthers, |said: &RateLimitOverride| said.virtual_host);
            let takes_host = match host {
                VirtualHostLimits::Always => true,
                VirtualHostLimits::Never => false,
                VirtualHostLimits::WithoutOthers => includes_host || of_route.is_empty(),
            };
            if takes_host {
                add(&route.virtual_host().rate_limits);
            }
        }
    }
    (domain, descriptors)
}

fn take(answer: Answer, limit: &RateLimit, passing: &mut Passing<'_>) -> (Pass, Option<LocalReply>) {
    let exchange = passing.exchange;
    if let Some(fields) = answer.metadata {
        exchange.metadata.borrow_mut().merge(&limit.metadata_namespace, fields);
    }
    let mut headers = answer.response_headers;
    if limit.rate_limit_headers {
        add_limit_headers(&answer.limits, &mut headers);
    }
    if answer.verdict == Verdict::Ok {
        count(exchange, ClusterStat::RateLimitOk);
        for (name, value) in answer.request_headers {
            passing.head.headers.append(name, value);
        }
        return (Pass { headers }, None);
    }
    count(exchange, ClusterStat::RateLimitOverLimit);
    let worker = &exchange.connection.downstream.worker;
    if !worker.with_random(|random| limit.enforced.draw(random)) {
        for (name, value) in answer.request_headers {
            passing.head.headers.append(name, value);
        }
        return (Pass { headers }, None);
    }
    let mut reply = LocalReply::new(limit.limited_status, ResponseFlags::RATE_LIMITED, "request_rate_limited");
    reply.grpc_status = limit.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
    for (name, value) in headers {
        reply.headers_mut().append(name, value);
    }
    if limit.says_limited {
        reply.headers_mut().insert(X_ENVOY_RATELIMITED, HeaderValue::from_static("true"));
    }
    header_mutation::append_to_reply(&limit.response_headers, exchange, passing.head, reply.headers_mut());
    (Pass::default(), Some(reply.with_body(answer.body)))
}

/// None: the request goes on all the same.
fn failed(limit: &RateLimit, exchange: &Exchange) -> Option<LocalReply> {
    count(exchange, ClusterStat::RateLimitError);
    let worker = &exchange.connection.downstream.worker;
    if !worker.with_random(|random| limit.failure_denied.draw(random)) {
        count(exchange, ClusterStat::RateLimitFailureModeAllowed);
        return None;
    }
    let flags = ResponseFlags::RATE_LIMIT_SERVICE_ERROR;
    Some(LocalReply::new(limit.status_on_error, flags, "rate_limiter_error"))
}

/// Counted with the cluster that the request was for.
fn count(exchange: &Exchange, stat: ClusterStat) {
    let worker = &exchange.connection.downstream.worker;
    let name = exchange.upstream_cluster.borrow().clone();
    if let Some(pools) = name.and_then(|name| worker.cluster(&name)) {
        pools.count(stat);
    }
}

/// Of the limit that is closest; all limits are listed behind it (draft-polli-ratelimit-headers-03).
fn add_limit_headers(limits: &[LimitStatus], headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let Some(closest) = limits.iter().min_by_key(|limit| limit.remaining) else { return };
    let mut text = closest.requests_per_unit.to_string();
    for limit in limits {
        let Some(window) = limit.window else { continue };
        // A String takes all that is written.
        let _ = write!(text, ", {};w={}", limit.requests_per_unit, window.as_secs());
        if !limit.name.is_empty() {
            let _ = write!(text, ";name=\"{}\"", limit.name);
        }
    }
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.push((LIMIT, text));
    }
    headers.push((REMAINING, closest.remaining.into()));
    headers.push((RESET, closest.until_reset.as_secs().into()));
}

pub(super) fn response(pass: Pass, response: &mut Response<ResponseBody>) {
    for (name, value) in pass.headers {
        response.headers_mut().append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_closest_limit_comes_first() {
        let limit = |name: &str, requests_per_unit, remaining| LimitStatus {
            name: name.to_owned(),
            requests_per_unit,
            window: Some(Duration::from_secs(60)),
            remaining,
            until_reset: Duration::from_secs(7),
        };
        let mut headers = Vec::new();
        add_limit_headers(&[limit("", 10, 5), limit("n", 20, 2)], &mut headers);
        let text: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        assert_eq!(
            text,
            ["x-ratelimit-limit: 20, 10;w=60, 20;w=60;name=\"n\"", "x-ratelimit-remaining: 2", "x-ratelimit-reset: 7"]
        );
    }
}
