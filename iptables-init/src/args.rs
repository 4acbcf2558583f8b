//! The command line and the environment: which arguments there are, and the text that each was given.
//!
//! First in the flow: text is collected here and understood in [`crate::settings`]. The names, short and long, and the
//! environment variables are those of Istio's init container; a flag beats a variable, and of two variables the one
//! named first in the table wins.
//!
//! Invariant: every argument is a row of [`ARGUMENTS`]; nothing else reads the command line or the environment.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

use clap::{Arg, ArgAction, Command};
use thiserror::Error;

use crate::value::ValueError;

/// One argument: its names and what it takes.
#[derive(Debug)]
pub struct Argument {
    pub short: Option<char>,
    pub long: &'static str,
    /// The environment variables that also give it, the strongest first.
    pub variables: &'static [&'static str],
    pub takes: Takes,
    pub help: &'static str,
}

/// What follows an argument's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A value, shown under this name in the help.
    Value(&'static str),
    /// Nothing, or `=true` or `=false`.
    Switch,
}

/// The text that one argument was given, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub text: String,
    /// The environment variable that it came from; `None` when it came from the command line.
    pub variable: Option<&'static str>,
}

/// All arguments that were given, by their long names.
#[derive(Debug, Clone, Default)]
pub struct Args(HashMap<&'static str, Given>);

/// A command line that can't be read.
#[derive(Debug, Error)]
pub enum ArgsError {
    /// Something that no argument is called, or a request for the help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    #[error("the environment variable {0} is not valid UTF-8")]
    Encoding(&'static str),
}

/// An argument whose text can't be understood. Its message names the argument, the text and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{argument}: {text}: {reason}")]
pub struct ArgumentError {
    /// Where the text was given, such as `-p, --envoy-port` or `environment variable ISTIO_INBOUND_PORTS`.
    argument: String,
    /// The text, quoted and with everything unprintable escaped.
    text: String,
    #[source]
    pub reason: ValueError,
}

impl Args {
    /// Reads a command line, program name first, over an environment.
    pub fn parse(
        command_line: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ArgsError> {
        let mut matches = command().try_get_matches_from(command_line)?;
        let given = ARGUMENTS.iter().map(|argument| {
            let given = match matches.remove_one::<String>(argument.long) {
                Some(text) => Some(Given { text, variable: None }),
                None => argument.in_environment(&environment)?,
            };
            Ok(given.map(|given| (*argument, given)))
        });
        given.filter_map(Result::transpose).collect()
    }

    /// What an argument was given, if anything.
    pub fn given(&self, argument: &Argument) -> Option<&Given> {
        self.0.get(argument.long)
    }

    /// The text of an argument, or what stands in for it.
    pub fn text_or<'a>(&'a self, argument: &Argument, default: &'a str) -> &'a str {
        self.given(argument).map_or(default, |given| &given.text)
    }

    /// Reads an argument's text by `read`; the error names the argument and the text.
    pub fn read<T>(
        &self,
        argument: &Argument,
        read: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(given) = self.given(argument) else { return Ok(None) };
        let error = |reason| ArgumentError { argument: argument.place(given), text: quote(&given.text), reason };
        read(&given.text).map(Some).map_err(error)
    }
}

impl<'a> FromIterator<(&'a Argument, Given)> for Args {
    fn from_iter<T: IntoIterator<Item = (&'a Argument, Given)>>(given: T) -> Self {
        Self(given.into_iter().map(|(argument, given)| (argument.long, given)).collect())
    }
}

impl Argument {
    const fn value(
        short: char,
        long: &'static str,
        variables: &'static [&'static str],
        name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { short: Some(short), long, variables, takes: Takes::Value(name), help }
    }

    const fn long_value(
        long: &'static str,
        variables: &'static [&'static str],
        name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { short: None, long, variables, takes: Takes::Value(name), help }
    }

    const fn switch(long: &'static str, variables: &'static [&'static str], help: &'static str) -> Self {
        Self { short: None, long, variables, takes: Takes::Switch, help }
    }

    fn in_environment(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Option<Given>, ArgsError> {
        for &variable in self.variables {
            let Some(text) = environment(variable) else { continue };
            let text = text.into_string().map_err(|_| ArgsError::Encoding(variable))?;
            // An empty list is a value; an empty switch, number or choice is a variable that was never filled in.
            if !text.is_empty() || self.is_list() {
                return Ok(Some(Given { text, variable: Some(variable) }));
            }
        }
        Ok(None)
    }

    fn is_list(&self) -> bool {
        self.takes == Takes::Value(LIST)
    }

    fn place(&self, given: &Given) -> String {
        match given.variable {
            Some(variable) => format!("environment variable {variable}"),
            None => self.to_string(),
        }
    }

    fn to_clap(&self) -> Arg {
        let help = match self.variables {
            [] => self.help.to_owned(),
            variables => format!("{} [env: {}]", self.help, variables.join(", ")),
        };
        let arg = Arg::new(self.long).long(self.long).help(help).action(ArgAction::Set);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match self.takes {
            // A value may start with a dash, as in Istio; what it means is decided when it is read.
            Takes::Value(name) => arg.value_name(name).allow_hyphen_values(true),
            Takes::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(short) = self.short {
            write!(f, "-{short}, ")?;
        }
        write!(f, "--{}", self.long)
    }
}

/// The command line as clap knows it.
pub fn command() -> Command {
    Command::new("weft-init")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Redirects the traffic of a pod's network namespace to its sidecar proxy.")
        .after_help(AFTER_HELP)
        .args_override_self(true)
        .max_term_width(HELP_WIDTH_MAX)
        .args(ARGUMENTS.iter().map(|argument| argument.to_clap()))
}

/// Quotes text of unknown origin for a message: escaped, and cut where it would flood a log.
fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTE_LENGTH_MAX {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(QUOTE_LENGTH_MAX).collect();
    format!("{start:?}...")
}

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 failed with nothing changed, 2 an argument is wrong, 126 traffic would bypass the proxy.";
const QUOTE_LENGTH_MAX: usize = 120;
const HELP_WIDTH_MAX: usize = 120;
/// The value name of arguments for which an empty text is a value.
const LIST: &str = "LIST";

pub const PROXY_PORT: Argument =
    Argument::value('p', "envoy-port", &["ENVOY_PORT"], "PORT", "Port of the proxy that takes outbound TCP (15001)");
pub const INBOUND_PORT: Argument = Argument::value(
    'z',
    "inbound-capture-port",
    &["INBOUND_CAPTURE_PORT"],
    "PORT",
    "Port of the proxy that takes inbound TCP (15006)",
);
pub const TUNNEL_PORT: Argument = Argument::value(
    'e',
    "inbound-tunnel-port",
    &["INBOUND_TUNNEL_PORT"],
    "PORT",
    "Port of the proxy's tunnel, left alone (15008)",
);
pub const PROXY_UID: Argument = Argument::value(
    'u',
    "proxy-uid",
    &["PROXY_UID"],
    LIST,
    "Users, by name or number, whose traffic is not redirected: the proxy's own (the user $ENVOY_USER, or 1337)",
);
pub const PROXY_GID: Argument =
    Argument::value('g', "proxy-gid", &["PROXY_GID"], LIST, "Groups whose traffic is not redirected (the same as -u)");
pub const MODE: Argument = Argument::value(
    'm',
    "istio-inbound-interception-mode",
    &["ISTIO_INBOUND_INTERCEPTION_MODE"],
    "MODE",
    "How inbound traffic gets to the proxy: REDIRECT, or TPROXY, which keeps the source address (REDIRECT)",
);
pub const INBOUND_PORTS: Argument = Argument::value(
    'b',
    "istio-inbound-ports",
    &["ISTIO_INBOUND_PORTS"],
    LIST,
    "Inbound ports to redirect; \"*\" for all, empty for none (*)",
);
pub const INBOUND_PORTS_EXCLUDE: Argument = Argument::value(
    'd',
    "istio-local-exclude-ports",
    &["ISTIO_LOCAL_EXCLUDE_PORTS"],
    LIST,
    "Inbound ports not to redirect when all others are (15090,15021,15020)",
);
pub const EXCLUDE_INTERFACES: Argument = Argument::value(
    'c',
    "istio-exclude-interfaces",
    &["ISTIO_EXCLUDE_INTERFACES"],
    LIST,
    "Interfaces whose traffic is left alone, both ways; \"eth+\" for all that start with eth",
);
pub const OUTBOUND_RANGES: Argument = Argument::value(
    'i',
    "istio-service-cidr",
    &["ISTIO_SERVICE_CIDR"],
    LIST,
    "Destinations (CIDR) to redirect; \"*\" for all, empty for none (*)",
);
pub const OUTBOUND_RANGES_EXCLUDE: Argument = Argument::value(
    'x',
    "istio-service-exclude-cidr",
    &["ISTIO_SERVICE_EXCLUDE_CIDR"],
    LIST,
    "Destinations (CIDR) not to redirect",
);
pub const OUTBOUND_PORTS: Argument = Argument::value(
    'q',
    "istio-outbound-ports",
    &["ISTIO_OUTBOUND_PORTS"],
    LIST,
    "Destination ports to redirect whatever the address",
);
pub const OUTBOUND_PORTS_EXCLUDE: Argument = Argument::value(
    'o',
    "istio-local-outbound-ports-exclude",
    &["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"],
    LIST,
    "Destination ports not to redirect",
);
pub const VIRTUAL_INTERFACES: Argument = Argument::value(
    'k',
    "kube-virt-interfaces",
    &["KUBE_VIRT_INTERFACES"],
    LIST,
    "Interfaces of virtual machines, whose inbound traffic counts as outbound",
);
pub const TPROXY_MARK: Argument = Argument::value(
    't',
    "istio-inbound-tproxy-mark",
    &["ISTIO_INBOUND_TPROXY_MARK"],
    "MARK",
    "Packet mark of TPROXY mode (1337)",
);
pub const TPROXY_ROUTE_TABLE: Argument = Argument::value(
    'r',
    "istio-inbound-tproxy-route-table",
    &["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"],
    "TABLE",
    "Route table of TPROXY mode (133)",
);
pub const ENVOY_USER: Argument = Argument::long_value(
    "envoy-user",
    &["ENVOY_USER"],
    "USER",
    "The user whose traffic is not redirected when -u is not given (istio-proxy)",
);
pub const OWNER_GROUPS: Argument = Argument::long_value(
    "istio-outbound-owner-groups",
    &["ISTIO_OUTBOUND_OWNER_GROUPS"],
    LIST,
    "Groups, by name or number, whose outbound traffic is redirected; \"*\" for all (*)",
);
pub const OWNER_GROUPS_EXCLUDE: Argument = Argument::long_value(
    "istio-outbound-owner-groups-exclude",
    &["ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"],
    LIST,
    "Groups whose outbound traffic is not redirected when that of all others is",
);
pub const LOOPBACK: Argument = Argument::long_value(
    "istio-outbound-ipv4-loopback-cidr",
    &["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"],
    "CIDR",
    "IPv4 range by which an application means itself (127.0.0.1/32)",
);
pub const REDIRECT_DNS: Argument = Argument::switch(
    "redirect-dns",
    &["ISTIO_META_DNS_CAPTURE", "REDIRECT_DNS"],
    "Redirect DNS for the servers in /etc/resolv.conf to port 15053, except from the proxy",
);
pub const CAPTURE_ALL_DNS: Argument =
    Argument::switch("capture-all-dns", &["CAPTURE_ALL_DNS"], "With --redirect-dns: redirect DNS for any server");
pub const DROP_INVALID: Argument = Argument::switch(
    "drop-invalid",
    &["INVALID_DROP", "DROP_INVALID"],
    "Drop packets that belong to no known connection instead of resetting it",
);
pub const DUAL_STACK: Argument = Argument::switch(
    "dual-stack",
    &["ISTIO_DUAL_STACK", "DUAL_STACK"],
    "true: fail unless IPv6 can be redirected too; false: leave IPv6 alone in a pod that has an IPv4 address; not given: \
     redirect IPv6 wherever the kernel has it",
);
pub const DRY_RUN: Argument = Argument {
    short: Some('n'),
    long: "dry-run",
    variables: &["DRY_RUN"],
    takes: Takes::Switch,
    help: "Print the ruleset, in the backend's own syntax, and change nothing",
};
pub const SKIP_RULE_APPLY: Argument =
    Argument::switch("skip-rule-apply", &["SKIP_RULE_APPLY"], "Don't apply the ruleset");
pub const RUN_VALIDATION: Argument =
    Argument::switch("run-validation", &["RUN_VALIDATION"], "Verify the redirection after applying it");
pub const PROBE_PORT: Argument = Argument::long_value(
    "iptables-probe-port",
    &["IPTABLES_PROBE_PORT"],
    "PORT",
    "Port that the verification connects to (15002)",
);
pub const PROBE_TIMEOUT: Argument =
    Argument::long_value("probe-timeout", &["PROBE_TIMEOUT"], "DURATION", "How long the verification may take (5s)");
pub const RECONCILE: Argument = Argument::switch(
    "reconcile",
    &["RECONCILE"],
    "Also replace redirection rules that Istio's own init container or CNI plugin left",
);
pub const FORCE_APPLY: Argument = Argument::switch(
    "force-apply",
    &["FORCE_APPLY"],
    "Apply even where Istio's own redirection rules are, and leave those in place",
);
pub const CLEANUP_ONLY: Argument =
    Argument::switch("cleanup-only", &["CLEANUP_ONLY"], "Remove everything that weft-init set up");
pub const NETWORK_NAMESPACE: Argument = Argument::long_value(
    "network-namespace",
    &["NETWORK_NAMESPACE"],
    "PATH",
    "Work in this network namespace: a path such as /proc/4711/ns/net, or a name in /run/netns",
);
pub const CNI_MODE: Argument = Argument::switch(
    "cni-mode",
    &["CNI_MODE"],
    "Run from the node's file system on a pod's namespace: don't take the node's lock on iptables",
);
pub const NATIVE_NFTABLES: Argument = Argument::switch(
    "native-nftables",
    &["NATIVE_NFTABLES"],
    "true: same as --backend nft; false: same as --backend iptables",
);
pub const FORCE_IPTABLES_BINARY: Argument = Argument::long_value(
    "force-iptables-binary",
    &["FORCE_IPTABLES_BINARY"],
    "KIND",
    "Which iptables the iptables backend runs: legacy or nft (the kind that is in use)",
);
pub const BACKEND: Argument = Argument::long_value(
    "backend",
    &["WEFT_INIT_BACKEND"],
    "BACKEND",
    "What holds the rules: auto, nft or iptables (auto)",
);
pub const CLEANUP: Argument = Argument::switch("cleanup", &[], "Same as --cleanup-only");
pub const VERIFY: Argument = Argument::switch(
    "verify",
    &[],
    "Prove the redirection by real connections and change nothing; exit status 126 when traffic would bypass the proxy",
);
pub const LOG_LEVEL: Argument = Argument::long_value(
    "log_output_level",
    &[],
    "LEVEL",
    "How much is logged: none, fatal, error, warn, info or debug, also as default:LEVEL (info)",
);
pub const LOG_AS_JSON: Argument = Argument::switch("log_as_json", &[], "Log as JSON");

/// Every argument there is, in the order of the help.
pub const ARGUMENTS: &[&Argument] = &[
    &PROXY_PORT,
    &INBOUND_PORT,
    &TUNNEL_PORT,
    &PROXY_UID,
    &PROXY_GID,
    &MODE,
    &INBOUND_PORTS,
    &INBOUND_PORTS_EXCLUDE,
    &EXCLUDE_INTERFACES,
    &OUTBOUND_RANGES,
    &OUTBOUND_RANGES_EXCLUDE,
    &OUTBOUND_PORTS,
    &OUTBOUND_PORTS_EXCLUDE,
    &VIRTUAL_INTERFACES,
    &TPROXY_MARK,
    &TPROXY_ROUTE_TABLE,
    &ENVOY_USER,
    &OWNER_GROUPS,
    &OWNER_GROUPS_EXCLUDE,
    &LOOPBACK,
    &REDIRECT_DNS,
    &CAPTURE_ALL_DNS,
    &DROP_INVALID,
    &DUAL_STACK,
    &DRY_RUN,
    &SKIP_RULE_APPLY,
    &RUN_VALIDATION,
    &PROBE_PORT,
    &PROBE_TIMEOUT,
    &RECONCILE,
    &FORCE_APPLY,
    &CLEANUP_ONLY,
    &NETWORK_NAMESPACE,
    &CNI_MODE,
    &NATIVE_NFTABLES,
    &FORCE_IPTABLES_BINARY,
    &BACKEND,
    &CLEANUP,
    &VERIFY,
    &LOG_LEVEL,
    &LOG_AS_JSON,
];

#[cfg(test)]
mod tests;
