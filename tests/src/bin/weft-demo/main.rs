//! `weft-demo`: a mesh on this machine, shown step by step. `deploy/demo/run` installs, builds and starts it.
//!
//! The steps check what they show; the exit status is 0 only if every one held. Whatever way it ends, by itself, by a
//! failure, a panic or Ctrl-C, the namespaces, processes and folders are gone afterwards; after a SIGKILL the next run
//! removes them.

mod report;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weft_tests::mesh::{Mesh, Plan, Sidecars};
use weft_tests::{peers, wait};

use report::Report;

/// Shows Weft at work: pods as network namespaces, each with its sidecar, and a control plane on a folder of Kubernetes manifests.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Leave everything running after the steps, and say what to try; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Print the checks as a JSON array of {name, ok, detail, ms} instead.
    #[arg(long, conflicts_with = "keep")]
    json: bool,
    /// The folder of Kubernetes manifests to start from; it is copied, not changed.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(args.json);
    let outcome = interrupt_on_signals().and_then(|()| run(&args, &mut report));
    if let Err(error) = outcome {
        if error.is::<wait::Interrupted>() || wait::check().is_err() {
            report.note("\n  interrupted; everything was removed");
            return ExitCode::from(EXIT_INTERRUPTED);
        }
        report.fail("setup", &error);
    }
    report.finish()
}

fn run(args: &Args, report: &mut Report) -> Result<()> {
    let plan = Plan {
        family: "weft-demo",
        manifests: vec![args.manifests.clone().unwrap_or_else(peers::demo_manifests)],
        sidecars: Sidecars::Weft,
    };
    let started = Instant::now();
    let mut mesh = Mesh::start(&plan)?;
    report.introduce(&mesh, started.elapsed())?;
    for (name, step) in steps::STEPS {
        wait::check()?;
        report.check(name, || step(&mut mesh));
    }
    if args.keep {
        report.invite(&mesh)?;
        wait_for_interrupt();
        report.note("\n  removing everything");
    }
    Ok(())
}

fn wait_for_interrupt() {
    while wait::check().is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ctrl-C, SIGTERM and a closed terminal end every wait, so that `run` returns and what it owns is dropped.
fn interrupt_on_signals() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot watch for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
                eprintln!("signals cannot be watched: Ctrl-C will leave things behind until the next run");
                return;
            };
            // Again and again: an impatient second Ctrl-C must not cut the removal short.
            loop {
                tokio::select! {
                    _ = interrupt.recv() => wait::interrupt(),
                    _ = terminate.recv() => wait::interrupt(),
                    _ = hangup.recv() => wait::interrupt(),
                }
            }
        });
    });
    Ok(())
}

/// What a shell reports for a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;
