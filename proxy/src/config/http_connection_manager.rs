//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::HttpProtocolOptions,
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager as ProtoHttpConnectionManager, Rds,
            http_connection_manager::{
                CodecType as ProtoCodecType, HcmAccessLogOptions, RouteSpecifier,
                ServerHeaderTransformation as ProtoServerHeaderTransformation,
            },
        },
    },
};

pub use self::{
    local_reply::{LocalReplyConfig, ResponseMapper},
    request_options::{
        CallerOptions, ClientCertDetail, ClientCertForwarding, EscapedSlashes, ForwardClientCert, HostOptions,
        InternalAddresses, IpDetection, PathOptions, RequestIdOptions, SchemeOptions, StripPort, TrustedProxies,
        UnderscoresAction,
    },
};
pub use crate::config::http_protocol::{Http1Options, Http2Options};
use crate::config::{
    access_log::{AccessLog, Condition},
    config_source::{Discovered, DiscoverySource},
    field::{self, Result, Within as _, duration_or, positive_duration, refuse, required, timeout_or, unsupported},
    header_mutation::HeaderMutation,
    http_filter::HttpFilters,
    route::RouteTable,
    substitution::Command,
    upgrade::Upgrades,
};

mod local_reply;
mod request_options;

#[derive(Debug)]
pub struct HttpConnectionManager {
    pub stat_prefix: Arc<str>,
    pub codec_type: CodecType,
    pub routes: RouteSource,
    pub http_filters: HttpFilters,
    pub server_name: http::HeaderValue,
    pub server_header_transformation: ServerHeaderTransformation,
    /// `common_http_protocol_options.idle_timeout`: no request on the connection for this long. Default one hour; None: never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// None: unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Default 5 minutes; None: never.
    pub stream_idle_timeout: Option<Duration>,
    /// The whole request must have arrived. None: never.
    pub request_timeout: Option<Duration>,
    /// The request's headers must have arrived. None: never.
    pub request_headers_timeout: Option<Duration>,
    /// Default 5 s.
    pub drain_timeout: Duration,
    /// How long a closed connection is read from, so that the peer gets what was said last. Default 1 s; zero: not at all.
    pub delayed_close_timeout: Duration,
    /// Default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_headers_count: u32,
    pub http1: Http1Options,
    pub http2: Http2Options,
    pub path: PathOptions,
    pub host: HostOptions,
    pub scheme: SchemeOptions,
    pub underscores: UnderscoresAction,
    pub caller: CallerOptions,
    pub request_id: RequestIdOptions,
    pub client_cert: ForwardClientCert,
    /// Before anything else looks at a request.
    pub early_mutations: Vec<HeaderMutation>,
    pub local_reply: LocalReplyConfig,
    /// `common_http_protocol_options.max_stream_duration`, where the route has none. None: no bound.
    pub max_stream_duration: Option<Duration>,
    pub via: Option<http::HeaderValue>,
    /// What connections may be upgraded to, where the route does not say otherwise.
    pub upgrades: Upgrades,
    /// `100-continue` is for the upstream to answer; its interim responses pass.
    pub proxy_100_continue: bool,
    pub access_log: Vec<AccessLog>,
    pub access_log_options: ManagerLogOptions,
    /// Which messages are kept to the end of an exchange because something is written with them then.
    pub kept: KeptMessages,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptMessages {
    pub request: bool,
    pub response: bool,
    pub trailers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    Rds(Discovered),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeaderTransformation {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

const SERVER_NAME: &str = "envoy";
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MAX_HEADERS_COUNT: u32 = 100;

impl HttpConnectionManager {
    #[expect(deprecated, reason = "named to be refused")]
    pub(crate) fn from_proto(message: ProtoHttpConnectionManager) -> Result<Self> {
        let ProtoHttpConnectionManager {
            codec_type,
            stat_prefix,
            http_filters,
            add_user_agent,
            tracing,
            common_http_protocol_options,
            http1_safe_max_connection_duration,
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
            server_name,
            server_header_transformation,
            scheme_header_transformation,
            max_request_headers_kb,
            stream_idle_timeout,
            stream_flush_timeout,
            request_timeout,
            request_headers_timeout,
            drain_timeout,
            drain_timeout_jitter,
            delayed_close_timeout,
            access_log,
            access_log_flush_interval,
            flush_access_log_on_new_request,
            access_log_options,
            use_remote_address,
            xff_num_trusted_hops,
            original_ip_detection_extensions,
            early_header_mutation_extensions,
            internal_address_config,
            skip_xff_append,
            via,
            generate_request_id,
            preserve_external_request_id,
            always_set_request_id_in_response,
            forward_client_cert_details,
            set_current_client_cert_details,
            forward_client_cert_matcher,
            proxy_100_continue,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            upgrade_configs,
            normalize_path,
            merge_slashes,
            path_with_escaped_slashes_action,
            request_id_extension,
            local_reply_config,
            strip_matching_host_port,
            stream_error_on_invalid_http_message,
            path_normalization_options,
            strip_trailing_host_dot,
            proxy_status_config,
            typed_header_validation_config,
            append_x_forwarded_port,
            append_local_overload: _, // no request is shed by an overload manager, so none is marked
            add_proxy_protocol_connection_state,
            forward_proto_config,
            route_specifier,
            strip_port_mode,
        } = message;
        refuse!(tracing, http1_safe_max_connection_duration, http3_protocol_options);
        refuse!(stream_flush_timeout, drain_timeout_jitter, forward_client_cert_matcher);
        refuse!(path_normalization_options, proxy_status_config, typed_header_validation_config);
        refuse!(add_proxy_protocol_connection_state, forward_proto_config);
        field::only(add_user_agent, false, "add_user_agent")?;
        let stream_errors = stream_error_on_invalid_http_message.map(|value| value.value);
        let caller = CallerOptions {
            use_remote_address: field::bool_or(use_remote_address, false),
            xff_trusted_hops: xff_num_trusted_hops,
            skip_xff_append,
            internal: InternalAddresses::from_proto(internal_address_config).within("internal_address_config")?,
            detection: field::each(
                original_ip_detection_extensions,
                "original_ip_detection_extensions",
                IpDetection::from_proto,
            )?,
            append_x_forwarded_port,
            ipv4_mapped: represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        };
        refuse_mixed_detection(&caller)?;
        request_options::check_request_id(request_id_extension.and_then(|extension| extension.typed_config))
            .within("request_id_extension")?;
        let early_mutations = field::each(
            early_header_mutation_extensions,
            "early_header_mutation_extensions",
            request_options::early_mutation,
        )?;
        let local_reply =
            LocalReplyConfig::from_proto(local_reply_config.unwrap_or_default()).within("local_reply_config")?;
        let connection = ConnectionOptions::from_proto(common_http_protocol_options.unwrap_or_default())
            .within("common_http_protocol_options")?;
        let http_filters = HttpFilters::from_proto(http_filters, "http_filters")?;
        let upgrades = Upgrades::of_manager(upgrade_configs)?;
        let older = (access_log_flush_interval, flush_access_log_on_new_request);
        let access_log_options = ManagerLogOptions::from_proto(access_log_options, older)?;
        let access_log = field::each(access_log, "access_log", AccessLog::from_proto)?;
        Ok(Self {
            kept: KeptMessages::of(&access_log, upgrades.filters().chain([&http_filters]), &local_reply),
            stat_prefix: stat_prefix.into(),
            codec_type: CodecType::from_proto(codec_type)?,
            routes: RouteSource::from_proto(required(route_specifier, "route_specifier")?)?,
            http_filters,
            server_name: header_value_or(&server_name, SERVER_NAME, "server_name")?,
            server_header_transformation: ServerHeaderTransformation::from_proto(server_header_transformation)?,
            idle_timeout: connection.idle_timeout,
            max_connection_duration: connection.max_connection_duration,
            max_requests_per_connection: connection.max_requests_per_connection,
            stream_idle_timeout: timeout_or(stream_idle_timeout, Some(STREAM_IDLE_TIMEOUT), "stream_idle_timeout")?,
            request_timeout: timeout_or(request_timeout, None, "request_timeout")?,
            request_headers_timeout: timeout_or(request_headers_timeout, None, "request_headers_timeout")?,
            drain_timeout: duration_or(drain_timeout, DRAIN_TIMEOUT, "drain_timeout")?,
            delayed_close_timeout: duration_or(delayed_close_timeout, DELAYED_CLOSE_TIMEOUT, "delayed_close_timeout")?,
            max_request_headers_bytes: header_bytes(field::u32_or(max_request_headers_kb, MAX_REQUEST_HEADERS_KB))?,
            max_headers_count: connection.max_headers_count,
            http1: Http1Options::downstream(http_protocol_options.unwrap_or_default(), stream_errors)
                .within("http_protocol_options")?,
            http2: Http2Options::downstream(http2_protocol_options.unwrap_or_default(), stream_errors)
                .within("http2_protocol_options")?,
            proxy_100_continue,
            upgrades,
            path: PathOptions::from_proto(normalize_path, merge_slashes, path_with_escaped_slashes_action)?,
            host: HostOptions::from_proto(strip_matching_host_port, strip_port_mode, strip_trailing_host_dot)?,
            scheme: SchemeOptions::from_proto(scheme_header_transformation).within("scheme_header_transformation")?,
            underscores: connection.underscores,
            caller,
            request_id: RequestIdOptions {
                generate: field::bool_or(generate_request_id, true),
                preserve_external: preserve_external_request_id,
                always_set_in_response: always_set_request_id_in_response,
            },
            client_cert: ForwardClientCert::from_proto(forward_client_cert_details, set_current_client_cert_details)?,
            early_mutations: early_mutations.into_iter().flatten().collect(),
            local_reply,
            max_stream_duration: connection.max_stream_duration,
            via: if via.is_empty() { None } else { Some(field::header_value(&via, "via")?) },
            access_log,
            access_log_options,
        })
    }
}

/// Lines besides the one at a request's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManagerLogOptions {
    pub flush_interval: Option<Duration>,
    pub flush_on_new_request: bool,
    pub flush_on_tunnel: bool,
}

impl ManagerLogOptions {
    /// `older`: the deprecated fields, which may not stand beside the message.
    fn from_proto(
        message: Option<HcmAccessLogOptions>,
        older: (Option<weft_xds::pb::google::protobuf::Duration>, bool),
    ) -> Result<Self> {
        let Some(message) = message else {
            let flush_interval = positive_duration(older.0, "access_log_flush_interval")?;
            return Ok(Self { flush_interval, flush_on_new_request: older.1, flush_on_tunnel: false });
        };
        for (is_set, path) in
            [(older.0.is_some(), "access_log_flush_interval"), (older.1, "flush_access_log_on_new_request")]
        {
            if is_set {
                return Err(FieldError::new(path, "cannot be set together with access_log_options"));
            }
        }
        let HcmAccessLogOptions {
            access_log_flush_interval,
            flush_access_log_on_new_request,
            flush_log_on_tunnel_successfully_established,
        } = message;
        let interval = positive_duration(access_log_flush_interval, "access_log_flush_interval");
        Ok(Self {
            flush_interval: interval.within("access_log_options")?,
            flush_on_new_request: flush_access_log_on_new_request,
            flush_on_tunnel: flush_log_on_tunnel_successfully_established,
        })
    }
}

impl KeptMessages {
    fn of<'a>(
        access_log: &[AccessLog],
        mut filters: impl Iterator<Item = &'a HttpFilters>,
        local_reply: &LocalReplyConfig,
    ) -> Self {
        let condition =
            |is_such: fn(&Condition) -> bool| access_log.iter().filter_map(|log| log.condition.as_ref()).any(is_such);
        let format = |is_such: fn(&Command) -> bool| access_log.iter().any(|log| log.format.any(is_such));
        Self {
            request: format(Command::reads_request)
                || condition(Condition::reads_request)
                || filters.any(HttpFilters::reads_request)
                || !local_reply.is_plain(),
            response: format(Command::reads_response_headers) || condition(Condition::reads_response),
            trailers: format(Command::reads_trailers) || condition(Condition::reads_response),
        }
    }
}

/// `common_http_protocol_options` of a connection manager.
struct ConnectionOptions {
    idle_timeout: Option<Duration>,
    max_connection_duration: Option<Duration>,
    max_headers_count: u32,
    max_requests_per_connection: Option<u32>,
    max_stream_duration: Option<Duration>,
    underscores: UnderscoresAction,
}

impl ConnectionOptions {
    fn from_proto(message: HttpProtocolOptions) -> Result<Self> {
        let HttpProtocolOptions {
            idle_timeout,
            max_connection_duration,
            max_connection_duration_jitter,
            max_headers_count,
            max_response_headers_kb,
            max_stream_duration,
            headers_with_underscores_action,
            max_requests_per_connection,
        } = message;
        refuse!(max_connection_duration_jitter, max_response_headers_kb);
        Ok(Self {
            idle_timeout: timeout_or(idle_timeout, Some(IDLE_TIMEOUT), "idle_timeout")?,
            max_connection_duration: positive_duration(max_connection_duration, "max_connection_duration")?,
            max_headers_count: field::u32_or(max_headers_count, MAX_HEADERS_COUNT),
            max_requests_per_connection: field::limit(max_requests_per_connection),
            max_stream_duration: timeout_or(max_stream_duration, None, "max_stream_duration")?,
            underscores: UnderscoresAction::from_proto(headers_with_underscores_action)?,
        })
    }
}

/// As Envoy: one way of finding out whose request it is excludes the others.
fn refuse_mixed_detection(caller: &CallerOptions) -> Result<()> {
    let refused = |with: &str| {
        let reason = format!("original IP detection extensions and {with} may not be mixed");
        Err(FieldError::new("original_ip_detection_extensions", reason))
    };
    match caller {
        CallerOptions { detection, .. } if detection.is_empty() => Ok(()),
        CallerOptions { use_remote_address: true, .. } => refused("use_remote_address"),
        CallerOptions { xff_trusted_hops: 1.., .. } => refused("xff_num_trusted_hops"),
        _ => Ok(()),
    }
}

fn header_bytes(kilobytes: u32) -> Result<u32> {
    kilobytes.checked_mul(1024).ok_or_else(|| FieldError::new("max_request_headers_kb", "value out of range"))
}

fn header_value_or(text: &str, default: &'static str, path: &str) -> Result<http::HeaderValue> {
    if text.is_empty() { Ok(http::HeaderValue::from_static(default)) } else { field::header_value(text, path) }
}

impl CodecType {
    fn from_proto(codec_type: i32) -> Result<Self> {
        match field::enumeration(codec_type, "codec_type")? {
            ProtoCodecType::Auto => Ok(Self::Auto),
            ProtoCodecType::Http1 => Ok(Self::Http1),
            ProtoCodecType::Http2 => Ok(Self::Http2),
            ProtoCodecType::Http3 => Err(FieldError::new("codec_type", "HTTP3 is not supported")),
        }
    }
}

impl ServerHeaderTransformation {
    fn from_proto(transformation: i32) -> Result<Self> {
        Ok(match field::enumeration(transformation, "server_header_transformation")? {
            ProtoServerHeaderTransformation::Overwrite => Self::Overwrite,
            ProtoServerHeaderTransformation::AppendIfAbsent => Self::AppendIfAbsent,
            ProtoServerHeaderTransformation::PassThrough => Self::PassThrough,
        })
    }
}

impl RouteSource {
    fn from_proto(specifier: RouteSpecifier) -> Result<Self> {
        match specifier {
            RouteSpecifier::RouteConfig(message) => {
                Ok(Self::Inline(Arc::new(RouteTable::inline(message).within("route_config")?)))
            }
            RouteSpecifier::Rds(message) => Self::from_rds(message).within("rds"),
            RouteSpecifier::ScopedRoutes(_) => Err(unsupported("scoped_routes")),
        }
    }

    fn from_rds(message: Rds) -> Result<Self> {
        let Rds { config_source, route_config_name } = message;
        if route_config_name.is_empty() {
            return Err(FieldError::new("route_config_name", "value is required"));
        }
        let source = DiscoverySource::from_proto(required(config_source, "config_source")?).within("config_source")?;
        Ok(Self::Rds(source.resource(route_config_name)))
    }
}

#[cfg(test)]
mod tests;
