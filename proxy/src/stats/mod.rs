//! Counters, gauges and histograms: per worker, summed when read.
//!
//! Each group (a cluster's, a connection manager's, ...) is a fixed set of cells. A worker writes only its own shard, so
//! counting is a plain add on memory that no other core writes; a shard is allocated when its worker first counts.
//! Names are Envoy's (they are API); `prometheus` writes them out.

mod groups;
mod prometheus;
mod registry;
mod sharded;

pub use groups::{
    ClusterStat, ConnectionLimitStat, HealthCheckStat, HostStat, Http2Stat, HttpInspectorStat, HttpStat, ListenerStat,
    OutlierStat, ProxyProtocolStat, RateLimitStat, ServerStat, TcpStat, TlsInspectorStat,
};
pub use prometheus::{PromText, write_prometheus};
pub use registry::{ClusterStats, GroupStats, HttpStats, ListenerStats, Registry};
pub use sharded::{CodeCounters, Histogram, Sharded, WorkerIndex};

/// A group of cells: how many, what they are called and how they are written out.
pub trait StatGroup: Copy + 'static {
    const CELLS: &'static [(Self, &'static str, StatKind)];
    fn index(self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    Counter,
    Gauge,
}
