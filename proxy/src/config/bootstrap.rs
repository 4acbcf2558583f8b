//! `envoy.config.bootstrap.v3.Bootstrap`: who this proxy is, what it starts with, and where more comes from.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use weft_xds::{
    FieldError, json,
    pb::envoy::{
        config::{
            bootstrap::v3::{
                Admin, Bootstrap as ProtoBootstrap, ClusterManager,
                bootstrap::{DynamicResources, StaticResources, StatsFlush},
            },
            cluster::v3::Cluster,
            listener::v3::Listener as ProtoListener,
        },
        extensions::transport_sockets::tls::v3::Secret as ProtoSecret,
    },
    validate,
};

pub use weft_xds::pb::envoy::config::core::v3::Node;

pub use crate::config::config_source::{DiscoverySource, SourceOrigin, StreamSource};
use crate::config::{
    admin::AdminServer,
    cluster::{ClusterConfig, Discovery, UpstreamBind, UpstreamProtocol, event_log_path},
    field::{self, Result, Within as _, refuse},
    listener::Listener,
    overload::Overload,
    runtime_values::RuntimeValues,
    tls::Secret,
};
use crate::stats::StatsRules;

pub struct Bootstrap {
    /// For `/config_dump`. Holds what secrets stand in it.
    pub message: BootstrapMessage,
    /// Sent with the first request of each xDS stream.
    pub node: Node,
    /// What TLS contexts name without a source.
    pub secrets: Vec<Arc<Secret>>,
    /// None: no admin server.
    pub admin: Option<Arc<AdminServer>>,
    pub overload: Overload,
    /// How connections of clusters begin that do not say.
    pub upstream_bind: Arc<UpstreamBind>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<ClusterConfig>>,
    /// The aggregated stream.
    pub ads: Option<Arc<StreamSource>>,
    /// Where listeners come from.
    pub lds: Option<DiscoverySource>,
    /// Where clusters come from.
    pub cds: Option<DiscoverySource>,
    pub stats: StatsRules,
    /// What `server.version` says.
    pub stats_server_version: u64,
    /// How often the intervals of histograms end. None: whenever somebody looks.
    pub stats_flush_interval: Option<Duration>,
    pub runtime_values: RuntimeValues,
    /// `cluster_manager.outlier_detection`.
    pub outlier_event_log: Option<PathBuf>,
}

/// A bootstrap as it was read, encoded: somebody may ask for it, and as a message it would take ten times the memory.
pub struct BootstrapMessage(Bytes);

impl BootstrapMessage {
    pub fn decode(&self) -> ProtoBootstrap {
        ProtoBootstrap::decode(self.0.clone()).expect("it was encoded from such a message")
    }

    /// The static resources, each encoded.
    pub fn static_resources(&self) -> StaticMessages {
        let outline = Outline::decode(self.0.clone()).expect("it was encoded from such a message");
        outline.static_resources.unwrap_or_default()
    }
}

/// What a bootstrap's static resources are made of, not decoded: in the order of the configuration.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StaticMessages {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub listeners: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub clusters: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub secrets: Vec<Bytes>,
}

/// A bootstrap with its static resources and nothing else.
#[derive(Clone, PartialEq, prost::Message)]
struct Outline {
    #[prost(message, optional, tag = "2")]
    static_resources: Option<StaticMessages>,
}

/// As Envoy's.
const STATS_FLUSH_INTERVAL: Duration = Duration::from_secs(5);

impl Bootstrap {
    /// From YAML, or from JSON, which is YAML.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_proto(json::from_yaml(text)?)
    }

    pub fn from_proto(message: ProtoBootstrap) -> Result<Self> {
        validate::validate(&message)?;
        let encoded = BootstrapMessage(message.encode_to_vec().into());
        let Parts {
            node,
            static_resources,
            dynamic_resources,
            admin,
            stats,
            stats_server_version,
            stats_flush_interval,
            runtime_values,
            overload,
            upstream_bind,
            outlier_event_log,
        } = Parts::from_proto(message)?;
        let StaticResources { listeners, clusters, secrets } = static_resources;
        let secrets = static_secrets(secrets).within("static_resources")?;
        let clusters = static_clusters(clusters, &upstream_bind).within("static_resources")?;
        let listeners = static_listeners(listeners, &clusters).within("static_resources")?;
        let Sources { ads, lds, cds } = Sources::from_proto(dynamic_resources).within("dynamic_resources")?;
        if let Some(ads) = &ads {
            check_stream_cluster(&ads.cluster_name, &clusters)
                .within("grpc_services[0].envoy_grpc.cluster_name")
                .within("dynamic_resources.ads_config")?;
        }
        let admin = admin.map(AdminServer::from_proto).transpose().within("admin")?.flatten().map(Arc::new);
        let message = encoded;
        let bootstrap = Self {
            message,
            node,
            secrets,
            admin,
            overload,
            upstream_bind,
            listeners,
            clusters,
            ads,
            lds,
            cds,
            stats,
            stats_server_version,
            stats_flush_interval,
            runtime_values,
            outlier_event_log,
        };
        bootstrap.check_sources()?;
        Ok(bootstrap)
    }

    /// What a control plane must be told, to be asked once the command line had its say about the node.
    pub fn check_node(&self) -> Result<()> {
        if self.ads.is_none() && !self.sources().any(|(_, origin)| matches!(origin, SourceOrigin::Stream(_))) {
            return Ok(());
        }
        for (field, value) in [("node.id", &self.node.id), ("node.cluster", &self.node.cluster)] {
            if value.is_empty() {
                return Err(FieldError::new(field, "value is required to speak to a control plane"));
            }
        }
        Ok(())
    }

    /// Where resources come from, with the place that says so.
    fn sources(&self) -> impl Iterator<Item = (String, &SourceOrigin)> {
        let clusters = self.clusters.iter().enumerate().flat_map(|(index, cluster)| {
            let place = move || format!("static_resources.clusters[{index}]");
            cluster.discovered().map(move |discovered| (place(), &discovered.key.origin))
        });
        let listeners = self.listeners.iter().enumerate().flat_map(|(index, listener)| {
            let place = move || format!("static_resources.listeners[{index}]");
            listener.discovered().map(move |discovered| (place(), &discovered.key.origin))
        });
        let own = [("dynamic_resources.lds_config", &self.lds), ("dynamic_resources.cds_config", &self.cds)];
        let own = own.into_iter().filter_map(|(place, source)| Some((place.to_owned(), &source.as_ref()?.origin)));
        clusters.chain(listeners).chain(own)
    }

    /// Streams go to clusters that stand here; secrets without a source stand here too.
    fn check_sources(&self) -> Result<()> {
        let named = self.clusters.iter().flat_map(|cluster| cluster.discovered());
        let named = named.chain(self.listeners.iter().flat_map(|listener| listener.discovered()));
        for key in named.map(|discovered| &discovered.key).filter(|key| key.origin == SourceOrigin::Bootstrap) {
            if !self.secrets.iter().any(|secret| secret.name == key.name) {
                return Err(FieldError::new("static_resources", format!("unknown static secret '{}'", key.name)));
            }
        }
        for (place, origin) in self.sources() {
            match origin {
                SourceOrigin::Ads if self.ads.is_none() => {
                    return Err(FieldError::new("ads", "ads_config is not there")).within(&place);
                }
                SourceOrigin::Stream(stream) => {
                    check_stream_cluster(&stream.cluster_name, &self.clusters).within(&place)?;
                }
                SourceOrigin::Bootstrap | SourceOrigin::Ads | SourceOrigin::File(_) => {}
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The message and the secrets may hold private keys.
        let Self { node, admin, overload, listeners, clusters, ads, lds, cds, .. } = self;
        f.debug_struct("Bootstrap")
            .field("node", &node.id)
            .field("admin", admin)
            .field("overload", overload)
            .field("listeners", listeners)
            .field("clusters", clusters)
            .field("ads", ads)
            .field("lds", lds)
            .field("cds", cds)
            .finish_non_exhaustive()
    }
}

/// What is read of a bootstrap, once the rest was refused.
struct Parts {
    node: Node,
    static_resources: StaticResources,
    dynamic_resources: DynamicResources,
    admin: Option<Admin>,
    stats: StatsRules,
    stats_server_version: u64,
    stats_flush_interval: Option<Duration>,
    runtime_values: RuntimeValues,
    outlier_event_log: Option<PathBuf>,
    overload: Overload,
    upstream_bind: Arc<UpstreamBind>,
}

impl Parts {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: ProtoBootstrap) -> Result<Self> {
        let ProtoBootstrap {
            node,
            node_context_params,
            static_resources,
            dynamic_resources,
            cluster_manager,
            hds_config,
            flags_path,
            stats_sinks,
            deferred_stat_options: _, // when Envoy builds its counters
            stats_config,
            stats_flush_interval,
            watchdog,
            watchdogs,
            tracing,
            layered_runtime,
            admin,
            overload_manager,
            enable_dispatcher_stats,
            header_prefix,
            stats_server_version_override,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config: _, // no name is looked up: clusters that would are refused
            bootstrap_extensions,
            fatal_actions,
            config_sources,
            default_config_source,
            default_socket_interface,
            certificate_provider_instances,
            inline_headers: _, // which headers Envoy stores for speed
            perf_tracing_file_path,
            default_regex_engine,
            xds_delegate_extension,
            xds_config_tracker_extension,
            listener_manager,
            application_log_config,
            grpc_async_client_manager_config: _, // how Envoy keeps its clients
            memory_allocator_manager: _,         // of Envoy's allocator
            enable_worker_cpu_affinity,
            stats_flush,
            stats_eviction,
        } = message;
        refuse!(node_context_params, hds_config, flags_path, stats_sinks, watchdog, watchdogs, tracing);
        refuse!(enable_dispatcher_stats, header_prefix);
        refuse!(use_tcp_for_dns_lookups, dns_resolution_config, bootstrap_extensions, fatal_actions, config_sources);
        refuse!(default_config_source, default_socket_interface, certificate_provider_instances);
        refuse!(perf_tracing_file_path, default_regex_engine, xds_delegate_extension, xds_config_tracker_extension);
        refuse!(listener_manager, application_log_config, enable_worker_cpu_affinity, stats_eviction);
        let (upstream_bind, outlier_event_log) =
            cluster_manager_parts(cluster_manager.unwrap_or_default()).within("cluster_manager")?;
        let stats = StatsRules::from_proto(stats_config.unwrap_or_default()).within("stats_config")?;
        let stats_flush_interval = match stats_flush {
            None => Some(field::duration_or(stats_flush_interval, STATS_FLUSH_INTERVAL, "stats_flush_interval")?),
            Some(StatsFlush::StatsFlushOnAdmin(_)) => None,
        };
        let runtime_values =
            RuntimeValues::from_proto(layered_runtime.unwrap_or_default()).within("layered_runtime")?;
        Ok(Self {
            node: node.unwrap_or_default(),
            static_resources: static_resources.unwrap_or_default(),
            dynamic_resources: dynamic_resources.unwrap_or_default(),
            admin,
            stats,
            stats_server_version: stats_server_version_override.map_or(0, |version| version.value),
            stats_flush_interval,
            runtime_values,
            outlier_event_log,
            overload: Overload::from_proto(overload_manager.unwrap_or_default()).within("overload_manager")?,
            upstream_bind: Arc::new(upstream_bind),
        })
    }
}

/// What is read of it; the rest is refused.
fn cluster_manager_parts(message: ClusterManager) -> Result<(UpstreamBind, Option<PathBuf>)> {
    let ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation: _, // when Envoy builds a cluster that nobody asked for yet
    } = message;
    refuse!(local_cluster_name, load_stats_config);
    let bind = UpstreamBind::from_proto(upstream_bind_config.unwrap_or_default()).within("upstream_bind_config")?;
    let event_log = event_log_path(outlier_detection.unwrap_or_default()).within("outlier_detection")?;
    Ok((bind, event_log))
}

fn static_clusters(messages: Vec<Cluster>, default_bind: &Arc<UpstreamBind>) -> Result<Vec<Arc<ClusterConfig>>> {
    let mut names = HashSet::new();
    field::each(messages, "clusters", |message| {
        if !names.insert(message.name.clone()) {
            return Err(FieldError::new("name", format!("duplicate cluster '{}'", message.name)));
        }
        let mut cluster = ClusterConfig::from_proto(message)?;
        cluster.added_via_api = false;
        cluster.bind.get_or_insert_with(|| default_bind.clone());
        Ok(Arc::new(cluster))
    })
}

fn static_listeners(messages: Vec<ProtoListener>, clusters: &[Arc<ClusterConfig>]) -> Result<Vec<Arc<Listener>>> {
    let known: HashSet<&str> = clusters.iter().map(|cluster| &*cluster.name).collect();
    let mut names = HashSet::new();
    field::each(messages, "listeners", |message| {
        let listener = Listener::from_proto(message)?;
        if !names.insert(listener.name.clone()) {
            return Err(FieldError::new("name", format!("duplicate listener '{}'", listener.name)));
        }
        listener.check_clusters(|name| known.contains(name))?;
        Ok(Arc::new(listener))
    })
}

/// Where more configuration comes from.
struct Sources {
    ads: Option<Arc<StreamSource>>,
    lds: Option<DiscoverySource>,
    cds: Option<DiscoverySource>,
}

impl Sources {
    fn from_proto(message: DynamicResources) -> Result<Self> {
        let DynamicResources { lds_config, lds_resources_locator, cds_config, cds_resources_locator, ads_config } =
            message;
        refuse!(lds_resources_locator, cds_resources_locator);
        let ads = ads_config.map(StreamSource::from_proto).transpose().within("ads_config")?.map(Arc::new);
        let lds = lds_config.map(DiscoverySource::from_proto).transpose().within("lds_config")?;
        let cds = cds_config.map(DiscoverySource::from_proto).transpose().within("cds_config")?;
        Ok(Self { ads, lds, cds })
    }
}

fn static_secrets(messages: Vec<ProtoSecret>) -> Result<Vec<Arc<Secret>>> {
    let mut names = HashSet::new();
    field::each(messages, "secrets", |message| {
        let secret = Secret::from_proto(message)?;
        match names.insert(secret.name.clone()) {
            true => Ok(Arc::new(secret)),
            false => Err(FieldError::new("name", format!("duplicate secret '{}'", secret.name))),
        }
    })
}

/// A stream is opened before any cluster came by it, and gRPC goes over HTTP/2 alone.
fn check_stream_cluster(name: &str, clusters: &[Arc<ClusterConfig>]) -> Result<()> {
    let refusal = |reason| Err(FieldError::new("", reason));
    let Some(cluster) = clusters.iter().find(|cluster| &*cluster.name == name) else {
        return refusal(format!("unknown cluster '{name}'"));
    };
    match (&cluster.discovery, &cluster.protocol) {
        (Discovery::Eds(_), _) => refusal(format!("cluster '{name}' gets its endpoints by the stream it is for")),
        (Discovery::OriginalDst | Discovery::Aggregate(_), _) => refusal(format!("cluster '{name}' has no endpoints")),
        (Discovery::Static(_) | Discovery::Dns(_), UpstreamProtocol::Http1 | UpstreamProtocol::AsDownstream(_)) => {
            refusal(format!("cluster '{name}' does not speak HTTP/2"))
        }
        (Discovery::Static(_) | Discovery::Dns(_), UpstreamProtocol::Http2(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
