//! How fast requests may follow each other on a stream: a bucket of tokens. Pure.

use std::time::Instant;

use crate::config::config_source::RateLimit;

#[derive(Debug)]
pub struct Bucket {
    limit: RateLimit,
    tokens: u32,
    /// When the last token that is due was put in.
    filled_at: Instant,
}

impl Bucket {
    /// Full.
    pub fn new(limit: RateLimit, now: Instant) -> Bucket {
        Bucket { limit, tokens: limit.max_tokens, filled_at: now }
    }

    /// When a request may go; at or before `now` means at once.
    pub fn ready_at(&mut self, now: Instant) -> Instant {
        self.fill(now);
        if self.tokens > 0 { now } else { self.filled_at + self.limit.refill_interval }
    }

    /// A request went.
    pub fn take(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = self.tokens.saturating_sub(1);
    }

    fn fill(&mut self, now: Instant) {
        let interval = self.limit.refill_interval.as_nanos().max(1);
        let due = now.saturating_duration_since(self.filled_at).as_nanos() / interval;
        let missing = self.limit.max_tokens - self.tokens;
        match u32::try_from(due) {
            Ok(due) if due < missing => {
                self.tokens += due;
                self.filled_at += self.limit.refill_interval * due;
            }
            _ => {
                self.tokens = self.limit.max_tokens;
                self.filled_at = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_goes_and_then_one_an_interval() {
        let interval = Duration::from_secs(2);
        let mut now = Instant::now();
        let mut bucket = Bucket::new(RateLimit { max_tokens: 2, refill_interval: interval }, now);
        for _ in 0..2 {
            assert_eq!(bucket.ready_at(now), now);
            bucket.take(now);
        }
        assert_eq!(bucket.ready_at(now), now + interval);
        now += Duration::from_secs(1);
        assert_eq!(bucket.ready_at(now), now + Duration::from_secs(1));
        now += Duration::from_secs(1);
        assert_eq!(bucket.ready_at(now), now);
        bucket.take(now);
        now += interval * 100;
        bucket.take(now);
        bucket.take(now);
        assert_eq!(bucket.ready_at(now), now + interval);
    }
}
