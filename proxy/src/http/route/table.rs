//! A route configuration compiled for look-up: the virtual host by the request's host, then the first route that matches.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use http::request;

use crate::{config::route::RouteTable, http::route::matcher};

/// Where a connection manager finds its routes: one slot a route configuration's name. Empty until the first arrives.
pub type RouteSlot = Arc<ArcSwapOption<CompiledRoutes>>;

pub struct CompiledRoutes {
    table: Arc<RouteTable>,
    /// Indices into the table's virtual hosts, by domain.
    exact: HashMap<String, usize>,
    /// By what follows the star, longest first.
    suffixes: Vec<(String, usize)>,
    /// By what precedes the star, longest first.
    prefixes: Vec<(String, usize)>,
    any: Option<usize>,
}

impl CompiledRoutes {
    pub fn new(table: Arc<RouteTable>) -> CompiledRoutes {
        let mut compiled =
            CompiledRoutes { exact: HashMap::new(), suffixes: Vec::new(), prefixes: Vec::new(), any: None, table };
        let table = compiled.table.clone();
        for (at, host) in table.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                match (domain.as_str(), domain.strip_prefix('*'), domain.strip_suffix('*')) {
                    ("*", ..) => compiled.any = Some(at),
                    (_, Some(suffix), _) => compiled.suffixes.push((suffix.to_owned(), at)),
                    (_, None, Some(prefix)) => compiled.prefixes.push((prefix.to_owned(), at)),
                    (exact, None, None) => {
                        compiled.exact.insert(exact.to_owned(), at);
                    }
                }
            }
        }
        compiled.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        compiled.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        compiled
    }

    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The indices of the virtual host and of its route. `authority`: the request's host as given;
    /// `random`: any number, for routes that match a share of requests.
    pub fn find(&self, head: &request::Parts, authority: &[u8], random: u64) -> Option<(usize, usize)> {
        let host = self.virtual_host(authority)?;
        let mut routes = self.table.virtual_hosts[host].routes.iter();
        Some((host, routes.position(|route| matcher::matches(&route.route_match, head, authority, random))?))
    }

    /// Exact, then the longest suffix, the longest prefix, then `*`.
    fn virtual_host(&self, authority: &[u8]) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            self.any
        } else {
            self.virtual_host_index(authority)
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
        let wildcard = |found: &(String, usize)| found.1;
        // A wildcard stands for at least one character.
        let longer = |text: &str| host.len() > text.len();
        self.exact
            .get(host)
            .copied()
            .or_else(|| self.suffixes.iter().find(|(suffix, _)| longer(suffix) && host.ends_with(suffix)).map(wildcard))
            .or_else(|| {
                self.prefixes.iter().find(|(prefix, _)| longer(prefix) && host.starts_with(prefix)).map(wildcard)
            })
            .or(self.any)
    }
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
    use crate::config::testing::message;

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
        let (head, ()) = http::Request::get("/").body(()).expect("a request").into_parts();
        table.find(&head, host.as_bytes(), 0).map(|(host, _)| host.to_string())
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
