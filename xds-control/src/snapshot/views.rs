//! What differs from client to client: Services that only some namespaces know of, endpoints that are near to some, and
//! names that are short for those of the same namespace.
//!
//! Clients that look from the same viewpoint share one view, made when the first of them asks. A view is made of parts
//! that outlive a change of the mesh which does not concern them, so that clients are not sent them again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::Sets;
use super::service_resources::{ServiceResources, keep_equal};
use crate::model::ObjectName;
use crate::model::mesh::ServiceEntry;
use crate::model::service::Visibility;
use crate::model::topology::Position;
use crate::translate::resource::Resource;
use crate::translate::{MeshSettings, wildcard};

/// From where a client looks at the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Viewpoint {
    /// Unset for those who see what everybody sees.
    pub namespace: Option<String>,
    pub position: Position,
}

/// Who a view is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    Sidecars,
    /// Applications that speak xDS themselves.
    Proxyless,
}

/// A port that Services share.
#[derive(Debug)]
pub struct WildcardPort {
    /// Whoever may see them, in the order of their names.
    pub members: Vec<Arc<ServiceEntry>>,
    /// For those who see what everybody sees.
    pub resources: Vec<Arc<Resource>>,
    pub conflicts: Vec<wildcard::PortConflict>,
}

/// The part of a mesh's translation that differs from client to client.
#[derive(Clone, Debug, Default)]
pub struct Particular {
    /// Known to some namespaces only.
    restricted: Vec<Arc<ServiceResources>>,
    /// With endpoints that differ by where a client stands.
    near_to_some: Vec<Arc<ServiceResources>>,
    wildcard: Arc<BTreeMap<u16, Arc<WildcardPort>>>,
    /// Those who see more than everybody does.
    namespaces: BTreeSet<String>,
}

impl Particular {
    pub fn new<'a>(
        services: impl Iterator<Item = &'a Arc<ServiceResources>>,
        wildcard: Arc<BTreeMap<u16, Arc<WildcardPort>>>,
    ) -> Self {
        let mut particular = Self { wildcard, ..Self::default() };
        for service in services {
            if let Visibility::Namespaces(namespaces) = &service.entry.service.visibility {
                particular.namespaces.extend(namespaces.iter().cloned());
                particular.restricted.push(service.clone());
            }
            if service.is_near_to_some() {
                particular.near_to_some.push(service.clone());
            }
        }
        let members = particular.wildcard.values().flat_map(|port| &port.members);
        let own = members.map(|entry| entry.service.name.namespace.clone()).collect::<Vec<_>>();
        particular.namespaces.extend(own);
        particular
    }

    /// The viewpoint without what makes no difference, so that more clients share a view.
    fn reduce(&self, viewpoint: &Viewpoint) -> Viewpoint {
        let mut position = Position::default();
        if !self.near_to_some.is_empty() {
            position.locality = viewpoint.position.locality.clone();
        }
        if self.near_to_some.iter().any(|service| service.is_on_nodes()) {
            position.node.clone_from(&viewpoint.position.node);
        }
        let namespace = viewpoint.namespace.clone().filter(|namespace| self.namespaces.contains(namespace));
        Viewpoint { namespace, position }
    }
}

/// Views and their parts, from mesh to mesh.
#[derive(Debug, Default)]
pub struct Views {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    views: HashMap<(Audience, Viewpoint), Whole>,
    endpoints: HashMap<(ObjectName, Position), Part<ServiceEntry>>,
    wildcard: HashMap<(u16, String), Part<WildcardPort>>,
}

#[derive(Debug)]
struct Whole {
    /// The mesh that it is of.
    mesh: u64,
    sets: Sets,
}

/// What was made of one thing.
#[derive(Debug)]
struct Part<T> {
    /// The mesh that it was last used for.
    mesh: u64,
    made_of: Arc<T>,
    resources: Vec<Arc<Resource>>,
}

/// What was not used for this many meshes is forgotten: clients that are busy skip some.
const MESHES_KEPT: u64 = 64;

impl Views {
    /// A client's view of the mesh of this number, beyond what all clients see.
    pub fn view(
        &self,
        mesh: u64,
        particular: &Particular,
        audience: Audience,
        viewpoint: &Viewpoint,
        settings: &MeshSettings,
    ) -> Sets {
        let viewpoint = particular.reduce(viewpoint);
        if viewpoint.namespace.is_none() && particular.near_to_some.is_empty() {
            return Sets::default();
        }
        // Held while a view is made: others who want the same one wait instead of making it too.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (audience, viewpoint);
        if let Some(known) = state.views.get(&key).filter(|known| known.mesh == mesh) {
            return known.sets.clone();
        }
        let resources = state.resources(mesh, particular, audience, &key.1, settings);
        let (mut sets, _) = Sets::sort_shared(resources);
        if let Some(before) = state.views.get(&key) {
            sets.keep_same(&before.sets);
        }
        state.views.insert(key, Whole { mesh, sets: sets.clone() });
        sets
    }

    /// Forgets what nobody uses any more.
    pub fn prune(&self, mesh: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = mesh.saturating_sub(MESHES_KEPT);
        state.views.retain(|_, used| used.mesh >= oldest);
        state.endpoints.retain(|_, used| used.mesh >= oldest);
        state.wildcard.retain(|_, used| used.mesh >= oldest);
    }
}

impl State {
    fn resources(
        &mut self,
        mesh: u64,
        particular: &Particular,
        audience: Audience,
        viewpoint: &Viewpoint,
        settings: &MeshSettings,
    ) -> Vec<Arc<Resource>> {
        let Viewpoint { namespace, position } = viewpoint;
        let sees = |entry: &ServiceEntry| match namespace {
            Some(namespace) => entry.service.is_visible_in(namespace),
            None => entry.service.is_visible_everywhere(),
        };
        let mut resources = Vec::new();
        for service in particular.restricted.iter().filter(|service| sees(&service.entry)) {
            match audience {
                Audience::Sidecars => resources.extend(service.for_sidecars().cloned()),
                Audience::Proxyless => resources.extend(service.for_proxyless(settings).cloned()),
            }
        }
        for service in particular.near_to_some.iter().filter(|service| sees(&service.entry)) {
            let key = (service.entry.service.name.clone(), position.clone());
            let renewed = match self.endpoints.get(&key) {
                Some(known) if Arc::ptr_eq(&known.made_of, &service.entry) => known.resources.clone(),
                Some(known) => keep_same(&known.resources, service.endpoints_near(position, settings)),
                None => service.endpoints_near(position, settings),
            };
            resources.extend(renewed.iter().cloned());
            self.endpoints.insert(key, Part { mesh, made_of: service.entry.clone(), resources: renewed });
        }
        if let (Audience::Sidecars, Some(namespace)) = (audience, namespace) {
            for (number, port) in &*particular.wildcard {
                resources.extend(self.wildcard(mesh, *number, port, namespace, settings));
            }
        }
        resources
    }

    /// A shared port as a namespace sees it, as far as that differs from what everybody sees.
    fn wildcard(
        &mut self,
        mesh: u64,
        number: u16,
        port: &Arc<WildcardPort>,
        namespace: &str,
        settings: &MeshSettings,
    ) -> Vec<Arc<Resource>> {
        let differs = |entry: &Arc<ServiceEntry>| {
            let service = &entry.service;
            service.name.namespace == namespace || !service.is_visible_everywhere()
        };
        if !port.members.iter().any(|entry| differs(entry) && entry.service.is_visible_in(namespace)) {
            return Vec::new();
        }
        let key = (number, namespace.to_owned());
        let renewed = match self.wildcard.get(&key) {
            Some(known) if Arc::ptr_eq(&known.made_of, port) => known.resources.clone(),
            known => {
                let members = port.members.iter().filter(|entry| entry.service.is_visible_in(namespace));
                let members = members.map(|entry| &**entry);
                let (resources, _) = wildcard::translate(number, members, Some(namespace), settings);
                let known = known.map(|known| known.resources.as_slice()).unwrap_or_default();
                let mut renewed = keep_equal(known, resources);
                let is_common = |resource: &Arc<Resource>| {
                    port.resources.iter().any(|common| common.name == resource.name && common.hash == resource.hash)
                };
                renewed.retain(|resource| !is_common(resource));
                renewed
            }
        };
        self.wildcard.insert(key, Part { mesh, made_of: port.clone(), resources: renewed.clone() });
        renewed
    }
}

fn keep_same(before: &[Arc<Resource>], after: Vec<Arc<Resource>>) -> Vec<Arc<Resource>> {
    let keep = |resource: Arc<Resource>| {
        let same = before.iter().find(|known| known.name == resource.name && known.hash == resource.hash);
        same.cloned().unwrap_or(resource)
    };
    after.into_iter().map(keep).collect()
}
