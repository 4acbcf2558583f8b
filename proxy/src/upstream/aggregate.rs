//! Aggregate clusters: their hosts are other clusters', whose priorities stand one after the other. Choosing one means
//! choosing a priority among all of them, and then a host as that cluster chooses.

use std::{rc::Rc, sync::Arc};

use crate::{
    config::cluster::Discovery,
    upstream::{
        host::Host,
        levels::{Summary, level_of, share_load},
        load_balancer::Wish,
        pool::{ClusterPools, HostPool},
    },
    worker::Worker,
};

/// Of aggregates within aggregates: one that names itself ends here.
const NESTING_MAX: u32 = 8;

/// A priority of a cluster below.
struct Part {
    pools: Rc<ClusterPools>,
    level: usize,
    summary: Summary,
}

/// A host of the cluster, or of those that it is made of.
pub fn choose_host(
    worker: &Worker,
    pools: &Rc<ClusterPools>,
    wish: Wish<'_>,
    refused: impl Fn(&Host) -> bool,
) -> Option<Rc<HostPool>> {
    let Discovery::Aggregate(names) = &pools.cluster().config.discovery else {
        return worker.with_random(|random| pools.choose(random, wish, refused));
    };
    let mut parts = Vec::new();
    add_parts(worker, names, NESTING_MAX, &mut parts);
    if parts.is_empty() {
        return None;
    }
    let summaries: Vec<Summary> = parts.iter().map(|part| part.summary).collect();
    let shares = share_load(&summaries, pools.cluster().config.load_balancing.panic_threshold_percent);
    let drawn = worker.with_random(|random| random.u32(0..100));
    let (at, availability) = level_of(shares.into_iter(), drawn);
    let part = &parts[at];
    let wish = Wish { level: Some((part.level, availability)), ..wish };
    worker.with_random(|random| part.pools.choose(random, wish, refused))
}

fn add_parts(worker: &Worker, names: &[Arc<str>], nesting_left: u32, parts: &mut Vec<Part>) {
    for pools in names.iter().filter_map(|name| worker.cluster(name)) {
        let cluster = pools.cluster().clone();
        if let Discovery::Aggregate(names) = &cluster.config.discovery {
            if nesting_left > 0 {
                add_parts(worker, names, nesting_left - 1, parts);
            }
            continue;
        }
        for (level, found) in cluster.endpoints.load().whole.levels.iter().enumerate() {
            parts.push(Part { pools: pools.clone(), level, summary: found.summary });
        }
    }
}
