//! The ports that proxies connect to: accepts connections, with or without TLS, and says when each is to end.
//!
//! A connection ends when it is old, so that proxies spread over replicas anew, or when the process stops, each at a
//! moment of its own within the drain time, so that they don't come back as a herd: GOAWAY, then the end of its streams.
//! Invariants: handshakes and connections hold up nobody else; all of them are bounded in number and in time.

pub mod identity;
pub mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::Status;
use weft_xds::ca::IstioCertificateServiceServer;
use weft_xds::pb::envoy::config::core::v3 as xds;

use crate::ads::message::MessageBody;
use crate::ads::node::{Claims, Node};
use crate::ads::server::Discovery;
use crate::ca::service::Certificates;
use crate::model::mesh::Mesh;
use identity::Identity;
use tls::ServerTls;

/// Who is at the other end of a connection, and whether it is to end.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Proven by a client certificate.
    pub identity: Option<Arc<Identity>>,
    /// Without an identity it is sent nothing.
    pub has_to_prove: bool,
    pub is_ending: watch::Receiver<bool>,
}

impl Peer {
    /// Whether it may ask for configuration at all.
    pub fn may_ask(&self) -> Result<(), Status> {
        if self.has_to_prove && self.identity.is_none() {
            return Err(Status::unauthenticated(
                "configuration is for those who prove an identity by their certificate",
            ));
        }
        Ok(())
    }

    /// Whether this peer may speak for a node. Without an identity anyone may: the plaintext port, and a TLS port that
    /// asks for no certificates.
    pub fn may_be(&self, message: Option<&xds::Node>, node: &Node, mesh: &Mesh) -> Result<(), Status> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let workload = node.pod().and_then(|pod| mesh.workloads.get(pod));
        let known_account = workload.map(|workload| workload.service_account.as_str());
        identity
            .check_claims(&Claims::of(message), known_account)
            .map_err(|error| Status::permission_denied(error.to_string()))
    }
}

/// When connections end.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// More or less, by a tenth.
    pub connection_age_max: Duration,
    /// Connections end spread over this time when the process stops.
    pub drain: Duration,
}

/// A port that is bound.
pub struct Port {
    pub listener: TcpListener,
    pub tls: Option<ServerTls>,
    /// Signs certificates here too; who asks for configuration has to have one then.
    pub certificates: Option<CertificateServer>,
}

pub type CertificateServer = IstioCertificateServiceServer<Certificates>;

/// How the paths of calls for certificates begin.
const CERTIFICATES: &str = "/istio.v1.auth.IstioCertificateService/";
/// More are closed at once.
const CONNECTIONS_MAX: usize = 20_000;
/// Envoy opens another connection when it needs more, as it does without aggregation: a stream for each cluster.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nothing was asked for this long ends: it would hold its place for nothing.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(10);
/// A peer that answers no ping for this long is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of streams that were told to end; then the connection is closed.
const END_WAIT: Duration = Duration::from_secs(5);
/// Out of file descriptors or the like: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Port {
    /// Accepts connections until `is_stopping`, then waits for the last of them to end.
    pub async fn serve(self, discovery: Discovery, lifetimes: Lifetimes, mut is_stopping: watch::Receiver<bool>) {
        let Self { listener, tls, certificates } = self;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let Ok(place) = places.clone().try_acquire_owned() else {
                            metrics::counter!("weft_xds_connections_refused").increment(1);
                            continue;
                        };
                        let connection = Connection {
                            address,
                            discovery: discovery.clone(),
                            certificates: certificates.clone(),
                            lifetimes,
                            is_stopping: is_stopping.clone(),
                        };
                        let tls = tls.clone();
                        connections.spawn(async move {
                            connection.serve(stream, tls.as_ref()).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the xDS port cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = is_raised(&mut is_stopping) => break,
            }
        }
        // Whoever comes now is better served by another replica.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

struct Connection {
    address: SocketAddr,
    discovery: Discovery,
    certificates: Option<CertificateServer>,
    lifetimes: Lifetimes,
    is_stopping: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<&ServerTls>) {
        let address = self.address;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "the connection was closed at once");
            return;
        }
        let Some(tls) = tls else { return self.serve_http2(stream, None).await };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok((stream, identity))) => self.serve_http2(stream, identity).await,
            Ok(Err(error)) => {
                metrics::counter!("weft_xds_handshakes_failed").increment(1);
                tracing::warn!(%address, error = %error, cause = error.cause(), "refused a connection");
            }
            Err(_) => tracing::debug!(%address, "the TLS handshake took too long"),
        }
    }

    async fn serve_http2(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, identity: Option<Arc<Identity>>) {
        let (ending, is_ending) = watch::channel(false);
        let has_to_prove = self.certificates.is_some();
        let peer = Peer { address: self.address, identity, has_to_prove, is_ending };
        let (discovery, certificates) = (self.discovery.clone(), self.certificates.clone());
        let (asked, mut is_asked) = watch::channel(false);
        let service = service_fn(move |request: Request<Incoming>| {
            asked.send_if_modified(|asked| !std::mem::replace(asked, true));
            answer(request, &discovery, certificates.clone(), &peer)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let (address, end) = (self.address, self.end());
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%address, %error, "a connection ended badly");
                }
                return;
            }
            () = end => {}
            () = is_silent(&mut is_asked) => tracing::debug!(%address, "a connection without a request is closed"),
        }
        ending.send_replace(true);
        connection.as_mut().graceful_shutdown();
        if tokio::time::timeout(END_WAIT, connection).await.is_err() {
            tracing::debug!(%address, "a connection was closed before its streams ended");
        }
    }

    /// Resolves when the connection is to end.
    async fn end(&mut self) {
        let age_max = self.lifetimes.connection_age_max.mul_f64(0.9 + 0.2 * random_fraction());
        tokio::select! {
            () = tokio::time::sleep(age_max) => {}
            () = is_raised(&mut self.is_stopping) => {
                tokio::time::sleep(self.lifetimes.drain.mul_f64(random_fraction())).await;
            }
        }
    }
}

/// To the services by their names: certificates, or configuration.
fn answer(
    mut request: Request<Incoming>,
    discovery: &Discovery,
    certificates: Option<CertificateServer>,
    peer: &Peer,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    let is_for_certificates = request.uri().path().starts_with(CERTIFICATES);
    let answer = match certificates.filter(|_| is_for_certificates) {
        Some(mut certificates) => {
            request.extensions_mut().insert(peer.clone());
            Either::Left(tonic::codegen::Service::call(&mut certificates, request))
        }
        None => Either::Right(discovery.answer(request, peer)),
    };
    async move {
        Ok(match answer {
            Either::Left(signing) => signing.await?.map(Either::Left),
            Either::Right(response) => response.map(Either::Right),
        })
    }
}

type Body = Either<tonic::body::Body, MessageBody>;

/// Resolves if nothing is asked for too long after the start.
async fn is_silent(is_asked: &mut watch::Receiver<bool>) {
    if tokio::time::timeout(FIRST_REQUEST_WAIT, is_raised(is_asked)).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the flag is set, or nobody is left to set it. Cancel-safe.
pub async fn is_raised(flag: &mut watch::Receiver<bool>) {
    _ = flag.wait_for(|is_set| *is_set).await;
}

/// Between 0 and 1. Only has to differ from connection to connection.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
