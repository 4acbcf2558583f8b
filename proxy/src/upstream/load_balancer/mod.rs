//! Choosing a host: pure functions over an endpoint set, a random source and what this worker remembers.

mod least_request;
mod random;
mod round_robin;

use crate::{
    config::cluster::LbPolicy,
    upstream::endpoint_set::{EndpointSet, Priority},
};

/// What one worker remembers of one endpoint set.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    round_robin: Vec<round_robin::Cursor>,
}

impl LoadBalancer {
    /// Of a new endpoint set: rotations start at random places, so that workers and proxies don't move in step.
    pub fn new(set: &EndpointSet, random: &mut fastrand::Rng) -> LoadBalancer {
        LoadBalancer { round_robin: set.priorities.iter().map(|_| round_robin::Cursor::new(random)).collect() }
    }

    /// An index into `set.members`, or None when there is no host to take. `active` tells the requests that a member has
    /// under way.
    pub fn choose(
        &mut self,
        policy: LbPolicy,
        set: &EndpointSet,
        random: &mut fastrand::Rng,
        active: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let (level, candidates) = choose_priority(set, random)?;
        let weight = |member: usize| set.members[member].weight;
        match policy {
            LbPolicy::RoundRobin => {
                self.round_robin[level].next(candidates, set.priorities[level].equal_weights, weight)
            }
            LbPolicy::LeastRequest { choice_count } => {
                least_request::choose(candidates, choice_count, weight, active, random)
            }
            LbPolicy::Random => random::choose(candidates, random),
            LbPolicy::ClusterProvided => None,
        }
    }
}

/// The priority by its share of the load, and its hosts that take part.
fn choose_priority<'a>(set: &'a EndpointSet, random: &mut fastrand::Rng) -> Option<(usize, &'a [usize])> {
    let part = |level: usize, priority: &'a Priority, degraded: bool| {
        let candidates = match (priority.in_panic, degraded) {
            (true, _) => &priority.all,
            (false, true) => &priority.degraded,
            (false, false) => &priority.healthy,
        };
        (!candidates.is_empty()).then_some((level, &candidates[..]))
    };
    if let [only] = &set.priorities[..]
        && only.degraded_load == 0
    {
        return part(0, only, false);
    }
    let mut left = random.u32(0..100);
    for (level, priority) in set.priorities.iter().enumerate() {
        if left < priority.healthy_load {
            return part(level, priority, false);
        }
        left -= priority.healthy_load;
    }
    for (level, priority) in set.priorities.iter().enumerate() {
        if left < priority.degraded_load {
            return part(level, priority, true);
        }
        left -= priority.degraded_load;
    }
    None
}

#[cfg(test)]
mod tests;
