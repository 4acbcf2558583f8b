//! From a bootstrap to a running configuration.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::sync::{mpsc, watch};
use weft_xds::any;

use crate::{
    config::bootstrap::Bootstrap,
    runtime::{
        RuntimeHandle, RuntimeQueries,
        apply::DataPath,
        handle::HandleEnds,
        publish::Publisher,
        task::{Runtime, RuntimeError},
        warming::{Start, Warming},
    },
    stats::Registry,
    xds::{
        client,
        connect::{ControlPlane, ControlPlaneError},
        counters::DiscoveryCounters,
        failures::Failures,
        resource::{Origin, Received},
        sotw::SotwStream,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the bootstrap names no static cluster '{0}' for its configuration stream")]
    NoControlPlaneCluster(Arc<str>),
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Starts with the bootstrap: what of it needs no control plane serves when this returns. Runs until `shutdown` turns true.
/// To be called on the main thread's runtime.
pub fn start(
    bootstrap: Bootstrap,
    publisher: Publisher,
    stats: Arc<Registry>,
    shutdown: watch::Receiver<bool>,
) -> Result<RuntimeHandle, StartError> {
    let control_plane = control_plane(&bootstrap)?;
    let counters = Arc::new(DiscoveryCounters::default());
    let (asking, HandleEnds { queries, initialized }) = RuntimeQueries::new(counters.clone());
    let loaded_at = SystemTime::now();
    let (warming, actions) = Warming::start(start_of(&bootstrap, loaded_at), Instant::now());
    let first_only = bootstrap.ads.as_ref().is_some_and(|ads| ads.set_node_on_first_message_only);
    let (cluster_events, cluster_events_received) = mpsc::unbounded_channel();
    let mut runtime = Runtime {
        stream: SotwStream::new(bootstrap.node.clone(), first_only),
        bootstrap,
        loaded_at,
        warming,
        data_path: DataPath::new(publisher, stats, cluster_events),
        requests: None,
        failures: Failures::default(),
        counters,
        initialized,
        fatal: None,
    };
    runtime.carry_out(actions, Instant::now());
    if let Some(fatal) = runtime.fatal {
        return Err(fatal.into());
    }
    let events = control_plane.map(|control_plane| {
        let (sender, events) = client::events();
        // Ends when the receiver goes, with the task below.
        tokio::spawn(client::run(control_plane, sender, fastrand::f64));
        events
    });
    let task = tokio::spawn(runtime.run(events, cluster_events_received, queries, shutdown));
    Ok(RuntimeHandle::new(asking, task))
}

fn control_plane(bootstrap: &Bootstrap) -> Result<Option<ControlPlane>, StartError> {
    let Some(ads) = &bootstrap.ads else { return Ok(None) };
    let cluster = bootstrap
        .clusters
        .iter()
        .find(|cluster| cluster.name == ads.cluster_name)
        .ok_or_else(|| StartError::NoControlPlaneCluster(ads.cluster_name.clone()))?;
    Ok(Some(ControlPlane::new(cluster)?))
}

/// The bootstrap's own resources, with their messages for whoever asks what is there.
fn start_of(bootstrap: &Bootstrap, loaded_at: SystemTime) -> Start {
    let resources = bootstrap.message.static_resources.clone().unwrap_or_default();
    let origin = |message| Arc::new(Origin { version_info: String::new(), message, updated_at: loaded_at });
    let clusters = bootstrap.clusters.iter().zip(&resources.clusters).map(|(config, message)| Received {
        name: config.name.clone(),
        config: config.clone(),
        origin: origin(any::pack(message)),
    });
    let listeners = bootstrap.listeners.iter().zip(&resources.listeners).map(|(config, message)| Received {
        name: config.name.clone(),
        config: config.clone(),
        origin: origin(any::pack(message)),
    });
    Start {
        clusters: clusters.collect(),
        listeners: listeners.collect(),
        cds: bootstrap.cds.clone(),
        lds: bootstrap.lds.clone(),
    }
}
