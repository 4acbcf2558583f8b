//! How long to wait before the next attempt at the control plane: exponential with full jitter, so that a fleet that
//! lost its control plane does not come back all at once. Pure: the randomness is passed in.

use std::time::Duration;

use crate::config::config_source::ReconnectBackoff;

#[derive(Debug)]
pub struct Backoff {
    bounds: ReconnectBackoff,
    /// The next wait is drawn from zero to this.
    interval: Duration,
}

impl Backoff {
    pub fn new(bounds: ReconnectBackoff) -> Backoff {
        Backoff { bounds, interval: bounds.base_interval }
    }

    /// The wait before the next attempt; `random` is drawn evenly from [0, 1).
    pub fn next_wait(&mut self, random: f64) -> Duration {
        let wait = self.interval.mul_f64(random.clamp(0.0, 1.0));
        self.interval = (self.interval * 2).min(self.bounds.max_interval);
        wait
    }

    /// To be called when the control plane answered: merely connecting is no proof that it is well.
    pub fn reset(&mut self) {
        self.interval = self.bounds.base_interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ReconnectBackoff =
        ReconnectBackoff { base_interval: Duration::from_millis(500), max_interval: Duration::from_secs(30) };

    #[test]
    fn doubles_to_the_maximum_and_starts_again() {
        let mut backoff = Backoff::new(BOUNDS);
        let waits: Vec<u128> = (0..8).map(|_| backoff.next_wait(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next_wait(1.0), BOUNDS.base_interval);
    }

    #[test]
    fn spreads_evenly_from_zero() {
        assert_eq!(Backoff::new(BOUNDS).next_wait(0.0), Duration::ZERO);
        assert_eq!(Backoff::new(BOUNDS).next_wait(0.5), Duration::from_millis(250));
    }
}
