//! Route tables: which cluster a request goes to, and what is tried again.

use std::time::Duration;

use weft_xds::pb::envoy::config::route::v3::retry_policy::{RetryHostPredicate, retry_host_predicate};
use weft_xds::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, hash_policy};
use weft_xds::pb::envoy::config::route::v3::{
    DirectResponseAction, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
    route_match,
};
use weft_xds::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::proto::{duration, pack, uint32};
use super::{MeshSettings, OutboundPolicy, PASSTHROUGH_CLUSTER};
use crate::model::service::Affinity;

/// Everything to the Service's own cluster: its address and port already chose it, so any host name will do.
pub(super) fn outbound(name: &str, host: &str, port: u16, affinity: Affinity) -> RouteConfiguration {
    table(name, vec![to_any_host(format!("{host}:{port}"), everyone(), name, affinity)])
}

/// The same for gRPC's own clients, which know hash policies of headers and of their channel.
pub(super) fn proxyless(name: &str, host: &str, port: u16, affinity: Affinity) -> RouteConfiguration {
    let by_channel = hash_policy::FilterState { key: "io.grpc.channel_id".to_owned() };
    let action = RouteAction {
        hash_policy: match affinity {
            Affinity::None => Vec::new(),
            Affinity::ClientAddress => vec![hash_by(hash_policy::PolicySpecifier::FilterState(by_channel))],
        },
        ..forward(name, outbound_retries())
    };
    table(name, vec![virtual_host(format!("{host}:{port}"), everyone(), route::Action::Route(action))])
}

/// Everything to the application's port.
pub(super) fn inbound(name: &str, port: u16) -> RouteConfiguration {
    let action = route::Action::Route(forward(name, inbound_retries()));
    table(name, vec![virtual_host(format!("inbound|http|{port}"), everyone(), action)])
}

/// Many hosts at one port; requests to others are requests to no Service.
pub(super) fn wildcard(name: &str, mut hosts: Vec<VirtualHost>, settings: &MeshSettings) -> RouteConfiguration {
    hosts.push(match settings.outbound_policy {
        OutboundPolicy::AllowAny => {
            let action = RouteAction { retry_policy: None, ..forward(PASSTHROUGH_CLUSTER, RetryPolicy::default()) };
            virtual_host("allow_any".to_owned(), everyone(), route::Action::Route(action))
        }
        OutboundPolicy::RegistryOnly => {
            let refusal = DirectResponseAction { status: BAD_GATEWAY, ..DirectResponseAction::default() };
            virtual_host("block_all".to_owned(), everyone(), route::Action::DirectResponse(refusal))
        }
    });
    // The listener has one port already.
    RouteConfiguration { ignore_port_in_host_matching: true, ..table(name, hosts) }
}

/// To whichever of a cluster's hosts the load balancer picks.
pub(super) fn to_any_host(name: String, domains: Vec<String>, cluster: &str, affinity: Affinity) -> VirtualHost {
    let by_source = hash_policy::ConnectionProperties { source_ip: true };
    let action = RouteAction {
        hash_policy: match affinity {
            Affinity::None => Vec::new(),
            Affinity::ClientAddress => vec![hash_by(hash_policy::PolicySpecifier::ConnectionProperties(by_source))],
        },
        ..forward(cluster, outbound_retries())
    };
    virtual_host(name, domains, route::Action::Route(action))
}

/// To the very host that the client connected to: there is no other to try.
pub(super) fn to_chosen_host(name: String, domains: Vec<String>, cluster: &str) -> VirtualHost {
    let retries =
        RetryPolicy { retry_host_predicate: Vec::new(), host_selection_retry_max_attempts: 0, ..outbound_retries() };
    virtual_host(name, domains, route::Action::Route(forward(cluster, retries)))
}

const BAD_GATEWAY: u32 = 502;

fn everyone() -> Vec<String> {
    vec!["*".to_owned()]
}

fn table(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration { name: name.to_owned(), virtual_hosts, ..RouteConfiguration::default() }
}

fn virtual_host(name: String, domains: Vec<String>, action: route::Action) -> VirtualHost {
    let everything = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    let route =
        Route { name: "default".to_owned(), r#match: Some(everything), action: Some(action), ..Route::default() };
    VirtualHost { name, domains, routes: vec![route], ..VirtualHost::default() }
}

fn forward(cluster: &str, retries: RetryPolicy) -> RouteAction {
    RouteAction {
        // Zero means none: how long a request may take is for the application to say.
        timeout: duration(Duration::ZERO),
        retry_policy: Some(retries),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    }
}

fn hash_by(policy: hash_policy::PolicySpecifier) -> HashPolicy {
    HashPolicy { policy_specifier: Some(policy), ..HashPolicy::default() }
}

/// The mesh's default: what provably did not happen, or what the server says is temporary, is tried twice more, and
/// not on an endpoint that failed already.
fn outbound_retries() -> RetryPolicy {
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes".to_owned(),
        num_retries: uint32(2),
        retriable_status_codes: vec![503],
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(&PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    }
}

/// The application closed an idle connection at the moment that a request went out on it: nothing was processed.
fn inbound_retries() -> RetryPolicy {
    RetryPolicy { retry_on: "reset-before-request".to_owned(), num_retries: uint32(2), ..RetryPolicy::default() }
}
