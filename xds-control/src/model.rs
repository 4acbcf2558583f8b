//! What the mesh consists of, in words of its own: services, their ports, the workloads behind them.
//!
//! Sources write it (`registry`), translation reads it (`mesh`). Nothing in here knows Kubernetes or protobuf, and
//! nothing does I/O. Values are valid once constructed: ports are in range, addresses are addresses, names are names.

pub mod endpoint;
pub mod mesh;
pub mod protocol;
pub mod registry;
pub mod service;
pub mod topology;
pub mod workload;

use std::fmt;

use serde::Serialize;

/// The name of a namespaced object. Ordered by namespace first, so that a namespace is one range of a sorted map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
