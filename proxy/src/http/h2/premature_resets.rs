//! Requests that their client took back before it got anything, as Envoy counts them against rapid resets (CVE-2023-44487):
//! once half of the requests were such, the connection is at an end. Counted frame by frame: a client sends thousands of
//! them at once, before any task has had its turn. Pure but for the clock.

use std::time::Duration;

use super::stream::Stream;

#[derive(Debug, Default)]
pub(super) struct PrematureResets {
    ended: u64,
    premature: u64,
}

/// How many requests have to end before shares mean something.
const REQUESTS_BEFORE_SHARES: u64 = 500;
/// A request that lasted longer was wanted: Envoy counts whole seconds, and more than one is long.
const PREMATURE_BEFORE: Duration = Duration::from_secs(2);

impl PrematureResets {
    /// Notes that a stream has ended. Whether the connection is to end, too.
    pub(super) fn note(&mut self, stream: &Stream) -> bool {
        let Some(opened) = stream.opened else { return false };
        self.count(!stream.has_sent_head() && opened.elapsed() < PREMATURE_BEFORE)
    }

    /// The same for a request that was reset before it became a stream.
    pub(super) fn note_refused(&mut self) -> bool {
        self.count(true)
    }

    fn count(&mut self, is_premature: bool) -> bool {
        self.ended += 1;
        self.premature += u64::from(is_premature);
        is_premature && self.are_too_many()
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.premature * 2 >= self.ended.max(REQUESTS_BEFORE_SHARES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_requests_is_too_many() {
        let mut resets = PrematureResets::default();
        assert!((0..249).all(|_| !resets.count(true)));
        assert!(resets.count(true), "however good all the others of the first 500 were");
        let mut resets = PrematureResets::default();
        for _ in 0..10_000 {
            assert!(!resets.count(false) && !resets.count(false) && !resets.count(true), "a third");
        }
    }
}
