//! How many downstream connections may be open: of a listener, or of the process over all listeners that it holds for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

pub struct OpenLimit {
    max: usize,
    open: AtomicUsize,
}

/// One connection, counted as long as this is there.
pub struct OpenGuard(Arc<OpenLimit>);

impl OpenLimit {
    pub fn new(max: usize) -> Arc<OpenLimit> {
        Arc::new(OpenLimit { max, open: AtomicUsize::new(0) })
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// None: it would be one too many.
    pub fn enter(self: &Arc<Self>) -> Option<OpenGuard> {
        let more = |open: usize| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok().map(|_| OpenGuard(self.clone()))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_makes_room() {
        let limit = OpenLimit::new(2);
        let (first, second) = (limit.enter(), limit.enter());
        assert!(first.is_some() && second.is_some() && limit.enter().is_none());
        drop(first);
        assert!(limit.enter().is_some());
    }
}
