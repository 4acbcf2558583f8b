//! Clients that mean no good, or know no better: each is told what is wrong, and nobody else notices.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weft_control::translate::resource::Kind;
use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use weft_xds::pb::google::protobuf::{Any, Struct, Value, value};

use crate::harness::{Control, DEADLINE, NODE, cluster_name, node, service};

const STREAMS: usize = 500;
const SUBSCRIPTIONS: usize = 10_000;

async fn control() -> Control {
    Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await
}

/// Somebody else is served as if nothing were.
async fn check_undisturbed(control: &Control) {
    let mut client = control.sotw().await;
    client.subscribe().await;
}

#[tokio::test]
async fn messages_that_are_none_end_their_stream() {
    let control = control().await;
    let mut client = tonic::client::Grpc::new(control.channel().await);
    client.ready().await.unwrap();
    // An Any's second field is bytes, where a request has a node.
    let garbage = Any { type_url: "x".to_owned(), value: vec![0xff; 64] };
    let path = http::uri::PathAndQuery::from_static(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    );
    let codec = tonic_prost::ProstCodec::<Any, DiscoveryResponse>::new();
    let request = tonic::Request::new(tokio_stream::iter([garbage]));
    let mut responses = client.streaming(request, path, codec).await.unwrap().into_inner();
    let refused = responses.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(refused.message().contains("decode"), "{}", refused.message());
    check_undisturbed(&control).await;
}

#[tokio::test]
async fn a_node_of_megabytes_is_refused() {
    let control = control().await;
    let text = Value { kind: Some(value::Kind::StringValue("x".repeat(2 << 20))) };
    let metadata = Some(Struct { fields: [("PADDING".to_owned(), text)].into() });
    let node = Node { id: NODE.to_owned(), metadata, ..Node::default() };
    let request = DiscoveryRequest {
        node: Some(node),
        type_url: Kind::Cluster.type_url().to_owned(),
        ..DiscoveryRequest::default()
    };
    let mut client = AggregatedDiscoveryServiceClient::new(control.channel().await);
    let outgoing = tokio_stream::iter([request]);
    let mut responses = client.stream_aggregated_resources(outgoing).await.unwrap().into_inner();
    let refused = responses.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("node is 2097"), "{}", refused.message());
    check_undisturbed(&control).await;
}

#[tokio::test]
async fn requests_beyond_a_size_are_refused_before_they_are_read() {
    let control = control().await;
    let request = DiscoveryRequest {
        node: node(NODE),
        type_url: Kind::Cluster.type_url().to_owned(),
        resource_names: vec!["x".repeat(9 << 20)],
        ..DiscoveryRequest::default()
    };
    let mut client = AggregatedDiscoveryServiceClient::new(control.channel().await);
    let outgoing = tokio_stream::iter([request]);
    let mut responses = client.stream_aggregated_resources(outgoing).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap_err().code(), Code::OutOfRange);
    check_undisturbed(&control).await;
}

#[tokio::test]
async fn ten_thousand_subscriptions_are_answered() {
    let control = control().await;
    let mut client = control.delta().await;
    let names = (0..SUBSCRIPTIONS).map(|index| format!("nowhere-{index}")).chain([cluster_name("a")]);
    client
        .request(DeltaDiscoveryRequest {
            type_url: Kind::Endpoints.type_url().to_owned(),
            resource_names_subscribe: names.collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    let answer = client.expect(Kind::Endpoints).await;
    assert_eq!((answer.resources.len(), answer.removed_resources.len()), (1, SUBSCRIPTIONS));
    client.acknowledge(&answer).await;
    client.expect_nothing().await;
    check_undisturbed(&control).await;
}

#[tokio::test]
async fn hundreds_of_streams_of_one_client_are_served_each() {
    let control = control().await;
    let channel = control.channel().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (requests, outgoing) = mpsc::channel(1);
        let request = DiscoveryRequest {
            node: node(NODE),
            type_url: Kind::Endpoints.type_url().to_owned(),
            resource_names: vec![cluster_name("a")],
            ..DiscoveryRequest::default()
        };
        requests.send(request).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let responses = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        streams.push((requests, responses));
    }
    let mut nonces = std::collections::HashSet::new();
    for (_, responses) in &mut streams {
        let answer = responses.message().await.unwrap().unwrap();
        assert_eq!(answer.resources.len(), 1);
        assert!(nonces.insert(answer.nonce), "nonces are of one stream each");
    }
    assert_eq!(control.json("/debug/syncz").await.as_array().unwrap().len(), STREAMS);
    check_undisturbed(&control).await;
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed_and_one_that_asked_is_not() {
    let control = control().await;
    let mut client = control.sotw().await;
    client.subscribe().await;
    let mut silent = tokio::net::TcpStream::connect(control.xds).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(DEADLINE, tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest)).await;
    assert!(end.is_ok(), "it is open still");
    control.write("b.yaml", &service("b", "10.96.0.2", &[]));
    client.expect(Kind::Cluster).await;
}
