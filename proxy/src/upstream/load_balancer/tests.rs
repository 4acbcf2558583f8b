use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use super::*;
use crate::{
    config::{cluster::ClusterConfig, cluster::Discovery, metadata::Value, testing::message},
    upstream::host::Host,
};

/// A cluster of YAML, its hosts in one line: `port[*weight][/health][{metadata}]`, localities or priorities apart.
struct Bench {
    balancing: LoadBalancing,
    set: EndpointSet,
    balancer: RefCell<LoadBalancer>,
    random: RefCell<fastrand::Rng>,
    active: BTreeMap<u32, u32>,
    refused: Vec<u32>,
    counted: RefCell<Vec<ClusterStat>>,
    looked_at: Cell<usize>,
}

fn bench(fields: &str, endpoints: &str) -> Bench {
    let yaml = format!("name: c\n{fields}\nload_assignment: {{cluster_name: c, endpoints: [{endpoints}]}}");
    let config = ClusterConfig::from_proto(message(&yaml)).unwrap();
    let Discovery::Static(assignment) = &config.discovery else { panic!("{config:?}") };
    let set = EndpointSet::new(assignment, &config.load_balancing, None, |endpoint| Host::new(endpoint, 1), |_| false);
    Bench {
        set,
        balancing: config.load_balancing,
        balancer: RefCell::default(),
        random: RefCell::new(fastrand::Rng::with_seed(7)),
        active: BTreeMap::new(),
        refused: Vec::new(),
        counted: RefCell::default(),
        looked_at: Cell::new(0),
    }
}

/// Endpoints of one locality.
fn hosts(hosts: &str) -> String {
    format!("{{lb_endpoints: [{}]}}", endpoints(hosts))
}

fn endpoints(hosts: &str) -> String {
    let one = |text: &str| {
        let (text, health) = text.split_once('/').unwrap_or((text, "HEALTHY"));
        let (port, weight) = text.split_once('*').unwrap_or((text, "1"));
        format!(
            "{{health_status: {health}, load_balancing_weight: {weight}, endpoint: {{hostname: h{port}, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
        )
    };
    hosts.split_whitespace().map(one).collect::<Vec<_>>().join(", ")
}

impl Chooser for Bench {
    fn active(&self, member: u32) -> u32 {
        self.looked_at.set(self.looked_at.get() + 1);
        self.active.get(&member).copied().unwrap_or(0)
    }
    fn refuses(&self, member: u32) -> bool {
        self.refused.contains(&member)
    }
    fn count(&self, stat: ClusterStat) {
        self.counted.borrow_mut().push(stat);
    }
    fn active_everywhere(&self, member: u32) -> u64 {
        u64::from(self.active.get(&member).copied().unwrap_or(0))
    }
    fn cluster_active_everywhere(&self) -> u64 {
        self.active.values().map(|count| u64::from(*count)).sum()
    }
}

impl Bench {
    /// The port of the chosen host.
    fn choose(&self, wish: Wish<'_>) -> Option<u16> {
        let (mut balancer, mut random) = (self.balancer.borrow_mut(), self.random.borrow_mut());
        let member = balancer.choose(&self.balancing, &self.set, wish, &mut random, self)?;
        Some(self.set.members[member as usize].host.address.port())
    }

    fn spread(&self, turns: usize) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..turns {
            *counts.entry(self.choose(Wish::default()).expect("a host")).or_default() += 1;
        }
        counts
    }

    fn asking(&self, asked: &str) -> Option<u16> {
        let fields = asked.split_whitespace().map(|pair| {
            let (name, value) = pair.split_once('=').expect("a pair");
            (name.into(), Value::Text(value.into()))
        });
        self.choose(Wish { metadata_match: Some(&fields.collect()), ..Wish::default() })
    }
}

#[test]
fn round_robin_rotates_and_follows_weights() {
    assert_eq!(bench("", &hosts("1 2 3")).spread(30), BTreeMap::from([(1, 10), (2, 10), (3, 10)]));
    let weighted = bench("", &hosts("1 2*3")).spread(400);
    assert!((299..=301).contains(&weighted[&2]), "{weighted:?}");
}

#[test]
fn unhealthy_hosts_get_nothing() {
    assert_eq!(bench("", &hosts("1 2/UNHEALTHY 3")).spread(10), BTreeMap::from([(1, 5), (3, 5)]));
}

#[test]
fn least_request_shuns_the_busy_host() {
    let mut least = bench("lb_policy: LEAST_REQUEST", &hosts("1 2"));
    least.active = BTreeMap::from([(0, 10)]);
    assert!(least.spread(1000)[&2] > 650);
    let mut weighted = bench("lb_policy: LEAST_REQUEST", &hosts("1 2*4"));
    assert!((795..=805).contains(&weighted.spread(1000)[&2]));
    weighted.active = BTreeMap::from([(1, 3)]);
    weighted.balancer.borrow_mut().follow();
    assert!((495..=505).contains(&weighted.spread(1000)[&2]), "four times the weight, four times as busy");
    let list = "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, selection_method: FULL_SCAN}}}]}";
    let mut scanning = bench(list, &hosts("1 2 3 4"));
    scanning.active = BTreeMap::from([(0, 1), (1, 1), (3, 2)]);
    assert_eq!(scanning.spread(20), BTreeMap::from([(3, 20)]));
}

#[test]
fn priorities_share_by_health() {
    let endpoints = format!("{}, {{priority: 1, {}", hosts("1 2/UNHEALTHY"), &hosts("3")[1..]);
    let counts = bench("lb_policy: RANDOM", &endpoints).spread(2000);
    assert!((1250..1550).contains(&counts[&1]) && !counts.contains_key(&2), "{counts:?}");
}

#[test]
fn degraded_hosts_come_after_healthy_ones() {
    let counts = bench("", &hosts("1 2/DEGRADED 3/DEGRADED")).spread(2000);
    assert!((850..1000).contains(&counts[&1]), "46 of 100: {counts:?}");
}

#[test]
fn localities_share_by_weight() {
    let zone = |name: &str, weight: u32, hosts: &str| {
        format!("{{locality: {{zone: {name}}}, load_balancing_weight: {weight}, lb_endpoints: [{}]}}", endpoints(hosts))
    };
    let zones = format!("{}, {}", zone("a", 1, "1 2"), zone("b", 3, "3"));
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] {
        let fields = format!("lb_policy: {policy}\ncommon_lb_config: {{locality_weighted_lb_config: {{}}}}");
        let counts = bench(&fields, &zones).spread(400);
        assert!((299..=301).contains(&counts[&3]), "{policy}: {counts:?}");
    }
}

#[test]
fn in_panic_traffic_may_fail() {
    let hosts = hosts("1/UNHEALTHY 2/UNHEALTHY 3");
    let anybody = bench("", &hosts);
    assert_eq!(anybody.spread(30).len(), 3);
    assert!(anybody.counted.borrow().iter().all(|stat| *stat == ClusterStat::LbHealthyPanic));
    let nobody = bench("common_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true}}", &hosts);
    assert_eq!(nobody.choose(Wish::default()), None);
}

#[test]
fn a_refused_host_is_taken_when_there_is_no_other() {
    let mut bench = bench("", &hosts("1 2"));
    bench.refused = vec![0];
    let wish = Wish { reselections: 3, ..Wish::default() };
    assert!((0..10).all(|_| bench.choose(wish) == Some(2)));
    bench.refused = vec![0, 1];
    assert!(bench.choose(wish).is_some());
}

#[test]
fn a_dead_host_that_nobody_is_waiting_for_is_not_tried_twice() {
    for reselections in 1..=5 {
        let mut bench = bench("lb_policy: LEAST_REQUEST", &hosts("1 2"));
        bench.active = BTreeMap::from([(1, 2)]);
        bench.refused = vec![0];
        let wish = Wish { reselections, ..Wish::default() };
        assert!((0..200).all(|_| bench.choose(wish) == Some(2)), "{reselections} reselections");
    }
}

#[test]
fn new_hosts_start_slowly() {
    let fields =
        "round_robin_lb_config: {slow_start_config: {slow_start_window: 1000s, min_weight_percent: {value: 10}}}";
    let bench = bench(fields, &hosts("1 2"));
    let long_ago = Instant::now().checked_sub(std::time::Duration::from_secs(2000)).expect("the machine is older");
    bench.set.members[0].host.set_healthy_since(long_ago);
    bench.balancer.borrow_mut().follow();
    let counts = bench.spread(1100);
    assert!((95..=105).contains(&counts[&2]), "a tenth of the other's: {counts:?}");
}

#[test]
fn equal_hashes_go_to_one_host() {
    for policy in ["RING_HASH", "MAGLEV"] {
        let bench = bench(&format!("lb_policy: {policy}"), &hosts("1 2 3 4"));
        let at = |hash: u64| bench.choose(Wish { hash: Some(hash), ..Wish::default() });
        let spread: std::collections::BTreeSet<_> = (0..100).map(|at_hash| at(at_hash * (u64::MAX / 100))).collect();
        assert_eq!(spread.len(), 4, "{policy}");
        assert!((0..20).all(|_| at(42) == at(42)));
        let table = bench.set.whole.levels[0].table.as_ref().expect("hashing");
        let sizes = table.sizes();
        assert!(sizes.entries >= 1024 && sizes.most_of_a_host - sizes.least_of_a_host <= 1, "{sizes:?}");
    }
}

#[test]
fn a_bounded_load_moves_on_the_same_way_each_time() {
    let fields = "lb_policy: RING_HASH\ncommon_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 100}}";
    let mut bench = bench(fields, &hosts("1 2 3 4"));
    let wish = Wish { hash: Some(42), ..Wish::default() };
    let first = bench.choose(wish).expect("a host");
    let member = bench.set.members.iter().position(|member| member.host.address.port() == first).expect("a member");
    bench.active = BTreeMap::from([(member as u32, 5)]);
    let second = bench.choose(wish).expect("another host");
    assert_ne!(first, second);
    assert!((0..5).all(|_| bench.choose(wish) == Some(second)));
}

fn with_metadata(port: u16, metadata: &str) -> String {
    format!(
        "{{metadata: {{filter_metadata: {{envoy.lb: {{{metadata}}}}}}}, endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
    )
}

#[test]
fn subsets_are_found_by_what_hosts_share() {
    let hosts = [with_metadata(1, "v: a, stage: x"), with_metadata(2, "v: b, stage: x"), with_metadata(3, "v: b")];
    let endpoints = format!("{{lb_endpoints: [{}]}}", hosts.join(", "));
    let selectors =
        "subset_selectors: [{keys: [v]}, {keys: [stage, v], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [v]}]";
    let none = bench(&format!("lb_subset_config: {{{selectors}}}"), &endpoints);
    assert_eq!(none.asking("v=a"), Some(1));
    assert_eq!(none.asking("stage=x v=b"), Some(2));
    assert_eq!(none.asking("stage=y v=a"), Some(1), "with fewer keys");
    assert_eq!((none.asking("v=c"), none.asking("stage=x"), none.choose(Wish::default())), (None, None, None));
    assert_eq!(none.set.subsets.as_ref().map(Subsets::active), Some(4));
    let any = bench(&format!("lb_subset_config: {{fallback_policy: ANY_ENDPOINT, {selectors}}}"), &endpoints);
    assert!(any.asking("v=c").is_some() && any.choose(Wish::default()).is_some());
    assert_eq!(*any.counted.borrow(), [ClusterStat::LbSubsetsFallback; 2]);
    let default = format!(
        "lb_subset_config: {{fallback_policy: DEFAULT_SUBSET, default_subset: {{v: a}}, panic_mode_any: true, {selectors}}}"
    );
    let default = bench(&default, &endpoints);
    assert!((0..5).all(|_| default.asking("v=c") == Some(1)));
}

#[test]
fn lists_may_stand_for_their_values() {
    let endpoints = format!("{{lb_endpoints: [{}]}}", with_metadata(1, "v: [a, b]"));
    let bench = bench("lb_subset_config: {list_as_any: true, subset_selectors: [{keys: [v]}]}", &endpoints);
    assert_eq!((bench.asking("v=a"), bench.asking("v=b"), bench.asking("v=c")), (Some(1), Some(1), None));
}

#[test]
fn nobody_to_choose_is_none() {
    for policy in ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST", "RING_HASH", "MAGLEV"] {
        let bench = bench(&format!("lb_policy: {policy}"), "");
        assert_eq!(bench.choose(Wish { hash: Some(1), ..Wish::default() }), None, "{policy}");
    }
}

/// Counted, not timed: how many hosts a choice looks at must not grow with how many there are.
#[test]
fn choosing_among_ten_thousand_looks_at_few() {
    let many: Vec<String> = (1..=10_000).map(|port| format!("{port}*{}", port % 3 + 1)).collect();
    let bench = bench("lb_policy: LEAST_REQUEST", &hosts(&many.join(" ")));
    bench.choose(Wish::default()); // fills the queue once
    bench.looked_at.set(0);
    for _ in 0..100 {
        bench.choose(Wish::default());
    }
    assert!(bench.looked_at.get() <= 200, "{}", bench.looked_at.get());
}
