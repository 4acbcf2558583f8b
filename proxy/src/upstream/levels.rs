//! Hosts as a load balancer chooses among them: by priority, availability and locality, with each part's share of the
//! load. Built on the main thread for a whole cluster and for each of its subsets, published whole, never changed. Pure.
//!
//! Invariants: there is always a priority 0, if an empty one; the shares of all priorities sum to 100.

use std::collections::BTreeMap;

use crate::{
    config::{
        cluster::{LbPolicy, LoadBalancing},
        endpoint::{HealthStatus, Locality},
    },
    upstream::{
        endpoint_set::Member,
        load_balancer::{HashTable, LevelWeights},
    },
};

pub struct Levels {
    pub levels: Vec<Level>,
}

/// A priority.
#[derive(Default)]
pub struct Level {
    pub all: Hosts,
    pub healthy: Hosts,
    pub degraded: Hosts,
    /// Hosts that do not count where shares are looked at.
    pub excluded: usize,
    excluded_weight: u64,
    pub summary: Summary,
    pub share: Share,
    /// In the order of their names. Empty unless localities count.
    pub localities: Vec<LevelLocality>,
    /// Of ring hash and maglev.
    pub table: Option<HashTable>,
}

/// How well a priority is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How much of the load its healthy and its degraded hosts could take, in percent.
    healthy: u32,
    degraded: u32,
    hosts: usize,
    /// Without those that are excluded.
    counted: usize,
    usable: usize,
}

/// A priority's part of the cluster's load in percent, for healthy and for degraded hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub healthy: u32,
    pub degraded: u32,
    /// Too few healthy hosts: all take part.
    pub in_panic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Healthy,
    Degraded,
}

/// Some hosts: indices into the members of the endpoint set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    pub members: Vec<u32>,
    pub equal_weights: bool,
}

pub struct LevelLocality {
    pub locality: Locality,
    pub all: Hosts,
    pub healthy: Hosts,
    pub degraded: Hosts,
    pub excluded: usize,
    /// Of the configuration.
    pub weight: f64,
    /// What is left of it by the availability of its hosts.
    pub healthy_weight: f64,
    pub degraded_weight: f64,
}

/// What stands in the assignment beside its hosts.
#[derive(Clone, Debug)]
pub struct Shape {
    /// By priority: weights of localities.
    pub locality_weights: Vec<BTreeMap<Locality, u32>>,
    pub overprovisioning_factor: u32,
    pub weighted_priority_health: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { locality_weights: Vec::new(), overprovisioning_factor: 140, weighted_priority_health: false }
    }
}

/// How localities count in one cluster or subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalityWeights {
    Ignored,
    /// As they are configured.
    Kept,
    /// By the share of a locality's hosts that take part at all.
    Scaled,
}

impl Levels {
    /// `scope`: the members that take part, in order.
    pub fn new(
        members: &[Member],
        scope: impl IntoIterator<Item = u32>,
        shape: &Shape,
        balancing: &LoadBalancing,
        weights: LocalityWeights,
    ) -> Levels {
        let mut levels: Vec<Level> = Vec::new();
        levels.resize_with(shape.locality_weights.len().max(1), Level::default);
        for index in scope {
            let member = &members[index as usize];
            let level = &mut levels[member.priority];
            level.all.members.push(index);
            match member.health {
                HealthStatus::Healthy => level.healthy.members.push(index),
                HealthStatus::Degraded => level.degraded.members.push(index),
                HealthStatus::Unhealthy => {}
            }
            if member.host.is_excluded() {
                level.excluded += 1;
                level.excluded_weight += u64::from(member.weight);
            }
        }
        for level in &mut levels {
            for hosts in [&mut level.all, &mut level.healthy, &mut level.degraded] {
                hosts.compare_weights(members);
            }
        }
        if weights != LocalityWeights::Ignored {
            for (level, configured) in levels.iter_mut().zip(&shape.locality_weights) {
                level.localities = localities(level, members, configured, shape.overprovisioning_factor, weights);
            }
        }
        let mut levels = Levels { levels };
        levels.share_load(members, shape, balancing.panic_threshold_percent);
        levels.build_tables(members, balancing, weights);
        levels
    }

    fn share_load(&mut self, members: &[Member], shape: &Shape, panic_threshold_percent: u32) {
        for level in &mut self.levels {
            level.summary = level.summarize(members, shape);
        }
        let summaries: Vec<Summary> = self.levels.iter().map(|level| level.summary).collect();
        for (level, share) in self.levels.iter_mut().zip(share_load(&summaries, panic_threshold_percent)) {
            level.share = share;
        }
    }

    fn build_tables(&mut self, members: &[Member], balancing: &LoadBalancing, weights: LocalityWeights) {
        if !matches!(balancing.policy, LbPolicy::RingHash(_) | LbPolicy::Maglev(_)) {
            return;
        }
        for level in &mut self.levels {
            let weights = LevelWeights::of(level, members, weights != LocalityWeights::Ignored);
            level.table = HashTable::new(&balancing.policy, members, weights);
        }
    }
}

impl Level {
    fn summarize(&self, members: &[Member], shape: &Shape) -> Summary {
        let weigh = |hosts: &Hosts| {
            if shape.weighted_priority_health {
                hosts.members.iter().map(|&at| u64::from(members[at as usize].weight)).sum::<u64>()
            } else {
                hosts.members.len() as u64
            }
        };
        let excluded = if shape.weighted_priority_health { self.excluded_weight } else { self.excluded as u64 };
        let total = weigh(&self.all).saturating_sub(excluded);
        let factor = u64::from(shape.overprovisioning_factor);
        let available = |hosts: &Hosts| (factor * weigh(hosts)).checked_div(total).unwrap_or(0).min(100) as u32;
        Summary {
            healthy: available(&self.healthy),
            degraded: available(&self.degraded),
            hosts: self.all.members.len(),
            counted: self.all.members.len().saturating_sub(self.excluded),
            usable: self.healthy.members.len() + self.degraded.members.len(),
        }
    }
}

impl Summary {
    fn is_below(&self, threshold_percent: u32) -> bool {
        // An empty priority is below anything.
        self.counted == 0 && threshold_percent > 0 || self.usable * 100 < self.counted * threshold_percent as usize
    }
}

/// Envoy's priority levels: each takes what its health allows, over-provisioned, the rest flows to the next; degraded
/// hosts come after every healthy one. At least one level.
pub fn share_load(levels: &[Summary], panic_threshold_percent: u32) -> Vec<Share> {
    let mut shares = vec![Share::default(); levels.len()];
    let available = levels.iter().map(|level| level.healthy + level.degraded).sum::<u32>().min(100);
    if available > 0 {
        distribute(levels, available, &mut shares);
    }
    if panic_threshold_percent == 0 && available == 0 {
        shares[0].healthy = 100; // to nobody: none is healthy, and none else may be taken
        return shares;
    }
    for (level, share) in levels.iter().zip(&mut shares) {
        share.in_panic = available < 100 && level.is_below(panic_threshold_percent);
    }
    if shares.iter().all(|share| share.in_panic) {
        distribute_in_total_panic(levels, &mut shares);
    }
    shares
}

/// The shares without some of the levels. None: nobody is left.
pub fn share_load_without(levels: &[Level], passed_over: &[bool]) -> Option<Vec<Share>> {
    let left = |(at, level): (usize, &Level)| match passed_over.get(at) {
        Some(true) => Summary { healthy: 0, degraded: 0, ..level.summary },
        _ => level.summary,
    };
    let summaries: Vec<Summary> = levels.iter().enumerate().map(left).collect();
    let available = summaries.iter().map(|level| level.healthy + level.degraded).sum::<u32>().min(100);
    if available == 0 {
        return None;
    }
    let mut shares = vec![Share::default(); levels.len()];
    distribute(&summaries, available, &mut shares);
    Some(shares)
}

fn distribute(levels: &[Summary], available: u32, shares: &mut [Share]) {
    let mut left = 100;
    for (level, share) in levels.iter().zip(&mut *shares) {
        share.healthy = (level.healthy * 100 / available).min(left);
        left -= share.healthy;
    }
    for (level, share) in levels.iter().zip(&mut *shares) {
        share.degraded = (level.degraded * 100 / available).min(left);
        left -= share.degraded;
    }
    // What rounding lost.
    if let Some(first) = levels.iter().position(|level| level.healthy > 0) {
        shares[first].healthy += left;
    } else if let Some(first) = levels.iter().position(|level| level.degraded > 0) {
        shares[first].degraded += left;
    }
}

/// Nowhere is enough healthy: load by the number of hosts, everyone takes part.
fn distribute_in_total_panic(levels: &[Summary], shares: &mut [Share]) {
    let total: usize = levels.iter().map(|level| level.hosts).sum();
    let mut left = 100;
    for (level, share) in levels.iter().zip(&mut *shares) {
        share.healthy = (100 * level.hosts).checked_div(total).unwrap_or(0) as u32;
        share.degraded = 0;
        left -= share.healthy;
    }
    let first = levels.iter().position(|level| level.hosts > 0).unwrap_or(0);
    shares[first].healthy += left;
}

/// Which level a draw of 0 to 99 falls on.
pub fn level_of(shares: impl Iterator<Item = Share> + Clone, drawn: u32) -> (usize, Availability) {
    let mut left = drawn;
    for (at, share) in shares.clone().enumerate() {
        if left < share.healthy {
            return (at, Availability::Healthy);
        }
        left -= share.healthy;
    }
    for (at, share) in shares.enumerate() {
        if left < share.degraded {
            return (at, Availability::Degraded);
        }
        left -= share.degraded;
    }
    unreachable!("the shares of all priorities sum to 100")
}

impl Hosts {
    fn compare_weights(&mut self, members: &[Member]) {
        let mut weights = self.members.iter().map(|&at| members[at as usize].weight);
        let first = weights.next();
        self.equal_weights = weights.all(|weight| Some(weight) == first);
        self.members.shrink_to_fit();
    }
}

/// A level's hosts by locality, with the weights that are left of the configured ones.
fn localities(
    level: &Level,
    members: &[Member],
    configured: &BTreeMap<Locality, u32>,
    overprovisioning_factor: u32,
    weights: LocalityWeights,
) -> Vec<LevelLocality> {
    let mut by_name: BTreeMap<&Locality, LevelLocality> = configured
        .iter()
        .map(|(locality, weight)| (locality, LevelLocality::new(locality, f64::from(*weight))))
        .collect();
    for &index in &level.all.members {
        let member = &members[index as usize];
        let Some(locality) = by_name.get_mut(&*member.locality) else { continue };
        locality.all.members.push(index);
        match member.health {
            HealthStatus::Healthy => locality.healthy.members.push(index),
            HealthStatus::Degraded => locality.degraded.members.push(index),
            HealthStatus::Unhealthy => {}
        }
        locality.excluded += usize::from(member.host.is_excluded());
    }
    let mut localities: Vec<LevelLocality> = by_name.into_values().collect();
    for locality in &mut localities {
        if weights == LocalityWeights::Scaled {
            locality.scale(members);
        }
        for hosts in [&mut locality.all, &mut locality.healthy, &mut locality.degraded] {
            hosts.compare_weights(members);
        }
        locality.healthy_weight = locality.effective_weight(&locality.healthy, overprovisioning_factor);
        locality.degraded_weight = locality.effective_weight(&locality.degraded, overprovisioning_factor);
    }
    localities
}

impl LevelLocality {
    fn new(locality: &Locality, weight: f64) -> LevelLocality {
        LevelLocality {
            locality: locality.clone(),
            all: Hosts::default(),
            healthy: Hosts::default(),
            degraded: Hosts::default(),
            excluded: 0,
            weight,
            healthy_weight: 0.0,
            degraded_weight: 0.0,
        }
    }

    /// A subset's part of the locality takes the same part of its weight.
    fn scale(&mut self, members: &[Member]) {
        let Some(&first) = self.all.members.first() else { return };
        let first = &members[first as usize];
        let whole =
            members.iter().filter(|member| member.priority == first.priority && member.locality == first.locality);
        let share = self.all.members.len() as f64 / whole.count() as f64;
        if self.weight > 0.0 {
            self.weight = (self.weight * share).round().max(1.0);
        }
    }

    fn effective_weight(&self, usable: &Hosts, overprovisioning_factor: u32) -> f64 {
        let counted = self.all.members.len().saturating_sub(self.excluded);
        if counted == 0 {
            return 0.0;
        }
        let availability = usable.members.len() as f64 / counted as f64;
        self.weight * (f64::from(overprovisioning_factor) / 100.0 * availability).min(1.0)
    }
}
