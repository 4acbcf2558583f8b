//! Decides whether a connection or a request is allowed, and says which policy and which of its rules decided. Pure: the same
//! for filters that enforce, for shadows that only say what they would do, and for explaining.

mod rule;

use std::{net::SocketAddr, sync::Arc};

use http::request;

use crate::{
    config::{
        authorization::{Action, Engine, Policy, PolicyEngine, TreeAction},
        match_tree::MatchTree,
        metadata::Metadata,
    },
    filter_state::FilterState,
    listener::{connection::Downstream, filter_chain::ConnectionFacts},
    matching,
    tls::{CertificateFacts, TlsSession},
};

/// What is known when it is decided.
pub struct Facts<'a> {
    /// Where the connection goes, and what TLS and its inspection say of it.
    pub connection: ConnectionFacts<'a>,
    /// Of the connection: as the PROXY protocol may have told, and the peer's own.
    pub source: SocketAddr,
    pub direct_remote: SocketAddr,
    /// Whose request it is.
    pub remote: SocketAddr,
    pub peer: Peer<'a>,
    /// The connection's own; None where it is only asked what would be decided.
    pub tls: Option<&'a TlsSession>,
    /// None: of a connection, of which no request is looked at.
    pub request: Option<&'a request::Parts>,
    pub dynamic_metadata: Option<&'a Metadata>,
    pub route_metadata: Option<&'a Metadata>,
    pub filter_state: Option<&'a FilterState>,
}

/// Who it is at the other end.
#[derive(Clone, Copy)]
pub enum Peer<'a> {
    PlainText,
    Tls {
        /// None: it has shown none.
        certificate: Option<&'a CertificateFacts>,
        /// Somebody who is trusted vouches for it.
        is_validated: bool,
    },
}

impl<'a> Peer<'a> {
    pub fn of(downstream: &'a Downstream) -> Peer<'a> {
        match downstream.tls.as_deref() {
            None => Peer::PlainText,
            Some(tls) => Peer::Tls { certificate: tls.peer(), is_validated: tls.is_peer_validated() },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    pub is_allowed: bool,
    /// None: no policy holds.
    pub policy: Option<&'a Arc<str>>,
    /// Of the policy: which of its permissions and of its principals hold. None: a tree decided.
    pub rules: Option<(usize, usize)>,
    /// Some: whether it is to be logged.
    pub log_hint: Option<bool>,
}

impl Engine {
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        match self {
            Engine::Policies(engine) => engine.decide(facts),
            Engine::Tree(tree) => decide_by_tree(tree, facts),
        }
    }

    /// The names of all its policies.
    pub fn policy_names(&self) -> Vec<Arc<str>> {
        match self {
            Engine::Policies(engine) => engine.policies.iter().map(|policy| policy.name.clone()).collect(),
            Engine::Tree(tree) => {
                let mut names = Vec::new();
                tree.actions(&mut |action| names.push(action.name.clone()));
                names
            }
        }
    }
}

impl PolicyEngine {
    fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        let found = self.policies.iter().find_map(|policy| Some((policy, policy.holds(facts)?)));
        let is_found = found.is_some();
        Decision {
            is_allowed: match self.action {
                Action::Allow => is_found,
                Action::Deny => !is_found,
                Action::Log => true,
            },
            policy: found.map(|(policy, _)| &policy.name),
            rules: found.map(|(_, rules)| rules),
            log_hint: (self.action == Action::Log).then_some(is_found),
        }
    }
}

impl Policy {
    /// The permission and the principal that hold.
    fn holds(&self, facts: &Facts<'_>) -> Option<(usize, usize)> {
        let permission = self.permissions.iter().position(|rule| rule.holds(facts))?;
        let principal = self.principals.iter().position(|rule| rule.holds(facts))?;
        Some((permission, principal))
    }
}

fn decide_by_tree<'a>(tree: &'a MatchTree<TreeAction>, facts: &Facts<'_>) -> Decision<'a> {
    let found = tree.find(&matching::Facts {
        connection: facts.connection,
        request: facts.request,
        response: None,
        metadata: facts.dynamic_metadata,
        filter_state: facts.filter_state,
        tls: facts.tls,
    });
    let action = found.map(|found| found.action);
    Decision {
        is_allowed: matches!(action, Some(Action::Allow | Action::Log)),
        policy: found.map(|found| &found.name),
        rules: None,
        log_hint: action.map(|action| action == Action::Log),
    }
}

#[cfg(test)]
mod tests;
