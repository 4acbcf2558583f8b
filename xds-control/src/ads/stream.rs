//! One gRPC stream: requests and new snapshots into its session, responses out.
//!
//! At most one response waits for the transport, so a client that doesn't read holds one response and up to the window
//! of HTTP/2; what it reads next is made from the newest snapshot then. The task ends with either side of its stream, or
//! when the server drains.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};
use tonic::Status as GrpcStatus;
use tracing::Instrument;

use super::node::Node;
use super::registry::{Connection, Connections, OpenConnection, Status};
use super::session::Session;
use super::subscription::{Reaction, Response};
use super::wire::{Incoming, Wire};
use crate::snapshot::shared::Shared;
use crate::snapshot::views::{Audience, Viewpoint};
use crate::snapshot::{Sets, Snapshot};
use crate::translate::resource::Kind;
use crate::translate::{self, SidecarInputs};

/// What all streams have in common.
#[derive(Clone)]
pub struct Context {
    pub shared: watch::Receiver<Arc<Shared>>,
    pub connections: Arc<Connections>,
    /// Set once the server is about to stop: streams end within this time.
    pub drain: watch::Receiver<Option<Duration>>,
}

/// A client may name this many resources of a kind.
const NAMES_MAX: usize = 100_000;

/// Serves a stream until it ends. `only` is the kind of a per-type service.
pub async fn serve<W: Wire>(
    context: Context,
    only: Option<Kind>,
    peer: Option<std::net::SocketAddr>,
    requests: impl Stream<Item = Result<W::Request, GrpcStatus>> + Send,
    responses: mpsc::Sender<Result<W::Response, GrpcStatus>>,
) {
    let mut requests = pin!(requests);
    let Some(Ok(first)) = requests.next().await else { return };
    let first = W::incoming(first);
    let node = match Node::parse(first.node.as_ref()) {
        Ok(node) => node,
        Err(error) => {
            tracing::warn!(?peer, %error, "refused a client");
            // The client may be gone already, and then nobody wants to know.
            _ = responses.send(Err(GrpcStatus::invalid_argument(error.to_string()))).await;
            return;
        }
    };
    let span = tracing::info_span!("xds", node = node.id());
    let end = async {
        tracing::info!(?peer, variant = ?W::VARIANT, "connected");
        let mut stream = NodeStream::new::<W>(context, only, peer, node);
        let end = match stream.take(first) {
            Ok(()) => stream.run::<W>(requests, &responses).await,
            Err(status) => Err(status),
        };
        tracing::info!(reason = end.as_ref().err().map(GrpcStatus::message), "disconnected");
        end
    };
    if let Err(status) = end.instrument(span).await {
        _ = responses.send(Err(status)).await;
    }
}

struct NodeStream {
    shared: watch::Receiver<Arc<Shared>>,
    drain: watch::Receiver<Option<Duration>>,
    only: Option<Kind>,
    node: Node,
    own: OwnResources,
    session: Session,
    connection: OpenConnection,
}

impl NodeStream {
    fn new<W: Wire>(context: Context, only: Option<Kind>, peer: Option<std::net::SocketAddr>, node: Node) -> Self {
        let Context { mut shared, connections, drain } = context;
        let id = connections.stream_id();
        let mut own = OwnResources::default();
        let snapshot = own.snapshot(&node, &shared.borrow_and_update());
        let connection = connections.open(
            id,
            Connection {
                node: node.clone(),
                peer,
                variant: W::VARIANT,
                since: SystemTime::now(),
                kinds: std::collections::BTreeMap::new(),
            },
        );
        Self { shared, drain, only, node, own, session: Session::new(W::VARIANT, id, snapshot), connection }
    }

    async fn run<W: Wire>(
        &mut self,
        mut requests: std::pin::Pin<&mut (impl Stream<Item = Result<W::Request, GrpcStatus>> + Send)>,
        responses: &mpsc::Sender<Result<W::Response, GrpcStatus>>,
    ) -> Result<(), GrpcStatus> {
        let mut slot = None;
        let mut ends_at: Option<Instant> = None;
        loop {
            if slot.is_some()
                && let Some(response) = self.session.next_response(Instant::now())
                && let Some(slot) = slot.take()
            {
                self.note_sent(&response);
                let slot: mpsc::OwnedPermit<_> = slot;
                slot.send(Ok(W::outgoing(response)));
                continue;
            }
            let wake_at = self.session.wake_at(Instant::now()).into_iter().chain(ends_at).min();
            tokio::select! {
                permit = responses.clone().reserve_owned(), if slot.is_none() => match permit {
                    Ok(permit) => slot = Some(permit),
                    // The client is gone.
                    Err(_) => return Ok(()),
                },
                request = requests.next() => match request {
                    Some(Ok(request)) => self.take(W::incoming(request))?,
                    // A client that resets its stream is not an error of ours.
                    Some(Err(_)) | None => return Ok(()),
                },
                changed = self.shared.changed() => match changed {
                    Ok(()) => {
                        let shared = self.shared.borrow_and_update().clone();
                        self.session.set_snapshot(self.own.snapshot(&self.node, &shared));
                    }
                    Err(_) => return Err(GrpcStatus::unavailable("the control plane is shutting down")),
                },
                Ok(()) = self.drain.changed() => {
                    // Each stream picks its own moment, so that clients don't come back as a herd.
                    let within = self.drain.borrow_and_update().unwrap_or_default();
                    ends_at = Some(Instant::now() + within.mul_f64(random_fraction()));
                }
                () = sleep_until(wake_at) => {
                    if ends_at.is_some_and(|end| Instant::now() >= end) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), GrpcStatus> {
        let Incoming { node: _, type_url, request } = incoming;
        let kind = match (self.only, type_url.as_str()) {
            (Some(only), "") => only,
            (Some(only), other) if other != only.type_url() => {
                return Err(GrpcStatus::invalid_argument(format!(
                    "type_url {other:?} is not what this service serves"
                )));
            }
            (None, "") => return Err(GrpcStatus::invalid_argument("type_url is required on an aggregated stream")),
            _ => match Kind::of(&type_url) {
                Some(kind) => kind,
                None => {
                    // Clients ask for whatever their builds know; no answer is the answer.
                    tracing::debug!(type_url, "this kind of resources is not served");
                    return Ok(());
                }
            },
        };
        let reaction = self.session.request(kind, request);
        self.react(kind, reaction);
        let names = self.session.subscription(kind).map_or(0, |subscription| subscription.interest().names().len());
        if names > NAMES_MAX {
            return Err(GrpcStatus::resource_exhausted(format!("more than {NAMES_MAX} resource names of one kind")));
        }
        Ok(())
    }

    fn react(&self, kind: Kind, reaction: Reaction) {
        let short = kind.short();
        match reaction {
            Reaction::Subscribed => tracing::debug!(kind = short, "subscribed"),
            Reaction::Amended => tracing::debug!(kind = short, "subscription changed"),
            Reaction::Stale => tracing::debug!(kind = short, "ignored a stale nonce"),
            Reaction::Accepted => tracing::debug!(kind = short, "accepted"),
            Reaction::Refused(refusal) => {
                metrics::counter!("pilot_total_xds_rejects", "type" => short).increment(1);
                tracing::warn!(
                    kind = short,
                    version = refusal.version,
                    reason = refusal.reason,
                    "refused by the proxy"
                );
            }
        }
        self.note_status(kind);
    }

    fn note_sent(&self, response: &Response) {
        let kind = response.kind.short();
        metrics::counter!("pilot_xds_pushes", "type" => kind).increment(1);
        tracing::debug!(
            kind,
            version = response.version,
            resources = response.resources.len(),
            removed = response.removed.len(),
            "sent"
        );
        self.note_status(response.kind);
    }

    fn note_status(&self, kind: Kind) {
        let Some(subscription) = self.session.subscription(kind) else { return };
        let refusal = subscription.refusal();
        let status = Status {
            sent: subscription.sent_version().map(ToOwned::to_owned),
            acked: subscription.accepted_version().map(ToOwned::to_owned),
            nacked: refusal.map(|refusal| refusal.version.clone()),
            nack_reason: refusal.map(|refusal| refusal.reason.clone()),
        };
        self.connection.update(kind.short(), status);
    }
}

/// A node's own resources, translated again only when what they depend on changed.
#[derive(Default)]
struct OwnResources {
    inputs: Option<SidecarInputs>,
    sets: Sets,
}

impl OwnResources {
    fn snapshot(&mut self, node: &Node, shared: &Shared) -> Snapshot {
        let sidecar = match node {
            Node::Sidecar(sidecar) => sidecar,
            Node::Proxyless(application) => {
                let viewpoint = Viewpoint { namespace: None, position: application.position.clone() };
                let particular = shared.view(Audience::Proxyless, &viewpoint);
                return Snapshot { shared: shared.proxyless().clone(), particular, own: Sets::default() };
            }
        };
        let (inputs, conflicts) = sidecar.inputs(&shared.mesh);
        if self.inputs.as_ref() != Some(&inputs) {
            for conflict in conflicts {
                tracing::warn!(
                    node = sidecar.id,
                    port = conflict.number,
                    kept = %conflict.kept,
                    refused = %conflict.refused,
                    "two Services send different protocols to one port"
                );
            }
            (self.sets, _) = Sets::sort(translate::sidecar(&inputs, &shared.settings));
            self.inputs = Some(inputs);
        }
        let particular = shared.view(Audience::Sidecars, &sidecar.viewpoint(&shared.mesh));
        Snapshot { shared: shared.sets.clone(), particular, own: self.sets.clone() }
    }
}

/// Everything that a node may ask for, as its streams would be sent it.
pub fn snapshot_of(node: &Node, shared: &Shared) -> Snapshot {
    OwnResources::default().snapshot(node, shared)
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Between 0 and 1. Only has to differ from stream to stream.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
