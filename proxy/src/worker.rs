//! A worker: one thread, one single-threaded runtime, its own sockets, pools and random numbers. Workers share nothing
//! mutable on the request path; each sees a new snapshot at its next connection or request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
};

use crate::{
    access_log::{AccessLogFiles, AccessLogs},
    http::date::DateCache,
    listener::{accept, registry::Connections},
    runtime::{
        publish::{Shared, SocketId, WorkerCommand},
        snapshot::Snapshot,
    },
    stats::WorkerIndex,
    upstream::pool::ClusterPools,
};

pub struct Worker {
    pub index: WorkerIndex,
    pub shared: Arc<Shared>,
    pub access_logs: AccessLogs,
    pub dates: DateCache,
    pub connections: Connections,
    random: RefCell<fastrand::Rng>,
    view: RefCell<View>,
    next_connection_id: Cell<u64>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

/// Of a buffer that bytes are copied through.
const BUFFER_BYTES: usize = 64 * 1024;
/// Kept for the next one who needs one.
const SPARE_BUFFERS_MAX: usize = 4;

/// The snapshot as this worker last saw it, and what it has built for its clusters.
struct View {
    published: watch::Receiver<u64>,
    snapshot: Arc<Snapshot>,
    clusters: HashMap<Arc<str>, Rc<ClusterPools>>,
}

/// What a worker is started with.
pub struct WorkerSeed {
    pub index: WorkerIndex,
    pub shared: Arc<Shared>,
    pub access_log_files: Arc<AccessLogFiles>,
    pub published: watch::Receiver<u64>,
    pub commands: mpsc::UnboundedReceiver<WorkerCommand>,
}

/// How often connections are looked over for being idle or too old: how much later than configured they may end.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until the sender of commands is gone.
pub fn run(seed: WorkerSeed) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let WorkerSeed { index, shared, access_log_files, published, commands } = seed;
    let worker = Rc::new(Worker {
        view: RefCell::new(View {
            snapshot: shared.snapshot.load_full(),
            published: published.clone(),
            clusters: HashMap::new(),
        }),
        index,
        shared,
        access_logs: AccessLogs::new(access_log_files),
        dates: DateCache::default(),
        connections: Connections::default(),
        random: RefCell::new(fastrand::Rng::new()),
        next_connection_id: Cell::new(0),
        buffers: RefCell::default(),
    });
    LocalSet::new().block_on(&runtime, serve(worker, commands, published));
    Ok(())
}

async fn serve(
    worker: Rc<Worker>,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
    mut published: watch::Receiver<u64>,
) {
    // Dropped, a sender tells its task to stop accepting.
    let mut accepting: HashMap<SocketId, oneshot::Sender<()>> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(WorkerCommand::Accept { id, listener, socket }) => {
                    let (closing, closed) = oneshot::channel();
                    tokio::task::spawn_local(accept::run(worker.clone(), listener, socket, closed));
                    accepting.insert(id, closing);
                }
                Some(WorkerCommand::Close(id)) => {
                    accepting.remove(&id);
                }
            },
            Ok(()) = published.changed() => {
                worker.drop_stale_pools();
                worker.connections.wake_all();
            }
            _ = sweep.tick() => {
                worker.connections.look_over(Instant::now());
                worker.close_idle_connections();
                worker.access_logs.flush();
            }
        }
    }
}

impl Worker {
    /// The newest snapshot. Cheap: an atomic load when nothing was published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut view = self.view.borrow_mut();
        view.refresh(&self.shared);
        view.snapshot.clone()
    }

    /// This worker's side of a cluster; None: there is no such cluster.
    pub fn cluster(&self, name: &Arc<str>) -> Option<Rc<ClusterPools>> {
        let mut view = self.view.borrow_mut();
        view.refresh(&self.shared);
        if let Some(pools) = view.clusters.get(name) {
            return Some(pools.clone());
        }
        let cluster = view.snapshot.clusters.get(name)?.clone();
        let pools = ClusterPools::new(cluster, self.index);
        view.clusters.insert(name.clone(), pools.clone());
        Some(pools)
    }

    pub fn with_random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    pub fn give_buffer(&self, buffer: Vec<u8>) {
        let mut spare = self.buffers.borrow_mut();
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    }

    /// Unique in the process: workers number in turns.
    pub fn next_connection_id(&self) -> u64 {
        let id = self.next_connection_id.get();
        self.next_connection_id.set(id + 1);
        id * 1024 + self.index.0 as u64
    }

    pub fn connection_opened(self: &Rc<Self>) -> ConnectionCount {
        self.shared.connections.fetch_add(1, Relaxed);
        ConnectionCount(self.shared.clone())
    }

    fn drop_stale_pools(&self) {
        let mut view = self.view.borrow_mut();
        view.refresh(&self.shared);
        for pools in view.clusters.values() {
            pools.refresh();
        }
    }

    fn close_idle_connections(&self) {
        for pools in self.view.borrow().clusters.values() {
            pools.close_idle();
        }
    }
}

impl View {
    /// Pools of clusters that are gone or replaced close: what is under way on them ends by itself.
    fn refresh(&mut self, shared: &Shared) {
        if !self.published.has_changed().unwrap_or(false) {
            return;
        }
        self.published.mark_unchanged();
        let snapshot = shared.snapshot.load_full();
        self.clusters.retain(|name, pools| {
            let keep = snapshot.clusters.get(name).is_some_and(|cluster| Arc::ptr_eq(cluster, pools.cluster()));
            if !keep {
                pools.close();
            }
            keep
        });
        self.snapshot = snapshot;
    }
}

/// Counts one open downstream connection of the process.
pub struct ConnectionCount(Arc<Shared>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
