//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster, by priority and locality.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use weft_xds::{
    FieldError,
    pb::envoy::config::{
        core::v3::{HealthStatus as ProtoHealthStatus, Locality as ProtoLocality},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as ProtoEndpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy, lb_endpoint::HostIdentifier, locality_lb_endpoints::LbConfig,
        },
    },
};

use crate::config::{
    address,
    field::{self, Result, Within as _, refuse, required, unset, unsupported},
};

/// Priorities are contiguous from 0 by position; a gap is an empty priority.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadAssignment {
    pub priorities: Vec<Vec<LocalityEndpoints>>,
    /// Default 140.
    pub overprovisioning_factor: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints {
    pub locality: Locality,
    /// At least 1.
    pub load_balancing_weight: u32,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub hostname: Arc<str>,
    /// At least 1.
    pub load_balancing_weight: u32,
    pub health_status: HealthStatus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    #[default]
    Healthy,
    /// UNHEALTHY, DRAINING and TIMEOUT of the message.
    Unhealthy,
    Degraded,
}

const OVERPROVISIONING_FACTOR: u32 = 140;
/// The protocol's own bound; the vector of priorities is as long as the greatest.
const PRIORITY_MAX: u32 = 128;

impl LoadAssignment {
    /// Of endpoints with the same address in one priority the first stays, and localities that stand twice in one are
    /// made one with the last weight, as Envoy does.
    pub fn from_proto(message: ClusterLoadAssignment) -> Result<Self> {
        let ClusterLoadAssignment {
            cluster_name: _, // the answer was found by it; of a STATIC cluster it means nothing
            endpoints,
            named_endpoints,
            policy,
        } = message;
        refuse!(named_endpoints);
        let Policy { drop_overloads, overprovisioning_factor, endpoint_stale_after, weighted_priority_health } =
            policy.unwrap_or_default();
        unset(&drop_overloads, "policy.drop_overloads")?;
        unset(&endpoint_stale_after, "policy.endpoint_stale_after")?;
        unset(&weighted_priority_health, "policy.weighted_priority_health")?;
        let mut priorities = Vec::new();
        let mut seen = HashSet::new();
        for (index, message) in endpoints.into_iter().enumerate() {
            let priority = message.priority;
            let mut locality = LocalityEndpoints::from_proto(message).at("endpoints", index)?;
            locality.endpoints.retain(|endpoint| seen.insert((priority, endpoint.address)));
            locality.check_weights().at("endpoints", index)?;
            add_locality(&mut priorities, priority, locality).at("endpoints", index)?;
        }
        Ok(Self {
            priorities,
            overprovisioning_factor: field::u32_or(overprovisioning_factor, OVERPROVISIONING_FACTOR),
        })
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.priorities.iter().flatten().flat_map(|locality| &locality.endpoints)
    }
}

impl Default for LoadAssignment {
    fn default() -> Self {
        Self { priorities: Vec::new(), overprovisioning_factor: OVERPROVISIONING_FACTOR }
    }
}

fn add_locality(priorities: &mut Vec<Vec<LocalityEndpoints>>, priority: u32, added: LocalityEndpoints) -> Result<()> {
    if priority > PRIORITY_MAX {
        return Err(FieldError::new("priority", format!("value must be at most {PRIORITY_MAX}")));
    }
    let index = priority as usize;
    if priorities.len() <= index {
        priorities.resize_with(index + 1, Vec::new);
    }
    let localities = &mut priorities[index];
    match localities.iter_mut().find(|present| present.locality == added.locality) {
        Some(present) => {
            present.load_balancing_weight = added.load_balancing_weight;
            present.endpoints.extend(added.endpoints);
            present.check_weights()?;
        }
        None => localities.push(added),
    }
    check_sum(localities.iter().map(|locality| locality.load_balancing_weight), "load_balancing_weight")
}

/// Weights are added up in 32 bits by every implementation, and by its specification.
fn check_sum(weights: impl Iterator<Item = u32>, path: &str) -> Result<()> {
    if weights.map(u64::from).sum::<u64>() > u64::from(u32::MAX) {
        return Err(FieldError::new(path, format!("sum of weights must not exceed {}", u32::MAX)));
    }
    Ok(())
}

impl LocalityEndpoints {
    fn from_proto(message: LocalityLbEndpoints) -> Result<Self> {
        let LocalityLbEndpoints {
            locality,
            metadata: _, // for subsets, overrides and access logs, none of which reads it here
            lb_endpoints,
            load_balancing_weight,
            priority: _, // read by the caller
            proximity,
            lb_config,
        } = message;
        refuse!(proximity);
        #[expect(deprecated, reason = "named to be refused")]
        match lb_config {
            None => {}
            Some(LbConfig::LoadBalancerEndpoints(_)) => return Err(unsupported("load_balancer_endpoints")),
            Some(LbConfig::LedsClusterLocalityConfig(_)) => return Err(unsupported("leds_cluster_locality_config")),
        }
        Ok(Self {
            locality: Locality::from_proto(locality.unwrap_or_default()),
            load_balancing_weight: field::u32_or(load_balancing_weight, 1).max(1),
            endpoints: field::each(lb_endpoints, "lb_endpoints", Endpoint::from_proto)?,
        })
    }

    fn check_weights(&self) -> Result<()> {
        check_sum(self.endpoints.iter().map(|endpoint| endpoint.load_balancing_weight), "lb_endpoints")
    }
}

impl Locality {
    fn from_proto(message: ProtoLocality) -> Self {
        let ProtoLocality { region, zone, sub_zone } = message;
        Self { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() }
    }
}

impl Endpoint {
    fn from_proto(message: LbEndpoint) -> Result<Self> {
        let LbEndpoint {
            health_status,
            metadata: _, // as the locality's
            load_balancing_weight,
            host_identifier,
        } = message;
        let endpoint = match required(host_identifier, "endpoint")? {
            HostIdentifier::Endpoint(endpoint) => endpoint,
            HostIdentifier::EndpointName(_) => return Err(unsupported("endpoint_name")),
        };
        let ProtoEndpoint {
            address,
            health_check_config: _, // for active health checks, which a cluster is refused
            hostname,
            additional_addresses,
            observability_name,
        } = endpoint;
        unset(&additional_addresses, "endpoint.additional_addresses")?;
        unset(&observability_name, "endpoint.observability_name")?;
        let address = required(address, "endpoint.address")?;
        Ok(Self {
            address: address::socket_addr(address).within("endpoint.address")?,
            hostname: hostname.into(),
            load_balancing_weight: field::u32_or(load_balancing_weight, 1).max(1),
            health_status: HealthStatus::from_proto(health_status)?,
        })
    }
}

impl HealthStatus {
    fn from_proto(status: i32) -> Result<Self> {
        Ok(match field::enumeration(status, "health_status")? {
            // What nobody has looked at is taken to be well.
            ProtoHealthStatus::Unknown | ProtoHealthStatus::Healthy => Self::Healthy,
            ProtoHealthStatus::Unhealthy | ProtoHealthStatus::Draining | ProtoHealthStatus::Timeout => Self::Unhealthy,
            ProtoHealthStatus::Degraded => Self::Degraded,
        })
    }
}

#[cfg(test)]
mod tests;
