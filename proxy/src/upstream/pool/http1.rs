//! HTTP/1.1 connections to a host: one request at a time each, the most recently used first.
//!
//! A request that finds no idle connection waits; a connection is opened for it by a task of its own. Whichever
//! connection is free first, new or given back, goes to the request that waits longest.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::{
    config::route::RoutingPriority,
    http::body::Body,
    stats::ClusterStat,
    upstream::{
        circuit_breaker::Permit,
        connect::ConnectError,
        pool::{ConnectionGuard, HostPool, PendingGuard, PoolError},
    },
};

#[derive(Default)]
pub(super) struct Http1Pool {
    idle: RefCell<Vec<Idle>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Result<Connection, ConnectError>>>>,
    /// Open or being opened.
    connections: Cell<u32>,
}

struct Connection {
    sender: SendRequest<Body>,
    requests: u32,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection for one request.
pub struct Http1Lease {
    pool: Rc<HostPool>,
    connection: Option<Connection>,
}

pub(super) async fn lease(pool: &Rc<HostPool>, priority: RoutingPriority) -> Result<Http1Lease, PoolError> {
    while let Some(connection) = pool.http1.take_idle() {
        if let Some(connection) = usable(connection).await {
            return Ok(Http1Lease::new(pool, connection));
        }
    }
    let _pending = PendingGuard::new(pool, priority)?;
    let (sender, receiver) = oneshot::channel();
    pool.http1.waiting.borrow_mut().push_back(sender);
    open_for_waiting(pool, priority);
    match receiver.await {
        Ok(Ok(connection)) => Ok(Http1Lease::new(pool, connection)),
        Ok(Err(error)) => {
            pool.count(ClusterStat::RqPendingFailureEject);
            Err(error.into())
        }
        Err(_closed) => Err(ConnectError::Tcp("pool closed".into()).into()),
    }
}

/// A connection that was just given back needs a turn of its own task before it takes a request.
async fn usable(mut connection: Connection) -> Option<Connection> {
    if connection.sender.is_ready() || connection.sender.ready().await.is_ok() { Some(connection) } else { None }
}

fn open_for_waiting(pool: &Rc<HostPool>, priority: RoutingPriority) {
    let connections = pool.http1.connections.get();
    let Some(permit) = pool.connection_permit(connections > 0, priority) else { return };
    pool.http1.connections.set(connections + 1);
    tokio::task::spawn_local(open(pool.clone(), permit));
}

/// Connects and drives the connection until it closes.
async fn open(pool: Rc<HostPool>, permit: Permit) {
    let driven = handshake(&pool, permit).await;
    match driven {
        Ok((connection, driver, guard)) => {
            pool.http1.offer(&pool, connection);
            if let Err(error) = driver.await {
                tracing::debug!(host = %pool.host.address, %error, "upstream connection ended");
            }
            drop(guard);
            pool.http1.connections.set(pool.http1.connections.get() - 1);
            // Its place is free for a request that waits because of a limit.
            if pool.http1.has_waiting() {
                open_for_waiting(&pool, RoutingPriority::Default);
            }
        }
        Err(error) => {
            pool.http1.connections.set(pool.http1.connections.get() - 1);
            pool.http1.fail_longest_waiting(error);
        }
    }
}

type Driver = hyper::client::conn::http1::Connection<TokioIo<crate::net::stream::Stream>, Body>;

async fn handshake(pool: &Rc<HostPool>, permit: Permit) -> Result<(Connection, Driver, ConnectionGuard), ConnectError> {
    let stream = pool.connect().await?;
    let guard = ConnectionGuard::new(pool, permit);
    pool.count(ClusterStat::CxHttp1Total);
    let mut builder = Builder::new();
    builder.max_headers(RESPONSE_HEADERS_MAX).max_header_size(RESPONSE_HEADER_BYTES_MAX);
    let (sender, driver) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| ConnectError::Tcp(error.to_string()))?;
    Ok((Connection { sender, requests: 0 }, driver, guard))
}

/// Envoy's limits of responses.
const RESPONSE_HEADERS_MAX: usize = 100;
const RESPONSE_HEADER_BYTES_MAX: usize = 60 * 1024;

impl Http1Pool {
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let Idle { connection, .. } = self.idle.borrow_mut().pop()?;
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
    }

    /// To the request that waits longest, else kept.
    fn offer(&self, pool: &HostPool, connection: Connection) {
        let mut offered = Ok(connection);
        while let Some(waiting) = { self.waiting.borrow_mut().pop_front() } {
            offered = match waiting.send(offered) {
                Ok(()) => return,
                Err(back) => back, // that request has given up
            };
        }
        if let Ok(connection) = offered
            && !pool.closed.get()
        {
            self.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
        }
    }

    fn fail_longest_waiting(&self, error: ConnectError) {
        let mut failed = Err(error);
        while let Some(waiting) = { self.waiting.borrow_mut().pop_front() } {
            failed = match waiting.send(failed) {
                Ok(()) => return,
                Err(back) => back,
            };
        }
    }

    fn has_waiting(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|request| !request.is_closed());
        !waiting.is_empty()
    }

    pub(super) fn close(&self) {
        self.idle.borrow_mut().clear();
    }

    pub(super) fn close_idle(&self, now: Instant, timeout: Option<Duration>) -> u64 {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| !idle.connection.sender.is_closed());
        let Some(timeout) = timeout else { return 0 };
        let before = idle.len();
        idle.retain(|idle| now.saturating_duration_since(idle.since) < timeout);
        (before - idle.len()) as u64
    }

    pub(super) fn is_unused(&self) -> bool {
        self.connections.get() == 0
    }
}

impl Http1Lease {
    fn new(pool: &Rc<HostPool>, mut connection: Connection) -> Http1Lease {
        connection.requests += 1;
        Http1Lease { pool: pool.clone(), connection: Some(connection) }
    }

    pub fn sender(&mut self) -> &mut SendRequest<Body> {
        &mut self.connection.as_mut().expect("taken only by give_back, which consumes").sender
    }

    /// The exchange is complete on both sides, and the connection may carry another. Merely dropped, it closes.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            if self.pool.may_reuse(connection.requests) {
                self.pool.http1.offer(&self.pool, connection);
            } else if !self.pool.closed.get() {
                self.pool.count(ClusterStat::CxMaxRequests);
            }
        }
    }
}
