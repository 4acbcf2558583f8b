//! One downstream connection, from accept to its filter chain: original destination, hand-off, listener filters, match, TLS.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, task::Context, time::Instant};

use tokio::net::TcpStream;

use crate::{
    config::{filter_chain::FilterChain, listener::ListenerFilter},
    http,
    listener::{
        active::{ActiveChain, ActiveFilter, ActiveListener},
        filter_chain::ConnectionFacts,
        inspect::{Inspected, inspect},
        registry::{Control, Order},
    },
    net::{socket, stream::Stream},
    stats::ListenerStat,
    tcp_proxy,
    worker::{ConnectionCount, Worker},
};

/// What the rest of the way knows of a connection. Lives as long as it.
pub struct Downstream {
    pub worker: Rc<Worker>,
    pub id: u64,
    /// Where the client wanted to go: the original destination of a redirected connection.
    pub local_address: SocketAddr,
    pub remote_address: SocketAddr,
    pub is_tls: bool,
    /// The client has shown one, and it was verified as far as the chain asks for that.
    pub has_peer_certificate: bool,
    pub requested_server_name: Option<String>,
    pub control: Rc<Control>,
    /// None until a chain has it.
    chain: Option<Arc<ActiveChain>>,
    pub buffer_limit_bytes: u32,
    listener: Arc<ActiveListener>,
    _count: ConnectionCount,
}

impl Downstream {
    /// What the connection is told to do; its task is woken when that changes.
    pub fn order(&self, cx: &Context<'_>) -> Option<Order> {
        if self.is_draining() {
            self.control.drain(Instant::now());
        }
        self.control.order(cx)
    }

    pub fn filter_chain_name(&self) -> Option<&str> {
        self.chain.as_ref().map(|chain| &*chain.config.name)
    }

    /// Its chain is gone from the configuration, the process is to end, or the connection is too old.
    pub fn is_draining(&self) -> bool {
        self.control.is_draining()
            || self.chain.as_ref().is_some_and(|chain| chain.drain.is_started())
            || self.worker.shared.drain.is_started()
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let cells = &self.listener.stats.cells;
        cells.dec(self.worker.index, ListenerStat::CxActive);
        cells.inc(self.worker.index, ListenerStat::CxDestroy);
    }
}

pub async fn serve(worker: Rc<Worker>, listener: Arc<ActiveListener>, stream: TcpStream, peer: SocketAddr) {
    let count = worker.connection_opened();
    let peer = socket::unmapped(peer);
    if let Err(error) = accepted(worker, listener, stream, peer, count).await {
        tracing::debug!(%peer, %error, "connection ended before its filter chain had it");
    }
}

async fn accepted(
    worker: Rc<Worker>,
    listener: Arc<ActiveListener>,
    stream: TcpStream,
    peer: SocketAddr,
    count: ConnectionCount,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let has_original_dst = listener.config.listener_filters.contains(&ListenerFilter::OriginalDst);
    let destination = if has_original_dst || listener.config.use_original_dst {
        socket::original_destination(&stream)?
    } else {
        socket::unmapped(stream.local_addr()?)
    };
    let listener = hand_off(&worker, listener, destination);
    let index = worker.index;
    let cells = &listener.stats.cells;
    cells.inc(index, ListenerStat::CxTotal);
    cells.inc(index, ListenerStat::CxActive);
    let mut downstream = Downstream {
        id: worker.next_connection_id(),
        local_address: destination,
        remote_address: peer,
        is_tls: false,
        has_peer_certificate: false,
        requested_server_name: None,
        control: worker.connections.add(Instant::now()),
        chain: None,
        buffer_limit_bytes: listener.config.per_connection_buffer_limit_bytes,
        listener: listener.clone(),
        _count: count,
        worker,
    };
    let config = &listener.config;
    let inspected = match inspect(&stream, &config.listener_filters, config.listener_filters_timeout).await? {
        Some(inspected) => inspected,
        None => {
            cells.inc(index, ListenerStat::PreCxTimeout);
            if !config.continue_on_listener_filters_timeout {
                return Ok(());
            }
            Inspected::default()
        }
    };
    let Some(chain) = find_chain(&listener, &downstream, &inspected) else {
        cells.inc(index, ListenerStat::NoFilterChainMatch);
        downstream.worker.access_logs.log_refused(&listener.config.access_log, &downstream);
        return Ok(());
    };
    downstream.chain = Some(chain.clone());
    downstream.requested_server_name = inspected.server_name;
    let stream = match secured(&chain.config, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            cells.inc(index, ListenerStat::TlsConnectionError);
            return Err(error);
        }
    };
    if stream.is_tls() {
        cells.inc(index, ListenerStat::TlsHandshake);
        downstream.is_tls = true;
        downstream.has_peer_certificate = stream.has_peer_certificate();
    }
    run_filter(&chain, Rc::new(downstream), stream).await;
    Ok(())
}

/// A listener with `use_original_dst` gives the connection to the one that listens, or would, on its destination.
fn hand_off(worker: &Worker, listener: Arc<ActiveListener>, destination: SocketAddr) -> Arc<ActiveListener> {
    if !listener.config.use_original_dst {
        return listener;
    }
    match worker.snapshot().listener_of_destination(destination) {
        Some(found) => found.clone(),
        None => listener,
    }
}

fn find_chain(listener: &ActiveListener, downstream: &Downstream, inspected: &Inspected) -> Option<Arc<ActiveChain>> {
    let facts = ConnectionFacts {
        destination: downstream.local_address,
        server_name: inspected.server_name.as_deref(),
        transport_protocol: if inspected.is_tls { "tls" } else { "raw_buffer" },
        application_protocols: &inspected.application_protocols,
        direct_source: downstream.remote_address.ip(),
        source: downstream.remote_address,
    };
    listener.find_chain(&facts).cloned()
}

/// TLS where the chain asks for it.
async fn secured(chain: &FilterChain, stream: TcpStream) -> io::Result<Stream> {
    let Some(tls) = &chain.transport_socket else { return Ok(Stream::plain(stream)) };
    let handshake = tokio_rustls::TlsAcceptor::from(tls.config.clone()).accept(stream);
    let accepted = match chain.transport_socket_connect_timeout {
        None => handshake.await?,
        Some(timeout) => tokio::time::timeout(timeout, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??,
    };
    Ok(Stream::tls(accepted.into()))
}

async fn run_filter(chain: &ActiveChain, downstream: Rc<Downstream>, stream: Stream) {
    match &chain.filter {
        ActiveFilter::Http(active) => http::connection_manager::serve(active.clone(), downstream, stream).await,
        ActiveFilter::Tcp(active) => tcp_proxy::serve(active.clone(), downstream, stream).await,
    }
}
