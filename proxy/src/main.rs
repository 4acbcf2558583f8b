//! The weft-proxy binary: arguments, logging, allocator; the rest is `server`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use weft_proxy::{
    args::{Args, Mode},
    config::bootstrap::Bootstrap,
    server,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(args.log_level.filter()).init();
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
    let path = args.config_path.display();
    let text = std::fs::read_to_string(&args.config_path).with_context(|| format!("cannot read '{path}'"))?;
    let bootstrap = Bootstrap::parse(&text).with_context(|| format!("configuration '{path}'"))?;
    bootstrap.check_node().with_context(|| format!("configuration '{path}'"))?;
    drop(text);
    match args.mode {
        Mode::Validate => {
            println!("configuration '{path}' OK");
            Ok(())
        }
        Mode::Serve => Ok(server::run(args, bootstrap)?),
    }
}
