//! `weft-control`: reads the command line, sets up logging and metrics, serves until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weft_control::args::{Arguments, Command, LogFormat, Serve};
use weft_control::serve::Server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Command::Serve(serve) = Arguments::parse().command;
    match run(&serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(serve: &Serve) -> anyhow::Result<()> {
    start_logging(serve)?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0])
        .and_then(PrometheusBuilder::install_recorder)
        .context("setting up metrics")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let server = Server::start(serve, metrics).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            manifests = %serve.manifests.display(),
            xds = server.plaintext_address().map(tracing::field::display),
            xds_tls = server.tls_address().map(tracing::field::display),
            monitoring = %server.monitoring_address().context("the monitoring port")?,
            "serving"
        );
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.run(stop).await;
        Ok(())
    })
}

fn start_logging(serve: &Serve) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&serve.log_level).with_context(|| format!("--log-level {:?}", serve.log_level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match serve.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
