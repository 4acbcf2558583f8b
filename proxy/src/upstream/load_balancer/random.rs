//! RANDOM: any host, weights aside, as Envoy's.

pub(super) fn choose(candidates: &[usize], random: &mut fastrand::Rng) -> Option<usize> {
    random.choice(candidates.iter()).copied()
}
