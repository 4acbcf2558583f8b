//! The flags as they are written, and what they come to.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Parser;

use super::{
    Args, ArgsError, Command, DrainStrategy, IpVersion, Mode, NodeOverrides, UnknownFields, component_levels, error,
    log_level, stats_tag, usage, version,
};
use crate::logging::{self, Pattern};

/// Weft's sidecar proxy: takes Envoy's bootstrap and xDS v3.
#[derive(Debug, Parser)]
#[command(name = "weft-proxy", disable_version_flag = true)]
struct RawArgs {
    /// Path of the bootstrap (envoy.config.bootstrap.v3.Bootstrap): YAML by its extension (yaml, yml), else JSON
    #[arg(short = 'c', long, value_name = "PATH")]
    config_path: Option<PathBuf>,

    /// The bootstrap as YAML, merged over that of --config-path
    #[arg(long, value_name = "YAML", default_value = "", allow_hyphen_values = true)]
    config_yaml: String,

    /// serve; validate: check the bootstrap and exit; init_only: start everything but the serving, and exit
    #[arg(long, value_name = "MODE", default_value = "serve")]
    mode: String,

    /// Worker threads [default: one for each CPU that this process may use]
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,

    /// What is logged: trace, debug, info, warning (warn), error, critical, off
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Levels of single components, such as upstream:debug,config:trace
    #[arg(long, value_name = "LIST", default_value = "")]
    component_log_level: String,

    /// How a line of the log looks, in spdlog's syntax
    #[arg(long, value_name = "PATTERN", default_value = logging::DEFAULT_PATTERN, allow_hyphen_values = true)]
    log_format: String,

    /// Write line ends and control characters in messages as escape sequences
    #[arg(long)]
    log_format_escaped: bool,

    /// Log to this file, not to standard error; SIGUSR1 opens it anew
    #[arg(long, value_name = "PATH")]
    log_path: Option<PathBuf>,

    /// The node's id, in place of the bootstrap's
    #[arg(long, value_name = "NAME", default_value = "")]
    service_node: String,

    /// The node's cluster, in place of the bootstrap's
    #[arg(long, value_name = "NAME", default_value = "")]
    service_cluster: String,

    /// The zone of the node's locality, in place of the bootstrap's
    #[arg(long, value_name = "NAME", default_value = "")]
    service_zone: String,

    /// Seconds that connections may go on after their filter chain is gone from the configuration, and requests under
    /// way when the process ends
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time_s: u32,

    /// gradual: connections are told to finish one after the other over the drain time; immediate: all at once
    #[arg(long, value_name = "STRATEGY", default_value = "gradual")]
    drain_strategy: String,

    /// Seconds after SIGTERM in which connections are still accepted while those that are open finish
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    termination_drain_s: u32,

    /// Write the admin server's address to this file
    #[arg(long, value_name = "PATH")]
    admin_address_path: Option<PathBuf>,

    /// A tag of all statistics, name:value; may be repeated
    #[arg(long, value_name = "TAG")]
    stats_tag: Vec<String>,

    /// Take static configuration with fields that are not known
    #[arg(long, alias = "allow-unknown-fields")]
    allow_unknown_static_fields: bool,

    /// Refuse resources of a control plane that have fields which are not known
    #[arg(long)]
    reject_unknown_dynamic_fields: bool,

    /// Take them without a word
    #[arg(long)]
    ignore_unknown_dynamic_fields: bool,

    /// Write the base id to this file
    #[arg(long, value_name = "PATH")]
    base_id_path: Option<PathBuf>,

    /// Print the version and exit
    #[arg(long)]
    version: bool,

    /// Print the version of the hot restart, which there is none of, and exit
    #[arg(long)]
    hot_restart_version: bool,

    #[command(flatten)]
    without_meaning: WithoutMeaning,
}

/// Taken for the sake of scripts that start Envoy: hot restart, and the insides of Envoy.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken without effect")]
struct WithoutMeaning {
    #[arg(long, value_name = "ID")]
    base_id: Option<u32>,
    #[arg(long)]
    use_dynamic_base_id: bool,
    #[arg(long)]
    disable_hot_restart: bool,
    #[arg(long, value_name = "EPOCH")]
    restart_epoch: Option<u32>,
    #[arg(long, value_name = "SECONDS")]
    parent_shutdown_time_s: Option<u32>,
    #[arg(long)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long)]
    skip_hot_restart_parent_stats: bool,
    #[arg(long, value_name = "PATH")]
    socket_path: Option<String>,
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<String>,
    #[arg(long, value_name = "VERSION")]
    local_address_ip_version: Option<String>,
    #[arg(long, value_name = "MS")]
    file_flush_interval_msec: Option<u32>,
    #[arg(long, value_name = "KB")]
    file_flush_min_size_kb: Option<u32>,
    #[arg(long)]
    cpuset_threads: bool,
    #[arg(long, value_name = "NAMES")]
    disable_extensions: Option<String>,
    #[arg(long)]
    enable_fine_grain_logging: bool,
    #[arg(long)]
    enable_core_dump: bool,
    #[arg(long)]
    enable_mutex_tracing: bool,
    #[arg(long)]
    log_stacktrace_single_entry: bool,
    #[arg(long)]
    skip_deprecated_logs: bool,
}

impl WithoutMeaning {
    /// The flags that were given. Hot restart being off is what happens anyway.
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("--base-id", self.base_id.is_some()),
            ("--use-dynamic-base-id", self.use_dynamic_base_id),
            ("--restart-epoch", self.restart_epoch.is_some()),
            ("--parent-shutdown-time-s", self.parent_shutdown_time_s.is_some()),
            ("--skip-hot-restart-on-no-parent", self.skip_hot_restart_on_no_parent),
            ("--skip-hot-restart-parent-stats", self.skip_hot_restart_parent_stats),
            ("--socket-path", self.socket_path.is_some()),
            ("--socket-mode", self.socket_mode.is_some()),
            ("--local-address-ip-version", self.local_address_ip_version.is_some()),
            ("--file-flush-interval-msec", self.file_flush_interval_msec.is_some()),
            ("--file-flush-min-size-kb", self.file_flush_min_size_kb.is_some()),
            ("--cpuset-threads", self.cpuset_threads),
            ("--disable-extensions", self.disable_extensions.is_some()),
            ("--enable-fine-grain-logging", self.enable_fine_grain_logging),
            ("--enable-core-dump", self.enable_core_dump),
            ("--enable-mutex-tracing", self.enable_mutex_tracing),
            ("--log-stacktrace-single-entry", self.log_stacktrace_single_entry),
            ("--skip-deprecated-logs", self.skip_deprecated_logs),
        ];
        flags.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect()
    }
}

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, ArgsError> {
    let raw = match RawArgs::try_parse_from(words) {
        Ok(raw) => raw,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            return Ok(Command::Help(error.to_string()));
        }
        Err(error) => return Err(usage::parse_error(&error)),
    };
    if raw.version {
        return Ok(Command::Version(version()));
    }
    if raw.hot_restart_version {
        return Ok(Command::HotRestartVersion);
    }
    resolve(raw).map(|args| Command::Run(Box::new(args)))
}

/// In the order in which Envoy looks at them, so that of several mistakes the same one is named.
fn resolve(raw: RawArgs) -> Result<Args, ArgsError> {
    let level = log_level(&raw.log_level)?;
    if raw.without_meaning.enable_fine_grain_logging && !raw.component_log_level.is_empty() {
        return Err(error("--component-log-level will not work with --enable-fine-grain-logging"));
    }
    let components = component_levels(&raw.component_log_level)?;
    let mode = match raw.mode.as_str() {
        "serve" => Mode::Serve,
        "validate" => Mode::Validate,
        "init_only" => Mode::InitOnly,
        other => return Err(error(format_args!("unknown mode '{other}'"))),
    };
    let local_address_ip_version = match raw.without_meaning.local_address_ip_version.as_deref().unwrap_or("v4") {
        "v4" => IpVersion::V4,
        "v6" => IpVersion::V6,
        other => return Err(error(format_args!("unknown IP address version '{other}'"))),
    };
    let epoch = raw.without_meaning.restart_epoch.unwrap_or_default();
    if raw.without_meaning.use_dynamic_base_id && epoch > 0 {
        return Err(error(format_args!("cannot use --restart-epoch={epoch} with --use-dynamic-base-id")));
    }
    let drain_strategy = match raw.drain_strategy.as_str() {
        "gradual" => DrainStrategy::Gradual,
        "immediate" => DrainStrategy::Immediate,
        other => return Err(error(format_args!("unknown drain-strategy '{other}'"))),
    };
    let stats_tags = raw.stats_tag.iter().map(|tag| stats_tag(tag)).collect::<Result<_, _>>()?;
    let concurrency = match raw.concurrency {
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX).clamp(1, CONCURRENCY_MAX),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let refused_if = |refused| if refused { UnknownFields::Refused } else { UnknownFields::Ignored };
    Ok(Args {
        config_path: raw.config_path,
        config_yaml: raw.config_yaml,
        static_fields: refused_if(!raw.allow_unknown_static_fields),
        dynamic_fields: refused_if(raw.reject_unknown_dynamic_fields),
        mode,
        concurrency,
        logging: logging::Settings {
            level,
            components,
            component_text: raw.component_log_level,
            pattern: Pattern::parse(&raw.log_format),
            pattern_text: raw.log_format,
            escaped: raw.log_format_escaped,
            path: raw.log_path,
        },
        node: NodeOverrides { id: raw.service_node, cluster: raw.service_cluster, zone: raw.service_zone },
        drain_time: seconds(raw.drain_time_s),
        drain_strategy,
        termination_drain: seconds(raw.termination_drain_s),
        admin_address_path: raw.admin_address_path,
        base_id_path: raw.base_id_path,
        base_id: raw.without_meaning.base_id.unwrap_or_default(),
        restart_epoch: epoch,
        local_address_ip_version,
        file_flush_interval: Duration::from_millis(
            raw.without_meaning.file_flush_interval_msec.unwrap_or(10_000).into(),
        ),
        parent_shutdown_time: seconds(raw.without_meaning.parent_shutdown_time_s.unwrap_or(900)),
        stats_tags,
        ignored: raw.without_meaning.given(),
    })
}

/// More threads than any machine has a use for.
const CONCURRENCY_MAX: usize = 1024;

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
