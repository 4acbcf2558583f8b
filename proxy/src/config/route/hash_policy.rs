//! `hash_policy` of a route: what of a request becomes the number that ring hash and maglev go by.

use std::time::Duration;

use http::HeaderName;
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::route_action::{
            HashPolicy as ProtoHashPolicy,
            hash_policy::{
                ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier, QueryParameter,
            },
        },
        r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher},
    },
};

use crate::config::field::{self, Result, Within as _, required};

#[derive(Debug)]
pub struct HashPolicy {
    pub source: HashSource,
    /// Once there is a hash, the policies after this one are not looked at.
    pub terminal: bool,
}

#[derive(Debug)]
pub enum HashSource {
    Header {
        name: HashedHeader,
        /// Applied to each value: what is found, and what stands in its place.
        rewrite: Option<(regex::Regex, String)>,
    },
    Cookie(HashCookie),
    SourceIp,
    QueryParameter(String),
    FilterState(String),
    /// Asks for nothing, and so gives nothing.
    Nothing,
}

#[derive(Debug)]
pub enum HashedHeader {
    Named(HeaderName),
    Authority,
    Path,
    Method,
}

#[derive(Debug)]
pub struct HashCookie {
    pub name: String,
    /// There: who comes without the cookie is given one for so long; 0: until the browser ends.
    pub ttl: Option<Duration>,
    pub path: String,
    /// Names and values that go with it.
    pub attributes: Vec<(String, String)>,
}

impl HashPolicy {
    pub(super) fn from_proto(message: ProtoHashPolicy) -> Result<Self> {
        let ProtoHashPolicy { terminal, policy_specifier } = message;
        let source = match required(policy_specifier, "policy_specifier")? {
            PolicySpecifier::Header(message) => header(message).within("header")?,
            PolicySpecifier::Cookie(message) => cookie(message).within("cookie").map(HashSource::Cookie)?,
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }) => HashSource::SourceIp,
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false }) => HashSource::Nothing,
            PolicySpecifier::QueryParameter(QueryParameter { name }) => HashSource::QueryParameter(name),
            PolicySpecifier::FilterState(FilterState { key }) => HashSource::FilterState(key),
        };
        Ok(Self { source, terminal })
    }
}

fn header(message: Header) -> Result<HashSource> {
    let Header { header_name, regex_rewrite } = message;
    let name = match &*header_name {
        ":authority" | "host" => HashedHeader::Authority,
        ":path" => HashedHeader::Path,
        ":method" => HashedHeader::Method,
        name => HashedHeader::Named(
            HeaderName::try_from(name).map_err(|_| FieldError::new("header_name", "not a valid header name"))?,
        ),
    };
    let rewrite = regex_rewrite.map(rewrite).transpose().within("regex_rewrite")?;
    Ok(HashSource::Header { name, rewrite })
}

fn rewrite(message: RegexMatchAndSubstitute) -> Result<(regex::Regex, String)> {
    let RegexMatchAndSubstitute { pattern, substitution } = message;
    let RegexMatcher {
        regex,
        engine_type: _, // there is one
    } = required(pattern, "pattern")?;
    let found = regex::Regex::new(&regex).map_err(|error| FieldError::new("pattern.regex", error.to_string()))?;
    // RE2 writes groups as \1, the regex crate as ${1}.
    let mut replacement = String::with_capacity(substitution.len());
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => replacement.push_str("$$"),
            '\\' => match characters.next() {
                Some('\\') => replacement.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    replacement.push_str(&format!("${{{digit}}}"));
                }
                _ => return Err(FieldError::new("substitution", "a backslash stands before a digit or a backslash")),
            },
            other => replacement.push(other),
        }
    }
    Ok((found, replacement))
}

fn cookie(message: Cookie) -> Result<HashCookie> {
    let Cookie { name, ttl, path, attributes } = message;
    let attributes = attributes.into_iter().map(|CookieAttribute { name, value }| (name, value)).collect();
    Ok(HashCookie { name, ttl: field::duration(ttl, "ttl")?, path, attributes })
}
