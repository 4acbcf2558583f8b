//! Which filter chain takes a connection: Envoy's order, no backtracking. Pure; compiled to maps, so that thousands of
//! chains cost what ten cost.
//!
//! At each step only the most specific chains stay: destination port, destination IP (longest prefix), server names,
//! transport protocol, application protocols, directly connected source IP, source type, source IP, source port.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::config::filter_chain::{FilterChainMatch, SourceType};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    pub destination: SocketAddr,
    /// Lower case.
    pub server_name: Option<&'a str>,
    pub transport_protocol: &'a str,
    pub application_protocols: &'a [String],
    /// The peer's own address.
    pub direct_source: IpAddr,
    /// The peer's address as a listener filter may have restored it.
    pub source: SocketAddr,
}

/// The compiled matches of a listener: indices into its chains.
#[derive(Debug, Default)]
pub struct FilterChainIndex {
    root: ByPort,
}

type ByPort = Exact<u16, ByDestination>;
type ByDestination = Longest<ByServerName>;
type ByTransport = Exact<String, ByApplication>;
type ByApplication = Exact<String, ByDirectSource>;
type ByDirectSource = Longest<BySourceType>;
type BySource = Longest<BySourcePort>;
type BySourcePort = Exact<u16, Option<usize>>;

/// A key that fits, else what is under no key.
#[derive(Debug)]
struct Exact<K, N> {
    keyed: HashMap<K, N>,
    any: Option<Box<N>>,
}

/// The longest network that holds an address, else what is under no network.
#[derive(Debug)]
struct Longest<N> {
    /// Longest prefix first, so that the first hit is the answer.
    by_length: Vec<(u8, HashMap<IpNet, N>)>,
    any: Option<Box<N>>,
}

#[derive(Debug, Default)]
struct ByServerName {
    exact: HashMap<String, ByTransport>,
    /// By what follows the star, with its dot.
    suffix: HashMap<String, ByTransport>,
    any: Option<Box<ByTransport>>,
}

#[derive(Debug, Default)]
struct BySourceType {
    any: Option<Box<BySource>>,
    local: Option<Box<BySource>>,
    external: Option<Box<BySource>>,
}

impl FilterChainIndex {
    pub fn new<'a>(matches: impl Iterator<Item = &'a FilterChainMatch>) -> FilterChainIndex {
        let mut index = FilterChainIndex::default();
        for (chain, rule) in matches.enumerate() {
            index.root.insert(rule.destination_port.as_slice(), &mut |node| insert_destination(node, rule, chain));
        }
        index
    }

    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let by_transport =
            self.root.find(&facts.destination.port())?.find(facts.destination.ip())?.find(facts.server_name)?;
        let by_application = by_transport.find(facts.transport_protocol)?;
        let keyed = facts.application_protocols.iter().find_map(|protocol| by_application.keyed.get(protocol));
        let by_source_type = keyed.or(by_application.any.as_deref())?.find(facts.direct_source)?;
        *by_source_type.find(facts)?.find(facts.source.ip())?.find(&facts.source.port())?
    }
}

fn insert_destination(node: &mut ByDestination, rule: &FilterChainMatch, chain: usize) {
    node.insert(&rule.prefix_ranges, &mut |node| {
        node.insert(&rule.server_names, &mut |node| {
            node.insert(rule.transport_protocol.as_slice(), &mut |node| {
                node.insert(&rule.application_protocols, &mut |node| insert_source(node, rule, chain));
            });
        });
    });
}

fn insert_source(node: &mut ByDirectSource, rule: &FilterChainMatch, chain: usize) {
    node.insert(&rule.direct_source_prefix_ranges, &mut |node| {
        let sources = match rule.source_type {
            SourceType::Any => &mut node.any,
            SourceType::SameIpOrLoopback => &mut node.local,
            SourceType::External => &mut node.external,
        };
        sources.get_or_insert_default().insert(&rule.source_prefix_ranges, &mut |node| {
            node.insert(&rule.source_ports, &mut |found| *found = Some(chain));
        });
    });
}

impl<K: Hash + Eq + Clone, N: Default> Exact<K, N> {
    fn insert(&mut self, keys: &[K], go_on: &mut dyn FnMut(&mut N)) {
        if keys.is_empty() {
            go_on(self.any.get_or_insert_default());
        }
        for key in keys {
            go_on(self.keyed.entry(key.clone()).or_default());
        }
    }

    fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&N>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.keyed.get(key).or(self.any.as_deref())
    }
}

impl<N: Default> Longest<N> {
    fn insert(&mut self, networks: &[IpNet], go_on: &mut dyn FnMut(&mut N)) {
        if networks.is_empty() {
            go_on(self.any.get_or_insert_default());
        }
        for network in networks {
            let network = network.trunc();
            let length = network.prefix_len();
            let at = match self.by_length.binary_search_by(|(known, _)| length.cmp(known)) {
                Ok(at) => at,
                Err(at) => {
                    self.by_length.insert(at, (length, HashMap::new()));
                    at
                }
            };
            go_on(self.by_length[at].1.entry(network).or_default());
        }
    }

    fn find(&self, address: IpAddr) -> Option<&N> {
        let hit = self.by_length.iter().find_map(|(length, networks)| {
            let network = IpNet::new(address, *length).ok()?.trunc(); // Err: longer than this family's addresses
            networks.get(&network)
        });
        hit.or(self.any.as_deref())
    }
}

impl ByServerName {
    fn insert(&mut self, names: &[String], go_on: &mut dyn FnMut(&mut ByTransport)) {
        if names.is_empty() {
            go_on(self.any.get_or_insert_default());
        }
        for name in names {
            match name.strip_prefix('*') {
                Some(suffix) => go_on(self.suffix.entry(suffix.to_owned()).or_default()),
                None => go_on(self.exact.entry(name.clone()).or_default()),
            }
        }
    }

    /// Exact, then the longest suffix that starts at a dot, then none.
    fn find(&self, name: Option<&str>) -> Option<&ByTransport> {
        let named = name.and_then(|name| {
            let suffixes = name.match_indices('.').map(|(dot, _)| &name[dot..]);
            self.exact.get(name).or_else(|| suffixes.into_iter().find_map(|suffix| self.suffix.get(suffix)))
        });
        named.or(self.any.as_deref())
    }
}

impl BySourceType {
    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&BySource> {
        let source = facts.source.ip();
        let is_local = source.is_loopback() || source == facts.destination.ip();
        let specific = if is_local { &self.local } else { &self.external };
        specific.as_deref().or(self.any.as_deref())
    }
}

impl<K, N> Default for Exact<K, N> {
    fn default() -> Self {
        Exact { keyed: HashMap::new(), any: None }
    }
}

impl<N> Default for Longest<N> {
    fn default() -> Self {
        Longest { by_length: Vec::new(), any: None }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn facts(destination: &str) -> ConnectionFacts<'static> {
        ConnectionFacts {
            destination: destination.parse().expect("an address"),
            server_name: None,
            transport_protocol: "raw_buffer",
            application_protocols: &[],
            direct_source: [10, 0, 0, 9].into(),
            source: ([10, 0, 0, 9], 4000).into(),
        }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn the_most_specific_destination_wins_and_there_is_no_way_back() {
        let rules = [
            FilterChainMatch::default(),
            FilterChainMatch { destination_port: Some(80), ..Default::default() },
            FilterChainMatch { prefix_ranges: nets(&["10.0.0.0/8"]), ..Default::default() },
            FilterChainMatch {
                destination_port: Some(80),
                prefix_ranges: nets(&["10.1.0.0/16"]),
                transport_protocol: Some("tls".into()),
                ..Default::default()
            },
            FilterChainMatch { prefix_ranges: nets(&["fd00::/8"]), ..Default::default() },
        ];
        let index = FilterChainIndex::new(rules.iter());
        let find = |destination: &str| index.find(&facts(destination));
        assert_eq!(find("1.1.1.1:443"), Some(0));
        assert_eq!(find("1.1.1.1:80"), Some(1));
        assert_eq!(find("10.9.9.9:443"), Some(2));
        assert_eq!(find("[fd00::1]:443"), Some(4));
        // Port 80 and 10.1/16 stay; that chain wants TLS, and chain 1 is out of the race by then.
        assert_eq!(find("10.1.1.1:80"), None);
        assert_eq!(index.find(&ConnectionFacts { transport_protocol: "tls", ..facts("10.1.1.1:80") }), Some(3));
    }

    #[test]
    fn server_names_match_exactly_then_by_the_longest_suffix() {
        let named = |name: &str| FilterChainMatch { server_names: vec![name.into()], ..Default::default() };
        let rules = [named("a.example.com"), named("*.example.com"), named("*.com"), FilterChainMatch::default()];
        let index = FilterChainIndex::new(rules.iter());
        let find = |name| index.find(&ConnectionFacts { server_name: name, ..facts("1.1.1.1:443") });
        assert_eq!(find(Some("a.example.com")), Some(0));
        assert_eq!(find(Some("b.c.example.com")), Some(1));
        assert_eq!(find(Some("example.com")), Some(2));
        assert_eq!(find(Some("example.org")), Some(3));
        assert_eq!(find(None), Some(3));
    }

    #[test]
    fn protocols_and_sources() {
        let rules = [
            FilterChainMatch { application_protocols: vec!["h2".into()], ..Default::default() },
            FilterChainMatch { source_type: SourceType::SameIpOrLoopback, ..Default::default() },
            FilterChainMatch { source_type: SourceType::External, source_ports: vec![4000], ..Default::default() },
            FilterChainMatch {
                source_prefix_ranges: nets(&["10.0.0.9/32"]),
                source_type: SourceType::External,
                ..Default::default()
            },
        ];
        let index = FilterChainIndex::new(rules.iter());
        let h2 = ["istio".to_owned(), "h2".to_owned()];
        assert_eq!(index.find(&ConnectionFacts { application_protocols: &h2, ..facts("1.1.1.1:1") }), Some(0));
        assert_eq!(index.find(&ConnectionFacts { source: ([127, 0, 0, 1], 5).into(), ..facts("1.1.1.1:1") }), Some(1));
        assert_eq!(
            index.find(&ConnectionFacts { source: ([10, 0, 0, 8], 4000).into(), ..facts("1.1.1.1:1") }),
            Some(2)
        );
        assert_eq!(index.find(&facts("1.1.1.1:1")), Some(3));
    }

    /// The most maps that a connection can be looked up in, each once: what a search costs, whatever the machine.
    trait Lookups {
        fn most(&self) -> usize;
    }

    impl Lookups for Option<usize> {
        fn most(&self) -> usize {
            0
        }
    }

    impl<N: Lookups> Lookups for Option<Box<N>> {
        fn most(&self) -> usize {
            self.as_ref().map_or(0, |node| node.most())
        }
    }

    impl<K, N: Lookups> Lookups for Exact<K, N> {
        fn most(&self) -> usize {
            1 + self.keyed.values().map(Lookups::most).max().unwrap_or(0).max(self.any.most())
        }
    }

    impl<N: Lookups> Lookups for Longest<N> {
        fn most(&self) -> usize {
            let below = self.by_length.iter().flat_map(|(_, networks)| networks.values()).map(Lookups::most).max();
            self.by_length.len() + below.unwrap_or(0).max(self.any.most())
        }
    }

    impl Lookups for ByServerName {
        /// The name itself, and each of its suffixes (of a name of four labels).
        fn most(&self) -> usize {
            let below = self.exact.values().chain(self.suffix.values()).map(Lookups::most).max();
            1 + 4 + below.unwrap_or(0).max(self.any.most())
        }
    }

    impl Lookups for BySourceType {
        fn most(&self) -> usize {
            self.any.most().max(self.local.most()).max(self.external.most())
        }
    }

    #[test]
    fn ten_thousand_chains_are_searched_in_as_many_steps_as_ten() {
        let chain = |number: u32| FilterChainMatch {
            destination_port: Some(u16::try_from(number % 50 + 1).unwrap()),
            prefix_ranges: vec![IpNet::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 32).unwrap()],
            server_names: vec![format!("s{number}.a.test"), format!("*.s{number}.a.test")],
            application_protocols: vec![format!("p{}", number % 7)],
            source_prefix_ranges: vec![IpNet::new(Ipv4Addr::from(number << 8).into(), 24).unwrap()],
            source_ports: vec![u16::try_from(number % 1000 + 1).unwrap()],
            ..FilterChainMatch::default()
        };
        let index = |count: u32| {
            let chains: Vec<_> = (0..count).map(chain).collect();
            FilterChainIndex::new(chains.iter())
        };
        let (few, many) = (index(10), index(10_000));
        assert_eq!(many.root.most(), few.root.most());
        assert!(many.root.most() < 20, "{}", many.root.most());
        let name = "x.s7777.a.test".to_owned();
        let protocols = ["p0".to_owned()];
        let facts = ConnectionFacts {
            destination: (Ipv4Addr::from(0x0a00_0000 + 7777), 7777 % 50 + 1).into(),
            server_name: Some(&name),
            application_protocols: &protocols,
            source: (Ipv4Addr::from((7777 << 8) + 9), 778).into(),
            ..facts("1.1.1.1:1")
        };
        assert_eq!(many.find(&facts), Some(7777));
    }
}
