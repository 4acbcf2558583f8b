//! One request and its response: what is known of it so far, for statistics and access logs. Everything that serves the
//! request holds it; when the last lets go, it is counted and logged.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};
use http_body::{Body as _, Frame, SizeHint};
use tokio::{task::AbortHandle, time::Sleep};

use crate::{
    config::{access_log::LogType, metadata::Metadata},
    filter_state::FilterState,
    http::{
        body::{Body, BodyError},
        connection_manager::HttpConnection,
        h2::{Reason, StreamError},
        informational::Informational,
        internal_redirect::RedirectHistory,
        local_reply::LocalReply,
        response_flags::ResponseFlags,
        route::resolved::ResolvedRoute,
        tunnel::Tunnel,
        upstream_request::UpstreamStream,
    },
    stats::{CallerKind, HttpStat},
    substitution::{Context as Facts, Subject},
    upstream::load_balancer::OverrideHost,
};

pub struct Exchange {
    pub connection: Rc<HttpConnection>,
    pub started: Instant,
    /// Only where something logs it.
    started_at: Option<SystemTime>,
    pub protocol: http::Version,
    pub is_grpc: bool,
    /// The bare connection is asked for.
    pub tunnel: Option<Tunnel>,
    /// The connection is not to carry another request.
    pub ends_connection: Cell<bool>,
    /// On what occasion something is logged.
    pub log_type: Cell<LogType>,
    /// Logs every now and then.
    periodic_log: Cell<Option<AbortHandle>>,
    pub flags: Cell<ResponseFlags>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: RefCell<Cow<'static, str>>,
    /// None: no response was begun.
    pub status: Cell<Option<StatusCode>>,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    pub attempts: Cell<u32>,
    /// Whose request it is: the caller's own address, or what trusted proxies say of it.
    pub remote_address: Cell<SocketAddr>,
    /// Whether that one is of ours.
    pub caller: Cell<CallerKind>,
    pub upstream_host: Cell<Option<SocketAddr>>,
    pub upstream_hostname: RefCell<Option<Arc<str>>>,
    pub upstream_protocol: Cell<Option<http::Version>>,
    pub upstream_cluster: RefCell<Option<Arc<str>>>,
    pub upstream_failure: RefCell<Option<String>>,
    pub route_name: RefCell<Option<Arc<str>>>,
    pub virtual_cluster_name: RefCell<Option<Arc<str>>>,
    pub is_health_check: Cell<bool>,
    pub has_active_fault: Cell<bool>,
    /// What filters leave for those behind them, and for logs.
    pub metadata: RefCell<Metadata>,
    pub filter_state: RefCell<FilterState>,
    /// Since the start: the last try and its response; the request was received, the response began, the response was sent.
    pub upstream_request_begun: Cell<Option<Duration>>,
    pub upstream_response_begun: Cell<Option<Duration>>,
    pub upstream_response_ended: Cell<Option<Duration>>,
    pub request_received: Cell<Option<Duration>>,
    pub response_begun: Cell<Option<Duration>>,
    pub response_sent: Cell<Option<Duration>>,
    /// The host that a filter wants the request to go to.
    pub override_host: RefCell<Option<SessionHost>>,
    /// Found once, before the first filter.
    route: RefCell<Option<ResolvedRoute>>,
    is_route_cleared: Cell<bool>,
    kept: RefCell<Kept>,
    /// Why the body of the request is no good, which the caller is to be told instead of what the upstream makes of it.
    refused: RefCell<Option<LocalReply>>,
    pub redirects: RefCell<RedirectHistory>,
    /// The request is to begin anew, elsewhere.
    restart: RefCell<Option<Box<Restart>>>,
    /// Interim responses on their way to the downstream codec.
    pub informational: Informational,
    request_waker: RefCell<Option<Waker>>,
}

/// Of a session that has a host already.
#[derive(Clone, Copy, Debug)]
pub struct SessionHost {
    pub host: OverrideHost,
    /// Where it is not there, and no other will do.
    pub status_without_host: StatusCode,
}

impl Exchange {
    pub fn new(connection: Rc<HttpConnection>, head: &request::Parts) -> Rc<Exchange> {
        let logs = !connection.active.config.access_log.is_empty();
        let index = connection.downstream.worker.index;
        let cells = &connection.active.stats.cells;
        cells.inc(index, HttpStat::RqTotal);
        cells.inc(index, HttpStat::RqActive);
        cells.inc(
            index,
            if head.version == http::Version::HTTP_2 { HttpStat::RqHttp2Total } else { HttpStat::RqHttp1Total },
        );
        connection.request_begun();
        Rc::new(Exchange {
            started: Instant::now(),
            started_at: logs.then(SystemTime::now),
            protocol: head.version,
            is_grpc: is_grpc(&head.headers),
            tunnel: Tunnel::requested_by(head),
            ends_connection: Cell::default(),
            log_type: Cell::default(),
            periodic_log: Cell::default(),
            flags: Cell::default(),
            details: RefCell::new("-".into()),
            status: Cell::default(),
            bytes_received: Cell::default(),
            bytes_sent: Cell::default(),
            attempts: Cell::default(),
            remote_address: Cell::new(connection.downstream.remote_address),
            caller: Cell::new(CallerKind::External),
            upstream_host: Cell::default(),
            upstream_hostname: RefCell::default(),
            upstream_protocol: Cell::default(),
            upstream_cluster: RefCell::default(),
            upstream_failure: RefCell::default(),
            route_name: RefCell::default(),
            virtual_cluster_name: RefCell::default(),
            is_health_check: Cell::default(),
            has_active_fault: Cell::default(),
            metadata: RefCell::default(),
            filter_state: RefCell::default(),
            upstream_request_begun: Cell::default(),
            upstream_response_begun: Cell::default(),
            upstream_response_ended: Cell::default(),
            request_received: Cell::default(),
            response_begun: Cell::default(),
            response_sent: Cell::default(),
            override_host: RefCell::default(),
            route: RefCell::default(),
            is_route_cleared: Cell::default(),
            kept: RefCell::default(),
            refused: RefCell::default(),
            redirects: RefCell::default(),
            restart: RefCell::default(),
            informational: Informational::new(connection.active.config.proxy_100_continue),
            request_waker: RefCell::default(),
            connection,
        })
    }

    pub fn add_flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
    }

    pub fn count(&self, stat: HttpStat) {
        self.connection.active.stats.cells.inc(self.connection.downstream.worker.index, stat);
    }

    /// What its tries came to does not matter: the request itself has failed.
    pub fn forget_outcome(&self) {
        self.flags.set(ResponseFlags::default());
        self.status.set(None);
    }

    /// The downstream's stream ended before the response did.
    pub fn downstream_ended(&self, error: StreamError) {
        let (flag, details) = match error {
            StreamError::RemoteReset(Reason::REFUSED_STREAM) => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_refuse")
            }
            StreamError::RemoteReset(_) => (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_reset"),
            StreamError::HeadersOverLimit(details) => (ResponseFlags::DOWNSTREAM_REMOTE_RESET, details),
            StreamError::Violation(details) | StreamError::ConnectionViolation(details) => {
                (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details)
            }
            StreamError::Disconnected | StreamError::Unprocessed => {
                (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect")
            }
            StreamError::LocalReset(_) => return, // whoever did it has said why
        };
        self.add_flag(flag);
        *self.details.borrow_mut() = details.into();
    }

    /// As in Envoy, a request that was refused as a bad one ends its connection, as who sends one may have sent the next; and one
    /// that is too large is not read to its end.
    pub fn answered_locally(&self, status: StatusCode) {
        let config = &self.connection.active.config;
        if self.protocol >= http::Version::HTTP_2 {
            return;
        }
        let is_bad = status == StatusCode::BAD_REQUEST && !config.http1.stream_errors;
        if is_bad || status == StatusCode::PAYLOAD_TOO_LARGE {
            self.ends_connection.set(true);
        }
    }

    pub fn log(&self, occasion: LogType) {
        let connection = &self.connection;
        let logs = &connection.active.config.access_log;
        self.log_type.set(occasion);
        self.with_messages(|context| connection.downstream.worker.access_logs.log(logs, &context));
    }

    /// Until it is over.
    pub fn log_every(self: &Rc<Self>, interval: Duration) {
        let exchange = Rc::downgrade(self);
        let logging = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(exchange) = exchange.upgrade() else { return };
                exchange.log(LogType::DownstreamPeriodic);
            }
        });
        self.periodic_log.set(Some(logging.abort_handle()));
    }

    /// What a response that breaks off is reset with (RFC 9113 section 8.5).
    pub fn reset_reason(&self) -> Reason {
        let lost = ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        match self.tunnel {
            Some(_) if self.flags.get().intersects(lost) => Reason::CONNECT_ERROR,
            _ => Reason::INTERNAL_ERROR,
        }
    }

    /// The downstream takes nothing of the response.
    pub fn downstream_stalled(&self) {
        self.add_flag(ResponseFlags::STREAM_IDLE_TIMEOUT);
        *self.details.borrow_mut() = "stream_idle_timeout".into();
        self.count(HttpStat::RqIdleTimeout);
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at.unwrap_or_else(|| SystemTime::now() - self.started.elapsed())
    }

    pub fn set_route(&self, route: Option<ResolvedRoute>) {
        *self.route.borrow_mut() = route;
    }

    /// None: no route matches.
    pub fn route(&self) -> Option<ResolvedRoute> {
        self.route.borrow().clone()
    }

    /// By the newest table.
    pub fn resolve_route(&self, head: &request::Parts) -> Option<ResolvedRoute> {
        let routes = self.connection.active.routes.load_full()?;
        ResolvedRoute::resolve(routes, head, self)
    }

    /// Of the route that was looked up last, whether or not it is taken.
    pub fn note_cluster(&self, name: Option<Arc<str>>) {
        *self.upstream_cluster.borrow_mut() = name;
    }

    /// A filter has changed what it was found by: it is looked up again before the next filter's turn.
    pub fn clear_route(&self) {
        self.is_route_cleared.set(true);
    }

    pub fn is_route_cleared(&self) -> bool {
        self.is_route_cleared.get()
    }

    pub fn take_route_cleared(&self) -> bool {
        self.is_route_cleared.take()
    }

    pub fn restart(&self, restart: Restart) {
        *self.restart.borrow_mut() = Some(Box::new(restart));
    }

    pub fn is_restarted(&self) -> bool {
        self.restart.borrow().is_some()
    }

    pub fn take_restart(&self) -> Option<Box<Restart>> {
        self.restart.borrow_mut().take()
    }

    pub fn refuse(&self, reply: LocalReply) {
        self.refused.borrow_mut().get_or_insert(reply);
    }

    pub fn take_refusal(&self) -> Option<LocalReply> {
        self.refused.borrow_mut().take()
    }

    /// The request as it goes on, or as it was refused, where something is written with it later.
    pub fn keep_request(&self, head: &request::Parts) {
        let config = &self.connection.active.config;
        let route_wants = || self.route.borrow().as_ref().is_some_and(ResolvedRoute::reads_request);
        if config.kept.request || route_wants() {
            self.kept.borrow_mut().request = Some(Box::new(head.clone()));
        }
    }

    pub fn keep_response<B>(&self, response: &http::Response<B>) {
        if self.connection.active.config.kept.response {
            self.kept.borrow_mut().response = Some(Box::new(response.headers().clone()));
        }
    }

    /// With what was kept of the messages.
    pub fn with_messages<T>(&self, work: impl FnOnce(Facts<'_>) -> T) -> T {
        let kept = self.kept.borrow();
        work(Facts {
            subject: Subject::Http(self),
            request: kept.request.as_deref(),
            response: self.status.get().zip(kept.response.as_deref()),
            trailers: kept.trailers.as_deref(),
            local_reply_body: b"",
        })
    }

    pub fn request_complete(&self) {
        if self.request_received.get().is_none() {
            self.request_received.set(Some(self.started.elapsed()));
            if let Some(waker) = self.request_waker.take() {
                waker.wake();
            }
        }
    }

    /// Ready when the whole request has arrived.
    pub fn poll_request_complete(&self, cx: &Context<'_>) -> Poll<()> {
        if self.request_received.get().is_some() {
            return Poll::Ready(());
        }
        *self.request_waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let connection = &self.connection;
        let index = connection.downstream.worker.index;
        let stats = &connection.active.stats;
        stats.cells.dec(index, HttpStat::RqActive);
        stats.cells.inc(index, HttpStat::RqCompleted);
        stats.rq_time.record(index, self.started.elapsed());
        if let Some(status) = self.status.get() {
            stats.codes.count(index, status);
        }
        connection.active.listener_stats.count_response(index, self.status.get());
        if self.response_sent.get().is_none() {
            if self.flags.get() == ResponseFlags::default() {
                self.flags.set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                *self.details.borrow_mut() = "downstream_remote_disconnect".into();
            }
            stats.cells.inc(index, HttpStat::RqRxReset);
        }
        connection.request_ended();
        if self.has_active_fault.get() {
            stats.cells.dec(index, HttpStat::FaultActive);
        }
        if self.started_at.is_some() {
            self.log(LogType::DownstreamEnd);
        }
        if let Some(logging) = self.periodic_log.take() {
            logging.abort();
        }
    }
}

/// A request that goes through the filters once more, with another head.
pub struct Restart {
    pub head: request::Parts,
    pub body: Body,
    pub route: ResolvedRoute,
}

/// Of the messages, what something is written with at the end.
#[derive(Default)]
struct Kept {
    request: Option<Box<request::Parts>>,
    response: Option<Box<HeaderMap>>,
    trailers: Option<Box<HeaderMap>>,
}

/// gRPC over HTTP/2: the content type `application/grpc`, alone or with a suffix.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// The body of a downstream request, counted on its exchange.
pub struct RequestBody {
    inner: Body,
    exchange: Rc<Exchange>,
}

impl RequestBody {
    /// A body that is over already is `Empty`.
    pub fn wrap(inner: Body, exchange: &Rc<Exchange>) -> Body {
        if inner.is_end_stream() {
            exchange.request_complete();
            return Body::Empty;
        }
        Body::Request(Box::new(RequestBody { inner, exchange: exchange.clone() }))
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.exchange.bytes_received.set(self.exchange.bytes_received.get() + bytes);
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.exchange.request_complete();
                }
            }
            Some(Err(_)) => {}
            None => self.exchange.request_complete(),
        }
        Poll::Ready(frame)
    }

    pub fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response on its way downstream. Holds what the response needs until its last byte is read: the upstream
/// stream, the deadline.
pub struct ResponseBody {
    inner: Body,
    exchange: Rc<Exchange>,
    /// None for local replies.
    upstream: Option<UpstreamStream>,
    deadlines: Deadlines,
}

/// Which of a request's deadlines is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The request did not arrive whole in time.
    Request,
    Timeout,
    Idle,
    /// The same, but for what one try may take.
    TryIdle,
    /// The bound of the exchange as a whole; whether the request had arrived by then.
    MaxDuration {
        request_complete: bool,
    },
}

/// What bounds the wait for a response and then for each part of it.
#[derive(Default)]
pub struct Deadlines {
    /// The connection manager's: from the start to the end of the request.
    request_timeout: Option<Duration>,
    /// From the start to the end of the response.
    max_duration: Option<Duration>,
    /// The route's timeout: from the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    /// Nothing arrives for so long.
    pub idle_timeout: Option<Duration>,
    /// `idle_timeout` is that of a try.
    idles_as_try: bool,
    /// The downstream takes nothing for so long. None: as `idle_timeout`. Some(None): any time.
    pub flush_timeout: Option<Option<Duration>>,
    idle_at: Option<Instant>,
    /// A WebSocket's request has no end: its timeout is for the answer, counted from the start.
    pub awaits_websocket: bool,
    /// Set up only when there is something to wait for.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Deadlines {
    pub fn new(
        request_timeout: Option<Duration>,
        timeout: Option<Duration>,
        idle_timeout: Option<Duration>,
    ) -> Deadlines {
        Deadlines { request_timeout, timeout, idle_timeout, ..Deadlines::default() }
    }

    #[must_use]
    pub fn bounded_by(self, max_duration: Option<Duration>) -> Deadlines {
        Deadlines { max_duration, ..self }
    }

    /// From now on the response of one try is waited for, part by part.
    pub fn bound_try(&mut self, idle_timeout: Option<Duration>) {
        if let Some(of_try) = idle_timeout.filter(|of_try| self.idle_timeout.is_none_or(|idle| *of_try < idle)) {
            (self.idle_timeout, self.idles_as_try, self.idle_at) = (Some(of_try), true, None);
        }
    }

    /// What is left of the route's timeout. None: it has none, or the request is still coming.
    pub fn time_left(&self, exchange: &Exchange) -> Option<Duration> {
        let end = exchange.request_received.get()? + self.timeout?;
        Some(end.saturating_sub(exchange.started.elapsed()))
    }

    /// The other protocol has begun: as in Envoy, from now on time counts only from the end of what the caller says.
    pub fn switched(&mut self, exchange: &Exchange) {
        self.awaits_websocket = false;
        if exchange.request_received.get().is_some() {
            self.timeout = None;
        }
    }

    /// Something arrived.
    pub fn activity(&mut self) {
        self.idle_at = None;
    }

    /// Ready when one of them is over.
    pub fn poll(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> Poll<Deadline> {
        let received = exchange.poll_request_complete(cx).is_ready().then(|| exchange.request_received.get()).flatten();
        let (request_at, whole_at) = match received {
            Some(received) => (None, self.timeout.map(|timeout| exchange.started + received + timeout)),
            None => {
                let answer_at =
                    self.timeout.filter(|_| self.awaits_websocket).map(|timeout| exchange.started + timeout);
                (self.request_timeout.map(|timeout| exchange.started + timeout), answer_at)
            }
        };
        if self.idle_at.is_none() {
            self.idle_at = self.idle_timeout.map(|idle| Instant::now() + idle);
        }
        let end_at = self.max_duration.map(|bound| exchange.started + bound);
        let Some(at) = [request_at, whole_at, self.idle_at, end_at].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        match &mut self.timer {
            None => self.timer = Some((at, Box::pin(tokio::time::sleep_until(at.into())))),
            Some((set, timer)) if *set != at => {
                timer.as_mut().reset(at.into());
                *set = at;
            }
            Some(_) => {}
        }
        let Some((_, timer)) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(match Some(at) {
            at if at == whole_at => Deadline::Timeout,
            at if at == request_at => Deadline::Request,
            at if at == end_at => Deadline::MaxDuration { request_complete: received.is_some() },
            _ if self.idles_as_try => Deadline::TryIdle,
            _ => Deadline::Idle,
        })
    }
}

impl ResponseBody {
    pub fn local(inner: Body, exchange: Rc<Exchange>) -> ResponseBody {
        ResponseBody { inner, exchange, upstream: None, deadlines: Deadlines::default() }
    }

    pub fn upstream(
        inner: Body,
        exchange: Rc<Exchange>,
        upstream: UpstreamStream,
        deadlines: Deadlines,
    ) -> ResponseBody {
        let mut body = ResponseBody { inner, exchange, upstream: Some(upstream), deadlines };
        if body.inner.is_end_stream() {
            body.upstream_complete();
        }
        body
    }

    /// How long the downstream may take nothing of it.
    pub fn idle_timeout(&self) -> Option<Duration> {
        match self.upstream {
            Some(_) => self.deadlines.flush_timeout.unwrap_or(self.deadlines.idle_timeout),
            None => self.exchange.connection.active.config.stream_idle_timeout,
        }
    }

    /// Puts something around what is left of it, or in its place.
    pub fn change(&mut self, change: impl FnOnce(Body) -> Body) {
        self.inner = change(std::mem::take(&mut self.inner));
        if self.inner.is_end_stream() {
            self.upstream_complete();
        }
    }

    /// What goes downstream is complete.
    pub fn sent(&self) {
        if self.exchange.response_sent.get().is_none() {
            self.exchange.response_sent.set(Some(self.exchange.started.elapsed()));
        }
    }

    /// While the response has to wait for its reader, the request goes on.
    pub fn poll_sending(&mut self, cx: &mut Context<'_>) {
        self.inner.poll_sending(cx);
    }

    /// The upstream's part is over: its connection is free for others.
    fn upstream_complete(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.exchange.upstream_response_ended.set(Some(self.exchange.started.elapsed()));
            upstream.complete(self.exchange.caller.get());
        }
    }

    fn failed(&mut self, error: &BodyError) {
        let (flag, details) = match error {
            BodyError::Deadline(Deadline::Timeout) => (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
            BodyError::Deadline(Deadline::Request) => (ResponseFlags::default(), "request_overall_timeout"),
            BodyError::Deadline(Deadline::Idle) => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
            BodyError::Deadline(Deadline::TryIdle) => {
                (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_idle_timeout")
            }
            BodyError::Deadline(Deadline::MaxDuration { .. }) => (ResponseFlags::default(), "max_duration_timeout"),
            BodyError::Http1(_) | BodyError::Http2(StreamError::Violation(_) | StreamError::ConnectionViolation(_)) => {
                (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "upstream_reset_after_response_started{protocol_error}")
            }
            // Its own request broke off: the downstream is gone.
            BodyError::Source | BodyError::Http2(StreamError::LocalReset(_)) => {
                (ResponseFlags::default(), "downstream_remote_disconnect")
            }
            BodyError::Disconnected | BodyError::Http2(StreamError::Disconnected) => (
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                "upstream_reset_after_response_started{connection_termination}",
            ),
            BodyError::Http2(_) => {
                (ResponseFlags::UPSTREAM_REMOTE_RESET, "upstream_reset_after_response_started{remote_reset}")
            }
        };
        self.exchange.add_flag(flag);
        *self.exchange.details.borrow_mut() = details.into();
        self.exchange.count(HttpStat::RqTxReset);
        match error {
            BodyError::Deadline(Deadline::Request) => self.exchange.count(HttpStat::RqTimeout),
            BodyError::Deadline(Deadline::Idle) => self.exchange.count(HttpStat::RqIdleTimeout),
            BodyError::Deadline(Deadline::MaxDuration { .. }) => self.exchange.count(HttpStat::RqMaxDurationReached),
            _ => {}
        }
        if let Some(upstream) = self.upstream.take() {
            upstream.failed(error);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => {
                let over = ready!(this.deadlines.poll(&this.exchange, cx));
                Some(Err(BodyError::Deadline(over)))
            }
            Poll::Ready(polled) => polled,
        };
        match &polled {
            Some(Ok(frame)) => {
                this.deadlines.activity();
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.exchange.bytes_sent.set(this.exchange.bytes_sent.get() + bytes);
                if let Some(trailers) = frame.trailers_ref()
                    && this.exchange.connection.active.config.kept.trailers
                {
                    this.exchange.kept.borrow_mut().trailers = Some(Box::new(trailers.clone()));
                }
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.upstream_complete();
                    this.sent();
                }
            }
            Some(Err(error)) => this.failed(error),
            None => {
                this.upstream_complete();
                this.sent();
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A codec need not poll a body that it knows to be empty (HEAD, 204, 304, content-length 0).
        if self.inner.is_end_stream() {
            self.sent();
        }
    }
}
