//! The program weft-init: reads its arguments, does what they say, and reports by its exit status.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tracing::{info, warn};
use weft_init::apply::Done;
use weft_init::args::{Args, ArgsError};
use weft_init::plan::Plan;
use weft_init::settings::{Action, Log, LogLevel, Settings, SettingsError, Task};
use weft_init::verify::{self, VerifyError};
use weft_init::{apply, backend, machine};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(args) => args,
        Err(ArgsError::CommandLine(error)) => error.exit(),
        Err(error) => return usage(&error),
    };
    let task = match Task::resolve(&args) {
        Ok(task) => task,
        Err(error) => return usage(&error),
    };
    start_log(task.log);
    match run(&args, &task) {
        Ok(Done::Here) => ExitCode::SUCCESS,
        Ok(Done::Guarded(status)) => ExitCode::from(status),
        Err(error) => match error.downcast_ref::<SettingsError>() {
            Some(error) => usage(error),
            None => {
                tell(&format!("{error:#}"));
                ExitCode::from(if error.is::<VerifyError>() { EXIT_BYPASS } else { EXIT_FAILED })
            }
        },
    }
}

fn run(args: &Args, task: &Task) -> anyhow::Result<Done> {
    if let Some(path) = &task.network_namespace {
        machine::enter_namespace(path)?;
    }
    // Only in this mode is there a file system that the node's other programs share.
    let lock_file = task.network_namespace.as_deref().filter(|_| task.cni_mode);
    if task.action == Action::Cleanup {
        // Whatever the other arguments say: what they once set up goes.
        return clean_up(task, lock_file);
    }
    let settings = Settings::resolve(args, &machine::facts()?)?;
    for sentence in settings.without_effect(args) {
        warn!("{sentence}");
    }
    let plan = Plan::new(&settings);
    if task.dry_run {
        print(&backend::script(&plan, task.backend))?;
        return Ok(Done::Here);
    }
    match &task.action {
        Action::Apply { foreign, verify } => {
            let done = apply::apply(&plan, task.backend, *foreign, lock_file).context("applying the rules")?;
            if let Done::Guarded(_) = done {
                return Ok(done);
            }
            info!(rules = plan.rules.len(), ipv6 = plan.ipv6, "traffic is redirected");
            if let Some(limits) = verify {
                verify::verify(&settings, &plan, *limits, lock_file)?;
            }
        }
        Action::Verify(limits) => verify::verify(&settings, &plan, *limits, lock_file)?,
        Action::Nothing | Action::Cleanup => info!("rules are neither applied nor verified: --skip-rule-apply"),
    }
    Ok(Done::Here)
}

fn clean_up(task: &Task, lock_file: Option<&Path>) -> anyhow::Result<Done> {
    if task.dry_run {
        print(&backend::script(&Plan::nothing(), task.backend))?;
        return Ok(Done::Here);
    }
    let done = apply::cleanup(lock_file).context("cleaning up")?;
    if done == Done::Here {
        info!("removed everything that weft-init set up");
    }
    Ok(done)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("printing the ruleset")
}

fn usage(error: &dyn std::error::Error) -> ExitCode {
    tell(&error.to_string());
    ExitCode::from(EXIT_USAGE)
}

fn tell(error: &str) {
    // Where nobody listens, the exit status has to say it.
    let _ = writeln!(std::io::stderr(), "weft-init: {error}");
}

/// Logs go to stderr: stdout is for the ruleset of a dry run.
fn start_log(log: Log) {
    let level = match log.level {
        LogLevel::None => tracing::level_filters::LevelFilter::OFF,
        LogLevel::Error => tracing::level_filters::LevelFilter::ERROR,
        LogLevel::Warn => tracing::level_filters::LevelFilter::WARN,
        LogLevel::Info => tracing::level_filters::LevelFilter::INFO,
        LogLevel::Debug => tracing::level_filters::LevelFilter::DEBUG,
    };
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false);
    if log.is_json { builder.json().init() } else { builder.init() }
}

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// Istio's, which its charts look for.
const EXIT_BYPASS: u8 = 126;
