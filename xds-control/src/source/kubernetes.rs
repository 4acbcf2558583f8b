//! Kubernetes objects into objects of the model: pure conversions, one file a kind.
//!
//! A conversion either gives the whole object or says which field is wrong; fields that the mesh has no use for are not
//! read. What is legal in Kubernetes and means nothing to the mesh converts to `None`.

mod endpoint_slice;
mod node;
mod pod;
mod service;

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::ObjectName;
use crate::model::registry::{Object, ObjectKey};
use crate::model::service::Age;
use crate::model::topology::Distribution;

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Service,
    EndpointSlice,
    Pod,
    Node,
    Namespace,
}

impl Kind {
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("v1", "Pod") => Some(Self::Pod),
            ("v1", "Node") => Some(Self::Node),
            ("v1", "Namespace") => Some(Self::Namespace),
            _ => None,
        }
    }
}

/// Whether a kind is one of Kubernetes' own that the mesh has no use for, rather than a misspelt or foreign one.
pub fn is_irrelevant(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match group {
        "" => CORE_KINDS.contains(&kind),
        "apps" | "batch" | "autoscaling" | "policy" | "extensions" => true,
        _ => IRRELEVANT_GROUPS.contains(&group),
    }
}

const CORE_KINDS: [&str; 12] = [
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
    "ComponentStatus",
];

const IRRELEVANT_GROUPS: [&str; 14] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "kustomize.config.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// A field whose value the mesh can't take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldProblem {
    /// In Kubernetes' spelling, `spec.ports[0].port`.
    pub path: String,
    pub reason: String,
}

impl FieldProblem {
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

/// An object as it came, of a kind that is read.
#[derive(Clone, Debug)]
pub enum Raw {
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<Pod>),
    Node(Box<Node>),
    Namespace(Box<Namespace>),
}

impl Raw {
    /// The object's name, also of those that convert to nothing.
    pub fn key(&self) -> Result<ObjectKey, FieldProblem> {
        Ok(match self {
            Self::Service(service) => ObjectKey::Service(namespaced(&service.metadata)?),
            Self::EndpointSlice(slice) => ObjectKey::EndpointSlice(namespaced(&slice.metadata)?),
            Self::Pod(pod) => ObjectKey::Workload(namespaced(&pod.metadata)?),
            Self::Node(node) => ObjectKey::Node(name(&node.metadata)?),
            Self::Namespace(namespace) => ObjectKey::Namespace(name(&namespace.metadata)?),
        })
    }

    /// Settings that the mesh does not carry out, with what happens instead.
    pub fn unsupported(&self) -> Vec<FieldProblem> {
        match self {
            Self::Service(raw) => service::unsupported(raw),
            Self::Namespace(raw) => annotated_distribution(&raw.metadata).err().into_iter().collect(),
            Self::EndpointSlice(_) | Self::Pod(_) | Self::Node(_) => Vec::new(),
        }
    }

    /// The object of the model; `None` where the mesh has no use for this one.
    pub fn convert(&self) -> Result<Option<Object>, FieldProblem> {
        Ok(match self {
            Self::Service(raw) => Some(Object::Service(Arc::new(service::convert(raw)?))),
            Self::EndpointSlice(raw) => {
                endpoint_slice::convert(raw)?.map(|slice| Object::EndpointSlice(Arc::new(slice)))
            }
            Self::Pod(raw) => pod::convert(raw)?.map(|workload| Object::Workload(Arc::new(workload))),
            Self::Node(raw) => Some(Object::Node(Arc::new(node::convert(raw)?))),
            Self::Namespace(raw) => Some(Object::Namespace(Arc::new(crate::model::workload::Namespace {
                name: dns_label("metadata.name", &name(&raw.metadata)?)?,
                distribution: annotated_distribution(&raw.metadata).unwrap_or_default(),
            }))),
        })
    }
}

/// The namespace of a manifest that names none, as kubectl takes it.
const DEFAULT_NAMESPACE: &str = "default";

fn namespaced(metadata: &ObjectMeta) -> Result<ObjectName, FieldProblem> {
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let namespace = dns_name("metadata.namespace", namespace)?;
    Ok(ObjectName { namespace, name: name(metadata)? })
}

fn name(metadata: &ObjectMeta) -> Result<String, FieldProblem> {
    let Some(name) = metadata.name.as_deref() else {
        return Err(FieldProblem::new("metadata.name", "is required"));
    };
    dns_name("metadata.name", name)
}

/// Names become parts of cluster and host names, so what the API server would not take is refused here too
/// (RFC 1123 subdomain).
fn dns_name(path: &str, text: &str) -> Result<String, FieldProblem> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        let shown = text.chars().take(60).collect::<String>();
        Err(FieldProblem::new(path, format!("{shown:?} is not a name of lower case letters, digits, '-' and '.'")))
    }
}

const NAME_BYTES_MAX: usize = 253;

/// A name without dots, so that it stays one part of the host names that it is put into.
fn dns_label(path: &str, text: &str) -> Result<String, FieldProblem> {
    if text.contains('.') || text.len() > LABEL_BYTES_MAX {
        let shown = text.chars().take(80).collect::<String>();
        return Err(FieldProblem::new(
            path,
            format!("{shown:?} has a dot or is longer than {LABEL_BYTES_MAX} letters"),
        ));
    }
    dns_name(path, text)
}

const LABEL_BYTES_MAX: usize = 63;

fn age(metadata: &ObjectMeta) -> Age {
    metadata.creation_timestamp.as_ref().map_or_else(Age::default, |created| Age(created.0.as_second()))
}

/// Istio's annotation for what Services got a field for later; a namespace has it for all of its Services.
fn annotated_distribution(metadata: &ObjectMeta) -> Result<Option<Distribution>, FieldProblem> {
    let annotations = metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(DISTRIBUTION_ANNOTATION)).map(String::as_str) {
        None => Ok(None),
        Some("PreferClose" | "PreferSameZone") => Ok(Some(Distribution::SameZone)),
        Some("PreferSameNode") => Ok(Some(Distribution::SameNode)),
        Some("Any") => Ok(Some(Distribution::Anywhere)),
        Some(other) => Err(FieldProblem::new(
            format!("metadata.annotations[{DISTRIBUTION_ANNOTATION}]"),
            format!("{other:?} is not one of PreferSameZone, PreferClose, PreferSameNode, Any: it counts as unset"),
        )),
    }
}

const DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

fn port(path: &str, number: i32) -> Result<u16, FieldProblem> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(FieldProblem::new(path, format!("{number} is not a port between 1 and 65535"))),
    }
}

fn address(path: impl Into<String>, text: &str) -> Result<IpAddr, FieldProblem> {
    text.parse().map_err(|_| FieldProblem::new(path, format!("{text:?} is not an IP address")))
}

#[cfg(test)]
mod tests;
