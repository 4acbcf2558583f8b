//! The process: starts workers, configuration and admin server, and ends them in order.
//!
//! The main thread runs everything that is not traffic, on a single-threaded runtime of its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    access_log::AccessLogFiles,
    admin,
    args::{Args, Mode},
    config::bootstrap::Bootstrap,
    drain::Drain,
    listener::{balance::Adopted, open_limit::OpenLimit},
    logging::Log,
    runtime::{
        self, DrainStep, Listeners, RuntimeQueries,
        publish::{Publisher, Shared},
        snapshot::Snapshot,
    },
    stats::{
        Registry, WorkerIndex,
        tags::{TagRule, TagValue},
    },
    worker::{self, WorkerSeed},
};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    #[error("cannot write '{path}'")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Start(#[from] runtime::StartError),
    #[error(transparent)]
    Configuration(#[from] runtime::RuntimeError),
}

/// Serves until told to end; or only starts everything, where that is what was asked for.
pub fn run(args: &Args, bootstrap: Bootstrap, log: &Log) -> Result<(), ServerError> {
    let started = Instant::now();
    let workers = args.concurrency;
    let registry = Arc::new(Registry::new(workers));
    let (adopters, adopted) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        drain: Drain::default(),
        ending: AtomicBool::new(false),
        health_checks_fail: AtomicBool::new(false),
        drain_time: args.drain_time,
        retry_hints: bootstrap.runtime_values.flag("weft.retry_hints", true),
        node_cluster: bootstrap.node.cluster.as_str().into(),
        connections: AtomicUsize::new(0),
        global_limit: connections_max(&bootstrap).map(OpenLimit::new),
        adopters,
    });
    let (files, log_thread) = AccessLogFiles::start().map_err(ServerError::Thread)?;
    let files = Arc::new(files);
    let (publisher, threads) = start_workers(adopted, &shared, &files)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Runtime)?;
    let process = Process { args, log, started, registry, shared, files: files.clone() };
    let served = runtime.block_on(process.serve(bootstrap, publisher));
    // The publisher is gone, and with it the workers' reason to run.
    drop(runtime);
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker ended by a panic");
        }
    }
    files.end();
    if log_thread.join().is_err() {
        tracing::error!("the access log's writer ended by a panic");
    }
    served
}

/// Of downstream connections.
fn connections_max(bootstrap: &Bootstrap) -> Option<usize> {
    bootstrap.overload.downstream_connections_max.or(bootstrap.runtime_values.process_connections_max())
}

/// One for each of the receivers.
fn start_workers(
    adopted: Vec<mpsc::UnboundedReceiver<Adopted>>,
    shared: &Arc<Shared>,
    files: &Arc<AccessLogFiles>,
) -> Result<(Publisher, Vec<JoinHandle<()>>), ServerError> {
    let published = watch::Sender::new(0);
    let mut commands = Vec::new();
    let mut threads = Vec::new();
    for (index, adopted) in adopted.into_iter().enumerate() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let seed = WorkerSeed {
            index: WorkerIndex(index),
            shared: shared.clone(),
            access_log_files: files.clone(),
            published: published.subscribe(),
            commands: receiver,
            adopted,
        };
        let run = move || {
            if let Err(error) = worker::run(seed) {
                tracing::error!(%error, "a worker cannot run");
            }
        };
        let thread = std::thread::Builder::new().name(format!("wrk:worker_{index}"));
        threads.push(thread.spawn(run).map_err(ServerError::Thread)?);
        commands.push(sender);
    }
    Ok((Publisher::new(shared.clone(), commands, published), threads))
}

struct Process<'a> {
    args: &'a Args,
    log: &'a Log,
    started: Instant,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    files: Arc<AccessLogFiles>,
}

impl Process<'_> {
    async fn serve(self, mut bootstrap: Bootstrap, publisher: Publisher) -> Result<(), ServerError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
        // Envoy's: access logs were rotated.
        let mut reopen = signal(SignalKind::user_defined1()).map_err(ServerError::Signals)?;
        let admin_server = bootstrap.admin.clone();
        let server_node = bootstrap.node.clone();
        let runtime_values = bootstrap.runtime_values.clone();
        let mut stats_rules = std::mem::take(&mut bootstrap.stats);
        let fixed =
            |(name, value): &(String, String)| TagRule { name: name.clone(), value: TagValue::Fixed(value.clone()) };
        stats_rules.tags.extend(self.args.stats_tags.iter().map(fixed));
        let stats_flush_interval = bootstrap.stats_flush_interval;
        let bootstrap_version = bootstrap.stats_server_version;
        for name in runtime_values.unread_names() {
            tracing::info!(name, "a runtime value that nothing here depends on");
        }
        let (shutdown, shutdown_asked) = watch::channel(false);
        let mut runtime = runtime::start(
            bootstrap,
            publisher,
            self.registry.clone(),
            self.files.clone(),
            self.args.dynamic_fields,
            shutdown_asked,
        )?;
        let (quit, mut quit_asked) = mpsc::channel(1);
        let admin = admin::Admin {
            runtime: runtime.queries().clone(),
            registry: self.registry.clone(),
            shared: self.shared.clone(),
            files: self.files.clone(),
            started: self.started,
            args: self.args.clone(),
            node: server_node,
            stats_rules,
            stats_flush_interval,
            stats_version: bootstrap_version,
            runtime_values,
            log: self.log.clone(),
            quit,
        };
        if let Some(server) = admin_server {
            let listening = admin::bind(&server)?;
            if let Some(path) = &self.args.admin_address_path {
                let bound = listening.local_addr().map_or(server.address, |bound| bound);
                write_file(path, &bound.to_string())?;
            }
            tokio::spawn(admin::run(Arc::new(admin), server, listening)); // ends with the process
        } else {
            drop(admin);
        }
        if let Some(path) = &self.args.base_id_path {
            write_file(path, &self.args.base_id.to_string())?;
        }
        if self.args.mode == Mode::InitOnly {
            shutdown.send_replace(true);
            return Ok(runtime.ended().await?);
        }
        tracing::info!(workers = self.args.concurrency, "started");
        loop {
            tokio::select! {
                ended = runtime.ended() => return Ok(ended?),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(()) = quit_asked.recv() => break,
                _ = reopen.recv() => {
                    self.files.reopen();
                    self.log.reopen();
                }
            }
        }
        tokio::select! {
            () = self.drain(runtime.queries()) => {}
            _ = terminate.recv() => tracing::warn!("told twice to end: not waiting any longer"),
            _ = interrupt.recv() => tracing::warn!("told twice to end: not waiting any longer"),
        }
        shutdown.send_replace(true);
        Ok(runtime.ended().await?)
    }

    /// First everything finishes while new connections are still taken, for others may not know yet that this proxy ends;
    /// then no more are taken, and what is under way may end.
    async fn drain(&self, runtime: &RuntimeQueries) {
        self.shared.ending.store(true, Relaxed);
        tracing::info!(connections = self.open_connections(), "draining");
        // Err, here and below: the runtime ended on its own, and the connections with it.
        let _ = runtime.drain(DrainStep::Connections(Listeners::All)).await;
        self.wait_for_quiet(self.args.termination_drain, QUIET_BEFORE_CLOSING).await;
        let _ = runtime.drain(DrainStep::Listeners(Listeners::All)).await;
        self.wait_for_quiet(self.args.drain_time, Duration::ZERO).await;
        tracing::info!(connections = self.open_connections(), "ending");
    }

    /// Until no connection was open for the `quiet` time, `longest` at most.
    async fn wait_for_quiet(&self, longest: Duration, quiet: Duration) {
        let begun = Instant::now();
        let mut quiet_since = None;
        while begun.elapsed() < longest {
            quiet_since = if self.open_connections() > 0 { None } else { quiet_since.or_else(|| Some(Instant::now())) };
            if quiet_since.is_some_and(|since| since.elapsed() >= quiet) {
                return;
            }
            tokio::time::sleep(QUIET_LOOK_INTERVAL).await;
        }
    }

    fn open_connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), ServerError> {
    std::fs::write(path, text).map_err(|source| ServerError::File { path: path.to_owned(), source })
}

/// Without any connection for so long, nobody is expected to come any more.
const QUIET_BEFORE_CLOSING: Duration = Duration::from_secs(1);
const QUIET_LOOK_INTERVAL: Duration = Duration::from_millis(20);
