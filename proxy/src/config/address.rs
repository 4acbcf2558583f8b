//! `envoy.config.core.v3.Address` and its kin, to socket addresses and networks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{Address, CidrRange, SocketAddress, address, socket_address},
};

use crate::config::field::{self, Result, Within as _, refuse, unsupported};

/// A TCP address where something listens or answers. `ipv4_compat` is for listeners: elsewhere it is refused by
/// [`socket_addr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    pub address: SocketAddr,
    pub ipv4_compat: bool,
}

impl TcpAddress {
    /// Errors stand below the field that holds the address.
    pub fn from_proto(message: Address) -> Result<Self> {
        let Address { address } = message;
        match address {
            Some(address::Address::SocketAddress(message)) => {
                Self::from_socket_address(message).within("socket_address")
            }
            Some(address::Address::Pipe(_)) => Err(unsupported("pipe")),
            Some(address::Address::EnvoyInternalAddress(_)) => Err(unsupported("envoy_internal_address")),
            None => Err(FieldError::new("socket_address", "value is required")),
        }
    }

    fn from_socket_address(message: SocketAddress) -> Result<Self> {
        let SocketAddress { protocol, address, resolver_name, ipv4_compat, network_namespace_filepath, port_specifier } =
            message;
        refuse!(protocol, resolver_name, network_namespace_filepath);
        let port = match port_specifier {
            Some(socket_address::PortSpecifier::PortValue(value)) => field::port(value, "port_value")?,
            Some(socket_address::PortSpecifier::NamedPort(_)) => return Err(unsupported("named_port")),
            None => return Err(FieldError::new("port_value", "value is required")),
        };
        let ip = ip(&address, "address")?;
        if ipv4_compat && !takes_ipv4(ip) {
            return Err(FieldError::new("ipv4_compat", "only '::' and IPv4-mapped IPv6 addresses can take IPv4"));
        }
        Ok(Self { address: SocketAddr::new(ip, port), ipv4_compat })
    }
}

fn takes_ipv4(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unspecified() || ip.to_ipv4_mapped().is_some())
}

/// An address that is connected to or bound before connecting.
pub fn socket_addr(message: Address) -> Result<SocketAddr> {
    let TcpAddress { address, ipv4_compat } = TcpAddress::from_proto(message)?;
    if ipv4_compat { Err(unsupported("socket_address.ipv4_compat")) } else { Ok(address) }
}

/// Like [`socket_addr`], of the inner message; errors stand below the field that holds it.
pub fn source_addr(message: SocketAddress) -> Result<SocketAddr> {
    let TcpAddress { address, ipv4_compat } = TcpAddress::from_socket_address(message)?;
    if ipv4_compat { Err(unsupported("ipv4_compat")) } else { Ok(address) }
}

/// The network, with its host bits cleared. A length beyond the family's is cut to it, as Envoy does.
pub fn network(message: CidrRange) -> Result<IpNet> {
    let CidrRange { address_prefix, prefix_len } = message;
    let ip = ip(&address_prefix, "address_prefix")?;
    let length_max = if ip.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(field::u32_or(prefix_len, 0)).unwrap_or(u8::MAX).min(length_max);
    let network = IpNet::new(ip, length).map_err(|_| FieldError::new("prefix_len", "prefix length out of range"))?;
    Ok(network.trunc())
}

fn ip(text: &str, path: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| FieldError::new(path, format!("malformed IP address: {text}")))
}
