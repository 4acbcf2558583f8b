//! Who is connected right now, and how far each one is: what `/debug/syncz` and `weft proxy-status` show.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::node::Node;
use super::subscription::Variant;

/// All streams that are open.
#[derive(Debug, Default)]
pub struct Connections {
    next_id: AtomicU64,
    open: Mutex<BTreeMap<u64, Connection>>,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub node: Node,
    pub peer: Option<std::net::SocketAddr>,
    pub variant: Variant,
    pub since: SystemTime,
    /// By the short name of the kind.
    pub kinds: BTreeMap<&'static str, Status>,
}

/// How far a client is with one kind of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version sent last.
    pub sent: Option<String>,
    /// The version accepted last.
    pub acked: Option<String>,
    /// The version refused last, unless something was accepted since.
    pub nacked: Option<String>,
    pub nack_reason: Option<String>,
}

impl Connections {
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
