//! The secrets that TLS contexts name, while they come and change. One that is gone is kept: taking a certificate away would
//! help nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use crate::{
    config::{
        config_source::{ResourceKey, SourceOrigin},
        tls::Secret,
    },
    runtime::{
        dependencies::{FetchTimeout, SecretNeeds},
        warming::{Action, Readiness, early::EarlyArrivals},
    },
    xds::resource::Received,
};

#[derive(Debug)]
pub struct SecretSet {
    /// Exactly those that some TLS context names.
    slots: BTreeMap<ResourceKey, Option<Received<Secret>>>,
    /// Of the bootstrap.
    fixed: HashMap<Arc<str>, Received<Secret>>,
    early: EarlyArrivals<Secret>,
}

impl SecretSet {
    pub(super) fn new(fixed: Vec<Received<Secret>>) -> SecretSet {
        let fixed = fixed.into_iter().map(|secret| (secret.name.clone(), secret)).collect();
        SecretSet { slots: BTreeMap::new(), fixed, early: EarlyArrivals::new() }
    }

    /// The names that TLS contexts have. True if they changed.
    pub(super) fn set_names(&mut self, names: BTreeSet<ResourceKey>, now: Instant, actions: &mut Vec<Action>) -> bool {
        if self.slots.keys().eq(names.iter()) {
            return false;
        }
        self.slots.retain(|key, _| {
            let stays = names.contains(key);
            if !stays {
                actions.push(Action::RemoveSecret(key.clone()));
            }
            stays
        });
        for key in names {
            if self.slots.contains_key(&key) {
                continue;
            }
            let there = match key.origin {
                SourceOrigin::Bootstrap => self.fixed.get(&key.name).cloned(),
                _ => self.early.take(&key, now),
            };
            self.slots.insert(key.clone(), None);
            if let Some(received) = there {
                self.receive(&key.origin, received, now, actions);
            }
        }
        true
    }

    pub(super) fn receive(
        &mut self,
        origin: &SourceOrigin,
        received: Received<Secret>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let key = ResourceKey { origin: origin.clone(), name: received.name.clone() };
        match self.slots.get_mut(&key) {
            None => self.early.keep(key, received, now),
            Some(slot) => {
                let is_new = slot.as_ref().is_none_or(|known| known.config.hash != received.config.hash);
                *slot = Some(received.clone());
                if is_new {
                    actions.push(Action::UpdateSecret { key, secret: received.config });
                }
            }
        }
    }

    pub(super) fn is_known_static(&self, name: &str) -> bool {
        self.fixed.contains_key(name)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.early.forget_old(now);
    }

    /// Whether all of them are there; `since` is when the waiting began.
    pub(super) fn readiness(&self, needs: &SecretNeeds, since: Instant, now: Instant) -> Readiness<Option<Instant>> {
        if needs.keys.iter().all(|key| matches!(self.slots.get(key), Some(Some(_)))) {
            return Readiness::Ready;
        }
        match needs.fetch_timeout {
            FetchTimeout::Never => Readiness::Waiting(None),
            FetchTimeout::After(timeout) if now < since + timeout => Readiness::Waiting(Some(since + timeout)),
            FetchTimeout::After(_) => Readiness::Overdue,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.early.deadline()
    }

    pub(super) fn names(&self) -> BTreeSet<ResourceKey> {
        self.slots.keys().cloned().collect()
    }

    /// Those that are there, and the names of those that are not.
    pub fn slots(&self) -> impl Iterator<Item = (&ResourceKey, Option<&Received<Secret>>)> {
        self.slots.iter().map(|(key, slot)| (key, slot.as_ref()))
    }
}
