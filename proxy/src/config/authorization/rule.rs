//! `Permission` and `Principal`: predicates over a connection and its request. Both are made of the same kinds.

use ipnet::IpNet;
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            rbac::v3::{
                MetadataSource as ProtoMetadataSource, Permission, Principal, SourcedMetadata, permission,
                permission::Rule as ProtoRule, principal, principal::Identifier,
            },
        },
        extensions::{
            path::r#match::uri_template::v3::UriTemplateMatchConfig,
            rbac::principals::mtls_authenticated::v3::Config as MtlsAuthenticated,
        },
        r#type::{
            matcher::v3::{MetadataMatcher as ProtoMetadataMatcher, PathMatcher, path_matcher},
            v3::Int32Range,
        },
    },
};

use super::check_depth;
use crate::config::{
    address::network,
    field::{self, Extension, Result, Within as _, required, without_typed_config},
    matcher::{HeaderMatcher, StringMatcher},
    route::UriTemplate,
    tls::SubjectAltNameMatcher,
    value_matcher::{FilterStateMatcher, MetadataMatcher},
};

#[derive(Debug)]
pub enum Rule {
    Any,
    All(Vec<Rule>),
    OneOf(Vec<Rule>),
    Not(Box<Rule>),
    Header(HeaderMatcher),
    /// Without the query.
    Path(StringMatcher),
    UriTemplate(UriTemplate),
    Address(AddressOf, IpNet),
    DestinationPort(u16),
    /// Half-open.
    DestinationPorts {
        start: u32,
        end: u32,
    },
    ServerName(StringMatcher),
    Metadata(MetadataSource, MetadataMatcher),
    FilterState(FilterStateMatcher),
    /// TLS; with a matcher, one of the names of the peer's certificate.
    Authenticated(Option<StringMatcher>),
    /// A client certificate that somebody who is trusted vouches for; with a matcher, with one of these names.
    MtlsAuthenticated(Option<SubjectAltNameMatcher>),
}

/// Whose address is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOf {
    Destination,
    /// Of the connection, as the PROXY protocol may have told.
    Source,
    /// The peer's own.
    DirectRemote,
    /// Whose request it is, as trusted proxies may have told.
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    /// What filters have left.
    Dynamic,
    /// Of the route.
    Route,
}

impl Rule {
    pub(super) fn of_permission(message: Permission) -> Result<Self> {
        Self::nested_permission(message, 0)
    }

    pub(super) fn of_principal(message: Principal) -> Result<Self> {
        Self::nested_principal(message, 0)
    }

    #[expect(deprecated, reason = "control planes still send it")]
    fn nested_permission(message: Permission, depth: u32) -> Result<Self> {
        check_depth(depth)?;
        let each = |set: permission::Set, path: &str| {
            let permission::Set { rules } = set;
            let nested = |message| Self::nested_permission(message, depth + 1);
            field::each(rules, "rules", nested).within(path)
        };
        Ok(match required(message.rule, "rule")? {
            ProtoRule::AndRules(set) => Self::All(each(set, "and_rules")?),
            ProtoRule::OrRules(set) => Self::OneOf(each(set, "or_rules")?),
            ProtoRule::NotRule(rule) => {
                Self::Not(Box::new(Self::nested_permission(*rule, depth + 1).within("not_rule")?))
            }
            ProtoRule::Any(_) => Self::Any,
            ProtoRule::Header(matcher) => Self::Header(HeaderMatcher::from_proto(matcher).within("header")?),
            ProtoRule::UrlPath(matcher) => Self::path(matcher).within("url_path")?,
            ProtoRule::UriTemplate(config) => Self::uri_template(config).within("uri_template")?,
            ProtoRule::DestinationIp(range) => {
                Self::Address(AddressOf::Destination, network(range).within("destination_ip")?)
            }
            ProtoRule::DestinationPort(port) => Self::DestinationPort(field::port(port, "destination_port")?),
            ProtoRule::DestinationPortRange(range) => ports(range).within("destination_port_range")?,
            ProtoRule::Metadata(matcher) => Self::metadata(MetadataSource::Dynamic, matcher).within("metadata")?,
            ProtoRule::SourcedMetadata(sourced) => Self::sourced_metadata(sourced).within("sourced_metadata")?,
            ProtoRule::RequestedServerName(matcher) => {
                Self::ServerName(StringMatcher::from_proto(matcher).within("requested_server_name")?)
            }
            ProtoRule::Matcher(config) => {
                return Err(extension(config).within("matcher")?.unsupported().within("matcher"));
            }
        })
    }

    #[expect(deprecated, reason = "control planes still send them")]
    fn nested_principal(message: Principal, depth: u32) -> Result<Self> {
        check_depth(depth)?;
        let each = |set: principal::Set, path: &str| {
            let principal::Set { ids } = set;
            field::each(ids, "ids", |message| Self::nested_principal(message, depth + 1)).within(path)
        };
        let address = |of, range, path| Ok::<_, FieldError>(Self::Address(of, network(range).within(path)?));
        Ok(match required(message.identifier, "identifier")? {
            Identifier::AndIds(set) => Self::All(each(set, "and_ids")?),
            Identifier::OrIds(set) => Self::OneOf(each(set, "or_ids")?),
            Identifier::NotId(id) => Self::Not(Box::new(Self::nested_principal(*id, depth + 1).within("not_id")?)),
            Identifier::Any(_) => Self::Any,
            Identifier::Authenticated(principal::Authenticated { principal_name }) => {
                let name = principal_name.map(StringMatcher::from_proto).transpose();
                Self::Authenticated(name.within("authenticated.principal_name")?)
            }
            Identifier::SourceIp(range) => address(AddressOf::Source, range, "source_ip")?,
            Identifier::DirectRemoteIp(range) => address(AddressOf::DirectRemote, range, "direct_remote_ip")?,
            Identifier::RemoteIp(range) => address(AddressOf::Remote, range, "remote_ip")?,
            Identifier::Header(matcher) => Self::Header(HeaderMatcher::from_proto(matcher).within("header")?),
            Identifier::UrlPath(matcher) => Self::path(matcher).within("url_path")?,
            Identifier::Metadata(matcher) => Self::metadata(MetadataSource::Dynamic, matcher).within("metadata")?,
            Identifier::SourcedMetadata(sourced) => Self::sourced_metadata(sourced).within("sourced_metadata")?,
            Identifier::FilterState(matcher) => {
                Self::FilterState(FilterStateMatcher::from_proto(matcher).within("filter_state")?)
            }
            Identifier::Custom(config) => Self::custom(config).within("custom")?,
        })
    }

    fn path(message: PathMatcher) -> Result<Self> {
        let path_matcher::Rule::Path(matcher) = required(message.rule, "rule")?;
        Ok(Self::Path(StringMatcher::from_proto(matcher).within("path")?))
    }

    fn uri_template(message: TypedExtensionConfig) -> Result<Self> {
        let extension = extension(message)?;
        if !extension.is::<UriTemplateMatchConfig>() {
            return Err(extension.unsupported());
        }
        let UriTemplateMatchConfig { path_template } = extension.unpack()?;
        Ok(Self::UriTemplate(UriTemplate::parse(&path_template).within("typed_config.path_template")?))
    }

    fn metadata(source: MetadataSource, message: ProtoMetadataMatcher) -> Result<Self> {
        Ok(Self::Metadata(source, MetadataMatcher::from_proto(message)?))
    }

    fn sourced_metadata(message: SourcedMetadata) -> Result<Self> {
        let SourcedMetadata { metadata_matcher, metadata_source } = message;
        let source = match field::enumeration(metadata_source, "metadata_source")? {
            ProtoMetadataSource::Dynamic => MetadataSource::Dynamic,
            ProtoMetadataSource::Route => MetadataSource::Route,
        };
        Self::metadata(source, required(metadata_matcher, "metadata_matcher")?).within("metadata_matcher")
    }

    fn custom(message: TypedExtensionConfig) -> Result<Self> {
        let extension = extension(message)?;
        if !extension.is::<MtlsAuthenticated>() {
            return Err(extension.unsupported());
        }
        let MtlsAuthenticated { san_matcher, any_validated_client_certificate } = extension.unpack()?;
        let matcher = san_matcher.map(SubjectAltNameMatcher::from_proto).transpose();
        let matcher = matcher.within("typed_config.san_matcher")?;
        if matcher.is_some() == any_validated_client_certificate {
            let reason = "one of san_matcher and any_validated_client_certificate is required";
            return Err(FieldError::new("typed_config", reason));
        }
        Ok(Self::MtlsAuthenticated(matcher))
    }
}

fn extension(message: TypedExtensionConfig) -> Result<Extension> {
    let TypedExtensionConfig { name: _, typed_config } = message; // the type alone says which
    Extension::new(typed_config.ok_or_else(without_typed_config)?)
}

fn ports(message: Int32Range) -> Result<Rule> {
    const END_MAX: u32 = 65536;
    let Int32Range { start, end } = message;
    let bound = |value: i32, path: &str| {
        let bound = u32::try_from(value).ok().filter(|value| *value <= END_MAX);
        bound.ok_or_else(|| FieldError::new(path, format!("range {path} {value} is out of bounds")))
    };
    let (start, end) = (bound(start, "start")?, bound(end, "end")?);
    if start >= end {
        let reason = format!("range start {start} cannot be greater or equal than range end {end}");
        return Err(FieldError::new("start", reason));
    }
    Ok(Rule::DestinationPorts { start, end })
}
