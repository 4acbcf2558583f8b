//! Clusters whose hosts are found by DNS: `STRICT_DNS`, `LOGICAL_DNS` and the extension that both became; and which
//! servers are asked.

use std::{net::SocketAddr, time::Duration};

use weft_xds::{
    FieldError,
    pb::{
        envoy::{
            config::{
                cluster::v3::cluster::{DnsLookupFamily as LegacyLookupFamily, RefreshRate as LegacyRefreshRate},
                core::v3::{Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig},
                endpoint::v3::ClusterLoadAssignment,
            },
            extensions::{
                clusters::{
                    common::dns::v3::DnsLookupFamily,
                    dns::v3::{DnsCluster, dns_cluster::RefreshRate},
                },
                network::dns_resolver::{
                    cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig,
                },
            },
        },
        google::protobuf::Duration as ProtoDuration,
    },
};

use crate::config::{
    address::socket_addr,
    endpoint::{DnsTarget, LoadAssignment},
    field::{self, Extension, Result, Within as _, refuse, required},
};

/// A cluster that is looked up by names.
#[derive(Clone, Debug)]
pub struct DnsDiscovery {
    pub assignment: LoadAssignment<DnsTarget>,
    pub hosts: DnsHosts,
    pub refresh_rate: Duration,
    /// After an answer that says nothing, with back-off up to the second.
    pub failure_refresh_rate: Option<(Duration, Duration)>,
    /// Answers say themselves when they are to be refreshed.
    pub respect_ttl: bool,
    /// Refreshing is late by up to so much.
    pub jitter: Duration,
    /// Not sooner, whatever the answer says.
    pub min_refresh_rate: Duration,
    pub lookup_family: LookupFamily,
    pub resolver: ResolverConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsHosts {
    /// Each address of an answer is a host.
    Each,
    /// A name is one host; new connections go to what it stands for at the time.
    Logical,
    /// A name is one host with all of its addresses.
    Together,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6 if there is any, else IPv4.
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// What is asked. Without servers: those of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    pub servers: Vec<SocketAddr>,
    /// The servers only where the system names none.
    pub servers_are_fallback: bool,
    pub use_tcp: bool,
    pub no_default_search_domain: bool,
    pub query_timeout: Option<Duration>,
    pub tries: Option<u32>,
    pub rotate_servers: bool,
}

/// The fields of the cluster itself that say it.
pub(super) struct LegacyDns {
    pub(super) refresh_rate: Option<ProtoDuration>,
    pub(super) failure_refresh_rate: Option<LegacyRefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) jitter: Option<ProtoDuration>,
    pub(super) lookup_family: i32,
    pub(super) resolvers: Vec<Address>,
    pub(super) use_tcp: bool,
    pub(super) resolution: Option<DnsResolutionConfig>,
    pub(super) typed_resolver: Option<TypedExtensionConfig>,
}

const REFRESH_RATE: Duration = Duration::from_secs(5);
const MIN_REFRESH_RATE: Duration = Duration::from_secs(1);
/// Of the longest pause after failures, where only the shortest is given.
const FAILURE_BACKOFF_FACTOR: u32 = 10;
const RESOLVERS_MAX: usize = 32;

impl DnsDiscovery {
    pub(super) fn from_legacy(
        fields: LegacyDns,
        hosts: DnsHosts,
        load_assignment: Option<ClusterLoadAssignment>,
    ) -> Result<Self> {
        let LegacyDns {
            refresh_rate,
            failure_refresh_rate,
            respect_ttl,
            jitter,
            lookup_family,
            resolvers,
            use_tcp,
            resolution,
            typed_resolver,
        } = fields;
        let lookup_family = match field::enumeration(lookup_family, "dns_lookup_family")? {
            LegacyLookupFamily::Auto => LookupFamily::Auto,
            LegacyLookupFamily::V4Only => LookupFamily::V4Only,
            LegacyLookupFamily::V6Only => LookupFamily::V6Only,
            LegacyLookupFamily::V4Preferred => LookupFamily::V4Preferred,
            LegacyLookupFamily::All => LookupFamily::All,
        };
        let failure_refresh_rate = failure_refresh_rate
            .map(|LegacyRefreshRate { base_interval, max_interval }| RefreshRate { base_interval, max_interval });
        let resolver = match (typed_resolver, resolution) {
            (Some(typed), _) => ResolverConfig::from_extension(typed).within("typed_dns_resolver_config")?,
            (None, Some(message)) => {
                let DnsResolutionConfig { resolvers, dns_resolver_options } = message;
                ResolverConfig {
                    servers: servers(resolvers, "resolvers").within("dns_resolution_config")?,
                    ..ResolverConfig::default()
                }
                .with_options(dns_resolver_options.unwrap_or_default())
            }
            (None, None) => {
                ResolverConfig { servers: servers(resolvers, "dns_resolvers")?, use_tcp, ..ResolverConfig::default() }
            }
        };
        Ok(Self {
            assignment: assignment(hosts, load_assignment)?,
            hosts,
            refresh_rate: positive(refresh_rate, "dns_refresh_rate")?.unwrap_or(REFRESH_RATE),
            failure_refresh_rate: failure_rate(failure_refresh_rate).within("dns_failure_refresh_rate")?,
            respect_ttl,
            jitter: field::duration_or(jitter, Duration::ZERO, "dns_jitter")?,
            min_refresh_rate: MIN_REFRESH_RATE,
            lookup_family,
            resolver,
        })
    }

    /// `envoy.clusters.dns`; errors stand below its `typed_config`.
    pub(super) fn from_extension(message: DnsCluster, load_assignment: Option<ClusterLoadAssignment>) -> Result<Self> {
        let DnsCluster {
            dns_refresh_rate,
            dns_failure_refresh_rate,
            respect_dns_ttl,
            dns_jitter,
            typed_dns_resolver_config,
            dns_lookup_family,
            all_addresses_in_single_endpoint,
            dns_min_refresh_rate,
        } = message;
        let hosts = if all_addresses_in_single_endpoint { DnsHosts::Together } else { DnsHosts::Each };
        let lookup_family = match field::enumeration(dns_lookup_family, "dns_lookup_family")? {
            DnsLookupFamily::Unspecified | DnsLookupFamily::Auto => LookupFamily::Auto,
            DnsLookupFamily::V4Only => LookupFamily::V4Only,
            DnsLookupFamily::V6Only => LookupFamily::V6Only,
            DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
            DnsLookupFamily::All => LookupFamily::All,
        };
        let resolver = typed_dns_resolver_config.map(ResolverConfig::from_extension).transpose();
        Ok(Self {
            assignment: assignment(hosts, load_assignment)?,
            hosts,
            refresh_rate: positive(dns_refresh_rate, "dns_refresh_rate")?.unwrap_or(REFRESH_RATE),
            failure_refresh_rate: failure_rate(dns_failure_refresh_rate).within("dns_failure_refresh_rate")?,
            respect_ttl: respect_dns_ttl,
            jitter: field::duration_or(dns_jitter, Duration::ZERO, "dns_jitter")?,
            min_refresh_rate: positive(dns_min_refresh_rate, "dns_min_refresh_rate")?.unwrap_or(MIN_REFRESH_RATE),
            lookup_family,
            resolver: resolver.within("typed_dns_resolver_config")?.unwrap_or_default(),
        })
    }
}

fn assignment(hosts: DnsHosts, load_assignment: Option<ClusterLoadAssignment>) -> Result<LoadAssignment<DnsTarget>> {
    let message = load_assignment.unwrap_or_default();
    let assignment = LoadAssignment::<DnsTarget>::from_proto(message).within("load_assignment")?;
    let localities: usize = assignment.priorities.iter().map(Vec::len).sum();
    if hosts != DnsHosts::Each && (localities != 1 || assignment.endpoints().count() != 1) {
        return Err(FieldError::new(
            "load_assignment",
            "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ));
    }
    Ok(assignment)
}

fn failure_rate(message: Option<RefreshRate>) -> Result<Option<(Duration, Duration)>> {
    let Some(RefreshRate { base_interval, max_interval }) = message else { return Ok(None) };
    let base = required(positive(base_interval, "base_interval")?, "base_interval")?;
    let max = positive(max_interval, "max_interval")?.unwrap_or(base * FAILURE_BACKOFF_FACTOR);
    if max < base {
        return Err(FieldError::new("max_interval", "must be greater than or equal to base_interval"));
    }
    Ok(Some((base, max)))
}

/// Envoy asks for more than a millisecond.
fn positive(message: Option<ProtoDuration>, path: &str) -> Result<Option<Duration>> {
    match field::duration(message, path)? {
        Some(rate) if rate <= Duration::from_millis(1) => {
            Err(FieldError::new(path, "value must be greater than 0.001s"))
        }
        rate => Ok(rate),
    }
}

fn servers(messages: Vec<Address>, path: &str) -> Result<Vec<SocketAddr>> {
    if messages.len() > RESOLVERS_MAX {
        return Err(FieldError::new(path, format!("at most {RESOLVERS_MAX} are supported")));
    }
    field::each(messages, path, socket_addr)
}

impl ResolverConfig {
    fn from_extension(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message;
        let extension = Extension::new(required(typed_config, "typed_config")?)?;
        if extension.is::<CaresDnsResolverConfig>() {
            Self::from_cares(extension.unpack()?).within("typed_config")
        } else if extension.is::<GetAddrInfoDnsResolverConfig>() {
            let GetAddrInfoDnsResolverConfig {
                num_retries,
                num_resolver_threads: _, // nothing here blocks a thread
            } = extension.unpack()?;
            Ok(Self { tries: num_retries.map(|retries| retries.value.saturating_add(1)), ..Self::default() })
        } else {
            Err(extension.unsupported())
        }
    }

    fn from_cares(message: CaresDnsResolverConfig) -> Result<Self> {
        let CaresDnsResolverConfig {
            resolvers,
            use_resolvers_as_fallback,
            filter_unroutable_families,
            dns_resolver_options,
            udp_max_queries: _, // how long c-ares keeps a socket; each query here has its own
            query_timeout_seconds,
            query_tries,
            rotate_nameservers,
            edns0_max_payload_size: _,    // what does not fit without it comes over TCP
            max_udp_channel_duration: _,  // as above
            reinit_channel_on_timeout: _, // as above
            qcache_max_ttl: _,            // nothing is cached beyond its refresh
        } = message;
        refuse!(filter_unroutable_families);
        Ok(Self {
            servers: servers(resolvers, "resolvers")?,
            servers_are_fallback: use_resolvers_as_fallback,
            query_timeout: query_timeout_seconds.map(|seconds| Duration::from_secs(seconds.value.max(1))),
            tries: query_tries.map(|tries| tries.value.max(1)),
            rotate_servers: rotate_nameservers,
            ..Self::default()
        }
        .with_options(dns_resolver_options.unwrap_or_default()))
    }

    fn with_options(self, message: DnsResolverOptions) -> Self {
        let DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain } = message;
        Self { use_tcp: use_tcp_for_dns_lookups, no_default_search_domain, ..self }
    }
}
