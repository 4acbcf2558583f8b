//! The control plane from a client's side: what it sends, when, and what it leaves out.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::harness::{Control, DEADLINE, NODE, cluster_name, eventually, node, service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weft_control::translate::resource::Kind;
use weft_xds::any::unpack;
use weft_xds::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
use weft_xds::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use weft_xds::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use weft_xds::pb::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use weft_xds::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use weft_xds::pb::google::protobuf::Any;

fn names(response: &DiscoveryResponse) -> BTreeSet<String> {
    use weft_xds::pb::envoy::config::{cluster::v3::Cluster, listener::v3::Listener, route::v3::RouteConfiguration};
    let name = |body: &Any| match Kind::of(&body.type_url).unwrap() {
        Kind::Cluster => unpack::<Cluster>(body).unwrap().name,
        Kind::Endpoints => unpack::<ClusterLoadAssignment>(body).unwrap().cluster_name,
        Kind::Listener => unpack::<Listener>(body).unwrap().name,
        Kind::Route => unpack::<RouteConfiguration>(body).unwrap().name,
        Kind::Secret | Kind::ExtensionConfig => panic!("{body:?}"),
    };
    response.resources.iter().map(name).collect()
}

fn addresses(body: &Any) -> Vec<String> {
    use weft_xds::pb::envoy::config::core::v3::address::Address;
    let assignment = unpack::<ClusterLoadAssignment>(body).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let address = |identifier| match identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => match endpoint.address.unwrap().address.unwrap() {
            Address::SocketAddress(address) => address.address,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    endpoints.map(|endpoint| address(endpoint.host_identifier)).collect()
}

#[tokio::test]
async fn a_sidecar_is_sent_a_whole_mesh() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut client = control.sotw().await;
    let answers = client.subscribe().await;
    let clusters = names(&answers[&Kind::Cluster]);
    for name in ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster", &cluster_name("a")] {
        assert!(clusters.contains(name), "{name} in {clusters:?}");
    }
    let listeners = names(&answers[&Kind::Listener]);
    let expected = ["10.96.0.1_80", "virtualInbound", "virtualOutbound"].map(str::to_owned);
    assert_eq!(listeners, BTreeSet::from(expected));
    assert_eq!(names(&answers[&Kind::Route]), BTreeSet::from([cluster_name("a")]));
    assert_eq!(addresses(&answers[&Kind::Endpoints].resources[0]), ["10.0.0.1"]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_change_of_one_service_sends_nothing_of_another() {
    let (a, b) = (service("a", "10.96.0.1", &["10.0.0.1"]), service("b", "10.96.0.2", &["10.0.0.2"]));
    let control = Control::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    let mut sotw = control.sotw().await;
    let before = sotw.subscribe().await;
    let mut delta = control.delta().await;
    delta.subscribe(Kind::Endpoints, &[&cluster_name("a"), &cluster_name("b")]).await;
    let first = delta.expect(Kind::Endpoints).await;
    assert_eq!(first.resources.len(), 2);
    delta.acknowledge(&first).await;

    control.write("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1", "10.0.0.9"]));
    let news = sotw.expect(Kind::Endpoints).await;
    assert_eq!(names(&news), BTreeSet::from([cluster_name("a")]));
    assert_eq!(addresses(&news.resources[0]), ["10.0.0.1", "10.0.0.9"]);
    assert_ne!(news.version_info, before[&Kind::Endpoints].version_info);
    sotw.ask(Kind::Endpoints, &[&cluster_name("a"), &cluster_name("b")]).await;
    sotw.expect_nothing().await;
    let news = delta.expect(Kind::Endpoints).await;
    assert_eq!(news.resources.len(), 1);
    assert_eq!(news.resources[0].name, cluster_name("a"));
    delta.acknowledge(&news).await;
    delta.expect_nothing().await;
}

#[tokio::test]
async fn a_file_in_place_is_taken_when_it_is_whole() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut client = control.sotw().await;
    client.subscribe().await;
    // Truncated, then written in two parts with a pause: nothing may be seen of the states between.
    let text = service("a", "10.96.0.1", &["10.0.0.1", "10.0.0.2"]);
    let (head, tail) = text.split_at(text.len() - 20);
    let mut file = std::fs::File::create(control.folder.path().join("a.yaml")).unwrap();
    std::io::Write::write_all(&mut file, head.as_bytes()).unwrap();
    client.expect_nothing().await;
    std::io::Write::write_all(&mut file, tail.as_bytes()).unwrap();
    drop(file);
    let news = client.expect(Kind::Endpoints).await;
    assert_eq!(addresses(&news.resources[0]), ["10.0.0.1", "10.0.0.2"]);
}

#[tokio::test]
async fn a_bad_manifest_keeps_its_last_good_state_and_the_rest_goes_on() {
    let (a, b) = (service("a", "10.96.0.1", &["10.0.0.1"]), service("b", "10.96.0.2", &["10.0.0.2"]));
    let control = Control::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    let mut client = control.sotw().await;
    client.subscribe().await;
    control.write("a.yaml", &a.replace("port: 80,", "port: eighty,"));
    control.write("b.yaml", &service("b", "10.96.0.2", &["10.0.0.3"]));
    let news = client.expect(Kind::Endpoints).await;
    assert_eq!(names(&news), BTreeSet::from([cluster_name("b")]));
    client.ask(Kind::Endpoints, &[&cluster_name("a"), &cluster_name("b")]).await;
    client.expect_nothing().await;
    let problems = control.json("/debug/registry").await["problems"].clone();
    assert_eq!(problems[0]["file"], "a.yaml");
    assert_eq!(problems[0]["path"], "spec.ports[0].port");
    assert_eq!(problems[0]["document"], serde_json::json!([1, 1]));

    control.write("a.yaml", &service("a", "10.96.0.1", &["10.0.0.4"]));
    let news = client.expect(Kind::Endpoints).await;
    assert_eq!(names(&news), BTreeSet::from([cluster_name("a")]));
    assert_eq!(control.json("/debug/registry").await["problems"], serde_json::json!([]));
}

#[tokio::test]
async fn a_service_comes_and_goes_make_before_break() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut client = control.sotw().await;
    client.subscribe().await;
    control.write("b.yaml", &service("b", "10.96.0.2", &["10.0.0.2"]));
    let clusters = client.expect(Kind::Cluster).await;
    assert!(names(&clusters).contains(&cluster_name("b")));
    client.expect_nothing().await;
    client.ask(Kind::Endpoints, &[&cluster_name("a"), &cluster_name("b")]).await;
    assert_eq!(names(&client.expect(Kind::Endpoints).await), BTreeSet::from([cluster_name("b")]));
    client.ask(Kind::Endpoints, &[&cluster_name("a"), &cluster_name("b")]).await;
    client.expect_nothing().await;
    client.ask(Kind::Cluster, &[]).await;
    assert!(names(&client.expect(Kind::Listener).await).contains("10.96.0.2_80"));
    client.ask(Kind::Listener, &[]).await;
    client.ask(Kind::Route, &[&cluster_name("a"), &cluster_name("b")]).await;
    assert_eq!(names(&client.expect(Kind::Route).await), BTreeSet::from([cluster_name("b")]));
    client.ask(Kind::Route, &[&cluster_name("a"), &cluster_name("b")]).await;

    control.remove("b.yaml");
    assert!(!names(&client.expect(Kind::Listener).await).contains("10.96.0.2_80"));
    client.expect_nothing().await;
    client.ask(Kind::Listener, &[]).await;
    assert!(!names(&client.expect(Kind::Cluster).await).contains(&cluster_name("b")));
}

#[tokio::test]
async fn versions_are_the_same_from_every_replica() {
    let files = [("a.yaml", service("a", "10.96.0.1", &["10.0.0.1"])), ("b.yaml", service("b", "10.96.0.2", &[]))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let (one, other) = (Control::start(&files).await, Control::start(&files).await);
    let (first, second) = (one.sotw().await.subscribe().await, other.sotw().await.subscribe().await);
    for kind in first.keys() {
        assert_eq!(first[kind].version_info, second[kind].version_info, "{kind:?}");
        assert_eq!(first[kind].resources, second[kind].resources, "{kind:?}");
    }
    // Nonces are of no use to another stream.
    let again = one.sotw().await.subscribe().await;
    assert_eq!(first[&Kind::Cluster].version_info, again[&Kind::Cluster].version_info);
    assert_ne!(first[&Kind::Cluster].nonce, again[&Kind::Cluster].nonce);
}

#[tokio::test]
async fn a_refusal_is_told_once_with_its_reason_and_not_repeated() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    let refused = client.expect(Kind::Cluster).await;
    client.request(Kind::Cluster, &[], Some("outbound|80||a: no such thing")).await;
    client.expect_nothing().await;
    let status = control.json("/debug/syncz").await[0].clone();
    assert_eq!(status["proxy"], "reviews-0.shop");
    assert_eq!(status["kinds"]["cds"]["status"], "ERROR");
    assert_eq!(status["kinds"]["cds"]["nacked"], refused.version_info.as_str());
    assert_eq!(status["kinds"]["cds"]["nack_reason"], "outbound|80||a: no such thing");
    control.write("b.yaml", &service("b", "10.96.0.2", &[]));
    client.expect(Kind::Cluster).await;
    client.ask(Kind::Cluster, &[]).await;
    eventually("the refusal is forgotten", async || {
        control.json("/debug/syncz").await[0]["kinds"]["cds"]["status"] == "SYNCED"
    })
    .await;
}

#[tokio::test]
async fn delta_reconnects_with_what_it_has() {
    let (a, b) = (service("a", "10.96.0.1", &["10.0.0.1"]), service("b", "10.96.0.2", &["10.0.0.2"]));
    let control = Control::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    let mut client = control.delta().await;
    client.subscribe(Kind::Cluster, &["*"]).await;
    let first = client.expect(Kind::Cluster).await;
    let mut known = first
        .resources
        .iter()
        .map(|resource| (resource.name.clone(), resource.version.clone()))
        .collect::<HashMap<_, _>>();
    drop(client);
    *known.get_mut(&cluster_name("a")).unwrap() = "0000000000000001".to_owned();
    known.insert("gone".to_owned(), "0000000000000002".to_owned());
    let mut client = control.delta().await;
    client
        .request(DeltaDiscoveryRequest {
            type_url: Kind::Cluster.type_url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: known,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    let again = client.expect(Kind::Cluster).await;
    let names = again.resources.iter().map(|resource| resource.name.clone()).collect::<Vec<_>>();
    assert_eq!(names, [cluster_name("a")]);
    assert_eq!(again.removed_resources, ["gone"]);
}

#[tokio::test]
async fn services_of_single_kinds_imply_their_type() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let request = |type_url: &str, names: &[String]| DiscoveryRequest {
        node: node(NODE),
        type_url: type_url.to_owned(),
        resource_names: names.to_vec(),
        ..DiscoveryRequest::default()
    };
    let (requests, outgoing) = mpsc::channel(4);
    let mut clusters = ClusterDiscoveryServiceClient::new(control.channel().await);
    let mut responses = clusters.stream_clusters(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    requests.send(request("", &[])).await.unwrap();
    let response = responses.message().await.unwrap().unwrap();
    assert!(names(&response).contains(&cluster_name("a")));
    requests.send(request(Kind::Listener.type_url(), &[])).await.unwrap();
    assert_eq!(responses.message().await.unwrap_err().code(), Code::InvalidArgument);

    let mut endpoints = EndpointDiscoveryServiceClient::new(control.channel().await);
    let fetched = endpoints.fetch_endpoints(request("", &[cluster_name("a")])).await.unwrap().into_inner();
    assert_eq!(addresses(&fetched.resources[0]), ["10.0.0.1"]);
    let missing = endpoints.fetch_endpoints(request("", &["nowhere".to_owned()])).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn secrets_and_extensions_are_kinds_of_which_there_are_none() {
    let control = Control::start(&[]).await;
    let request = |kind: Kind| DeltaDiscoveryRequest {
        node: node(NODE),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: vec!["ROOTCA".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let (_requests, outgoing) = pending(request(Kind::Secret));
    let mut secrets = SecretDiscoveryServiceClient::new(control.channel().await);
    let mut responses = secrets.delta_secrets(outgoing).await.unwrap().into_inner();
    let answer = responses.message().await.unwrap().unwrap();
    assert_eq!((answer.resources.len(), answer.removed_resources), (0, vec!["ROOTCA".to_owned()]));
    let (_requests, outgoing) = pending(request(Kind::ExtensionConfig));
    let mut extensions = ExtensionConfigDiscoveryServiceClient::new(control.channel().await);
    let mut responses = extensions.delta_extension_configs(outgoing).await.unwrap().into_inner();
    let answer = responses.message().await.unwrap().unwrap();
    assert_eq!((answer.resources.len(), answer.removed_resources), (0, vec!["ROOTCA".to_owned()]));
    // In the state of the world there is no way to say that a secret does not exist.
    let mut client = control.sotw().await;
    client.ask(Kind::Secret, &["default", "ROOTCA"]).await;
    client.ask(Kind::ExtensionConfig, &["filter"]).await;
    client.expect_nothing().await;
}

/// A stream of requests that stays open after the first for as long as its sender lives.
fn pending<T: Send + 'static>(first: T) -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (requests, outgoing) = mpsc::channel(4);
    requests.try_send(first).unwrap_or_else(|_| panic!("there is room"));
    (requests, ReceiverStream::new(outgoing))
}

#[tokio::test]
async fn methods_that_are_not_served_are_unimplemented() {
    let control = Control::start(&[]).await;
    let mut runtime =
        weft_xds::pb::envoy::service::runtime::v3::runtime_discovery_service_client::RuntimeDiscoveryServiceClient::new(
            control.channel().await,
        );
    let (_requests, outgoing) = pending(DiscoveryRequest { node: node(NODE), ..DiscoveryRequest::default() });
    let refused = match runtime.stream_runtime(outgoing).await {
        Ok(responses) => responses.into_inner().message().await.unwrap_err(),
        Err(refused) => refused,
    };
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn clients_that_do_not_say_who_they_are_are_told_what_is_missing() {
    let control = Control::start(&[]).await;
    for (node, expected) in [
        (None, "must carry `node`"),
        (node("sidecar~somebody"), "sidecar~IP~POD.NAMESPACE~DOMAIN"),
        (node("sidecar~10.0.0.300~a.b~c"), "\"10.0.0.300\" is not an IP address"),
    ] {
        let mut client = AggregatedDiscoveryServiceClient::new(control.channel().await);
        let request = DiscoveryRequest { node, type_url: Kind::Cluster.type_url().to_owned(), ..Default::default() };
        let outgoing = tokio_stream::iter([request]);
        let mut responses = client.stream_aggregated_resources(outgoing).await.unwrap().into_inner();
        let status = responses.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
}

#[tokio::test]
async fn kinds_that_are_not_served_are_not_answered_and_do_no_harm() {
    let control = Control::start(&[]).await;
    let mut client = control.sotw().await;
    let unknown = DiscoveryRequest {
        node: node(NODE),
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".to_owned(),
        ..DiscoveryRequest::default()
    };
    client.requests.send(unknown).await.unwrap();
    client.ask(Kind::Cluster, &[]).await;
    client.expect(Kind::Cluster).await;
    let nameless = DiscoveryRequest { node: node(NODE), ..DiscoveryRequest::default() };
    client.requests.send(nameless).await.unwrap();
    assert_eq!(client.responses.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let big =
        (0..300).map(|index| service(&format!("s{index}"), &format!("10.97.{}.{}", index / 250, index % 250), &[]));
    let big = big.collect::<Vec<_>>().join("---\n");
    let control = Control::start(&[("big.yaml", &big), ("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut sleepy = control.sotw().await;
    for _ in 0..50 {
        // More than any window holds, and nobody takes it out.
        sleepy.ask(Kind::Cluster, &[]).await;
        sleepy.ask(Kind::Listener, &[]).await;
        sleepy.ask(Kind::Endpoints, &[&cluster_name("a")]).await;
    }
    let mut client = control.sotw().await;
    client.subscribe().await;
    let subscribed = names(&client_endpoints(&mut client).await).len();
    assert_eq!(subscribed, 1);
    for last in 2..20 {
        control.write("a.yaml", &service("a", "10.96.0.1", &[&format!("10.0.0.{last}")]));
        let started = Instant::now();
        let news = client.expect(Kind::Endpoints).await;
        client.ask(Kind::Endpoints, &[&cluster_name("a")]).await;
        assert_eq!(addresses(&news.resources[0]), [format!("10.0.0.{last}")]);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

/// Narrows the client's interest to one cluster and has it sent anew.
async fn client_endpoints(client: &mut crate::harness::Sotw) -> DiscoveryResponse {
    client.ask(Kind::Endpoints, &[]).await;
    client.ask(Kind::Endpoints, &[&cluster_name("a")]).await;
    let response = client.expect(Kind::Endpoints).await;
    client.ask(Kind::Endpoints, &[&cluster_name("a")]).await;
    response
}

#[tokio::test]
async fn bytes_that_are_no_grpc_do_no_harm() {
    let control = Control::start(&[]).await;
    for garbage in [
        &b"\0\0\0\0\0\0"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        let mut stream = tokio::net::TcpStream::connect(control.xds).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // However it ends: it ends, or waits for more.
        _ = tokio::time::timeout(crate::harness::QUIET, stream.read_to_end(&mut answer)).await;
    }
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    client.expect(Kind::Cluster).await;
}

#[tokio::test]
async fn too_many_names_end_the_stream_and_nothing_else() {
    let control = Control::start(&[]).await;
    let mut greedy = control.sotw().await;
    let request = DiscoveryRequest {
        node: node(NODE),
        type_url: Kind::Endpoints.type_url().to_owned(),
        resource_names: (0..100_001).map(|index| index.to_string()).collect(),
        ..DiscoveryRequest::default()
    };
    greedy.requests.send(request).await.unwrap();
    assert_eq!(greedy.responses.message().await.unwrap_err().code(), Code::ResourceExhausted);
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    client.expect(Kind::Cluster).await;
}

#[tokio::test]
async fn stopping_ends_the_streams_and_then_the_server() {
    let mut control = Control::start(&[]).await;
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    client.expect(Kind::Cluster).await;
    control.tell_to_stop();
    let end = tokio::time::timeout(DEADLINE, client.responses.message()).await.expect("the stream ends in time");
    assert!(matches!(end, Ok(None)), "{end:?}");
    drop(client);
    control.stop().await;
}

#[tokio::test]
async fn the_monitoring_port_tells_of_everything() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    assert_eq!(control.page("/live").await.0, 200);
    assert_eq!(control.page("/ready").await.0, 200);
    assert_eq!(control.page("/metrics").await.0, 200);
    assert_eq!(control.page("/nowhere").await.0, 404);
    assert_eq!(control.page("/debug/config_dump").await.0, 400);
    assert_eq!(control.page("/debug/config_dump?node=nobody.here").await.0, 404);
    let mut client = control.sotw().await;
    client.subscribe().await;
    let dump = control.json("/debug/config_dump?node=reviews-0.shop").await;
    assert_eq!(dump["listeners"].as_array().unwrap().len(), 3);
    assert_eq!(dump["endpoints"][0]["name"], cluster_name("a"));
    assert_eq!(dump["routes"][0]["resource"]["virtual_hosts"][0]["domains"][0], "*");
    let registry = control.json("/debug/registry").await;
    assert_eq!(registry["services"][0]["service"]["name"]["name"], "a");
    drop(client);
    eventually("the client is gone", async || control.json("/debug/syncz").await == serde_json::json!([])).await;
}
