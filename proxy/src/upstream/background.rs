//! What goes on for a cluster while it is there, on the main thread: looking names up, checking health, outlier detection.
//! And what the configuration's task is told of it.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::mpsc, task::AbortHandle};

/// From a cluster to the configuration's task. There is at most one waiting of each kind a change, so the queue is as
/// bounded as the configuration and the look-ups and checks that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// Its hosts were looked up and checked for the first time: it may go live.
    Prepared { name: Arc<str>, hash: u64 },
    /// Workers are to look at its hosts anew.
    HostsChanged,
}

pub type ClusterEvents = mpsc::UnboundedSender<ClusterEvent>;

/// End when this is dropped.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<Vec<AbortHandle>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }

    pub fn end(&self) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end();
    }
}
