//! `weft-origin`: the application of the tests and the demo, as a program. See `weft_tests::origin`.

use anyhow::{Result, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weft_tests::origin::{Identity, http, tcp};

/// A test application: says who it is, shows what it was asked, misbehaves on request.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The service that it says it belongs to.
    #[arg(long, default_value = "origin")]
    service: String,
    /// The pod that it says it is.
    #[arg(long, default_value = "origin")]
    pod: String,
    /// The version that it says it has; not this program's.
    #[arg(long = "app-version", default_value = "v1")]
    app_version: String,
    /// Serve HTTP/1.1 and HTTP/2 here; 0 takes a free port and prints it.
    #[arg(long, value_name = "PORT")]
    http: Vec<u16>,
    /// Answer lines of TCP here.
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// The same, but greet first, as MySQL and SMTP do.
    #[arg(long, value_name = "PORT")]
    tcp_server_first: Vec<u16>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        !args.http.is_empty() || !args.tcp.is_empty() || !args.tcp_server_first.is_empty(),
        "nothing to serve: see --help"
    );
    let identity = Identity { service: args.service, pod: args.pod, version: args.app_version };
    for port in args.http {
        let server = http::Server::bind(port, identity.clone()).await?;
        println!("http {}", server.port()?);
        tokio::spawn(server.serve());
    }
    let tcp_ports = args.tcp.into_iter().map(|port| (port, tcp::Manners::ClientFirst));
    let server_first_ports = args.tcp_server_first.into_iter().map(|port| (port, tcp::Manners::ServerFirst));
    for (port, manners) in tcp_ports.chain(server_first_ports) {
        let server = tcp::Server::bind(port, identity.clone(), manners).await?;
        println!("tcp {}", server.port()?);
        tokio::spawn(server.serve());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
