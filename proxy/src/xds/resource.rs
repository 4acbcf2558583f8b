//! An answer of the control plane, decoded: typed resources with what they were made from, or why not. Pure.
//! The variants of the protocol, and files, differ in how resources are wrapped; from here on they are alike.
//!
//! Two kinds of errors, as Envoy treats them. What cannot be decoded, breaks a validation rule of the API or comes twice
//! refuses the whole answer, and nothing of it is applied. What decodes but asks for something that this proxy does not
//! have refuses that resource alone: the others are applied, and the answer is refused all the same.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
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
            extensions::transport_sockets::tls::v3::Secret as SecretMessage,
            service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource as ResourceMessage},
        },
        google::protobuf::Any,
    },
    unknown,
};

use crate::{
    args::UnknownFields,
    config::{
        cluster::ClusterConfig, config_source::Variant, endpoint::LoadAssignment, field, listener::Listener,
        route::RouteTable, tls::Secret,
    },
    xds::{
        exchange::{AnswerId, Response},
        kind::ResourceKind,
    },
};

/// An answer as it came.
#[derive(Debug)]
pub struct Parcel {
    pub type_url: String,
    version: String,
    nonce: String,
    items: Vec<Item>,
    /// Names that delta says are gone.
    removed: Vec<Arc<str>>,
    variant: Variant,
}

#[derive(Debug)]
enum Item {
    /// Of state of the world: bare, or in the protocol's `Resource` wrapper.
    Any(Any),
    Wrapped(Box<ResourceMessage>),
}

/// A resource out of its wrapper.
struct Opened {
    /// None: a heartbeat of the resource of this name.
    message: Option<Any>,
    /// The wrapper's; may be empty.
    name: String,
    version: String,
    ttl: Option<Duration>,
}

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
    /// Names whose resources stay as they are.
    pub heartbeats: Vec<Lifetime>,
    /// Of each of `resources`, in their order.
    pub lifetimes: Vec<Lifetime>,
    pub removed: Removed,
    pub id: AnswerId,
}

/// How long the resource of this name may stay. None: for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub name: Arc<str>,
    pub ttl: Option<Duration>,
}

/// What an answer says is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Whatever it does not name, for kinds that come whole. `but` are named by it and not among its good resources:
    /// what they would have replaced stays.
    Unnamed { but: HashSet<Arc<str>> },
    /// Exactly these.
    These(HashSet<Arc<str>>),
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

impl ResourceConfig for Secret {
    type Message = SecretMessage;
    const KIND: ResourceKind = ResourceKind::Secret;
    fn name(message: &SecretMessage) -> &str {
        &message.name
    }
    fn from_message(message: SecretMessage) -> Result<Self, FieldError> {
        Secret::from_proto(message)
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

impl Parcel {
    pub fn new(response: Response) -> Parcel {
        match response {
            Response::StateOfTheWorld(response) => Parcel::whole(response),
            Response::Delta(response) => {
                let DeltaDiscoveryResponse {
                    system_version_info,
                    resources,
                    type_url,
                    removed_resources,
                    removed_resource_names: _, // of xdstp, and none is asked for
                    nonce,
                    control_plane: _,   // for people
                    resource_errors: _, // of names that are not there, which the removed ones say too
                } = response;
                Parcel {
                    type_url,
                    version: system_version_info,
                    nonce,
                    items: resources.into_iter().map(|wrapper| Item::Wrapped(Box::new(wrapper))).collect(),
                    removed: removed_resources.into_iter().map(Arc::from).collect(),
                    variant: Variant::Delta,
                }
            }
        }
    }

    /// An answer of state of the world, which is also what files hold.
    pub fn whole(response: DiscoveryResponse) -> Parcel {
        let DiscoveryResponse {
            version_info,
            resources,
            canary: _, // for people
            type_url,
            nonce,
            control_plane: _,   // for people
            resource_errors: _, // as for delta
        } = response;
        Parcel {
            type_url,
            version: version_info,
            nonce,
            items: resources.into_iter().map(Item::Any).collect(),
            removed: Vec::new(),
            variant: Variant::StateOfTheWorld,
        }
    }

    /// For the acknowledgement of an answer that is refused as a whole.
    pub fn id(&self) -> AnswerId {
        AnswerId { version: self.version.clone(), nonce: self.nonce.clone(), ..AnswerId::default() }
    }
}

/// Takes the resources out of an answer.
pub fn decode<T: ResourceConfig>(
    parcel: Parcel,
    known: &Known<'_, T>,
    unknown_fields: UnknownFields,
    now: SystemTime,
) -> Result<Answer<T>, AnswerError> {
    let id = parcel.id();
    let Parcel { type_url: _, version, nonce: _, items, removed, variant } = parcel;
    let mut names = HashSet::new();
    let mut decoded = Vec::with_capacity(items.len());
    let mut heartbeats = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let error = |resource: String, reason: String| AnswerError { kind: T::KIND, resource, reason };
        let place = || format!("resources[{index}]");
        let Opened { message, name: outer, version, ttl } =
            item.open::<T>().map_err(|cause| error(place(), cause.to_string()))?;
        let Some(message) = message else {
            heartbeats.push(Lifetime { name: outer.into(), ttl });
            continue;
        };
        let entry = match known.0.get(message.value.as_slice()) {
            Some(&received) => Decoded::Known(received.clone()),
            None => {
                let unpacked = match unknown_fields {
                    UnknownFields::Ignored => Ok(()),
                    UnknownFields::Refused => unknown::refuse_unknown_fields::<T::Message>(&message.value),
                };
                let typed = unpacked
                    .and_then(|()| any::unpack_valid::<T::Message>(&message))
                    .map_err(|cause| error(name_of::<T>(&message).unwrap_or_else(place), cause.to_string()))?;
                Decoded::New { name: Arc::from(T::name(&typed)), typed, message }
            }
        };
        if !names.insert(entry.name().clone()) {
            let name = entry.name();
            return Err(error(name.to_string(), format!("duplicate {} {name} found", singular(T::KIND))));
        }
        decoded.push(Candidate { entry, outer, version, ttl });
    }
    let mut answer = Answer {
        resources: Vec::with_capacity(decoded.len()),
        refused: Vec::new(),
        heartbeats,
        lifetimes: Vec::new(),
        removed: Removed::These(removed.iter().cloned().collect()),
        id: AnswerId { removed, ..id },
    };
    for candidate in decoded {
        answer.add(candidate, &version, variant, now);
    }
    // Heartbeats alone say nothing of the others.
    let is_whole = variant == Variant::StateOfTheWorld && (!names.is_empty() || answer.heartbeats.is_empty());
    if is_whole {
        let refused = answer.refused.iter().map(|refused| &refused.name);
        let but = refused.chain(answer.heartbeats.iter().map(|beat| &beat.name)).cloned().collect();
        answer.removed = Removed::Unnamed { but };
    }
    Ok(answer)
}

struct Candidate<T: ResourceConfig> {
    entry: Decoded<T>,
    /// The wrapper's.
    outer: String,
    version: String,
    ttl: Option<Duration>,
}

impl<T: ResourceConfig> Answer<T> {
    fn add(&mut self, candidate: Candidate<T>, answer_version: &str, variant: Variant, now: SystemTime) {
        let Candidate { entry, outer, version, ttl } = candidate;
        let received = match entry {
            Decoded::Known(received) => received,
            Decoded::New { name, typed, message } => {
                let version_info = match variant {
                    Variant::StateOfTheWorld => answer_version.to_owned(),
                    Variant::Delta => version.clone(),
                };
                let origin = Arc::new(Origin { version_info, message, updated_at: now });
                match T::from_message(typed) {
                    Ok(config) => Received { name, config: Arc::new(config), origin },
                    Err(error) => {
                        self.refused.push(RefusedResource { name, reason: error.to_string(), origin });
                        return;
                    }
                }
            }
        };
        if variant == Variant::Delta {
            let name = if outer.is_empty() { received.name.clone() } else { outer.into() };
            self.id.applied.push((name, version));
        }
        self.lifetimes.push(Lifetime { name: received.name.clone(), ttl });
        self.resources.push(received);
    }

    /// Takes out the resources that `refuse` has a reason against.
    pub fn refuse_where(&mut self, refuse: impl Fn(&T) -> Option<String>) {
        let mut refused = Vec::new();
        self.resources.retain(|received| match refuse(&received.config) {
            None => true,
            Some(reason) => {
                refused.push(received.refused(reason));
                false
            }
        });
        for refused in refused {
            self.lifetimes.retain(|life| life.name != refused.name);
            self.id.applied.retain(|(name, _)| *name != refused.name);
            if let Removed::Unnamed { but } = &mut self.removed {
                but.insert(refused.name.clone());
            }
            self.refused.push(refused);
        }
    }
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

impl Item {
    fn open<T: ResourceConfig>(self) -> Result<Opened, FieldError> {
        let opened = match self {
            Item::Any(message) if any::type_name(&message) == ResourceMessage::full_name() => {
                Opened::unwrap(any::unpack_valid::<ResourceMessage>(&message)?)?
            }
            Item::Any(message) => {
                Opened { message: Some(message), name: String::new(), version: String::new(), ttl: None }
            }
            Item::Wrapped(wrapper) => Opened::unwrap(*wrapper)?,
        };
        match &opened.message {
            Some(message) if message.type_url != T::KIND.type_url() => {
                let reason =
                    format!("type {} does not match the answer's type {}", message.type_url, T::KIND.type_url());
                Err(FieldError::new("type_url", reason))
            }
            _ => Ok(opened),
        }
    }
}

impl Opened {
    fn unwrap(wrapper: ResourceMessage) -> Result<Opened, FieldError> {
        let ResourceMessage {
            name,
            resource_name: _, // of xdstp, and none is asked for
            aliases: _,       // of on-demand virtual hosts
            version,
            resource: message,
            ttl,
            cache_control: _, // for caches between, as the next
            metadata: _,
        } = wrapper;
        if message.is_none() && name.is_empty() {
            return Err(FieldError::new("resource", "value is required"));
        }
        Ok(Opened { message, name, version, ttl: field::positive_duration(ttl, "ttl")? })
    }
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
        ResourceKind::Secret => "secret",
    }
}

#[cfg(test)]
mod tests;
