//! One of several clusters, as often as its weight says. Pure.

use std::sync::Arc;

use crate::config::route::WeightedCluster;

/// The weights sum to at least 1.
pub fn choose<'a>(clusters: &'a [WeightedCluster], random: &mut fastrand::Rng) -> &'a Arc<str> {
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    let mut left = random.u64(0..total.max(1));
    for cluster in clusters {
        let weight = u64::from(cluster.weight);
        if left < weight {
            return &cluster.name;
        }
        left -= weight;
    }
    unreachable!("what is drawn is less than the sum of the weights, which is at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_come_by_weight_and_never_with_none() {
        let cluster = |name: &str, weight| WeightedCluster { name: name.into(), weight };
        let clusters = [cluster("a", 1), cluster("none", 0), cluster("b", 3)];
        let mut random = fastrand::Rng::with_seed(5);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            let chosen = choose(&clusters, &mut random);
            counts[clusters.iter().position(|cluster| cluster.name == *chosen).expect("one of them")] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }
}
