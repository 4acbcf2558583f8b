//! What is to be sent: resources with versions, per node.
//!
//! `shared` keeps what all sidecars have in common and renews only what a mesh changed; a `Snapshot` joins it with what
//! one node has of its own. Snapshots are immutable and cheap to clone; sets that did not change are the same pointers.

pub mod consistency;
pub mod service_resources;
pub mod shared;
pub mod version;
pub mod views;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};

use crate::translate::resource::{Kind, Resource};

/// Resources of one kind, sorted by name, each name once.
#[derive(Debug, Default)]
pub struct ResourceSet {
    resources: Vec<Arc<Resource>>,
    /// Unlike any other set's, but that all empty ones may have 0.
    id: u64,
    /// What led here, worked out once for everyone who comes from there.
    step: Option<Step>,
}

/// From the set with an id to the next.
#[derive(Debug)]
struct Step {
    from: u64,
    changed: Vec<Arc<Resource>>,
    gone: Vec<Arc<Resource>>,
}

static LAST_ID: AtomicU64 = AtomicU64::new(0);

fn next_id() -> u64 {
    LAST_ID.fetch_add(1, atomic::Ordering::Relaxed) + 1
}

impl ResourceSet {
    /// Sorts the resources; of those with one name the first stays. Gives the others back.
    pub fn new(mut resources: Vec<Arc<Resource>>) -> (Self, Vec<Arc<Resource>>) {
        // Stable, so "first" is the order given.
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        let mut refused = Vec::new();
        resources.dedup_by(|later, earlier| {
            let same = later.name == earlier.name;
            if same {
                refused.push(later.clone());
            }
            same
        });
        (Self { resources, id: next_id(), step: None }, refused)
    }

    /// Notes what changed since the set before.
    fn followed_from(mut self, before: &Self) -> Self {
        let mut changes = Changes::default();
        self.walk_since(before, &mut changes);
        let [changed, gone] = [changes.changed, changes.gone].map(|list| list.into_iter().cloned().collect());
        self.step = Some(Step { from: before.id, changed, gone });
        self
    }

    /// The next set, in which resources have other content; `None` if one of them is not in this set, by another's doing.
    pub fn with_replaced(&self, replaced: &[(Arc<Resource>, Arc<Resource>)]) -> Option<Self> {
        let mut resources = self.resources.clone();
        for (old, new) in replaced {
            let position = self.resources.binary_search_by(|resource| resource.name.cmp(&old.name)).ok()?;
            let place = resources.get_mut(position)?;
            if !Arc::ptr_eq(place, old) {
                return None;
            }
            *place = new.clone();
        }
        let changed = replaced.iter().map(|(_, new)| new.clone()).collect();
        Some(Self { resources, id: next_id(), step: Some(Step { from: self.id, changed, gone: Vec::new() }) })
    }

    pub fn lookup(&self, name: &str) -> Option<&Arc<Resource>> {
        let position = self.resources.binary_search_by(|resource| (*resource.name).cmp(name)).ok()?;
        self.resources.get(position)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    fn changes_since<'a>(&'a self, before: &'a Self, changes: &mut Changes<'a>) {
        match &self.step {
            Some(Step { from, changed, gone }) if *from == before.id => {
                changes.changed.extend(changed);
                changes.gone.extend(gone);
            }
            _ => self.walk_since(before, changes),
        }
    }

    /// Both walks of two sorted sets at once: resources that differ from `before`, and names that are gone since.
    /// What is the same pointer costs a comparison of pointers.
    fn walk_since<'a>(&'a self, before: &'a Self, changes: &mut Changes<'a>) {
        let (mut new, mut old) = (self.resources.iter().peekable(), before.resources.iter().peekable());
        loop {
            let order = match (new.peek(), old.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(new), Some(old)) if Arc::ptr_eq(new, old) => Ordering::Equal,
                (Some(new), Some(old)) => new.name.cmp(&old.name),
            };
            match order {
                Ordering::Less => changes.changed.extend(new.next()),
                Ordering::Greater => changes.gone.extend(old.next()),
                Ordering::Equal => {
                    let (new, old) = (new.next(), old.next());
                    changes.changed.extend(new.filter(|new| old.is_none_or(|old| !Arc::ptr_eq(new, old))));
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

/// One set a kind.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// In the order of `Kind::ALL`.
    by_kind: [Arc<ResourceSet>; Kind::ALL.len()],
}

impl Sets {
    pub fn of(&self, kind: Kind) -> &Arc<ResourceSet> {
        &self.by_kind[kind as usize]
    }

    pub fn replace(&mut self, kind: Kind, set: ResourceSet) {
        let place = &mut self.by_kind[kind as usize];
        *place = Arc::new(if set.step.is_some() { set } else { set.followed_from(place) });
    }

    /// Where a set has just the resources of the one before, it becomes that one.
    pub fn keep_same(&mut self, before: &Self) {
        let is_same = |ours: &ResourceSet, theirs: &ResourceSet| {
            ours.len() == theirs.len() && ours.iter().zip(theirs.iter()).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
        };
        for (ours, theirs) in self.by_kind.iter_mut().zip(&before.by_kind) {
            if is_same(ours, theirs) {
                *ours = theirs.clone();
            }
        }
    }

    /// Sorts resources of any kind into sets; gives back those whose names were taken.
    pub fn sort(resources: Vec<Resource>) -> (Self, Vec<Arc<Resource>>) {
        Self::sort_shared(resources.into_iter().map(Arc::new).collect())
    }

    /// The same of resources that others may have too.
    pub fn sort_shared(resources: Vec<Arc<Resource>>) -> (Self, Vec<Arc<Resource>>) {
        let (mut sets, mut refused) = (Self::default(), Vec::new());
        for kind in Kind::ALL {
            let of_kind = resources.iter().filter(|resource| resource.kind == kind).cloned().collect();
            let (set, duplicates) = ResourceSet::new(of_kind);
            sets.replace(kind, set);
            refused.extend(duplicates);
        }
        (sets, refused)
    }
}

/// Everything that one node may ask for: what all see, what those see who look from where it does, and its own.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub shared: Sets,
    pub particular: Sets,
    pub own: Sets,
}

impl Snapshot {
    pub fn view(&self, kind: Kind) -> View {
        View { layers: [&self.own, &self.particular, &self.shared].map(|sets| sets.of(kind).clone()) }
    }
}

/// What differs between two views.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Added, or of other content.
    pub changed: Vec<&'a Arc<Resource>>,
    /// As they were.
    pub gone: Vec<&'a Arc<Resource>>,
}

/// The resources of one kind that one node may ask for.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Of resources with one name, the one of the earliest layer counts.
    layers: [Arc<ResourceSet>; 3],
}

impl View {
    pub fn lookup(&self, name: &str) -> Option<&Arc<Resource>> {
        self.layers.iter().find_map(|layer| layer.lookup(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.layers.iter().enumerate().flat_map(|(index, layer)| {
            let above = &self.layers[..index];
            let is_hidden = |name: &str| above.iter().any(|set| !set.is_empty() && set.lookup(name).is_some());
            layer.iter().filter(move |resource| !is_hidden(&resource.name))
        })
    }

    /// Whether both are the very same sets; false says nothing about their content.
    pub fn is_same(&self, other: &Self) -> bool {
        self.layers.iter().zip(&other.layers).all(|(ours, theirs)| Arc::ptr_eq(ours, theirs))
    }

    /// What changed since an earlier view, by name.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Changes<'a> {
        let mut candidates = Changes::default();
        for (ours, theirs) in self.layers.iter().zip(&before.layers) {
            if !Arc::ptr_eq(ours, theirs) {
                ours.changes_since(theirs, &mut candidates);
            }
        }
        // What one layer changed may be hidden by an earlier one, or come to light from a later one.
        let names = candidates.changed.into_iter().chain(candidates.gone).map(|resource| &resource.name);
        let mut changes = Changes::default();
        for name in names.collect::<BTreeSet<_>>() {
            match (self.lookup(name), before.lookup(name)) {
                (Some(now), Some(then)) if Arc::ptr_eq(now, then) => {}
                (Some(now), _) => changes.changed.push(now),
                (None, then) => changes.gone.extend(then),
            }
        }
        changes
    }
}
