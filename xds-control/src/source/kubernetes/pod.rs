//! Pod: an instance of a workload.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as k8s;

use super::{FieldProblem, address, namespaced, port};
use crate::model::workload::Workload;

/// `None` for a pod that has ended: its address may be another's by now.
pub(super) fn convert(raw: &k8s::Pod) -> Result<Option<Workload>, FieldProblem> {
    let name = namespaced(&raw.metadata)?;
    if matches!(raw.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")) {
        return Ok(None);
    }
    let spec = raw.spec.as_ref();
    Ok(Some(Workload {
        addresses: addresses(raw.status.as_ref())?,
        labels: raw.metadata.labels.clone().unwrap_or_default(),
        deployed_by: deployed_by(raw, &name.name),
        ports: spec.map(named_ports).transpose()?.unwrap_or_default(),
        service_account: spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
        node: spec.and_then(|spec| spec.node_name.clone()),
        name,
    }))
}

/// The one that a pod runs as if it names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

fn addresses(status: Option<&k8s::PodStatus>) -> Result<Vec<std::net::IpAddr>, FieldProblem> {
    let Some(status) = status else { return Ok(Vec::new()) };
    let listed = status.pod_ips.as_deref().unwrap_or_default();
    if listed.is_empty() {
        let single = status.pod_ip.as_deref().filter(|text| !text.is_empty());
        return single.map(|text| address("status.podIP", text)).into_iter().collect();
    }
    listed.iter().enumerate().map(|(index, ip)| address(format!("status.podIPs[{index}].ip"), &ip.ip)).collect()
}

/// The Deployment of a ReplicaSet's pod is told from the ReplicaSet's name, as its own object is not read: it ends in
/// the hash that the pod carries as a label.
fn deployed_by(raw: &k8s::Pod, own_name: &str) -> String {
    let owners = raw.metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
        return own_name.to_owned();
    };
    let hash = raw.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    match deployment {
        Some(deployment) if owner.kind == "ReplicaSet" => deployment.to_owned(),
        _ => owner.name.clone(),
    }
}

fn named_ports(spec: &k8s::PodSpec) -> Result<BTreeMap<String, u16>, FieldProblem> {
    let mut ports = BTreeMap::new();
    for (container_index, container) in spec.containers.iter().enumerate() {
        for (index, raw) in container.ports.iter().flatten().enumerate() {
            if let (Some(name), None | Some("TCP")) = (&raw.name, raw.protocol.as_deref()) {
                let path = format!("spec.containers[{container_index}].ports[{index}].containerPort");
                ports.insert(name.clone(), port(&path, raw.container_port)?);
            }
        }
    }
    Ok(ports)
}
