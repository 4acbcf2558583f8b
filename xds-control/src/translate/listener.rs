//! Listeners: the two that redirected traffic arrives at, and one for each Service address and port.
//!
//! A redirected connection arrives at `virtualOutbound` and is handed to the listener of its original destination, none
//! of which has a socket of its own; what has no listener stays and passes through or is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_xds::pb::envoy::config::core::v3::TrafficDirection;
use weft_xds::pb::envoy::config::listener::v3::{AdditionalAddress, ApiListener, FilterChain, Listener};
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::filter::{
    chain, http, http_inspector, http_match, original_dst, original_src, port_match, rds, router, tcp,
};
use super::proto::{address, boolean, duration, pack};
use super::{
    BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, Interception, MeshSettings, SidecarInputs, inbound_name, route,
    unknown_destinations,
};
use crate::model::mesh::InboundPort;
use crate::model::protocol::Protocol;
use crate::model::service::{Affinity, Service, ServicePort};

const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// A listener for each address of a Service: none where it has no address.
pub(super) fn outbound(service: &Service, port: &ServicePort, name: &str, settings: &MeshSettings) -> Vec<Listener> {
    let at = |ip: &IpAddr| outbound_at(*ip, port, name, service.affinity, settings);
    service.virtual_addresses().iter().map(at).collect()
}

fn outbound_at(ip: IpAddr, port: &ServicePort, name: &str, affinity: Affinity, settings: &MeshSettings) -> Listener {
    let listener_name = format!("{ip}_{}", port.number);
    let listener = Listener {
        address: address(ip, port.number),
        bind_to_port: boolean(false),
        traffic_direction: TrafficDirection::Outbound.into(),
        name: listener_name.clone(),
        ..Listener::default()
    };
    let requests = || http(format!("outbound_{listener_name}"), rds(name), settings);
    let bytes = || tcp(name, affinity, settings);
    if port.protocol.is_http() {
        Listener { filter_chains: vec![chain("", None, requests())], ..listener }
    } else if port.protocol == Protocol::Detect {
        Listener {
            listener_filters: vec![http_inspector()],
            // A server that speaks first leaves nothing to detect: go on without, and soon.
            listener_filters_timeout: duration(settings.detection_timeout),
            continue_on_listener_filters_timeout: true,
            filter_chains: vec![chain("http", Some(http_match()), requests()), chain("tcp", None, bytes())],
            ..listener
        }
    } else {
        Listener { filter_chains: vec![chain("", None, bytes())], ..listener }
    }
}

/// What a gRPC client asks for by its target's name: only the connection manager in it counts.
pub(super) fn proxyless(target: &str, route_name: &str) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: target.to_owned(),
        route_specifier: Some(rds(route_name)),
        http_filters: vec![router()],
        ..HttpConnectionManager::default()
    };
    Listener {
        name: target.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(pack(&manager)) }),
        ..Listener::default()
    }
}

/// Where all outbound connections arrive.
pub(super) fn virtual_outbound(inputs: &SidecarInputs, settings: &MeshSettings) -> Listener {
    let bytes = |cluster: &str| tcp(cluster, Affinity::None, settings);
    Listener {
        use_original_dst: boolean(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![
            // A connection to this very port was not redirected; passing it on would lead back here.
            chain("virtualOutbound-trafficloop", Some(port_match(OUTBOUND_PORT)), bytes(BLACK_HOLE_CLUSTER)),
            chain("virtualOutbound-catchall-tcp", None, bytes(unknown_destinations(settings))),
        ],
        ..bound("virtualOutbound", OUTBOUND_PORT, inputs)
    }
}

/// Where all inbound connections arrive: a chain for each port that Services send traffic to.
pub(super) fn virtual_inbound(inputs: &SidecarInputs, settings: &MeshSettings) -> Listener {
    let bytes = |cluster: &str| tcp(cluster, Affinity::None, settings);
    let mut filter_chains =
        vec![chain("virtualInbound-blackhole", Some(port_match(INBOUND_PORT)), bytes(BLACK_HOLE_CLUSTER))];
    filter_chains.extend(inputs.inbound.iter().map(|port| inbound_chain(port, settings)));
    filter_chains.push(chain("virtualInbound-passthrough", None, bytes(INBOUND_PASSTHROUGH_CLUSTER)));
    let mut listener_filters = vec![original_dst()];
    if inputs.interception == Interception::Tproxy {
        listener_filters.push(original_src());
    }
    Listener {
        // Connections keep the address that they were made to, and the kernel hands them over as they are.
        transparent: if inputs.interception == Interception::Tproxy { boolean(true) } else { None },
        listener_filters,
        traffic_direction: TrafficDirection::Inbound.into(),
        filter_chains,
        ..bound("virtualInbound", INBOUND_PORT, inputs)
    }
}

/// Undeclared protocols pass as bytes here: inspecting would have to wait on every connection of the listener, server
/// first or not, and the sidecar of the client has told requests apart already.
fn inbound_chain(port: &InboundPort, settings: &MeshSettings) -> FilterChain {
    let name = inbound_name(port.number);
    let filter = if port.protocol.is_http() {
        let table = route::inbound(&name, port.number);
        http(format!("inbound_0.0.0.0_{}", port.number), RouteSpecifier::RouteConfig(table), settings)
    } else {
        tcp(&name, Affinity::None, settings)
    };
    chain(&format!("0.0.0.0_{}", port.number), Some(port_match(port.number)), filter)
}

/// A listener on all addresses of the families that the pod has.
fn bound(name: &str, port: u16, inputs: &SidecarInputs) -> Listener {
    let (any_v4, any_v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let (first, second) = match (inputs.has_ipv4(), inputs.has_ipv6()) {
        (true, true) => (any_v4, Some(any_v6)),
        (false, true) => (any_v6, None),
        (_, false) => (any_v4, None),
    };
    let additional = second.map(|ip| AdditionalAddress { address: address(ip, port), ..AdditionalAddress::default() });
    Listener {
        name: name.to_owned(),
        address: address(first, port),
        additional_addresses: additional.into_iter().collect(),
        ..Listener::default()
    }
}
