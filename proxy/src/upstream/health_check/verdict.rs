//! From the results of checks to a host's health: thresholds, and the pause until the next check. Pure.

use std::time::Duration;

use crate::{
    config::cluster::{CheckIntervals, HealthCheck},
    upstream::host::{HealthFlag, Host},
};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckResult {
    Passed { degraded: bool },
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// It counts up to the threshold, though the host has answered.
    pub(super) retriable: bool,
    /// Of the answer; 0: there was none, or it has no such thing.
    pub(super) status: u16,
    /// It asks to be left alone at once.
    pub(super) excludes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The host answered, and is not well.
    Active,
    /// It said so in the answer to somebody's request.
    Passive,
    Network,
    Timeout,
}

/// What is counted between changes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    healthy: u32,
    unhealthy: u32,
    checked: bool,
}

/// What a result leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Load balancing is to look at the host anew.
    pub(super) changed: bool,
    /// A threshold is being counted up to.
    pub(super) pending: bool,
    pub(super) news: Vec<News>,
}

/// For the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    BecameHealthy { first_check: bool },
    Passed,
    BecameUnhealthy(Failure),
    Failed { failure: Failure, first_check: bool },
    Degraded,
    NoLongerDegraded,
}

impl Failure {
    pub(super) fn of(kind: FailureKind) -> Failure {
        Failure { kind, retriable: false, status: 0, excludes: false }
    }

    fn is_of_network(&self) -> bool {
        matches!(self.kind, FailureKind::Network | FailureKind::Timeout)
    }
}

impl Counts {
    pub(super) fn has_checked(&self) -> bool {
        self.checked
    }

    /// Sets the host's flags, and says what follows.
    pub(super) fn apply(&mut self, config: &HealthCheck, host: &Host, result: CheckResult) -> Verdict {
        let first_check = !self.checked;
        let mut verdict = Verdict { changed: false, pending: false, news: Vec::new() };
        match result {
            CheckResult::Passed { degraded } => self.pass(config, host, degraded, &mut verdict),
            CheckResult::Failed(failure) => self.fail(config, host, failure, &mut verdict),
        }
        if host.has(HealthFlag::PendingActiveCheck) {
            host.clear(HealthFlag::PendingActiveCheck);
            verdict.changed = true;
        }
        if let CheckResult::Failed(failure) = result
            && (first_check || config.always_log_failures)
        {
            verdict.news.push(News::Failed { failure, first_check });
        }
        self.checked |= !matches!(result, CheckResult::Failed(Failure { kind: FailureKind::Passive, .. }));
        verdict
    }

    fn pass(&mut self, config: &HealthCheck, host: &Host, degraded: bool, verdict: &mut Verdict) {
        self.unhealthy = 0;
        if host.has(HealthFlag::FailedActiveCheck) {
            self.healthy += 1;
            // A host that is new gets its chance at once.
            if !self.checked || self.healthy == config.healthy_threshold {
                for flag in [HealthFlag::ActiveCheckTimeout, HealthFlag::FailedActiveCheck, HealthFlag::ExcludedAtOnce]
                {
                    host.clear(flag);
                }
                verdict.changed = true;
                verdict.news.push(News::BecameHealthy { first_check: !self.checked });
            } else {
                verdict.pending = true;
            }
        }
        if config.always_log_successes {
            verdict.news.push(News::Passed);
        }
        if degraded != host.has(HealthFlag::DegradedByActiveCheck) {
            let (set, news): (fn(&Host, HealthFlag), _) = match degraded {
                true => (Host::set, News::Degraded),
                false => (Host::clear, News::NoLongerDegraded),
            };
            set(host, HealthFlag::DegradedByActiveCheck);
            verdict.news.push(news);
            verdict.changed |= !verdict.pending;
        }
    }

    fn fail(&mut self, config: &HealthCheck, host: &Host, failure: Failure, verdict: &mut Verdict) {
        self.healthy = 0;
        if failure.excludes {
            host.set(HealthFlag::ExcludedAtOnce);
        }
        if !host.has(HealthFlag::FailedActiveCheck) {
            let at_once = !failure.is_of_network() && !failure.retriable;
            if !at_once {
                self.unhealthy += 1;
            }
            if at_once || self.unhealthy == config.unhealthy_threshold {
                host.set(HealthFlag::FailedActiveCheck);
                verdict.changed = true;
                verdict.news.push(News::BecameUnhealthy(failure));
            } else {
                verdict.pending = true;
            }
        }
        if host.has(HealthFlag::FailedActiveCheck) {
            match failure.kind {
                FailureKind::Timeout => host.set(HealthFlag::ActiveCheckTimeout),
                FailureKind::Active | FailureKind::Passive | FailureKind::Network => {
                    host.clear(HealthFlag::ActiveCheckTimeout);
                }
            }
        }
    }
}

/// How long to wait before the next check. `has_traffic`: the cluster has had a connection.
pub(super) fn pause(
    intervals: &CheckIntervals,
    result: CheckResult,
    pending: bool,
    has_traffic: bool,
    random: &mut fastrand::Rng,
) -> Duration {
    let passed = matches!(result, CheckResult::Passed { .. });
    let base = match (has_traffic, passed, pending) {
        (true, false, true) => intervals.unhealthy_edge,
        (true, false, false) => intervals.unhealthy,
        (true, true, true) => intervals.healthy_edge,
        (true, true, false) => intervals.healthy,
        (false, true, false) => intervals.no_traffic_healthy,
        (false, _, _) => intervals.no_traffic,
    };
    let below = |bound: Duration, random: &mut fastrand::Rng| match bound.as_millis() as u64 {
        0 => Duration::ZERO,
        bound => Duration::from_millis(random.u64(0..bound)),
    };
    let share = base.mul_f64(f64::from(intervals.jitter_percent) / 100.0);
    let pause = base + below(share, random) + below(intervals.jitter, random);
    pause.max(INTERVAL_MIN)
}

/// Envoy's `health_check.min_interval`.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{cluster::ClusterConfig, endpoint::Endpoint, testing::message};

    fn config() -> std::sync::Arc<HealthCheck> {
        let config = ClusterConfig::from_proto(message(
            "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_interval: 2s, unhealthy_edge_interval: 3s, \
             healthy_edge_interval: 4s, no_traffic_interval: 5s, no_traffic_healthy_interval: 6s, unhealthy_threshold: 2, \
             healthy_threshold: 3, tcp_health_check: {}}]}",
        ));
        config.expect("a cluster").health_check.expect("a health check")
    }

    fn new_host() -> std::sync::Arc<Host> {
        let host = Host::new(&Endpoint::at(([127, 0, 0, 1], 1).into()), 1);
        host.set(HealthFlag::FailedActiveCheck);
        host
    }

    const PASSED: CheckResult = CheckResult::Passed { degraded: false };

    fn failed(kind: FailureKind) -> CheckResult {
        CheckResult::Failed(Failure::of(kind))
    }

    #[test]
    fn the_first_success_is_enough_for_a_new_host_and_later_it_takes_more() {
        let (config, host, mut counts) = (config(), new_host(), Counts::default());
        let verdict = counts.apply(&config, &host, PASSED);
        assert_eq!(verdict.news, [News::BecameHealthy { first_check: true }]);
        assert!(verdict.changed && !host.has_failed());
        assert!(counts.apply(&config, &host, failed(FailureKind::Network)).pending && !host.has_failed());
        let verdict = counts.apply(&config, &host, failed(FailureKind::Timeout));
        assert!(verdict.changed && host.has_failed() && host.has(HealthFlag::ActiveCheckTimeout));
        for _ in 0..2 {
            assert!(counts.apply(&config, &host, PASSED).pending);
        }
        assert!(counts.apply(&config, &host, PASSED).changed && !host.has_failed());
        assert!(!host.has(HealthFlag::ActiveCheckTimeout));
    }

    #[test]
    fn a_bad_answer_counts_at_once_unless_it_is_retriable() {
        let (config, host, mut counts) = (config(), new_host(), Counts::default());
        counts.apply(&config, &host, PASSED);
        let retriable = Failure { retriable: true, status: 503, ..Failure::of(FailureKind::Active) };
        assert!(counts.apply(&config, &host, CheckResult::Failed(retriable)).pending);
        assert!(!counts.apply(&config, &host, PASSED).changed, "a success starts the count anew");
        assert!(counts.apply(&config, &host, CheckResult::Failed(retriable)).pending);
        counts.apply(&config, &host, PASSED);
        let verdict = counts.apply(&config, &host, failed(FailureKind::Active));
        assert_eq!(verdict.news, [News::BecameUnhealthy(Failure::of(FailureKind::Active))]);
        assert!(host.has_failed());
    }

    #[test]
    fn a_degraded_host_is_told_apart_and_an_excluded_one_comes_back_with_its_health() {
        let (config, host, mut counts) = (config(), new_host(), Counts::default());
        let verdict = counts.apply(&config, &host, CheckResult::Passed { degraded: true });
        assert_eq!(verdict.news, [News::BecameHealthy { first_check: true }, News::Degraded]);
        assert_eq!(counts.apply(&config, &host, PASSED).news, [News::NoLongerDegraded]);
        host.set(HealthFlag::ExcludedAtOnce);
        counts.apply(&config, &host, failed(FailureKind::Passive));
        assert!(host.has_failed() && host.is_excluded());
        (0..3).for_each(|_| drop(counts.apply(&config, &host, PASSED)));
        assert!(!host.has_failed() && !host.is_excluded());
    }

    #[test]
    fn pauses_follow_what_is_expected_next() {
        let config = config();
        let mut random = fastrand::Rng::with_seed(1);
        let bad = failed(FailureKind::Network);
        let mut seconds =
            |result, pending, traffic| pause(&config.intervals, result, pending, traffic, &mut random).as_secs();
        assert_eq!([seconds(PASSED, false, true), seconds(PASSED, true, true)], [1, 4]);
        assert_eq!([seconds(bad, false, true), seconds(bad, true, true)], [2, 3]);
        assert_eq!(
            [seconds(PASSED, false, false), seconds(PASSED, true, false), seconds(bad, false, false)],
            [6, 5, 5]
        );
        let jittered = CheckIntervals { jitter_percent: 50, ..config.intervals.clone() };
        let mut drawn = (0..100).map(|_| pause(&jittered, PASSED, false, true, &mut random));
        assert!(drawn.all(|pause| (1000..1500).contains(&pause.as_millis())));
    }
}
