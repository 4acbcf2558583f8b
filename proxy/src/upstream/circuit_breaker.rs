//! Limits of a cluster that hold for the pod as a whole, not per worker: atomics, touched once when a permit is taken and
//! once when it is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicU32, Ordering::Relaxed},
};

use crate::config::{
    cluster::{CircuitBreakerConfig, CircuitBreakerThresholds, RetryBudget},
    route::RoutingPriority,
};

#[derive(Debug, Default)]
pub struct CircuitBreakers {
    default: Resources,
    high: Resources,
    pub hop_budget: HopBudget,
}

/// Beyond Envoy: retries of requests whose caller counts its own tries, and so would repeat them too. They are bounded by
/// the requests themselves, so that a dead host at the end of a path sees little more than what is offered.
#[derive(Debug)]
pub struct HopBudget {
    /// What is left, in tenths of a retry.
    tenths: AtomicI32,
}

/// Each request is worth a tenth of a retry.
const DEPOSIT_TENTHS: i32 = 1;
const RETRY_TENTHS: i32 = 10;
/// What a quiet time saves up, and there is at the start: ten retries.
const SAVED_TENTHS_MAX: i32 = 100;

#[derive(Debug, Default)]
struct Resources {
    thresholds: CircuitBreakerThresholds,
    in_use: [AtomicU32; 5],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    PendingRequests,
    Requests,
    Retries,
    ConnectionPools,
}

/// One unit of a resource; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    breakers: Arc<CircuitBreakers>,
    priority: RoutingPriority,
    resource: Resource,
}

impl CircuitBreakers {
    pub fn new(config: &CircuitBreakerConfig) -> Self {
        let resources = |thresholds: &CircuitBreakerThresholds| Resources {
            thresholds: thresholds.clone(),
            in_use: Default::default(),
        };
        CircuitBreakers {
            default: resources(&config.default),
            high: resources(&config.high),
            hop_budget: HopBudget::default(),
        }
    }

    /// None: the limit is reached.
    pub fn try_acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        let resources = self.of(priority);
        let limit = resources.limit(resource);
        // Taken first and given back when over: never more than the limit hold a permit, and no compare loop.
        if resources.cell(resource).fetch_add(1, Relaxed) >= limit {
            resources.cell(resource).fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { breakers: self.clone(), priority, resource })
    }

    /// Even over the limit: a pool without any connection always gets one, or its requests would wait for nothing.
    pub fn acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        self.of(priority).cell(resource).fetch_add(1, Relaxed);
        Permit { breakers: self.clone(), priority, resource }
    }

    pub fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.of(priority).cell(resource).load(Relaxed)
    }

    pub fn limit(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.of(priority).limit(resource)
    }

    pub fn is_open(&self, priority: RoutingPriority, resource: Resource) -> bool {
        self.in_use(priority, resource) >= self.limit(priority, resource)
    }

    /// Pools have no priority of their own: those of the default one hold.
    pub fn limits_pools(&self) -> bool {
        self.default.thresholds.max_connection_pools != u32::MAX
    }

    pub fn tracks_remaining(&self, priority: RoutingPriority) -> bool {
        self.of(priority).thresholds.track_remaining
    }

    fn of(&self, priority: RoutingPriority) -> &Resources {
        match priority {
            RoutingPriority::Default => &self.default,
            RoutingPriority::High => &self.high,
        }
    }
}

impl HopBudget {
    /// A request that may be retried.
    pub fn deposit(&self) {
        if self.tenths.load(Relaxed) < SAVED_TENTHS_MAX {
            self.tenths.fetch_add(DEPOSIT_TENTHS, Relaxed);
        }
    }

    /// One retry; false: there is none left.
    pub fn withdraw(&self) -> bool {
        let is_covered = self.tenths.fetch_sub(RETRY_TENTHS, Relaxed) >= RETRY_TENTHS;
        if !is_covered {
            self.tenths.fetch_add(RETRY_TENTHS, Relaxed);
        }
        is_covered
    }
}

impl Default for HopBudget {
    fn default() -> Self {
        HopBudget { tenths: AtomicI32::new(SAVED_TENTHS_MAX) }
    }
}

impl Resources {
    fn cell(&self, resource: Resource) -> &AtomicU32 {
        &self.in_use[resource as usize]
    }

    fn limit(&self, resource: Resource) -> u32 {
        let limits = &self.thresholds;
        match resource {
            Resource::Connections => limits.max_connections,
            Resource::PendingRequests => limits.max_pending_requests,
            Resource::Requests => limits.max_requests,
            Resource::Retries => match &limits.retry_budget {
                Some(budget) => self.retry_limit(budget),
                None => limits.max_retries,
            },
            Resource::ConnectionPools => limits.max_connection_pools,
        }
    }

    /// A part of what is under way or waits.
    fn retry_limit(&self, budget: &RetryBudget) -> u32 {
        let under_way =
            self.cell(Resource::Requests).load(Relaxed) + self.cell(Resource::PendingRequests).load(Relaxed);
        let part = f64::from(under_way) * budget.budget_percent / 100.0;
        (part as u32).max(budget.min_retry_concurrency)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.of(self.priority).cell(self.resource).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers(default: CircuitBreakerThresholds) -> Arc<CircuitBreakers> {
        Arc::new(CircuitBreakers::new(&CircuitBreakerConfig { default, ..Default::default() }))
    }

    #[test]
    fn permits_are_bounded_and_come_back() {
        let breakers = breakers(CircuitBreakerThresholds { max_requests: 1, ..Default::default() });
        let held = breakers.try_acquire(RoutingPriority::Default, Resource::Requests).expect("free");
        assert!(breakers.is_open(RoutingPriority::Default, Resource::Requests));
        assert!(breakers.try_acquire(RoutingPriority::Default, Resource::Requests).is_none());
        assert!(breakers.try_acquire(RoutingPriority::High, Resource::Requests).is_some());
        drop(held);
        assert_eq!(breakers.in_use(RoutingPriority::Default, Resource::Requests), 0);
        assert!(breakers.try_acquire(RoutingPriority::Default, Resource::Requests).is_some());
    }

    #[test]
    fn retries_between_hops_are_a_tenth_of_the_requests() {
        let budget = HopBudget::default();
        let retries = (0..1000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert!((100..=111).contains(&retries), "{retries}");
    }

    #[test]
    fn a_retry_budget_follows_the_requests_under_way() {
        let budget = RetryBudget { budget_percent: 50.0, min_retry_concurrency: 1 };
        let breakers = breakers(CircuitBreakerThresholds { retry_budget: Some(budget), ..Default::default() });
        let retry = || breakers.try_acquire(RoutingPriority::Default, Resource::Retries);
        let first = retry().expect("one is always allowed");
        assert!(retry().is_none());
        let requests: Vec<_> =
            (0..4).filter_map(|_| breakers.try_acquire(RoutingPriority::Default, Resource::Requests)).collect();
        let second = retry().expect("half of four");
        assert!(retry().is_none());
        drop((first, second, requests));
    }
}
