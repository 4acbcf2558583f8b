//! When a burst of events is over. Pure: the clock is passed in.
//!
//! A burst ends after a quiet time without events, and after a maximum whatever happens, so that a steady trickle of
//! changes still gets through.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    pub quiet: Duration,
    pub max: Duration,
}

/// A burst under way.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    pub fn start(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    pub fn event(&mut self, now: Instant) {
        self.last = now;
    }

    /// When the burst counts as over if nothing else happens.
    pub fn ends(&self, debounce: Debounce) -> Instant {
        (self.last + debounce.quiet).min(self.first + debounce.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Debounce = Debounce { quiet: Duration::from_millis(10), max: Duration::from_millis(100) };

    #[test]
    fn one_event_ends_after_the_quiet_time() {
        let start = Instant::now();
        assert_eq!(Burst::start(start).ends(DEBOUNCE), start + DEBOUNCE.quiet);
    }

    #[test]
    fn each_event_extends_the_quiet_time_up_to_the_maximum() {
        let start = Instant::now();
        let mut burst = Burst::start(start);
        burst.event(start + Duration::from_millis(5));
        assert_eq!(burst.ends(DEBOUNCE), start + Duration::from_millis(15));
        burst.event(start + Duration::from_millis(98));
        assert_eq!(burst.ends(DEBOUNCE), start + DEBOUNCE.max);
    }
}
