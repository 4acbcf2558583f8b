//! Hosts of a cluster by DNS: each name is looked up again and again, on the main thread, and what it stands for becomes
//! the cluster's endpoints. What fails changes nothing: the last good answer stays.

mod query;
mod resolver;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use self::resolver::{Answer, Resolver};
pub use self::{query::QueryError, resolver::LookupError};
use crate::{
    config::{
        cluster::{DnsDiscovery, DnsHosts},
        endpoint::{DnsTarget, Endpoint, LoadAssignment, LocalityEndpoints},
    },
    stats::ClusterStat,
    upstream::{background::Tasks, cluster::Cluster},
};

/// What is known of a cluster's names.
struct Found {
    discovery: Arc<DnsDiscovery>,
    answers: Mutex<HashMap<DnsTarget, Vec<IpAddr>>>,
    /// Names that were not answered yet, not even by a failure.
    waiting: Mutex<usize>,
}

/// Looks the names up from now on. `looked_up` is called when each has had its first answer.
pub fn start(
    cluster: &Arc<Cluster>,
    discovery: &Arc<DnsDiscovery>,
    tasks: &Tasks,
    looked_up: impl FnOnce() + Send + 'static,
) {
    let targets: Vec<DnsTarget> = {
        let mut seen = std::collections::HashSet::new();
        let all = discovery.assignment.endpoints().map(|endpoint| endpoint.address.clone());
        all.filter(|target| seen.insert(target.clone())).collect()
    };
    let resolver = Arc::new(Resolver::new(&discovery.resolver, discovery.lookup_family));
    if targets.is_empty() {
        return looked_up();
    }
    let found =
        Arc::new(Found { discovery: discovery.clone(), answers: Mutex::default(), waiting: Mutex::new(targets.len()) });
    let looked_up = Arc::new(Mutex::new(Some(Box::new(looked_up) as Box<dyn FnOnce() + Send>)));
    for target in targets {
        let refreshing = Refreshing {
            cluster: Arc::downgrade(cluster),
            found: found.clone(),
            resolver: resolver.clone(),
            target,
            failures: 0,
        };
        tasks.spawn(refreshing.run(looked_up.clone()));
    }
}

/// What the names of a cluster stand for now, each address once, in the order of the configuration.
pub async fn addresses(discovery: &DnsDiscovery) -> Result<Vec<SocketAddr>, LookupError> {
    let resolver = Resolver::new(&discovery.resolver, discovery.lookup_family);
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut failure = None;
    for endpoint in discovery.assignment.endpoints() {
        match resolver.look_up(&endpoint.address.host).await {
            Ok(answer) => {
                let answered = with_port(&answer.addresses, endpoint.address.port);
                found.extend(answered.into_iter().filter(|address| !found.contains(address)).collect::<Vec<_>>());
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        Some(_) | None => Ok(found),
    }
}

/// One name, looked up again and again.
struct Refreshing {
    cluster: Weak<Cluster>,
    found: Arc<Found>,
    resolver: Arc<Resolver>,
    target: DnsTarget,
    /// In a row.
    failures: u32,
}

type LookedUp = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Of back-off after failures: doubling more often than this changes nothing.
const FAILURES_MAX: u32 = 16;

impl Refreshing {
    /// Until the cluster is gone.
    async fn run(mut self, looked_up: LookedUp) {
        let mut first = true;
        loop {
            let answer = self.resolver.look_up(&self.target.host).await;
            let Some(cluster) = self.cluster.upgrade() else { return };
            cluster.count_on_main_thread(ClusterStat::UpdateAttempt);
            let pause = match answer {
                Ok(answer) => {
                    self.failures = 0;
                    self.answered(&cluster, &answer);
                    self.pause_after(&answer)
                }
                Err(error) => {
                    cluster.count_on_main_thread(ClusterStat::UpdateFailure);
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(cluster = %cluster.config.name, error, "the last good answer stays");
                    self.failures = (self.failures + 1).min(FAILURES_MAX);
                    self.pause_after_failure()
                }
            };
            drop(cluster);
            if std::mem::take(&mut first) {
                self.first_answer(&looked_up);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn first_answer(&self, looked_up: &LookedUp) {
        let mut waiting = self.found.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting -= 1;
        if *waiting == 0
            && let Some(looked_up) = looked_up.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            looked_up();
        }
    }

    fn answered(&self, cluster: &Cluster, answer: &Answer) {
        cluster.count_on_main_thread(ClusterStat::AssignmentUpdate);
        if answer.addresses.is_empty() {
            cluster.count_on_main_thread(ClusterStat::UpdateEmpty);
        }
        let mut answers = self.found.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match answers.insert(self.target.clone(), answer.addresses.clone()) {
            None => true,
            // Servers answer in turning order: for hosts that is no change.
            Some(before) if self.found.discovery.hosts == DnsHosts::Each => {
                before.len() != answer.addresses.len() || before.iter().any(|known| !answer.addresses.contains(known))
            }
            Some(before) => before != answer.addresses,
        };
        if !changed {
            return cluster.count_on_main_thread(ClusterStat::UpdateNoRebuild);
        }
        if self.found.discovery.hosts == DnsHosts::Logical
            && cluster.move_logical_host(&with_port(&answer.addresses, self.target.port))
        {
            return;
        }
        cluster.update_endpoints(&self.found.discovery.resolved(&answers));
        cluster.announce_hosts();
    }

    fn pause_after(&self, answer: &Answer) -> Duration {
        let discovery = &self.found.discovery;
        let pause = match answer.ttl {
            Some(ttl) if discovery.respect_ttl && !ttl.is_zero() => ttl.max(discovery.min_refresh_rate),
            _ => discovery.refresh_rate,
        };
        pause + discovery.jitter.mul_f64(fastrand::f64())
    }

    /// Jittered, doubling.
    fn pause_after_failure(&self) -> Duration {
        let discovery = &self.found.discovery;
        match discovery.failure_refresh_rate {
            None => discovery.refresh_rate + discovery.jitter.mul_f64(fastrand::f64()),
            Some((base, max)) => {
                let longest = base.saturating_mul(1 << (self.failures - 1)).min(max);
                longest.mul_f64(fastrand::f64()).max(Duration::from_millis(1))
            }
        }
    }
}

impl DnsDiscovery {
    /// The endpoints with addresses in the place of names.
    fn resolved(&self, answers: &HashMap<DnsTarget, Vec<IpAddr>>) -> LoadAssignment {
        let locality = |locality: &LocalityEndpoints<DnsTarget>| LocalityEndpoints {
            locality: locality.locality.clone(),
            load_balancing_weight: locality.load_balancing_weight,
            endpoints: locality
                .endpoints
                .iter()
                .flat_map(|endpoint| {
                    let addresses = answers.get(&endpoint.address).map(Vec::as_slice).unwrap_or_default();
                    self.endpoints_of(endpoint, addresses)
                })
                .collect(),
        };
        LoadAssignment {
            priorities: self.assignment.priorities.iter().map(|level| level.iter().map(locality).collect()).collect(),
            overprovisioning_factor: self.assignment.overprovisioning_factor,
            weighted_priority_health: self.assignment.weighted_priority_health,
        }
    }

    fn endpoints_of(&self, endpoint: &Endpoint<DnsTarget>, addresses: &[IpAddr]) -> Vec<Endpoint> {
        let port = endpoint.address.port;
        let hostname =
            if endpoint.hostname.is_empty() { endpoint.address.host.clone() } else { endpoint.hostname.clone() };
        let at = |address: SocketAddr, additional_addresses: Arc<[SocketAddr]>| Endpoint {
            address,
            additional_addresses,
            hostname: hostname.clone(),
            metadata: endpoint.metadata.clone(),
            load_balancing_weight: endpoint.load_balancing_weight,
            health_status: endpoint.health_status,
            health_check: endpoint.health_check.clone(),
        };
        match self.hosts {
            DnsHosts::Each => {
                addresses.iter().map(|address| at(SocketAddr::new(*address, port), Arc::default())).collect()
            }
            DnsHosts::Logical | DnsHosts::Together => {
                let addresses = with_port(addresses, port);
                let first = addresses.first().copied();
                first.map(|first| at(first, addresses[1..].into())).into_iter().collect()
            }
        }
    }
}

/// One host's addresses, to be tried in order.
fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
}

#[cfg(test)]
mod tests;
