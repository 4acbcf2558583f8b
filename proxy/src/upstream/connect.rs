//! Opening a connection to a host: source address, TCP, TLS, all within the cluster's connect timeout.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    config::cluster::{ClusterConfig, FirstAddresses, FirstFamily},
    net::stream::Stream,
    stats::{ClusterStat, HostStat, WorkerIndex},
    upstream::{cluster::Cluster, host::Host},
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
pub async fn connect(cluster: &Cluster, host: &Host, worker: WorkerIndex) -> Result<Stream, ConnectError> {
    let cells = &cluster.stats.cells;
    cells.inc(worker, ClusterStat::CxTotal);
    host.stats.inc(worker, HostStat::CxTotal);
    let begun = Instant::now();
    let connecting = open(&cluster.config, host);
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

async fn open(config: &ClusterConfig, host: &Host) -> Result<Stream, ConnectError> {
    let addresses = host.addresses();
    let opened = match &addresses[..] {
        [only] => open_tcp(config, *only).await,
        several => open_first(config, in_turns_of_families(several, &config.connection.first_addresses)).await,
    };
    let stream = opened.map_err(|error| ConnectError::Tcp(kernel_text(&error)))?;
    secure(config, host, stream, &[]).await
}

/// To ask a host whether it is well, at an address for that perhaps. It is counted nowhere, and takes as long as it takes.
/// `alpn_protocols`: instead of the cluster's, unless empty.
pub async fn connect_to_check(
    config: &ClusterConfig,
    host: &Host,
    address: SocketAddr,
    alpn_protocols: &[Vec<u8>],
) -> Result<Stream, ConnectError> {
    let opened = open_tcp(config, address).await;
    let stream = opened.map_err(|error| ConnectError::Tcp(kernel_text(&error)))?;
    secure(config, host, stream, alpn_protocols).await
}

async fn secure(
    config: &ClusterConfig,
    host: &Host,
    stream: TcpStream,
    alpn_protocols: &[Vec<u8>],
) -> Result<Stream, ConnectError> {
    let Some(tls) = &config.transport_socket else { return Ok(Stream::plain(stream)) };
    let missing = || ConnectError::Tls("Secret is not supplied by SDS".to_owned());
    let mut config = tls.config().ok_or_else(missing)?;
    if !alpn_protocols.is_empty() {
        Arc::make_mut(&mut config).alpn_protocols = alpn_protocols.to_vec();
    }
    let name = tls.server_name(&host.hostname).unwrap_or_else(|| ServerName::IpAddress(host.address.ip().into()));
    let connected = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    connected.map(|stream| Stream::tls(stream.into())).map_err(|error| ConnectError::Tls(error.to_string()))
}

/// RFC 8305, section 4: the next address is tried when one fails or does not answer soon, and the first connection wins.
async fn open_first(config: &ClusterConfig, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::other("no address");
    loop {
        match waiting.next() {
            Some(address) => attempts.push(open_tcp(config, address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let soon = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(NEXT_ADDRESS_DELAY).await,
            }
        };
        tokio::select! {
            biased;
            Some(ended) = attempts.next() => match ended {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = soon => {}
        }
    }
}

/// RFC 8305, section 4: families alternate, beginning with the one of the first address, unless the cluster says.
fn in_turns_of_families(addresses: &[SocketAddr], first: &FirstAddresses) -> Vec<SocketAddr> {
    let is_v6_first = match first.family {
        FirstFamily::OfFirstAddress => addresses.first().is_some_and(SocketAddr::is_ipv6),
        FirstFamily::V4 => false,
        FirstFamily::V6 => true,
    };
    let (preferred, others): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == is_v6_first);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(preferred.by_ref().take(first.count.max(1) as usize));
        ordered.extend(others.next());
    }
    ordered
}

/// RFC 8305, section 8, recommends 250 ms; Envoy has taken 300.
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(300);

async fn open_tcp(config: &ClusterConfig, address: SocketAddr) -> io::Result<TcpStream> {
    let connection = &config.connection;
    let (socket, source) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, config.bind_v4),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, config.bind_v6),
    };
    if let Some(source) = source {
        if source.port() == 0 {
            // ip(7): the port is chosen at connect, by the whole 4-tuple, so a fixed source address does not run out.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
        }
        socket.bind(source)?;
    }
    if let Some(keepalive) = &connection.tcp_keepalive {
        socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive.into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address);
        let order = |family, count| {
            let ordered = in_turns_of_families(&addresses, &FirstAddresses { family, count });
            ordered.iter().map(|at| if at.is_ipv6() { '6' } else { '4' }).collect::<String>()
        };
        assert_eq!(order(FirstFamily::OfFirstAddress, 1), "64646");
        assert_eq!(order(FirstFamily::V4, 1), "46466");
        assert_eq!(order(FirstFamily::V6, 2), "66464");
    }
}
