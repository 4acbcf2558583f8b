//! Golden files: what sidecars are sent for a small mesh, as Envoy's own JSON in YAML's clothes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use weft_xds::json::{FieldNames, any_to_value};

use super::*;
use crate::ads::node::Node;
use crate::ads::stream::snapshot_of;
use crate::model::registry::Registry;
use crate::snapshot::shared::{Shared, Translator};
use crate::snapshot::{Snapshot, consistency};
use crate::source::manifests::Folder;
use crate::translate::resource::Kind;

fn settings() -> MeshSettings {
    MeshSettings {
        cluster_domain: "cluster.local".to_owned(),
        outbound_policy: OutboundPolicy::AllowAny,
        load_balancing: LoadBalancing::LeastRequest,
        access_log_file: None,
        detection_timeout: Duration::from_millis(100),
    }
}

fn shared(manifests: &str, settings: MeshSettings) -> Shared {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("mesh.yaml"), manifests).unwrap();
    let mut folder = Folder::new(temp.path().to_owned());
    let changes = folder.rescan(&HashSet::new()).unwrap();
    assert_eq!(folder.problems().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    let mut registry = Registry::default();
    changes.inserted.into_iter().for_each(|object| registry.insert(object));
    Translator::new(Arc::new(settings)).update(&registry.publish()).shared
}

fn node(id: &str) -> Node {
    let node = weft_xds::pb::envoy::config::core::v3::Node { id: id.to_owned(), ..Default::default() };
    Node::parse(Some(&node)).unwrap()
}

/// The resources of a kind as text.
fn render(snapshot: &Snapshot, kind: Kind) -> String {
    let mut text = String::new();
    for resource in snapshot.view(kind).iter() {
        let value = any_to_value(&resource.any(), FieldNames::Proto).unwrap();
        let yaml = serde_saphyr::to_string(&value).unwrap();
        writeln!(text, "--- # {}\n{yaml}", resource.name).unwrap();
    }
    text
}

const MESH: &str = include_str!("../../tests/fixtures/mesh.yaml");

fn snapshot(settings: MeshSettings) -> Snapshot {
    snapshot_of(&node("sidecar~10.244.0.10~reviews-v1-0.shop~shop.svc.cluster.local"), &shared(MESH, settings))
}

#[test]
fn clusters() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Cluster));
}

#[test]
fn endpoints() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Endpoints));
}

#[test]
fn listeners() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Listener));
}

#[test]
fn routes() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Route));
}

#[test]
fn an_application_without_sidecar() {
    let shared = shared(MESH, settings());
    let snapshot = snapshot_of(&node("an-app"), &shared);
    let listeners = snapshot.view(Kind::Listener);
    assert!(listeners.lookup("reviews.shop.svc.cluster.local:9090").is_some());
    assert!(listeners.lookup("reviews.shop:9090").is_some());
    assert!(listeners.lookup("reviews.shop:6379").is_none(), "no requests are routed there");
    let of_grpc = |kind: Kind| {
        let text = render(&snapshot, kind);
        text.split_inclusive("\n--- ").filter(|part| part.contains("9090")).collect::<String>()
    };
    insta::assert_snapshot!(format!("{}{}", of_grpc(Kind::Listener), of_grpc(Kind::Cluster)));
}

#[test]
fn every_reference_leads_somewhere() {
    assert_eq!(consistency::check(&snapshot(settings())).unwrap(), []);
    assert_eq!(consistency::check(&snapshot_of(&node("an-app"), &shared(MESH, settings()))).unwrap(), []);
}

#[test]
fn everything_obeys_the_rules_of_its_messages() {
    use weft_xds::any::unpack_valid;
    use weft_xds::pb::envoy::config::{cluster, endpoint, listener, route};
    for kind in Kind::ALL {
        for resource in snapshot(settings()).view(kind).iter() {
            let body = &resource.any();
            match kind {
                Kind::Cluster => _ = unpack_valid::<cluster::v3::Cluster>(body).unwrap(),
                Kind::Endpoints => _ = unpack_valid::<endpoint::v3::ClusterLoadAssignment>(body).unwrap(),
                Kind::Listener => _ = unpack_valid::<listener::v3::Listener>(body).unwrap(),
                Kind::Route => _ = unpack_valid::<route::v3::RouteConfiguration>(body).unwrap(),
                Kind::Secret | Kind::ExtensionConfig => panic!("{body:?}"),
            }
        }
    }
}

#[test]
fn settings_change_what_they_say() {
    let strict = MeshSettings {
        outbound_policy: OutboundPolicy::RegistryOnly,
        load_balancing: LoadBalancing::RoundRobin,
        access_log_file: Some("/dev/stdout".to_owned()),
        ..settings()
    };
    let snapshot = snapshot(strict);
    assert!(!render(&snapshot, Kind::Cluster).contains("LEAST_REQUEST"));
    let listeners = render(&snapshot, Kind::Listener);
    assert!(!listeners.contains("cluster: PassthroughCluster"));
    assert!(listeners.contains("path: /dev/stdout"));
}

#[test]
fn a_pod_of_both_families_is_reached_by_both() {
    let shared = shared(MESH, settings());
    let snapshot = snapshot_of(&node("sidecar~10.244.0.11~dual-0.shop~shop.svc.cluster.local"), &shared);
    let outbound =
        any_to_value(&snapshot.view(Kind::Listener).lookup("virtualOutbound").unwrap().any(), FieldNames::Proto);
    let outbound = outbound.unwrap();
    assert_eq!(outbound["address"]["socket_address"]["address"], "0.0.0.0");
    assert_eq!(outbound["additional_addresses"][0]["address"]["socket_address"]["address"], "::");
    let passthrough = snapshot.view(Kind::Cluster).lookup("InboundPassthroughCluster").unwrap().clone();
    let passthrough = any_to_value(&passthrough.any(), FieldNames::Proto).unwrap();
    assert_eq!(passthrough["upstream_bind_config"]["source_address"]["address"], "127.0.0.6");
    assert_eq!(passthrough["upstream_bind_config"]["extra_source_addresses"][0]["address"]["address"], "::6");
}

#[test]
fn of_two_services_at_one_address_the_first_by_name_keeps_it() {
    let service = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: 10.0.0.1, ports: [{{port: 80, name: http}}]}}}}\n---\n"
        )
    };
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("mesh.yaml"), format!("{}{}", service("b"), service("a"))).unwrap();
    let mut registry = Registry::default();
    let changes = Folder::new(temp.path().to_owned()).rescan(&HashSet::new()).unwrap();
    changes.inserted.into_iter().for_each(|object| registry.insert(object));
    let update = Translator::new(Arc::new(settings())).update(&registry.publish());
    assert_eq!(update.refused.len(), 1);
    let snapshot = Snapshot { shared: update.shared.sets, own: Default::default() };
    let listener = snapshot.view(Kind::Listener).lookup("10.0.0.1_80").unwrap().clone();
    assert_eq!(
        consistency::references(&listener).unwrap(),
        [(Kind::Route, "outbound|80||a.default.svc.cluster.local".to_owned())]
    );
}
