//! Reading statistics: whoever has some is a scope, and says them one by one.

use std::any::Any;

use crate::stats::{Bins, Histogram, MetricName, Sharded, StatGroup, StatKind};

/// Statistics whose names begin alike.
pub trait Scope: Any + Send + Sync {
    fn prefix(&self) -> MetricName;

    fn read(&self, readings: &mut Readings<'_>);

    /// Counters begin anew, as far as one sees.
    fn reset(&self) {}

    /// An interval of the histograms ends.
    fn flush(&self) {}
}

/// One statistic as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Counter(u64),
    Gauge(u64),
    Text(String),
    /// All that was recorded, and what came in the last interval.
    Histogram {
        total: Bins,
        interval: Bins,
    },
}

/// What scopes say goes here.
pub struct Readings<'a> {
    name: MetricName,
    say: &'a mut dyn FnMut(&MetricName, Reading),
}

impl Reading {
    pub fn of(kind: StatKind, value: u64) -> Self {
        match kind {
            StatKind::Counter => Reading::Counter(value),
            StatKind::Gauge => Reading::Gauge(value),
        }
    }

    /// Whether anything was ever counted, as far as the value tells.
    pub fn is_used(&self) -> bool {
        match self {
            Reading::Counter(value) | Reading::Gauge(value) => *value > 0,
            Reading::Text(text) => !text.is_empty(),
            Reading::Histogram { total, .. } => !total.is_empty(),
        }
    }
}

/// All that the scope has.
pub fn read(scope: &dyn Scope, say: &mut dyn FnMut(&MetricName, Reading)) {
    scope.read(&mut Readings { name: scope.prefix(), say });
}

impl Readings<'_> {
    pub fn say(&mut self, rest: &str, reading: Reading) {
        let mark = self.name.mark();
        self.name.push(rest);
        (self.say)(&self.name, reading);
        self.name.cut_to(mark);
    }

    pub fn counter(&mut self, rest: &str, value: u64) {
        self.say(rest, Reading::Counter(value));
    }

    pub fn gauge(&mut self, rest: &str, value: u64) {
        self.say(rest, Reading::Gauge(value));
    }

    /// Under a name that has more tags.
    pub fn named(&mut self, build: impl FnOnce(MetricName) -> MetricName, reading: Reading) {
        let mark = self.name.mark();
        self.name = build(std::mem::take(&mut self.name));
        (self.say)(&self.name, reading);
        self.name.cut_to(mark);
    }

    pub fn cells<S: StatGroup>(&mut self, before: &str, cells: &Sharded<S>) {
        for &(stat, name, kind) in S::CELLS {
            let mark = self.name.mark();
            self.name.push(before);
            self.say(name, Reading::of(kind, cells.value(stat)));
            self.name.cut_to(mark);
        }
    }

    pub fn histogram(&mut self, rest: &str, histogram: &Histogram) {
        self.say(rest, Reading::Histogram { total: histogram.total(), interval: histogram.interval() });
    }
}
