//! Choosing a host: pure functions over an endpoint set, a random source and what this worker remembers.

mod edf;
mod hash_table;
mod least_request;
mod maglev;
mod mt19937;
mod ring_hash;
mod rotation;
mod subset;

use std::{collections::HashMap, net::SocketAddr, time::Instant};

pub use hash_table::{HashTable, LevelWeights, TableSizes};
pub use subset::Subsets;

use self::{edf::Edf, hash_table::Load, rotation::Rotation, subset::Source};
use crate::{
    config::{
        cluster::{LbPolicy, LoadBalancing, SlowStart},
        metadata::Fields,
    },
    stats::ClusterStat,
    upstream::{
        endpoint_set::{EndpointSet, Member},
        levels::{Availability, Hosts, Level, Levels, level_of, share_load_without},
    },
};

/// What one worker remembers of a cluster's endpoints: where its rotations stand.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    whole: Vec<LevelState>,
    /// By the number of the subset; filled as they are chosen from.
    subsets: HashMap<usize, Vec<LevelState>>,
}

#[derive(Debug)]
struct LevelState {
    all: Rotation,
    healthy: Rotation,
    degraded: Rotation,
    localities: Vec<LocalityState>,
    /// Turns of localities, by the weight of their healthy and of their degraded hosts.
    healthy_turns: Option<Edf>,
    degraded_turns: Option<Edf>,
}

#[derive(Debug)]
struct LocalityState {
    healthy: Rotation,
    degraded: Rotation,
}

/// A host that was asked for by its address.
#[derive(Clone, Copy, Debug)]
pub struct OverrideHost {
    /// None: what was said is no address.
    pub address: Option<SocketAddr>,
    /// No other will do.
    pub strict: bool,
}

/// The request that a host is for.
#[derive(Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Of the route's hash policy.
    pub hash: Option<u64>,
    /// What the route asks of a host's metadata.
    pub metadata_match: Option<&'a Fields>,
    /// How many chosen hosts may be refused before one is taken all the same.
    pub reselections: u32,
    /// Where the connection was going, or where a header says that the request is to go. Only clusters of original
    /// destinations look at it.
    pub original_destination: Option<SocketAddr>,
    /// The priority, where another cluster has chosen it.
    pub level: Option<(usize, Availability)>,
    /// Priorities, by their number, that tries before this one have had no luck with.
    pub passed_over: &'a [bool],
    /// The host, whatever the policy would say. Looked at before the load balancer.
    pub override_host: Option<OverrideHost>,
}

/// The one who wants a host, and who knows what is under way.
pub trait Chooser {
    /// Requests under way from this worker.
    fn active(&self, member: u32) -> u32;
    /// A host that was tried already.
    fn refuses(&self, member: u32) -> bool;
    fn count(&self, stat: ClusterStat);
    /// Requests under way from all workers: to a host, and to the cluster.
    fn active_everywhere(&self, member: u32) -> u64;
    fn cluster_active_everywhere(&self) -> u64;
}

/// What a choice goes by, together.
struct Choosing<'a, C> {
    balancing: &'a LoadBalancing,
    members: &'a [Member],
    now: Option<Instant>,
    chooser: &'a C,
}

impl LoadBalancer {
    /// An index into `set.members`, or None when there is no host to take.
    pub fn choose<C: Chooser>(
        &mut self,
        balancing: &LoadBalancing,
        set: &EndpointSet,
        wish: Wish<'_>,
        random: &mut fastrand::Rng,
        chooser: &C,
    ) -> Option<u32> {
        let now = balancing.slow_start.is_some().then(Instant::now);
        let choosing = Choosing { balancing, members: &set.members, now, chooser };
        let Some(subsets) = &set.subsets else {
            return choosing.choose(&set.whole, &mut self.whole, wish, random);
        };
        for candidate in subsets.candidates(wish.metadata_match) {
            candidate.count(chooser);
            let chosen = match candidate.source() {
                Source::Nobody => None,
                Source::Whole => choosing.choose(&set.whole, &mut self.whole, wish, random),
                Source::Subset(number, levels) => {
                    choosing.choose(levels, self.subsets.entry(number).or_default(), wish, random)
                }
            };
            if chosen.is_some() || candidate.is_final() {
                return chosen;
            }
        }
        None
    }

    /// For a new set: rotations go on where they stood, as far as it has the same parts.
    pub fn follow(&mut self) {
        self.subsets.clear();
        for state in &mut self.whole {
            state.forget_turns();
        }
    }
}

impl<C: Chooser> Choosing<'_, C> {
    fn choose(
        &self,
        levels: &Levels,
        states: &mut Vec<LevelState>,
        wish: Wish<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        while states.len() < levels.levels.len() {
            states.push(LevelState::new(random));
        }
        if let LbPolicy::RingHash(_) | LbPolicy::Maglev(_) = self.balancing.policy {
            return self.choose_by_hash(levels, wish, random);
        }
        let mut chosen = None;
        for _ in 0..=wish.reselections {
            chosen = self.choose_once(levels, states, wish, random);
            if chosen.is_none_or(|member| !self.chooser.refuses(member)) {
                return chosen;
            }
        }
        if wish.reselections > 0 { self.choose_accepted(levels, wish, random).or(chosen) } else { chosen }
    }

    /// Where every draw was refused: any host that is not. Luck alone would try a dead host again and again, above all with
    /// least request, for which nobody is less busy than the dead. Few are refused, so the search is short.
    fn choose_accepted(&self, levels: &Levels, wish: Wish<'_>, random: &mut fastrand::Rng) -> Option<u32> {
        let (at, availability) = choose_level(levels, &wish, || random.u64(..));
        let level = &levels.levels[at];
        let hosts = match availability {
            _ if level.share.in_panic => &level.all,
            Availability::Healthy => &level.healthy,
            Availability::Degraded => &level.degraded,
        };
        let (before, after) = hosts.members.split_at(random.usize(..=hosts.members.len()));
        after.iter().chain(before).copied().find(|member| !self.chooser.refuses(*member))
    }

    fn choose_by_hash(&self, levels: &Levels, wish: Wish<'_>, random: &mut fastrand::Rng) -> Option<u32> {
        let hash = wish.hash.unwrap_or_else(|| random.u64(..));
        let (level, _) = choose_level(levels, &Wish { level: None, ..wish }, || hash);
        let level = &levels.levels[level];
        if level.share.in_panic {
            self.chooser.count(ClusterStat::LbHealthyPanic);
        }
        let table = level.table.as_ref()?;
        let of = |member| self.chooser.active_everywhere(member);
        let mut chosen = None;
        for attempt in 0..=wish.reselections {
            let load = Load { cluster: &|| self.chooser.cluster_active_everywhere(), of: &of };
            let member = table.choose(hash, attempt, load);
            chosen = Some(member);
            if !self.chooser.refuses(member) {
                break;
            }
        }
        chosen
    }

    fn choose_once(
        &self,
        levels: &Levels,
        states: &mut [LevelState],
        wish: Wish<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        let (at, availability) = choose_level(levels, &wish, || random.u64(..));
        let (level, state) = (&levels.levels[at], &mut states[at]);
        if level.share.in_panic {
            self.chooser.count(ClusterStat::LbHealthyPanic);
            if self.balancing.localities.fails_traffic_on_panic() {
                return None;
            }
            return self.choose_among(&level.all, &mut state.all, random);
        }
        if let Some(locality) = state.choose_locality(level, availability, random) {
            let hosts = &level.localities[locality];
            let state = &mut state.localities[locality];
            return match availability {
                Availability::Healthy => self.choose_among(&hosts.healthy, &mut state.healthy, random),
                Availability::Degraded => self.choose_among(&hosts.degraded, &mut state.degraded, random),
            };
        }
        match availability {
            Availability::Healthy => self.choose_among(&level.healthy, &mut state.healthy, random),
            Availability::Degraded => self.choose_among(&level.degraded, &mut state.degraded, random),
        }
    }

    fn choose_among(&self, hosts: &Hosts, rotation: &mut Rotation, random: &mut fastrand::Rng) -> Option<u32> {
        let is_even = hosts.equal_weights && self.is_past_slow_start(hosts, rotation);
        match &self.balancing.policy {
            LbPolicy::RoundRobin if is_even => rotation.next(&hosts.members),
            LbPolicy::RoundRobin => rotation.next_due(&hosts.members, |member| self.weight(member), random),
            LbPolicy::LeastRequest(config) if is_even => {
                least_request::choose(&hosts.members, config, |member| self.chooser.active(member), random)
            }
            LbPolicy::LeastRequest(config) => {
                let weight = |member| {
                    let busy = f64::from(self.chooser.active(member)) + 1.0;
                    self.weight(member) / least_request::penalty(busy, config.active_request_bias)
                };
                rotation.next_due(&hosts.members, weight, random)
            }
            LbPolicy::Random => random.choice(hosts.members.iter()).copied(),
            LbPolicy::RingHash(_) | LbPolicy::Maglev(_) | LbPolicy::ClusterProvided => None,
        }
    }

    /// Whether no host gets less for being new. Looked up once a rotation: hosts are the same until the set changes.
    fn is_past_slow_start(&self, hosts: &Hosts, rotation: &mut Rotation) -> bool {
        let Some((config, now)) = self.slow_start() else { return true };
        let newest = || {
            let since = |&member: &u32| self.members[member as usize].host.healthy_since();
            hosts.members.iter().filter_map(since).max().map_or(now, |newest| newest + config.window)
        };
        rotation.even_from(newest) <= now
    }

    fn slow_start(&self) -> Option<(&SlowStart, Instant)> {
        self.balancing.slow_start.as_ref().zip(self.now)
    }

    fn weight(&self, member: u32) -> f64 {
        let weight = f64::from(self.members[member as usize].weight);
        let factor = self.slow_start().and_then(|(config, now)| self.starts_slowly(member, config, now));
        weight * factor.unwrap_or(1.0)
    }

    /// What a host gets of its weight, as long as it is new.
    fn starts_slowly(&self, member: u32, config: &SlowStart, now: Instant) -> Option<f64> {
        let since = self.members[member as usize].host.healthy_since()?;
        let age = now.saturating_duration_since(since);
        if age >= config.window {
            return None;
        }
        let part = age.as_secs_f64().max(0.001) / config.window.as_secs_f64();
        Some(part.powf(1.0 / config.aggression).max(config.min_weight))
    }
}

impl LevelState {
    fn new(random: &mut fastrand::Rng) -> LevelState {
        LevelState {
            all: Rotation::new(random),
            healthy: Rotation::new(random),
            degraded: Rotation::new(random),
            localities: Vec::new(),
            healthy_turns: None,
            degraded_turns: None,
        }
    }

    fn forget_turns(&mut self) {
        (self.healthy_turns, self.degraded_turns) = (None, None);
        for rotation in [&mut self.all, &mut self.healthy, &mut self.degraded] {
            rotation.forget_turns();
        }
        for locality in &mut self.localities {
            locality.healthy.forget_turns();
            locality.degraded.forget_turns();
        }
    }

    /// None: localities do not count, or none has weight.
    fn choose_locality(
        &mut self,
        level: &Level,
        availability: Availability,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        if level.localities.is_empty() {
            return None;
        }
        while self.localities.len() < level.localities.len() {
            self.localities.push(LocalityState { healthy: Rotation::new(random), degraded: Rotation::new(random) });
        }
        let weight = |locality: u32| {
            let locality = &level.localities[locality as usize];
            match availability {
                Availability::Healthy => locality.healthy_weight,
                Availability::Degraded => locality.degraded_weight,
            }
        };
        let turns = match availability {
            Availability::Healthy => &mut self.healthy_turns,
            Availability::Degraded => &mut self.degraded_turns,
        };
        let turns = turns.get_or_insert_with(|| Edf::new(0..level.localities.len() as u32, weight, random));
        turns.pick(weight).map(|locality| locality as usize)
    }
}

/// The priority by its share of the load, and which of its hosts take part.
fn choose_level(levels: &Levels, wish: &Wish<'_>, draw: impl FnOnce() -> u64) -> (usize, Availability) {
    if let Some((level, availability)) = wish.level.filter(|(level, _)| *level < levels.levels.len()) {
        return (level, availability);
    }
    if wish.passed_over.contains(&true)
        && let Some(shares) = share_load_without(&levels.levels, wish.passed_over)
    {
        return level_of(shares.into_iter(), (draw() % 100) as u32);
    }
    if let [only] = &levels.levels[..]
        && only.share.degraded == 0
    {
        return (0, Availability::Healthy);
    }
    level_of(levels.levels.iter().map(|level| level.share), (draw() % 100) as u32)
}

#[cfg(test)]
mod tests;
