//! What of a request bears on the choice of its host: computed once for all of its tries, between the route and the load
//! balancer. Pure.

use std::{borrow::Cow, net::SocketAddr};

use http::{HeaderMap, HeaderValue, Uri, header, request};
use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::{
    config::{
        cluster::LbPolicy,
        metadata::Fields,
        route::{ForwardAction, HashCookie, HashPolicy, HashSource, HashedHeader},
    },
    filter_state::FilterState,
    http::request_headers::authority,
    stats::ClusterStat,
    upstream::{load_balancer::Wish, pool::ClusterPools},
};

/// Of one request.
#[derive(Default)]
pub struct HostSelection<'a> {
    hash: Option<u64>,
    metadata_match: Option<&'a Fields>,
    original_destination: Option<SocketAddr>,
    /// The answer's, for a client that came without the cookie that its requests are to be told by.
    set_cookie: Option<HeaderValue>,
}

/// The ends of the downstream connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl<'a> HostSelection<'a> {
    pub fn new(
        (action, metadata_match): (&'a ForwardAction, Option<&'a Fields>),
        pools: &ClusterPools,
        head: &request::Parts,
        ends: Ends,
        filter_state: &FilterState,
    ) -> Self {
        let balancing = &pools.cluster().config.load_balancing;
        let mut selection = HostSelection { metadata_match, ..Self::default() };
        match balancing.policy {
            LbPolicy::RingHash(_) | LbPolicy::Maglev(_) => {
                selection.hash(&action.hash_policy, head, ends, filter_state);
            }
            LbPolicy::ClusterProvided => {
                selection.original_destination = match &balancing.original_dst.header {
                    Some(name) if head.headers.contains_key(name) => {
                        let named = named_destination(&head.headers[name]);
                        if named.is_none() {
                            pools.count(ClusterStat::OriginalDstHostInvalid);
                        }
                        named
                    }
                    _ => Some(ends.local),
                };
            }
            LbPolicy::RoundRobin | LbPolicy::LeastRequest(_) | LbPolicy::Random => {}
        }
        selection
    }

    pub fn wish(&self, reselections: u32) -> Wish<'a> {
        Wish {
            hash: self.hash,
            metadata_match: self.metadata_match,
            reselections,
            original_destination: self.original_destination,
            level: None,
            passed_over: &[],
            override_host: None,
        }
    }

    pub fn take_set_cookie(&mut self) -> Option<HeaderValue> {
        self.set_cookie.take()
    }

    fn hash(&mut self, policies: &[HashPolicy], head: &request::Parts, ends: Ends, filter_state: &FilterState) {
        for policy in policies {
            if let Some(next) = self.evaluate(&policy.source, head, ends, filter_state) {
                // Rotated, so that a policy that stands twice does not cancel itself out.
                self.hash = Some(self.hash.map_or(0, |hash| hash.rotate_left(1)) ^ next);
            }
            if policy.terminal && self.hash.is_some() {
                return;
            }
        }
    }

    fn evaluate(
        &mut self,
        source: &HashSource,
        head: &request::Parts,
        ends: Ends,
        filter_state: &FilterState,
    ) -> Option<u64> {
        match source {
            HashSource::Header { name, rewrite } => hash_header(head, name, rewrite.as_ref()),
            HashSource::Cookie(cookie) => {
                if let Some(value) = cookie_value(&head.headers, &cookie.name).filter(|value| !value.is_empty()) {
                    return Some(xxh64(value.as_bytes(), 0));
                }
                cookie.ttl?;
                let value = format!("{:016x}", xxh64(format!("{}{}", ends.remote, ends.local).as_bytes(), 0));
                self.set_cookie = HeaderValue::try_from(set_cookie(cookie, &value)).ok();
                Some(xxh64(value.as_bytes(), 0))
            }
            HashSource::SourceIp => Some(xxh64(ends.remote.ip().to_string().as_bytes(), 0)),
            HashSource::QueryParameter(name) => query_value(&head.uri, name).map(|value| xxh64(value.as_bytes(), 0)),
            HashSource::FilterState(key) => filter_state.text(key).map(|text| xxh64(text.as_bytes(), 0)),
            HashSource::Nothing => None,
        }
    }
}

/// What policies make of a request; None: nothing.
pub fn hash_of(policies: &[HashPolicy], head: &request::Parts, ends: Ends, filter_state: &FilterState) -> Option<u64> {
    let mut selection = HostSelection::default();
    selection.hash(policies, head, ends, filter_state);
    selection.hash
}

/// Several values count in the order of their bytes, so that the order of the headers does not matter.
fn hash_header(head: &request::Parts, name: &HashedHeader, rewrite: Option<&(regex::Regex, String)>) -> Option<u64> {
    let found: Vec<&[u8]> = match name {
        HashedHeader::Named(name) => head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect(),
        HashedHeader::Authority => vec![authority(head)],
        HashedHeader::Path => vec![head.uri.path_and_query()?.as_str().as_bytes()],
        HashedHeader::Method => vec![head.method.as_str().as_bytes()],
    };
    let mut values: Vec<Cow<'_, [u8]>> = found
        .into_iter()
        .map(|value| match rewrite {
            None => Cow::Borrowed(value),
            Some((found, replacement)) => {
                let text = String::from_utf8_lossy(value);
                Cow::Owned(found.replace_all(&text, replacement.as_str()).into_owned().into_bytes())
            }
        })
        .collect();
    values.sort_unstable();
    let mut hasher = Xxh64::new(0);
    for value in &values {
        hasher.update(value);
    }
    (!values.is_empty()).then(|| hasher.digest())
}

/// Of the first cookie of that name.
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let crumbs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = crumbs.flat_map(|crumb| crumb.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next()?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

pub fn set_cookie(cookie: &HashCookie, value: &str) -> String {
    let mut text = format!("{}=\"{value}\"", cookie.name);
    if let Some(ttl) = cookie.ttl.filter(|ttl| ttl.as_secs() > 0) {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        text.push_str(&format!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        let separator = if value.is_empty() { "" } else { "=" };
        text.push_str(&format!("; {name}{separator}{value}"));
    }
    text.push_str("; HttpOnly");
    text
}

fn query_value<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
}

/// `ip:port`. Names are not looked up.
fn named_destination(value: &HeaderValue) -> Option<SocketAddr> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{route::RouteTable, testing::message};

    const ENDS: (&str, &str) = ("127.0.0.1:80", "10.0.0.1:4321");

    fn hashed(policies: &str, request: &[(&str, &str)], path: &str) -> (Option<u64>, Option<String>) {
        let route = format!("{{match: {{prefix: /}}, route: {{cluster: c, hash_policy: {policies}}}}}");
        let yaml = format!("virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]");
        let table = RouteTable::from_proto(message(&yaml)).unwrap();
        let crate::config::route::RouteAction::Forward(action) = &table.virtual_hosts[0].routes[0].action else {
            panic!("{table:?}")
        };
        let mut builder = http::Request::builder().uri(path);
        for (name, value) in request {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let ends = Ends { local: ENDS.0.parse().unwrap(), remote: ENDS.1.parse().unwrap() };
        let mut selection = HostSelection::default();
        selection.hash(&action.hash_policy, &head, ends, &FilterState::default());
        let cookie = selection.take_set_cookie().map(|value| value.to_str().unwrap().to_owned());
        (selection.hash, cookie)
    }

    #[test]
    fn requests_are_told_by_what_the_policy_names() {
        let of = |policies: &str, request: &[(&str, &str)]| hashed(policies, request, "/p?a=1&b=2&a=3").0;
        let header = "[{header: {header_name: x-k}}]";
        assert_eq!(of(header, &[("x-k", "v")]), Some(xxh64(b"v", 0)));
        assert_eq!(of(header, &[("x-k", "b"), ("x-k", "a")]), of(header, &[("x-k", "a"), ("x-k", "b")]));
        assert_eq!(of(header, &[]), None);
        let rewritten =
            "[{header: {header_name: x-k, regex_rewrite: {pattern: {regex: '^(\\w)\\w*'}, substitution: '\\1'}}}]";
        assert_eq!(of(rewritten, &[("x-k", "abc")]), Some(xxh64(b"a", 0)));
        assert_eq!(of("[{query_parameter: {name: a}}]", &[]), Some(xxh64(b"1", 0)));
        assert_eq!(of("[{connection_properties: {source_ip: true}}]", &[]), Some(xxh64(b"10.0.0.1", 0)));
        assert_eq!(of("[{connection_properties: {}}]", &[]), None);
        assert_eq!(of("[{cookie: {name: c}}]", &[("cookie", "a=b; c=\"d\"")]), Some(xxh64(b"d", 0)));
    }

    #[test]
    fn policies_add_up_until_a_terminal_one() {
        let of = |policies: &str| hashed(policies, &[("a", "1"), ("b", "2")], "/").0;
        let (one, two) = (xxh64(b"1", 0), xxh64(b"2", 0));
        assert_eq!(of("[{header: {header_name: a}}, {header: {header_name: b}}]"), Some(one.rotate_left(1) ^ two));
        assert_eq!(of("[{header: {header_name: a}, terminal: true}, {header: {header_name: b}}]"), Some(one));
        assert_eq!(of("[{header: {header_name: c}, terminal: true}, {header: {header_name: b}}]"), Some(two));
    }

    #[test]
    fn who_has_no_cookie_may_be_given_one() {
        let (hash, cookie) =
            hashed("[{cookie: {name: c, ttl: 9s, path: /p, attributes: [{name: SameSite, value: Lax}]}}]", &[], "/");
        let value = format!("{:016x}", xxh64(b"10.0.0.1:4321127.0.0.1:80", 0));
        assert_eq!(hash, Some(xxh64(value.as_bytes(), 0)));
        assert_eq!(cookie, Some(format!("c=\"{value}\"; Max-Age=9; Path=/p; SameSite=Lax; HttpOnly")));
        assert_eq!(hashed("[{cookie: {name: c}}]", &[], "/"), (None, None));
    }
}
