//! Carries out what the warming state decided: builds clusters, route tables and listeners, and publishes them to the
//! workers. Main thread only.
//!
//! Invariant: whatever a route table or listener that becomes visible names was published before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwapOption;

use crate::{
    config::{
        cluster::{ClusterConfig, UpstreamBind},
        config_source::ResourceKey,
        endpoint::LoadAssignment,
        listener::{Listener, TrafficDirection},
        route::RouteTable,
        runtime_values::RuntimeValues,
        tls::Secret,
    },
    http::route::table::{CompiledRoutes, RouteSlot},
    listener::active::ActiveListener,
    runtime::{
        Listeners,
        publish::{BindError, Publisher},
        snapshot::Snapshot,
        tls_contexts::TlsContexts,
    },
    stats::{ClusterStat, Registry, ServerStat},
    upstream::{background::ClusterEvents, cluster::Cluster, event_log::EventLogs},
};

pub struct DataPath {
    publisher: Publisher,
    stats: Arc<Registry>,
    clusters: HashMap<Arc<str>, Arc<Cluster>>,
    /// Not published yet: they look their hosts up.
    preparing: HashMap<Arc<str>, Arc<Cluster>>,
    cluster_events: ClusterEvents,
    event_logs: EventLogs,
    /// Of clusters that do not say how their connections begin.
    default_bind: Arc<UpstreamBind>,
    runtime_values: RuntimeValues,
    listeners: BTreeMap<Arc<str>, Arc<ActiveListener>>,
    routes: HashMap<ResourceKey, RouteSlot>,
    tls: TlsContexts,
    pending: Pending,
    /// Until something can receive traffic, thousands of clusters that warm up one by one need not be published one by one.
    serving: bool,
    /// The proxy ends: on the addresses of these nobody listens any more.
    closed: Option<Listeners>,
}

/// What the workers do not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    Nothing,
    /// Endpoint sets changed in place.
    Endpoints,
    /// Listeners or clusters came or went.
    Snapshot,
}

impl DataPath {
    /// What clusters find out by themselves is told to `cluster_events`.
    /// `default_bind` is of clusters that do not say how their connections begin.
    pub fn new(
        publisher: Publisher,
        stats: Arc<Registry>,
        cluster_events: ClusterEvents,
        event_logs: EventLogs,
        default_bind: Arc<UpstreamBind>,
        runtime_values: RuntimeValues,
    ) -> DataPath {
        DataPath {
            publisher,
            stats,
            clusters: HashMap::new(),
            preparing: HashMap::new(),
            cluster_events,
            event_logs,
            default_bind,
            runtime_values,
            listeners: BTreeMap::new(),
            routes: HashMap::new(),
            tls: TlsContexts::default(),
            pending: Pending::Nothing,
            serving: false,
            closed: None,
        }
    }

    pub fn prepare_cluster(&mut self, config: Arc<ClusterConfig>, assignment: Option<&LoadAssignment>) {
        let cluster = self.new_cluster(config, assignment);
        self.preparing.insert(cluster.config.name.clone(), cluster);
    }

    pub fn abandon_cluster(&mut self, name: &str) {
        if let Some(cluster) = self.preparing.remove(name) {
            cluster.stop();
        }
    }

    pub fn activate_cluster(&mut self, config: Arc<ClusterConfig>, assignment: Option<&LoadAssignment>) {
        config.tls_contexts().for_each(|tls| self.tls.add_upstream(tls));
        let name = config.name.clone();
        let cluster = match self.preparing.remove(&name) {
            Some(prepared) if prepared.config.hash == config.hash => {
                if let Some(assignment) = assignment {
                    prepared.update_endpoints(assignment); // what came meanwhile
                }
                prepared
            }
            _ => self.new_cluster(config, assignment),
        };
        match self.clusters.insert(name, cluster) {
            Some(replaced) => {
                replaced.stop();
                self.count(ServerStat::ClustersModified);
            }
            None => self.count(ServerStat::ClustersAdded),
        }
        self.pending = Pending::Snapshot;
    }

    fn new_cluster(&self, config: Arc<ClusterConfig>, assignment: Option<&LoadAssignment>) -> Arc<Cluster> {
        let previous = self.clusters.get(&config.name);
        let cluster = Cluster::new(config, &self.default_bind, &self.stats, previous.map(Arc::as_ref));
        if let Some(assignment) = assignment {
            cluster.update_endpoints(assignment);
        }
        cluster.start(self.cluster_events.clone(), &self.event_logs);
        cluster
    }

    /// Clusters changed their hosts by themselves.
    pub fn hosts_changed(&mut self) {
        self.pending = self.pending.max(Pending::Endpoints);
    }

    pub fn update_endpoints(&mut self, cluster: &str, assignment: &LoadAssignment) {
        if let Some(cluster) = self.clusters.get(cluster) {
            cluster.update_endpoints(assignment);
            cluster.stats.cells.inc(self.stats.main_thread(), ClusterStat::AssignmentUpdate);
            self.pending = self.pending.max(Pending::Endpoints);
        }
    }

    pub fn remove_cluster(&mut self, name: &str) {
        if let Some(removed) = self.clusters.remove(name) {
            removed.stop();
            self.count(ServerStat::ClustersRemoved);
        }
        self.pending = Pending::Snapshot;
    }

    /// Visible at once to every listener that names it, so what it routes to is published first.
    pub fn activate_routes(&mut self, name: &ResourceKey, table: Arc<RouteTable>) {
        self.publish_if_serving();
        slot(&mut self.routes, name).store(Some(Arc::new(CompiledRoutes::new(table))));
    }

    /// Connections that still use the table keep it.
    pub fn remove_routes(&mut self, name: &ResourceKey) {
        self.routes.remove(name);
    }

    /// Requests by the table find no route until it comes again.
    pub fn expire_routes(&mut self, name: &ResourceKey) {
        slot(&mut self.routes, name).store(None);
    }

    /// TLS handshakes from now on use it.
    pub fn update_secret(&mut self, key: ResourceKey, secret: Arc<Secret>) {
        self.tls.update(key, secret);
    }

    pub fn remove_secret(&mut self, key: &ResourceKey) {
        self.tls.remove(key);
    }

    /// Fails if its addresses cannot be listened on; then nothing changes.
    pub fn activate_listener(&mut self, config: Arc<Listener>) -> Result<(), BindError> {
        let name = config.name.clone();
        if !self.is_closed(&config) {
            self.publisher.bind(&config).inspect_err(|_| self.count(ServerStat::ListenerCreateFailure))?;
        }
        for _ in 0..self.stats.workers() {
            self.count(ServerStat::ListenerCreateSuccess); // once a worker, as Envoy counts
        }
        config.tls_contexts().for_each(|tls| self.tls.add_downstream(tls));
        let previous = self.listeners.get(&name).cloned();
        self.count(match previous {
            Some(_) => ServerStat::ListenersModified,
            None => ServerStat::ListenersAdded,
        });
        let connections_max = self.runtime_values.listener_connections_max(&name);
        let slots = std::cell::RefCell::new(&mut self.routes);
        let slot_of = |name: &ResourceKey| slot(&mut slots.borrow_mut(), name);
        let listener = ActiveListener::new(config, previous.as_deref(), &slot_of, &self.stats, connections_max);
        self.listeners.insert(name, listener);
        self.pending = Pending::Snapshot;
        self.serving = true;
        Ok(())
    }

    pub fn remove_listener(&mut self, name: &str) {
        if self.listeners.remove(name).is_some() {
            self.count(ServerStat::ListenersRemoved);
            self.pending = Pending::Snapshot;
        }
    }

    /// The start is over: from now on everything is published, even if nothing listens.
    pub fn initialized(&mut self) {
        self.serving = true;
    }

    /// To be called after each batch of changes.
    pub fn publish_if_serving(&mut self) {
        if !self.serving {
            return;
        }
        match self.pending {
            Pending::Nothing => {}
            Pending::Endpoints => self.publisher.endpoints_changed(),
            Pending::Snapshot => {
                let listeners = self.listeners.values().cloned().collect();
                self.publisher.publish(Snapshot::new(listeners, self.clusters.clone()));
            }
        }
        self.pending = Pending::Nothing;
    }

    /// Every connection of these listeners finishes what it has.
    pub fn drain_connections(&self, which: Listeners) {
        match which {
            Listeners::All => self.publisher.drain_all(),
            Listeners::Inbound => {
                let inbound =
                    |listener: &&Arc<ActiveListener>| listener.config.traffic_direction == TrafficDirection::Inbound;
                let chains = self.listeners.values().filter(inbound).flat_map(|listener| listener.all_chains());
                chains.for_each(|chain| chain.drain.start());
                self.publisher.wake_workers();
            }
        }
    }

    /// No new connections from now on, whatever the configuration says later.
    pub fn close_listeners(&mut self, which: Listeners) {
        let before = self.listeners.len();
        self.closed = Some(match self.closed {
            Some(Listeners::All) => Listeners::All,
            Some(Listeners::Inbound) | None => which,
        });
        let kept: Vec<_> =
            self.listeners.values().filter(|listener| !self.is_closed(&listener.config)).cloned().collect();
        for _ in kept.len()..before {
            self.count(ServerStat::ListenersStopped);
        }
        self.publisher.close_but(&Snapshot::new(kept, HashMap::new()));
    }

    fn is_closed(&self, listener: &Listener) -> bool {
        match self.closed {
            None => false,
            Some(Listeners::All) => true,
            Some(Listeners::Inbound) => listener.traffic_direction == TrafficDirection::Inbound,
        }
    }

    /// They look at the drains.
    pub fn wake_connections(&self) {
        self.publisher.wake_workers();
    }

    fn count(&self, stat: ServerStat) {
        self.stats.server.inc(self.stats.main_thread(), stat);
    }
}

fn slot(routes: &mut HashMap<ResourceKey, RouteSlot>, name: &ResourceKey) -> RouteSlot {
    routes.entry(name.clone()).or_insert_with(|| Arc::new(ArcSwapOption::empty())).clone()
}
