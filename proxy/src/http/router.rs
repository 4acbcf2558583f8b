//! The terminal filter: finds the route, chooses hosts, tries until a response is good enough, and hands it back.
//!
//! A route is pinned for the request; endpoints are read afresh for each try.

use std::{
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Response, StatusCode, request, response};

use crate::{
    config::{
        http_connection_manager::RouterFilter,
        route::{ClusterSpecifier, ForwardAction, RetryPolicy, Route, RouteAction},
    },
    http::{
        body::Body,
        exchange::{Deadline, Deadlines, Exchange, ResponseBody},
        local_reply::LocalReply,
        replay::ReplaySource,
        request_headers::{authority, remove_hop_by_hop},
        response_flags::ResponseFlags,
        retry::{self, TryFailure},
        upstream_request::{self, TryError, UpstreamStream},
    },
    stats::{ClusterStat, HostStat, HttpStat},
    upstream::{
        circuit_breaker::{Permit, Resource},
        connect::ConnectError,
        pool::{ClusterPools, HostPool},
        weighted_cluster,
    },
};

const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

pub async fn route(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    head: request::Parts,
    body: Body,
) -> Response<ResponseBody> {
    let Some(found) = find_route(exchange, &head) else {
        exchange.count(HttpStat::NoRoute);
        capture(exchange, &head);
        let reply = LocalReply::new(StatusCode::NOT_FOUND, ResponseFlags::NO_ROUTE_FOUND, "route_not_found");
        return reply.into_response(exchange);
    };
    if !found.route.name.is_empty() {
        *exchange.route_name.borrow_mut() = Some(found.route.name.clone());
    }
    match &found.route.action {
        RouteAction::DirectResponse(direct) => {
            exchange.count(HttpStat::RqDirectResponse);
            capture(exchange, &head);
            let reply = LocalReply::new(direct.status, ResponseFlags::default(), "direct_response");
            reply.with_body(direct.body.clone()).into_response(exchange)
        }
        RouteAction::Forward(action) => {
            let forwarded = forward(filter, exchange, action, &found, head, body).await;
            forwarded.unwrap_or_else(|reply| reply.into_response(exchange))
        }
    }
}

/// For access logs: the request as it goes on, or as it was refused.
fn capture(exchange: &Exchange, head: &request::Parts) {
    exchange.captured.borrow_mut().capture_request(&exchange.connection.active.config.access_log, head);
}

struct Found {
    route: Arc<Route>,
    include_request_attempt_count: bool,
    include_attempt_count_in_response: bool,
}

fn find_route(exchange: &Exchange, head: &request::Parts) -> Option<Found> {
    let routes = exchange.connection.active.routes.load();
    let (host, route) = routes.as_ref()?.find(head, authority(head))?;
    Some(Found {
        route: route.clone(),
        include_request_attempt_count: host.include_request_attempt_count,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
    })
}

async fn forward(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    action: &ForwardAction,
    found: &Found,
    mut head: request::Parts,
    body: Body,
) -> Result<Response<ResponseBody>, LocalReply> {
    let pools = find_cluster(exchange, action).inspect_err(|_| capture(exchange, &head))?;
    exchange.count(HttpStat::RqTotalRouted);
    rewrite(filter, action, found, &mut head).inspect_err(|_| capture(exchange, &head))?;
    if !filter.suppress_envoy_headers
        && let Some(timeout) = expected_timeout(action)
    {
        head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, (timeout.as_millis() as u64).into());
    }
    let config = &exchange.connection.active.config;
    capture(exchange, &head);
    let idle_timeout = action.idle_timeout.unwrap_or(config.stream_idle_timeout);
    let mut tries = Tries {
        filter,
        exchange,
        action,
        pools: &pools,
        include_attempt_count: found.include_request_attempt_count,
        deadlines: Deadlines::new(config.request_timeout, action.timeout, idle_timeout),
        tried: Vec::new(),
        retries: 0,
        retry_permit: None,
    };
    let (head, body, stream) = tries.run(head, body).await?;
    let deadlines = std::mem::take(&mut tries.deadlines);
    let attempts = exchange.attempts.get();
    let mut response = respond(filter, exchange, &pools, (head, body, stream), deadlines);
    if found.include_attempt_count_in_response {
        response.headers_mut().insert(X_ENVOY_ATTEMPT_COUNT, attempts.into());
    }
    Ok(response)
}

fn find_cluster(exchange: &Exchange, action: &ForwardAction) -> Result<Rc<ClusterPools>, LocalReply> {
    let worker = &exchange.connection.downstream.worker;
    let name = match &action.cluster {
        ClusterSpecifier::Cluster(name) => name,
        ClusterSpecifier::Weighted(clusters) => worker.with_random(|random| weighted_cluster::choose(clusters, random)),
    };
    match worker.cluster(name) {
        Some(pools) => {
            *exchange.upstream_cluster.borrow_mut() = Some(name.clone());
            Ok(pools)
        }
        None => {
            exchange.count(HttpStat::NoCluster);
            let status = action.cluster_not_found_response_code;
            Err(LocalReply::new(status, ResponseFlags::NO_CLUSTER_FOUND, "cluster_not_found"))
        }
    }
}

fn rewrite(
    filter: &RouterFilter,
    action: &ForwardAction,
    found: &Found,
    head: &mut request::Parts,
) -> Result<(), LocalReply> {
    use crate::config::route::PathMatch;
    if let Some(host) = &action.host_rewrite_literal {
        head.headers.insert(http::header::HOST, host.clone());
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        uri.authority = None;
        uri.scheme = None;
        head.uri = http::Uri::from_parts(uri).map_err(|_| unusable_path())?;
    }
    let Some(replacement) = &action.prefix_rewrite else { return Ok(()) };
    let whole = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let matched = match &found.route.route_match.path {
        PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::PathSeparatedPrefix(text) => text.len(),
        PathMatch::SafeRegex(_) => head.uri.path().len(),
    };
    let rewritten = format!("{replacement}{}", &whole[matched..]);
    if !filter.suppress_envoy_headers
        && let Ok(original) = HeaderValue::from_str(whole)
    {
        head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
    }
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.path_and_query = Some(rewritten.try_into().map_err(|_| unusable_path())?);
    head.uri = http::Uri::from_parts(uri).map_err(|_| unusable_path())?;
    Ok(())
}

fn unusable_path() -> LocalReply {
    LocalReply::new(StatusCode::BAD_REQUEST, ResponseFlags::default(), "path_rewrite_failed")
}

/// What the upstream may take for one try.
fn expected_timeout(action: &ForwardAction) -> Option<Duration> {
    let per_try = action.retry_policy.as_ref().and_then(|policy| policy.per_try_timeout);
    match (action.timeout, per_try) {
        (Some(whole), Some(per_try)) => Some(whole.min(per_try)),
        (whole, per_try) => whole.or(per_try),
    }
}

type Answer = (response::Parts, Body, UpstreamStream);

/// The tries of one request.
struct Tries<'a> {
    filter: &'a RouterFilter,
    exchange: &'a Rc<Exchange>,
    action: &'a ForwardAction,
    pools: &'a Rc<ClusterPools>,
    include_attempt_count: bool,
    deadlines: Deadlines,
    /// Hosts by id.
    tried: Vec<u64>,
    retries: u32,
    /// Counts against `max_retries` while a retry is under way.
    retry_permit: Option<Permit>,
}

impl Tries<'_> {
    async fn run(&mut self, head: request::Parts, body: Body) -> Result<Answer, LocalReply> {
        let Some(policy) = &self.action.retry_policy else {
            return match self.once(head, body).await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(self.reply(&error)),
            };
        };
        let bytes_max = self.exchange.connection.downstream.buffer_limit_bytes as usize;
        let source = match body {
            Body::Empty => None,
            body => Some(ReplaySource::new(body, bytes_max)),
        };
        loop {
            let body = match &source {
                None => Body::Empty,
                Some(source) => source.replay().unwrap_or_default(),
            };
            let answered = self.once(head.clone(), body).await;
            let wanted = match &answered {
                Ok((head, ..)) => retry::retries_response(policy, head.status, &head.headers),
                Err(error) => failure(error).is_some_and(|failure| retry::retries_failure(&policy.retry_on, failure)),
            };
            let replayable = source.as_ref().is_none_or(ReplaySource::is_replayable);
            // What the caller has seen the beginning of cannot be begun again.
            let unseen = !self.exchange.informational.has_begun();
            if !wanted || !replayable || !unseen || !self.may_retry(policy) {
                if let Some(source) = &source {
                    source.forget();
                }
                if self.retries > 0 && !wanted && answered.is_ok() {
                    self.count(ClusterStat::RqRetrySuccess);
                }
                return answered.map_err(|error| self.reply(&error));
            }
            if let Ok((_, body, stream)) = answered {
                // Complete already (a bare 503): its connection can go on.
                if http_body::Body::is_end_stream(&body) {
                    stream.complete(self.exchange.request_received.get().is_some());
                }
            }
            self.back_off(policy).await?;
        }
    }

    /// One try, within the deadlines of the request.
    async fn once(&mut self, mut head: request::Parts, body: Body) -> Result<Answer, TryError> {
        let exchange = self.exchange;
        exchange.attempts.set(exchange.attempts.get() + 1);
        if self.include_attempt_count {
            head.headers.insert(X_ENVOY_ATTEMPT_COUNT, exchange.attempts.get().into());
        }
        let pool = self.choose_host().ok_or(TryError::NoHealthyUpstream)?;
        exchange.upstream_host.set(Some(pool.host.address));
        self.tried.push(pool.host.id);
        let per_try = self.action.retry_policy.as_ref().and_then(|policy| policy.per_try_timeout);
        let sending = upstream_request::send(&pool, self.action.priority, &exchange.informational, head, body);
        let mut sending = std::pin::pin!(async {
            match per_try {
                None => sending.await,
                Some(timeout) => tokio::time::timeout(timeout, sending).await.unwrap_or(Err(TryError::PerTryTimeout)),
            }
        });
        let deadlines = &mut self.deadlines;
        let answered = std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(answered),
            Poll::Pending => deadlines.poll(exchange, cx).map(|over| Err(TryError::Deadline(over))),
        })
        .await;
        self.count_timeouts(&answered, &pool);
        answered
    }

    fn choose_host(&self) -> Option<Rc<HostPool>> {
        let (avoid_tried, reselections) = match &self.action.retry_policy {
            Some(policy) if policy.previous_hosts => (true, policy.host_selection_retry_max_attempts),
            _ => (false, 0),
        };
        let downstream = &self.exchange.connection.downstream;
        let refused = |host: &crate::upstream::endpoint_set::Host| avoid_tried && self.tried.contains(&host.id);
        let chosen = downstream
            .worker
            .with_random(|random| self.pools.choose(random, downstream.local_address, refused, reselections));
        if chosen.is_none() {
            self.count(ClusterStat::CxNoneHealthy);
        }
        chosen.map(|pool| downstream.pool(pool))
    }

    fn count_timeouts(&self, answered: &Result<Answer, TryError>, pool: &HostPool) {
        match answered {
            Err(TryError::PerTryTimeout) => {
                self.count(ClusterStat::RqPerTryTimeout);
                pool.count_host(HostStat::RqTimeout);
            }
            Err(TryError::Deadline(Deadline::Request)) => self.exchange.count(HttpStat::RqTimeout),
            Err(TryError::Deadline(Deadline::Idle)) => self.exchange.count(HttpStat::RqIdleTimeout),
            Err(TryError::Deadline(Deadline::Timeout)) => {
                self.count(ClusterStat::RqTimeout);
                pool.count_host(HostStat::RqTimeout);
            }
            _ => {}
        }
    }

    /// Takes the permit for one more.
    fn may_retry(&mut self, policy: &RetryPolicy) -> bool {
        if self.retries >= policy.num_retries {
            self.count(ClusterStat::RqRetryLimitExceeded);
            self.exchange.add_flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return false;
        }
        self.retry_permit = None; // the one before is over
        let breakers = &self.pools.cluster().circuit_breakers;
        self.retry_permit = breakers.try_acquire(self.action.priority, Resource::Retries);
        if self.retry_permit.is_none() {
            self.count(ClusterStat::RqRetryOverflow);
            self.exchange.add_flag(ResponseFlags::UPSTREAM_OVERFLOW);
            return false;
        }
        self.count(ClusterStat::RqRetry);
        self.retries += 1;
        true
    }

    async fn back_off(&mut self, policy: &RetryPolicy) -> Result<(), LocalReply> {
        let random = self.exchange.connection.downstream.worker.with_random(fastrand::Rng::f64);
        let pause = retry::back_off(&policy.back_off, self.retries - 1, random);
        let until = Instant::now() + pause;
        let mut sleep = std::pin::pin!(tokio::time::sleep_until(until.into()));
        let (exchange, deadlines) = (self.exchange, &mut self.deadlines);
        let over = std::future::poll_fn(|cx| match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => deadlines.poll(exchange, cx).map(Some),
        })
        .await;
        match over {
            None => Ok(()),
            Some(over) => Err(self.reply(&TryError::Deadline(over))),
        }
    }

    fn count(&self, stat: ClusterStat) {
        let worker = self.exchange.connection.downstream.worker.index;
        self.pools.cluster().stats.cells.inc(worker, stat);
    }

    /// What the caller is told. One exhaustive match.
    fn reply(&self, error: &TryError) -> LocalReply {
        let reply = reply_to(error, self.retries > 0);
        if let TryError::Connect(cause) = error {
            *self.exchange.upstream_failure.borrow_mut() = Some(cause.to_string());
        }
        if self.filter.dynamic_stats {
            let worker = self.exchange.connection.downstream.worker.index;
            self.pools.cluster().stats.codes.count(worker, reply.status);
        }
        reply
    }
}

fn failure(error: &TryError) -> Option<TryFailure> {
    match error {
        TryError::Connect(_) => Some(TryFailure::Connect),
        TryError::RefusedStream => Some(TryFailure::RefusedStream),
        TryError::ResetBeforeRequest => Some(TryFailure::ResetBeforeRequest),
        TryError::ConnectionTermination | TryError::RemoteReset | TryError::Protocol => Some(TryFailure::Reset),
        TryError::PerTryTimeout => Some(TryFailure::PerTryTimeout),
        TryError::Overflow | TryError::RequestBody | TryError::NoHealthyUpstream | TryError::Deadline(_) => None,
    }
}

fn reply_to(error: &TryError, retried: bool) -> LocalReply {
    use ResponseFlags as Flags;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let reset = |status, flags, reason: &str, cause: Option<&str>| {
        let retried = if retried { "retried and the latest reset reason" } else { "reset reason" };
        // The transport's own words are for the operator's logs, not for the caller.
        let body = format!("upstream connect error or disconnect/reset before headers. {retried}: {reason}");
        let cause = cause.map(|cause| format!("|{cause}")).unwrap_or_default();
        let details = format!("upstream_reset_before_response_started{{{reason}{cause}}}").replace(' ', "_");
        LocalReply::new(status, flags, details).with_body(body)
    };
    match error {
        TryError::NoHealthyUpstream => LocalReply::new(unavailable, Flags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream")
            .with_body("no healthy upstream"),
        TryError::Overflow => {
            LocalReply { overloaded: true, ..reset(unavailable, Flags::UPSTREAM_OVERFLOW, "overflow", None) }
        }
        TryError::Connect(ConnectError::Timeout) => {
            reset(unavailable, Flags::UPSTREAM_CONNECTION_FAILURE, "connection timeout", None)
        }
        TryError::Connect(cause @ (ConnectError::Tcp(_) | ConnectError::Tls(_))) => {
            let cause = cause.to_string();
            reset(unavailable, Flags::UPSTREAM_CONNECTION_FAILURE, "remote connection failure", Some(&cause))
        }
        TryError::ResetBeforeRequest | TryError::ConnectionTermination | TryError::RequestBody => {
            reset(unavailable, Flags::UPSTREAM_CONNECTION_TERMINATION, "connection termination", None)
        }
        TryError::RefusedStream => {
            reset(unavailable, Flags::UPSTREAM_REMOTE_RESET, "remote refused stream reset", None)
        }
        TryError::RemoteReset => reset(unavailable, Flags::UPSTREAM_REMOTE_RESET, "remote reset", None),
        TryError::Protocol => reset(StatusCode::BAD_GATEWAY, Flags::UPSTREAM_PROTOCOL_ERROR, "protocol error", None),
        TryError::PerTryTimeout => timed_out(Flags::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_timeout"),
        TryError::Deadline(Deadline::Timeout) => timed_out(Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
        TryError::Deadline(Deadline::Request) => {
            LocalReply::new(StatusCode::REQUEST_TIMEOUT, Flags::default(), "request_overall_timeout")
                .with_body("request timeout")
        }
        TryError::Deadline(Deadline::Idle) => {
            let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, Flags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
            reply.with_body("stream timeout")
        }
    }
}

fn timed_out(flags: ResponseFlags, details: &'static str) -> LocalReply {
    LocalReply::new(StatusCode::GATEWAY_TIMEOUT, flags, details).with_body("upstream request timeout")
}

fn respond(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    pools: &ClusterPools,
    (mut head, body, stream): Answer,
    deadlines: Deadlines,
) -> Response<ResponseBody> {
    remove_hop_by_hop(&mut head.headers);
    if !filter.suppress_envoy_headers {
        let elapsed_ms = exchange.started.elapsed().as_millis() as u64;
        head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, service_time(elapsed_ms));
    }
    *exchange.details.borrow_mut() = "via_upstream".into();
    if filter.dynamic_stats {
        pools.cluster().stats.codes.count(exchange.connection.downstream.worker.index, head.status);
    }
    Response::from_parts(head, ResponseBody::upstream(body, exchange.clone(), stream, deadlines))
}

/// Most answers come within milliseconds: those values need no allocation.
fn service_time(elapsed_ms: u64) -> HeaderValue {
    const FAST: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
    match FAST.get(elapsed_ms as usize) {
        Some(text) => HeaderValue::from_static(text),
        None => elapsed_ms.into(),
    }
}
