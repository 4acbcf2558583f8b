//! Who is connected right now, and how far each one is: what `/debug/syncz`, `weft proxy-status` and the clients' status
//! service show.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::node::Node;
use super::subscription::{Held, Variant};
use crate::translate::resource::Kind;
use crate::transport::Peer;

/// All streams that are open.
#[derive(Debug)]
pub struct Connections {
    next_id: AtomicU64,
    open: Mutex<BTreeMap<u64, Connection>>,
    /// A place for each stream that may be open at a time.
    places: Arc<Semaphore>,
}

/// A stream costs some 30 KB, more with what it subscribes to.
const STREAMS_MAX: usize = 50_000;

impl Default for Connections {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { next_id: AtomicU64::default(), open: Mutex::default(), places }
    }
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub node: Node,
    pub peer: Peer,
    pub variant: Variant,
    pub since: SystemTime,
    /// By the short name of the kind.
    pub kinds: BTreeMap<&'static str, Status>,
    /// For questions that only the stream itself can answer.
    pub questions: mpsc::Sender<Question>,
}

/// "What do you hold?", with the way back.
pub type Question = oneshot::Sender<Vec<(Kind, Vec<Held>)>>;

/// How far a client is with one kind of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version sent last.
    pub sent: Option<String>,
    /// The version accepted last.
    pub acked: Option<String>,
    /// The version refused last, until what was refused in it is accepted.
    pub nacked: Option<String>,
    pub nack_reason: Option<String>,
    /// The names that the reason mentions of what was refused; none where it mentions none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nacked_resources: Vec<String>,
}

impl Connections {
    /// A place for a new stream, held for as long as it is open; `None` when there are too many.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            metrics::counter!("weft_xds_streams_refused").increment(1);
        }
        place
    }

    /// An identifier for a new stream, unlike any before in this process.
    pub fn stream_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a stream for as long as the guard lives.
    pub fn open(self: &Arc<Self>, id: u64, connection: Connection) -> OpenConnection {
        self.lock().insert(id, connection);
        metrics::gauge!("pilot_xds").increment(1.0);
        OpenConnection { id, connections: self.clone() }
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Connection> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's own entry.
#[derive(Debug)]
pub struct OpenConnection {
    id: u64,
    connections: Arc<Connections>,
}

impl OpenConnection {
    pub fn update(&self, kind: &'static str, status: Status) {
        if let Some(connection) = self.connections.lock().get_mut(&self.id) {
            connection.kinds.insert(kind, status);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
        metrics::gauge!("pilot_xds").decrement(1.0);
    }
}
