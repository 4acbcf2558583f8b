//! LEAST_REQUEST among hosts that weigh the same: of a few drawn at random, the one with the fewest requests under way;
//! or of all, where the configuration says so. Hosts of different weights take turns instead, the sooner the fewer
//! requests they have.

use crate::config::cluster::LeastRequestConfig;

pub(super) fn choose(
    candidates: &[u32],
    config: &LeastRequestConfig,
    active: impl Fn(u32) -> u32,
    random: &mut fastrand::Rng,
) -> Option<u32> {
    if config.full_scan {
        return scan(candidates, active, random);
    }
    let mut best: Option<(u32, u32)> = None;
    for _ in 0..config.choice_count {
        let member = *random.choice(candidates.iter())?;
        let load = active(member);
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, member));
        }
    }
    best.map(|(_, member)| member)
}

/// Among equals each has the same chance.
fn scan(candidates: &[u32], active: impl Fn(u32) -> u32, random: &mut fastrand::Rng) -> Option<u32> {
    let mut best: Option<(u32, u32)> = None;
    let mut equals = 0;
    for &member in candidates {
        let load = active(member);
        match best {
            Some((least, _)) if load > least => continue,
            Some((least, _)) if load == least => equals += 1,
            _ => equals = 1,
        }
        if random.u32(0..equals) == 0 {
            best = Some((load, member));
        }
    }
    best.map(|(_, member)| member)
}

/// By what the weight of a host with so many requests is divided.
pub(super) fn penalty(busy: f64, bias: f64) -> f64 {
    match bias {
        0.0 => 1.0,
        1.0 => busy,
        bias => busy.powf(bias),
    }
}
