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
    /// The same as long as nothing changed but endpoints.
    pub services_version: u64,
    pub settings: Arc<MeshSettings>,
    /// For sidecars.
    pub sets: Sets,
    proxyless: OnceLock<Sets>,
}

impl Shared {
    fn new(mesh: Arc<Mesh>, services_version: u64, settings: Arc<MeshSettings>, sets: Sets) -> Self {
        Self { made_at: Instant::now(), mesh, services_version, settings, sets, proxyless: OnceLock::new() }
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
    services_version: u64,
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
        Self { settings, services: HashMap::new(), services_version: 0, sets: Sets::default() }
    }

    pub fn update(&mut self, mesh: &Arc<Mesh>) -> Update {
        let mut dirty = Dirty::default();
        let mut translated = 0;
        let mut is_same_services = true;
        self.services.retain(|name, known| {
            let stays = mesh.services.contains_key(name);
            if !stays {
                is_same_services = false;
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
            is_same_services &= known.is_some_and(|known| Arc::ptr_eq(&known.entry.service, &entry.service));
            let before = known.map(|known| known.resources.as_slice()).unwrap_or_default();
            let resources = keep_equal(before, translate::service(entry, &self.settings));
            dirty.compare(before, &resources);
            self.services.insert(name.clone(), Translated { entry: entry.clone(), resources });
        }
        let refused = self.rebuild(mesh, &dirty);
        self.services_version += u64::from(!is_same_services);
        let shared = Shared::new(mesh.clone(), self.services_version, self.settings.clone(), self.sets.clone());
        Update { shared, refused, translated }
    }

    fn rebuild(&mut self, mesh: &Mesh, dirty: &Dirty) -> Vec<Arc<Resource>> {
        let mut refused = Vec::new();
        for kind in Kind::ALL {
            let Some(change) = dirty.kinds.get(&kind) else { continue };
            if let KindChange::Contents(replaced) = change
                && let Some(set) = self.sets.of(kind).with_replaced(replaced)
            {
                self.sets.replace(kind, set);
                continue;
            }
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
    kinds: HashMap<Kind, KindChange>,
}

#[derive(Debug)]
enum KindChange {
    /// Resources of the same names, each with what takes its place.
    Contents(Vec<(Arc<Resource>, Arc<Resource>)>),
    /// Names came or went.
    Names,
}

impl Dirty {
    fn mark<'a>(&mut self, resources: impl IntoIterator<Item = &'a Arc<Resource>>) {
        for resource in resources {
            self.kinds.insert(resource.kind, KindChange::Names);
        }
    }

    fn compare(&mut self, before: &[Arc<Resource>], after: &[Arc<Resource>]) {
        let named_as = |set: &'_ [Arc<Resource>], resource: &Arc<Resource>| {
            set.iter().find(|other| other.kind == resource.kind && other.name == resource.name).cloned()
        };
        self.mark(before.iter().filter(|resource| named_as(after, resource).is_none()));
        for resource in after {
            match named_as(before, resource) {
                None => self.mark([resource]),
                Some(old) if Arc::ptr_eq(&old, resource) => {}
                Some(old) => {
                    let change = self.kinds.entry(resource.kind).or_insert_with(|| KindChange::Contents(Vec::new()));
                    if let KindChange::Contents(replaced) = change {
                        replaced.push((old, resource.clone()));
                    }
                }
            }
        }
    }
}
