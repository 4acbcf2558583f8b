//! `envoy.config.listener.v3.FilterChain`: which connections it takes and what it does with them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ipnet::IpNet;
use weft_xds::{
    FieldError, canonical,
    pb::envoy::{
        config::{
            core::v3::{TransportSocket, transport_socket},
            listener::v3::{
                FilterChain as ProtoFilterChain, FilterChainMatch as ProtoFilterChainMatch,
                filter_chain_match::ConnectionSourceType,
            },
        },
        extensions::transport_sockets::{raw_buffer::v3::RawBuffer, tls::v3::DownstreamTlsContext},
    },
};

use crate::config::{
    address,
    field::{self, Extension, Result, Within as _, refuse, timeout_or, without_typed_config},
    http_connection_manager::RouteSource,
    network_filter::{self, ConnectionFilter, NetworkFilter},
    tls::DownstreamTls,
};

#[derive(Debug)]
pub struct FilterChain {
    pub name: Arc<str>,
    /// Of the chain's canonical bytes and the listener's fields that its connections depend on: a chain of equal hash
    /// keeps its connections over a listener update.
    pub hash: u64,
    pub filter_chain_match: FilterChainMatch,
    /// None: plain text (`raw_buffer`).
    pub transport_socket: Option<Arc<DownstreamTls>>,
    /// Bounds the TLS handshake. None: no bound.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Decide, in their order, whether a connection may go on and where to.
    pub connection_filters: Vec<ConnectionFilter>,
    /// The one terminal network filter, which is the last one.
    pub network_filter: NetworkFilter,
}

/// Empty lists and `None` match anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub prefix_ranges: Vec<IpNet>,
    /// Lower case. A leading `*.` matches any deeper name by suffix; partial wildcards are refused.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<String>,
    pub application_protocols: Vec<String>,
    pub direct_source_prefix_ranges: Vec<IpNet>,
    pub source_type: SourceType,
    pub source_prefix_ranges: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    #[default]
    Any,
    /// From loopback, or from the address that it is sent to.
    SameIpOrLoopback,
    External,
}

impl FilterChain {
    /// `seed` is a hash of the listener's fields that the chain's connections depend on.
    #[expect(deprecated, reason = "an older spelling of a listener filter")]
    pub(crate) fn from_proto(message: ProtoFilterChain, seed: u64) -> Result<Self> {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&canonical::hash(&message).to_le_bytes(), seed);
        let ProtoFilterChain {
            filter_chain_match,
            filters,
            use_proxy_proto: _, // the listener looks at its first chain's
            metadata: _,        // for extensions' eyes, and none reads it
            transport_socket,
            transport_socket_connect_timeout,
            name,
        } = message;
        let (connection_filters, network_filter) = network_filter::chain_from_proto(filters)?;
        Ok(Self {
            name: name.into(),
            hash,
            filter_chain_match: FilterChainMatch::from_proto(filter_chain_match.unwrap_or_default())
                .within("filter_chain_match")?,
            transport_socket: downstream_tls(transport_socket).within("transport_socket")?.map(Arc::new),
            transport_socket_connect_timeout: timeout_or(
                transport_socket_connect_timeout,
                None,
                "transport_socket_connect_timeout",
            )?,
            connection_filters,
            network_filter,
        })
    }
}

impl FilterChain {
    pub(crate) fn check_clusters(&self, is_known: impl Fn(&str) -> bool) -> Result<()> {
        match &self.network_filter {
            NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
                RouteSource::Inline(table) => {
                    let filter = field::element("filters", self.connection_filters.len());
                    table.check_clusters(is_known).within(&format!("{filter}.typed_config.route_config"))
                }
                RouteSource::Rds(_) => Ok(()),
            },
            NetworkFilter::TcpProxy(_)
            | NetworkFilter::Echo
            | NetworkFilter::DirectResponse(_)
            | NetworkFilter::Close => Ok(()),
        }
    }
}

fn downstream_tls(message: Option<TransportSocket>) -> Result<Option<DownstreamTls>> {
    let Some(TransportSocket { name: _, config_type }) = message else { return Ok(None) };
    let Some(transport_socket::ConfigType::TypedConfig(typed_config)) = config_type else {
        return Err(without_typed_config());
    };
    let extension = Extension::new(typed_config)?;
    if extension.is::<DownstreamTlsContext>() {
        DownstreamTls::from_proto(extension.unpack()?).within("typed_config").map(Some)
    } else if extension.is::<RawBuffer>() {
        extension.unpack().map(|RawBuffer {}| None)
    } else {
        Err(extension.unsupported())
    }
}

impl FilterChainMatch {
    fn from_proto(message: ProtoFilterChainMatch) -> Result<Self> {
        let ProtoFilterChainMatch {
            destination_port,
            prefix_ranges,
            address_suffix,
            suffix_len,
            direct_source_prefix_ranges,
            source_type,
            source_prefix_ranges,
            source_ports,
            server_names,
            transport_protocol,
            application_protocols,
        } = message;
        refuse!(address_suffix, suffix_len);
        Ok(Self {
            destination_port: destination_port.map(|port| field::port(port.value, "destination_port")).transpose()?,
            prefix_ranges: field::each(prefix_ranges, "prefix_ranges", address::network)?,
            server_names: field::each(server_names, "server_names", server_name)?,
            transport_protocol: Some(transport_protocol).filter(|protocol| !protocol.is_empty()),
            application_protocols,
            direct_source_prefix_ranges: field::each(
                direct_source_prefix_ranges,
                "direct_source_prefix_ranges",
                address::network,
            )?,
            source_type: match field::enumeration(source_type, "source_type")? {
                ConnectionSourceType::Any => SourceType::Any,
                ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
                ConnectionSourceType::External => SourceType::External,
            },
            source_prefix_ranges: field::each(source_prefix_ranges, "source_prefix_ranges", address::network)?,
            source_ports: field::each(source_ports, "source_ports", |port| field::port(port, ""))?,
        })
    }

    /// Whether a connection could be taken by both with neither the more specific: in every criterion they name a value in
    /// common, or both name none.
    fn overlaps(&self, other: &Self) -> bool {
        self.destination_port == other.destination_port
            && shares(&self.prefix_ranges, &other.prefix_ranges)
            && shares(&self.server_names, &other.server_names)
            && self.transport_protocol == other.transport_protocol
            && shares(&self.application_protocols, &other.application_protocols)
            && shares(&self.direct_source_prefix_ranges, &other.direct_source_prefix_ranges)
            && self.source_type == other.source_type
            && shares(&self.source_prefix_ranges, &other.source_prefix_ranges)
            && shares(&self.source_ports, &other.source_ports)
    }

    /// The first list in which a value stands twice: a match that overlaps itself.
    fn repetition(&self) -> Option<&'static str> {
        [
            ("prefix_ranges", repeats(&self.prefix_ranges)),
            ("server_names", repeats(&self.server_names)),
            ("application_protocols", repeats(&self.application_protocols)),
            ("direct_source_prefix_ranges", repeats(&self.direct_source_prefix_ranges)),
            ("source_prefix_ranges", repeats(&self.source_prefix_ranges)),
            ("source_ports", repeats(&self.source_ports)),
        ]
        .into_iter()
        .find_map(|(field, repeats)| repeats.then_some(field))
    }

    /// What overlapping matches have one of in common: keeps the comparison of thousands of chains from being quadratic.
    fn keys(&self) -> impl Iterator<Item = MatchKey<'_>> {
        let networks = options(&self.prefix_ranges).map(Option::<&IpNet>::copied);
        networks.flat_map(move |network| {
            options(&self.server_names).map(move |server_name| MatchKey {
                destination_port: self.destination_port,
                network,
                server_name: server_name.map(String::as_str),
            })
        })
    }
}

#[derive(PartialEq, Eq, Hash)]
struct MatchKey<'a> {
    destination_port: Option<u16>,
    network: Option<IpNet>,
    server_name: Option<&'a str>,
}

/// Each value, or one `None` of an empty list.
fn options<T>(values: &[T]) -> impl Iterator<Item = Option<&T>> {
    values.iter().map(Some).chain(values.is_empty().then_some(None))
}

fn shares<T: PartialEq>(values: &[T], others: &[T]) -> bool {
    values.is_empty() && others.is_empty() || values.iter().any(|value| others.contains(value))
}

fn repeats<T: PartialEq>(values: &[T]) -> bool {
    values.iter().enumerate().any(|(index, value)| values[..index].contains(value))
}

/// Which of two such chains took a connection would depend on their order: refused, as Envoy does.
pub(crate) fn refuse_overlaps<'a>(matches: impl IntoIterator<Item = &'a FilterChainMatch>) -> Result<()> {
    let mut earlier: HashMap<MatchKey<'a>, Vec<(usize, &'a FilterChainMatch)>> = HashMap::new();
    for (index, chain_match) in matches.into_iter().enumerate() {
        if let Some(field) = chain_match.repetition() {
            let error = FieldError::new(field, "a value stands twice");
            return Err(error).within("filter_chain_match").at("filter_chains", index);
        }
        for key in chain_match.keys() {
            let chains = earlier.entry(key).or_default();
            if let Some((other, _)) = chains.iter().find(|(_, other)| chain_match.overlaps(other)) {
                let reason = format!("overlaps with the matching rules of filter_chains[{other}]");
                return Err(FieldError::new("filter_chain_match", reason)).at("filter_chains", index);
            }
            chains.push((index, chain_match));
        }
    }
    Ok(())
}

/// Names are compared in lower case (RFC 6066, section 3).
fn server_name(name: String) -> Result<String> {
    let name = name.to_ascii_lowercase();
    if name.strip_prefix("*.").unwrap_or(&name).contains('*') {
        return Err(FieldError::new("", "partial wildcards are not supported"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
