//! `weft-xdsload`: what a large mesh costs the control plane. Starts weft-control on a generated folder of Services,
//! connects a fleet of delta clients, edits endpoints, and prints what each step took, as text or JSON.

mod client;
mod folder;
mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use client::Fleet;
use folder::Folder;
use process::Control;
use serde_json::{Value, json};

/// Measures weft-control with many Services and many clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// The control plane's binary, a release build
    #[arg(long, value_name = "FILE")]
    control: PathBuf,
    #[arg(long, default_value_t = 5_000)]
    services: usize,
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Sizes of the fleet, one after the other
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    clients: Vec<usize>,
    /// Single changes, for latency and cost
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Changes a second, in the end, with the second size of the fleet
    #[arg(long, default_value_t = 100)]
    churn_rate: u32,
    /// How long that goes on
    #[arg(long, default_value_t = 60)]
    churn_seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Vec::new();
    let mut note = |step: &str, figures: Value| {
        println!("{step:<16} {figures}");
        report.push((step.to_owned(), figures));
    };
    let folder = Folder::create(arguments.services, arguments.endpoints)?;
    let started = Instant::now();
    let mut control = Control::start(&arguments.control, folder.path())?;
    let first = Fleet::connect(control.xds(), 1, arguments.services).await?;
    let loaded = started.elapsed();
    note("load", json!({"first_answer_s": loaded.as_secs_f64(), "rss_mb": control.usage()?.rss_mb}));
    ensure!(first.size() == 1, "the first client is connected");
    drop(first);
    for &clients in &arguments.clients {
        let connecting = Instant::now();
        let mut fleet = Fleet::connect(control.xds(), clients, arguments.services).await?;
        let connect_s = connecting.elapsed().as_secs_f64();
        let figures = single_changes(&arguments, &folder, &mut control, &mut fleet).await?;
        note(&format!("{clients} clients"), json!({"connect_s": connect_s, "changes": figures}));
        drop(fleet);
    }
    let clients = arguments.clients.get(1).or(arguments.clients.first()).copied().unwrap_or(1);
    let fleet = Fleet::connect(control.xds(), clients, arguments.services).await?;
    let figures = churn(&arguments, &folder, &mut control, fleet).await?;
    note("churn", figures);
    Ok(())
}

/// Changes one endpoint at a time and waits until every client has it.
async fn single_changes(
    arguments: &Arguments,
    folder: &Folder,
    control: &mut Control,
    fleet: &mut Fleet,
) -> Result<Value> {
    let mut latencies = Vec::new();
    let mut bytes_max = 0;
    // What connecting left to do is not a matter of changes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = control.usage()?;
    for change in 0..arguments.changes {
        let service = change * 7 % arguments.services;
        let written = folder.change(service)?;
        for news in fleet.expect_from_all(service).await? {
            latencies.push(news.at.duration_since(written));
            bytes_max = bytes_max.max(news.bytes);
        }
    }
    let after = control.usage()?;
    latencies.sort();
    let cpu_us = (after.cpu - before.cpu).as_secs_f64() * 1e6 / arguments.changes as f64;
    Ok(json!({
        "median_ms": milliseconds(&latencies, 0.5),
        "p99_ms": milliseconds(&latencies, 0.99),
        "max_ms": milliseconds(&latencies, 1.0),
        "bytes_max": bytes_max,
        "cpu_us_per_change": cpu_us.round(),
        "cpu_us_per_push": (cpu_us / fleet.size() as f64 * 10.0).round() / 10.0,
        "rss_mb": after.rss_mb,
    }))
}

/// Many changes at a steady rate; how far behind is the client that is behind most?
async fn churn(arguments: &Arguments, folder: &Folder, control: &mut Control, mut fleet: Fleet) -> Result<Value> {
    let (before, started) = (control.usage()?, Instant::now());
    let total = u64::from(arguments.churn_rate) * arguments.churn_seconds;
    let interval = Duration::from_secs(1) / arguments.churn_rate;
    let mut written = Vec::new();
    let mut rss_max_mb = before.rss_mb;
    for change in 0..total {
        tokio::time::sleep_until((started + interval * u32::try_from(change).context("too many changes")?).into())
            .await;
        let service = usize::try_from(change)? * 13 % arguments.services;
        written.push((service, folder.change(service)?));
        if change % u64::from(arguments.churn_rate) == 0 {
            rss_max_mb = rss_max_mb.max(control.usage()?.rss_mb);
        }
    }
    let lags = fleet.lags(&written).await?;
    let after = control.usage()?;
    Ok(json!({
        "clients": fleet.size(),
        "changes": total,
        "seconds": started.elapsed().as_secs_f64(),
        "lag_median_ms": milliseconds(&lags, 0.5),
        "lag_p99_ms": milliseconds(&lags, 0.99),
        "lag_max_ms": milliseconds(&lags, 1.0),
        "cpu_share": (after.cpu - before.cpu).as_secs_f64() / started.elapsed().as_secs_f64(),
        "rss_before_mb": before.rss_mb,
        "rss_max_mb": rss_max_mb.max(after.rss_mb),
    }))
}

/// A quantile of sorted durations.
fn milliseconds(sorted: &[Duration], quantile: f64) -> f64 {
    let index = ((sorted.len().max(1) - 1) as f64 * quantile) as usize;
    sorted.get(index).map_or(f64::NAN, |duration| (duration.as_secs_f64() * 1e5).round() / 100.0)
}
