//! Small resources to warm up.

use std::{sync::Arc, time::SystemTime};

use prost::Name;
use weft_xds::{any, json, pb::envoy::config as pb};

use crate::{
    config::{cluster::ClusterConfig, endpoint::LoadAssignment, listener::Listener, route::RouteTable},
    xds::resource::{Origin, Received},
};

/// Versions differ in a field that nothing here depends on.
pub(super) fn cluster(name: &str, version: u32) -> Received<ClusterConfig> {
    cluster_with_endpoints(name, version, name)
}

pub(super) fn cluster_with_endpoints(name: &str, version: u32, endpoints: &str) -> Received<ClusterConfig> {
    let text = format!(
        "{{name: {name}, connect_timeout: {}s, type: EDS, eds_cluster_config: {{service_name: {endpoints}, \
         eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}",
        version + 1
    );
    received(name, &text, |message: pb::cluster::v3::Cluster| ClusterConfig::from_proto(message))
}

pub(super) fn static_cluster(name: &str) -> Received<ClusterConfig> {
    let text = format!("{{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}}}}}");
    received(name, &text, |message: pb::cluster::v3::Cluster| ClusterConfig::from_proto(message))
}

pub(super) fn dns_cluster(name: &str, fields: &str) -> Received<ClusterConfig> {
    let text = format!("name: {name}\ntype: STRICT_DNS\n{fields}\nload_assignment: {{cluster_name: {name}}}");
    received(name, &text, |message: pb::cluster::v3::Cluster| ClusterConfig::from_proto(message))
}

/// One endpoint, told apart by its port.
pub(super) fn endpoints(name: &str, port: u32) -> Received<LoadAssignment> {
    let text = format!(
        "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
         {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}"
    );
    received(name, &text, |message: pb::endpoint::v3::ClusterLoadAssignment| LoadAssignment::from_proto(message))
}

pub(super) fn table(name: &str, clusters: &[&str]) -> Received<RouteTable> {
    received(name, &table_text(name, clusters, ""), |message: pb::route::v3::RouteConfiguration| {
        RouteTable::from_proto(message)
    })
}

pub(super) fn strict_table(name: &str, clusters: &[&str]) -> Received<RouteTable> {
    let text = table_text(name, clusters, "validate_clusters: true, ");
    received(name, &text, |message: pb::route::v3::RouteConfiguration| RouteTable::from_proto(message))
}

/// Fetches its routes.
pub(super) fn listener(name: &str, port: u16, table: &str) -> Received<Listener> {
    listener_with(
        name,
        port,
        &format!("rds: {{route_config_name: {table}, config_source: {{ads: {{}}, resource_api_version: V3}}}}"),
    )
}

pub(super) fn listener_with_inline_table(name: &str, port: u16, clusters: &[&str], option: &str) -> Received<Listener> {
    listener_with(name, port, &format!("route_config: {}", table_text("inline", clusters, option)))
}

fn listener_with(name: &str, port: u16, routes: &str) -> Received<Listener> {
    let text = format!(
        "{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, filter_chains: \
         [{{filters: [{{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.\
         http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, {routes}, http_filters: [{{name: router, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
    );
    received(name, &text, |message: pb::listener::v3::Listener| Listener::from_proto(message))
}

fn table_text(name: &str, clusters: &[&str], option: &str) -> String {
    let routes: Vec<String> = clusters
        .iter()
        .map(|cluster| format!("{{match: {{prefix: /{cluster}}}, route: {{cluster: {cluster}}}}}"))
        .collect();
    format!("{{name: {name}, {option}virtual_hosts: [{{name: all, domains: ['*'], routes: [{}]}}]}}", routes.join(", "))
}

fn received<M: Name + Default, T>(
    name: &str,
    text: &str,
    convert: impl FnOnce(M) -> Result<T, weft_xds::FieldError>,
) -> Received<T> {
    let message: M = json::from_yaml(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let origin =
        Origin { version_info: String::new(), message: any::pack(&message), updated_at: SystemTime::UNIX_EPOCH };
    let config = convert(message).unwrap_or_else(|error| panic!("{error} in {text}"));
    Received { name: name.into(), config: Arc::new(config), origin: Arc::new(origin) }
}
