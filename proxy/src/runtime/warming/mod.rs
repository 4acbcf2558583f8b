//! When what arrived may meet traffic: a state machine from events (answers of the control plane, time) to actions
//! (subscribe, activate, remove, acknowledge). Stands between `xds/`, which brings answers, and `apply`, which carries
//! the actions out. Pure: the time is passed in, nothing is built or published here.
//!
//! Invariants: at every action in order, a request that a live listener takes finds a live route table, and every
//! cluster that a live table names is published with its endpoints, in whatever order the answers came, as long as
//! answers that belong together come within `ORDER_GRACE` of each other. Every wait has an end, except where the
//! configuration asks for none.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        bootstrap::DiscoverySource,
        cluster::ClusterConfig,
        config_source::{Discovered, ResourceKey, SourceOrigin},
        endpoint::LoadAssignment,
        listener::Listener,
        route::RouteTable,
        tls::Secret,
    },
    runtime::warming::listeners::Others,
    xds::{
        kind::ResourceKind,
        resource::{Received, RefusedResource, Removed},
    },
};

mod clusters;
mod early;
mod listeners;
mod routes;
mod secrets;

pub use self::{clusters::ClusterSet, listeners::ListenerSet, routes::RouteSet, secrets::SecretSet};

/// How far apart answers may come that belong to one change. For so long a cluster that no answer names is waited for
/// rather than taken for absent, and one that was dropped is kept for the routes that still name it.
pub const ORDER_GRACE: Duration = Duration::from_secs(2);
/// How long a route table or a listener waits for clusters that are warming. These have timeouts of their own, but may be
/// told to wait for ever.
pub const DEPENDENCY_WAIT_MAX: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub enum Event {
    Clusters(Update<ClusterConfig>),
    Endpoints(Update<LoadAssignment>),
    Listeners(Update<Listener>),
    Routes(Update<RouteTable>),
    Secrets(Update<Secret>),
    /// The time that the control plane gave a resource is over.
    Expired(ResourceKind, ResourceKey),
    /// An answer that is refused as a whole: nothing changes, but whoever waited for it to start goes on.
    AnswerRefused(ResourceKind),
    /// A cluster that was told to prepare itself has done so.
    ClusterPrepared {
        name: Arc<str>,
        hash: u64,
    },
    /// An `ActivateListener` of the event before could not be carried out.
    ListenerRefused(Arc<str>),
    /// The deadline came.
    Time,
}

/// What one source says of a kind.
#[derive(Debug)]
pub struct Update<T> {
    pub origin: SourceOrigin,
    pub resources: Vec<Received<T>>,
    pub removed: Removed,
}

/// To be carried out in order.
#[derive(Clone, Debug)]
pub enum Action {
    SubscribeAll(ResourceKind, SourceOrigin),
    /// To exactly these of the kind.
    Subscribe(ResourceKind, BTreeSet<ResourceKey>),
    /// Ask for these once more.
    RequestAgain(ResourceKind, Vec<ResourceKey>),
    /// TLS contexts that name it are to be made anew.
    UpdateSecret {
        key: ResourceKey,
        secret: Arc<Secret>,
    },
    RemoveSecret(ResourceKey),
    /// Nothing is acknowledged about clusters until `ReleaseClusterAck`.
    HoldClusterAck,
    ReleaseClusterAck,
    /// Publish it, in the place of the version before it if there is one. `assignment` is there exactly for EDS.
    ActivateCluster {
        cluster: Received<ClusterConfig>,
        assignment: Option<Arc<LoadAssignment>>,
        warmed_by: WarmedBy,
    },
    /// Have it look its hosts up and check them, and say when it has. It is not published yet.
    PrepareCluster {
        cluster: Received<ClusterConfig>,
        assignment: Option<Arc<LoadAssignment>>,
    },
    /// What prepares itself is not wanted any more.
    AbandonCluster(Arc<str>),
    UpdateEndpoints {
        cluster: Arc<str>,
        assignment: Arc<LoadAssignment>,
    },
    RemoveCluster(Arc<str>),
    ActivateRoutes {
        key: ResourceKey,
        table: Received<RouteTable>,
        warmed_by: WarmedBy,
    },
    RemoveRoutes(ResourceKey),
    /// Its time is over, although listeners name it.
    ExpireRoutes(ResourceKey),
    ActivateListener {
        listener: Received<Listener>,
        source: Source,
        warmed_by: WarmedBy,
    },
    RemoveListener(Arc<str>),
    /// No first answer of this kind came in time; the start goes on without it.
    FetchTimedOut(ResourceKind),
    /// The first configuration is complete.
    Initialized,
}

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmedBy {
    Arrival,
    Timeout,
}

/// Where a resource is defined. Static ones cannot be changed by the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Static,
    Dynamic,
}

/// Whether something may go live; `Until` is an instant, optional where a wait may have no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness<Until = Instant> {
    Ready,
    Waiting(Until),
    /// Not complete, but waited its time.
    Overdue,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub actions: Vec<Action>,
    /// Resources of the event that are refused: the answer is to be refused for them.
    pub refusals: Vec<RefusedResource>,
}

/// What the bootstrap says.
#[derive(Debug)]
pub struct Start {
    pub clusters: Vec<Received<ClusterConfig>>,
    pub listeners: Vec<Received<Listener>>,
    pub secrets: Vec<Received<Secret>>,
    pub cds: Option<DiscoverySource>,
    pub lds: Option<DiscoverySource>,
}

#[derive(Debug)]
pub struct Warming {
    phase: Phase,
    clusters: ClusterSet,
    routes: RouteSet,
    listeners: ListenerSet,
    secrets: SecretSet,
    lds: Option<DiscoverySource>,
    /// A server may send listeners before it is asked for them.
    listeners_answered: bool,
    /// Wait for the first clusters.
    static_listeners: Vec<Received<Listener>>,
    cluster_ack_held: bool,
    /// Listeners may name others than before.
    secrets_changed: bool,
}

/// Listeners are asked for and started only when the first clusters are warm, so that the first request finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Clusters(FirstAnswer),
    Listeners(FirstAnswer),
    Initialized,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstAnswer {
    /// None: waits for ever.
    Awaited { until: Option<Instant> },
    /// It came, or its time was up, or nobody is asked.
    Settled,
}

impl FirstAnswer {
    fn of(source: Option<&DiscoverySource>, now: Instant) -> FirstAnswer {
        match source {
            Some(source) => FirstAnswer::Awaited { until: source.initial_fetch_timeout.map(|timeout| now + timeout) },
            None => FirstAnswer::Settled,
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            FirstAnswer::Awaited { until } => until,
            FirstAnswer::Settled => None,
        }
    }
}

impl Warming {
    pub fn start(start: Start, now: Instant) -> (Warming, Vec<Action>) {
        let Start { clusters, listeners, secrets, cds, lds } = start;
        let mut warming = Warming {
            phase: Phase::Clusters(FirstAnswer::of(cds.as_ref(), now)),
            clusters: ClusterSet::new(),
            routes: RouteSet::new(),
            listeners: ListenerSet::new(),
            secrets: SecretSet::new(secrets),
            lds,
            listeners_answered: false,
            static_listeners: listeners,
            cluster_ack_held: false,
            secrets_changed: false,
        };
        let mut actions = Vec::new();
        if let Some(source) = cds {
            actions.push(Action::SubscribeAll(ResourceKind::Cluster, source.origin));
        }
        warming.clusters.start(clusters, now);
        warming.subscribe_endpoints(&mut actions);
        warming.settle(now, &mut actions);
        (warming, actions)
    }

    pub fn on(&mut self, event: Event, now: Instant) -> Outcome {
        let Outcome { mut actions, mut refusals } = Outcome::default();
        if !matches!(event, Event::ListenerRefused(_)) {
            self.listeners.forget_replaced();
        }
        match event {
            Event::Clusters(Update { origin: _, resources, removed }) => {
                let (resources, unknown) = self.without_unknown_secrets(resources);
                refusals = unknown;
                let interest = self.clusters.receive(resources, &removed, now, &mut actions);
                if interest.names_changed {
                    self.subscribe_endpoints(&mut actions);
                }
                if !interest.ask_again.is_empty() {
                    actions.push(Action::RequestAgain(ResourceKind::Endpoints, interest.ask_again));
                }
                if self.clusters.is_warming() {
                    // Said again for each answer: a new stream knows nothing of the answer before.
                    self.cluster_ack_held = true;
                    actions.push(Action::HoldClusterAck);
                }
                self.first_answer_settled(ResourceKind::Cluster);
            }
            Event::Endpoints(Update { origin, resources, removed }) => {
                for assignment in resources {
                    self.clusters.receive_endpoints(&origin, assignment, now, &mut actions);
                }
                if let Removed::These(names) = removed {
                    for name in names {
                        self.clusters.no_endpoints(&ResourceKey { origin: origin.clone(), name });
                    }
                }
            }
            Event::Listeners(Update { origin: _, resources, removed }) => {
                let (resources, unknown) = self.without_unknown_secrets(resources);
                let others = Others { clusters: &self.clusters, secrets: &self.secrets };
                refusals = self.listeners.receive(resources, &removed, others, now, &mut actions);
                refusals.extend(unknown);
                self.first_answer_settled(ResourceKind::Listener);
            }
            // A table that is gone serves on: the listener that names it is what would have to go.
            Event::Routes(Update { origin, resources, removed: _ }) => {
                for table in resources {
                    match table.config.check_clusters(|name| self.clusters.is_known(name)) {
                        Err(error) => refusals.push(table.refused(error.to_string())),
                        Ok(()) => self.routes.receive(&origin, table, now),
                    }
                }
            }
            Event::Secrets(Update { origin, resources, removed: _ }) => {
                for secret in resources {
                    self.secrets.receive(&origin, secret, now, &mut actions);
                }
            }
            Event::Expired(kind, key) => self.expire(kind, key, now, &mut actions),
            Event::AnswerRefused(kind) => self.first_answer_settled(kind),
            Event::ListenerRefused(name) => self.listeners.refuse(&name),
            Event::ClusterPrepared { name, hash } => self.clusters.prepared(&name, hash),
            Event::Time => {}
        }
        self.settle(now, &mut actions);
        Outcome { actions, refusals }
    }

    /// When `Event::Time` is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Clusters(first) | Phase::Listeners(first) => first.deadline(),
            Phase::Initialized => None,
        };
        let wait = self.unknown_wait();
        let routes = self.routes.deadlines(&self.clusters, now, wait);
        let others = Others { clusters: &self.clusters, secrets: &self.secrets };
        let listeners = self.listeners.deadlines(others, &self.routes, now, wait);
        let clusters = self.clusters.deadlines(&self.secrets, now).chain(self.secrets.deadline());
        clusters.chain(routes).chain(listeners).chain(phase).min()
    }

    pub fn is_initialized(&self) -> bool {
        self.phase == Phase::Initialized
    }

    pub fn clusters(&self) -> &ClusterSet {
        &self.clusters
    }

    pub fn routes(&self) -> &RouteSet {
        &self.routes
    }

    pub fn listeners(&self) -> &ListenerSet {
        &self.listeners
    }

    pub fn secrets(&self) -> &SecretSet {
        &self.secrets
    }

    /// Takes out those that name a secret of the bootstrap that is not there.
    fn without_unknown_secrets<T: NamesSecrets>(
        &self,
        resources: Vec<Received<T>>,
    ) -> (Vec<Received<T>>, Vec<RefusedResource>) {
        let mut refused = Vec::new();
        let mut resources = resources;
        resources.retain(|received| {
            let unknown = received.config.static_secrets().find(|name| !self.secrets.is_known_static(name));
            refused.extend(unknown.map(|name| received.refused(format!("unknown static secret '{name}'"))));
            unknown.is_none()
        });
        (resources, refused)
    }

    fn expire(&mut self, kind: ResourceKind, key: ResourceKey, now: Instant, actions: &mut Vec<Action>) {
        let removed = Removed::These(HashSet::from([key.name.clone()]));
        match kind {
            ResourceKind::Cluster => {
                if self.clusters.receive(Vec::new(), &removed, now, actions).names_changed {
                    self.subscribe_endpoints(actions);
                }
            }
            ResourceKind::Listener => {
                let others = Others { clusters: &self.clusters, secrets: &self.secrets };
                self.listeners.receive(Vec::new(), &removed, others, now, actions);
            }
            ResourceKind::Endpoints => self.clusters.expire_endpoints(&key, actions),
            ResourceKind::Routes => self.routes.expire(&key, actions),
            // A certificate says itself until when it is good.
            ResourceKind::Secret => {}
        }
    }

    fn first_answer_settled(&mut self, kind: ResourceKind) {
        self.listeners_answered |= kind == ResourceKind::Listener;
        match (&mut self.phase, kind) {
            (Phase::Clusters(first), ResourceKind::Cluster) | (Phase::Listeners(first), ResourceKind::Listener) => {
                *first = FirstAnswer::Settled;
            }
            _ => {}
        }
    }

    /// While starting, the clusters were asked for first: what they do not name is not there.
    fn unknown_wait(&self) -> Duration {
        match self.phase {
            Phase::Clusters(_) | Phase::Listeners(_) => Duration::ZERO,
            Phase::Initialized => ORDER_GRACE,
        }
    }

    /// Brings everything that can go on as far as it can go: clusters first, then what names them, removals last.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.secrets.forget_old(now);
        self.subscribe_secrets(now, actions);
        if self.clusters.settle(&self.secrets, now, actions) {
            self.subscribe_endpoints(actions);
        }
        if self.cluster_ack_held && !self.clusters.is_warming() {
            self.cluster_ack_held = false;
            actions.push(Action::ReleaseClusterAck);
        }
        self.leave_cluster_phase(now, actions);
        if !matches!(self.phase, Phase::Clusters(_)) {
            self.settle_listeners(now, actions);
        }
        self.leave_listener_phase(now, actions);
        self.subscribe_secrets(now, actions);
        let (routes, listeners) = (&self.routes, &self.listeners);
        self.clusters.settle_leaving(now, |name| routes.holds(name) || listeners.holds(name), actions);
    }

    fn leave_cluster_phase(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Clusters(first) = self.phase else { return };
        let first = settled_in_time(first, ResourceKind::Cluster, now, actions);
        self.phase = Phase::Clusters(first);
        if first != FirstAnswer::Settled || self.clusters.is_warming() {
            return;
        }
        self.phase = Phase::Listeners(match self.listeners_answered {
            true => FirstAnswer::Settled,
            false => FirstAnswer::of(self.lds.as_ref(), now),
        });
        if let Some(source) = &self.lds {
            actions.push(Action::SubscribeAll(ResourceKind::Listener, source.origin.clone()));
        }
        for listener in std::mem::take(&mut self.static_listeners) {
            self.listeners.add_static(listener, now);
        }
    }

    fn settle_listeners(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wait = self.unknown_wait();
        self.subscribe_routes(now, actions);
        self.routes.settle(&self.clusters, now, wait, actions);
        self.subscribe_secrets(now, actions);
        let others = Others { clusters: &self.clusters, secrets: &self.secrets };
        self.listeners.settle(others, &self.routes, now, wait, actions);
        // Versions of listeners that were just replaced no longer need their tables.
        self.subscribe_routes(now, actions);
    }

    fn leave_listener_phase(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Listeners(first) = self.phase else { return };
        let first = settled_in_time(first, ResourceKind::Listener, now, actions);
        self.phase = Phase::Listeners(first);
        if first == FirstAnswer::Settled && !self.listeners.is_warming() {
            self.phase = Phase::Initialized;
            actions.push(Action::Initialized);
        }
    }

    fn subscribe_endpoints(&self, actions: &mut Vec<Action>) {
        let names = self.clusters.endpoints_names();
        actions.push(Action::Subscribe(ResourceKind::Endpoints, names));
    }

    fn subscribe_routes(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.listeners.take_changed() {
            return;
        }
        self.secrets_changed = true;
        let names: BTreeSet<ResourceKey> = self.listeners.route_tables();
        if self.routes.set_names(&names, now, actions) {
            actions.push(Action::Subscribe(ResourceKind::Routes, self.routes.names()));
        }
    }

    fn subscribe_secrets(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.clusters.take_changed() && !std::mem::take(&mut self.secrets_changed) {
            return;
        }
        self.secrets_changed = false;
        let names: BTreeSet<ResourceKey> = self.clusters.secret_names().chain(self.listeners.secret_names()).collect();
        if self.secrets.set_names(names, now, actions) {
            actions.push(Action::Subscribe(ResourceKind::Secret, self.secrets.names()));
        }
    }
}

/// Clusters and listeners: they have TLS contexts.
trait NamesSecrets {
    fn discovered(&self) -> impl Iterator<Item = &Discovered>;

    /// Those that have to stand in the bootstrap.
    fn static_secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        let keys = self.discovered().map(|discovered| &discovered.key);
        keys.filter(|key| key.origin == SourceOrigin::Bootstrap).map(|key| &key.name)
    }
}

impl NamesSecrets for ClusterConfig {
    fn discovered(&self) -> impl Iterator<Item = &Discovered> {
        ClusterConfig::discovered(self)
    }
}

impl NamesSecrets for Listener {
    fn discovered(&self) -> impl Iterator<Item = &Discovered> {
        Listener::discovered(self)
    }
}

fn settled_in_time(first: FirstAnswer, kind: ResourceKind, now: Instant, actions: &mut Vec<Action>) -> FirstAnswer {
    match first {
        FirstAnswer::Awaited { until: Some(until) } if until <= now => {
            actions.push(Action::FetchTimedOut(kind));
            FirstAnswer::Settled
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
