//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`: the filters of a connection manager, and what
//! virtual hosts, routes and weighted clusters set for them in `typed_per_filter_config`.

use std::{collections::HashMap, sync::Arc};

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::route::v3::FilterConfig,
            extensions::filters::{
                http::{
                    basic_auth::v3::{BasicAuth as ProtoBasicAuth, BasicAuthPerRoute},
                    buffer::v3::{Buffer, BufferPerRoute},
                    cors::v3::{Cors, CorsPolicy as ProtoCorsPolicy},
                    csrf::v3::CsrfPolicy as ProtoCsrfPolicy,
                    ext_authz::v3::{ExtAuthz as ProtoExtAuthz, ExtAuthzPerRoute},
                    fault::v3::HttpFault,
                    grpc_web::v3::GrpcWeb,
                    header_mutation::v3::{HeaderMutation as ProtoHeaderMutation, HeaderMutationPerRoute},
                    header_to_metadata::v3::Config as HeaderToMetadataConfig,
                    health_check::v3::HealthCheck as ProtoHealthCheck,
                    jwt_authn::v3::{JwtAuthentication, PerRouteConfig as JwtPerRoute},
                    local_ratelimit::v3::LocalRateLimit as ProtoLocalRateLimit,
                    ratelimit::v3::{RateLimit as ProtoRateLimit, RateLimitPerRoute},
                    rbac::v3::{Rbac as ProtoRbac, RbacPerRoute},
                    router::v3::Router,
                    set_filter_state::v3::Config as SetFilterStateConfig,
                    set_metadata::v3::Config as SetMetadataConfig,
                    stateful_session::v3::{StatefulSession as ProtoStatefulSession, StatefulSessionPerRoute},
                },
                network::http_connection_manager::v3::{HttpFilter as ProtoHttpFilter, http_filter::ConfigType},
            },
        },
        google::protobuf::Any,
    },
};

pub use self::{
    basic_auth::{BasicAuth, Users},
    buffer::BufferOverride,
    cors::CorsPolicy,
    csrf::CsrfPolicy,
    ext_authz::{BodyLimit, ExtAuthz, ExtAuthzOverride, GrpcTarget, HttpService, Service},
    fault::{Abort, AbortStatus, Delay, Fault},
    header_mutation::{HeaderMutations, ParameterMutation},
    header_to_metadata::{HeaderRule, HeaderSource, HeaderToMetadata, MetadataEntry},
    health_check::{CachedAnswer, HealthCheckFilter, HealthCheckMode},
    jwt_authn::{FetchedKeys, JwtAuthn, JwtOverride, Keys, Places, Provider, RemoteKeys, Requirement},
    local_rate_limit::LocalRateLimit,
    rate_limit::{Callers, RateLimit, RateLimitOverride, VirtualHostLimits},
    rbac::{Rbac, RbacOverride},
    router::RouterFilter,
    set_metadata::{FilterStateValue, MetadataValue, SetFilterState, SetMetadata},
    stateful_session::{SessionState, StatefulSession},
};
use crate::config::field::{self, Extension, Result, Within as _, unsupported, without_typed_config};

mod basic_auth;
mod buffer;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_rate_limit;
mod rate_limit;
mod rbac;
mod router;
mod set_metadata;
mod stateful_session;

/// All of a connection manager's.
#[derive(Debug)]
pub struct HttpFilters {
    /// In order, those before the router.
    pub filters: Vec<NamedFilter>,
    /// The last one, which answers.
    pub router: RouterFilter,
}

#[derive(Debug)]
pub struct NamedFilter {
    /// What routes call it by.
    pub name: Arc<str>,
    /// Off, but where a route has something for it.
    pub disabled: bool,
    pub filter: HttpFilter,
}

#[derive(Debug)]
pub enum HttpFilter {
    BasicAuth(BasicAuth),
    Buffer {
        request_bytes_max: u32,
    },
    /// Its policies are the routes'.
    Cors,
    Csrf(CsrfPolicy),
    ExtAuthz(Box<ExtAuthz>),
    Fault(Fault),
    GrpcWeb,
    HeaderMutation {
        mutations: HeaderMutations,
        most_specific_wins: bool,
    },
    HeaderToMetadata(HeaderToMetadata),
    HealthCheck(HealthCheckFilter),
    JwtAuthn(JwtAuthn),
    LocalRateLimit(LocalRateLimit),
    RateLimit(Box<RateLimit>),
    Rbac(Rbac),
    SetFilterState(SetFilterState),
    SetMetadata(SetMetadata),
    StatefulSession(Arc<StatefulSession>),
}

/// What a place in the route table says about filters, by their names.
#[derive(Debug, Default)]
pub struct RouteFilters(HashMap<Arc<str>, RouteFilterConfig>);

#[derive(Debug)]
pub struct RouteFilterConfig {
    pub disabled: bool,
    pub filter: Option<RouteFilter>,
}

#[derive(Debug)]
pub enum RouteFilter {
    BasicAuth(Users),
    Buffer(BufferOverride),
    Cors(CorsPolicy),
    ExtAuthz(ExtAuthzOverride),
    Fault(Fault),
    HeaderMutation(HeaderMutations),
    Csrf(CsrfPolicy),
    HeaderToMetadata(HeaderToMetadata),
    JwtAuthn(JwtOverride),
    LocalRateLimit(LocalRateLimit),
    RateLimit(RateLimitOverride),
    Rbac(RbacOverride),
    /// None: off.
    StatefulSession(Option<Arc<StatefulSession>>),
}

enum Parsed {
    Router(RouterFilter),
    Filter(Box<NamedFilter>),
    /// Not known, and may be left out.
    Skipped,
}

impl HttpFilters {
    /// The router, which must be there, is last. `field`: where they stand.
    pub(crate) fn from_proto(messages: Vec<ProtoHttpFilter>, field: &str) -> Result<Self> {
        let count = messages.len();
        let mut filters = Vec::new();
        let mut router = None;
        for (index, message) in messages.into_iter().enumerate() {
            match Parsed::from_proto(message).at(field, index)? {
                Parsed::Router(_) if index + 1 < count => {
                    let error = FieldError::new("", "the router must be the last filter of its chain");
                    return Err(error).at(field, index);
                }
                Parsed::Router(last) => router = Some(last),
                Parsed::Filter(filter) => filters.push(*filter),
                Parsed::Skipped => {}
            }
        }
        let router = router.ok_or_else(|| FieldError::new(field, "the last filter must be the router"))?;
        Ok(Self { filters, router })
    }

    /// Whether a response is written with what the request said.
    pub fn reads_request(&self) -> bool {
        self.filters.iter().any(|named| {
            matches!(
                named.filter,
                HttpFilter::HeaderMutation { .. } | HttpFilter::LocalRateLimit(_) | HttpFilter::RateLimit(_)
            )
        })
    }
}

impl Parsed {
    fn from_proto(message: ProtoHttpFilter) -> Result<Self> {
        let ProtoHttpFilter { name, is_optional, disabled, config_type } = message;
        let extension = match config_type {
            Some(ConfigType::TypedConfig(typed_config)) => Extension::new(typed_config)?,
            Some(ConfigType::ConfigDiscovery(_)) => return Err(unsupported("config_discovery")),
            None => return Err(without_typed_config()),
        };
        if extension.is::<Router>() {
            if disabled {
                return Err(FieldError::new("disabled", "the router cannot be disabled"));
            }
            return RouterFilter::from_proto(extension.unpack()?).within("typed_config").map(Self::Router);
        }
        match HttpFilter::from_extension(&extension)? {
            Some(filter) => Ok(Self::Filter(Box::new(NamedFilter { name: name.into(), disabled, filter }))),
            None if is_optional => Ok(Self::Skipped),
            None => Err(extension.unsupported()),
        }
    }
}

impl HttpFilter {
    /// None: a filter that is not known.
    fn from_extension(extension: &Extension) -> Result<Option<Self>> {
        Ok(Some(if extension.is::<Cors>() {
            let Cors {} = extension.unpack()?;
            Self::Cors
        } else if extension.is::<GrpcWeb>() {
            let GrpcWeb {} = extension.unpack()?;
            Self::GrpcWeb
        } else if extension.is::<HttpFault>() {
            Self::Fault(Fault::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<Buffer>() {
            Self::Buffer { request_bytes_max: buffer::request_bytes_max(extension.unpack()?).within("typed_config")? }
        } else if extension.is::<ProtoHeaderMutation>() {
            let ProtoHeaderMutation { mutations, most_specific_header_mutations_wins } = extension.unpack()?;
            Self::HeaderMutation {
                mutations: HeaderMutations::from_proto(mutations).within("typed_config.mutations")?,
                most_specific_wins: most_specific_header_mutations_wins,
            }
        } else if extension.is::<ProtoLocalRateLimit>() {
            Self::LocalRateLimit(LocalRateLimit::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoBasicAuth>() {
            Self::BasicAuth(BasicAuth::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoExtAuthz>() {
            Self::ExtAuthz(Box::new(ExtAuthz::from_proto(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<JwtAuthentication>() {
            Self::JwtAuthn(JwtAuthn::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoRbac>() {
            Self::Rbac(Rbac::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoHealthCheck>() {
            Self::HealthCheck(HealthCheckFilter::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoStatefulSession>() {
            Self::StatefulSession(Arc::new(StatefulSession::from_proto(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<ProtoCsrfPolicy>() {
            Self::Csrf(CsrfPolicy::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<HeaderToMetadataConfig>() {
            Self::HeaderToMetadata(HeaderToMetadata::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<ProtoRateLimit>() {
            Self::RateLimit(Box::new(RateLimit::from_proto(extension.unpack()?).within("typed_config")?))
        } else if extension.is::<SetFilterStateConfig>() {
            Self::SetFilterState(SetFilterState::from_proto(extension.unpack()?).within("typed_config")?)
        } else if extension.is::<SetMetadataConfig>() {
            Self::SetMetadata(SetMetadata::from_proto(extension.unpack()?).within("typed_config")?)
        } else {
            return Ok(None);
        }))
    }
}

impl RouteFilters {
    pub(crate) fn from_proto(messages: HashMap<String, Any>) -> Result<Self> {
        let mut filters = HashMap::new();
        for (name, message) in messages {
            let path = format!("typed_per_filter_config[{name}]");
            if let Some(config) = RouteFilterConfig::from_proto(message).within(&path)? {
                filters.insert(name.into(), config);
            }
        }
        Ok(Self(filters))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, name: &str) -> Option<&RouteFilterConfig> {
        self.0.get(name)
    }
}

impl RouteFilterConfig {
    /// None: of a filter that is not known, and may be left out.
    fn from_proto(message: Any) -> Result<Option<Self>> {
        let extension = Extension::new(message)?;
        if !extension.is::<FilterConfig>() {
            let filter = RouteFilter::from_extension(&extension)?.ok_or_else(|| extension.unsupported())?;
            return Ok(Some(Self { disabled: false, filter: Some(filter) }));
        }
        let FilterConfig { config, is_optional, disabled } = extension.unpack()?;
        // An empty one says nothing more than that the filter is on, or off.
        let Some(config) = config.filter(|config| !config.type_url.is_empty()) else {
            return Ok(Some(Self { disabled, filter: None }));
        };
        let extension = Extension::new(config).within("config")?;
        match RouteFilter::from_extension(&extension).within("config")? {
            Some(filter) => Ok(Some(Self { disabled, filter: Some(filter) })),
            None if is_optional => Ok(None),
            None => Err(extension.unsupported()).within("config"),
        }
    }
}

impl RouteFilter {
    fn from_extension(extension: &Extension) -> Result<Option<Self>> {
        Ok(Some(if extension.is::<ProtoCorsPolicy>() {
            Self::Cors(CorsPolicy::from_proto(extension.unpack()?)?)
        } else if extension.is::<HttpFault>() {
            Self::Fault(Fault::from_proto(extension.unpack()?)?)
        } else if extension.is::<BufferPerRoute>() {
            Self::Buffer(BufferOverride::from_proto(extension.unpack()?)?)
        } else if extension.is::<HeaderMutationPerRoute>() {
            let HeaderMutationPerRoute { mutations } = extension.unpack()?;
            Self::HeaderMutation(HeaderMutations::from_proto(mutations).within("mutations")?)
        } else if extension.is::<ProtoLocalRateLimit>() {
            let message: ProtoLocalRateLimit = extension.unpack()?;
            field::required(message.token_bucket.as_ref(), "token_bucket")?;
            Self::LocalRateLimit(LocalRateLimit::from_proto(message)?)
        } else if extension.is::<BasicAuthPerRoute>() {
            Self::BasicAuth(BasicAuth::of_route(extension.unpack()?)?)
        } else if extension.is::<ExtAuthzPerRoute>() {
            Self::ExtAuthz(ExtAuthzOverride::from_proto(extension.unpack()?)?)
        } else if extension.is::<JwtPerRoute>() {
            Self::JwtAuthn(JwtOverride::from_proto(extension.unpack()?)?)
        } else if extension.is::<RbacPerRoute>() {
            Self::Rbac(Rbac::of_route(extension.unpack()?)?)
        } else if extension.is::<StatefulSessionPerRoute>() {
            Self::StatefulSession(StatefulSession::from_override(extension.unpack()?)?)
        } else if extension.is::<ProtoCsrfPolicy>() {
            Self::Csrf(CsrfPolicy::from_proto(extension.unpack()?)?)
        } else if extension.is::<HeaderToMetadataConfig>() {
            Self::HeaderToMetadata(HeaderToMetadata::from_proto(extension.unpack()?)?)
        } else if extension.is::<RateLimitPerRoute>() {
            Self::RateLimit(RateLimitOverride::from_proto(extension.unpack()?)?)
        } else {
            return Ok(None);
        }))
    }
}

#[cfg(test)]
mod tests;
