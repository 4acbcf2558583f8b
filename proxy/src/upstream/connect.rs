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
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};

use crate::{
    config::{
        cluster::{ClusterConfig, FirstAddresses, FirstFamily, Keepalive, SourceSocket, UpstreamBind},
        socket_option::{SocketOption, SocketState},
    },
    net::{
        socket_option,
        stream::{Metered, Stream},
    },
    stats::{ClusterStat, HostStat, WorkerIndex},
    upstream::{
        cluster::Cluster,
        host::Host,
        origin::{Origin, Source},
    },
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("connection timeout")]
    Timeout,
    /// This side could not even begin.
    #[error("{0}")]
    Local(String),
    /// Least of all from the address that is configured.
    #[error("{0}")]
    Bind(String),
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
    let connecting = open(cluster, host, origin);
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
            Ok(stream.counted(Metered::Upstream(cluster.stats.clone()), worker))
        }
        Err(error) => {
            if matches!(error, ConnectError::Bind(_)) {
                cells.inc(worker, ClusterStat::BindErrors);
            }
            cells.inc(worker, ClusterStat::CxConnectFail);
            cells.inc(worker, ClusterStat::CxDestroy);
            cluster.stats.cx_length.record(worker, begun.elapsed());
            host.stats.inc(worker, HostStat::CxConnectFail);
            Err(error)
        }
    }
}

async fn open(cluster: &Cluster, host: &Host, origin: &Origin) -> Result<Stream, ConnectError> {
    let config = &cluster.config;
    let opening = Opening { bind: &cluster.bind, keepalive: config.connection.tcp_keepalive.as_ref(), origin };
    let addresses = host.addresses();
    let opened = match &addresses[..] {
        [only] => opening.open_tcp(*only).await,
        several => {
            let order = in_turns_of_families(several, &config.connection.first_addresses);
            open_first(&opening, order).await
        }
    };
    secure(config, host, opened?, &[]).await
}

/// To ask a host whether it is well, at an address for that perhaps. It is counted nowhere, and takes as long as it takes.
/// `alpn_protocols`: instead of the cluster's, unless empty.
pub async fn connect_to_check(
    cluster: &Cluster,
    host: &Host,
    address: SocketAddr,
    alpn_protocols: &[Vec<u8>],
) -> Result<Stream, ConnectError> {
    let config = &cluster.config;
    let origin = Origin::default();
    let keepalive = config.connection.tcp_keepalive.as_ref();
    let stream = Opening { bind: &cluster.bind, keepalive, origin: &origin }.open_tcp(address).await?;
    secure(config, host, stream, alpn_protocols).await
}

async fn secure(
    config: &ClusterConfig,
    host: &Host,
    stream: TcpStream,
    alpn_protocols: &[Vec<u8>],
) -> Result<Stream, ConnectError> {
    let Some(tls) = config.tls_to(&host.metadata) else { return Ok(Stream::plain(stream)) };
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
async fn open_first(opening: &Opening<'_>, addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = ConnectError::Tcp("no address".to_owned());
    loop {
        match waiting.next() {
            Some(address) => attempts.push(opening.open_tcp(address)),
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

/// How TCP connections of a cluster begin.
pub struct Opening<'a> {
    pub bind: &'a UpstreamBind,
    pub keepalive: Option<&'a Keepalive>,
    pub origin: &'a Origin,
}

impl Opening<'_> {
    pub async fn open_tcp(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let socket = self.socket(address)?;
        let connecting = async {
            let mut stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            if !self.origin.preamble.is_empty() {
                stream.write_all(&self.origin.preamble).await?;
            }
            Ok(stream)
        };
        connecting.await.map_err(|error: io::Error| ConnectError::Tcp(kernel_text(&error)))
    }

    /// Ready to connect.
    fn socket(&self, address: SocketAddr) -> Result<TcpSocket, ConnectError> {
        let local = |what: &str, error: &io::Error| ConnectError::Local(format!("{what}: {}", kernel_text(error)));
        let is_v4 = address.is_ipv4();
        let opened = if is_v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = opened.map_err(|error| local("failed to open a socket", &error))?;
        let SourceSocket { address: configured, freebind, options } = self.bind.towards(address);
        self.set_options(&socket, is_v4, *freebind, options)
            .map_err(|error| local("failed to set socket options", &error))?;
        // A source address of the other family: the kernel has its say.
        let source = match self.origin.source {
            Some(Source { ip, .. }) if ip.is_ipv4() == is_v4 => Some(SocketAddr::new(ip, 0)),
            Some(_) | None => *configured,
        };
        if let Some(source) = source {
            let failure = |error| ConnectError::Bind(format!("failed to bind to {source}: {}", kernel_text(&error)));
            bind(&socket, source).map_err(failure)?;
        }
        Ok(socket)
    }

    fn set_options(&self, socket: &TcpSocket, is_v4: bool, freebind: bool, options: &[SocketOption]) -> io::Result<()> {
        let socket_ref = SockRef::from(socket);
        if freebind {
            if is_v4 { socket_ref.set_freebind_v4(true)? } else { socket_ref.set_freebind_v6(true)? }
        }
        if let Some(keepalive) = self.keepalive {
            socket_ref.set_tcp_keepalive(&keepalive.into())?;
        }
        if let Some(Source { mark, .. }) = self.origin.source {
            // ip(7): an address that is not this machine's may be bound all the same.
            if is_v4 {
                socket_ref.set_ip_transparent_v4(true)?
            } else {
                socket_ref.set_ip_transparent_v6(true)?
            }
            if mark != 0 {
                socket_ref.set_mark(mark)?;
            }
        }
        // Sockets that connect know this state alone.
        socket_option::apply(socket, options, SocketState::Prebind, is_v4)
    }
}

fn bind(socket: &TcpSocket, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        // ip(7): the port is chosen at connect, by the whole 4-tuple, so a fixed source address does not run out.
        setsockopt(socket, IpBindAddressNoPort, &true)?;
    }
    socket.bind(source)
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
