//! Which of a virtual host's many routes can match a path at all, without asking each. Pure.
//!
//! Invariant: every route that matches a path is among its candidates, and these come in the order of the routes.

use std::collections::HashMap;

use crate::config::route::{PathMatch, Route};

pub struct PathIndex {
    exact: HashMap<String, Vec<u32>>,
    /// Sorted by their texts.
    prefixes: Vec<Prefix>,
    /// Those that no text says anything of: expressions, templates, any case.
    others: Vec<u32>,
}

struct Prefix {
    text: String,
    /// The longest other one that this one begins with.
    parent: Option<usize>,
    routes: Vec<u32>,
}

/// Fewer routes are asked one by one.
const ROUTES_MIN: usize = 12;

impl PathIndex {
    /// None: there are too few routes for it to be worthwhile.
    pub fn new<'a>(routes: impl ExactSizeIterator<Item = &'a Route>) -> Option<PathIndex> {
        if routes.len() < ROUTES_MIN {
            return None;
        }
        let mut exact: HashMap<String, Vec<u32>> = HashMap::new();
        let mut by_prefix: HashMap<String, Vec<u32>> = HashMap::new();
        let mut others = Vec::new();
        for (at, route) in (0u32..).zip(routes) {
            let rule = &route.route_match;
            match &rule.path {
                PathMatch::Exact(path) if rule.case_sensitive => exact.entry(path.clone()).or_default().push(at),
                PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix) if rule.case_sensitive => {
                    by_prefix.entry(prefix.clone()).or_default().push(at);
                }
                _ => others.push(at),
            }
        }
        let mut sorted: Vec<(String, Vec<u32>)> = by_prefix.into_iter().collect();
        sorted.sort_unstable();
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(sorted.len());
        for (text, routes) in sorted {
            let before = prefixes.len().checked_sub(1);
            let parent = longest_from(&prefixes, before, &text);
            prefixes.push(Prefix { text, parent, routes });
        }
        Some(PathIndex { exact, prefixes, others })
    }

    /// Those that may match, in order.
    pub fn candidates(&self, path: &str, candidates: &mut Vec<u32>) {
        candidates.extend(self.exact.get(path).into_iter().flatten());
        let before = self.prefixes.partition_point(|prefix| prefix.text.as_str() <= path).checked_sub(1);
        let mut next = longest_from(&self.prefixes, before, path);
        while let Some(at) = next {
            candidates.extend(&self.prefixes[at].routes);
            next = self.prefixes[at].parent;
        }
        candidates.extend(&self.others);
        candidates.sort_unstable();
    }
}

/// The longest prefix of `text` at `at` or among those that this one begins with: what stands right before a text in order, or
/// one of its own prefixes, is the longest of them all.
fn longest_from(prefixes: &[Prefix], mut at: Option<usize>, text: &str) -> Option<usize> {
    while let Some(candidate) = at {
        if text.starts_with(&prefixes[candidate].text) {
            return Some(candidate);
        }
        at = prefixes[candidate].parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{route::RouteTable, testing::message};

    fn index(matches: &[&str]) -> PathIndex {
        let routes: Vec<String> =
            matches.iter().map(|rule| format!("{{match: {rule}, direct_response: {{status: 200}}}}")).collect();
        let yaml = format!("virtual_hosts: [{{name: v, domains: ['*'], routes: [{}]}}]", routes.join(","));
        let table = RouteTable::from_proto(message(&yaml)).expect("a table");
        PathIndex::new(table.virtual_hosts[0].routes.iter().map(|route| &**route)).expect("enough routes")
    }

    #[test]
    fn candidates_are_all_that_can_match_and_few_others() {
        let filler: Vec<String> = (0..12).map(|at| format!("{{prefix: /filler{at}}}")).collect();
        let mut rules = vec![
            "{prefix: /a/b}",
            "{path: /a/b/c}",
            "{prefix: /}",
            "{path_separated_prefix: /a}",
            "{safe_regex: {regex: '/x.*'}}",
            "{prefix: /A, case_sensitive: false}",
            "{prefix: /a/bb}",
        ];
        rules.extend(filler.iter().map(String::as_str));
        let index = index(&rules);
        let candidates = |path: &str| {
            let mut found = Vec::new();
            index.candidates(path, &mut found);
            found
        };
        assert_eq!(candidates("/a/b/c"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(candidates("/a/bz"), [0, 2, 3, 4, 5]);
        assert_eq!(candidates("/a/bbb"), [0, 2, 3, 4, 5, 6]);
        assert_eq!(candidates("/z"), [2, 4, 5]);
        assert_eq!(candidates("/filler11x"), [2, 4, 5, 8, 18]);
    }
}
