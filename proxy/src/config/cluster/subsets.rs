//! `lb_subset_config` and the subset policy: parts of a cluster that share values of some metadata, and what happens to a
//! request that asks for a part that is not there.

use std::{collections::BTreeSet, sync::Arc};

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::cluster::v3::{
                LoadBalancingPolicy,
                cluster::{LbSubsetConfig, lb_subset_config},
            },
            extensions::load_balancing_policies::subset::v3::{
                Subset,
                subset::{
                    LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector,
                    lb_subset_selector::LbSubsetSelectorFallbackPolicy,
                },
            },
        },
        google::protobuf::Struct,
    },
};

use crate::config::{
    field::{self, Result},
    metadata::{Value, fields_of},
};

#[derive(Clone, Debug, PartialEq)]
pub struct SubsetConfig {
    pub fallback: Fallback,
    pub selectors: Vec<Selector>,
    pub allow_redundant_keys: bool,
    /// Subsets keep the weights of their localities, which else do not count.
    pub locality_weight_aware: bool,
    /// Weights shrink with the share of a locality's hosts that are in the subset.
    pub scale_locality_weight: bool,
    /// Where even the fallback has no host, any host of the cluster will do.
    pub panic_mode_any: bool,
    /// A list stands for any of its values.
    pub list_as_any: bool,
    /// The route's `fallback_list` is tried in order.
    pub fallback_list: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    None,
    AnyEndpoint,
    /// Hosts with all of these.
    DefaultSubset(Vec<(Arc<str>, Value)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    pub keys: BTreeSet<Arc<str>>,
    pub fallback: SelectorFallback,
    pub single_host_per_subset: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SelectorFallback {
    /// That of the cluster.
    NotDefined,
    None,
    AnyEndpoint,
    DefaultSubset,
    /// As if the request had asked with these keys only.
    Keys(BTreeSet<Arc<str>>),
}

impl SubsetConfig {
    /// The policy that chooses within a subset is the caller's.
    pub(super) fn from_proto(message: Subset) -> Result<(Self, Option<LoadBalancingPolicy>)> {
        let Subset {
            fallback_policy,
            default_subset,
            subset_selectors,
            allow_redundant_keys,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            metadata_fallback_policy,
            subset_lb_policy,
        } = message;
        let default_subset: Vec<_> = fields_of(default_subset.unwrap_or_default()).into_iter().collect();
        let fallback = match field::enumeration(fallback_policy, "fallback_policy")? {
            LbSubsetFallbackPolicy::NoFallback => Fallback::None,
            LbSubsetFallbackPolicy::AnyEndpoint => Fallback::AnyEndpoint,
            LbSubsetFallbackPolicy::DefaultSubset => Fallback::DefaultSubset(default_subset),
        };
        let metadata_fallback: LbSubsetMetadataFallbackPolicy =
            field::enumeration(metadata_fallback_policy, "metadata_fallback_policy")?;
        let config = Self {
            fallback,
            selectors: field::each(subset_selectors, "subset_selectors", Selector::from_proto)?,
            allow_redundant_keys,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            fallback_list: metadata_fallback == LbSubsetMetadataFallbackPolicy::FallbackList,
        };
        Ok((config, subset_lb_policy))
    }

    /// None: without a selector there are no subsets, as in Envoy.
    pub(super) fn from_legacy(message: Option<LbSubsetConfig>) -> Result<Option<Self>> {
        let Some(message) = message else { return Ok(None) };
        let LbSubsetConfig {
            fallback_policy,
            default_subset,
            subset_selectors,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            metadata_fallback_policy,
        } = message;
        if subset_selectors.is_empty() {
            return Ok(None);
        }
        let selectors = subset_selectors.into_iter().map(|selector| {
            let lb_subset_config::LbSubsetSelector {
                keys,
                single_host_per_subset,
                fallback_policy,
                fallback_keys_subset,
            } = selector;
            LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
        });
        let default_subset: Option<Struct> = default_subset;
        // The enumerations number the same things alike.
        let (config, _) = Self::from_proto(Subset {
            fallback_policy,
            default_subset,
            subset_selectors: selectors.collect(),
            allow_redundant_keys: false,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            metadata_fallback_policy,
            subset_lb_policy: None,
        })?;
        Ok(Some(config))
    }
}

impl Selector {
    fn from_proto(message: LbSubsetSelector) -> Result<Self> {
        let LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } = message;
        let keys: BTreeSet<Arc<str>> = keys.into_iter().map(Into::into).collect();
        let fallback_keys: BTreeSet<Arc<str>> = fallback_keys_subset.into_iter().map(Into::into).collect();
        let fallback = match field::enumeration(fallback_policy, "fallback_policy")? {
            LbSubsetSelectorFallbackPolicy::NotDefined => SelectorFallback::NotDefined,
            LbSubsetSelectorFallbackPolicy::NoFallback => SelectorFallback::None,
            LbSubsetSelectorFallbackPolicy::AnyEndpoint => SelectorFallback::AnyEndpoint,
            LbSubsetSelectorFallbackPolicy::DefaultSubset => SelectorFallback::DefaultSubset,
            LbSubsetSelectorFallbackPolicy::KeysSubset => {
                // A part that is not smaller would fall back to itself without an end.
                if fallback_keys.is_empty() {
                    return Err(FieldError::new("fallback_keys_subset", "cannot be empty"));
                }
                if !fallback_keys.is_subset(&keys) {
                    return Err(FieldError::new("fallback_keys_subset", "must be a subset of selector keys"));
                }
                if fallback_keys == keys {
                    return Err(FieldError::new("fallback_keys_subset", "cannot be equal to keys"));
                }
                SelectorFallback::Keys(fallback_keys)
            }
        };
        if single_host_per_subset && keys.len() != 1 {
            return Err(FieldError::new("single_host_per_subset", "the selector must have exactly one key"));
        }
        Ok(Self { keys, fallback, single_host_per_subset })
    }
}
