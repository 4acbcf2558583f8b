//! The certificate authority as pods meet it: a token for a first certificate, that one for the next, and configuration for
//! the identity in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weft_control::translate::resource::Kind;
use weft_control::transport::identity::Identity;
use weft_xds::ca::{IstioCertificateRequest, IstioCertificateServiceClient};
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use x509_parser::parse_x509_certificate;

use crate::harness::{Control, NODE, connect_tls, eventually, node, service};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: reviews-0, namespace: shop}\n\
                   spec: {serviceAccountName: web, containers: []}\nstatus: {podIP: 10.244.0.10}\n";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DAY_SECONDS: i64 = 24 * 3600;

/// An authority, and the API server whose tokens it takes.
struct Stage {
    control: Control,
    folder: TempDir,
    token_key: KeyPair,
}

/// A certificate with its key, as a pod holds it.
struct Held {
    chain: Vec<String>,
    key: KeyPair,
}

impl Held {
    fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain[0].as_bytes()).unwrap()
    }

    /// For how long it is valid from now on.
    fn seconds_left(&self) -> i64 {
        let leaf = self.leaf();
        let (_, leaf) = parse_x509_certificate(&leaf).unwrap();
        leaf.validity().not_after.timestamp() - now()
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

impl Stage {
    async fn set(flags: &[&str]) -> Self {
        let (folder, token_key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let point = token_key.der_bytes();
        let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k", "alg": "ES256"}]});
        std::fs::write(folder.path().join("jwks.json"), keys.to_string()).unwrap();
        let [ca, jwks] = ["ca", "jwks.json"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
        let mut line = vec!["--tls-xds-address", "127.0.0.1:0", "--ca-dir", &ca, "--ca-jwks-file", &jwks];
        line.extend(flags);
        let files = [("pod.yaml", POD), ("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))];
        Self { control: Control::start_with(&files, &line).await, folder, token_key }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "aud": ["istio-ca"],
            "sub": "system:serviceaccount:shop:web",
            "exp": now() + 600,
            "kubernetes.io": {"namespace": "shop", "pod": {"name": "reviews-0"}, "serviceaccount": {"name": "web"}},
        });
        change(&mut claims);
        let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &EncodingKey::from_ec_der(self.token_key.serialized_der())).unwrap()
    }

    async fn connect(&self, held: Option<&Held>) -> Channel {
        let roots = CertificateDer::pem_file_iter(self.folder.path().join("ca/root-cert.pem")).unwrap();
        let client = held.map(|held| {
            // The root comes last, and is not the client's to send.
            let (_, chain) = held.chain.split_last().unwrap();
            let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
            (chain, PrivateKeyDer::Pkcs8(held.key.serialize_der().into()))
        });
        let address = self.control.xds_tls.unwrap();
        connect_tls(address, "localhost", roots.map(Result::unwrap).collect(), client).await.unwrap()
    }

    async fn call(
        &self,
        held: Option<&Held>,
        token: Option<&str>,
        csr: String,
        validity_duration: i64,
    ) -> Result<Vec<String>, Status> {
        let mut request = Request::new(IstioCertificateRequest { csr, validity_duration, metadata: None });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = IstioCertificateServiceClient::new(self.connect(held).await).create_certificate(request).await?;
        Ok(answer.into_inner().cert_chain)
    }

    async fn sign(&self, held: Option<&Held>, token: Option<&str>, seconds: i64) -> Result<Held, Status> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        Ok(Held { chain: self.call(held, token, csr, seconds).await?, key })
    }

    async fn clusters(&self, held: Option<&Held>, id: &str) -> Result<DiscoveryResponse, Status> {
        let request = DiscoveryRequest {
            node: node(id),
            type_url: Kind::Cluster.type_url().to_owned(),
            ..DiscoveryRequest::default()
        };
        let mut client = AggregatedDiscoveryServiceClient::new(self.connect(held).await);
        let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
        let mut responses = client.stream_aggregated_resources(requests).await?.into_inner();
        Ok(responses.message().await?.expect("an answer"))
    }
}

#[tokio::test]
async fn a_token_gets_a_certificate_and_that_gets_the_next_and_configuration() {
    let stage = Stage::set(&[]).await;
    let first = stage.sign(None, Some(&stage.token(|_| {})), 0).await.unwrap();
    assert_eq!(first.chain.len(), 3, "the leaf, the issuing certificate, the roots");
    assert_eq!(Identity::of_certificate(&first.leaf(), "cluster.local").unwrap().to_string(), WEB);
    let root = std::fs::read_to_string(stage.folder.path().join("ca/root-cert.pem")).unwrap();
    assert_eq!(first.chain[2], root.replace("\r\n", "\n"));

    let next = stage.sign(Some(&first), None, 0).await.unwrap();
    assert_eq!(Identity::of_certificate(&next.leaf(), "cluster.local").unwrap().to_string(), WEB);
    assert_ne!(next.leaf(), first.leaf());

    stage.clusters(Some(&next), NODE).await.unwrap();
    let other = stage.clusters(Some(&next), "sidecar~10.0.0.9~vault-0.bank~d").await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let nobody = stage.clusters(None, NODE).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn who_proves_nothing_or_too_much_gets_nothing() {
    let stage = Stage::set(&["--ca-token-audiences", "istio-ca"]).await;
    let refusal = async |change: fn(&mut Value)| {
        let token = stage.token(change);
        let status = stage.sign(None, Some(&token), 0).await.err().unwrap();
        assert!(!status.message().contains(&token), "a token in an error");
        (status.code(), status.message().to_owned())
    };
    assert_eq!(stage.sign(None, None, 0).await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(stage.sign(None, Some("x.y.z"), 0).await.err().unwrap().code(), Code::Unauthenticated);
    assert_eq!(refusal(|claims| claims["aud"] = json!(["api"])).await.0, Code::Unauthenticated);
    assert_eq!(refusal(|claims| claims["exp"] = json!(now() - 60)).await.0, Code::Unauthenticated);
    let gone = refusal(|claims| claims["kubernetes.io"]["pod"]["name"] = json!("reviews-9")).await;
    assert_eq!(gone, (Code::PermissionDenied, "the token is of the pod shop/reviews-9, which is not there".to_owned()));
    let account = refusal(|claims| {
        claims["sub"] = json!("system:serviceaccount:shop:admin");
        claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
    });
    assert_eq!(account.await.0, Code::PermissionDenied, "the pod runs as another");

    let held = stage.sign(None, Some(&stage.token(|_| {})), 0).await.unwrap();
    let other = stage.token(|claims| {
        claims["sub"] = json!("system:serviceaccount:bank:vault");
        claims.as_object_mut().unwrap().remove("kubernetes.io");
    });
    let two = stage.sign(Some(&held), Some(&other), 0).await.err().unwrap();
    assert_eq!(two.code(), Code::PermissionDenied);
    assert!(two.message().contains(WEB) && two.message().contains("ns/bank/sa/vault"), "{}", two.message());
}

#[tokio::test]
async fn a_request_for_more_than_the_proven_identity_is_refused() {
    let stage = Stage::set(&[]).await;
    let token = stage.token(|_| {});
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/shop/sa/admin".try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let refused = stage.call(None, Some(&token), csr, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("sa/admin") && refused.message().contains(WEB), "{}", refused.message());
    let nonsense = stage.call(None, Some(&token), "nonsense".to_owned(), 0).await.unwrap_err();
    assert_eq!(
        (nonsense.code(), nonsense.message()),
        (Code::InvalidArgument, "csr: is not one certificate request in PEM")
    );
}

#[tokio::test]
async fn lifetimes_are_what_was_asked_for_and_no_longer_than_allowed() {
    let stage = Stage::set(&[]).await;
    let token = stage.token(|_| {});
    for (asked, given) in
        [(0, DAY_SECONDS), (60, 60), (3600, 3600), (DAY_SECONDS * 10, DAY_SECONDS), (i64::MAX, DAY_SECONDS)]
    {
        let left = stage.sign(None, Some(&token), asked).await.unwrap().seconds_left();
        assert!((given - 30..=given).contains(&left), "asked for {asked}: {left}");
    }
    assert_eq!(stage.sign(None, Some(&token), -1).await.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn roots_that_come_are_told_to_everybody_without_a_restart() {
    let stage = Stage::set(&[]).await;
    let token = stage.token(|_| {});
    let other = Stage::set(&[]).await;
    let [ours, theirs] = [&stage, &other].map(|stage| stage.folder.path().join("ca/root-cert.pem"));
    let both = [&ours, &theirs].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&ours, both).unwrap();
    eventually("both roots are told of", async || {
        let chain = stage.sign(None, Some(&token), 0).await.unwrap().chain;
        chain.last().unwrap().matches("BEGIN CERTIFICATE").count() == 2
    })
    .await;
    // Who has a certificate of the other authority is known now, while both roots are trusted.
    let foreign = other.sign(None, Some(&other.token(|_| {})), 0).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while stage.clusters(Some(&foreign), NODE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("its certificate is taken");
}
