//! The network filters that need no protocol: those that decide whether a connection may go on, before the one that has its
//! bytes, and the simplest of the latter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    config::network_filter::{ConnectionFilter, ConnectionLimit},
    listener::connection::Downstream,
    net::stream::Stream,
    stats::{ConnectionLimitStat, GroupStats, RateLimitStat, Registry, WorkerIndex},
    token_bucket::TokenBucket,
};

/// A connection filter with what its connections share.
pub enum ActiveConnectionFilter {
    ConnectionLimit(Arc<ActiveConnectionLimit>),
    LocalRateLimit { bucket: TokenBucket, stats: Arc<GroupStats<RateLimitStat>> },
    SniCluster,
}

pub struct ActiveConnectionLimit {
    config: Arc<ConnectionLimit>,
    open: AtomicU64,
    stats: Arc<GroupStats<ConnectionLimitStat>>,
}

/// What the filters of a chain say of a connection.
#[derive(Default)]
pub struct Admission {
    /// tcp_proxy goes to the cluster of the server's name.
    pub sni_cluster: bool,
    /// Counted as long as the connection is open.
    limits: Vec<LimitGuard>,
}

/// The connection is not wanted, and closed after this time.
#[derive(Debug, PartialEq, Eq)]
pub struct Unwanted {
    pub close_after: Option<Duration>,
}

struct LimitGuard {
    limit: Arc<ActiveConnectionLimit>,
    worker: WorkerIndex,
}

impl ActiveConnectionFilter {
    pub fn new(filter: &ConnectionFilter, registry: &Registry) -> ActiveConnectionFilter {
        match filter {
            ConnectionFilter::ConnectionLimit(config) => {
                ActiveConnectionFilter::ConnectionLimit(Arc::new(ActiveConnectionLimit {
                    stats: registry.connection_limit(&config.stat_prefix),
                    open: AtomicU64::new(0),
                    config: config.clone(),
                }))
            }
            ConnectionFilter::LocalRateLimit(config) => ActiveConnectionFilter::LocalRateLimit {
                bucket: TokenBucket::new(config.token_bucket),
                stats: registry.network_rate_limit(&config.stat_prefix),
            },
            ConnectionFilter::SniCluster => ActiveConnectionFilter::SniCluster,
        }
    }
}

/// Asks the filters in their order.
pub fn admit(filters: &[ActiveConnectionFilter], worker: WorkerIndex, now: Instant) -> Result<Admission, Unwanted> {
    let mut admission = Admission::default();
    for filter in filters {
        match filter {
            ActiveConnectionFilter::ConnectionLimit(limit) => admission.limits.push(limit.enter(worker)?),
            ActiveConnectionFilter::LocalRateLimit { bucket, stats } => {
                if !bucket.take(now).allowed {
                    stats.cells.inc(worker, RateLimitStat::RateLimited);
                    return Err(Unwanted { close_after: None });
                }
            }
            ActiveConnectionFilter::SniCluster => admission.sni_cluster = true,
        }
    }
    Ok(admission)
}

impl ActiveConnectionLimit {
    fn enter(self: &Arc<Self>, worker: WorkerIndex) -> Result<LimitGuard, Unwanted> {
        let max = self.config.connections_max;
        let entered = self.open.fetch_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1));
        if entered.is_err() {
            self.stats.cells.inc(worker, ConnectionLimitStat::LimitedConnections);
            return Err(Unwanted { close_after: self.config.delay });
        }
        self.stats.cells.inc(worker, ConnectionLimitStat::ActiveConnections);
        Ok(LimitGuard { limit: self.clone(), worker })
    }
}

impl Drop for LimitGuard {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Relaxed);
        self.limit.stats.cells.dec(self.worker, ConnectionLimitStat::ActiveConnections);
    }
}

/// Sends back what comes, to its end.
pub async fn echo(downstream: &Downstream, mut stream: Stream) {
    let mut buffer = vec![0; ECHO_BUFFER_BYTES];
    // An error ends the connection as an end does.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        downstream.bytes_received.update(|bytes| bytes + read as u64);
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        downstream.bytes_sent.update(|bytes| bytes + read as u64);
    }
    let _ = stream.shutdown().await; // Err: the peer is gone already
}

/// Sends this and closes.
pub async fn direct_response(downstream: &Downstream, mut stream: Stream, bytes: &[u8]) {
    downstream.details.set(Some("direct_response"));
    if stream.write_all(bytes).await.is_ok() {
        downstream.bytes_sent.set(bytes.len() as u64);
        let _ = stream.shutdown().await; // Err: the peer is gone already
    }
}

const ECHO_BUFFER_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(registry: &Registry, connections_max: u64) -> Vec<ActiveConnectionFilter> {
        let delay = Some(Duration::from_secs(1));
        let limit = ConnectionLimit { stat_prefix: "l".into(), connections_max, delay };
        let filters = [ConnectionFilter::SniCluster, ConnectionFilter::ConnectionLimit(Arc::new(limit))];
        filters.iter().map(|filter| ActiveConnectionFilter::new(filter, registry)).collect()
    }

    #[test]
    fn connections_beyond_the_limit_are_unwanted_until_one_ends() {
        let registry = Registry::new(1);
        let filters = filters(&registry, 2);
        let enter = || admit(&filters, WorkerIndex(0), Instant::now());
        let (first, second) = (enter().unwrap(), enter().unwrap());
        assert!(first.sni_cluster);
        let refused = enter().err().expect("one too many");
        assert_eq!(refused, Unwanted { close_after: Some(Duration::from_secs(1)) });
        drop(first);
        assert!(enter().is_ok());
        let stats = registry.connection_limit("l");
        assert_eq!(stats.cells.sum(ConnectionLimitStat::LimitedConnections), 1);
        assert_eq!(stats.cells.sum(ConnectionLimitStat::ActiveConnections), 1);
        drop(second);
        assert_eq!(stats.cells.sum(ConnectionLimitStat::ActiveConnections), 0);
    }
}
