//! Endpoints: first as slices of a Service, the way that they are reported, then joined into what a Service port has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use super::ObjectName;
use super::topology::{Hints, Locality};
use super::workload::Workload;

/// A reported part of a Service's endpoints: all of its addresses share its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// In the slice's own namespace.
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlicePort {
    /// Equal to the name of the Service port that it belongs to.
    pub name: String,
    /// 1 to 65535.
    pub number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    pub condition: Condition,
    /// The zone that the reporter knows; a node's own labels say more.
    pub zone: Option<String>,
    pub node: Option<String>,
    pub workload: Option<ObjectName>,
    pub hostname: Option<String>,
    pub hints: Hints,
}

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Takes traffic.
    Ready,
    /// On its way out and still answering: used while nothing is ready, as kube-proxy does (KEP-1669).
    Terminating,
    /// Takes no traffic, unless its Service publishes what is not ready.
    NotReady,
}

/// One address of a Service port that takes traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub locality: Locality,
    pub node: Option<String>,
    pub hints: Hints,
    #[serde(serialize_with = "by_name")]
    pub workload: Option<Arc<Workload>>,
    pub hostname: Option<String>,
}

fn by_name<S: serde::Serializer>(workload: &Option<Arc<Workload>>, serializer: S) -> Result<S::Ok, S::Error> {
    workload.as_ref().map(|workload| &workload.name).serialize(serializer)
}
