//! Evaluates a match tree over what is known of a request or connection. Pure.
//!
//! An action ends the search. A subtree that leads to none is as if it had not matched: what stands behind it has its turn.

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderMap, StatusCode, request};
use xxhash_rust::xxh64::xxh64;

use crate::{
    config::{
        match_tree::{Input, InputMatcher, MatchRule, MatchTree, OnMatch, Predicate},
        matcher::HeaderMatcherName,
        metadata::Metadata,
    },
    filter_state::FilterState,
    http::route::matcher::{header_text, header_value_of},
    listener::filter_chain::ConnectionFacts,
    tls::TlsSession,
};

/// As far as it is known yet.
pub struct Facts<'a> {
    pub connection: ConnectionFacts<'a>,
    pub request: Option<&'a request::Parts>,
    pub response: Option<(StatusCode, &'a HeaderMap)>,
    pub metadata: Option<&'a Metadata>,
    pub filter_state: Option<&'a FilterState>,
    /// None: plain text.
    pub tls: Option<&'a TlsSession>,
}

impl<'a> Facts<'a> {
    /// Of which no request has come yet.
    pub fn of_connection(connection: ConnectionFacts<'a>) -> Facts<'a> {
        Facts { connection, request: None, response: None, metadata: None, filter_state: None, tls: None }
    }
}

impl<A> MatchTree<A> {
    pub fn find(&self, facts: &Facts<'_>) -> Option<&A> {
        self.find_where(facts, &mut |_| true)
    }

    /// The first action that is good enough.
    pub fn find_where(&self, facts: &Facts<'_>, is_good: &mut dyn FnMut(&A) -> bool) -> Option<&A> {
        let found = match &self.rule {
            MatchRule::Nothing => None,
            MatchRule::List(rules) => rules
                .iter()
                .filter(|(predicate, _)| predicate.holds(facts))
                .find_map(|(_, on_match)| on_match.find(facts, is_good)),
            MatchRule::Exact(input, map) => {
                let on_match = facts.text(input).and_then(|text| map.get(&*text));
                on_match.and_then(|on_match| on_match.find(facts, is_good))
            }
            MatchRule::Prefix(input, prefixes) => facts.text(input).and_then(|text| {
                let mut matching = prefixes.iter().filter(|(prefix, _)| text.starts_with(prefix));
                matching.find_map(|(_, on_match)| on_match.find(facts, is_good))
            }),
        };
        found.or_else(|| self.on_no_match.as_deref()?.find(facts, is_good))
    }

    pub fn actions<'a>(&'a self, visit: &mut dyn FnMut(&'a A)) {
        match &self.rule {
            MatchRule::Nothing => {}
            MatchRule::List(rules) => rules.iter().for_each(|(_, on_match)| on_match.actions(visit)),
            MatchRule::Exact(_, map) => map.values().for_each(|on_match| on_match.actions(visit)),
            MatchRule::Prefix(_, prefixes) => prefixes.iter().for_each(|(_, on_match)| on_match.actions(visit)),
        }
        if let Some(on_match) = &self.on_no_match {
            on_match.actions(visit);
        }
    }
}

impl<A> OnMatch<A> {
    fn find(&self, facts: &Facts<'_>, is_good: &mut dyn FnMut(&A) -> bool) -> Option<&A> {
        match self {
            OnMatch::Action(action) => Some(action).filter(|action| is_good(action)),
            OnMatch::Tree(tree) => tree.find_where(facts, is_good),
        }
    }

    fn actions<'a>(&'a self, visit: &mut dyn FnMut(&'a A)) {
        match self {
            OnMatch::Action(action) => visit(action),
            OnMatch::Tree(tree) => tree.actions(visit),
        }
    }
}

impl Predicate {
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Predicate::Single(Input::DynamicMetadata { namespace, path }, InputMatcher::Value { matcher, invert }) => {
                let path = path.iter().map(String::as_str);
                let value = facts.metadata.and_then(|metadata| metadata.value(namespace, path));
                matcher.matches(value) != *invert
            }
            Predicate::Single(input, matcher) => facts.text(input).is_some_and(|text| matcher.takes(&text)),
            Predicate::Any(predicates) => predicates.iter().any(|predicate| predicate.holds(facts)),
            Predicate::All(predicates) => predicates.iter().all(|predicate| predicate.holds(facts)),
            Predicate::Not(predicate) => !predicate.holds(facts),
        }
    }
}

impl InputMatcher {
    fn takes(&self, text: &str) -> bool {
        match self {
            InputMatcher::Text(matcher) => matcher.matches(text),
            InputMatcher::Ip(ranges) => InputMatcher::matches_ip(ranges, text),
            InputMatcher::Share { fraction, seed } => fraction.includes(xxh64(text.as_bytes(), *seed)),
            InputMatcher::Hash { threshold, modulo, seed } => {
                xxh64(text.as_bytes(), *seed) % u64::from(*modulo) >= u64::from(*threshold)
            }
            InputMatcher::Value { .. } => false, // looks at values, and is never with a text: checked when it was read
        }
    }
}

impl Facts<'_> {
    /// None: there is none, or not yet.
    fn text<'b>(&'b self, input: &'b Input) -> Option<Cow<'b, str>> {
        let connection = &self.connection;
        Some(match input {
            Input::RequestHeader(name) => return header_text(name, self.request?),
            Input::ResponseHeader(name) => return self.response_header(name),
            Input::QueryParameter(name) => {
                let pairs = self.request?.uri.query()?.split('&');
                let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs.find(|(key, _)| key == name)?.1.into()
            }
            Input::StatusCode => self.response?.0.as_u16().to_string().into(),
            Input::StatusCodeClass => format!("{}xx", self.response?.0.as_u16() / 100).into(),
            Input::DestinationIp => connection.destination.ip().to_string().into(),
            Input::DestinationPort => connection.destination.port().to_string().into(),
            Input::SourceIp => connection.source.ip().to_string().into(),
            Input::SourcePort => connection.source.port().to_string().into(),
            Input::DirectSourceIp => connection.direct_source.to_string().into(),
            Input::SourceType => {
                let is_local =
                    connection.source.ip().is_loopback() || connection.source.ip() == connection.destination.ip();
                Some("local").filter(|_| is_local)?.into()
            }
            Input::ServerName => connection.server_name.filter(|name| !name.is_empty())?.into(),
            Input::TransportProtocol => Some(connection.transport_protocol).filter(|name| !name.is_empty())?.into(),
            Input::ApplicationProtocols => {
                let mut joined = String::new();
                for protocol in connection.application_protocols {
                    let comma = if joined.is_empty() { "" } else { "," };
                    let _ = write!(joined, "{comma}'{protocol}'"); // a String takes all that is written
                }
                Some(joined).filter(|joined| !joined.is_empty())?.into()
            }
            Input::FilterState(key) => (**self.filter_state?.text(key)?).into(),
            Input::UriSan => joined(&self.tls?.peer()?.uri_names)?,
            Input::DnsSan => joined(&self.tls?.peer()?.dns_names)?,
            Input::Subject => Some(self.tls?.peer()?.subject.as_str()).filter(|subject| !subject.is_empty())?.into(),
            Input::Environment(value) => value.as_deref()?.into(),
            Input::DynamicMetadata { .. } => return None, // a value, no text
        })
    }

    fn response_header(&self, name: &HeaderMatcherName) -> Option<Cow<'_, str>> {
        let (status, headers) = self.response?;
        match name {
            HeaderMatcherName::Header(name) => text_of(header_value_of(headers, name)?),
            HeaderMatcherName::Status => Some(status.as_u16().to_string().into()),
            HeaderMatcherName::Method
            | HeaderMatcherName::Authority
            | HeaderMatcherName::Path
            | HeaderMatcherName::Scheme => None,
        }
    }
}

/// None: there are none.
fn joined(names: &[String]) -> Option<Cow<'static, str>> {
    Some(names.join(",").into()).filter(|_| !names.is_empty())
}

/// What is no text matches nothing.
fn text_of(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{field::Result, testing::message, testing::refusal};

    const HEADER: &str = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}";

    /// The action is the text of a `google.protobuf.StringValue`.
    fn tree(yaml: &str) -> Result<MatchTree<String>> {
        MatchTree::from_proto(message(yaml), &mut |extension| {
            Ok(extension.unpack::<weft_xds::pb::envoy::config::route::v3::Route>()?.name)
        })
    }

    fn action(name: &str) -> String {
        format!(
            "{{action: {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.config.route.v3.Route, name: {name}, match: {{prefix: /}}, direct_response: {{status: 200}}}}}}}}"
        )
    }

    fn find(tree: &MatchTree<String>, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut request = http::Request::get("/p?q=1&q=2");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let connection = ConnectionFacts {
            destination: "10.0.0.1:80".parse().expect("an address"),
            server_name: Some("a.test"),
            transport_protocol: "tls",
            application_protocols: &["h2".to_owned(), "x".to_owned()],
            direct_source: "10.0.0.2".parse().expect("an address"),
            source: "10.0.0.3:4".parse().expect("an address"),
        };
        tree.find(&Facts { request: Some(&head), ..Facts::of_connection(connection) }).cloned()
    }

    #[test]
    fn a_list_takes_the_first_that_leads_to_an_action() {
        let single = |value: &str| format!("{{single_predicate: {{input: {HEADER}, value_match: {value}}}}}");
        let yaml = format!(
            "matcher_list: {{matchers: [\
             {{predicate: {}, on_match: {{matcher: {{matcher_list: {{matchers: [{{predicate: {}, on_match: {}}}]}}}}}}}}, \
             {{predicate: {{and_matcher: {{predicate: [{}, {{not_matcher: {}}}]}}}}, on_match: {}}}]}}\non_no_match: {}",
            single("{prefix: a}"),
            single("{exact: ab}"),
            action("inner"),
            single("{prefix: a}"),
            single("{suffix: z}"),
            action("second"),
            action("none"),
        );
        let tree = tree(&yaml).expect("a tree");
        assert_eq!(find(&tree, &[("x", "ab")]).as_deref(), Some("inner"));
        assert_eq!(find(&tree, &[("x", "ac")]).as_deref(), Some("second"), "the subtree led nowhere");
        assert_eq!(find(&tree, &[("x", "az")]).as_deref(), Some("none"));
        assert_eq!(find(&tree, &[]).as_deref(), Some("none"));
        let mut actions = Vec::new();
        tree.actions(&mut |action| actions.push(action.as_str()));
        assert_eq!(actions, ["inner", "second", "none"]);
    }

    #[test]
    fn maps_go_by_the_whole_text_or_its_longest_prefix() {
        let map = |kind: &str| {
            let map = format!("{{a: {}, abc: {}}}", action("short"), action("long"));
            tree(&format!("matcher_tree: {{input: {HEADER}, {kind}_match_map: {{map: {map}}}}}")).expect("a tree")
        };
        assert_eq!(find(&map("exact"), &[("x", "a")]).as_deref(), Some("short"));
        assert_eq!(find(&map("exact"), &[("x", "ab")]), None);
        assert_eq!(find(&map("prefix"), &[("x", "abcd")]).as_deref(), Some("long"));
        assert_eq!(find(&map("prefix"), &[("x", "abd")]).as_deref(), Some("short"));
        assert_eq!(find(&map("prefix"), &[]), None);
    }

    #[test]
    fn connections_have_texts_too() {
        for (input, value) in [
            ("DestinationIPInput", "10.0.0.1"),
            ("DestinationPortInput", "80"),
            ("SourceIPInput", "10.0.0.3"),
            ("SourcePortInput", "4"),
            ("DirectSourceIPInput", "10.0.0.2"),
            ("ServerNameInput", "a.test"),
            ("TransportProtocolInput", "tls"),
            ("ApplicationProtocolInput", "'h2','x'"),
        ] {
            let kind = format!("type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.{input}");
            let yaml = format!(
                "matcher_tree: {{input: {{name: i, typed_config: {{'@type': {kind}}}}}, exact_match_map: {{map: {{\"{value}\": {}}}}}}}",
                action("found")
            );
            assert_eq!(find(&tree(&yaml).expect("a tree"), &[]).as_deref(), Some("found"), "{input}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_its_path() {
        let kept = format!("on_no_match: {}", action("a").replacen('{', "{keep_matching: true, ", 1));
        assert_eq!(refusal(tree(&kept)), "on_no_match.keep_matching: not supported");
        let unknown = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.config.route.v3.Route, name: a, match: {prefix: /}, direct_response: {status: 200}}}";
        let yaml = format!("matcher_tree: {{input: {unknown}, exact_match_map: {{map: {{a: {}}}}}}}", action("a"));
        assert_eq!(
            refusal(tree(&yaml)),
            "matcher_tree.input.typed_config: envoy.config.route.v3.Route is not supported"
        );
    }
}
