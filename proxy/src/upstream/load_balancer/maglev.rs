//! MAGLEV: a table that hosts fill in turns, each by a permutation of its own, so that it is even and changes little when
//! hosts come and go. Filled as Envoy fills it, so that a mixed fleet agrees on the host for a key.

use xxhash_rust::xxh64::xxh64;

use super::hash_table::{LevelWeights, TableSizes, with_hash_key};
use crate::{config::cluster::MaglevConfig, upstream::endpoint_set::Member};

pub(super) struct Table {
    /// As many as the configuration says.
    entries: Vec<u32>,
    pub(super) sizes: TableSizes,
}

/// A host while the table is filled.
struct Filler {
    index: u32,
    weight: f64,
    /// It has its turn when the rounds times its weight reach this.
    target: f64,
    offset: u64,
    skip: u64,
    next: u64,
    count: u64,
}

const FREE: u32 = u32::MAX;

impl Table {
    /// `weights` is not empty.
    pub(super) fn new(config: &MaglevConfig, members: &[Member], weights: &LevelWeights) -> Table {
        let size = config.table_size;
        let mut keyed: Vec<(Vec<u8>, u32, f64)> = weights
            .weights
            .iter()
            .map(|&(index, weight)| {
                (with_hash_key(&members[index as usize], config.hashing, <[u8]>::to_vec), index, weight)
            })
            .collect();
        // The order of the members must not matter.
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        let mut fillers: Vec<Filler> = keyed
            .into_iter()
            .map(|(key, index, weight)| Filler {
                index,
                weight,
                target: 0.0,
                offset: xxh64(&key, 0) % size,
                skip: xxh64(&key, 1) % (size - 1).max(1) + 1,
                next: 0,
                count: 0,
            })
            .collect();
        let entries = fill(&mut fillers, size, weights.greatest());
        let counts = || fillers.iter().map(|filler| filler.count);
        let sizes = TableSizes {
            entries: size,
            least_of_a_host: counts().min().unwrap_or(0),
            most_of_a_host: counts().max().unwrap_or(0),
        };
        Table { entries, sizes }
    }

    pub(super) fn find(&self, hash: u64, attempt: u32) -> u32 {
        let hash = if attempt > 0 { hash ^ (u64::MAX - u64::from(attempt) + 1) } else { hash };
        self.entries[(hash % self.entries.len() as u64) as usize]
    }
}

fn fill(fillers: &mut [Filler], size: u64, greatest_weight: f64) -> Vec<u32> {
    let mut entries = vec![FREE; size as usize];
    let mut left = size;
    for round in 1_u32.. {
        for filler in fillers.iter_mut() {
            if left == 0 {
                return entries;
            }
            if f64::from(round) * filler.weight < filler.target {
                continue;
            }
            filler.target += greatest_weight;
            while entries[filler.place(size)] != FREE {
                filler.next += 1;
            }
            entries[filler.place(size)] = filler.index;
            filler.next += 1;
            filler.count += 1;
            left -= 1;
        }
    }
    entries
}

impl Filler {
    fn place(&self, size: u64) -> usize {
        ((self.offset + self.skip * self.next) % size) as usize
    }
}
