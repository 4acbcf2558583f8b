//! `envoy.config.core.v3.ConfigSource` and `ApiConfigSource`: where resources come from. Only the aggregated stream (ADS) by
//! gRPC, state of the world, is supported.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{
        AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
};

use crate::config::field::{self, Result, Within as _, refuse, required, timeout_or, unsupported};

#[derive(Clone, Debug)]
pub struct AdsConfig {
    /// A static cluster of this bootstrap.
    pub cluster_name: Arc<str>,
    pub set_node_on_first_message_only: bool,
}

/// Resources of some kind come by ADS.
#[derive(Clone, Debug)]
pub struct DiscoverySource {
    /// Default 15 s; None: wait for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

impl DiscoverySource {
    pub(crate) fn from_proto(message: ConfigSource) -> Result<Self> {
        let ConfigSource { authorities, initial_fetch_timeout, resource_api_version, config_source_specifier } =
            message;
        refuse!(authorities);
        require_v3(resource_api_version, "resource_api_version")?;
        #[expect(deprecated, reason = "named to be refused")]
        match required(config_source_specifier, "config_source_specifier")? {
            ConfigSourceSpecifier::Ads(AggregatedConfigSource {}) => {}
            ConfigSourceSpecifier::Path(_) => return Err(unsupported("path")),
            ConfigSourceSpecifier::PathConfigSource(_) => return Err(unsupported("path_config_source")),
            ConfigSourceSpecifier::ApiConfigSource(_) => return Err(unsupported("api_config_source")),
            ConfigSourceSpecifier::Self_(_) => return Err(unsupported("self")),
        }
        let initial_fetch_timeout =
            timeout_or(initial_fetch_timeout, Some(INITIAL_FETCH_TIMEOUT), "initial_fetch_timeout")?;
        Ok(Self { initial_fetch_timeout })
    }
}

impl AdsConfig {
    pub(crate) fn from_proto(message: ApiConfigSource) -> Result<Self> {
        let ApiConfigSource {
            api_type,
            transport_api_version,
            cluster_names,
            grpc_services,
            refresh_delay,
            request_timeout,
            rate_limit_settings,
            set_node_on_first_message_only,
            config_validators,
        } = message;
        refuse!(cluster_names, refresh_delay, request_timeout, rate_limit_settings, config_validators);
        require_v3(transport_api_version, "transport_api_version")?;
        match field::enumeration::<ApiType>(api_type, "api_type")? {
            ApiType::Grpc => {}
            other => {
                return Err(FieldError::new("api_type", format!("{} is not supported", other.as_str_name())));
            }
        }
        let mut services = field::each(grpc_services, "grpc_services", cluster_name)?;
        let (Some(cluster_name), true) = (services.pop(), services.is_empty()) else {
            return Err(FieldError::new("grpc_services", "exactly one is required"));
        };
        Ok(Self { cluster_name, set_node_on_first_message_only })
    }
}

/// AUTO is taken for V3, as Envoy 1.40 does.
fn require_v3(version: i32, path: &str) -> Result<()> {
    #[expect(deprecated, reason = "named to be refused")]
    match field::enumeration(version, path)? {
        ApiVersion::V3 | ApiVersion::Auto => Ok(()),
        ApiVersion::V2 => Err(FieldError::new(path, "V2 is not supported")),
    }
}

fn cluster_name(message: GrpcService) -> Result<Arc<str>> {
    let GrpcService {
        timeout: _, // bounds a single call; the stream is meant to last
        initial_metadata,
        retry_policy,
        target_specifier,
    } = message;
    refuse!(initial_metadata, retry_policy);
    match required(target_specifier, "target_specifier")? {
        TargetSpecifier::EnvoyGrpc(message) => envoy_grpc(message).within("envoy_grpc"),
        TargetSpecifier::GoogleGrpc(_) => Err(unsupported("google_grpc")),
    }
}

fn envoy_grpc(message: EnvoyGrpc) -> Result<Arc<str>> {
    let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } = message;
    refuse!(authority, retry_policy, max_receive_message_length, skip_envoy_headers);
    Ok(cluster_name.into())
}
