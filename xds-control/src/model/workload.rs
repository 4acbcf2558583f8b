//! A workload instance (a pod), the node that it runs on and the namespace that it is in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::ObjectName;
use super::endpoint::Condition;
use super::topology::{Distribution, Locality};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    pub name: ObjectName,
    /// One a family; empty before the pod was given any.
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// What deployed it (a Deployment, a StatefulSet, ...); the pod itself where nothing did.
    pub deployed_by: String,
    /// Named container ports.
    pub ports: BTreeMap<String, u16>,
    /// With the namespace, its identity.
    pub service_account: String,
    /// The node that it runs on.
    pub node: Option<String>,
    pub condition: Condition,
    /// The name that it has of its own within a headless Service.
    pub hostname: Option<String>,
}

impl Workload {
    /// The application that it is an instance of, by the labels that people use for it; empty where unsaid.
    pub fn app(&self) -> &str {
        self.first_label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
    }

    /// The version of that application; empty where unsaid.
    pub fn version(&self) -> &str {
        self.first_label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
    }

    fn first_label(&self, keys: &[&str]) -> &str {
        keys.iter().find_map(|key| self.labels.get(*key)).map_or("", String::as_str)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    pub locality: Locality,
}

/// What a namespace says for all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    pub name: String,
    pub distribution: Option<Distribution>,
}
