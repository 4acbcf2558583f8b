//! Counters, gauges and histograms: per worker, summed when read.
//!
//! Each group (a cluster's, a connection manager's, ...) is a fixed set of cells. A worker writes only its own shard, so
//! counting is a plain add on memory that no other core writes; a shard is allocated when its worker first counts.
//! Names are Envoy's (they are API): scopes say what they have under dotted names, `text` and `prometheus` write it out.

mod groups;
mod histogram;
mod name;
mod prometheus;
pub mod reading;
mod registry;
mod scopes;
mod sharded;
pub mod tags;
pub mod text;

pub use groups::{
    BasicAuthStat, ClusterStat, ConnectionLimitStat, ExtAuthzStat, HealthCheckStat, HostStat, Http2Stat,
    HttpInspectorStat, HttpStat, JwtStat, ListenerHttpStat, ListenerStat, OutlierStat, ProxyProtocolStat,
    RateLimitStat, RbacShadowStat, RbacStat, ServerStat, TcpStat, TlsInspectorStat, TransportMatchStat,
};
pub use histogram::{Bins, Histogram};
pub use name::{MetricName, Tag, TaggedPart};
pub use prometheus::{PrometheusHistograms, PrometheusText};
pub use reading::{Reading, Readings, Scope};
pub use registry::Registry;
pub use scopes::{CallerKind, ClusterStats, GroupStats, HttpStats, ListenerStats, ProxyProtocolStats};
pub use sharded::{CodeCounters, Sharded, WorkerIndex};
pub use tags::StatsRules;

/// A group of cells: how many, what they are called and how they are written out.
pub trait StatGroup: Copy + Send + Sync + 'static {
    const CELLS: &'static [(Self, &'static str, StatKind)];
    fn index(self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    Counter,
    Gauge,
}
