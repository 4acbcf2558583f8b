//! The recorded answers of a real API server, as the model has them.

use std::path::Path;

use crate::model::mesh::Mesh;
use crate::model::protocol::Protocol;
use crate::model::registry::Registry;
use crate::model::service::{Addressing, Affinity, Age, InternalTraffic, TargetPort};
use crate::model::topology::Distribution;
use crate::model::{ObjectName, mesh::ServiceEntry};
use crate::source::manifests::Folder;

fn recorded() -> std::sync::Arc<Mesh> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubernetes");
    let mut folder = Folder::new(fixtures);
    let changes = folder.rescan(&std::collections::HashSet::new()).unwrap();
    assert_eq!(folder.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [""; 0]);
    let mut registry = Registry::default();
    changes.inserted.into_iter().for_each(|object| registry.insert(object));
    registry.publish()
}

fn entry<'a>(mesh: &'a Mesh, name: &str) -> &'a ServiceEntry {
    &mesh.services[&ObjectName::new("shop", name)]
}

fn addresses(entry: &ServiceEntry, port: u16) -> Vec<String> {
    entry.endpoints[&port].iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn services_have_their_protocols_and_targets() {
    let mesh = recorded();
    let reviews = &entry(&mesh, "reviews").service;
    let protocols = reviews.ports.iter().map(|port| (port.number, port.protocol)).collect::<Vec<_>>();
    assert_eq!(protocols, [(9080, Protocol::Http1), (9090, Protocol::Http2)]);
    let web = &entry(&mesh, "web").service;
    assert!(matches!(&web.ports[0].target, TargetPort::Name(_)));
    assert_eq!(entry(&mesh, "mysql").service.ports[0].protocol, Protocol::Tcp);
    let sticky = &entry(&mesh, "sticky").service;
    assert!(sticky.ports.iter().all(|port| port.protocol != Protocol::Tcp || port.number != 53));
}

#[test]
fn headless_and_external_services_are_told_apart() {
    let mesh = recorded();
    let headless = &entry(&mesh, "reviews-headless").service;
    assert_eq!(headless.addressing, Addressing::Headless);
    assert!(headless.publish_not_ready);
    let payments = &entry(&mesh, "payments").service;
    assert_eq!(payments.addressing, Addressing::External("payments.example.com".to_owned()));
}

#[test]
fn a_service_says_where_its_traffic_goes() {
    let mesh = recorded();
    let sticky = &entry(&mesh, "sticky").service;
    assert_eq!(sticky.affinity, Affinity::ClientAddress);
    assert_eq!(sticky.internal_traffic, InternalTraffic::Local);
    assert_eq!(sticky.distribution, Some(Distribution::SameZone));
    assert!(sticky.created < Age::default());
    let web = &entry(&mesh, "web").service;
    assert_eq!((web.affinity, web.distribution), (Affinity::None, None));
}

#[test]
fn endpoints_have_localities_and_workloads() {
    let mesh = recorded();
    let reviews = entry(&mesh, "reviews");
    assert_eq!(addresses(reviews, 9080), ["10.244.0.10:9080", "10.244.0.12:9080", "10.244.1.11:9080"]);
    let last = &reviews.endpoints[&9080][2];
    assert_eq!(last.locality.zone, "r1-b");
    let workload = last.workload.as_ref().unwrap();
    assert_eq!(workload.deployed_by, "reviews-v1");
    assert_eq!((workload.app(), workload.version()), ("reviews", "v1"));
}

#[test]
fn a_service_without_selector_has_the_endpoints_that_were_written_by_hand() {
    let mesh = recorded();
    assert_eq!(addresses(entry(&mesh, "mysql"), 3306), ["192.0.2.10:3306"]);
}
