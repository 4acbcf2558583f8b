//! One try: a request to one host and the head of its response.

use std::{cell::Cell, rc::Rc, task::Poll, time::Instant};

use http::{HeaderName, Response, Version, request, response};
use http_body::Body as _;
use tokio::task::AbortHandle;

use crate::{
    config::route::RoutingPriority,
    http::{
        body::{Body, BodyError},
        exchange::{self, Deadline},
        grpc_status,
        h1::{ClientExchange, ClientOptions, Failure},
        h2::{self, Reason, RecvStream, SendError, SendStream, StreamError},
        informational::Informational,
        request_headers,
        termination::TerminatedBody,
        tunnel::Tunnel,
    },
    stats::{CallerKind, ClusterStat, HostStat},
    upstream::{
        circuit_breaker::{Permit, Resource},
        connect::ConnectError,
        outlier_detection::Outcome,
        pool::{ActiveGuard, HostPool, Http1Lease, Http2Lease, Lease, PoolError},
    },
};

/// Why a try gave no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryError {
    #[error("overflow")]
    Overflow,
    #[error("connection failure: {0}")]
    Connect(ConnectError),
    /// The peer has not processed it.
    #[error("remote refused stream reset")]
    RefusedStream,
    /// Pooled connections closed, one after the other, before anything was written.
    #[error("connection termination before the request")]
    ResetBeforeRequest,
    #[error("connection termination")]
    ConnectionTermination,
    #[error("remote reset")]
    RemoteReset,
    #[error("protocol error")]
    Protocol,
    /// The downstream's body ended in an error: nobody waits for this response.
    #[error("downstream request body failed")]
    RequestBody,
    #[error("upstream request timeout")]
    PerTryTimeout,
    #[error("upstream request idle timeout")]
    PerTryIdleTimeout,
    /// No host to try.
    #[error("no healthy upstream")]
    NoHealthyUpstream,
    /// A deadline of the whole request.
    #[error("upstream request timeout")]
    Deadline(Deadline),
}

/// What a response holds of its upstream until it is complete.
pub struct UpstreamStream {
    pool: Rc<HostPool>,
    /// HTTP/1 connections are held by the response's body.
    lease: Option<Http2Lease>,
    /// Sends the rest of the request.
    pump: Option<AbortHandle>,
    /// Of a tunnel that was refused: dropped before the response is complete, it would end that.
    unsent: Option<SendStream>,
    begun: Instant,
    completed: bool,
    _request: Permit,
    _active: ActiveGuard,
}

impl UpstreamStream {
    /// The response was received whole, and so the request is over, whatever is left of it.
    pub fn complete(mut self, caller: CallerKind) {
        self.completed = true;
        if let Some(pump) = &self.pump {
            pump.abort();
        }
        self.pool.cluster.stats.record_rq_time(self.pool.worker, self.begun.elapsed(), caller);
    }

    /// In this task as long as it does not have to wait: a short body is there already.
    async fn send_body(&mut self, body: Body, send: SendStream) {
        let mut pumping = Box::pin(pump(body, send));
        let is_sent = std::future::poll_fn(|cx| Poll::Ready(pumping.as_mut().poll(cx).is_ready())).await;
        if !is_sent {
            self.pump = Some(tokio::task::spawn_local(pumping).abort_handle());
        }
    }

    pub fn failed(mut self, error: &BodyError) {
        self.completed = true;
        if matches!(error, BodyError::Disconnected | BodyError::Http1(_) | BodyError::Http2(_)) {
            self.pool.report(Outcome::Failed);
        }
        self.pool.count(match error {
            BodyError::Deadline(Deadline::Timeout) => ClusterStat::RqTimeout,
            BodyError::Deadline(Deadline::TryIdle) => ClusterStat::RqPerTryIdleTimeout,
            _ => ClusterStat::RqRxReset,
        });
    }
}

impl Drop for UpstreamStream {
    fn drop(&mut self) {
        self.pool.cluster.stats.cells.dec(self.pool.worker, ClusterStat::RqActive);
        // An HTTP/1 connection is closed rather than its stream reset.
        if !self.completed && self.lease.is_some() {
            self.pool.count(ClusterStat::RqTxReset);
        }
        if !self.completed
            && let Some(pump) = &self.pump
        {
            pump.abort();
        }
    }
}

/// A pooled connection may turn out to be closed. As long as nothing was written another one is taken, this often.
const STALE_CONNECTIONS_MAX: u32 = 3;

/// What a request goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Http,
    /// Its body is all that goes, over TCP.
    Tcp,
}

/// What a try needs besides the request and the host.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub priority: RoutingPriority,
    pub carrier: Carrier,
    pub informational: &'a Informational,
    /// Set as soon as there is a connection for the request.
    pub protocol: &'a Cell<Option<Version>>,
}

pub async fn send(
    pool: &Rc<HostPool>,
    terms: Terms<'_>,
    head: &mut request::Parts,
    body: Body,
) -> Result<(response::Parts, Body, UpstreamStream), TryError> {
    let active = pool.begin();
    let Some(request_permit) = pool.cluster.circuit_breakers.try_acquire(terms.priority, Resource::Requests) else {
        pool.count(ClusterStat::RqPendingOverflow);
        return Err(TryError::Overflow);
    };
    let mut stream = UpstreamStream {
        pool: pool.clone(),
        lease: None,
        pump: None,
        unsent: None,
        begun: Instant::now(),
        completed: false,
        _request: request_permit,
        _active: active,
    };
    pool.count(ClusterStat::RqActive);
    let outliers = OutlierReport::of(pool, head);
    let sent = match terms.carrier {
        Carrier::Http => send_on_pool(&mut stream, terms, head, body).await,
        Carrier::Tcp => terminate(pool, body).await,
    };
    match sent {
        Ok((head, body)) => {
            outliers.answered(pool, &head);
            if let Some(checks) = &pool.cluster.checks
                && head.headers.contains_key(X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL)
            {
                checks.fail_at_once(&pool.host);
            }
            let succeeded = !head.status.is_server_error();
            pool.count_host(if succeeded { HostStat::RqSuccess } else { HostStat::RqError });
            Ok((head, body, stream))
        }
        Err(error) => {
            outliers.failed(pool, &error);
            pool.count_host(HostStat::RqError);
            if matches!(error, TryError::RemoteReset | TryError::RefusedStream | TryError::ConnectionTermination) {
                pool.count(ClusterStat::RqRxReset);
            }
            stream.completed = true;
            Err(error)
        }
    }
}

/// What outlier detection is told of one try.
struct OutlierReport {
    is_grpc: bool,
}

impl OutlierReport {
    fn of(pool: &HostPool, head: &request::Parts) -> OutlierReport {
        OutlierReport { is_grpc: pool.cluster.outliers.is_some() && exchange::is_grpc(&head.headers) }
    }

    fn answered(&self, pool: &HostPool, head: &response::Parts) {
        let Some(outliers) = &pool.cluster.outliers else { return };
        // Only a response without a body says so in time.
        let grpc_status = head.headers.get("grpc-status").filter(|_| self.is_grpc);
        let status = grpc_status.map_or(head.status.as_u16(), |status| grpc_status::to_http(status.as_bytes()));
        outliers.report(&pool.host, Outcome::Status(status));
        if head.headers.contains_key(X_ENVOY_DEGRADED) {
            outliers.report_degraded(&pool.host);
        }
    }

    fn failed(&self, pool: &HostPool, error: &TryError) {
        match error {
            TryError::Connect(_)
            | TryError::RefusedStream
            | TryError::ResetBeforeRequest
            | TryError::ConnectionTermination
            | TryError::RemoteReset
            | TryError::Protocol => pool.report(Outcome::Failed),
            // Not the host's fault, or told by whoever measured the time.
            TryError::Overflow
            | TryError::RequestBody
            | TryError::PerTryTimeout
            | TryError::PerTryIdleTimeout
            | TryError::NoHealthyUpstream
            | TryError::Deadline(_) => {}
        }
    }
}

const X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const X_ENVOY_DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// The tunnel is open as soon as the connection is.
async fn terminate(pool: &Rc<HostPool>, body: Body) -> Result<(response::Parts, Body), TryError> {
    let (stream, connection, _active) = pool.connect_tcp(pool.origin()).await?;
    let (head, ()) = Response::new(()).into_parts();
    let mut body = TerminatedBody::new(stream, connection, body);
    // What has come of the request already counts as such before it is answered. Err: so will reading say.
    let _ = std::future::poll_fn(|cx| Poll::Ready(body.poll_sending(cx))).await;
    Ok((head, Body::Terminated(Box::new(body))))
}

async fn send_on_pool(
    stream: &mut UpstreamStream,
    terms: Terms<'_>,
    head: &mut request::Parts,
    mut body: Body,
) -> Result<(response::Parts, Body), TryError> {
    let pool = stream.pool.clone();
    for _ in 0..STALE_CONNECTIONS_MAX {
        let lease = pool.lease(terms.priority, head.version).await?;
        pool.report(Outcome::Connected);
        let sent = match lease {
            Lease::Http1(lease) => {
                terms.protocol.set(Some(Version::HTTP_11));
                send_http1(stream, lease, terms.informational, head, body).await?
            }
            Lease::Http2(lease) => {
                terms.protocol.set(Some(Version::HTTP_2));
                send_http2(stream, lease, terms.informational, head, body).await?
            }
        };
        body = match sent {
            Sent::Response(head, body) => return Ok((head, body)),
            Sent::Not(body) => body,
        };
    }
    Err(TryError::ResetBeforeRequest)
}

enum Sent {
    Response(response::Parts, Body),
    /// Nothing was written: it can go elsewhere.
    Not(Body),
}

async fn send_http1(
    stream: &mut UpstreamStream,
    lease: Http1Lease,
    informational: &Informational,
    head: &mut request::Parts,
    body: Body,
) -> Result<Sent, TryError> {
    request_headers::to_http1(head).map_err(|_| TryError::Protocol)?;
    let exchange = ClientExchange::begin(lease, ClientOptions::of(&stream.pool.cluster.config), head, body);
    // Whoever waits may give up before there is an answer.
    let mut sent = SentCount(Some(stream.pool.clone()));
    let answered = exchange.response(|status, headers| informational.push((status, headers)).is_ok()).await;
    if let Err(Failure::Unsent(body)) = answered {
        sent.0 = None;
        return Ok(Sent::Not(body));
    }
    drop(sent);
    match answered {
        Ok((head, body)) => Ok(Sent::Response(head, body)),
        Err(failure) => Err(failure.into()),
    }
}

async fn send_http2(
    stream: &mut UpstreamStream,
    lease: Http2Lease,
    informational: &Informational,
    head: &mut request::Parts,
    body: Body,
) -> Result<Sent, TryError> {
    let is_tls = stream.pool.cluster.config.transport_socket.is_some();
    request_headers::to_http2(head, is_tls).map_err(|_| TryError::Protocol)?;
    let ended = body.is_end_stream();
    let tunnel = Tunnel::requested_by(head);
    let Some((mut recv, send)) = lease.requests().send(head, ended) else {
        lease.retire();
        return Ok(Sent::Not(body));
    };
    count_sent(&stream.pool);
    stream.lease = Some(lease);
    let mut sending = if ended { None } else { Some((body, send)) };
    // Who refuses a tunnel is not sent what was meant for its other end.
    if tunnel.is_none()
        && let Some((body, send)) = sending.take()
    {
        stream.send_body(body, send).await;
    }
    match final_response(&mut recv, informational).await {
        Ok(head) => {
            let opens_tunnel = tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(head.status));
            match sending {
                Some((body, send)) if opens_tunnel => stream.send_body(body, send).await,
                Some((_, send)) => stream.unsent = Some(send),
                None => {}
            }
            Ok(Sent::Response(head, Body::Http2(recv)))
        }
        Err(error) => {
            if let Some(pump) = &stream.pump {
                pump.abort();
            }
            Err(error)
        }
    }
}

/// Passes on what comes before it.
async fn final_response(recv: &mut RecvStream, informational: &Informational) -> Result<response::Parts, TryError> {
    std::future::poll_fn(|cx| {
        while let Some(interim) = recv.take_informational() {
            if informational.push((interim.status, interim.headers)).is_err() {
                return Poll::Ready(Err(TryError::Protocol));
            }
        }
        recv.poll_head(cx).map_err(http2_error)
    })
    .await
}

/// Counts a request as sent, unless it turns out that it was not.
struct SentCount(Option<Rc<HostPool>>);

impl Drop for SentCount {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            count_sent(pool);
        }
    }
}

fn count_sent(pool: &HostPool) {
    pool.count(ClusterStat::RqTotal);
    pool.count_host(HostStat::RqTotal);
}

/// The request's body, as fast as the upstream takes it. Dropped halfway, it resets the stream.
async fn pump(mut body: Body, mut send: SendStream) {
    // How long that may take is for the deadlines of the request to say.
    if let Err(SendError::Body) = h2::send_body(&mut body, &mut send, None).await {
        send.reset(Reason::CANCEL);
    }
}

fn http2_error(error: StreamError) -> TryError {
    match error {
        // RFC 9113 section 8.7: these were not processed.
        StreamError::RemoteReset(Reason::REFUSED_STREAM) | StreamError::Unprocessed => TryError::RefusedStream,
        StreamError::RemoteReset(Reason::PROTOCOL_ERROR) => TryError::Protocol,
        StreamError::RemoteReset(_) | StreamError::HeadersOverLimit(_) => TryError::RemoteReset,
        StreamError::Violation(_) | StreamError::ConnectionViolation(_) => TryError::Protocol,
        StreamError::LocalReset(_) => TryError::RequestBody,
        StreamError::Disconnected => TryError::ConnectionTermination,
    }
}

impl From<Failure> for TryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsent(_) => TryError::ResetBeforeRequest,
            Failure::ConnectionTermination => TryError::ConnectionTermination,
            Failure::Violation(_) => TryError::Protocol,
            Failure::RequestBody => TryError::RequestBody,
        }
    }
}

impl From<PoolError> for TryError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Overflow => TryError::Overflow,
            PoolError::Connect(error) => TryError::Connect(error),
        }
    }
}
