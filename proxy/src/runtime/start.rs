//! From a bootstrap to a running configuration.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_xds::pb::google::protobuf::Any;

use crate::{
    access_log::AccessLogFiles,
    args::UnknownFields,
    config::bootstrap::Bootstrap,
    runtime::{
        RuntimeHandle, RuntimeQueries,
        apply::DataPath,
        feeds::Feeds,
        handle::HandleEnds,
        publish::Publisher,
        secret_files::SecretFiles,
        task::{Inputs, Runtime, RuntimeError},
        warming::{Start, Warming},
    },
    stats::Registry,
    upstream::event_log::{EventLog, EventLogs},
    xds::{
        client,
        connect::ControlPlaneError,
        counters::DiscoveryCounters,
        expiry::Expiries,
        failures::Failures,
        kind::ResourceKind,
        resource::{Origin, Received},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    ControlPlane(ControlPlaneError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Starts with the bootstrap: what of it needs no control plane serves when this returns. Runs until `shutdown` turns true.
/// To be called on the main thread's runtime.
pub fn start(
    bootstrap: Bootstrap,
    publisher: Publisher,
    stats: Arc<Registry>,
    files: Arc<AccessLogFiles>,
    unknown_fields: UnknownFields,
    shutdown: watch::Receiver<bool>,
) -> Result<RuntimeHandle, StartError> {
    let counters = Arc::new(DiscoveryCounters::default());
    let (asking, HandleEnds { queries, initialized }) = RuntimeQueries::new(counters.clone());
    let loaded_at = SystemTime::now();
    let (warming, actions) = Warming::start(start_of(&bootstrap, loaded_at), Instant::now());
    let (sender, events) = client::events();
    let (secret_files, changed_secrets) = SecretFiles::new();
    let (cluster_events, cluster_events_received) = mpsc::unbounded_channel();
    let outliers = bootstrap.outlier_event_log.as_deref().map(|path| EventLog::new(files.clone(), path));
    let event_logs = EventLogs { files, outliers };
    let default_bind = bootstrap.upstream_bind.clone();
    let runtime_values = bootstrap.runtime_values.clone();
    let mut runtime = Runtime {
        feeds: Feeds::new(&bootstrap, sender),
        expiries: Expiries::default(),
        unknown_fields,
        secret_files,
        bootstrap,
        loaded_at,
        warming,
        data_path: DataPath::new(publisher, stats, cluster_events, event_logs, default_bind, runtime_values),
        failures: Failures::default(),
        counters,
        initialized,
        fatal: None,
    };
    runtime.carry_out(actions, Instant::now());
    if let Some(fatal) = runtime.fatal {
        return Err(fatal.into());
    }
    runtime.feeds.open_aggregated().map_err(StartError::ControlPlane)?;
    let inputs = Inputs { events, cluster_events: cluster_events_received, changed_secrets, queries, shutdown };
    let task = tokio::spawn(runtime.run(inputs));
    Ok(RuntimeHandle::new(asking, task))
}

/// The bootstrap's own resources, with their messages for whoever asks what is there.
fn start_of(bootstrap: &Bootstrap, loaded_at: SystemTime) -> Start {
    let messages = bootstrap.message.static_resources();
    let origin = |kind: ResourceKind, message: &Bytes| {
        let message = Any { type_url: kind.type_url().to_owned(), value: message.to_vec() };
        Arc::new(Origin { version_info: String::new(), message, updated_at: loaded_at })
    };
    let clusters = bootstrap.clusters.iter().zip(&messages.clusters).map(|(config, message)| Received {
        name: config.name.clone(),
        config: config.clone(),
        origin: origin(ResourceKind::Cluster, message),
    });
    let listeners = bootstrap.listeners.iter().zip(&messages.listeners).map(|(config, message)| Received {
        name: config.name.clone(),
        config: config.clone(),
        origin: origin(ResourceKind::Listener, message),
    });
    let secrets = bootstrap.secrets.iter().zip(&messages.secrets).map(|(config, message)| Received {
        name: config.name.clone(),
        config: config.clone(),
        origin: origin(ResourceKind::Secret, message),
    });
    Start {
        clusters: clusters.collect(),
        listeners: listeners.collect(),
        secrets: secrets.collect(),
        cds: bootstrap.cds.clone(),
        lds: bootstrap.lds.clone(),
    }
}
