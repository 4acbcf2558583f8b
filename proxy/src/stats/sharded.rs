//! Cells that every worker writes without sharing a cache line, and readers sum.
//!
//! Invariant: a shard has one writer, the thread that its `WorkerIndex` was given to; so a relaxed load and store is an add.

use std::{
    marker::PhantomData,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::stats::{StatGroup, StatKind};

/// Which shard a thread writes. The main thread has the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex(pub usize);

/// The cells of one group, a shard a worker.
pub struct Sharded<S: StatGroup> {
    shards: Box<[OnceLock<Shard>]>,
    /// What counters had when they were last reset.
    reset_at: OnceLock<Shard>,
    group: PhantomData<S>,
}

/// Starts on a cache line of its own.
#[repr(align(64))]
struct Line([AtomicU64; 8]);
type Shard = Box<[Line]>;

impl<S: StatGroup> Sharded<S> {
    pub fn new(shards: usize) -> Self {
        Sharded {
            shards: (0..shards).map(|_| OnceLock::new()).collect(),
            reset_at: OnceLock::new(),
            group: PhantomData,
        }
    }

    #[inline]
    pub fn inc(&self, worker: WorkerIndex, stat: S) {
        self.add(worker, stat, 1);
    }

    /// Of a gauge.
    #[inline]
    pub fn dec(&self, worker: WorkerIndex, stat: S) {
        self.add(worker, stat, u64::MAX); // -1, wrapping
    }

    #[inline]
    pub fn add(&self, worker: WorkerIndex, stat: S, amount: u64) {
        let shard = self.shards[worker.0].get_or_init(new_lines::<S>);
        bump(&shard[stat.index() / 8].0[stat.index() % 8], amount);
    }

    /// Of a gauge that one thread alone keeps.
    pub fn set(&self, worker: WorkerIndex, stat: S, value: u64) {
        let shard = self.shards[worker.0].get_or_init(new_lines::<S>);
        shard[stat.index() / 8].0[stat.index() % 8].store(value, Relaxed);
    }

    pub fn sum(&self, stat: S) -> u64 {
        self.shards.iter().filter_map(OnceLock::get).fold(0u64, |sum, shard| sum.wrapping_add(cell(shard, stat)))
    }

    /// As it is shown: a counter since it was last reset.
    pub fn value(&self, stat: S) -> u64 {
        self.sum(stat).wrapping_sub(self.reset_at.get().map_or(0, |counts| cell(counts, stat)))
    }

    /// What one thread counted.
    pub fn of(&self, worker: WorkerIndex, stat: S) -> u64 {
        self.shards[worker.0].get().map_or(0, |shard| cell(shard, stat))
    }

    /// Whether anything was ever counted.
    pub fn is_used(&self) -> bool {
        self.shards.iter().any(|shard| shard.get().is_some())
    }

    /// Counters are shown as if they began anew; gauges stay.
    pub fn reset(&self) {
        if !self.is_used() {
            return;
        }
        let counts = self.reset_at.get_or_init(new_lines::<S>);
        for &(stat, _, kind) in S::CELLS {
            if kind == StatKind::Counter {
                counts[stat.index() / 8].0[stat.index() % 8].store(self.sum(stat), Relaxed);
            }
        }
    }
}

fn new_lines<S: StatGroup>() -> Shard {
    (0..S::CELLS.len().div_ceil(8)).map(|_| Line(Default::default())).collect()
}

fn cell<S: StatGroup>(shard: &Shard, stat: S) -> u64 {
    shard[stat.index() / 8].0[stat.index() % 8].load(Relaxed)
}

#[inline]
pub(super) fn bump(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Responses counted by status code; a worker's codes are allocated when it first counts one, a class of a hundred at a time.
pub struct CodeCounters {
    shards: Box<[OnceLock<Box<[CodeClass; 5]>>]>,
    /// What had been counted when they were last reset.
    reset_at: Mutex<Vec<(u16, u64)>>,
}

/// The codes of one class.
type CodeClass = OnceLock<Box<[AtomicU64; 100]>>;

impl CodeCounters {
    pub fn new(shards: usize) -> Self {
        CodeCounters { shards: (0..shards).map(|_| OnceLock::new()).collect(), reset_at: Mutex::default() }
    }

    #[inline]
    pub fn count(&self, worker: WorkerIndex, status: http::StatusCode) {
        let code = usize::from(status.as_u16());
        let classes = self.shards[worker.0].get_or_init(Default::default);
        if let Some(class) = classes.get((code / 100).wrapping_sub(1)) {
            let codes = class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
            bump(&codes[code % 100], 1);
        }
    }

    /// (code, count) of every code that was ever counted, ascending; the counts since they were last reset.
    pub fn totals(&self) -> Vec<(u16, u64)> {
        let mut totals = self.ever();
        for (code, before) in self.reset_at.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some((_, count)) = totals.iter_mut().find(|(known, _)| known == code) {
                *count = count.wrapping_sub(*before);
            }
        }
        totals
    }

    pub fn reset(&self) {
        *self.reset_at.lock().unwrap_or_else(PoisonError::into_inner) = self.ever();
    }

    fn ever(&self) -> Vec<(u16, u64)> {
        let mut totals = Vec::new();
        if self.shards.iter().all(|shard| shard.get().is_none()) {
            return totals;
        }
        for class in 0..5u16 {
            for code in 0..100u16 {
                let classes = self.shards.iter().filter_map(OnceLock::get);
                let codes = classes.filter_map(|classes| classes[usize::from(class)].get());
                let count: u64 = codes.map(|codes| codes[usize::from(code)].load(Relaxed)).sum();
                if count > 0 {
                    totals.push(((class + 1) * 100 + code, count));
                }
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::HostStat;

    #[test]
    fn shards_are_summed_and_gauges_go_down_on_another_worker() {
        let cells = Sharded::<HostStat>::new(3);
        cells.inc(WorkerIndex(0), HostStat::CxActive);
        cells.inc(WorkerIndex(0), HostStat::CxActive);
        cells.dec(WorkerIndex(2), HostStat::CxActive);
        assert_eq!(cells.sum(HostStat::CxActive), 1);
        assert_eq!(cells.sum(HostStat::RqTotal), 0);
    }

    #[test]
    fn a_reset_counter_begins_anew_and_a_gauge_stays() {
        let cells = Sharded::<HostStat>::new(2);
        assert!(!cells.is_used());
        cells.inc(WorkerIndex(0), HostStat::CxActive);
        cells.inc(WorkerIndex(0), HostStat::RqTotal);
        cells.reset();
        cells.inc(WorkerIndex(1), HostStat::RqTotal);
        assert_eq!((cells.value(HostStat::RqTotal), cells.sum(HostStat::RqTotal)), (1, 2));
        assert_eq!((cells.value(HostStat::CxActive), cells.of(WorkerIndex(1), HostStat::RqTotal)), (1, 1));
        let codes = CodeCounters::new(1);
        codes.count(WorkerIndex(0), http::StatusCode::OK);
        codes.reset();
        assert_eq!(codes.totals(), [(200, 0)]);
    }

    #[test]
    fn codes_are_counted_each() {
        let codes = CodeCounters::new(2);
        codes.count(WorkerIndex(0), http::StatusCode::OK);
        codes.count(WorkerIndex(1), http::StatusCode::OK);
        codes.count(WorkerIndex(1), http::StatusCode::SERVICE_UNAVAILABLE);
        codes.count(WorkerIndex(1), http::StatusCode::from_u16(999).expect("a valid code"));
        assert_eq!(codes.totals(), [(200, 2), (503, 1)]);
    }
}
