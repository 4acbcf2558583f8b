//! What callers ask of the router in `x-envoy-*` headers: timeouts and retries of their own. They reach it only from those who
//! may ask, and go no further.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};

use crate::{
    config::{
        http_filter::RouterFilter,
        matcher::{HeaderMatch, HeaderMatcher, HeaderMatcherName},
        route::{ForwardAction, GrpcTimeout, RetryOn, RetryPolicy},
    },
    http::{
        exchange::is_grpc, local_reply::LocalReply, request_headers::authority, response_flags::ResponseFlags,
        route::matcher::header_matches,
    },
};

/// The route's policy with what the caller asked for.
pub struct Orders<'a> {
    /// Spans all tries. None: no bound.
    pub timeout: Option<Duration>,
    pub per_try_timeout: Option<Duration>,
    /// The caller would have tries overlap: then none of them is told to be quicker than the whole.
    hedges: bool,
    pub retry_policy: Option<Cow<'a, RetryPolicy>>,
}

const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const RETRIABLE_STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const RETRIABLE_HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const HEDGE_ON_PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const ALT_STAT_NAME: HeaderName = HeaderName::from_static("x-envoy-upstream-alt-stat-name");
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub const EXPECTED_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Takes the orders out of the request.
pub fn take<'a>(
    filter: &RouterFilter,
    action: &'a ForwardAction,
    head: &mut request::Parts,
) -> Result<Orders<'a>, LocalReply> {
    let route_timeout = if action.max_stream_duration.is_some() {
        None
    } else {
        match action.grpc_timeout.filter(|_| is_grpc(&head.headers)) {
            Some(bounds) => grpc_timeout_within(bounds, head.headers.get(GRPC_TIMEOUT).and_then(grpc_timeout)),
            None => action.timeout,
        }
    };
    let of_route = action.retry_policy.as_ref();
    let mut orders = Orders {
        timeout: route_timeout,
        per_try_timeout: of_route.and_then(|policy| policy.per_try_timeout),
        hedges: false,
        retry_policy: of_route.map(Cow::Borrowed),
    };
    // Few requests have any: those of the others are not looked for one by one.
    if head.headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        check(filter, &head.headers)?;
        orders.read_timeouts(filter, &mut head.headers);
        orders.read_retries(&mut head.headers);
        orders.hedges = head.headers.remove(HEDGE_ON_PER_TRY_TIMEOUT).is_some_and(|hedge| hedge == "true");
        head.headers.remove(ALT_STAT_NAME);
    }
    if let (Some(per_try), Some(whole)) = (orders.per_try_timeout, orders.timeout)
        && per_try >= whole
    {
        orders.per_try_timeout = None;
    }
    if let Some(policy) = &orders.retry_policy
        && !policy.retriable_request_headers.is_empty()
        && !policy.retriable_request_headers.iter().any(|matcher| header_matches(matcher, head, authority(head)))
    {
        orders.retry_policy = None;
    }
    Ok(orders)
}

/// Zero stands for no bound, wherever it is.
fn grpc_timeout_within(bounds: GrpcTimeout, asked: Option<Duration>) -> Option<Duration> {
    let asked = asked.unwrap_or_default();
    let asked = if bounds.offset < asked { asked - bounds.offset } else { asked };
    let is_over = !bounds.max.is_zero() && (asked.is_zero() || asked > bounds.max);
    Some(if is_over { bounds.max } else { asked }).filter(|timeout| !timeout.is_zero())
}

/// gRPC over HTTP/2, "Requests": up to eight digits and a unit.
pub fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// `strict_check_headers`: bad values are refused, where otherwise they are overlooked.
fn check(filter: &RouterFilter, headers: &HeaderMap) -> Result<(), LocalReply> {
    for name in &filter.strict_check_headers {
        let Some(value) = headers.get(name) else { continue };
        let is_list = [RETRY_ON, RETRY_GRPC_ON].contains(name);
        let is_good = if is_list { is_known_list(name, value) } else { number(value).is_some() };
        if !is_good {
            let value = String::from_utf8_lossy(value.as_bytes());
            let flags = ResponseFlags::INVALID_ENVOY_REQUEST_HEADERS;
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, flags, "request_headers_failed_strict_check");
            return Err(reply.with_body(format!("invalid header '{name}' with value '{value}'")));
        }
    }
    Ok(())
}

fn is_known_list(name: &HeaderName, value: &HeaderValue) -> bool {
    let wanted_grpc = *name == RETRY_GRPC_ON;
    value.to_str().is_ok_and(|list| {
        list.split(',').map(str::trim).all(|name| {
            let only = RetryOn::parse(name);
            only != RetryOn::default() && (only.is_grpc_alone() == wanted_grpc)
        })
    })
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

impl Orders<'_> {
    fn read_timeouts(&mut self, filter: &RouterFilter, headers: &mut HeaderMap) {
        // 0 is no bound at all.
        let bound =
            |value: &HeaderValue| number(value).map(|ms| Some(Duration::from_millis(ms)).filter(|ms| !ms.is_zero()));
        let expected = headers.get(EXPECTED_TIMEOUT_MS).filter(|_| filter.respect_expected_rq_timeout);
        match expected.and_then(bound) {
            Some(timeout) => self.timeout = timeout,
            None => {
                if let Some(timeout) = headers.remove(TIMEOUT_MS).as_ref().and_then(bound) {
                    self.timeout = timeout;
                }
            }
        }
        if let Some(per_try) = headers.remove(PER_TRY_TIMEOUT_MS).as_ref().and_then(bound) {
            self.per_try_timeout = per_try;
        }
    }

    fn read_retries(&mut self, headers: &mut HeaderMap) {
        let [retry_on, retry_grpc_on, max_retries, status_codes, header_names] =
            [RETRY_ON, RETRY_GRPC_ON, MAX_RETRIES, RETRIABLE_STATUS_CODES, RETRIABLE_HEADER_NAMES]
                .map(|name| headers.remove(name));
        if retry_on.is_none() && retry_grpc_on.is_none() && self.retry_policy.is_none() {
            return;
        }
        if [&retry_on, &retry_grpc_on, &max_retries, &status_codes, &header_names].iter().all(|header| header.is_none())
        {
            return;
        }
        let policy = self.retry_policy.get_or_insert_with(|| Cow::Owned(RetryPolicy::default())).to_mut();
        for list in [&retry_on, &retry_grpc_on].into_iter().flatten() {
            policy.retry_on = policy.retry_on.or(RetryOn::parse(list.to_str().unwrap_or_default()));
        }
        if let Some(max) = max_retries.as_ref().and_then(number) {
            policy.num_retries = u32::try_from(max).unwrap_or(u32::MAX);
        }
        policy.retriable_status_codes.extend(
            list(&status_codes)
                .filter_map(|code| code.parse().ok())
                .filter_map(|code: u16| StatusCode::from_u16(code).ok()),
        );
        let names = list(&header_names).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let matchers: Vec<HeaderMatcher> = names
            .map(|name| HeaderMatcher {
                name: HeaderMatcherName::Header(name),
                value: HeaderMatch::Present(true),
                invert_match: false,
                treat_missing_header_as_empty: false,
            })
            .collect();
        policy.retriable_headers.extend(matchers.into_iter().map(Into::into));
    }

    /// gRPC servers are told in their own header.
    pub fn tell_grpc(&self, action: &ForwardAction, head: &mut request::Parts) {
        if action.grpc_timeout.is_some()
            && is_grpc(&head.headers)
            && let Some(timeout) = self.expected_timeout(Duration::ZERO)
            && let Ok(value) = HeaderValue::try_from(format!("{}m", timeout.as_millis().min(99_999_999)))
        {
            head.headers.insert(GRPC_TIMEOUT, value);
        }
    }

    /// What the upstream may take for a try, when so much of the time has passed.
    pub fn expected_timeout(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.timeout.map(|whole| whole.saturating_sub(elapsed).max(Duration::from_millis(1)));
        match (self.per_try_timeout.filter(|_| !self.hedges), left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }
}

fn list(value: &Option<HeaderValue>) -> impl Iterator<Item = &str> {
    let text = value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
