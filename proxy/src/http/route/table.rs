//! A route configuration compiled for look-up: the virtual host by the request's host, then the first route that matches.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use http::request;

use crate::{
    config::route::{RouteTable, TlsRequirement},
    http::{
        request_headers::{authority, scheme},
        route::{matcher, path_index::PathIndex},
    },
    matching::Facts,
};

/// Where a connection manager finds its routes: one slot a route configuration's name. Empty until the first arrives.
pub type RouteSlot = Arc<ArcSwapOption<CompiledRoutes>>;

pub struct CompiledRoutes {
    table: Arc<RouteTable>,
    /// Indices into the table's virtual hosts, by domain.
    exact: HashMap<String, usize>,
    /// By what follows the star, longest first: those of a length together.
    suffixes: Vec<(usize, HashMap<String, usize>)>,
    /// By what precedes the star, longest first.
    prefixes: Vec<(usize, HashMap<String, usize>)>,
    any: Option<usize>,
    /// Parallel to the virtual hosts.
    paths: Vec<Option<PathIndex>>,
}

/// A request, and what is known of it beyond its head.
pub struct RouteQuery<'a> {
    pub head: &'a request::Parts,
    pub facts: Facts<'a>,
    /// Any number: for routes that match a share of requests.
    pub random: u64,
}

impl CompiledRoutes {
    pub fn new(table: Arc<RouteTable>) -> CompiledRoutes {
        let mut exact = HashMap::new();
        let mut suffixes: BTreeMap<usize, HashMap<String, usize>> = BTreeMap::new();
        let mut prefixes: BTreeMap<usize, HashMap<String, usize>> = BTreeMap::new();
        let mut any = None;
        for (at, host) in table.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                match (domain.as_str(), domain.strip_prefix('*'), domain.strip_suffix('*')) {
                    ("*", ..) => any = Some(at),
                    (_, Some(suffix), _) => {
                        suffixes.entry(suffix.len()).or_default().insert(suffix.to_owned(), at);
                    }
                    (_, None, Some(prefix)) => {
                        prefixes.entry(prefix.len()).or_default().insert(prefix.to_owned(), at);
                    }
                    (whole, None, None) => {
                        exact.insert(whole.to_owned(), at);
                    }
                }
            }
        }
        let paths = table.virtual_hosts.iter();
        let paths = paths.map(|host| PathIndex::new(host.matched_routes().iter().map(|route| &**route))).collect();
        CompiledRoutes {
            exact,
            suffixes: suffixes.into_iter().rev().collect(),
            prefixes: prefixes.into_iter().rev().collect(),
            any,
            paths,
            table,
        }
    }

    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The indices of the virtual host and of its route.
    pub fn find(&self, query: &RouteQuery<'_>) -> Option<(usize, usize)> {
        let at = match &self.table.virtual_host_header {
            None => self.virtual_host(authority(query.head)),
            Some(name) => self.virtual_host(query.head.headers.get(name)?.as_bytes()),
        }?;
        let host = &self.table.virtual_hosts[at];
        if let Some(redirect) = host.tls_redirect
            && scheme(query.head) != "https"
            && (host.tls_requirement == TlsRequirement::Everybody || !is_internal(query.head))
        {
            return Some((at, redirect));
        }
        let mut path = query.head.uri.path();
        if self.table.ignore_path_parameters {
            path = path.split(';').next().unwrap_or(path);
        }
        let matches = |route: usize| matcher::matches(&host.routes[route].route_match, path, query);
        let found = match (&host.matcher, &self.paths[at]) {
            (Some(tree), _) => {
                let mut found = None;
                let mut matching = |range: &Range<usize>| {
                    found = range.clone().find(|&route| matches(route));
                    true // the tree's answer stands whether or not its routes match
                };
                tree.find_where(&query.facts, &mut matching);
                found
            }
            (None, Some(index)) => {
                let mut candidates = Vec::new();
                index.candidates(path, &mut candidates);
                candidates.into_iter().map(|route| route as usize).find(|&route| matches(route))
            }
            (None, None) => (0..host.matched_routes().len()).find(|&route| matches(route)),
        };
        Some((at, found?))
    }

    /// Exact, then the longest suffix, the longest prefix, then `*`.
    fn virtual_host(&self, host: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            self.any
        } else {
            self.virtual_host_index(host)
        }
    }

    fn virtual_host_index(&self, authority: &[u8]) -> Option<usize> {
        // Longer than any domain name with its port: no need to look at it whole.
        const AUTHORITY_BYTES_MAX: usize = 512;
        let mut buffer = [0; AUTHORITY_BYTES_MAX];
        let Some(lower) = buffer.get_mut(..authority.len()) else { return self.any };
        lower.copy_from_slice(authority);
        lower.make_ascii_lowercase();
        let Ok(mut host) = std::str::from_utf8(lower) else { return self.any };
        if self.table.ignore_port_in_host_matching {
            host = without_port(host);
        }
        // A wildcard stands for at least one character.
        let suffix = |length: usize| host.len().checked_sub(length).filter(|&at| at > 0).and_then(|at| host.get(at..));
        let prefix = |length: usize| host.get(..length).filter(|_| host.len() > length);
        self.exact
            .get(host)
            .or_else(|| self.suffixes.iter().find_map(|(length, hosts)| hosts.get(suffix(*length)?)))
            .or_else(|| self.prefixes.iter().find_map(|(length, hosts)| hosts.get(prefix(*length)?)))
            .copied()
            .or(self.any)
    }
}

/// The connection manager has found out, and told those behind it.
fn is_internal(head: &request::Parts) -> bool {
    head.headers.get("x-envoy-internal").is_some_and(|internal| internal == "true")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::testing::message, listener::filter_chain::ConnectionFacts};

    fn table(hosts: &[&[&str]], ignore_port_in_host_matching: bool) -> CompiledRoutes {
        let hosts = hosts.iter().enumerate().map(|(at, domains)| {
            format!(
                "{{name: '{at}', domains: {domains:?}, routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}"
            )
        });
        let hosts: Vec<String> = hosts.collect();
        let yaml = format!(
            "{{name: t, ignore_port_in_host_matching: {ignore_port_in_host_matching}, virtual_hosts: [{}]}}",
            hosts.join(",")
        );
        CompiledRoutes::new(Arc::new(RouteTable::from_proto(message(&yaml)).expect("a table")))
    }

    fn find(table: &CompiledRoutes, host: &str) -> Option<String> {
        found(table, http::Request::get("/").header("host", host)).map(|(host, _)| host.to_string())
    }

    fn found(table: &CompiledRoutes, request: request::Builder) -> Option<(usize, usize)> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let connection = ConnectionFacts {
            destination: "10.0.0.1:80".parse().expect("an address"),
            server_name: None,
            transport_protocol: "raw_buffer",
            application_protocols: &[],
            direct_source: "10.0.0.2".parse().expect("an address"),
            source: "10.0.0.2:1".parse().expect("an address"),
        };
        let facts = Facts { request: Some(&head), ..Facts::of_connection(connection) };
        table.find(&RouteQuery { head: &head, facts, random: 0 })
    }

    fn compiled(yaml: &str) -> CompiledRoutes {
        CompiledRoutes::new(Arc::new(RouteTable::from_proto(message(yaml)).expect("a table")))
    }

    #[test]
    fn a_tree_leads_to_routes_which_match_by_themselves() {
        let input = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}";
        let route = |path: &str| format!("{{match: {{path: {path}}}, direct_response: {{status: 200}}}}");
        let action = |kind: &str, fields: &str| {
            format!(
                "{{action: {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.config.route.v3.{kind}, {fields}}}}}}}"
            )
        };
        let list = action("RouteList", &format!("routes: [{}, {}]", route("/a"), route("/b")));
        let table = compiled(&format!(
            "virtual_hosts: [{{name: v, domains: ['*'], matcher: {{matcher_tree: {{input: {input}, \
             exact_match_map: {{map: {{list: {list}}}}}}}}}}}]"
        ));
        let get = |path: &str, x: &str| found(&table, http::Request::get(path).header("host", "h").header("x", x));
        assert_eq!(get("/b", "list"), Some((0, 1)));
        assert_eq!((get("/c", "list"), get("/b", "other")), (None, None));
    }

    #[test]
    fn who_has_to_come_by_tls_is_sent_there() {
        let table = compiled(
            "virtual_hosts: [{name: v, domains: ['*'], require_tls: EXTERNAL_ONLY, \
             routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]",
        );
        let get = || http::Request::get("/").header("host", "h");
        assert_eq!(found(&table, get()), Some((0, 1)));
        assert_eq!(found(&table, get().header("x-forwarded-proto", "https")), Some((0, 0)));
        assert_eq!(found(&table, get().header("x-envoy-internal", "true")), Some((0, 0)));
    }

    #[test]
    fn path_parameters_may_not_count_and_a_header_may_name_the_host() {
        let table = compiled(
            "{ignore_path_parameters_in_path_matching: true, vhost_header: x-host, virtual_hosts: \
             [{name: v, domains: [a], routes: [{match: {path: /p}, direct_response: {status: 200}}]}]}",
        );
        let get = |path: &str| found(&table, http::Request::get(path).header("host", "b").header("x-host", "a"));
        assert_eq!((get("/p;v=1?q"), get("/p/q")), (Some((0, 0)), None));
    }

    #[test]
    fn many_routes_are_found_as_few_are() {
        let routes: Vec<String> = (0..40)
            .map(|at| format!("{{match: {{prefix: /{at}, headers: [{{name: x}}]}}, direct_response: {{status: 200}}}}"))
            .collect();
        let table = compiled(&format!(
            "virtual_hosts: [{{name: v, domains: ['*'], routes: [{}, {{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]",
            routes.join(",")
        ));
        let get = |path: &str| found(&table, http::Request::get(path).header("host", "h").header("x", "1"));
        assert_eq!((get("/3"), get("/31"), get("/x")), (Some((0, 3)), Some((0, 3)), Some((0, 40))));
        assert_eq!(found(&table, http::Request::get("/3").header("host", "h")), Some((0, 40)));
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let hosts = table(&[&["*"], &["a.test"], &["*.test", "*a.test"], &["a.*"], &["*-x.test"]], false);
        for (host, expected) in [
            ("a.test", "1"),
            ("A.Test", "1"),
            ("b.test", "2"),
            ("ba.test", "2"),
            ("a.org", "3"),
            ("c", "0"),
            ("q-x.test", "4"),
            (".test", "0"),
            ("a.", "0"),
        ] {
            assert_eq!(find(&hosts, host).as_deref(), Some(expected), "{host}");
        }
        assert_eq!(find(&table(&[&["a.test"]], false), "b"), None);
    }

    #[test]
    fn a_port_counts_unless_ignored() {
        assert_eq!(find(&table(&[&["a.test"]], false), "a.test:80"), None);
        assert_eq!(find(&table(&[&["a.test"]], true), "a.test:80").as_deref(), Some("0"));
        assert_eq!(find(&table(&[&["[::1]"]], true), "[::1]:80").as_deref(), Some("0"));
        assert_eq!(find(&table(&[&["*"]], true), &"x".repeat(1000)).as_deref(), Some("0"));
    }
}
