//! The terminal filter: finds the route, chooses hosts, tries until a response is good enough, and hands it back.
//!
//! A route is pinned for the request; endpoints are read afresh for each try.

use std::{
    rc::Rc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header::LOCATION, request, response};
use http_body::Body as _;

use crate::{
    config::{
        cluster::Discovery,
        http_connection_manager::HttpConnectionManager,
        http_filter::RouterFilter,
        route::{ForwardAction, HostRewrite, InternalRedirects, PathRewrite, RedirectPath, RetryPolicy, RouteAction},
    },
    http::{
        body::Body,
        exchange::{Deadline, Deadlines, Exchange, ResponseBody, Restart},
        header_mutation,
        host_selection::{Ends, HostSelection},
        internal_redirect::{self, Redirected},
        local_reply::LocalReply,
        mirror,
        replay::ReplaySource,
        request_headers::{authority, remove_hop_by_hop, set_authority, set_path, set_scheme},
        response_flags::ResponseFlags,
        retry::{self, PassedOver, TryFailure},
        rewrite,
        route::resolved::ResolvedRoute,
        router_headers::{self, EXPECTED_TIMEOUT_MS, GRPC_TIMEOUT, Orders, grpc_timeout},
        tunnel,
        upstream_request::{self, Carrier, Terms, TryError, UpstreamStream},
    },
    stats::{ClusterStat, HostStat, HttpStat},
    upstream::{
        aggregate,
        circuit_breaker::{Permit, Resource},
        connect::ConnectError,
        host::Host,
        load_balancer::Wish,
        outlier_detection::Outcome,
        pool::{ClusterPools, HostPool},
    },
};

const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Ours: whoever sent the response has made all the tries that made sense, so that more of them would only multiply load.
const X_WEFT_RETRIES_EXHAUSTED: HeaderName = HeaderName::from_static("x-weft-retries-exhausted");
const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

pub async fn route(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    head: &mut request::Parts,
    body: Body,
) -> Response<ResponseBody> {
    exchange.count(HttpStat::RqTotalRouted);
    let Some(resolved) = exchange.route() else {
        exchange.count(HttpStat::NoRoute);
        exchange.keep_request(head);
        let reply = LocalReply::new(StatusCode::NOT_FOUND, ResponseFlags::NO_ROUTE_FOUND, "route_not_found");
        return reply.into_response(exchange);
    };
    let route = resolved.route();
    if !route.name.is_empty() {
        *exchange.route_name.borrow_mut() = Some(route.name.clone());
    }
    let mut response = match &route.action {
        RouteAction::DirectResponse(direct) => {
            exchange.count(HttpStat::RqDirectResponse);
            for rules in resolved.request_rules() {
                header_mutation::apply_to_request(rules, exchange, head);
            }
            exchange.keep_request(head);
            let reply = LocalReply::new(direct.status, ResponseFlags::default(), "direct_response");
            let mut reply = reply.with_body(direct.body.clone());
            if let Some(format) = &direct.body_format {
                reply.write_body(format, exchange, head);
            }
            reply.into_response(exchange)
        }
        RouteAction::Redirect(redirect) => {
            exchange.count(HttpStat::RqDirectResponse);
            for rules in resolved.request_rules() {
                header_mutation::apply_to_request(rules, exchange, head);
            }
            let location = rewrite::location(redirect, &route.route_match.path, head, exchange);
            if let RedirectPath::Rewritten(wanted) = &redirect.path {
                let whole = head.uri.path_and_query().map_or("/", |path| path.as_str());
                let rewritten = rewrite::rewritten_path(wanted, &route.route_match.path, whole);
                // Err: what no path can be stands in the location all the same; the log has the former one.
                let _ = set_path(head, &rewritten);
            }
            exchange.keep_request(head);
            let mut reply = LocalReply::new(redirect.status, ResponseFlags::default(), "direct_response");
            if let Ok(location) = HeaderValue::from_str(&location) {
                reply.headers_mut().insert(LOCATION, location);
            }
            reply.into_response(exchange)
        }
        RouteAction::Forward(action) => {
            let forwarded = forward(filter, exchange, action, &resolved, head, body).await;
            forwarded.unwrap_or_else(|reply| exchange.take_refusal().unwrap_or(reply).into_response(exchange))
        }
    };
    for rules in resolved.response_rules() {
        header_mutation::apply_to_response(rules, exchange, &mut response);
    }
    response
}

async fn forward(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    action: &ForwardAction,
    route: &ResolvedRoute,
    head: &mut request::Parts,
    body: Body,
) -> Result<Response<ResponseBody>, LocalReply> {
    let pools = find_cluster(exchange, action, route, head).inspect_err(|_| exchange.keep_request(head))?;
    for rules in route.request_rules() {
        header_mutation::apply_to_request(rules, exchange, head);
    }
    rewrite_target(filter, exchange, action, route, head).inspect_err(|_| exchange.keep_request(head))?;
    let orders = router_headers::take(filter, action, head).inspect_err(|_| exchange.keep_request(head))?;
    if !filter.suppress_envoy_headers
        && let Some(timeout) = orders.expected_timeout(Duration::ZERO)
    {
        head.headers.insert(EXPECTED_TIMEOUT_MS, (timeout.as_millis() as u64).into());
    }
    orders.tell_grpc(action, head);
    let config = &exchange.connection.active.config;
    let max_duration = max_duration(action, config, head);
    if config.scheme.match_upstream {
        set_scheme(head, if pools.cluster().config.transport_socket.is_some() { "https" } else { "http" });
    }
    exchange.keep_request(head);
    let idle_timeout = action.idle_timeout.unwrap_or(config.stream_idle_timeout);
    let downstream = &exchange.connection.downstream;
    let body = match route.mirrors(action) {
        [] => body,
        policies => mirror::send(policies, exchange, head, body, orders.timeout),
    };
    let bytes_max = route.buffer_bytes_max(downstream.buffer_limit_bytes);
    let redirects = action.internal_redirects.as_ref();
    let (body, mut kept) = match redirects {
        None => (body, None),
        Some(_) => {
            let source = (!body.is_end_stream()).then(|| ReplaySource::new(body, bytes_max));
            let first = source.as_ref().and_then(ReplaySource::replay).unwrap_or_default();
            (first, Some((head.clone(), source)))
        }
    };
    let ends = Ends { local: downstream.local_address, remote: downstream.remote_address };
    let retry_hints = downstream.worker.shared.retry_hints;
    let is_counted_by_caller = retry_hints && head.headers.contains_key(X_ENVOY_ATTEMPT_COUNT);
    let mut deadlines = Deadlines::new(config.request_timeout, orders.timeout, idle_timeout).bounded_by(max_duration);
    deadlines.awaits_websocket = tunnel::is_websocket(&head.headers);
    let mut tries = Tries {
        filter,
        exchange,
        action,
        pools: &pools,
        selection: HostSelection::new(
            (action, route.metadata_match(action)),
            &pools,
            head,
            ends,
            &exchange.filter_state.borrow(),
        ),
        include_attempt_count: route.virtual_host().include_request_attempt_count,
        deadlines,
        carrier: carrier(action, head),
        orders,
        body_bytes_max: bytes_max,
        tried: Vec::new(),
        passed_over: PassedOver::default(),
        gave_up: false,
        is_counted_by_caller,
        retries: 0,
        retry_permit: None,
    };
    let answered = tries.run(head, body).await;
    let tells_caller = is_counted_by_caller && tries.gave_up;
    let (mut head, body, stream) = answered.map_err(|mut reply| {
        if tells_caller {
            reply.headers_mut().insert(X_WEFT_RETRIES_EXHAUSTED, HeaderValue::from_static("true"));
        }
        reply
    })?;
    // It is for proxies alone, also where this one makes no tries of its own.
    let is_told = retry_hints && head.headers.remove(X_WEFT_RETRIES_EXHAUSTED).is_some();
    if tells_caller || is_counted_by_caller && is_told {
        head.headers.insert(X_WEFT_RETRIES_EXHAUSTED, HeaderValue::from_static("true"));
    }
    if let Some(policy) = redirects
        && let Some((request, source)) = kept.take()
        && policy.statuses.contains(&head.status)
    {
        match restart(policy, exchange, route, &request, &head, source.as_ref()) {
            Some(restart) => {
                pools.count(ClusterStat::RedirectSucceeded);
                if body.is_end_stream() {
                    stream.complete(exchange.caller.get());
                }
                exchange.restart(restart);
                return Ok(Response::new(ResponseBody::local(Body::Empty, exchange.clone())));
            }
            None => pools.count(ClusterStat::RedirectFailed),
        }
        if let Some(source) = source {
            source.forget();
        }
    }
    let mut deadlines = std::mem::take(&mut tries.deadlines);
    deadlines.flush_timeout = action.flush_timeout;
    let set_cookie = tries.selection.take_set_cookie();
    let attempts = exchange.attempts.get();
    let mut response = respond(filter, exchange, &pools, (head, body, stream), deadlines);
    if let Some(cookie) = set_cookie {
        response.headers_mut().append(http::header::SET_COOKIE, cookie);
    }
    if route.virtual_host().include_attempt_count_in_response {
        response.headers_mut().insert(X_ENVOY_ATTEMPT_COUNT, attempts.into());
    }
    Ok(response)
}

/// None: the redirect is for the caller.
fn restart(
    policy: &InternalRedirects,
    exchange: &Exchange,
    route: &ResolvedRoute,
    request: &request::Parts,
    response: &response::Parts,
    source: Option<&ReplaySource>,
) -> Option<Restart> {
    let is_whole = exchange.request_received.get().is_some() && source.is_none_or(ReplaySource::is_replayable);
    if !is_whole {
        return None;
    }
    let Redirected { head, route, drops_body } = internal_redirect::follow(policy, exchange, route, request, response)?;
    let body = source.filter(|_| !drops_body).and_then(ReplaySource::replay).unwrap_or_default();
    *exchange.details.borrow_mut() = "internal_redirect".into();
    Some(Restart { head, body, route })
}

fn find_cluster(
    exchange: &Exchange,
    action: &ForwardAction,
    route: &ResolvedRoute,
    head: &request::Parts,
) -> Result<Rc<ClusterPools>, LocalReply> {
    let worker = &exchange.connection.downstream.worker;
    let name = route.cluster_name(head);
    let pools = name.as_ref().and_then(|name| worker.cluster(name));
    match pools {
        Some(pools) => {
            *exchange.upstream_cluster.borrow_mut() = name;
            Ok(pools)
        }
        None => {
            exchange.count(HttpStat::NoCluster);
            let status = action.cluster_not_found_response_code;
            Err(LocalReply::new(status, ResponseFlags::NO_CLUSTER_FOUND, "cluster_not_found"))
        }
    }
}

fn rewrite_target(
    filter: &RouterFilter,
    exchange: &Exchange,
    action: &ForwardAction,
    route: &ResolvedRoute,
    head: &mut request::Parts,
) -> Result<(), LocalReply> {
    let of_weighted = route.weighted().and_then(|cluster| cluster.host_rewrite_literal.clone());
    let of_route = || action.host_rewrite.as_ref().and_then(|wanted| rewrite::host(wanted, head, exchange));
    if let Some(host) = of_weighted {
        set_authority(head, &host)?;
    } else if let Some(host) = of_route() {
        if action.append_x_forwarded_host {
            append_forwarded_host(head);
        }
        if !filter.suppress_envoy_headers
            && let Ok(original) = HeaderValue::from_bytes(authority(head))
        {
            head.headers.insert(X_ENVOY_ORIGINAL_HOST, original);
        }
        set_authority(head, &host)?;
    }
    let Some(wanted) = &action.path_rewrite else { return Ok(()) };
    let whole = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let rewritten = match wanted {
        PathRewrite::Format(operators) => rewrite::formatted_path(operators, exchange, head),
        wanted => Some(rewrite::rewritten_path(wanted, &route.route().route_match.path, whole)),
    };
    let Some(rewritten) = rewritten else { return Ok(()) };
    if !filter.suppress_envoy_headers
        && let Ok(original) = HeaderValue::from_str(whole)
    {
        head.headers.insert(X_ENVOY_ORIGINAL_PATH, original);
    }
    set_path(head, &rewritten)
}

fn append_forwarded_host(head: &mut request::Parts) {
    let host = authority(head);
    let joined = match head.headers.get(X_FORWARDED_HOST) {
        Some(before) => [before.as_bytes(), b",", host].concat(),
        None => host.to_vec(),
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        head.headers.insert(X_FORWARDED_HOST, value);
    }
}

/// Where the route says that tunnels end here, only what is inside goes on.
fn carrier(action: &ForwardAction, head: &request::Parts) -> Carrier {
    let ends_here = action.upgrades.termination().is_some_and(|termination| {
        head.method == Method::CONNECT || termination.allow_post && head.method == Method::POST
    });
    if ends_here { Carrier::Tcp } else { Carrier::Http }
}

/// From the start of the request to the end of its response.
fn max_duration(action: &ForwardAction, config: &HttpConnectionManager, head: &request::Parts) -> Option<Duration> {
    let Some(of_route) = action.max_stream_duration else { return config.max_stream_duration };
    let asked = of_route.grpc_timeout_max.and_then(|max| Some((max, grpc_timeout(head.headers.get(GRPC_TIMEOUT)?)?)));
    let Some((max, asked)) = asked else {
        return match of_route.duration {
            Some(bound) => Some(bound).filter(|bound| !bound.is_zero()),
            None => config.max_stream_duration,
        };
    };
    let capped = if asked.is_zero() || (!max.is_zero() && asked > max) { max } else { asked };
    Some(capped.saturating_sub(of_route.grpc_timeout_offset)).filter(|bound| !bound.is_zero())
}

type Answer = (response::Parts, Body, UpstreamStream);

/// The tries of one request.
struct Tries<'a> {
    filter: &'a RouterFilter,
    exchange: &'a Rc<Exchange>,
    action: &'a ForwardAction,
    pools: &'a Rc<ClusterPools>,
    selection: HostSelection<'a>,
    orders: Orders<'a>,
    include_attempt_count: bool,
    deadlines: Deadlines,
    carrier: Carrier,
    /// Of what is kept for another try.
    body_bytes_max: usize,
    /// Hosts by id.
    tried: Vec<u64>,
    passed_over: PassedOver,
    /// No more tries are made, or somebody further up the path has said that they make no sense.
    gave_up: bool,
    /// The caller counts its tries, so that both might repeat this request.
    is_counted_by_caller: bool,
    retries: u32,
    /// Counts against `max_retries` while a retry is under way.
    retry_permit: Option<Permit>,
}

impl Tries<'_> {
    async fn run(&mut self, head: &mut request::Parts, body: Body) -> Result<Answer, LocalReply> {
        let Some(policy) = self.orders.retry_policy.take() else {
            return match self.once(head, body).await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(self.reply(&error)),
            };
        };
        if self.is_counted_by_caller {
            self.pools.cluster().circuit_breakers.hop_budget.deposit();
        }
        let source = match body {
            Body::Empty => None,
            body => Some(ReplaySource::new(body, self.body_bytes_max)),
        };
        loop {
            let body = match &source {
                None => Body::Empty,
                Some(source) => source.replay().unwrap_or_default(),
            };
            let answered = match self.changes_head_for_good() {
                true => self.once(&mut head.clone(), body).await,
                false => self.once(head, body).await,
            };
            let wanted = match &answered {
                Ok((head, ..)) if self.is_told_to_give_up(head) => false,
                Ok((head, ..)) => retry::retries_response(&policy, head.status, &head.headers),
                Err(error) => failure(error).is_some_and(|failure| retry::retries_failure(&policy.retry_on, failure)),
            };
            let replayable = source.as_ref().is_none_or(ReplaySource::is_replayable);
            // What the caller has seen the beginning of cannot be begun again.
            let unseen = !self.exchange.informational.has_begun();
            let asked = answered.as_ref().ok().and_then(|(head, ..)| self.asked_pause(&policy, &head.headers));
            let pause = asked.unwrap_or_else(|| self.drawn_pause(&policy));
            if !wanted || !replayable || !unseen || !self.may_retry(&policy, pause) {
                if let Some(source) = &source {
                    source.forget();
                }
                if self.retries > 0 && !wanted && answered.is_ok() {
                    self.count(ClusterStat::RqRetrySuccess);
                }
                return answered.map_err(|error| self.reply(&error));
            }
            if let Ok((head, body, stream)) = answered {
                if self.filter.dynamic_stats {
                    let worker = self.exchange.connection.downstream.worker.index;
                    self.pools.cluster().stats.retried.count(worker, head.status);
                }
                // Complete already (a bare 503): its connection can go on.
                if http_body::Body::is_end_stream(&body) {
                    stream.complete(self.exchange.caller.get());
                }
            }
            self.count(match asked {
                Some(_) => ClusterStat::RqRetryBackoffRatelimited,
                None => ClusterStat::RqRetryBackoffExponential,
            });
            self.back_off(pause).await?;
        }
    }

    /// What a try writes into the head the next one writes anew, but for what depends on the host, or on a protocol that
    /// only some of the hosts speak.
    fn changes_head_for_good(&self) -> bool {
        matches!(self.action.host_rewrite, Some(HostRewrite::Auto))
            || matches!(self.pools.cluster().config.discovery, Discovery::Aggregate(_))
    }

    /// One try, within the deadlines of the request.
    async fn once(&mut self, head: &mut request::Parts, body: Body) -> Result<Answer, TryError> {
        let exchange = self.exchange;
        exchange.attempts.set(exchange.attempts.get() + 1);
        if self.include_attempt_count {
            head.headers.insert(X_ENVOY_ATTEMPT_COUNT, exchange.attempts.get().into());
        }
        if self.retries > 0 && !self.filter.suppress_envoy_headers {
            self.tell_time_left(head);
        }
        let pool = self.choose_host().ok_or(TryError::NoHealthyUpstream)?;
        if let Some(HostRewrite::Auto) = self.action.host_rewrite {
            rewrite_to_host(self.action, &pool.host.hostname, head);
        }
        exchange.upstream_host.set(Some(pool.host.address));
        *exchange.upstream_hostname.borrow_mut() = Some(pool.host.hostname.clone());
        exchange.upstream_request_begun.set(Some(exchange.started.elapsed()));
        self.tried.push(pool.host.id);
        self.note_priority(&pool.host);
        let mut per_try = self.orders.per_try_timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        exchange.upstream_protocol.set(None);
        let terms = Terms {
            priority: self.action.priority,
            carrier: self.carrier,
            informational: &exchange.informational,
            protocol: &exchange.upstream_protocol,
        };
        let sending = upstream_request::send(&pool, terms, head, body);
        let mut sending = std::pin::pin!(sending);
        let deadlines = &mut self.deadlines;
        let per_try_idle = self.action.retry_policy.as_ref().and_then(|policy| policy.per_try_idle_timeout);
        let mut idling = per_try_idle.map(|timeout| Box::pin(idle(exchange, timeout)));
        let answered = std::future::poll_fn(|cx| {
            if let Poll::Ready(answered) = sending.as_mut().poll(cx) {
                return Poll::Ready(answered);
            }
            if per_try.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Err(TryError::PerTryTimeout));
            }
            if idling.as_mut().is_some_and(|idling| idling.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Err(TryError::PerTryIdleTimeout));
            }
            deadlines.poll(exchange, cx).map(|over| Err(TryError::Deadline(over)))
        })
        .await;
        if answered.is_ok() {
            self.deadlines.bound_try(per_try_idle);
        }
        self.count_timeouts(&answered, &pool);
        answered
    }

    fn note_priority(&mut self, host: &Host) {
        if let Some(policy) = &self.action.retry_policy
            && policy.previous_priorities_after.is_some()
            && let Some(level) = self.pools.priority_of(host)
        {
            self.passed_over.tried(level);
        }
    }

    /// A later try has less time.
    fn tell_time_left(&self, head: &mut request::Parts) {
        let received = self.exchange.request_received.get();
        let elapsed =
            received.map_or(Duration::ZERO, |received| self.exchange.started.elapsed().saturating_sub(received));
        if let Some(timeout) = self.orders.expected_timeout(elapsed) {
            head.headers.insert(EXPECTED_TIMEOUT_MS, (timeout.as_millis() as u64).into());
        }
    }

    fn choose_host(&mut self) -> Option<Rc<HostPool>> {
        // Orders of the caller change nothing about the choice of hosts.
        let policy = self.action.retry_policy.as_ref().filter(|_| self.retries > 0);
        let predicates = policy.map(|policy| &policy.host_predicates).filter(|predicates| predicates.are_any());
        let reselections =
            policy.filter(|_| predicates.is_some()).map_or(0, |policy| policy.host_selection_retry_max_attempts);
        let passed_over = match policy.and_then(|policy| policy.previous_priorities_after) {
            Some(after) => self.passed_over.next(after, |levels| self.pools.has_others_than(levels)),
            None => &[],
        };
        let named = self.exchange.override_host.borrow().filter(|_| self.retries == 0).map(|session| session.host);
        let wish = Wish { passed_over, override_host: named, ..self.selection.wish(reselections) };
        let tried = &self.tried;
        let refused = |host: &Host| predicates.is_some_and(|predicates| retry::refuses_host(predicates, host, tried));
        let downstream = &self.exchange.connection.downstream;
        let chosen = aggregate::choose_host(&downstream.worker, self.pools, wish, refused);
        if chosen.is_none() {
            self.count(ClusterStat::CxNoneHealthy);
        }
        chosen.map(|pool| downstream.pool(pool))
    }

    fn count_timeouts(&self, answered: &Result<Answer, TryError>, pool: &HostPool) {
        match answered {
            Err(TryError::PerTryTimeout) => {
                pool.report(Outcome::TimedOut);
                self.count(ClusterStat::RqPerTryTimeout);
                pool.count_host(HostStat::RqTimeout);
            }
            Err(TryError::PerTryIdleTimeout) => {
                pool.report(Outcome::TimedOut);
                self.count(ClusterStat::RqPerTryIdleTimeout);
                pool.count_host(HostStat::RqTimeout);
            }
            Err(TryError::Deadline(Deadline::Request)) => self.exchange.count(HttpStat::RqTimeout),
            Err(TryError::Deadline(Deadline::Idle)) => self.exchange.count(HttpStat::RqIdleTimeout),
            Err(TryError::Deadline(Deadline::MaxDuration { .. })) => {
                self.exchange.count(HttpStat::RqMaxDurationReached)
            }
            Err(TryError::Deadline(Deadline::Timeout)) => {
                pool.report(Outcome::TimedOut);
                self.count(ClusterStat::RqTimeout);
                pool.count_host(HostStat::RqTimeout);
            }
            _ => {}
        }
    }

    /// Takes the permit for one more.
    fn may_retry(&mut self, policy: &RetryPolicy, pause: Duration) -> bool {
        // Beyond Envoy: a try that could not even begin in time helps nobody; the caller can have the answer now.
        if self.deadlines.time_left(self.exchange).is_some_and(|left| left <= pause) {
            return false;
        }
        self.gave_up = true;
        if self.retries >= policy.num_retries {
            self.count(ClusterStat::RqRetryLimitExceeded);
            self.exchange.add_flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            return false;
        }
        self.retry_permit = None; // the one before is over
        let breakers = &self.pools.cluster().circuit_breakers;
        let is_covered = !self.is_counted_by_caller || breakers.hop_budget.withdraw();
        self.retry_permit = breakers.try_acquire(self.action.priority, Resource::Retries).filter(|_| is_covered);
        if self.retry_permit.is_none() {
            self.count(ClusterStat::RqRetryOverflow);
            self.exchange.add_flag(ResponseFlags::UPSTREAM_OVERFLOW);
            return false;
        }
        self.count(ClusterStat::RqRetry);
        self.retries += 1;
        self.gave_up = false;
        true
    }

    /// How long a response asks to be left alone.
    fn asked_pause(&self, policy: &RetryPolicy, headers: &HeaderMap) -> Option<Duration> {
        let config = policy.rate_limited_back_off.as_ref()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let random = self.exchange.connection.downstream.worker.with_random(fastrand::Rng::f64);
        retry::reset_interval(config, headers, now, random)
    }

    fn drawn_pause(&self, policy: &RetryPolicy) -> Duration {
        let random = self.exchange.connection.downstream.worker.with_random(fastrand::Rng::f64);
        retry::back_off(&policy.back_off, self.retries, random)
    }

    /// Somebody further down has used up the tries: more from here would only multiply them.
    fn is_told_to_give_up(&mut self, head: &response::Parts) -> bool {
        let hints = self.exchange.connection.downstream.worker.shared.retry_hints;
        self.gave_up |= hints && head.headers.contains_key(X_WEFT_RETRIES_EXHAUSTED);
        self.gave_up
    }

    async fn back_off(&mut self, pause: Duration) -> Result<(), LocalReply> {
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
        let mut reply = reply_to(error, self.retries > 0);
        if let (TryError::NoHealthyUpstream, 0, Some(session)) =
            (error, self.retries, *self.exchange.override_host.borrow())
            && session.host.strict
        {
            reply.status = session.status_without_host;
        }
        if let TryError::Connect(cause) = error {
            *self.exchange.upstream_failure.borrow_mut() = Some(cause.to_string());
        }
        if self.filter.dynamic_stats {
            let worker = self.exchange.connection.downstream.worker.index;
            self.pools.cluster().stats.count_response(worker, reply.status, self.exchange.caller.get());
        }
        reply
    }
}

/// Ends when nothing of the request has come for so long, from which there could be something to send.
async fn idle(exchange: &Exchange, timeout: Duration) {
    loop {
        let received = exchange.bytes_received.get();
        tokio::time::sleep(timeout).await;
        if exchange.bytes_received.get() == received {
            return;
        }
    }
}

/// `auto_host_rewrite`: a host without a name leaves the request's as it is.
fn rewrite_to_host(action: &ForwardAction, hostname: &str, head: &mut request::Parts) {
    let Some(host) = Some(hostname).filter(|name| !name.is_empty()).and_then(|name| HeaderValue::from_str(name).ok())
    else {
        return;
    };
    if action.append_x_forwarded_host {
        append_forwarded_host(head);
    }
    // Err: a target without a path, which has been refused long before.
    let _ = set_authority(head, &host);
}

fn failure(error: &TryError) -> Option<TryFailure> {
    match error {
        TryError::Connect(_) => Some(TryFailure::Connect),
        TryError::RefusedStream => Some(TryFailure::RefusedStream),
        TryError::ResetBeforeRequest => Some(TryFailure::ResetBeforeRequest),
        TryError::ConnectionTermination | TryError::RemoteReset | TryError::Protocol => Some(TryFailure::Reset),
        TryError::PerTryTimeout | TryError::PerTryIdleTimeout => Some(TryFailure::PerTryTimeout),
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
            let mut reply = reset(unavailable, Flags::UPSTREAM_OVERFLOW, "overflow", None);
            reply.headers_mut().insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
            reply
        }
        TryError::Connect(ConnectError::Timeout) => {
            reset(unavailable, Flags::UPSTREAM_CONNECTION_FAILURE, "connection timeout", None)
        }
        TryError::Connect(ConnectError::Local(cause) | ConnectError::Bind(cause)) => {
            reset(unavailable, Flags::UPSTREAM_CONNECTION_FAILURE, "local connection failure", Some(cause))
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
        TryError::PerTryIdleTimeout => timed_out(Flags::UPSTREAM_REQUEST_TIMEOUT, PER_TRY_IDLE_TIMEOUT),
        TryError::Deadline(over) => reply_to_deadline(*over),
    }
}

fn reply_to_deadline(over: Deadline) -> LocalReply {
    match over {
        Deadline::Timeout => timed_out(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
        Deadline::TryIdle => timed_out(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, PER_TRY_IDLE_TIMEOUT),
        Deadline::Request => {
            LocalReply::new(StatusCode::REQUEST_TIMEOUT, ResponseFlags::default(), "request_overall_timeout")
                .with_body("request timeout")
        }
        Deadline::MaxDuration { request_complete } => {
            let status = if request_complete { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT };
            let reply = LocalReply::new(status, ResponseFlags::default(), "max_duration_timeout");
            reply.with_body("downstream duration timeout").with_grpc_status(GRPC_DEADLINE_EXCEEDED)
        }
        Deadline::Idle => {
            let flags = ResponseFlags::STREAM_IDLE_TIMEOUT;
            let reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, flags, "stream_idle_timeout");
            reply.with_body("stream timeout")
        }
    }
}

const GRPC_DEADLINE_EXCEEDED: u32 = 4;
const PER_TRY_IDLE_TIMEOUT: &str = "upstream_per_try_idle_timeout";

/// Of a request that did not get as far as an upstream.
pub fn deadline_reply(exchange: &Exchange, over: Deadline) -> LocalReply {
    match over {
        Deadline::Request => exchange.count(HttpStat::RqTimeout),
        Deadline::Idle => exchange.count(HttpStat::RqIdleTimeout),
        Deadline::MaxDuration { .. } => exchange.count(HttpStat::RqMaxDurationReached),
        Deadline::Timeout | Deadline::TryIdle => {}
    }
    reply_to_deadline(over)
}

fn timed_out(flags: ResponseFlags, details: &'static str) -> LocalReply {
    LocalReply::new(StatusCode::GATEWAY_TIMEOUT, flags, details).with_body("upstream request timeout")
}

fn respond(
    filter: &RouterFilter,
    exchange: &Rc<Exchange>,
    pools: &ClusterPools,
    (mut head, body, stream): Answer,
    mut deadlines: Deadlines,
) -> Response<ResponseBody> {
    exchange.upstream_response_begun.set(Some(exchange.started.elapsed()));
    let is_refused = deadlines.awaits_websocket && is_unsuccessful_handshake(&head);
    if deadlines.awaits_websocket {
        deadlines.switched(exchange);
    }
    remove_hop_by_hop(&mut head.headers);
    if head.status != StatusCode::SWITCHING_PROTOCOLS && head.headers.contains_key(http::header::UPGRADE) {
        // An offer to upgrade is for the connection that it came on.
        head.headers.remove(http::header::CONNECTION);
        head.headers.remove(http::header::UPGRADE);
    }
    // As long as the request is on its way, this is not the upstream's time alone.
    if !filter.suppress_envoy_headers && exchange.request_received.get().is_some() {
        let elapsed_ms = exchange.started.elapsed().as_millis() as u64;
        head.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, service_time(elapsed_ms));
    }
    *exchange.details.borrow_mut() = "via_upstream".into();
    if filter.dynamic_stats {
        let worker = exchange.connection.downstream.worker.index;
        pools.cluster().stats.count_response(worker, head.status, exchange.caller.get());
    }
    if is_refused {
        *exchange.details.borrow_mut() = "websocket_handshake_unsuccessful".into();
        head.headers.remove(http::header::CONTENT_LENGTH);
        stream.complete(exchange.caller.get());
        return Response::from_parts(head, ResponseBody::local(Body::Empty, exchange.clone()));
    }
    Response::from_parts(head, ResponseBody::upstream(body, exchange.clone(), stream, deadlines))
}

/// RFC 6455 section 4.1: an answer of HTTP/1 that neither switches nor says why not. As in Envoy, nothing of its body passes.
fn is_unsuccessful_handshake(head: &response::Parts) -> bool {
    let is_error = head.status.is_client_error() || head.status.is_server_error();
    head.version < http::Version::HTTP_2 && head.status != StatusCode::SWITCHING_PROTOCOLS && !is_error
}

/// Most answers come within milliseconds: those values need no allocation.
fn service_time(elapsed_ms: u64) -> HeaderValue {
    const FAST: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
    match FAST.get(elapsed_ms as usize) {
        Some(text) => HeaderValue::from_static(text),
        None => elapsed_ms.into(),
    }
}
