//! `envoy.config.bootstrap.v3.Bootstrap`: who this proxy is, what it starts with, and where more comes from.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use weft_xds::{
    FieldError, json,
    pb::envoy::config::{
        bootstrap::v3::{
            Admin, Bootstrap as ProtoBootstrap, ClusterManager, LayeredRuntime, RuntimeLayer,
            bootstrap::{DynamicResources, StaticResources},
            runtime_layer::LayerSpecifier,
        },
        cluster::v3::Cluster,
        listener::v3::Listener as ProtoListener,
        metrics::v3::StatsConfig,
    },
    validate,
};

pub use weft_xds::pb::envoy::config::core::v3::Node;

pub use crate::config::config_source::{AdsConfig, DiscoverySource};
use crate::config::{
    access_log::{AccessLog, AccessLogSink},
    address::socket_addr,
    cluster::{ClusterConfig, Discovery, UpstreamProtocol},
    field::{self, Result, Within as _, element, refuse, unset, unsupported},
    listener::Listener,
    overload::Overload,
};

pub struct Bootstrap {
    /// As it was read, for `/config_dump`. Holds what secrets stand in it.
    pub message: ProtoBootstrap,
    /// Sent with the first request of each xDS stream.
    pub node: Node,
    /// None: no admin server.
    pub admin: Option<SocketAddr>,
    pub overload: Overload,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<ClusterConfig>>,
    pub ads: Option<AdsConfig>,
    /// Listeners come by ADS.
    pub lds: Option<DiscoverySource>,
    /// Clusters come by ADS.
    pub cds: Option<DiscoverySource>,
}

/// Where the log of an admin server goes that is not to be logged.
const NOWHERE: &str = "/dev/null";

impl Bootstrap {
    /// From YAML, or from JSON, which is YAML.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_proto(json::from_yaml(text)?)
    }

    pub fn from_proto(message: ProtoBootstrap) -> Result<Self> {
        validate::validate(&message)?;
        let Parts { node, static_resources, dynamic_resources, admin, overload } = Parts::from_proto(message.clone())?;
        let StaticResources { listeners, clusters, secrets } = static_resources;
        unset(&secrets, "static_resources.secrets")?;
        let clusters = static_clusters(clusters).within("static_resources")?;
        let listeners = static_listeners(listeners, &clusters).within("static_resources")?;
        let Sources { ads, lds, cds } = Sources::from_proto(dynamic_resources).within("dynamic_resources")?;
        if let Some(ads) = &ads {
            check_ads_cluster(&ads.cluster_name, &clusters).within("dynamic_resources.ads_config")?;
        }
        let admin = admin.map(admin_address).transpose().within("admin")?.flatten();
        Ok(Self { message, node, admin, overload, listeners, clusters, ads, lds, cds })
    }

    /// What a control plane must be told, to be asked once the command line had its say about the node.
    pub fn check_node(&self) -> Result<()> {
        if self.ads.is_none() {
            return Ok(());
        }
        for (field, value) in [("node.id", &self.node.id), ("node.cluster", &self.node.cluster)] {
            if value.is_empty() {
                return Err(FieldError::new(field, "value is required to speak to a control plane"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { message: _, node, admin, overload, listeners, clusters, ads, lds, cds } = self; // the message may hold private keys
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
    overload: Overload,
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
            stats_flush_interval: _, // of sinks, which are refused
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
            stats_flush: _, // as the interval
            stats_eviction,
        } = message;
        refuse!(node_context_params, hds_config, flags_path, stats_sinks, watchdog, watchdogs, tracing);
        refuse!(enable_dispatcher_stats, header_prefix, stats_server_version_override);
        refuse!(use_tcp_for_dns_lookups, dns_resolution_config, bootstrap_extensions, fatal_actions, config_sources);
        refuse!(default_config_source, default_socket_interface, certificate_provider_instances);
        refuse!(perf_tracing_file_path, default_regex_engine, xds_delegate_extension, xds_config_tracker_extension);
        refuse!(listener_manager, application_log_config, enable_worker_cpu_affinity, stats_eviction);
        refuse_cluster_manager(cluster_manager.unwrap_or_default()).within("cluster_manager")?;
        refuse_stats_config(stats_config.unwrap_or_default()).within("stats_config")?;
        refuse_runtime(layered_runtime.unwrap_or_default()).within("layered_runtime")?;
        Ok(Self {
            node: node.unwrap_or_default(),
            static_resources: static_resources.unwrap_or_default(),
            dynamic_resources: dynamic_resources.unwrap_or_default(),
            admin,
            overload: Overload::from_proto(overload_manager.unwrap_or_default()).within("overload_manager")?,
        })
    }
}

fn refuse_cluster_manager(message: ClusterManager) -> Result<()> {
    let ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation: _, // when Envoy builds a cluster that nobody asked for yet
    } = message;
    refuse!(local_cluster_name, outlier_detection, upstream_bind_config, load_stats_config);
    Ok(())
}

fn refuse_stats_config(message: StatsConfig) -> Result<()> {
    let StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides,
    } = message;
    refuse!(stats_tags, stats_matcher, histogram_bucket_settings);
    field::only(use_all_default_tags, true, "use_all_default_tags")?;
    field::only(allow_default_tag_overrides, false, "allow_default_tag_overrides")
}

/// Layers without a key change nothing. That of the admin server has none at the start, and cannot get one.
fn refuse_runtime(message: LayeredRuntime) -> Result<()> {
    let LayeredRuntime { layers } = message;
    for (index, RuntimeLayer { name: _, layer_specifier }) in layers.into_iter().enumerate() {
        let refusal = match layer_specifier {
            None | Some(LayerSpecifier::AdminLayer(_)) => continue,
            Some(LayerSpecifier::StaticLayer(layer)) => match layer.fields.keys().min() {
                None => continue,
                Some(key) => unsupported(format!("static_layer.{key}")),
            },
            Some(LayerSpecifier::DiskLayer(_)) => unsupported("disk_layer"),
            Some(LayerSpecifier::RtdsLayer(_)) => unsupported("rtds_layer"),
        };
        return Err(refusal).at("layers", index);
    }
    Ok(())
}

fn static_clusters(messages: Vec<Cluster>) -> Result<Vec<Arc<ClusterConfig>>> {
    let mut names = HashSet::new();
    field::each(messages, "clusters", |message| {
        if !names.insert(message.name.clone()) {
            return Err(FieldError::new("name", format!("duplicate cluster '{}'", message.name)));
        }
        ClusterConfig::from_proto(message).map(Arc::new)
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
    ads: Option<AdsConfig>,
    lds: Option<DiscoverySource>,
    cds: Option<DiscoverySource>,
}

impl Sources {
    fn from_proto(message: DynamicResources) -> Result<Self> {
        let DynamicResources { lds_config, lds_resources_locator, cds_config, cds_resources_locator, ads_config } =
            message;
        refuse!(lds_resources_locator, cds_resources_locator);
        let ads = ads_config.map(AdsConfig::from_proto).transpose().within("ads_config")?;
        let lds = lds_config.map(DiscoverySource::from_proto).transpose().within("lds_config")?;
        let cds = cds_config.map(DiscoverySource::from_proto).transpose().within("cds_config")?;
        for (field, source) in [("lds_config", &lds), ("cds_config", &cds)] {
            if source.is_some() && ads.is_none() {
                return Err(FieldError::new("ads", "ads_config is not there")).within(field);
            }
        }
        Ok(Self { ads, lds, cds })
    }
}

/// The stream is opened before any cluster came by it, and gRPC goes over HTTP/2 alone.
fn check_ads_cluster(name: &str, clusters: &[Arc<ClusterConfig>]) -> Result<()> {
    let refusal = |reason| Err(FieldError::new("grpc_services[0].envoy_grpc.cluster_name", reason));
    let Some(cluster) = clusters.iter().find(|cluster| &*cluster.name == name) else {
        return refusal(format!("unknown cluster '{name}'"));
    };
    match (&cluster.discovery, &cluster.protocol) {
        (Discovery::Eds { .. }, _) => refusal(format!("cluster '{name}' gets its endpoints by the stream it is for")),
        (Discovery::OriginalDst, _) => refusal(format!("cluster '{name}' has no endpoints")),
        (Discovery::Static(_), UpstreamProtocol::Http1) => refusal(format!("cluster '{name}' does not speak HTTP/2")),
        (Discovery::Static(_), UpstreamProtocol::Http2(_)) => Ok(()),
    }
}

#[expect(deprecated, reason = "the older spelling of an access log, which bootstraps still have")]
fn admin_address(message: Admin) -> Result<Option<SocketAddr>> {
    let Admin {
        access_log,
        access_log_path,
        profile_path: _, // of Envoy's profiler, which no path of this admin server starts
        address,
        socket_options,
        ignore_global_conn_limit: _, // there is no such limit to be exempt from
        allow_paths,
    } = message;
    refuse!(socket_options, allow_paths);
    if !access_log_path.is_empty() && access_log_path != NOWHERE {
        return Err(unsupported("access_log_path"));
    }
    for (index, message) in access_log.into_iter().enumerate() {
        let AccessLog { sink, format: _ } = AccessLog::from_proto(message).at("access_log", index)?;
        if sink != AccessLogSink::File(NOWHERE.into()) {
            return Err(unsupported(element("access_log", index)));
        }
    }
    address.map(socket_addr).transpose().within("address")
}

#[cfg(test)]
mod tests;
