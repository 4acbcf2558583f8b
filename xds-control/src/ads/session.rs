//! One stream's conversation: the subscriptions of all its kinds and the order in which changes go out. Pure.
//!
//! What a client asks for is answered at once, unless its clusters are behind. News go out make-before-break: clusters, their endpoints, then listeners
//! and routes once the client has taken the clusters (Envoy acknowledges clusters when they are warm, and routing to one
//! that is not gives 503s); what is gone is taken away the other way round, once nothing refers to it any more. A client
//! that does not answer gets its news all the same, after `PUSH_PAUSE` or, where the order asks for it,
//! `ANSWER_WAIT_MAX`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::subscription::{Held, Reaction, Removals, Request, Response, Scope, Subscription, Variant};
use crate::snapshot::Snapshot;
use crate::translate::resource::Kind;

#[derive(Debug)]
pub struct Session {
    variant: Variant,
    subscriptions: BTreeMap<Kind, Subscription>,
    snapshot: Snapshot,
    /// Clusters that the client was sent after all of its listeners and routes, so that none of these can refer to one.
    /// If such a cluster is gone again it goes at once: the client may be waiting for endpoints that never come.
    unused_clusters: HashSet<Arc<str>>,
    /// Makes nonces unlike those of other streams.
    stream_id: u64,
    responses: u64,
}

/// News of a kind wait this long for the answer to the last ones, so that a client that is behind gets the newest state
/// rather than every state.
pub const PUSH_PAUSE: Duration = Duration::from_secs(1);
/// A little more than the 15 seconds that a client gives a cluster to get its endpoints before it goes on without.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(16);

impl Session {
    pub fn new(variant: Variant, stream_id: u64, snapshot: Snapshot) -> Self {
        Self {
            variant,
            subscriptions: BTreeMap::new(),
            snapshot,
            unused_clusters: HashSet::new(),
            stream_id,
            responses: 0,
        }
    }

    pub fn request(&mut self, kind: Kind, request: Request) -> Reaction {
        let is_first = !self.subscriptions.contains_key(&kind);
        let variant = self.variant;
        self.subscriptions.entry(kind).or_insert_with(|| Subscription::new(kind, variant)).request(request, is_first)
    }

    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
    }

    pub fn subscription(&self, kind: Kind) -> Option<&Subscription> {
        self.subscriptions.get(&kind)
    }

    /// What the client wants and how it stands with each of it, by kind.
    pub fn held(&self) -> Vec<(Kind, Vec<Held>)> {
        let held =
            |(kind, subscription): (&Kind, &Subscription)| (*kind, subscription.held(&self.snapshot.view(*kind)));
        self.subscriptions.iter().map(held).collect()
    }

    /// The next response to send, if one may be sent now.
    pub fn next_response(&mut self, now: Instant) -> Option<Response> {
        for kind in Kind::ALL {
            if self.subscriptions.get(&kind).is_some_and(Subscription::is_asked)
                && self.may_answer(kind)
                && let Some(response) = self.respond(kind, Scope::Asked, now)
            {
                return Some(response);
            }
        }
        // Twice: that routes lost nothing worth a response is found out after the clusters had to wait for it.
        for kind in Kind::ALL.into_iter().chain(Kind::ALL) {
            if self.may_push(kind, now)
                && let Some(response) = self.respond(kind, Scope::All, now)
            {
                return Some(response);
            }
        }
        None
    }

    /// When something that has to wait now may be sent without further events.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let is_in_line =
            |(kind, subscription): (&Kind, &Subscription)| subscription.is_in_line(&self.snapshot.view(*kind));
        if self.subscriptions.iter().all(is_in_line) {
            return None;
        }
        let waits = self.subscriptions.values().filter_map(Subscription::unanswered_since);
        waits.flat_map(|since| [since + PUSH_PAUSE, since + ANSWER_WAIT_MAX]).filter(|wake_at| *wake_at > now).min()
    }

    fn respond(&mut self, kind: Kind, scope: Scope, now: Instant) -> Option<Response> {
        let removals = match kind {
            _ if self.may_remove(kind, now) => Removals::All,
            Kind::Cluster => Removals::Only(&self.unused_clusters),
            _ => Removals::None,
        };
        let nonce = format!("{:x}-{}", self.stream_id, self.responses + 1);
        let view = self.snapshot.view(kind);
        let sending = self.subscriptions.get_mut(&kind)?.respond(&view, scope, removals, &nonce, now)?;
        self.responses += 1;
        match kind {
            Kind::Cluster => {
                self.unused_clusters.extend(sending.added);
                if let Some(endpoints) = self.subscriptions.get_mut(&Kind::Endpoints) {
                    // A changed cluster is a new one to the client, which waits for endpoints before it uses it.
                    sending.changed.iter().for_each(|cluster| endpoints.send_again(cluster));
                }
            }
            Kind::Listener | Kind::Route => self.unused_clusters.clear(),
            Kind::Endpoints | Kind::Secret | Kind::ExtensionConfig => {}
        }
        Some(sending.response)
    }

    /// Listeners and routes of a newer snapshot than the clusters that the client was sent would lead nowhere: after a
    /// reconnection a client asks for all kinds at once, and the mesh may change between two answers.
    fn may_answer(&self, kind: Kind) -> bool {
        match (kind, self.subscriptions.get(&Kind::Cluster)) {
            (Kind::Listener | Kind::Route, Some(clusters)) => {
                clusters.was_compared_to(&self.snapshot.view(Kind::Cluster))
            }
            _ => true,
        }
    }

    fn may_push(&self, kind: Kind, now: Instant) -> bool {
        let has_clusters = match kind {
            Kind::Cluster | Kind::Endpoints | Kind::Secret | Kind::ExtensionConfig => true,
            // Clusters come earlier in the order, so all that is left to wait for is their answer.
            Kind::Listener | Kind::Route => self.has_answered(Kind::Cluster, ANSWER_WAIT_MAX, now),
        };
        has_clusters && self.has_answered(kind, PUSH_PAUSE, now)
    }

    /// Whether nothing that the client has refers to what is gone.
    fn may_remove(&self, kind: Kind, now: Instant) -> bool {
        match kind {
            Kind::Listener => true,
            Kind::Route => self.is_settled(Kind::Listener, now),
            Kind::Cluster => self.is_settled(Kind::Listener, now) && self.is_settled(Kind::Route, now),
            Kind::Endpoints => self.is_settled(Kind::Cluster, now),
            Kind::Secret => self.is_settled(Kind::Listener, now) && self.is_settled(Kind::Cluster, now),
            Kind::ExtensionConfig => self.is_settled(Kind::Listener, now),
        }
    }

    fn is_settled(&self, kind: Kind, now: Instant) -> bool {
        let is_in_line = |subscription: &Subscription| subscription.is_in_line(&self.snapshot.view(kind));
        self.subscriptions.get(&kind).is_none_or(is_in_line) && self.has_answered(kind, ANSWER_WAIT_MAX, now)
    }

    /// Whether the last response was answered, or `patience` ran out.
    fn has_answered(&self, kind: Kind, patience: Duration, now: Instant) -> bool {
        let unanswered = self.subscriptions.get(&kind).and_then(Subscription::unanswered_since);
        unanswered.is_none_or(|since| now >= since + patience)
    }
}

#[cfg(test)]
mod tests;
