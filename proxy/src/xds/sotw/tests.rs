use std::sync::Arc;

use super::*;

fn stream(set_node_on_first_message_only: bool) -> SotwStream {
    SotwStream::new(Node { id: "node".into(), ..Default::default() }, set_node_on_first_message_only)
}

fn names(names: &[&str]) -> Interest {
    Interest::Names(names.iter().map(|name| Arc::from(*name)).collect())
}

fn answer(version: &str, nonce: &str) -> AnswerId {
    AnswerId { version: version.into(), nonce: nonce.into(), ..Default::default() }
}

#[test]
fn nothing_goes_without_a_stream() {
    let now = Instant::now();
    let mut stream = stream(true);
    stream.subscription_mut(ResourceKind::Cluster).set_interest(Interest::Wildcard);
    assert_eq!(stream.due_at(now), None);
    assert_eq!(stream.next_request(now), None);
    stream.opened();
    assert_eq!(stream.due_at(now), Some(now));
    stream.closed();
    assert_eq!(stream.next_request(now), None);
}

#[test]
fn sends_in_the_order_of_the_kinds() {
    let now = Instant::now();
    let mut stream = stream(true);
    stream.opened();
    stream.subscription_mut(ResourceKind::Routes).set_interest(names(&["r"]));
    stream.subscription_mut(ResourceKind::Listener).set_interest(Interest::Wildcard);
    stream.subscription_mut(ResourceKind::Endpoints).set_interest(names(&["e"]));
    stream.subscription_mut(ResourceKind::Cluster).set_interest(Interest::Wildcard);
    let sent: Vec<(String, Vec<String>)> = std::iter::from_fn(|| stream.next_request(now))
        .map(|request| (request.type_url, request.resource_names))
        .collect();
    let expected: Vec<(String, Vec<String>)> = [
        (ResourceKind::Cluster, vec![]),
        (ResourceKind::Endpoints, vec!["e".to_owned()]),
        (ResourceKind::Listener, vec![]),
        (ResourceKind::Routes, vec!["r".to_owned()]),
    ]
    .map(|(kind, names)| (kind.type_url().to_owned(), names))
    .to_vec();
    assert_eq!(sent, expected);
}

#[test]
fn the_node_goes_with_the_first_request_of_each_stream() {
    let now = Instant::now();
    let mut stream = stream(true);
    for _ in 0..2 {
        stream.opened();
        stream.subscription_mut(ResourceKind::Cluster).set_interest(Interest::Wildcard);
        stream.subscription_mut(ResourceKind::Listener).set_interest(Interest::Wildcard);
        let first = stream.next_request(now).expect("clusters");
        assert_eq!(first.node.expect("the node").id, "node");
        assert_eq!(stream.next_request(now).expect("listeners").node, None);
        stream.closed();
    }
}

#[test]
fn the_node_goes_with_every_request_where_asked_for() {
    let now = Instant::now();
    let mut stream = stream(false);
    stream.opened();
    stream.subscription_mut(ResourceKind::Cluster).set_interest(Interest::Wildcard);
    assert!(stream.next_request(now).expect("a request").node.is_some());
    stream.answered(ResourceKind::Cluster, &answer("v", "n"), Verdict::Accepted, now);
    assert!(stream.next_request(now).expect("an acknowledgement").node.is_some());
}

#[test]
fn kinds_are_acknowledged_independently() {
    let now = Instant::now();
    let mut stream = stream(true);
    stream.opened();
    stream.subscription_mut(ResourceKind::Cluster).set_interest(Interest::Wildcard);
    stream.subscription_mut(ResourceKind::Listener).set_interest(Interest::Wildcard);
    while stream.next_request(now).is_some() {}

    let (clusters, listeners) = (ResourceKind::Cluster, ResourceKind::Listener);
    stream.answered(clusters, &answer("c1", "cn1"), Verdict::Accepted, now);
    stream.subscription_mut(clusters).hold();
    stream.answered(listeners, &answer("l1", "ln1"), Verdict::Refused("bad".into()), now);
    let refusal = stream.next_request(now).expect("the refusal is not held");
    assert_eq!(refusal.type_url, listeners.type_url());
    assert_eq!((refusal.version_info.as_str(), refusal.response_nonce.as_str()), ("", "ln1"));
    let detail = refusal.error_detail.expect("an error");
    assert_eq!((detail.code, detail.message.as_str()), (13, "bad"));
    assert_eq!(stream.next_request(now), None);

    stream.subscription_mut(clusters).release();
    let acknowledgement = stream.next_request(now).expect("the acknowledgement");
    assert_eq!((acknowledgement.version_info.as_str(), acknowledgement.response_nonce.as_str()), ("c1", "cn1"));
    assert_eq!(acknowledgement.error_detail, None);
}
