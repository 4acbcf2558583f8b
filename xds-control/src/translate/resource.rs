//! A resource ready to be sent: its name, its bytes, and a hash of what it says.

use std::sync::Arc;

use bytes::Bytes;
use prost::Name;
use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::pb::envoy::config::listener::v3::Listener;
use weft_xds::pb::envoy::config::route::v3::RouteConfiguration;
use weft_xds::pb::google::protobuf::Any;
use weft_xds::{FieldError, any, canonical, type_url};

/// The resource kinds that are served, in the order in which a change is sent: make before break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Route,
    Secret,
    ExtensionConfig,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route, Self::Secret, Self::ExtensionConfig];

    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::CLUSTER_LOAD_ASSIGNMENT,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE_CONFIGURATION,
            Self::Secret => type_url::SECRET,
            Self::ExtensionConfig => type_url::EXTENSION_CONFIG,
        }
    }

    /// The short name that people and metrics use.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoints => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Secret => "sds",
            Self::ExtensionConfig => "ecds",
        }
    }

    /// Whether a state-of-the-world answer is the whole state, so that absence deletes.
    pub fn absence_deletes(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub kind: Kind,
    pub name: Arc<str>,
    /// Of the canonical bytes: equal content has equal hashes on every replica.
    pub hash: u64,
    /// The encoded message; its type is the kind's. Shared by all who are sent it.
    pub body: Bytes,
}

impl Resource {
    pub fn listener(listener: Listener) -> Self {
        Self::new(Kind::Listener, &listener.name, &listener)
    }

    pub fn route(route: RouteConfiguration) -> Self {
        Self::new(Kind::Route, &route.name, &route)
    }

    pub fn cluster(cluster: Cluster) -> Self {
        Self::new(Kind::Cluster, &cluster.name, &cluster)
    }

    pub fn endpoints(assignment: ClusterLoadAssignment) -> Self {
        Self::new(Kind::Endpoints, &assignment.cluster_name, &assignment)
    }

    fn new<T: Name>(kind: Kind, name: &str, message: &T) -> Self {
        Self { kind, name: name.into(), hash: canonical::hash(message), body: message.encode_to_vec().into() }
    }

    pub fn any(&self) -> Any {
        Any { type_url: self.kind.type_url().to_owned(), value: self.body.to_vec() }
    }

    pub fn unpack<T: Name + Default>(&self) -> Result<T, FieldError> {
        any::unpack(&self.any())
    }
}
