//! `envoy.filters.http.rbac`: refuses requests that policies do not allow, and says of others what shadow policies would do.

use std::sync::Arc;

use http::StatusCode;

use super::{Passing, override_of, stats::RbacStats};
use crate::{
    authorization::{Decision, Facts, Peer},
    config::{
        http_filter::{Rbac, RouteFilter},
        metadata::{Fields, Value},
    },
    http::{exchange::Exchange, local_reply::LocalReply, response_flags::ResponseFlags},
};

const NAMESPACE: &str = "envoy.filters.http.rbac";
const COMMON_NAMESPACE: &str = "envoy.common";

pub(super) fn request(
    name: &str,
    rbac: &Rbac,
    stats: Option<&RbacStats>,
    passing: &Passing<'_>,
) -> Result<(), LocalReply> {
    let effective = match override_of(passing.route, name) {
        Some(RouteFilter::Rbac(None)) => return Ok(()),
        Some(RouteFilter::Rbac(Some(effective))) => effective,
        _ => rbac,
    };
    let exchange = passing.exchange;
    let worker = exchange.connection.downstream.worker.index;
    if let Some(shadow) = &effective.engines.shadow {
        let decision = decide(passing, |facts| shadow.decide(facts));
        note(exchange, &effective.shadow_rules_stat_prefix, "shadow", &decision);
        if let Some(stats) = stats {
            stats.count_shadow(worker, &decision);
        }
    }
    let Some(engine) = &effective.engines.enforced else { return Ok(()) };
    let decision = decide(passing, |facts| engine.decide(facts));
    if let Some(hint) = decision.log_hint {
        let fields = Fields::from_iter([(Arc::from("access_log_hint"), Value::Bool(hint))]);
        exchange.metadata.borrow_mut().merge(COMMON_NAMESPACE, fields);
    }
    note(exchange, &effective.rules_stat_prefix, "enforced", &decision);
    if let Some(stats) = stats {
        stats.count_enforced(worker, &decision);
    }
    if decision.is_allowed {
        return Ok(());
    }
    let reply = LocalReply::new(StatusCode::FORBIDDEN, ResponseFlags::default(), details(decision.policy));
    Err(reply.with_body("RBAC: access denied"))
}

fn decide<'a>(passing: &Passing<'_>, decide: impl FnOnce(&Facts<'_>) -> Decision<'a>) -> Decision<'a> {
    let exchange = passing.exchange;
    let downstream = &exchange.connection.downstream;
    decide(&Facts {
        connection: downstream.facts(),
        source: downstream.remote_address,
        direct_remote: downstream.direct_remote_address,
        remote: exchange.remote_address.get(),
        peer: Peer::of(downstream),
        tls: downstream.tls.as_deref(),
        request: Some(passing.head),
        dynamic_metadata: Some(&exchange.metadata.borrow()),
        route_metadata: passing.route.map(|route| &route.route().metadata),
        filter_state: Some(&exchange.filter_state.borrow()),
    })
}

/// `rbac_access_denied_matched_policy[...]`, in one word.
pub fn details(policy: Option<&Arc<str>>) -> String {
    let name = policy.map_or("none", |name| &**name);
    format!("rbac_access_denied_matched_policy[{}]", name.replace(char::is_whitespace, "_"))
}

/// What was decided, for logs and for filters behind this one.
fn note(exchange: &Exchange, prefix: &str, kind: &str, decision: &Decision<'_>) {
    let mut fields = Fields::new();
    if let Some(policy) = decision.policy {
        fields.insert(format!("{prefix}{kind}_effective_policy_id").into(), Value::Text(policy.clone()));
    }
    let result = if decision.is_allowed { "allowed" } else { "denied" };
    fields.insert(format!("{prefix}{kind}_engine_result").into(), Value::Text(result.into()));
    exchange.metadata.borrow_mut().merge(NAMESPACE, fields);
}
