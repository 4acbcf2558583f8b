//! ROUND_ROBIN among some hosts: a rotation where all weigh the same, else earliest deadline first.

use std::time::Instant;

use super::edf::Edf;

#[derive(Debug)]
pub(super) struct Rotation {
    position: usize,
    /// There once weights differed, until the hosts change.
    turns: Option<Box<Edf>>,
    /// When the newest of the hosts stops being new.
    even_from: Option<Instant>,
}

impl Rotation {
    /// Starts at a random place, so that workers and proxies don't move in step.
    pub(super) fn new(random: &mut fastrand::Rng) -> Rotation {
        Rotation { position: random.usize(..1 << 16), turns: None, even_from: None }
    }

    pub(super) fn next(&mut self, members: &[u32]) -> Option<u32> {
        self.position = self.position.wrapping_add(1);
        members.get(self.position.checked_rem(members.len())?).copied()
    }

    /// `weight` may change from turn to turn.
    pub(super) fn next_due(
        &mut self,
        members: &[u32],
        weight: impl Fn(u32) -> f64,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        let turns = self.turns.get_or_insert_with(|| Box::new(Edf::new(members.iter().copied(), &weight, random)));
        turns.pick(weight)
    }

    pub(super) fn even_from(&mut self, find: impl FnOnce() -> Instant) -> Instant {
        *self.even_from.get_or_insert_with(find)
    }

    /// The hosts changed.
    pub(super) fn forget_turns(&mut self) {
        (self.turns, self.even_from) = (None, None);
    }
}
