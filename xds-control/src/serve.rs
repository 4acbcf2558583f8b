//! The running control plane: a source, the translation of what it says, the xDS port and the monitoring port.
//!
//! `start` returns once the manifests were read and both ports are bound; `run` serves until it is told to stop, then
//! ends the proxies' streams spread over the drain time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ads::registry::Connections;
use crate::ads::server::Discovery;
use crate::ads::stream::Context;
use crate::args::{Serve, SettingsError};
use crate::model::mesh::Mesh;
use crate::monitoring::Monitoring;
use crate::snapshot::shared::{Conflict, Shared, Translator, Update};
use crate::source::manifests::{FolderError, ManifestSource};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot understand the flags")]
    Settings(#[from] SettingsError),
    #[error("cannot read the manifests")]
    Manifests(#[from] FolderError),
    #[error("cannot listen on {address} ({flag})")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// A control plane that is ready to serve.
pub struct Server {
    source: ManifestSource,
    translator: Translator,
    shared: watch::Sender<Arc<Shared>>,
    connections: Arc<Connections>,
    xds: TcpListener,
    monitoring: TcpListener,
    monitoring_state: Monitoring,
    drain_duration: Duration,
}

/// A peer that answers no ping for this long is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

impl Server {
    pub async fn start(
        serve: &Serve,
        metrics: metrics_exporter_prometheus::PrometheusHandle,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(serve.settings()?);
        let (manifests, debounce) = (serve.manifests.clone(), serve.debounce());
        let load = tokio::task::spawn_blocking(move || {
            let source = ManifestSource::load(&manifests, debounce)?;
            let mut translator = Translator::new(settings);
            let shared = translate(&mut translator, &source.mesh().borrow_and_update());
            Ok::<_, FolderError>((source, translator, shared))
        });
        let (source, translator, shared) = load.await.expect("loading does not panic and is not cancelled")?;
        let xds = listen("--plaintext-xds-address", serve.plaintext_xds_address).await?;
        let monitoring = listen("--monitoring-address", serve.monitoring_address).await?;
        let connections = Arc::new(Connections::default());
        let shared = watch::Sender::new(Arc::new(shared));
        let monitoring_state = Monitoring {
            metrics,
            connections: connections.clone(),
            shared: shared.subscribe(),
            manifests: source.health(),
            trust_domain: serve.trust_domain.clone(),
        };
        let drain_duration = serve.drain_duration;
        Ok(Self { source, translator, shared, connections, xds, monitoring, monitoring_state, drain_duration })
    }

    pub fn xds_address(&self) -> std::io::Result<SocketAddr> {
        self.xds.local_addr()
    }

    pub fn monitoring_address(&self) -> std::io::Result<SocketAddr> {
        self.monitoring.local_addr()
    }

    /// Serves until `stop` resolves.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), tonic::transport::Error> {
        let Self { source, translator, shared, connections, xds, monitoring, monitoring_state, drain_duration } = self;
        let (drain_in, drain) = watch::channel(None);
        let context = Context { shared: shared.subscribe(), connections: connections.clone(), drain: drain.clone() };
        // Dropped, and so ended, when this function returns.
        let mut tasks = JoinSet::new();
        let meshes = source.mesh();
        tasks.spawn(source.run());
        tasks.spawn(publish(meshes, translator, shared));
        tasks.spawn(monitoring_state.serve(monitoring));
        let stopped = async {
            stop.await;
            tracing::info!(proxies = connections.list().len(), "stopping");
            drain_in.send_replace(Some(drain_duration));
        };
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(Discovery::new(context).routes())
            .serve_with_incoming_shutdown(
                tonic::transport::server::TcpIncoming::from(xds).with_nodelay(Some(true)),
                stopped,
            )
            .await
    }
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { flag, address, source })
}

/// Translates every mesh that comes; those that come meanwhile are skipped but for the last.
async fn publish(
    mut meshes: watch::Receiver<Arc<Mesh>>,
    mut translator: Translator,
    shared: watch::Sender<Arc<Shared>>,
) {
    while meshes.changed().await.is_ok() {
        let mesh = meshes.borrow_and_update().clone();
        let translated = tokio::task::spawn_blocking(move || {
            let shared = translate(&mut translator, &mesh);
            (translator, shared)
        });
        match translated.await {
            Ok((back, next)) => {
                translator = back;
                shared.send_replace(Arc::new(next));
            }
            Err(error) => {
                tracing::error!(%error, "translating the mesh stopped; proxies keep what they have");
                return;
            }
        }
    }
}

fn translate(translator: &mut Translator, mesh: &Arc<Mesh>) -> Shared {
    let started = std::time::Instant::now();
    let known = translator.conflicts();
    let Update { shared, work } = translator.update(mesh);
    for conflict in shared.conflicts.iter().filter(|conflict| !known.contains(conflict)) {
        let Conflict { listener, kept, refused } = conflict;
        tracing::warn!(listener, %kept, %refused, "two Services claim the same address and port; the older keeps it");
    }
    let took = started.elapsed();
    metrics::gauge!("weft_port_conflicts").set(shared.conflicts.len() as f64);
    metrics::gauge!("pilot_services").set(mesh.services.len() as f64);
    metrics::histogram!("pilot_xds_push_context_seconds").record(took.as_secs_f64());
    tracing::debug!(services = mesh.services.len(), ?work, ?took, "translated the mesh");
    shared
}
