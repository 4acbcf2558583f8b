use super::*;
use crate::model::endpoint::SlicePort;
use crate::model::protocol::Protocol;
use crate::model::service::{Addressing, TargetPort};
use crate::model::workload::Locality;

fn service(name: &str, ports: &[(&str, u16, u16)]) -> Service {
    Service {
        name: ObjectName::new("shop", name),
        addressing: Addressing::Virtual(vec!["10.96.0.1".parse().unwrap()]),
        ports: ports
            .iter()
            .map(|(name, number, target)| ServicePort {
                number: *number,
                name: name.to_string(),
                protocol: Protocol::Http1,
                target: TargetPort::Number(*target),
            })
            .collect(),
        selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        publish_not_ready: false,
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

#[test]
fn two_protocols_on_one_target_port_are_a_conflict_and_the_first_by_name_wins() {
    let mut registry = Registry::default();
    registry.insert(Object::Service(Arc::new(service("a", &[("", 80, 8080)]))));
    let mut other = service("b", &[("", 81, 8080)]);
    other.ports[0].protocol = Protocol::Tcp;
    other.selector = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    registry.insert(Object::Service(Arc::new(other)));
    let mesh = registry.publish();
    let name = ObjectName::new("shop", "pod");
    let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
    let instance = crate::model::mesh::Instance { name: &name, addresses: &[], labels: &labels };
    let (ports, conflicts) = mesh.inbound_ports(&instance);
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].protocol, Protocol::Http1);
    assert_eq!(conflicts[0].refused, ObjectName::new("shop", "b"));
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
