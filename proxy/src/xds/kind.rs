//! The kinds of resources that the proxy asks a control plane for, with everything that depends on the kind alone.
//!
//! The order of the variants is the order in which they are asked for and in which requests that are due together are
//! sent: clusters, endpoints, listeners, routes (make before break).

use weft_xds::type_url;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    Cluster,
    Endpoints,
    Listener,
    Routes,
}

impl ResourceKind {
    pub const ALL: [ResourceKind; 4] =
        [ResourceKind::Cluster, ResourceKind::Endpoints, ResourceKind::Listener, ResourceKind::Routes];

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
        }
    }

    /// Whether an answer holds all resources there are, so that what it does not name is gone.
    pub fn comes_whole(self) -> bool {
        match self {
            ResourceKind::Cluster | ResourceKind::Listener => true,
            ResourceKind::Endpoints | ResourceKind::Routes => false,
        }
    }

    /// As people say it, in logs and metrics.
    pub fn service(self) -> &'static str {
        match self {
            ResourceKind::Cluster => "cds",
            ResourceKind::Endpoints => "eds",
            ResourceKind::Listener => "lds",
            ResourceKind::Routes => "rds",
        }
    }

    /// As refusals name it to the control plane: "Error adding/updating cluster(s) ...".
    pub fn noun(self) -> &'static str {
        match self {
            ResourceKind::Cluster => "cluster(s)",
            ResourceKind::Endpoints => "endpoint(s)",
            ResourceKind::Listener => "listener(s)",
            ResourceKind::Routes => "route(s)",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
