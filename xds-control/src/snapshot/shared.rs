//! The mesh's translation, kept in step with the mesh.
//!
//! A Service is translated again only when its entry in the mesh is another one, and then only what of it changed; a
//! kind's set is rebuilt only when one of its resources changed content; so a change of one endpoint costs one
//! translation and one set of pointers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;

use super::service_resources::{ServiceResources, Work, keep_equal};
use super::views::{Audience, Particular, Viewpoint, Views, WildcardPort};
use super::{ResourceSet, Sets};
use crate::model::ObjectName;
use crate::model::mesh::Mesh;
use crate::translate::resource::{Kind, Resource};
use crate::translate::{MeshSettings, wildcard};

/// What everyone who serves nodes looks at: a mesh and its translation.
#[derive(Debug)]
pub struct Shared {
    /// When the change came that led to this.
    pub made_at: Instant,
    pub mesh: Arc<Mesh>,
    /// The same as long as nothing changed but endpoints.
    pub services_version: u64,
    pub settings: Arc<MeshSettings>,
    /// What all sidecars see.
    pub sets: Sets,
    /// Services that claim the same.
    pub conflicts: Arc<Vec<Conflict>>,
    services: Arc<BTreeMap<ObjectName, Arc<ServiceResources>>>,
    proxyless: OnceLock<Sets>,
    particular: Particular,
    /// Counts meshes.
    number: u64,
    views: Arc<Views>,
}

/// Two Services claim one listener; the younger does without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Conflict {
    /// `ADDRESS_PORT`.
    pub listener: String,
    #[serde(serialize_with = "as_text")]
    pub kept: ObjectName,
    #[serde(serialize_with = "as_text")]
    pub refused: ObjectName,
}

fn as_text<S: serde::Serializer>(name: &ObjectName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

impl Shared {
    /// What all applications without a sidecar see. Translated when the first of them asks.
    pub fn proxyless(&self) -> &Sets {
        self.proxyless.get_or_init(|| {
            let visible = self.services.values().filter(|service| service.entry.service.is_visible_everywhere());
            let resources = visible.flat_map(|service| service.for_proxyless(&self.settings)).cloned().collect();
            Sets::sort_shared(resources).0
        })
    }

    /// What a client sees beyond that.
    pub fn view(&self, audience: Audience, viewpoint: &Viewpoint) -> Sets {
        self.views.view(self.number, &self.particular, audience, viewpoint, &self.settings)
    }
}

#[derive(Debug)]
pub struct Translator {
    settings: Arc<MeshSettings>,
    services: Arc<BTreeMap<ObjectName, Arc<ServiceResources>>>,
    services_version: u64,
    wildcard: Arc<BTreeMap<u16, Arc<WildcardPort>>>,
    sets: Sets,
    conflicts: Arc<Vec<Conflict>>,
    number: u64,
    views: Arc<Views>,
}

/// What a new mesh led to.
#[derive(Debug)]
pub struct Update {
    pub shared: Shared,
    pub work: Work,
}

impl Translator {
    pub fn new(settings: Arc<MeshSettings>) -> Self {
        Self {
            settings,
            services: Arc::default(),
            services_version: 0,
            wildcard: Arc::default(),
            sets: Sets::default(),
            conflicts: Arc::default(),
            number: 0,
            views: Arc::default(),
        }
    }

    /// The Services that claim the same, as of the last update.
    pub fn conflicts(&self) -> Arc<Vec<Conflict>> {
        self.conflicts.clone()
    }

    pub fn update(&mut self, mesh: &Arc<Mesh>) -> Update {
        self.number += 1;
        let mut work = Work::default();
        let mut dirty = Dirty::default();
        let mut is_same_services = true;
        let services = Arc::make_mut(&mut self.services);
        services.retain(|name, known| {
            let stays = mesh.services.contains_key(name);
            if !stays {
                is_same_services = false;
                dirty.replace(Some(known), None);
            }
            stays
        });
        for (name, entry) in &mesh.services {
            let known = services.get(name);
            if known.is_some_and(|known| Arc::ptr_eq(&known.entry, entry)) {
                continue;
            }
            is_same_services &= known.is_some_and(|known| Arc::ptr_eq(&known.entry.service, &entry.service));
            let renewed = ServiceResources::renew(known.map(|known| &**known), entry, &self.settings, &mut work);
            dirty.replace(known.map(|known| &**known), Some(&renewed));
            services.insert(name.clone(), Arc::new(renewed));
        }
        self.services_version += u64::from(!is_same_services);
        self.rebuild_wildcard(&mut dirty, &mut work);
        self.rebuild(&dirty);
        self.views.prune(self.number);
        Update { shared: self.shared(mesh), work }
    }

    fn shared(&self, mesh: &Arc<Mesh>) -> Shared {
        Shared {
            made_at: Instant::now(),
            mesh: mesh.clone(),
            services_version: self.services_version,
            settings: self.settings.clone(),
            sets: self.sets.clone(),
            conflicts: self.conflicts.clone(),
            services: self.services.clone(),
            proxyless: OnceLock::new(),
            particular: Particular::new(self.services.values(), self.wildcard.clone()),
            number: self.number,
            views: self.views.clone(),
        }
    }

    fn rebuild_wildcard(&mut self, dirty: &mut Dirty, work: &mut Work) {
        if dirty.wildcard_ports.is_empty() {
            return;
        }
        let mut members: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for service in self.services.values() {
            for number in wildcard::ports(&service.entry).intersection(&dirty.wildcard_ports) {
                members.entry(*number).or_default().push(service.entry.clone());
            }
        }
        let ports = Arc::make_mut(&mut self.wildcard);
        for number in std::mem::take(&mut dirty.wildcard_ports) {
            let before = ports.remove(&number);
            let known = before.as_ref().map(|before| before.resources.as_slice()).unwrap_or_default();
            let members = members.remove(&number).unwrap_or_default();
            let visible = members.iter().filter(|entry| entry.service.is_visible_everywhere()).map(|entry| &**entry);
            let (resources, conflicts) = match members.is_empty() {
                true => Default::default(),
                false => {
                    work.wildcard_ports += 1;
                    wildcard::translate(number, visible, None, &self.settings)
                }
            };
            let resources = keep_equal(known, resources);
            dirty.compare(known, &resources);
            if !members.is_empty() {
                ports.insert(number, Arc::new(WildcardPort { members, resources, conflicts }));
            }
        }
    }

    /// Renews the sets of the kinds in which something changed, and the conflicts in them.
    fn rebuild(&mut self, dirty: &Dirty) {
        if dirty.kinds.is_empty() {
            return;
        }
        // The oldest Service first: the first to use a resource name keeps it.
        let mut in_order = self.services.values().collect::<Vec<_>>();
        in_order.retain(|service| service.entry.service.is_visible_everywhere());
        in_order.sort_by_key(|service| service.entry.service.seniority());
        for (kind, change) in &dirty.kinds {
            if let KindChange::Contents(replaced) = change
                && let Some(set) = self.sets.of(*kind).with_replaced(replaced)
            {
                self.sets.replace(*kind, set);
                continue;
            }
            let of_services = in_order.iter().flat_map(|service| service.for_sidecars());
            let of_ports = self.wildcard.values().flat_map(|port| &port.resources);
            let of_kind = of_services.chain(of_ports).filter(|resource| resource.kind == *kind).cloned().collect();
            let (set, duplicates) = ResourceSet::new(of_kind);
            self.sets.replace(*kind, set);
            if *kind == Kind::Listener {
                let of_addresses = duplicates.iter().filter_map(|refused| conflict(&in_order, refused));
                let of_ports = self.wildcard.iter().flat_map(|(number, port)| {
                    port.conflicts.iter().map(move |conflict| Conflict {
                        listener: format!("*_{number}"),
                        kept: conflict.kept.clone(),
                        refused: conflict.refused.clone(),
                    })
                });
                let mut conflicts = of_addresses.chain(of_ports).collect::<Vec<_>>();
                conflicts.sort();
                self.conflicts = Arc::new(conflicts);
            }
        }
    }
}

/// Whose listener has the name of the refused one.
fn conflict(in_order: &[&Arc<ServiceResources>], refused: &Arc<Resource>) -> Option<Conflict> {
    let with_name =
        |service: &&&Arc<ServiceResources>| service.for_sidecars().any(|listener| listener.name == refused.name);
    let owner =
        |service: &&&Arc<ServiceResources>| service.for_sidecars().any(|listener| Arc::ptr_eq(listener, refused));
    let name = |service: &&Arc<ServiceResources>| service.entry.service.name.clone();
    Some(Conflict {
        listener: refused.name.to_string(),
        kept: in_order.iter().find(with_name).map(name)?,
        refused: in_order.iter().find(owner).map(name)?,
    })
}

/// What has to be put together anew.
#[derive(Debug, Default)]
struct Dirty {
    kinds: BTreeMap<Kind, KindChange>,
    wildcard_ports: BTreeSet<u16>,
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

    fn replace(&mut self, before: Option<&ServiceResources>, after: Option<&ServiceResources>) {
        // What not everybody sees is in no set of all.
        let common = |service: &&ServiceResources| service.entry.service.is_visible_everywhere();
        let resources = |service: Option<&ServiceResources>| {
            let common = service.filter(common);
            common.into_iter().flat_map(ServiceResources::for_sidecars).cloned().collect::<Vec<_>>()
        };
        self.compare(&resources(before), &resources(after));
        for service in [before, after].into_iter().flatten() {
            self.wildcard_ports.extend(wildcard::ports(&service.entry));
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
