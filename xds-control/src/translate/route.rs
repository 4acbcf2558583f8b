//! Route tables: which cluster a request goes to, and what is tried again.

use std::time::Duration;

use weft_xds::pb::envoy::config::route::v3::retry_policy::{RetryHostPredicate, retry_host_predicate};
use weft_xds::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use weft_xds::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};
use weft_xds::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::proto::{duration, pack, uint32};

/// Everything to the Service's own cluster: its address and port already chose it, so any host name will do.
pub(super) fn outbound(name: &str, host: &str, port: u16) -> RouteConfiguration {
    table(name, format!("{host}:{port}"), outbound_retries())
}

/// Everything to the application's port.
pub(super) fn inbound(name: &str, port: u16) -> RouteConfiguration {
    table(name, format!("inbound|http|{port}"), inbound_retries())
}

/// The table and its only cluster have one name.
fn table(name: &str, virtual_host: String, retries: RetryPolicy) -> RouteConfiguration {
    let action = RouteAction {
        // Zero means none: how long a request may take is for the application to say.
        timeout: duration(Duration::ZERO),
        retry_policy: Some(retries),
        cluster_specifier: Some(ClusterSpecifier::Cluster(name.to_owned())),
        ..RouteAction::default()
    };
    let everything = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: virtual_host,
            domains: vec!["*".to_owned()],
            routes: vec![Route {
                name: "default".to_owned(),
                r#match: Some(everything),
                action: Some(route::Action::Route(action)),
                ..Route::default()
            }],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
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
