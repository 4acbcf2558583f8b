//! A token bucket that all workers draw from, without a lock: its state is the one instant at which it would have been empty.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::config::token_bucket::TokenBucket as Config;

pub struct TokenBucket {
    begun: Instant,
    tokens_max: f64,
    tokens_per_second: f64,
    /// Seconds since `begun`, as an f64's bits: tokens are what has flowed in since then.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// Full.
    pub fn new(config: &Config, now: Instant) -> TokenBucket {
        let tokens_max = f64::from(config.tokens_max);
        let tokens_per_second = f64::from(config.tokens_per_fill) / config.fill_interval.as_secs_f64();
        let empty_at = AtomicU64::new((-tokens_max / tokens_per_second).to_bits());
        TokenBucket { begun: now, tokens_max, tokens_per_second, empty_at }
    }

    /// Takes a token if there is a whole one.
    pub fn take(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.begun).as_secs_f64();
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, |empty_at| {
            let tokens = ((now - f64::from_bits(empty_at)) * self.tokens_per_second).min(self.tokens_max);
            (tokens >= 1.0).then(|| (now - (tokens - 1.0) / self.tokens_per_second).to_bits())
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_are_spent_and_flow_in_again_up_to_the_limit() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let config = Config { tokens_max: 2, tokens_per_fill: 1, fill_interval: second };
        let bucket = TokenBucket::new(&config, start);
        assert_eq!([start; 3].map(|now| bucket.take(now)), [true, true, false]);
        assert!(!bucket.take(start + second / 2));
        assert!(bucket.take(start + second));
        assert!(!bucket.take(start + second));
        let late = start + 100 * second;
        assert_eq!([late; 3].map(|now| bucket.take(now)), [true, true, false]);
    }
}
