//! HTTP/2 connections to a host: many requests at a time each, as many as the host allows; another is opened when all
//! are full.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::oneshot;

use crate::{
    config::{http_connection_manager::Http2Options, route::RoutingPriority},
    net::http2_keepalive::until_dead,
    stats::ClusterStat,
    upstream::{
        circuit_breaker::Permit,
        connect::ConnectError,
        pool::{ConnectionGuard, HostPool, PendingGuard, PoolError},
    },
};

#[derive(Default)]
pub(super) struct Http2Pool {
    connections: RefCell<Vec<Rc<Connection>>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Result<Http2Lease, ConnectError>>>>,
    connecting: Cell<u32>,
}

struct Connection {
    sender: SendRequest<Bytes>,
    streams: Cell<u32>,
    requests: Cell<u32>,
    streams_max: u32,
    idle_since: Cell<Instant>,
    /// Takes no new streams: closed, told to go away, or used up.
    retired: Cell<bool>,
}

/// A stream's place on a connection.
pub struct Http2Lease {
    connection: Rc<Connection>,
    pool: Rc<HostPool>,
}

pub(super) async fn lease(
    pool: &Rc<HostPool>,
    priority: RoutingPriority,
    options: &Http2Options,
) -> Result<Http2Lease, PoolError> {
    if let Some(lease) = pool.http2.place(pool) {
        return Ok(lease);
    }
    let _pending = PendingGuard::new(pool, priority)?;
    let (sender, receiver) = oneshot::channel();
    pool.http2.waiting.borrow_mut().push_back(sender);
    open_for_waiting(pool, priority, options);
    match receiver.await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(error)) => {
            pool.count(ClusterStat::RqPendingFailureEject);
            Err(error.into())
        }
        Err(_closed) => Err(ConnectError::Tcp("pool closed".into()).into()),
    }
}

/// A connection under way will take as many of the waiting as its settings allow, so one more is opened only when those
/// under way could not.
fn open_for_waiting(pool: &Rc<HostPool>, priority: RoutingPriority, options: &Http2Options) {
    let connecting = pool.http2.connecting.get();
    let waiting = pool.http2.waiting.borrow().len() as u64;
    if u64::from(connecting) * u64::from(options.max_concurrent_streams) >= waiting {
        return;
    }
    let has_any = connecting > 0 || !pool.http2.connections.borrow().is_empty();
    let Some(permit) = pool.connection_permit(has_any, priority) else { return };
    pool.http2.connecting.set(connecting + 1);
    tokio::task::spawn_local(open(pool.clone(), permit, options.clone()));
}

/// Connects and drives the connection until it closes.
async fn open(pool: Rc<HostPool>, permit: Permit, options: Http2Options) {
    let opened = handshake(&pool, permit, &options).await;
    pool.http2.connecting.set(pool.http2.connecting.get() - 1);
    match opened {
        Ok((connection, driver, guard)) => {
            pool.http2.connections.borrow_mut().push(connection.clone());
            pool.http2.serve_waiting(&pool);
            drive(&pool, driver, &options).await;
            connection.retired.set(true);
            pool.http2.forget_retired();
            drop(guard);
        }
        Err(error) => {
            let failed: Vec<_> = pool.http2.waiting.borrow_mut().drain(..).collect();
            for waiting in failed {
                let _ = waiting.send(Err(error.clone())); // Err: that request has given up
            }
        }
    }
    if pool.http2.has_waiting() {
        open_for_waiting(&pool, RoutingPriority::Default, &options);
    }
}

async fn drive(pool: &HostPool, mut driver: Driver, options: &Http2Options) {
    let alive = until_dead(driver.ping_pong(), options.keepalive.as_ref());
    tokio::select! {
        biased;
        ended = driver => if let Err(error) = ended {
            tracing::debug!(host = %pool.host.address, %error, "upstream connection ended");
        },
        () = alive => tracing::debug!(host = %pool.host.address, "upstream connection answers no PING"),
    }
}

type Driver = h2::client::Connection<crate::net::stream::Stream, Bytes>;

async fn handshake(
    pool: &Rc<HostPool>,
    permit: Permit,
    options: &Http2Options,
) -> Result<(Rc<Connection>, Driver, ConnectionGuard), ConnectError> {
    let stream = pool.connect().await?;
    let guard = ConnectionGuard::new(pool, permit);
    pool.count(ClusterStat::CxHttp2Total);
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .header_table_size(options.hpack_table_size)
        .initial_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .max_header_list_size(RESPONSE_HEADER_BYTES_MAX)
        .max_send_buffer_size(pool.cluster.config.per_connection_buffer_limit_bytes as usize);
    let (sender, driver) = builder.handshake(stream).await.map_err(|error| ConnectError::Tcp(error.to_string()))?;
    let connection = Connection {
        sender,
        streams: Cell::new(0),
        requests: Cell::new(0),
        streams_max: options.max_concurrent_streams,
        idle_since: Cell::new(Instant::now()),
        retired: Cell::new(false),
    };
    Ok((Rc::new(connection), driver, guard))
}

/// RFC 9113 section 6.5.2 recommends that a peer allows at least this many; more wait for its SETTINGS.
const STREAMS_BEFORE_SETTINGS: usize = 100;
const RESPONSE_HEADER_BYTES_MAX: u32 = 60 * 1024;

impl Http2Pool {
    /// A place on a connection that has one.
    fn place(&self, pool: &Rc<HostPool>) -> Option<Http2Lease> {
        let connections = self.connections.borrow();
        let connection = connections.iter().find(|connection| connection.has_place())?;
        connection.streams.set(connection.streams.get() + 1);
        connection.requests.set(connection.requests.get() + 1);
        if !pool.may_reuse(connection.requests.get()) {
            connection.retired.set(true);
            pool.count(ClusterStat::CxMaxRequests);
        }
        Some(Http2Lease { connection: connection.clone(), pool: pool.clone() })
    }

    fn serve_waiting(&self, pool: &Rc<HostPool>) {
        while self.has_waiting() {
            let Some(lease) = self.place(pool) else { return };
            if let Some(waiting) = { self.waiting.borrow_mut().pop_front() } {
                let _ = waiting.send(Ok(lease)); // Err: that request has given up, and the lease is dropped
            }
        }
    }

    fn has_waiting(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|request| !request.is_closed());
        !waiting.is_empty()
    }

    fn forget_retired(&self) {
        self.connections.borrow_mut().retain(|connection| !connection.retired.get());
    }

    /// Connections close when their last stream ends: the pool's handles on them go now.
    pub(super) fn close(&self) {
        self.connections.borrow_mut().clear();
    }

    pub(super) fn close_idle(&self, now: Instant, timeout: Option<Duration>) -> u64 {
        let Some(timeout) = timeout else { return 0 };
        let mut connections = self.connections.borrow_mut();
        let before = connections.len();
        connections.retain(|connection| {
            connection.streams.get() > 0 || now.saturating_duration_since(connection.idle_since.get()) < timeout
        });
        (before - connections.len()) as u64
    }

    pub(super) fn is_unused(&self) -> bool {
        self.connecting.get() == 0 && self.connections.borrow().is_empty()
    }
}

impl Connection {
    fn has_place(&self) -> bool {
        let allowed = self.sender.current_max_send_streams().min(self.streams_max as usize);
        !self.retired.get() && (self.streams.get() as usize) < allowed
    }
}

impl Http2Lease {
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    /// The connection takes no more streams (GOAWAY, or it failed): others go elsewhere.
    pub fn retire(&self) {
        self.connection.retired.set(true);
        self.pool.http2.forget_retired();
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        if connection.streams.get() == 0 {
            connection.idle_since.set(Instant::now());
            if connection.retired.get() {
                self.pool.http2.forget_retired();
            }
        }
        if !self.pool.http2.waiting.borrow().is_empty() {
            self.pool.http2.serve_waiting(&self.pool);
        }
    }
}
