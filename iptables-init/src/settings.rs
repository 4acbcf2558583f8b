//! What the arguments mean: the typed settings that a redirection is planned from, and what is to be done with the plan.
//!
//! Second in the flow, between [`crate::args`] and [`crate::plan`]. Pure: what has to be known about the machine comes in
//! as [`Facts`].
//!
//! Invariant: whoever holds [`Settings`] or a [`Task`] holds values that were checked; text ends here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

use crate::accounts::Accounts;
use crate::args::{self, Args, ArgumentError};
use crate::value::{self, IdRange, Interface, PortSet, ValueError};

/// Everything that decides which traffic goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub proxy_port: u16,
    pub inbound_port: u16,
    pub tunnel_port: u16,
    /// The proxy's own users and groups, whose traffic is left alone.
    pub proxy_uids: Vec<IdRange>,
    pub proxy_gids: Vec<IdRange>,
    pub mode: Mode,
    pub inbound_ports: InboundPorts,
    pub outbound_ranges: OutboundRanges,
    pub outbound_ranges_exclude: Vec<IpNet>,
    pub outbound_ports: PortSet,
    pub outbound_ports_exclude: PortSet,
    pub owner_groups: OwnerGroups,
    pub exclude_interfaces: Vec<Interface>,
    pub virtual_interfaces: Vec<Interface>,
    /// The IPv4 range by which an application means itself.
    pub loopback: IpNet,
    pub dns: Dns,
    pub drop_invalid: bool,
    /// Whether IPv6 is redirected beside IPv4.
    pub ipv6: bool,
}

/// How inbound traffic gets to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By rewriting the destination.
    Redirect,
    /// By handing the packets to the proxy's transparent socket as they are.
    Tproxy { mark: u32, route_table: u32 },
}

/// Which inbound ports are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundPorts {
    None,
    AllExcept(PortSet),
    Only(PortSet),
}

/// Which destinations are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundRanges {
    All,
    Only {
        ranges: Vec<IpNet>,
        /// A loopback address is among them as written, so that calls to oneself are redirected too.
        names_loopback: bool,
    },
}

/// Whose outbound traffic is redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerGroups {
    AllExcept(Vec<IdRange>),
    Only(Vec<IdRange>),
}

/// Which DNS is redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    Off,
    /// That to these servers: at least one, and of IPv6 only if IPv6 is redirected.
    Servers(Vec<IpAddr>),
    All,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub action: Action,
    pub backend: BackendChoice,
    /// Print instead of doing.
    pub dry_run: bool,
    pub network_namespace: Option<PathBuf>,
    /// The network namespace is a pod's, but the file system is the node's.
    pub cni_mode: bool,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Apply {
        foreign: Foreign,
        verify: Option<Verification>,
    },
    Verify(Verification),
    Cleanup,
    /// Rules are neither applied nor verified: `--skip-rule-apply` alone.
    Nothing,
}

/// What to do about redirection rules of Istio's own that are in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Fail: two redirections on top of each other are neither the one nor the other.
    Refuse,
    /// Remove them: `--reconcile`.
    Replace,
    /// Leave them: `--force-apply`.
    Keep,
}

/// How the redirection is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    pub port: u16,
    pub timeout: Duration,
}

/// What may hold the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    Auto { iptables: IptablesKind },
    Nft,
    Iptables { iptables: IptablesKind },
}

/// Which of the two programs called iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IptablesKind {
    /// The one whose rules are in use already, or else the newer one.
    InUse,
    Legacy,
    Nft,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub is_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    None,
    Error,
    Warn,
    Info,
    Debug,
}

/// What settings depend on beside the arguments.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub accounts: Accounts,
    /// What `/etc/resolv.conf` says; `None` when it can't be read.
    pub resolv_conf: Option<String>,
    /// Whether the kernel has IPv6.
    pub has_ipv6: bool,
    /// Whether the namespace has an IPv4 address beside the loopback's.
    pub has_ipv4_address: bool,
}

/// Arguments that make no sense, alone or together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("{0} and {1} contradict each other")]
    Contradiction(&'static str, &'static str),
    #[error("--dual-stack: this kernel has no IPv6")]
    NoIpv6,
    #[error("--redirect-dns: /etc/resolv.conf can't be read; --capture-all-dns does without it")]
    NoResolvConf,
    #[error(
        "-p, --envoy-port and -z, --inbound-capture-port are both {0}: the proxy tells the two sides apart by port"
    )]
    SamePort(u16),
    #[error("--cni-mode needs --network-namespace: the node's own traffic must not be redirected")]
    CniModeWithoutNamespace,
}

impl Settings {
    pub fn resolve(args: &Args, facts: &Facts) -> Result<Self, SettingsError> {
        let port = |argument, default| args.read(argument, value::port).map(|port| port.unwrap_or(default));
        let proxy_port = port(&args::PROXY_PORT, 15001)?;
        let inbound_port = port(&args::INBOUND_PORT, 15006)?;
        let tunnel_port = port(&args::TUNNEL_PORT, 15008)?;
        if proxy_port == inbound_port {
            return Err(SettingsError::SamePort(proxy_port));
        }
        let proxy_uids = proxy_uids(args, facts)?;
        let proxy_gids = match args.read(&args::PROXY_GID, |text| groups(text, &facts.accounts))? {
            Some(gids) if !gids.is_empty() => gids,
            // As in Istio, the user's number serves as the group's.
            _ => proxy_uids.clone(),
        };
        let ipv6 = ipv6(args, facts)?;
        let interfaces = |argument| args.read(argument, Interface::parse_list).map(Option::unwrap_or_default);
        let ports = |argument| args.read(argument, PortSet::parse).map(Option::unwrap_or_default);
        Ok(Self {
            proxy_port,
            inbound_port,
            tunnel_port,
            proxy_uids,
            proxy_gids,
            mode: mode(args)?,
            inbound_ports: inbound_ports(args)?,
            outbound_ranges: args.read(&args::OUTBOUND_RANGES, outbound_ranges)?.unwrap_or(OutboundRanges::All),
            outbound_ranges_exclude: args.read(&args::OUTBOUND_RANGES_EXCLUDE, value::cidrs)?.unwrap_or_default(),
            outbound_ports: ports(&args::OUTBOUND_PORTS)?,
            outbound_ports_exclude: ports(&args::OUTBOUND_PORTS_EXCLUDE)?,
            owner_groups: owner_groups(args, &facts.accounts)?,
            exclude_interfaces: interfaces(&args::EXCLUDE_INTERFACES)?,
            virtual_interfaces: interfaces(&args::VIRTUAL_INTERFACES)?,
            loopback: match args.read(&args::LOOPBACK, value::loopback)? {
                Some(net) => net,
                None => value::loopback("127.0.0.1/32").expect("the default is a loopback range"),
            },
            dns: dns(args, facts, ipv6)?,
            drop_invalid: is_on(args, &args::DROP_INVALID)?,
            ipv6,
        })
    }
}

impl Settings {
    /// What was given and has no effect beside what else was given, to be told to whoever gave it.
    pub fn without_effect(&self, args: &Args) -> Vec<String> {
        let mut sentences = Vec::new();
        let mut tell = |argument: &args::Argument, is_without: bool, why: &str| {
            if is_without && args.given(argument).is_some_and(|given| !given.text.is_empty() && given.text != "false") {
                sentences.push(format!("{argument} has no effect: {why}"));
            }
        };
        let is_some_inbound = !matches!(self.inbound_ports, InboundPorts::AllExcept(_));
        tell(&args::INBOUND_PORTS_EXCLUDE, is_some_inbound, "not all inbound ports are included");
        let is_some_groups = matches!(self.owner_groups, OwnerGroups::Only(_));
        tell(&args::OWNER_GROUPS_EXCLUDE, is_some_groups, "not all groups are included");
        let is_dns_off = self.dns == Dns::Off;
        tell(&args::REDIRECT_DNS, is_dns_off, "/etc/resolv.conf names no server, and --capture-all-dns is not given");
        let is_redirected = args.given(&args::REDIRECT_DNS).is_some_and(|given| value::switch(&given.text) == Ok(true));
        tell(&args::CAPTURE_ALL_DNS, !is_redirected, "--redirect-dns is not given");
        let is_redirect = self.mode == Mode::Redirect;
        tell(&args::TPROXY_MARK, is_redirect, "the mode is REDIRECT");
        tell(&args::TPROXY_ROUTE_TABLE, is_redirect, "the mode is REDIRECT");
        sentences
    }
}

impl Task {
    pub fn resolve(args: &Args) -> Result<Self, SettingsError> {
        let network_namespace = args.read(&args::NETWORK_NAMESPACE, network_namespace)?;
        let cni_mode = is_on(args, &args::CNI_MODE)?;
        if cni_mode && network_namespace.is_none() {
            return Err(SettingsError::CniModeWithoutNamespace);
        }
        Ok(Self {
            action: action(args)?,
            backend: backend(args)?,
            dry_run: is_on(args, &args::DRY_RUN)?,
            network_namespace,
            cni_mode,
            log: Log {
                level: args.read(&args::LOG_LEVEL, log_level)?.unwrap_or(LogLevel::Info),
                is_json: is_on(args, &args::LOG_AS_JSON)?,
            },
        })
    }
}

fn is_on(args: &Args, argument: &args::Argument) -> Result<bool, ArgumentError> {
    args.read(argument, value::switch).map(|on| on.unwrap_or(false))
}

fn proxy_uids(args: &Args, facts: &Facts) -> Result<Vec<IdRange>, ArgumentError> {
    let users = |text: &str| {
        value::entries(text).map(|entry| value::owner(entry, "user", |name| facts.accounts.user(name))).collect()
    };
    let uids: Vec<_> = args.read(&args::PROXY_UID, users)?.unwrap_or_default();
    if !uids.is_empty() {
        return Ok(uids);
    }
    // An account that doesn't exist is no error here: most images have none, and everyone agrees on the number.
    let name = args.text_or(&args::ENVOY_USER, "istio-proxy");
    Ok(vec![IdRange::one(facts.accounts.user(name).unwrap_or(DEFAULT_PROXY_UID))])
}

fn groups(text: &str, accounts: &Accounts) -> Result<Vec<IdRange>, ValueError> {
    value::entries(text).map(|entry| value::owner(entry, "group", |name| accounts.group(name))).collect()
}

fn mode(args: &Args) -> Result<Mode, ArgumentError> {
    let mark = args.read(&args::TPROXY_MARK, value::mark)?.unwrap_or(DEFAULT_TPROXY_MARK);
    let route_table = args.read(&args::TPROXY_ROUTE_TABLE, value::route_table)?.unwrap_or(DEFAULT_ROUTE_TABLE);
    let mode = args.read(&args::MODE, |text| match text {
        "REDIRECT" | "" => Ok(Mode::Redirect),
        "TPROXY" => Ok(Mode::Tproxy { mark, route_table }),
        _ => Err(ValueError::Choice("REDIRECT, TPROXY")),
    })?;
    Ok(mode.unwrap_or(Mode::Redirect))
}

fn inbound_ports(args: &Args) -> Result<InboundPorts, ArgumentError> {
    let exclude = match args.read(&args::INBOUND_PORTS_EXCLUDE, PortSet::parse)? {
        Some(exclude) => exclude,
        None => DEFAULT_INBOUND_PORTS_EXCLUDE.into_iter().collect(),
    };
    let only =
        args.read(&args::INBOUND_PORTS, |text| if text == "*" { Ok(None) } else { PortSet::parse(text).map(Some) })?;
    Ok(match only.flatten() {
        None => InboundPorts::AllExcept(exclude),
        Some(ports) if ports.is_empty() => InboundPorts::None,
        // Exclusions count only where everything is included: Istio's rule, kept for pods that come from there.
        Some(ports) => InboundPorts::Only(ports),
    })
}

fn outbound_ranges(text: &str) -> Result<OutboundRanges, ValueError> {
    if text == "*" {
        return Ok(OutboundRanges::All);
    }
    Ok(OutboundRanges::Only { ranges: value::cidrs(text)?, names_loopback: value::names_loopback(text) })
}

fn owner_groups(args: &Args, accounts: &Accounts) -> Result<OwnerGroups, ArgumentError> {
    let exclude = args.read(&args::OWNER_GROUPS_EXCLUDE, |text| groups(text, accounts))?.unwrap_or_default();
    let only = args.read(&args::OWNER_GROUPS, |text| match text {
        "*" => Ok(None),
        text => match groups(text, accounts)? {
            groups if groups.len() > OWNER_GROUPS_MAX => Err(ValueError::TooMany(OWNER_GROUPS_MAX)),
            groups => Ok(Some(groups)),
        },
    })?;
    Ok(match only.flatten() {
        None => OwnerGroups::AllExcept(exclude),
        Some(groups) => OwnerGroups::Only(groups),
    })
}

fn dns(args: &Args, facts: &Facts, ipv6: bool) -> Result<Dns, SettingsError> {
    let all = is_on(args, &args::CAPTURE_ALL_DNS)?;
    if !is_on(args, &args::REDIRECT_DNS)? {
        return Ok(Dns::Off);
    }
    if all {
        return Ok(Dns::All);
    }
    let mut servers = value::name_servers(facts.resolv_conf.as_deref().ok_or(SettingsError::NoResolvConf)?);
    servers.retain(|server| ipv6 || server.is_ipv4());
    Ok(if servers.is_empty() { Dns::Off } else { Dns::Servers(servers) })
}

fn ipv6(args: &Args, facts: &Facts) -> Result<bool, SettingsError> {
    match args.read(&args::DUAL_STACK, value::switch)? {
        // Traffic must not get past the proxy just because nobody thought of IPv6.
        None => Ok(facts.has_ipv6),
        Some(true) if facts.has_ipv6 => Ok(true),
        Some(true) => Err(SettingsError::NoIpv6),
        // Istio's rule for a pod of one family: the first address decides, and IPv4 comes first.
        Some(false) => Ok(facts.has_ipv6 && !facts.has_ipv4_address),
    }
}

fn action(args: &Args) -> Result<Action, SettingsError> {
    let cleanup = is_on(args, &args::CLEANUP)? || is_on(args, &args::CLEANUP_ONLY)?;
    let verify = is_on(args, &args::VERIFY)?;
    let validate = is_on(args, &args::RUN_VALIDATION)?;
    let skip = is_on(args, &args::SKIP_RULE_APPLY)?;
    let foreign = match (is_on(args, &args::RECONCILE)?, is_on(args, &args::FORCE_APPLY)?) {
        // Istio's own charts may set both; replacing leaves nothing that would have to be forced.
        (true, _) => Foreign::Replace,
        (false, true) => Foreign::Keep,
        (false, false) => Foreign::Refuse,
    };
    let verification = Verification {
        port: args.read(&args::PROBE_PORT, value::port)?.unwrap_or(DEFAULT_PROBE_PORT),
        timeout: args.read(&args::PROBE_TIMEOUT, value::duration)?.unwrap_or(DEFAULT_PROBE_TIMEOUT),
    };
    match (cleanup, verify, skip) {
        (true, true, _) => Err(SettingsError::Contradiction("--cleanup", "--verify")),
        (true, false, _) if validate => Err(SettingsError::Contradiction("--cleanup", "--run-validation")),
        (true, false, _) => Ok(Action::Cleanup),
        (false, true, _) => Ok(Action::Verify(verification)),
        (false, false, true) if validate => Ok(Action::Verify(verification)),
        (false, false, true) => Ok(Action::Nothing),
        (false, false, false) => Ok(Action::Apply { foreign, verify: validate.then_some(verification) }),
    }
}

fn backend(args: &Args) -> Result<BackendChoice, SettingsError> {
    let iptables = args.read(&args::FORCE_IPTABLES_BINARY, |text| match text {
        "" => Ok(IptablesKind::InUse),
        "legacy" => Ok(IptablesKind::Legacy),
        "nft" => Ok(IptablesKind::Nft),
        _ => Err(ValueError::Choice("legacy, nft")),
    })?;
    let iptables = iptables.unwrap_or(IptablesKind::InUse);
    let choice = args.read(&args::BACKEND, |text| match text {
        "auto" => Ok(BackendChoice::Auto { iptables }),
        "nft" => Ok(BackendChoice::Nft),
        "iptables" => Ok(BackendChoice::Iptables { iptables }),
        _ => Err(ValueError::Choice("auto, nft, iptables")),
    })?;
    let native = args.read(&args::NATIVE_NFTABLES, value::switch)?;
    match (choice, native) {
        (Some(BackendChoice::Nft), Some(false)) => {
            Err(SettingsError::Contradiction("--backend nft", "--native-nftables=false"))
        }
        (Some(BackendChoice::Iptables { .. }), Some(true)) => {
            Err(SettingsError::Contradiction("--backend iptables", "--native-nftables"))
        }
        (Some(choice @ (BackendChoice::Nft | BackendChoice::Iptables { .. })), _) => Ok(choice),
        (_, Some(true)) => Ok(BackendChoice::Nft),
        (_, Some(false)) => Ok(BackendChoice::Iptables { iptables }),
        (_, None) => Ok(BackendChoice::Auto { iptables }),
    }
}

fn network_namespace(text: &str) -> Result<PathBuf, ValueError> {
    if text.contains('\0') || matches!(text, "" | "." | "..") {
        return Err(ValueError::NetworkNamespace);
    }
    Ok(if text.contains('/') { PathBuf::from(text) } else { PathBuf::from("/run/netns").join(text) })
}

/// Reads Istio's comma list of `scope:level`; the scope `default`, and a level without a scope, are ours to follow.
fn log_level(text: &str) -> Result<LogLevel, ValueError> {
    let mut level = LogLevel::Info;
    for entry in value::entries(text) {
        let (scope, name) = entry.split_once(':').unwrap_or(("default", entry));
        let read = match name {
            "none" => LogLevel::None,
            "fatal" | "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            _ => return Err(ValueError::Choice("none, fatal, error, warn, info, debug")),
        };
        if matches!(scope, "default" | "all") {
            level = read;
        }
    }
    Ok(level)
}

const DEFAULT_PROXY_UID: u32 = 1337;
const DEFAULT_TPROXY_MARK: u32 = 1337;
const DEFAULT_ROUTE_TABLE: u32 = 133;
/// Ports of the proxy itself that are called from outside: metrics, readiness, merged metrics and health.
const DEFAULT_INBOUND_PORTS_EXCLUDE: [u16; 3] = [15090, 15021, 15020];
const DEFAULT_PROBE_PORT: u16 = 15002;
const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups to include end up in one rule, and iptables takes no more matches than about twice this many in one.
const OWNER_GROUPS_MAX: usize = 64;

#[cfg(test)]
mod tests;
