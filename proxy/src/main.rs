//! The weft-proxy binary: arguments, logging, allocator; the rest is `server`.

use std::process::ExitCode;

use anyhow::Context as _;
use weft_proxy::{
    args::{Args, Command, HOT_RESTART_VERSION, Mode},
    bootstrap,
    logging::Log,
    server,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version(version)) => {
            println!("\nweft-proxy  version: {version}\n");
            return ExitCode::SUCCESS;
        }
        Ok(Command::HotRestartVersion) => {
            eprintln!("{HOT_RESTART_VERSION}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // Err: it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let log = Log::start(&args.logging)?;
    for flag in &args.ignored {
        tracing::info!(flag, "has no effect here");
    }
    let name = args.config_name();
    let bootstrap = bootstrap::load(args).with_context(|| format!("error initializing configuration '{name}'"))?;
    match args.mode {
        Mode::Validate => {
            println!("configuration '{name}' OK");
            Ok(())
        }
        Mode::Serve | Mode::InitOnly => Ok(server::run(args, bootstrap, &log)?),
    }
}
