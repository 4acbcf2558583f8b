//! One try: a request to one host and the head of its response.

use std::{pin::Pin, rc::Rc, task::Poll, time::Instant};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::{Request, request, response};
use http_body::Body as _;
use tokio::task::AbortHandle;

use crate::{
    config::route::RoutingPriority,
    http::{
        body::{Body, BodyError, next_frame},
        exchange::Deadline,
        h1::{ClientExchange, ClientOptions, Failure},
        informational::Informational,
        request_headers,
    },
    stats::{ClusterStat, HostStat},
    upstream::{
        circuit_breaker::{Permit, Resource},
        connect::ConnectError,
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
    begun: Instant,
    completed: bool,
    _request: Permit,
    _active: ActiveGuard,
}

impl UpstreamStream {
    /// The response was received whole.
    pub fn complete(mut self) {
        self.completed = true;
        self.pool.cluster.stats.rq_time.record(self.pool.worker, self.begun.elapsed());
    }

    pub fn failed(mut self, error: &BodyError) {
        self.completed = true;
        self.pool.count(match error {
            BodyError::Deadline(Deadline::Timeout) => ClusterStat::RqTimeout,
            _ => ClusterStat::RqRxReset,
        });
    }
}

impl Drop for UpstreamStream {
    fn drop(&mut self) {
        self.pool.cluster.stats.cells.dec(self.pool.worker, ClusterStat::RqActive);
        if !self.completed {
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

pub async fn send(
    pool: &Rc<HostPool>,
    priority: RoutingPriority,
    informational: &Informational,
    head: request::Parts,
    body: Body,
) -> Result<(response::Parts, Body, UpstreamStream), TryError> {
    let active = pool.begin();
    let Some(request_permit) = pool.cluster.circuit_breakers.try_acquire(priority, Resource::Requests) else {
        pool.count(ClusterStat::RqPendingOverflow);
        return Err(TryError::Overflow);
    };
    let mut stream = UpstreamStream {
        pool: pool.clone(),
        lease: None,
        pump: None,
        begun: Instant::now(),
        completed: false,
        _request: request_permit,
        _active: active,
    };
    pool.count(ClusterStat::RqActive);
    let sent = send_on_pool(&mut stream, priority, informational, head, body).await;
    match sent {
        Ok((head, body)) => {
            let succeeded = !head.status.is_server_error();
            pool.count_host(if succeeded { HostStat::RqSuccess } else { HostStat::RqError });
            Ok((head, body, stream))
        }
        Err(error) => {
            pool.count_host(HostStat::RqError);
            if matches!(error, TryError::RemoteReset | TryError::RefusedStream | TryError::ConnectionTermination) {
                pool.count(ClusterStat::RqRxReset);
            }
            stream.completed = true;
            Err(error)
        }
    }
}

async fn send_on_pool(
    stream: &mut UpstreamStream,
    priority: RoutingPriority,
    informational: &Informational,
    mut head: request::Parts,
    mut body: Body,
) -> Result<(response::Parts, Body), TryError> {
    let pool = stream.pool.clone();
    for _ in 0..STALE_CONNECTIONS_MAX {
        let unsent = match pool.lease(priority).await? {
            Lease::Http1(lease) => send_http1(stream, lease, informational, head, body).await?,
            Lease::Http2(lease) => send_http2(stream, lease, informational, head, body).await?,
        };
        (head, body) = match unsent {
            Sent::Response(head, body) => return Ok((head, body)),
            Sent::Not(head, body) => (*head, body),
        };
    }
    Err(TryError::ResetBeforeRequest)
}

enum Sent {
    Response(response::Parts, Body),
    /// Nothing was written: it can go elsewhere.
    Not(Box<request::Parts>, Body),
}

async fn send_http1(
    stream: &mut UpstreamStream,
    lease: Http1Lease,
    informational: &Informational,
    mut head: request::Parts,
    body: Body,
) -> Result<Sent, TryError> {
    request_headers::to_http1(&mut head).map_err(|_| TryError::Protocol)?;
    let exchange = ClientExchange::begin(lease, ClientOptions::of(&stream.pool.cluster.config), &head, body);
    let answered = exchange.response(|status, headers| informational.push((status, headers)).is_ok()).await;
    if let Err(Failure::Unsent(body)) = answered {
        return Ok(Sent::Not(Box::new(head), body));
    }
    count_sent(&stream.pool);
    match answered {
        Ok((head, body)) => Ok(Sent::Response(head, body)),
        Err(failure) => Err(failure.into()),
    }
}

async fn send_http2(
    stream: &mut UpstreamStream,
    lease: Http2Lease,
    informational: &Informational,
    mut head: request::Parts,
    body: Body,
) -> Result<Sent, TryError> {
    let Ok(mut sender) = lease.sender().ready().await else {
        lease.retire();
        return Ok(Sent::Not(Box::new(head), body));
    };
    let is_tls = stream.pool.cluster.config.transport_socket.is_some();
    request_headers::to_http2(&mut head, is_tls).map_err(|_| TryError::Protocol)?;
    let ended = body.is_end_stream();
    count_sent(&stream.pool);
    let (response, sending) = sender.send_request(Request::from_parts(head, ()), ended).map_err(|error| {
        lease.retire();
        http2_error(&error)
    })?;
    stream.lease = Some(lease);
    if !ended {
        let pump = tokio::task::spawn_local(pump(body, sending));
        stream.pump = Some(pump.abort_handle());
    }
    match final_response(response, informational).await {
        // The h2 crate limits their bytes only.
        Ok(response) if response.headers().len() > stream.pool.cluster.config.max_headers_count as usize => {
            Err(TryError::Protocol)
        }
        Ok(response) => {
            let (head, body) = response.into_parts();
            Ok(Sent::Response(head, Body::Http2(body)))
        }
        Err(error) => {
            if let Some(lease) = &stream.lease
                && !error.is_reset()
            {
                lease.retire();
            }
            if let Some(pump) = &stream.pump {
                pump.abort();
            }
            Err(http2_error(&error))
        }
    }
}

/// Passes on what comes before it.
async fn final_response(
    mut response: ResponseFuture,
    informational: &Informational,
) -> Result<http::Response<RecvStream>, h2::Error> {
    std::future::poll_fn(|cx| {
        while let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let (head, ()) = interim?.into_parts();
            if informational.push((head.status, head.headers)).is_err() {
                return Poll::Ready(Err(h2::Reason::ENHANCE_YOUR_CALM.into()));
            }
        }
        Pin::new(&mut response).poll(cx)
    })
    .await
}

fn count_sent(pool: &HostPool) {
    pool.count(ClusterStat::RqTotal);
    pool.count_host(HostStat::RqTotal);
}

/// The request's body, as fast as the upstream takes it. Dropped halfway, it resets the stream.
async fn pump(mut body: Body, mut sending: SendStream<Bytes>) {
    if send_body(&mut body, &mut sending).await.is_none() {
        sending.send_reset(h2::Reason::CANCEL);
    }
}

/// Sends a whole body over HTTP/2; None: it failed, or the stream is gone.
pub async fn send_body<B>(body: &mut B, sending: &mut SendStream<Bytes>) -> Option<()>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    loop {
        let frame = match next_frame_unless_reset(body, sending).await? {
            None => return sending.send_data(Bytes::new(), true).ok(),
            Some(frame) => frame.ok()?,
        };
        match frame.into_data() {
            Ok(data) => {
                let ended = body.is_end_stream();
                send_data(sending, data, ended).await?;
                if ended {
                    return Some(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return sending.send_trailers(trailers).ok();
                }
            }
        }
    }
}

type NextFrame = Option<Result<http_body::Frame<Bytes>, BodyError>>;

/// None: the peer has reset the stream.
async fn next_frame_unless_reset<B>(body: &mut B, sending: &mut SendStream<Bytes>) -> Option<NextFrame>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut frame = std::pin::pin!(next_frame(body));
    std::future::poll_fn(|cx| match frame.as_mut().poll(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending => sending.poll_reset(cx).map(|_| None),
    })
    .await
}

/// As much at a time as flow control allows.
async fn send_data(sending: &mut SendStream<Bytes>, mut data: Bytes, ended: bool) -> Option<()> {
    sending.reserve_capacity(data.len());
    loop {
        let allowed = sending.capacity().min(data.len());
        if allowed == data.len() {
            return sending.send_data(data, ended).ok();
        }
        if allowed > 0 {
            sending.send_data(data.split_to(allowed), false).ok()?;
        }
        std::future::poll_fn(|cx| sending.poll_capacity(cx)).await?.ok()?;
    }
}

fn http2_error(error: &h2::Error) -> TryError {
    // RFC 9113 section 8.7: these were not processed.
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let went_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    if error.is_remote() && (refused || went_away) {
        TryError::RefusedStream
    } else if error.is_remote() && error.is_reset() {
        TryError::RemoteReset
    } else if error.is_library() {
        TryError::Protocol
    } else {
        TryError::ConnectionTermination
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
