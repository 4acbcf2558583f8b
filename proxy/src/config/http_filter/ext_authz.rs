//! `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz`: a service that is asked whether a request may go on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{
            GrpcService, HeaderValue as ProtoHeaderValue, HttpUri, RuntimeFeatureFlag, grpc_service::TargetSpecifier,
            http_uri::HttpUpstreamType,
        },
        extensions::filters::http::ext_authz::v3::{
            AuthorizationRequest, AuthorizationResponse, BufferSettings, CheckSettings, ExtAuthz as ProtoExtAuthz,
            ExtAuthzPerRoute, HttpService as ProtoHttpService, ext_authz::Services, ext_authz_per_route::Override,
        },
        r#type::{matcher::v3::ListStringMatcher, v3::HttpStatus},
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse, required, unsupported},
    fraction::Fraction,
    matcher::StringMatcher,
};

#[derive(Debug)]
pub struct ExtAuthz {
    pub service: Service,
    /// Where the service cannot be asked requests go on.
    pub failure_mode_allow: bool,
    /// And say so.
    pub adds_failure_header: bool,
    pub body: Option<BodyLimit>,
    pub status_on_error: StatusCode,
    pub metadata_namespaces: Vec<String>,
    pub enabled: Fraction,
    /// Requests that the service is not asked about are refused.
    pub deny_at_disable: bool,
    pub include_peer_certificate: bool,
    pub include_tls_session: bool,
    pub stat_prefix: Arc<str>,
    /// Of the request, what the service is told. None: what its kind is told by default.
    pub allowed_headers: Option<Vec<StringMatcher>>,
    pub disallowed_headers: Vec<StringMatcher>,
    /// What the service says becomes metadata.
    pub takes_metadata: bool,
    /// An answer that asks for headers which are none refuses the request.
    pub validates_mutations: bool,
}

#[derive(Debug)]
pub enum Service {
    Grpc(GrpcTarget),
    Http(Box<HttpService>),
}

#[derive(Debug)]
pub struct GrpcTarget {
    pub cluster: Arc<str>,
    pub timeout: Option<Duration>,
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
pub struct HttpService {
    pub cluster: Arc<str>,
    pub timeout: Duration,
    pub path_prefix: String,
    pub path_override: String,
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    /// Of the answer, what the application is told, in the place of what it was told or besides.
    pub allowed_upstream: Vec<StringMatcher>,
    pub allowed_upstream_to_append: Vec<StringMatcher>,
    /// What callers are told of a refusal. None: everything.
    pub allowed_client: Option<Vec<StringMatcher>>,
    pub allowed_client_on_success: Vec<StringMatcher>,
    pub metadata_from: Vec<StringMatcher>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    pub bytes_max: usize,
    /// More than that is not told, and no reason to refuse.
    pub allows_partial: bool,
    pub as_bytes: bool,
}

/// What a route says.
#[derive(Debug)]
pub enum ExtAuthzOverride {
    Disabled,
    Settings {
        context: BTreeMap<String, String>,
        /// Some(None): no body is told.
        body: Option<Option<BodyLimit>>,
    },
}

const STATUS_ON_ERROR: StatusCode = StatusCode::FORBIDDEN;
/// Envoy's.
const GRPC_TIMEOUT: Duration = Duration::from_millis(200);

impl ExtAuthz {
    pub(super) fn from_proto(message: ProtoExtAuthz) -> Result<Self> {
        let ProtoExtAuthz {
            services,
            transport_api_version: _, // there is one
            failure_mode_allow,
            failure_mode_allow_header_add,
            with_request_body,
            clear_route_cache,
            status_on_error,
            validate_mutations,
            metadata_context_namespaces,
            typed_metadata_context_namespaces,
            route_metadata_context_namespaces,
            route_typed_metadata_context_namespaces,
            filter_enabled,
            filter_enabled_metadata,
            deny_at_disable,
            include_peer_certificate,
            stat_prefix,
            bootstrap_metadata_labels_key,
            allowed_headers,
            disallowed_headers,
            include_tls_session,
            charge_cluster_response_stats: _, // refusals are counted here, and never as answers of a cluster
            encode_raw_headers,
            decoder_header_mutation_rules,
            enable_dynamic_metadata_ingestion,
            filter_metadata,
            emit_filter_state_stats,
            max_denied_response_body_bytes,
            enforce_response_header_limits,
            shadow_mode,
            emit_client_span: _, // nothing is traced
        } = message;
        refuse!(clear_route_cache, typed_metadata_context_namespaces, route_metadata_context_namespaces);
        refuse!(route_typed_metadata_context_namespaces, filter_enabled_metadata, bootstrap_metadata_labels_key);
        refuse!(encode_raw_headers, decoder_header_mutation_rules, filter_metadata, emit_filter_state_stats);
        refuse!(max_denied_response_body_bytes, enforce_response_header_limits, shadow_mode);
        let list = |list: Option<ListStringMatcher>, path| list.map(matchers).transpose().within(path);
        Ok(Self {
            service: match required(services, "services")? {
                Services::GrpcService(message) => {
                    Service::Grpc(GrpcTarget::from_proto(message).within("grpc_service")?)
                }
                Services::HttpService(message) => {
                    Service::Http(Box::new(HttpService::from_proto(message).within("http_service")?))
                }
            },
            failure_mode_allow,
            adds_failure_header: failure_mode_allow_header_add,
            body: with_request_body.map(BodyLimit::from_proto),
            status_on_error: status_on_error.map_or(Ok(STATUS_ON_ERROR), status).within("status_on_error")?,
            metadata_namespaces: metadata_context_namespaces,
            enabled: match filter_enabled {
                None => Fraction::ALWAYS,
                Some(share) => Fraction::from_runtime(share).within("filter_enabled")?,
            },
            deny_at_disable: deny_at_disable.is_some_and(flag),
            include_peer_certificate,
            include_tls_session,
            stat_prefix: stat_prefix.into(),
            allowed_headers: list(allowed_headers, "allowed_headers")?,
            disallowed_headers: list(disallowed_headers, "disallowed_headers")?.unwrap_or_default(),
            takes_metadata: field::bool_or(enable_dynamic_metadata_ingestion, true),
            validates_mutations: validate_mutations,
        })
    }
}

/// No runtime holds the key.
fn flag(message: RuntimeFeatureFlag) -> bool {
    let RuntimeFeatureFlag { default_value, runtime_key: _ } = message;
    field::bool_or(default_value, false)
}

fn status(message: HttpStatus) -> Result<StatusCode> {
    let HttpStatus { code } = message;
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    code.ok_or_else(|| FieldError::new("code", "not a status code"))
}

fn matchers(message: ListStringMatcher) -> Result<Vec<StringMatcher>> {
    let ListStringMatcher { patterns } = message;
    field::each(patterns, "patterns", StringMatcher::from_proto)
}

impl BodyLimit {
    fn from_proto(message: BufferSettings) -> Self {
        let BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = message;
        Self { bytes_max: max_request_bytes as usize, allows_partial: allow_partial_message, as_bytes: pack_as_bytes }
    }
}

impl GrpcTarget {
    fn from_proto(message: GrpcService) -> Result<Self> {
        let GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = message;
        refuse!(retry_policy);
        let TargetSpecifier::EnvoyGrpc(envoy) = required(target_specifier, "target_specifier")? else {
            return Err(unsupported("google_grpc"));
        };
        field::unset(&envoy.retry_policy, "envoy_grpc.retry_policy")?;
        field::unset(&envoy.authority, "envoy_grpc.authority")?;
        field::unset(&envoy.skip_envoy_headers, "envoy_grpc.skip_envoy_headers")?;
        Ok(Self {
            cluster: envoy.cluster_name.into(),
            timeout: field::timeout_or(timeout, Some(GRPC_TIMEOUT), "timeout")?,
            metadata: field::each(initial_metadata, "initial_metadata", header)?,
        })
    }
}

fn header(message: ProtoHeaderValue) -> Result<(HeaderName, HeaderValue)> {
    let ProtoHeaderValue { key, value, raw_value } = message;
    let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| FieldError::new("key", "not a header name"))?;
    let bytes = if raw_value.is_empty() { value.as_bytes() } else { &raw_value };
    let value = HeaderValue::from_bytes(bytes).map_err(|_| FieldError::new("value", "not a header value"))?;
    if bytes.contains(&b'%') {
        return Err(FieldError::new("value", "formats are not supported"));
    }
    Ok((name, value))
}

impl HttpService {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoHttpService) -> Result<Self> {
        let ProtoHttpService {
            server_uri,
            path_prefix,
            path_override,
            authorization_request,
            authorization_response,
            retry_policy,
        } = message;
        refuse!(retry_policy);
        let HttpUri { uri: _, timeout, http_upstream_type } = required(server_uri, "server_uri")?; // the cluster says where
        let HttpUpstreamType::Cluster(cluster) = required(http_upstream_type, "server_uri.http_upstream_type")?;
        let AuthorizationRequest { allowed_headers, headers_to_add } = authorization_request.unwrap_or_default();
        field::unset(&allowed_headers, "authorization_request.allowed_headers")?;
        if !path_prefix.is_empty() && !path_override.is_empty() {
            return Err(FieldError::new("path_override", "path_prefix cannot stand beside it"));
        }
        for (path, text) in [("path_prefix", &path_prefix), ("path_override", &path_override)] {
            if !text.is_empty() && !text.starts_with('/') {
                return Err(FieldError::new(path, "must begin with a slash"));
            }
        }
        let AuthorizationResponse {
            allowed_upstream_headers,
            allowed_upstream_headers_to_append,
            allowed_client_headers,
            allowed_client_headers_on_success,
            dynamic_metadata_from_headers,
        } = authorization_response.unwrap_or_default();
        let list = |list: Option<ListStringMatcher>, name: &str| {
            list.map(matchers).transpose().within(&format!("authorization_response.{name}"))
        };
        Ok(Self {
            cluster: cluster.into(),
            timeout: required(field::duration(timeout, "server_uri.timeout")?, "server_uri.timeout")?,
            path_prefix,
            path_override,
            headers_to_add: field::each(headers_to_add, "authorization_request.headers_to_add", header)?,
            allowed_upstream: list(allowed_upstream_headers, "allowed_upstream_headers")?.unwrap_or_default(),
            allowed_upstream_to_append: list(allowed_upstream_headers_to_append, "allowed_upstream_headers_to_append")?
                .unwrap_or_default(),
            allowed_client: list(allowed_client_headers, "allowed_client_headers")?,
            allowed_client_on_success: list(allowed_client_headers_on_success, "allowed_client_headers_on_success")?
                .unwrap_or_default(),
            metadata_from: list(dynamic_metadata_from_headers, "dynamic_metadata_from_headers")?.unwrap_or_default(),
        })
    }
}

impl ExtAuthzOverride {
    pub(super) fn from_proto(message: ExtAuthzPerRoute) -> Result<Self> {
        let ExtAuthzPerRoute { r#override } = message;
        match required(r#override, "override")? {
            Override::Disabled(true) => Ok(Self::Disabled),
            Override::Disabled(false) => Ok(Self::Settings { context: BTreeMap::new(), body: None }),
            Override::CheckSettings(settings) => Self::settings(settings).within("check_settings"),
        }
    }

    fn settings(message: CheckSettings) -> Result<Self> {
        let CheckSettings {
            context_extensions,
            disable_request_body_buffering,
            with_request_body,
            emit_client_span: _, // nothing is traced
            service_override,
        } = message;
        if service_override.is_some() {
            return Err(unsupported("service_override"));
        }
        let body = match (disable_request_body_buffering, with_request_body) {
            (true, Some(_)) => {
                return Err(FieldError::new("with_request_body", "disable_request_body_buffering stands beside it"));
            }
            (true, None) => Some(None),
            (false, settings) => settings.map(|settings| Some(BodyLimit::from_proto(settings))),
        };
        Ok(Self::Settings { context: context_extensions.into_iter().collect(), body })
    }
}
