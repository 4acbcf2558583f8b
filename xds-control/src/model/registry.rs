//! The mesh under construction: sources put objects in and take them out, `publish` joins what that touched.
//!
//! Work is proportional to what changed: a Service is joined anew only when it, its namespace's settings, one of its
//! slices, or a workload or node that these name was touched; every other entry is carried over as it is. A Service that
//! selects workloads and has no slice gets its endpoints from the workloads themselves: in a cluster somebody writes
//! slices, in a folder nobody may.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::ObjectName;
use super::endpoint::{Condition, Endpoint, EndpointSlice, SliceEndpoint, SlicePort};
use super::mesh::{InstancePort, Mesh, ServiceEntry};
use super::service::{Service, ServicePort, TargetPort};
use super::topology::{Distribution, Hints};
use super::workload::{Namespace, Node, Workload};

/// An object of the model, as a source reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Workload(Arc<Workload>),
    Node(Arc<Node>),
    Namespace(Arc<Namespace>),
}

/// What names an object among all objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    Service(ObjectName),
    EndpointSlice(ObjectName),
    Workload(ObjectName),
    Node(String),
    Namespace(String),
}

impl Object {
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(service) => ObjectKey::Service(service.name.clone()),
            Self::EndpointSlice(slice) => ObjectKey::EndpointSlice(slice.name.clone()),
            Self::Workload(workload) => ObjectKey::Workload(workload.name.clone()),
            Self::Node(node) => ObjectKey::Node(node.name.clone()),
            Self::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
            Self::Workload(name) => write!(f, "Pod {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Namespace(name) => write!(f, "Namespace {name}"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Registry {
    services: BTreeMap<ObjectName, Arc<Service>>,
    /// By Service, so that joining one reads only its own.
    slices: BTreeMap<ObjectName, BTreeMap<ObjectName, Arc<EndpointSlice>>>,
    /// The Service of each slice, to find where a slice was before it changed.
    slice_services: HashMap<ObjectName, ObjectName>,
    workloads: Arc<BTreeMap<ObjectName, Arc<Workload>>>,
    nodes: Arc<BTreeMap<String, Arc<Node>>>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Services to join anew at the next `publish`, and those that name one of these workloads or nodes.
    touched: BTreeSet<ObjectName>,
    /// As they were at the last `publish`, if they were.
    touched_workloads: BTreeMap<ObjectName, Option<Arc<Workload>>>,
    touched_nodes: HashSet<String>,
    touched_namespaces: HashSet<String>,
    published: Arc<Mesh>,
}

impl Registry {
    /// Adds an object, or replaces the one of its name.
    pub fn insert(&mut self, object: Object) {
        match object {
            Object::Service(service) => {
                self.touched.insert(service.name.clone());
                self.services.insert(service.name.clone(), service);
            }
            Object::EndpointSlice(slice) => {
                self.remove_slice(&slice.name);
                self.touched.insert(slice.service.clone());
                self.slice_services.insert(slice.name.clone(), slice.service.clone());
                self.slices.entry(slice.service.clone()).or_default().insert(slice.name.clone(), slice);
            }
            Object::Workload(workload) => {
                let name = workload.name.clone();
                let before = Arc::make_mut(&mut self.workloads).insert(name.clone(), workload);
                self.touched_workloads.entry(name).or_insert(before);
            }
            Object::Node(node) => {
                self.touched_nodes.insert(node.name.clone());
                Arc::make_mut(&mut self.nodes).insert(node.name.clone(), node);
            }
            Object::Namespace(namespace) => {
                self.touched_namespaces.insert(namespace.name.clone());
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
        }
    }

    /// Forgets an object; nothing happens where there is none.
    pub fn remove(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Service(name) => {
                self.services.remove(name);
                self.touched.insert(name.clone());
            }
            ObjectKey::EndpointSlice(name) => self.remove_slice(name),
            ObjectKey::Workload(name) => {
                let before = Arc::make_mut(&mut self.workloads).remove(name);
                self.touched_workloads.entry(name.clone()).or_insert(before);
            }
            ObjectKey::Node(name) => {
                Arc::make_mut(&mut self.nodes).remove(name);
                self.touched_nodes.insert(name.clone());
            }
            ObjectKey::Namespace(name) => {
                self.namespaces.remove(name);
                self.touched_namespaces.insert(name.clone());
            }
        }
    }

    /// The mesh as it is now. Entries that were not touched, or came out equal, are those of the last one.
    pub fn publish(&mut self) -> Arc<Mesh> {
        let touched = self.take_touched();
        let mut services = self.published.services.clone();
        let mut by_address = self.published.services_by_address.clone();
        for name in touched {
            let joined = self.services.get(&name).map(|service| self.join(service));
            if let (Some(before), Some(joined)) = (services.get(&name), &joined)
                && **before == *joined
            {
                continue;
            }
            let before = services.remove(&name);
            let addresses = |entry: Option<&ServiceEntry>| {
                entry.map(|entry| entry.instance_ports.keys().copied().collect::<BTreeSet<_>>()).unwrap_or_default()
            };
            let (old, new) = (addresses(before.as_deref()), addresses(joined.as_ref()));
            if old != new {
                let by_address = Arc::make_mut(&mut by_address);
                old.difference(&new).for_each(|address| unlink(by_address, address, &name));
                new.difference(&old).for_each(|address| link(by_address, *address, &name));
            }
            if let Some(entry) = joined {
                services.insert(name, Arc::new(entry));
            }
        }
        self.published = Arc::new(Mesh {
            services,
            workloads: self.workloads.clone(),
            nodes: self.nodes.clone(),
            namespaces: self.namespaces.keys().cloned().collect(),
            services_by_address: by_address,
        });
        self.published.clone()
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.slice_services.remove(name) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.touched.insert(service);
    }

    /// Takes the Services to join anew. One pass over all slices finds who names a touched workload or node, however
    /// many of them were touched.
    fn take_touched(&mut self) -> BTreeSet<ObjectName> {
        let mut touched = std::mem::take(&mut self.touched);
        let workloads = std::mem::take(&mut self.touched_workloads);
        let nodes = std::mem::take(&mut self.touched_nodes);
        if !workloads.is_empty() || !nodes.is_empty() {
            let uses = |endpoint: &SliceEndpoint| {
                let workload = endpoint.workload.as_ref();
                let node = endpoint.node.as_ref().or_else(|| self.workloads.get(workload?)?.node.as_ref());
                workload.is_some_and(|name| workloads.contains_key(name))
                    || node.is_some_and(|name| nodes.contains(name))
            };
            let users =
                self.slices.iter().filter(|(_, slices)| slices.values().any(|slice| slice.endpoints.iter().any(uses)));
            touched.extend(users.map(|(service, _)| service.clone()));
        }
        let without_slices = |service: &Arc<Service>| !self.slices.contains_key(&service.name);
        for (name, before) in &workloads {
            let versions = [before.as_ref(), self.workloads.get(name)];
            let selects = |service: &&Arc<Service>| {
                without_slices(service) && versions.iter().flatten().any(|workload| service.selects(&workload.labels))
            };
            touched.extend(self.services_in(&name.namespace).filter(selects).map(|service| service.name.clone()));
        }
        for namespace in std::mem::take(&mut self.touched_namespaces) {
            touched.extend(self.services_in(&namespace).map(|service| service.name.clone()));
        }
        if !nodes.is_empty() {
            let on_nodes = |workload: &&Arc<Workload>| workload.node.as_ref().is_some_and(|node| nodes.contains(node));
            let selected = |service: &&Arc<Service>| {
                without_slices(service) && self.selected(service).any(|workload| on_nodes(&workload))
            };
            touched.extend(self.services.values().filter(selected).map(|service| service.name.clone()));
        }
        touched
    }

    fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        let from = self.services.range(ObjectName::new(namespace, "")..);
        from.take_while(move |(name, _)| name.namespace == namespace).map(|(_, service)| service)
    }

    /// The workloads that a Service's selector selects.
    fn selected<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Workload>> {
        let namespace = service.name.namespace.as_str();
        let from = (!service.selector.is_empty()).then(|| self.workloads.range(ObjectName::new(namespace, "")..));
        let in_namespace = from.into_iter().flatten().take_while(move |(name, _)| name.namespace == namespace);
        in_namespace.map(|(_, workload)| workload).filter(|workload| service.selects(&workload.labels))
    }

    fn join(&self, service: &Arc<Service>) -> ServiceEntry {
        let derived;
        let slices = match self.slices.get(&service.name) {
            Some(slices) => slices.values().map(|slice| &**slice).collect::<Vec<_>>(),
            None => {
                derived = self.selected(service).map(|workload| slice_of(service, workload)).collect::<Vec<_>>();
                derived.iter().collect()
            }
        };
        let mut endpoints = BTreeMap::new();
        let mut instance_ports: BTreeMap<IpAddr, Vec<InstancePort>> = BTreeMap::new();
        for port in &service.ports {
            let reported = slices.iter().flat_map(|slice| reported(slice, port)).collect::<Vec<_>>();
            for (endpoint, target_port) in &reported {
                let at_address = instance_ports.entry(endpoint.address).or_default();
                let instance_port = InstancePort { service_port: port.number, target_port: *target_port };
                if !at_address.contains(&instance_port) {
                    at_address.push(instance_port);
                }
            }
            endpoints.insert(port.number, self.usable(service, &reported));
        }
        let of_namespace = || self.namespaces.get(&service.name.namespace)?.distribution;
        let distribution = service.distribution.or_else(of_namespace).unwrap_or(Distribution::Anywhere);
        ServiceEntry { service: service.clone(), distribution, endpoints, instance_ports }
    }

    /// The endpoints that take traffic: the ready ones; while there are none, those that leave but still answer.
    fn usable(&self, service: &Service, reported: &[(&SliceEndpoint, u16)]) -> Vec<Endpoint> {
        let is_ready = |condition| condition == Condition::Ready || service.publish_not_ready;
        let any_ready = reported.iter().any(|(endpoint, _)| is_ready(endpoint.condition));
        // One address may stand in two slices while endpoints move between them: the map keeps the first.
        let mut usable: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        for (endpoint, port) in reported {
            let condition = endpoint.condition;
            if is_ready(condition) || (!any_ready && condition == Condition::Terminating) {
                let address = SocketAddr::new(endpoint.address, *port);
                usable.entry(address).or_insert_with(|| self.resolve(endpoint, address));
            }
        }
        usable.into_values().collect()
    }

    fn resolve(&self, endpoint: &SliceEndpoint, address: SocketAddr) -> Endpoint {
        let workload = endpoint.workload.as_ref().and_then(|name| self.workloads.get(name)).cloned();
        let node = endpoint.node.as_ref().or(workload.as_ref().and_then(|workload| workload.node.as_ref())).cloned();
        let mut locality = node.as_ref().and_then(|name| self.nodes.get(name)).map(|node| node.locality.clone());
        if let Some(zone) = &endpoint.zone {
            let locality = locality.get_or_insert_default();
            if locality.zone.is_empty() {
                locality.zone.clone_from(zone);
            }
        }
        Endpoint {
            address,
            locality: locality.unwrap_or_default(),
            node,
            hints: endpoint.hints.clone(),
            workload,
            hostname: endpoint.hostname.clone(),
        }
    }
}

/// What would be reported of a workload that a Service selects.
fn slice_of(service: &Service, workload: &Workload) -> EndpointSlice {
    let number = |port: &ServicePort| match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload.ports.get(name).copied(),
    };
    let ports = service.ports.iter().filter_map(|port| Some((port, number(port)?)));
    let endpoint = |address: &IpAddr| SliceEndpoint {
        address: *address,
        condition: workload.condition,
        zone: None,
        node: workload.node.clone(),
        workload: Some(workload.name.clone()),
        hostname: workload.hostname.clone(),
        hints: Hints::default(),
    };
    EndpointSlice {
        name: workload.name.clone(),
        service: service.name.clone(),
        ports: ports.map(|(port, number)| SlicePort { name: port.name.clone(), number }).collect(),
        endpoints: workload.addresses.iter().filter(|ip| service.families.has(ip)).map(endpoint).collect(),
    }
}

/// The endpoints of one slice that serve a Service port, with the port number at their side.
fn reported<'a>(slice: &'a EndpointSlice, port: &ServicePort) -> impl Iterator<Item = (&'a SliceEndpoint, u16)> {
    let target = slice.ports.iter().find(|candidate| candidate.name == port.name).map(|found| found.number);
    target.into_iter().flat_map(|number| slice.endpoints.iter().map(move |endpoint| (endpoint, number)))
}

fn link(by_address: &mut HashMap<IpAddr, Vec<ObjectName>>, address: IpAddr, name: &ObjectName) {
    let names = by_address.entry(address).or_default();
    if let Err(position) = names.binary_search(name) {
        names.insert(position, name.clone());
    }
}

fn unlink(by_address: &mut HashMap<IpAddr, Vec<ObjectName>>, address: &IpAddr, name: &ObjectName) {
    if let Some(names) = by_address.get_mut(address) {
        names.retain(|candidate| candidate != name);
        if names.is_empty() {
            by_address.remove(address);
        }
    }
}

#[cfg(test)]
mod tests;
