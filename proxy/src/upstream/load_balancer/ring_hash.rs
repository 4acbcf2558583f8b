//! RING_HASH: each host at many places of a ring of hashes; a request goes to the host at the next place after its own
//! hash. Places are found as Envoy finds them, so that a mixed fleet agrees on the host for a key.

use super::hash_table::{LevelWeights, TableSizes, hash, with_hash_key};
use crate::{config::cluster::RingHashConfig, upstream::endpoint_set::Member};

pub(super) struct Ring {
    /// By hash. Never empty.
    places: Vec<(u64, u32)>,
    pub(super) sizes: TableSizes,
}

impl Ring {
    /// `weights` is not empty.
    pub(super) fn new(config: &RingHashConfig, members: &[Member], weights: &LevelWeights) -> Ring {
        let least = weights.least();
        // The lightest host gets a whole number of places, unless the ring would grow beyond its limit.
        let scale = ((least * config.minimum_ring_size as f64).ceil() / least).min(config.maximum_ring_size as f64);
        let size = scale.ceil() as usize;
        let mut places = Vec::with_capacity(size);
        let mut sizes = TableSizes { entries: size as u64, least_of_a_host: size as u64, most_of_a_host: 0 };
        // Running sums, as shares need not be whole numbers.
        let (mut placed, mut due) = (0.0, 0.0);
        for &(index, weight) in &weights.weights {
            due += scale * weight;
            let mut count = 0;
            with_hash_key(&members[index as usize], config.hashing, |key| {
                let mut text = [key, b"_"].concat();
                let prefix = text.len();
                while placed < due {
                    text.truncate(prefix);
                    text.extend_from_slice(count.to_string().as_bytes());
                    places.push((hash(config.hash_function, &text), index));
                    count += 1;
                    placed += 1.0;
                }
            });
            sizes.least_of_a_host = sizes.least_of_a_host.min(count);
            sizes.most_of_a_host = sizes.most_of_a_host.max(count);
        }
        places.sort_unstable_by_key(|&(hash, _)| hash);
        Ring { places, sizes }
    }

    pub(super) fn find(&self, hash: u64, attempt: u32) -> u32 {
        // After the greatest comes the first.
        let at = self.places.partition_point(|&(place, _)| place < hash) + attempt as usize;
        self.places[at % self.places.len()].1
    }
}
