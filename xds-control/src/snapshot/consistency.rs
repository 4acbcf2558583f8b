//! Does every name that a resource refers to exist? Read from the resources themselves, not from how they were made.

use weft_xds::FieldError;
use weft_xds::any::unpack;
use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use weft_xds::pb::envoy::config::listener::v3::{Listener, filter};
use weft_xds::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use weft_xds::pb::envoy::config::route::v3::{RouteConfiguration, route};
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use weft_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use super::Snapshot;
use crate::translate::resource::{Kind, Resource};

/// A name that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from} refers to {kind:?} {name:?}, which does not exist")]
pub struct Dangling {
    /// The resource with the reference.
    pub from: String,
    pub kind: Kind,
    pub name: String,
}

/// All references of a snapshot that lead nowhere.
pub fn check(snapshot: &Snapshot) -> Result<Vec<Dangling>, FieldError> {
    let mut dangling = Vec::new();
    for kind in Kind::ALL {
        for resource in snapshot.view(kind).iter() {
            for (kind, name) in references(resource)? {
                if snapshot.view(kind).lookup(&name).is_none() {
                    dangling.push(Dangling { from: resource.name.to_string(), kind, name });
                }
            }
        }
    }
    Ok(dangling)
}

/// The names that one resource refers to.
pub fn references(resource: &Resource) -> Result<Vec<(Kind, String)>, FieldError> {
    Ok(match resource.kind {
        Kind::Cluster => of_cluster(&resource.unpack()?),
        Kind::Endpoints | Kind::Secret | Kind::ExtensionConfig => Vec::new(),
        Kind::Listener => of_listener(&resource.unpack()?)?,
        Kind::Route => of_routes(&resource.unpack()?),
    })
}

fn of_cluster(cluster: &Cluster) -> Vec<(Kind, String)> {
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
        return Vec::new();
    }
    let asked_name = cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str()).unwrap_or_default();
    let name = if asked_name.is_empty() { &cluster.name } else { asked_name };
    vec![(Kind::Endpoints, name.to_owned())]
}

fn of_listener(listener: &Listener) -> Result<Vec<(Kind, String)>, FieldError> {
    let mut references = Vec::new();
    if let Some(manager) = listener.api_listener.as_ref().and_then(|listener| listener.api_listener.as_ref()) {
        references.extend(of_connection_manager(unpack(manager)?));
    }
    let filters = listener.filter_chains.iter().chain(&listener.default_filter_chain).flat_map(|chain| &chain.filters);
    for filter in filters {
        let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
        match filter.name.as_str() {
            "envoy.filters.network.http_connection_manager" => {
                references.extend(of_connection_manager(unpack(config)?))
            }
            "envoy.filters.network.tcp_proxy" => {
                if let Some(tcp_proxy::ClusterSpecifier::Cluster(name)) = unpack::<TcpProxy>(config)?.cluster_specifier
                {
                    references.push((Kind::Cluster, name));
                }
            }
            _ => {}
        }
    }
    Ok(references)
}

fn of_connection_manager(manager: HttpConnectionManager) -> Vec<(Kind, String)> {
    match manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => vec![(Kind::Route, rds.route_config_name)],
        Some(RouteSpecifier::RouteConfig(table)) => of_routes(&table),
        Some(RouteSpecifier::ScopedRoutes(_)) | None => Vec::new(),
    }
}

fn of_routes(table: &RouteConfiguration) -> Vec<(Kind, String)> {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let clusters = routes.filter_map(|route| match route.action.as_ref()? {
        route::Action::Route(action) => match action.cluster_specifier.as_ref()? {
            ClusterSpecifier::Cluster(name) => Some((Kind::Cluster, name.clone())),
            _ => None,
        },
        _ => None,
    });
    clusters.collect()
}
