//! Looking a name up: in `/etc/hosts`, then at the name servers of the cluster's configuration or of `/etc/resolv.conf`, with
//! its search domains. Both files are read anew each time, for they change while the process runs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::query::{self, Family, QueryError};
use crate::config::cluster::{LookupFamily, ResolverConfig};

pub(super) struct Resolver {
    config: ResolverConfig,
    family: LookupFamily,
    /// Where servers are asked in turns.
    turn: AtomicUsize,
}

/// What a name stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In the order of the answer, each once. Empty: there is no such name, or none with an address.
    pub(super) addresses: Vec<IpAddr>,
    /// The shortest of all. None: for ever.
    pub(super) ttl: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("no name server is configured")]
    NoServers,
    #[error("cannot look up '{name}' at {server}")]
    Query {
        name: String,
        server: SocketAddr,
        #[source]
        source: QueryError,
    },
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// What resolv.conf(5) begins with.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 2;

impl Resolver {
    pub(super) fn new(config: &ResolverConfig, family: LookupFamily) -> Resolver {
        Resolver { config: config.clone(), family, turn: AtomicUsize::new(0) }
    }

    pub(super) async fn look_up(&self, name: &str) -> Result<Answer, LookupError> {
        if let Ok(address) = name.parse() {
            return Ok(Answer { addresses: vec![address], ttl: None });
        }
        // Small and in the page cache: nothing here is kept waiting by them.
        let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
        let system = std::fs::read(RESOLV_CONF).unwrap_or_default();
        let system = resolv_conf::Config::parse(system).unwrap_or_default();
        let ask = |family| self.look_up_in(name, family, &hosts, &system);
        let preferring = |first, second| async move {
            match ask(first).await {
                Ok(found) if !found.addresses.is_empty() => Ok(found),
                // None of one family, or not known: the other decides.
                _ => ask(second).await,
            }
        };
        match self.family {
            LookupFamily::V4Only => ask(Family::V4).await,
            LookupFamily::V6Only => ask(Family::V6).await,
            LookupFamily::Auto => preferring(Family::V6, Family::V4).await,
            LookupFamily::V4Preferred => preferring(Family::V4, Family::V6).await,
            LookupFamily::All => match tokio::join!(ask(Family::V6), ask(Family::V4)) {
                (Ok(six), Ok(four)) => Ok(six.joined(four)),
                (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.addresses.is_empty() => Ok(one),
                (Err(error), _) | (_, Err(error)) => Err(error),
            },
        }
    }

    async fn look_up_in(
        &self,
        name: &str,
        family: Family,
        hosts: &str,
        system: &resolv_conf::Config,
    ) -> Result<Answer, LookupError> {
        let known = in_hosts(hosts, name, family);
        if !known.addresses.is_empty() {
            return Ok(known);
        }
        let mut last = Ok(Answer::default());
        for name in self.names(name, system) {
            last = self.ask_servers(&name, family, system).await;
            if last.as_ref().is_ok_and(|found| !found.addresses.is_empty()) {
                break;
            }
        }
        last
    }

    /// With search domains: a name of enough dots is tried as it is first (resolv.conf(5)).
    fn names(&self, name: &str, system: &resolv_conf::Config) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names = Vec::new();
        if !self.config.no_default_search_domain {
            let domains = system.get_last_search_or_domain().filter(|domain| !domain.is_empty() && *domain != ".");
            names.extend(domains.map(|domain| format!("{name}.{}", domain.trim_matches('.'))));
        }
        let dots = name.matches('.').count();
        let at = if dots >= system.ndots as usize { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }

    async fn ask_servers(
        &self,
        name: &str,
        family: Family,
        system: &resolv_conf::Config,
    ) -> Result<Answer, LookupError> {
        let servers = self.servers(system);
        let timeout = self.config.query_timeout.unwrap_or(match system.timeout {
            0 => QUERY_TIMEOUT,
            seconds => Duration::from_secs(seconds.into()),
        });
        let use_tcp = self.config.use_tcp || system.use_vc;
        let mut last = Err(LookupError::NoServers);
        for _ in 0..self.config.tries.unwrap_or(TRIES) {
            for &server in &servers {
                last = match query::ask(server, name, family, use_tcp, timeout).await {
                    Ok(found) => return Ok(found),
                    Err(source) => Err(LookupError::Query { name: name.to_owned(), server, source }),
                };
            }
        }
        last
    }

    fn servers(&self, system: &resolv_conf::Config) -> Vec<SocketAddr> {
        let own = || self.config.servers.clone();
        let systems: Vec<SocketAddr> =
            system.nameservers.iter().map(|server| SocketAddr::new(server.into(), DNS_PORT)).collect();
        let mut servers = match (self.config.servers.is_empty(), self.config.servers_are_fallback) {
            (false, false) => own(),
            (false, true) if systems.is_empty() => own(),
            _ => systems,
        };
        if self.config.rotate_servers && !servers.is_empty() {
            let turn = self.turn.fetch_add(1, Relaxed) % servers.len();
            servers.rotate_left(turn);
        }
        servers
    }
}

impl Answer {
    pub(super) fn add(&mut self, address: IpAddr, ttl: Duration) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self.ttl = Some(self.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
    }

    fn joined(mut self, other: Answer) -> Answer {
        self.addresses.extend(other.addresses);
        self.ttl = self.ttl.into_iter().chain(other.ttl).min();
        self
    }
}

/// hosts(5): an address, then the names that it has.
fn in_hosts(hosts: &str, name: &str, family: Family) -> Answer {
    let mut found = Answer::default();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        let is_wanted = address.is_ipv4() == (family == Family::V4);
        if is_wanted
            && words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.')))
            && !found.addresses.contains(&address)
        {
            found.addresses.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_family_and_name() {
        let hosts = "127.0.0.1 localhost a.test # b.test\n::1 localhost\nnonsense\n10.0.0.1\tA.TEST\n";
        let found = |name, family| in_hosts(hosts, name, family).addresses.len();
        assert_eq!((found("a.test", Family::V4), found("localhost", Family::V6)), (2, 1));
        assert_eq!((found("b.test", Family::V4), found("a.test", Family::V6)), (0, 0));
    }

    #[test]
    fn search_domains_come_before_short_names() {
        let system = resolv_conf::Config::parse("search one.test two.test\noptions ndots:2\n").expect("well-formed");
        let names = |no_default_search_domain, name: &str| {
            let config = ResolverConfig { no_default_search_domain, ..ResolverConfig::default() };
            Resolver::new(&config, LookupFamily::Auto).names(name, &system).join(" ")
        };
        assert_eq!(names(false, "a"), "a.one.test a.two.test a");
        assert_eq!(names(false, "a.b.c"), "a.b.c a.b.c.one.test a.b.c.two.test");
        assert_eq!((names(true, "a"), names(false, "a.")), ("a".to_owned(), "a".to_owned()));
    }

    #[test]
    fn the_configured_servers_win_unless_they_are_a_fallback() {
        let system = resolv_conf::Config::parse("nameserver 10.0.0.1\n").expect("well-formed");
        let own: SocketAddr = "10.0.0.2:5353".parse().expect("an address");
        let servers = |servers_are_fallback, system: &resolv_conf::Config| {
            let config = ResolverConfig { servers: vec![own], servers_are_fallback, ..ResolverConfig::default() };
            Resolver::new(&config, LookupFamily::Auto).servers(system)
        };
        assert_eq!(servers(false, &system), [own]);
        assert_eq!(servers(true, &system), ["10.0.0.1:53".parse().expect("an address")]);
        assert_eq!(servers(true, &resolv_conf::Config::new()), [own]);
    }
}
