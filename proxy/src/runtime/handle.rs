//! The runtime as the rest of the process sees it: whether it is ready, what it has, and how it ended.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    runtime::task::RuntimeError,
    xds::{
        counters::DiscoveryCounters,
        dump::{ConfigDump, EndpointsInDump},
    },
};

/// Questions that wait to be answered; asking further ones waits.
const QUERY_QUEUE: usize = 16;

pub struct RuntimeHandle {
    asking: RuntimeQueries,
    task: JoinHandle<Result<(), RuntimeError>>,
}

/// For those who only ask, such as the admin server.
#[derive(Clone)]
pub struct RuntimeQueries {
    queries: mpsc::Sender<Query>,
    initialized: watch::Receiver<bool>,
    counters: Arc<DiscoveryCounters>,
}

pub(super) enum Query {
    ConfigDump {
        endpoints: EndpointsInDump,
        answer: oneshot::Sender<ConfigDump>,
    },
    Drain {
        step: DrainStep,
        answer: oneshot::Sender<()>,
    },
    /// Connections are to see whether something is said to them.
    Wake,
}

/// How a proxy ends. Its configuration goes on changing meanwhile: hosts come and go while requests finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// Every connection is told to finish; new ones are still taken, for others may not know yet that this proxy ends.
    Connections(Listeners),
    /// No new connections from now on.
    Listeners(Listeners),
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    All,
    /// Those whose traffic comes to this pod.
    Inbound,
}

#[derive(Debug, thiserror::Error)]
#[error("the configuration is shutting down")]
pub struct Stopped;

/// The runtime's ends of what a handle holds.
pub(super) struct HandleEnds {
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) initialized: watch::Sender<bool>,
}

impl RuntimeQueries {
    pub(super) fn new(counters: Arc<DiscoveryCounters>) -> (RuntimeQueries, HandleEnds) {
        let (ask, queries) = mpsc::channel(QUERY_QUEUE);
        let (initialized, is_initialized) = watch::channel(false);
        let asking = RuntimeQueries { queries: ask, initialized: is_initialized, counters };
        (asking, HandleEnds { queries, initialized })
    }

    /// The first configuration is complete: clusters and listeners are warm, or waited their time.
    pub fn is_initialized(&self) -> bool {
        *self.initialized.borrow()
    }

    /// Waits for the first configuration. False: the runtime ended before.
    pub async fn initialized(&self) -> bool {
        self.initialized.clone().wait_for(|initialized| *initialized).await.is_ok()
    }

    pub fn counters(&self) -> &Arc<DiscoveryCounters> {
        &self.counters
    }

    pub async fn config_dump(&self, endpoints: EndpointsInDump) -> Result<ConfigDump, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.queries.send(Query::ConfigDump { endpoints, answer }).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Connections look at the drains.
    pub fn wake_connections(&self) {
        let _ = self.queries.try_send(Query::Wake); // Err: what is before it in the queue takes its time, or the end is near
    }

    pub async fn drain(&self, step: DrainStep) -> Result<(), Stopped> {
        let (answer, answered) = oneshot::channel();
        self.queries.send(Query::Drain { step, answer }).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

impl RuntimeHandle {
    pub(super) fn new(asking: RuntimeQueries, task: JoinHandle<Result<(), RuntimeError>>) -> RuntimeHandle {
        RuntimeHandle { asking, task }
    }

    pub fn queries(&self) -> &RuntimeQueries {
        &self.asking
    }

    /// Waits for the end, which comes with the shutdown signal or when the configuration of the bootstrap turns out to be
    /// impossible. The publisher is gone then, and with it the workers' reason to run. Cancel-safe.
    pub async fn ended(&mut self) -> Result<(), RuntimeError> {
        (&mut self.task).await?
    }
}
