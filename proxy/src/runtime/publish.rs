//! Handing configuration to the workers: opens the listening sockets, swaps snapshots in and tells the workers.
//!
//! Main thread only. Sockets live as long as a listener of that name has that address, whatever else of it changes, so a
//! listener's update refuses no connection.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::sync::{mpsc, watch};

use crate::{
    config::listener::{BindOptions, Listener, ListenerAddress},
    drain::Drain,
    listener::{balance::Adopters, open_limit::OpenLimit},
    net::socket,
    runtime::snapshot::Snapshot,
};

/// What workers and the main thread share.
pub struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    /// Given when the process is to end: every connection finishes what it has.
    pub drain: Drain,
    /// The process was told to end.
    pub ending: AtomicBool,
    /// Health checks of this proxy are to fail, and connections to end as they can.
    pub health_checks_fail: AtomicBool,
    /// How long connections of a filter chain that is gone may go on: `--drain-time-s`.
    pub drain_time: std::time::Duration,
    /// Whether hops tell each other that they have given up (`weft.retry_hints` of the runtime).
    pub retry_hints: bool,
    /// What `--service-cluster` and the bootstrap's node say this proxy belongs to.
    pub node_cluster: Arc<str>,
    /// Open downstream connections of all workers.
    pub connections: std::sync::atomic::AtomicUsize,
    /// None: there may be any number of them.
    pub global_limit: Option<Arc<OpenLimit>>,
    /// Where workers give connections that others shall have.
    pub adopters: Adopters,
}

pub struct Publisher {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    /// Grows with each publication; workers drop what they remember of an older one.
    published: watch::Sender<u64>,
    bound: HashMap<SocketKey, BoundSocket>,
}

/// From the main thread to a worker. The queue holds one entry a socket change at most, so it is bounded by the
/// configuration.
pub enum WorkerCommand {
    /// Accept from this socket for the listener of that name.
    Accept { id: SocketId, listener: Arc<str>, socket: std::net::TcpListener },
    /// Stop accepting from it.
    Close(SocketId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SocketKey {
    listener: Arc<str>,
    at: ListenerAddress,
    options: BindOptions,
}

struct BoundSocket {
    id: SocketId,
    /// One a worker; taken when the workers get them.
    waiting: Vec<std::net::TcpListener>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot bind '{address}': {reason}")]
pub struct BindError {
    address: std::net::SocketAddr,
    /// Part of the message: a NACK has room for one line.
    reason: io::Error,
}

impl Publisher {
    pub fn new(
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        published: watch::Sender<u64>,
    ) -> Publisher {
        Publisher { shared, workers, published, bound: HashMap::new() }
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Opens the sockets of a listener that is about to be published, or keeps those that it has.
    pub fn bind(&mut self, listener: &Listener) -> Result<(), BindError> {
        if !listener.bind_to_port {
            return Ok(());
        }
        for at in &listener.addresses {
            let key = SocketKey::of(listener, at);
            if !self.bound.contains_key(&key) {
                let waiting = self
                    .open(&listener.bind_options, at)
                    .map_err(|reason| BindError { address: at.address, reason })?;
                let id = next_socket_id();
                self.bound.insert(key, BoundSocket { id, waiting });
            }
        }
        Ok(())
    }

    /// Swaps the snapshot in. Workers start accepting on new sockets and stop on those that no listener has any more;
    /// filter chains that are gone drain their connections.
    pub fn publish(&mut self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let previous = self.shared.snapshot.swap(snapshot.clone());
        self.close_unused(&snapshot);
        for (key, bound) in &mut self.bound {
            for (worker, socket) in self.workers.iter().zip(bound.waiting.drain(..)) {
                let command = WorkerCommand::Accept { id: bound.id, listener: key.listener.clone(), socket };
                let _ = worker.send(command); // Err: the process is ending
            }
        }
        let kept: HashSet<_> =
            snapshot.listeners.iter().flat_map(|listener| listener.all_chains()).map(Arc::as_ptr).collect();
        for chain in previous.listeners.iter().flat_map(|listener| listener.all_chains()) {
            if !kept.contains(&Arc::as_ptr(chain)) {
                chain.drain.start();
            }
        }
        self.wake_workers();
    }

    /// After endpoints changed: workers drop the pools of hosts that are gone.
    pub fn endpoints_changed(&self) {
        self.wake_workers();
    }

    /// Tells every connection to finish what it has.
    pub fn drain_all(&self) {
        self.shared.drain.start();
        self.wake_workers();
    }

    /// They look at the snapshot and at the drains.
    pub fn wake_workers(&self) {
        self.published.send_modify(|version| *version += 1);
    }

    /// No new connections from now on, but for these listeners.
    pub fn close_but(&mut self, kept: &Snapshot) {
        self.close_unused(kept);
    }

    fn close_unused(&mut self, snapshot: &Snapshot) {
        let used: HashSet<SocketKey> = snapshot
            .listeners
            .iter()
            .filter(|listener| listener.config.bind_to_port)
            .flat_map(|listener| listener.config.addresses.iter().map(|at| SocketKey::of(&listener.config, at)))
            .collect();
        let workers = &self.workers;
        self.bound.retain(|key, bound| {
            let keep = used.contains(key);
            if !keep {
                for worker in workers {
                    let _ = worker.send(WorkerCommand::Close(bound.id));
                }
            }
            keep
        });
    }

    fn open(&self, options: &BindOptions, at: &ListenerAddress) -> io::Result<Vec<std::net::TcpListener>> {
        let first = socket::listen(at, options)?;
        if !options.enable_reuse_port {
            return self.workers.iter().map(|_| first.try_clone().map(Into::into)).collect();
        }
        // Port 0: the kernel picks one for the first socket, and the others join it.
        let chosen = first.local_addr()?.as_socket().unwrap_or(at.address);
        let at = ListenerAddress { address: chosen, ..at.clone() };
        let others = (1..self.workers.len()).map(|_| socket::listen(&at, options));
        std::iter::once(Ok(first)).chain(others).map(|socket| socket.map(Socket::into)).collect()
    }
}

impl SocketKey {
    fn of(listener: &Listener, at: &ListenerAddress) -> SocketKey {
        SocketKey { listener: listener.name.clone(), at: at.clone(), options: listener.bind_options.clone() }
    }
}

fn next_socket_id() -> SocketId {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    SocketId(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
