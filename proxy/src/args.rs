//! The command line, under Envoy's names.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

/// Weft's sidecar proxy: takes Envoy's bootstrap and xDS v3.
#[derive(Debug, Parser)]
#[command(name = "weft-proxy", version)]
pub struct Args {
    /// Path of the bootstrap (envoy.config.bootstrap.v3.Bootstrap), YAML or JSON
    #[arg(short = 'c', long, value_name = "PATH")]
    pub config_path: PathBuf,

    /// Serve traffic, or check the bootstrap and exit
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Worker threads [default: one for each CPU that this process may use]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,

    /// What is logged to standard error
    #[arg(short = 'l', long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// Seconds that connections may go on after their filter chain is gone from the configuration, and requests under
    /// way when the process ends
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u64,

    /// Seconds after SIGTERM in which connections are still accepted while those that are open finish
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub termination_drain_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Serve,
    Validate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    Error,
    Critical,
    Off,
}

impl Args {
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    pub fn termination_drain(&self) -> Duration {
        Duration::from_secs(self.termination_drain_s)
    }

    pub fn workers(&self) -> usize {
        match self.concurrency {
            Some(count) => count.into(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl LogLevel {
    pub fn filter(self) -> tracing_subscriber::filter::LevelFilter {
        use tracing_subscriber::filter::LevelFilter;
        match self {
            LogLevel::Trace => LevelFilter::TRACE,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
            LogLevel::Off => LevelFilter::OFF,
        }
    }
}
