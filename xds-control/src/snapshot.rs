//! What is to be sent: resources with versions, per node.
//!
//! `shared` keeps what all sidecars have in common and renews only what a mesh changed; a `Snapshot` joins it with what
//! one node has of its own. Snapshots are immutable and cheap to clone; sets that did not change are the same pointers.

pub mod consistency;
pub mod shared;
pub mod version;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::translate::resource::{Kind, Resource};

/// Resources of one kind, sorted by name, each name once.
#[derive(Debug, Default, PartialEq)]
pub struct ResourceSet {
    resources: Vec<Arc<Resource>>,
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
        (Self { resources }, refused)
    }

    pub fn lookup(&self, name: &str) -> Option<&Arc<Resource>> {
        let position = self.resources.binary_search_by(|resource| (*resource.name).cmp(name)).ok()?;
        self.resources.get(position)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// Both walks of two sorted sets at once: resources that differ from `before`, and names that are gone since.
    /// What is the same pointer costs a comparison of pointers.
    fn changes_since<'a>(&'a self, before: &'a Self, changes: &mut Changes<'a>) {
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
        self.by_kind[kind as usize] = Arc::new(set);
    }

    /// Sorts resources of any kind into sets; gives back those whose names were taken.
    pub fn sort(resources: Vec<Resource>) -> (Self, Vec<Arc<Resource>>) {
        let resources = resources.into_iter().map(Arc::new).collect::<Vec<_>>();
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

/// Everything that one node may ask for.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub shared: Sets,
    pub own: Sets,
}

impl Snapshot {
    pub fn view(&self, kind: Kind) -> View {
        View { own: self.own.of(kind).clone(), shared: self.shared.of(kind).clone() }
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

/// The resources of one kind that one node may ask for. A node's own win over shared ones of the same name.
#[derive(Clone, Debug, Default)]
pub struct View {
    own: Arc<ResourceSet>,
    shared: Arc<ResourceSet>,
}

impl View {
    pub fn lookup(&self, name: &str) -> Option<&Arc<Resource>> {
        self.own.lookup(name).or_else(|| self.shared.lookup(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let shared =
            self.shared.iter().filter(|resource| self.own.is_empty() || self.own.lookup(&resource.name).is_none());
        self.own.iter().chain(shared)
    }

    /// Whether both are the very same sets; false says nothing about their content.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own) && Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What changed since an earlier view. A resource that a node has of its own and all have too may be told of in
    /// excess; look it up to be sure.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Changes<'a> {
        let mut changes = Changes::default();
        if !Arc::ptr_eq(&self.own, &before.own) {
            self.own.changes_since(&before.own, &mut changes);
        }
        if !Arc::ptr_eq(&self.shared, &before.shared) {
            self.shared.changes_since(&before.shared, &mut changes);
        }
        changes
    }
}
