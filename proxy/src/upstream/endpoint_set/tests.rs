use super::*;
use crate::{
    config::{
        cluster::ClusterConfig,
        endpoint::{Endpoint, LocalityEndpoints},
        testing::message,
    },
    upstream::levels::Level,
};

const H: HealthStatus = HealthStatus::Healthy;
const U: HealthStatus = HealthStatus::Unhealthy;
const D: HealthStatus = HealthStatus::Degraded;

fn balancing(fields: &str) -> LoadBalancing {
    ClusterConfig::from_proto(message(&format!("name: c\n{fields}"))).unwrap().load_balancing
}

fn endpoint(port: u16, health_status: HealthStatus) -> Endpoint {
    Endpoint { health_status, ..Endpoint::at(([10, 0, 0, 1], port).into()) }
}

fn locality(zone: &str, weight: u32, endpoints: &[(u16, HealthStatus)]) -> LocalityEndpoints {
    LocalityEndpoints {
        locality: Locality { zone: zone.into(), ..Locality::default() },
        load_balancing_weight: weight,
        endpoints: endpoints.iter().map(|&(port, health)| endpoint(port, health)).collect(),
    }
}

fn assignment(priorities: &[&[(u16, HealthStatus)]]) -> LoadAssignment {
    let priorities = priorities.iter().map(|hosts| vec![locality("", 1, hosts)]).collect();
    LoadAssignment { priorities, ..LoadAssignment::default() }
}

fn set(assignment: &LoadAssignment, fields: &str, previous: Option<&EndpointSet>) -> EndpointSet {
    EndpointSet::new(assignment, &balancing(fields), previous, |endpoint| Host::new(endpoint, 1), |_| false)
}

fn loads_of(set: &EndpointSet) -> Vec<(u32, u32, bool)> {
    let of = |level: &Level| (level.share.healthy, level.share.degraded, level.share.in_panic);
    set.whole.levels.iter().map(of).collect()
}

fn loads(priorities: &[&[(u16, HealthStatus)]]) -> Vec<(u32, u32, bool)> {
    loads_of(&set(&assignment(priorities), "", None))
}

#[test]
fn load_spills_to_the_next_priority_when_health_falls() {
    assert_eq!(loads(&[&[(1, H), (2, H)], &[(3, H)]]), [(100, 0, false), (0, 0, false)]);
    assert_eq!(loads(&[&[(1, H), (2, U)], &[(3, H)]]), [(70, 0, false), (30, 0, false)]);
    assert_eq!(loads(&[&[(1, U), (2, U)], &[(3, H)]]), [(0, 0, false), (100, 0, false)]);
    assert_eq!(loads(&[&[(1, U), (2, D)]]), [(0, 100, false)]);
    // 46 of 100 and 46 of 100, the rest of rounding to the first.
    assert_eq!(
        loads(&[&[(1, H), (2, U), (3, U)], &[(4, H), (5, U), (6, U)]]),
        [(50, 0, true), (50, 0, true)],
        "both are in panic, so that hosts are counted"
    );
}

#[test]
fn with_nobody_healthy_everyone_takes_part() {
    assert_eq!(loads(&[&[(1, U)], &[(2, U), (3, U), (4, U)]]), [(25, 0, true), (75, 0, true)]);
    assert_eq!(loads(&[&[(1, H), (2, U), (3, U), (4, U)]]), [(100, 0, true)]);
    assert_eq!(loads(&[]), [(100, 0, true)]);
    assert_eq!(loads(&[&[]]), [(100, 0, true)]);
}

#[test]
fn the_panic_threshold_is_configured() {
    let with = |percent: u32, hosts: &[(u16, HealthStatus)]| {
        let fields = format!("common_lb_config: {{healthy_panic_threshold: {{value: {percent}}}}}");
        loads_of(&set(&assignment(&[hosts]), &fields, None))
    };
    let one_of_four = [(1, H), (2, U), (3, U), (4, U)];
    assert_eq!(with(20, &one_of_four), [(100, 0, false)]);
    assert_eq!(with(30, &one_of_four), [(100, 0, true)]);
    assert_eq!(with(0, &[(1, U)]), [(100, 0, false)], "nobody may be taken");
}

#[test]
fn a_priority_may_be_weighed_by_its_hosts() {
    let mut weighted = assignment(&[&[(1, H), (2, U)], &[(3, H)]]);
    weighted.weighted_priority_health = true;
    weighted.priorities[0][0].endpoints[0].load_balancing_weight = 3;
    assert_eq!(loads_of(&set(&weighted, "", None)), [(100, 0, false), (0, 0, false)], "3 of 4, over-provisioned");
}

#[test]
fn a_host_that_stays_is_the_same_object_and_doubles_count_once() {
    let first = set(&assignment(&[&[(1, H), (2, H)]]), "", None);
    let second = set(&assignment(&[&[(3, H), (2, U), (2, H)]]), "", Some(&first));
    assert_eq!(second.members.len(), 2);
    assert!(Arc::ptr_eq(&first.members[1].host, &second.members[1].host));
    assert_eq!(second.members[1].health, U);
    assert!(second.has_other_hosts(&first));
    let third = set(&assignment(&[&[(2, H), (3, U)]]), "", Some(&second));
    assert!(!third.has_other_hosts(&second));
}

#[test]
fn what_is_found_out_counts_with_the_next_look() {
    let set = set(&assignment(&[&[(1, H), (2, H), (3, H)]]), "", None);
    set.members[0].host.set(HealthFlag::Ejected);
    set.members[1].host.set(HealthFlag::PendingActiveCheck);
    let next = set.reassessed(&balancing(""));
    assert_eq!(next.whole.levels[0].healthy.members, [1, 2]);
    assert_eq!((next.whole.levels[0].excluded, next.count(U)), (1, 1));
}

#[test]
fn localities_keep_what_their_health_leaves_of_their_weight() {
    let mut zones = assignment(&[]);
    zones.priorities =
        vec![vec![locality("b", 3, &[(1, H), (2, U)]), locality("a", 1, &[(3, H)]), locality("c", 0, &[(4, H)])]];
    assert!(set(&zones, "", None).whole.levels[0].localities.is_empty());
    let weighted = set(&zones, "common_lb_config: {locality_weighted_lb_config: {}}", None);
    let found: Vec<_> = weighted.whole.levels[0]
        .localities
        .iter()
        .map(|locality| (&*locality.locality.zone, (locality.healthy_weight * 10.0).round() as u32))
        .collect();
    assert_eq!(found, [("a", 10), ("b", 21), ("c", 0)]);
}
