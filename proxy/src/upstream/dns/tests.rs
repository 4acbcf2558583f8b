use super::*;
use crate::config::{
    cluster::{ClusterConfig, Discovery},
    testing::message,
};

fn discovery(fields: &str) -> Arc<DnsDiscovery> {
    let endpoint =
        |host: &str| format!("{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: 80}}}}}}}}");
    let hosts = if fields.contains("LOGICAL") {
        endpoint("a.test")
    } else {
        [endpoint("a.test"), endpoint("b.test")].join(", ")
    };
    let yaml =
        format!("name: c\n{fields}\nload_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{hosts}]}}]}}");
    match ClusterConfig::from_proto(message(&yaml)).unwrap().discovery {
        Discovery::Dns(discovery) => discovery,
        other => panic!("{other:?}"),
    }
}

fn answers(of_a: &[&str], of_b: &[&str]) -> HashMap<DnsTarget, Vec<IpAddr>> {
    let target = |host: &str| DnsTarget { host: host.into(), port: 80 };
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    HashMap::from([(target("a.test"), addresses(of_a)), (target("b.test"), addresses(of_b))])
}

#[test]
fn each_address_is_a_host() {
    let assignment = discovery("type: STRICT_DNS").resolved(&answers(&["10.0.0.1", "10.0.0.2"], &["::1"]));
    let found: Vec<_> =
        assignment.endpoints().map(|endpoint| format!("{} {}", endpoint.address, endpoint.hostname)).collect();
    assert_eq!(found, ["10.0.0.1:80 a.test", "10.0.0.2:80 a.test", "[::1]:80 b.test"]);
    assert_eq!(discovery("type: STRICT_DNS").resolved(&HashMap::new()).endpoints().count(), 0);
}

#[test]
fn a_logical_host_has_all_addresses() {
    let assignment = discovery("type: LOGICAL_DNS").resolved(&answers(&["10.0.0.1", "10.0.0.2"], &[]));
    let [endpoint] = assignment.endpoints().collect::<Vec<_>>()[..] else { panic!("{assignment:?}") };
    assert_eq!(endpoint.address.to_string(), "10.0.0.1:80");
    assert_eq!(*endpoint.additional_addresses, ["10.0.0.2:80".parse().expect("an address")]);
}
