use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message};

const BASE: &str = "cluster_name: c";

fn endpoints(yaml: &str) -> LoadAssignment {
    LoadAssignment::<SocketAddr>::from_proto(message(&format!("cluster_name: c\nendpoints: {yaml}"))).unwrap()
}

#[test]
fn priorities_stand_at_their_index() {
    let assignment = endpoints(
        "
- priority: 2
  locality: {region: r, zone: z, sub_zone: s}
  load_balancing_weight: 5
  lb_endpoints:
  - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}, hostname: h}
    load_balancing_weight: 3
    health_status: DEGRADED
- lb_endpoints:
  - endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 80}}}
    health_status: DRAINING",
    );
    assert_eq!(assignment.overprovisioning_factor, 140);
    let [first, gap, last] = &assignment.priorities[..] else { panic!("{assignment:?}") };
    assert!(gap.is_empty());
    assert_eq!((first[0].load_balancing_weight, first[0].endpoints[0].load_balancing_weight), (0, 1));
    assert_eq!(first[0].endpoints[0].health_status, HealthStatus::Unhealthy);
    assert_eq!(last[0].load_balancing_weight, 5);
    assert_eq!(&*last[0].locality.sub_zone, "s");
    let endpoint = &last[0].endpoints[0];
    assert_eq!((endpoint.load_balancing_weight, endpoint.health_status), (3, HealthStatus::Degraded));
    assert_eq!((endpoint.address.to_string(), &*endpoint.hostname), ("10.0.0.1:80".to_owned(), "h"));
}

#[test]
fn the_first_of_equal_addresses_stays_and_equal_localities_become_one() {
    let at = |address: &str| {
        format!("{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 80}}}}}}}}")
    };
    let (a, b) = (at("10.0.0.1"), at("10.0.0.2"));
    let assignment = endpoints(&format!(
        "
- {{lb_endpoints: [{a}, {a}], load_balancing_weight: 2}}
- {{lb_endpoints: [{a}, {b}], load_balancing_weight: 7}}
- {{lb_endpoints: [{a}], priority: 1}}"
    ));
    let [first, second] = &assignment.priorities[..] else { panic!("{assignment:?}") };
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].endpoints.len(), first[0].load_balancing_weight), (2, 7));
    assert_eq!(second[0].endpoints.len(), 1, "another priority may have the same address");
    assert_eq!(assignment.endpoints().count(), 3);
}

#[test]
fn an_endpoint_may_say_more_about_itself() {
    let assignment = endpoints(
        "
- lb_endpoints:
  - metadata: {filter_metadata: {envoy.lb: {v: a}}}
    endpoint:
      address: {socket_address: {address: 10.0.0.1, port_value: 80}}
      additional_addresses: [{address: {socket_address: {address: '::1', port_value: 81}}}]
      health_check_config: {port_value: 90, hostname: hc, disable_active_health_check: true}",
    );
    let endpoint = &assignment.priorities[0][0].endpoints[0];
    assert_eq!(endpoint.metadata.value("envoy.lb", ["v"]).and_then(|value| value.as_text()), Some("a"));
    assert_eq!(*endpoint.additional_addresses, ["[::1]:81".parse().unwrap()]);
    let check = &endpoint.health_check;
    assert_eq!((check.port, &*check.hostname, check.disabled), (Some(90), "hc", true));
}

#[test]
fn names_are_taken_where_they_are_looked_up() {
    let yaml = "cluster_name: c\nendpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.test, port_value: 80}}}}]}]";
    let assignment = LoadAssignment::<DnsTarget>::from_proto(message(yaml)).unwrap();
    assert_eq!(assignment.endpoints().next().unwrap().address, DnsTarget { host: "a.test".into(), port: 80 });
}

#[test]
fn nothing_is_an_assignment_too() {
    assert_eq!(LoadAssignment::<SocketAddr>::from_proto(message(BASE)).unwrap(), LoadAssignment::default());
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(BASE, LoadAssignment::<SocketAddr>::from_proto, &["named_endpoints: {q: {}}"]);
    assert_refused(
        BASE,
        LoadAssignment::<SocketAddr>::from_proto,
        &[
            ("policy: {drop_overloads: [{category: x}]}", "policy.drop_overloads: not supported"),
            ("policy: {endpoint_stale_after: 5s}", "policy.endpoint_stale_after: not supported"),
            ("endpoints: [{}, {proximity: 1}]", "endpoints[1].proximity: not supported"),
            ("endpoints: [{load_balancer_endpoints: {}}]", "endpoints[0].load_balancer_endpoints: not supported"),
            (
                "endpoints: [{leds_cluster_locality_config: {leds_collection_name: x}}]",
                "endpoints[0].leds_cluster_locality_config: not supported",
            ),
            (
                "endpoints: [{lb_endpoints: [{endpoint_name: q}]}]",
                "endpoints[0].lb_endpoints[0].endpoint_name: not supported",
            ),
            ("endpoints: [{lb_endpoints: [{}]}]", "endpoints[0].lb_endpoints[0].endpoint: value is required"),
            (
                "endpoints: [{lb_endpoints: [{endpoint: {}}]}]",
                "endpoints[0].lb_endpoints[0].endpoint.address: value is required",
            ),
            (
                "endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: foo, port_value: 1}}}}]}]",
                "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: foo",
            ),
            ("endpoints: [{priority: 129}]", "endpoints[0].priority: value must be at most 128"),
        ],
    );
}

#[test]
fn sums_of_weights_stay_within_32_bits() {
    let endpoint = |port: u16| {
        format!(
            "{{load_balancing_weight: 4000000000, endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: {port}}}}}}}}}"
        )
    };
    let (one, two) = (endpoint(1), endpoint(2));
    let sum = "sum of weights must not exceed 4294967295";
    assert_refused(
        BASE,
        LoadAssignment::<SocketAddr>::from_proto,
        &[
            (&format!("endpoints: [{{lb_endpoints: [{one}, {two}]}}]"), &format!("endpoints[0].lb_endpoints: {sum}")),
            (
                "endpoints: [{load_balancing_weight: 4000000000}, {locality: {zone: b}, load_balancing_weight: 4000000000}]",
                &format!("endpoints[1].load_balancing_weight: {sum}"),
            ),
        ],
    );
}
