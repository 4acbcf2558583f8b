//! The upstream side: clusters, their hosts, choosing one, connecting to it and keeping connections for reuse.

pub mod aggregate;
pub mod background;
pub mod circuit_breaker;
pub mod cluster;
pub mod connect;
pub mod dns;
pub mod endpoint_set;
pub mod event_log;
pub mod health_check;
pub mod host;
pub mod levels;
pub mod load_balancer;
pub mod origin;
pub mod outlier_detection;
pub mod pool;
pub mod weighted_cluster;
