//! The gRPC services by their paths: aggregated and one for each kind, state of the world, delta and single questions,
//! and the clients' status. All but the last lead to `stream`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Streaming};
use tonic_prost::ProstDecoder;
use weft_xds::pb::envoy::service::discovery::v3::DiscoveryRequest;
use weft_xds::pb::envoy::service::status::v3::ClientStatusRequest;

use super::client_status;
use super::message::{Message, MessageBody};
use super::node::Node;
use super::session::Session;
use super::stream::{self, Context};
use super::subscription::Variant;
use super::wire::{Delta, StateOfTheWorld, Wire};
use crate::translate::resource::Kind;
use crate::transport::{Peer, is_raised};

/// A request larger than this is refused: 100,000 names of a usual length fit.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A stream on which nothing was asked for this long ends: it would hold its place for nothing.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(30);

/// All discovery services behind the ports.
#[derive(Clone)]
pub struct Discovery {
    context: Arc<Context>,
}

/// A method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Of one kind, or aggregated.
    Stream(Option<Kind>, Variant),
    Fetch(Kind),
    StreamClientStatus,
    FetchClientStatus,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix("/envoy.service.")?.split_once('/')?;
        let (kind, plural) = match service {
            "discovery.v3.AggregatedDiscoveryService" => (None, "AggregatedResources"),
            "cluster.v3.ClusterDiscoveryService" => (Some(Kind::Cluster), "Clusters"),
            "endpoint.v3.EndpointDiscoveryService" => (Some(Kind::Endpoints), "Endpoints"),
            "listener.v3.ListenerDiscoveryService" => (Some(Kind::Listener), "Listeners"),
            "route.v3.RouteDiscoveryService" => (Some(Kind::Route), "Routes"),
            "secret.v3.SecretDiscoveryService" => (Some(Kind::Secret), "Secrets"),
            "extension.v3.ExtensionConfigDiscoveryService" => (Some(Kind::ExtensionConfig), "ExtensionConfigs"),
            "status.v3.ClientStatusDiscoveryService" => {
                return match method {
                    "StreamClientStatus" => Some(Self::StreamClientStatus),
                    "FetchClientStatus" => Some(Self::FetchClientStatus),
                    _ => None,
                };
            }
            _ => return None,
        };
        match (method.strip_suffix(plural)?, kind) {
            ("Stream", kind) => Some(Self::Stream(kind, Variant::StateOfTheWorld)),
            ("Delta", kind) => Some(Self::Stream(kind, Variant::Delta)),
            ("Fetch", Some(kind)) => Some(Self::Fetch(kind)),
            _ => None,
        }
    }
}

impl Discovery {
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context) }
    }

    /// Starts the work on a request. Its task ends when the body that it feeds is dropped or its requests end.
    pub fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<MessageBody> {
        if let Some(status) = refusal_by_http(&request) {
            let mut response = Response::new(MessageBody::new(mpsc::channel(1).1));
            *response.status_mut() = status;
            return response;
        }
        // One: more would only be older by the time that it is read.
        let (messages, body) = mpsc::channel(1);
        let (context, peer) = (self.context.clone(), peer.clone());
        if let Err(status) = peer.may_ask() {
            tracing::warn!(peer = %peer.address, reason = status.message(), "refused a client");
            return refused(messages, body, status);
        }
        let call = Call::of(request.uri().path());
        let Some(place) = self.context.connections.admit() else {
            return refused(messages, body, Status::resource_exhausted("too many streams are open"));
        };
        match call {
            Some(Call::Stream(only, Variant::StateOfTheWorld)) => {
                let requests = requests::<<StateOfTheWorld as Wire>::Request>(request);
                tokio::spawn(stream::serve::<StateOfTheWorld>(context, place, only, peer, requests, messages));
            }
            Some(Call::Stream(only, Variant::Delta)) => {
                let requests = requests::<<Delta as Wire>::Request>(request);
                tokio::spawn(stream::serve::<Delta>(context, place, only, peer, requests, messages));
            }
            Some(Call::Fetch(kind)) => {
                let requests = requests(request);
                tokio::spawn(async move {
                    let answer = fetch(&context, kind, &peer, requests).await;
                    // A client that is gone does not want it any more.
                    _ = messages.send(answer).await;
                    drop(place);
                });
            }
            Some(call @ (Call::StreamClientStatus | Call::FetchClientStatus)) => {
                let mut requests = requests::<ClientStatusRequest>(request);
                tokio::spawn(async move {
                    while let Some(question) = next_or_end(&mut requests, &peer).await {
                        let answer = match question {
                            Ok(question) => client_status::answer(&context, &peer, question).await,
                            Err(status) => Err(status),
                        };
                        let is_last = answer.is_err() || call == Call::FetchClientStatus;
                        if messages.send(answer).await.is_err() || is_last {
                            break;
                        }
                    }
                    drop(place);
                });
            }
            None => {
                let path = request.uri().path();
                return refused(messages, body, Status::unimplemented(format!("{path} is not served here")));
            }
        }
        respond(body)
    }
}

/// What HTTP says of a request that cannot be gRPC's.
fn refusal_by_http(request: &Request<Incoming>) -> Option<StatusCode> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    (!is_grpc).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

fn refused(
    messages: mpsc::Sender<Result<Message, Status>>,
    body: mpsc::Receiver<Result<Message, Status>>,
    status: Status,
) -> Response<MessageBody> {
    messages.try_send(Err(status)).expect("the channel is new and has room for one");
    respond(body)
}

fn respond(body: mpsc::Receiver<Result<Message, Status>>) -> Response<MessageBody> {
    let mut response = Response::new(MessageBody::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    response
}

fn requests<T: prost::Message + Default + 'static>(request: Request<Incoming>) -> Streaming<T> {
    let decoder = ProstDecoder::<T>::new(BufferSettings::default());
    Streaming::new_request(decoder, request.into_body(), None, Some(REQUEST_BYTES_MAX))
}

/// The first request of a stream. `None`: the client left before.
pub(super) async fn first<T>(requests: &mut Streaming<T>) -> Result<Option<T>, Status> {
    match tokio::time::timeout(FIRST_REQUEST_WAIT, requests.next()).await {
        Ok(request) => request.transpose(),
        Err(_) => Err(Status::deadline_exceeded("nothing was asked on this stream")),
    }
}

/// The next request, unless the stream is over.
async fn next_or_end<T>(requests: &mut Streaming<T>, peer: &Peer) -> Option<Result<T, Status>> {
    let mut is_ending = peer.is_ending.clone();
    tokio::select! {
        request = requests.next() => request,
        () = is_raised(&mut is_ending) => None,
    }
}

/// A single question and its answer.
async fn fetch(
    context: &Context,
    kind: Kind,
    peer: &Peer,
    mut requests: Streaming<DiscoveryRequest>,
) -> Result<Message, Status> {
    let request = first(&mut requests).await?.ok_or_else(|| Status::cancelled("no question came"))?;
    let incoming = StateOfTheWorld::incoming(request);
    let shared = context.shared.borrow().clone();
    let node = Node::parse(incoming.node.as_ref()).map_err(|error| Status::invalid_argument(error.to_string()))?;
    peer.may_be(incoming.node.as_ref(), &node, &shared.mesh)?;
    stream::check_type(kind, &incoming.type_url)?;
    let snapshot = stream::snapshot_of(&node, &shared);
    let mut session = Session::new(Variant::StateOfTheWorld, context.connections.stream_id(), snapshot);
    session.request(kind, incoming.request);
    match session.next_response(Instant::now()) {
        Some(response) => Message::of_response(response, Variant::StateOfTheWorld),
        None => Err(Status::not_found("none of the resources exists")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_services() {
        let stream = |kind, variant| Some(Call::Stream(kind, variant));
        for (path, expected) in [
            (
                "discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                stream(None, Variant::StateOfTheWorld),
            ),
            ("discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", stream(None, Variant::Delta)),
            ("discovery.v3.AggregatedDiscoveryService/FetchAggregatedResources", None),
            ("endpoint.v3.EndpointDiscoveryService/DeltaEndpoints", stream(Some(Kind::Endpoints), Variant::Delta)),
            ("secret.v3.SecretDiscoveryService/StreamSecrets", stream(Some(Kind::Secret), Variant::StateOfTheWorld)),
            (
                "extension.v3.ExtensionConfigDiscoveryService/FetchExtensionConfigs",
                Some(Call::Fetch(Kind::ExtensionConfig)),
            ),
            ("status.v3.ClientStatusDiscoveryService/FetchClientStatus", Some(Call::FetchClientStatus)),
            ("cluster.v3.ClusterDiscoveryService/StreamListeners", None),
            ("runtime.v3.RuntimeDiscoveryService/StreamRuntime", None),
        ] {
            assert_eq!(Call::of(&format!("/envoy.service.{path}")), expected, "{path}");
        }
        assert_eq!(Call::of("/"), None);
    }
}
