//! The kinds of resources that the proxy asks a control plane for, with everything that depends on the kind alone.
//!
//! The order of the variants is the order in which they are asked for and in which requests that are due together are
//! sent: clusters, endpoints, listeners, routes, secrets (make before break).

use weft_xds::type_url;

use crate::config::config_source::Variant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Cluster,
    Endpoints,
    Listener,
    Routes,
    Secret,
}

impl ResourceKind {
    pub const COUNT: usize = 5;
    pub const ALL: [ResourceKind; ResourceKind::COUNT] = [
        ResourceKind::Cluster,
        ResourceKind::Endpoints,
        ResourceKind::Listener,
        ResourceKind::Routes,
        ResourceKind::Secret,
    ];

    /// None for a type that this proxy never asks for.
    pub fn from_type_url(type_url: &str) -> Option<ResourceKind> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    pub fn type_url(self) -> &'static str {
        match self {
            ResourceKind::Cluster => type_url::CLUSTER,
            ResourceKind::Endpoints => type_url::CLUSTER_LOAD_ASSIGNMENT,
            ResourceKind::Listener => type_url::LISTENER,
            ResourceKind::Routes => type_url::ROUTE_CONFIGURATION,
            ResourceKind::Secret => type_url::SECRET,
        }
    }

    /// The gRPC method of the service that has this kind alone.
    pub fn method(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (ResourceKind::Cluster, Variant::StateOfTheWorld) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
            }
            (ResourceKind::Cluster, Variant::Delta) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
            }
            (ResourceKind::Endpoints, Variant::StateOfTheWorld) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            (ResourceKind::Endpoints, Variant::Delta) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            (ResourceKind::Listener, Variant::StateOfTheWorld) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            (ResourceKind::Listener, Variant::Delta) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            (ResourceKind::Routes, Variant::StateOfTheWorld) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
            (ResourceKind::Routes, Variant::Delta) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
            (ResourceKind::Secret, Variant::StateOfTheWorld) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
            (ResourceKind::Secret, Variant::Delta) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        }
    }

    /// Whether an answer holds all resources there are, so that what it does not name is gone.
    pub fn comes_whole(self) -> bool {
        match self {
            ResourceKind::Cluster | ResourceKind::Listener => true,
            ResourceKind::Endpoints | ResourceKind::Routes | ResourceKind::Secret => false,
        }
    }

    /// As people say it, in logs and metrics.
    pub fn service(self) -> &'static str {
        match self {
            ResourceKind::Cluster => "cds",
            ResourceKind::Endpoints => "eds",
            ResourceKind::Listener => "lds",
            ResourceKind::Routes => "rds",
            ResourceKind::Secret => "sds",
        }
    }

    /// As refusals name it to the control plane: "Error adding/updating cluster(s) ...".
    pub fn noun(self) -> &'static str {
        match self {
            ResourceKind::Cluster => "cluster(s)",
            ResourceKind::Endpoints => "endpoint(s)",
            ResourceKind::Listener => "listener(s)",
            ResourceKind::Routes => "route(s)",
            ResourceKind::Secret => "secret(s)",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// The methods of the aggregated service.
pub fn aggregated_method(variant: Variant) -> &'static str {
    match variant {
        Variant::StateOfTheWorld => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        Variant::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    }
}
