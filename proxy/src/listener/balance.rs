//! Exact balance: a connection goes to the worker that has the fewest of its listener, rather than to the one that the kernel
//! woke. For listeners with few, long connections; others don't pay for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::{listener::open_limit::OpenGuard, stats::WorkerIndex};

/// A listener's connections by worker.
pub struct Balance(Box<[AtomicUsize]>);

/// One connection, counted as long as this is there.
pub struct BalanceGuard {
    balance: Arc<Balance>,
    worker: WorkerIndex,
}

/// A connection on its way from the worker that accepted it to the one that shall have it.
pub struct Adopted {
    pub listener: Arc<str>,
    pub stream: std::net::TcpStream,
    pub peer: std::net::SocketAddr,
    pub places: Places,
}

/// What a connection counts against, as long as it is open.
#[derive(Default)]
pub struct Places {
    pub of_process: Option<OpenGuard>,
    pub of_listener: Option<OpenGuard>,
    pub balanced: Option<BalanceGuard>,
}

/// To every worker, by its index. As many entries wait as connections are open: file descriptors bound them.
pub type Adopters = Vec<mpsc::UnboundedSender<Adopted>>;

impl Balance {
    pub fn new(workers: usize) -> Arc<Balance> {
        Arc::new(Balance((0..workers).map(|_| AtomicUsize::new(0)).collect()))
    }

    /// The worker that has the fewest; `own` where it is one of several. Counted there at once, so that of two connections
    /// that come together the second sees the first.
    pub fn place(self: &Arc<Self>, own: WorkerIndex) -> (WorkerIndex, BalanceGuard) {
        let load = |worker: usize| (self.0[worker].load(Relaxed), worker != own.0);
        let worker = (0..self.0.len()).min_by_key(|&worker| load(worker)).map_or(own, WorkerIndex);
        self.0[worker.0].fetch_add(1, Relaxed);
        (worker, BalanceGuard { balance: self.clone(), worker })
    }
}

impl Drop for BalanceGuard {
    fn drop(&mut self) {
        self.balance.0[self.worker.0].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let balance = Balance::new(3);
        let place = |own| balance.place(WorkerIndex(own));
        let held: Vec<_> = (0..6).map(|_| place(1)).collect();
        let workers: Vec<_> = held.iter().map(|(worker, _)| worker.0).collect();
        assert_eq!(workers, [1, 0, 2, 1, 0, 2]);
        let left: Vec<_> = held.into_iter().filter(|(worker, _)| worker.0 != 2).collect();
        assert_eq!(place(0).0, WorkerIndex(2), "whose connections have ended");
        drop(left);
    }
}
