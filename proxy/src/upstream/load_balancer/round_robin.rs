//! ROUND_ROBIN: a rotation where weights are equal, else earliest deadline first, so that a host of weight 3 comes three
//! times as often as one of weight 1, evenly spread.

#[derive(Debug)]
pub(super) struct Cursor {
    position: usize,
    /// By candidate: when it is due next, in turns divided by its weight.
    deadlines: Vec<f64>,
}

impl Cursor {
    pub(super) fn new(random: &mut fastrand::Rng) -> Cursor {
        Cursor { position: random.usize(..1 << 16), deadlines: Vec::new() }
    }

    pub(super) fn next(
        &mut self,
        candidates: &[usize],
        equal_weights: bool,
        weight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        if equal_weights {
            self.position = self.position.wrapping_add(1);
            return candidates.get(self.position.checked_rem(candidates.len())?).copied();
        }
        self.next_due(candidates, &weight)
    }

    fn next_due(&mut self, candidates: &[usize], weight: &impl Fn(usize) -> u32) -> Option<usize> {
        let period = |member: usize| 1.0 / f64::from(weight(member).max(1));
        if self.deadlines.len() != candidates.len() {
            self.deadlines = candidates.iter().map(|&member| period(member)).collect();
            for _ in 0..self.position % candidates.len().max(1) {
                self.next_due(candidates, weight); // start anywhere in the rotation
            }
        }
        let due = (0..candidates.len()).min_by(|&a, &b| self.deadlines[a].total_cmp(&self.deadlines[b]))?;
        self.deadlines[due] += period(candidates[due]);
        Some(candidates[due])
    }
}
