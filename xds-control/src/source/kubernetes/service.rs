//! Service: the name, addresses and ports of an application.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{FieldProblem, address, age, annotated_distribution, dns_label, dns_name, namespaced, port};
use crate::model::protocol::Protocol;
use crate::model::service::{
    Addressing, Affinity, Families, InternalTraffic, Service, ServicePort, TargetPort, Visibility,
};
use crate::model::topology::Distribution;

pub(super) fn convert(raw: &k8s::Service) -> Result<Service, FieldProblem> {
    let name = namespaced(&raw.metadata)?;
    dns_label("metadata.name", &name.name)?;
    let Some(spec) = &raw.spec else {
        return Err(FieldProblem::new("spec", "is required"));
    };
    let addressing = match spec.type_.as_deref() {
        None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => addressing(spec)?,
        Some("ExternalName") => external(spec)?,
        Some(other) => return Err(not_one_of("spec.type", other, "ClusterIP, NodePort, LoadBalancer, ExternalName")),
    };
    Ok(Service {
        created: age(&raw.metadata),
        families: families(spec, &addressing)?,
        ports: ports(spec.ports.as_deref().unwrap_or_default())?,
        selector: match addressing {
            // Kubernetes does not look at the selector of an alias.
            Addressing::External(_) => Default::default(),
            Addressing::Virtual(_) | Addressing::Headless => spec.selector.clone().unwrap_or_default(),
        },
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        affinity: affinity(spec)?,
        internal_traffic: match spec.internal_traffic_policy.as_deref() {
            None | Some("Cluster") => InternalTraffic::Cluster,
            Some("Local") => InternalTraffic::Local,
            Some(other) => return Err(not_one_of("spec.internalTrafficPolicy", other, "Cluster, Local")),
        },
        distribution: distribution(raw)?,
        visibility: visibility(&raw.metadata, &name.namespace),
        addressing,
        name,
    })
}

/// Settings that the mesh can't carry out, with what happens instead.
pub(super) fn unsupported(raw: &k8s::Service) -> Vec<FieldProblem> {
    let spec = raw.spec.as_ref();
    let is_external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let mut problems = annotated_distribution(&raw.metadata).err().into_iter().collect::<Vec<_>>();
    for (index, raw) in spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default().iter().enumerate() {
        let protocol =
            Protocol::select(raw.app_protocol.as_deref(), raw.name.as_deref(), u16::try_from(raw.port).unwrap_or(0));
        if is_external && raw.protocol.as_deref().is_none_or(|protocol| protocol == "TCP") && protocol == Protocol::Tcp
        {
            let reason = "bytes to an external name can't be told from others on their way to the same port: they are \
                          handled as traffic to no Service";
            problems.push(FieldProblem::new(format!("spec.ports[{index}]"), reason));
        }
    }
    problems
}

fn not_one_of(path: impl Into<String>, value: &str, known: &str) -> FieldProblem {
    FieldProblem::new(path, format!("{value:?} is not one of {known}"))
}

fn external(spec: &k8s::ServiceSpec) -> Result<Addressing, FieldProblem> {
    let name = spec.external_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(FieldProblem::new("spec.externalName", "is required"));
    }
    // A trailing dot says that it is complete, which it is here anyway.
    dns_name("spec.externalName", name.strip_suffix('.').unwrap_or(name)).map(Addressing::External)
}

fn addressing(spec: &k8s::ServiceSpec) -> Result<Addressing, FieldProblem> {
    // `clusterIPs` came with dual stack and repeats `clusterIP` as its first; a manifest may have either.
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = if listed.is_empty() {
        spec.cluster_ip.iter().map(|text| ("spec.clusterIP".to_owned(), text)).collect::<Vec<_>>()
    } else {
        listed.iter().enumerate().map(|(index, text)| (format!("spec.clusterIPs[{index}]"), text)).collect()
    };
    let mut addresses: Vec<std::net::IpAddr> = Vec::with_capacity(texts.len());
    for (path, text) in texts {
        match text.as_str() {
            "None" => return Ok(Addressing::Headless),
            "" => {}
            text => {
                let parsed = address(path.as_str(), text)?;
                if addresses.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
                    return Err(FieldProblem::new(path, "is of the same address family as an earlier one"));
                }
                addresses.push(parsed);
            }
        }
    }
    Ok(Addressing::Virtual(addresses))
}

/// What was declared, or else what its addresses are of; both where neither says anything.
fn families(spec: &k8s::ServiceSpec, addressing: &Addressing) -> Result<Families, FieldProblem> {
    let mut families = Families { ipv4: false, ipv6: false };
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        match family.as_str() {
            "IPv4" => families.ipv4 = true,
            "IPv6" => families.ipv6 = true,
            other => return Err(not_one_of(format!("spec.ipFamilies[{index}]"), other, "IPv4, IPv6")),
        }
    }
    if let Addressing::Virtual(addresses) = addressing {
        families.ipv4 |= addresses.iter().any(std::net::IpAddr::is_ipv4);
        families.ipv6 |= addresses.iter().any(std::net::IpAddr::is_ipv6);
    }
    Ok(if families.ipv4 || families.ipv6 { families } else { Families::BOTH })
}

/// The timeout is only checked: a client stays with its endpoint for as long as the endpoints stay, which is never
/// shorter than what it asks for.
fn affinity(spec: &k8s::ServiceSpec) -> Result<Affinity, FieldProblem> {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    if let Some(seconds) = config.and_then(|client_ip| client_ip.timeout_seconds)
        && !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)
    {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        return Err(FieldProblem::new(path, format!("{seconds} is not between 1 and {AFFINITY_SECONDS_MAX}")));
    }
    match spec.session_affinity.as_deref() {
        None | Some("None") => Ok(Affinity::None),
        Some("ClientIP") => Ok(Affinity::ClientAddress),
        Some(other) => Err(not_one_of("spec.sessionAffinity", other, "None, ClientIP")),
    }
}

/// A day.
const AFFINITY_SECONDS_MAX: i32 = 86_400;

/// Kubernetes' own field counts more than Istio's annotation.
fn distribution(raw: &k8s::Service) -> Result<Option<Distribution>, FieldProblem> {
    match raw.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref()) {
        // What the annotation says wrong is remarked on, and then it says nothing.
        None => Ok(annotated_distribution(&raw.metadata).unwrap_or_default()),
        Some("PreferClose" | "PreferSameZone") => Ok(Some(Distribution::SameZone)),
        Some("PreferSameNode") => Ok(Some(Distribution::SameNode)),
        Some(other) => {
            Err(not_one_of("spec.trafficDistribution", other, "PreferClose, PreferSameZone, PreferSameNode"))
        }
    }
}

/// Istio's annotation: `*` is everybody, `.` the own namespace, `~` nobody, anything else a namespace.
fn visibility(metadata: &ObjectMeta, own_namespace: &str) -> Visibility {
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(EXPORT_TO_ANNOTATION));
    let Some(annotation) = annotation.filter(|text| !text.trim().is_empty()) else { return Visibility::Everywhere };
    let mut namespaces = BTreeSet::new();
    for word in annotation.split(',').map(str::trim) {
        match word {
            "*" => return Visibility::Everywhere,
            "" | "~" => {}
            "." => _ = namespaces.insert(own_namespace.to_owned()),
            namespace => _ = namespaces.insert(namespace.to_owned()),
        }
    }
    Visibility::Namespaces(namespaces)
}

const EXPORT_TO_ANNOTATION: &str = "networking.istio.io/exportTo";

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
                return Err(not_one_of(at("protocol"), other, "TCP, UDP, SCTP"));
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
