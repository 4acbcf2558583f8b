//! A control plane whose every answer is the test's: it hands over the requests that arrive and sends what it is told.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional, duplex},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::{Server, server::Connected},
};
use tower::util::MapRequestLayer;
use weft_xds::{
    json,
    pb::{
        envoy::service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
            aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
        },
        google::protobuf::Any,
    },
};

/// Long enough for a busy machine; a test that waits so long has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a silence is to be believed.
const SILENCE: Duration = Duration::from_millis(300);

pub struct AdsServer {
    pub address: SocketAddr,
    streams: mpsc::UnboundedReceiver<AdsStream>,
    delta_streams: mpsc::UnboundedReceiver<DeltaStream>,
}

/// One stream of the proxy in the delta variant. Dropping it ends the stream.
pub struct DeltaStream {
    /// The gRPC method that was called.
    pub method: String,
    requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    answers: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>,
}

/// One stream of the proxy. Dropping it ends the stream.
pub struct AdsStream {
    /// The gRPC method that was called.
    pub method: String,
    /// What came with the call.
    pub metadata: MetadataMap,
    requests: mpsc::UnboundedReceiver<DiscoveryRequest>,
    answers: mpsc::UnboundedSender<Result<DiscoveryResponse, Status>>,
}

/// Until the test's runtime ends.
fn serve<I>(address: SocketAddr, incoming: impl Stream<Item = io::Result<I>> + Send + 'static) -> AdsServer
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (sotw, streams) = mpsc::unbounded_channel();
    let (delta, delta_streams) = mpsc::unbounded_channel();
    let service = AggregatedDiscoveryServiceServer::new(Service { sotw, delta });
    let server = Server::builder().layer(MapRequestLayer::new(as_aggregated)).add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    AdsServer { address, streams, delta_streams }
}

/// The services of single kinds speak the same messages as the aggregated one.
fn as_aggregated<B>(mut request: http::Request<B>) -> http::Request<B> {
    let method = request.uri().path().to_owned();
    let aggregated = match method.rsplit('/').next() {
        Some(name) if name.starts_with("Delta") => "DeltaAggregatedResources",
        _ => "StreamAggregatedResources",
    };
    let path = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{aggregated}");
    *request.uri_mut() = path.parse().expect("a path");
    request.headers_mut().insert(METHOD, method.parse().expect("a header value"));
    request
}

/// Carries the method that was called.
const METHOD: &str = "x-method";

struct Service {
    sotw: mpsc::UnboundedSender<AdsStream>,
    delta: mpsc::UnboundedSender<DeltaStream>,
}

impl AdsServer {
    pub async fn start() -> AdsServer {
        AdsServer::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_at(address: SocketAddr) -> AdsServer {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let incoming = stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        serve(address, incoming)
    }

    pub async fn start_with_tls(config: Arc<rustls::ServerConfig>) -> AdsServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(config);
        let incoming = stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (ours, mut theirs) = duplex(1 << 16);
                tokio::spawn(async move { copy_bidirectional(&mut stream, &mut theirs).await });
                return Some((Ok(ours), (listener, acceptor)));
            }
        });
        serve(address, incoming)
    }

    /// The next stream of the delta variant that the proxy opens.
    pub async fn delta_stream(&mut self) -> DeltaStream {
        timeout(DEADLINE, self.delta_streams.recv())
            .await
            .expect("the proxy connects in time")
            .expect("the server runs")
    }

    /// The next stream that the proxy opens.
    pub async fn stream(&mut self) -> AdsStream {
        timeout(DEADLINE, self.streams.recv()).await.expect("the proxy connects in time").expect("the server runs")
    }
}

impl AdsStream {
    pub async fn request(&mut self) -> DiscoveryRequest {
        timeout(DEADLINE, self.requests.recv()).await.expect("a request in time").expect("the stream is open")
    }

    /// The next request if it arrived already.
    pub fn request_at_hand(&mut self) -> Option<DiscoveryRequest> {
        self.requests.try_recv().ok()
    }

    /// The next request, which must be about this type.
    pub async fn request_for(&mut self, type_url: &str) -> DiscoveryRequest {
        let request = self.request().await;
        assert_eq!(request.type_url, type_url, "{request:?}");
        request
    }

    /// The next request must acknowledge this version with this nonce.
    pub async fn acknowledged(&mut self, type_url: &str, version: &str, nonce: &str) -> DiscoveryRequest {
        let request = self.request_for(type_url).await;
        assert_eq!(request.error_detail, None);
        assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), (version, nonce));
        request
    }

    /// The next request must refuse the answer of this nonce; gives the reason.
    pub async fn refused(&mut self, type_url: &str, accepted_version: &str, nonce: &str) -> String {
        let request = self.request_for(type_url).await;
        assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), (accepted_version, nonce));
        let detail = request.error_detail.expect("a refusal");
        assert_eq!(detail.code, 13);
        detail.message
    }

    pub async fn silent(&mut self) {
        if let Ok(request) = timeout(SILENCE, self.requests.recv()).await {
            panic!("unexpected: {request:?}");
        }
    }

    /// The proxy ends it, whatever it sends before.
    pub async fn ends(mut self) {
        let ended = async { while self.requests.recv().await.is_some() {} };
        timeout(DEADLINE, ended).await.expect("the stream ends in time");
    }

    /// Resources in YAML, without their `@type`.
    pub fn answer(&self, type_url: &str, version: &str, nonce: &str, resources: &[String]) {
        self.answer_with(type_url, version, nonce, resources.iter().map(|text| resource(type_url, text)).collect());
    }

    pub fn answer_with(&self, type_url: &str, version: &str, nonce: &str, resources: Vec<Any>) {
        let answer = DiscoveryResponse {
            version_info: version.into(),
            nonce: nonce.into(),
            type_url: type_url.into(),
            resources,
            ..Default::default()
        };
        self.answers.send(Ok(answer)).expect("the stream is open");
    }

    pub fn fail(self, status: Status) {
        self.answers.send(Err(status)).expect("the stream is open");
    }
}

impl DeltaStream {
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(DEADLINE, self.requests.recv()).await.expect("a request in time").expect("the stream is open")
    }

    /// The next request if it arrived already.
    pub fn request_at_hand(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.requests.try_recv().ok()
    }

    /// The next request, which must be about this type.
    pub async fn request_for(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        let request = self.request().await;
        assert_eq!(request.type_url, type_url, "{request:?}");
        request
    }

    /// The next request must acknowledge this nonce.
    pub async fn acknowledged(&mut self, type_url: &str, nonce: &str) -> DeltaDiscoveryRequest {
        let request = self.request_for(type_url).await;
        assert_eq!((&request.error_detail, request.response_nonce.as_str()), (&None, nonce));
        request
    }

    pub async fn silent(&mut self) {
        if let Ok(request) = timeout(SILENCE, self.requests.recv()).await {
            panic!("unexpected: {request:?}");
        }
    }

    /// Resources by name and version, in YAML, without their `@type`.
    pub fn answer(&self, type_url: &str, nonce: &str, resources: &[(&str, &str, String)], removed: &[&str]) {
        let wrapped = |(name, version, text): &(&str, &str, String)| Resource {
            name: (*name).into(),
            version: (*version).into(),
            resource: Some(resource(type_url, text)),
            ..Default::default()
        };
        let answer = DeltaDiscoveryResponse {
            nonce: nonce.into(),
            type_url: type_url.into(),
            resources: resources.iter().map(wrapped).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.answers.send(Ok(answer)).expect("the stream is open");
    }

    pub fn fail(self, status: Status) {
        self.answers.send(Err(status)).expect("the stream is open");
    }
}

/// Forwards what comes until nobody wants it any more.
fn forward<T: Send + 'static>(mut incoming: Streaming<T>) -> mpsc::UnboundedReceiver<T> {
    let (forward, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(request)) = incoming.message().await {
            if forward.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

fn method_of(metadata: &MetadataMap) -> String {
    metadata.get(METHOD).and_then(|method| method.to_str().ok()).unwrap_or_default().to_owned()
}

pub fn resource(type_url: &str, text: &str) -> Any {
    let wrapped = json::yaml_to_value(text).map(|mut value| {
        value["@type"] = type_url.into();
        value
    });
    let value = wrapped.unwrap_or_else(|error| panic!("{error} in {text}"));
    json::from_value(&value).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let metadata = request.metadata().clone();
        let requests = forward(request.into_inner());
        let (answers, mut outgoing) = mpsc::unbounded_channel();
        let _ = self.sotw.send(AdsStream { method: method_of(&metadata), metadata, requests, answers }); // Err: the test ended
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| outgoing.poll_recv(context)))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let method = method_of(request.metadata());
        let requests = forward(request.into_inner());
        let (answers, mut outgoing) = mpsc::unbounded_channel();
        let _ = self.delta.send(DeltaStream { method, requests, answers }); // Err: the test ended
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| outgoing.poll_recv(context)))))
    }
}
