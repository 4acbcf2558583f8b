//! How many downstream connections the process may have, over all listeners that it holds for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

pub struct GlobalLimit {
    max: usize,
    open: AtomicUsize,
}

/// One connection, counted as long as this is there.
pub struct GlobalGuard(Arc<GlobalLimit>);

impl GlobalLimit {
    pub fn new(max: usize) -> Arc<GlobalLimit> {
        Arc::new(GlobalLimit { max, open: AtomicUsize::new(0) })
    }

    /// None: it would be one too many.
    pub fn enter(self: &Arc<Self>) -> Option<GlobalGuard> {
        let more = |open: usize| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok().map(|_| GlobalGuard(self.clone()))
    }
}

impl Drop for GlobalGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_makes_room() {
        let limit = GlobalLimit::new(2);
        let (first, second) = (limit.enter(), limit.enter());
        assert!(first.is_some() && second.is_some() && limit.enter().is_none());
        drop(first);
        assert!(limit.enter().is_some());
    }
}
