//! A bucket of tokens that all workers draw from, without a lock: what it held and when is one atomic word.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::config::token_bucket::TokenBucket as BucketSettings;

/// The state is a point in time, in nanoseconds since the bucket's first use, at which it would have been empty: time passing
/// fills it, taking a token moves the point on by what a token takes to come.
#[derive(Debug)]
pub struct TokenBucket {
    settings: BucketSettings,
    began: OnceLock<Instant>,
    /// Shifted by the time that a full bucket takes to fill, so that it starts full.
    empty_at_ns: AtomicU64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub allowed: bool,
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset_in: Duration,
}

impl TokenBucket {
    pub fn new(settings: BucketSettings) -> TokenBucket {
        TokenBucket { settings, began: OnceLock::new(), empty_at_ns: AtomicU64::new(0) }
    }

    pub fn settings(&self) -> BucketSettings {
        self.settings
    }

    /// Takes a token if there is one.
    pub fn take(&self, now: Instant) -> Taken {
        let token_ns = self.token_ns();
        let full_ns = token_ns.saturating_mul(u64::from(self.settings.tokens_max));
        let since = now.saturating_duration_since(*self.began.get_or_init(|| now));
        let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add(full_ns);
        let mut seen = self.empty_at_ns.load(Relaxed);
        loop {
            let empty_at = seen.max(now_ns - full_ns);
            let held_ns = now_ns.saturating_sub(empty_at);
            let allowed = held_ns >= token_ns && token_ns > 0;
            let next = if allowed { empty_at + token_ns } else { empty_at };
            match self.empty_at_ns.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => {
                    let left_ns = now_ns.saturating_sub(next);
                    return Taken {
                        allowed,
                        remaining: u32::try_from(left_ns.checked_div(token_ns).unwrap_or(0)).unwrap_or(u32::MAX),
                        reset_in: Duration::from_nanos(full_ns.saturating_sub(left_ns)),
                    };
                }
                Err(changed) => seen = changed,
            }
        }
    }

    /// How long a token takes to come; 0 where none ever does.
    fn token_ns(&self) -> u64 {
        let interval = u64::try_from(self.settings.fill_interval.as_nanos()).unwrap_or(u64::MAX);
        interval.checked_div(u64::from(self.settings.tokens_per_fill)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_starts_full_empties_and_fills_again() {
        let settings = BucketSettings { tokens_max: 3, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };
        let bucket = TokenBucket::new(settings);
        let start = Instant::now();
        let taken: Vec<bool> = (0..5).map(|_| bucket.take(start).allowed).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(!bucket.take(start + Duration::from_millis(900)).allowed);
        let later = bucket.take(start + Duration::from_millis(1000));
        assert_eq!((later.allowed, later.remaining, later.reset_in), (true, 0, Duration::from_secs(3)));
        let full = start + Duration::from_secs(100);
        assert_eq!(bucket.take(full).remaining, 2);
        assert_eq!((0..5).filter(|_| bucket.take(full).allowed).count(), 2);
    }

    #[test]
    fn a_bucket_of_nothing_gives_nothing() {
        let settings = BucketSettings { tokens_max: 0, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };
        assert!(!TokenBucket::new(settings).take(Instant::now()).allowed);
    }
}
