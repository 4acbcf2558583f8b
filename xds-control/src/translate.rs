//! The mesh into xDS resources: pure functions, one file a resource kind.
//!
//! What all sidecars share is translated a Service at a time (`service`), what one sidecar has of its own a node at a
//! time (`sidecar`), and a Service for gRPC's own clients by `proxyless`. Invariants: equal input gives equal bytes; every name that a resource refers to is among the
//! resources given (checked by `snapshot::consistency`).

mod cluster;
mod endpoint;
mod listener;
mod proto;
pub mod resource;
mod route;

use std::net::IpAddr;

pub use cluster::LoadBalancing;

use crate::model::ObjectName;
use crate::model::mesh::{InboundPort, ServiceEntry};
use crate::model::protocol::Protocol;
use crate::model::service::ServicePort;
use resource::Resource;

/// What holds for the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    pub cluster_domain: String,
    pub outbound_policy: OutboundPolicy,
    pub load_balancing: LoadBalancing,
    /// Where sidecars write their access log; none is written without.
    pub access_log_file: Option<String>,
    /// How long a connection whose protocol nobody declared is listened to before it is taken for bytes.
    pub detection_timeout: std::time::Duration,
}

/// What happens to traffic for which there is no Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// It goes where it was going.
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

/// A sidecar as far as its configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SidecarInputs {
    /// Of its pod, at least one; the first decides where listeners are bound where only one family is at hand.
    pub addresses: Vec<IpAddr>,
    pub inbound: Vec<InboundPort>,
}

impl SidecarInputs {
    fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// What a Service adds to every sidecar.
pub fn service(entry: &ServiceEntry, settings: &MeshSettings) -> Vec<Resource> {
    let mut resources = Vec::new();
    let host = entry.service.host(&settings.cluster_domain);
    for port in &entry.service.ports {
        let name = outbound_name(port.number, &host);
        let listeners = listener::outbound(&entry.service, port, &name, settings);
        if listeners.is_empty() {
            // Nothing would lead to the port.
            continue;
        }
        resources.extend(listeners.into_iter().map(Resource::listener));
        if routes_requests(port) {
            resources.push(Resource::route(route::outbound(&name, &host, port.number)));
        }
        resources.push(Resource::cluster(cluster::outbound(&name, port.protocol, settings.load_balancing)));
        let endpoints = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
        resources.push(Resource::endpoints(endpoint::assignment(&name, endpoints)));
    }
    resources
}

/// What one sidecar has of its own: the listeners that traffic is redirected to, and its pod's ports.
pub fn sidecar(inputs: &SidecarInputs, settings: &MeshSettings) -> Vec<Resource> {
    let mut resources = vec![
        Resource::listener(listener::virtual_outbound(inputs, settings)),
        Resource::listener(listener::virtual_inbound(inputs, settings)),
    ];
    resources.extend(inputs.inbound.iter().map(|port| Resource::cluster(cluster::inbound(port, inputs))));
    resources.push(Resource::cluster(cluster::inbound_passthrough(inputs)));
    resources.push(Resource::cluster(cluster::passthrough()));
    resources.push(Resource::cluster(cluster::black_hole()));
    resources
}

/// What a Service is to applications that speak xDS themselves (gRPC A27): listeners named as their targets are.
pub fn proxyless(entry: &ServiceEntry, settings: &MeshSettings) -> Vec<Resource> {
    let mut resources = Vec::new();
    let host = entry.service.host(&settings.cluster_domain);
    let ObjectName { namespace, name: service } = &entry.service.name;
    for port in entry.service.ports.iter().filter(|port| routes_requests(port)) {
        let name = outbound_name(port.number, &host);
        for host in [host.clone(), format!("{service}.{namespace}.svc"), format!("{service}.{namespace}")] {
            resources.push(Resource::listener(listener::proxyless(&format!("{host}:{}", port.number), &name)));
        }
        resources.push(Resource::route(route::outbound(&name, &host, port.number)));
        resources.push(Resource::cluster(cluster::proxyless(&name)));
        let endpoints = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
        resources.push(Resource::endpoints(endpoint::assignment(&name, endpoints)));
    }
    resources
}

/// Cluster and route names of a Service port: `outbound|PORT|SUBSET|HOST`.
fn outbound_name(port: u16, host: &str) -> String {
    format!("outbound|{port}||{host}")
}

fn inbound_name(port: u16) -> String {
    format!("inbound|{port}||")
}

const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";

/// Whether clients of a port get a route table: declared HTTP always, undeclared ports when HTTP is seen.
fn routes_requests(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Detect
}

#[cfg(test)]
mod tests;
