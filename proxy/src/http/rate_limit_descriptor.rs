//! What of a request its rate is limited by: the entries of routes, virtual hosts and filters made into descriptors.

use std::net::IpAddr;

use http::request;
use ipnet::IpNet;

use crate::{
    config::{
        metadata::{Metadata, Value},
        rate_limit::{DescriptorValue, Hits, RateLimitAction, RateLimitEntry},
        substitution::Operator,
    },
    http::{
        exchange::Exchange,
        request_headers::authority,
        route::{
            matcher::{header_matches, header_text, query_matches},
            resolved::ResolvedRoute,
        },
    },
    substitution::{self, Context, Subject},
    xds::rate_limit_service::Descriptor,
};

/// Of whom the descriptors speak.
pub struct Described<'a> {
    pub exchange: &'a Exchange,
    pub route: &'a ResolvedRoute,
    pub head: &'a request::Parts,
}

/// An entry of which an action does not find what it looks for gives none.
pub fn add_descriptors(entries: &[RateLimitEntry], stage: u32, of: &Described<'_>, out: &mut Vec<Descriptor>) {
    for entry in entries.iter().filter(|entry| entry.stage.is_none_or(|wanted| wanted == stage)) {
        let mut descriptor = Descriptor { limit: entry.limit, ..Descriptor::default() };
        if !entry.actions.iter().all(|action| of.apply(action, &mut descriptor.entries)) {
            continue;
        }
        descriptor.hits = match &entry.hits {
            None => None,
            Some(Hits::Number(number)) => Some(*number),
            // What is no number cannot be counted.
            Some(Hits::Format(format)) => match of.written(format).parse() {
                Ok(number) => Some(number),
                Err(_) => continue,
            },
        };
        out.push(descriptor);
    }
}

impl Described<'_> {
    /// False: there is no descriptor.
    fn apply(&self, action: &RateLimitAction, out: &mut Vec<(String, String)>) -> bool {
        let remote = self.exchange.remote_address.get().ip();
        let (key, value) = match action {
            RateLimitAction::SourceCluster => {
                let node = &self.exchange.connection.downstream.worker.shared.node_cluster;
                ("source_cluster", Some(node.to_string()))
            }
            RateLimitAction::DestinationCluster => {
                let cluster = self.route.cluster_name(self.head);
                ("destination_cluster", Some(cluster.map_or_else(String::new, |name| name.to_string())))
            }
            RateLimitAction::RemoteAddress => ("remote_address", Some(remote.to_string())),
            RateLimitAction::MaskedRemoteAddress { v4_bits, v6_bits } => {
                ("masked_remote_address", masked(remote, *v4_bits, *v6_bits))
            }
            RateLimitAction::GenericKey { key, value } => (key.as_str(), self.value(value)),
            RateLimitAction::RequestHeader { name, key, skips } => {
                match header_text(name, self.head).filter(|text| !text.is_empty()) {
                    None => return *skips,
                    Some(text) => (key.as_str(), Some(text.into_owned())),
                }
            }
            RateLimitAction::QueryParameter { name, key, skips } => match self.query_parameter(name) {
                None => return *skips,
                Some(text) => (key.as_str(), Some(text.to_owned())),
            },
            RateLimitAction::HeaderMatch { key, value, expects, headers } => {
                let host = authority(self.head);
                if headers.iter().all(|matcher| header_matches(matcher, self.head, host)) != *expects {
                    return false;
                }
                (key.as_str(), self.value(value))
            }
            RateLimitAction::QueryMatch { key, value, expects, parameters } => {
                let query = self.head.uri.query().unwrap_or_default();
                if parameters.iter().all(|matcher| query_matches(matcher, query)) != *expects {
                    return false;
                }
                (key.as_str(), self.value(value))
            }
            RateLimitAction::RemoteAddressMatch { key, value, matcher } => {
                if !matcher.matches(remote) {
                    return false;
                }
                (key.as_str(), self.value(value))
            }
            RateLimitAction::Metadata { key, namespace, path, default, skips, of_route } => {
                let found = match of_route {
                    true => text_at(&self.route.route().metadata, namespace, path),
                    false => text_at(&self.exchange.metadata.borrow(), namespace, path),
                };
                match found.or_else(|| Some(default.clone()).filter(|text| !text.is_empty())) {
                    None => return *skips,
                    Some(text) => (key.as_str(), Some(text)),
                }
            }
        };
        let Some(value) = value else { return false };
        out.push((key.to_owned(), value));
        true
    }

    /// None: neither the format nor the default give anything.
    fn value(&self, value: &DescriptorValue) -> Option<String> {
        Some(self.written(&value.format))
            .filter(|text| !text.is_empty())
            .or_else(|| Some(value.default.clone()).filter(|text| !text.is_empty()))
    }

    fn written(&self, format: &[Operator]) -> String {
        let context = Context { request: Some(self.head), ..Context::of_connection(Subject::Http(self.exchange)) };
        let mut text = Vec::new();
        let access_logs = &self.exchange.connection.downstream.worker.access_logs;
        access_logs.with_clock(|clock| substitution::write_text(format, &context, b"", clock, &mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    fn query_parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.head.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

fn masked(address: IpAddr, v4_bits: u8, v6_bits: u8) -> Option<String> {
    let bits = if address.is_ipv4() { v4_bits } else { v6_bits };
    Some(IpNet::new(address, bits).ok()?.trunc().to_string())
}

fn text_at(metadata: &Metadata, namespace: &str, path: &[String]) -> Option<String> {
    let found = metadata.value(namespace, path.iter().map(String::as_str)).and_then(Value::as_text);
    found.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked() {
        let masked = |address: &str| masked(address.parse().expect("an address"), 16, 64).expect("a network");
        assert_eq!(masked("10.1.2.3"), "10.1.0.0/16");
        assert_eq!(masked("2001:db8::1"), "2001:db8::/64");
    }
}
