use super::*;
use crate::model::endpoint::SlicePort;
use crate::model::protocol::Protocol;
use crate::model::service::{Addressing, Age, TargetPort};
use crate::model::topology::Locality;

fn service(name: &str, ports: &[(&str, u16, u16)]) -> Service {
    let port = |(name, number, target): &(&str, u16, u16)| ServicePort {
        number: *number,
        name: name.to_string(),
        protocol: Protocol::Http1,
        target: TargetPort::Number(*target),
    };
    let addressing = Addressing::Virtual(vec!["10.96.0.1".parse().unwrap()]);
    Service {
        selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ..Service::new(ObjectName::new("shop", name), addressing, ports.iter().map(port).collect())
    }
}

fn endpoint(address: &str, condition: Condition) -> SliceEndpoint {
    SliceEndpoint {
        address: address.parse().unwrap(),
        condition,
        zone: None,
        node: None,
        workload: None,
        hostname: None,
        hints: Hints::default(),
    }
}

fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: Vec<SliceEndpoint>) -> Object {
    Object::EndpointSlice(Arc::new(EndpointSlice {
        name: ObjectName::new("shop", name),
        service: ObjectName::new("shop", service),
        ports: ports.iter().map(|(name, number)| SlicePort { name: name.to_string(), number: *number }).collect(),
        endpoints,
    }))
}

fn workload(name: &str, address: &str, labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Workload {
    Workload {
        name: ObjectName::new("shop", name),
        addresses: vec![address.parse().unwrap()],
        labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        deployed_by: name.to_owned(),
        ports: ports.iter().map(|(name, number)| (name.to_string(), *number)).collect(),
        service_account: "default".to_owned(),
        node: Some("node-a".to_owned()),
        condition: Condition::Ready,
        hostname: None,
    }
}

fn addresses(mesh: &Mesh, service: &str, port: u16) -> Vec<String> {
    let entry = &mesh.services[&ObjectName::new("shop", service)];
    entry.endpoints[&port].iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn slices_of_a_service_are_joined_by_port_name_without_duplicates() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("reviews", &[("http", 80, 9080), ("admin", 81, 9090)]))));
    registry.insert(slice("a", "reviews", &[("http", 9080)], vec![endpoint("10.0.0.2", Condition::Ready)]));
    registry.insert(slice(
        "b",
        "reviews",
        &[("http", 9080), ("admin", 9090)],
        vec![endpoint("10.0.0.2", Condition::Ready), endpoint("10.0.0.1", Condition::Ready)],
    ));
    let mesh = registry.publish();
    assert_eq!(addresses(&mesh, "reviews", 80), ["10.0.0.1:9080", "10.0.0.2:9080"]);
    assert_eq!(addresses(&mesh, "reviews", 81), ["10.0.0.1:9090", "10.0.0.2:9090"]);
}

#[test]
fn terminating_endpoints_serve_only_while_none_is_ready() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("reviews", &[("", 80, 9080)]))));
    let leaving = endpoint("10.0.0.1", Condition::Terminating);
    let unready = endpoint("10.0.0.3", Condition::NotReady);
    registry.insert(slice("a", "reviews", &[("", 9080)], vec![leaving.clone(), unready.clone()]));
    assert_eq!(addresses(&registry.publish(), "reviews", 80), ["10.0.0.1:9080"]);
    let ready = endpoint("10.0.0.2", Condition::Ready);
    registry.insert(slice("a", "reviews", &[("", 9080)], vec![leaving, ready, unready]));
    assert_eq!(addresses(&registry.publish(), "reviews", 80), ["10.0.0.2:9080"]);
}

#[test]
fn a_service_may_publish_what_is_not_ready() {
    let mut registry = Registry::default();
    let publishing = Service { publish_not_ready: true, ..service("reviews", &[("", 80, 9080)]) };
    registry.insert(Object::Service(Arc::new(publishing)));
    registry.insert(slice("a", "reviews", &[("", 9080)], vec![endpoint("10.0.0.3", Condition::NotReady)]));
    assert_eq!(addresses(&registry.publish(), "reviews", 80), ["10.0.0.3:9080"]);
}

#[test]
fn only_what_a_change_touches_gets_a_new_entry() {
    let mut registry = Registry::default();
    for name in ["a", "b"] {
        registry.insert(Object::Service(Arc::new(service(name, &[("", 80, 9080)]))));
        registry.insert(slice(name, name, &[("", 9080)], vec![endpoint("10.0.0.1", Condition::Ready)]));
    }
    let before = registry.publish();
    registry.insert(slice("a", "a", &[("", 9080)], vec![endpoint("10.0.0.9", Condition::Ready)]));
    registry.insert(slice("b", "b", &[("", 9080)], vec![endpoint("10.0.0.1", Condition::Ready)]));
    let after = registry.publish();
    let same = |name: &str| {
        let name = ObjectName::new("shop", name);
        Arc::ptr_eq(&before.services[&name], &after.services[&name])
    };
    assert!(!same("a"));
    assert!(same("b"), "an equal slice leaves the entry alone");
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_the_first() {
    let mut registry = Registry::default();
    for name in ["a", "b"] {
        registry.insert(Object::Service(Arc::new(service(name, &[("", 80, 9080)]))));
    }
    registry.insert(slice("s", "a", &[("", 9080)], vec![endpoint("10.0.0.1", Condition::Ready)]));
    registry.publish();
    registry.insert(slice("s", "b", &[("", 9080)], vec![endpoint("10.0.0.1", Condition::Ready)]));
    let mesh = registry.publish();
    assert!(addresses(&mesh, "a", 80).is_empty());
    assert_eq!(addresses(&mesh, "b", 80), ["10.0.0.1:9080"]);
    assert_eq!(mesh.services_by_address[&"10.0.0.1".parse::<IpAddr>().unwrap()], [ObjectName::new("shop", "b")]);
}

#[test]
fn localities_come_from_the_node_and_follow_it() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("reviews", &[("", 80, 9080)]))));
    let at_node = SliceEndpoint {
        zone: Some("zone-of-slice".to_owned()),
        workload: Some(ObjectName::new("shop", "pod")),
        ..endpoint("10.0.0.1", Condition::Ready)
    };
    registry.insert(slice("s", "reviews", &[("", 9080)], vec![at_node]));
    let locality = |mesh: &Mesh| {
        let endpoint = &mesh.services[&ObjectName::new("shop", "reviews")].endpoints[&80][0];
        (endpoint.locality.region.clone(), endpoint.locality.zone.clone())
    };
    assert_eq!(locality(&registry.publish()), (String::new(), "zone-of-slice".to_owned()));
    registry.insert(Object::Workload(Arc::new(workload("pod", "10.0.0.1", &[], &[]))));
    let stands_in = Locality { region: "r1".to_owned(), zone: "r1-a".to_owned() };
    registry.insert(Object::Node(Arc::new(Node { name: "node-a".to_owned(), locality: stands_in })));
    assert_eq!(locality(&registry.publish()), ("r1".to_owned(), "r1-a".to_owned()));
    registry.remove(&ObjectKey::Node("node-a".to_owned()));
    assert_eq!(locality(&registry.publish()), (String::new(), "zone-of-slice".to_owned()));
}

#[test]
fn inbound_ports_come_from_slices_and_from_selectors() {
    let mut registry = Registry::default();
    let named = Service {
        ports: vec![ServicePort {
            number: 80,
            name: "http".to_owned(),
            protocol: Protocol::Http1,
            target: TargetPort::Name("web".to_owned()),
        }],
        ..service("web", &[])
    };
    registry.insert(Object::Service(Arc::new(named)));
    registry.insert(Object::Service(Arc::new(service("by-hand", &[("", 90, 1)]))));
    registry.insert(slice("s", "by-hand", &[("", 9090)], vec![endpoint("10.0.0.1", Condition::NotReady)]));
    registry.insert(Object::Workload(Arc::new(workload("pod", "10.0.0.1", &[("app", "web")], &[("web", 8080)]))));
    let mesh = registry.publish();
    let name = ObjectName::new("shop", "pod");
    let addresses = ["10.0.0.1".parse().unwrap()];
    let labels = BTreeMap::new();
    let instance = crate::model::mesh::Instance { name: &name, addresses: &addresses, labels: &labels };
    let (ports, conflicts) = mesh.inbound_ports(&instance);
    let numbers = ports.iter().map(|port| (port.number, port.service.name.as_str())).collect::<Vec<_>>();
    assert_eq!(numbers, [(8080, "web"), (9090, "by-hand")]);
    assert!(conflicts.is_empty());
}

/// The protocol that an instance's port 8080 is given by two Services, and who is refused.
fn protocol_of_both(first: Service, second: Service) -> (Protocol, Vec<ObjectName>) {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(first)));
    registry.insert(Object::Service(Arc::new(second)));
    let mesh = registry.publish();
    let name = ObjectName::new("shop", "pod");
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let instance = crate::model::mesh::Instance { name: &name, addresses: &[], labels: &labels };
    let (ports, conflicts) = mesh.inbound_ports(&instance);
    assert_eq!(ports.len(), 1);
    (ports[0].protocol, conflicts.into_iter().map(|conflict| conflict.refused).collect())
}

fn sending(name: &str, protocol: Protocol, created: i64) -> Service {
    let mut service = service(name, &[("", 80, 8080)]);
    service.ports[0].protocol = protocol;
    service.selector = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    Service { created: Age(created), ..service }
}

#[test]
fn of_two_protocols_on_one_target_port_the_older_services_counts() {
    let of = |a: (Protocol, i64), b: (Protocol, i64)| protocol_of_both(sending("a", a.0, a.1), sending("b", b.0, b.1));
    let refused = |name: &str| vec![ObjectName::new("shop", name)];
    assert_eq!(of((Protocol::Http1, 1), (Protocol::Tcp, 2)), (Protocol::Http1, refused("b")));
    assert_eq!(of((Protocol::Http1, 2), (Protocol::Tcp, 1)), (Protocol::Tcp, refused("a")));
    assert_eq!(of((Protocol::Http1, 1), (Protocol::Tcp, 1)), (Protocol::Http1, refused("b")), "by name then");
    assert_eq!(of((Protocol::Grpc, 2), (Protocol::Http2, 1)), (Protocol::Http2, vec![]), "the same thing");
    assert_eq!(of((Protocol::Detect, 1), (Protocol::Http2, 2)), (Protocol::Http2, vec![]), "a declaration beats none");
    assert_eq!(of((Protocol::Tcp, 1), (Protocol::Detect, 2)), (Protocol::Tcp, vec![]));
}

#[test]
fn without_slices_the_workloads_that_are_selected_are_the_endpoints() {
    let mut registry = Registry::default();
    let named = Service {
        ports: vec![ServicePort {
            number: 80,
            name: "http".to_owned(),
            protocol: Protocol::Http1,
            target: TargetPort::Name("web".to_owned()),
        }],
        ..service("web", &[])
    };
    registry.insert(Object::Service(Arc::new(named)));
    registry.insert(Object::Workload(Arc::new(workload("a", "10.0.0.1", &[("app", "web")], &[("web", 8080)]))));
    registry.insert(Object::Workload(Arc::new(workload("b", "10.0.0.2", &[("app", "web")], &[("web", 9090)]))));
    registry.insert(Object::Workload(Arc::new(workload("c", "10.0.0.3", &[("app", "other")], &[("web", 1)]))));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["10.0.0.1:8080", "10.0.0.2:9090"]);

    let unready =
        Workload { condition: Condition::NotReady, ..workload("a", "10.0.0.1", &[("app", "web")], &[("web", 8080)]) };
    registry.insert(Object::Workload(Arc::new(unready)));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["10.0.0.2:9090"]);
    // A label that is changed away, and one that comes.
    registry.insert(Object::Workload(Arc::new(workload("b", "10.0.0.2", &[("app", "x")], &[("web", 9090)]))));
    registry.insert(Object::Workload(Arc::new(workload("c", "10.0.0.3", &[("app", "web")], &[("web", 1)]))));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["10.0.0.3:1"]);
    registry.insert(Object::Node(Arc::new(Node {
        name: "node-a".to_owned(),
        locality: Locality { region: String::new(), zone: "z".to_owned() },
    })));
    let mesh = registry.publish();
    assert_eq!(mesh.services[&ObjectName::new("shop", "web")].endpoints[&80][0].locality.zone, "z");

    registry.insert(slice("s", "web", &[("http", 7)], vec![endpoint("10.0.0.9", Condition::Ready)]));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["10.0.0.9:7"], "slices say all that there is");
    registry.remove(&ObjectKey::EndpointSlice(ObjectName::new("shop", "s")));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["10.0.0.3:1"]);
    registry.remove(&ObjectKey::Workload(ObjectName::new("shop", "c")));
    assert_eq!(addresses(&registry.publish(), "web", 80), [""; 0]);
}

#[test]
fn only_addresses_of_the_services_families_are_endpoints() {
    let mut registry = Registry::default();
    let families = crate::model::service::Families { ipv4: false, ipv6: true };
    registry.insert(Object::Service(Arc::new(Service { families, ..service("web", &[("", 80, 8080)]) })));
    let addresses_of_pod = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let pod = Workload { addresses: addresses_of_pod, ..workload("a", "10.0.0.1", &[("app", "web")], &[]) };
    registry.insert(Object::Workload(Arc::new(pod)));
    assert_eq!(addresses(&registry.publish(), "web", 80), ["[fd00::1]:8080"]);
}

#[test]
fn a_namespace_speaks_for_services_that_do_not() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("silent", &[("", 80, 8080)]))));
    let speaking = Service { distribution: Some(Distribution::SameNode), ..service("speaking", &[("", 80, 8080)]) };
    registry.insert(Object::Service(Arc::new(speaking)));
    let distributions =
        |mesh: &Mesh| ["silent", "speaking"].map(|name| mesh.services[&ObjectName::new("shop", name)].distribution);
    assert_eq!(distributions(&registry.publish()), [Distribution::Anywhere, Distribution::SameNode]);
    let namespace = Namespace { name: "shop".to_owned(), distribution: Some(Distribution::SameZone) };
    registry.insert(Object::Namespace(Arc::new(namespace)));
    assert_eq!(distributions(&registry.publish()), [Distribution::SameZone, Distribution::SameNode]);
    registry.remove(&ObjectKey::Namespace("shop".to_owned()));
    assert_eq!(distributions(&registry.publish()), [Distribution::Anywhere, Distribution::SameNode]);
}

#[test]
fn a_removed_service_leaves_nothing_behind() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("a", &[("", 80, 8080)]))));
    registry.insert(slice("s", "a", &[("", 8080)], vec![endpoint("10.0.0.1", Condition::Ready)]));
    registry.publish();
    registry.remove(&ObjectKey::Service(ObjectName::new("shop", "a")));
    let mesh = registry.publish();
    assert!(mesh.services.is_empty());
    assert!(mesh.services_by_address.is_empty());
}
