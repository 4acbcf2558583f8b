//! The way to an upstream: a cluster, a host of it, and as many attempts as the filter may make.

use std::{rc::Rc, sync::Arc, time::Duration};

use crate::{
    config::tcp_proxy::{TcpCluster, TcpProxy},
    http::{response_flags::ResponseFlags, retry},
    listener::connection::Downstream,
    net::stream::Stream,
    stats::{ClusterStat, TcpStat},
    tcp_proxy::TcpSession,
    upstream::{
        aggregate,
        load_balancer::Wish,
        pool::{ActiveGuard, ClusterPools, ConnectionGuard, PoolError},
        weighted_cluster,
    },
};

/// A connected upstream; counted as long as it is there.
pub struct Upstream {
    pub stream: Stream,
    _connection: ConnectionGuard,
    _active: ActiveGuard,
}

impl TcpSession {
    /// None: there is no upstream to be had; flags and details say why.
    pub(super) async fn connect(&self) -> Option<Upstream> {
        let (name, pools) = self.find_cluster();
        let Some(pools) = pools else {
            self.count(TcpStat::CxNoRoute);
            self.flag(ResponseFlags::NO_CLUSTER_FOUND);
            return None;
        };
        *self.upstream_cluster.borrow_mut() = Some(name);
        let max = self.active.config.max_connect_attempts;
        loop {
            let attempt = match self.attempt(&pools).await {
                Ok(upstream) => return Some(upstream),
                Err(Some(flag)) => {
                    self.flag(flag);
                    return None;
                }
                Err(None) => self.attempts.get(),
            };
            if attempt >= max {
                self.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                self.count_upstream(&pools, ClusterStat::CxConnectAttemptsExceeded);
                return None;
            }
            if let Some(pause) = self.back_off(attempt) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// `Err(None)`: another attempt may do better.
    async fn attempt(&self, pools: &Rc<ClusterPools>) -> Result<Upstream, Option<ResponseFlags>> {
        let worker = &self.downstream.worker;
        let wish = Wish { original_destination: Some(self.downstream.local_address), ..Wish::default() };
        let chosen = aggregate::choose_host(worker, pools, wish, |_| false);
        let Some(pool) = chosen else {
            self.count_upstream(pools, ClusterStat::CxNoneHealthy);
            return Err(Some(ResponseFlags::NO_HEALTHY_UPSTREAM));
        };
        match pool.connect_tcp().await {
            Ok((stream, connection, active)) => {
                self.attempts.set(self.attempts.get() + 1);
                self.upstream_host.set(Some(pool.host.address));
                Ok(Upstream { stream, _connection: connection, _active: active })
            }
            Err(PoolError::Overflow) => Err(Some(ResponseFlags::UPSTREAM_OVERFLOW)),
            Err(PoolError::Connect(error)) => {
                self.attempts.set(self.attempts.get() + 1);
                self.upstream_host.set(Some(pool.host.address));
                self.flag(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                *self.upstream_failure.borrow_mut() = Some(error.to_string());
                Err(None)
            }
        }
    }

    fn back_off(&self, attempt: u32) -> Option<Duration> {
        let back_off = self.active.config.back_off.as_ref()?;
        let random = self.downstream.worker.with_random(fastrand::Rng::f64);
        Some(retry::back_off(back_off, attempt.saturating_sub(1), random))
    }

    fn find_cluster(&self) -> (Arc<str>, Option<Rc<ClusterPools>>) {
        let name = cluster_name(&self.active.config, &self.downstream);
        let pools = self.downstream.worker.cluster(&name);
        (name, pools)
    }

    fn count_upstream(&self, pools: &ClusterPools, stat: ClusterStat) {
        pools.cluster().stats.cells.inc(self.downstream.worker.index, stat);
    }
}

fn cluster_name(config: &TcpProxy, downstream: &Downstream) -> Arc<str> {
    match (&config.cluster, downstream.sni_cluster()) {
        // As in Envoy, weights go before what another filter says.
        (TcpCluster::Weighted(clusters), _) => {
            let weights = clusters.iter().map(|cluster| cluster.weight);
            clusters[downstream.worker.with_random(|random| weighted_cluster::choose(weights, random))].name.clone()
        }
        (TcpCluster::Single(_), Some(name)) => name.into(),
        (TcpCluster::Single(name), None) => name.clone(),
    }
}
