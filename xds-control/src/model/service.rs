//! A Service: a name, addresses and ports that clients use, whatever stands behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::ObjectName;
use super::protocol::Protocol;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub name: ObjectName,
    pub addressing: Addressing,
    /// TCP ports only, in the order of the declaration, each number once.
    pub ports: Vec<ServicePort>,
    /// Labels that all of its workloads have; empty: it selects nothing by itself.
    pub selector: BTreeMap<String, String>,
    /// Endpoints count before they are ready.
    pub publish_not_ready: bool,
}

/// How clients address a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// By virtual addresses, one a family; none where nobody allocated any.
    Virtual(Vec<IpAddr>),
    /// By the addresses of its endpoints.
    Headless,
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
    /// The fully qualified host name, the HOST of cluster and route names.
    pub fn host(&self, cluster_domain: &str) -> String {
        format!("{}.{}.svc.{cluster_domain}", self.name.name, self.name.namespace)
    }

    pub fn virtual_addresses(&self) -> &[IpAddr] {
        match &self.addressing {
            Addressing::Virtual(addresses) => addresses,
            Addressing::Headless => &[],
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
            name: ObjectName::new("shop", "reviews"),
            addressing: Addressing::Headless,
            ports: Vec::new(),
            selector: labels(selector),
            publish_not_ready: false,
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
