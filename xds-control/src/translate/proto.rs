//! Short ways to write down what Envoy's messages are made of.

use std::net::IpAddr;

use prost::Name;
use weft_xds::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address, config_source, socket_address,
};
use weft_xds::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};

pub(super) fn pack<T: Name>(message: &T) -> Any {
    weft_xds::any::pack(message)
}

pub(super) fn uint32(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(super) fn duration(value: std::time::Duration) -> Option<Duration> {
    // Durations here are settings of seconds at most: both parts fit.
    Some(Duration { seconds: value.as_secs().cast_signed(), nanos: value.subsec_nanos().cast_signed() })
}

pub(super) fn socket_address(ip: IpAddr, port: u16) -> SocketAddress {
    SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    }
}

pub(super) fn address(ip: IpAddr, port: u16) -> Option<Address> {
    Some(Address { address: Some(address::Address::SocketAddress(socket_address(ip, port))) })
}

/// A name to be resolved, and a port.
pub(super) fn address_of_name(name: &str, port: u16) -> Address {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(u32::from(port)));
    let address = SocketAddress { address: name.to_owned(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(address)) }
}

/// "From the stream that this came by."
pub(super) fn aggregated() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}
