//! Pod: an instance of a workload.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as k8s;

use super::{FieldProblem, address, namespaced, port};
use crate::model::endpoint::Condition;
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
        condition: condition(raw),
        // A name of its own needs a domain to be in.
        hostname: spec.filter(|spec| spec.subdomain.is_some()).and_then(|spec| spec.hostname.clone()),
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

/// A pod that nobody gave conditions, as people write them by hand, is ready once it runs or nothing is said about it.
fn condition(raw: &k8s::Pod) -> Condition {
    let status = raw.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is_ready = match conditions.find(|condition| condition.type_ == "Ready") {
        Some(condition) => condition.status == "True",
        None => matches!(status.and_then(|status| status.phase.as_deref()), None | Some("Running")),
    };
    match (is_ready, raw.metadata.deletion_timestamp.is_some()) {
        (true, false) => Condition::Ready,
        (true, true) => Condition::Terminating,
        (false, _) => Condition::NotReady,
    }
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

/// Of the containers, and of the init containers that go on running beside them.
fn named_ports(spec: &k8s::PodSpec) -> Result<BTreeMap<String, u16>, FieldProblem> {
    let mut ports = BTreeMap::new();
    let init = spec.init_containers.as_deref().unwrap_or_default().iter().enumerate();
    let init = init.filter(|(_, container)| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().enumerate().map(|(index, container)| ("containers", index, container));
    for (list, container_index, container) in
        containers.chain(init.map(|(index, container)| ("initContainers", index, container)))
    {
        for (index, raw) in container.ports.iter().flatten().enumerate() {
            if let (Some(name), None | Some("TCP")) = (&raw.name, raw.protocol.as_deref()) {
                let path = format!("spec.{list}[{container_index}].ports[{index}].containerPort");
                ports.entry(name.clone()).or_insert(port(&path, raw.container_port)?);
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Workload {
        let text = format!("{{\"metadata\": {{\"name\": \"a\"}}, {text}}}");
        convert(&serde_json::from_str(&text).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn readiness_follows_the_condition_and_without_one_the_phase() {
        let of = |status: &str| pod(&format!("\"status\": {status}")).condition;
        assert_eq!(of("{}"), Condition::Ready);
        assert_eq!(of(r#"{"phase": "Running"}"#), Condition::Ready);
        assert_eq!(of(r#"{"phase": "Pending"}"#), Condition::NotReady);
        let ready = |status: &str| {
            format!(r#"{{"phase": "Running", "conditions": [{{"type": "Ready", "status": "{status}"}}]}}"#)
        };
        assert_eq!(of(&ready("True")), Condition::Ready);
        assert_eq!(of(&ready("False")), Condition::NotReady);
        let mut leaving: k8s::Pod = serde_json::from_str(&format!("{{\"status\": {}}}", ready("True"))).unwrap();
        let time = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        leaving.metadata.deletion_timestamp = Some(time);
        assert_eq!(condition(&leaving), Condition::Terminating);
    }

    #[test]
    fn ports_are_named_by_all_containers_that_go_on_running() {
        let workload = pod(r#""spec": {"containers": [{"name": "a", "ports": [{"name": "web", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
                "initContainers": [{"name": "b", "restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 1},
                {"name": "admin", "containerPort": 9}]}, {"name": "c", "ports": [{"name": "gone", "containerPort": 2}]}]}"#);
        assert_eq!(workload.ports, BTreeMap::from([("web".to_owned(), 8080), ("admin".to_owned(), 9)]));
    }
}
