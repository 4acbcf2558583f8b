//! Route tables that come by themselves, one slot a name that a listener waits for.
//!
//! Invariant: a table goes live only when every cluster that it names is warm or known to be absent, or when it waited its
//! time; the one before it serves until then. A newer table does not stop an older one from going live first, so that
//! tables that change faster than their clusters warm up still make progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        config_source::{ResourceKey, SourceOrigin},
        route::RouteTable,
    },
    runtime::{
        dependencies::clusters_of,
        warming::{Action, DEPENDENCY_WAIT_MAX, Readiness, WarmedBy, clusters::ClusterSet, early::EarlyArrivals},
    },
    xds::resource::Received,
};

#[derive(Debug)]
pub struct RouteSet {
    slots: BTreeMap<ResourceKey, Slot>,
    /// Names of the slots with something pending: few, while there may be thousands of slots.
    waiting: BTreeSet<ResourceKey>,
    early: EarlyArrivals<RouteTable>,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<Table>,
    /// Waits for its clusters.
    pending: Option<PendingTable>,
    /// Arrived while `pending` waits; only there when `pending` is.
    next: Option<PendingTable>,
    /// Since when something was always pending and nothing went live.
    stuck_since: Option<Instant>,
}

#[derive(Debug)]
struct Table {
    received: Received<RouteTable>,
    clusters: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct PendingTable {
    table: Table,
    since: Instant,
}

impl RouteSet {
    pub(super) fn new() -> RouteSet {
        RouteSet { slots: BTreeMap::new(), waiting: BTreeSet::new(), early: EarlyArrivals::new() }
    }

    /// The names that listeners wait for or use. True if they changed; tables that nobody names any more are dropped.
    pub(super) fn set_names(&mut self, names: &BTreeSet<ResourceKey>, now: Instant, actions: &mut Vec<Action>) -> bool {
        if self.slots.keys().eq(names.iter()) {
            return false;
        }
        self.slots.retain(|name, _| {
            let stays = names.contains(name);
            if !stays {
                actions.push(Action::RemoveRoutes(name.clone()));
            }
            stays
        });
        for name in names {
            if !self.slots.contains_key(name) {
                self.slots.insert(name.clone(), Slot::default());
                if let Some(received) = self.early.take(name, now) {
                    self.receive(&name.origin, received, now);
                }
            }
        }
        true
    }

    pub(super) fn names(&self) -> BTreeSet<ResourceKey> {
        self.slots.keys().cloned().collect()
    }

    pub(super) fn receive(&mut self, origin: &SourceOrigin, received: Received<RouteTable>, now: Instant) {
        let key = ResourceKey { origin: origin.clone(), name: received.name.clone() };
        match self.slots.get_mut(&key) {
            Some(slot) => {
                self.waiting.insert(key);
                slot.receive(received, now);
            }
            None => self.early.keep(key, received, now),
        }
    }

    /// The control plane said how long the table may stay, and nothing since: requests by it find no route.
    pub(super) fn expire(&mut self, key: &ResourceKey, actions: &mut Vec<Action>) {
        if let Some(slot) = self.slots.get_mut(key) {
            *slot = Slot::default();
            self.waiting.remove(key);
            actions.push(Action::ExpireRoutes(key.clone()));
        }
    }

    /// Makes live what is ready.
    pub(super) fn settle(
        &mut self,
        clusters: &ClusterSet,
        now: Instant,
        unknown_wait: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.early.forget_old(now);
        self.waiting.retain(|name| {
            let Some(slot) = self.slots.get_mut(name) else { return false };
            let readiness =
                |table: &PendingTable| clusters.readiness(&table.table.clusters, table.since, now, unknown_wait);
            slot.settle(name, readiness, now, actions);
            slot.pending.is_some()
        });
    }

    pub(super) fn is_live(&self, name: &ResourceKey) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.live.is_some())
    }

    /// A table arrived and waits for its clusters, which has an end of its own.
    pub(super) fn is_pending(&self, name: &ResourceKey) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.pending.is_some())
    }

    /// Whether a live table that names this cluster is about to be replaced.
    pub(super) fn holds(&self, cluster: &str) -> bool {
        self.waiting_slots().any(|slot| slot.live.as_ref().is_some_and(|live| live.clusters.contains(cluster)))
    }

    pub(super) fn deadlines(
        &self,
        clusters: &ClusterSet,
        now: Instant,
        unknown_wait: Duration,
    ) -> impl Iterator<Item = Instant> {
        let pending = self.waiting_slots().flat_map(|slot| slot.pending.iter().chain(&slot.next));
        let waits = pending.filter_map(move |table| {
            match clusters.readiness(&table.table.clusters, table.since, now, unknown_wait) {
                Readiness::Waiting(until) => Some(until),
                Readiness::Ready | Readiness::Overdue => None,
            }
        });
        waits.chain(self.early.deadline())
    }

    fn waiting_slots(&self) -> impl Iterator<Item = &Slot> {
        self.waiting.iter().filter_map(|name| self.slots.get(name))
    }

    /// The tables that serve.
    pub fn live(&self) -> impl Iterator<Item = &Received<RouteTable>> {
        self.slots.values().filter_map(|slot| slot.live.as_ref()).map(|table| &table.received)
    }
}

impl Slot {
    fn receive(&mut self, received: Received<RouteTable>, now: Instant) {
        let hash = received.config.hash;
        let is = |table: &Table| table.received.config.hash == hash;
        if self.pending.is_none() && self.live.as_ref().is_some_and(is) {
            return;
        }
        let Some(pending) = &self.pending else {
            self.pending = Some(PendingTable::new(received, now));
            self.stuck_since = Some(now);
            return;
        };
        if is(&pending.table) {
            self.next = None;
        } else if !self.next.as_ref().is_some_and(|next| is(&next.table)) {
            self.next = Some(PendingTable::new(received, now));
        }
    }

    fn can_wait(&self, now: Instant) -> bool {
        self.live.is_some() && self.stuck_since.is_some_and(|since| now < since + DEPENDENCY_WAIT_MAX)
    }

    fn settle(
        &mut self,
        key: &ResourceKey,
        readiness: impl Fn(&PendingTable) -> Readiness,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        while let Some(pending) = &self.pending {
            let next_is_ready = self.next.as_ref().is_some_and(|next| readiness(next) == Readiness::Ready);
            let warmed_by = match readiness(pending) {
                _ if next_is_ready => {
                    self.pending = self.next.take();
                    WarmedBy::Arrival
                }
                Readiness::Ready => WarmedBy::Arrival,
                Readiness::Waiting(_) => return,
                // What never became complete gives way to what may, but not for ever.
                Readiness::Overdue if self.next.is_some() && self.can_wait(now) => {
                    self.pending = self.next.take();
                    continue;
                }
                Readiness::Overdue => WarmedBy::Timeout,
            };
            let Some(PendingTable { table, .. }) = self.pending.take() else { return };
            self.pending = self.next.take();
            self.stuck_since = self.pending.is_some().then_some(now);
            if self.live.as_ref().is_none_or(|live| live.received.config.hash != table.received.config.hash) {
                let (key, table) = (key.clone(), table.received.clone());
                actions.push(Action::ActivateRoutes { key, table, warmed_by });
            }
            self.live = Some(table);
        }
    }
}

impl PendingTable {
    fn new(received: Received<RouteTable>, now: Instant) -> PendingTable {
        let clusters = clusters_of(&received.config);
        PendingTable { table: Table { received, clusters }, since: now }
    }
}
