//! The resources that all sidecars have in common, kept in step with the mesh.
//!
//! A Service is translated again only when its entry in the mesh is another one, and a kind's set is rebuilt only when
//! one of its resources changed content; so a change of one endpoint costs one translation and one set of pointers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{ResourceSet, Sets};
use crate::model::ObjectName;
use crate::model::mesh::{Mesh, ServiceEntry};
use crate::translate::resource::{Kind, Resource};
use crate::translate::{self, MeshSettings};

/// What everyone who serves nodes looks at: a mesh and its translation.
#[derive(Debug)]
pub struct Shared {
    /// When the change came that led to this.
    pub made_at: Instant,
    pub mesh: Arc<Mesh>,
    pub settings: Arc<MeshSettings>,
    /// For sidecars.
    pub sets: Sets,
    proxyless: OnceLock<Sets>,
}

impl Shared {
    fn new(mesh: Arc<Mesh>, settings: Arc<MeshSettings>, sets: Sets) -> Self {
        Self { made_at: Instant::now(), mesh, settings, sets, proxyless: OnceLock::new() }
    }

    /// For applications without a sidecar. Translated when the first of them asks: most meshes have none.
    pub fn proxyless(&self) -> &Sets {
        self.proxyless.get_or_init(|| {
            let translate = |entry: &Arc<ServiceEntry>| translate::proxyless(entry, &self.settings);
            let (sets, _) = Sets::sort(self.mesh.services.values().flat_map(translate).collect());
            sets
        })
    }
}

#[derive(Debug)]
pub struct Translator {
    settings: Arc<MeshSettings>,
    services: HashMap<ObjectName, Translated>,
    sets: Sets,
}

#[derive(Debug)]
struct Translated {
    entry: Arc<ServiceEntry>,
    resources: Vec<Arc<Resource>>,
}

/// What a new mesh led to.
#[derive(Debug)]
pub struct Update {
    pub shared: Shared,
    /// Resources whose names another Service had taken already, most often by having the same address.
    pub refused: Vec<Arc<Resource>>,
    /// How many Services had to be translated.
    pub translated: usize,
}

impl Translator {
    pub fn new(settings: Arc<MeshSettings>) -> Self {
        Self { settings, services: HashMap::new(), sets: Sets::default() }
    }

    pub fn update(&mut self, mesh: &Arc<Mesh>) -> Update {
        let mut dirty = Dirty::default();
        let mut translated = 0;
        self.services.retain(|name, known| {
            let stays = mesh.services.contains_key(name);
            if !stays {
                dirty.mark(&known.resources);
            }
            stays
        });
        for (name, entry) in &mesh.services {
            let known = self.services.get(name);
            if known.is_some_and(|known| Arc::ptr_eq(&known.entry, entry)) {
                continue;
            }
            translated += 1;
            let before = known.map(|known| known.resources.as_slice()).unwrap_or_default();
            let resources = keep_equal(before, translate::service(entry, &self.settings));
            dirty.compare(before, &resources);
            self.services.insert(name.clone(), Translated { entry: entry.clone(), resources });
        }
        let refused = self.rebuild(mesh, &dirty);
        let shared = Shared::new(mesh.clone(), self.settings.clone(), self.sets.clone());
        Update { shared, refused, translated }
    }

    fn rebuild(&mut self, mesh: &Mesh, dirty: &Dirty) -> Vec<Arc<Resource>> {
        let mut refused = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| dirty.kinds.contains(kind)) {
            // In the order of the Services' names: the first to use a resource name keeps it.
            let in_order = mesh.services.keys().filter_map(|name| self.services.get(name));
            let of_kind =
                in_order.flat_map(|known| &known.resources).filter(|resource| resource.kind == kind).cloned().collect();
            let (set, duplicates) = ResourceSet::new(of_kind);
            self.sets.replace(kind, set);
            refused.extend(duplicates);
        }
        refused
    }
}

/// Resources that came out as they were stay the very same.
fn keep_equal(before: &[Arc<Resource>], after: Vec<Resource>) -> Vec<Arc<Resource>> {
    let keep = |resource: Resource| {
        let same = before
            .iter()
            .find(|known| known.kind == resource.kind && known.name == resource.name && known.hash == resource.hash);
        same.cloned().unwrap_or_else(|| Arc::new(resource))
    };
    after.into_iter().map(keep).collect()
}

/// The kinds of which something changed.
#[derive(Debug, Default)]
struct Dirty {
    kinds: Vec<Kind>,
}

impl Dirty {
    fn mark<'a>(&mut self, resources: impl IntoIterator<Item = &'a Arc<Resource>>) {
        for resource in resources {
            if !self.kinds.contains(&resource.kind) {
                self.kinds.push(resource.kind);
            }
        }
    }

    fn compare(&mut self, before: &[Arc<Resource>], after: &[Arc<Resource>]) {
        let not_in =
            |set: &[Arc<Resource>], resource: &Arc<Resource>| !set.iter().any(|other| Arc::ptr_eq(other, resource));
        self.mark(before.iter().filter(|resource| not_in(after, resource)));
        self.mark(after.iter().filter(|resource| not_in(before, resource)));
    }
}
