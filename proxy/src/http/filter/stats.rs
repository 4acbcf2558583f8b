//! What filters count, each under a prefix of its own.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    authorization::Decision,
    config::{
        authorization::{Engine, Engines},
        http_filter::{HttpFilter, HttpFilters, Rbac},
    },
    http::exchange::Exchange,
    stats::{
        BasicAuthStat, ExtAuthzStat, GroupStats, JwtStat, MetricName, RbacShadowStat, RbacStat, Registry, StatGroup,
        Tag, WorkerIndex,
    },
};

/// Of one filter.
pub enum FilterStats {
    /// Counted with its connection manager, or not at all.
    None,
    Rbac(Box<RbacStats>),
    JwtAuthn(Arc<GroupStats<JwtStat>>),
    BasicAuth(Arc<GroupStats<BasicAuthStat>>),
    ExtAuthz(Arc<GroupStats<ExtAuthzStat>>),
}

/// Of a filter of policies, for requests or connections.
pub struct RbacStats {
    enforced: RuleStats<RbacStat>,
    shadow: RuleStats<RbacShadowStat>,
}

struct RuleStats<S: StatGroup> {
    all: Arc<GroupStats<S>>,
    /// Where each policy is counted.
    of_policies: BTreeMap<Arc<str>, Arc<GroupStats<S>>>,
}

impl FilterStats {
    pub fn of_all(filters: &HttpFilters, stat_prefix: &str, registry: &Registry) -> Vec<FilterStats> {
        filters.filters.iter().map(|named| FilterStats::new(&named.filter, stat_prefix, registry)).collect()
    }

    fn new(filter: &HttpFilter, stat_prefix: &str, registry: &Registry) -> FilterStats {
        match filter {
            HttpFilter::Rbac(rbac) => FilterStats::Rbac(Box::new(RbacStats::of_http(rbac, stat_prefix, registry))),
            HttpFilter::JwtAuthn(config) => {
                let prefix = of_manager(stat_prefix).then("jwt_authn.").then(&dotted(&config.stat_prefix));
                FilterStats::JwtAuthn(registry.group(prefix))
            }
            HttpFilter::BasicAuth(_) => {
                FilterStats::BasicAuth(registry.group(of_manager(stat_prefix).then("basic_auth.")))
            }
            HttpFilter::ExtAuthz(config) => {
                let prefix =
                    of_manager(stat_prefix).then("ext_authz.").tagged(Tag::ExtAuthzPrefix, &config.stat_prefix);
                FilterStats::ExtAuthz(registry.group(prefix))
            }
            HttpFilter::Buffer { .. }
            | HttpFilter::Cors
            | HttpFilter::Csrf(_)
            | HttpFilter::Fault(_)
            | HttpFilter::GrpcWeb
            | HttpFilter::HeaderMutation { .. }
            | HttpFilter::HealthCheck(_)
            | HttpFilter::HeaderToMetadata(_)
            | HttpFilter::RateLimit(_)
            | HttpFilter::SetFilterState(_)
            | HttpFilter::SetMetadata(_)
            | HttpFilter::StatefulSession(_)
            | HttpFilter::LocalRateLimit(_) => FilterStats::None,
        }
    }

    pub fn rbac(&self) -> Option<&RbacStats> {
        match self {
            FilterStats::Rbac(stats) => Some(stats),
            _ => None,
        }
    }

    pub fn basic_auth(&self) -> Option<&GroupStats<BasicAuthStat>> {
        match self {
            FilterStats::BasicAuth(stats) => Some(stats),
            _ => None,
        }
    }

    pub fn ext_authz(&self) -> Option<&GroupStats<ExtAuthzStat>> {
        match self {
            FilterStats::ExtAuthz(stats) => Some(stats),
            _ => None,
        }
    }

    pub fn jwt_authn(&self) -> Option<&GroupStats<JwtStat>> {
        match self {
            FilterStats::JwtAuthn(stats) => Some(stats),
            _ => None,
        }
    }
}

fn of_manager(stat_prefix: &str) -> MetricName {
    MetricName::new("http.").tagged(Tag::HttpConnectionManagerPrefix, stat_prefix)
}

fn dotted(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{}.", prefix.trim_end_matches('.')) }
}

impl RbacStats {
    fn of_http(rbac: &Rbac, stat_prefix: &str, registry: &Registry) -> RbacStats {
        let Rbac {
            engines: Engines { enforced, shadow },
            rules_stat_prefix,
            shadow_rules_stat_prefix,
            counts_policies,
        } = rbac;
        let names = |engine: &Option<Engine>| match engine {
            Some(engine) if *counts_policies => engine.policy_names(),
            _ => Vec::new(),
        };
        let scope = |prefix: &str| of_manager(stat_prefix).then("rbac.").tagged(Tag::RbacHttpPrefix, prefix);
        RbacStats {
            enforced: RuleStats::new(&scope(rules_stat_prefix), names(enforced), registry),
            shadow: RuleStats::new(&scope(shadow_rules_stat_prefix), names(shadow), registry),
        }
    }

    /// Of connections.
    pub fn of_network(stat_prefix: &str, shadow_rules_stat_prefix: &str, registry: &Registry) -> RbacStats {
        let scope = MetricName::new("").tagged(Tag::RbacPrefix, stat_prefix).then("rbac.");
        RbacStats {
            enforced: RuleStats::new(&scope, Vec::new(), registry),
            shadow: RuleStats::new(&scope.then(&dotted(shadow_rules_stat_prefix)), Vec::new(), registry),
        }
    }

    pub fn count_enforced(&self, worker: WorkerIndex, decision: &Decision<'_>) {
        let stat = if decision.is_allowed { RbacStat::Allowed } else { RbacStat::Denied };
        self.enforced.count(worker, stat, decision.policy);
    }

    pub fn count_shadow(&self, worker: WorkerIndex, decision: &Decision<'_>) {
        let stat = if decision.is_allowed { RbacShadowStat::Allowed } else { RbacShadowStat::Denied };
        self.shadow.count(worker, stat, decision.policy);
    }
}

impl<S: StatGroup> RuleStats<S> {
    fn new(scope: &MetricName, policies: Vec<Arc<str>>, registry: &Registry) -> Self {
        let of_policy = |name: Arc<str>| {
            let prefix = scope.clone().then("policy.").tagged(Tag::RbacPolicyName, &name);
            (name, registry.group(prefix))
        };
        RuleStats { all: registry.group(scope.clone()), of_policies: policies.into_iter().map(of_policy).collect() }
    }

    fn count(&self, worker: WorkerIndex, stat: S, policy: Option<&Arc<str>>) {
        self.all.cells.inc(worker, stat);
        if let Some(stats) = policy.and_then(|policy| self.of_policies.get(policy)) {
            stats.cells.inc(worker, stat);
        }
    }
}

/// Counts for the worker that has the request.
pub(super) fn count<S: StatGroup>(stats: Option<&GroupStats<S>>, exchange: &Exchange, stat: S) {
    if let Some(stats) = stats {
        stats.cells.inc(exchange.connection.downstream.worker.index, stat);
    }
}
