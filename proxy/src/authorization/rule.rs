//! Whether one rule holds.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Facts, Peer};
use crate::{
    config::{
        authorization::{AddressOf, MetadataSource, Rule},
        matcher::StringMatcher,
    },
    http::{
        request_headers::authority,
        route::matcher::{missing_header_matches, some_header_matches},
    },
    tls::CertificateFacts,
};

impl Rule {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Rule::Any => true,
            Rule::All(rules) => rules.iter().all(|rule| rule.holds(facts)),
            Rule::OneOf(rules) => rules.iter().any(|rule| rule.holds(facts)),
            Rule::Not(rule) => !rule.holds(facts),
            Rule::Header(matcher) => match facts.request {
                Some(head) => some_header_matches(matcher, head, authority(head)),
                // As Envoy: where there is no request its headers are missing.
                None => missing_header_matches(matcher),
            },
            Rule::Path(matcher) => facts.request.is_some_and(|head| matcher.matches(head.uri.path())),
            Rule::UriTemplate(template) => facts.request.is_some_and(|head| template.matches(head.uri.path())),
            Rule::Address(of, network) => is_within(network, facts.address(*of).ip()),
            Rule::DestinationPort(port) => facts.connection.destination.port() == *port,
            Rule::DestinationPorts { start, end } => {
                (*start..*end).contains(&u32::from(facts.connection.destination.port()))
            }
            Rule::ServerName(matcher) => matcher.matches(facts.connection.server_name.unwrap_or_default()),
            Rule::Metadata(MetadataSource::Dynamic, matcher) => match facts.dynamic_metadata {
                Some(metadata) => matcher.matches(metadata),
                None => matcher.value.matches(None) != matcher.invert,
            },
            Rule::Metadata(MetadataSource::Route, matcher) => {
                facts.route_metadata.is_some_and(|metadata| matcher.matches(metadata))
            }
            Rule::FilterState(matcher) => facts.filter_state.is_some_and(|state| matcher.matches(state)),
            Rule::Authenticated(name) => match facts.peer {
                Peer::PlainText => false,
                Peer::Tls { certificate, .. } => name.as_ref().is_none_or(|name| has_name(certificate, name)),
            },
            Rule::MtlsAuthenticated(matcher) => match facts.peer {
                Peer::Tls { certificate: Some(certificate), is_validated: true } => {
                    matcher.as_ref().is_none_or(|matcher| matcher.matches(certificate))
                }
                Peer::PlainText | Peer::Tls { .. } => false,
            },
        }
    }
}

impl Facts<'_> {
    fn address(&self, of: AddressOf) -> SocketAddr {
        match of {
            AddressOf::Destination => self.connection.destination,
            AddressOf::Source => self.source,
            AddressOf::DirectRemote => self.direct_remote,
            AddressOf::Remote => self.remote,
        }
    }
}

/// A v4 address that a v6 socket has is the v4 address that it is.
fn is_within(network: &IpNet, address: IpAddr) -> bool {
    network.contains(&address.to_canonical())
}

/// URIs, then DNS names, then the subject, as Envoy looks at them; who has shown no certificate has an empty subject.
fn has_name(certificate: Option<&CertificateFacts>, name: &StringMatcher) -> bool {
    let Some(certificate) = certificate else { return name.matches("") };
    let mut names = certificate.uri_names.iter().chain(&certificate.dns_names).chain([&certificate.subject]);
    names.any(|candidate| name.matches(candidate))
}
