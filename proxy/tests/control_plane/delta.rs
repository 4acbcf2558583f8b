//! The delta variant: what is asked for, acknowledged and named again on the next stream.

use std::{net::SocketAddr, time::Duration};

use tonic::Status;
use weft_xds::type_url::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

use crate::{
    ads_server::{AdsServer, DeltaStream},
    answered_by, by_rds,
    churn::Load,
    cluster, endpoints, listener,
    proxy::{Proxy, eventually, free_address, origin},
    routes,
};

/// As `crate::Serving`, every version and nonce being 1.
struct Serving {
    server: AdsServer,
    stream: DeltaStream,
    proxy: Proxy,
    listening: SocketAddr,
}

async fn serving(application: SocketAddr) -> Serving {
    let mut server = AdsServer::start().await;
    let proxy = Proxy::start_with_delta(server.address).await;
    let listening = free_address().await;
    let mut stream = server.delta_stream().await;
    assert!(stream.method.ends_with("/DeltaAggregatedResources"), "{}", stream.method);
    let first = stream.request_for(CLUSTER).await;
    assert_eq!(first.node.expect("the node comes first").id, "test-node");
    assert!(first.resource_names_subscribe.is_empty(), "no names are all of them");
    stream.answer(CLUSTER, "1", &[("a", "1", cluster("a", "1s"))], &[]);
    let asked = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!((asked.resource_names_subscribe.as_slice(), asked.node), (&["a".to_owned()][..], None));
    stream.silent().await;
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "1", &[("a", "1", endpoints("a", application))], &[]);
    stream.acknowledged(CLUSTER, "1").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "1").await;
    stream.request_for(LISTENER).await;
    stream.answer(LISTENER, "1", &[("l", "1", listener("l", listening, &by_rds("r")))], &[]);
    stream.acknowledged(LISTENER, "1").await;
    assert_eq!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names_subscribe, ["r"]);
    stream.answer(ROUTE_CONFIGURATION, "1", &[("r", "1", routes("r", "a"))], &[]);
    stream.acknowledged(ROUTE_CONFIGURATION, "1").await;
    proxy.becomes_ready().await;
    Serving { server, stream, proxy, listening }
}

#[tokio::test]
async fn a_delta_changes_only_what_it_names() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    assert_eq!(answered_by(listening).await, "a");
    stream.answer(CLUSTER, "2", &[("b", "1", cluster("b", "1s"))], &[]);
    let asked = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(asked.resource_names_subscribe, ["b"]);
    assert!(asked.resource_names_unsubscribe.is_empty() && asked.initial_resource_versions.is_empty());
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", &[("b", "1", endpoints("b", origin("b").await))], &[]);
    stream.acknowledged(CLUSTER, "2").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2").await;
    assert_eq!(answered_by(listening).await, "a", "a is there still");
    stream.answer(ROUTE_CONFIGURATION, "2", &[("r", "2", routes("r", "b"))], &[]);
    stream.acknowledged(ROUTE_CONFIGURATION, "2").await;
    assert_eq!(answered_by(listening).await, "b");
    stream.answer(CLUSTER, "3", &[], &["a"]);
    assert_eq!(stream.request_for(CLUSTER).await.response_nonce, "3");
    assert_eq!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names_unsubscribe, ["a"]);
    eventually("the cluster is gone", async || {
        proxy.admin("/clusters").await.is_some_and(|answer| !answer.body.lines().any(|line| line.starts_with("a::")))
    })
    .await;
    stream.answer(LISTENER, "2", &[], &["l"]);
    stream.acknowledged(LISTENER, "2").await;
    eventually("the listener is gone", async || answered_by(listening).await == "refused").await;
}

#[tokio::test]
async fn a_new_stream_names_what_is_there() {
    let Serving { mut server, mut stream, proxy: _proxy, listening } = serving(origin("a").await).await;
    // Refused as a whole: its version is not had.
    let bad = listener("m", free_address().await, &by_rds("r")).replace("name: http,", "");
    stream.answer(LISTENER, "2", &[("m", "1", bad)], &[]);
    let refusal = stream.request_for(LISTENER).await;
    assert_eq!((refusal.response_nonce.as_str(), refusal.error_detail.expect("why").code), ("2", 13));
    // Refused by itself: the other one's version is had.
    let strange = cluster("c", "1s").replace("type: EDS", "cluster_type: {name: none}");
    stream.answer(CLUSTER, "2", &[("b", "5", cluster("b", "1s")), ("c", "5", strange)], &[]);
    let asked = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(asked.resource_names_subscribe, ["b"]);
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", &[], &["b"]);
    let refusal = stream.request_for(CLUSTER).await;
    let reason = refusal.error_detail.expect("why").message;
    assert!(refusal.response_nonce == "2" && reason.contains("c: cluster_type"), "{reason}");
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2").await;

    stream.fail(Status::unavailable("going away"));
    let mut stream = server.delta_stream().await;
    assert_eq!(answered_by(listening).await, "a");
    let versions = |request: &weft_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest| {
        let mut versions: Vec<_> = request.initial_resource_versions.clone().into_iter().collect();
        versions.sort();
        versions.into_iter().map(|(name, version)| format!("{name}={version}")).collect::<Vec<_>>()
    };
    let clusters = stream.request_for(CLUSTER).await;
    assert_eq!(versions(&clusters), ["a=1", "b=5"]);
    assert!(clusters.response_nonce.is_empty() && clusters.node.is_some());
    let assignments = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(versions(&assignments), ["a=1"]);
    assert_eq!(assignments.resource_names_subscribe, ["a", "b"]);
    assert_eq!(versions(&stream.request_for(LISTENER).await), ["l=1"]);
    assert_eq!(versions(&stream.request_for(ROUTE_CONFIGURATION).await), ["r=1"]);
    stream.silent().await;
}

#[tokio::test]
async fn a_changed_cluster_asks_for_its_endpoints_by_name() {
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(origin("a").await).await;
    stream.answer(CLUSTER, "2", &[("a", "2", cluster("a", "2s"))], &[]);
    assert_eq!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names_subscribe, ["a"]);
    stream.silent().await;
    assert_eq!(answered_by(listening).await, "a");
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", &[("a", "2", endpoints("a", origin("b").await))], &[]);
    stream.acknowledged(CLUSTER, "2").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2").await;
    assert_eq!(answered_by(listening).await, "b");
}

/// As with state of the world, and each answer says only what changed.
#[tokio::test]
async fn no_request_fails_while_deltas_arrive_in_any_order() {
    const CHANGES: usize = 1000;
    const REQUESTS: usize = 10_000;
    let application = origin("a").await;
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(application).await;
    let load = Load::start(listening);
    let mut random = fastrand::Rng::with_seed(11);
    let (mut table, mut before) = ("r".to_owned(), "a".to_owned());
    let mut change = 1;
    while change <= CHANGES || load.answered() < REQUESTS {
        change += 1;
        let (version, name) = (change.to_string(), format!("c{change}"));
        let mut answers = vec![
            (CLUSTER, name.clone(), cluster(&name, "1s"), Some(before.clone())),
            (CLUSTER_LOAD_ASSIGNMENT, name.clone(), endpoints(&name, application), None),
        ];
        if random.u8(..) < 80 {
            table = format!("r{change}");
            answers.push((LISTENER, "l".to_owned(), listener("l", listening, &by_rds(&table)), None));
        }
        answers.push((ROUTE_CONFIGURATION, table.clone(), routes(&table, &name), None));
        random.shuffle(&mut answers);
        for (type_url, resource, text, gone) in answers {
            let gone: Vec<&str> = gone.as_deref().into_iter().collect();
            stream.answer(type_url, &version, &[(&resource, &version, text)], &gone);
            tokio::time::sleep(Duration::from_micros(random.u64(0..4000))).await;
        }
        while let Some(request) = stream.request_at_hand() {
            assert_eq!(request.error_detail, None);
        }
        before = name;
    }
    assert!(load.end().await >= REQUESTS);
}
