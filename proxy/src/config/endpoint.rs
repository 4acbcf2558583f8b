//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster, by priority and locality.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use weft_xds::{
    FieldError,
    pb::envoy::config::{
        core::v3::{
            Address, HealthStatus as ProtoHealthStatus, Locality as ProtoLocality, SocketAddress,
            address::Address as ProtoAddress, socket_address::PortSpecifier,
        },
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as ProtoEndpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy,
            endpoint::{AdditionalAddress, HealthCheckConfig},
            lb_endpoint::HostIdentifier,
            locality_lb_endpoints::LbConfig,
        },
    },
};

use crate::config::{
    address,
    field::{self, Result, Within as _, refuse, required, unset, unsupported},
    metadata::Metadata,
};

/// Priorities are contiguous from 0 by position; a gap is an empty priority. `Address`: a [`DnsTarget`] where names are
/// still to be looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadAssignment<Address = SocketAddr> {
    pub priorities: Vec<Vec<LocalityEndpoints<Address>>>,
    /// Default 140.
    pub overprovisioning_factor: u32,
    /// How well a priority is goes by the weight of its healthy hosts, not by their number.
    pub weighted_priority_health: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpoints<Address = SocketAddr> {
    pub locality: Locality,
    /// 0, as where it is not given: gets nothing where localities are weighted.
    pub load_balancing_weight: u32,
    pub endpoints: Vec<Endpoint<Address>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint<Address = SocketAddr> {
    pub address: Address,
    /// Further addresses of the same host, tried when the first does not answer soon.
    pub additional_addresses: Arc<[SocketAddr]>,
    pub hostname: Arc<str>,
    pub metadata: Arc<Metadata>,
    /// At least 1.
    pub load_balancing_weight: u32,
    pub health_status: HealthStatus,
    pub health_check: EndpointHealthCheck,
}

/// `health_check_config`: how active health checks of this endpoint differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealthCheck {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    /// Empty: the health check's own.
    pub hostname: Arc<str>,
    pub disabled: bool,
}

/// A name that DNS knows, or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsTarget {
    pub host: Arc<str>,
    pub port: u16,
}

/// What stands in the address of an endpoint.
pub trait EndpointAddress: Sized + Clone + Eq + std::hash::Hash {
    fn from_proto(message: Address) -> Result<Self>;
}

impl EndpointAddress for SocketAddr {
    fn from_proto(message: Address) -> Result<Self> {
        address::socket_addr(message)
    }
}

impl EndpointAddress for DnsTarget {
    fn from_proto(message: Address) -> Result<Self> {
        let Some(ProtoAddress::SocketAddress(message)) = message.address else {
            return Err(FieldError::new("socket_address", "value is required"));
        };
        let SocketAddress { protocol, address, resolver_name, ipv4_compat, network_namespace_filepath, port_specifier } =
            message;
        refuse!(protocol, ipv4_compat, network_namespace_filepath);
        if !resolver_name.is_empty() {
            return Err(FieldError::new(
                "socket_address.resolver_name",
                "STRICT_DNS and LOGICAL_DNS clusters must not have a custom resolver name set",
            ));
        }
        let port = match port_specifier {
            Some(PortSpecifier::PortValue(value)) => field::port(value, "socket_address.port_value")?,
            Some(PortSpecifier::NamedPort(_)) => return Err(unsupported("socket_address.named_port")),
            None => return Err(FieldError::new("socket_address.port_value", "value is required")),
        };
        Ok(Self { host: address.into(), port })
    }
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

impl<Address: EndpointAddress> LoadAssignment<Address> {
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
        let mut priorities = Vec::new();
        let mut seen = HashSet::new();
        for (index, message) in endpoints.into_iter().enumerate() {
            let priority = message.priority;
            let mut locality = LocalityEndpoints::<Address>::from_proto(message).at("endpoints", index)?;
            locality.endpoints.retain(|endpoint| seen.insert((priority, endpoint.address.clone())));
            locality.check_weights().at("endpoints", index)?;
            add_locality(&mut priorities, priority, locality).at("endpoints", index)?;
        }
        Ok(Self {
            priorities,
            overprovisioning_factor: field::u32_or(overprovisioning_factor, OVERPROVISIONING_FACTOR),
            weighted_priority_health,
        })
    }
}

impl<Address> LoadAssignment<Address> {
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint<Address>> {
        self.priorities.iter().flatten().flat_map(|locality| &locality.endpoints)
    }
}

impl Default for LoadAssignment {
    fn default() -> Self {
        Self {
            priorities: Vec::new(),
            overprovisioning_factor: OVERPROVISIONING_FACTOR,
            weighted_priority_health: false,
        }
    }
}

fn add_locality<Address>(
    priorities: &mut Vec<Vec<LocalityEndpoints<Address>>>,
    priority: u32,
    added: LocalityEndpoints<Address>,
) -> Result<()> {
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

impl<Address: EndpointAddress> LocalityEndpoints<Address> {
    fn from_proto(message: LocalityLbEndpoints) -> Result<Self> {
        let LocalityLbEndpoints {
            locality,
            metadata: _, // for extensions' eyes, and none reads it
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
            load_balancing_weight: field::u32_or(load_balancing_weight, 0),
            endpoints: field::each(lb_endpoints, "lb_endpoints", Endpoint::from_proto)?,
        })
    }
}

impl<Address> LocalityEndpoints<Address> {
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

impl<Address: EndpointAddress> Endpoint<Address> {
    fn from_proto(message: LbEndpoint) -> Result<Self> {
        let LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = message;
        let endpoint = match required(host_identifier, "endpoint")? {
            HostIdentifier::Endpoint(endpoint) => endpoint,
            HostIdentifier::EndpointName(_) => return Err(unsupported("endpoint_name")),
        };
        let ProtoEndpoint {
            address,
            health_check_config,
            hostname,
            additional_addresses,
            observability_name: _, // names the host in statistics of its own, of which there are none
        } = endpoint;
        let address = required(address, "endpoint.address")?;
        Ok(Self {
            address: Address::from_proto(address).within("endpoint.address")?,
            additional_addresses: field::each(
                additional_addresses,
                "endpoint.additional_addresses",
                |AdditionalAddress { address }| address::socket_addr(required(address, "address")?).within("address"),
            )?
            .into(),
            hostname: hostname.into(),
            metadata: metadata.map(|metadata| Arc::new(Metadata::from_proto(metadata))).unwrap_or_default(),
            load_balancing_weight: field::u32_or(load_balancing_weight, 1).max(1),
            health_status: HealthStatus::from_proto(health_status)?,
            health_check: EndpointHealthCheck::from_proto(health_check_config.unwrap_or_default())
                .within("endpoint.health_check_config")?,
        })
    }
}

impl Endpoint {
    /// One of which nothing but the address is known.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            additional_addresses: Arc::default(),
            hostname: Arc::default(),
            metadata: Arc::default(),
            load_balancing_weight: 1,
            health_status: HealthStatus::default(),
            health_check: EndpointHealthCheck::default(),
        }
    }
}

impl EndpointHealthCheck {
    fn from_proto(message: HealthCheckConfig) -> Result<Self> {
        let HealthCheckConfig { port_value, hostname, address, disable_active_health_check } = message;
        let address = match address {
            None => None,
            Some(address) => Some(address::socket_addr(address).within("address")?),
        };
        let port = field::port(port_value, "port_value")?;
        Ok(Self {
            address: address.map(|address| address.ip()),
            port: Some(port)
                .filter(|port| *port > 0)
                .or(address.map(|address| address.port()).filter(|port| *port > 0)),
            hostname: hostname.into(),
            disabled: disable_active_health_check,
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
