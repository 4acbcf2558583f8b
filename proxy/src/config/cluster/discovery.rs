//! `type` and `cluster_type` of a cluster: where its hosts come from.

use std::{sync::Arc, time::Duration};

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::{
            cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::clusters::{aggregate::v3::ClusterConfig as AggregateConfig, dns::v3::DnsCluster},
    },
};

use super::{
    dns::{DnsDiscovery, DnsHosts, LegacyDns},
    load_balancing::{LbPolicy, LoadBalancing},
};
use crate::config::{
    config_source::DiscoverySource,
    endpoint::LoadAssignment,
    field::{self, Extension, Result, Within as _, required, without_typed_config},
};

#[derive(Debug)]
pub enum Discovery {
    Static(LoadAssignment),
    Eds {
        service_name: Arc<str>,
        initial_fetch_timeout: Option<Duration>,
    },
    Dns(Arc<DnsDiscovery>),
    OriginalDst,
    /// Other clusters, as priorities in this order.
    Aggregate(Vec<Arc<str>>),
}

/// What a cluster says about its hosts.
pub(super) struct HostFields {
    pub(super) discovery_type: Option<ClusterDiscoveryType>,
    pub(super) load_assignment: Option<ClusterLoadAssignment>,
    pub(super) eds_cluster_config: Option<EdsClusterConfig>,
    pub(super) dns: LegacyDns,
}

impl Discovery {
    pub(super) fn from_proto(fields: HostFields, cluster_name: &str) -> Result<Self> {
        let HostFields { discovery_type, load_assignment, eds_cluster_config, dns } = fields;
        let discovery_type = match discovery_type {
            None => DiscoveryType::Static,
            Some(ClusterDiscoveryType::Type(value)) => field::enumeration(value, "type")?,
            Some(ClusterDiscoveryType::ClusterType(message)) => {
                return Self::from_extension(message, load_assignment).within("cluster_type");
            }
        };
        if discovery_type != DiscoveryType::Eds && eds_cluster_config.is_some() {
            return Err(FieldError::new("eds_cluster_config", "only for a cluster of type EDS"));
        }
        let takes_hosts =
            matches!(discovery_type, DiscoveryType::Static | DiscoveryType::StrictDns | DiscoveryType::LogicalDns);
        if !takes_hosts && load_assignment.is_some() {
            return Err(FieldError::new("load_assignment", "only for a cluster of type STATIC or DNS"));
        }
        match discovery_type {
            DiscoveryType::Static => LoadAssignment::from_proto(load_assignment.unwrap_or_default())
                .within("load_assignment")
                .map(Self::Static),
            DiscoveryType::Eds => {
                let message = required(eds_cluster_config, "eds_cluster_config")?;
                Self::eds(message, cluster_name).within("eds_cluster_config")
            }
            DiscoveryType::StrictDns => Self::dns(dns, DnsHosts::Each, load_assignment),
            DiscoveryType::LogicalDns => Self::dns(dns, DnsHosts::Logical, load_assignment),
            DiscoveryType::OriginalDst => Ok(Self::OriginalDst),
        }
    }

    fn from_extension(message: CustomClusterType, load_assignment: Option<ClusterLoadAssignment>) -> Result<Self> {
        let CustomClusterType { name: _, typed_config } = message;
        let extension = Extension::new(typed_config.ok_or_else(without_typed_config)?)?;
        if extension.is::<DnsCluster>() {
            DnsDiscovery::from_extension(extension.unpack()?, load_assignment)
                .within("typed_config")
                .map(|dns| Self::Dns(Arc::new(dns)))
        } else if extension.is::<AggregateConfig>() {
            let AggregateConfig { clusters } = extension.unpack()?;
            if clusters.is_empty() {
                return Err(FieldError::new("typed_config.clusters", "value must contain at least 1 item"));
            }
            Ok(Self::Aggregate(clusters.into_iter().map(Into::into).collect()))
        } else {
            Err(extension.unsupported())
        }
    }

    fn dns(fields: LegacyDns, hosts: DnsHosts, load_assignment: Option<ClusterLoadAssignment>) -> Result<Self> {
        DnsDiscovery::from_legacy(fields, hosts, load_assignment).map(|dns| Self::Dns(Arc::new(dns)))
    }

    fn eds(message: EdsClusterConfig, cluster_name: &str) -> Result<Self> {
        let EdsClusterConfig { eds_config, service_name } = message;
        let DiscoverySource { initial_fetch_timeout } =
            DiscoverySource::from_proto(required(eds_config, "eds_config")?).within("eds_config")?;
        let service_name = if service_name.is_empty() { cluster_name.into() } else { service_name.into() };
        Ok(Self::Eds { service_name, initial_fetch_timeout })
    }

    /// Only original destinations and aggregates give their own load balancer, and they take no other.
    pub(super) fn check(&self, balancing: &LoadBalancing) -> Result<()> {
        let provided = balancing.policy == LbPolicy::ClusterProvided;
        match self {
            Self::OriginalDst if !provided => {
                Err(FieldError::new("lb_policy", "a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED only"))
            }
            Self::OriginalDst if balancing.subsets.is_some() => {
                Err(FieldError::new("lb_subset_config", "not for a cluster of type ORIGINAL_DST"))
            }
            Self::Aggregate(_) if !provided => {
                Err(FieldError::new("lb_policy", "an aggregate cluster takes CLUSTER_PROVIDED only"))
            }
            Self::Static(_) | Self::Eds { .. } | Self::Dns(_) if provided => {
                Err(FieldError::new("lb_policy", "CLUSTER_PROVIDED is only for a cluster of type ORIGINAL_DST"))
            }
            Self::Static(_) | Self::Eds { .. } if balancing.hashes_hostnames() => {
                Err(FieldError::new("common_lb_config.consistent_hashing_lb_config", HOSTNAMES))
            }
            Self::Dns(dns) if balancing.hashes_hostnames() && dns.hosts == DnsHosts::Logical => {
                Err(FieldError::new("common_lb_config.consistent_hashing_lb_config", HOSTNAMES))
            }
            _ => Ok(()),
        }
    }
}

const HOSTNAMES: &str = "Cannot use hostname for consistent hashing loadbalancing for cluster of this type";
