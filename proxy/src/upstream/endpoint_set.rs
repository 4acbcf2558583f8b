//! The hosts of a cluster as the load balancer reads them: built from a load assignment, published whole, never changed.
//!
//! Invariant: a host that stays (same address, same description) stays the same object, so its counters, health and pools
//! live on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{
    config::{
        cluster::{LoadBalancing, LocalityPolicy},
        endpoint::{Endpoint, HealthStatus, LoadAssignment, Locality},
    },
    upstream::{
        host::{HealthFlag, Host},
        levels::{Levels, LocalityWeights, Shape},
        load_balancer::Subsets,
    },
};

/// A host's place in one set: what may change while the host stays.
#[derive(Clone)]
pub struct Member {
    pub host: Arc<Host>,
    pub weight: u32,
    /// What the configuration says.
    pub health_status: HealthStatus,
    /// Together with what was found out.
    pub health: HealthStatus,
    pub locality: Arc<Locality>,
    pub priority: usize,
}

pub struct EndpointSet {
    /// By priority and locality, in the order of the assignment; addresses are unique.
    pub members: Vec<Member>,
    shape: Shape,
    /// Filled when somebody asks for a host by its address.
    by_address: OnceLock<HashMap<SocketAddr, u32>>,
    pub whole: Levels,
    pub subsets: Option<Subsets>,
}

impl EndpointSet {
    /// `stays`: whether a host that is no longer among the endpoints does all the same.
    pub fn new(
        assignment: &LoadAssignment,
        balancing: &LoadBalancing,
        previous: Option<&EndpointSet>,
        new_host: impl Fn(&Endpoint) -> Arc<Host>,
        stays: impl Fn(&Member) -> bool,
    ) -> EndpointSet {
        let known: HashMap<SocketAddr, &Arc<Host>> = previous
            .into_iter()
            .flat_map(|set| &set.members)
            .map(|member| (member.host.address, &member.host))
            .collect();
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        let mut locality_weights = Vec::new();
        for (priority, localities) in assignment.priorities.iter().enumerate() {
            let mut weights = BTreeMap::new();
            for locality in localities {
                weights.insert(locality.locality.clone(), locality.load_balancing_weight);
                let name = Arc::new(locality.locality.clone());
                for endpoint in &locality.endpoints {
                    // An address given twice counts once, as in Envoy.
                    if seen.insert(endpoint.address) {
                        let host = match known.get(&endpoint.address) {
                            Some(host) if host.is_still(endpoint) => Arc::clone(host),
                            _ => new_host(endpoint),
                        };
                        members.push(Member {
                            weight: endpoint.load_balancing_weight,
                            health_status: endpoint.health_status,
                            health: endpoint.health_status,
                            locality: name.clone(),
                            priority,
                            host,
                        });
                    }
                }
            }
            locality_weights.push(weights);
        }
        for member in previous.into_iter().flat_map(|set| &set.members) {
            let host = &member.host;
            if seen.contains(&host.address) {
                host.clear(HealthFlag::PendingRemoval);
            } else if stays(member) {
                host.set(HealthFlag::PendingRemoval);
                if locality_weights.len() <= member.priority {
                    locality_weights.resize_with(member.priority + 1, BTreeMap::new);
                }
                members.push(member.clone());
            }
        }
        let shape = Shape {
            locality_weights,
            overprovisioning_factor: assignment.overprovisioning_factor,
            weighted_priority_health: assignment.weighted_priority_health,
        };
        EndpointSet::of(members, shape, balancing)
    }

    pub fn empty(balancing: &LoadBalancing) -> EndpointSet {
        EndpointSet::of(Vec::new(), Shape::default(), balancing)
    }

    /// The same hosts with the health that they have now. One that only its health has kept may go.
    pub fn reassessed(&self, balancing: &LoadBalancing) -> EndpointSet {
        let goes = |member: &Member| member.host.has(HealthFlag::PendingRemoval) && member.host.has_failed();
        let members = self.members.iter().filter(|member| !goes(member)).cloned().collect();
        EndpointSet::of(members, self.shape.clone(), balancing)
    }

    fn of(mut members: Vec<Member>, shape: Shape, balancing: &LoadBalancing) -> EndpointSet {
        for member in &mut members {
            member.health = member.host.health(member.health_status);
            if balancing.slow_start.is_some()
                && member.health == HealthStatus::Healthy
                && member.host.healthy_since().is_none()
            {
                member.host.set_healthy_since(Instant::now());
            }
        }
        let weights = match balancing.localities {
            LocalityPolicy::Weighted => LocalityWeights::Kept,
            LocalityPolicy::ZoneAware(_) => LocalityWeights::Ignored,
        };
        EndpointSet {
            whole: Levels::new(&members, 0..members.len() as u32, &shape, balancing, weights),
            subsets: Subsets::new(&members, &shape, balancing),
            members,
            shape,
            by_address: OnceLock::new(),
        }
    }

    /// The member at an address, if it can take requests.
    pub fn usable_at(&self, address: SocketAddr) -> Option<u32> {
        let index = || (0..).zip(&self.members).map(|(at, member)| (member.host.address, at)).collect();
        let at = *self.by_address.get_or_init(index).get(&address)?;
        (self.members[at as usize].health != HealthStatus::Unhealthy).then_some(at)
    }

    /// Whether the hosts are others than those of `other`.
    pub fn has_other_hosts(&self, other: &EndpointSet) -> bool {
        self.members.len() != other.members.len() || {
            let ids: HashSet<u64> = other.members.iter().map(|member| member.host.id).collect();
            self.members.iter().any(|member| !ids.contains(&member.host.id))
        }
    }

    pub fn count(&self, health: HealthStatus) -> usize {
        self.members.iter().filter(|member| member.health == health).count()
    }

    pub fn excluded_count(&self) -> usize {
        self.members.iter().filter(|member| member.host.is_excluded()).count()
    }
}

#[cfg(test)]
mod tests;
