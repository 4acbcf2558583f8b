//! The mesh into xDS resources: pure functions, one file a resource kind.
//!
//! What all sidecars share is translated a Service at a time (`service`, `endpoints`) and, for ports that Services share,
//! a port at a time (`wildcard`); what one sidecar has of its own a node at a time (`sidecar`), and a Service for gRPC's
//! own clients by `proxyless`. Invariants: equal input gives equal bytes; every name that a resource refers to is among
//! the resources given (checked by `snapshot::consistency`).

mod cluster;
mod endpoint;
mod filter;
mod listener;
mod proto;
pub mod resource;
mod route;
pub mod wildcard;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use cluster::LoadBalancing;

use crate::model::ObjectName;
use crate::model::mesh::{InboundPort, ServiceEntry};
use crate::model::protocol::Protocol;
use crate::model::service::{Addressing, ServicePort};
use crate::model::topology::{self, Position};
use resource::Resource;

/// What holds for the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    pub cluster_domain: String,
    pub outbound_policy: OutboundPolicy,
    pub load_balancing: LoadBalancing,
    /// None is written without.
    pub access_log: Option<AccessLog>,
    /// How long a connection whose protocol nobody declared is listened to before it is taken for bytes.
    pub detection_timeout: std::time::Duration,
}

/// The log of every request and connection that sidecars write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub file: String,
    pub format: AccessLogFormat,
}

/// The form of a line, in Envoy's formatter commands (`%REQ(:PATH)%`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// The proxy's own.
    Default,
    Text(String),
    /// By key.
    Json(BTreeMap<String, String>),
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
    pub interception: Interception,
}

/// How a pod's inbound traffic comes to its sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interception {
    /// Its destination is rewritten, and asked for.
    #[default]
    Redirect,
    /// It comes as it is.
    Tproxy,
}

impl SidecarInputs {
    fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// What a Service adds to every sidecar that knows of it, but for its endpoints and for ports that it shares.
pub fn service(entry: &ServiceEntry, settings: &MeshSettings) -> Vec<Resource> {
    let service = &entry.service;
    let mut resources = Vec::new();
    let host = service.host(&settings.cluster_domain);
    for port in &service.ports {
        let name = outbound_name(port.number, &host);
        let cluster = match &service.addressing {
            Addressing::Virtual(addresses) if !addresses.is_empty() => {
                let listeners = listener::outbound(service, port, &name, settings);
                resources.extend(listeners.into_iter().map(Resource::listener));
                if routes_requests(port) {
                    let table = route::outbound(&name, &host, port.number, service.affinity);
                    resources.push(Resource::route(table));
                }
                cluster::outbound(&name, port.protocol, service.affinity, settings.load_balancing)
            }
            // Nothing would lead there.
            Addressing::Virtual(_) => continue,
            addressing if !wildcard::is_told_apart(addressing, port.protocol) => continue,
            Addressing::Headless => cluster::headless(&name, port.protocol),
            Addressing::External(target) => {
                cluster::external(&name, target, port, service.affinity, settings.load_balancing)
            }
        };
        resources.push(Resource::cluster(cluster));
    }
    resources
}

/// The endpoints of a port for those who stand at `position`: of no effect unless `topology::depends_on_position`.
/// `None` where nobody asks for them.
pub fn endpoints(
    entry: &ServiceEntry,
    port: &ServicePort,
    position: &Position,
    settings: &MeshSettings,
) -> Option<Resource> {
    if matches!(entry.service.addressing, Addressing::External(_)) {
        return None;
    }
    let endpoints = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
    let ranks = topology::ranks(entry, endpoints, position);
    let name = outbound_name(port.number, &entry.service.host(&settings.cluster_domain));
    Some(Resource::endpoints(endpoint::assignment(&name, &ranks)))
}

/// Whether sidecars take a Service's endpoints from us; of headless Services the application chooses one itself.
pub fn sidecars_balance(entry: &ServiceEntry) -> bool {
    !entry.service.virtual_addresses().is_empty()
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

/// What a Service is to applications that speak xDS themselves (gRPC A27), but for its endpoints: listeners named as
/// their targets are.
pub fn proxyless(entry: &ServiceEntry, settings: &MeshSettings) -> Vec<Resource> {
    let mut resources = Vec::new();
    let host = entry.service.host(&settings.cluster_domain);
    let ObjectName { namespace, name: service } = &entry.service.name;
    for port in entry.service.ports.iter().filter(|port| routes_requests(port)) {
        let name = outbound_name(port.number, &host);
        for host in [host.clone(), format!("{service}.{namespace}.svc"), format!("{service}.{namespace}")] {
            resources.push(Resource::listener(listener::proxyless(&format!("{host}:{}", port.number), &name)));
        }
        resources.push(Resource::route(route::proxyless(&name, &host, port.number, entry.service.affinity)));
        resources.push(Resource::cluster(match &entry.service.addressing {
            Addressing::External(target) => cluster::proxyless_external(&name, target, port),
            Addressing::Virtual(_) | Addressing::Headless => cluster::proxyless(&name, entry.service.affinity),
        }));
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

/// The cluster of traffic to no Service.
fn unknown_destinations(settings: &MeshSettings) -> &'static str {
    match settings.outbound_policy {
        OutboundPolicy::AllowAny => PASSTHROUGH_CLUSTER,
        OutboundPolicy::RegistryOnly => BLACK_HOLE_CLUSTER,
    }
}

/// Whether clients of a port get a route table: declared HTTP always, undeclared ports when HTTP is seen.
pub fn routes_requests(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Detect
}

#[cfg(test)]
mod tests;
