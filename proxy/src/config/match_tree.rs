//! `xds.type.matcher.v3.Matcher`: a tree of decisions that ends in actions, which are whatever the place that has the tree does
//! with them. Evaluated in `matching`.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::core::v3::CidrRange,
            extensions::matching::{
                common_inputs::{
                    environment_variable::v3::Config as EnvironmentVariableInput,
                    network::v3::{
                        ApplicationProtocolInput, DestinationIpInput, DestinationPortInput, DirectSourceIpInput,
                        DynamicMetadataInput, FilterStateInput, ServerNameInput, SourceIpInput, SourcePortInput,
                        SourceTypeInput, TransportProtocolInput, dynamic_metadata_input::path_segment::Segment,
                    },
                    ssl::v3::{DnsSanInput, SubjectInput, UriSanInput},
                },
                input_matchers::{
                    consistent_hashing::v3::ConsistentHashing, ip::v3::Ip,
                    metadata::v3::Metadata as MetadataInputMatcher, runtime_fraction::v3::RuntimeFraction,
                },
            },
            r#type::matcher::v3::{
                HttpRequestHeaderMatchInput, HttpRequestQueryParamMatchInput, HttpResponseHeaderMatchInput,
                HttpResponseStatusCodeClassMatchInput, HttpResponseStatusCodeMatchInput, RegexMatcher as ProtoRegex,
                StringMatcher as ProtoString, string_matcher::MatchPattern,
            },
        },
        xds::{
            core::v3::TypedExtensionConfig as XdsExtension,
            r#type::matcher::v3::{
                Matcher, StringMatcher as XdsString,
                matcher::{
                    MatcherList, MatcherTree, MatcherType, OnMatch as ProtoOnMatch,
                    matcher_list::Predicate as ProtoPredicate,
                    matcher_list::predicate::{MatchType, SinglePredicate, single_predicate::Matcher as SingleMatcher},
                    matcher_tree::{MatchMap, TreeType},
                    on_match::OnMatch as ProtoOnMatchKind,
                },
                string_matcher::MatchPattern as XdsPattern,
            },
        },
    },
};

use crate::config::{
    field::{self, Extension, Result, Within as _, required, unsupported},
    fraction::Fraction,
    matcher::{HeaderMatcherName, StringMatcher},
    value_matcher::{ValueMatcher, network},
};

#[derive(Debug)]
pub struct MatchTree<A> {
    pub rule: MatchRule<A>,
    pub on_no_match: Option<Box<OnMatch<A>>>,
}

#[derive(Debug)]
pub enum MatchRule<A> {
    /// Only `on_no_match` counts.
    Nothing,
    /// The first that leads to an action.
    List(Vec<(Predicate, OnMatch<A>)>),
    Exact(Input, HashMap<String, OnMatch<A>>),
    /// The longest that leads to an action; sorted so.
    Prefix(Input, Vec<(String, OnMatch<A>)>),
}

#[derive(Debug)]
pub enum OnMatch<A> {
    Action(A),
    Tree(Box<MatchTree<A>>),
}

#[derive(Debug)]
pub enum Predicate {
    Single(Input, InputMatcher),
    Any(Vec<Predicate>),
    All(Vec<Predicate>),
    Not(Box<Predicate>),
}

/// What is looked at.
#[derive(Debug)]
pub enum Input {
    RequestHeader(HeaderMatcherName),
    ResponseHeader(HeaderMatcherName),
    QueryParameter(String),
    StatusCode,
    /// `2xx`.
    StatusCodeClass,
    DestinationIp,
    DestinationPort,
    SourceIp,
    SourcePort,
    DirectSourceIp,
    /// `local` for connections from this machine.
    SourceType,
    ServerName,
    TransportProtocol,
    /// As `'h2','http/1.1'`.
    ApplicationProtocols,
    FilterState(String),
    /// Of the peer's certificate, several joined by commas.
    UriSan,
    DnsSan,
    Subject,
    DynamicMetadata {
        namespace: String,
        path: Vec<String>,
    },
    /// As it was when the configuration was read.
    Environment(Option<String>),
}

#[derive(Debug)]
pub enum InputMatcher {
    Text(StringMatcher),
    Ip(Vec<IpNet>),
    Value {
        matcher: ValueMatcher,
        invert: bool,
    },
    /// A share of the values, by their hash.
    Share {
        fraction: Fraction,
        seed: u64,
    },
    /// The hash modulo `modulo` is at least `threshold`.
    Hash {
        threshold: u32,
        modulo: u32,
        seed: u64,
    },
}

/// Of trees in trees, and of predicates in predicates.
const DEPTH_MAX: u32 = 32;

/// Makes an action of its extension.
pub(crate) type ToAction<'a, A> = &'a mut dyn FnMut(&Extension) -> Result<A>;

impl<A> MatchTree<A> {
    pub(crate) fn from_proto(message: Matcher, to_action: ToAction<'_, A>) -> Result<Self> {
        Self::nested(message, to_action, 0)
    }

    fn nested(message: Matcher, to_action: ToAction<'_, A>, depth: u32) -> Result<Self> {
        check_depth(depth)?;
        let Matcher { on_no_match, matcher_type } = message;
        let rule = match matcher_type {
            None => MatchRule::Nothing,
            Some(MatcherType::MatcherList(list)) => list_rule(list, to_action, depth).within("matcher_list")?,
            Some(MatcherType::MatcherTree(tree)) => tree_rule(tree, to_action, depth).within("matcher_tree")?,
        };
        let on_no_match = on_no_match.map(|message| OnMatch::from_proto(*message, to_action, depth)).transpose();
        Ok(Self { rule, on_no_match: on_no_match.within("on_no_match")?.map(Box::new) })
    }
}

fn check_depth(depth: u32) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(FieldError::new("", format!("nested more than {DEPTH_MAX} deep")));
    }
    Ok(())
}

fn list_rule<A>(message: MatcherList, to_action: ToAction<'_, A>, depth: u32) -> Result<MatchRule<A>> {
    let MatcherList { matchers } = message;
    let rules = field::each(matchers, "matchers", |message| {
        let predicate = Predicate::from_proto(required(message.predicate, "predicate")?, depth).within("predicate")?;
        let on_match = required(message.on_match, "on_match")?;
        Ok((predicate, OnMatch::from_proto(on_match, to_action, depth).within("on_match")?))
    })?;
    Ok(MatchRule::List(rules))
}

fn tree_rule<A>(message: MatcherTree, to_action: ToAction<'_, A>, depth: u32) -> Result<MatchRule<A>> {
    let MatcherTree { input, tree_type } = message;
    let input = Input::from_proto(required(input, "input")?).within("input")?;
    if matches!(input, Input::DynamicMetadata { .. }) {
        return Err(FieldError::new("input", "a map is looked up by text"));
    }
    let (map, path) = match required(tree_type, "tree_type")? {
        TreeType::ExactMatchMap(MatchMap { map }) => (map, "exact_match_map.map"),
        TreeType::PrefixMatchMap(MatchMap { map }) => {
            let mut prefixes = Vec::new();
            for (prefix, message) in map {
                let at = format!("prefix_match_map.map[{prefix}]");
                let on_match = OnMatch::from_proto(message, to_action, depth).within(&at)?;
                prefixes.push((prefix, on_match));
            }
            prefixes.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            return Ok(MatchRule::Prefix(input, prefixes));
        }
        TreeType::CustomMatch(_) => return Err(unsupported("custom_match")),
    };
    let mut exact = HashMap::with_capacity(map.len());
    for (key, message) in map {
        let on_match = OnMatch::from_proto(message, to_action, depth).within(&format!("{path}[{key}]"))?;
        exact.insert(key, on_match);
    }
    Ok(MatchRule::Exact(input, exact))
}

impl<A> OnMatch<A> {
    fn from_proto(message: ProtoOnMatch, to_action: ToAction<'_, A>, depth: u32) -> Result<Self> {
        let ProtoOnMatch { keep_matching, on_match } = message;
        if keep_matching {
            return Err(unsupported("keep_matching"));
        }
        Ok(match required(on_match, "on_match")? {
            ProtoOnMatchKind::Matcher(matcher) => {
                Self::Tree(Box::new(MatchTree::nested(*matcher, to_action, depth + 1).within("matcher")?))
            }
            ProtoOnMatchKind::Action(action) => {
                Self::Action(to_action(&extension(action).within("action")?).within("action")?)
            }
        })
    }
}

fn extension(message: XdsExtension) -> Result<Extension> {
    let XdsExtension { name: _, typed_config } = message; // the type alone says which
    Extension::new(required(typed_config, "typed_config")?)
}

impl Predicate {
    fn from_proto(message: ProtoPredicate, depth: u32) -> Result<Self> {
        check_depth(depth)?;
        let ProtoPredicate { match_type } = message;
        let all =
            |list: Vec<ProtoPredicate>, path| field::each(list, path, |message| Self::from_proto(message, depth + 1));
        Ok(match required(match_type, "match_type")? {
            MatchType::SinglePredicate(single) => Self::single(single).within("single_predicate")?,
            MatchType::OrMatcher(list) => Self::Any(all(list.predicate, "or_matcher.predicate")?),
            MatchType::AndMatcher(list) => Self::All(all(list.predicate, "and_matcher.predicate")?),
            MatchType::NotMatcher(inner) => {
                Self::Not(Box::new(Self::from_proto(*inner, depth + 1).within("not_matcher")?))
            }
        })
    }

    fn single(message: SinglePredicate) -> Result<Self> {
        let SinglePredicate { input, matcher } = message;
        let input = Input::from_proto(required(input, "input")?).within("input")?;
        let matcher = match required(matcher, "matcher")? {
            SingleMatcher::ValueMatch(matcher) => InputMatcher::Text(string_matcher(matcher).within("value_match")?),
            SingleMatcher::CustomMatch(message) => {
                let extension = extension(message).within("custom_match")?;
                InputMatcher::from_extension(&extension).within("custom_match")?
            }
        };
        let is_value = matches!(input, Input::DynamicMetadata { .. });
        if is_value != matches!(matcher, InputMatcher::Value { .. }) {
            return Err(FieldError::new("matcher", "does not fit the kind of the input"));
        }
        Ok(Self::Single(input, matcher))
    }
}

/// xDS's own message says the same as Envoy's.
fn string_matcher(message: XdsString) -> Result<StringMatcher> {
    let XdsString { ignore_case, match_pattern } = message;
    let match_pattern = match required(match_pattern, "match_pattern")? {
        XdsPattern::Exact(text) => MatchPattern::Exact(text),
        XdsPattern::Prefix(text) => MatchPattern::Prefix(text),
        XdsPattern::Suffix(text) => MatchPattern::Suffix(text),
        XdsPattern::Contains(text) => MatchPattern::Contains(text),
        XdsPattern::SafeRegex(regex) => MatchPattern::SafeRegex(ProtoRegex { regex: regex.regex, engine_type: None }),
        XdsPattern::Custom(_) => return Err(unsupported("custom")),
    };
    StringMatcher::from_proto(ProtoString { ignore_case, match_pattern: Some(match_pattern) })
}

impl Input {
    fn from_proto(message: XdsExtension) -> Result<Self> {
        let extension = extension(message)?;
        let header = |name: &str| {
            HeaderMatcherName::parse(name)
                .ok_or_else(|| FieldError::new("typed_config.header_name", "not a header name"))
        };
        Ok(if extension.is::<HttpRequestHeaderMatchInput>() {
            let HttpRequestHeaderMatchInput { header_name } = extension.unpack()?;
            Self::RequestHeader(header(&header_name)?)
        } else if extension.is::<HttpResponseHeaderMatchInput>() {
            let HttpResponseHeaderMatchInput { header_name } = extension.unpack()?;
            Self::ResponseHeader(header(&header_name)?)
        } else if extension.is::<HttpRequestQueryParamMatchInput>() {
            let HttpRequestQueryParamMatchInput { query_param } = extension.unpack()?;
            Self::QueryParameter(query_param)
        } else if extension.is::<HttpResponseStatusCodeMatchInput>() {
            Self::StatusCode
        } else if extension.is::<HttpResponseStatusCodeClassMatchInput>() {
            Self::StatusCodeClass
        } else if extension.is::<FilterStateInput>() {
            let FilterStateInput { key, field } = extension.unpack()?;
            field::unset(&field, "typed_config.field")?;
            Self::FilterState(key)
        } else if extension.is::<DynamicMetadataInput>() {
            let DynamicMetadataInput { filter, path } = extension.unpack()?;
            let path = field::each(path, "typed_config.path", |segment| match required(segment.segment, "segment")? {
                Segment::Key(key) => Ok(key),
            })?;
            Self::DynamicMetadata { namespace: filter, path }
        } else if extension.is::<EnvironmentVariableInput>() {
            let EnvironmentVariableInput { name } = extension.unpack()?;
            Self::Environment(std::env::var(name).ok())
        } else {
            return Self::of_connection(&extension).ok_or_else(|| extension.unsupported());
        })
    }

    fn of_connection(extension: &Extension) -> Option<Self> {
        let known: [(bool, Self); 12] = [
            (extension.is::<DestinationIpInput>(), Self::DestinationIp),
            (extension.is::<DestinationPortInput>(), Self::DestinationPort),
            (extension.is::<SourceIpInput>(), Self::SourceIp),
            (extension.is::<SourcePortInput>(), Self::SourcePort),
            (extension.is::<DirectSourceIpInput>(), Self::DirectSourceIp),
            (extension.is::<SourceTypeInput>(), Self::SourceType),
            (extension.is::<ServerNameInput>(), Self::ServerName),
            (extension.is::<TransportProtocolInput>(), Self::TransportProtocol),
            (extension.is::<ApplicationProtocolInput>(), Self::ApplicationProtocols),
            (extension.is::<UriSanInput>(), Self::UriSan),
            (extension.is::<DnsSanInput>(), Self::DnsSan),
            (extension.is::<SubjectInput>(), Self::Subject),
        ];
        known.into_iter().find_map(|(is_it, input)| is_it.then_some(input))
    }
}

impl InputMatcher {
    fn from_extension(extension: &Extension) -> Result<Self> {
        if extension.is::<Ip>() {
            let Ip { cidr_ranges, stat_prefix: _ } = extension.unpack()?; // counts texts that are no addresses: there are none
            let ranges = field::each(cidr_ranges, "typed_config.cidr_ranges", |range| {
                let CidrRange { address_prefix, prefix_len } = range;
                network(&address_prefix, prefix_len.map_or(0, |wrapper| wrapper.value))
            })?;
            return Ok(Self::Ip(ranges));
        }
        if extension.is::<MetadataInputMatcher>() {
            let MetadataInputMatcher { value, invert } = extension.unpack()?;
            let value = required(value, "typed_config.value")?;
            let matcher = ValueMatcher::from_proto(value).within("typed_config.value")?;
            return Ok(Self::Value { matcher, invert });
        }
        if extension.is::<RuntimeFraction>() {
            let RuntimeFraction { runtime_fraction, seed } = extension.unpack()?;
            let fraction = required(runtime_fraction, "typed_config.runtime_fraction")?;
            let fraction = Fraction::from_runtime(fraction).within("typed_config.runtime_fraction")?;
            return Ok(Self::Share { fraction, seed });
        }
        if extension.is::<ConsistentHashing>() {
            let ConsistentHashing { threshold, modulo, seed } = extension.unpack()?;
            if threshold >= modulo {
                return Err(FieldError::new("typed_config.threshold", "cannot be greater than or equal to modulo"));
            }
            return Ok(Self::Hash { threshold, modulo, seed });
        }
        Err(extension.unsupported())
    }
}

impl InputMatcher {
    pub fn matches_ip(ranges: &[IpNet], text: &str) -> bool {
        text.parse::<IpAddr>().is_ok_and(|address| ranges.iter().any(|range| range.contains(&address)))
    }
}
