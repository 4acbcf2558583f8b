//! The same work on many things, shared out over threads that live no longer than it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The results in the order of the items. `workers` threads at most, the caller's among them.
pub(super) fn map<T: Sync, R: Send>(workers: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if workers < 2 || items.len() < ITEMS_MIN {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    // Whoever is done takes the next one: some are a thousand times as large as others.
    let take_all = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let others = (1..workers).map(|_| scope.spawn(take_all)).collect::<Vec<_>>();
        let mut results = take_all();
        for other in others {
            match other.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// For fewer, starting a thread is not worth it.
const ITEMS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items = (0..1000).collect::<Vec<u32>>();
        for workers in [0, 1, 2, 7] {
            let doubled = map(workers, &items, |item| item * 2);
            assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>(), "{workers} workers");
        }
        assert_eq!(map(4, &[1, 2], |item| item + 1), [2, 3]);
    }

    #[test]
    #[should_panic(expected = "item 500")]
    fn a_panic_of_one_is_a_panic_of_all() {
        map(4, &(0..1000).collect::<Vec<u32>>(), |item| assert_ne!(*item, 500, "item 500"));
    }
}
