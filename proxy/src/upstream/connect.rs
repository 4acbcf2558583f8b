//! Opening a connection to a host: source address, TCP, TLS, all within the cluster's connect timeout.

use std::{io, net::SocketAddr, time::Instant};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};

use crate::{
    config::{cluster::ClusterConfig, tls::UpstreamTls},
    net::stream::Stream,
    stats::{ClusterStat, HostStat, WorkerIndex},
    upstream::{
        cluster::Cluster,
        endpoint_set::Host,
        origin::{Origin, Source},
    },
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("connection timeout")]
    Timeout,
    /// The text is the kernel's.
    #[error("delayed connect error: {0}")]
    Tcp(String),
    #[error("TLS_error: {0}")]
    Tls(String),
}

/// Counts the try, and its failure, on the cluster and the host.
pub async fn connect(
    cluster: &Cluster,
    host: &Host,
    worker: WorkerIndex,
    origin: &Origin,
) -> Result<Stream, ConnectError> {
    let cells = &cluster.stats.cells;
    cells.inc(worker, ClusterStat::CxTotal);
    host.stats.inc(worker, HostStat::CxTotal);
    let begun = Instant::now();
    let connecting = open(&cluster.config, host.address, origin);
    let connected = match tokio::time::timeout(cluster.config.connect_timeout, connecting).await {
        Ok(connected) => connected,
        Err(_elapsed) => {
            cells.inc(worker, ClusterStat::CxConnectTimeout);
            Err(ConnectError::Timeout)
        }
    };
    match connected {
        Ok(stream) => {
            cluster.stats.cx_connect.record(worker, begun.elapsed());
            Ok(stream.counted(cluster.stats.clone(), worker))
        }
        Err(error) => {
            cells.inc(worker, ClusterStat::CxConnectFail);
            host.stats.inc(worker, HostStat::CxConnectFail);
            Err(error)
        }
    }
}

async fn open(config: &ClusterConfig, address: SocketAddr, origin: &Origin) -> Result<Stream, ConnectError> {
    let opened = open_tcp(config, address, origin).await;
    let stream = opened.map_err(|error| ConnectError::Tcp(kernel_text(&error)))?;
    let Some(tls) = &config.transport_socket else { return Ok(Stream::plain(stream)) };
    let UpstreamTls { config, sni, .. } = &**tls;
    let name = sni.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let connected = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await;
    connected.map(|stream| Stream::tls(stream.into())).map_err(|error| ConnectError::Tls(error.to_string()))
}

async fn open_tcp(config: &ClusterConfig, address: SocketAddr, origin: &Origin) -> io::Result<TcpStream> {
    let (socket, source) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, config.bind_v4),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, config.bind_v6),
    };
    // A source of the other family cannot be.
    let shown = origin.source.filter(|shown| shown.ip.is_ipv4() == address.is_ipv4());
    if let Some(Source { ip, mark }) = shown {
        set_transparent(&socket, ip.is_ipv4(), mark)?;
    }
    if let Some(source) = shown.map(|shown| SocketAddr::new(shown.ip, 0)).or(source) {
        if source.port() == 0 {
            // ip(7): the port is chosen at connect, by the whole 4-tuple, so a fixed source address does not run out.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
        }
        socket.bind(source)?;
    }
    let mut stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if !origin.preamble.is_empty() {
        stream.write_all(&origin.preamble).await?;
    }
    Ok(stream)
}

/// Allows an address that is not this machine's, whose answers come back here by the mark (needs CAP_NET_ADMIN).
fn set_transparent(socket: &TcpSocket, is_v4: bool, mark: u32) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if is_v4 {
        socket.set_ip_transparent_v4(true)?
    } else {
        socket.set_ip_transparent_v6(true)?
    }
    if mark > 0 { socket.set_mark(mark) } else { Ok(()) }
}

/// "Connection refused", without the "(os error 111)" that the standard library adds.
fn kernel_text(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(_) => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
        None => error.to_string(),
    }
}
