//! The mesh at one moment: immutable, shared by everyone who translates it.
//!
//! An entry that did not change is the same `Arc` in the next mesh, so "what changed" is a comparison of pointers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::ObjectName;
use super::endpoint::Endpoint;
use super::protocol::Protocol;
use super::service::{Age, Service, TargetPort};
use super::topology::{Distribution, Position};
use super::workload::{Node, Workload};

#[derive(Debug, Default)]
pub struct Mesh {
    pub services: BTreeMap<ObjectName, Arc<ServiceEntry>>,
    /// Shared with the next mesh while no workload changes; the same goes for `services_by_address`.
    pub workloads: Arc<BTreeMap<ObjectName, Arc<Workload>>>,
    pub nodes: Arc<BTreeMap<String, Arc<Node>>>,
    pub namespaces: BTreeSet<String>,
    /// The Services that an address is an endpoint of, ready or not.
    pub services_by_address: Arc<HashMap<IpAddr, Vec<ObjectName>>>,
}

/// A Service joined with its endpoints.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ServiceEntry {
    #[serde(serialize_with = "by_value")]
    pub service: Arc<Service>,
    /// Its own wish, or its namespace's.
    pub distribution: Distribution,
    /// By Service port number; a port that nothing serves has an empty list. Sorted by address, each address once.
    pub endpoints: BTreeMap<u16, Vec<Endpoint>>,
    /// Ports at the endpoints' side, of every address reported, ready or not.
    pub instance_ports: BTreeMap<IpAddr, Vec<InstancePort>>,
}

/// A Service port as it is at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstancePort {
    pub service_port: u16,
    pub target_port: u16,
}

/// A port of a workload that Services send traffic to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct InboundPort {
    pub number: u16,
    pub protocol: Protocol,
    /// The Service that settled the protocol.
    pub service: ObjectName,
}

/// Two Services send different protocols to one port of a workload: the older keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundConflict {
    pub number: u16,
    pub kept: ObjectName,
    pub refused: ObjectName,
}

/// What is known of one proxy's own workload.
pub struct Instance<'a> {
    pub name: &'a ObjectName,
    pub addresses: &'a [IpAddr],
    /// Labels that the proxy tells of itself, for where its workload is not in the mesh (yet).
    pub labels: &'a BTreeMap<String, String>,
}

fn by_value<S: serde::Serializer>(service: &Arc<Service>, serializer: S) -> Result<S::Ok, S::Error> {
    service.serialize(serializer)
}

impl Mesh {
    /// The ports that Services send traffic to at an instance: those reported by endpoint slices, and those that
    /// selectors tell of before the instance is reported. Sorted by number.
    pub fn inbound_ports(&self, instance: &Instance<'_>) -> (Vec<InboundPort>, Vec<InboundConflict>) {
        let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (service, service_port, number) in self.targets(instance) {
            let Some(port) = service.ports.iter().find(|port| port.number == service_port) else { continue };
            let inbound = InboundPort { number, protocol: port.protocol, service: service.name.clone() };
            match ports.get(&number) {
                Some(kept) if !kept.protocol.gives_way_to(inbound.protocol) => {
                    if !kept.protocol.agrees_with(inbound.protocol) {
                        conflicts.push(InboundConflict {
                            number,
                            kept: kept.service.clone(),
                            refused: inbound.service,
                        });
                    }
                }
                _ => _ = ports.insert(number, inbound),
            }
        }
        (ports.into_values().collect(), conflicts)
    }

    /// Where a client stands, as far as its pod's node tells.
    pub fn position(&self, pod: &ObjectName) -> Option<Position> {
        let node = self.workloads.get(pod)?.node.as_ref()?;
        let locality = self.nodes.get(node).map(|node| node.locality.clone()).unwrap_or_default();
        Some(Position { node: Some(node.clone()), locality })
    }

    /// `(service, service port, target port)` of everything that reaches an instance, the oldest Service first.
    fn targets(&self, instance: &Instance<'_>) -> Vec<(&Arc<Service>, u16, u16)> {
        let mut found: BTreeMap<(Age, &ObjectName, u16), (&Arc<Service>, u16)> = BTreeMap::new();
        for address in instance.addresses {
            for name in self.services_by_address.get(address).into_iter().flatten() {
                let Some(entry) = self.services.get(name) else { continue };
                for port in entry.instance_ports.get(address).into_iter().flatten() {
                    let (age, name) = entry.service.seniority();
                    found.insert((age, name, port.service_port), (&entry.service, port.target_port));
                }
            }
        }
        let workload = self.workloads.get(instance.name);
        let labels = workload.map_or(instance.labels, |workload| &workload.labels);
        let selecting = self.services_in(&instance.name.namespace).filter(|entry| entry.service.selects(labels));
        for entry in selecting {
            let (age, name) = entry.service.seniority();
            for port in &entry.service.ports {
                let target = match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(port_name) => workload.and_then(|workload| workload.ports.get(port_name).copied()),
                };
                if let Some(target) = target {
                    found.entry((age, name, port.number)).or_insert((&entry.service, target));
                }
            }
        }
        found.into_iter().map(|((_, _, service_port), (service, target))| (service, service_port, target)).collect()
    }

    fn services_in<'a, 'n>(&'a self, namespace: &'n str) -> impl Iterator<Item = &'a Arc<ServiceEntry>> + use<'a, 'n> {
        let from = self.services.range(ObjectName::new(namespace, "")..);
        from.take_while(move |(name, _)| name.namespace == namespace).map(|(_, entry)| entry)
    }
}
