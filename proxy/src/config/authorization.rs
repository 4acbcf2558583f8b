//! `envoy.config.rbac.v3`: who may do what, as policies or as a match tree. Decided in `authorization`.
//!
//! A rule that is not known is refused, never left out: a policy that says less than was meant lets in whom it should not, or
//! keeps out whom it should.

use std::{collections::HashMap, sync::Arc};

use weft_xds::{
    FieldError,
    pb::{
        envoy::config::rbac::v3::{
            Action as ProtoTreeAction, Policy as ProtoPolicy, Rbac as ProtoRbac, rbac::Action as ProtoAction,
        },
        xds::r#type::matcher::v3::Matcher,
    },
};

pub use self::rule::{AddressOf, MetadataSource, Rule};
use crate::config::{
    field::{self, Result, Within as _, refuse},
    match_tree::MatchTree,
};

mod rule;

/// Decides alone; a filter may have one that counts and one that only says what it would do.
#[derive(Debug)]
pub enum Engine {
    Policies(PolicyEngine),
    /// What no action is found for is denied.
    Tree(MatchTree<TreeAction>),
}

#[derive(Debug)]
pub struct PolicyEngine {
    pub action: Action,
    /// By their names: the first that holds decides.
    pub policies: Vec<Policy>,
}

/// What it means that a policy holds. When none does, the opposite; `Log` allows everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Log,
}

#[derive(Debug)]
pub struct TreeAction {
    pub name: Arc<str>,
    pub action: Action,
}

#[derive(Debug)]
pub struct Policy {
    pub name: Arc<str>,
    /// One of them has to hold,
    pub permissions: Vec<Rule>,
    /// and one of these.
    pub principals: Vec<Rule>,
}

/// Both of a filter.
#[derive(Debug)]
pub struct Engines {
    /// None: everything is allowed.
    pub enforced: Option<Engine>,
    pub shadow: Option<Engine>,
}

impl Engines {
    /// Of either, the policies or the tree.
    pub(crate) fn from_proto(
        (rules, matcher): (Option<ProtoRbac>, Option<Matcher>),
        (shadow_rules, shadow_matcher): (Option<ProtoRbac>, Option<Matcher>),
    ) -> Result<Self> {
        Ok(Self {
            enforced: engine(rules, matcher, ("rules", "matcher"))?,
            shadow: engine(shadow_rules, shadow_matcher, ("shadow_rules", "shadow_matcher"))?,
        })
    }
}

fn engine(
    rules: Option<ProtoRbac>,
    matcher: Option<Matcher>,
    (rules_path, matcher_path): (&str, &str),
) -> Result<Option<Engine>> {
    // As Envoy: the tree counts where both are there.
    if let Some(matcher) = matcher {
        let tree = MatchTree::from_proto(matcher, &mut |extension| {
            if !extension.is::<ProtoTreeAction>() {
                return Err(extension.unsupported());
            }
            let ProtoTreeAction { name, action } = extension.unpack()?;
            Ok(TreeAction { name: name.into(), action: action_from_proto(action).within("typed_config")? })
        });
        return tree.within(matcher_path).map(Engine::Tree).map(Some);
    }
    rules.map(|rules| PolicyEngine::from_proto(rules).map(Engine::Policies)).transpose().within(rules_path)
}

impl PolicyEngine {
    fn from_proto(message: ProtoRbac) -> Result<Self> {
        let ProtoRbac { action, policies, audit_logging_options } = message;
        // Envoy itself has no logger to name here.
        refuse!(audit_logging_options);
        Ok(Self { action: action_from_proto(action)?, policies: policies_from_proto(policies)? })
    }
}

fn policies_from_proto(messages: HashMap<String, ProtoPolicy>) -> Result<Vec<Policy>> {
    let mut policies = Vec::with_capacity(messages.len());
    for (name, message) in messages {
        let path = format!("policies[{name}]");
        policies.push(Policy::from_proto(name, message).within(&path)?);
    }
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(policies)
}

impl Policy {
    fn from_proto(name: String, message: ProtoPolicy) -> Result<Self> {
        let ProtoPolicy { permissions, principals, condition, checked_condition, cel_config } = message;
        refuse!(condition, checked_condition, cel_config);
        Ok(Self {
            name: name.into(),
            permissions: field::each(permissions, "permissions", Rule::of_permission)?,
            principals: field::each(principals, "principals", Rule::of_principal)?,
        })
    }
}

fn action_from_proto(action: i32) -> Result<Action> {
    Ok(match field::enumeration(action, "action")? {
        ProtoAction::Allow => Action::Allow,
        ProtoAction::Deny => Action::Deny,
        ProtoAction::Log => Action::Log,
    })
}

/// Deeper than any policy is.
const DEPTH_MAX: u32 = 32;

fn check_depth(depth: u32) -> Result<()> {
    match depth > DEPTH_MAX {
        true => Err(FieldError::new("", format!("nested more than {DEPTH_MAX} deep"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
