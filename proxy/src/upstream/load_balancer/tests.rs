use std::collections::HashMap;

use super::*;
use crate::config::endpoint::{Endpoint, HealthStatus, LoadAssignment, Locality, LocalityEndpoints};

fn set(priorities: &[&[(u32, HealthStatus)]]) -> EndpointSet {
    let mut port = 0;
    let mut locality = |hosts: &[(u32, HealthStatus)]| LocalityEndpoints {
        locality: Locality::default(),
        load_balancing_weight: 1,
        endpoints: hosts
            .iter()
            .map(|&(load_balancing_weight, health_status)| {
                port += 1;
                let address = ([127, 0, 0, 1], port).into();
                Endpoint { address, hostname: "".into(), load_balancing_weight, health_status }
            })
            .collect(),
    };
    let priorities = priorities.iter().map(|hosts| vec![locality(hosts)]).collect();
    EndpointSet::new(&LoadAssignment { priorities, overprovisioning_factor: 140 }, &EndpointSet::default(), 1)
}

fn spread(policy: LbPolicy, set: &EndpointSet, turns: usize, active: impl Fn(usize) -> u32) -> HashMap<usize, usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut balancer = LoadBalancer::new(set, &mut random);
    let mut counts = HashMap::new();
    for _ in 0..turns {
        let chosen = balancer.choose(policy, set, &mut random, &active).expect("a host");
        *counts.entry(chosen).or_default() += 1;
    }
    counts
}

const H: HealthStatus = HealthStatus::Healthy;
const U: HealthStatus = HealthStatus::Unhealthy;

#[test]
fn round_robin_rotates_and_follows_weights() {
    assert_eq!(
        spread(LbPolicy::RoundRobin, &set(&[&[(1, H), (1, H), (1, H)]]), 30, |_| 0),
        HashMap::from([(0, 10), (1, 10), (2, 10)])
    );
    let weighted = spread(LbPolicy::RoundRobin, &set(&[&[(1, H), (3, H)]]), 400, |_| 0);
    assert!((299..=301).contains(&weighted[&1]), "{weighted:?}");
}

#[test]
fn unhealthy_hosts_get_nothing() {
    let counts = spread(LbPolicy::RoundRobin, &set(&[&[(1, H), (1, U), (1, H)]]), 10, |_| 0);
    assert_eq!(counts, HashMap::from([(0, 5), (2, 5)]));
}

#[test]
fn least_request_shuns_the_busy_host() {
    let two = LbPolicy::LeastRequest { choice_count: 2 };
    let counts = spread(two, &set(&[&[(1, H), (1, H)]]), 1000, |member| if member == 0 { 10 } else { 0 });
    assert!(counts[&1] > 650, "{counts:?}");
    let weighted = spread(two, &set(&[&[(1, H), (4, H)]]), 1000, |_| 0);
    assert!(weighted[&1] > 800, "{weighted:?}");
}

#[test]
fn priorities_share_by_health() {
    let set = set(&[&[(1, H), (1, U)], &[(1, H)]]);
    let counts = spread(LbPolicy::Random, &set, 2000, |_| 0);
    assert!((1250..1550).contains(&counts[&0]) && !counts.contains_key(&1), "{counts:?}");
}

#[test]
fn nobody_to_choose_is_none() {
    let mut random = fastrand::Rng::with_seed(1);
    for set in [set(&[]), set(&[&[]])] {
        let mut balancer = LoadBalancer::new(&set, &mut random);
        for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::LeastRequest { choice_count: 2 }] {
            assert_eq!(balancer.choose(policy, &set, &mut random, |_| 0), None);
        }
    }
}
