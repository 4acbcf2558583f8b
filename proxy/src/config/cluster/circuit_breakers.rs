//! `circuit_breakers` of a cluster: how much of everything there may be, for each priority.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::cluster::v3::{
            CircuitBreakers,
            circuit_breakers::{Thresholds, thresholds::RetryBudget as ProtoRetryBudget},
        },
        r#type::v3::Percent,
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse},
    route::RoutingPriority,
};

/// Defaults are Envoy's: 1024 each, 3 retries, as many pools as there are hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreakerThresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub max_connection_pools: u32,
    pub retry_budget: Option<RetryBudget>,
    pub track_remaining: bool,
}

/// Retries are limited by the requests that are under way, instead of by a number.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    pub budget_percent: f64,
    pub min_retry_concurrency: u32,
}

/// The thresholds of both priorities, and of each host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreakerConfig {
    pub default: CircuitBreakerThresholds,
    pub high: CircuitBreakerThresholds,
    pub per_host_max_connections: PerHostLimits,
}

/// None: hosts have no limit of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerHostLimits {
    pub default: Option<u32>,
    pub high: Option<u32>,
}

const BUDGET_PERCENT: f64 = 20.0;
const MIN_RETRY_CONCURRENCY: u32 = 3;

impl Default for CircuitBreakerThresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u32::MAX,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

impl CircuitBreakerConfig {
    /// Of several thresholds for one priority the first holds, as in Envoy.
    pub(super) fn from_proto(message: CircuitBreakers) -> Result<Self> {
        let CircuitBreakers { thresholds, per_host_thresholds } = message;
        let (mut default, mut high) = (None, None);
        for (index, message) in thresholds.into_iter().enumerate() {
            let (priority, thresholds) = priority_thresholds(message).at("thresholds", index)?;
            let slot = match priority {
                RoutingPriority::Default => &mut default,
                RoutingPriority::High => &mut high,
            };
            slot.get_or_insert(thresholds);
        }
        let mut per_host = PerHostLimits::default();
        for (index, message) in per_host_thresholds.into_iter().enumerate() {
            let (priority, limit) = per_host_limit(message).at("per_host_thresholds", index)?;
            let slot = match priority {
                RoutingPriority::Default => &mut per_host.default,
                RoutingPriority::High => &mut per_host.high,
            };
            *slot = slot.or(limit);
        }
        Ok(Self {
            default: default.unwrap_or_default(),
            high: high.unwrap_or_default(),
            per_host_max_connections: per_host,
        })
    }
}

fn priority_thresholds(message: Thresholds) -> Result<(RoutingPriority, CircuitBreakerThresholds)> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    let default = CircuitBreakerThresholds::default();
    let thresholds = CircuitBreakerThresholds {
        max_connections: field::u32_or(max_connections, default.max_connections),
        max_pending_requests: field::u32_or(max_pending_requests, default.max_pending_requests),
        max_requests: field::u32_or(max_requests, default.max_requests),
        max_retries: field::u32_or(max_retries, default.max_retries),
        max_connection_pools: field::u32_or(max_connection_pools, default.max_connection_pools),
        retry_budget: retry_budget.map(RetryBudget::from_proto).transpose().within("retry_budget")?,
        track_remaining,
    };
    Ok((RoutingPriority::from_proto(priority, "priority")?, thresholds))
}

/// Of a host only connections are limited.
fn per_host_limit(message: Thresholds) -> Result<(RoutingPriority, Option<u32>)> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    let others = max_pending_requests.is_some()
        || max_requests.is_some()
        || max_retries.is_some()
        || retry_budget.is_some()
        || track_remaining
        || max_connection_pools.is_some();
    if others {
        return Err(FieldError::new("", "Unsupported field in per_host_thresholds"));
    }
    let priority = RoutingPriority::from_proto(priority, "priority")?;
    Ok((priority, max_connections.map(|limit| limit.value)))
}

impl RetryBudget {
    fn from_proto(message: ProtoRetryBudget) -> Result<Self> {
        let ProtoRetryBudget { budget_percent, budget_interval, min_retry_concurrency } = message;
        refuse!(budget_interval);
        let budget_percent = match budget_percent {
            None => BUDGET_PERCENT,
            Some(Percent { value }) if (0.0..=100.0).contains(&value) => value,
            Some(_) => return Err(FieldError::new("budget_percent.value", "value must be inside range [0, 100]")),
        };
        let min_retry_concurrency = field::u32_or(min_retry_concurrency, MIN_RETRY_CONCURRENCY);
        Ok(Self { budget_percent, min_retry_concurrency })
    }
}
