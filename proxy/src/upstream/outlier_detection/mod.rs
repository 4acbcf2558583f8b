//! Outlier detection: hosts that answer badly are left alone for a while. Workers count on the hosts themselves
//! (`report`); whoever crosses a threshold is told to the main thread, where a task a cluster decides (`detector`, pure)
//! and hands the workers a new endpoint set. So it holds for the pod as a whole, without a lock on the request path.

mod detector;
mod event_log;
mod record;
mod report;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::mpsc, time::MissedTickBehavior};

use self::detector::{Detector, Effect, Look};
pub use self::{
    detector::Cause,
    record::{OutlierRecord, Rate},
    report::{Found, Outcome},
};
use crate::{
    config::cluster::OutlierDetection,
    stats::{GroupStats, OutlierStat, Sharded, WorkerIndex},
    upstream::{background::Tasks, cluster::Cluster, event_log::EventLog, host::Host},
};

/// A cluster's detection, as workers and the admin server see it.
pub struct OutlierMonitor {
    pub config: Arc<OutlierDetection>,
    pub rates: ClusterRates,
    stats: Arc<GroupStats<OutlierStat>>,
    found: mpsc::UnboundedSender<Found>,
    /// Until the task takes it.
    received: Mutex<Option<mpsc::UnboundedReceiver<Found>>>,
}

/// Of the last comparison; -1: there was none.
#[derive(Default)]
pub struct ClusterRates {
    pub external: Threshold,
    pub local: Threshold,
}

pub struct Threshold {
    average: AtomicU64,
    ejection_threshold: AtomicU64,
}

impl OutlierMonitor {
    pub fn new(config: &Arc<OutlierDetection>, stats: Arc<GroupStats<OutlierStat>>) -> OutlierMonitor {
        // Each message stands for a threshold's worth of failures, so the queue grows far slower than requests come.
        let (found, received) = mpsc::unbounded_channel();
        OutlierMonitor {
            config: config.clone(),
            rates: ClusterRates::default(),
            stats,
            found,
            received: Mutex::new(Some(received)),
        }
    }

    /// Decides from now on. To be called once, on the main thread's runtime.
    pub fn start(&self, cluster: &Arc<Cluster>, log: Option<EventLog>, tasks: &Tasks) {
        let Some(received) = self.received.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let detecting = Detecting { cluster: Arc::downgrade(cluster), log, random: fastrand::Rng::new() };
        let interval = self.config.interval;
        tasks.spawn(detecting.run(received, interval, Detector::new(self.config.clone())));
    }

    /// An active check of the host has succeeded.
    pub fn check_succeeded(&self, host: &Arc<Host>) {
        if self.config.successful_check_unejects {
            let _ = self.found.send(Found::Recovered(host.clone())); // Err: the cluster is gone
        }
    }
}

impl Threshold {
    pub fn average(&self) -> f64 {
        f64::from_bits(self.average.load(Relaxed))
    }

    pub fn ejection_threshold(&self) -> f64 {
        f64::from_bits(self.ejection_threshold.load(Relaxed))
    }

    fn set(&self, (average, threshold): (f64, f64)) {
        self.average.store(average.to_bits(), Relaxed);
        self.ejection_threshold.store(threshold.to_bits(), Relaxed);
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Threshold {
            average: AtomicU64::new((-1.0f64).to_bits()),
            ejection_threshold: AtomicU64::new((-1.0f64).to_bits()),
        }
    }
}

/// The task of a cluster. Ends with it.
struct Detecting {
    cluster: Weak<Cluster>,
    log: Option<EventLog>,
    random: fastrand::Rng,
}

impl Detecting {
    async fn run(mut self, mut received: mpsc::UnboundedReceiver<Found>, interval: Duration, mut detector: Detector) {
        let mut ticks = tokio::time::interval_at((Instant::now() + interval).into(), interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found = tokio::select! {
                found = received.recv() => match found {
                    Some(found) => Some(found),
                    None => return,
                },
                _ = ticks.tick() => None,
            };
            let Some(cluster) = self.cluster.upgrade() else { return };
            self.decide(&cluster, &mut detector, found);
        }
    }

    fn decide(&mut self, cluster: &Cluster, detector: &mut Detector, found: Option<Found>) {
        let Some(monitor) = &cluster.outliers else { return };
        let set = cluster.endpoints.load_full();
        let hosts: Vec<&Arc<Host>> = set.members.iter().map(|member| &member.host).collect();
        let mut look = Look { hosts: &hosts, now: Instant::now(), random: &mut self.random, effects: Vec::new() };
        match found {
            Some(found) => detector.found(found, &mut look),
            None => {
                detector.compare(&mut look);
                monitor.rates.external.set(detector.external);
                monitor.rates.local.set(detector.local);
            }
        }
        let effects = look.effects;
        if let Some(log) = &self.log {
            for line in
                effects.iter().filter_map(|effect| event_log::line(&cluster.config.name, SystemTime::now(), effect))
            {
                log.write(&line);
            }
        }
        for effect in &effects {
            count(&monitor.stats.cells, cluster.main_thread(), effect);
        }
        monitor.stats.cells.set(cluster.main_thread(), OutlierStat::EjectionsActive, detector::ejected(&hosts) as u64);
        if effects.iter().any(Effect::changes_hosts) {
            cluster.reassess();
            cluster.announce_hosts();
        }
    }
}

fn count(stats: &Sharded<OutlierStat>, thread: WorkerIndex, effect: &Effect) {
    let detected = |cause: &Cause| match cause {
        Cause::Consecutive5xx => OutlierStat::Detected5xx,
        Cause::ConsecutiveGatewayFailure => OutlierStat::DetectedGatewayFailure,
        Cause::ConsecutiveLocalOriginFailure => OutlierStat::DetectedLocalOriginFailure,
        Cause::SuccessRate => OutlierStat::DetectedSuccessRate,
        Cause::LocalOriginSuccessRate => OutlierStat::DetectedLocalOriginSuccessRate,
        Cause::FailurePercentage => OutlierStat::DetectedFailurePercentage,
        Cause::LocalOriginFailurePercentage => OutlierStat::DetectedLocalOriginFailurePercentage,
    };
    let enforced = |cause: &Cause| match cause {
        Cause::Consecutive5xx => OutlierStat::Enforced5xx,
        Cause::ConsecutiveGatewayFailure => OutlierStat::EnforcedGatewayFailure,
        Cause::ConsecutiveLocalOriginFailure => OutlierStat::EnforcedLocalOriginFailure,
        Cause::SuccessRate => OutlierStat::EnforcedSuccessRate,
        Cause::LocalOriginSuccessRate => OutlierStat::EnforcedLocalOriginSuccessRate,
        Cause::FailurePercentage => OutlierStat::EnforcedFailurePercentage,
        Cause::LocalOriginFailurePercentage => OutlierStat::EnforcedLocalOriginFailurePercentage,
    };
    match effect {
        Effect::Detected(cause) => {
            stats.inc(thread, detected(cause));
            // Older names, which Envoy still counts.
            match cause {
                Cause::Consecutive5xx => stats.inc(thread, OutlierStat::Consecutive5xx),
                Cause::SuccessRate | Cause::LocalOriginSuccessRate => stats.inc(thread, OutlierStat::SuccessRate),
                _ => {}
            }
        }
        Effect::Ejected { cause, enforced: is_enforced, .. } => {
            if let Cause::Consecutive5xx | Cause::SuccessRate = cause {
                stats.inc(thread, OutlierStat::EjectionsTotal);
            }
            if *is_enforced {
                stats.inc(thread, enforced(cause));
                stats.inc(thread, OutlierStat::EnforcedTotal);
            }
        }
        Effect::Overflow => stats.inc(thread, OutlierStat::EjectionsOverflow),
        Effect::Degraded { .. } => stats.inc(thread, OutlierStat::DetectedDegradation),
        Effect::Unejected { .. } | Effect::NoLongerDegraded { .. } => {}
    }
}
