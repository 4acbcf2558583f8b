//! One gRPC stream: requests and new snapshots into its session, responses out.
//!
//! At most one response waits for the transport, so a client that doesn't read holds one response and up to the window
//! of HTTP/2; what it reads next is made from the newest snapshot then. The task ends with either side of its stream, or
//! when its connection is to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::StreamExt as _;
use tonic::Status as GrpcStatus;
use tonic::codec::Streaming;
use tracing::Instrument;

use super::message::Message;
use super::node::{Node, SidecarNode};
use super::registry::{Connection, Connections, OpenConnection, Question, Status};
use super::server;
use super::session::Session;
use super::subscription::{Reaction, Refusal, Response, Variant};
use super::wire::{Incoming, Wire};
use crate::model::mesh::ServiceEntry;
use crate::model::workload::Workload;
use crate::snapshot::shared::Shared;
use crate::snapshot::views::Audience;
use crate::snapshot::{Sets, Snapshot};
use crate::translate::resource::Kind;
use crate::translate::{self, SidecarInputs};
use crate::transport::{Peer, is_raised};

/// What all streams have in common.
#[derive(Clone)]
pub struct Context {
    pub shared: watch::Receiver<Arc<Shared>>,
    pub connections: Arc<Connections>,
}

/// A client may name this many resources of a kind.
const NAMES_MAX: usize = 100_000;

type Messages = mpsc::Sender<Result<Message, GrpcStatus>>;

/// Serves a stream until it ends. `only` is the kind of a per-type service.
pub async fn serve<W: Wire>(
    context: Arc<Context>,
    place: OwnedSemaphorePermit,
    only: Option<Kind>,
    peer: Peer,
    mut requests: Streaming<W::Request>,
    messages: Messages,
) {
    let end = async {
        let Some(first) = server::first(&mut requests).await? else { return Ok(Ok(())) };
        let first = W::incoming(first);
        let node = Node::parse(first.node.as_ref()).map_err(|error| GrpcStatus::invalid_argument(error.to_string()))?;
        peer.may_be(first.node.as_ref(), &node, &context.shared.borrow().mesh)?;
        let span = tracing::info_span!("xds", node = node.id());
        let conversation = async {
            tracing::info!(peer = %peer.address, variant = ?W::VARIANT, "connected");
            let mut stream = NodeStream::new::<W>(&context, only, peer.clone(), node);
            let end = match stream.take(first) {
                Ok(()) => stream.run::<W>(&mut requests, &messages).await,
                Err(status) => Err(status),
            };
            tracing::info!(reason = end.as_ref().err().map(GrpcStatus::message), "disconnected");
            end
        };
        Ok::<_, GrpcStatus>(conversation.instrument(span).await)
    };
    let status = match end.await {
        Ok(end) => end.err(),
        Err(status) => {
            tracing::warn!(peer = %peer.address, reason = status.message(), "refused a client");
            Some(status)
        }
    };
    if let Some(status) = status {
        // The client may be gone already, and then nobody wants to know.
        _ = messages.send(Err(status)).await;
    }
    drop(place);
}

struct NodeStream {
    shared: watch::Receiver<Arc<Shared>>,
    is_ending: watch::Receiver<bool>,
    questions: mpsc::Receiver<Question>,
    only: Option<Kind>,
    node: Node,
    own: OwnResources,
    session: Session,
    connection: OpenConnection,
    /// Since when there is something new that the client does not have.
    behind_since: Option<Instant>,
}

impl NodeStream {
    fn new<W: Wire>(context: &Context, only: Option<Kind>, peer: Peer, node: Node) -> Self {
        let mut shared = context.shared.clone();
        let id = context.connections.stream_id();
        let mut own = OwnResources::default();
        let snapshot = own.snapshot(&node, &shared.borrow_and_update());
        let is_ending = peer.is_ending.clone();
        let (questions_in, questions) = mpsc::channel(1);
        let connection = Connection {
            node: node.clone(),
            peer,
            variant: W::VARIANT,
            since: SystemTime::now(),
            kinds: BTreeMap::new(),
            questions: questions_in,
        };
        let connection = context.connections.open(id, connection);
        let session = Session::new(W::VARIANT, id, snapshot);
        Self { shared, is_ending, questions, only, node, own, session, connection, behind_since: None }
    }

    async fn run<W: Wire>(
        &mut self,
        requests: &mut Streaming<W::Request>,
        messages: &Messages,
    ) -> Result<(), GrpcStatus> {
        let mut slot = None;
        loop {
            if slot.is_some() {
                if let Some(response) = self.session.next_response(Instant::now())
                    && let Some(slot) = slot.take()
                {
                    let slot: mpsc::OwnedPermit<_> = slot;
                    self.send(response, W::VARIANT, slot)?;
                    continue;
                }
                self.note_convergence();
            }
            let wake_at = self.session.wake_at(Instant::now());
            tokio::select! {
                permit = messages.clone().reserve_owned(), if slot.is_none() => match permit {
                    Ok(permit) => slot = Some(permit),
                    // The client is gone.
                    Err(_) => return Ok(()),
                },
                request = requests.next() => match request {
                    Some(request) => self.take(W::incoming(request?))?,
                    None => return Ok(()),
                },
                changed = self.shared.changed() => match changed {
                    Ok(()) => self.take_news(),
                    Err(_) => return Err(GrpcStatus::unavailable("the control plane is shutting down")),
                },
                Some(question) = self.questions.recv() => {
                    // Who asked may have lost patience.
                    _ = question.send(self.session.held());
                }
                () = is_raised(&mut self.is_ending) => return Ok(()),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn take_news(&mut self) {
        let shared = self.shared.borrow_and_update().clone();
        self.behind_since = self.behind_since.or(Some(shared.made_at));
        self.session.set_snapshot(self.own.snapshot(&self.node, &shared));
    }

    fn send(
        &mut self,
        response: Response,
        variant: Variant,
        slot: mpsc::OwnedPermit<Result<Message, GrpcStatus>>,
    ) -> Result<(), GrpcStatus> {
        let kind = response.kind;
        let short = kind.short();
        tracing::debug!(
            kind = short,
            version = response.version,
            resources = response.resources.len(),
            removed = response.removed.len(),
            "sent"
        );
        let message = Message::of_response(response, variant)?;
        metrics::counter!("pilot_xds_pushes", "type" => short).increment(1);
        metrics::histogram!("pilot_xds_config_size_bytes", "type" => short).record(message.bytes_total() as f64);
        slot.send(Ok(message));
        self.note_status(kind);
        Ok(())
    }

    /// Called when there is nothing to send: is it that the client has everything, or that its answer is waited for?
    fn note_convergence(&mut self) {
        if let Some(since) = self.behind_since.take_if(|_| self.session.wake_at(Instant::now()).is_none()) {
            metrics::histogram!("pilot_proxy_convergence_time").record(since.elapsed().as_secs_f64());
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), GrpcStatus> {
        let Incoming { node: _, type_url, request } = incoming;
        let kind = match (self.only, type_url.as_str()) {
            (Some(only), type_url) => {
                check_type(only, type_url)?;
                only
            }
            (None, "") => return Err(GrpcStatus::invalid_argument("type_url is required on an aggregated stream")),
            (None, type_url) => match Kind::of(type_url) {
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
            Reaction::Stale => {
                metrics::counter!("pilot_xds_expired_nonce", "type" => short).increment(1);
                tracing::debug!(kind = short, "ignored a stale nonce");
            }
            Reaction::Accepted => tracing::debug!(kind = short, "accepted"),
            Reaction::Refused(Refusal { version, reason, resources }) => {
                metrics::counter!("pilot_total_xds_rejects", "type" => short).increment(1);
                tracing::warn!(kind = short, version, reason, ?resources, "refused by the proxy");
            }
        }
        self.note_status(kind);
    }

    fn note_status(&self, kind: Kind) {
        let Some(subscription) = self.session.subscription(kind) else { return };
        let refusal = subscription.refusal();
        let status = Status {
            sent: subscription.sent_version().map(ToOwned::to_owned),
            acked: subscription.accepted_version().map(ToOwned::to_owned),
            nacked: refusal.map(|refusal| refusal.version.clone()),
            nack_reason: refusal.map(|refusal| refusal.reason.clone()),
            nacked_resources: refusal
                .map_or_else(Vec::new, |refusal| refusal.resources.iter().map(ToString::to_string).collect()),
        };
        self.connection.update(kind.short(), status);
    }
}

/// A per-type service serves requests of its kind, and those that leave it out.
pub(super) fn check_type(only: Kind, type_url: &str) -> Result<(), GrpcStatus> {
    if type_url.is_empty() || type_url == only.type_url() {
        return Ok(());
    }
    Err(GrpcStatus::invalid_argument(format!("type_url {type_url:?} is not what this service serves")))
}

/// A node's own resources, translated again only when what they depend on changed.
#[derive(Default)]
struct OwnResources {
    basis: Option<Basis>,
    inputs: Option<SidecarInputs>,
    sets: Sets,
}

/// What a sidecar's inputs are made from, to be compared without making them: there are as many sidecars as pods.
struct Basis {
    services_version: u64,
    workload: Option<Arc<Workload>>,
    /// Of which it is an endpoint.
    services: Vec<Arc<ServiceEntry>>,
}

impl Basis {
    fn of(sidecar: &SidecarNode, shared: &Shared) -> Self {
        let Shared { mesh, services_version, .. } = shared;
        let workload = mesh.workloads.get(&sidecar.pod).cloned();
        let of_pod = workload.iter().flat_map(|workload| &workload.addresses);
        let names = sidecar.addresses.iter().chain(of_pod).filter_map(|address| mesh.services_by_address.get(address));
        let services = names.flatten().filter_map(|name| mesh.services.get(name)).cloned().collect();
        Self { services_version: *services_version, workload, services }
    }

    fn is_same(&self, other: &Self) -> bool {
        let is_same_workload = match (&self.workload, &other.workload) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        is_same_workload
            && self.services_version == other.services_version
            && self.services.len() == other.services.len()
            && self.services.iter().zip(&other.services).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl OwnResources {
    fn snapshot(&mut self, node: &Node, shared: &Shared) -> Snapshot {
        let sidecar = match node {
            Node::Sidecar(sidecar) => sidecar,
            Node::Proxyless(application) => {
                let viewpoint = application.viewpoint();
                let particular = shared.view(Audience::Proxyless, &viewpoint);
                return Snapshot { shared: shared.proxyless().clone(), particular, own: Sets::default() };
            }
        };
        let basis = Basis::of(sidecar, shared);
        if !self.basis.as_ref().is_some_and(|known| known.is_same(&basis)) {
            self.translate(sidecar, shared);
            self.basis = Some(basis);
        }
        let particular = shared.view(Audience::Sidecars, &sidecar.viewpoint(&shared.mesh));
        Snapshot { shared: shared.sets.clone(), particular, own: self.sets.clone() }
    }

    fn translate(&mut self, sidecar: &SidecarNode, shared: &Shared) {
        let (inputs, conflicts) = sidecar.inputs(&shared.mesh);
        if self.inputs.as_ref() == Some(&inputs) {
            return;
        }
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
