//! A host: an address of a cluster and what is known about it, for as long as it stays a member, whatever else changes.
//!
//! Health is written by the main thread alone (active health checks, outlier detection) and becomes visible to load
//! balancing with the next endpoint set; workers only count.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use crate::{
    config::{
        endpoint::{Endpoint, EndpointHealthCheck, HealthStatus},
        metadata::Metadata,
    },
    stats::{HostStat, Sharded},
    upstream::outlier_detection::OutlierRecord,
};

pub struct Host {
    /// Unique in the process.
    pub id: u64,
    pub address: SocketAddr,
    /// Tried when `address` does not answer soon.
    pub additional_addresses: Arc<[SocketAddr]>,
    pub hostname: Arc<str>,
    pub metadata: Arc<Metadata>,
    pub health_check: EndpointHealthCheck,
    pub stats: Sharded<HostStat>,
    /// What a logical host stands for now, instead of the addresses that it began with.
    moved_to: ArcSwapOption<Vec<SocketAddr>>,
    flags: AtomicU16,
    /// Milliseconds since `epoch`, plus one, that the host became healthy; 0: not known yet.
    healthy_since_ms: AtomicU64,
    pub outlier: OutlierRecord,
}

/// What speaks against a host, each from a side of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthFlag {
    FailedActiveCheck = 1,
    Ejected = 2,
    /// A health check says that it would rather not.
    DegradedByActiveCheck = 4,
    /// Its first health check is still to come.
    PendingActiveCheck = 8,
    /// It asked to be left alone at once (`x-envoy-immediate-health-check-fail`).
    ExcludedAtOnce = 16,
    /// The newest active check timed out.
    ActiveCheckTimeout = 32,
    /// It said so itself, in answers to requests.
    DegradedByOutlierDetection = 64,
    /// Discovery has dropped it, and it stays as long as it passes its checks.
    PendingRemoval = 128,
}

impl Host {
    pub fn new(endpoint: &Endpoint, shards: usize) -> Arc<Host> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Host {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address: endpoint.address,
            additional_addresses: endpoint.additional_addresses.clone(),
            hostname: endpoint.hostname.clone(),
            metadata: endpoint.metadata.clone(),
            health_check: endpoint.health_check.clone(),
            stats: Sharded::new(shards),
            moved_to: ArcSwapOption::empty(),
            flags: AtomicU16::new(0),
            healthy_since_ms: AtomicU64::new(0),
            outlier: OutlierRecord::default(),
        })
    }

    /// Where a new connection goes; those after the first where it does not answer soon. Never empty.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &*self.moved_to.load() {
            Some(moved_to) => moved_to.to_vec(),
            None => std::iter::once(self.address).chain(self.additional_addresses.iter().copied()).collect(),
        }
    }

    /// The first of them.
    pub fn current_address(&self) -> SocketAddr {
        self.moved_to.load().as_ref().and_then(|moved_to| moved_to.first().copied()).unwrap_or(self.address)
    }

    /// `addresses` is not empty.
    pub fn move_to(&self, addresses: &[SocketAddr]) {
        self.moved_to.store(Some(Arc::new(addresses.to_vec())));
    }

    /// Whether the host goes on as the same one under what is now said of it.
    pub fn is_still(&self, endpoint: &Endpoint) -> bool {
        self.address == endpoint.address
            && self.additional_addresses == endpoint.additional_addresses
            && self.hostname == endpoint.hostname
            && self.metadata == endpoint.metadata
            && self.health_check == endpoint.health_check
    }

    pub fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Relaxed) & flag as u16 != 0
    }

    pub fn set(&self, flag: HealthFlag) {
        self.flags.fetch_or(flag as u16, Relaxed);
    }

    pub fn clear(&self, flag: HealthFlag) {
        self.flags.fetch_and(!(flag as u16), Relaxed);
    }

    /// Together with what the configuration says.
    pub fn health(&self, configured: HealthStatus) -> HealthStatus {
        let failed = HealthFlag::FailedActiveCheck as u16 | HealthFlag::Ejected as u16;
        let degraded = HealthFlag::DegradedByActiveCheck as u16 | HealthFlag::DegradedByOutlierDetection as u16;
        let flags = self.flags.load(Relaxed);
        if configured == HealthStatus::Unhealthy || flags & failed != 0 {
            HealthStatus::Unhealthy
        } else if configured == HealthStatus::Degraded || flags & degraded != 0 {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        }
    }

    /// For one whose cluster no longer looks for these: nobody would clear them.
    pub fn forget_checks(&self) {
        use HealthFlag::{
            ActiveCheckTimeout, DegradedByActiveCheck, ExcludedAtOnce, FailedActiveCheck, PendingActiveCheck,
            PendingRemoval,
        };
        let of_checks = [
            ActiveCheckTimeout,
            DegradedByActiveCheck,
            ExcludedAtOnce,
            FailedActiveCheck,
            PendingActiveCheck,
            PendingRemoval,
        ];
        of_checks.into_iter().for_each(|flag| self.clear(flag));
    }

    pub fn forget_ejection(&self) {
        self.clear(HealthFlag::Ejected);
        self.clear(HealthFlag::DegradedByOutlierDetection);
    }

    /// It was found to be bad, so that connections to it are not kept.
    pub fn has_failed(&self) -> bool {
        self.has(HealthFlag::FailedActiveCheck) || self.has(HealthFlag::Ejected)
    }

    /// Does not count where shares of hosts are looked at.
    pub fn is_excluded(&self) -> bool {
        self.has(HealthFlag::PendingActiveCheck) || self.has(HealthFlag::ExcludedAtOnce)
    }

    /// For slow start: when it became healthy, or was first looked at.
    pub fn healthy_since(&self) -> Option<Instant> {
        let stored = self.healthy_since_ms.load(Relaxed).checked_sub(1)?;
        Some(epoch() + Duration::from_millis(stored))
    }

    pub fn set_healthy_since(&self, now: Instant) {
        let since = now.saturating_duration_since(epoch()).as_millis() as u64;
        self.healthy_since_ms.store(since + 1, Relaxed);
    }
}

const EPOCH_BEFORE_START: Duration = Duration::from_secs(3600);

/// What instants are counted from where they have to fit an atomic.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    // Some way back, so that what came a little before the first look has its time too.
    *EPOCH.get_or_init(|| Instant::now().checked_sub(EPOCH_BEFORE_START).unwrap_or_else(Instant::now))
}
