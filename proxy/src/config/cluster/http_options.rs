//! `envoy.extensions.upstreams.http.v3.HttpProtocolOptions` of a cluster, and the older fields that it replaces: which
//! protocol its connections speak and how long they live.

use std::{collections::HashMap, time::Duration};

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::core::v3::{
                Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions,
            },
            extensions::upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
        google::protobuf::Any,
    },
};

use super::UpstreamProtocol;
use crate::config::{
    field::{self, Extension, Result, Within as _, refuse, required, timeout_or, unset, unsupported},
    http_connection_manager::Http2Options,
    http_protocol::Http1UpstreamOptions,
};

/// The one key of `typed_extension_protocol_options`: names an extension, not a message.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct HttpOptions {
    pub(super) protocol: UpstreamProtocol,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) http1: Http1UpstreamOptions,
    pub(super) max_response_headers_bytes: Option<u32>,
    pub(super) max_headers_count: u32,
}

/// What older control planes set on the cluster itself.
pub(super) struct LegacyHttpOptions {
    pub(super) common: Option<CommonHttpProtocolOptions>,
    pub(super) http1: Option<Http1ProtocolOptions>,
    pub(super) http2: Option<Http2ProtocolOptions>,
    pub(super) max_requests_per_connection: Option<u32>,
}

impl HttpOptions {
    /// Where the extension is there, the older fields are not looked at, but for `max_requests_per_connection`, which
    /// holds unless the extension says otherwise: as in Envoy.
    pub(super) fn from_proto(extensions: HashMap<String, Any>, legacy: LegacyHttpOptions) -> Result<Self> {
        let max_requests_per_connection = legacy.max_requests_per_connection;
        let options = match extension(extensions)? {
            Some(options) => options,
            None => Self::from_legacy(legacy)?,
        };
        Ok(Self {
            max_requests_per_connection: options.max_requests_per_connection.or(max_requests_per_connection),
            ..options
        })
    }

    fn from_extension(message: HttpProtocolOptions) -> Result<Self> {
        let HttpProtocolOptions {
            common_http_protocol_options,
            upstream_http_protocol_options,
            http_filters,
            header_validation_config,
            outlier_detection,
            request_mirror_policies,
            hash_policy,
            retry_policy,
            upstream_protocol_options,
        } = message;
        refuse!(upstream_http_protocol_options, http_filters, header_validation_config, outlier_detection);
        refuse!(request_mirror_policies, hash_policy, retry_policy);
        let (protocol, http1) = match required(upstream_protocol_options, "upstream_protocol_options")? {
            UpstreamProtocolOptions::ExplicitHttpConfig(message) => explicit(message).within("explicit_http_config")?,
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(message) => {
                as_downstream(message).within("use_downstream_protocol_config")?
            }
            UpstreamProtocolOptions::AutoConfig(_) => return Err(unsupported("auto_config")),
        };
        Self::new(protocol, http1, common_http_protocol_options)
    }

    fn from_legacy(legacy: LegacyHttpOptions) -> Result<Self> {
        let LegacyHttpOptions { common, http1, http2, max_requests_per_connection: _ } = legacy;
        let http1 = Http1UpstreamOptions::from_proto(http1.unwrap_or_default()).within("http_protocol_options")?;
        let protocol = match http2 {
            Some(message) => {
                UpstreamProtocol::Http2(Http2Options::from_proto(message).within("http2_protocol_options")?)
            }
            None => UpstreamProtocol::Http1,
        };
        Self::new(protocol, http1, common)
    }

    fn new(
        protocol: UpstreamProtocol,
        http1: Http1UpstreamOptions,
        common: Option<CommonHttpProtocolOptions>,
    ) -> Result<Self> {
        let common =
            ConnectionOptions::from_proto(common.unwrap_or_default()).within("common_http_protocol_options")?;
        let ConnectionOptions {
            idle_timeout,
            max_requests_per_connection,
            max_response_headers_bytes,
            max_headers_count,
        } = common;
        Ok(Self {
            protocol,
            idle_timeout,
            max_requests_per_connection,
            http1,
            max_response_headers_bytes,
            max_headers_count,
        })
    }
}

fn extension(extensions: HashMap<String, Any>) -> Result<Option<HttpOptions>> {
    let mut options = None;
    for (key, typed_config) in extensions {
        let path = format!("typed_extension_protocol_options[{key:?}]");
        if key != KEY {
            return Err(unsupported(path));
        }
        if !Extension::new(typed_config.clone()).within(&path)?.is::<HttpProtocolOptions>() {
            return Err(FieldError::new(path, format!("expected a message of type {KEY}")));
        }
        let message = weft_xds::any::unpack_valid(&typed_config).within(&path)?;
        options = Some(HttpOptions::from_extension(message).within(&path)?);
    }
    Ok(options)
}

fn explicit(message: ExplicitHttpConfig) -> Result<(UpstreamProtocol, Http1UpstreamOptions)> {
    let ExplicitHttpConfig { protocol_config } = message;
    match required(protocol_config, "protocol_config")? {
        ProtocolConfig::HttpProtocolOptions(message) => {
            let http1 = Http1UpstreamOptions::from_proto(message).within("http_protocol_options")?;
            Ok((UpstreamProtocol::Http1, http1))
        }
        ProtocolConfig::Http2ProtocolOptions(message) => {
            let http2 = Http2Options::from_proto(message).within("http2_protocol_options")?;
            Ok((UpstreamProtocol::Http2(http2), Http1UpstreamOptions::default()))
        }
        ProtocolConfig::Http3ProtocolOptions(_) => Err(unsupported("http3_protocol_options")),
    }
}

/// Without options for HTTP/2, that has its defaults.
fn as_downstream(message: UseDownstreamHttpConfig) -> Result<(UpstreamProtocol, Http1UpstreamOptions)> {
    let UseDownstreamHttpConfig { http_protocol_options, http2_protocol_options, http3_protocol_options } = message;
    refuse!(http3_protocol_options);
    let http1 =
        Http1UpstreamOptions::from_proto(http_protocol_options.unwrap_or_default()).within("http_protocol_options")?;
    let http2 =
        Http2Options::from_proto(http2_protocol_options.unwrap_or_default()).within("http2_protocol_options")?;
    Ok((UpstreamProtocol::AsDownstream(http2), http1))
}

/// `common_http_protocol_options` of a cluster.
struct ConnectionOptions {
    idle_timeout: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    max_response_headers_bytes: Option<u32>,
    max_headers_count: u32,
}

impl ConnectionOptions {
    fn from_proto(message: CommonHttpProtocolOptions) -> Result<Self> {
        let CommonHttpProtocolOptions {
            idle_timeout,
            max_connection_duration,
            max_connection_duration_jitter,
            max_headers_count,
            max_response_headers_kb,
            max_stream_duration,
            headers_with_underscores_action: _, // only a server looks at it
            max_requests_per_connection,
        } = message;
        refuse!(max_connection_duration, max_connection_duration_jitter);
        unset(&max_stream_duration.unwrap_or_default(), "max_stream_duration")?;
        Ok(Self {
            idle_timeout: timeout_or(idle_timeout, Some(IDLE_TIMEOUT), "idle_timeout")?,
            max_requests_per_connection: field::limit(max_requests_per_connection),
            max_response_headers_bytes: max_response_headers_kb.map(|kilobytes| kilobytes.value.saturating_mul(1024)),
            max_headers_count: field::u32_or(max_headers_count, MAX_HEADERS_COUNT),
        })
    }
}

const MAX_HEADERS_COUNT: u32 = 100;
