//! An answer of the control plane, decoded: typed resources with what they were made from, or why not. Pure.
//!
//! Two kinds of errors, as Envoy treats them. What cannot be decoded, breaks a validation rule of the API or comes twice
//! refuses the whole answer, and nothing of it is applied. What decodes but asks for something that this proxy does not
//! have refuses that resource alone: the others are applied, and the answer is refused all the same.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use prost::{Message, Name};
use weft_xds::{
    FieldError, any,
    pb::{
        envoy::{
            config::{
                cluster::v3::Cluster as ClusterMessage, endpoint::v3::ClusterLoadAssignment,
                listener::v3::Listener as ListenerMessage, route::v3::RouteConfiguration,
            },
            service::discovery::v3::{DiscoveryResponse, Resource as ResourceMessage},
        },
        google::protobuf::Any,
    },
};

use crate::{
    config::{cluster::ClusterConfig, endpoint::LoadAssignment, listener::Listener, route::RouteTable},
    xds::kind::ResourceKind,
};

/// A resource together with the message that it came from.
#[derive(Debug)]
pub struct Received<T> {
    pub name: Arc<str>,
    pub config: Arc<T>,
    pub origin: Arc<Origin>,
}

impl<T> Clone for Received<T> {
    fn clone(&self) -> Self {
        Received { name: self.name.clone(), config: self.config.clone(), origin: self.origin.clone() }
    }
}

impl<T> Received<T> {
    pub fn refused(&self, reason: String) -> RefusedResource {
        RefusedResource { name: self.name.clone(), reason, origin: self.origin.clone() }
    }
}

/// Where a resource came from, for people who ask.
#[derive(Debug)]
pub struct Origin {
    /// Empty for what stands in the bootstrap.
    pub version_info: String,
    pub message: Any,
    pub updated_at: SystemTime,
}

/// What a good or half-good answer holds.
#[derive(Debug)]
pub struct Answer<T> {
    pub resources: Vec<Received<T>>,
    pub refused: Vec<RefusedResource>,
}

/// A resource that decodes but cannot be used. What it would have replaced stays.
#[derive(Clone, Debug)]
pub struct RefusedResource {
    pub name: Arc<str>,
    pub reason: String,
    pub origin: Arc<Origin>,
}

/// An answer that is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[error("Error adding/updating {} {resource}: {reason}", .kind.noun())]
pub struct AnswerError {
    pub kind: ResourceKind,
    /// The resource's name, or its place in the answer where it has none.
    pub resource: String,
    pub reason: String,
}

/// A configuration type that comes as a resource of its own.
pub trait ResourceConfig: Sized {
    type Message: Name + Default;
    const KIND: ResourceKind;
    fn name(message: &Self::Message) -> &str;
    fn from_message(message: Self::Message) -> Result<Self, FieldError>;
}

impl ResourceConfig for ClusterConfig {
    type Message = ClusterMessage;
    const KIND: ResourceKind = ResourceKind::Cluster;
    fn name(message: &ClusterMessage) -> &str {
        &message.name
    }
    fn from_message(message: ClusterMessage) -> Result<Self, FieldError> {
        ClusterConfig::from_proto(message)
    }
}

impl ResourceConfig for LoadAssignment {
    type Message = ClusterLoadAssignment;
    const KIND: ResourceKind = ResourceKind::Endpoints;
    fn name(message: &ClusterLoadAssignment) -> &str {
        &message.cluster_name
    }
    fn from_message(message: ClusterLoadAssignment) -> Result<Self, FieldError> {
        LoadAssignment::from_proto(message)
    }
}

impl ResourceConfig for Listener {
    type Message = ListenerMessage;
    const KIND: ResourceKind = ResourceKind::Listener;
    fn name(message: &ListenerMessage) -> &str {
        &message.name
    }
    fn from_message(message: ListenerMessage) -> Result<Self, FieldError> {
        Listener::from_proto(message)
    }
}

impl ResourceConfig for RouteTable {
    type Message = RouteConfiguration;
    const KIND: ResourceKind = ResourceKind::Routes;
    fn name(message: &RouteConfiguration) -> &str {
        &message.name
    }
    fn from_message(message: RouteConfiguration) -> Result<Self, FieldError> {
        RouteTable::from_proto(message)
    }
}

/// What is already there, by the bytes of its message: a control plane sends all clusters when one of them changes, and
/// decoding the others again would cost a start-up's work each time. Not for kinds that come one by one, where looking at
/// everything that is there would cost more than it saves.
pub struct Known<'a, T>(HashMap<&'a [u8], &'a Received<T>>);

impl<'a, T> Known<'a, T> {
    pub fn nothing() -> Known<'a, T> {
        Known(HashMap::new())
    }

    pub fn new(received: impl Iterator<Item = &'a Received<T>>) -> Known<'a, T> {
        Known(received.map(|received| (received.origin.message.value.as_slice(), received)).collect())
    }
}

/// Takes the resources out of an answer.
pub fn decode<T: ResourceConfig>(
    answer: &mut DiscoveryResponse,
    known: &Known<'_, T>,
    now: SystemTime,
) -> Result<Answer<T>, AnswerError> {
    let mut names = HashSet::new();
    let mut decoded = Vec::with_capacity(answer.resources.len());
    for (index, resource) in std::mem::take(&mut answer.resources).into_iter().enumerate() {
        let error = |resource: String, reason: String| AnswerError { kind: T::KIND, resource, reason };
        let place = || format!("resources[{index}]");
        let message = unwrap::<T>(resource).map_err(|cause| error(place(), cause.to_string()))?;
        let entry = match known.0.get(message.value.as_slice()) {
            Some(&received) => Decoded::Known(received.clone()),
            None => {
                let typed = any::unpack_valid::<T::Message>(&message)
                    .map_err(|cause| error(name_of::<T>(&message).unwrap_or_else(place), cause.to_string()))?;
                Decoded::New { name: Arc::from(T::name(&typed)), typed, message }
            }
        };
        if !names.insert(entry.name().clone()) {
            let name = entry.name();
            return Err(error(name.to_string(), format!("duplicate {} {name} found", singular(T::KIND))));
        }
        decoded.push(entry);
    }

    let mut outcome = Answer { resources: Vec::with_capacity(decoded.len()), refused: Vec::new() };
    for entry in decoded {
        let (name, typed, message) = match entry {
            Decoded::Known(received) => {
                outcome.resources.push(received);
                continue;
            }
            Decoded::New { name, typed, message } => (name, typed, message),
        };
        let origin = Arc::new(Origin { version_info: answer.version_info.clone(), message, updated_at: now });
        match T::from_message(typed) {
            Ok(config) => outcome.resources.push(Received { name, config: Arc::new(config), origin }),
            Err(error) => outcome.refused.push(RefusedResource { name, reason: error.to_string(), origin }),
        }
    }
    Ok(outcome)
}

/// What the control plane is told about resources that were refused one by one, in Envoy's words.
pub fn refusal_message(kind: ResourceKind, refused: &[RefusedResource]) -> Option<String> {
    if refused.is_empty() {
        return None;
    }
    let reasons: Vec<String> = refused.iter().map(|refused| format!("{}: {}", refused.name, refused.reason)).collect();
    Some(format!("Error adding/updating {} {}", kind.noun(), reasons.join(", ")))
}

enum Decoded<T: ResourceConfig> {
    /// Byte for byte what is there already.
    Known(Received<T>),
    New {
        name: Arc<str>,
        typed: T::Message,
        message: Any,
    },
}

impl<T: ResourceConfig> Decoded<T> {
    fn name(&self) -> &Arc<str> {
        match self {
            Decoded::Known(received) => &received.name,
            Decoded::New { name, .. } => name,
        }
    }
}

/// A resource may come bare or in the protocol's `Resource` wrapper.
fn unwrap<T: ResourceConfig>(resource: Any) -> Result<Any, FieldError> {
    let resource = if any::type_name(&resource) == ResourceMessage::full_name() {
        let ResourceMessage {
            // Names, versions and cache hints matter to the delta variant and to other clients' caches.
            name: _,
            resource_name: _,
            aliases: _,
            version: _,
            cache_control: _,
            metadata: _,
            resource,
            ttl,
        } = any::unpack_valid::<ResourceMessage>(&resource)?;
        if ttl.is_some() {
            return Err(FieldError::new("ttl", "not supported"));
        }
        resource.ok_or_else(|| FieldError::new("resource", "value is required"))?
    } else {
        resource
    };
    if resource.type_url != T::KIND.type_url() {
        let reason = format!("type {} does not match the answer's type {}", resource.type_url, T::KIND.type_url());
        return Err(FieldError::new("type_url", reason));
    }
    Ok(resource)
}

/// The name of a resource that breaks a rule, if it can be read at all.
fn name_of<T: ResourceConfig>(message: &Any) -> Option<String> {
    let typed = T::Message::decode(message.value.as_slice()).ok()?;
    let name = T::name(&typed);
    (!name.is_empty()).then(|| name.to_owned())
}

fn singular(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "cluster",
        ResourceKind::Endpoints => "endpoint assignment",
        ResourceKind::Listener => "listener",
        ResourceKind::Routes => "route configuration",
    }
}

#[cfg(test)]
mod tests;
