//! Earliest deadline first: of weighted items, each comes as often as its weight says, evenly spread. Picking is
//! O(log n), and weights may differ at every pick.

use std::{cmp::Ordering, collections::BinaryHeap};

#[derive(Debug)]
pub(super) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    picks: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Among equal deadlines the one that waits longest.
    order: u64,
    item: u32,
}

impl Edf {
    /// Items without weight never come. Each starts somewhere within its period, so that workers and proxies don't move
    /// in step.
    pub(super) fn new(
        items: impl Iterator<Item = u32>,
        weight: impl Fn(u32) -> f64,
        random: &mut fastrand::Rng,
    ) -> Edf {
        let mut picks = 0;
        let entries = items.filter_map(|item| {
            let weight = weight(item);
            picks += 1;
            (weight > 0.0).then(|| Entry { deadline: random.f64() / weight, order: picks, item })
        });
        Edf { queue: entries.collect(), now: 0.0, picks }
    }

    /// The item that is due. Its next turn comes after what its weight is now.
    pub(super) fn pick(&mut self, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let mut due = self.queue.peek_mut()?;
        self.now = due.deadline;
        let item = due.item;
        self.picks += 1;
        due.deadline = self.now + 1.0 / weight(item).max(f64::MIN_POSITIVE);
        due.order = self.picks;
        Some(item)
    }
}

impl Ord for Entry {
    /// The greatest is the first.
    fn cmp(&self, other: &Entry) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then_with(|| other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_by_its_weight_and_evenly() {
        let mut random = fastrand::Rng::with_seed(3);
        let weight = |item| [1.0, 3.0, 0.0, 6.0][item as usize];
        let mut edf = Edf::new(0..4, weight, &mut random);
        let mut counts = [0; 4];
        let mut longest_run = 0;
        let mut run = (0, 0);
        for _ in 0..1000 {
            let item = edf.pick(weight).expect("some have weight");
            counts[item as usize] += 1;
            run = if run.0 == item { (item, run.1 + 1) } else { (item, 1) };
            longest_run = longest_run.max(run.1);
        }
        assert_eq!(counts[2], 0);
        assert!((99..=101).contains(&counts[0]) && (299..=301).contains(&counts[1]), "{counts:?}");
        assert!(longest_run <= 4, "{longest_run}");
    }

    #[test]
    fn nothing_gives_nothing() {
        let mut random = fastrand::Rng::with_seed(3);
        assert_eq!(Edf::new(0..0, |_| 1.0, &mut random).pick(|_| 1.0), None);
        assert_eq!(Edf::new(0..3, |_| 0.0, &mut random).pick(|_| 1.0), None);
    }
}
