//! `lb_policy` and `load_balancing_policy` of a cluster: the older and the newer way to say how hosts are chosen, with what
//! goes with it: panic threshold, localities, slow start, subsets.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{
            cluster::v3::{
                LoadBalancingPolicy,
                cluster::{
                    CommonLbConfig, LbConfig, LbPolicy as ProtoLbPolicy, LbSubsetConfig, LeastRequestLbConfig,
                    OriginalDstLbConfig, RoundRobinLbConfig, SlowStartConfig as LegacySlowStart,
                },
                load_balancing_policy::Policy,
            },
            core::v3::RuntimeDouble,
        },
        extensions::load_balancing_policies::{
            cluster_provided::v3::ClusterProvided,
            common::v3::SlowStartConfig,
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            maglev::v3::Maglev,
            random::v3::Random,
            ring_hash::v3::RingHash,
            round_robin::v3::RoundRobin,
            subset::v3::Subset,
            wrr_locality::v3::WrrLocality,
        },
        r#type::v3::Percent,
    },
};

use super::{
    hashing::{self, MaglevConfig, RingHashConfig},
    localities::{self, LocalityPolicy},
    original_dst::OriginalDst,
    subsets::SubsetConfig,
};
use crate::config::field::{self, Extension, Result, Within as _, required};

/// How a host of a cluster is chosen.
#[derive(Clone, Debug)]
pub struct LoadBalancing {
    pub policy: LbPolicy,
    /// Below this share of healthy hosts a priority is in panic. Default 50; 0: never.
    pub panic_threshold_percent: u32,
    pub localities: LocalityPolicy,
    pub slow_start: Option<SlowStart>,
    pub subsets: Option<Arc<SubsetConfig>>,
    /// What `lb_policy: CLUSTER_PROVIDED` means for a cluster of original destinations.
    pub original_dst: OriginalDst,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    RoundRobin,
    LeastRequest(LeastRequestConfig),
    Random,
    RingHash(RingHashConfig),
    Maglev(MaglevConfig),
    /// Of original destinations and aggregates.
    ClusterProvided,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeastRequestConfig {
    /// At least 2.
    pub choice_count: u32,
    /// How much requests under way count against the weight. Default 1.
    pub active_request_bias: f64,
    /// Looks at all hosts instead of `choice_count` drawn ones.
    pub full_scan: bool,
}

/// New and recovered hosts get their share little by little.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    /// 1: linear; more: faster at first. Greater than 0.
    pub aggression: f64,
    /// 0 to 1. Default 0.1.
    pub min_weight: f64,
}

const CHOICE_COUNT: u32 = 2;
const PANIC_THRESHOLD_PERCENT: u32 = 50;
const SLOW_START_MIN_WEIGHT: f64 = 0.1;
/// Of policies within policies (subsets, localities).
const NESTING_MAX: u32 = 4;

/// What a cluster says about it, in all the places where it can.
pub(super) struct LoadBalancingFields {
    pub(super) lb_policy: i32,
    pub(super) lb_config: Option<LbConfig>,
    pub(super) load_balancing_policy: Option<LoadBalancingPolicy>,
    pub(super) common: CommonLbConfig,
    pub(super) subsets: Option<LbSubsetConfig>,
}

impl LoadBalancing {
    pub(super) fn from_proto(fields: LoadBalancingFields) -> Result<Self> {
        let LoadBalancingFields { lb_policy, lb_config, load_balancing_policy, common, subsets } = fields;
        let CommonLbConfig {
            healthy_panic_threshold,
            update_merge_window: _, // how long Envoy gathers changes of weights and health; here each is taken at once
            ignore_new_hosts_until_first_hc: _, // read by the cluster
            close_connections_on_host_set_change: _,
            consistent_hashing_lb_config,
            override_host_status,
            locality_config_specifier,
        } = common;
        field::unset(&override_host_status, "common_lb_config.override_host_status")?;
        let has_partial = consistent_hashing_lb_config.is_some() || locality_config_specifier.is_some();
        let panic_threshold_percent = rounded_percent(healthy_panic_threshold, PANIC_THRESHOLD_PERCENT)
            .within("common_lb_config.healthy_panic_threshold")?;
        let mut balancing = match load_balancing_policy {
            Some(message) => {
                if has_partial {
                    return Err(FieldError::new("common_lb_config", COMBINED_WITH_PARTIAL));
                }
                if subsets.is_some() {
                    return Err(FieldError::new(
                        "lb_subset_config",
                        "load_balancing_policy cannot be combined with lb_subset_config",
                    ));
                }
                Self::from_list(message, NESTING_MAX).within("load_balancing_policy")?
            }
            None => {
                let policy = field::enumeration(lb_policy, "lb_policy")?;
                let mut balancing = Self::from_enumeration(policy, lb_config, consistent_hashing_lb_config)?;
                balancing.localities =
                    LocalityPolicy::from_legacy(locality_config_specifier).within("common_lb_config")?;
                balancing.subsets = SubsetConfig::from_legacy(subsets).within("lb_subset_config")?.map(Arc::new);
                balancing
            }
        };
        balancing.panic_threshold_percent = panic_threshold_percent;
        Ok(balancing)
    }

    /// By the older fields, which only names from DNS may follow.
    pub(super) fn hashes_hostnames(&self) -> bool {
        match &self.policy {
            LbPolicy::RingHash(config) => config.hashing.use_hostname,
            LbPolicy::Maglev(config) => config.hashing.use_hostname,
            _ => false,
        }
    }

    fn new(policy: LbPolicy) -> Self {
        Self {
            policy,
            panic_threshold_percent: PANIC_THRESHOLD_PERCENT,
            localities: LocalityPolicy::default(),
            slow_start: None,
            subsets: None,
            original_dst: OriginalDst::default(),
        }
    }

    /// The first policy of the list that is known: that is what the list is for.
    fn from_list(message: LoadBalancingPolicy, nesting_left: u32) -> Result<Self> {
        let LoadBalancingPolicy { policies } = message;
        if nesting_left == 0 {
            return Err(FieldError::new("policies", "nested too deep"));
        }
        for (index, Policy { typed_extension_config }) in policies.into_iter().enumerate() {
            let extension = required(typed_extension_config, "typed_extension_config")
                .and_then(|config| required(config.typed_config, "typed_extension_config.typed_config"))
                .and_then(|config| Extension::new(config).within("typed_extension_config"))
                .at("policies", index)?;
            let policy = Self::from_extension(&extension, nesting_left)
                .within("typed_extension_config")
                .at("policies", index)?;
            if let Some(policy) = policy {
                return Ok(policy);
            }
        }
        Err(FieldError::new("policies", "none of the policies is supported"))
    }

    fn from_extension(extension: &Extension, nesting_left: u32) -> Result<Option<Self>> {
        let inner = |policy: Option<LoadBalancingPolicy>, path: &str| {
            Self::from_list(required(policy, path)?, nesting_left - 1).within(path)
        };
        let converted = if extension.is::<RoundRobin>() {
            Self::round_robin(extension.unpack()?)
        } else if extension.is::<LeastRequest>() {
            Self::least_request(extension.unpack()?)
        } else if extension.is::<Random>() {
            let Random { locality_lb_config } = extension.unpack()?;
            Self::new(LbPolicy::Random).with_localities(locality_lb_config)
        } else if extension.is::<RingHash>() {
            let message: RingHash = extension.unpack()?;
            let weighted = message.locality_weighted_lb_config.is_some();
            RingHashConfig::from_proto(message)
                .map(|config| Self::new(LbPolicy::RingHash(config)).weighted_if(weighted))
        } else if extension.is::<Maglev>() {
            let message: Maglev = extension.unpack()?;
            let weighted = message.locality_weighted_lb_config.is_some();
            MaglevConfig::from_proto(message).map(|config| Self::new(LbPolicy::Maglev(config)).weighted_if(weighted))
        } else if extension.is::<WrrLocality>() {
            let WrrLocality { endpoint_picking_policy } = extension.unpack()?;
            inner(endpoint_picking_policy, "endpoint_picking_policy").map(|policy| policy.weighted_if(true))
        } else if extension.is::<Subset>() {
            SubsetConfig::from_proto(extension.unpack()?)
                .and_then(|(config, policy)| Ok((config, inner(policy, "subset_lb_policy")?)))
                .map(|(config, policy)| Self { subsets: Some(Arc::new(config)), ..policy })
        } else if extension.is::<ClusterProvided>() {
            extension.unpack().map(|ClusterProvided {}| Self::new(LbPolicy::ClusterProvided))
        } else {
            return Ok(None);
        };
        converted.within("typed_config").map(Some)
    }

    fn round_robin(message: RoundRobin) -> Result<Self> {
        let RoundRobin { slow_start_config, locality_lb_config } = message;
        let slow_start = slow_start_config.map(SlowStart::from_proto).transpose().within("slow_start_config")?;
        Ok(Self {
            slow_start: slow_start.flatten(),
            ..Self::new(LbPolicy::RoundRobin).with_localities(locality_lb_config)?
        })
    }

    #[expect(deprecated, reason = "the older spelling of a full scan")]
    fn least_request(message: LeastRequest) -> Result<Self> {
        let LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = message;
        let method: SelectionMethod = field::enumeration(selection_method, "selection_method")?;
        let config = LeastRequestConfig {
            full_scan: method == SelectionMethod::FullScan || field::bool_or(enable_full_scan, false),
            ..LeastRequestConfig::new(choice_count.map(|count| count.value), active_request_bias)
        };
        let slow_start = slow_start_config.map(SlowStart::from_proto).transpose().within("slow_start_config")?;
        let balancing = Self::new(LbPolicy::LeastRequest(config)).with_localities(locality_lb_config)?;
        Ok(Self { slow_start: slow_start.flatten(), ..balancing })
    }

    fn with_localities(self, message: Option<localities::LocalityLbConfig>) -> Result<Self> {
        let localities = LocalityPolicy::from_proto(message).within("locality_lb_config")?;
        Ok(Self { localities, ..self })
    }

    fn weighted_if(self, weighted: bool) -> Self {
        if weighted { Self { localities: LocalityPolicy::Weighted, ..self } } else { self }
    }

    /// A configuration that belongs to another policy is not looked at, as in Envoy.
    fn from_enumeration(
        policy: ProtoLbPolicy,
        config: Option<LbConfig>,
        hashing: Option<hashing::LegacyConsistentHashing>,
    ) -> Result<Self> {
        let balancing = match (policy, config) {
            (ProtoLbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
                let RoundRobinLbConfig { slow_start_config } = config;
                let slow_start = SlowStart::from_legacy(slow_start_config).within("round_robin_lb_config")?;
                Self { slow_start, ..Self::new(LbPolicy::RoundRobin) }
            }
            (ProtoLbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
                let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
                let slow_start = SlowStart::from_legacy(slow_start_config).within("least_request_lb_config")?;
                let config = LeastRequestConfig::new(choice_count.map(|count| count.value), active_request_bias);
                Self { slow_start, ..Self::new(LbPolicy::LeastRequest(config)) }
            }
            (ProtoLbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(config))) => {
                let config: OriginalDstLbConfig = config;
                let original_dst = OriginalDst::from_proto(config).within("original_dst_lb_config")?;
                Self { original_dst, ..Self::new(LbPolicy::ClusterProvided) }
            }
            (ProtoLbPolicy::RingHash, config) => {
                let config = match config {
                    Some(LbConfig::RingHashLbConfig(config)) => config,
                    _ => Default::default(),
                };
                let config = RingHashConfig::from_legacy(config, hashing).within("ring_hash_lb_config")?;
                Self::new(LbPolicy::RingHash(config))
            }
            (ProtoLbPolicy::Maglev, config) => {
                let config = match config {
                    Some(LbConfig::MaglevLbConfig(config)) => config,
                    _ => Default::default(),
                };
                let config = MaglevConfig::from_legacy(config, hashing).within("maglev_lb_config")?;
                Self::new(LbPolicy::Maglev(config))
            }
            (ProtoLbPolicy::RoundRobin, _) => Self::new(LbPolicy::RoundRobin),
            (ProtoLbPolicy::LeastRequest, _) => Self::new(LbPolicy::LeastRequest(LeastRequestConfig::default())),
            (ProtoLbPolicy::Random, _) => Self::new(LbPolicy::Random),
            (ProtoLbPolicy::ClusterProvided, _) => Self::new(LbPolicy::ClusterProvided),
            (ProtoLbPolicy::LoadBalancingPolicyConfig, _) => {
                return Err(FieldError::new("load_balancing_policy", "value is required"));
            }
        };
        Ok(balancing)
    }
}

const COMBINED_WITH_PARTIAL: &str = "load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, locality_weighted_lb_config, consistent_hashing_lb_config)";

impl Default for LeastRequestConfig {
    fn default() -> Self {
        Self { choice_count: CHOICE_COUNT, active_request_bias: 1.0, full_scan: false }
    }
}

impl LeastRequestConfig {
    fn new(choice_count: Option<u32>, active_request_bias: Option<RuntimeDouble>) -> Self {
        Self {
            choice_count: choice_count.unwrap_or(CHOICE_COUNT).max(CHOICE_COUNT),
            active_request_bias: active_request_bias.map_or(1.0, runtime_default),
            full_scan: false,
        }
    }
}

impl SlowStart {
    /// None: a window of nothing switches it off.
    fn from_proto(message: SlowStartConfig) -> Result<Option<Self>> {
        let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = message;
        let window = field::duration_or(slow_start_window, Duration::ZERO, "slow_start_window")?;
        let aggression = aggression.map_or(1.0, runtime_default);
        if aggression.is_nan() || aggression <= 0.0 {
            return Err(FieldError::new("aggression", "value must be greater than 0"));
        }
        let min_weight = match min_weight_percent {
            None => SLOW_START_MIN_WEIGHT,
            Some(Percent { value }) => value / 100.0,
        };
        Ok((!window.is_zero()).then_some(Self { window, aggression, min_weight }))
    }

    fn from_legacy(message: Option<LegacySlowStart>) -> Result<Option<Self>> {
        let Some(LegacySlowStart { slow_start_window, aggression, min_weight_percent }) = message else {
            return Ok(None);
        };
        Self::from_proto(SlowStartConfig { slow_start_window, aggression, min_weight_percent })
            .within("slow_start_config")
    }
}

/// There is no runtime that could override the value: its default holds.
fn runtime_default(message: RuntimeDouble) -> f64 {
    let RuntimeDouble { default_value, runtime_key: _ } = message;
    default_value
}

pub(super) fn rounded_percent(message: Option<Percent>, default: u32) -> Result<u32> {
    match message {
        None => Ok(default),
        Some(Percent { value }) if (0.0..=100.0).contains(&value) => Ok(value.round() as u32),
        Some(_) => Err(FieldError::new("value", "value must be inside range [0, 100]")),
    }
}
