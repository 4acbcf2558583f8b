//! `envoy.type.matcher.v3.MetadataMatcher`, `ValueMatcher`, `FilterStateMatcher` and `AddressMatcher`: predicates over what
//! filters leave about a request. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_xds::{
    FieldError,
    pb::{
        envoy::r#type::matcher::v3::{
            AddressMatcher as ProtoAddressMatcher, DoubleMatcher, FilterStateMatcher as ProtoFilterStateMatcher,
            ListMatcher, MetadataMatcher as ProtoMetadataMatcher, OrMatcher, ValueMatcher as ProtoValueMatcher,
            double_matcher::MatchPattern as DoublePattern, filter_state_matcher::Matcher as FilterStatePattern,
            list_matcher::MatchPattern as ListPattern, metadata_matcher::path_segment::Segment,
            value_matcher::MatchPattern,
        },
        envoy::r#type::v3::DoubleRange,
        xds::core::v3::CidrRange,
    },
};

use crate::{
    config::{
        field::{self, Result, Within as _, required},
        matcher::StringMatcher,
        metadata::{Metadata, Value},
    },
    filter_state::FilterState,
};

#[derive(Debug)]
pub struct MetadataMatcher {
    pub namespace: String,
    pub path: Vec<String>,
    pub value: ValueMatcher,
    pub invert: bool,
}

#[derive(Debug)]
pub enum ValueMatcher {
    Null,
    Exactly(f64),
    /// Half-open.
    Between(f64, f64),
    Text(StringMatcher),
    Bool(bool),
    Present(bool),
    /// Some element of a list.
    OneOf(Box<ValueMatcher>),
    AnyOf(Vec<ValueMatcher>),
}

#[derive(Debug)]
pub struct FilterStateMatcher {
    pub key: String,
    pub value: FilterStateValue,
}

#[derive(Debug)]
pub enum FilterStateValue {
    Text(StringMatcher),
    Address(AddressMatcher),
}

#[derive(Debug)]
pub struct AddressMatcher {
    pub ranges: Vec<IpNet>,
    pub invert: bool,
}

/// Deeper than any value is.
const DEPTH_MAX: u32 = 16;

impl MetadataMatcher {
    pub(crate) fn from_proto(message: ProtoMetadataMatcher) -> Result<Self> {
        let ProtoMetadataMatcher { filter, path, value, invert } = message;
        let path = field::each(path, "path", |segment| match required(segment.segment, "segment")? {
            Segment::Key(key) => Ok(key),
        })?;
        let value = ValueMatcher::from_proto(required(value, "value")?).within("value")?;
        Ok(Self { namespace: filter, path, value, invert })
    }

    pub fn matches(&self, metadata: &Metadata) -> bool {
        let value = metadata.value(&self.namespace, self.path.iter().map(String::as_str));
        self.value.matches(value) != self.invert
    }
}

impl ValueMatcher {
    pub(crate) fn from_proto(message: ProtoValueMatcher) -> Result<Self> {
        Self::nested(message, 0)
    }

    fn nested(message: ProtoValueMatcher, depth: u32) -> Result<Self> {
        if depth > DEPTH_MAX {
            return Err(FieldError::new("", format!("nested more than {DEPTH_MAX} deep")));
        }
        let ProtoValueMatcher { match_pattern } = message;
        Ok(match required(match_pattern, "match_pattern")? {
            MatchPattern::NullMatch(_) => Self::Null,
            MatchPattern::DoubleMatch(DoubleMatcher { match_pattern }) => {
                match required(match_pattern, "double_match.match_pattern")? {
                    DoublePattern::Exact(value) => Self::Exactly(value),
                    DoublePattern::Range(DoubleRange { start, end }) => Self::Between(start, end),
                }
            }
            MatchPattern::StringMatch(matcher) => {
                Self::Text(StringMatcher::from_proto(matcher).within("string_match")?)
            }
            MatchPattern::BoolMatch(value) => Self::Bool(value),
            MatchPattern::PresentMatch(present) => Self::Present(present),
            MatchPattern::ListMatch(list) => {
                let ListMatcher { match_pattern } = *list;
                match required(match_pattern, "list_match.match_pattern")? {
                    ListPattern::OneOf(matcher) => {
                        Self::OneOf(Box::new(Self::nested(*matcher, depth + 1).within("list_match.one_of")?))
                    }
                }
            }
            MatchPattern::OrMatch(OrMatcher { value_matchers }) => {
                let each = |matcher| Self::nested(matcher, depth + 1);
                Self::AnyOf(field::each(value_matchers, "or_match.value_matchers", each)?)
            }
        })
    }

    /// None: there is no value.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        let number = || match value {
            Some(Value::Number(bits)) => Some(f64::from_bits(*bits)),
            _ => None,
        };
        match self {
            Self::Null => matches!(value, Some(Value::Null)),
            Self::Exactly(wanted) => number() == Some(*wanted),
            Self::Between(start, end) => number().is_some_and(|number| *start <= number && number < *end),
            Self::Text(matcher) => value.and_then(Value::as_text).is_some_and(|text| matcher.matches(text)),
            Self::Bool(wanted) => matches!(value, Some(Value::Bool(value)) if value == wanted),
            Self::Present(present) => *present && value.is_some(),
            Self::OneOf(matcher) => match value {
                Some(Value::List(values)) => values.iter().any(|value| matcher.matches(Some(value))),
                _ => false,
            },
            Self::AnyOf(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

impl FilterStateMatcher {
    pub(crate) fn from_proto(message: ProtoFilterStateMatcher) -> Result<Self> {
        let ProtoFilterStateMatcher { key, matcher } = message;
        let value = match required(matcher, "matcher")? {
            FilterStatePattern::StringMatch(matcher) => {
                FilterStateValue::Text(StringMatcher::from_proto(matcher).within("string_match")?)
            }
            FilterStatePattern::AddressMatch(matcher) => {
                FilterStateValue::Address(AddressMatcher::from_proto(matcher).within("address_match")?)
            }
        };
        Ok(Self { key, value })
    }

    pub fn matches(&self, state: &FilterState) -> bool {
        let Some(text) = state.text(&self.key) else { return false };
        match &self.value {
            FilterStateValue::Text(matcher) => matcher.matches(text),
            FilterStateValue::Address(matcher) => text.parse().is_ok_and(|address| matcher.matches(address)),
        }
    }
}

impl AddressMatcher {
    pub(crate) fn from_proto(message: ProtoAddressMatcher) -> Result<Self> {
        let ProtoAddressMatcher { ranges, invert_match } = message;
        let ranges = field::each(ranges, "ranges", |range| {
            let CidrRange { address_prefix, prefix_len } = range;
            network(&address_prefix, prefix_len.map_or(0, |wrapper| wrapper.value))
        })?;
        Ok(Self { ranges, invert: invert_match })
    }

    pub fn matches(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address)) != self.invert
    }
}

/// Bits beyond the prefix do not count.
pub(crate) fn network(address_prefix: &str, prefix_len: u32) -> Result<IpNet> {
    let address: IpAddr = address_prefix.parse().map_err(|_| FieldError::new("address_prefix", "not an IP address"))?;
    let length = u8::try_from(prefix_len).ok().and_then(|length| IpNet::new(address, length).ok());
    length.map(|network| network.trunc()).ok_or_else(|| FieldError::new("prefix_len", "longer than the address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::metadata::fields_of, config::testing::message, filter_state::FilterObject};

    #[test]
    fn metadata_is_matched_by_value() {
        let mut metadata = Metadata::default();
        metadata.merge("n", fields_of(message("{a: {b: 5}, t: text, l: [1, x], e: null, y: true}")));
        let matches = |path: &str, value: &str| {
            let path: Vec<String> = path.split('.').map(|key| format!("{{key: {key}}}")).collect();
            let yaml = format!("{{filter: n, path: [{}], value: {value}}}", path.join(","));
            MetadataMatcher::from_proto(message(&yaml)).unwrap().matches(&metadata)
        };
        assert!(
            matches("a.b", "{double_match: {exact: 5}}")
                && matches("a.b", "{double_match: {range: {start: 5, end: 6}}}")
        );
        assert!(!matches("a.b", "{double_match: {range: {start: 4, end: 5}}}"));
        assert!(matches("t", "{string_match: {prefix: te}}") && !matches("a", "{string_match: {prefix: te}}"));
        assert!(matches("l", "{list_match: {one_of: {string_match: {exact: x}}}}"));
        assert!(matches("e", "{null_match: {}}") && !matches("none", "{null_match: {}}"));
        assert!(matches("y", "{bool_match: true}") && matches("y", "{present_match: true}"));
        assert!(!matches("none", "{present_match: true}"));
        assert!(matches("t", "{or_match: {value_matchers: [{bool_match: true}, {string_match: {exact: text}}]}}"));
        let inverted = "{filter: n, path: [{key: none}], value: {present_match: true}, invert: true}";
        assert!(MetadataMatcher::from_proto(message(inverted)).unwrap().matches(&metadata));
    }

    #[test]
    fn filter_state_is_matched_as_text_and_as_an_address() {
        let mut state = FilterState::default();
        state.set("k".into(), FilterObject { text: "10.1.2.3".into(), is_read_only: false }).unwrap();
        let matches = |yaml: &str| FilterStateMatcher::from_proto(message(yaml)).unwrap().matches(&state);
        assert!(
            matches("{key: k, string_match: {prefix: '10.'}}") && !matches("{key: j, string_match: {prefix: '10.'}}")
        );
        let ranges = "ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}]";
        assert!(matches(&format!("{{key: k, address_match: {{{ranges}}}}}")));
        assert!(!matches(&format!("{{key: k, address_match: {{{ranges}, invert_match: true}}}}")));
    }
}
