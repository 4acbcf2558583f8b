//! What the proxy wants of one resource kind and what it owes the control plane about it: the acknowledgement state that
//! state of the world and delta share. Pure: no clock, no I/O.
//!
//! Invariants: an answer is acknowledged or refused exactly once, with the nonce of the newest answer; the version is that
//! of the last answer that was taken whole and outlives the stream; nothing is sent that nobody is waiting for.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages of refusals are cut here, as Envoy does, so that one fits into a request of any server.
const REFUSAL_BYTES_MAX: usize = 4096;
/// A server that answers a refusal at once with what was just refused must not make both ends spin: the second refusal
/// of the same version waits this long, each further one twice as long as the one before.
const REPEATED_REFUSAL_WAIT: Duration = Duration::from_millis(100);
const REPEATED_REFUSAL_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every resource of the kind. Only clusters and listeners have this.
    Wildcard,
    /// Exactly these; none of them is no interest at all.
    Names(BTreeSet<Arc<str>>),
}

impl Interest {
    pub fn nothing() -> Interest {
        Interest::Names(BTreeSet::new())
    }

    pub fn is_nothing(&self) -> bool {
        matches!(self, Interest::Names(names) if names.is_empty())
    }

    pub fn includes(&self, name: &str) -> bool {
        match self {
            Interest::Wildcard => true,
            Interest::Names(names) => names.contains(name),
        }
    }
}

/// Of a stream, in either variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamState {
    Closed,
    /// Nothing was sent yet.
    Fresh,
    Running,
}

/// Slows refusals of the same version down.
#[derive(Debug, Default)]
pub(super) struct RefusalPace {
    /// The version refused last, and how often in a row.
    refused: Option<(String, u32)>,
}

impl RefusalPace {
    pub(super) fn accepted(&mut self) {
        self.refused = None;
    }

    /// When this refusal may go.
    pub(super) fn refused(&mut self, version: &str, now: Instant) -> Due {
        let repeats = match self.refused.take() {
            Some((refused, repeats)) if refused == version => repeats.saturating_add(1),
            _ => 0,
        };
        self.refused = Some((version.to_owned(), repeats));
        match repeats {
            0 => Due::Now,
            _ => {
                let doublings = (repeats - 1).min(16);
                Due::At(now + (REPEATED_REFUSAL_WAIT * 2_u32.pow(doublings)).min(REPEATED_REFUSAL_WAIT_MAX))
            }
        }
    }
}

/// What the proxy made of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// The reason, for the control plane.
    Refused(String),
}

#[derive(Debug)]
pub struct Subscription {
    interest: Interest,
    /// Of the last answer that was accepted.
    accepted_version: String,
    /// Of the last answer on this stream; empty before the first.
    nonce: String,
    /// Goes with the next request.
    refusal: Option<String>,
    pace: RefusalPace,
    /// A request went out on this stream.
    requested: bool,
    /// A request is owed, not before the given time.
    due: Option<Due>,
    /// The acknowledgement waits for what was accepted to be ready for use.
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Instant),
}

/// The part of a request that differs between kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestState {
    pub version_info: String,
    pub response_nonce: String,
    pub interest: Interest,
    pub refusal: Option<String>,
}

impl Subscription {
    pub fn new() -> Subscription {
        Subscription {
            interest: Interest::nothing(),
            accepted_version: String::new(),
            nonce: String::new(),
            refusal: None,
            pace: RefusalPace::default(),
            requested: false,
            due: None,
            held: false,
        }
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub fn is_wanted(&self) -> bool {
        !self.interest.is_nothing()
    }

    pub fn accepted_version(&self) -> &str {
        &self.accepted_version
    }

    /// Nonces belong to a stream; the version is sent again so that the server can tell what this proxy has.
    pub fn stream_opened(&mut self) {
        self.nonce.clear();
        self.refusal = None;
        self.requested = false;
        self.held = false;
        self.due = (!self.interest.is_nothing()).then_some(Due::Now);
    }

    /// A changed interest is told at once. Nothing is told while nothing was ever wanted: a first request without names
    /// would ask for everything.
    pub fn set_interest(&mut self, interest: Interest) {
        if self.interest == interest {
            return;
        }
        self.interest = interest;
        self.request_again();
    }

    /// Asks once more for the same, as for the endpoints of a cluster that changed.
    pub fn request_again(&mut self) {
        if self.requested || !self.interest.is_nothing() {
            self.due = Some(Due::Now);
        }
    }

    pub fn answered(&mut self, version: String, nonce: String, verdict: Verdict, now: Instant) {
        self.nonce = nonce;
        match verdict {
            Verdict::Accepted => {
                self.accepted_version = version;
                self.refusal = None;
                self.pace.accepted();
                // Whoever stopped asking owes no acknowledgement: the server answered before it heard of it.
                if !self.interest.is_nothing() {
                    self.due = Some(Due::Now);
                }
            }
            Verdict::Refused(reason) => {
                self.refusal = Some(truncate(reason));
                self.due = Some(self.pace.refused(&version, now));
            }
        }
    }

    /// Something of the newest answer turned out to be unusable after it was acknowledged (an address that cannot be
    /// bound once its listener is warm): tells the control plane late rather than never.
    pub fn refused_late(&mut self, reason: String) {
        self.refusal = Some(truncate(reason));
        self.request_again();
    }

    /// Keeps the acknowledgement back until `release`.
    pub fn hold(&mut self) {
        self.held = true;
    }

    pub fn release(&mut self) {
        self.held = false;
    }

    /// When the next request may go, if one is owed; at or before `now` means at once.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        match self.due {
            _ if self.held => None,
            None => None,
            Some(Due::Now) => Some(now),
            Some(Due::At(at)) => Some(at),
        }
    }

    /// The request that is owed, if it may go now.
    pub fn next_request(&mut self, now: Instant) -> Option<RequestState> {
        if self.due_at(now)? > now {
            return None;
        }
        self.due = None;
        self.requested = true;
        Some(RequestState {
            version_info: self.accepted_version.clone(),
            response_nonce: self.nonce.clone(),
            interest: self.interest.clone(),
            refusal: self.refusal.take(),
        })
    }
}

impl Default for Subscription {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn truncate(mut reason: String) -> String {
    const MARK: &str = "...(truncated)";
    if reason.len() > REFUSAL_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REFUSAL_BYTES_MAX - MARK.len()));
        reason.push_str(MARK);
    }
    reason
}

#[cfg(test)]
mod tests;
