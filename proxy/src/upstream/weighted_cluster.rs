//! One of several clusters, as often as its weight says. Pure.

/// Which of them. The weights sum to at least 1.
pub fn choose(weights: impl Iterator<Item = u32> + Clone, random: &mut fastrand::Rng) -> usize {
    of(weights, random.u64(..))
}

/// The one that a number stands for.
pub fn of(weights: impl Iterator<Item = u32> + Clone, number: u64) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut left = number % total.max(1);
    for (at, weight) in weights.map(u64::from).enumerate() {
        if left < weight {
            return at;
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
        let mut random = fastrand::Rng::with_seed(5);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[choose([1, 0, 3].into_iter(), &mut random)] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }
}
