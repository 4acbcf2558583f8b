//! Envoy's Client Status Discovery Service: what each connected client holds, a resource at a time.
//!
//! Asked of the streams themselves, each of which answers from its own session; one that does not answer soon is left
//! out. A client with an identity learns of its own workload's streams only.

use std::time::Duration;

use regex::Regex;
use tokio::sync::oneshot;
use tonic::Status as GrpcStatus;
use weft_xds::pb::envoy::admin::v3::UpdateFailureState;
use weft_xds::pb::envoy::config::core::v3::Node as XdsNode;
use weft_xds::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use weft_xds::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus};
use weft_xds::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_xds::pb::envoy::r#type::matcher::v3::{NodeMatcher, RegexMatcher, StringMatcher};

use super::message::Message;
use super::registry::{Connection, Status};
use super::stream::Context;
use super::subscription::{Held, HeldState};
use crate::snapshot::version::Version;
use crate::translate::resource::Kind;
use crate::transport::Peer;

/// A stream's task answers between two of its events.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
const MATCHERS_MAX: usize = 1_000;

pub async fn answer(context: &Context, peer: &Peer, request: ClientStatusRequest) -> Result<Message, GrpcStatus> {
    let ClientStatusRequest { node_matchers, node: _, exclude_resource_contents } = request;
    let matchers = node_ids(&node_matchers).map_err(GrpcStatus::invalid_argument)?;
    let contents = if exclude_resource_contents { Contents::Exclude } else { Contents::Include };
    let is_own = |connection: &Connection| peer.identity.is_none() || connection.peer.identity == peer.identity;
    let mut config = Vec::new();
    for connection in context.connections.list() {
        let is_wanted = matchers.is_empty() || matchers.iter().any(|matcher| matcher.is_match(connection.node.id()));
        if !is_wanted || !is_own(&connection) {
            continue;
        }
        let (question, way_back) = oneshot::channel();
        let held = async {
            connection.questions.send(question).await.ok()?;
            way_back.await.ok()
        };
        if let Ok(Some(held)) = tokio::time::timeout(ANSWER_WAIT, held).await {
            config.push(describe(&connection, held, contents));
        }
    }
    Message::whole(&ClientStatusResponse { config })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Include,
    Exclude,
}

fn describe(connection: &Connection, held: Vec<(Kind, Vec<Held>)>, contents: Contents) -> ClientConfig {
    let mut configs = Vec::new();
    for (kind, held) in held {
        let status = connection.kinds.get(kind.short());
        configs.extend(held.into_iter().map(|held| config(kind, held, status, contents)));
    }
    ClientConfig {
        node: Some(XdsNode { id: connection.node.id().to_owned(), ..XdsNode::default() }),
        generic_xds_configs: configs,
        ..ClientConfig::default()
    }
}

fn config(kind: Kind, held: Held, status: Option<&Status>, contents: Contents) -> GenericXdsConfig {
    let Held { name, resource, state } = held;
    let version = resource.as_ref().map(|resource| Version::of(resource).to_string()).unwrap_or_default();
    let failure = || UpdateFailureState {
        details: status.and_then(|status| status.nack_reason.clone()).unwrap_or_default(),
        version_info: version.clone(),
        ..UpdateFailureState::default()
    };
    let (config_status, error_state) = match state {
        HeldState::NotSent => (ConfigStatus::NotSent, None),
        HeldState::Stale => (ConfigStatus::Stale, None),
        HeldState::Synced => (ConfigStatus::Synced, None),
        HeldState::Refused => (ConfigStatus::Error, Some(failure())),
    };
    let shown = resource.filter(|_| contents == Contents::Include && state != HeldState::NotSent);
    GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        name: name.to_string(),
        xds_config: shown.map(|resource| resource.any()),
        config_status: config_status.into(),
        error_state,
        version_info: if state == HeldState::NotSent { String::new() } else { version },
        ..GenericXdsConfig::default()
    }
}

/// Each matcher's condition on the node's id.
fn node_ids(matchers: &[NodeMatcher]) -> Result<Vec<Regex>, String> {
    if matchers.len() > MATCHERS_MAX {
        return Err(format!("node_matchers: at most {MATCHERS_MAX} are taken"));
    }
    let regex = |(index, matcher): (usize, &NodeMatcher)| {
        let NodeMatcher { node_id, node_metadatas } = matcher;
        if !node_metadatas.is_empty() {
            return Err(format!("node_matchers[{index}].node_metadatas: not supported"));
        }
        let Some(node_id) = node_id else { return Ok(Regex::new("").expect("matches anything")) };
        string_regex(node_id).map_err(|(field, reason)| format!("node_matchers[{index}].node_id.{field}: {reason}"))
    };
    matchers.iter().enumerate().map(regex).collect()
}

/// A string matcher as the regular expression that matches the same.
fn string_regex(matcher: &StringMatcher) -> Result<Regex, (&'static str, String)> {
    let StringMatcher { ignore_case, match_pattern } = matcher;
    let (field, pattern) = match match_pattern {
        Some(MatchPattern::Exact(text)) => ("exact", format!("^(?:{})$", regex::escape(text))),
        Some(MatchPattern::Prefix(text)) => ("prefix", format!("^(?:{})", regex::escape(text))),
        Some(MatchPattern::Suffix(text)) => ("suffix", format!("(?:{})$", regex::escape(text))),
        Some(MatchPattern::Contains(text)) => ("contains", regex::escape(text)),
        Some(MatchPattern::SafeRegex(RegexMatcher { regex, engine_type: _ })) => {
            ("safe_regex.regex", format!("^(?:{regex})$"))
        }
        Some(MatchPattern::Custom(_)) => return Err(("custom", "not supported".to_owned())),
        None => return Err(("match_pattern", "value is required".to_owned())),
    };
    let case = if *ignore_case { "(?i)" } else { "" };
    Regex::new(&format!("(?s){case}{pattern}")).map_err(|error| (field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(ignore_case: bool, pattern: MatchPattern) -> NodeMatcher {
        let node_id = Some(StringMatcher { ignore_case, match_pattern: Some(pattern) });
        NodeMatcher { node_id, ..NodeMatcher::default() }
    }

    #[test]
    fn nodes_are_matched_by_their_ids() {
        let id = "sidecar~10.0.0.1~web.shop~d";
        let is_match = |matcher: NodeMatcher| node_ids(&[matcher]).unwrap()[0].is_match(id);
        assert!(is_match(matcher(false, MatchPattern::Exact(id.to_owned()))));
        assert!(!is_match(matcher(false, MatchPattern::Exact("sidecar~10.0.0.1~web.shop".to_owned()))));
        assert!(!is_match(matcher(false, MatchPattern::Exact("sidecar~10.0.0.1~webxshop~d".to_owned()))));
        assert!(is_match(matcher(false, MatchPattern::Prefix("sidecar~".to_owned()))));
        assert!(!is_match(matcher(false, MatchPattern::Prefix("web".to_owned()))));
        assert!(is_match(matcher(false, MatchPattern::Suffix("~d".to_owned()))));
        assert!(is_match(matcher(true, MatchPattern::Contains("WEB.SHOP".to_owned()))));
        assert!(!is_match(matcher(false, MatchPattern::Contains("WEB.SHOP".to_owned()))));
        let regex =
            |regex: &str| MatchPattern::SafeRegex(RegexMatcher { regex: regex.to_owned(), ..Default::default() });
        assert!(is_match(matcher(false, regex(".*~web[.]shop~.*"))));
        assert!(!is_match(matcher(false, regex("web"))));
        assert!(is_match(NodeMatcher::default()));
    }

    #[test]
    fn matchers_that_are_not_understood_are_refused_with_their_place() {
        let regex = MatchPattern::SafeRegex(RegexMatcher { regex: "(".to_owned(), ..Default::default() });
        let error = node_ids(&[NodeMatcher::default(), matcher(false, regex)]).unwrap_err();
        assert!(error.starts_with("node_matchers[1].node_id.safe_regex.regex: "), "{error}");
        let metadata = NodeMatcher { node_metadatas: vec![Default::default()], ..NodeMatcher::default() };
        assert_eq!(node_ids(&[metadata]).unwrap_err(), "node_matchers[0].node_metadatas: not supported");
    }
}
