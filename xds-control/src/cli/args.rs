//! The command line of `weft`.

use clap::{Parser, Subcommand, ValueEnum};

/// Looks into a running Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "weft", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The control plane's monitoring address
    #[arg(long, global = true, value_name = "HOST:PORT", env = "WEFT_CONTROL", default_value = "127.0.0.1:15014")]
    pub(crate) control: String,
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
    /// Show the configuration that a connected proxy is given
    #[command(visible_alias = "pc")]
    ProxyConfig {
        section: Section,
        /// The proxy, NAME.NAMESPACE
        #[arg(value_name = "NODE")]
        proxy: String,
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Show the versions of this program and of the control plane
    Version {
        /// Ask the control plane for its version too
        #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        remote: bool,
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Output,
    },
    /// Write a completion script for a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

/// A part of a proxy's configuration; singular and short names work too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    #[value(aliases = ["listener", "l"])]
    Listeners,
    #[value(aliases = ["route", "r"])]
    Routes,
    #[value(aliases = ["cluster", "c"])]
    Clusters,
    #[value(aliases = ["endpoint", "ep"])]
    Endpoints,
    All,
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
}
