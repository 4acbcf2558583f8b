//! `envoy.filters.http.fault`: delays requests, aborts them, and slows responses down, as a share of all or as headers ask.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::{FilteredBody, Passing, body::Throttled, override_of};
use crate::{
    config::{
        fraction::Fraction,
        http_filter::{Abort, AbortStatus, Fault, RouteFilter},
    },
    http::{
        body::Body,
        exchange::{Exchange, ResponseBody},
        local_reply::LocalReply,
        request_headers::authority,
        response_flags::ResponseFlags,
        route::matcher::header_matches,
    },
    stats::HttpStat,
};

#[derive(Default)]
pub(super) struct Pass {
    response_kbps: Option<u64>,
}

pub(super) async fn request(name: &str, fault: &Fault, passing: &Passing<'_>) -> (Pass, Option<LocalReply>) {
    let fault = match override_of(passing.route, name) {
        Some(RouteFilter::Fault(fault)) => fault,
        _ => fault,
    };
    let exchange = passing.exchange;
    let mut pass = Pass::default();
    if overflows(fault, exchange) || !concerns(fault, passing) {
        return (pass, None);
    }
    let headers = &passing.head.headers;
    if let Some(limit) = &fault.response_rate_limit {
        let kbps = limit.fixed_kbps.or_else(|| number(headers, "x-envoy-fault-throughput-response"));
        let share = asked_share(
            limit.share,
            limit.fixed_kbps.is_none(),
            headers,
            "x-envoy-fault-throughput-response-percentage",
        );
        if let Some(kbps) = kbps.filter(|kbps| *kbps > 0)
            && draw(share, exchange)
        {
            inject(exchange, HttpStat::FaultResponseRateLimitInjected);
            pass.response_kbps = Some(kbps);
        }
    }
    if let Some(delay) = delay(fault, headers, exchange) {
        inject(exchange, HttpStat::FaultDelaysInjected);
        exchange.add_flag(ResponseFlags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    let Some(abort) = &fault.abort else { return (pass, None) };
    let Some(reply) = aborted(abort, headers, exchange) else { return (pass, None) };
    inject(exchange, HttpStat::FaultAbortsInjected);
    (pass, Some(reply))
}

/// Several faults of a request are one active fault.
fn inject(exchange: &Exchange, stat: HttpStat) {
    exchange.count(stat);
    if !exchange.has_active_fault.replace(true) {
        exchange.count(HttpStat::FaultActive);
    }
}

fn overflows(fault: &Fault, exchange: &Exchange) -> bool {
    let Some(max) = fault.active_faults_max else { return false };
    let overflows = exchange.connection.active.stats.cells.sum(HttpStat::FaultActive) >= u64::from(max);
    if overflows {
        exchange.count(HttpStat::FaultOverflow);
    }
    overflows
}

fn concerns(fault: &Fault, passing: &Passing<'_>) -> bool {
    let head = &passing.head;
    let cluster = || passing.route.and_then(|route| route.cluster_name(head));
    let node = || head.headers.get("x-envoy-downstream-service-node").map(HeaderValue::as_bytes);
    (fault.upstream_cluster.is_empty() || cluster().is_some_and(|name| *name == *fault.upstream_cluster))
        && (fault.downstream_nodes.is_empty()
            || node().is_some_and(|node| fault.downstream_nodes.iter().any(|wanted| wanted.as_bytes() == node)))
        && fault.headers.iter().all(|matcher| header_matches(matcher, head, authority(head)))
}

fn delay(fault: &Fault, headers: &HeaderMap, exchange: &Exchange) -> Option<Duration> {
    let delay = fault.delay.as_ref()?;
    let share = asked_share(delay.share, delay.fixed.is_none(), headers, "x-envoy-fault-delay-request-percentage");
    if !draw(share, exchange) {
        return None;
    }
    let asked = || number(headers, "x-envoy-fault-delay-request").map(Duration::from_millis);
    delay.fixed.or_else(asked).filter(|delay| !delay.is_zero())
}

fn aborted(abort: &Abort, headers: &HeaderMap, exchange: &Exchange) -> Option<LocalReply> {
    let by_header = abort.status == AbortStatus::Header;
    let share = asked_share(abort.share, by_header, headers, "x-envoy-fault-abort-request-percentage");
    if !draw(share, exchange) {
        return None;
    }
    let status = match abort.status {
        AbortStatus::Header => {
            let http = number(headers, "x-envoy-fault-abort-request").filter(|code| (200..600).contains(code));
            let http = http.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
            let grpc = || number(headers, "x-envoy-fault-abort-grpc-request").and_then(|code| u32::try_from(code).ok());
            http.map(AbortStatus::Http).or_else(|| grpc().map(AbortStatus::Grpc))?
        }
        fixed => fixed,
    };
    let reply = |code| LocalReply::new(code, ResponseFlags::FAULT_INJECTED, "fault_filter_abort");
    let reply = match status {
        AbortStatus::Http(code) => reply(code),
        AbortStatus::Grpc(status) => reply(StatusCode::OK).with_grpc_status(status),
        AbortStatus::Header => return None, // it was looked up above
    };
    Some(reply.with_body(abort.body.clone().unwrap_or_else(|| "fault filter abort".to_owned())))
}

/// A header may ask for less than is configured, where headers control the fault.
fn asked_share(configured: Fraction, by_header: bool, headers: &HeaderMap, name: &str) -> Fraction {
    match number(headers, name).filter(|_| by_header).and_then(|asked| u32::try_from(asked).ok()) {
        Some(asked) => Fraction { numerator: asked.min(configured.numerator), ..configured },
        None => configured,
    }
}

fn draw(share: Fraction, exchange: &Exchange) -> bool {
    exchange.connection.downstream.worker.with_random(|random| share.draw(random))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

pub(super) fn response(pass: Pass, response: &mut Response<ResponseBody>) {
    let Some(kbps) = pass.response_kbps else { return };
    response.body_mut().change(|inner| Body::Filtered(Box::new(FilteredBody::Throttled(Throttled::new(inner, kbps)))));
}
