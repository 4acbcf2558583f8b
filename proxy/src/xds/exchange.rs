//! What is said on one stream, in either variant.

use std::{sync::Arc, time::Instant};

use weft_xds::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
};

use crate::{
    config::config_source::{StreamSource, Variant},
    xds::{
        delta::DeltaStream,
        kind::ResourceKind,
        sotw::SotwStream,
        subscription::{Interest, Verdict},
    },
};

#[derive(Debug)]
pub enum Exchange {
    StateOfTheWorld(Box<SotwStream>),
    Delta(Box<DeltaStream>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    StateOfTheWorld(DiscoveryRequest),
    Delta(DeltaDiscoveryRequest),
}

#[derive(Debug)]
pub enum Response {
    StateOfTheWorld(DiscoveryResponse),
    Delta(DeltaDiscoveryResponse),
}

/// What an acknowledgement of an answer needs to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerId {
    pub version: String,
    pub nonce: String,
    /// With its version each, under the name that the server gives. Only delta has these, as the next.
    pub applied: Vec<(Arc<str>, String)>,
    pub removed: Vec<Arc<str>>,
}

impl Exchange {
    pub fn new(node: Node, source: &StreamSource) -> Exchange {
        let first_only = source.set_node_on_first_message_only;
        match source.variant {
            Variant::StateOfTheWorld => Exchange::StateOfTheWorld(Box::new(SotwStream::new(node, first_only))),
            Variant::Delta => Exchange::Delta(Box::new(DeltaStream::new(node, first_only))),
        }
    }

    pub fn interest(&self, kind: ResourceKind) -> &Interest {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription(kind).interest(),
            Exchange::Delta(stream) => stream.interest(kind),
        }
    }

    pub fn accepted_version(&self, kind: ResourceKind) -> &str {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription(kind).accepted_version(),
            Exchange::Delta(stream) => stream.accepted_version(kind),
        }
    }

    pub fn set_interest(&mut self, kind: ResourceKind, interest: Interest) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription_mut(kind).set_interest(interest),
            Exchange::Delta(stream) => stream.set_interest(kind, interest),
        }
    }

    /// Asks once more for these. State of the world can only ask for everything of the kind.
    pub fn request_again(&mut self, kind: ResourceKind, names: &[Arc<str>]) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription_mut(kind).request_again(),
            Exchange::Delta(stream) => stream.request_again(kind, names),
        }
    }

    /// Keeps acknowledgements back until `release`.
    pub fn hold(&mut self, kind: ResourceKind) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription_mut(kind).hold(),
            Exchange::Delta(stream) => stream.hold(kind),
        }
    }

    pub fn release(&mut self, kind: ResourceKind) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription_mut(kind).release(),
            Exchange::Delta(stream) => stream.release(kind),
        }
    }

    pub fn opened(&mut self) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.opened(),
            Exchange::Delta(stream) => stream.opened(),
        }
    }

    pub fn closed(&mut self) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.closed(),
            Exchange::Delta(stream) => stream.closed(),
        }
    }

    pub fn answered(&mut self, kind: ResourceKind, answer: &AnswerId, verdict: Verdict, now: Instant) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.answered(kind, answer, verdict, now),
            Exchange::Delta(stream) => stream.answered(kind, answer, verdict, now),
        }
    }

    /// Something of the newest answer turned out to be unusable after it was acknowledged.
    pub fn refused_late(&mut self, kind: ResourceKind, reason: String) {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.subscription_mut(kind).refused_late(reason),
            Exchange::Delta(stream) => stream.refused_late(kind, reason),
        }
    }

    /// When the next request may go, if one is owed and there is a stream to send it on.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.due_at(now),
            Exchange::Delta(stream) => stream.due_at(now),
        }
    }

    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        match self {
            Exchange::StateOfTheWorld(stream) => stream.next_request(now).map(Request::StateOfTheWorld),
            Exchange::Delta(stream) => stream.next_request(now).map(Request::Delta),
        }
    }
}
