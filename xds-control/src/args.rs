//! The command line of `weft-control`: what was typed, then what it means.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ca::token::TokenRules;
use crate::source::debounce::Debounce;
use crate::translate::{AccessLog, AccessLogFormat, LoadBalancing, MeshSettings, OutboundPolicy};
use crate::transport::Lifetimes;
use crate::transport::tls::ServerSource;

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
#[command(group = clap::ArgGroup::new("server_certificate").args(["tls_certificate_file", "ca_dir"]).multiple(true))]
pub struct Serve {
    /// Folder of Kubernetes manifests to watch
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Serve xDS without TLS here; whoever can connect can read the configuration of every proxy. Without HOST: on
    /// loopback only
    #[arg(long, value_name = "[HOST]:PORT", value_parser = address_or_port, required_unless_present = "tls_xds_address")]
    pub plaintext_xds_address: Option<SocketAddr>,
    /// Serve xDS over TLS here
    #[arg(long, value_name = "HOST:PORT", requires = "server_certificate")]
    pub tls_xds_address: Option<SocketAddr>,
    /// Chain of certificates for --tls-xds-address, PEM, leaf first; read again when it changes, as are the other files
    #[arg(long, value_name = "FILE", requires = "tls_xds_address", requires = "tls_key_file")]
    pub tls_certificate_file: Option<PathBuf>,
    /// Private key for --tls-xds-address, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Ask clients of --tls-xds-address for a certificate that leads to one of these roots, PEM, and hold them to the
    /// identity in it
    #[arg(long, value_name = "FILE", requires = "tls_xds_address")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Be the mesh's certificate authority on --tls-xds-address, with the key and certificates in this folder (ca-cert.pem,
    /// ca-key.pem, cert-chain.pem, root-cert.pem), which are made where there are none. Clients are asked for certificates
    /// of it, and get configuration for the identity in them only; the server's own certificate is of it too unless
    /// --tls-certificate-file says otherwise
    #[arg(long, value_name = "DIR", requires = "tls_xds_address")]
    pub ca_dir: Option<PathBuf>,
    /// Sign for pods that send a service account token which one of these keys signed (a JWKS)
    #[arg(long, value_name = "FILE", requires = "ca_dir")]
    pub ca_jwks_file: Option<PathBuf>,
    /// One of these has to be an audience of the token
    #[arg(
        long,
        value_name = "LIST",
        requires = "ca_jwks_file",
        value_delimiter = ',',
        default_value = "istio-ca,weft-ca"
    )]
    pub ca_token_audiences: Vec<String>,
    /// Who has to have issued the token
    #[arg(long, value_name = "ISSUER", requires = "ca_jwks_file")]
    pub ca_token_issuer: Option<String>,
    /// Workloads' certificates are valid this long, or less if less is asked for
    #[arg(long, value_name = "DURATION", requires = "ca_dir", default_value = "24h", value_parser = duration)]
    pub ca_certificate_lifetime: Duration,
    /// The names that the server's own certificate is for
    #[arg(long, value_name = "LIST", requires = "ca_dir", value_delimiter = ',', default_value = SERVER_NAMES)]
    pub tls_server_names: Vec<String>,
    /// End connections of proxies when they are this old, more or less, so that they spread over replicas anew
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub connection_age_max: Duration,
    /// Serve metrics, health and debugging here; whoever can connect can read the metrics
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15014")]
    pub monitoring_address: SocketAddr,
    /// Show the debugging pages to who is not on loopback too, if they send the token in this file (Authorization:
    /// Bearer); read at each request
    #[arg(long, value_name = "FILE")]
    pub debug_token_file: Option<PathBuf>,
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
    /// Form of a line of that log: a text with Envoy's formatter commands, or a JSON object of such texts; empty: the
    /// encoding's default
    #[arg(long, value_name = "FORMAT", default_value = "", requires = "access_log_file")]
    pub access_log_format: String,
    /// Encoding of that log
    #[arg(long, value_name = "ENCODING", default_value = "TEXT", ignore_case = true)]
    pub access_log_encoding: AccessLogEncoding,
    /// How long a proxy listens for the first bytes where a port's protocol is not declared
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub protocol_detection_timeout: Duration,
    /// A burst of changes is over after this long without any
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    pub debounce_quiet: Duration,
    /// A burst of changes is pushed after this long even if it goes on
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub debounce_max: Duration,
    /// On SIGTERM, end the proxies' connections spread over this long
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub drain_duration: Duration,
    /// Log this much: error, warn, info, debug, trace, or a list such as info,weft_control::ads=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Log in this form
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// By which sidecars call the control plane in a cluster, ours and Istio's, and on this machine.
const SERVER_NAMES: &str = "weft-control.weft-system.svc,istiod.istio-system.svc,localhost,127.0.0.1";

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
pub enum AccessLogEncoding {
    #[value(name = "TEXT")]
    Text,
    #[value(name = "JSON")]
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Serve {
    pub fn settings(&self) -> Result<MeshSettings, SettingsError> {
        Ok(MeshSettings {
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
            access_log: self.access_log()?,
            detection_timeout: self.protocol_detection_timeout,
        })
    }

    fn access_log(&self) -> Result<Option<AccessLog>, SettingsError> {
        if self.access_log_file.is_empty() {
            return Ok(None);
        }
        let format = match (self.access_log_encoding, self.access_log_format.as_str()) {
            (AccessLogEncoding::Text, "") => AccessLogFormat::Default,
            (AccessLogEncoding::Text, text) => AccessLogFormat::Text(text.to_owned()),
            (AccessLogEncoding::Json, "") => AccessLogFormat::Json(default_log_fields()),
            (AccessLogEncoding::Json, text) => {
                AccessLogFormat::Json(serde_json::from_str(text).map_err(SettingsError::AccessLogFormat)?)
            }
        };
        Ok(Some(AccessLog { file: self.access_log_file.clone(), format }))
    }

    /// Where the server's certificate on the TLS port comes from.
    pub fn server_source(&self) -> ServerSource {
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => {
                ServerSource::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ => ServerSource::Authority { names: self.tls_server_names.clone() },
        }
    }

    /// How pods prove who they are to the authority, besides by certificates.
    pub fn token_rules(&self) -> Option<TokenRules> {
        Some(TokenRules {
            jwks_file: self.ca_jwks_file.clone()?,
            audiences: self.ca_token_audiences.clone(),
            issuer: self.ca_token_issuer.clone(),
            trust_domain: self.trust_domain.clone(),
        })
    }

    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes { connection_age_max: self.connection_age_max, drain: self.drain_duration }
    }

    pub fn debounce(&self) -> Debounce {
        Debounce { quiet: self.debounce_quiet, max: self.debounce_max.max(self.debounce_quiet) }
    }
}

/// Flags that don't go together.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("--access-log-format is not a JSON object of texts, as --access-log-encoding JSON wants it")]
    AccessLogFormat(#[source] serde_json::Error),
}

/// The fields of a line in JSON, under the names that people's tools know from Istio's default.
fn default_log_fields() -> BTreeMap<String, String> {
    let fields = [
        ("authority", "%REQ(:AUTHORITY)%"),
        ("bytes_received", "%BYTES_RECEIVED%"),
        ("bytes_sent", "%BYTES_SENT%"),
        ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
        ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
        ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("duration", "%DURATION%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("route_name", "%ROUTE_NAME%"),
        ("start_time", "%START_TIME%"),
        ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
        ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
        ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
        ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ];
    fields.into_iter().map(|(key, format)| (key.to_owned(), format.to_owned())).collect()
}

/// `127.0.0.1:15010`, `:15010`, `15010`.
fn address_or_port(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
    let address = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|_| text.parse());
    address.map_err(|_| "an IP address and a port are expected, such as 127.0.0.1:15010".to_owned())
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
        "h" => number.checked_mul(3_600_000),
        _ => return Err("the unit must be ms, s, m or h".to_owned()),
    };
    let in_range = milliseconds.filter(|milliseconds| *milliseconds <= DURATION_MILLISECONDS_MAX);
    in_range.map(Duration::from_millis).ok_or_else(|| "must not be longer than a day".to_owned())
}

const DURATION_MILLISECONDS_MAX: u64 = 24 * 3_600_000;

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
    fn the_access_log_has_a_format_of_its_encoding() {
        let log = |flags: &[&str]| {
            let line = ["weft-control", "serve", "--manifests", "x", "--plaintext-xds-address", "127.0.0.1:0"];
            let Command::Serve(serve) = Arguments::try_parse_from(line.iter().chain(flags)).unwrap().command;
            serve.settings().map(|settings| settings.access_log)
        };
        let format = |flags: &[&str]| {
            log(&[&["--access-log-file", "/dev/stdout"], flags].concat()).map(|log| log.unwrap().format)
        };
        assert_eq!(log(&[]).unwrap(), None);
        assert_eq!(format(&[]).unwrap(), AccessLogFormat::Default);
        let text = AccessLogFormat::Text("%PROTOCOL%".to_owned());
        assert_eq!(format(&["--access-log-format", "%PROTOCOL%"]).unwrap(), text);
        let json = ["--access-log-encoding", "json"];
        assert!(matches!(format(&json).unwrap(), AccessLogFormat::Json(fields) if fields.len() > 20));
        let own = AccessLogFormat::Json([("a".to_owned(), "%PROTOCOL%".to_owned())].into());
        assert_eq!(format(&[&json[..], &["--access-log-format", r#"{"a": "%PROTOCOL%"}"#]].concat()).unwrap(), own);
        assert!(format(&[&json[..], &["--access-log-format", "%PROTOCOL%"]].concat()).is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "2", "s", "25h", "2d", "-1s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_without_a_host_is_loopback() {
        for text in ["127.0.0.1:15010", ":15010", "15010"] {
            assert_eq!(address_or_port(text), Ok(SocketAddr::from(([127, 0, 0, 1], 15010))));
        }
        assert!(address_or_port("[::]:1").is_ok());
        for text in ["", ":", "localhost:1", "1.2.3.4", "70000", ":-1"] {
            assert!(address_or_port(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_tls_port_needs_its_files_and_some_port_is_needed() {
        let parse = |flags: &[&str]| {
            let line = ["weft-control", "serve", "--manifests", "/"].iter().chain(flags);
            Arguments::try_parse_from(line).map(|_| ()).map_err(|error| error.to_string())
        };
        let files = ["--tls-certificate-file", "a", "--tls-key-file", "b"];
        let tls = ["--tls-xds-address", "127.0.0.1:15012"];
        assert_eq!(parse(&[&tls[..], &files[..]].concat()), Ok(()));
        assert_eq!(parse(&["--plaintext-xds-address", ":15010"]), Ok(()));
        assert!(parse(&[]).unwrap_err().contains("--plaintext-xds-address"));
        let without_certificate = parse(&tls).unwrap_err();
        assert!(without_certificate.contains("--tls-certificate-file") && without_certificate.contains("--ca-dir"));
        assert_eq!(parse(&[&tls[..], &["--ca-dir", "c", "--ca-jwks-file", "d"]].concat()), Ok(()));
        assert_eq!(parse(&[&tls[..], &files[..], &["--ca-dir", "c"]].concat()), Ok(()));
        assert!(parse(&[&tls[..], &files[..2]].concat()).unwrap_err().contains("--tls-key-file"));
        assert!(parse(&["--plaintext-xds-address", ":1", "--ca-dir", "c"]).unwrap_err().contains("--tls-xds-address"));
        assert!(parse(&[&["--plaintext-xds-address", ":1"], &files[..]].concat()).unwrap_err().contains("--tls-xds"));
    }

    #[test]
    fn domains_are_dns_names() {
        assert!(domain("cluster.local").is_ok());
        for text in ["", ".", "a..b", "a|b", "a b"] {
            assert!(domain(text).is_err(), "{text:?}");
        }
    }
}
