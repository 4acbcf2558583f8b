//! `envoy.config.core.v3.ConfigSource` and `ApiConfigSource`: where resources come from. The aggregated stream (ADS), a gRPC
//! stream for one kind, or a file; by gRPC either variant, state of the world or delta.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{
        AggregatedConfigSource, ApiConfigSource, ApiVersion, BackoffStrategy, ConfigSource, GrpcService,
        HeaderValue as ProtoHeader, PathConfigSource, RateLimitSettings, RetryPolicy, WatchedDirectory,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
};

use crate::config::field::{self, Result, Within as _, refuse, required, timeout_or, unsupported};

/// Resources of some kind come from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySource {
    pub origin: SourceOrigin,
    /// Default 15 s; None: wait for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Equal origins are one stream, or one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceOrigin {
    /// What stands in the bootstrap itself: secrets that are named without a source.
    Bootstrap,
    Ads,
    Stream(Arc<StreamSource>),
    File(Arc<FileSource>),
}

/// Names a resource: the same name from another origin is another resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub origin: SourceOrigin,
    pub name: Arc<str>,
}

/// A resource that comes by itself, apart from what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    pub key: ResourceKey,
    /// How long whoever needs it waits before going on without. None: for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// A stream to a control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSource {
    /// A static cluster of the bootstrap.
    pub cluster_name: Arc<str>,
    pub variant: Variant,
    pub set_node_on_first_message_only: bool,
    /// `:authority`; empty: the cluster's name.
    pub authority: String,
    pub initial_metadata: Vec<(String, String)>,
    pub rate_limit: Option<RateLimit>,
    pub backoff: ReconnectBackoff,
    /// None: a bound of our own.
    pub max_receive_message_length: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    StateOfTheWorld,
    Delta,
}

/// How many requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateLimit {
    /// At once, at least 1.
    pub max_tokens: u32,
    /// Until one more may.
    pub refill_interval: Duration,
}

/// Waits before an attempt are drawn from zero to an interval that doubles from `base` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReconnectBackoff {
    pub base_interval: Duration,
    pub max_interval: Duration,
}

/// A file with a `DiscoveryResponse`, YAML or JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileSource {
    pub path: PathBuf,
    /// Whatever moves in here makes the file read again. None: only the file itself, and what links to it.
    pub watched_directory: Option<PathBuf>,
    /// Read this often, whether a change was noticed or not.
    pub poll_interval: Option<Duration>,
}

const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's, where `rate_limit_settings` does not say.
const RATE_LIMIT_TOKENS: u32 = 100;
const RATE_LIMIT_FILL_RATE: f64 = 10.0;
/// Envoy's for its configuration streams.
const BACKOFF: ReconnectBackoff =
    ReconnectBackoff { base_interval: Duration::from_millis(500), max_interval: Duration::from_secs(30) };

impl DiscoverySource {
    pub(crate) fn from_proto(message: ConfigSource) -> Result<Self> {
        let ConfigSource { authorities, initial_fetch_timeout, resource_api_version, config_source_specifier } =
            message;
        refuse!(authorities);
        require_v3(resource_api_version, "resource_api_version")?;
        #[expect(deprecated, reason = "the older spelling of a file, which configurations still have")]
        let origin = match required(config_source_specifier, "config_source_specifier")? {
            ConfigSourceSpecifier::Ads(AggregatedConfigSource {}) => SourceOrigin::Ads,
            ConfigSourceSpecifier::Path(path) => {
                SourceOrigin::File(Arc::new(FileSource::new(path, None).within("path")?))
            }
            ConfigSourceSpecifier::PathConfigSource(message) => {
                SourceOrigin::File(Arc::new(FileSource::from_proto(message).within("path_config_source")?))
            }
            ConfigSourceSpecifier::ApiConfigSource(message) => {
                SourceOrigin::Stream(Arc::new(StreamSource::from_proto(message).within("api_config_source")?))
            }
            ConfigSourceSpecifier::Self_(_) => return Err(unsupported("self")),
        };
        let initial_fetch_timeout =
            timeout_or(initial_fetch_timeout, Some(INITIAL_FETCH_TIMEOUT), "initial_fetch_timeout")?;
        Ok(Self { origin, initial_fetch_timeout })
    }
}

impl DiscoverySource {
    pub(crate) fn resource(self, name: impl Into<Arc<str>>) -> Discovered {
        let DiscoverySource { origin, initial_fetch_timeout } = self;
        Discovered { key: ResourceKey { origin, name: name.into() }, initial_fetch_timeout }
    }
}

impl StreamSource {
    pub(crate) fn from_proto(message: ApiConfigSource) -> Result<Self> {
        let ApiConfigSource {
            api_type,
            transport_api_version,
            cluster_names,
            grpc_services,
            refresh_delay: _,   // of REST
            request_timeout: _, // of REST
            rate_limit_settings,
            set_node_on_first_message_only,
            config_validators,
        } = message;
        refuse!(config_validators);
        require_v3(transport_api_version, "transport_api_version")?;
        let variant = match field::enumeration::<ApiType>(api_type, "api_type")? {
            ApiType::Grpc => Variant::StateOfTheWorld,
            ApiType::DeltaGrpc => Variant::Delta,
            other => {
                return Err(FieldError::new("api_type", format!("{} is not supported", other.as_str_name())));
            }
        };
        if !cluster_names.is_empty() {
            return Err(FieldError::new("cluster_names", "not for gRPC, whose clusters stand in grpc_services"));
        }
        // Envoy, too, takes one: a second one as a fallback is experimental there.
        if grpc_services.len() > 1 {
            return Err(FieldError::new("grpc_services", "no more than 1 gRPC service may be specified"));
        }
        let mut services = field::each(grpc_services, "grpc_services", Service::from_proto)?;
        let Some(service) = services.pop() else {
            return Err(FieldError::new("grpc_services", "exactly one is required"));
        };
        let Service { cluster_name, authority, initial_metadata, backoff, max_receive_message_length } = service;
        let rate_limit = rate_limit_settings.map(rate_limit).transpose().within("rate_limit_settings")?;
        Ok(Self {
            cluster_name,
            variant,
            set_node_on_first_message_only,
            authority,
            initial_metadata,
            rate_limit,
            backoff,
            max_receive_message_length,
        })
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

fn rate_limit(message: RateLimitSettings) -> Result<RateLimit> {
    let RateLimitSettings { max_tokens, fill_rate } = message;
    let fill_rate = fill_rate.map_or(RATE_LIMIT_FILL_RATE, |rate| rate.value);
    if !(fill_rate > 0.0 && fill_rate.is_finite()) {
        return Err(FieldError::new("fill_rate", "value must be greater than 0"));
    }
    // Slower than one a year, and Envoy takes it for that.
    let refill_interval = Duration::from_secs_f64((1.0 / fill_rate).min(365.0 * 86400.0));
    Ok(RateLimit { max_tokens: field::u32_or(max_tokens, RATE_LIMIT_TOKENS).max(1), refill_interval })
}

struct Service {
    cluster_name: Arc<str>,
    authority: String,
    initial_metadata: Vec<(String, String)>,
    backoff: ReconnectBackoff,
    max_receive_message_length: Option<u32>,
}

impl Service {
    fn from_proto(message: GrpcService) -> Result<Self> {
        let GrpcService {
            timeout: _, // bounds a single call; the stream is meant to last
            initial_metadata,
            retry_policy,
            target_specifier,
        } = message;
        let outer = retry_policy.map(reconnect_backoff).transpose().within("retry_policy")?.flatten();
        let message = match required(target_specifier, "target_specifier")? {
            TargetSpecifier::EnvoyGrpc(message) => message,
            TargetSpecifier::GoogleGrpc(_) => return Err(unsupported("google_grpc")),
        };
        let EnvoyGrpc {
            cluster_name,
            authority,
            retry_policy,
            max_receive_message_length,
            skip_envoy_headers: _, // none are sent
        } = message;
        let inner = retry_policy.map(reconnect_backoff).transpose().within("envoy_grpc.retry_policy")?.flatten();
        if !authority.is_empty() && authority.parse::<http::uri::Authority>().is_err() {
            return Err(FieldError::new("envoy_grpc.authority", "not an authority"));
        }
        Ok(Self {
            cluster_name: cluster_name.into(),
            authority,
            initial_metadata: field::each(initial_metadata, "initial_metadata", metadata)?,
            backoff: inner.or(outer).unwrap_or(BACKOFF),
            max_receive_message_length: field::limit(max_receive_message_length),
        })
    }
}

/// Only the back-off means something for a stream.
fn reconnect_backoff(message: RetryPolicy) -> Result<Option<ReconnectBackoff>> {
    let RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = message;
    refuse!(num_retries, retry_on, retry_priority, retry_host_predicate, host_selection_retry_max_attempts);
    let Some(BackoffStrategy { base_interval, max_interval }) = retry_back_off else { return Ok(None) };
    let base = field::positive_duration(base_interval, "retry_back_off.base_interval")?;
    let base_interval = required(base, "retry_back_off.base_interval")?;
    let max = field::positive_duration(max_interval, "retry_back_off.max_interval")?;
    let max_interval = max.unwrap_or(base_interval * 10);
    if max_interval < base_interval {
        let reason = "must be greater than or equal to the base_interval";
        return Err(FieldError::new("retry_back_off.max_interval", reason));
    }
    Ok(Some(ReconnectBackoff { base_interval, max_interval }))
}

/// As headers of the stream's request go; names that gRPC has for itself are not for others.
fn metadata(message: ProtoHeader) -> Result<(String, String)> {
    let ProtoHeader { key, value, raw_value } = message;
    refuse!(raw_value);
    let name = HeaderName::try_from(key.as_str()).map_err(|_| FieldError::new("key", "not a header name"))?;
    if name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin") {
        return Err(FieldError::new("key", format!("{name} is not supported")));
    }
    HeaderValue::try_from(value.as_str()).map_err(|_| FieldError::new("value", "not a header value"))?;
    Ok((name.as_str().to_owned(), value))
}

impl FileSource {
    fn from_proto(message: PathConfigSource) -> Result<Self> {
        let PathConfigSource { path, watched_directory, poll_interval } = message;
        let directory = watched_directory.map(directory);
        if let Some(directory) = &directory
            && !directory.is_dir()
        {
            let reason = format!("'{}' is not a directory", directory.display());
            return Err(FieldError::new("watched_directory.path", reason));
        }
        let poll_interval = field::positive_duration(poll_interval, "poll_interval")?;
        if poll_interval.is_some() && directory.is_some() {
            return Err(FieldError::new("poll_interval", "not together with watched_directory"));
        }
        Ok(Self { poll_interval, ..Self::new(path, directory).within("path")? })
    }

    fn new(path: String, watched_directory: Option<PathBuf>) -> Result<Self> {
        if !Path::new(&path).exists() {
            let reason = format!("paths must refer to an existing path in the system: '{path}' does not exist");
            return Err(FieldError::new("", reason));
        }
        Ok(Self { path: path.into(), watched_directory, poll_interval: None })
    }
}

/// Files that are written in place are noticed anyway, when they are closed.
pub(crate) fn directory(message: WatchedDirectory) -> PathBuf {
    let WatchedDirectory { path, watch_modify: _ } = message;
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    const STREAM: &str =
        "resource_api_version: V3\napi_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, ";

    fn stream(fields: &str) -> Result<StreamSource> {
        match DiscoverySource::from_proto(message(&format!("{STREAM}{fields}}}")))?.origin {
            SourceOrigin::Stream(source) => Ok(StreamSource::clone(&source)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_of_its_own_is_read() {
        let source = stream(
            "set_node_on_first_message_only: true, rate_limit_settings: {max_tokens: 3, fill_rate: 2}, grpc_services: \
             [{initial_metadata: [{key: X-Token, value: t}], envoy_grpc: {cluster_name: c, authority: a.test, \
             max_receive_message_length: 1000, retry_policy: {retry_back_off: {base_interval: 0.1s, max_interval: 2s}}}}]",
        );
        let expected = StreamSource {
            cluster_name: "c".into(),
            variant: Variant::Delta,
            set_node_on_first_message_only: true,
            authority: "a.test".into(),
            initial_metadata: vec![("x-token".into(), "t".into())],
            rate_limit: Some(RateLimit { max_tokens: 3, refill_interval: Duration::from_millis(500) }),
            backoff: ReconnectBackoff {
                base_interval: Duration::from_millis(100),
                max_interval: Duration::from_secs(2),
            },
            max_receive_message_length: Some(1000),
        };
        assert_eq!(source.unwrap(), expected);
        let plain = stream("grpc_services: [{envoy_grpc: {cluster_name: c}}], rate_limit_settings: {}").unwrap();
        assert_eq!(plain.rate_limit, Some(RateLimit { max_tokens: 100, refill_interval: Duration::from_millis(100) }));
        assert_eq!(plain.backoff, BACKOFF);
    }

    #[test]
    fn what_is_wrong_with_a_stream_is_named() {
        let service = "envoy_grpc: {cluster_name: c}";
        for (fields, reason) in [
            (
                format!("grpc_services: [{{{service}}}, {{{service}}}]"),
                "grpc_services: no more than 1 gRPC service may be specified",
            ),
            ("grpc_services: []".to_owned(), "grpc_services: exactly one is required"),
            (
                format!("cluster_names: [c], grpc_services: [{{{service}}}]"),
                "cluster_names: not for gRPC, whose clusters stand in grpc_services",
            ),
            (
                "grpc_services: [{google_grpc: {target_uri: t, stat_prefix: s}}]".to_owned(),
                "grpc_services[0].google_grpc: not supported",
            ),
            (
                format!("grpc_services: [{{initial_metadata: [{{key: grpc-timeout, value: '1'}}], {service}}}]"),
                "grpc_services[0].initial_metadata[0].key: grpc-timeout is not supported",
            ),
        ] {
            assert_eq!(refusal(stream(&fields)), format!("api_config_source.{reason}"), "{fields}");
        }
    }

    #[test]
    fn a_file_must_be_there() {
        let source = |yaml: &str| DiscoverySource::from_proto(message(yaml));
        let there =
            source("resource_api_version: V3\npath_config_source: {path: Cargo.toml, watched_directory: {path: src}}");
        let file = FileSource { path: "Cargo.toml".into(), watched_directory: Some("src".into()), poll_interval: None };
        assert_eq!(there.unwrap().origin, SourceOrigin::File(Arc::new(file)));
        for (yaml, reason) in [
            ("path: /none", "path: paths must refer to an existing path in the system: '/none' does not exist"),
            (
                "path_config_source: {path: /none}",
                "path_config_source.path: paths must refer to an existing path in the system: '/none' does not exist",
            ),
            (
                "path_config_source: {path: src, watched_directory: {path: Cargo.toml}}",
                "path_config_source.watched_directory.path: 'Cargo.toml' is not a directory",
            ),
            (
                "path_config_source: {path: Cargo.toml, watched_directory: {path: src}, poll_interval: 1s}",
                "path_config_source.poll_interval: not together with watched_directory",
            ),
            ("self: {}", "self: not supported"),
        ] {
            assert_eq!(refusal(source(yaml)), reason, "{yaml}");
        }
    }
}
