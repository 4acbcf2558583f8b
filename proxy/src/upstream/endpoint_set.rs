//! The hosts of a cluster as the load balancer reads them: built from a load assignment, published whole, never changed.
//!
//! Invariant: a host that stays (same address) stays the same object, so its counters and pools live on.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    config::endpoint::{Endpoint, HealthStatus, LoadAssignment, Locality},
    stats::{HostStat, Sharded},
};

pub struct Host {
    /// Unique in the process.
    pub id: u64,
    pub address: SocketAddr,
    pub hostname: Arc<str>,
    pub stats: Sharded<HostStat>,
}

/// A host's place in one set: what may change while the host stays.
#[derive(Clone)]
pub struct Member {
    pub host: Arc<Host>,
    pub weight: u32,
    pub health_status: HealthStatus,
    pub locality: Locality,
    pub priority: usize,
}

#[derive(Default)]
pub struct EndpointSet {
    /// By priority and locality, in the order of the assignment; addresses are unique.
    pub members: Vec<Member>,
    pub priorities: Vec<Priority>,
}

/// Indices into `members`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    pub all: Vec<usize>,
    pub healthy: Vec<usize>,
    pub degraded: Vec<usize>,
    /// Share of the cluster's load in percent, for healthy and for degraded hosts.
    pub healthy_load: u32,
    pub degraded_load: u32,
    /// Too few healthy hosts: all take part.
    pub in_panic: bool,
    /// Every host of `healthy` weighs the same.
    pub equal_weights: bool,
}

impl Host {
    pub fn new(address: SocketAddr, hostname: Arc<str>, shards: usize) -> Arc<Host> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Host { id: NEXT_ID.fetch_add(1, Relaxed), address, hostname, stats: Sharded::new(shards) })
    }
}

impl EndpointSet {
    /// `shards`: how many threads count.
    pub fn new(assignment: &LoadAssignment, previous: &EndpointSet, shards: usize) -> EndpointSet {
        let known: HashMap<SocketAddr, &Arc<Host>> =
            previous.members.iter().map(|member| (member.host.address, &member.host)).collect();
        let mut set = EndpointSet::default();
        let mut seen = std::collections::HashSet::new();
        for (priority, localities) in assignment.priorities.iter().enumerate() {
            let mut members = Priority::default();
            for locality in localities {
                for endpoint in &locality.endpoints {
                    // An address given twice counts once, as in Envoy.
                    if seen.insert(endpoint.address) {
                        members.all.push(set.members.len());
                        let host = match known.get(&endpoint.address) {
                            Some(host) if host.hostname == endpoint.hostname => Arc::clone(host),
                            _ => Host::new(endpoint.address, endpoint.hostname.clone(), shards),
                        };
                        set.members.push(member(host, endpoint, &locality.locality, priority));
                    }
                }
            }
            set.priorities.push(members);
        }
        set.share_load(assignment.overprovisioning_factor);
        set
    }

    /// Envoy's priority levels: each takes what its health allows, over-provisioned, the rest flows to the next; degraded
    /// hosts come after every healthy one.
    fn share_load(&mut self, overprovisioning_factor: u32) {
        let factor = u64::from(overprovisioning_factor);
        let mut healthy_share = Vec::new();
        let mut degraded_share = Vec::new();
        for priority in &mut self.priorities {
            let of = |status| {
                let members = &self.members;
                priority.all.iter().copied().filter(move |&at| members[at].health_status == status)
            };
            priority.healthy = of(HealthStatus::Healthy).collect();
            priority.degraded = of(HealthStatus::Degraded).collect();
            let total = priority.all.len() as u64;
            let share = |count: usize| (factor * count as u64).checked_div(total).unwrap_or(0).min(100) as u32;
            healthy_share.push(share(priority.healthy.len()));
            degraded_share.push(share(priority.degraded.len()));
            let weights = || priority.healthy.iter().map(|&at| self.members[at].weight);
            priority.equal_weights = weights().min() == weights().max();
        }
        let available: u32 = healthy_share.iter().chain(&degraded_share).sum::<u32>().min(100);
        for priority in &mut self.priorities {
            let usable = priority.healthy.len() + priority.degraded.len();
            // Panic only matters when the levels together cannot carry the load.
            priority.in_panic = available < 100 && usable * 100 < priority.all.len() * PANIC_THRESHOLD_PERCENT;
        }
        if available == 0 {
            self.share_load_in_total_panic();
            return;
        }
        let mut left = 100;
        let normalized = |share: u32| (share * 100).div_ceil(available).min(100);
        for (priority, share) in self.priorities.iter_mut().zip(&healthy_share) {
            priority.healthy_load = normalized(*share).min(left);
            left -= priority.healthy_load;
        }
        for (priority, share) in self.priorities.iter_mut().zip(&degraded_share) {
            priority.degraded_load = normalized(*share).min(left);
            left -= priority.degraded_load;
        }
        if left > 0
            && let Some(first) = self.priorities.iter_mut().find(|p| p.healthy_load > 0)
        {
            first.healthy_load += left; // what rounding lost
        }
    }

    /// Nobody is healthy: load by the number of hosts, everyone takes part.
    fn share_load_in_total_panic(&mut self) {
        let total = self.members.len() as u32;
        let mut left = 100;
        for priority in &mut self.priorities {
            priority.in_panic = true;
            priority.healthy_load = (priority.all.len() as u32 * 100).checked_div(total).unwrap_or(0);
            left -= priority.healthy_load;
        }
        if total > 0
            && let Some(first) = self.priorities.iter_mut().find(|p| p.healthy_load > 0)
        {
            first.healthy_load += left;
        }
    }
}

/// `common_lb_config.healthy_panic_threshold`'s default.
const PANIC_THRESHOLD_PERCENT: usize = 50;

fn member(host: Arc<Host>, endpoint: &Endpoint, locality: &Locality, priority: usize) -> Member {
    let Endpoint { address: _, hostname: _, load_balancing_weight, health_status } = endpoint;
    Member { host, weight: *load_balancing_weight, health_status: *health_status, locality: locality.clone(), priority }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::endpoint::LocalityEndpoints;

    fn endpoint(port: u16, health_status: HealthStatus) -> Endpoint {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        Endpoint { address, hostname: "".into(), load_balancing_weight: 1, health_status }
    }

    fn assignment(priorities: &[&[(u16, HealthStatus)]]) -> LoadAssignment {
        let locality = |hosts: &&[(u16, HealthStatus)]| {
            vec![LocalityEndpoints {
                locality: Locality::default(),
                load_balancing_weight: 1,
                endpoints: hosts.iter().map(|&(port, health)| endpoint(port, health)).collect(),
            }]
        };
        LoadAssignment { priorities: priorities.iter().map(locality).collect(), overprovisioning_factor: 140 }
    }

    fn loads(priorities: &[&[(u16, HealthStatus)]]) -> Vec<(u32, u32, bool)> {
        let set = EndpointSet::new(&assignment(priorities), &EndpointSet::default(), 1);
        set.priorities.iter().map(|p| (p.healthy_load, p.degraded_load, p.in_panic)).collect()
    }

    const H: HealthStatus = HealthStatus::Healthy;
    const U: HealthStatus = HealthStatus::Unhealthy;
    const D: HealthStatus = HealthStatus::Degraded;

    #[test]
    fn load_spills_to_the_next_priority_when_health_falls() {
        assert_eq!(loads(&[&[(1, H), (2, H)], &[(3, H)]]), [(100, 0, false), (0, 0, false)]);
        assert_eq!(loads(&[&[(1, H), (2, U)], &[(3, H)]]), [(70, 0, false), (30, 0, false)]);
        assert_eq!(loads(&[&[(1, U), (2, U)], &[(3, H)]]), [(0, 0, false), (100, 0, false)]);
        assert_eq!(loads(&[&[(1, U), (2, D)]]), [(0, 100, false)]);
    }

    #[test]
    fn with_nobody_healthy_everyone_takes_part() {
        assert_eq!(loads(&[&[(1, U)], &[(2, U), (3, U), (4, U)]]), [(25, 0, true), (75, 0, true)]);
        assert_eq!(loads(&[&[(1, H), (2, U), (3, U), (4, U)]]), [(100, 0, true)]);
        assert_eq!(loads(&[]), []);
        assert_eq!(loads(&[&[]]), [(0, 0, true)]);
    }

    #[test]
    fn a_host_that_stays_is_the_same_object_and_doubles_count_once() {
        let first = EndpointSet::new(&assignment(&[&[(1, H), (2, H)]]), &EndpointSet::default(), 1);
        let second = EndpointSet::new(&assignment(&[&[(3, H), (2, U), (2, H)]]), &first, 1);
        assert_eq!(second.members.len(), 2);
        assert!(Arc::ptr_eq(&first.members[1].host, &second.members[1].host));
        assert_eq!(second.members[1].health_status, U);
    }
}
