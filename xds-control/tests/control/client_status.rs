//! The clients' status service (CSDS): what each connected client holds, a resource at a time.

use std::collections::BTreeMap;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weft_control::translate::resource::Kind;
use weft_xds::any::unpack;
use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use weft_xds::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use weft_xds::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ConfigStatus};
use weft_xds::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_xds::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};

use crate::harness::{Control, NODE, cluster_name, eventually, service};

fn of_node(id: &str) -> ClientStatusRequest {
    let node_id = Some(StringMatcher { match_pattern: Some(MatchPattern::Exact(id.to_owned())), ..Default::default() });
    let node_matchers = vec![NodeMatcher { node_id, ..NodeMatcher::default() }];
    ClientStatusRequest { node_matchers, ..ClientStatusRequest::default() }
}

async fn fetch(control: &Control, request: ClientStatusRequest) -> Vec<ClientConfig> {
    let mut client = ClientStatusDiscoveryServiceClient::new(control.channel().await);
    client.fetch_client_status(request).await.unwrap().into_inner().config
}

/// By the name of the resource, of one kind.
async fn held(control: &Control, kind: Kind) -> BTreeMap<String, GenericXdsConfig> {
    let configs = fetch(control, of_node(NODE)).await;
    let of_kind = configs.into_iter().flat_map(|config| config.generic_xds_configs);
    of_kind.filter(|held| held.type_url == kind.type_url()).map(|held| (held.name.clone(), held)).collect()
}

#[tokio::test]
async fn each_resource_has_its_status_and_version() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    assert_eq!(fetch(&control, ClientStatusRequest::default()).await, []);
    let mut client = control.delta().await;
    client.subscribe(Kind::Cluster, &[&cluster_name("a"), "nowhere"]).await;
    let first = client.expect(Kind::Cluster).await;
    let sent = held(&control, Kind::Cluster).await;
    assert_eq!(sent[&cluster_name("a")].config_status(), ConfigStatus::Stale);
    assert_eq!(sent["nowhere"].config_status(), ConfigStatus::NotSent);
    assert_eq!(sent["nowhere"].version_info, "");
    client.acknowledge(&first).await;
    eventually("it is accepted", async || {
        held(&control, Kind::Cluster).await[&cluster_name("a")].config_status() == ConfigStatus::Synced
    })
    .await;
    let accepted = held(&control, Kind::Cluster).await.remove(&cluster_name("a")).unwrap();
    assert_eq!(accepted.version_info, first.resources[0].version);
    assert_eq!(unpack::<Cluster>(&accepted.xds_config.unwrap()).unwrap().name, cluster_name("a"));
}

#[tokio::test]
async fn a_refusal_is_shown_with_the_resource_that_it_names() {
    let (a, b) = (service("a", "10.96.0.1", &[]), service("b", "10.96.0.2", &[]));
    let control = Control::start(&[("a.yaml", &a), ("b.yaml", &b)]).await;
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    let refused = client.expect(Kind::Cluster).await;
    let reason = format!("Error adding/updating cluster(s) {}: no such policy", cluster_name("a"));
    client.request(Kind::Cluster, &[], Some(&reason)).await;
    eventually("the refusal is known", async || {
        held(&control, Kind::Cluster).await[&cluster_name("a")].config_status() == ConfigStatus::Error
    })
    .await;
    let held = held(&control, Kind::Cluster).await;
    let failure = held[&cluster_name("a")].error_state.clone().unwrap();
    assert_eq!((failure.details, failure.version_info), (reason, held[&cluster_name("a")].version_info.clone()));
    assert_ne!(held[&cluster_name("b")].config_status(), ConfigStatus::Error);
    let status = control.json("/debug/syncz").await[0]["kinds"]["cds"].clone();
    assert_eq!(status["nacked"], refused.version_info.as_str());
    assert_eq!(status["nacked_resources"], serde_json::json!([cluster_name("a")]));
}

#[tokio::test]
async fn a_stream_of_questions_is_answered_and_ends_with_a_bad_one() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut sidecar = control.sotw().await;
    sidecar.subscribe().await;
    let (questions, outgoing) = tokio::sync::mpsc::channel(4);
    let mut client = ClientStatusDiscoveryServiceClient::new(control.channel().await);
    let mut answers = client.stream_client_status(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    for (question, clients) in [(of_node(NODE), 1), (of_node("somebody else"), 0)] {
        questions.send(ClientStatusRequest { exclude_resource_contents: true, ..question }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.config.len(), clients);
        for config in &answer.config {
            assert_eq!(config.node.as_ref().unwrap().id, NODE);
            assert!(config.generic_xds_configs.len() > 5);
            assert!(config.generic_xds_configs.iter().all(|held| held.xds_config.is_none()));
        }
    }
    let bad = ClientStatusRequest {
        node_matchers: vec![NodeMatcher { node_metadatas: vec![Default::default()], ..NodeMatcher::default() }],
        ..ClientStatusRequest::default()
    };
    questions.send(bad).await.unwrap();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("node_matchers[0].node_metadatas"), "{}", refused.message());
}
