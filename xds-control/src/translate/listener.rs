//! Listeners: the two that redirected traffic arrives at, and one for each Service address and port.
//!
//! A redirected connection arrives at `virtualOutbound` and is handed to the listener of its original destination, none
//! of which has a socket of its own; what has no listener stays and passes through or is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_xds::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use weft_xds::pb::envoy::config::core::v3::TrafficDirection;
use weft_xds::pb::envoy::config::listener::v3::{
    AdditionalAddress, ApiListener, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter,
    listener_filter,
};
use weft_xds::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use weft_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use weft_xds::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier,
};
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use weft_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use super::proto::{address, aggregated, boolean, duration, pack, uint32};
use super::{
    BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, MeshSettings, OutboundPolicy, PASSTHROUGH_CLUSTER, SidecarInputs,
    inbound_name, route,
};
use crate::model::mesh::InboundPort;
use crate::model::protocol::Protocol;
use crate::model::service::{Service, ServicePort};

const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// A listener for each address of a Service: none where it has no address.
pub(super) fn outbound(service: &Service, port: &ServicePort, name: &str, settings: &MeshSettings) -> Vec<Listener> {
    service.virtual_addresses().iter().map(|ip| outbound_at(*ip, port, name, settings)).collect()
}

fn outbound_at(ip: IpAddr, port: &ServicePort, name: &str, settings: &MeshSettings) -> Listener {
    let listener_name = format!("{ip}_{}", port.number);
    let listener = Listener {
        address: address(ip, port.number),
        bind_to_port: boolean(false),
        traffic_direction: TrafficDirection::Outbound.into(),
        name: listener_name.clone(),
        ..Listener::default()
    };
    let requests = || {
        let rds = Rds { config_source: aggregated(), route_config_name: name.to_owned() };
        http(format!("outbound_{listener_name}"), RouteSpecifier::Rds(rds), settings)
    };
    let bytes = || tcp(name, settings);
    if port.protocol.is_http() {
        Listener { filter_chains: vec![chain("", None, requests())], ..listener }
    } else if port.protocol == Protocol::Detect {
        Listener {
            listener_filters: vec![http_inspector()],
            // A server that speaks first leaves nothing to detect: go on without, and soon.
            listener_filters_timeout: duration(settings.detection_timeout),
            continue_on_listener_filters_timeout: true,
            filter_chains: vec![chain("http", Some(http1_match()), requests()), chain("tcp", None, bytes())],
            ..listener
        }
    } else {
        Listener { filter_chains: vec![chain("", None, bytes())], ..listener }
    }
}

/// What a gRPC client asks for by its target's name: only the connection manager in it counts.
pub(super) fn proxyless(target: &str, route_name: &str) -> Listener {
    let rds = Rds { config_source: aggregated(), route_config_name: route_name.to_owned() };
    let manager = HttpConnectionManager {
        stat_prefix: target.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
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
    let unknown = match settings.outbound_policy {
        OutboundPolicy::AllowAny => PASSTHROUGH_CLUSTER,
        OutboundPolicy::RegistryOnly => BLACK_HOLE_CLUSTER,
    };
    Listener {
        use_original_dst: boolean(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![
            // A connection to this very port was not redirected; passing it on would lead back here.
            chain("virtualOutbound-trafficloop", Some(port_match(OUTBOUND_PORT)), tcp(BLACK_HOLE_CLUSTER, settings)),
            chain("virtualOutbound-catchall-tcp", None, tcp(unknown, settings)),
        ],
        ..bound("virtualOutbound", OUTBOUND_PORT, inputs)
    }
}

/// Where all inbound connections arrive: a chain for each port that Services send traffic to.
pub(super) fn virtual_inbound(inputs: &SidecarInputs, settings: &MeshSettings) -> Listener {
    let mut filter_chains =
        vec![chain("virtualInbound-blackhole", Some(port_match(INBOUND_PORT)), tcp(BLACK_HOLE_CLUSTER, settings))];
    filter_chains.extend(inputs.inbound.iter().map(|port| inbound_chain(port, settings)));
    filter_chains.push(chain("virtualInbound-passthrough", None, tcp(INBOUND_PASSTHROUGH_CLUSTER, settings)));
    Listener {
        listener_filters: vec![original_dst()],
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
        tcp(&name, settings)
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

fn chain(name: &str, filter_chain_match: Option<FilterChainMatch>, filter: Filter) -> FilterChain {
    FilterChain { name: name.to_owned(), filter_chain_match, filters: vec![filter], ..FilterChain::default() }
}

fn port_match(port: u16) -> FilterChainMatch {
    FilterChainMatch { destination_port: uint32(u32::from(port)), ..FilterChainMatch::default() }
}

/// HTTP/2 with prior knowledge stays with the bytes: the cluster behind both chains speaks one version of HTTP, and
/// translating it to HTTP/1.1 would break gRPC.
fn http1_match() -> FilterChainMatch {
    FilterChainMatch {
        application_protocols: vec!["http/1.0".to_owned(), "http/1.1".to_owned()],
        ..FilterChainMatch::default()
    }
}

fn http(stat_prefix: String, routes: RouteSpecifier, settings: &MeshSettings) -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix,
        route_specifier: Some(routes),
        http_filters: vec![router()],
        // The peer is a sidecar or the application, not the outer world: its headers are believed.
        use_remote_address: boolean(false),
        access_log: access_log(settings),
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&manager))),
    }
}

fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..HttpFilter::default()
    }
}

fn tcp(cluster: &str, settings: &MeshSettings) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        access_log: access_log(settings),
        ..TcpProxy::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&proxy))),
    }
}

fn access_log(settings: &MeshSettings) -> Vec<AccessLog> {
    let log = |path: &String| AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(pack(&FileAccessLog {
            path: path.clone(),
            access_log_format: None,
        }))),
    };
    settings.access_log_file.iter().map(log).collect()
}

fn original_dst() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", pack(&OriginalDst::default()))
}

fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", pack(&HttpInspector::default()))
}

fn listener_filter(name: &str, config: weft_xds::pb::google::protobuf::Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
    }
}
