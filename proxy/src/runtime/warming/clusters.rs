//! The clusters of the proxy while they come, change and go, and the endpoint assignments that they wait for.
//!
//! Invariants: a cluster stands in `active` from the moment that it is published until it leaves; a changed one stands in
//! `warming` as well until it takes over; one that the control plane dropped stays published as `leaving` until nothing
//! that could still send it a request is about to be replaced.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        cluster::{ClusterConfig, Discovery},
        endpoint::LoadAssignment,
    },
    runtime::warming::{Action, DEPENDENCY_WAIT_MAX, ORDER_GRACE, Readiness, Source, WarmedBy, early::EarlyArrivals},
    xds::resource::Received,
};

#[derive(Debug)]
pub struct ClusterSet {
    active: HashMap<Arc<str>, ActiveCluster>,
    warming: HashMap<Arc<str>, WarmingCluster>,
    /// Those of `warming` that have to prepare themselves and were not told yet: looked at with each event.
    preparations_due: BTreeSet<Arc<str>>,
    leaving: HashMap<Arc<str>, LeavingCluster>,
    /// By the name that their endpoints are asked for with; exactly the names that `active` and `warming` use.
    assignments: BTreeMap<Arc<str>, Assignment>,
    early: EarlyArrivals<LoadAssignment>,
}

#[derive(Debug)]
struct ActiveCluster {
    received: Received<ClusterConfig>,
    source: Source,
}

#[derive(Debug)]
struct WarmingCluster {
    received: Received<ClusterConfig>,
    source: Source,
    /// The endpoints arrived that belong to this version of the cluster; always true without EDS.
    endpoints_arrived: bool,
    /// Goes live without them then. None: waits for ever.
    until: Option<Instant>,
    preparation: Preparation,
}

/// What a cluster does by itself before it may take requests: looking names up, checking hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparation {
    None,
    Due,
    UnderWay,
    Done,
}

#[derive(Debug)]
struct LeavingCluster {
    received: Received<ClusterConfig>,
    /// Kept for a cluster that comes back before it is gone.
    assignment: Option<Received<LoadAssignment>>,
    /// When it was dropped, or last held.
    since: Instant,
    held: bool,
}

#[derive(Debug, Default)]
struct Assignment {
    clusters: BTreeSet<Arc<str>>,
    received: Option<Received<LoadAssignment>>,
}

impl WarmingCluster {
    fn has_endpoints(&self, now: Instant) -> bool {
        self.endpoints_arrived || is_past(self.until, now)
    }
}

/// What a change of clusters means for the subscription to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointsInterest {
    pub(super) names_changed: bool,
    /// The same names are to be asked for once more, as a cluster behind one of them changed.
    pub(super) ask_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClusterState {
    Warm,
    Warming,
    /// The newest answer does not name it.
    Unknown,
}

impl ClusterSet {
    pub(super) fn new() -> ClusterSet {
        ClusterSet {
            active: HashMap::new(),
            warming: HashMap::new(),
            preparations_due: BTreeSet::new(),
            leaving: HashMap::new(),
            assignments: BTreeMap::new(),
            early: EarlyArrivals::new(),
        }
    }

    /// Those of the bootstrap.
    pub(super) fn start(&mut self, clusters: Vec<Received<ClusterConfig>>, now: Instant) {
        let names: Vec<Arc<str>> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        for received in clusters {
            self.warm(received, Source::Static, now);
        }
        self.index_assignments();
        self.adopt_known_endpoints(&names);
    }

    /// The whole set as the control plane has it now. `refused` are named by it but unusable: what they would have
    /// replaced stays.
    pub(super) fn receive(
        &mut self,
        clusters: Vec<Received<ClusterConfig>>,
        refused: &HashSet<Arc<str>>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> EndpointsInterest {
        let mut named: HashSet<Arc<str>> = refused.clone();
        let mut begun = Vec::new();
        let mut restored = Vec::new();
        for received in clusters {
            let name = received.name.clone();
            named.insert(name.clone());
            if self.is_static(&name) {
                tracing::warn!(cluster = %name, "ignored: a cluster of this name stands in the bootstrap");
                continue;
            }
            if let Some(leaving) = self.leaving.remove(&name) {
                restored.extend(leaving.assignment);
                self.active.insert(name.clone(), ActiveCluster { received: leaving.received, source: Source::Dynamic });
            }
            let hash = received.config.hash;
            if self.active.get(&name).is_some_and(|active| active.received.config.hash == hash) {
                self.warming.remove(&name);
            } else if self.warming.get(&name).is_none_or(|warming| warming.received.config.hash != hash) {
                self.warm(received, Source::Dynamic, now);
                begun.push(name);
            }
        }
        self.drop_unnamed(&named, now, actions);

        let names_changed = self.index_assignments();
        for assignment in restored {
            if let Some(entry) = self.assignments.get_mut(&assignment.name) {
                entry.received.get_or_insert(assignment);
            }
        }
        let ask_again = self.adopt_known_endpoints(&begun);
        if names_changed {
            self.receive_early_endpoints(now, actions);
        }
        EndpointsInterest { names_changed, ask_again }
    }

    /// An assignment: updates the clusters that use it, or completes those that wait for it.
    pub(super) fn receive_endpoints(
        &mut self,
        received: Received<LoadAssignment>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.assignments.get_mut(&received.name) else {
            self.early.keep(received, now);
            return;
        };
        let changed = entry.received.as_ref().is_none_or(|known| known.config != received.config);
        entry.received = Some(received.clone());
        for name in &entry.clusters {
            if let Some(warming) = self.warming.get_mut(name)
                && endpoints_name(&warming.received) == Some(&received.name)
            {
                // It takes over with these endpoints right away; the version before it keeps those that fit it.
                warming.endpoints_arrived = true;
            } else if changed
                && let Some(active) = self.active.get(name)
                && endpoints_name(&active.received) == Some(&received.name)
            {
                actions.push(Action::UpdateEndpoints { cluster: name.clone(), assignment: received.config.clone() });
            }
        }
    }

    fn receive_early_endpoints(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let early: Vec<_> = self.assignments.keys().filter_map(|name| self.early.take(name, now)).collect();
        for received in early {
            self.receive_endpoints(received, now, actions);
        }
    }

    /// Activates what is ready. True if the names of endpoints to ask for changed by it.
    pub(super) fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        self.early.forget_old(now);
        self.prepare_due(now, actions);
        let mut ready: Vec<Arc<str>> = self
            .warming
            .iter()
            .filter(|(_, warming)| warming.has_endpoints(now))
            .filter(|(_, warming)| matches!(warming.preparation, Preparation::None | Preparation::Done))
            .map(|(name, _)| name.clone())
            .collect();
        if ready.is_empty() {
            return false;
        }
        ready.sort_unstable();
        let mut names_given_up = false;
        for name in ready {
            let Some(WarmingCluster { received, source, endpoints_arrived, .. }) = self.warming.remove(&name) else {
                continue;
            };
            let assignment = self.assignment_of(&received);
            actions.push(Action::ActivateCluster {
                cluster: received.clone(),
                assignment,
                warmed_by: if endpoints_arrived { WarmedBy::Arrival } else { WarmedBy::Timeout },
            });
            let endpoints = endpoints_name(&received).cloned();
            let before = self.active.insert(name, ActiveCluster { received, source });
            names_given_up |= before.is_some_and(|before| endpoints_name(&before.received) != endpoints.as_ref());
        }
        names_given_up && self.index_assignments()
    }

    /// Has those prepare themselves that have to, and have their endpoints.
    fn prepare_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_due = |name: &Arc<str>| self.warming.get(name).is_none_or(|warming| warming.has_endpoints(now));
        let names: Vec<Arc<str>> = self.preparations_due.extract_if(.., is_due).collect();
        for name in names {
            let due = |warming: &&mut WarmingCluster| warming.preparation == Preparation::Due;
            let Some(warming) = self.warming.get_mut(&name).filter(due) else { continue };
            warming.preparation = Preparation::UnderWay;
            let cluster = warming.received.clone();
            let assignment = self.assignment_of(&cluster);
            actions.push(Action::PrepareCluster { cluster, assignment });
        }
    }

    /// Of EDS, as far as it is known.
    fn assignment_of(&self, received: &Received<ClusterConfig>) -> Option<Arc<LoadAssignment>> {
        endpoints_name(received).map(|endpoints| {
            let known = self.assignments.get(endpoints).and_then(|entry| entry.received.as_ref());
            known.map_or_else(Arc::default, |known| known.config.clone())
        })
    }

    /// A cluster said that it is prepared; a version of it that is no longer wanted does not count.
    pub(super) fn prepared(&mut self, name: &str, hash: u64) {
        if let Some(warming) = self.warming.get_mut(name)
            && warming.received.config.hash == hash
        {
            warming.preparation = Preparation::Done;
        }
    }

    /// Lets go of dropped clusters that nothing needs any more. `is_held` says whether something live that names the
    /// cluster is about to be replaced.
    pub(super) fn settle_leaving(&mut self, now: Instant, is_held: impl Fn(&str) -> bool, actions: &mut Vec<Action>) {
        let mut gone = Vec::new();
        for (name, leaving) in &mut self.leaving {
            let held = is_held(name);
            if held || leaving.held {
                // Requests that were routed a moment ago still look for it.
                leaving.since = now;
            }
            leaving.held = held;
            if !held && now >= leaving.since + ORDER_GRACE {
                gone.push(name.clone());
            }
        }
        gone.sort_unstable();
        for name in gone {
            self.leaving.remove(&name);
            actions.push(Action::RemoveCluster(name));
        }
    }

    /// Whether everything in `needed` can take requests; `since` is when the waiting began. A cluster that no answer names
    /// is waited for during `unknown_wait`: its answer may be on the way.
    pub(super) fn readiness(
        &self,
        needed: &BTreeSet<Arc<str>>,
        since: Instant,
        now: Instant,
        unknown_wait: Duration,
    ) -> Readiness {
        let until = needed
            .iter()
            .filter_map(|name| match self.state(name) {
                ClusterState::Warm => None,
                ClusterState::Warming => Some(since + DEPENDENCY_WAIT_MAX),
                ClusterState::Unknown => Some(since + unknown_wait),
            })
            .max();
        match until {
            None => Readiness::Ready,
            Some(until) if now < until => Readiness::Waiting(until),
            Some(_) => Readiness::Overdue,
        }
    }

    /// Whether it is there or about to be.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.state(name) != ClusterState::Unknown
    }

    pub(super) fn is_warming(&self) -> bool {
        !self.warming.is_empty()
    }

    pub(super) fn endpoints_names(&self) -> BTreeSet<Arc<str>> {
        self.assignments.keys().cloned().collect()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        // Once it prepares itself there is nothing to be late for.
        let warming = self.warming.values().filter(|warming| warming.preparation != Preparation::UnderWay);
        let warming = warming.filter_map(|warming| warming.until);
        let leaving = self.leaving.values().filter(|leaving| !leaving.held).map(|leaving| leaving.since + ORDER_GRACE);
        warming.chain(leaving).chain(self.early.deadline())
    }

    /// What serves, without what is only kept for requests under way.
    pub fn active(&self) -> impl Iterator<Item = (&Received<ClusterConfig>, Source)> {
        self.active.values().map(|active| (&active.received, active.source))
    }

    pub fn warming(&self) -> impl Iterator<Item = (&Received<ClusterConfig>, Source)> {
        self.warming.values().map(|warming| (&warming.received, warming.source))
    }

    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    pub fn warming_count(&self) -> usize {
        self.warming.len()
    }

    pub fn assignments(&self) -> impl Iterator<Item = &Received<LoadAssignment>> {
        self.assignments.values().filter_map(|entry| entry.received.as_ref())
    }

    fn state(&self, name: &str) -> ClusterState {
        if self.active.contains_key(name) {
            ClusterState::Warm
        } else if self.warming.contains_key(name) {
            ClusterState::Warming
        } else {
            ClusterState::Unknown
        }
    }

    fn is_static(&self, name: &str) -> bool {
        self.active.get(name).is_some_and(|active| active.source == Source::Static)
            || self.warming.get(name).is_some_and(|warming| warming.source == Source::Static)
    }

    fn warm(&mut self, received: Received<ClusterConfig>, source: Source, now: Instant) {
        let (endpoints_arrived, until) = match &received.config.discovery {
            Discovery::Eds { initial_fetch_timeout, .. } => (false, initial_fetch_timeout.map(|timeout| now + timeout)),
            Discovery::Static(_) | Discovery::Dns(_) | Discovery::OriginalDst | Discovery::Aggregate(_) => (true, None),
        };
        let preparation = if received.config.prepares_itself() {
            self.preparations_due.insert(received.name.clone());
            Preparation::Due
        } else {
            Preparation::None
        };
        let warming = WarmingCluster { received, source, endpoints_arrived, until, preparation };
        self.warming.insert(warming.received.name.clone(), warming);
    }

    fn drop_unnamed(&mut self, named: &HashSet<Arc<str>>, now: Instant, actions: &mut Vec<Action>) {
        self.warming.retain(|name, warming| {
            let keep = warming.source == Source::Static || named.contains(name);
            if !keep && warming.preparation != Preparation::None {
                actions.push(Action::AbandonCluster(name.clone()));
            }
            keep
        });
        let dropped: Vec<Arc<str>> = self
            .active
            .iter()
            .filter(|(name, active)| active.source == Source::Dynamic && !named.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dropped {
            let Some(ActiveCluster { received, source: _ }) = self.active.remove(&name) else { continue };
            let assignment = endpoints_name(&received)
                .and_then(|endpoints| self.assignments.get(endpoints))
                .and_then(|entry| entry.received.clone());
            self.leaving.insert(name, LeavingCluster { received, assignment, since: now, held: false });
        }
    }

    /// Endpoints that are known already complete a new cluster at once. One that replaces a version with the same
    /// endpoints' name waits for them to be sent again: they may have to change together. True if one waits so.
    fn adopt_known_endpoints(&mut self, begun: &[Arc<str>]) -> bool {
        let mut waits_for_the_same = false;
        for name in begun {
            let Some(warming) = self.warming.get_mut(name) else { continue };
            let Some(endpoints) = endpoints_name(&warming.received) else { continue };
            let before = self.active.get(name).and_then(|active| endpoints_name(&active.received));
            if before == Some(endpoints) {
                waits_for_the_same = true;
            } else {
                warming.endpoints_arrived =
                    self.assignments.get(endpoints).is_some_and(|entry| entry.received.is_some());
            }
        }
        waits_for_the_same
    }

    /// Makes `assignments` name what `active` and `warming` use. True if the names changed.
    fn index_assignments(&mut self) -> bool {
        let mut index: BTreeMap<Arc<str>, Assignment> = BTreeMap::new();
        let active = self.active.values().map(|active| &active.received);
        for received in active.chain(self.warming.values().map(|warming| &warming.received)) {
            if let Some(endpoints) = endpoints_name(received) {
                index.entry(endpoints.clone()).or_default().clusters.insert(received.name.clone());
            }
        }
        let changed = !index.keys().eq(self.assignments.keys());
        for (name, entry) in &mut index {
            entry.received = self.assignments.remove(name).and_then(|known| known.received);
        }
        self.assignments = index;
        changed
    }
}

fn endpoints_name(received: &Received<ClusterConfig>) -> Option<&Arc<str>> {
    match &received.config.discovery {
        Discovery::Eds { service_name, .. } => Some(service_name),
        Discovery::Static(_) | Discovery::Dns(_) | Discovery::OriginalDst | Discovery::Aggregate(_) => None,
    }
}

fn is_past(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| until <= now)
}
