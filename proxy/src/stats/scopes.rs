//! The scopes that the registry makes: what clusters, connection managers, listeners and filters count.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use crate::stats::{
    ClusterStat, CodeCounters, Histogram, Http2Stat, HttpStat, ListenerHttpStat, ListenerStat, MetricName,
    ProxyProtocolStat, Reading, Readings, Scope, Sharded, StatGroup, Tag, WorkerIndex,
};

/// A group of cells, and nothing else.
pub struct GroupStats<S: StatGroup> {
    pub prefix: MetricName,
    pub cells: Sharded<S>,
}

pub struct ClusterStats {
    pub name: Arc<str>,
    pub cells: Sharded<ClusterStat>,
    pub http2: Arc<Sharded<Http2Stat>>,
    /// Final answers of routed requests, of callers outside and inside.
    external: Answered,
    internal: Answered,
    /// Answers that were not passed on, because the request was tried again.
    pub retried: CodeCounters,
    pub cx_connect: Histogram,
    pub cx_length: Histogram,
    pub rq_per_cx: Histogram,
}

/// Where a request comes from, as Envoy tells it by the caller's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    External,
    Internal,
}

struct Answered {
    codes: CodeCounters,
    rq_time: Histogram,
}

pub struct HttpStats {
    pub name: Arc<str>,
    pub cells: Sharded<HttpStat>,
    pub codes: CodeCounters,
    pub rq_time: Histogram,
    pub cx_length: Histogram,
}

pub struct ListenerStats {
    pub name: Arc<str>,
    pub cells: Sharded<ListenerStat>,
    /// How long connections were open.
    pub cx_length: Histogram,
    /// The last shard is the main thread's, which accepts nothing.
    workers: usize,
}

/// The filter of the PROXY protocol has names of a shape of its own.
pub struct ProxyProtocolStats {
    pub prefix: Arc<str>,
    pub cells: Sharded<ProxyProtocolStat>,
}

impl<S: StatGroup> GroupStats<S> {
    pub(super) fn new(prefix: MetricName, shards: usize) -> Self {
        Self { prefix, cells: Sharded::new(shards) }
    }
}

impl<S: StatGroup> Scope for GroupStats<S> {
    fn prefix(&self) -> MetricName {
        self.prefix.clone()
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.cells("", &self.cells);
    }

    fn reset(&self) {
        self.cells.reset();
    }
}

impl ClusterStats {
    pub(super) fn new(name: Arc<str>, shards: usize) -> Self {
        let answered = || Answered { codes: CodeCounters::new(shards), rq_time: Histogram::new(shards) };
        Self {
            name,
            cells: Sharded::new(shards),
            http2: Arc::new(Sharded::new(shards)),
            external: answered(),
            internal: answered(),
            retried: CodeCounters::new(shards),
            cx_connect: Histogram::new(shards),
            cx_length: Histogram::new(shards),
            rq_per_cx: Histogram::new(shards),
        }
    }

    /// The caller gets this answer.
    pub fn count_response(&self, worker: WorkerIndex, status: StatusCode, caller: CallerKind) {
        self.answered(caller).codes.count(worker, status);
    }

    /// How long the upstream took for the whole response.
    pub fn record_rq_time(&self, worker: WorkerIndex, elapsed: Duration, caller: CallerKind) {
        self.answered(caller).rq_time.record(worker, elapsed);
    }

    fn answered(&self, caller: CallerKind) -> &Answered {
        match caller {
            CallerKind::External => &self.external,
            CallerKind::Internal => &self.internal,
        }
    }

    fn code_counters(&self) -> [&CodeCounters; 3] {
        [&self.external.codes, &self.internal.codes, &self.retried]
    }

    fn histograms(&self) -> [&Histogram; 5] {
        [&self.external.rq_time, &self.internal.rq_time, &self.cx_connect, &self.cx_length, &self.rq_per_cx]
    }
}

impl Scope for ClusterStats {
    fn prefix(&self) -> MetricName {
        MetricName::new("cluster.").tagged(Tag::ClusterName, &self.name)
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.cells("", &self.cells);
        for name in CLUSTER_NEVER {
            readings.counter(name, 0);
        }
        if self.http2.is_used() {
            readings.cells("http2.", &self.http2);
        }
        let (external, internal) = (self.external.codes.totals(), self.internal.codes.totals());
        read_codes(readings, "", &summed(&external, &internal));
        read_codes(readings, "external.", &external);
        read_codes(readings, "internal.", &internal);
        read_codes(readings, "retry.", &self.retried.totals());

        let mut rq_time = |name: &str, histograms: &[&Histogram]| {
            let merge = |bins: fn(&Histogram) -> crate::stats::Bins| {
                histograms.iter().map(|histogram| bins(histogram)).reduce(|all, more| all.merged(&more))
            };
            if let (Some(total), Some(interval)) = (merge(Histogram::total), merge(Histogram::interval))
                && !total.is_empty()
            {
                readings.say(name, Reading::Histogram { total, interval });
            }
        };
        rq_time("upstream_rq_time", &[&self.external.rq_time, &self.internal.rq_time]);
        rq_time("external.upstream_rq_time", &[&self.external.rq_time]);
        rq_time("internal.upstream_rq_time", &[&self.internal.rq_time]);
        readings.histogram("upstream_cx_connect_ms", &self.cx_connect);
        readings.histogram("upstream_cx_length_ms", &self.cx_length);
        readings.histogram("upstream_rq_per_cx", &self.rq_per_cx);
    }

    fn reset(&self) {
        self.cells.reset();
        self.http2.reset();
        for codes in self.code_counters() {
            codes.reset();
        }
    }

    fn flush(&self) {
        for histogram in self.histograms() {
            histogram.flush();
        }
    }
}

/// What Envoy counts of clusters and cannot happen here: HTTP/3 and early data are never spoken, no answer is left for
/// later by an overload manager, and no codec puts up with what these count.
const CLUSTER_NEVER: &[&str] =
    &["upstream_cx_http3_total", "upstream_cx_connect_with_0_rtt", "upstream_http3_broken", "upstream_rq_0rtt"];

fn summed(a: &[(u16, u64)], b: &[(u16, u64)]) -> Vec<(u16, u64)> {
    let mut sum = a.to_vec();
    for (code, count) in b {
        match sum.binary_search_by_key(code, |(known, _)| *known) {
            Ok(at) => sum[at].1 += count,
            Err(at) => sum.insert(at, (*code, *count)),
        }
    }
    sum
}

/// Each code, their classes and all together. Nothing where there was none, but for the sum of all.
fn read_codes(readings: &mut Readings<'_>, before: &str, totals: &[(u16, u64)]) {
    if totals.is_empty() && !before.is_empty() {
        return;
    }
    for class in 1..=5u16 {
        let mut of_class = totals.iter().filter(|(code, _)| code / 100 == class).peekable();
        if of_class.peek().is_some() {
            let count = of_class.map(|(_, count)| count).sum();
            read_class(readings, &format!("{before}upstream_rq_"), class, count);
        }
    }
    for (code, count) in totals {
        let name = |name: MetricName| {
            name.then(before).then("upstream_rq").with_part(Tag::ResponseCode, "_", &code.to_string(), "")
        };
        readings.named(name, Reading::Counter(*count));
    }
    readings.counter(&format!("{before}upstream_rq_completed"), totals.iter().map(|(_, count)| count).sum());
}

fn read_class(readings: &mut Readings<'_>, before: &str, class: u16, count: u64) {
    let name =
        |name: MetricName| name.then(before).with_part(Tag::ResponseCodeClass, "", &class.to_string(), "").then("xx");
    readings.named(name, Reading::Counter(count));
}

impl HttpStats {
    pub(super) fn new(name: Arc<str>, shards: usize) -> Self {
        Self {
            name,
            cells: Sharded::new(shards),
            codes: CodeCounters::new(shards),
            rq_time: Histogram::new(shards),
            cx_length: Histogram::new(shards),
        }
    }
}

impl Scope for HttpStats {
    fn prefix(&self) -> MetricName {
        MetricName::new("http.").tagged(Tag::HttpConnectionManagerPrefix, &self.name)
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.cells("", &self.cells);
        for name in HTTP_NEVER {
            readings.counter(name, 0);
        }
        let totals = self.codes.totals();
        for class in 1..=5u16 {
            let count = totals.iter().filter(|(code, _)| code / 100 == class).map(|(_, count)| count).sum();
            read_class(readings, "downstream_rq_", class, count);
        }
        readings.histogram("downstream_rq_time", &self.rq_time);
        readings.histogram("downstream_cx_length_ms", &self.cx_length);
    }

    fn reset(&self) {
        self.cells.reset();
        self.codes.reset();
    }

    fn flush(&self) {
        self.rq_time.flush();
        self.cx_length.flush();
    }
}

/// HTTP/3 is never spoken, and no overload manager turns requests away.
const HTTP_NEVER: &[&str] = &[
    "downstream_cx_http3_total",
    "downstream_rq_http3_total",
    "downstream_cx_overload_disable_keepalive",
    "downstream_rq_overload_close",
    "rq_overload_local_reply",
];

impl ListenerStats {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        Self { name, cells: Sharded::new(workers + 1), cx_length: Histogram::new(workers + 1), workers }
    }
}

impl Scope for ListenerStats {
    fn prefix(&self) -> MetricName {
        MetricName::new("listener.").tagged(Tag::ListenerAddress, &self.name)
    }

    fn read(&self, readings: &mut Readings<'_>) {
        readings.cells("", &self.cells);
        for worker in (0..self.workers).map(WorkerIndex) {
            let name = |rest: &'static str| {
                move |name: MetricName| name.then("worker_").tagged(Tag::WorkerId, &worker.0.to_string()).then(rest)
            };
            let count = |stat| self.cells.of(worker, stat);
            readings.named(name("downstream_cx_active"), Reading::Gauge(count(ListenerStat::CxActive)));
            readings.named(name("downstream_cx_total"), Reading::Counter(count(ListenerStat::CxTotal)));
        }
        readings.histogram("downstream_cx_length_ms", &self.cx_length);
    }

    fn reset(&self) {
        self.cells.reset();
    }

    fn flush(&self) {
        self.cx_length.flush();
    }
}

/// The prefix of what a connection manager counts by listener.
pub(super) fn listener_http_prefix(listener: &str, stat_prefix: &str) -> MetricName {
    let name = MetricName::new("listener.").tagged(Tag::ListenerAddress, listener).then("http.");
    name.tagged(Tag::HttpConnectionManagerPrefix, stat_prefix)
}

impl GroupStats<ListenerHttpStat> {
    /// A request has ended, with this answer if any.
    pub fn count_response(&self, worker: WorkerIndex, status: Option<StatusCode>) {
        self.cells.inc(worker, ListenerHttpStat::RqCompleted);
        if let Some(class) = status.and_then(ListenerHttpStat::of_class) {
            self.cells.inc(worker, class);
        }
    }
}

impl Scope for ProxyProtocolStats {
    fn prefix(&self) -> MetricName {
        MetricName::new("proxy_proto.").tagged(Tag::ProxyProtocolPrefix, &self.prefix)
    }

    fn read(&self, readings: &mut Readings<'_>) {
        use ProxyProtocolStat::{
            NotFoundAllowed, NotFoundDisallowed, V1Disallowed, V1Error, V1Found, V2Disallowed, V2Error, V2Found,
        };
        readings.counter("not_found_allowed", self.cells.value(NotFoundAllowed));
        readings.counter("not_found_disallowed", self.cells.value(NotFoundDisallowed));
        let of_versions = [
            ("1", [("found", V1Found), ("disallowed", V1Disallowed), ("error", V1Error)]),
            ("2", [("found", V2Found), ("disallowed", V2Disallowed), ("error", V2Error)]),
        ];
        for (version, stats) in of_versions {
            for (rest, stat) in stats {
                let name =
                    |name: MetricName| name.with_part(Tag::ProxyProtocolVersion, "versions.v", version, ".").then(rest);
                readings.named(name, Reading::Counter(self.cells.value(stat)));
            }
        }
    }

    fn reset(&self) {
        self.cells.reset();
    }
}
