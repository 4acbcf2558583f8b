//! Endpoint assignments: the addresses of a cluster, by locality.

use std::collections::{BTreeMap, HashMap};

use weft_xds::pb::envoy::config::core::v3::{HealthStatus, Locality as XdsLocality, Metadata};
use weft_xds::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as XdsEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use weft_xds::pb::google::protobuf::{Struct, Value, value};

use super::proto::{address, uint32};
use crate::model::endpoint::Endpoint;
use crate::model::topology::Locality;
use crate::model::workload::Workload;

/// The endpoints by rank, which is their priority. The locality is always present and weighs as much as it has endpoints:
/// gRPC's clients drop one that is absent or weightless, and spread over localities by weight.
pub(super) fn assignment(cluster: &str, ranks: &[Vec<&Endpoint>]) -> ClusterLoadAssignment {
    let mut endpoints = Vec::new();
    for (priority, rank) in (0..).zip(ranks) {
        let mut localities: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in rank {
            localities.entry(&endpoint.locality).or_default().push(endpoint);
        }
        endpoints.extend(localities.into_iter().map(|(locality, endpoints)| LocalityLbEndpoints {
            locality: Some(XdsLocality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                ..XdsLocality::default()
            }),
            priority,
            load_balancing_weight: uint32(u32::try_from(endpoints.len()).unwrap_or(u32::MAX)),
            lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }));
    }
    ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints, ..ClusterLoadAssignment::default() }
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    LbEndpoint {
        health_status: HealthStatus::Healthy.into(),
        metadata: endpoint.workload.as_deref().map(workload_metadata),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(XdsEndpoint {
            address: address(endpoint.address.ip(), endpoint.address.port()),
            hostname: endpoint.hostname.clone().unwrap_or_default(),
            ..XdsEndpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

/// Who an endpoint is, in the form that Istio's telemetry reads: `workload;namespace;app;version;cluster`.
fn workload_metadata(workload: &Workload) -> Metadata {
    let text = format!(
        "{};{};{};{};{CLUSTER_ID}",
        workload.deployed_by,
        workload.name.namespace,
        workload.app(),
        workload.version()
    );
    let fields = HashMap::from([("workload".to_owned(), Value { kind: Some(value::Kind::StringValue(text)) })]);
    Metadata { filter_metadata: HashMap::from([("istio".to_owned(), Struct { fields })]), ..Metadata::default() }
}

/// The name of a mesh's only cluster.
const CLUSTER_ID: &str = "Kubernetes";
