//! `envoy.config.route.v3.RateLimit`: by what of a request its rate is limited. Where routes and filters have such a list.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::{
            RateLimit as ProtoRateLimit,
            rate_limit::{
                Action as ProtoAction, HitsAddend as ProtoHitsAddend, Override,
                action::{
                    ActionSpecifier, GenericKey, HeaderValueMatch, MaskedRemoteAddress, MetaData,
                    QueryParameterValueMatch, QueryParameters, RemoteAddressMatch, RequestHeaders, meta_data::Source,
                },
                r#override::{OverrideSpecifier, RateLimitOverride},
            },
        },
        r#type::metadata::v3::{MetadataKey, metadata_key::path_segment::Segment},
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required, unsupported},
    matcher::{HeaderMatcher, HeaderMatcherName},
    route::QueryParameterMatcher,
    substitution::{self, Operator},
    value_matcher::AddressMatcher,
};

/// What becomes one descriptor, if all of its actions find what they look for.
#[derive(Debug)]
pub struct RateLimitEntry {
    /// Filters of this stage look at it. None: it is a filter's own.
    pub stage: Option<u32>,
    pub actions: Vec<RateLimitAction>,
    /// In the place of the service's own.
    pub limit: Option<LimitOverride>,
    pub hits: Option<Hits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOverride {
    pub requests_per_unit: u32,
    /// As in `envoy.type.v3.RateLimitUnit`.
    pub unit: i32,
}

/// How much a request counts.
#[derive(Debug)]
pub enum Hits {
    Number(u64),
    Format(Vec<Operator>),
}

#[derive(Debug)]
pub enum RateLimitAction {
    SourceCluster,
    DestinationCluster,
    RequestHeader { name: HeaderMatcherName, key: String, skips: bool },
    QueryParameter { name: String, key: String, skips: bool },
    RemoteAddress,
    MaskedRemoteAddress { v4_bits: u8, v6_bits: u8 },
    GenericKey { key: String, value: DescriptorValue },
    HeaderMatch { key: String, value: DescriptorValue, expects: bool, headers: Vec<HeaderMatcher> },
    QueryMatch { key: String, value: DescriptorValue, expects: bool, parameters: Vec<QueryParameterMatcher> },
    RemoteAddressMatch { key: String, value: DescriptorValue, matcher: AddressMatcher },
    Metadata { key: String, namespace: String, path: Vec<String>, default: String, skips: bool, of_route: bool },
}

/// Written by a format; where that gives nothing, the default.
#[derive(Debug)]
pub struct DescriptorValue {
    pub format: Vec<Operator>,
    pub default: String,
}

impl RateLimitEntry {
    pub(crate) fn from_proto(message: ProtoRateLimit) -> Result<Self> {
        let ProtoRateLimit {
            stage,
            disable_key: _, // a key of a runtime that is not there to disable anything
            actions,
            limit,
            hits_addend,
            apply_on_stream_done,
            x_ratelimit_option,
        } = message;
        refuse!(apply_on_stream_done, x_ratelimit_option);
        Ok(Self {
            stage: Some(field::u32_or(stage, 0)),
            actions: field::each(actions, "actions", RateLimitAction::from_proto)?,
            limit: limit.map(limit_override).transpose().within("limit")?,
            hits: hits_addend.map(hits).transpose().within("hits_addend")?,
        })
    }
}

impl RateLimitEntry {
    /// Of a list that a filter has itself, or a place in the route table for it.
    pub(crate) fn of_filter(message: ProtoRateLimit) -> Result<Self> {
        if message.stage.is_some() || !message.disable_key.is_empty() {
            return Err(FieldError::new("stage", "'stage' field and 'disable_key' field are not supported"));
        }
        Ok(Self { stage: None, ..Self::from_proto(message)? })
    }
}

fn limit_override(message: Override) -> Result<LimitOverride> {
    match required(message.override_specifier, "override_specifier")? {
        OverrideSpecifier::RateLimit(RateLimitOverride { requests_per_unit, unit }) => {
            Ok(LimitOverride { requests_per_unit, unit })
        }
        OverrideSpecifier::DynamicMetadata(_) => Err(unsupported("dynamic_metadata")),
    }
}

fn hits(message: ProtoHitsAddend) -> Result<Hits> {
    let ProtoHitsAddend { number, format, is_negative_hits } = message;
    refuse!(is_negative_hits);
    match number {
        Some(number) => Ok(Hits::Number(number.value)),
        None => substitution::parse(&format).within("format").map(Hits::Format),
    }
}

impl DescriptorValue {
    fn new(format: &str, default: String) -> Result<Self> {
        Ok(Self { format: substitution::parse(format).within("descriptor_value")?, default })
    }
}

impl RateLimitAction {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoAction) -> Result<Self> {
        let ProtoAction { action_specifier } = message;
        match required(action_specifier, "action_specifier")? {
            ActionSpecifier::SourceCluster(_) => Ok(Self::SourceCluster),
            ActionSpecifier::DestinationCluster(_) => Ok(Self::DestinationCluster),
            ActionSpecifier::RemoteAddress(_) => Ok(Self::RemoteAddress),
            ActionSpecifier::RequestHeaders(RequestHeaders { header_name, descriptor_key, skip_if_absent }) => {
                let name = HeaderMatcherName::parse(&header_name)
                    .ok_or_else(|| FieldError::new("request_headers.header_name", "not a header name"))?;
                Ok(Self::RequestHeader { name, key: descriptor_key, skips: skip_if_absent })
            }
            ActionSpecifier::QueryParameters(QueryParameters {
                query_parameter_name,
                descriptor_key,
                skip_if_absent,
            }) => Ok(Self::QueryParameter { name: query_parameter_name, key: descriptor_key, skips: skip_if_absent }),
            ActionSpecifier::MaskedRemoteAddress(MaskedRemoteAddress { v4_prefix_mask_len, v6_prefix_mask_len }) => {
                let v4_bits = field::u32_or(v4_prefix_mask_len, 32).min(32) as u8;
                Ok(Self::MaskedRemoteAddress {
                    v4_bits,
                    v6_bits: field::u32_or(v6_prefix_mask_len, 128).min(128) as u8,
                })
            }
            ActionSpecifier::GenericKey(GenericKey { descriptor_value, default_value, descriptor_key }) => {
                let value = DescriptorValue::new(&descriptor_value, default_value).within("generic_key")?;
                Ok(Self::GenericKey { key: or(descriptor_key, "generic_key"), value })
            }
            ActionSpecifier::HeaderValueMatch(message) => header_match(message).within("header_value_match"),
            ActionSpecifier::QueryParameterValueMatch(message) => {
                query_match(message).within("query_parameter_value_match")
            }
            ActionSpecifier::RemoteAddressMatch(message) => address_match(message).within("remote_address_match"),
            ActionSpecifier::Metadata(message) => metadata(message).within("metadata"),
            ActionSpecifier::DynamicMetadata(_) => Err(unsupported("dynamic_metadata")),
            ActionSpecifier::Extension(_) => Err(unsupported("extension")),
        }
    }
}

fn header_match(message: HeaderValueMatch) -> Result<RateLimitAction> {
    let HeaderValueMatch { descriptor_value, default_value, descriptor_key, expect_match, headers } = message;
    Ok(RateLimitAction::HeaderMatch {
        key: or(descriptor_key, "header_match"),
        value: DescriptorValue::new(&descriptor_value, default_value)?,
        expects: field::bool_or(expect_match, true),
        headers: field::each(headers, "headers", HeaderMatcher::from_proto)?,
    })
}

fn query_match(message: QueryParameterValueMatch) -> Result<RateLimitAction> {
    let QueryParameterValueMatch { descriptor_value, default_value, descriptor_key, expect_match, query_parameters } =
        message;
    Ok(RateLimitAction::QueryMatch {
        key: or(descriptor_key, "query_match"),
        value: DescriptorValue::new(&descriptor_value, default_value)?,
        expects: field::bool_or(expect_match, true),
        parameters: field::each(query_parameters, "query_parameters", QueryParameterMatcher::from_proto)?,
    })
}

fn address_match(message: RemoteAddressMatch) -> Result<RateLimitAction> {
    let RemoteAddressMatch { descriptor_value, descriptor_key, default_value, address_matcher } = message;
    let matcher = required(address_matcher, "address_matcher")?;
    Ok(RateLimitAction::RemoteAddressMatch {
        key: or(descriptor_key, "remote_address_match"),
        value: DescriptorValue::new(&descriptor_value, default_value)?,
        matcher: AddressMatcher::from_proto(matcher).within("address_matcher")?,
    })
}

fn metadata(message: MetaData) -> Result<RateLimitAction> {
    let MetaData { descriptor_key, metadata_key, default_value, source, skip_if_absent } = message;
    let of_route = match field::enumeration(source, "source")? {
        Source::Dynamic => false,
        Source::RouteEntry => true,
        Source::ClusterEntry => return Err(FieldError::new("source", "CLUSTER_ENTRY is not supported")),
        Source::ClusterLocalityEntry => {
            return Err(FieldError::new("source", "CLUSTER_LOCALITY_ENTRY is not supported"));
        }
    };
    let MetadataKey { key: namespace, path } = required(metadata_key, "metadata_key")?;
    let path = field::each(path, "metadata_key.path", |segment| match required(segment.segment, "segment")? {
        Segment::Key(key) => Ok(key),
        Segment::Index(_) => Err(unsupported("index")),
    })?;
    let (key, default) = (descriptor_key, default_value);
    Ok(RateLimitAction::Metadata { key, namespace, path, default, skips: skip_if_absent, of_route })
}

fn or(key: String, default: &str) -> String {
    if key.is_empty() { default.to_owned() } else { key }
}
