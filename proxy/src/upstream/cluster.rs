//! A cluster as it lives in a snapshot: its configuration and what all workers share of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::{
    config::{
        cluster::{ClusterConfig, Discovery},
        endpoint::LoadAssignment,
    },
    stats::{ClusterStat, ClusterStats, Registry, WorkerIndex},
    upstream::{
        circuit_breaker::CircuitBreakers,
        endpoint_set::{EndpointSet, Host},
    },
};

pub struct Cluster {
    pub config: Arc<ClusterConfig>,
    pub endpoints: ArcSwap<EndpointSet>,
    pub circuit_breakers: Arc<CircuitBreakers>,
    pub stats: Arc<ClusterStats>,
    /// Grows with each change of `endpoints`, so that a worker sees by one load whether its view is current.
    endpoints_version: AtomicU64,
    shards: usize,
    main_thread: WorkerIndex,
}

impl Cluster {
    /// `previous`: the cluster of the same name that this one replaces; hosts that stay keep their state, and until
    /// endpoints arrive (EDS) its hosts are this one's.
    pub fn new(config: Arc<ClusterConfig>, registry: &Registry, previous: Option<&Cluster>) -> Arc<Cluster> {
        let shards = registry.shards();
        let known = previous.map(|previous| previous.endpoints.load_full()).unwrap_or_default();
        let endpoints = match &config.discovery {
            Discovery::Static(assignment) => Arc::new(EndpointSet::new(assignment, &known, shards)),
            Discovery::Eds(_) => known,
            Discovery::OriginalDst => Arc::default(),
        };
        Arc::new(Cluster {
            endpoints: ArcSwap::new(endpoints),
            circuit_breakers: Arc::new(CircuitBreakers::new(
                config.circuit_breakers,
                config.high_priority_circuit_breakers,
            )),
            stats: registry.cluster(&config.stat_name),
            endpoints_version: AtomicU64::new(0),
            shards,
            main_thread: registry.main_thread(),
            config,
        })
    }

    /// Hosts that stay keep their state. Main thread only.
    pub fn update_endpoints(&self, assignment: &LoadAssignment) {
        let set = EndpointSet::new(assignment, &self.endpoints.load(), self.shards);
        self.endpoints.store(Arc::new(set));
        self.endpoints_version.fetch_add(1, Relaxed);
        self.stats.cells.inc(self.main_thread, ClusterStat::MembershipChange);
    }

    pub fn endpoints_version(&self) -> u64 {
        self.endpoints_version.load(Relaxed)
    }

    /// A host that is no member: the original destination of a connection.
    pub fn ad_hoc_host(&self, address: SocketAddr) -> Arc<Host> {
        Host::new(address, "".into(), self.shards)
    }
}
