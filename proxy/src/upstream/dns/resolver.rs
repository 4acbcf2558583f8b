//! Looking a name up: one resolver a cluster, as its configuration says.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig as HickoryConfig,
        ResolverOpts, ServerOrderingStrategy,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf,
};

use crate::config::cluster::{LookupFamily, ResolverConfig};

pub(super) struct Resolver {
    resolver: TokioResolver,
    no_default_search_domain: bool,
}

/// What a name stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In the order of the answer, each once. Empty: there is no such name, or none with an address.
    pub(super) addresses: Vec<IpAddr>,
    /// None: for ever.
    pub(super) ttl: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot look up '{name}'")]
pub(super) struct LookupError {
    name: String,
    #[source]
    source: NetError,
}

/// Of an answer: more hosts than these of one name nobody has a use for.
const ADDRESSES_MAX: usize = 1024;

impl Resolver {
    /// The system's configuration is read now; where it cannot be, and nothing else is configured, every look-up fails.
    pub(super) fn new(config: &ResolverConfig, family: LookupFamily) -> Result<Resolver, LookupError> {
        let (servers, options) = system_conf::read_system_conf().unwrap_or_default();
        let mut servers = if config.no_default_search_domain {
            HickoryConfig::from_name_servers(servers.name_servers().to_vec())
        } else {
            servers
        };
        let has_own = !servers.name_servers().is_empty();
        let asks_own = config.servers.is_empty() || config.servers_are_fallback && has_own;
        if !asks_own {
            let (domain, search, _) = servers.into_parts();
            let own = config.servers.iter().map(|server| name_server(*server, config.use_tcp)).collect();
            servers = HickoryConfig::from_parts(domain, search, own);
        } else if config.use_tcp {
            let (domain, search, system) = servers.into_parts();
            let over_tcp = |server: NameServerConfig| NameServerConfig::tcp(server.ip);
            servers = HickoryConfig::from_parts(domain, search, system.into_iter().map(over_tcp).collect());
        }
        let resolver = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(with_own(options, config, family))
            .build();
        let resolver = resolver.map_err(|source| LookupError { name: String::new(), source })?;
        Ok(Resolver { resolver, no_default_search_domain: config.no_default_search_domain })
    }

    pub(super) async fn look_up(&self, name: &str) -> Result<Answer, LookupError> {
        if let Ok(address) = name.parse() {
            return Ok(Answer { addresses: vec![address], ttl: None });
        }
        let asked =
            if self.no_default_search_domain && !name.ends_with('.') { format!("{name}.") } else { name.to_owned() };
        match self.resolver.lookup_ip(asked).await {
            Ok(found) => {
                let mut addresses = Vec::new();
                for address in found.iter().take(ADDRESSES_MAX) {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                let seconds = found.as_lookup().answers().iter().map(|record| record.ttl).min();
                Ok(Answer { addresses, ttl: seconds.map(|seconds| Duration::from_secs(seconds.into())) })
            }
            // That there is none is an answer too.
            Err(error) if error.is_no_records_found() => Ok(Answer::default()),
            Err(source) => Err(LookupError { name: name.to_owned(), source }),
        }
    }
}

fn name_server(address: SocketAddr, use_tcp: bool) -> NameServerConfig {
    let mut server =
        if use_tcp { NameServerConfig::tcp(address.ip()) } else { NameServerConfig::udp_and_tcp(address.ip()) };
    let with_port = |connection: &mut ConnectionConfig| connection.port = address.port();
    server.connections.iter_mut().for_each(with_port);
    server
}

fn with_own(mut options: ResolverOpts, config: &ResolverConfig, family: LookupFamily) -> ResolverOpts {
    options.ip_strategy = match family {
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::All => LookupIpStrategy::Ipv6AndIpv4,
    };
    options.use_hosts_file = ResolveHosts::Always;
    // Each refresh asks anew.
    options.cache_size = 0;
    options.server_ordering_strategy = match config.rotate_servers {
        true => ServerOrderingStrategy::RoundRobin,
        false => ServerOrderingStrategy::UserProvidedOrder,
    };
    if let Some(timeout) = config.query_timeout {
        options.timeout = timeout;
    }
    if let Some(tries) = config.tries {
        options.attempts = tries as usize;
    }
    if let Some(bytes) = config.edns_payload_bytes_max {
        options.edns_payload_len = bytes as u16;
    }
    options
}
