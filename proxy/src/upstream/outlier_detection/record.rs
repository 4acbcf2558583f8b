//! What is known of a host for outlier detection. Workers count, by atomics that stand with the host; the main thread
//! reads, sets back and keeps the history.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub struct OutlierRecord {
    pub(super) consecutive_5xx: AtomicU32,
    pub(super) consecutive_gateway_failures: AtomicU32,
    pub(super) consecutive_local_origin_failures: AtomicU32,
    pub external: Rate,
    pub local: Rate,
    /// Of the main thread alone.
    history: Mutex<History>,
}

/// Successes among results since the last comparison, and what that came to.
#[derive(Debug)]
pub struct Rate {
    pub(super) results: AtomicU32,
    pub(super) successes: AtomicU32,
    percent: AtomicU64,
}

/// When the host was ejected and degraded, and how often.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) ejections: u32,
    pub(super) ejected: Stay,
    pub(super) degraded: Stay,
}

/// Out of the ordinary, for longer the more often it happens.
#[derive(Clone, Debug, Default)]
pub(super) struct Stay {
    /// By how much the base time is multiplied.
    pub(super) multiplier: u32,
    pub(super) begun: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) jitter: Duration,
}

impl OutlierRecord {
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget_consecutive(&self) {
        for counter in
            [&self.consecutive_5xx, &self.consecutive_gateway_failures, &self.consecutive_local_origin_failures]
        {
            counter.store(0, Relaxed);
        }
    }
}

impl Rate {
    /// Of the last comparison that the host took part in; -1: it did not.
    pub fn percent(&self) -> f64 {
        f64::from_bits(self.percent.load(Relaxed))
    }

    pub(super) fn set_percent(&self, percent: f64) {
        self.percent.store(percent.to_bits(), Relaxed);
    }

    pub(super) fn count(&self, success: bool) {
        self.results.fetch_add(1, Relaxed);
        if success {
            self.successes.fetch_add(1, Relaxed);
        }
    }

    /// Results, and how many of a hundred were successes; starts anew.
    pub(super) fn take(&self) -> Option<(u32, f64)> {
        let (results, successes) = (self.results.swap(0, Relaxed), self.successes.swap(0, Relaxed));
        (results > 0).then(|| (results, f64::from(successes.min(results)) * 100.0 / f64::from(results)))
    }
}

impl Default for Rate {
    fn default() -> Self {
        Rate { results: AtomicU32::new(0), successes: AtomicU32::new(0), percent: AtomicU64::new((-1.0f64).to_bits()) }
    }
}

impl Stay {
    /// `base` times as often as it has happened, `longest` at most.
    pub(super) fn begin(&mut self, now: Instant, (base, longest): (Duration, Duration), jitter: Duration) {
        (self.begun, self.jitter) = (Some(now), jitter);
        if base.saturating_mul(self.multiplier) < longest + base {
            self.multiplier += 1;
        }
    }

    pub(super) fn is_over(&self, now: Instant, (base, longest): (Duration, Duration)) -> bool {
        let length = base.saturating_mul(self.multiplier).min(longest) + self.jitter;
        self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= length)
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// The next time will be shorter, once it was over for a whole interval.
    pub(super) fn improve(&mut self, now: Instant, interval: Duration) {
        if self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= interval) {
            self.multiplier = self.multiplier.saturating_sub(1);
        }
    }
}
