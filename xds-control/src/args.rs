//! The command line of `weft-control`: what was typed, then what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::source::debounce::Debounce;
use crate::translate::{LoadBalancing, MeshSettings, OutboundPolicy};

/// The control plane of the Weft mesh: derives xDS configuration from Kubernetes objects and pushes it to proxies.
#[derive(Debug, Parser)]
#[command(name = "weft-control", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the mesh's objects and serve its proxies
    Serve(Serve),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Folder of Kubernetes manifests to watch
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Serve xDS without TLS here; whoever can connect can read the configuration of every proxy
    #[arg(long, value_name = "HOST:PORT")]
    pub plaintext_xds_address: SocketAddr,
    /// Serve metrics, health and debugging here
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15014")]
    pub monitoring_address: SocketAddr,
    /// DNS suffix of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Trust domain of the mesh's identities
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub trust_domain: String,
    /// What happens to traffic for which there is no Service
    #[arg(long, value_name = "POLICY", default_value = "ALLOW_ANY", ignore_case = true)]
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// How requests are spread over the endpoints of a Service
    #[arg(long, value_name = "POLICY", default_value = "LEAST_REQUEST", ignore_case = true)]
    pub load_balancing: LoadBalancingPolicy,
    /// Have proxies log every request and connection to this file, such as /dev/stdout; empty: nowhere
    #[arg(long, value_name = "FILE", default_value = "")]
    pub access_log_file: String,
    /// How long a proxy listens for the first bytes where a port's protocol is not declared
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub protocol_detection_timeout: Duration,
    /// A burst of changes is over after this long without any
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    pub debounce_quiet: Duration,
    /// A burst of changes is pushed after this long even if it goes on
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub debounce_max: Duration,
    /// On SIGTERM, end the proxies' streams spread over this long
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub drain_duration: Duration,
    /// Log this much: error, warn, info, debug, trace, or a list such as info,weft_control::ads=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Log in this form
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutboundTrafficPolicy {
    /// It goes where it was going
    #[value(name = "ALLOW_ANY")]
    AllowAny,
    /// It is refused
    #[value(name = "REGISTRY_ONLY")]
    RegistryOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadBalancingPolicy {
    #[value(name = "LEAST_REQUEST")]
    LeastRequest,
    #[value(name = "ROUND_ROBIN")]
    RoundRobin,
    #[value(name = "RANDOM")]
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Serve {
    pub fn settings(&self) -> MeshSettings {
        MeshSettings {
            cluster_domain: self.cluster_domain.clone(),
            outbound_policy: match self.outbound_traffic_policy {
                OutboundTrafficPolicy::AllowAny => OutboundPolicy::AllowAny,
                OutboundTrafficPolicy::RegistryOnly => OutboundPolicy::RegistryOnly,
            },
            load_balancing: match self.load_balancing {
                LoadBalancingPolicy::LeastRequest => LoadBalancing::LeastRequest,
                LoadBalancingPolicy::RoundRobin => LoadBalancing::RoundRobin,
                LoadBalancingPolicy::Random => LoadBalancing::Random,
            },
            access_log_file: Some(self.access_log_file.clone()).filter(|file| !file.is_empty()),
            detection_timeout: self.protocol_detection_timeout,
        }
    }

    pub fn debounce(&self) -> Debounce {
        Debounce { quiet: self.debounce_quiet, max: self.debounce_max.max(self.debounce_quiet) }
    }
}

/// `250ms`, `2s`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number =
        number.parse::<u64>().map_err(|_| "a number with a unit is expected, such as 250ms or 2s".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => return Err("the unit must be ms, s or m".to_owned()),
    };
    let in_range = milliseconds.filter(|milliseconds| *milliseconds <= DURATION_MILLISECONDS_MAX);
    in_range.map(Duration::from_millis).ok_or_else(|| "must not be longer than an hour".to_owned())
}

const DURATION_MILLISECONDS_MAX: u64 = 3_600_000;

fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("a domain name is expected, such as cluster.local".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "2", "s", "2h", "-1s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn domains_are_dns_names() {
        assert!(domain("cluster.local").is_ok());
        for text in ["", ".", "a..b", "a|b", "a b"] {
            assert!(domain(text).is_err(), "{text:?}");
        }
    }
}
