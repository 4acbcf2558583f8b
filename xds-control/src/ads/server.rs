//! The gRPC services: aggregated and one for each kind, state of the world and delta. All lead to `stream`.

use std::pin::Pin;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_xds::pb::envoy::service::cluster::v3::cluster_discovery_service_server::{
    ClusterDiscoveryService, ClusterDiscoveryServiceServer,
};
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use weft_xds::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::{
    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
};
use weft_xds::pb::envoy::service::listener::v3::listener_discovery_service_server::{
    ListenerDiscoveryService, ListenerDiscoveryServiceServer,
};
use weft_xds::pb::envoy::service::route::v3::route_discovery_service_server::{
    RouteDiscoveryService, RouteDiscoveryServiceServer,
};

use super::node::Node;
use super::session::Session;
use super::stream::{self, Context};
use super::subscription::Variant;
use super::wire::{Delta, StateOfTheWorld, Wire};
use crate::translate::resource::Kind;

/// A request larger than this is refused: 100,000 names of a usual length fit.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// All discovery services behind one port.
#[derive(Clone)]
pub struct Discovery {
    context: Context,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Discovery {
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    pub fn routes(self) -> tonic::service::Routes {
        let aggregated =
            AggregatedDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let clusters = ClusterDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let endpoints = EndpointDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let listeners = ListenerDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let routes = RouteDiscoveryServiceServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX);
        tonic::service::Routes::new(aggregated)
            .add_service(clusters)
            .add_service(endpoints)
            .add_service(listeners)
            .add_service(routes)
    }

    fn stream<W: Wire>(
        &self,
        only: Option<Kind>,
        request: Request<Streaming<W::Request>>,
    ) -> Response<Responses<W::Response>> {
        let peer = request.remote_addr();
        // One: more would only be older by the time that it is read.
        let (responses_in, responses) = mpsc::channel(1);
        let context = self.context.clone();
        // The task ends when the stream that it feeds is dropped or its requests end.
        tokio::spawn(stream::serve::<W>(context, only, peer, request.into_inner(), responses_in));
        Response::new(Box::pin(ReceiverStream::new(responses)))
    }

    /// A single question and its answer.
    fn fetch(&self, kind: Kind, request: DiscoveryRequest) -> Result<Response<DiscoveryResponse>, Status> {
        let incoming = StateOfTheWorld::incoming(request);
        let node = Node::parse(incoming.node.as_ref()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let snapshot = stream::snapshot_of(&node, &self.context.shared.borrow());
        let mut session = Session::new(Variant::StateOfTheWorld, self.context.connections.stream_id(), snapshot);
        session.request(kind, incoming.request);
        match session.next_response(Instant::now()) {
            Some(response) => Ok(Response::new(StateOfTheWorld::outgoing(response))),
            None => Err(Status::not_found("none of the resources exists")),
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.stream::<StateOfTheWorld>(None, request))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.stream::<Delta>(None, request))
    }
}

/// The services of single kinds differ in nothing but their names.
macro_rules! serve_kind {
    ($kind:expr, $service:ident, $Stream:ident $stream:ident, $Delta:ident $delta:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $service for Discovery {
            type $Stream = Responses<DiscoveryResponse>;
            type $Delta = Responses<DeltaDiscoveryResponse>;

            async fn $stream(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Result<Response<Self::$Stream>, Status> {
                Ok(self.stream::<StateOfTheWorld>(Some($kind), request))
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$Delta>, Status> {
                Ok(self.stream::<Delta>(Some($kind), request))
            }

            async fn $fetch(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
                self.fetch($kind, request.into_inner())
            }
        }
    };
}

serve_kind!(
    Kind::Cluster,
    ClusterDiscoveryService,
    StreamClustersStream stream_clusters,
    DeltaClustersStream delta_clusters,
    fetch_clusters
);
serve_kind!(
    Kind::Endpoints,
    EndpointDiscoveryService,
    StreamEndpointsStream stream_endpoints,
    DeltaEndpointsStream delta_endpoints,
    fetch_endpoints
);
serve_kind!(
    Kind::Listener,
    ListenerDiscoveryService,
    StreamListenersStream stream_listeners,
    DeltaListenersStream delta_listeners,
    fetch_listeners
);
serve_kind!(
    Kind::Route,
    RouteDiscoveryService,
    StreamRoutesStream stream_routes,
    DeltaRoutesStream delta_routes,
    fetch_routes
);
