//! Limits of a cluster that hold for the pod as a whole, not per worker: atomics, touched once when a permit is taken and
//! once when it is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::config::{cluster::CircuitBreakerThresholds, route::RoutingPriority};

#[derive(Debug, Default)]
pub struct CircuitBreakers {
    default: Resources,
    high: Resources,
}

#[derive(Debug, Default)]
struct Resources {
    thresholds: CircuitBreakerThresholds,
    in_use: [AtomicU32; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    PendingRequests,
    Requests,
    Retries,
}

/// One unit of a resource; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    breakers: Arc<CircuitBreakers>,
    priority: RoutingPriority,
    resource: Resource,
}

impl CircuitBreakers {
    pub fn new(default: CircuitBreakerThresholds, high: CircuitBreakerThresholds) -> Self {
        CircuitBreakers {
            default: Resources { thresholds: default, in_use: Default::default() },
            high: Resources { thresholds: high, in_use: Default::default() },
        }
    }

    /// None: the limit is reached.
    pub fn try_acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        let (in_use, limit) = self.cell(priority, resource);
        // Taken first and given back when over: never more than the limit hold a permit, and no compare loop.
        if in_use.fetch_add(1, Relaxed) >= limit {
            in_use.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { breakers: self.clone(), priority, resource })
    }

    /// Even over the limit: a pool without any connection always gets one, or its requests would wait for nothing.
    pub fn acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        self.cell(priority, resource).0.fetch_add(1, Relaxed);
        Permit { breakers: self.clone(), priority, resource }
    }

    pub fn in_use(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.cell(priority, resource).0.load(Relaxed)
    }

    pub fn limit(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.cell(priority, resource).1
    }

    fn cell(&self, priority: RoutingPriority, resource: Resource) -> (&AtomicU32, u32) {
        let resources = match priority {
            RoutingPriority::Default => &self.default,
            RoutingPriority::High => &self.high,
        };
        let limits = &resources.thresholds;
        match resource {
            Resource::Connections => (&resources.in_use[0], limits.max_connections),
            Resource::PendingRequests => (&resources.in_use[1], limits.max_pending_requests),
            Resource::Requests => (&resources.in_use[2], limits.max_requests),
            Resource::Retries => (&resources.in_use[3], limits.max_retries),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.cell(self.priority, self.resource).0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back() {
        let limits = CircuitBreakerThresholds { max_requests: 1, ..Default::default() };
        let breakers = Arc::new(CircuitBreakers::new(limits, CircuitBreakerThresholds::default()));
        let held = breakers.try_acquire(RoutingPriority::Default, Resource::Requests).expect("free");
        assert!(breakers.try_acquire(RoutingPriority::Default, Resource::Requests).is_none());
        assert!(breakers.try_acquire(RoutingPriority::High, Resource::Requests).is_some());
        drop(held);
        assert_eq!(breakers.in_use(RoutingPriority::Default, Resource::Requests), 0);
        assert!(breakers.try_acquire(RoutingPriority::Default, Resource::Requests).is_some());
    }
}
