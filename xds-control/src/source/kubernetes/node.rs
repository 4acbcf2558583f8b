//! Node: where workloads run.

use k8s_openapi::api::core::v1 as k8s;

use super::{FieldProblem, name};
use crate::model::topology::Locality;
use crate::model::workload::Node;

pub(super) fn convert(raw: &k8s::Node) -> Result<Node, FieldProblem> {
    let label =
        |key: &str| raw.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    let locality =
        Locality { region: label("topology.kubernetes.io/region"), zone: label("topology.kubernetes.io/zone") };
    Ok(Node { name: name(&raw.metadata)?, locality })
}
