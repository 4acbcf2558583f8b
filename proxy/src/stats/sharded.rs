//! Cells that every worker writes without sharing a cache line, and readers sum.
//!
//! Invariant: a shard has one writer, the thread that its `WorkerIndex` was given to; so a relaxed load and store is an add.

use std::{
    marker::PhantomData,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::stats::StatGroup;

/// Which shard a thread writes. The main thread has the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex(pub usize);

/// The cells of one group, a shard a worker.
pub struct Sharded<S: StatGroup> {
    shards: Box<[OnceLock<Shard>]>,
    group: PhantomData<S>,
}

/// Starts on a cache line of its own.
#[repr(align(64))]
struct Line([AtomicU64; 8]);
type Shard = Box<[Line]>;

impl<S: StatGroup> Sharded<S> {
    pub fn new(shards: usize) -> Self {
        Sharded { shards: (0..shards).map(|_| OnceLock::new()).collect(), group: PhantomData }
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
        let at = stat.index();
        self.shards
            .iter()
            .filter_map(OnceLock::get)
            .fold(0u64, |sum, shard| sum.wrapping_add(shard[at / 8].0[at % 8].load(Relaxed)))
    }
}

fn new_lines<S: StatGroup>() -> Shard {
    (0..S::CELLS.len().div_ceil(8)).map(|_| Line(Default::default())).collect()
}

#[inline]
fn bump(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// A duration histogram with Envoy's default buckets, in milliseconds.
pub struct Histogram {
    shards: Box<[OnceLock<Box<HistogramShard>>]>,
}

/// Upper bounds in milliseconds; one more bucket takes what is above.
pub const HISTOGRAM_BUCKETS_MS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000., 60000., 300000., 600000.,
    1800000., 3600000.,
];

#[repr(align(64))]
#[derive(Default)]
struct HistogramShard {
    buckets: [AtomicU64; HISTOGRAM_BUCKETS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn new(shards: usize) -> Self {
        Histogram { shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    pub fn record(&self, worker: WorkerIndex, value: Duration) {
        let shard = self.shards[worker.0].get_or_init(Default::default);
        let ms = value.as_secs_f64() * 1e3;
        let bucket = HISTOGRAM_BUCKETS_MS.iter().position(|&bound| ms <= bound).unwrap_or(HISTOGRAM_BUCKETS_MS.len());
        bump(&shard.buckets[bucket], 1);
        bump(&shard.sum_us, u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    /// Cumulative counts, one a bound and the last for all; and the sum in milliseconds. None: never recorded.
    pub fn totals(&self) -> Option<([u64; HISTOGRAM_BUCKETS_MS.len() + 1], f64)> {
        let mut counts = [0u64; HISTOGRAM_BUCKETS_MS.len() + 1];
        let mut sum_us = 0u64;
        let mut any = false;
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            any = true;
            sum_us += shard.sum_us.load(Relaxed);
            for (count, bucket) in counts.iter_mut().zip(&shard.buckets) {
                *count += bucket.load(Relaxed);
            }
        }
        for at in 1..counts.len() {
            counts[at] += counts[at - 1];
        }
        any.then_some((counts, sum_us as f64 / 1e3))
    }
}

/// Responses counted by status code; a class of a hundred codes is allocated when its first response is counted.
pub struct CodeCounters {
    shards: Box<[[CodeClass; 5]]>,
}

/// The codes of one class.
type CodeClass = OnceLock<Box<[AtomicU64; 100]>>;

impl CodeCounters {
    pub fn new(shards: usize) -> Self {
        CodeCounters { shards: (0..shards).map(|_| Default::default()).collect() }
    }

    #[inline]
    pub fn count(&self, worker: WorkerIndex, status: http::StatusCode) {
        let code = usize::from(status.as_u16());
        if let Some(class) = self.shards[worker.0].get((code / 100).wrapping_sub(1)) {
            let codes = class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
            bump(&codes[code % 100], 1);
        }
    }

    /// (code, count) of every code that was counted, ascending.
    pub fn totals(&self) -> Vec<(u16, u64)> {
        let mut totals = Vec::new();
        for class in 0..5u16 {
            for code in 0..100u16 {
                let count: u64 = self
                    .shards
                    .iter()
                    .filter_map(|shard| shard[usize::from(class)].get())
                    .map(|codes| codes[usize::from(code)].load(Relaxed))
                    .sum();
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
    fn histogram_counts_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(2);
        assert!(histogram.totals().is_none());
        histogram.record(WorkerIndex(0), Duration::from_micros(500));
        histogram.record(WorkerIndex(1), Duration::from_millis(7));
        histogram.record(WorkerIndex(1), Duration::from_secs(7200));
        let (counts, sum) = histogram.totals().expect("recorded");
        assert_eq!((counts[0], counts[3], counts[18], counts[19]), (1, 2, 2, 3));
        assert!((sum - 7_200_007.5).abs() < 0.01);
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
