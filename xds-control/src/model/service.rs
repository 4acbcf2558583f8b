//! A Service: a name, addresses and ports that clients use, whatever stands behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::ObjectName;
use super::protocol::Protocol;
use super::topology::Distribution;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub name: ObjectName,
    /// When it was made; of two Services that claim the same, the older keeps it.
    pub created: Age,
    pub addressing: Addressing,
    pub families: Families,
    /// TCP ports only, in the order of the declaration, each number once.
    pub ports: Vec<ServicePort>,
    /// Labels that all of its workloads have; empty: it selects nothing by itself.
    pub selector: BTreeMap<String, String>,
    /// Endpoints count before they are ready.
    pub publish_not_ready: bool,
    pub affinity: Affinity,
    pub internal_traffic: InternalTraffic,
    /// What it says itself; its namespace may say it for all.
    pub distribution: Option<Distribution>,
    pub visibility: Visibility,
}

/// Seconds since 1970. What does not tell counts as younger than all that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Age(pub i64);

impl Default for Age {
    fn default() -> Self {
        Self(i64::MAX)
    }
}

/// The address families of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };

    pub fn has(self, address: &IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// Whether a client stays with one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    None,
    /// By the address that it comes from.
    ClientAddress,
}

/// Which endpoints clients inside of the cluster may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InternalTraffic {
    Cluster,
    /// Those on the client's own node, or none.
    Local,
}

/// The namespaces whose workloads know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Everywhere,
    Namespaces(BTreeSet<String>),
}

/// How clients address a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// By virtual addresses, one a family; none where nobody allocated any.
    Virtual(Vec<IpAddr>),
    /// By the addresses of its endpoints.
    Headless,
    /// By those of a DNS name outside of the cluster, which it is another name for.
    External(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// 1 to 65535.
    pub number: u16,
    /// Empty where the only port of a Service has no name. Joins it to the ports of its endpoints.
    pub name: String,
    pub protocol: Protocol,
    pub target: TargetPort,
}

/// The port at the workload's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TargetPort {
    Number(u16),
    /// The name of a container's port; each workload has its own number for it.
    Name(String),
}

impl Service {
    /// A Service with nothing but these: for every setting what Kubernetes defaults it to.
    pub fn new(name: ObjectName, addressing: Addressing, ports: Vec<ServicePort>) -> Self {
        Self {
            name,
            created: Age::default(),
            addressing,
            families: Families::BOTH,
            ports,
            selector: BTreeMap::new(),
            publish_not_ready: false,
            affinity: Affinity::None,
            internal_traffic: InternalTraffic::Cluster,
            distribution: None,
            visibility: Visibility::Everywhere,
        }
    }

    /// The fully qualified host name, the HOST of cluster and route names.
    pub fn host(&self, cluster_domain: &str) -> String {
        format!("{}.{}.svc.{cluster_domain}", self.name.name, self.name.namespace)
    }

    pub fn virtual_addresses(&self) -> &[IpAddr] {
        match &self.addressing {
            Addressing::Virtual(addresses) => addresses,
            Addressing::Headless | Addressing::External(_) => &[],
        }
    }

    /// Orders Services that claim the same: the first keeps it.
    pub fn seniority(&self) -> (Age, &ObjectName) {
        (self.created, &self.name)
    }

    pub fn is_visible_everywhere(&self) -> bool {
        self.visibility == Visibility::Everywhere
    }

    pub fn is_visible_in(&self, namespace: &str) -> bool {
        match &self.visibility {
            Visibility::Everywhere => true,
            Visibility::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Whether a workload with these labels in the Service's namespace belongs to it.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn service(selector: &[(&str, &str)]) -> Service {
        Service {
            selector: labels(selector),
            ..Service::new(ObjectName::new("shop", "reviews"), Addressing::Headless, Vec::new())
        }
    }

    #[test]
    fn a_selector_wants_all_of_its_labels() {
        let service = service(&[("app", "reviews"), ("tier", "web")]);
        assert!(service.selects(&labels(&[("app", "reviews"), ("tier", "web"), ("x", "y")])));
        assert!(!service.selects(&labels(&[("app", "reviews")])));
        assert!(!service.selects(&labels(&[("app", "reviews"), ("tier", "db")])));
    }

    #[test]
    fn no_selector_selects_nothing() {
        assert!(!service(&[]).selects(&labels(&[("app", "reviews")])));
    }
}
