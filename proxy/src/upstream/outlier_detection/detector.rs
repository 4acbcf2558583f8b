//! Who is ejected, who comes back, and when: pure, over hosts' records, a clock and a random source that are passed in.
//!
//! The flags that come of it are set here; what else follows (counters, the log, a new endpoint set) are effects for the
//! caller.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    record::{Rate, Stay},
    report::Found,
};
use crate::{
    config::cluster::OutlierDetection,
    upstream::host::{HealthFlag, Host},
};

pub(super) struct Detector {
    config: Arc<OutlierDetection>,
    /// Average success rate and threshold of the last comparison; -1: there was none.
    pub(super) external: (f64, f64),
    pub(super) local: (f64, f64),
}

/// Why a host is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

pub(super) enum Effect {
    Detected(Cause),
    /// Or would be, where that is not enforced.
    Ejected {
        event: Event,
        cause: Cause,
        enforced: bool,
    },
    /// Too many are ejected already.
    Overflow,
    Unejected {
        event: Event,
    },
    Degraded {
        event: Event,
    },
    NoLongerDegraded {
        event: Event,
    },
}

/// What there is to say about something that happened to a host.
pub(super) struct Event {
    pub(super) host: Arc<Host>,
    pub(super) since_last_action: Option<Duration>,
    pub(super) ejections: u32,
    pub(super) success_rate: f64,
    pub(super) cluster_rate: (f64, f64),
}

/// The cluster at one moment.
pub(super) struct Look<'a> {
    pub(super) hosts: &'a [&'a Arc<Host>],
    pub(super) now: Instant,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) effects: Vec<Effect>,
}

/// Which of a host's rates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    External,
    Local,
}

const NOTHING: (f64, f64) = (-1.0, -1.0);

pub(super) fn ejected(hosts: &[&Arc<Host>]) -> usize {
    hosts.iter().filter(|host| host.has(HealthFlag::Ejected)).count()
}

impl Effect {
    /// Whether load balancing is to look at its hosts anew.
    pub(super) fn changes_hosts(&self) -> bool {
        match self {
            Effect::Ejected { enforced, .. } => *enforced,
            Effect::Unejected { .. } | Effect::Degraded { .. } | Effect::NoLongerDegraded { .. } => true,
            Effect::Detected(_) | Effect::Overflow => false,
        }
    }
}

impl Detector {
    pub(super) fn new(config: Arc<OutlierDetection>) -> Detector {
        Detector { config, external: NOTHING, local: NOTHING }
    }

    /// Between comparisons.
    pub(super) fn found(&mut self, found: Found, look: &mut Look<'_>) {
        let (Found::Consecutive(host, _) | Found::Degraded(host) | Found::Recovered(host)) = &found;
        if !look.hosts.iter().any(|known| known.id == host.id) {
            return; // gone meanwhile
        }
        match found {
            Found::Consecutive(host, cause) if !host.has(HealthFlag::Ejected) => {
                look.effects.push(Effect::Detected(cause));
                self.eject(&host, cause, look);
            }
            Found::Degraded(host) if !host.has(HealthFlag::DegradedByOutlierDetection) => self.degrade(&host, look),
            Found::Recovered(host) if host.has(HealthFlag::Ejected) => self.uneject(&host, look),
            Found::Consecutive(..) | Found::Degraded(_) | Found::Recovered(_) => {}
        }
    }

    /// At the end of each interval.
    pub(super) fn compare(&mut self, look: &mut Look<'_>) {
        for host in look.hosts {
            self.let_back(host, look);
            host.outlier.external.set_percent(-1.0);
            host.outlier.local.set_percent(-1.0);
        }
        self.external = self.compare_rates(Origin::External, look);
        self.local = self.compare_rates(Origin::Local, look);
        for host in look.hosts {
            let mut history = host.outlier.history();
            if !host.has(HealthFlag::Ejected) {
                history.ejected.improve(look.now, self.config.interval);
            }
            if !host.has(HealthFlag::DegradedByOutlierDetection) {
                history.degraded.improve(look.now, self.config.interval);
            }
        }
    }

    /// Whose time is over.
    fn let_back(&self, host: &Arc<Host>, look: &mut Look<'_>) {
        let now = look.now;
        let is_over = |stay: &Stay| stay.is_over(now, self.times());
        if host.has(HealthFlag::Ejected) && is_over(&host.outlier.history().ejected) {
            self.uneject(host, look);
        }
        if host.has(HealthFlag::DegradedByOutlierDetection) && is_over(&host.outlier.history().degraded) {
            host.clear(HealthFlag::DegradedByOutlierDetection);
            let mut history = host.outlier.history();
            history.degraded.end(now);
            let since = history.ejected.begun.map(|begun| now.saturating_duration_since(begun));
            look.effects.push(Effect::NoLongerDegraded { event: event(host, since, history.ejections) });
        }
    }

    fn compare_rates(&self, origin: Origin, look: &mut Look<'_>) -> (f64, f64) {
        let OutlierDetection { success_rate, failure_percentage, .. } = &*self.config;
        let count = look.hosts.len() as u64;
        let taken: Vec<(Arc<Host>, u32, f64)> = look
            .hosts
            .iter()
            .filter_map(|host| {
                let (results, percent) = rate(host, origin).take()?;
                (!host.has(HealthFlag::Ejected)).then(|| ((*host).clone(), results, percent))
            })
            .collect();
        if count < u64::from(success_rate.minimum_hosts) && count < u64::from(failure_percentage.minimum_hosts) {
            return NOTHING;
        }
        let shown_from = success_rate.request_volume.min(failure_percentage.request_volume);
        for (host, _, percent) in taken.iter().filter(|(_, results, _)| *results >= shown_from) {
            rate(host, origin).set_percent(*percent);
        }
        let with_volume = |volume: u32| taken.iter().filter(move |(_, results, _)| *results >= volume);
        let (by_rate, by_percentage) = match origin {
            Origin::External => (Cause::SuccessRate, Cause::FailurePercentage),
            Origin::Local => (Cause::LocalOriginSuccessRate, Cause::LocalOriginFailurePercentage),
        };
        let mut found = Vec::new();
        let rates: Vec<f64> = with_volume(success_rate.request_volume).map(|(_, _, percent)| *percent).collect();
        let mut compared = NOTHING;
        if !rates.is_empty() && rates.len() as u64 >= u64::from(success_rate.minimum_hosts) {
            compared = threshold(&rates, success_rate.stdev_factor);
            let slow = with_volume(success_rate.request_volume).filter(|(_, _, percent)| *percent < compared.1);
            found.extend(slow.map(|(host, _, _)| (host, by_rate)));
        }
        let measured = with_volume(failure_percentage.request_volume).count() as u64;
        if measured > 0 && measured >= u64::from(failure_percentage.minimum_hosts) {
            let failing = with_volume(failure_percentage.request_volume)
                .filter(|(_, _, percent)| 100.0 - percent >= f64::from(failure_percentage.threshold));
            found.extend(failing.map(|(host, _, _)| (host, by_percentage)));
        }
        for (host, cause) in found {
            look.effects.push(Effect::Detected(cause));
            // By one of the two once is enough.
            if !host.has(HealthFlag::Ejected) {
                self.eject_with_rates(host, cause, compared, look);
            }
        }
        compared
    }

    fn eject(&self, host: &Arc<Host>, cause: Cause, look: &mut Look<'_>) {
        self.eject_with_rates(host, cause, NOTHING, look);
    }

    fn eject_with_rates(&self, host: &Arc<Host>, cause: Cause, cluster_rate: (f64, f64), look: &mut Look<'_>) {
        let ejected = ejected(look.hosts);
        let percent = 100.0 * (ejected + 1) as f64 / look.hosts.len() as f64;
        let may = percent <= f64::from(self.config.max_ejection_percent)
            || (self.config.always_eject_one_host && ejected == 0);
        if !may {
            look.effects.push(Effect::Overflow);
            return;
        }
        let enforced = look.random.u32(0..100) < self.enforcing(cause);
        let origin = match cause {
            Cause::LocalOriginSuccessRate | Cause::LocalOriginFailurePercentage => Origin::Local,
            _ => Origin::External,
        };
        let mut history = host.outlier.history();
        let since_last_action = history.ejected.ended.map(|ended| look.now.saturating_duration_since(ended));
        if enforced {
            host.set(HealthFlag::Ejected);
            history.ejections += 1;
            let jitter = self.jitter(look.random);
            history.ejected.begin(look.now, self.times(), jitter);
        }
        let event = Event {
            host: host.clone(),
            since_last_action,
            ejections: history.ejections,
            success_rate: rate(host, origin).percent(),
            cluster_rate,
        };
        look.effects.push(Effect::Ejected { event, cause, enforced });
    }

    fn uneject(&self, host: &Arc<Host>, look: &mut Look<'_>) {
        host.clear(HealthFlag::Ejected);
        host.outlier.forget_consecutive();
        let mut history = host.outlier.history();
        history.ejected.end(look.now);
        let since = history.ejected.begun.map(|begun| look.now.saturating_duration_since(begun));
        look.effects.push(Effect::Unejected { event: event(host, since, history.ejections) });
    }

    fn degrade(&self, host: &Arc<Host>, look: &mut Look<'_>) {
        host.set(HealthFlag::DegradedByOutlierDetection);
        let mut history = host.outlier.history();
        let since_last_action = history.ejected.ended.map(|ended| look.now.saturating_duration_since(ended));
        let jitter = self.jitter(look.random);
        history.degraded.begin(look.now, self.times(), jitter);
        look.effects.push(Effect::Degraded { event: event(host, since_last_action, history.ejections) });
    }

    fn times(&self) -> (Duration, Duration) {
        (self.config.base_ejection_time, self.config.max_ejection_time)
    }

    fn jitter(&self, random: &mut fastrand::Rng) -> Duration {
        let longest = self.config.max_ejection_time_jitter.as_millis() as u64;
        Duration::from_millis(random.u64(0..=longest))
    }

    fn enforcing(&self, cause: Cause) -> u32 {
        let enforcing = &self.config.enforcing;
        match cause {
            Cause::Consecutive5xx => enforcing.consecutive_5xx,
            Cause::ConsecutiveGatewayFailure => enforcing.consecutive_gateway_failure,
            Cause::ConsecutiveLocalOriginFailure => enforcing.consecutive_local_origin_failure,
            Cause::SuccessRate => enforcing.success_rate,
            Cause::LocalOriginSuccessRate => enforcing.local_origin_success_rate,
            Cause::FailurePercentage => enforcing.failure_percentage,
            Cause::LocalOriginFailurePercentage => enforcing.local_origin_failure_percentage,
        }
    }
}

fn event(host: &Arc<Host>, since_last_action: Option<Duration>, ejections: u32) -> Event {
    Event { host: host.clone(), since_last_action, ejections, success_rate: -1.0, cluster_rate: NOTHING }
}

fn rate(host: &Host, origin: Origin) -> &Rate {
    match origin {
        Origin::External => &host.outlier.external,
        Origin::Local => &host.outlier.local,
    }
}

/// The mean, and what is that many standard deviations below it.
fn threshold(rates: &[f64], stdev_factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    (mean, mean - stdev_factor * variance.sqrt())
}

#[cfg(test)]
mod tests;
