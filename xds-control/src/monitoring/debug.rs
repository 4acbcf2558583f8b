//! What the debugging pages say, as types that the `weft` command reads back.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use weft_xds::FieldError;
use weft_xds::json::{FieldNames, any_to_value};

use crate::ads::node::Node;
use crate::ads::registry::{Connections, Status};
use crate::ads::stream::snapshot_of;
use crate::ads::subscription::Variant;
use crate::model::workload::Workload;
use crate::snapshot::shared::Shared;
use crate::source::manifests::Health;
use crate::translate::resource::Kind;

/// One connected proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// `NAME.NAMESPACE` of its pod; the node id of an application without sidecar.
    pub proxy: String,
    pub node_id: String,
    /// The identity that it proved, or else that of its workload, where the workload is known.
    pub identity: Option<String>,
    pub peer: Option<String>,
    /// `sotw` or `delta`.
    pub variant: String,
    /// Seconds since 1970.
    pub connected_at: u64,
    /// By `cds`, `eds`, `lds`, `rds`; kinds that it did not ask for are missing.
    pub kinds: BTreeMap<String, KindStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindStatus {
    #[serde(flatten)]
    pub versions: Status,
    pub status: SyncStatus,
}

/// How a proxy stands with one kind of resources, in the words that istioctl uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncStatus {
    /// It has what it was sent.
    Synced,
    /// It has not answered yet.
    Stale,
    /// It refused what it was sent.
    Error,
    /// It asked, and there was nothing to send.
    NotSent,
}

impl SyncStatus {
    fn of(status: &Status) -> Self {
        match status {
            Status { nacked: Some(_), .. } => Self::Error,
            Status { sent: None, .. } => Self::NotSent,
            Status { sent, acked, .. } if sent == acked => Self::Synced,
            _ => Self::Stale,
        }
    }
}

pub(super) fn syncz(connections: &Connections, shared: &Shared, trust_domain: &str) -> Vec<ProxyStatus> {
    let describe = |connection: crate::ads::registry::Connection| {
        let kinds = connection.kinds.into_iter().map(|(kind, versions)| {
            let status = SyncStatus::of(&versions);
            (kind.to_owned(), KindStatus { versions, status })
        });
        let proven = connection.peer.identity.as_ref().map(ToString::to_string);
        let workload = connection.node.pod().and_then(|pod| shared.mesh.workloads.get(pod));
        ProxyStatus {
            proxy: connection.node.name(),
            identity: proven.or_else(|| workload.map(|workload| identity(workload, trust_domain))),
            node_id: connection.node.id().to_owned(),
            peer: Some(connection.peer.address.to_string()),
            variant: match connection.variant {
                Variant::StateOfTheWorld => "sotw".to_owned(),
                Variant::Delta => "delta".to_owned(),
            },
            connected_at: connection.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            kinds: kinds.collect(),
        }
    };
    connections.list().into_iter().map(describe).collect()
}

fn identity(workload: &Workload, trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{}/sa/{}", workload.name.namespace, workload.service_account)
}

pub(super) fn registry(shared: &Shared, manifests: &Health) -> serde_json::Value {
    let services = shared.mesh.services.values().map(|entry| &**entry).collect::<Vec<_>>();
    let workloads = shared.mesh.workloads.values().map(|workload| &**workload).collect::<Vec<_>>();
    serde_json::json!({
        "services": services,
        "workloads": workloads,
        "namespaces": shared.mesh.namespaces,
        "problems": manifests.problems(),
    })
}

pub(super) fn is_named(node: &Node, wanted: &str) -> bool {
    node.id() == wanted || node.name() == wanted
}

/// Everything that a proxy may ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigDump {
    pub proxy: String,
    pub clusters: Vec<DumpedResource>,
    pub endpoints: Vec<DumpedResource>,
    pub listeners: Vec<DumpedResource>,
    pub routes: Vec<DumpedResource>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DumpedResource {
    pub name: String,
    pub version: String,
    /// As Envoy's own `/config_dump` prints it.
    pub resource: serde_json::Value,
}

pub(super) fn config_dump(node: &Node, shared: &Shared) -> Result<ConfigDump, FieldError> {
    let snapshot = snapshot_of(node, shared);
    let of_kind = |kind: Kind| {
        let view = snapshot.view(kind);
        let mut dumped = Vec::new();
        for resource in view.iter() {
            dumped.push(DumpedResource {
                name: resource.name.to_string(),
                version: crate::snapshot::version::Version::of(resource).to_string(),
                resource: any_to_value(&resource.any(), FieldNames::Proto)?,
            });
        }
        dumped.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(dumped)
    };
    Ok(ConfigDump {
        proxy: node.name(),
        clusters: of_kind(Kind::Cluster)?,
        endpoints: of_kind(Kind::Endpoints)?,
        listeners: of_kind(Kind::Listener)?,
        routes: of_kind(Kind::Route)?,
    })
}
