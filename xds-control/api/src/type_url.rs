//! Type URLs of the xDS resource kinds.

use prost::Name;

pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const CLUSTER_LOAD_ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";

/// The type URL of `T`, with the prefix that protobuf uses by default.
pub fn of<T: Name>() -> String {
    format!("type.googleapis.com/{}", T::full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy;

    #[test]
    fn the_constants_are_those_of_the_types() {
        assert_eq!(of::<envoy::config::listener::v3::Listener>(), LISTENER);
        assert_eq!(of::<envoy::config::route::v3::RouteConfiguration>(), ROUTE_CONFIGURATION);
        assert_eq!(of::<envoy::config::route::v3::ScopedRouteConfiguration>(), SCOPED_ROUTE);
        assert_eq!(of::<envoy::config::route::v3::VirtualHost>(), VIRTUAL_HOST);
        assert_eq!(of::<envoy::config::cluster::v3::Cluster>(), CLUSTER);
        assert_eq!(of::<envoy::config::endpoint::v3::ClusterLoadAssignment>(), CLUSTER_LOAD_ASSIGNMENT);
        assert_eq!(of::<envoy::extensions::transport_sockets::tls::v3::Secret>(), SECRET);
        assert_eq!(of::<envoy::config::core::v3::TypedExtensionConfig>(), EXTENSION_CONFIG);
        assert_eq!(of::<envoy::service::runtime::v3::Runtime>(), RUNTIME);
    }
}
