//! `envoy.filters.http.health_check`: answers those who ask whether this proxy, or what it stands for, is well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use weft_xds::{
    FieldError,
    pb::envoy::{extensions::filters::http::health_check::v3::HealthCheck as Message, r#type::v3::Percent},
};

use crate::config::{
    field::{self, Result, required},
    matcher::HeaderMatcher,
};

#[derive(Debug)]
pub struct HealthCheckFilter {
    /// Requests that match all of these are health checks.
    pub headers: Vec<HeaderMatcher>,
    pub mode: HealthCheckMode,
}

#[derive(Debug)]
pub enum HealthCheckMode {
    /// Answered here: well, unless too few hosts of some cluster are.
    Answer { cluster_min_healthy_percentages: Vec<(Arc<str>, u64)> },
    /// The upstream answers.
    PassThrough,
    /// The upstream answers, and its answer stands for a while.
    Cache(CachedAnswer),
}

/// The upstream's last answer. One number, so that all workers share it without a lock.
#[derive(Debug)]
pub struct CachedAnswer {
    pub time: Duration,
    /// Milliseconds until which it is good, behind ten bits of status and one that says degraded.
    packed: AtomicU64,
}

const STATUS_BITS: u32 = 10;
const DEGRADED_BIT: u64 = 1 << STATUS_BITS;

impl HealthCheckFilter {
    pub(super) fn from_proto(message: Message) -> Result<Self> {
        let Message { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } = message;
        let passes = required(pass_through_mode, "pass_through_mode")?.value;
        let cache_time = field::duration_or(cache_time, Duration::ZERO, "cache_time")?;
        let headers = field::each(headers, "headers", HeaderMatcher::from_proto)?;
        let mode = match (passes, cache_time) {
            (false, Duration::ZERO) => {
                let mut percentages: Vec<(Arc<str>, u64)> = cluster_min_healthy_percentages
                    .into_iter()
                    .map(|(name, Percent { value })| (name.into(), value as u64))
                    .collect();
                percentages.sort_unstable();
                HealthCheckMode::Answer { cluster_min_healthy_percentages: percentages }
            }
            (false, _) => {
                return Err(FieldError::new(
                    "cache_time",
                    "cache_time_ms must not be set when path_through_mode is disabled",
                ));
            }
            (true, _) if !cluster_min_healthy_percentages.is_empty() => {
                let reason = "cluster_min_healthy_percentages must not be set when pass_through_mode is enabled";
                return Err(FieldError::new("cluster_min_healthy_percentages", reason));
            }
            (true, Duration::ZERO) => HealthCheckMode::PassThrough,
            (true, time) => HealthCheckMode::Cache(CachedAnswer { time, packed: AtomicU64::new(0) }),
        };
        Ok(Self { headers, mode })
    }
}

impl CachedAnswer {
    /// The status, and whether it is degraded. `now`: since some fixed moment.
    pub fn read(&self, now: Duration) -> Option<(http::StatusCode, bool)> {
        let packed = self.packed.load(Relaxed);
        let until_ms = packed >> (STATUS_BITS + 1);
        let status = http::StatusCode::from_u16((packed & (DEGRADED_BIT - 1)) as u16).ok()?;
        ((now.as_millis() as u64) < until_ms).then_some((status, packed & DEGRADED_BIT != 0))
    }

    pub fn write(&self, now: Duration, status: http::StatusCode, degraded: bool) {
        let until_ms = (now + self.time).as_millis() as u64;
        let degraded = if degraded { DEGRADED_BIT } else { 0 };
        self.packed.store(until_ms << (STATUS_BITS + 1) | degraded | u64::from(status.as_u16()), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn parsed(yaml: &str) -> Result<HealthCheckFilter> {
        HealthCheckFilter::from_proto(message(yaml))
    }

    #[test]
    fn modes_do_not_mix() {
        assert!(matches!(parsed("pass_through_mode: true").unwrap().mode, HealthCheckMode::PassThrough));
        assert_eq!(
            refusal(parsed("{pass_through_mode: false, cache_time: 1s}")),
            "cache_time: cache_time_ms must not be set when path_through_mode is disabled"
        );
        assert_eq!(
            refusal(parsed("{pass_through_mode: true, cluster_min_healthy_percentages: {c: {value: 1}}}")),
            "cluster_min_healthy_percentages: cluster_min_healthy_percentages must not be set when pass_through_mode is enabled"
        );
    }

    #[test]
    fn an_answer_stands_for_its_time() {
        let cache = CachedAnswer { time: Duration::from_millis(10), packed: AtomicU64::new(0) };
        let at = Duration::from_millis;
        assert_eq!(cache.read(at(0)), None);
        cache.write(at(5), http::StatusCode::SERVICE_UNAVAILABLE, true);
        assert_eq!(cache.read(at(14)), Some((http::StatusCode::SERVICE_UNAVAILABLE, true)));
        assert_eq!(cache.read(at(15)), None);
    }
}
