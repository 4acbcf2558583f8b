//! The command line of `weft`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Looks into a running Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "weft", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The control plane's monitoring address
    #[arg(long, global = true, value_name = "HOST:PORT", env = "WEFT_CONTROL", default_value = "127.0.0.1:15014")]
    pub(crate) control: String,
    /// The token of the control plane's --debug-token-file, where it is not on this machine
    #[arg(long, global = true, value_name = "FILE", env = "WEFT_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which proxies are connected and whether they took what they were sent
    #[command(visible_alias = "ps")]
    ProxyStatus {
        /// Only this one, NAME.NAMESPACE
        proxy: Option<String>,
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Show the configuration that a connected proxy is given, or that a dump holds
    #[command(visible_alias = "pc")]
    ProxyConfig {
        #[command(subcommand)]
        section: Section,
    },
    /// Show what is wrong with the manifests; exits with 79 if anything is
    Analyze {
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Show the versions of this program and of the control plane
    Version {
        /// Ask the control plane for its version too
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        remote: bool,
        /// Only the numbers
        #[arg(short, long)]
        short: bool,
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Write a completion script for a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[value(alias = "short")]
    Table,
    Json,
    Yaml,
}

/// A part of a proxy's configuration; singular and short names work too.
#[derive(Debug, Subcommand)]
pub(crate) enum Section {
    /// Clusters: what traffic can be sent to
    #[command(aliases = ["cluster", "c", "cds"])]
    Clusters {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        clusters: ClusterFilter,
        /// Only of this Service port
        #[arg(long)]
        port: Option<u16>,
    },
    /// Listeners: where traffic is taken
    #[command(aliases = ["listener", "l", "lds"])]
    Listeners {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        listeners: ListenerFilter,
        /// Only those at addresses that hold this text
        #[arg(long)]
        address: Option<String>,
        /// Only those at this port
        #[arg(long)]
        port: Option<u16>,
    },
    /// Routes: which cluster a request goes to
    #[command(aliases = ["route", "r", "rds"])]
    Routes {
        #[command(flatten)]
        source: Source,
        /// Only the route table of this name
        #[arg(long)]
        name: Option<String>,
    },
    /// Endpoints: the addresses behind clusters
    #[command(aliases = ["endpoint", "ep", "eds"])]
    Endpoints {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        endpoints: EndpointFilter,
        /// Only those of this address
        #[arg(long)]
        address: Option<String>,
        /// Only those at this port
        #[arg(long)]
        port: Option<u16>,
    },
    /// Secrets: certificates and their validity; never keys
    #[command(aliases = ["secret", "s", "sds"])]
    Secrets {
        #[command(flatten)]
        source: Source,
        /// Only the secret of this name
        #[arg(long)]
        name: Option<String>,
    },
    /// All of these
    #[command(alias = "a")]
    All {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        clusters: ClusterFilter,
        #[command(flatten)]
        listeners: ListenerFilter,
        #[command(flatten)]
        endpoints: EndpointFilter,
        /// Only listeners, clusters and endpoints of this port
        #[arg(long)]
        port: Option<u16>,
        /// Only listeners and endpoints of this address
        #[arg(long)]
        address: Option<String>,
        /// Only the route table and the secret of this name
        #[arg(long)]
        name: Option<String>,
    },
}

impl Section {
    pub(crate) fn source(&self) -> &Source {
        match self {
            Self::Clusters { source, .. }
            | Self::Listeners { source, .. }
            | Self::Routes { source, .. }
            | Self::Endpoints { source, .. }
            | Self::Secrets { source, .. }
            | Self::All { source, .. } => source,
        }
    }
}

/// Where the configuration is taken from, and how it is shown.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The proxy, NAME.NAMESPACE
    #[arg(value_name = "NODE", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) node: Option<String>,
    /// A /config_dump of Envoy's or ours instead of a connected proxy; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ClusterFilter {
    /// Only of Services whose name holds this text
    #[arg(long)]
    pub(crate) fqdn: Option<String>,
    /// Only of this subset
    #[arg(long)]
    pub(crate) subset: Option<String>,
    /// Only inbound or outbound
    #[arg(long)]
    pub(crate) direction: Option<Direction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ListenerFilter {
    /// Only those that take this
    #[arg(long = "type", value_name = "TYPE", ignore_case = true)]
    pub(crate) traffic: Option<Traffic>,
}

/// What a listener takes, by its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    #[value(name = "HTTP")]
    Http,
    #[value(name = "TCP")]
    Tcp,
    #[value(name = "HTTP+TCP")]
    HttpAndTcp,
    #[value(name = "UNKNOWN")]
    Unknown,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EndpointFilter {
    /// Only those of this cluster
    #[arg(long)]
    pub(crate) cluster: Option<String>,
    /// Only those in this state, such as healthy, unhealthy or draining
    #[arg(long)]
    pub(crate) status: Option<String>,
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
    fn versions_are_asked_for_remotely_unless_told_otherwise() {
        let remote = |line: &[&str]| match Arguments::try_parse_from(line).unwrap().command {
            Command::Version { remote, .. } => remote,
            other => panic!("{other:?}"),
        };
        assert!(remote(&["weft", "version"]));
        assert!(remote(&["weft", "version", "--remote"]));
        assert!(!remote(&["weft", "version", "--remote=false"]));
    }

    #[test]
    fn a_node_or_a_file_is_needed_and_not_both() {
        let parse = |line: &[&str]| Arguments::try_parse_from([&["weft", "pc"], line].concat()).is_ok();
        assert!(parse(&["clusters", "web.shop", "--fqdn", "a.shop", "--port", "80", "--direction", "inbound"]));
        assert!(parse(&["l", "--file", "-", "--type", "http", "-o", "short"]));
        assert!(parse(&["all", "web.shop", "--port", "80"]));
        assert!(!parse(&["clusters"]));
        assert!(!parse(&["clusters", "web.shop", "--file", "-"]));
        assert!(!parse(&["routes", "web.shop", "--fqdn", "a.shop"]));
    }
}
