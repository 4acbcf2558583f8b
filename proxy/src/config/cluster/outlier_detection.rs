//! `outlier_detection` of a cluster: when a host that answers badly is left alone for a while.

use std::time::Duration;

use weft_xds::{FieldError, pb::envoy::config::cluster::v3::OutlierDetection as Message};

use crate::config::field::{self, Result, bool_or, duration_or, refuse, u32_or};

/// Defaults are Envoy's.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// How often hosts are compared, and looked at for coming back. Default 10 s.
    pub interval: Duration,
    /// The first ejection lasts so long, each further one longer by as much. Default 30 s.
    pub base_ejection_time: Duration,
    /// Default 300 s, or the base where that is longer.
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    /// Of all hosts. Default 10.
    pub max_ejection_percent: u32,
    pub always_eject_one_host: bool,
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    /// What goes wrong on the way to a host is told apart from what it answers.
    pub splits_local_origin: bool,
    pub success_rate: SuccessRate,
    pub failure_percentage: FailurePercentage,
    pub enforcing: Enforcing,
    /// An active health check that succeeds ends an ejection.
    pub successful_check_unejects: bool,
    /// Hosts whose responses say `x-envoy-degraded` are degraded for a while.
    pub detects_degraded: bool,
}

/// Hosts are compared with each other.
#[derive(Clone, Debug, PartialEq)]
pub struct SuccessRate {
    pub minimum_hosts: u32,
    pub request_volume: u32,
    /// How many standard deviations below the mean are too many.
    pub stdev_factor: f64,
}

/// Hosts are compared with a threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct FailurePercentage {
    pub threshold: u32,
    pub minimum_hosts: u32,
    pub request_volume: u32,
}

/// In how many of a hundred cases a host that was found out is ejected indeed.
#[derive(Clone, Debug, PartialEq)]
pub struct Enforcing {
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub consecutive_local_origin_failure: u32,
    pub success_rate: u32,
    pub local_origin_success_rate: u32,
    pub failure_percentage: u32,
    pub local_origin_failure_percentage: u32,
}

const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
const CONSECUTIVE: u32 = 5;

impl OutlierDetection {
    pub(super) fn from_proto(message: Message) -> Result<Self> {
        let Message {
            consecutive_5xx,
            interval,
            base_ejection_time,
            max_ejection_percent,
            enforcing_consecutive_5xx,
            enforcing_success_rate,
            success_rate_minimum_hosts,
            success_rate_request_volume,
            success_rate_stdev_factor,
            consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure,
            split_external_local_origin_errors,
            consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure,
            enforcing_local_origin_success_rate,
            failure_percentage_threshold,
            enforcing_failure_percentage,
            enforcing_failure_percentage_local_origin,
            failure_percentage_minimum_hosts,
            failure_percentage_request_volume,
            max_ejection_time,
            max_ejection_time_jitter,
            successful_active_health_check_uneject_host,
            monitors,
            always_eject_one_host,
            detect_degraded_hosts,
        } = message;
        refuse!(monitors);
        let base_ejection_time = duration_or(base_ejection_time, BASE_EJECTION_TIME, "base_ejection_time")?;
        let max_ejection_time =
            duration_or(max_ejection_time, MAX_EJECTION_TIME.max(base_ejection_time), "max_ejection_time")?;
        if max_ejection_time < base_ejection_time {
            let reason = "outlier detector's max_ejection_time cannot be smaller than base_ejection_time";
            return Err(FieldError::new("max_ejection_time", reason));
        }
        Ok(Self {
            interval: duration_or(interval, INTERVAL, "interval")?,
            base_ejection_time,
            max_ejection_time,
            max_ejection_time_jitter: duration_or(
                max_ejection_time_jitter,
                Duration::ZERO,
                "max_ejection_time_jitter",
            )?,
            max_ejection_percent: u32_or(max_ejection_percent, 10),
            always_eject_one_host: bool_or(always_eject_one_host, false),
            consecutive_5xx: u32_or(consecutive_5xx, CONSECUTIVE),
            consecutive_gateway_failure: u32_or(consecutive_gateway_failure, CONSECUTIVE),
            consecutive_local_origin_failure: u32_or(consecutive_local_origin_failure, CONSECUTIVE),
            splits_local_origin: split_external_local_origin_errors,
            success_rate: SuccessRate {
                minimum_hosts: u32_or(success_rate_minimum_hosts, 5),
                request_volume: u32_or(success_rate_request_volume, 100),
                stdev_factor: f64::from(u32_or(success_rate_stdev_factor, 1900)) / 1000.0,
            },
            failure_percentage: FailurePercentage {
                threshold: u32_or(failure_percentage_threshold, 85),
                minimum_hosts: u32_or(failure_percentage_minimum_hosts, 5),
                request_volume: u32_or(failure_percentage_request_volume, 50),
            },
            enforcing: Enforcing {
                consecutive_5xx: u32_or(enforcing_consecutive_5xx, 100),
                consecutive_gateway_failure: u32_or(enforcing_consecutive_gateway_failure, 0),
                consecutive_local_origin_failure: u32_or(enforcing_consecutive_local_origin_failure, 100),
                success_rate: u32_or(enforcing_success_rate, 100),
                local_origin_success_rate: u32_or(enforcing_local_origin_success_rate, 100),
                failure_percentage: u32_or(enforcing_failure_percentage, 0),
                local_origin_failure_percentage: u32_or(enforcing_failure_percentage_local_origin, 0),
            },
            successful_check_unejects: bool_or(successful_active_health_check_uneject_host, true),
            detects_degraded: bool_or(detect_degraded_hosts, false),
        })
    }
}

/// Where what happens to hosts is written: `cluster_manager.outlier_detection`.
pub(in crate::config) fn event_log_path(
    message: weft_xds::pb::envoy::config::bootstrap::v3::cluster_manager::OutlierDetection,
) -> Result<Option<std::path::PathBuf>> {
    let weft_xds::pb::envoy::config::bootstrap::v3::cluster_manager::OutlierDetection { event_log_path, event_service } =
        message;
    field::unset(&event_service, "event_service")?;
    Ok((!event_log_path.is_empty()).then(|| event_log_path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn parsed(yaml: &str) -> Result<OutlierDetection> {
        OutlierDetection::from_proto(message(yaml))
    }

    #[test]
    fn the_longest_ejection_is_not_shorter_than_the_first() {
        assert_eq!(parsed("{}").unwrap().max_ejection_time, Duration::from_secs(300));
        assert_eq!(parsed("base_ejection_time: 400s").unwrap().max_ejection_time, Duration::from_secs(400));
        assert_eq!(
            refusal(parsed("{base_ejection_time: 2s, max_ejection_time: 1s}")),
            "max_ejection_time: outlier detector's max_ejection_time cannot be smaller than base_ejection_time"
        );
    }

    #[test]
    fn defaults_are_envoys() {
        let config = parsed("{}").unwrap();
        assert_eq!((config.consecutive_5xx, config.max_ejection_percent, config.always_eject_one_host), (5, 10, false));
        assert_eq!((config.success_rate.stdev_factor, config.enforcing.consecutive_gateway_failure), (1.9, 0));
        assert!(config.successful_check_unejects && !config.detects_degraded && !config.splits_local_origin);
        let error = refusal(parsed(
            "monitors: [{name: x, typed_config: {'@type': \
             type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}]",
        ));
        assert_eq!(error, "monitors: not supported");
    }
}
