//! Service: the name, addresses and ports of an application.

use std::collections::HashSet;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{FieldProblem, address, namespaced, port};
use crate::model::protocol::Protocol;
use crate::model::service::{Addressing, Service, ServicePort, TargetPort};

/// `None` for an ExternalName Service: it is an alias in DNS, so clients connect to what it stands for.
pub(super) fn convert(raw: &k8s::Service) -> Result<Option<Service>, FieldProblem> {
    let name = namespaced(&raw.metadata)?;
    let Some(spec) = &raw.spec else {
        return Err(FieldProblem::new("spec", "is required"));
    };
    match spec.type_.as_deref() {
        None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => {}
        Some("ExternalName") => return Ok(None),
        Some(other) => {
            return Err(FieldProblem::new(
                "spec.type",
                format!("{other:?} is not one of ClusterIP, NodePort, LoadBalancer, ExternalName"),
            ));
        }
    }
    Ok(Some(Service {
        name,
        addressing: addressing(spec)?,
        ports: ports(spec.ports.as_deref().unwrap_or_default())?,
        selector: spec.selector.clone().unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
    }))
}

pub(super) fn unsupported(raw: &k8s::Service) -> Vec<FieldProblem> {
    let Some(spec) = &raw.spec else { return Vec::new() };
    let settings = [
        (
            "spec.sessionAffinity",
            spec.session_affinity.as_deref().filter(|value| *value != "None"),
            "requests are balanced one by one",
        ),
        (
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref().filter(|value| *value != "Cluster"),
            "endpoints on all nodes are used",
        ),
        ("spec.trafficDistribution", spec.traffic_distribution.as_deref(), "endpoints in all zones are used"),
    ];
    let problem = |(path, value, instead): (&str, Option<&str>, &str)| {
        Some(FieldProblem::new(path, format!("{:?} is not supported, {instead}", value?)))
    };
    settings.into_iter().filter_map(problem).collect()
}

fn addressing(spec: &k8s::ServiceSpec) -> Result<Addressing, FieldProblem> {
    // `clusterIPs` came with dual stack and repeats `clusterIP` as its first; a manifest may have either.
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = if listed.is_empty() {
        spec.cluster_ip.iter().map(|text| ("spec.clusterIP".to_owned(), text)).collect::<Vec<_>>()
    } else {
        listed.iter().enumerate().map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text)).collect()
    };
    let mut addresses = Vec::with_capacity(texts.len());
    for (path, text) in texts {
        match text.as_str() {
            "None" => return Ok(Addressing::Headless),
            "" => {}
            text => addresses.push(address(path, text)?),
        }
    }
    Ok(Addressing::Virtual(addresses))
}

fn ports(raw: &[k8s::ServicePort]) -> Result<Vec<ServicePort>, FieldProblem> {
    let mut ports = Vec::with_capacity(raw.len());
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    for (index, raw) in raw.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        let number = port(&at("port"), raw.port)?;
        let target = match &raw.target_port {
            None => TargetPort::Number(number),
            // Kubernetes reads a target of 0 as one that was left out.
            Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(port(&at("targetPort"), *target)?),
            Some(IntOrString::String(name)) if !name.is_empty() => TargetPort::Name(name.clone()),
            Some(IntOrString::String(_)) => return Err(FieldProblem::new(at("targetPort"), "is empty")),
        };
        let name = raw.name.clone().unwrap_or_default();
        if !names.insert(name.clone()) {
            return Err(FieldProblem::new(at("name"), format!("{name:?} is the name of an earlier port")));
        }
        match raw.protocol.as_deref() {
            None | Some("TCP") => {}
            // The mesh carries TCP; a datagram port of the same number is none of its business.
            Some("UDP" | "SCTP") => continue,
            Some(other) => {
                return Err(FieldProblem::new(at("protocol"), format!("{other:?} is not one of TCP, UDP, SCTP")));
            }
        }
        if !numbers.insert(number) {
            return Err(FieldProblem::new(at("port"), format!("{number} is the number of an earlier port")));
        }
        let protocol = Protocol::select(raw.app_protocol.as_deref(), raw.name.as_deref(), number);
        ports.push(ServicePort { number, name, protocol, target });
    }
    Ok(ports)
}
