//! The newest refused update of each resource, until a good one takes its place: what `/config_dump` shows as
//! `error_state`. Pure.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use crate::xds::{
    kind::ResourceKind,
    resource::{Origin, RefusedResource},
};

#[derive(Debug)]
pub struct Failure {
    pub origin: Arc<Origin>,
    pub reason: String,
    pub at: SystemTime,
}

#[derive(Debug, Default)]
pub struct Failures {
    /// By `ResourceKind::index`.
    kinds: [BTreeMap<Arc<str>, Failure>; ResourceKind::COUNT],
}

impl Failures {
    pub fn of(&self, kind: ResourceKind) -> &BTreeMap<Arc<str>, Failure> {
        &self.kinds[kind.index()]
    }

    pub fn add(&mut self, kind: ResourceKind, refused: &[RefusedResource], at: SystemTime) {
        for RefusedResource { name, reason, origin } in refused {
            let failure = Failure { origin: origin.clone(), reason: reason.clone(), at };
            self.kinds[kind.index()].insert(name.clone(), failure);
        }
    }

    pub fn clear(&mut self, kind: ResourceKind, name: &str) {
        self.kinds[kind.index()].remove(name);
    }

    /// Forgets those that nobody speaks of any more.
    pub fn retain(&mut self, kind: ResourceKind, is_named: impl Fn(&Arc<str>) -> bool) {
        self.kinds[kind.index()].retain(|name, _| is_named(name));
    }
}
