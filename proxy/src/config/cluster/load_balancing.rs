//! `lb_policy` and `load_balancing_policy` of a cluster: the older and the newer way to choose a load balancer.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::cluster::v3::{
            LoadBalancingPolicy,
            cluster::{
                LbConfig, LbPolicy as ProtoLbPolicy, LeastRequestLbConfig, OriginalDstLbConfig, RoundRobinLbConfig,
            },
            load_balancing_policy::Policy,
        },
        extensions::load_balancing_policies::{
            cluster_provided::v3::ClusterProvided,
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            random::v3::Random,
            round_robin::v3::RoundRobin,
        },
    },
};

use super::{Discovery, LbPolicy};
use crate::config::field::{self, Extension, Result, Within as _, refuse, required};

const CHOICE_COUNT: u32 = 2;

impl LbPolicy {
    pub(super) fn from_proto(
        lb_policy: i32,
        lb_config: Option<LbConfig>,
        load_balancing_policy: Option<LoadBalancingPolicy>,
    ) -> Result<Self> {
        match load_balancing_policy {
            // The newer way wins; what the older one says is not looked at.
            Some(message) => Self::from_list(message).within("load_balancing_policy"),
            None => Self::from_enumeration(field::enumeration(lb_policy, "lb_policy")?, lb_config),
        }
    }

    /// The first policy of the list that is known: that is what the list is for.
    fn from_list(message: LoadBalancingPolicy) -> Result<Self> {
        let LoadBalancingPolicy { policies } = message;
        for (index, Policy { typed_extension_config }) in policies.into_iter().enumerate() {
            let extension = required(typed_extension_config, "typed_extension_config")
                .and_then(|config| required(config.typed_config, "typed_extension_config.typed_config"))
                .and_then(|config| Extension::new(config).within("typed_extension_config"))
                .at("policies", index)?;
            let policy = Self::from_extension(&extension).within("typed_extension_config").at("policies", index)?;
            if let Some(policy) = policy {
                return Ok(policy);
            }
        }
        Err(FieldError::new("policies", "none of the policies is supported"))
    }

    fn from_extension(extension: &Extension) -> Result<Option<Self>> {
        let policy = if extension.is::<RoundRobin>() {
            round_robin(extension.unpack()?).within("typed_config")?
        } else if extension.is::<LeastRequest>() {
            least_request(extension.unpack()?).within("typed_config")?
        } else if extension.is::<Random>() {
            random(extension.unpack()?).within("typed_config")?
        } else if extension.is::<ClusterProvided>() {
            extension.unpack().map(|ClusterProvided {}| Self::ClusterProvided)?
        } else {
            return Ok(None);
        };
        Ok(Some(policy))
    }

    /// A configuration that belongs to another policy is not looked at, as in Envoy.
    fn from_enumeration(policy: ProtoLbPolicy, config: Option<LbConfig>) -> Result<Self> {
        match (policy, config) {
            (ProtoLbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
                let RoundRobinLbConfig { slow_start_config } = config;
                field::unset(&slow_start_config, "round_robin_lb_config.slow_start_config")?;
                Ok(Self::RoundRobin)
            }
            (ProtoLbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
                let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
                field::unset(&active_request_bias, "least_request_lb_config.active_request_bias")?;
                field::unset(&slow_start_config, "least_request_lb_config.slow_start_config")?;
                Ok(Self::least_request(field::u32_or(choice_count, CHOICE_COUNT)))
            }
            (ProtoLbPolicy::ClusterProvided, Some(LbConfig::OriginalDstLbConfig(config))) => {
                refuse_original_dst_lb_config(config).within("original_dst_lb_config")?;
                Ok(Self::ClusterProvided)
            }
            (ProtoLbPolicy::RoundRobin, _) => Ok(Self::RoundRobin),
            (ProtoLbPolicy::LeastRequest, _) => Ok(Self::least_request(CHOICE_COUNT)),
            (ProtoLbPolicy::Random, _) => Ok(Self::Random),
            (ProtoLbPolicy::ClusterProvided, _) => Ok(Self::ClusterProvided),
            (ProtoLbPolicy::LoadBalancingPolicyConfig, _) => {
                Err(FieldError::new("load_balancing_policy", "value is required"))
            }
            (ProtoLbPolicy::RingHash | ProtoLbPolicy::Maglev, _) => {
                Err(FieldError::new("lb_policy", format!("{} is not supported", policy.as_str_name())))
            }
        }
    }

    fn least_request(choice_count: u32) -> Self {
        Self::LeastRequest { choice_count: choice_count.max(CHOICE_COUNT) }
    }

    /// Only an original destination gives its own load balancer, and it takes no other.
    pub(super) fn check(self, discovery: &Discovery) -> Result<()> {
        match (self, discovery) {
            (Self::ClusterProvided, Discovery::OriginalDst) => Ok(()),
            (_, Discovery::OriginalDst) => {
                Err(FieldError::new("lb_policy", "a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED only"))
            }
            (Self::ClusterProvided, Discovery::Static(_) | Discovery::Eds { .. }) => {
                Err(FieldError::new("lb_policy", "CLUSTER_PROVIDED is only for a cluster of type ORIGINAL_DST"))
            }
            (Self::RoundRobin | Self::LeastRequest { .. } | Self::Random, _) => Ok(()),
        }
    }
}

fn round_robin(message: RoundRobin) -> Result<LbPolicy> {
    let RoundRobin { slow_start_config, locality_lb_config } = message;
    refuse!(slow_start_config, locality_lb_config);
    Ok(LbPolicy::RoundRobin)
}

#[expect(deprecated, reason = "named to be refused")]
fn least_request(message: LeastRequest) -> Result<LbPolicy> {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = message;
    refuse!(active_request_bias, slow_start_config, locality_lb_config);
    field::only(enable_full_scan, false, "enable_full_scan")?;
    match field::enumeration(selection_method, "selection_method")? {
        SelectionMethod::NChoices => {}
        SelectionMethod::FullScan => return Err(FieldError::new("selection_method", "FULL_SCAN is not supported")),
    }
    Ok(LbPolicy::least_request(field::u32_or(choice_count, CHOICE_COUNT)))
}

fn random(message: Random) -> Result<LbPolicy> {
    let Random { locality_lb_config } = message;
    refuse!(locality_lb_config);
    Ok(LbPolicy::Random)
}

fn refuse_original_dst_lb_config(message: OriginalDstLbConfig) -> Result<()> {
    let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } = message;
    refuse!(use_http_header, http_header_name, upstream_port_override, metadata_key);
    Ok(())
}
