//! The command line, under Envoy's names and with Envoy's meaning: what was asked for, checked. Reading it is `args/raw`.
//!
//! Invariant: a flag that has no meaning for this proxy is taken all the same, as scripts that start Envoy have it, and
//! `Args::ignored` names it for the log.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use crate::logging::{self, Component, Level};

mod raw;
mod usage;

#[derive(Clone, Debug)]
pub struct Args {
    /// Of a file with an `envoy.config.bootstrap.v3.Bootstrap`.
    pub config_path: Option<PathBuf>,
    /// The same as text; merged over the file's.
    pub config_yaml: String,
    pub static_fields: UnknownFields,
    pub dynamic_fields: UnknownFields,
    pub mode: Mode,
    /// Worker threads, at least 1.
    pub concurrency: usize,
    pub logging: logging::Settings,
    pub node: NodeOverrides,
    /// How long connections may go on after their filter chain is gone, and requests when the process ends.
    pub drain_time: Duration,
    pub drain_strategy: DrainStrategy,
    /// How long after SIGTERM connections are still accepted while those that are open finish.
    pub termination_drain: Duration,
    /// Where to write the address that the admin server was given.
    pub admin_address_path: Option<PathBuf>,
    /// Where to write the base id.
    pub base_id_path: Option<PathBuf>,
    pub base_id: u32,
    pub restart_epoch: u32,
    pub local_address_ip_version: IpVersion,
    /// How often Envoy would write its access logs; here they are never older than 250 ms.
    pub file_flush_interval: Duration,
    pub parent_shutdown_time: Duration,
    /// Tags of every statistic, by name.
    pub stats_tags: Vec<(String, String)>,
    /// Flags that were given and change nothing here.
    pub ignored: Vec<&'static str>,
}

/// What becomes of fields that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    Refused,
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    /// Check the configuration and exit.
    Validate,
    /// Start everything that a server starts before it serves, and exit.
    InitOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStrategy {
    /// Connections are told to finish one after the other over the drain time.
    Gradual,
    /// All at once.
    Immediate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    V4,
    V6,
}

/// What the command line says of the node in the bootstrap's place. Empty: the bootstrap's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeOverrides {
    pub id: String,
    pub cluster: String,
    pub zone: String,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    Run(Box<Args>),
    Help(String),
    Version(String),
    HotRestartVersion,
}

/// A command line that asks for nothing that can be done. Its text is for people, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgsError(String);

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ArgsError {}

/// What `--version` and the admin server say: revision, version, state of the tree, build, TLS library.
pub fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("weft/{}/Clean/{build}/AWS-LC", env!("CARGO_PKG_VERSION"))
}

/// There is no hot restart, and this is how Envoy says so.
pub const HOT_RESTART_VERSION: &str = "disabled";

impl Args {
    /// Reads a command line, the program's name first.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, ArgsError> {
        raw::parse(words)
    }

    /// As messages about the configuration name it.
    pub fn config_name(&self) -> String {
        self.config_path.as_deref().unwrap_or("".as_ref()).display().to_string()
    }
}

impl DrainStrategy {
    /// As Envoy's `/server_info` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        }
    }
}

impl Mode {
    /// As Envoy's `/server_info` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        }
    }
}

impl IpVersion {
    /// As Envoy's `/server_info` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            IpVersion::V4 => "v4",
            IpVersion::V6 => "v6",
        }
    }
}

fn error(text: impl fmt::Display) -> ArgsError {
    ArgsError(format!("error: {text}"))
}

/// `upstream:debug,config:trace`.
fn component_levels(text: &str) -> Result<Vec<(Component, Level)>, ArgsError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let pair = |pair: &str| {
        let (component, level) = match pair.split(':').collect::<Vec<_>>()[..] {
            [component, level] => (component, level),
            _ => return Err(error(format_args!("component log level not correctly specified '{pair}'"))),
        };
        let level = log_level(level)?;
        let component = Component::from_name(component)
            .ok_or_else(|| error(format_args!("invalid component specified '{component}'")))?;
        Ok((component, level))
    };
    text.split(',').map(pair).collect()
}

fn log_level(text: &str) -> Result<Level, ArgsError> {
    Level::from_name(text).ok_or_else(|| error(format_args!("invalid log level specified '{text}'")))
}

/// `name:value`; of a name given twice the first counts, as for Envoy.
fn stats_tag(text: &str) -> Result<(String, String), ArgsError> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(error(format_args!("misformatted stats-tag '{text}'")));
    };
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    if !is_name(name) {
        return Err(error(format_args!("misformatted stats-tag '{text}' contains invalid char in '{name}'")));
    }
    if value.is_empty() || value.contains('.') {
        return Err(error(format_args!("misformatted stats-tag '{text}' contains invalid char in '{value}'")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
