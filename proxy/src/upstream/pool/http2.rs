//! HTTP/2 connections to a host: many requests at a time each, as many as the host allows; another is opened when all
//! are full.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    config::{http_connection_manager::Http2Options, route::RoutingPriority},
    http::h2::{
        Counters, HeaderLimits, Role, Settings,
        client::{self, Requests},
    },
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
    requests_out: Requests,
    streams: Cell<u32>,
    guard: Rc<ConnectionGuard>,
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
    let pending = PendingGuard::new(pool, priority)?;
    let (sender, receiver) = oneshot::channel();
    pool.http2.waiting.borrow_mut().push_back(sender);
    open_for_waiting(pool, priority, options);
    let opened = receiver.await;
    pending.over();
    match opened {
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
    pool.count(ClusterStat::CxHttp2Total);
    let connected = pool.connect().await;
    pool.http2.connecting.set(pool.http2.connecting.get() - 1);
    match connected {
        Ok(stream) => {
            let guard = Rc::new(ConnectionGuard::new(&pool, permit));
            let (requests_out, driven) = client::connect(settings(&pool, options.clone()), stream);
            let connection = Rc::new(Connection {
                requests_out,
                streams: Cell::new(0),
                guard: guard.clone(),
                idle_since: Cell::new(Instant::now()),
                retired: Cell::new(false),
            });
            pool.http2.connections.borrow_mut().push(connection.clone());
            pool.http2.serve_waiting(&pool);
            // What drives the connection is no reason to keep it.
            let connection = Rc::downgrade(&{ connection });
            if let Err(error) = driven.await {
                tracing::debug!(host = %pool.host.address, %error, "upstream connection ended");
            }
            if let Some(connection) = connection.upgrade() {
                connection.retired.set(true);
            }
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

fn settings(pool: &HostPool, options: Http2Options) -> Settings {
    let config = &pool.cluster.config;
    Settings {
        role: Role::Upstream,
        headers: HeaderLimits {
            bytes_max: config.max_response_headers_bytes.unwrap_or(RESPONSE_HEADER_BYTES_MAX) as usize,
            count_max: config.max_headers_count as usize,
        },
        buffer_bytes_max: config.per_connection_buffer_limit_bytes as usize,
        stream_error_on_invalid_message: options.stream_error_on_invalid_message,
        counters: Counters { cells: pool.cluster.stats.http2.clone(), worker: pool.worker },
        options,
    }
}

const RESPONSE_HEADER_BYTES_MAX: u32 = 60 * 1024;

impl Http2Pool {
    /// A place on a connection that has one.
    fn place(&self, pool: &Rc<HostPool>) -> Option<Http2Lease> {
        let connections = self.connections.borrow();
        let connection = connections.iter().find(|connection| connection.has_place())?;
        connection.streams.set(connection.streams.get() + 1);
        connection.guard.count_request();
        if !pool.may_reuse(connection.guard.requests()) {
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
        self.connections.borrow_mut().retain(|connection| !connection.is_over());
    }

    /// Connections close when their last stream ends: the pool's handles on them go now.
    pub(super) fn close(&self) {
        self.connections.borrow_mut().clear();
    }

    pub(super) fn close_idle(&self, now: Instant, timeout: Option<Duration>) -> u64 {
        self.forget_retired();
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
    /// It takes no more requests: used up, or the peer goes away. Streams on it keep it open.
    fn is_over(&self) -> bool {
        self.retired.get() || !self.requests_out.is_open()
    }

    fn has_place(&self) -> bool {
        !self.retired.get()
            && self.requests_out.is_open()
            && (self.streams.get() as usize) < self.requests_out.streams_max()
    }
}

impl Http2Lease {
    pub fn requests(&self) -> &Requests {
        &self.connection.requests_out
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
            if connection.is_over() {
                self.pool.http2.forget_retired();
            }
        }
        if !self.pool.http2.waiting.borrow().is_empty() {
            self.pool.http2.serve_waiting(&self.pool);
        }
    }
}
