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
    config::route::RouteTable,
    runtime::{
        dependencies::clusters_of,
        warming::{Action, Readiness, WarmedBy, clusters::ClusterSet, early::EarlyArrivals},
    },
    xds::resource::Received,
};

#[derive(Debug)]
pub struct RouteSet {
    slots: BTreeMap<Arc<str>, Slot>,
    early: EarlyArrivals<RouteTable>,
}

#[derive(Debug, Default)]
struct Slot {
    live: Option<Table>,
    /// Waits for its clusters.
    pending: Option<PendingTable>,
    /// Arrived while `pending` waits; only there when `pending` is.
    next: Option<PendingTable>,
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
        RouteSet { slots: BTreeMap::new(), early: EarlyArrivals::new() }
    }

    /// The names that listeners wait for or use. True if they changed; tables that nobody names any more are dropped.
    pub(super) fn set_names(&mut self, names: &BTreeSet<Arc<str>>, now: Instant, actions: &mut Vec<Action>) -> bool {
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
                let pending = self.early.take(name, now).map(|received| PendingTable::new(received, now));
                self.slots.insert(name.clone(), Slot { pending, ..Slot::default() });
            }
        }
        true
    }

    pub(super) fn names(&self) -> BTreeSet<Arc<str>> {
        self.slots.keys().cloned().collect()
    }

    pub(super) fn receive(&mut self, received: Received<RouteTable>, now: Instant) {
        match self.slots.get_mut(&received.name) {
            Some(slot) => slot.receive(received, now),
            None => self.early.keep(received, now),
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
        for slot in self.slots.values_mut() {
            slot.settle(|table| clusters.readiness(&table.table.clusters, table.since, now, unknown_wait), actions);
        }
    }

    pub(super) fn is_live(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.live.is_some())
    }

    /// Whether a live table that names this cluster is about to be replaced.
    pub(super) fn holds(&self, cluster: &str) -> bool {
        self.slots.values().any(|slot| {
            slot.pending.is_some() && slot.live.as_ref().is_some_and(|live| live.clusters.contains(cluster))
        })
    }

    pub(super) fn deadlines(
        &self,
        clusters: &ClusterSet,
        now: Instant,
        unknown_wait: Duration,
    ) -> impl Iterator<Item = Instant> {
        let pending = self.slots.values().flat_map(|slot| slot.pending.iter().chain(&slot.next));
        let waits = pending.filter_map(move |table| {
            match clusters.readiness(&table.table.clusters, table.since, now, unknown_wait) {
                Readiness::Waiting(until) => Some(until),
                Readiness::Ready | Readiness::Overdue => None,
            }
        });
        waits.chain(self.early.deadline())
    }

    /// The tables that serve.
    pub fn live(&self) -> impl Iterator<Item = &Received<RouteTable>> {
        self.slots.values().filter_map(|slot| slot.live.as_ref()).map(|table| &table.received)
    }

    /// Every table that is there, also those that wait.
    pub fn all(&self) -> impl Iterator<Item = &Received<RouteTable>> {
        let waiting = self.slots.values().flat_map(|slot| slot.pending.iter().chain(&slot.next));
        self.live().chain(waiting.map(|pending| &pending.table.received))
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
            return;
        };
        if is(&pending.table) {
            self.next = None;
        } else if !self.next.as_ref().is_some_and(|next| is(&next.table)) {
            self.next = Some(PendingTable::new(received, now));
        }
    }

    fn settle(&mut self, readiness: impl Fn(&PendingTable) -> Readiness, actions: &mut Vec<Action>) {
        while let Some(pending) = &self.pending {
            let next_is_ready = self.next.as_ref().is_some_and(|next| readiness(next) == Readiness::Ready);
            let warmed_by = match readiness(pending) {
                _ if next_is_ready => {
                    self.pending = self.next.take();
                    WarmedBy::Arrival
                }
                Readiness::Ready => WarmedBy::Arrival,
                Readiness::Waiting(_) => return,
                // What never became complete gives way to what may.
                Readiness::Overdue if self.next.is_some() => {
                    self.pending = self.next.take();
                    continue;
                }
                Readiness::Overdue => WarmedBy::Timeout,
            };
            let Some(PendingTable { table, .. }) = self.pending.take() else { return };
            self.pending = self.next.take();
            if self.live.as_ref().is_none_or(|live| live.received.config.hash != table.received.config.hash) {
                actions.push(Action::ActivateRoutes { table: table.received.clone(), warmed_by });
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
