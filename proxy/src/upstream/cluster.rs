//! A cluster as it lives in a snapshot: its configuration and what all workers share of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::{
    config::{
        cluster::{ClusterConfig, Discovery, UpstreamBind},
        endpoint::{Endpoint, HealthStatus, LoadAssignment},
    },
    stats::{ClusterStat, ClusterStats, GroupStats, MetricName, Registry, Tag, TransportMatchStat, WorkerIndex},
    upstream::{
        background::{ClusterEvent, ClusterEvents, Tasks},
        circuit_breaker::CircuitBreakers,
        dns,
        endpoint_set::EndpointSet,
        host::Host,
    },
};

pub struct Cluster {
    pub config: Arc<ClusterConfig>,
    pub endpoints: ArcSwap<EndpointSet>,
    pub circuit_breakers: Arc<CircuitBreakers>,
    pub stats: Arc<ClusterStats>,
    pub bind: Arc<UpstreamBind>,
    /// By name, where there are several; the last is of hosts that none of them takes.
    transport_matches: TransportMatchStats,
    /// Grows with each change of `endpoints`, so that a worker sees by one load whether its view is current.
    endpoints_version: AtomicU64,
    shards: usize,
    main_thread: WorkerIndex,
    /// There once it was started.
    events: OnceLock<ClusterEvents>,
    tasks: Tasks,
}

impl Cluster {
    /// `previous`: the cluster of the same name that this one replaces; hosts that stay keep their state, and until
    /// endpoints arrive (EDS, DNS) its hosts are this one's.
    /// `bind` is how connections begin where its configuration does not say.
    pub fn new(
        config: Arc<ClusterConfig>,
        bind: &Arc<UpstreamBind>,
        registry: &Registry,
        previous: Option<&Cluster>,
    ) -> Arc<Cluster> {
        let shards = registry.shards();
        let balancing = &config.load_balancing;
        let known = previous.map(|previous| previous.endpoints.load());
        let known = known.as_deref().map(Arc::as_ref);
        let transport_matches = transport_matches(&config, registry);
        let endpoints = match &config.discovery {
            Discovery::Static(assignment) => {
                let counted = |endpoint: &Endpoint| {
                    count_transport_match(&transport_matches, &config, endpoint, registry.main_thread());
                    Host::new(endpoint, shards)
                };
                EndpointSet::new(assignment, balancing, known, counted)
            }
            Discovery::Eds(_) | Discovery::Dns(_) => match known {
                Some(known) => known.reassessed(balancing),
                None => EndpointSet::empty(balancing),
            },
            Discovery::OriginalDst | Discovery::Aggregate(_) => EndpointSet::empty(balancing),
        };
        let cluster = Cluster {
            endpoints: ArcSwap::from_pointee(endpoints),
            circuit_breakers: Arc::new(CircuitBreakers::new(&config.circuit_breakers)),
            stats: registry.cluster(&config.stat_name),
            bind: config.bind.as_ref().unwrap_or(bind).clone(),
            transport_matches,
            endpoints_version: AtomicU64::new(0),
            shards,
            main_thread: registry.main_thread(),
            events: OnceLock::new(),
            tasks: Tasks::default(),
            config,
        };
        let endpoints = cluster.endpoints.load_full();
        cluster.set_membership_gauges(&endpoints);
        if previous.is_none() && !endpoints.members.is_empty() {
            cluster.count_on_main_thread(ClusterStat::MembershipChange);
        }
        Arc::new(cluster)
    }

    /// Begins what goes on for it in the background; says when its hosts were looked up and checked for the first time.
    /// To be called once, on the main thread's runtime.
    pub fn start(self: &Arc<Self>, events: ClusterEvents) {
        let prepared = ClusterEvent::Prepared { name: self.config.name.clone(), hash: self.config.hash };
        let say = events.clone();
        let _ = self.events.set(events); // Err: it was started before, and goes on
        match &self.config.discovery {
            Discovery::Dns(discovery) => {
                dns::start(self, discovery, &self.tasks, move || {
                    let _ = say.send(prepared); // Err: the process is ending
                });
            }
            Discovery::Static(_) | Discovery::Eds { .. } | Discovery::OriginalDst | Discovery::Aggregate(_) => {}
        }
    }

    /// It is gone: requests under way end by themselves.
    pub fn stop(&self) {
        self.tasks.end();
    }

    /// Hosts that stay keep their state. Main thread only.
    pub fn update_endpoints(&self, assignment: &LoadAssignment) {
        let known = self.endpoints.load_full();
        let new_host = |endpoint: &Endpoint| {
            count_transport_match(&self.transport_matches, &self.config, endpoint, self.main_thread);
            Host::new(endpoint, self.shards)
        };
        let set = EndpointSet::new(assignment, &self.config.load_balancing, Some(&known), new_host);
        if set.has_other_hosts(&known) {
            self.stats.cells.inc(self.main_thread, ClusterStat::MembershipChange);
        }
        self.publish(set);
    }

    /// What is known of the hosts' health changed. Main thread only.
    pub fn reassess(&self) {
        self.publish(self.endpoints.load().reassessed(&self.config.load_balancing));
    }

    fn publish(&self, set: EndpointSet) {
        self.set_membership_gauges(&set);
        self.endpoints.store(Arc::new(set));
        self.endpoints_version.fetch_add(1, Relaxed);
    }

    /// After a change that the configuration's task does not know of.
    pub fn announce_hosts(&self) {
        if let Some(events) = self.events.get() {
            let _ = events.send(ClusterEvent::HostsChanged); // Err: the process is ending
        }
    }

    /// The one host of a logical cluster stands for other addresses now; false: there is none yet, or none any more.
    pub fn move_logical_host(&self, addresses: &[SocketAddr]) -> bool {
        match &self.endpoints.load().members[..] {
            [only] if !addresses.is_empty() => {
                only.host.move_to(addresses);
                true
            }
            _ => false,
        }
    }

    pub fn count_on_main_thread(&self, stat: ClusterStat) {
        self.stats.cells.inc(self.main_thread, stat);
    }

    fn set_membership_gauges(&self, set: &EndpointSet) {
        let gauges = [
            (ClusterStat::MembershipTotal, set.members.len()),
            (ClusterStat::MembershipHealthy, set.count(HealthStatus::Healthy)),
            (ClusterStat::MembershipDegraded, set.count(HealthStatus::Degraded)),
            (ClusterStat::MembershipExcluded, set.excluded_count()),
            (ClusterStat::LbSubsetsActive, set.subsets.as_ref().map_or(0, |subsets| subsets.active())),
        ];
        for (gauge, value) in gauges {
            self.stats.cells.set(self.main_thread, gauge, value as u64);
        }
    }

    pub fn endpoints_version(&self) -> u64 {
        self.endpoints_version.load(Relaxed)
    }

    /// A host that is no member: the original destination of a connection.
    pub fn ad_hoc_host(&self, address: SocketAddr) -> Arc<Host> {
        Host::new(&Endpoint::at(address), self.shards)
    }
}

type TransportMatchStats = Vec<(Arc<str>, Arc<GroupStats<TransportMatchStat>>)>;

/// Nothing where all hosts take the same.
fn transport_matches(config: &ClusterConfig, registry: &Registry) -> TransportMatchStats {
    if config.transport_matches.is_empty() {
        return Vec::new();
    }
    let names = config.transport_matches.iter().map(|found| found.name.clone());
    let group = |name: Arc<str>| {
        let prefix = MetricName::new("cluster.").tagged(Tag::ClusterName, &config.stat_name);
        let group = registry.group(prefix.then(&name).then("."));
        (name, group)
    };
    names.chain([DEFAULT_TRANSPORT.into()]).map(group).collect()
}

/// A host takes its transport.
fn count_transport_match(
    stats: &TransportMatchStats,
    config: &ClusterConfig,
    endpoint: &Endpoint,
    main_thread: WorkerIndex,
) {
    if stats.is_empty() {
        return;
    }
    let taken = config.transport_match(&endpoint.metadata).map_or(DEFAULT_TRANSPORT, |found| &*found.name);
    if let Some((_, stats)) = stats.iter().find(|(name, _)| **name == *taken) {
        stats.cells.inc(main_thread, TransportMatchStat::TotalMatchCount);
    }
}

/// As Envoy calls the one of `transport_socket`.
const DEFAULT_TRANSPORT: &str = "default";
