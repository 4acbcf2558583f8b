//! EndpointSlice: a part of the addresses behind a Service.

use k8s_openapi::api::discovery::v1 as k8s;

use super::{FieldProblem, address, dns_name, namespaced, port};
use crate::model::ObjectName;
use crate::model::endpoint::{Condition, EndpointSlice, SliceEndpoint, SlicePort};
use crate::model::topology::Hints;

/// The label that names the Service of a slice.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// `None` for a slice that belongs to no Service, and for one of host names, which Kubernetes itself does not use.
pub(super) fn convert(raw: &k8s::EndpointSlice) -> Result<Option<EndpointSlice>, FieldProblem> {
    let name = namespaced(&raw.metadata)?;
    let wants_ipv6 = match raw.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        "FQDN" => return Ok(None),
        other => {
            return Err(FieldProblem::new("addressType", format!("{other:?} is not one of IPv4, IPv6, FQDN")));
        }
    };
    let Some(service) = raw.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL)) else {
        return Ok(None);
    };
    let service = dns_name(&format!("metadata.labels[{SERVICE_NAME_LABEL}]"), service)?;
    let mut endpoints = Vec::new();
    for (index, raw) in raw.endpoints.iter().enumerate() {
        convert_endpoint(&name.namespace, index, raw, wants_ipv6, &mut endpoints)?;
    }
    Ok(Some(EndpointSlice {
        service: ObjectName::new(name.namespace.clone(), service),
        name,
        ports: ports(raw.ports.as_deref().unwrap_or_default())?,
        endpoints,
    }))
}

fn ports(raw: &[k8s::EndpointPort]) -> Result<Vec<SlicePort>, FieldProblem> {
    let mut ports = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        match raw.protocol.as_deref() {
            None | Some("TCP") => {}
            Some("UDP" | "SCTP") => continue,
            Some(other) => {
                return Err(FieldProblem::new(
                    format!("ports[{index}].protocol"),
                    format!("{other:?} is not one of TCP, UDP, SCTP"),
                ));
            }
        }
        // A port without a number means "all ports", which a Service port can't be joined to.
        let Some(number) = raw.port else { continue };
        ports.push(SlicePort {
            name: raw.name.clone().unwrap_or_default(),
            number: port(&format!("ports[{index}].port"), number)?,
        });
    }
    Ok(ports)
}

fn convert_endpoint(
    namespace: &str,
    index: usize,
    raw: &k8s::Endpoint,
    wants_ipv6: bool,
    endpoints: &mut Vec<SliceEndpoint>,
) -> Result<(), FieldProblem> {
    if raw.addresses.is_empty() {
        return Err(FieldProblem::new(format!("endpoints[{index}].addresses"), "is empty"));
    }
    let workload = raw.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        Some(ObjectName::new(namespace, target.name.as_deref()?))
    });
    for (position, text) in raw.addresses.iter().enumerate() {
        let path = format!("endpoints[{index}].addresses[{position}]");
        let address = address(&path, text)?;
        if address.is_ipv6() != wants_ipv6 {
            return Err(FieldProblem::new(path, format!("{text:?} is not of the slice's addressType")));
        }
        endpoints.push(SliceEndpoint {
            address,
            condition: condition(raw.conditions.as_ref()),
            zone: raw.zone.clone(),
            node: raw.node_name.clone(),
            workload: workload.clone(),
            hostname: raw.hostname.clone(),
            hints: raw.hints.as_ref().map(hints).unwrap_or_default(),
        });
    }
    Ok(())
}

fn hints(raw: &k8s::EndpointHints) -> Hints {
    Hints {
        zones: raw.for_zones.iter().flatten().map(|zone| zone.name.clone()).collect(),
        nodes: raw.for_nodes.iter().flatten().map(|node| node.name.clone()).collect(),
    }
}

fn condition(raw: Option<&k8s::EndpointConditions>) -> Condition {
    let Some(raw) = raw else { return Condition::Ready };
    // Unknown readiness counts as ready, unknown serving as readiness says (the API's own rules).
    let ready = raw.ready.unwrap_or(true);
    let serving = raw.serving.unwrap_or(ready);
    let terminating = raw.terminating.unwrap_or(false);
    match (ready, serving, terminating) {
        (_, true, true) => Condition::Terminating,
        (true, _, false) => Condition::Ready,
        _ => Condition::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_follow_the_rules_of_the_api() {
        let of =
            |ready, serving, terminating| condition(Some(&k8s::EndpointConditions { ready, serving, terminating }));
        assert_eq!(condition(None), Condition::Ready);
        assert_eq!(of(None, None, None), Condition::Ready);
        assert_eq!(of(Some(true), None, None), Condition::Ready);
        assert_eq!(of(Some(true), Some(true), Some(false)), Condition::Ready);
        assert_eq!(of(Some(false), Some(false), Some(false)), Condition::NotReady);
        assert_eq!(of(Some(false), Some(true), Some(true)), Condition::Terminating);
        assert_eq!(of(Some(false), Some(false), Some(true)), Condition::NotReady);
    }
}
