//! LEAST_REQUEST: of a few hosts drawn at random, the one with the fewest requests under way. With unequal weights the
//! draw favours heavy hosts, and load is compared relative to weight.

pub(super) fn choose(
    candidates: &[usize],
    choice_count: u32,
    weight: impl Fn(usize) -> u32,
    active: impl Fn(usize) -> u32,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    let heaviest = candidates.iter().map(|&member| weight(member)).max()?;
    let mut best: Option<(f64, usize)> = None;
    for _ in 0..choice_count {
        let member = draw(candidates, heaviest, &weight, random)?;
        let load = f64::from(active(member) + 1) / f64::from(weight(member));
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, member));
        }
    }
    best.map(|(_, member)| member)
}

/// By rejection: needs no table, and with equal weights accepts at once. Bounded, so that one heavy host among many light
/// ones costs no more than a few draws.
fn draw(
    candidates: &[usize],
    heaviest: u32,
    weight: &impl Fn(usize) -> u32,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    const DRAWS_MAX: usize = 16;
    let mut drawn = *random.choice(candidates.iter())?;
    for _ in 0..DRAWS_MAX {
        if weight(drawn) == heaviest || random.u32(0..heaviest) < weight(drawn) {
            break;
        }
        drawn = *random.choice(candidates.iter())?;
    }
    Some(drawn)
}
