//! One stream in the delta variant: which request goes next. Stands where `sotw` stands for the other variant. Pure.
//!
//! Invariants: every answer is acknowledged or refused exactly once, by its nonce and in order; the server is told each
//! change of interest once a stream; the versions of what was applied outlive the stream, and the first request of the
//! next one names all of them, so that only what differs is sent again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use weft_xds::pb::{
    envoy::{config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest},
    google::rpc::{Code, Status},
};

use crate::xds::{
    exchange::AnswerId,
    kind::ResourceKind,
    subscription::{Due, Interest, RefusalPace, StreamState, Verdict, truncate},
};

/// Acknowledgements that wait to be sent. A server that does not read them has no use for the oldest.
const ACKNOWLEDGEMENTS_MAX: usize = 1024;

#[derive(Debug)]
pub struct DeltaStream {
    node: Node,
    set_node_on_first_message_only: bool,
    state: StreamState,
    /// By `ResourceKind::index`.
    subscriptions: [DeltaSubscription; ResourceKind::COUNT],
}

#[derive(Debug)]
struct DeltaSubscription {
    interest: Interest,
    /// The interest that the server knows of on this stream.
    told: Option<Interest>,
    /// To be sent by the server once more.
    again: BTreeSet<Arc<str>>,
    /// What was applied, by the names that the server gives.
    versions: BTreeMap<Arc<str>, String>,
    /// Of the whole system, as the server calls it; for people.
    accepted_version: String,
    acknowledgements: VecDeque<Acknowledgement>,
    /// Of the newest answer.
    nonce: String,
    pace: RefusalPace,
    /// Acknowledgements wait for what was accepted to be ready for use.
    held: bool,
}

#[derive(Debug)]
struct Acknowledgement {
    nonce: String,
    refusal: Option<String>,
    due: Due,
}

impl DeltaStream {
    pub fn new(node: Node, set_node_on_first_message_only: bool) -> DeltaStream {
        DeltaStream {
            node,
            set_node_on_first_message_only,
            state: StreamState::Closed,
            subscriptions: std::array::from_fn(|_| DeltaSubscription::new()),
        }
    }

    pub fn interest(&self, kind: ResourceKind) -> &Interest {
        &self.of(kind).interest
    }

    pub fn accepted_version(&self, kind: ResourceKind) -> &str {
        &self.of(kind).accepted_version
    }

    pub fn set_interest(&mut self, kind: ResourceKind, interest: Interest) {
        self.of_mut(kind).set_interest(interest);
    }

    /// Asks for these once more; the protocol has the server send them whatever it sent before.
    pub fn request_again(&mut self, kind: ResourceKind, names: &[Arc<str>]) {
        let subscription = self.of_mut(kind);
        let wanted = names.iter().filter(|name| subscription.interest.includes(name)).cloned().collect::<Vec<_>>();
        subscription.again.extend(wanted);
    }

    pub fn hold(&mut self, kind: ResourceKind) {
        self.of_mut(kind).held = true;
    }

    pub fn release(&mut self, kind: ResourceKind) {
        self.of_mut(kind).held = false;
    }

    pub fn opened(&mut self) {
        self.state = StreamState::Fresh;
        self.subscriptions.iter_mut().for_each(DeltaSubscription::stream_opened);
    }

    pub fn closed(&mut self) {
        self.state = StreamState::Closed;
    }

    pub fn answered(&mut self, kind: ResourceKind, answer: &AnswerId, verdict: Verdict, now: Instant) {
        self.of_mut(kind).answered(answer, verdict, now);
    }

    pub fn refused_late(&mut self, kind: ResourceKind, reason: String) {
        let subscription = self.of_mut(kind);
        let nonce = subscription.nonce.clone();
        subscription.owe(Acknowledgement { nonce, refusal: Some(truncate(reason)), due: Due::Now });
    }

    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.state == StreamState::Closed {
            return None;
        }
        self.subscriptions.iter().filter_map(|subscription| subscription.due_at(now)).min()
    }

    /// The next request that may go now, in the order of the kinds.
    pub fn next_request(&mut self, now: Instant) -> Option<DeltaDiscoveryRequest> {
        if self.state == StreamState::Closed {
            return None;
        }
        let kind =
            ResourceKind::ALL.into_iter().find(|kind| self.of(*kind).due_at(now).is_some_and(|due| due <= now))?;
        let mut request = self.of_mut(kind).next_request(now);
        let with_node = self.state == StreamState::Fresh || !self.set_node_on_first_message_only;
        self.state = StreamState::Running;
        kind.type_url().clone_into(&mut request.type_url);
        request.node = with_node.then(|| self.node.clone());
        Some(request)
    }

    fn of(&self, kind: ResourceKind) -> &DeltaSubscription {
        &self.subscriptions[kind.index()]
    }

    fn of_mut(&mut self, kind: ResourceKind) -> &mut DeltaSubscription {
        &mut self.subscriptions[kind.index()]
    }
}

impl DeltaSubscription {
    fn new() -> DeltaSubscription {
        DeltaSubscription {
            interest: Interest::nothing(),
            told: None,
            again: BTreeSet::new(),
            versions: BTreeMap::new(),
            accepted_version: String::new(),
            acknowledgements: VecDeque::new(),
            nonce: String::new(),
            pace: RefusalPace::default(),
            held: false,
        }
    }

    fn stream_opened(&mut self) {
        self.told = None;
        self.again.clear();
        self.acknowledgements.clear();
        self.nonce.clear();
        self.held = false;
    }

    fn set_interest(&mut self, interest: Interest) {
        self.versions.retain(|name, _| interest.includes(name));
        self.again.retain(|name| interest.includes(name));
        self.interest = interest;
    }

    fn answered(&mut self, answer: &AnswerId, verdict: Verdict, now: Instant) {
        self.nonce.clone_from(&answer.nonce);
        for (name, version) in &answer.applied {
            if self.interest.includes(name) {
                self.versions.insert(name.clone(), version.clone());
            }
        }
        let (refusal, due) = match verdict {
            Verdict::Accepted => {
                for name in &answer.removed {
                    self.versions.remove(name);
                }
                self.accepted_version.clone_from(&answer.version);
                self.pace.accepted();
                (None, Due::Now)
            }
            Verdict::Refused(reason) => {
                let reason = truncate(reason);
                // The server's version of everything may be left out; then the reason tells repetitions apart.
                let identity = if answer.version.is_empty() { &reason } else { &answer.version };
                let due = self.pace.refused(identity, now);
                (Some(reason), due)
            }
        };
        self.owe(Acknowledgement { nonce: answer.nonce.clone(), refusal, due });
    }

    fn owe(&mut self, acknowledgement: Acknowledgement) {
        if self.acknowledgements.len() == ACKNOWLEDGEMENTS_MAX {
            self.acknowledgements.pop_front();
        }
        self.acknowledgements.push_back(acknowledgement);
    }

    /// The server is to be told what is wanted.
    fn has_news(&self) -> bool {
        !self.again.is_empty()
            || match &self.told {
                None => !self.interest.is_nothing(),
                Some(told) => *told != self.interest,
            }
    }

    fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.has_news() {
            return Some(now);
        }
        let next = self.acknowledgements.front().filter(|_| !self.held)?;
        Some(match next.due {
            Due::Now => now,
            Due::At(at) => at,
        })
    }

    /// To be called when one is due.
    fn next_request(&mut self, now: Instant) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest::default();
        let may_go = |next: &Acknowledgement| match next.due {
            Due::Now => true,
            Due::At(at) => at <= now,
        };
        if !self.held
            && let Some(Acknowledgement { nonce, refusal, .. }) =
                self.acknowledgements.pop_front_if(|next| may_go(next))
        {
            request.response_nonce = nonce;
            request.error_detail =
                refusal.map(|message| Status { code: Code::Internal as i32, message, details: Vec::new() });
        }
        let mut subscribe = std::mem::take(&mut self.again);
        match (&self.told, &self.interest) {
            (None, interest) => {
                request.initial_resource_versions = self.initial_versions();
                if let Interest::Names(names) = interest {
                    subscribe.extend(names.iter().cloned());
                }
            }
            (Some(Interest::Names(told)), Interest::Names(names)) => {
                subscribe.extend(names.difference(told).cloned());
                request.resource_names_unsubscribe = strings(told.difference(names));
            }
            (Some(Interest::Wildcard), Interest::Names(names)) => {
                subscribe.extend(names.iter().cloned());
                request.resource_names_unsubscribe = vec!["*".to_owned()];
            }
            (Some(Interest::Names(told)), Interest::Wildcard) => {
                subscribe.insert(Arc::from("*"));
                request.resource_names_unsubscribe = strings(told.iter());
            }
            (Some(Interest::Wildcard), Interest::Wildcard) => {}
        }
        request.resource_names_subscribe = strings(subscribe.iter());
        if self.told.as_ref() != Some(&self.interest) {
            self.told = Some(self.interest.clone());
        }
        request
    }

    fn initial_versions(&self) -> HashMap<String, String> {
        self.versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect()
    }
}

fn strings<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

#[cfg(test)]
mod tests;
