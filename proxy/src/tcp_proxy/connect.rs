//! The way to an upstream: a cluster, a host of it, and as many attempts as the filter may make.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::io::AsyncReadExt as _;
use xxhash_rust::xxh64::xxh64;

use crate::{
    config::tcp_proxy::{TcpCluster, TcpProxy},
    http::{response_flags::ResponseFlags, retry},
    listener::origin::AddedTlvs,
    net::stream::Stream,
    stats::{ClusterStat, TcpStat},
    tcp_proxy::TcpSession,
    upstream::{
        aggregate,
        connect::ConnectError,
        load_balancer::Wish,
        origin::Origin,
        outlier_detection::Outcome,
        pool::{ActiveGuard, ClusterPools, ConnectionGuard, HostPool, PoolError},
        weighted_cluster,
    },
    worker::Worker,
};

/// A connected upstream; counted as long as it is there.
pub struct Upstream {
    pub stream: Stream,
    host: SocketAddr,
    _connection: ConnectionGuard,
    _active: ActiveGuard,
}

/// An upstream that was dialled before the filter had the connection.
pub struct Greeted {
    pub(super) upstream: Upstream,
    cluster: Arc<str>,
    /// What it has said already.
    pub(super) greeting: Vec<u8>,
}

/// Why one attempt led nowhere.
pub(super) enum Failure {
    NoHost,
    Overflow,
    Connect(SocketAddr, String),
}

/// Dials as the filter would do at its first attempt; None: it led nowhere, and the filter may try again.
pub async fn dial(worker: &Worker, config: &TcpProxy, destination: SocketAddr, source: SocketAddr) -> Option<Greeted> {
    let cluster = cluster_name(config, worker, None);
    let pools = worker.cluster(&cluster)?;
    if pools.cluster().config.proxy_protocol.is_some() {
        return None; // what it would be told is not known yet
    }
    let pool = choose_host(worker, &pools, wish(config, destination, source)).ok()?;
    let upstream = open(&pool, &Origin::default()).await.ok()?;
    Some(Greeted { upstream, cluster, greeting: Vec::new() })
}

impl Greeted {
    /// Waits for the upstream's first words; false: it ended without any. Cancel-safe.
    pub async fn hear(&mut self) -> bool {
        let mut buffer = [0; GREETING_READ_BYTES];
        match self.upstream.stream.read(&mut buffer).await {
            Ok(read @ 1..) => {
                self.greeting.extend_from_slice(&buffer[..read]);
                true
            }
            Ok(0) | Err(_) => false,
        }
    }
}

const GREETING_READ_BYTES: usize = 2048;

impl TcpSession {
    pub(super) fn take_up(&self, greeted: Greeted) -> (Upstream, Vec<u8>) {
        let Greeted { upstream, cluster, greeting } = greeted;
        *self.upstream_cluster.borrow_mut() = Some(cluster);
        self.attempts.set(1);
        self.upstream_host.set(Some(upstream.host));
        (upstream, greeting)
    }

    /// None: there is no upstream to be had; flags and details say why.
    pub(super) async fn connect(&self) -> Option<Upstream> {
        self.connect_by(async |pool, origin| open(&pool, origin).await).await
    }

    /// `open` is given a host to try.
    pub(super) async fn connect_by<T>(
        &self,
        open: impl AsyncFn(Rc<HostPool>, &Origin) -> Result<T, Failure>,
    ) -> Option<T> {
        let worker = &self.downstream.worker;
        let name = cluster_name(&self.active.config, worker, self.downstream.sni_cluster());
        let Some(pools) = worker.cluster(&name) else {
            self.count(TcpStat::CxNoRoute);
            self.flag(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        *self.upstream_cluster.borrow_mut() = Some(name);
        let config = &self.active.config;
        let wish = wish(config, self.downstream.local_address, self.downstream.remote_address);
        let added = AddedTlvs { tlvs: &config.proxy_protocol_tlvs, merge: config.proxy_protocol_tlv_merge };
        let origin = self.downstream.origin(&pools.cluster().config, Some(added));
        loop {
            let opened = match choose_host(worker, &pools, wish) {
                Ok(pool) => {
                    self.upstream_host.set(Some(pool.host.address));
                    open(pool, &origin).await
                }
                Err(failure) => Err(failure),
            };
            match opened {
                Ok(upstream) => {
                    self.attempts.set(self.attempts.get() + 1);
                    return Some(upstream);
                }
                Err(Failure::NoHost) => {
                    self.flag(ResponseFlags::NO_HEALTHY_UPSTREAM);
                    return None;
                }
                Err(Failure::Overflow) => {
                    self.flag(ResponseFlags::UPSTREAM_OVERFLOW);
                    return None;
                }
                Err(Failure::Connect(host, error)) => {
                    self.attempts.set(self.attempts.get() + 1);
                    self.upstream_host.set(Some(host));
                    self.flag(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                    *self.upstream_failure.borrow_mut() = Some(error);
                }
            }
            if self.attempts.get() >= self.active.config.max_connect_attempts {
                self.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                count(worker, &pools, ClusterStat::CxConnectAttemptsExceeded);
                return None;
            }
            if let Some(pause) = self.back_off(self.attempts.get()) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn back_off(&self, attempt: u32) -> Option<Duration> {
        let back_off = self.active.config.back_off.as_ref()?;
        let random = self.downstream.worker.with_random(fastrand::Rng::f64);
        Some(retry::back_off(back_off, attempt.saturating_sub(1), random))
    }
}

fn wish(config: &TcpProxy, destination: SocketAddr, source: SocketAddr) -> Wish<'static> {
    let hash = config.hashes_source_ip.then(|| xxh64(source.ip().to_string().as_bytes(), 0));
    Wish { original_destination: Some(destination), hash, ..Wish::default() }
}

fn choose_host(worker: &Worker, pools: &Rc<ClusterPools>, wish: Wish<'_>) -> Result<Rc<HostPool>, Failure> {
    aggregate::choose_host(worker, pools, wish, |_| false).ok_or_else(|| {
        count(worker, pools, ClusterStat::CxNoneHealthy);
        Failure::NoHost
    })
}

async fn open(pool: &Rc<HostPool>, origin: &Origin) -> Result<Upstream, Failure> {
    let host = pool.host.address;
    let connected = pool.connect_tcp(origin).await;
    match &connected {
        Ok(_) => pool.report(Outcome::ConnectedFinally),
        Err(PoolError::Connect(ConnectError::Timeout)) => pool.report(Outcome::TimedOut),
        Err(PoolError::Connect(_)) => pool.report(Outcome::Failed),
        Err(PoolError::Overflow) => {}
    }
    match connected {
        Ok((stream, connection, active)) => Ok(Upstream { stream, host, _connection: connection, _active: active }),
        Err(PoolError::Overflow) => Err(Failure::Overflow),
        Err(PoolError::Connect(error)) => Err(Failure::Connect(host, error.to_string())),
    }
}

fn count(worker: &Worker, pools: &ClusterPools, stat: ClusterStat) {
    pools.cluster().stats.cells.inc(worker.index, stat);
}

fn cluster_name(config: &TcpProxy, worker: &Worker, sni_cluster: Option<&str>) -> Arc<str> {
    match (&config.cluster, sni_cluster) {
        // As in Envoy, weights go before what another filter says.
        (TcpCluster::Weighted(clusters), _) => {
            let weights = clusters.iter().map(|cluster| cluster.weight);
            clusters[worker.with_random(|random| weighted_cluster::choose(weights, random))].name.clone()
        }
        (TcpCluster::Single(_), Some(name)) => name.into(),
        (TcpCluster::Single(name), None) => name.clone(),
    }
}
