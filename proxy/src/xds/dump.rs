//! What the proxy has, as the messages that it came in: Envoy's `/config_dump`. Built when somebody asks. Pure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use weft_xds::{
    FieldError, any,
    json::{self, FieldNames},
    pb::{
        envoy::{
            admin::v3::{
                BootstrapConfigDump, ClustersConfigDump, ConfigDump as ConfigDumpMessage, EndpointsConfigDump,
                ListenersConfigDump, RoutesConfigDump, SecretsConfigDump, UpdateFailureState,
                clusters_config_dump::{DynamicCluster, StaticCluster},
                endpoints_config_dump::{DynamicEndpointConfig, StaticEndpointConfig},
                listeners_config_dump::{DynamicListener, DynamicListenerState, StaticListener},
                routes_config_dump::{DynamicRouteConfig, StaticRouteConfig},
                secrets_config_dump::{DynamicSecret, StaticSecret},
            },
            config::{
                bootstrap::v3::Bootstrap as BootstrapMessage,
                cluster::v3::Cluster as ClusterMessage,
                listener::v3::{Listener as ListenerMessage, filter::ConfigType},
            },
            extensions::filters::network::http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
        },
        google::protobuf::{Any, Timestamp},
    },
};

use crate::xds::{
    failures::{Failure, Failures},
    kind::ResourceKind,
    resource::Origin,
};

mod redact;

/// Envoy's parts of a dump. `endpoints` is there when asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigDump {
    pub bootstrap: BootstrapConfigDump,
    pub clusters: ClustersConfigDump,
    pub endpoints: Option<EndpointsConfigDump>,
    pub listeners: ListenersConfigDump,
    pub routes: RoutesConfigDump,
    pub secrets: SecretsConfigDump,
}

/// Whether a dump shows endpoints: Envoy's `include_eds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointsInDump {
    Included,
    Omitted,
}

/// One resource that is there.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub name: &'a Arc<str>,
    pub origin: &'a Origin,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Static,
    Active,
    Warming,
}

/// A secret that something names.
#[derive(Clone, Debug)]
pub struct SecretEntry<'a> {
    pub name: &'a Arc<str>,
    /// None: it did not come yet.
    pub origin: Option<&'a Origin>,
    pub is_static: bool,
}

impl ConfigDump {
    /// In Envoy's order.
    pub fn into_message(self) -> ConfigDumpMessage {
        let ConfigDump { bootstrap, clusters, endpoints, listeners, routes, secrets } = self;
        let mut configs = vec![any::pack(&bootstrap), any::pack(&clusters)];
        configs.extend(endpoints.as_ref().map(any::pack));
        configs.extend([any::pack(&listeners), any::pack(&routes), any::pack(&secrets)]);
        ConfigDumpMessage { configs }
    }

    /// As the admin server prints it: field names as in the `.proto` files, secrets left out.
    pub fn to_json(&self) -> Result<serde_json::Value, FieldError> {
        let mut value = json::to_value(&self.clone().into_message(), FieldNames::Proto)?;
        redact::redact(&mut value);
        Ok(value)
    }
}

pub fn bootstrap(message: BootstrapMessage, loaded_at: SystemTime) -> BootstrapConfigDump {
    BootstrapConfigDump { bootstrap: Some(message), last_updated: Some(timestamp(loaded_at)) }
}

pub fn clusters<'a>(
    version_info: &str,
    entries: impl Iterator<Item = Entry<'a>>,
    failures: &Failures,
) -> ClustersConfigDump {
    let mut dump = ClustersConfigDump { version_info: version_info.to_owned(), ..Default::default() };
    let failures = failures.of(ResourceKind::Cluster);
    let mut shown = Vec::new();
    for Entry { name, origin, place } in sorted(entries) {
        let (cluster, last_updated) = (Some(origin.message.clone()), Some(timestamp(origin.updated_at)));
        if place == Place::Static {
            dump.static_clusters.push(StaticCluster { cluster, last_updated });
            continue;
        }
        let dynamic = DynamicCluster {
            version_info: origin.version_info.clone(),
            cluster,
            last_updated,
            error_state: failures.get(name).map(error_state),
            client_status: 0,
        };
        shown.push(name);
        match place {
            Place::Warming => dump.dynamic_warming_clusters.push(dynamic),
            Place::Active | Place::Static => dump.dynamic_active_clusters.push(dynamic),
        }
    }
    let unseen = failures.iter().filter(|(name, _)| !shown.contains(name));
    dump.dynamic_warming_clusters.extend(unseen.map(|(_, failure)| DynamicCluster {
        version_info: String::new(),
        cluster: None,
        last_updated: None,
        error_state: Some(error_state(failure)),
        client_status: 0,
    }));
    dump
}

pub fn listeners<'a>(
    version_info: &str,
    entries: impl Iterator<Item = Entry<'a>>,
    failures: &Failures,
) -> ListenersConfigDump {
    let mut static_listeners = Vec::new();
    let mut dynamic: BTreeMap<&str, DynamicListener> = BTreeMap::new();
    for Entry { name, origin, place } in sorted(entries) {
        let (listener, last_updated) = (Some(origin.message.clone()), Some(timestamp(origin.updated_at)));
        let state = || DynamicListenerState {
            version_info: origin.version_info.clone(),
            listener: listener.clone(),
            last_updated,
        };
        match place {
            Place::Static => {
                static_listeners.push(StaticListener { listener: listener.clone(), last_updated });
            }
            Place::Active => named(&mut dynamic, name).active_state = Some(state()),
            Place::Warming => named(&mut dynamic, name).warming_state = Some(state()),
        }
    }
    for (name, failure) in failures.of(ResourceKind::Listener) {
        named(&mut dynamic, name).error_state = Some(error_state(failure));
    }
    ListenersConfigDump {
        version_info: version_info.to_owned(),
        static_listeners,
        dynamic_listeners: dynamic.into_values().collect(),
    }
}

/// `listeners` are where route tables stand that do not come by themselves.
pub fn routes<'a>(
    tables: impl Iterator<Item = Entry<'a>>,
    listeners: impl Iterator<Item = Entry<'a>>,
    failures: &Failures,
) -> RoutesConfigDump {
    let failures = failures.of(ResourceKind::Routes);
    let static_route_configs = sorted(listeners.filter(|entry| entry.place != Place::Warming))
        .into_iter()
        .flat_map(|entry| {
            let last_updated = Some(timestamp(entry.origin.updated_at));
            inline_tables(&entry.origin.message)
                .into_iter()
                .map(move |table| StaticRouteConfig { route_config: Some(table), last_updated })
        })
        .collect();
    let dynamic_route_configs = sorted(tables)
        .into_iter()
        .map(|Entry { name, origin, place: _ }| DynamicRouteConfig {
            version_info: origin.version_info.clone(),
            route_config: Some(origin.message.clone()),
            last_updated: Some(timestamp(origin.updated_at)),
            error_state: failures.get(name).map(error_state),
            client_status: 0,
        })
        .collect();
    RoutesConfigDump { static_route_configs, dynamic_route_configs }
}

/// `clusters` are where assignments stand that do not come by themselves.
pub fn endpoints<'a>(
    assignments: impl Iterator<Item = Entry<'a>>,
    clusters: impl Iterator<Item = Entry<'a>>,
    failures: &Failures,
) -> EndpointsConfigDump {
    let failures = failures.of(ResourceKind::Endpoints);
    let static_endpoint_configs = sorted(clusters.filter(|entry| entry.place != Place::Warming))
        .into_iter()
        .filter_map(|entry| {
            let cluster: ClusterMessage = any::unpack(&entry.origin.message).ok()?;
            Some(StaticEndpointConfig {
                endpoint_config: Some(any::pack(&cluster.load_assignment?)),
                last_updated: Some(timestamp(entry.origin.updated_at)),
            })
        })
        .collect();
    let dynamic_endpoint_configs = sorted(assignments)
        .into_iter()
        .map(|Entry { name, origin, place: _ }| DynamicEndpointConfig {
            version_info: origin.version_info.clone(),
            endpoint_config: Some(origin.message.clone()),
            last_updated: Some(timestamp(origin.updated_at)),
            error_state: failures.get(name).map(error_state),
            client_status: 0,
        })
        .collect();
    EndpointsConfigDump { static_endpoint_configs, dynamic_endpoint_configs }
}

/// What is in them is left out when it is printed.
pub fn secrets<'a>(entries: impl Iterator<Item = SecretEntry<'a>>, failures: &Failures) -> SecretsConfigDump {
    let failures = failures.of(ResourceKind::Secret);
    let mut dump = SecretsConfigDump::default();
    for SecretEntry { name, origin, is_static } in entries {
        let secret = origin.map(|origin| origin.message.clone());
        let last_updated = origin.map(|origin| timestamp(origin.updated_at));
        if is_static {
            dump.static_secrets.push(StaticSecret { name: name.to_string(), last_updated, secret });
            continue;
        }
        let dynamic = DynamicSecret {
            name: name.to_string(),
            version_info: origin.map_or("uninitialized", |origin| &origin.version_info).to_owned(),
            last_updated,
            secret,
            error_state: failures.get(name).map(error_state),
            client_status: 0,
        };
        match origin {
            Some(_) => dump.dynamic_active_secrets.push(dynamic),
            None => dump.dynamic_warming_secrets.push(dynamic),
        }
    }
    dump
}

fn sorted<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = entries.collect();
    entries.sort_by(|a, b| (a.name, a.place).cmp(&(b.name, b.place)));
    entries
}

fn named<'m, 'n>(listeners: &'m mut BTreeMap<&'n str, DynamicListener>, name: &'n str) -> &'m mut DynamicListener {
    listeners.entry(name).or_insert_with(|| DynamicListener { name: name.to_owned(), ..Default::default() })
}

/// The route tables that stand in a listener. It was read once already, so what does not decode here is not there.
fn inline_tables(listener: &Any) -> Vec<Any> {
    let Ok(listener) = any::unpack::<ListenerMessage>(listener) else { return Vec::new() };
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    chains
        .flat_map(|chain| chain.filters)
        .filter_map(|filter| match filter.config_type? {
            ConfigType::TypedConfig(config) => any::unpack::<HttpConnectionManager>(&config).ok(),
            ConfigType::ConfigDiscovery(_) => None,
        })
        .filter_map(|manager| match manager.route_specifier? {
            RouteSpecifier::RouteConfig(table) => Some(any::pack(&table)),
            RouteSpecifier::Rds(_) | RouteSpecifier::ScopedRoutes(_) => None,
        })
        .collect()
}

fn error_state(failure: &Failure) -> UpdateFailureState {
    UpdateFailureState {
        failed_configuration: Some(failure.origin.message.clone()),
        last_update_attempt: Some(timestamp(failure.at)),
        details: failure.reason.clone(),
        version_info: failure.origin.version_info.clone(),
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    // A clock before 1970 is shown as 1970.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
