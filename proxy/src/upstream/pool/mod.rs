//! A worker's connections to a cluster: which host, and then one pool a host.

mod http1;
mod http2;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

pub use http1::Http1Lease;
pub use http2::Http2Lease;

use http::Version;

use crate::{
    config::{
        cluster::{Discovery, UpstreamProtocol},
        route::RoutingPriority,
    },
    net::stream::Stream,
    stats::{ClusterStat, HostStat, WorkerIndex},
    upstream::{
        circuit_breaker::{Permit, Resource},
        cluster::Cluster,
        connect::{self, ConnectError},
        endpoint_set::EndpointSet,
        host::Host,
        levels::share_load_without,
        load_balancer::{Chooser, LoadBalancer, OverrideHost, Wish},
        origin::Origin,
        outlier_detection::Outcome,
    },
};

/// One worker's side of a cluster.
pub struct ClusterPools {
    cluster: Arc<Cluster>,
    worker: WorkerIndex,
    view: RefCell<View>,
    /// Hosts that are no members: original destinations. Those without connections are dropped by `close_idle`.
    ad_hoc: RefCell<HashMap<SocketAddr, Rc<HostPool>>>,
}

/// The endpoint set as this worker last saw it; `hosts` parallel to its members.
struct View {
    version: u64,
    set: Arc<EndpointSet>,
    hosts: Vec<Rc<HostPool>>,
    balancer: LoadBalancer,
}

/// One worker's connections to a host.
pub struct HostPool {
    pub host: Arc<Host>,
    pub cluster: Arc<Cluster>,
    pub worker: WorkerIndex,
    /// What its connections show of the downstream that they are for.
    origin: Origin,
    /// Requests and TCP connections under way from this worker, of the pools of all origins.
    active: Rc<Cell<u32>>,
    /// The host or the cluster is gone: nothing is kept for reuse.
    closed: Cell<bool>,
    /// The host was found to be bad, and what was open then has been dealt with.
    drained: Cell<bool>,
    /// How often that has happened: connections of an earlier time are not kept.
    drains: Cell<u32>,
    /// Where the number of pools is limited.
    place: RefCell<Option<Permit>>,
    http1: http1::Http1Pool,
    http2: http2::Http2Pool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A circuit breaker is open.
    #[error("overflow")]
    Overflow,
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// What is taken for one request; given back when dropped.
pub enum Lease {
    Http1(Http1Lease),
    Http2(Http2Lease),
}

impl ClusterPools {
    pub fn new(cluster: Arc<Cluster>, worker: WorkerIndex) -> Rc<ClusterPools> {
        let view = View::of(&cluster, worker, &[]);
        Rc::new(ClusterPools { cluster, worker, view: RefCell::new(view), ad_hoc: RefCell::default() })
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub fn count(&self, stat: ClusterStat) {
        self.cluster.stats.cells.inc(self.worker, stat);
    }

    /// A host for a request or connection. `refused` says which hosts were tried and are not wanted again.
    pub fn choose(
        &self,
        random: &mut fastrand::Rng,
        wish: Wish<'_>,
        refused: impl Fn(&Host) -> bool,
    ) -> Option<Rc<HostPool>> {
        let balancing = &self.cluster.config.load_balancing;
        if let Discovery::OriginalDst = self.cluster.config.discovery {
            let mut destination = wish.original_destination?;
            if let Some(port) = balancing.original_dst.port_override {
                destination.set_port(port);
            }
            return Some(self.ad_hoc_pool(destination));
        }
        let mut view = self.view.borrow_mut();
        if view.version != self.cluster.endpoints_version() {
            self.renew(&mut view);
        }
        let View { set, hosts, balancer, .. } = &mut *view;
        let chooser = PoolChooser { pools: self, hosts, refused };
        let named = wish.override_host.and_then(|host| set.usable_at(host.address?));
        let member = match (named, wish.override_host) {
            (Some(member), _) => member,
            (None, Some(OverrideHost { strict: true, .. })) => return None,
            (None, _) => balancer.choose(balancing, set, wish, random, &chooser)?,
        };
        let chosen = hosts[member as usize].clone();
        if self.cluster.circuit_breakers.limits_pools() && !chosen.take_place() {
            // Of pools that nobody uses one can go.
            if let Some(unused) = hosts.iter().find(|pool| pool.holds_place() && pool.is_unused()) {
                unused.give_up_place();
            }
            if !chosen.take_place() {
                self.count(ClusterStat::CxPoolOverflow);
                return None;
            }
        }
        Some(chosen)
    }

    /// The priority of a host; None: it is no member any more.
    pub fn priority_of(&self, host: &Host) -> Option<usize> {
        let view = self.view.borrow();
        view.set.members.iter().find(|member| member.host.id == host.id).map(|member| member.priority)
    }

    /// Whether there is anybody besides these priorities.
    pub fn has_others_than(&self, passed_over: &[bool]) -> bool {
        share_load_without(&self.view.borrow().set.whole.levels, passed_over).is_some()
    }

    /// Follows a change of the endpoints, so that connections to hosts that are gone close.
    pub fn refresh(&self) {
        let mut view = self.view.borrow_mut();
        if view.version != self.cluster.endpoints_version() {
            self.renew(&mut view);
        }
    }

    /// The cluster is gone: nothing is kept for reuse any more.
    pub fn close(&self) {
        let view = self.view.borrow();
        for pool in view.hosts.iter().chain(self.ad_hoc.borrow().values()) {
            pool.close();
        }
    }

    /// Closes connections that idled for the cluster's `idle_timeout`.
    pub fn close_idle(&self) {
        let now = Instant::now();
        for pool in &self.view.borrow().hosts {
            pool.close_idle(now);
        }
        self.ad_hoc.borrow_mut().retain(|_, pool| {
            pool.close_idle(now);
            !pool.is_unused() || Rc::strong_count(pool) > 1
        });
    }

    fn renew(&self, view: &mut View) {
        let next = View::of(&self.cluster, self.worker, &view.hosts);
        let kept: HashSet<u64> = next.hosts.iter().map(|pool| pool.host.id).collect();
        for gone in view.hosts.iter().filter(|old| !kept.contains(&old.host.id)) {
            gone.close();
        }
        next.hosts.iter().for_each(|pool| pool.follow_health());
        let mut balancer = std::mem::take(&mut view.balancer);
        balancer.follow();
        *view = View { balancer, ..next };
    }

    fn ad_hoc_pool(&self, address: SocketAddr) -> Rc<HostPool> {
        let mut ad_hoc = self.ad_hoc.borrow_mut();
        let new = || HostPool::new(self.cluster.ad_hoc_host(address), self.cluster.clone(), self.worker);
        ad_hoc.entry(address).or_insert_with(new).clone()
    }
}

/// What a load balancer is told of a worker's side of the cluster.
struct PoolChooser<'a, R> {
    pools: &'a ClusterPools,
    hosts: &'a [Rc<HostPool>],
    refused: R,
}

impl<R: Fn(&Host) -> bool> Chooser for PoolChooser<'_, R> {
    fn active(&self, member: u32) -> u32 {
        self.hosts[member as usize].active.get()
    }

    fn refuses(&self, member: u32) -> bool {
        (self.refused)(&self.hosts[member as usize].host)
    }

    fn count(&self, stat: ClusterStat) {
        self.pools.cluster.stats.cells.inc(self.pools.worker, stat);
    }

    fn active_everywhere(&self, member: u32) -> u64 {
        self.hosts[member as usize].host.stats.sum(HostStat::RqActive)
    }

    fn cluster_active_everywhere(&self) -> u64 {
        self.pools.cluster.stats.cells.sum(ClusterStat::RqActive)
    }
}

impl View {
    fn of(cluster: &Arc<Cluster>, worker: WorkerIndex, known: &[Rc<HostPool>]) -> View {
        let known: HashMap<u64, &Rc<HostPool>> = known.iter().map(|pool| (pool.host.id, pool)).collect();
        // The version first: a set that is newer than it only means one renewal more.
        let version = cluster.endpoints_version();
        let set = cluster.endpoints.load_full();
        let hosts = set.members.iter().map(|member| match known.get(&member.host.id) {
            Some(pool) => Rc::clone(pool),
            None => HostPool::new(member.host.clone(), cluster.clone(), worker),
        });
        View { version, hosts: hosts.collect(), balancer: LoadBalancer::default(), set }
    }
}

impl HostPool {
    fn new(host: Arc<Host>, cluster: Arc<Cluster>, worker: WorkerIndex) -> Rc<HostPool> {
        Rc::new(HostPool {
            host,
            cluster,
            worker,
            origin: Origin::default(),
            active: Rc::default(),
            closed: Cell::new(false),
            drained: Cell::new(false),
            drains: Cell::new(0),
            place: RefCell::default(),
            http1: Default::default(),
            http2: Default::default(),
        })
    }

    /// A pool of connections to the same host for one downstream only.
    pub(super) fn own(&self, origin: Origin) -> Rc<HostPool> {
        Rc::new(HostPool {
            host: self.host.clone(),
            cluster: self.cluster.clone(),
            worker: self.worker,
            origin,
            active: self.active.clone(),
            closed: Cell::new(false),
            drained: Cell::new(false),
            drains: Cell::new(0),
            place: RefCell::default(),
            http1: Default::default(),
            http2: Default::default(),
        })
    }

    /// What its connections show of the downstream that they are for.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A connection of the cluster's protocol, from the pool or new. `version` is what the request came by.
    pub async fn lease(self: &Rc<Self>, priority: RoutingPriority, version: Version) -> Result<Lease, PoolError> {
        match &self.cluster.config.protocol {
            UpstreamProtocol::Http2(options) => http2::lease(self, priority, options).await.map(Lease::Http2),
            UpstreamProtocol::AsDownstream(options) if version == Version::HTTP_2 => {
                http2::lease(self, priority, options).await.map(Lease::Http2)
            }
            UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream(_) => {
                http1::lease(self, priority).await.map(Lease::Http1)
            }
        }
    }

    /// A connection for TCP, never pooled. The guards count as long as it is open.
    pub async fn connect_tcp(
        self: &Rc<Self>,
        origin: &Origin,
    ) -> Result<(Stream, ConnectionGuard, ActiveGuard), PoolError> {
        let breakers = &self.cluster.circuit_breakers;
        let permit = breakers.try_acquire(RoutingPriority::Default, Resource::Connections);
        let Some(permit) = permit.filter(|_| !self.host_is_full(RoutingPriority::Default)) else {
            self.count(ClusterStat::CxOverflow);
            return Err(PoolError::Overflow);
        };
        self.count(ClusterStat::RqPendingTotal);
        let active = self.begin();
        let stream = match connect::connect(&self.cluster, &self.host, self.worker, origin).await {
            Ok(stream) => stream,
            Err(error) => {
                self.count(ClusterStat::RqPendingFailureEject);
                return Err(error.into());
            }
        };
        // As Envoy has it, a connection is a request.
        self.count(ClusterStat::RqTotal);
        self.count_host(HostStat::RqTotal);
        Ok((stream, ConnectionGuard::new(self, permit), active))
    }

    pub fn count(&self, stat: ClusterStat) {
        self.cluster.stats.cells.inc(self.worker, stat);
    }

    pub fn count_host(&self, stat: HostStat) {
        self.host.stats.inc(self.worker, stat);
    }

    pub fn begin(self: &Rc<Self>) -> ActiveGuard {
        self.active.set(self.active.get() + 1);
        self.count_host(HostStat::RqActive);
        ActiveGuard(self.clone())
    }

    async fn connect(&self) -> Result<Stream, ConnectError> {
        connect::connect(&self.cluster, &self.host, self.worker, &self.origin).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.http1.close();
        self.http2.close();
    }

    fn close_idle(&self, now: Instant) {
        let timeout = self.cluster.config.idle_timeout;
        let closed = self.http1.close_idle(now, timeout) + self.http2.close_idle(now, timeout);
        self.cluster.stats.cells.add(self.worker, ClusterStat::CxIdleTimeout, closed);
    }

    /// Tells outlier detection, where the cluster has it, what became of a try.
    pub fn report(&self, outcome: Outcome) {
        if let Some(outliers) = &self.cluster.outliers {
            outliers.report(&self.host, outcome);
        }
    }

    /// Of a host that has become bad no connection is kept for later: those in use end with what they carry.
    fn follow_health(&self) {
        let failed = self.host.has_failed();
        if failed && !self.drained.get() {
            self.drains.set(self.drains.get() + 1);
            self.http1.close();
            self.http2.close();
        }
        self.drained.set(failed);
    }

    fn is_unused(&self) -> bool {
        self.active.get() == 0 && self.http1.is_unused() && self.http2.is_unused()
    }

    /// Whether the host has as many connections as it may have by itself.
    fn host_is_full(&self, priority: RoutingPriority) -> bool {
        let limits = &self.cluster.config.circuit_breakers.per_host_max_connections;
        let limit = match priority {
            RoutingPriority::Default => limits.default,
            RoutingPriority::High => limits.high,
        };
        limit.is_some_and(|limit| self.host.stats.sum(HostStat::CxActive) >= u64::from(limit))
    }

    /// A place among the pools that there may be; false: all are taken.
    fn take_place(&self) -> bool {
        let mut place = self.place.borrow_mut();
        if place.is_none() {
            let breakers = &self.cluster.circuit_breakers;
            *place = breakers.try_acquire(RoutingPriority::Default, Resource::ConnectionPools);
        }
        place.is_some()
    }

    fn holds_place(&self) -> bool {
        self.place.borrow().is_some()
    }

    fn give_up_place(&self) {
        self.place.take();
    }

    /// Whether a connection may carry another request.
    fn may_reuse(&self, requests: u32) -> bool {
        !self.closed.get() && self.cluster.config.max_requests_per_connection.is_none_or(|max| requests < max)
    }

    /// Whether a connection may be opened; a pool that has none always may.
    fn connection_permit(&self, has_any: bool, priority: RoutingPriority) -> Option<Permit> {
        let breakers = &self.cluster.circuit_breakers;
        let permit = breakers.try_acquire(priority, Resource::Connections).filter(|_| !self.host_is_full(priority));
        if permit.is_none() {
            self.count(ClusterStat::CxOverflow);
            if !has_any {
                return Some(breakers.acquire(priority, Resource::Connections));
            }
        }
        permit
    }
}

/// One request or TCP connection under way on a host.
pub struct ActiveGuard(Rc<HostPool>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.host.stats.dec(self.0.worker, HostStat::RqActive);
    }
}

/// One open connection.
pub struct ConnectionGuard {
    pool: Rc<HostPool>,
    opened: Instant,
    requests: Cell<u32>,
    _permit: Permit,
}

impl ConnectionGuard {
    fn new(pool: &Rc<HostPool>, permit: Permit) -> ConnectionGuard {
        pool.count(ClusterStat::CxActive);
        pool.count_host(HostStat::CxActive);
        ConnectionGuard { pool: pool.clone(), opened: Instant::now(), requests: Cell::new(0), _permit: permit }
    }

    fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// It carries one more.
    fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.cluster.stats.cells.dec(pool.worker, ClusterStat::CxActive);
        pool.host.stats.dec(pool.worker, HostStat::CxActive);
        pool.count(ClusterStat::CxDestroy);
        pool.cluster.stats.cx_length.record(pool.worker, self.opened.elapsed());
        if self.requests() > 0 {
            pool.cluster.stats.rq_per_cx.record_number(pool.worker, self.requests().into());
        }
    }
}

/// One request waiting for a connection.
struct PendingGuard<'a> {
    pool: &'a HostPool,
    /// Dropped before that, it was given up.
    is_over: Cell<bool>,
    _permit: Permit,
}

impl<'a> PendingGuard<'a> {
    fn new(pool: &'a HostPool, priority: RoutingPriority) -> Result<PendingGuard<'a>, PoolError> {
        let Some(permit) = pool.cluster.circuit_breakers.try_acquire(priority, Resource::PendingRequests) else {
            pool.count(ClusterStat::RqPendingOverflow);
            return Err(PoolError::Overflow);
        };
        pool.count(ClusterStat::RqPendingTotal);
        pool.count(ClusterStat::RqPendingActive);
        Ok(PendingGuard { pool, is_over: Cell::new(false), _permit: permit })
    }

    /// There is a connection, or there will be none.
    fn over(&self) {
        self.is_over.set(true);
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.pool.cluster.stats.cells.dec(self.pool.worker, ClusterStat::RqPendingActive);
        if !self.is_over.get() {
            self.pool.count(ClusterStat::RqCancelled);
        }
    }
}
