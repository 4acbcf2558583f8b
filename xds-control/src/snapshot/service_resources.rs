//! One Service's resources, renewed part by part: what a change does not touch stays the very same.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::model::mesh::ServiceEntry;
use crate::model::topology::{self, Position};
use crate::translate::resource::Resource;
use crate::translate::{self, MeshSettings};

#[derive(Debug)]
pub struct ServiceResources {
    pub entry: Arc<ServiceEntry>,
    /// Listeners, routes and clusters for sidecars.
    settings: Vec<Arc<Resource>>,
    /// By port; missing for those that differ from client to client.
    endpoints: BTreeMap<u16, Arc<Resource>>,
    /// Listeners, routes and clusters for gRPC's own clients, translated when one asks: most meshes have none.
    proxyless: Arc<OnceLock<Vec<Arc<Resource>>>>,
    is_near_to_some: bool,
    is_on_nodes: bool,
}

/// What was translated, to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Services whose listeners, routes and clusters were translated.
    pub services: usize,
    /// Service ports whose endpoints were.
    pub endpoints: usize,
    /// Ports that Services share.
    pub wildcard_ports: usize,
}

impl ServiceResources {
    pub fn renew(
        before: Option<&Self>,
        entry: &Arc<ServiceEntry>,
        mesh_settings: &MeshSettings,
        work: &mut Work,
    ) -> Self {
        let same_service = before.filter(|before| before.entry.service == entry.service);
        let known = before.map(|before| before.settings.as_slice()).unwrap_or_default();
        let settings = match same_service {
            Some(before) => before.settings.clone(),
            None => {
                work.services += 1;
                keep_equal(known, translate::service(entry, mesh_settings))
            }
        };
        let mut endpoints = BTreeMap::new();
        let (mut is_near_to_some, mut is_on_nodes) = (false, false);
        for port in &entry.service.ports {
            let of_port = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
            if topology::depends_on_position(entry, of_port) {
                is_near_to_some = true;
                is_on_nodes |= topology::depends_on_node(entry, of_port);
                continue;
            }
            let known = before.and_then(|before| before.endpoints.get(&port.number));
            let is_same = |before: &Self| before.entry.endpoints.get(&port.number).map(Vec::as_slice) == Some(of_port);
            let renewed = match known {
                Some(known) if before.is_some_and(is_same) => known.clone(),
                known => {
                    let Some(renewed) = translate::endpoints(entry, port, &Position::default(), mesh_settings) else {
                        continue;
                    };
                    work.endpoints += 1;
                    known.filter(|known| known.hash == renewed.hash).cloned().unwrap_or_else(|| Arc::new(renewed))
                }
            };
            endpoints.insert(port.number, renewed);
        }
        let proxyless = same_service.map(|before| before.proxyless.clone()).unwrap_or_default();
        Self { entry: entry.clone(), settings, endpoints, proxyless, is_near_to_some, is_on_nodes }
    }

    /// What sidecars are sent of it, wherever they stand.
    pub fn for_sidecars(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let endpoints = translate::sidecars_balance(&self.entry).then_some(&self.endpoints);
        self.settings.iter().chain(endpoints.into_iter().flat_map(BTreeMap::values))
    }

    /// What gRPC's own clients are sent of it, wherever they stand.
    pub fn for_proxyless(&self, mesh_settings: &MeshSettings) -> impl Iterator<Item = &Arc<Resource>> {
        let translate = || translate::proxyless(&self.entry, mesh_settings).into_iter().map(Arc::new).collect();
        let settings: &Vec<_> = self.proxyless.get_or_init(translate);
        let routed = self.entry.service.ports.iter().filter(|port| translate::routes_requests(port));
        settings.iter().chain(routed.filter_map(|port| self.endpoints.get(&port.number)))
    }

    /// The endpoints that differ from client to client, for one of them.
    pub fn endpoints_near(&self, position: &Position, mesh_settings: &MeshSettings) -> Vec<Arc<Resource>> {
        let ports = self.entry.service.ports.iter().filter(|port| !self.endpoints.contains_key(&port.number));
        let near = ports.filter_map(|port| translate::endpoints(&self.entry, port, position, mesh_settings));
        near.map(Arc::new).collect()
    }

    /// Whether some of its endpoints differ from client to client.
    pub fn is_near_to_some(&self) -> bool {
        self.is_near_to_some
    }

    /// Whether they differ from node to node within a zone.
    pub fn is_on_nodes(&self) -> bool {
        self.is_on_nodes
    }
}

/// Resources that came out as they were stay the very same.
pub fn keep_equal(before: &[Arc<Resource>], after: Vec<Resource>) -> Vec<Arc<Resource>> {
    let keep = |resource: Resource| {
        let same = before
            .iter()
            .find(|known| known.kind == resource.kind && known.name == resource.name && known.hash == resource.hash);
        same.cloned().unwrap_or_else(|| Arc::new(resource))
    };
    after.into_iter().map(keep).collect()
}
