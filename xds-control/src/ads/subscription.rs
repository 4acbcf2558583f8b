//! One kind of resources on one stream: what the client wants, what it was sent, what it said to that. Pure.
//!
//! Invariants: a response says what brings the client from what it was sent to the newest state, never what came
//! between; what a client refused is not sent again until it changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::interest::{Interest, InterestChange};
use crate::snapshot::View;
use crate::snapshot::version::Version;
use crate::translate::resource::{Kind, Resource};

/// How states travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    StateOfTheWorld,
    Delta,
}

/// A request for one kind, of either variant.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub nonce: String,
    /// Set in a NACK: why.
    pub error: Option<String>,
    pub names: RequestNames,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestNames {
    /// State of the world: all names that are wanted.
    All(Vec<String>),
    Delta {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        initial_versions: HashMap<String, String>,
    },
}

impl Default for RequestNames {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The first of its kind on the stream.
    Subscribed,
    Accepted,
    Refused(Refusal),
    /// It answers an earlier response than the last one.
    Stale,
    /// Delta only: a change of interest that answers nothing.
    Amended,
}

/// A NACK, as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The version that was refused.
    pub version: String,
    pub reason: String,
    /// The resources that the reason mentions; none where it mentions none.
    pub resources: Vec<Arc<str>>,
}

/// A resource that a client wants, and how it stands with it.
#[derive(Clone, Debug)]
pub struct Held {
    pub name: Arc<str>,
    /// What it was sent last, or is to be sent; `None` where there is no such resource.
    pub resource: Option<Arc<Resource>>,
    pub state: HeldState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldState {
    NotSent,
    /// It has not accepted it yet, or has an older one.
    Stale,
    Synced,
    Refused,
}

/// A response to be sent; the session adds the nonce.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub kind: Kind,
    pub nonce: String,
    pub version: String,
    pub resources: Vec<Arc<Resource>>,
    /// Delta only.
    pub removed: Vec<String>,
}

/// A response on its way out.
#[derive(Debug)]
pub struct Sending {
    pub response: Response,
    /// The resources in it that the client had in another version.
    pub changed: Vec<Arc<str>>,
    /// The resources in it that the client did not have.
    pub added: Vec<Arc<str>>,
}

/// How much a response is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the client asked for. An answer of whole state says everything all the same.
    Asked,
    All,
}

/// Which of the resources that are gone may be taken away from the client already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removals<'a> {
    All,
    Only(&'a HashSet<Arc<str>>),
    None,
}

#[derive(Debug)]
pub struct Subscription {
    kind: Kind,
    variant: Variant,
    interest: Interest,
    /// What the client has, or refused to have.
    sent: Holdings,
    /// Names to be sent even if the client has them.
    resend: HashSet<String>,
    /// Delta: names that were asked for; those that do not exist are to be answered as removed.
    asked: HashSet<String>,
    /// A request asks for an answer even if there is nothing to say.
    must_answer: bool,
    last: Option<Sent>,
    /// State of the world: resources that are gone from the view and still part of what the client is shown.
    kept: Vec<Arc<Resource>>,
    /// The view that the client was last compared to.
    compared: View,
    /// Nothing was left to say then, and nothing was asked since.
    in_line: bool,
    accepted: Option<String>,
    refused: Option<Refusal>,
    /// What the client refused, by name, and was not sent again since. Empty unless `refused` is set.
    failed: HashSet<Arc<str>>,
}

/// The response on its way, or the last one.
#[derive(Debug)]
struct Sent {
    nonce: String,
    version: String,
    at: Instant,
    answered: bool,
    /// What was sent since the last answer; empty once it is answered.
    names: Vec<Arc<str>>,
}

impl Subscription {
    pub fn new(kind: Kind, variant: Variant) -> Self {
        Self {
            kind,
            variant,
            interest: Interest::default(),
            sent: Holdings::default(),
            resend: HashSet::new(),
            asked: HashSet::new(),
            must_answer: false,
            last: None,
            kept: Vec::new(),
            compared: View::default(),
            in_line: false,
            accepted: None,
            refused: None,
            failed: HashSet::new(),
        }
    }

    /// Takes a request. `is_first` is the first of this kind on its stream.
    pub fn request(&mut self, request: Request, is_first: bool) -> Reaction {
        match request.names {
            RequestNames::All(names) => self.request_all(&request.nonce, request.error, names, is_first),
            RequestNames::Delta { subscribe, unsubscribe, initial_versions } => {
                self.amend(&subscribe, &unsubscribe, &initial_versions, is_first);
                if is_first {
                    Reaction::Subscribed
                } else if request.nonce.is_empty() {
                    Reaction::Amended
                } else {
                    self.answer(&request.nonce, request.error)
                }
            }
        }
    }

    fn request_all(&mut self, nonce: &str, error: Option<String>, names: Vec<String>, is_first: bool) -> Reaction {
        // A nonce of an earlier stream comes with the first request of some clients and means nothing here.
        if !is_first && nonce != self.last_nonce().unwrap_or_default() {
            return Reaction::Stale;
        }
        let reaction = if is_first {
            Reaction::Subscribed
        } else if nonce.is_empty() {
            Reaction::Amended
        } else {
            self.answer(nonce, error)
        };
        let change = self.interest.replace(names, self.kind.absence_deletes());
        for name in &change.removed {
            self.forget(name);
        }
        if change.wildcard_removed {
            let interest = &self.interest;
            self.sent.retain(|name| interest.wants(name));
        }
        // That a listener or cluster does not exist is said by an answer without it.
        let asked_for_more = !change.added.is_empty() || change.wildcard_added;
        self.must_answer |= asked_for_more && self.kind.absence_deletes();
        self.note(change);
        reaction
    }

    fn amend(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        initial_versions: &HashMap<String, String>,
        is_first: bool,
    ) {
        let change = self.interest.amend(subscribe, unsubscribe, is_first, self.kind.absence_deletes());
        for name in &change.added {
            self.sent.remove(name);
            self.asked.insert(name.clone());
        }
        for name in &change.removed {
            self.forget(name);
            if self.interest.is_wildcard() {
                // The client can't tell whether the wildcard covers it, so it is told.
                self.asked.insert(name.clone());
            }
        }
        if change.wildcard_removed {
            let interest = &self.interest;
            self.sent.retain(|name| interest.wants(name));
        }
        if is_first {
            for (name, version) in initial_versions.iter().filter(|(name, _)| self.interest.wants(name)) {
                // A version that is not one of ours differs from all of ours.
                self.sent.insert(name.as_str().into(), Version::parse(version).unwrap_or_default());
                self.asked.remove(name);
            }
        }
        // An empty answer ends the client's wait for the first state.
        self.must_answer |= change.wildcard_added;
        self.note(change);
    }

    fn note(&mut self, change: InterestChange) {
        if change != InterestChange::default() {
            self.in_line = false;
        }
    }

    fn forget(&mut self, name: &str) {
        self.sent.remove(name);
        self.failed.remove(name);
        self.resend.remove(name);
        self.asked.remove(name);
    }

    fn answer(&mut self, nonce: &str, error: Option<String>) -> Reaction {
        let Some(last) = self.last.as_mut().filter(|last| last.nonce == nonce) else {
            return Reaction::Stale;
        };
        let is_repeated = std::mem::replace(&mut last.answered, true);
        let names = std::mem::take(&mut last.names);
        let Some(reason) = error else {
            self.accepted = Some(last.version.clone());
            if self.failed.is_empty() {
                self.refused = None;
            }
            return Reaction::Accepted;
        };
        if is_repeated && self.refused.as_ref().is_some_and(|refused| refused.reason == reason) {
            return Reaction::Amended;
        }
        let version = last.version.clone();
        let resources = names.iter().filter(|name| mentions(&reason, name)).cloned().collect::<Vec<_>>();
        self.failed.extend(if resources.is_empty() { names } else { resources.clone() });
        let refusal = Refusal { version, reason, resources };
        self.refused = Some(refusal.clone());
        Reaction::Refused(refusal)
    }

    /// Has a resource sent again, though it did not change: the client lost it with what it belonged to.
    pub fn send_again(&mut self, name: &str) {
        if self.interest.wants(name) && self.sent.version_of(name).is_some() {
            self.resend.insert(name.to_owned());
            self.in_line = false;
        }
    }

    /// Whether the client waits for the answer to a question, rather than for news.
    pub fn is_asked(&self) -> bool {
        self.must_answer
            || !self.asked.is_empty()
            || (!self.in_line && self.interest.names().iter().any(|name| self.sent.version_of(name).is_none()))
    }

    /// Whether the client was sent what is new in a view; what is gone may still be with it.
    pub fn was_compared_to(&self, view: &View) -> bool {
        !self.is_asked() && self.compared.is_same(view)
    }

    /// Whether the client was sent all that there is to say about a view.
    pub fn is_in_line(&self, view: &View) -> bool {
        self.in_line && self.was_compared_to(view)
    }

    /// Since when a response is on its way without an answer.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.last.as_ref().filter(|last| !last.answered).map(|last| last.at)
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub fn last_nonce(&self) -> Option<&str> {
        self.last.as_ref().map(|last| last.nonce.as_str())
    }

    /// The version that the client was sent last.
    pub fn sent_version(&self) -> Option<&str> {
        self.last.as_ref().map(|last| last.version.as_str())
    }

    pub fn accepted_version(&self) -> Option<&str> {
        self.accepted.as_deref()
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// Each resource that the client wants of a view, sorted by name.
    pub fn held(&self, view: &View) -> Vec<Held> {
        let under_way = self.last.iter().flat_map(|last| &last.names).map(|name| &**name).collect::<HashSet<&str>>();
        let describe = |name: Arc<str>, newest: Option<&Arc<Resource>>| {
            let Some(version) = self.sent.version_of(&name) else {
                return Held { name, resource: newest.cloned(), state: HeldState::NotSent };
            };
            let is_newest = newest.is_some_and(|newest| Version::of(newest) == version);
            let state = if self.failed.contains(&name) {
                HeldState::Refused
            } else if is_newest && !under_way.contains(&*name) {
                HeldState::Synced
            } else {
                HeldState::Stale
            };
            let shown = self.compared.lookup(&name).filter(|shown| Version::of(shown) == version).or(newest);
            Held { resource: shown.cloned(), name, state }
        };
        let mut held = if self.interest.is_wildcard() {
            view.iter().map(|resource| describe(resource.name.clone(), Some(resource))).collect::<Vec<_>>()
        } else {
            let named = self.interest.names().iter().map(|name| (name, view.lookup(name)));
            named.map(|(name, newest)| describe(name.as_str().into(), newest)).collect()
        };
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held
    }

    /// The response that brings the client in line with a view, as far as `scope` goes, if there is anything to say.
    /// Marks it as sent.
    pub fn respond(
        &mut self,
        view: &View,
        scope: Scope,
        removals: Removals<'_>,
        nonce: &str,
        now: Instant,
    ) -> Option<Sending> {
        if self.resend.is_empty() && self.is_in_line(view) {
            return None;
        }
        // Before anything was sent there is no news to hold back.
        let scope = if self.last.is_none() { Scope::All } else { scope };
        let difference = self.compare(view, scope, removals);
        let in_line = !difference.deferred;
        let removed = match self.variant {
            Variant::StateOfTheWorld => Vec::new(),
            Variant::Delta => difference.removed.clone(),
        };
        let says_something = !difference.news.is_empty()
            || !removed.is_empty()
            || (self.is_whole_state() && !difference.removed.is_empty());
        self.asked.clear();
        if !says_something && !self.must_answer {
            for name in &difference.removed {
                self.sent.remove(name);
            }
            (self.compared, self.in_line, self.kept) = (view.clone(), in_line, difference.kept);
            return None;
        }
        let names = difference.news.iter().map(|news| news.name.clone());
        let (changed, added) = names.partition(|name| self.sent.version_of(name).is_some());
        for name in &difference.removed {
            self.sent.remove(name);
        }
        for resource in &difference.news {
            self.sent.insert(resource.name.clone(), Version::of(resource));
            self.resend.remove(&*resource.name);
        }
        let version = self.sent.total.to_string();
        let resources = if self.is_whole_state() { self.whole_state(view, &difference.kept) } else { difference.news };
        (self.compared, self.in_line, self.kept) = (view.clone(), in_line, difference.kept);
        self.must_answer = false;
        let mut names = self.last.take().map(|last| last.names).unwrap_or_default();
        names.extend(resources.iter().map(|resource| resource.name.clone()));
        names.iter().for_each(|name| _ = self.failed.remove(name));
        self.last = Some(Sent { nonce: nonce.to_owned(), version: version.clone(), at: now, answered: false, names });
        let response = Response { kind: self.kind, nonce: nonce.to_owned(), version, resources, removed };
        Some(Sending { response, changed, added })
    }

    /// Whether each answer is all that there is, so that absence deletes.
    fn is_whole_state(&self) -> bool {
        self.variant == Variant::StateOfTheWorld && self.kind.absence_deletes()
    }

    fn compare(&self, view: &View, scope: Scope, removals: Removals<'_>) -> Difference {
        let mut difference = Difference::default();
        let mut consider = |resource: &Arc<Resource>| {
            let known = self.sent.version_of(&resource.name);
            let is_asked = self.resend.contains(&*resource.name) || self.asked.contains(&*resource.name);
            if known == Some(Version::of(resource)) && !is_asked {
                return;
            }
            if scope == Scope::Asked && known.is_some() && !is_asked && !self.is_whole_state() {
                difference.deferred = true;
            } else {
                difference.news.push(resource.clone());
            }
        };
        let mut gone: Vec<Arc<str>> = Vec::new();
        if self.in_line && self.asked.is_empty() && self.resend.is_empty() && !self.must_answer {
            // The usual case, a change under a client that had everything: look only at what changed.
            let changes = view.changes_since(&self.compared);
            let wanted = changes.changed.into_iter().filter(|resource| self.interest.wants(&resource.name));
            wanted.for_each(&mut consider);
            let names = changes.gone.into_iter().map(|resource| &resource.name);
            let had = names.filter(|name| self.sent.version_of(name).is_some() && view.lookup(name).is_none());
            gone.extend(had.cloned());
        } else {
            if self.interest.is_wildcard() {
                view.iter().for_each(&mut consider);
            } else {
                let mut wanted = self.interest.names().iter().filter_map(|name| view.lookup(name)).collect::<Vec<_>>();
                wanted.sort_by(|a, b| a.name.cmp(&b.name));
                wanted.into_iter().for_each(&mut consider);
            }
            gone.extend(self.sent.names().filter(|name| view.lookup(name).is_none()).cloned());
        }
        let may_go = |name: &Arc<str>| match removals {
            Removals::All => true,
            Removals::Only(names) => names.contains(name),
            Removals::None => false,
        };
        let (goes, stays) = gone.into_iter().partition::<Vec<_>, _>(may_go);
        difference.deferred |= !stays.is_empty();
        difference.removed = goes.iter().map(ToString::to_string).collect();
        let body = |name: &Arc<str>| {
            let shown = self.compared.lookup(name);
            shown.or_else(|| self.kept.iter().find(|kept| kept.name == *name)).cloned()
        };
        difference.kept = stays.iter().filter_map(body).collect();
        difference.kept.sort_by(|a, b| a.name.cmp(&b.name));
        // Asked for and not there.
        let is_missing = |name: &&String| view.lookup(name).is_none() && self.sent.version_of(name).is_none();
        difference.removed.extend(self.asked.iter().filter(is_missing).cloned());
        difference.removed.sort();
        difference
    }

    fn whole_state(&self, view: &View, kept: &[Arc<Resource>]) -> Vec<Arc<Resource>> {
        let wanted = view.iter().filter(|resource| self.interest.wants(&resource.name));
        wanted.chain(kept).cloned().collect()
    }
}

/// Whether a text holds a name that is not part of a longer one.
fn mentions(text: &str, name: &str) -> bool {
    let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'|' | b'/');
    // A dot belongs to a name only between its labels; at the end of a sentence it does not.
    let goes_on = |rest: &[u8]| match rest {
        [b'.', next, ..] | [next, ..] => of_names(*next),
        [] => false,
    };
    text.match_indices(name).any(|(start, _)| {
        let (before, after) = (&text.as_bytes()[..start], &text.as_bytes()[start + name.len()..]);
        !before.last().is_some_and(|byte| of_names(*byte) || *byte == b'.') && !goes_on(after)
    })
}

/// Resources by name, each with its version, and the version of them all.
#[derive(Debug, Default)]
struct Holdings {
    versions: HashMap<Arc<str>, Version>,
    /// The sum over `versions`.
    total: Version,
}

impl Holdings {
    fn version_of(&self, name: &str) -> Option<Version> {
        self.versions.get(name).copied()
    }

    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.versions.keys()
    }

    fn insert(&mut self, name: Arc<str>, version: Version) {
        self.remove(&name);
        self.total.add(&name, version);
        self.versions.insert(name, version);
    }

    fn remove(&mut self, name: &str) {
        if let Some(version) = self.versions.remove(name) {
            self.total.subtract(name, version);
        }
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.versions.retain(|name, version| {
            let keeps = keep(name);
            if !keeps {
                self.total.subtract(name, *version);
            }
            keeps
        });
    }
}

/// What a client lacks and what it has too much.
#[derive(Debug, Default)]
struct Difference {
    news: Vec<Arc<Resource>>,
    removed: Vec<String>,
    /// Gone, but not to be taken away yet: the bodies, as far as they are still known.
    kept: Vec<Arc<Resource>>,
    /// Something remains to be said later.
    deferred: bool,
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_name_within_a_longer_one_is_not_meant() {
        let a = "outbound|80||a.shop";
        for text in ["outbound|80||a.shop: bad", "Error: 'outbound|80||a.shop'.", "no good is outbound|80||a.shop."] {
            assert!(mentions(text, a), "{text}");
        }
        for text in ["outbound|80||a.shop.svc: bad", "outbound|80||a.shop-b: bad", "xoutbound|80||a.shop", ""] {
            assert!(!mentions(text, a), "{text}");
        }
        assert!(mentions("a.shop.svc and a.shop", "a.shop"));
    }
}
