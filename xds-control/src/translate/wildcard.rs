//! Ports of Services without an address of their own: headless ones, reached at their endpoints' addresses, and
//! external names, reached wherever DNS says.
//!
//! All of them that use a port share one listener for it, whatever their number of endpoints: requests are told apart by
//! the host that they name, bytes by the address that they go to (a chain for each endpoint, so that one that comes or
//! goes leaves the connections of the others alone), TLS to external names by its server name. What belongs to none of
//! them goes where traffic to no Service goes. Of two Services that claim the same address for different protocols, the
//! older keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_xds::pb::envoy::config::core::v3::{CidrRange, TrafficDirection};
use weft_xds::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use weft_xds::pb::envoy::config::route::v3::VirtualHost;

use super::filter::{chain, http, http_inspector, http_match, rds, tcp, tls_inspector};
use super::proto::{address, boolean, duration, uint32};
use super::resource::Resource;
use super::{MeshSettings, outbound_name, route, unknown_destinations};
use crate::model::ObjectName;
use crate::model::mesh::ServiceEntry;
use crate::model::protocol::Protocol;
use crate::model::service::{Addressing, Affinity, Families, ServicePort};

/// Two Services claim the same for different protocols.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortConflict {
    pub port: u16,
    pub kept: ObjectName,
    pub refused: ObjectName,
}

/// The ports at which a Service is reached by addresses that are not its own: those that its endpoints listen on, as
/// nothing stands between them and a client; its own where it has no endpoints.
pub fn ports(entry: &ServiceEntry) -> BTreeSet<u16> {
    let mut numbers = BTreeSet::new();
    for port in entry.service.ports.iter().filter(|port| is_told_apart(&entry.service.addressing, port.protocol)) {
        let endpoints = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
        match entry.service.addressing {
            Addressing::Headless if !endpoints.is_empty() => {
                numbers.extend(endpoints.iter().map(|endpoint| endpoint.address.port()));
            }
            Addressing::Headless | Addressing::External(_) => _ = numbers.insert(port.number),
            Addressing::Virtual(_) => {}
        }
    }
    numbers
}

/// Whether traffic to a port can be told from other traffic on its way to the same port.
pub(super) fn is_told_apart(addressing: &Addressing, protocol: Protocol) -> bool {
    match addressing {
        Addressing::Virtual(_) => false,
        Addressing::Headless => true,
        // Where a name leads is not known here, so bytes without a name in them are bytes to anywhere.
        Addressing::External(_) => protocol != Protocol::Tcp,
    }
}

/// The listeners and the route table of a port, for those who see all of `members`. `namespace` is theirs, where it
/// makes a difference: Services of their own namespace go by their bare names too.
pub fn translate<'a>(
    number: u16,
    members: impl IntoIterator<Item = &'a ServiceEntry>,
    namespace: Option<&str>,
    settings: &MeshSettings,
) -> (Vec<Resource>, Vec<PortConflict>) {
    let mut members = members.into_iter().collect::<Vec<_>>();
    members.sort_by_key(|entry| entry.service.seniority());
    let mut plan = Plan::new(number);
    for entry in members {
        plan.add(entry, settings);
    }
    let mut resources = plan.listeners(settings).into_iter().map(Resource::listener).collect::<Vec<_>>();
    if plan.routes_requests() {
        let hosts = plan.virtual_hosts(namespace, settings);
        resources.push(Resource::route(route::wildcard(&number.to_string(), hosts, settings)));
    }
    let mut conflicts = plan.conflicts;
    conflicts.sort();
    conflicts.dedup();
    (resources, conflicts)
}

struct Plan<'a> {
    number: u16,
    families: Families,
    /// In the order of seniority.
    requests: Vec<Requests<'a>>,
    /// By address.
    bytes: BTreeMap<IpAddr, Bytes>,
    /// By server name.
    tls: BTreeMap<String, (&'a ObjectName, String)>,
    owners: HashMap<IpAddr, (&'a ObjectName, Protocol)>,
    conflicts: Vec<PortConflict>,
}

/// A Service whose requests are routed.
struct Requests<'a> {
    entry: &'a ServiceEntry,
    cluster: String,
    /// Those of its endpoints that it keeps.
    addresses: Vec<IpAddr>,
}

/// Where bytes to one address go.
struct Bytes {
    cluster: String,
    /// Requests among them are told apart.
    detect: bool,
}

impl<'a> Plan<'a> {
    fn new(number: u16) -> Self {
        Self {
            number,
            families: Families { ipv4: false, ipv6: false },
            requests: Vec::new(),
            bytes: BTreeMap::new(),
            tls: BTreeMap::new(),
            owners: HashMap::new(),
            conflicts: Vec::new(),
        }
    }

    fn add(&mut self, entry: &'a ServiceEntry, settings: &MeshSettings) {
        let addressing = &entry.service.addressing;
        for port in entry.service.ports.iter().filter(|port| is_told_apart(addressing, port.protocol)) {
            let cluster = outbound_name(port.number, &entry.service.host(&settings.cluster_domain));
            match addressing {
                Addressing::Virtual(_) => {}
                Addressing::Headless => self.add_headless(entry, port, cluster),
                Addressing::External(target) if port.number == self.number => {
                    self.families = Families::BOTH;
                    if port.protocol == Protocol::Tls {
                        self.add_server_names(entry, target, &cluster, settings);
                    } else {
                        self.requests.push(Requests { entry, cluster, addresses: Vec::new() });
                    }
                }
                Addressing::External(_) => {}
            }
        }
    }

    fn add_headless(&mut self, entry: &'a ServiceEntry, port: &ServicePort, cluster: String) {
        let endpoints = entry.endpoints.get(&port.number).map(Vec::as_slice).unwrap_or_default();
        let here = endpoints.iter().filter(|endpoint| endpoint.address.port() == self.number);
        let here = here.map(|endpoint| endpoint.address.ip()).collect::<Vec<_>>();
        if here.is_empty() && (!endpoints.is_empty() || port.number != self.number) {
            return;
        }
        self.families.ipv4 |= here.iter().any(IpAddr::is_ipv4) || (here.is_empty() && entry.service.families.ipv4);
        self.families.ipv6 |= here.iter().any(IpAddr::is_ipv6) || (here.is_empty() && entry.service.families.ipv6);
        let kept = here.into_iter().filter(|ip| self.claim(*ip, &entry.service.name, port.protocol));
        let addresses = kept.collect::<Vec<_>>();
        if !port.protocol.is_http() {
            let detect = port.protocol == Protocol::Detect;
            for address in &addresses {
                self.bytes.insert(*address, Bytes { cluster: cluster.clone(), detect });
            }
        }
        let is_known = self.requests.iter().any(|known| known.entry.service.name == entry.service.name);
        if (port.protocol.is_http() || port.protocol == Protocol::Detect) && !is_known {
            self.requests.push(Requests { entry, cluster, addresses });
        }
    }

    /// Whether an address is this Service's: the first one's, which others may join that speak the same.
    fn claim(&mut self, address: IpAddr, name: &'a ObjectName, protocol: Protocol) -> bool {
        match self.owners.get(&address) {
            None => {
                self.owners.insert(address, (name, protocol));
                true
            }
            Some((owner, kept)) => {
                if owner != &name && !kept.agrees_with(protocol) {
                    let (kept, refused) = ((*owner).clone(), name.clone());
                    self.conflicts.push(PortConflict { port: self.number, kept, refused });
                }
                false
            }
        }
    }

    fn add_server_names(&mut self, entry: &'a ServiceEntry, target: &str, cluster: &str, settings: &MeshSettings) {
        let mut names = host_names(entry, None, settings);
        names.push(target.to_owned());
        for name in names {
            match self.tls.get(&name) {
                Some((owner, _)) => {
                    let (kept, refused) = ((*owner).clone(), entry.service.name.clone());
                    self.conflicts.push(PortConflict { port: self.number, kept, refused });
                }
                None => _ = self.tls.insert(name, (&entry.service.name, cluster.to_owned())),
            }
        }
    }

    fn routes_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    fn listeners(&self, settings: &MeshSettings) -> Vec<Listener> {
        let (any_v4, any_v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let wanted = [any_v4, any_v6].into_iter().filter(|ip| self.families.has(ip));
        wanted.map(|ip| self.listener(ip, settings)).collect()
    }

    fn listener(&self, ip: IpAddr, settings: &MeshSettings) -> Listener {
        let name = format!("{ip}_{}", self.number);
        let to_routes = |chain_name: &str, matching| {
            let filter = http(format!("outbound_{name}"), rds(&self.number.to_string()), settings);
            chain(chain_name, Some(matching), filter)
        };
        let to_cluster = |chain_name: &str, matching, cluster: &str| {
            chain(chain_name, Some(matching), tcp(cluster, Affinity::None, settings))
        };
        let mut chains: Vec<FilterChain> = Vec::new();
        for (address, bytes) in self.bytes.iter().filter(|(address, _)| address.is_ipv4() == ip.is_ipv4()) {
            if bytes.detect {
                let matching = FilterChainMatch { prefix_ranges: only(*address), ..http_match() };
                chains.push(to_routes(&format!("http-{address}"), matching));
            }
            let matching = FilterChainMatch { prefix_ranges: only(*address), ..FilterChainMatch::default() };
            chains.push(to_cluster(&address.to_string(), matching, &bytes.cluster));
        }
        let mut by_cluster: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (server_name, (_, cluster)) in &self.tls {
            by_cluster.entry(cluster).or_default().push(server_name.clone());
        }
        for (cluster, server_names) in by_cluster {
            let transport_protocol = "tls".to_owned();
            let matching = FilterChainMatch { server_names, transport_protocol, ..FilterChainMatch::default() };
            chains.push(to_cluster(cluster, matching, cluster));
        }
        let mut listener_filters = Vec::new();
        if !self.tls.is_empty() {
            listener_filters.push(tls_inspector());
        }
        if self.routes_requests() {
            listener_filters.push(http_inspector());
            chains.push(to_routes("http", http_match()));
        }
        let inspects = !listener_filters.is_empty();
        let unknown = tcp(unknown_destinations(settings), Affinity::None, settings);
        Listener {
            address: address(ip, self.number),
            bind_to_port: boolean(false),
            traffic_direction: TrafficDirection::Outbound.into(),
            // A server that speaks first leaves nothing to detect: go on without, and soon.
            listener_filters_timeout: if inspects { duration(settings.detection_timeout) } else { None },
            continue_on_listener_filters_timeout: inspects,
            listener_filters,
            filter_chains: chains,
            default_filter_chain: Some(chain("unknown", None, unknown)),
            name,
            ..Listener::default()
        }
    }

    fn virtual_hosts(&self, namespace: Option<&str>, settings: &MeshSettings) -> Vec<VirtualHost> {
        let mut hosts = Vec::with_capacity(self.requests.len());
        for Requests { entry, cluster, addresses } in &self.requests {
            let names = host_names(entry, namespace, settings);
            let is_headless = entry.service.addressing == Addressing::Headless;
            // Pods of a StatefulSet have names below that of their Service.
            let pods = names.iter().filter(|_| is_headless).map(|name| format!("*.{name}")).collect::<Vec<_>>();
            let addresses = addresses.iter().map(|address| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            });
            let name = format!("{}:{}", entry.service.host(&settings.cluster_domain), self.number);
            let domains = names.into_iter().chain(pods).chain(addresses).collect();
            hosts.push(match is_headless {
                true => route::to_chosen_host(name, domains, cluster),
                false => route::to_any_host(name, domains, cluster, entry.service.affinity),
            });
        }
        hosts
    }
}

/// The names that a Service goes by.
fn host_names(entry: &ServiceEntry, namespace: Option<&str>, settings: &MeshSettings) -> Vec<String> {
    let ObjectName { namespace: own_namespace, name } = &entry.service.name;
    let mut names = vec![
        entry.service.host(&settings.cluster_domain),
        format!("{name}.{own_namespace}.svc"),
        format!("{name}.{own_namespace}"),
    ];
    if namespace == Some(own_namespace) {
        names.push(name.clone());
    }
    names
}

fn only(address: IpAddr) -> Vec<CidrRange> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    vec![CidrRange { address_prefix: address.to_string(), prefix_len: uint32(bits) }]
}
