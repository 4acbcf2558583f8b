//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster, by priority and locality.

use std::{net::SocketAddr, sync::Arc};

/// Priorities are contiguous from 0 by position; a gap is an empty priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadAssignment {
    pub priorities: Vec<Vec<LocalityEndpoints>>,
    /// Default 140.
    pub overprovisioning_factor: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints {
    pub locality: Locality,
    /// At least 1.
    pub load_balancing_weight: u32,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub hostname: Arc<str>,
    /// At least 1.
    pub load_balancing_weight: u32,
    pub health_status: HealthStatus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    #[default]
    Healthy,
    /// UNHEALTHY, DRAINING and TIMEOUT of the message.
    Unhealthy,
    Degraded,
}
