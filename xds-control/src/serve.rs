//! The running control plane: a source, the translation of what it says, the xDS ports and the monitoring port.
//!
//! `start` returns once the manifests were read and all ports are bound; `run` serves until it is told to stop, then
//! ends the proxies' connections spread over the drain time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ads::registry::Connections;
use crate::ads::server::Discovery;
use crate::ads::stream::Context;
use crate::args::{Serve, SettingsError};
use crate::ca::files::{self, FilesError, Follow};
use crate::ca::service::Certificates;
use crate::ca::token::TokenError;
use crate::model::mesh::Mesh;
use crate::monitoring::Monitoring;
use crate::monitoring::access::{Access, AccessError};
use crate::snapshot::shared::{Conflict, Shared, Translator, Update};
use crate::source::manifests::{FolderError, ManifestSource};
use crate::transport::tls::{Reload, ServerTls, TlsError, TlsSources};
use crate::transport::{CertificateServer, Lifetimes, Port};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot understand the flags")]
    Settings(#[from] SettingsError),
    #[error("cannot read the manifests")]
    Manifests(#[from] FolderError),
    #[error("cannot guard the debugging pages (--debug-token-file)")]
    Access(#[from] AccessError),
    #[error("cannot be the certificate authority (--ca-dir)")]
    Authority(#[from] FilesError),
    #[error("cannot check service account tokens (--ca-jwks-file)")]
    Tokens(#[from] TokenError),
    #[error("cannot serve xDS over TLS")]
    Tls(#[from] TlsError),
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
    plaintext: Option<Port>,
    tls: Option<TlsPort>,
    monitoring: TcpListener,
    monitoring_state: Monitoring,
    lifetimes: Lifetimes,
}

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
        let plaintext = match serve.plaintext_xds_address {
            Some(address) => {
                if !address.ip().is_loopback() {
                    tracing::warn!(%address, "xDS without TLS can be read by whoever reaches it (--plaintext-xds-address)");
                }
                let listener = listen("--plaintext-xds-address", address).await?;
                Some(Port { listener, tls: None, certificates: None })
            }
            None => None,
        };
        let shared = watch::Sender::new(Arc::new(shared));
        let tls = match serve.tls_xds_address {
            Some(address) => Some(TlsPort::open(serve, address, shared.subscribe()).await?),
            None => None,
        };
        let monitoring = listen("--monitoring-address", serve.monitoring_address).await?;
        let connections = Arc::new(Connections::default());
        let monitoring_state = Monitoring {
            metrics,
            connections: connections.clone(),
            shared: shared.subscribe(),
            manifests: source.health(),
            trust_domain: serve.trust_domain.clone(),
            access: Access::new(serve.debug_token_file.as_deref())?,
        };
        let lifetimes = serve.lifetimes();
        Ok(Self { source, translator, shared, connections, plaintext, tls, monitoring, monitoring_state, lifetimes })
    }

    /// Of the port without TLS, if there is one.
    pub fn plaintext_address(&self) -> Option<SocketAddr> {
        self.plaintext.as_ref().and_then(|port| port.listener.local_addr().ok())
    }

    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|tls| tls.port.listener.local_addr().ok())
    }

    pub fn monitoring_address(&self) -> std::io::Result<SocketAddr> {
        self.monitoring.local_addr()
    }

    /// Serves until `stop` resolves and the proxies' connections ended.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { source, translator, shared, connections, plaintext, tls, monitoring, monitoring_state, lifetimes } =
            self;
        let (stopping, is_stopping) = watch::channel(false);
        let discovery = Discovery::new(Context { shared: shared.subscribe(), connections: connections.clone() });
        // Dropped, and so ended, when this function returns.
        let mut tasks = JoinSet::new();
        let meshes = source.mesh();
        tasks.spawn(source.run());
        tasks.spawn(publish(meshes, translator, shared));
        tasks.spawn(monitoring_state.serve(monitoring));
        let mut ports = JoinSet::new();
        let tls = tls.map(|TlsPort { port, reload, follow }| {
            tasks.spawn(reload.run());
            follow.map(|follow| tasks.spawn(follow.run()));
            port
        });
        for port in plaintext.into_iter().chain(tls) {
            ports.spawn(port.serve(discovery.clone(), lifetimes, is_stopping.clone()));
        }
        stop.await;
        tracing::info!(proxies = connections.list().len(), "stopping");
        stopping.send_replace(true);
        while ports.join_next().await.is_some() {}
    }
}

/// The port with TLS, and what keeps its certificates up to date.
struct TlsPort {
    port: Port,
    reload: Reload,
    follow: Option<Follow>,
}

impl TlsPort {
    async fn open(
        serve: &Serve,
        address: SocketAddr,
        shared: watch::Receiver<Arc<Shared>>,
    ) -> Result<Self, StartError> {
        let opened = serve.ca_dir.as_ref().map(|folder| files::open(folder, &serve.trust_domain, SystemTime::now()));
        let (authority, follow) = opened.transpose()?.unzip();
        let tokens = serve.token_rules();
        if let Some(tokens) = &tokens {
            tokens.check_keys()?;
        }
        let sources = TlsSources {
            server: serve.server_source(),
            client_ca: serve.tls_client_ca_file.clone(),
            authority: authority.clone(),
        };
        let (tls, reload) = ServerTls::load(sources, &serve.trust_domain)?;
        let lifetime_max = serve.ca_certificate_lifetime;
        let certificates =
            authority.map(|authority| CertificateServer::new(Certificates { authority, tokens, shared, lifetime_max }));
        let listener = listen("--tls-xds-address", address).await?;
        Ok(Self { port: Port { listener, tls: Some(tls), certificates }, reload, follow })
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
    metrics::counter!("pilot_push_triggers", "type" => "config").increment(1);
    metrics::gauge!("pilot_services").set(mesh.services.len() as f64);
    metrics::histogram!("pilot_xds_push_context_seconds").record(took.as_secs_f64());
    tracing::debug!(services = mesh.services.len(), ?work, ?took, "translated the mesh");
    shared
}
