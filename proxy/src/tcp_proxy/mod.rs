//! The TCP proxy: a connection to a cluster's host, and bytes both ways until both sides have ended.

mod relay;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use crate::{
    config::tcp_proxy::TcpCluster,
    http::response_flags::ResponseFlags,
    listener::{active::ActiveTcp, connection::Downstream, registry::ConnectionLimits},
    net::stream::Stream,
    stats::TcpStat,
    upstream::{
        aggregate,
        load_balancer::Wish,
        pool::{ActiveGuard, ClusterPools, ConnectionGuard, PoolError},
        weighted_cluster,
    },
};

/// One connection, for statistics and access logs.
pub struct TcpSession {
    pub active: Arc<ActiveTcp>,
    pub downstream: Rc<Downstream>,
    pub started: Instant,
    pub started_at: SystemTime,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    pub flags: Cell<ResponseFlags>,
    pub details: RefCell<Cow<'static, str>>,
    pub upstream_host: Cell<Option<SocketAddr>>,
    pub upstream_cluster: RefCell<Option<Arc<str>>>,
    pub upstream_failure: RefCell<Option<String>>,
    pub attempts: Cell<u32>,
}

pub async fn serve(active: Arc<ActiveTcp>, downstream: Rc<Downstream>, stream: Stream) {
    downstream.control.limits.set(ConnectionLimits {
        idle_timeout: active.config.idle_timeout,
        max_duration: active.config.max_downstream_connection_duration,
        drain_timeout: downstream.worker.shared.drain_time,
    });
    let session = TcpSession::begin(active, downstream);
    if let Some((upstream, _connection, _active)) = session.connect().await {
        relay::run(&session, stream, upstream).await;
    }
}

impl TcpSession {
    fn begin(active: Arc<ActiveTcp>, downstream: Rc<Downstream>) -> TcpSession {
        let session = TcpSession {
            active,
            downstream,
            started: Instant::now(),
            started_at: SystemTime::now(),
            bytes_received: Cell::new(0),
            bytes_sent: Cell::new(0),
            flags: Cell::default(),
            details: RefCell::new("-".into()),
            upstream_host: Cell::new(None),
            upstream_cluster: RefCell::default(),
            upstream_failure: RefCell::default(),
            attempts: Cell::new(0),
        };
        session.add(TcpStat::CxTotal, 1);
        session.add(TcpStat::CxActive, 1);
        session
    }

    fn add(&self, stat: TcpStat, amount: u64) {
        self.active.stats.cells.add(self.downstream.worker.index, stat, amount);
    }

    async fn connect(&self) -> Option<(Stream, ConnectionGuard, ActiveGuard)> {
        let Some(pools) = self.find_cluster() else {
            self.add(TcpStat::CxNoRoute, 1);
            self.flags.set(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        for _ in 0..self.active.config.max_connect_attempts {
            self.attempts.set(self.attempts.get() + 1);
            let worker = &self.downstream.worker;
            let wish = Wish { original_destination: Some(self.downstream.local_address), ..Wish::default() };
            let chosen = aggregate::choose_host(worker, &pools, wish, |_| false);
            let Some(pool) = chosen else {
                self.flags.set(self.flags.get().with(ResponseFlags::NO_HEALTHY_UPSTREAM));
                return None;
            };
            self.upstream_host.set(Some(pool.host.address));
            match pool.connect_tcp().await {
                Ok(connected) => return Some(connected),
                Err(PoolError::Overflow) => {
                    self.flags.set(self.flags.get().with(ResponseFlags::UPSTREAM_OVERFLOW));
                    return None;
                }
                Err(PoolError::Connect(error)) => {
                    self.flags.set(self.flags.get().with(ResponseFlags::UPSTREAM_CONNECTION_FAILURE));
                    *self.upstream_failure.borrow_mut() = Some(error.to_string());
                }
            }
        }
        self.flags.set(self.flags.get().with(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED));
        None
    }

    fn find_cluster(&self) -> Option<Rc<ClusterPools>> {
        let worker = &self.downstream.worker;
        let name = match &self.active.config.cluster {
            TcpCluster::Single(name) => name,
            TcpCluster::Weighted(clusters) => worker.with_random(|random| weighted_cluster::choose(clusters, random)),
        };
        let pools = worker.cluster(name)?;
        *self.upstream_cluster.borrow_mut() = Some(name.clone());
        Some(pools)
    }

    fn received(&self, bytes: usize) {
        self.bytes_received.set(self.bytes_received.get() + bytes as u64);
        self.add(TcpStat::CxRxBytesTotal, bytes as u64);
    }

    fn sent(&self, bytes: usize) {
        self.bytes_sent.set(self.bytes_sent.get() + bytes as u64);
        self.add(TcpStat::CxTxBytesTotal, bytes as u64);
    }
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        self.active.stats.cells.dec(self.downstream.worker.index, TcpStat::CxActive);
        self.downstream.worker.access_logs.log_tcp(&self.active.config.access_log, self);
    }
}
