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
        bootstrap::DiscoverySource, cluster::ClusterConfig, endpoint::LoadAssignment, listener::Listener,
        route::RouteTable,
    },
    xds::{
        kind::ResourceKind,
        resource::{Received, RefusedResource},
        subscription::Interest,
    },
};

mod clusters;
mod early;
mod listeners;
mod routes;

pub use self::{clusters::ClusterSet, listeners::ListenerSet, routes::RouteSet};

/// How far apart answers may come that belong to one change. For so long a cluster that no answer names is waited for
/// rather than taken for absent, and one that was dropped is kept for the routes that still name it.
pub const ORDER_GRACE: Duration = Duration::from_secs(2);
/// How long a route table or a listener waits for clusters that are warming. These have timeouts of their own, but may be
/// told to wait for ever.
pub const DEPENDENCY_WAIT_MAX: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub enum Event {
    /// All clusters of the control plane. `refused` are named by the answer but unusable.
    Clusters {
        resources: Vec<Received<ClusterConfig>>,
        refused: HashSet<Arc<str>>,
    },
    Endpoints(Vec<Received<LoadAssignment>>),
    /// All listeners of the control plane.
    Listeners {
        resources: Vec<Received<Listener>>,
        refused: HashSet<Arc<str>>,
    },
    Routes(Vec<Received<RouteTable>>),
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

/// To be carried out in order.
#[derive(Clone, Debug)]
pub enum Action {
    Subscribe(ResourceKind, Interest),
    /// Ask for the same once more.
    RequestAgain(ResourceKind),
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
        table: Received<RouteTable>,
        warmed_by: WarmedBy,
    },
    RemoveRoutes(Arc<str>),
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
    pub cds: Option<DiscoverySource>,
    pub lds: Option<DiscoverySource>,
}

#[derive(Debug)]
pub struct Warming {
    phase: Phase,
    clusters: ClusterSet,
    routes: RouteSet,
    listeners: ListenerSet,
    lds: Option<DiscoverySource>,
    /// A server may send listeners before it is asked for them.
    listeners_answered: bool,
    /// Wait for the first clusters.
    static_listeners: Vec<Received<Listener>>,
    cluster_ack_held: bool,
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
        let Start { clusters, listeners, cds, lds } = start;
        let mut warming = Warming {
            phase: Phase::Clusters(FirstAnswer::of(cds.as_ref(), now)),
            clusters: ClusterSet::new(),
            routes: RouteSet::new(),
            listeners: ListenerSet::new(),
            lds,
            listeners_answered: false,
            static_listeners: listeners,
            cluster_ack_held: false,
        };
        let mut actions = Vec::new();
        if cds.is_some() {
            actions.push(Action::Subscribe(ResourceKind::Cluster, Interest::Wildcard));
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
            Event::Clusters { resources, refused } => {
                let interest = self.clusters.receive(resources, &refused, now, &mut actions);
                if interest.names_changed {
                    self.subscribe_endpoints(&mut actions);
                } else if interest.ask_again {
                    actions.push(Action::RequestAgain(ResourceKind::Endpoints));
                }
                if self.clusters.is_warming() {
                    // Said again for each answer: a new stream knows nothing of the answer before.
                    self.cluster_ack_held = true;
                    actions.push(Action::HoldClusterAck);
                }
                self.first_answer_settled(ResourceKind::Cluster);
            }
            Event::Endpoints(assignments) => {
                for assignment in assignments {
                    self.clusters.receive_endpoints(assignment, now, &mut actions);
                }
            }
            Event::Listeners { resources, refused } => {
                refusals = self.listeners.receive(resources, &refused, &self.clusters, now, &mut actions);
                self.first_answer_settled(ResourceKind::Listener);
            }
            Event::Routes(tables) => {
                for table in tables {
                    match table.config.check_clusters(|name| self.clusters.is_known(name)) {
                        Err(error) => refusals.push(table.refused(error.to_string())),
                        Ok(()) => self.routes.receive(table, now),
                    }
                }
            }
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
        let listeners = self.listeners.deadlines(&self.clusters, &self.routes, now, wait);
        self.clusters.deadlines().chain(routes).chain(listeners).chain(phase).min()
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
        if self.clusters.settle(now, actions) {
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
        if self.lds.is_some() {
            actions.push(Action::Subscribe(ResourceKind::Listener, Interest::Wildcard));
        }
        for listener in std::mem::take(&mut self.static_listeners) {
            self.listeners.add_static(listener, now);
        }
    }

    fn settle_listeners(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wait = self.unknown_wait();
        self.subscribe_routes(now, actions);
        self.routes.settle(&self.clusters, now, wait, actions);
        self.listeners.settle(&self.clusters, &self.routes, now, wait, actions);
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
        actions.push(Action::Subscribe(ResourceKind::Endpoints, Interest::Names(names)));
    }

    fn subscribe_routes(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.listeners.take_changed() {
            return;
        }
        let names: BTreeSet<Arc<str>> = self.listeners.route_tables();
        if self.routes.set_names(&names, now, actions) {
            actions.push(Action::Subscribe(ResourceKind::Routes, Interest::Names(self.routes.names())));
        }
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
