//! `envoy.config.route.v3.RouteMatch`: which requests a route is for.

use weft_xds::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        route::v3::{
            CookieMatcher as ProtoCookieMatcher, QueryParameterMatcher as ProtoQueryParameterMatcher,
            RouteMatch as ProtoRouteMatch,
            query_parameter_matcher::QueryParameterMatchSpecifier,
            route_match::{ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier, TlsContextMatchOptions},
        },
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
};

use super::UriTemplate;
use crate::config::{
    field::{self, Extension, Result, Within as _, required},
    fraction::Fraction,
    matcher::{self, HeaderMatcher, StringMatcher},
    value_matcher::{FilterStateMatcher, MetadataMatcher},
};

#[derive(Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// Only meaningful for prefix and exact paths.
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    pub query_parameters: Vec<QueryParameterMatcher>,
    pub cookies: Vec<CookieMatcher>,
    /// How often it matches at all.
    pub share: Fraction,
    /// Content type `application/grpc` or `application/grpc+...`.
    pub grpc: bool,
    /// What the rest of it looks at is known of few requests.
    pub tls_context: Option<TlsContextMatch>,
    pub dynamic_metadata: Vec<MetadataMatcher>,
    pub filter_state: Vec<FilterStateMatcher>,
}

/// Whether the caller has shown a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsContextMatch {
    pub presented: Option<bool>,
    pub validated: Option<bool>,
}

#[derive(Debug)]
pub enum PathMatch {
    Prefix(String),
    Exact(String),
    /// Without a trailing slash; matches itself and what follows a slash.
    PathSeparatedPrefix(String),
    /// Matches the whole path, without the query.
    SafeRegex(regex::Regex),
    Template(UriTemplate),
    /// CONNECT, which has no path (RFC 9110 section 9.3.6).
    Connect,
}

#[derive(Debug)]
pub struct QueryParameterMatcher {
    pub name: String,
    pub value: QueryParameterValue,
}

#[derive(Debug)]
pub struct CookieMatcher {
    pub name: String,
    pub value: StringMatcher,
    pub invert_match: bool,
}

#[derive(Debug)]
pub enum QueryParameterValue {
    Present(bool),
    Match(StringMatcher),
}

impl RouteMatch {
    pub(super) fn of_prefix(prefix: String) -> Self {
        Self {
            path: PathMatch::Prefix(prefix),
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            cookies: Vec::new(),
            share: Fraction::ALWAYS,
            grpc: false,
            tls_context: None,
            dynamic_metadata: Vec::new(),
            filter_state: Vec::new(),
        }
    }

    pub(crate) fn from_proto(message: ProtoRouteMatch) -> Result<Self> {
        let ProtoRouteMatch {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = message;
        Ok(Self {
            path: path_match(required(path_specifier, "path_specifier")?)?,
            case_sensitive: field::bool_or(case_sensitive, true),
            headers: field::each(headers, "headers", HeaderMatcher::from_proto)?,
            query_parameters: field::each(query_parameters, "query_parameters", QueryParameterMatcher::from_proto)?,
            cookies: field::each(cookies, "cookies", CookieMatcher::from_proto)?,
            share: match runtime_fraction {
                None => Fraction::ALWAYS,
                Some(share) => Fraction::from_runtime(share).within("runtime_fraction")?,
            },
            grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
            tls_context: tls_context.map(TlsContextMatch::from_proto),
            dynamic_metadata: field::each(dynamic_metadata, "dynamic_metadata", MetadataMatcher::from_proto)?,
            filter_state: field::each(filter_state, "filter_state", FilterStateMatcher::from_proto)?,
        })
    }
}

fn path_match(specifier: PathSpecifier) -> Result<PathMatch> {
    Ok(match specifier {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix),
        PathSpecifier::Path(path) => PathMatch::Exact(path),
        PathSpecifier::PathSeparatedPrefix(prefix) => PathMatch::PathSeparatedPrefix(prefix),
        PathSpecifier::SafeRegex(message) => PathMatch::SafeRegex(matcher::regex(message).within("safe_regex")?),
        PathSpecifier::ConnectMatcher(ConnectMatcher {}) => PathMatch::Connect,
        PathSpecifier::PathMatchPolicy(message) => {
            PathMatch::Template(path_match_policy(message).within("path_match_policy")?)
        }
    })
}

fn path_match_policy(message: TypedExtensionConfig) -> Result<UriTemplate> {
    let TypedExtensionConfig { name: _, typed_config } = message; // the type alone says which
    let extension = Extension::new(required(typed_config, "typed_config")?)?;
    if !extension.is::<UriTemplateMatchConfig>() {
        return Err(extension.unsupported());
    }
    let UriTemplateMatchConfig { path_template } = extension.unpack()?;
    UriTemplate::parse(&path_template).within("typed_config")
}

impl TlsContextMatch {
    fn from_proto(message: TlsContextMatchOptions) -> Self {
        let TlsContextMatchOptions { presented, validated } = message;
        Self { presented: presented.map(|wrapper| wrapper.value), validated: validated.map(|wrapper| wrapper.value) }
    }
}

impl QueryParameterMatcher {
    pub(crate) fn from_proto(message: ProtoQueryParameterMatcher) -> Result<Self> {
        let ProtoQueryParameterMatcher { name, query_parameter_match_specifier } = message;
        let value = match query_parameter_match_specifier {
            None => QueryParameterValue::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryParameterValue::Present(present),
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                QueryParameterValue::Match(StringMatcher::from_proto(matcher).within("string_match")?)
            }
        };
        Ok(Self { name, value })
    }
}

impl CookieMatcher {
    fn from_proto(message: ProtoCookieMatcher) -> Result<Self> {
        let ProtoCookieMatcher { name, string_match, invert_match } = message;
        let value = StringMatcher::from_proto(required(string_match, "string_match")?).within("string_match")?;
        Ok(Self { name, value, invert_match })
    }
}
