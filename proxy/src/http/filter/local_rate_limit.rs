//! `envoy.filters.http.local_ratelimit`: refuses requests beyond so many in a time.

use std::{cell::RefCell, rc::Rc, time::Instant};

use http::{HeaderName, HeaderValue, Response};

use super::{Passing, override_of};
use crate::{
    config::{
        fraction::Fraction,
        http_filter::{LocalRateLimit, RouteFilter},
        token_bucket::TokenBucket as BucketSettings,
    },
    http::{exchange::ResponseBody, header_mutation, local_reply::LocalReply, response_flags::ResponseFlags},
    token_bucket::{Taken, TokenBucket},
};

/// What the response says of the bucket.
#[derive(Default)]
pub(super) struct Pass {
    limits: Option<(u32, Taken)>,
}

/// Buckets of one connection, one for each limit that wants its own.
#[derive(Default)]
pub struct ConnectionBuckets(RefCell<Vec<(BucketSettings, Rc<TokenBucket>)>>);

impl ConnectionBuckets {
    fn of(&self, settings: BucketSettings) -> Rc<TokenBucket> {
        let mut buckets = self.0.borrow_mut();
        if let Some((_, bucket)) = buckets.iter().find(|(known, _)| *known == settings) {
            return bucket.clone();
        }
        let bucket = Rc::new(TokenBucket::new(settings));
        buckets.push((settings, bucket.clone()));
        bucket
    }
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u32 = 8;

pub(super) fn request(name: &str, limit: &LocalRateLimit, passing: &mut Passing<'_>) -> (Pass, Option<LocalReply>) {
    let limit = match override_of(passing.route, name) {
        Some(RouteFilter::LocalRateLimit(limit)) => limit,
        _ => limit,
    };
    let connection = &passing.exchange.connection;
    let draw = |share: Fraction| connection.downstream.worker.with_random(|random| share.draw(random));
    let Some(settings) = limit.settings.filter(|_| draw(limit.enabled)) else { return (Pass::default(), None) };
    let now = Instant::now();
    let taken = match &limit.shared {
        Some(bucket) => bucket.take(now),
        None => connection.buckets.of(settings).take(now),
    };
    let pass = Pass { limits: limit.rate_limit_headers.then_some((settings.tokens_max, taken)) };
    if taken.allowed {
        return (pass, None);
    }
    if !draw(limit.enforced) {
        header_mutation::append_to_request(&limit.request_headers_when_not_enforced, passing.exchange, passing.head);
        return (pass, None);
    }
    let mut reply = LocalReply::new(limit.status, ResponseFlags::RATE_LIMITED, "local_rate_limited");
    reply.grpc_status = limit.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
    header_mutation::append_to_reply(&limit.response_headers, passing.exchange, passing.head, reply.headers_mut());
    (pass, Some(reply.with_body("local_rate_limited")))
}

pub(super) fn response(pass: &Pass, response: &mut Response<ResponseBody>) {
    let Some((max_tokens, taken)) = pass.limits else { return };
    let headers = response.headers_mut();
    headers.append(LIMIT, HeaderValue::from(max_tokens));
    headers.append(REMAINING, HeaderValue::from(taken.remaining));
    headers.append(RESET, HeaderValue::from(taken.reset_in.as_secs_f64().ceil() as u64));
}
