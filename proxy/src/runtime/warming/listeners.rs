//! The listeners of the proxy while they come, change and go.
//!
//! Invariants: a listener accepts nothing before its route tables are live and the clusters that it names itself are
//! warm; a changed one lets the version before it serve until then. No two listeners have the same address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{config_source::ResourceKey, listener::Listener},
    runtime::{
        dependencies::{FetchTimeout, ListenerNeeds},
        warming::{Action, Readiness, Source, WarmedBy, clusters::ClusterSet, routes::RouteSet, secrets::SecretSet},
    },
    xds::resource::{Received, RefusedResource, Removed},
};

#[derive(Debug)]
pub struct ListenerSet {
    active: BTreeMap<Arc<str>, Entry>,
    warming: BTreeMap<Arc<str>, WarmingListener>,
    /// The entries changed since `take_changed` was called last.
    changed: bool,
    /// What the activations of the event at hand replaced, to go back to where one turns out to be impossible.
    replaced: HashMap<Arc<str>, Option<Entry>>,
}

#[derive(Debug)]
struct Entry {
    received: Received<Listener>,
    source: Source,
    needs: ListenerNeeds,
}

#[derive(Debug)]
struct WarmingListener {
    entry: Entry,
    since: Instant,
}

/// What listeners wait for beside route tables.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    pub(super) clusters: &'a ClusterSet,
    pub(super) secrets: &'a SecretSet,
}

impl ListenerSet {
    pub(super) fn new() -> ListenerSet {
        ListenerSet { active: BTreeMap::new(), warming: BTreeMap::new(), changed: false, replaced: HashMap::new() }
    }

    /// To be called before each event: its activations are final once the next one comes.
    pub(super) fn forget_replaced(&mut self) {
        self.replaced.clear();
    }

    pub(super) fn add_static(&mut self, received: Received<Listener>, now: Instant) {
        self.warm(received, Source::Static, now);
    }

    /// New and changed ones, and which are gone.
    pub(super) fn receive(
        &mut self,
        listeners: Vec<Received<Listener>>,
        removed: &Removed,
        others: Others<'_>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Vec<RefusedResource> {
        self.changed = true;
        let named: HashSet<&Arc<str>> = listeners.iter().map(|listener| &listener.name).collect();
        let is_gone = |name: &Arc<str>| match removed {
            Removed::Unnamed { but } => !named.contains(name) && !but.contains(name),
            Removed::These(gone) => gone.contains(name) && !named.contains(name),
        };
        self.warming.retain(|name, warming| warming.entry.source == Source::Static || !is_gone(name));
        self.active.retain(|name, entry| {
            let stays = entry.source == Source::Static || !is_gone(name);
            if !stays {
                actions.push(Action::RemoveListener(name.clone()));
            }
            stays
        });

        let mut owners = self.owners_of_addresses();
        let mut refusals = Vec::new();
        for received in listeners {
            let name = &received.name;
            if self.is_static(name) {
                tracing::warn!(listener = %name, "ignored: a listener of this name stands in the bootstrap");
                continue;
            }
            let hash = received.config.hash;
            if self.active.get(name).is_some_and(|entry| entry.received.config.hash == hash) {
                self.warming.remove(name);
            } else if self.warming.get(name).is_none_or(|warming| warming.entry.received.config.hash != hash) {
                match refusal(&received.config, &owners, others) {
                    Some(reason) => refusals.push(received.refused(reason)),
                    None => {
                        let addresses = received.config.addresses.iter().map(|at| (at.address, name.clone()));
                        owners.extend(addresses);
                        self.warm(received, Source::Dynamic, now);
                    }
                }
            }
        }
        refusals
    }

    /// The activation of a listener failed: the version before it goes on.
    pub(super) fn refuse(&mut self, name: &str) {
        if let Some((name, before)) = self.replaced.remove_entry(name) {
            self.changed = true;
            self.active.remove(&name);
            self.active.extend(before.map(|entry| (name, entry)));
        }
    }

    /// Activates what is ready.
    pub(super) fn settle(
        &mut self,
        others: Others<'_>,
        routes: &RouteSet,
        now: Instant,
        unknown_wait: Duration,
        actions: &mut Vec<Action>,
    ) {
        let ready: Vec<(Arc<str>, WarmedBy)> = self
            .warming
            .iter()
            .filter_map(|(name, warming)| match warming.readiness(others, routes, now, unknown_wait) {
                Readiness::Ready => Some((name.clone(), WarmedBy::Arrival)),
                Readiness::Overdue => Some((name.clone(), WarmedBy::Timeout)),
                Readiness::Waiting(_) => None,
            })
            .collect();
        for (name, warmed_by) in ready {
            let Some(WarmingListener { entry, since: _ }) = self.warming.remove(&name) else { continue };
            let (listener, source) = (entry.received.clone(), entry.source);
            actions.push(Action::ActivateListener { listener, source, warmed_by });
            self.changed = true;
            let before = self.active.insert(name.clone(), entry);
            self.replaced.entry(name).or_insert(before);
        }
    }

    /// Whether names of route tables may have changed.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The route tables that some version of some listener uses.
    pub(super) fn route_tables(&self) -> BTreeSet<ResourceKey> {
        self.entries().flat_map(|entry| &entry.needs.route_tables).cloned().collect()
    }

    /// The secrets that some version of some listener uses.
    pub(super) fn secret_names(&self) -> impl Iterator<Item = ResourceKey> {
        self.entries().flat_map(|entry| &entry.needs.secrets.keys).cloned()
    }

    /// Whether a live listener that names this cluster is about to be replaced.
    pub(super) fn holds(&self, cluster: &str) -> bool {
        self.warming
            .keys()
            .any(|name| self.active.get(name).is_some_and(|entry| entry.needs.clusters.contains(cluster)))
    }

    pub(super) fn is_warming(&self) -> bool {
        !self.warming.is_empty()
    }

    pub(super) fn deadlines(
        &self,
        others: Others<'_>,
        routes: &RouteSet,
        now: Instant,
        unknown_wait: Duration,
    ) -> impl Iterator<Item = Instant> {
        self.warming.values().filter_map(move |warming| match warming.readiness(others, routes, now, unknown_wait) {
            Readiness::Waiting(until) => until,
            Readiness::Ready | Readiness::Overdue => None,
        })
    }

    pub fn active(&self) -> impl Iterator<Item = (&Received<Listener>, Source)> {
        self.active.values().map(|entry| (&entry.received, entry.source))
    }

    pub fn warming(&self) -> impl Iterator<Item = (&Received<Listener>, Source)> {
        self.warming.values().map(|warming| (&warming.entry.received, warming.entry.source))
    }

    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    pub fn warming_count(&self) -> usize {
        self.warming.len()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.active.values().chain(self.warming.values().map(|warming| &warming.entry))
    }

    fn is_static(&self, name: &str) -> bool {
        self.active.get(name).is_some_and(|entry| entry.source == Source::Static)
            || self.warming.get(name).is_some_and(|warming| warming.entry.source == Source::Static)
    }

    fn warm(&mut self, received: Received<Listener>, source: Source, now: Instant) {
        self.changed = true;
        let needs = ListenerNeeds::of(&received.config);
        let entry = Entry { received, source, needs };
        self.warming.insert(entry.received.name.clone(), WarmingListener { entry, since: now });
    }

    fn owners_of_addresses(&self) -> HashMap<SocketAddr, Arc<str>> {
        let received = self.entries().map(|entry| &entry.received);
        let addresses_of = |received: &Received<Listener>| {
            let name = received.name.clone();
            received.config.addresses.iter().map(move |at| (at.address, name.clone())).collect::<Vec<_>>()
        };
        received.flat_map(addresses_of).collect()
    }
}

impl WarmingListener {
    fn readiness(
        &self,
        Others { clusters, secrets }: Others<'_>,
        routes: &RouteSet,
        now: Instant,
        unknown_wait: Duration,
    ) -> Readiness<Option<Instant>> {
        let missing = || self.entry.needs.route_tables.iter().filter(|name| !routes.is_live(name));
        let tables = match self.entry.needs.fetch_timeout {
            _ if missing().next().is_none() => Readiness::Ready,
            _ if missing().all(|name| routes.is_pending(name)) => Readiness::Waiting(None),
            FetchTimeout::Never => Readiness::Waiting(None),
            FetchTimeout::After(timeout) if now < self.since + timeout => {
                Readiness::Waiting(Some(self.since + timeout))
            }
            FetchTimeout::After(_) => Readiness::Overdue,
        };
        let clusters = clusters.readiness(&self.entry.needs.clusters, self.since, now, unknown_wait);
        let secrets = secrets.readiness(&self.entry.needs.secrets, self.since, now);
        match (tables, secrets, clusters) {
            (Readiness::Waiting(until), ..) | (_, Readiness::Waiting(until), _) => Readiness::Waiting(until),
            (.., Readiness::Waiting(until)) => Readiness::Waiting(Some(until)),
            (Readiness::Ready, Readiness::Ready, Readiness::Ready) => Readiness::Ready,
            (Readiness::Overdue, ..) | (_, Readiness::Overdue, _) | (.., Readiness::Overdue) => Readiness::Overdue,
        }
    }
}

/// Why a listener cannot be used beside the others.
fn refusal(listener: &Listener, owners: &HashMap<SocketAddr, Arc<str>>, others: Others<'_>) -> Option<String> {
    for at in &listener.addresses {
        // Which of two listeners a connection meets would be left to chance. A port of 0 becomes another one each time that
        // it is bound.
        let is_shared = at.address.port() == 0 && listener.bind_to_port;
        let owner = owners.get(&at.address).filter(|owner| **owner != listener.name && !is_shared);
        if let Some(owner) = owner {
            return Some(format!("has duplicate address '{}' as existing listener '{owner}'", at.address));
        }
    }
    listener.check_clusters(|name| others.clusters.is_known(name)).err().map(|error| error.to_string())
}
