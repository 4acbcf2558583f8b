//! Whether and how a cluster's localities count when a host is chosen.

use weft_xds::pb::envoy::{
    config::cluster::v3::cluster::common_lb_config::{
        LocalityConfigSpecifier as Legacy, ZoneAwareLbConfig as LegacyZoneAware,
    },
    extensions::load_balancing_policies::common::v3::locality_lb_config::{
        LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig, zone_aware_lb_config::LocalityBasis,
    },
};

pub(super) use weft_xds::pb::envoy::extensions::load_balancing_policies::common::v3::LocalityLbConfig;

use super::load_balancing::rounded_percent;
use crate::config::field::{self, Result, Within as _, refuse, required};

#[derive(Clone, Debug, PartialEq)]
pub enum LocalityPolicy {
    /// Each locality gets its weight's share.
    Weighted,
    /// Those in the proxy's own zone first, as far as that is fair to the others. Without a local cluster, localities do
    /// not count.
    ZoneAware(ZoneAware),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ZoneAware {
    /// Of how many percent of the requests.
    pub routing_enabled_percent: u32,
    /// With fewer healthy hosts than these, zones do not count.
    pub min_cluster_size: u64,
    pub fail_traffic_on_panic: bool,
    /// All that is well in the proxy's own zone takes everything, when it has at least so many hosts.
    pub force_local_zone_min_size: Option<u32>,
    /// By the weight of hosts, not by their number.
    pub by_weight: bool,
}

const MIN_CLUSTER_SIZE: u64 = 6;
const FORCE_LOCAL_ZONE_MIN_SIZE: u32 = 1;

impl Default for LocalityPolicy {
    fn default() -> Self {
        Self::ZoneAware(ZoneAware {
            routing_enabled_percent: 100,
            min_cluster_size: MIN_CLUSTER_SIZE,
            fail_traffic_on_panic: false,
            force_local_zone_min_size: None,
            by_weight: false,
        })
    }
}

impl LocalityPolicy {
    pub(super) fn from_proto(message: Option<LocalityLbConfig>) -> Result<Self> {
        let Some(LocalityLbConfig { locality_config_specifier }) = message else { return Ok(Self::default()) };
        match required(locality_config_specifier, "locality_config_specifier")? {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}) => Ok(Self::Weighted),
            LocalityConfigSpecifier::ZoneAwareLbConfig(message) => {
                ZoneAware::from_proto(message).within("zone_aware_lb_config").map(Self::ZoneAware)
            }
        }
    }

    pub(super) fn from_legacy(message: Option<Legacy>) -> Result<Self> {
        match message {
            None => Ok(Self::default()),
            Some(Legacy::LocalityWeightedLbConfig(_)) => Ok(Self::Weighted),
            Some(Legacy::ZoneAwareLbConfig(message)) => {
                let LegacyZoneAware { routing_enabled, min_cluster_size, fail_traffic_on_panic } = message;
                let message = ZoneAwareLbConfig {
                    routing_enabled,
                    min_cluster_size,
                    fail_traffic_on_panic,
                    ..Default::default()
                };
                ZoneAware::from_proto(message).within("zone_aware_lb_config").map(Self::ZoneAware)
            }
        }
    }

    /// In panic nobody gets the request, instead of anybody.
    pub fn fails_traffic_on_panic(&self) -> bool {
        matches!(self, Self::ZoneAware(zone_aware) if zone_aware.fail_traffic_on_panic)
    }
}

impl ZoneAware {
    #[expect(deprecated, reason = "the older spelling of a forced local zone")]
    fn from_proto(message: ZoneAwareLbConfig) -> Result<Self> {
        let ZoneAwareLbConfig {
            routing_enabled,
            min_cluster_size,
            fail_traffic_on_panic,
            force_locality_direct_routing,
            force_local_zone,
            locality_basis,
        } = message;
        refuse!(force_locality_direct_routing);
        Ok(Self {
            routing_enabled_percent: rounded_percent(routing_enabled, 100).within("routing_enabled")?,
            min_cluster_size: min_cluster_size.map_or(MIN_CLUSTER_SIZE, |size| size.value),
            fail_traffic_on_panic,
            force_local_zone_min_size: force_local_zone
                .map(|force| field::u32_or(force.min_size, FORCE_LOCAL_ZONE_MIN_SIZE)),
            by_weight: field::enumeration::<LocalityBasis>(locality_basis, "locality_basis")?
                == LocalityBasis::HealthyHostsWeight,
        })
    }
}
