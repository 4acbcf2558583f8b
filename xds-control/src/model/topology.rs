//! Where things stand, and which endpoints are near to whom. Pure.
//!
//! A Service may ask for its traffic to stay near; then the endpoints of a port are told apart by how near they are to a
//! client, nearest first, and farther ones are what is left when nearer ones fail.

use serde::Serialize;

use super::endpoint::Endpoint;
use super::mesh::ServiceEntry;
use super::service::InternalTraffic;

/// Where a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Locality {
    pub region: String,
    pub zone: String,
}

/// Where a client stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub node: Option<String>,
    pub locality: Locality,
}

/// How a Service wants its traffic spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Evenly over everything.
    Anywhere,
    /// To the client's zone, then to its region.
    SameZone,
    /// To the client's node, then as `SameZone`.
    SameNode,
}

/// Whose clients an endpoint is meant for, where its reporter has shared the endpoints out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hints {
    pub zones: Vec<String>,
    pub nodes: Vec<String>,
}

/// What decides who is sent where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Everyone,
    OwnNodeOnly,
    Nearest(Distribution),
    Hinted,
}

/// Whether clients of a port are sent to different endpoints depending on where they stand.
pub fn depends_on_position(entry: &ServiceEntry, endpoints: &[Endpoint]) -> bool {
    rule(entry, endpoints) != Rule::Everyone
}

/// Whether they are sent to different ones even within a zone.
pub fn depends_on_node(entry: &ServiceEntry, endpoints: &[Endpoint]) -> bool {
    match rule(entry, endpoints) {
        Rule::OwnNodeOnly | Rule::Nearest(Distribution::SameNode) => true,
        Rule::Hinted => endpoints.iter().any(|endpoint| !endpoint.hints.nodes.is_empty()),
        Rule::Everyone | Rule::Nearest(Distribution::Anywhere | Distribution::SameZone) => false,
    }
}

/// The endpoints that a client at `position` is sent to, nearest first. No rank is empty.
pub fn ranks<'a>(entry: &ServiceEntry, endpoints: &'a [Endpoint], position: &Position) -> Vec<Vec<&'a Endpoint>> {
    let rule = rule(entry, endpoints);
    let rank_of = |endpoint: &Endpoint| match rule {
        Rule::Everyone => Some(0),
        Rule::OwnNodeOnly => is_on_node(endpoint, position).then_some(0),
        Rule::Nearest(distribution) => Some(distance(endpoint, position, distribution)),
        Rule::Hinted => Some(usize::from(!is_hinted(endpoint, position))),
    };
    let mut ranks = vec![Vec::new(); RANKS];
    for endpoint in endpoints {
        if let Some(rank) = rank_of(endpoint) {
            ranks[rank].push(endpoint);
        }
    }
    // Priorities have to be contiguous.
    ranks.retain(|rank| !rank.is_empty());
    ranks
}

/// Node, zone, region, anywhere.
const RANKS: usize = 4;

fn rule(entry: &ServiceEntry, endpoints: &[Endpoint]) -> Rule {
    if entry.service.internal_traffic == InternalTraffic::Local {
        return Rule::OwnNodeOnly;
    }
    match entry.distribution {
        Distribution::Anywhere => {}
        near => return Rule::Nearest(near),
    }
    // As kube-proxy does: hints count only when every endpoint has some, or some of them would get no traffic.
    let is_hinted = |endpoint: &Endpoint| !endpoint.hints.zones.is_empty() || !endpoint.hints.nodes.is_empty();
    if !endpoints.is_empty() && endpoints.iter().all(is_hinted) { Rule::Hinted } else { Rule::Everyone }
}

fn distance(endpoint: &Endpoint, position: &Position, distribution: Distribution) -> usize {
    let (theirs, ours) = (&endpoint.locality, &position.locality);
    let same_region = theirs.region == ours.region;
    if distribution == Distribution::SameNode && is_on_node(endpoint, position) {
        0
    } else if same_region && !ours.zone.is_empty() && theirs.zone == ours.zone {
        1
    } else if same_region && !ours.region.is_empty() {
        2
    } else {
        3
    }
}

fn is_on_node(endpoint: &Endpoint, position: &Position) -> bool {
    position.node.is_some() && endpoint.node == position.node
}

fn is_hinted(endpoint: &Endpoint, position: &Position) -> bool {
    let Hints { zones, nodes } = &endpoint.hints;
    // A hint for nodes says more than one for zones.
    if nodes.is_empty() {
        zones.contains(&position.locality.zone)
    } else {
        position.node.as_ref().is_some_and(|node| nodes.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::ObjectName;
    use crate::model::service::{Addressing, Service};

    fn endpoint(address: u8, node: &str, region: &str, zone: &str) -> Endpoint {
        Endpoint {
            address: ([10, 0, 0, address], 80).into(),
            locality: Locality { region: region.to_owned(), zone: zone.to_owned() },
            node: Some(node.to_owned()),
            hints: Hints::default(),
            workload: None,
            hostname: None,
        }
    }

    fn entry(distribution: Distribution, internal_traffic: InternalTraffic) -> ServiceEntry {
        let service = Service::new(ObjectName::new("shop", "a"), Addressing::Headless, Vec::new());
        ServiceEntry {
            service: Arc::new(Service { internal_traffic, ..service }),
            distribution,
            endpoints: BTreeMap::new(),
            instance_ports: BTreeMap::new(),
        }
    }

    fn position(node: &str, region: &str, zone: &str) -> Position {
        Position {
            node: Some(node.to_owned()),
            locality: Locality { region: region.to_owned(), zone: zone.to_owned() },
        }
    }

    /// The last bytes of the addresses, by rank.
    fn ranked(entry: &ServiceEntry, endpoints: &[Endpoint], position: &Position) -> Vec<Vec<u8>> {
        let last = |endpoint: &&Endpoint| match endpoint.address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        ranks(entry, endpoints, position).iter().map(|rank| rank.iter().map(last).collect()).collect()
    }

    fn four() -> [Endpoint; 4] {
        [
            endpoint(1, "n1", "r1", "a"),
            endpoint(2, "n2", "r1", "a"),
            endpoint(3, "n3", "r1", "b"),
            endpoint(4, "n4", "r2", "c"),
        ]
    }

    #[test]
    fn without_a_wish_all_are_equal() {
        let entry = entry(Distribution::Anywhere, InternalTraffic::Cluster);
        assert!(!depends_on_position(&entry, &four()));
        assert_eq!(ranked(&entry, &four(), &position("n1", "r1", "a")), [vec![1, 2, 3, 4]]);
    }

    #[test]
    fn the_same_zone_comes_before_the_region_before_the_rest() {
        let entry = entry(Distribution::SameZone, InternalTraffic::Cluster);
        assert!(depends_on_position(&entry, &four()));
        assert_eq!(ranked(&entry, &four(), &position("n1", "r1", "a")), [vec![1, 2], vec![3], vec![4]]);
        assert_eq!(ranked(&entry, &four(), &position("n9", "r2", "d")), [vec![4], vec![1, 2, 3]]);
        assert_eq!(ranked(&entry, &four(), &position("n9", "r3", "d")), [vec![1, 2, 3, 4]], "no rank is empty");
        assert_eq!(ranked(&entry, &four(), &Position::default()), [vec![1, 2, 3, 4]], "nobody knows where it stands");
    }

    #[test]
    fn the_same_node_comes_first_where_it_is_asked_for() {
        let entry = entry(Distribution::SameNode, InternalTraffic::Cluster);
        assert_eq!(ranked(&entry, &four(), &position("n1", "r1", "a")), [vec![1], vec![2], vec![3], vec![4]]);
        assert_eq!(ranked(&entry, &four(), &position("n9", "r1", "b")), [vec![3], vec![1, 2], vec![4]]);
    }

    #[test]
    fn local_traffic_stays_on_its_node_or_goes_nowhere() {
        let entry = entry(Distribution::SameZone, InternalTraffic::Local);
        assert_eq!(ranked(&entry, &four(), &position("n2", "r1", "a")), [vec![2]]);
        assert_eq!(ranked(&entry, &four(), &position("n9", "r1", "a")), [[0; 0]; 0]);
        assert_eq!(ranked(&entry, &four(), &Position::default()), [[0; 0]; 0]);
    }

    #[test]
    fn hints_count_when_every_endpoint_has_some() {
        let entry = entry(Distribution::Anywhere, InternalTraffic::Cluster);
        let mut endpoints = four();
        for (endpoint, zone) in endpoints.iter_mut().zip(["a", "b", "b"]) {
            endpoint.hints.zones = vec![zone.to_owned()];
        }
        assert!(!depends_on_position(&entry, &endpoints));
        endpoints[3].hints.nodes = vec!["n9".to_owned()];
        assert!(depends_on_position(&entry, &endpoints));
        assert_eq!(ranked(&entry, &endpoints, &position("n1", "r1", "a")), [vec![1], vec![2, 3, 4]]);
        assert_eq!(ranked(&entry, &endpoints, &position("n9", "r1", "b")), [vec![2, 3, 4], vec![1]]);
        assert_eq!(ranked(&entry, &endpoints, &position("n1", "r9", "z")), [vec![1, 2, 3, 4]]);
    }
}
