use super::*;
use crate::config::endpoint::Endpoint;

struct Cluster {
    hosts: Vec<Arc<Host>>,
    detector: Detector,
    random: fastrand::Rng,
    now: Instant,
}

fn config(change: impl FnOnce(&mut OutlierDetection)) -> OutlierDetection {
    let mut config = crate::config::cluster::ClusterConfig::from_proto(crate::config::testing::message(
        "{name: c, outlier_detection: {max_ejection_percent: 100, interval: 1s, base_ejection_time: 10s, \
         max_ejection_time: 25s}}",
    ))
    .expect("a cluster")
    .outlier_detection
    .map(Arc::unwrap_or_clone)
    .expect("outlier detection");
    change(&mut config);
    config
}

impl Cluster {
    fn new(hosts: u16, config: OutlierDetection) -> Cluster {
        let host = |port| Host::new(&Endpoint::at(([127, 0, 0, 1], port).into()), 1);
        Cluster {
            hosts: (1..=hosts).map(host).collect(),
            detector: Detector::new(Arc::new(config)),
            random: fastrand::Rng::with_seed(1),
            now: Instant::now(),
        }
    }

    fn look(&mut self, ask: impl FnOnce(&mut Detector, &mut Look<'_>)) -> Vec<Effect> {
        let hosts: Vec<&Arc<Host>> = self.hosts.iter().collect();
        let mut look = Look { hosts: &hosts, now: self.now, random: &mut self.random, effects: Vec::new() };
        ask(&mut self.detector, &mut look);
        look.effects
    }

    fn fail(&mut self, host: usize) -> Vec<Effect> {
        let found = Found::Consecutive(self.hosts[host].clone(), Cause::Consecutive5xx);
        self.look(|detector, look| detector.found(found, look))
    }

    fn pass(&mut self, seconds: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(seconds);
        self.look(Detector::compare)
    }

    fn results(&self, host: usize, successes: u32, failures: u32) {
        let rate = &self.hosts[host].outlier.external;
        (0..successes).for_each(|_| rate.count(true));
        (0..failures).for_each(|_| rate.count(false));
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|at| self.hosts[*at].has(HealthFlag::Ejected)).collect()
    }
}

#[test]
fn a_host_stays_away_longer_each_time_up_to_a_bound_and_the_past_is_forgiven() {
    let mut cluster = Cluster::new(3, config(|_| {}));
    for (away, round) in [(10, 1), (20, 2), (25, 3), (25, 4)] {
        let effects = cluster.fail(0);
        assert!(matches!(&effects[..], [Effect::Detected(_), Effect::Ejected { enforced: true, .. }]));
        cluster.pass(away - 1);
        assert_eq!(cluster.ejected(), [0], "{round}");
        let effects = cluster.pass(1);
        assert!(matches!(&effects[..], [Effect::Unejected { event }] if event.ejections == round));
        assert!(cluster.ejected().is_empty());
    }
    for _ in 0..4 {
        cluster.pass(1);
    }
    cluster.fail(0);
    cluster.pass(9);
    assert_eq!(cluster.ejected(), [0]);
    cluster.pass(1);
    assert!(cluster.ejected().is_empty(), "the first time again");
}

#[test]
fn no_more_than_a_share_of_the_hosts_is_ejected() {
    let mut cluster = Cluster::new(3, config(|config| config.max_ejection_percent = 34));
    cluster.fail(0);
    assert!(matches!(&cluster.fail(1)[..], [Effect::Detected(_), Effect::Overflow]));
    assert_eq!(cluster.ejected(), [0]);
    let mut cluster = Cluster::new(3, config(|config| config.max_ejection_percent = 10));
    cluster.fail(0);
    assert!(cluster.ejected().is_empty());
    let mut cluster =
        Cluster::new(3, config(|config| (config.max_ejection_percent, config.always_eject_one_host) = (10, true)));
    cluster.fail(0);
    cluster.fail(1);
    assert_eq!(cluster.ejected(), [0]);
}

#[test]
fn what_is_not_enforced_is_only_said() {
    let mut cluster = Cluster::new(2, config(|config| config.enforcing.consecutive_5xx = 0));
    let effects = cluster.fail(0);
    assert!(matches!(&effects[..], [Effect::Detected(_), Effect::Ejected { enforced: false, .. }]));
    assert!(!effects.iter().any(Effect::changes_hosts) && cluster.ejected().is_empty());
}

#[test]
fn a_host_far_below_the_average_is_ejected() {
    let volumes = |config: &mut OutlierDetection| {
        (config.success_rate.minimum_hosts, config.success_rate.request_volume) = (5, 10);
        config.failure_percentage.minimum_hosts = 100;
    };
    let mut cluster = Cluster::new(5, config(volumes));
    cluster.results(0, 5, 5);
    (1..5).for_each(|host| cluster.results(host, 10, 0));
    let effects = cluster.pass(1);
    // Mean 90, deviation 20.
    assert_eq!(cluster.detector.external, (90.0, 52.0));
    assert_eq!(cluster.ejected(), [0]);
    let Some(Effect::Ejected { event, cause: Cause::SuccessRate, .. }) = effects.get(1) else { panic!("not ejected") };
    assert_eq!((event.success_rate, event.cluster_rate), (50.0, (90.0, 52.0)));
    // Too few requests to compare.
    let mut cluster = Cluster::new(5, config(volumes));
    (0..5).for_each(|host| cluster.results(host, 5, 0));
    cluster.pass(1);
    assert_eq!(cluster.detector.external, (-1.0, -1.0));
}

#[test]
fn a_host_that_fails_too_often_is_ejected_where_that_is_enforced() {
    let mut cluster = Cluster::new(
        1,
        config(|config| {
            config.enforcing.failure_percentage = 100;
            let percentage = &mut config.failure_percentage;
            (percentage.minimum_hosts, percentage.request_volume, percentage.threshold) = (1, 10, 50);
        }),
    );
    cluster.results(0, 6, 5);
    cluster.pass(1);
    assert!(cluster.ejected().is_empty(), "less than half");
    cluster.results(0, 5, 5);
    cluster.pass(1);
    assert_eq!(cluster.ejected(), [0]);
}

#[test]
fn a_degraded_host_recovers_by_itself_and_an_active_check_ends_an_ejection() {
    let mut cluster = Cluster::new(2, config(|_| {}));
    let host = cluster.hosts[1].clone();
    cluster.look(|detector, look| detector.found(Found::Degraded(host.clone()), look));
    assert!(host.has(HealthFlag::DegradedByOutlierDetection));
    cluster.pass(10);
    assert!(!host.has(HealthFlag::DegradedByOutlierDetection));
    cluster.fail(1);
    let effects = cluster.look(|detector, look| detector.found(Found::Recovered(host.clone()), look));
    assert!(matches!(&effects[..], [Effect::Unejected { .. }]) && cluster.ejected().is_empty());
    let stranger = Host::new(&Endpoint::at(([127, 0, 0, 1], 9).into()), 1);
    let effects = cluster.look(|detector, look| {
        detector.found(Found::Consecutive(stranger, Cause::Consecutive5xx), look);
    });
    assert!(effects.is_empty(), "it is no member");
}
