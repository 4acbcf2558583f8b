//! HTTP/1.1 connections to a host: one request at a time each, the most recently used first.
//!
//! A request that finds no idle connection waits; a connection is opened for it by a task of its own. Whichever
//! connection is free first, new or given back, goes to the request that waits longest. Idle connections have no task:
//! whether the peer has closed one is seen when it is taken, and several times a second.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    config::route::RoutingPriority,
    http::h1::ClientConnection,
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
    waiting: RefCell<VecDeque<oneshot::Sender<Opened>>>,
    /// Open or being opened.
    connections: Cell<u32>,
}

type Opened = Result<Box<Connection>, ConnectError>;

struct Connection {
    client: ClientConnection,
    /// The pool's when it was opened.
    drains: u32,
    place: Place,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// An open connection's place among those that the host may have.
struct Place {
    pool: Rc<HostPool>,
    guard: ConnectionGuard,
}

/// A connection for one request. Merely dropped, it closes.
pub struct Http1Lease {
    /// None: given back.
    connection: Option<Box<Connection>>,
    may_reuse: bool,
}

pub(super) async fn lease(pool: &Rc<HostPool>, priority: RoutingPriority) -> Result<Http1Lease, PoolError> {
    if let Some(connection) = pool.http1.take_idle() {
        return Ok(Http1Lease::new(connection));
    }
    let pending = PendingGuard::new(pool, priority)?;
    let (sender, receiver) = oneshot::channel();
    pool.http1.waiting.borrow_mut().push_back(sender);
    open_for_waiting(pool, priority);
    let opened = receiver.await;
    pending.over();
    match opened {
        Ok(Ok(connection)) => Ok(Http1Lease::new(connection)),
        Ok(Err(error)) => {
            pool.count(ClusterStat::RqPendingFailureEject);
            Err(error.into())
        }
        Err(_closed) => Err(ConnectError::Tcp("pool closed".into()).into()),
    }
}

fn open_for_waiting(pool: &Rc<HostPool>, priority: RoutingPriority) {
    let connections = pool.http1.connections.get();
    let Some(permit) = pool.connection_permit(connections > 0, priority) else { return };
    pool.http1.connections.set(connections + 1);
    tokio::task::spawn_local(open(pool.clone(), permit));
}

async fn open(pool: Rc<HostPool>, permit: Permit) {
    pool.count(ClusterStat::CxHttp1Total);
    match pool.connect().await {
        Ok(stream) => {
            let place = Place { pool: pool.clone(), guard: ConnectionGuard::new(&pool, permit) };
            let client = ClientConnection::new(stream);
            pool.http1.offer(Box::new(Connection { client, drains: pool.drains.get(), place }));
        }
        Err(error) => {
            pool.http1.connections.set(pool.http1.connections.get() - 1);
            pool.http1.fail_longest_waiting(error);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let http1 = &self.pool.http1;
        http1.connections.set(http1.connections.get() - 1);
        // It is free for a request that waits because of a limit.
        if http1.has_waiting() {
            open_for_waiting(&self.pool, RoutingPriority::Default);
        }
    }
}

impl Http1Pool {
    fn take_idle(&self) -> Option<Box<Connection>> {
        loop {
            let Idle { mut connection, .. } = self.idle.borrow_mut().pop()?;
            if connection.client.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// To the request that waits longest, else kept.
    fn offer(&self, connection: Box<Connection>) {
        let closed = connection.place.pool.closed.get();
        let mut offered = Ok(connection);
        while let Some(waiting) = { self.waiting.borrow_mut().pop_front() } {
            offered = match waiting.send(offered) {
                Ok(()) => return,
                Err(back) => back, // that request has given up
            };
        }
        if let Ok(connection) = offered
            && !closed
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
        drop(self.idle.take()); // not while borrowed: a connection that closes looks for who waits for its place
    }

    /// Those that idle for too long, and those that the peer has closed. How many of the first kind there were.
    pub(super) fn close_idle(&self, now: Instant, timeout: Option<Duration>) -> u64 {
        if self.idle.borrow().is_empty() {
            return 0;
        }
        let mut kept = self.idle.take();
        let gone: Vec<Idle> = kept.extract_if(.., |idle| !idle.connection.client.is_quiet()).collect();
        let is_old =
            |idle: &mut Idle| timeout.is_some_and(|timeout| now.saturating_duration_since(idle.since) >= timeout);
        let old: Vec<Idle> = kept.extract_if(.., is_old).collect();
        let count = old.len() as u64;
        self.idle.replace(kept);
        drop((gone, old)); // only now: a connection that closes looks for who waits for its place
        count
    }

    pub(super) fn is_unused(&self) -> bool {
        self.connections.get() == 0
    }
}

impl Http1Lease {
    fn new(connection: Box<Connection>) -> Http1Lease {
        connection.place.guard.count_request();
        Http1Lease { connection: Some(connection), may_reuse: true }
    }

    pub fn connection(&mut self) -> &mut ClientConnection {
        &mut self.connection.as_mut().expect("taken only by give_back, which consumes").client
    }

    /// The peer will close it, or does not follow the rules.
    pub fn do_not_reuse(&mut self) {
        self.may_reuse = false;
    }

    /// The exchange is complete on both sides.
    pub fn give_back(mut self) {
        let Some(connection) = self.connection.take().filter(|_| self.may_reuse) else { return };
        let pool = connection.place.pool.clone();
        if connection.drains != pool.drains.get() {
            return; // the host was found to be bad meanwhile
        }
        if pool.may_reuse(connection.place.guard.requests()) {
            pool.http1.offer(connection);
        } else if !pool.closed.get() {
            pool.count(ClusterStat::CxMaxRequests);
        }
    }
}
