//! One aggregated stream in the state-of-the-world variant: which request goes next. Stands between the warming state,
//! which says what is wanted and whether an answer was good, and the client, which carries messages. Pure.

use std::time::Instant;

use weft_xds::pb::{
    envoy::{config::core::v3::Node, service::discovery::v3::DiscoveryRequest},
    google::rpc::{Code, Status},
};

use crate::xds::{
    exchange::AnswerId,
    kind::ResourceKind,
    subscription::{Interest, RequestState, StreamState, Subscription, Verdict},
};

#[derive(Debug)]
pub struct SotwStream {
    node: Node,
    set_node_on_first_message_only: bool,
    state: StreamState,
    /// By `ResourceKind::index`.
    subscriptions: [Subscription; ResourceKind::COUNT],
}

impl SotwStream {
    pub fn new(node: Node, set_node_on_first_message_only: bool) -> SotwStream {
        SotwStream {
            node,
            set_node_on_first_message_only,
            state: StreamState::Closed,
            subscriptions: std::array::from_fn(|_| Subscription::new()),
        }
    }

    pub fn subscription(&self, kind: ResourceKind) -> &Subscription {
        &self.subscriptions[kind.index()]
    }

    pub fn subscription_mut(&mut self, kind: ResourceKind) -> &mut Subscription {
        &mut self.subscriptions[kind.index()]
    }

    pub fn opened(&mut self) {
        self.state = StreamState::Fresh;
        self.subscriptions.iter_mut().for_each(Subscription::stream_opened);
    }

    pub fn closed(&mut self) {
        self.state = StreamState::Closed;
    }

    pub fn answered(&mut self, kind: ResourceKind, answer: &AnswerId, verdict: Verdict, now: Instant) {
        self.subscription_mut(kind).answered(answer.version.clone(), answer.nonce.clone(), verdict, now);
    }

    /// When the next request may go, if one is owed and there is a stream to send it on.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.state == StreamState::Closed {
            return None;
        }
        self.subscriptions.iter().filter_map(|subscription| subscription.due_at(now)).min()
    }

    /// The next request that may go now, in the order of the kinds.
    pub fn next_request(&mut self, now: Instant) -> Option<DiscoveryRequest> {
        if self.state == StreamState::Closed {
            return None;
        }
        let (kind, state) = ResourceKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, self.subscriptions[kind.index()].next_request(now)?)))?;
        let with_node = self.state == StreamState::Fresh || !self.set_node_on_first_message_only;
        self.state = StreamState::Running;
        Some(request(kind, state, with_node.then(|| self.node.clone())))
    }
}

fn request(kind: ResourceKind, state: RequestState, node: Option<Node>) -> DiscoveryRequest {
    let RequestState { version_info, response_nonce, interest, refusal } = state;
    DiscoveryRequest {
        version_info,
        node,
        // An empty list is the wildcard of listeners and clusters, and nothing at all of the other kinds.
        resource_names: match interest {
            Interest::Wildcard => Vec::new(),
            Interest::Names(names) => names.iter().map(|name| name.to_string()).collect(),
        },
        resource_locators: Vec::new(),
        type_url: kind.type_url().to_owned(),
        response_nonce,
        // The code that Envoy sends for whatever it refuses.
        error_detail: refusal.map(|message| Status { code: Code::Internal as i32, message, details: Vec::new() }),
    }
}

#[cfg(test)]
mod tests;
