//! A control plane on loopback with a folder of its own, and clients of both variants.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use weft_control::args::{Arguments, Command};
use weft_control::serve::Server;
use weft_control::translate::resource::Kind;
use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use weft_xds::pb::google::rpc::Status;

/// Nothing here takes longer, or it does not happen.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// What would come comes sooner.
pub const QUIET: Duration = Duration::from_millis(400);

pub const NODE: &str = "sidecar~10.244.0.10~reviews-0.shop~shop.svc.cluster.local";

pub struct Control {
    pub folder: TempDir,
    pub xds: SocketAddr,
    pub xds_tls: Option<SocketAddr>,
    pub monitoring: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Control {
    pub async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[]).await
    }

    pub async fn start_with(files: &[(&str, &str)], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let manifests = folder.path().to_str().unwrap();
        let mut line = vec!["weft-control", "serve", "--manifests", manifests];
        line.extend(["--plaintext-xds-address", "127.0.0.1:0", "--monitoring-address", "127.0.0.1:0"]);
        if !flags.contains(&"--drain-duration") {
            line.extend(["--drain-duration", "200ms"]);
        }
        line.extend(flags);
        let Command::Serve(serve) = Arguments::try_parse_from(line).unwrap().command;
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let server = Server::start(&serve, metrics).await.unwrap();
        let (xds, monitoring) = (server.plaintext_address().unwrap(), server.monitoring_address().unwrap());
        let xds_tls = server.tls_address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                // Dropped or sent: both mean stop.
                _ = stopped.await;
            };
            server.run(stopped).await;
        });
        Self { folder, xds, xds_tls, monitoring, stop: Some(stop), task }
    }

    /// Replaces a file the way that editors do.
    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.folder.path().join(format!(".{name}.new"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.folder.path().join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    pub async fn channel(&self) -> Channel {
        channel_to(self.xds).await
    }

    pub async fn sotw(&self) -> Sotw {
        sotw_of(self.xds).await
    }

    pub async fn delta(&self) -> Delta {
        let (requests, outgoing) = mpsc::channel(64);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Delta { requests, responses, is_first: true }
    }

    /// A page of the monitoring port: status and body.
    pub async fn page(&self, path: &str) -> (u16, String) {
        page(self.monitoring, path).await
    }

    pub async fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.page(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self) {
        self.tell_to_stop();
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("it stops in time").unwrap();
    }

    pub fn tell_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
    }
}

async fn channel_to(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A connection with TLS, with a certificate and its key where there are some.
pub async fn connect_tls(
    address: SocketAddr,
    server: &'static str,
    trusted: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    trusted.into_iter().for_each(|root| roots.add(root).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let stream = connector.connect(ServerName::try_from(server).unwrap(), stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    Endpoint::from_static("http://control").connect_with_connector(tower::service_fn(connect)).await
}

/// A client of a control plane, wherever that runs.
pub async fn sotw_of(address: SocketAddr) -> Sotw {
    let (requests, outgoing) = mpsc::channel(64);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel_to(address).await).max_decoding_message_size(1 << 30);
    let responses = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    Sotw { requests, responses, is_first: true, nonces: HashMap::new() }
}

pub async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.to_owned(), ..Node::default() })
}

pub struct Sotw {
    pub requests: mpsc::Sender<DiscoveryRequest>,
    pub responses: Streaming<DiscoveryResponse>,
    is_first: bool,
    nonces: HashMap<String, (String, String)>,
}

impl Sotw {
    pub async fn request(&mut self, kind: Kind, names: &[&str], error: Option<&str>) {
        let (version_info, response_nonce) = self.nonces.get(kind.type_url()).cloned().unwrap_or_default();
        let request = DiscoveryRequest {
            version_info,
            node: if std::mem::take(&mut self.is_first) { node(NODE) } else { None },
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce,
            error_detail: error.map(|message| Status { code: 13, message: message.to_owned(), ..Status::default() }),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    pub async fn ask(&mut self, kind: Kind, names: &[&str]) {
        self.request(kind, names, None).await;
    }

    pub async fn next(&mut self) -> DiscoveryResponse {
        let response = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("a response in time");
        let response = response.unwrap().expect("the stream goes on");
        self.nonces.insert(response.type_url.clone(), (response.version_info.clone(), response.nonce.clone()));
        response
    }

    pub async fn expect(&mut self, kind: Kind) -> DiscoveryResponse {
        let response = self.next().await;
        assert_eq!(response.type_url, kind.type_url());
        response
    }

    pub async fn expect_nothing(&mut self) {
        if let Ok(response) = tokio::time::timeout(QUIET, self.responses.message()).await {
            panic!("nothing expected, but: {response:?}");
        }
    }

    /// Asks for everything the way that Envoy does; gives each kind's answer, all acknowledged.
    pub async fn subscribe(&mut self) -> BTreeMap<Kind, DiscoveryResponse> {
        let mut answers = BTreeMap::new();
        self.ask(Kind::Cluster, &[]).await;
        answers.insert(Kind::Cluster, self.expect(Kind::Cluster).await);
        let clusters = eds_names(&answers[&Kind::Cluster]);
        let clusters = clusters.iter().map(String::as_str).collect::<Vec<_>>();
        self.ask(Kind::Endpoints, &clusters).await;
        answers.insert(Kind::Endpoints, self.expect(Kind::Endpoints).await);
        self.ask(Kind::Endpoints, &clusters).await;
        self.ask(Kind::Cluster, &[]).await;
        self.ask(Kind::Listener, &[]).await;
        answers.insert(Kind::Listener, self.expect(Kind::Listener).await);
        self.ask(Kind::Listener, &[]).await;
        let routes = route_names(&answers[&Kind::Listener]);
        let routes = routes.iter().map(String::as_str).collect::<Vec<_>>();
        self.ask(Kind::Route, &routes).await;
        answers.insert(Kind::Route, self.expect(Kind::Route).await);
        self.ask(Kind::Route, &routes).await;
        answers
    }
}

pub struct Delta {
    pub requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub responses: Streaming<DeltaDiscoveryResponse>,
    is_first: bool,
}

impl Delta {
    pub async fn request(&mut self, request: DeltaDiscoveryRequest) {
        let node = if std::mem::take(&mut self.is_first) { node(NODE) } else { None };
        self.requests.send(DeltaDiscoveryRequest { node, ..request }).await.unwrap();
    }

    pub async fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        self.request(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub async fn acknowledge(&mut self, response: &DeltaDiscoveryResponse) {
        self.request(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub async fn expect(&mut self, kind: Kind) -> DeltaDiscoveryResponse {
        let response = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("a response in time");
        let response = response.unwrap().expect("the stream goes on");
        assert_eq!(response.type_url, kind.type_url());
        response
    }

    pub async fn expect_nothing(&mut self) {
        if let Ok(response) = tokio::time::timeout(QUIET, self.responses.message()).await {
            panic!("nothing expected, but: {response:?}");
        }
    }
}

fn referenced(response: &DiscoveryResponse, from: Kind, to: Kind) -> Vec<String> {
    use weft_control::snapshot::consistency::references;
    use weft_control::translate::resource::Resource;
    let mut names = Vec::new();
    for body in &response.resources {
        let resource = Resource { kind: from, name: "".into(), hash: 0, body: body.value.clone().into() };
        names.extend(references(&resource).unwrap().into_iter().filter(|(kind, _)| *kind == to).map(|(_, name)| name));
    }
    names
}

pub fn eds_names(clusters: &DiscoveryResponse) -> Vec<String> {
    referenced(clusters, Kind::Cluster, Kind::Endpoints)
}

pub fn route_names(listeners: &DiscoveryResponse) -> Vec<String> {
    referenced(listeners, Kind::Listener, Kind::Route)
}

/// The text of a Service with one HTTP port and its endpoints.
pub fn service(name: &str, vip: &str, addresses: &[&str]) -> String {
    let endpoints = addresses.iter().map(|address| format!("- addresses: [{address}]\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: {vip}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: {name}-x, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         ports: [{{name: http, port: 8080}}]\nendpoints:\n{}",
        if endpoints.is_empty() { "  []\n" } else { &endpoints }
    )
}

pub fn cluster_name(service: &str) -> String {
    format!("outbound|80||{service}.shop.svc.cluster.local")
}

/// Polls until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The program itself, in a process of its own.
pub struct Process {
    pub child: Child,
    pub xds: SocketAddr,
    pub monitoring: SocketAddr,
    folder: TempDir,
}

impl Process {
    pub fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (manifests, log) = (folder.path().join("manifests"), folder.path().join("log"));
        std::fs::create_dir(&manifests).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(manifests.join(name), text).unwrap());
        let mut child = std::process::Command::new(binary())
            .args(["serve", "--manifests", manifests.to_str().unwrap(), "--plaintext-xds-address", "127.0.0.1:0"])
            .args(["--monitoring-address", "127.0.0.1:0", "--log-format", "json"])
            .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
            .spawn()
            .unwrap();
        let started = std::time::Instant::now();
        let serving = loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let mut events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if let Some(serving) = events.find(|event| event["fields"]["message"] == "serving") {
                break serving;
            }
            assert!(started.elapsed() < DEADLINE && child.try_wait().unwrap().is_none(), "it does not serve: {text}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let address = |name: &str| serving["fields"][name].as_str().unwrap().parse().unwrap();
        Self { xds: address("xds"), monitoring: address("monitoring"), child, folder }
    }

    /// Replaces a manifest the way that editors do.
    pub fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
    }

    pub fn write_bytes(&self, name: &str, text: &[u8]) {
        let manifests = self.folder.path().join("manifests");
        std::fs::write(manifests.join(".new"), text).unwrap();
        std::fs::rename(manifests.join(".new"), manifests.join(name)).unwrap();
    }

    pub fn wait_for_log(&self, text: &str) {
        let started = std::time::Instant::now();
        let read = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        while !read().contains(text) {
            assert!(started.elapsed() < DEADLINE, "{text} in {}", read());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has in memory, in KiB: now (`VmRSS`), or at most so far (`VmHWM`).
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_weft-control"))
}
