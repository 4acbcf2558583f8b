//! Which resources a `proxy-config` command line asks for. Pure.

use serde_json::Value;

use crate::args::{ClusterFilter, Direction, EndpointFilter, ListenerFilter, Section, Traffic};
use crate::dump::Dumped;
use crate::proxy_config::{health, items, socket_address};

/// All conditions of a section; those that it does not have are unset.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    clusters: ClusterFilter,
    listeners: ListenerFilter,
    endpoints: EndpointFilter,
    port: Option<u16>,
    address: Option<String>,
    name: Option<String>,
}

impl Filter {
    pub(crate) fn of(section: &Section) -> Self {
        match section {
            Section::Clusters { source: _, clusters, port } => {
                Self { clusters: clusters.clone(), port: *port, ..Self::default() }
            }
            Section::Listeners { source: _, listeners, address, port } => {
                Self { listeners: listeners.clone(), address: address.clone(), port: *port, ..Self::default() }
            }
            Section::Routes { source: _, name } | Section::Secrets { source: _, name } => {
                Self { name: name.clone(), ..Self::default() }
            }
            Section::Endpoints { source: _, endpoints, address, port } => {
                Self { endpoints: endpoints.clone(), address: address.clone(), port: *port, ..Self::default() }
            }
            Section::All { source: _, clusters, listeners, endpoints, port, address, name } => Self {
                clusters: clusters.clone(),
                listeners: listeners.clone(),
                endpoints: endpoints.clone(),
                port: *port,
                address: address.clone(),
                name: name.clone(),
            },
        }
    }

    pub(crate) fn takes_cluster(&self, cluster: &Dumped) -> bool {
        let ClusterFilter { fqdn, subset, direction } = &self.clusters;
        let parts = cluster.name.split('|').collect::<Vec<_>>();
        let (of_direction, of_port, of_subset, host) = match parts[..] {
            [direction, port, subset, host] => (direction, port, subset, host),
            _ => ("", "", "", cluster.name.as_str()),
        };
        let direction = direction.map(|direction| match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        });
        fqdn.as_ref().is_none_or(|fqdn| host.contains(fqdn))
            && subset.as_ref().is_none_or(|subset| of_subset == subset)
            && direction.is_none_or(|direction| of_direction == direction)
            && self.port.is_none_or(|port| of_port == port.to_string())
    }

    pub(crate) fn takes_listener(&self, listener: &Dumped) -> bool {
        let (address, port) = socket_address(&listener.resource["address"]);
        let is_at = |wanted: &String| address.to_ascii_lowercase().contains(&wanted.to_ascii_lowercase());
        self.address.as_ref().is_none_or(is_at)
            && self.port.is_none_or(|wanted| port == wanted.to_string())
            && self.listeners.traffic.is_none_or(|wanted| traffic(&listener.resource) == wanted)
    }

    pub(crate) fn takes_name(&self, resource: &Dumped) -> bool {
        self.name.as_ref().is_none_or(|name| resource.name == *name)
    }

    /// A cluster's endpoints without those that are not wanted; nothing if none is left of some.
    pub(crate) fn narrow_endpoints(&self, mut assignment: Dumped) -> Option<Dumped> {
        let EndpointFilter { cluster, status } = &self.endpoints;
        if cluster.as_ref().is_some_and(|cluster| assignment.name != *cluster) {
            return None;
        }
        if status.is_none() && self.address.is_none() && self.port.is_none() {
            return Some(assignment);
        }
        let is_wanted = |endpoint: &Value| {
            let (address, port) = socket_address(&endpoint["endpoint"]["address"]);
            self.address.as_ref().is_none_or(|wanted| address.eq_ignore_ascii_case(wanted))
                && self.port.is_none_or(|wanted| port == wanted.to_string())
                && status.as_ref().is_none_or(|wanted| health(endpoint).eq_ignore_ascii_case(wanted))
        };
        let localities = assignment.resource["endpoints"].as_array_mut()?;
        for locality in &mut *localities {
            if let Some(endpoints) = locality["lb_endpoints"].as_array_mut() {
                endpoints.retain(is_wanted);
            }
        }
        localities.retain(|locality| !items(&locality["lb_endpoints"]).is_empty());
        if localities.is_empty() { None } else { Some(assignment) }
    }
}

/// By the network filters of all chains.
fn traffic(listener: &Value) -> Traffic {
    let chains = items(&listener["filter_chains"]).iter().chain([&listener["default_filter_chain"]]);
    let filters = chains.flat_map(|chain| items(&chain["filters"]));
    let types = filters.filter_map(|filter| filter["typed_config"]["@type"].as_str());
    let types = types.chain(listener["api_listener"]["api_listener"]["@type"].as_str()).collect::<Vec<_>>();
    let has = |name: &str| types.iter().any(|type_url| type_url.ends_with(name));
    match (has(".HttpConnectionManager"), has(".TcpProxy")) {
        (true, true) => Traffic::HttpAndTcp,
        (true, false) => Traffic::Http,
        (false, true) => Traffic::Tcp,
        (false, false) => Traffic::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dump::State;

    fn dumped(name: &str, resource: Value) -> Dumped {
        Dumped { name: name.to_owned(), resource, state: State::Active }
    }

    #[test]
    fn clusters_are_told_apart_by_the_parts_of_their_names() {
        let cluster = dumped("outbound|80|v1|web.shop.svc.cluster.local", json!({}));
        let clusters = |fqdn: &str, subset: &str, direction| Filter {
            clusters: ClusterFilter {
                fqdn: Some(fqdn.into()),
                subset: Some(subset.into()),
                direction: Some(direction),
            },
            ..Filter::default()
        };
        assert!(clusters("web.shop", "v1", Direction::Outbound).takes_cluster(&cluster));
        assert!(!clusters("web.bank", "v1", Direction::Outbound).takes_cluster(&cluster));
        assert!(!clusters("web.shop", "v2", Direction::Outbound).takes_cluster(&cluster));
        assert!(!clusters("web.shop", "v1", Direction::Inbound).takes_cluster(&cluster));
        let port = |port| Filter { port: Some(port), ..Filter::default() };
        assert!(port(80).takes_cluster(&cluster) && !port(8).takes_cluster(&cluster));
        assert!(!port(80).takes_cluster(&dumped("PassthroughCluster", json!({}))));
    }

    #[test]
    fn listeners_are_told_apart_by_address_port_and_filters() {
        let filter = |name: &str| json!({"typed_config": {"@type": format!("type.googleapis.com/x.{name}")}});
        let listener = dumped(
            "l",
            json!({"address": {"socket_address": {"address": "10.96.0.1", "port_value": 80}},
                   "filter_chains": [{"filters": [filter("HttpConnectionManager")]}, {"filters": [filter("TcpProxy")]}]}),
        );
        let of = |traffic| Filter { listeners: ListenerFilter { traffic: Some(traffic) }, ..Filter::default() };
        assert!(of(Traffic::HttpAndTcp).takes_listener(&listener));
        assert!(!of(Traffic::Http).takes_listener(&listener));
        let at = |address: &str| Filter { address: Some(address.to_owned()), ..Filter::default() };
        assert!(at("10.96").takes_listener(&listener) && !at("10.97").takes_listener(&listener));
    }

    #[test]
    fn endpoints_are_narrowed_down_and_empty_clusters_left_out() {
        let endpoint = |address: &str, health: &str| {
            json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8080}}},
                   "health_status": health})
        };
        let assignment = || {
            let endpoints = [endpoint("10.0.0.1", "UNKNOWN"), endpoint("10.0.0.2", "DRAINING")];
            dumped("c", json!({"endpoints": [{"lb_endpoints": endpoints}]}))
        };
        let count = |filter: Filter| {
            filter
                .narrow_endpoints(assignment())
                .map(|left| items(&left.resource["endpoints"][0]["lb_endpoints"]).len())
        };
        let status = |status: &str| EndpointFilter { status: Some(status.to_owned()), cluster: None };
        assert_eq!(count(Filter::default()), Some(2));
        assert_eq!(count(Filter { endpoints: status("healthy"), ..Filter::default() }), Some(1));
        assert_eq!(count(Filter { endpoints: status("unhealthy"), ..Filter::default() }), None);
        assert_eq!(count(Filter { address: Some("10.0.0.2".to_owned()), ..Filter::default() }), Some(1));
        assert_eq!(count(Filter { port: Some(80), ..Filter::default() }), None);
        let other = EndpointFilter { cluster: Some("d".to_owned()), status: None };
        assert_eq!(count(Filter { endpoints: other, ..Filter::default() }), None);
    }
}
