//! Histograms as Envoy keeps them: ninety bins a decade, so that every value is known to two digits, whatever its size.
//! Workers write shards of their own; what is read is a sum, and what came since it was last flushed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::stats::{WorkerIndex, sharded::bump};

/// Of whole numbers; durations are in milliseconds.
pub struct Histogram {
    shards: Box<[OnceLock<Box<Shard>>]>,
    /// None: nothing was recorded until then.
    flushed: Mutex<Option<Box<Flushed>>>,
}

#[repr(align(64))]
#[derive(Default)]
struct Shard {
    zeros: AtomicU64,
    decades: [OnceLock<Box<[AtomicU64; BINS_A_DECADE]>>; DECADES],
}

#[derive(Default)]
struct Flushed {
    /// All that there was.
    total: Bins,
    /// What came between the last two times.
    interval: Bins,
}

const BINS_A_DECADE: usize = 90;
/// What is larger is counted as the largest.
const DECADES: usize = 12;

/// How often which values came, by bin, in ascending order. None of the counts is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bins(BTreeMap<Bin, u64>);

/// Two digits and their power of ten: `mantissa` from 10 to 99 stands for a tenth of it. None of both: zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bin {
    exponent: i8,
    mantissa: u8,
}

impl Histogram {
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| OnceLock::new()).collect(), flushed: Mutex::default() }
    }

    #[inline]
    pub fn record(&self, worker: WorkerIndex, value: Duration) {
        self.record_number(worker, u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
    }

    pub fn record_number(&self, worker: WorkerIndex, value: u64) {
        let shard = self.shards[worker.0].get_or_init(Default::default);
        match decade_and_bin(value) {
            None => bump(&shard.zeros, 1),
            Some((decade, bin)) => {
                let bins = shard.decades[decade].get_or_init(|| Box::new([const { AtomicU64::new(0) }; BINS_A_DECADE]));
                bump(&bins[bin], 1);
            }
        }
    }

    /// All that was recorded.
    pub fn total(&self) -> Bins {
        let mut bins = BTreeMap::new();
        let mut add = |bin: Bin, count: u64| {
            if count > 0 {
                *bins.entry(bin).or_default() += count;
            }
        };
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            add(Bin::ZERO, shard.zeros.load(Relaxed));
            for (decade, counts) in shard.decades.iter().enumerate() {
                for (at, count) in counts.get().into_iter().flat_map(|counts| counts.iter()).enumerate() {
                    add(Bin { exponent: decade as i8, mantissa: at as u8 + 10 }, count.load(Relaxed));
                }
            }
        }
        Bins(bins)
    }

    /// What came in the last whole interval.
    pub fn interval(&self) -> Bins {
        let flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        flushed.as_ref().map(|flushed| flushed.interval.clone()).unwrap_or_default()
    }

    /// An interval ends, and another begins.
    pub fn flush(&self) {
        if self.shards.iter().all(|shard| shard.get().is_none()) {
            return;
        }
        let total = self.total();
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = flushed.get_or_insert_default();
        flushed.interval = total.without(&flushed.total);
        flushed.total = total;
    }
}

/// None: zero.
fn decade_and_bin(value: u64) -> Option<(usize, usize)> {
    let digits = value.checked_ilog10()?;
    let mantissa = match digits {
        0 => value * 10,
        _ => value / 10u64.pow(digits - 1),
    };
    match digits as usize {
        decade if decade < DECADES => Some((decade, mantissa as usize - 10)),
        _ => Some((DECADES - 1, BINS_A_DECADE - 1)),
    }
}

impl Bin {
    const ZERO: Bin = Bin { exponent: -1, mantissa: 0 };

    pub fn lower_bound(self) -> f64 {
        if self == Self::ZERO { 0.0 } else { f64::from(self.mantissa) * self.unit() }
    }

    pub fn width(self) -> f64 {
        if self == Self::ZERO { 0.0 } else { self.unit() }
    }

    fn unit(self) -> f64 {
        match self.exponent {
            0 => 0.1,
            exponent => 10f64.powi(i32::from(exponent) - 1),
        }
    }

    /// The value that keeps the error of sums small: below the middle, as values in a bin of powers of ten are.
    fn midpoint(self) -> f64 {
        let (bottom, width) = (self.lower_bound(), self.width());
        let top = bottom + width;
        if top == 0.0 { 0.0 } else { bottom + width * (bottom / (bottom + top)) }
    }
}

impl Bins {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn sum(&self) -> f64 {
        self.0.iter().map(|(bin, count)| bin.midpoint() * *count as f64).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Bin, u64)> {
        self.0.iter().map(|(bin, count)| (*bin, *count))
    }

    pub fn merged(mut self, other: &Bins) -> Bins {
        for (bin, count) in other.iter() {
            *self.0.entry(bin).or_default() += count;
        }
        self
    }

    /// How many are no more than `bound`, or not told from it.
    pub fn count_up_to(&self, bound: f64) -> u64 {
        self.iter().filter(|(bin, _)| bin.lower_bound() <= bound).map(|(_, count)| count).sum()
    }

    /// The value that this part of all is below; None: there is none at all. Within a bin values are taken to lie at equal
    /// distances.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = (part * self.count() as f64).ceil().max(1.0);
        let mut before = 0.0;
        for (bin, count) in self.iter() {
            let count = count as f64;
            if before + count >= rank {
                return Some(bin.lower_bound() + bin.width() * ((rank - before) / (count + 1.0)));
            }
            before += count;
        }
        None
    }

    fn without(&self, earlier: &Bins) -> Bins {
        let left = self.iter().map(|(bin, count)| (bin, count - earlier.0.get(&bin).copied().unwrap_or(0)));
        Bins(left.filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let histogram = Histogram::new(2);
        for (at, value) in values.iter().enumerate() {
            histogram.record_number(WorkerIndex(at % 2), *value);
        }
        histogram
    }

    #[test]
    fn quantiles_are_those_of_envoy() {
        // What Envoy 1.40 says of the same values.
        let ones = of(&[1; 7]).total();
        let quantiles = [0.0, 0.25, 0.5, 0.75, 0.9].map(|part| ones.quantile(part).unwrap());
        for (ours, expected) in quantiles.into_iter().zip([1.0125, 1.025, 1.05, 1.075, 1.0875]) {
            assert!((ours - expected).abs() < 1e-9, "{ours} {expected}");
        }
        let mixed = of(&[1, 10, 16, 43]).total();
        assert_eq!(
            [0.0, 0.25, 0.5, 0.75, 0.9, 1.0].map(|p| mixed.quantile(p).unwrap()),
            [1.05, 1.05, 10.5, 16.5, 43.5, 43.5]
        );
        assert!((mixed.sum() - 71.502_910_882_221_23).abs() < 1e-9);
        assert_eq!(Bins::default().quantile(0.5), None);
        assert_eq!(of(&[0, 0]).total().quantile(1.0), Some(0.0));
    }

    #[test]
    fn values_that_share_a_bin_with_the_bound_count_below_it() {
        let bins = of(&[0, 1, 2, 25, 26, 1049, 1100]).total();
        assert_eq!([0.5, 1.0, 5.0, 25.0, 1000.0, 2500.0].map(|bound| bins.count_up_to(bound)), [1, 2, 3, 4, 6, 7]);
    }

    #[test]
    fn every_value_has_a_bin() {
        let histogram = of(&[9, 10, 99, 100, 999_999_999_999, u64::MAX]);
        let bounds: Vec<f64> = histogram.total().iter().map(|(bin, _)| bin.lower_bound()).collect();
        assert_eq!(bounds, [9.0, 10.0, 99.0, 100.0, 990_000_000_000.0]);
    }

    #[test]
    fn an_interval_is_what_came_since_the_last() {
        let histogram = of(&[3]);
        histogram.flush();
        assert_eq!(histogram.interval().count(), 1);
        histogram.record_number(WorkerIndex(0), 4);
        histogram.flush();
        assert_eq!((histogram.interval().count(), histogram.total().count()), (1, 2));
        histogram.flush();
        assert!(histogram.interval().is_empty());
    }
}
