//! `envoy.extensions.filters.http.rbac.v3.RBAC`: who may ask what.

use std::sync::Arc;

use weft_xds::pb::envoy::extensions::filters::http::rbac::v3::{Rbac as ProtoRbac, RbacPerRoute};

use crate::config::{
    authorization::Engines,
    field::{Result, Within as _},
};

#[derive(Debug)]
pub struct Rbac {
    pub engines: Engines,
    /// Between `rbac.` and the names of counters.
    pub rules_stat_prefix: Arc<str>,
    pub shadow_rules_stat_prefix: Arc<str>,
    /// Each policy has counters of its own.
    pub counts_policies: bool,
}

/// None: everything is allowed.
pub type RbacOverride = Option<Rbac>;

impl Rbac {
    pub(super) fn from_proto(message: ProtoRbac) -> Result<Self> {
        let ProtoRbac {
            rules,
            rules_stat_prefix,
            matcher,
            shadow_rules,
            shadow_matcher,
            shadow_rules_stat_prefix,
            track_per_rule_stats,
        } = message;
        Ok(Self {
            engines: Engines::from_proto((rules, matcher), (shadow_rules, shadow_matcher))?,
            rules_stat_prefix: rules_stat_prefix.into(),
            shadow_rules_stat_prefix: shadow_rules_stat_prefix.into(),
            counts_policies: track_per_rule_stats,
        })
    }

    pub(super) fn of_route(message: RbacPerRoute) -> Result<RbacOverride> {
        let RbacPerRoute { rbac } = message;
        rbac.map(Self::from_proto).transpose().within("rbac")
    }
}
