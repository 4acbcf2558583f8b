//! Clusters: where traffic goes and how connections there are made.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use weft_xds::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Http1ProtocolOptions, Http2ProtocolOptions,
};
use weft_xds::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_xds::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use weft_xds::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use weft_xds::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use weft_xds::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_xds::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use weft_xds::pb::google::protobuf::Any;

use super::proto::{address_of_name, aggregated, duration, pack, socket_address};
use super::{
    BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, Interception, PASSTHROUGH_CLUSTER, SidecarInputs, inbound_name,
};
use crate::model::mesh::InboundPort;
use crate::model::protocol::Protocol;
use crate::model::service::{Affinity, ServicePort, TargetPort};

/// How requests are spread over the endpoints of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    LeastRequest,
    RoundRobin,
    Random,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to the application come from these addresses, which redirection lets through: a connection from the
/// pod's own address would be redirected once more.
const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const INBOUND_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// The endpoints of a Service port. Circuit breakers, outlier detection and timeouts stay at Envoy's defaults.
pub(super) fn outbound(name: &str, protocol: Protocol, affinity: Affinity, load_balancing: LoadBalancing) -> Cluster {
    let policy = match (affinity, load_balancing) {
        (Affinity::ClientAddress, _) => LbPolicy::RingHash,
        (Affinity::None, LoadBalancing::LeastRequest) => LbPolicy::LeastRequest,
        (Affinity::None, LoadBalancing::RoundRobin) => LbPolicy::RoundRobin,
        (Affinity::None, LoadBalancing::Random) => LbPolicy::Random,
    };
    Cluster {
        eds_cluster_config: Some(EdsClusterConfig { eds_config: aggregated(), service_name: name.to_owned() }),
        typed_extension_protocol_options: protocol_options(protocol),
        ..cluster(name, DiscoveryType::Eds, policy)
    }
}

/// The endpoint of a headless Service that the client connected to.
pub(super) fn headless(name: &str, protocol: Protocol) -> Cluster {
    Cluster {
        typed_extension_protocol_options: protocol_options(protocol),
        ..cluster(name, DiscoveryType::OriginalDst, LbPolicy::ClusterProvided)
    }
}

/// What a name outside of the cluster leads to.
pub(super) fn external(
    name: &str,
    target: &str,
    port: &ServicePort,
    affinity: Affinity,
    load_balancing: LoadBalancing,
) -> Cluster {
    Cluster {
        typed_extension_protocol_options: protocol_options(port.protocol),
        lb_policy: outbound(name, port.protocol, affinity, load_balancing).lb_policy,
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.dns".to_owned(),
            typed_config: Some(pack(&DnsCluster {
                respect_dns_ttl: true,
                // Answers of the family that a pod lacks would be hosts that can't be reached.
                dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
                ..DnsCluster::default()
            })),
        })),
        ..by_name(name, target, port)
    }
}

/// The endpoints of a Service port as gRPC's own clients take them: of the policies without parameters they know only
/// round robin and ring hash, and they speak nothing but HTTP/2.
pub(super) fn proxyless(name: &str, affinity: Affinity) -> Cluster {
    let policy = match affinity {
        Affinity::None => LbPolicy::RoundRobin,
        Affinity::ClientAddress => LbPolicy::RingHash,
    };
    Cluster {
        eds_cluster_config: Some(EdsClusterConfig { eds_config: aggregated(), service_name: name.to_owned() }),
        ..cluster(name, DiscoveryType::Eds, policy)
    }
}

/// What a name outside of the cluster leads to, for gRPC's own clients.
pub(super) fn proxyless_external(name: &str, target: &str, port: &ServicePort) -> Cluster {
    by_name(name, target, port)
}

fn by_name(name: &str, target: &str, port: &ServicePort) -> Cluster {
    let target_port = match port.target {
        TargetPort::Number(number) => number,
        // There is no container that could tell.
        TargetPort::Name(_) => port.number,
    };
    let host = Some(address_of_name(target, target_port));
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint { address: host, ..Endpoint::default() })),
        ..LbEndpoint::default()
    };
    Cluster {
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() }],
            ..ClusterLoadAssignment::default()
        }),
        ..cluster(name, DiscoveryType::LogicalDns, LbPolicy::RoundRobin)
    }
}

/// A port of the application, on the address that the connection was made to.
pub(super) fn inbound(port: &InboundPort, inputs: &SidecarInputs) -> Cluster {
    Cluster {
        typed_extension_protocol_options: protocol_options(port.protocol),
        upstream_bind_config: inbound_source(inputs),
        ..cluster(&inbound_name(port.number), DiscoveryType::OriginalDst, LbPolicy::ClusterProvided)
    }
}

/// Ports of the application that no Service tells of.
pub(super) fn inbound_passthrough(inputs: &SidecarInputs) -> Cluster {
    Cluster {
        upstream_bind_config: inbound_source(inputs),
        ..cluster(INBOUND_PASSTHROUGH_CLUSTER, DiscoveryType::OriginalDst, LbPolicy::ClusterProvided)
    }
}

/// Wherever the application was going.
pub(super) fn passthrough() -> Cluster {
    cluster(PASSTHROUGH_CLUSTER, DiscoveryType::OriginalDst, LbPolicy::ClusterProvided)
}

/// Nowhere: a cluster without endpoints.
pub(super) fn black_hole() -> Cluster {
    cluster(BLACK_HOLE_CLUSTER, DiscoveryType::Static, LbPolicy::RoundRobin)
}

fn cluster(name: &str, discovery: DiscoveryType, policy: LbPolicy) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: duration(CONNECT_TIMEOUT),
        lb_policy: policy.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        ..Cluster::default()
    }
}

/// Source addresses of the families that the pod has; binding one that it lacks would fail.
fn inbound_source(inputs: &SidecarInputs) -> Option<BindConfig> {
    if inputs.interception == Interception::Tproxy {
        // The listener takes over the client's address, and redirection knows connections by their mark.
        return None;
    }
    let (first, extra) = match (inputs.has_ipv4(), inputs.has_ipv6()) {
        (true, true) => (INBOUND_SOURCE_V4, Some(INBOUND_SOURCE_V6)),
        (false, true) => (INBOUND_SOURCE_V6, None),
        (_, false) => (INBOUND_SOURCE_V4, None),
    };
    Some(BindConfig {
        source_address: Some(socket_address(first, 0)),
        extra_source_addresses: extra
            .map(|extra| ExtraSourceAddress {
                address: Some(socket_address(extra, 0)),
                ..ExtraSourceAddress::default()
            })
            .into_iter()
            .collect(),
        ..BindConfig::default()
    })
}

/// HTTP/2 where it was declared; HTTP/1.1 for other HTTP; what the client speaks where that is detected.
fn protocol_options(protocol: Protocol) -> HashMap<String, Any> {
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let upstream_protocol_options = Some(if protocol.is_http2() {
        explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()))
    } else if protocol.is_http() {
        explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
    } else if protocol == Protocol::Detect {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(Http2ProtocolOptions::default()),
            ..UseDownstreamHttpConfig::default()
        })
    } else {
        return HashMap::new();
    });
    let options = HttpProtocolOptions { upstream_protocol_options, ..HttpProtocolOptions::default() };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack(&options))])
}
