//! What ring hash and maglev have in common: a table from hashes to hosts, the weights that it is filled by, and bounded
//! loads on top of it. Built on the main thread, read by every worker.

use xxhash_rust::xxh64::xxh64;

use super::{maglev, mt19937::Mt19937, ring_hash};
use crate::{
    config::{
        cluster::{ConsistentHashing, HashFunction, LbPolicy},
        metadata::LB_NAMESPACE,
    },
    upstream::{endpoint_set::Member, levels::Level},
};

pub struct HashTable {
    table: Table,
    bounded: Option<BoundedLoad>,
}

enum Table {
    Ring(ring_hash::Ring),
    Maglev(maglev::Table),
}

/// No host carries more than its part of `factor` percent of the average.
struct BoundedLoad {
    factor: u32,
    /// In the order of the level's hosts.
    weights: Vec<(u32, f64)>,
}

/// Members of a level and their shares, which sum to 1.
pub struct LevelWeights {
    pub(super) weights: Vec<(u32, f64)>,
}

/// How many requests are under way, on all workers.
pub(super) struct Load<'a> {
    pub(super) cluster: &'a dyn Fn() -> u64,
    pub(super) of: &'a dyn Fn(u32) -> u64,
}

impl LevelWeights {
    /// Of the healthy hosts; in panic, of all.
    pub fn of(level: &Level, members: &[Member], by_locality: bool) -> LevelWeights {
        let mut weights = Vec::new();
        let mut add = |hosts: &[u32], share: f64| {
            let sum: f64 = hosts.iter().map(|&at| f64::from(members[at as usize].weight)).sum();
            weights.extend(hosts.iter().map(|&at| (at, f64::from(members[at as usize].weight) * share / sum)));
        };
        if by_locality && !level.localities.is_empty() {
            let sum: f64 = level.localities.iter().map(|locality| locality.weight).sum();
            for locality in level.localities.iter().filter(|locality| locality.weight > 0.0) {
                let hosts = if level.share.in_panic { &locality.all } else { &locality.healthy };
                add(&hosts.members, locality.weight / sum);
            }
        } else {
            add(if level.share.in_panic { &level.all.members } else { &level.healthy.members }, 1.0);
        }
        LevelWeights { weights }
    }

    pub(super) fn least(&self) -> f64 {
        self.weights.iter().map(|(_, weight)| *weight).fold(1.0, f64::min)
    }

    pub(super) fn greatest(&self) -> f64 {
        self.weights.iter().map(|(_, weight)| *weight).fold(0.0, f64::max)
    }
}

impl HashTable {
    /// None: no host, or not a hashing policy.
    pub fn new(policy: &LbPolicy, members: &[Member], weights: LevelWeights) -> Option<HashTable> {
        if weights.weights.is_empty() {
            return None;
        }
        let (table, hashing) = match policy {
            LbPolicy::RingHash(config) => {
                (Table::Ring(ring_hash::Ring::new(config, members, &weights)), config.hashing)
            }
            LbPolicy::Maglev(config) => (Table::Maglev(maglev::Table::new(config, members, &weights)), config.hashing),
            LbPolicy::RoundRobin | LbPolicy::LeastRequest(_) | LbPolicy::Random | LbPolicy::ClusterProvided => {
                return None;
            }
        };
        let bounded = hashing.balance_factor.map(|factor| BoundedLoad { factor, weights: weights.weights });
        Some(HashTable { table, bounded })
    }

    /// `attempt` counts those before it that were refused.
    pub(super) fn choose(&self, hash: u64, attempt: u32, load: Load<'_>) -> u32 {
        let first = match &self.table {
            Table::Ring(ring) => ring.find(hash, attempt),
            Table::Maglev(table) => table.find(hash, attempt),
        };
        match &self.bounded {
            None => first,
            Some(bounded) => bounded.choose(first, hash, &load),
        }
    }

    pub fn sizes(&self) -> TableSizes {
        match &self.table {
            Table::Ring(ring) => ring.sizes,
            Table::Maglev(table) => table.sizes,
        }
    }
}

/// How a table turned out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    pub entries: u64,
    pub least_of_a_host: u64,
    pub most_of_a_host: u64,
}

impl BoundedLoad {
    /// The first host unless it has too much; else those that a shuffle seeded by the hash brings, so that equal hashes
    /// see equal sequences; else the one with the least.
    fn choose(&self, first: u32, hash: u64, load: &Load<'_>) -> u32 {
        let weight_of = |member| self.weights.iter().find(|(at, _)| *at == member).map_or(0.0, |(_, weight)| *weight);
        let mut least = (self.overload(first, weight_of(first), load), first);
        if least.0 <= 1.0 {
            return first;
        }
        let mut order: Vec<u32> = (0..self.weights.len() as u32).collect();
        let mut random = Mt19937::new(hash as u32);
        for at in 0..order.len() {
            let left = (order.len() - at) as u32;
            order.swap(at, at + random.below(left) as usize);
            let (member, weight) = self.weights[order[at] as usize];
            if member == first {
                continue;
            }
            let overload = self.overload(member, weight, load);
            if overload <= 1.0 {
                return member;
            }
            if overload < least.0 {
                least = (overload, member);
            }
        }
        least.1
    }

    fn overload(&self, member: u32, weight: f64, load: &Load<'_>) -> f64 {
        let slots_of_all = (((load.cluster)() + 1) * u64::from(self.factor)).div_ceil(100);
        let slots = (slots_of_all as f64 * weight).ceil().max(1.0);
        (load.of)(member) as f64 / slots
    }
}

/// What of a host is hashed.
pub(super) fn with_hash_key<T>(member: &Member, hashing: ConsistentHashing, with: impl FnOnce(&[u8]) -> T) -> T {
    let host = &member.host;
    let own = host.metadata.value(LB_NAMESPACE, ["hash_key"]).and_then(|value| value.as_text());
    match own {
        Some(key) if !key.is_empty() => with(key.as_bytes()),
        _ if hashing.use_hostname => with(host.hostname.as_bytes()),
        _ => with(host.address.to_string().as_bytes()),
    }
}

pub(super) fn hash(function: HashFunction, key: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => xxh64(key, 0),
        HashFunction::MurmurHash2 => murmur_hash2(key),
    }
}

/// MurmurHash2 of 64 bits with the seed that libstdc++'s `std::hash` has.
fn murmur_hash2(key: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = SEED ^ (key.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    mix(mix(hash).wrapping_mul(MULTIPLIER))
}
