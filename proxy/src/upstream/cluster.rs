//! A cluster as it lives in a snapshot: its configuration and what all workers share of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

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
        endpoint_set::{EndpointSet, Member},
        event_log::EventLogs,
        health_check::{HealthMonitor, Preparation},
        host::{HealthFlag, Host},
        outlier_detection::OutlierMonitor,
    },
};

pub struct Cluster {
    pub config: Arc<ClusterConfig>,
    pub endpoints: ArcSwap<EndpointSet>,
    pub circuit_breakers: Arc<CircuitBreakers>,
    pub stats: Arc<ClusterStats>,
    /// None: no host is ever ejected.
    pub outliers: Option<OutlierMonitor>,
    /// None: hosts are not asked whether they are well.
    pub checks: Option<HealthMonitor>,
    /// Tells whoever follows the hosts one by one.
    hosts_changed: watch::Sender<()>,
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
        let prefix = |of: &str| MetricName::new("cluster.").tagged(Tag::ClusterName, &config.stat_name).then(of);
        let transport_matches = transport_matches(&config, registry);
        let outliers = config.outlier_detection.as_ref().map(|outlier_detection| {
            OutlierMonitor::new(outlier_detection, registry.group(prefix("outlier_detection.")))
        });
        let checks = config
            .health_check
            .as_ref()
            .map(|health_check| HealthMonitor::new(health_check, registry.group(prefix("health_check."))));
        for member in known.into_iter().flat_map(|known| &known.members) {
            if checks.is_none() {
                member.host.forget_checks();
            }
            if outliers.is_none() {
                member.host.forget_ejection();
            }
        }
        let endpoints = match &config.discovery {
            Discovery::Static(assignment) => {
                let new_host = |endpoint: &Endpoint| {
                    count_transport_match(&transport_matches, &config, endpoint, registry.main_thread());
                    new_host(endpoint, shards, &config, checks.as_ref())
                };
                EndpointSet::new(assignment, balancing, known, new_host, |_| false)
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
            outliers,
            checks,
            hosts_changed: watch::Sender::new(()),
            endpoints_version: AtomicU64::new(0),
            shards,
            main_thread: registry.main_thread(),
            events: OnceLock::new(),
            tasks: Tasks::default(),
            config,
        };
        let set = cluster.endpoints.load_full();
        if known.map_or(!set.members.is_empty(), |known| set.has_other_hosts(known)) {
            cluster.count_on_main_thread(ClusterStat::MembershipChange);
        }
        cluster.set_membership_gauges(&set);
        Arc::new(cluster)
    }

    /// Begins what goes on for it in the background; says when its hosts were looked up and checked for the first time.
    /// To be called once, on the main thread's runtime.
    pub fn start(self: &Arc<Self>, events: ClusterEvents, logs: &EventLogs) {
        if let Some(outliers) = &self.outliers {
            outliers.start(self, logs.outliers.clone(), &self.tasks);
        }
        let prepared = ClusterEvent::Prepared { name: self.config.name.clone(), hash: self.config.hash };
        let say = events.clone();
        let _ = self.events.set(events); // Err: it was started before, and goes on
        let say = move || {
            let _ = say.send(prepared); // Err: the process is ending
        };
        match (&self.config.discovery, &self.checks) {
            (Discovery::Dns(discovery), None) => dns::start(self, discovery, &self.tasks, say),
            (Discovery::Dns(discovery), Some(checks)) => {
                let (found, looked_up) = oneshot::channel();
                let preparation = Preparation { looked_up: Some(looked_up), prepared: Box::new(say) };
                checks.start(self, self.hosts_changed.subscribe(), logs, &self.tasks, preparation);
                dns::start(self, discovery, &self.tasks, || {
                    let _ = found.send(()); // Err: the cluster is gone
                });
            }
            (_, Some(checks)) => {
                let preparation = Preparation { looked_up: None, prepared: Box::new(say) };
                checks.start(self, self.hosts_changed.subscribe(), logs, &self.tasks, preparation);
            }
            (_, None) => {}
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
            new_host(endpoint, self.shards, &self.config, self.checks.as_ref())
        };
        let set = EndpointSet::new(assignment, &self.config.load_balancing, Some(&known), new_host, |member| {
            self.keeps(member)
        });
        if set.has_other_hosts(&known) {
            self.stats.cells.inc(self.main_thread, ClusterStat::MembershipChange);
        }
        self.publish(set);
    }

    /// Though discovery has dropped it: what passes its checks is trusted more.
    fn keeps(&self, member: &Member) -> bool {
        self.checks.is_some()
            && !self.config.ignore_health_on_host_removal
            && !member.host.health_check.disabled
            && !member.host.has(HealthFlag::FailedActiveCheck)
            && member.health_status != HealthStatus::Unhealthy
    }

    /// What is known of the hosts' health changed. Main thread only.
    pub fn reassess(&self) {
        let known = self.endpoints.load_full();
        let set = known.reassessed(&self.config.load_balancing);
        if set.members.len() != known.members.len() {
            self.stats.cells.inc(self.main_thread, ClusterStat::MembershipChange);
        }
        self.publish(set);
    }

    fn publish(&self, set: EndpointSet) {
        self.set_membership_gauges(&set);
        self.endpoints.store(Arc::new(set));
        self.endpoints_version.fetch_add(1, Relaxed);
        self.hosts_changed.send_replace(());
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

    pub fn main_thread(&self) -> WorkerIndex {
        self.main_thread
    }

    pub fn endpoints_version(&self) -> u64 {
        self.endpoints_version.load(Relaxed)
    }

    /// A host that is no member: the original destination of a connection.
    pub fn ad_hoc_host(&self, address: SocketAddr) -> Arc<Host> {
        Host::new(&Endpoint::at(address), self.shards)
    }
}

fn new_host(endpoint: &Endpoint, shards: usize, config: &ClusterConfig, checks: Option<&HealthMonitor>) -> Arc<Host> {
    let host = Host::new(endpoint, shards);
    if let Some(checks) = checks {
        checks.mark_new(&host, config.ignore_new_hosts_until_checked);
    }
    host
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
