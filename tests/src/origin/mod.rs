//! The application that the tests and the demo put behind sidecars: it knows nothing of a mesh, says who it is, shows what it was asked, and
//! misbehaves on request.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge share a port, told apart by the first bytes ([`http`]); a TCP port answers line by
//! line ([`tcp`]). What an answer looks like is asked for in the path or a header, as [`directive`] describes.

pub mod directive;
pub mod http;
pub mod rewind;
pub mod tcp;

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;

/// Who the application says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub service: String,
    pub pod: String,
    pub version: String,
}

/// Listens on every address of the machine, v4 and v6.
async fn listen(port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on port {port}"))
}

/// The port that a listener asked for with 0 got.
fn port_of(listener: &TcpListener) -> Result<u16> {
    Ok(listener.local_addr()?.port())
}
