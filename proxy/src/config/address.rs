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

#[cfg(test)]
mod tests {
    use weft_xds::json;

    use super::*;
    use crate::config::testing::{message, refusal};

    #[test]
    fn addresses_are_read() {
        let tcp = |yaml: &str| TcpAddress::from_proto(message(yaml)).unwrap();
        let plain = tcp("socket_address: {address: 10.0.0.1, port_value: 80}");
        assert_eq!(plain, TcpAddress { address: "10.0.0.1:80".parse().unwrap(), ipv4_compat: false });
        let any_port = tcp("socket_address: {address: '::', port_value: 0, ipv4_compat: true}");
        assert_eq!(any_port, TcpAddress { address: "[::]:0".parse().unwrap(), ipv4_compat: true });
    }

    #[test]
    fn what_is_not_a_tcp_address_is_refused() {
        for (yaml, expected) in [
            ("pipe: {path: /x}", "pipe: not supported"),
            ("{}", "socket_address: value is required"),
            ("envoy_internal_address: {server_listener_name: x}", "envoy_internal_address: not supported"),
            (
                "socket_address: {address: localhost, port_value: 1}",
                "socket_address.address: malformed IP address: localhost",
            ),
            ("socket_address: {address: 127.0.0.1, named_port: http}", "socket_address.named_port: not supported"),
            ("socket_address: {address: 127.0.0.1}", "socket_address.port_value: value is required"),
            (
                "socket_address: {address: 127.0.0.1, port_value: 70000}",
                "socket_address.port_value: 70000 is not a port number",
            ),
            (
                "socket_address: {address: 127.0.0.1, port_value: 1, protocol: UDP}",
                "socket_address.protocol: not supported",
            ),
            (
                "socket_address: {address: 0.0.0.0, port_value: 1, ipv4_compat: true}",
                "socket_address.ipv4_compat: only '::' and IPv4-mapped IPv6 addresses can take IPv4",
            ),
            (
                "socket_address: {address: 127.0.0.1, port_value: 1, resolver_name: x}",
                "socket_address.resolver_name: not supported",
            ),
        ] {
            assert_eq!(refusal(TcpAddress::from_proto(json::from_yaml(yaml).unwrap())), expected, "{yaml}");
        }
        let compat = message("socket_address: {address: '::', port_value: 1, ipv4_compat: true}");
        assert_eq!(refusal(socket_addr(compat)), "socket_address.ipv4_compat: not supported");
    }

    #[test]
    fn networks_lose_their_host_bits() {
        let of = |yaml: &str| network(message(yaml)).unwrap().to_string();
        assert_eq!(of("{address_prefix: 10.1.2.3, prefix_len: 8}"), "10.0.0.0/8");
        assert_eq!(of("{address_prefix: 10.1.2.3, prefix_len: 33}"), "10.1.2.3/32", "as Envoy cuts it");
        assert_eq!(of("{address_prefix: 10.1.2.3}"), "0.0.0.0/0");
        assert_eq!(of("{address_prefix: '2001:db8::1', prefix_len: 32}"), "2001:db8::/32");
    }
}
