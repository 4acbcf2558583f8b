//! The ports: TLS with identities, files that change, and how connections end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_control::translate::resource::Kind;
use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use weft_xds::pb::google::protobuf::{Struct, Value, value};

use crate::harness::{Control, DEADLINE, NODE, connect_tls, eventually, service};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/default";

/// A CA with a folder for what it issues.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME-key.pem`.
    fn issue(&self, name: &str, names: Vec<SanType>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (file, text) in
            [(format!("{name}-key.pem"), key.serialize_pem()), (format!("{name}.pem"), certificate.pem())]
        {
            // As kubelet and cert-manager do: never a half of a file.
            let temporary = self.file("temporary");
            std::fs::write(&temporary, text).unwrap();
            std::fs::rename(temporary, self.file(&file)).unwrap();
        }
    }

    fn issue_server(&self, name: &str) {
        self.issue("server", vec![SanType::DnsName(name.try_into().unwrap())]);
    }

    /// A client's files, for its identities.
    fn issue_client(&self, uris: &[&str]) {
        self.issue("client", uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect());
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certificate {
    None,
    Client,
}

/// A control plane that asks clients for certificates of `authority`.
async fn control(authority: &Authority, flags: &[&str]) -> Control {
    authority.issue_server("control");
    let [certificate, key] = ["server.pem", "server-key.pem"].map(|name| authority.file(name));
    let mut line = vec!["--tls-xds-address", "127.0.0.1:0", "--tls-certificate-file", certificate.to_str().unwrap()];
    line.extend(["--tls-key-file", key.to_str().unwrap()]);
    line.extend(flags);
    Control::start_with(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))], &line).await
}

async fn control_for_identities(authority: &Authority) -> Control {
    let roots = authority.file("root.pem");
    control(authority, &["--tls-client-ca-file", roots.to_str().unwrap()]).await
}

async fn connect(
    authority: &Authority,
    address: SocketAddr,
    server: &'static str,
    certificate: Certificate,
) -> Result<Channel, tonic::transport::Error> {
    let client = (certificate == Certificate::Client).then(|| {
        let key = PrivateKeyDer::from_pem_file(authority.file("client-key.pem")).unwrap();
        (certificates(&authority.file("client.pem")), key)
    });
    connect_tls(address, server, certificates(&authority.file("root.pem")), client).await
}

fn request(node: Node) -> DiscoveryRequest {
    let type_url = Kind::Cluster.type_url().to_owned();
    DiscoveryRequest { node: Some(node), type_url, ..DiscoveryRequest::default() }
}

fn node(id: &str) -> Node {
    Node { id: id.to_owned(), ..Node::default() }
}

/// The first answer to a node's question for clusters.
async fn ask(channel: Channel, node: Node) -> Result<DiscoveryResponse, Status> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(request(node)).await.unwrap();
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut responses = client.stream_aggregated_resources(outgoing).await?.into_inner();
    let answer = tokio::time::timeout(DEADLINE, responses.message()).await.expect("an answer in time");
    answer.map(|answer| answer.expect("the stream goes on"))
}

#[tokio::test]
async fn without_a_client_ca_anyone_who_trusts_the_server_is_served() {
    let authority = Authority::new();
    let control = control(&authority, &[]).await;
    let channel = connect(&authority, control.xds_tls.unwrap(), "control", Certificate::None).await.unwrap();
    assert!(!ask(channel, node(NODE)).await.unwrap().resources.is_empty());
    assert!(connect(&authority, control.xds_tls.unwrap(), "another", Certificate::None).await.is_err());
    // Not TLS: closed, and nobody else is disturbed.
    let plain = Channel::from_shared(format!("http://{}", control.xds_tls.unwrap())).unwrap();
    assert!(ask(plain.connect_lazy(), node(NODE)).await.is_err());
}

#[tokio::test]
async fn a_client_is_held_to_the_identity_of_its_certificate() {
    let authority = Authority::new();
    let control = control_for_identities(&authority).await;
    let address = control.xds_tls.unwrap();
    authority.issue_client(&[WEB]);
    let channel = connect(&authority, address, "control", Certificate::Client).await.unwrap();
    assert!(!ask(channel.clone(), node(NODE)).await.unwrap().resources.is_empty());
    // An application that claims nothing is served as well.
    ask(channel.clone(), node("an-app")).await.unwrap();
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let with = |key: &str, value: &str| {
        let metadata = Some(Struct { fields: [(key.to_owned(), text(value))].into() });
        Node { metadata, ..node(NODE) }
    };
    for (claim, expected) in [
        (node("sidecar~10.0.0.1~web-0.bank~bank.svc.cluster.local"), "namespace \"bank\""),
        (with("NAMESPACE", "bank"), "namespace \"bank\""),
        (with("SERVICE_ACCOUNT", "admin"), "service account \"admin\""),
    ] {
        let refused = ask(channel.clone(), claim).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
}

#[tokio::test]
async fn a_pod_that_is_known_runs_as_its_service_account() {
    let authority = Authority::new();
    let control = control_for_identities(&authority).await;
    control.write(
        "pod.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: reviews-0, namespace: shop}, \
         spec: {serviceAccountName: reviews, containers: []}, status: {podIP: 10.244.0.10, podIPs: [{ip: 10.244.0.10}]}}",
    );
    eventually("the pod is known", async || control.page("/debug/registry").await.1.contains("reviews-0")).await;
    authority.issue_client(&[WEB]);
    let channel = connect(&authority, control.xds_tls.unwrap(), "control", Certificate::Client).await.unwrap();
    let refused = ask(channel, node(NODE)).await.unwrap_err();
    assert!(refused.message().contains("service account \"reviews\""), "{}", refused.message());
    authority.issue_client(&["spiffe://cluster.local/ns/shop/sa/reviews"]);
    let channel = connect(&authority, control.xds_tls.unwrap(), "control", Certificate::Client).await.unwrap();
    ask(channel, node(NODE)).await.unwrap();
}

#[tokio::test]
async fn identities_that_are_not_of_the_mesh_are_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let control = control_for_identities(&authority).await;
    let address = control.xds_tls.unwrap();
    let refused =
        async |authority: &Authority, certificate| match connect(authority, address, "control", certificate).await {
            Ok(channel) => ask(channel, node(NODE)).await.is_err(),
            Err(_) => true,
        };
    assert!(refused(&authority, Certificate::None).await, "no certificate");
    let two = [WEB, "spiffe://cluster.local/ns/shop/sa/reviews"];
    for uris in [&["spiffe://elsewhere/ns/shop/sa/default"][..], &["https://cluster.local/"], &[], &two] {
        authority.issue_client(uris);
        assert!(refused(&authority, Certificate::Client).await, "{uris:?}");
    }
    stranger.issue_client(&[WEB]);
    std::fs::copy(authority.file("root.pem"), stranger.file("root.pem")).unwrap();
    assert!(refused(&stranger, Certificate::Client).await, "a certificate of another CA");
    authority.issue_client(&[WEB]);
    assert!(!refused(&authority, Certificate::Client).await, "this one is good");
}

#[tokio::test]
async fn files_that_change_are_read_again_and_bad_ones_are_not_taken() {
    let authority = Authority::new();
    let control = control(&authority, &[]).await;
    let address = control.xds_tls.unwrap();
    let connect_to = async |name| connect(&authority, address, name, Certificate::None).await;
    let old = connect_to("control").await.unwrap();
    std::fs::write(authority.file("server.pem"), "nothing").unwrap();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        connect_to("control").await.expect("the last good certificate is in force");
    }
    authority.issue_server("renewed");
    eventually("the new certificate is in force", async || connect_to("renewed").await.is_ok()).await;
    assert!(connect_to("control").await.is_err());
    ask(old, node(NODE)).await.expect("connections keep what they began with");
}

#[tokio::test]
async fn old_connections_end_and_their_clients_come_back() {
    let control = Control::start_with(&[], &["--connection-age-max", "1s"]).await;
    let started = Instant::now();
    let mut client = control.sotw().await;
    client.ask(Kind::Cluster, &[]).await;
    client.expect(Kind::Cluster).await;
    let end = tokio::time::timeout(DEADLINE, client.responses.message()).await.expect("the stream ends in time");
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&started.elapsed()));
    let mut again = control.sotw().await;
    again.ask(Kind::Cluster, &[]).await;
    again.expect(Kind::Cluster).await;
}

#[tokio::test]
async fn connections_end_one_after_the_other_when_it_stops() {
    let mut control = Control::start_with(&[], &["--drain-duration", "2s"]).await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = control.sotw().await;
        client.ask(Kind::Cluster, &[]).await;
        client.expect(Kind::Cluster).await;
        clients.push(client);
    }
    control.tell_to_stop();
    let stopped = Instant::now();
    let ends = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let end = client.responses.message().await;
            assert!(matches!(end, Ok(None)), "{end:?}");
            let moment = stopped.elapsed();
            // Its side of the stream is open until here.
            drop(client);
            moment
        })
    });
    let mut moments = Vec::new();
    for end in ends.collect::<Vec<_>>() {
        moments.push(tokio::time::timeout(DEADLINE, end).await.expect("the stream ends in time").unwrap());
    }
    // By chance all of 24 would fall into the same half of the time once in eight million runs.
    let halves = moments.iter().map(|moment| *moment > Duration::from_secs(1)).collect::<HashSet<_>>();
    assert_eq!(halves.len(), 2, "{moments:?}");
    assert!(tokio::net::TcpStream::connect(control.xds).await.is_err(), "nobody is let in any more");
    control.stop().await;
}
