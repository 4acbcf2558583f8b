use std::time::UNIX_EPOCH;

use weft_xds::json;

use super::*;

const STATIC: &str = "type: STATIC, load_assignment: {cluster_name: x}";

fn resource(text: &str) -> Any {
    any::pack(&json::from_yaml::<ClusterMessage>(text).expect("a cluster"))
}

fn answer(version_info: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse { version_info: version_info.into(), resources, ..Default::default() }
}

fn decode_clusters(resources: Vec<Any>) -> Result<Answer<ClusterConfig>, AnswerError> {
    let known = Known::new(std::iter::empty());
    decode::<ClusterConfig>(&mut answer("v1", resources), &known, UNIX_EPOCH)
}

fn names(answer: &Answer<ClusterConfig>) -> Vec<&str> {
    answer.resources.iter().map(|received| &*received.name).collect()
}

#[test]
fn takes_resources_with_where_they_came_from() {
    let decoded = decode_clusters(vec![resource(&format!("{{name: a, {STATIC}}}"))]).expect("an answer");
    assert_eq!(names(&decoded), ["a"]);
    assert_eq!(decoded.resources[0].origin.version_info, "v1");
    assert_eq!(decoded.resources[0].origin.message.type_url, ResourceKind::Cluster.type_url());
    assert!(decoded.refused.is_empty());
    assert!(refusal_message(ResourceKind::Cluster, &decoded.refused).is_none());
}

#[test]
fn takes_resources_out_of_their_wrapper() {
    let wrapper = |ttl| {
        any::pack(&ResourceMessage {
            name: "a".into(),
            version: "7".into(),
            resource: Some(resource(&format!("{{name: a, {STATIC}}}"))),
            ttl,
            ..Default::default()
        })
    };
    assert_eq!(names(&decode_clusters(vec![wrapper(None)]).expect("an answer")), ["a"]);
    let error = decode_clusters(vec![wrapper(Some(Default::default()))]).expect_err("no time to live").to_string();
    assert_eq!(error, "Error adding/updating cluster(s) resources[0]: ttl: not supported");
    let empty = any::pack(&ResourceMessage::default());
    let error = decode_clusters(vec![empty]).expect_err("nothing in it").to_string();
    assert_eq!(error, "Error adding/updating cluster(s) resources[0]: resource: value is required");
}

#[test]
fn what_breaks_a_rule_refuses_the_whole_answer() {
    let good = resource(&format!("{{name: a, {STATIC}}}"));
    let error = decode_clusters(vec![good.clone(), resource("{name: b, connect_timeout: -1s}")]).expect_err("a rule");
    assert_eq!(error.resource, "b");
    assert!(error.reason.starts_with("connect_timeout: "), "{error}");
    let error = decode_clusters(vec![good, resource(&format!("{{{STATIC}}}"))]).expect_err("a rule").to_string();
    assert!(error.starts_with("Error adding/updating cluster(s) resources[1]: name: "), "{error}");
}

#[test]
fn what_does_not_decode_refuses_the_whole_answer() {
    let type_url = ResourceKind::Cluster.type_url().to_owned();
    let error = decode_clusters(vec![Any { type_url, value: vec![0xff] }]).expect_err("no cluster");
    assert_eq!(error.resource, "resources[0]");
    let error =
        decode_clusters(vec![Any { type_url: "x/y".into(), value: vec![] }]).expect_err("no cluster").to_string();
    assert!(error.contains("type x/y does not match"), "{error}");
}

#[test]
fn one_name_twice_refuses_the_whole_answer() {
    let twice = [format!("{{name: a, {STATIC}}}"), format!("{{name: a, connect_timeout: 1s, {STATIC}}}")];
    let error = decode_clusters(twice.iter().map(|text| resource(text)).collect()).expect_err("twice").to_string();
    assert_eq!(error, "Error adding/updating cluster(s) a: duplicate cluster a found");
}

#[test]
fn what_is_not_supported_refuses_itself_only() {
    let decoded = decode_clusters(vec![
        resource("{name: a, track_timeout_budgets: true}"),
        resource(&format!("{{name: b, {STATIC}}}")),
    ])
    .expect("an answer");
    assert_eq!(names(&decoded), ["b"]);
    assert_eq!(&*decoded.refused[0].name, "a");
    let message = refusal_message(ResourceKind::Cluster, &decoded.refused).expect("a message");
    assert!(message.starts_with("Error adding/updating cluster(s) a: track_timeout_budgets: "), "{message}");
}

#[test]
fn what_is_there_already_is_not_read_again() {
    let first = decode_clusters(vec![resource(&format!("{{name: a, {STATIC}}}"))]).expect("an answer").resources;
    let known = Known::new(first.iter());
    let mut second = answer("v2", vec![first[0].origin.message.clone(), resource(&format!("{{name: b, {STATIC}}}"))]);
    let decoded = decode::<ClusterConfig>(&mut second, &known, UNIX_EPOCH).expect("an answer");
    assert_eq!(names(&decoded), ["a", "b"]);
    assert!(Arc::ptr_eq(&decoded.resources[0].config, &first[0].config));
    assert_eq!(decoded.resources[0].origin.version_info, "v1", "it came with an earlier answer");
    assert_eq!(decoded.resources[1].origin.version_info, "v2");
}
