//! One downstream connection, from accept to its filter chain: listener filters, hand-off, match, TLS.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Context,
    time::{Instant, SystemTime},
};

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::{
    config::{
        filter_chain::FilterChain,
        tls::{DownstreamConfigs, Rejection},
    },
    http::{self, response_flags::ResponseFlags},
    listener::{
        active::{ActiveChain, ActiveFilter, ActiveListener},
        arrival::{Arrival, Learned},
        balance::Places,
        filter_chain::ConnectionFacts,
        network_filter::{self, Admission},
        registry::{Control, Order},
        server_first::{self, Dialled},
    },
    net::stream::Stream,
    stats::{ListenerStat, ListenerStats, WorkerIndex},
    tcp_proxy,
    tls::TlsSession,
    upstream::origin::OwnPools,
    worker::{ConnectionCount, Worker},
};

/// What the rest of the way knows of a connection. Lives as long as it.
pub struct Downstream {
    pub worker: Rc<Worker>,
    pub id: u64,
    /// Where the client wanted to go: the original destination of a redirected connection.
    pub local_address: SocketAddr,
    /// Where it comes from, as the PROXY protocol may have told.
    pub remote_address: SocketAddr,
    /// The peer's own address.
    pub direct_remote_address: SocketAddr,
    /// None: plain text.
    pub tls: Option<Box<TlsSession>>,
    pub requested_server_name: Option<String>,
    /// What the client offers in TLS, or speaks, as listener filters found out.
    pub application_protocols: Vec<String>,
    /// What listener filters found out.
    pub learned: Learned,
    pub control: Rc<Control>,
    pub buffer_limit_bytes: u32,
    pub started: Instant,
    pub started_at: SystemTime,
    /// Of the connection as such, for the listener's access log.
    pub flags: Cell<ResponseFlags>,
    pub details: Cell<Option<&'static str>>,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    /// Somebody who knows more has written the listener's access log.
    pub is_logged: Cell<bool>,
    pub listener: Arc<ActiveListener>,
    pub(super) own_pools: OwnPools,
    /// None until a chain has it.
    chain: Option<Arc<ActiveChain>>,
    admission: Admission,
    open: RefCell<Option<OpenConnection>>,
    _places: Places,
    _count: ConnectionCount,
}

/// A connection that a chain has, counted.
struct OpenConnection {
    stats: Arc<ListenerStats>,
    worker: WorkerIndex,
    since: Instant,
}

/// One whose chain is not known yet, counted.
struct PreConnection {
    stats: Arc<ListenerStats>,
    worker: WorkerIndex,
}

/// What comes with an accepted socket.
struct Accepted {
    worker: Rc<Worker>,
    count: ConnectionCount,
    places: Places,
    started: Instant,
    started_at: SystemTime,
}

impl Downstream {
    /// What the connection is told to do; its task is woken when that changes.
    pub fn order(&self, cx: &Context<'_>) -> Option<Order> {
        if self.is_draining() {
            self.control.drain(Instant::now());
        }
        self.control.order(cx)
    }

    pub fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            destination: self.local_address,
            server_name: self.requested_server_name.as_deref(),
            transport_protocol: if self.tls.is_some() { "tls" } else { "raw_buffer" },
            application_protocols: &self.application_protocols,
            direct_source: self.direct_remote_address.ip(),
            source: self.remote_address,
        }
    }

    pub fn filter_chain_name(&self) -> Option<&str> {
        self.chain.as_ref().map(|chain| &*chain.config.name)
    }

    /// Its chain is gone from the configuration, the process is to end, or the connection is too old.
    pub fn is_draining(&self) -> bool {
        self.control.is_draining()
            || self.chain.as_ref().is_some_and(|chain| chain.drain.is_started())
            || self.worker.shared.drain.is_started()
            || (self.listener.config.drains_when_unhealthy && self.worker.shared.health_checks_fail.load(Relaxed))
    }

    /// The cluster that the client names in TLS, where the chain goes by that.
    pub fn sni_cluster(&self) -> Option<&str> {
        self.requested_server_name.as_deref().filter(|_| self.admission.sni_cluster)
    }

    pub fn filter_chain(&self) -> Option<&FilterChain> {
        self.chain.as_ref().map(|chain| &*chain.config)
    }

    /// Whose request it is may be told by the server's name that the handshake had.
    fn learn_tls(&mut self, tls: Option<TlsSession>) {
        let Some(tls) = tls else { return };
        if self.requested_server_name.is_none() {
            self.requested_server_name = tls.server_name.clone();
        }
        self.tls = Some(Box::new(tls));
    }

    fn new(accepted: Accepted, listener: Arc<ActiveListener>, arrival: Arrival) -> (Downstream, TcpStream) {
        let Accepted { worker, count, places, started, started_at } = accepted;
        let Arrival { stream, destination, direct_source, source, server_name, application_protocols, learned, .. } =
            arrival;
        let downstream = Downstream {
            id: worker.next_connection_id(),
            local_address: destination,
            remote_address: source,
            direct_remote_address: direct_source,
            tls: None,
            requested_server_name: server_name,
            application_protocols,
            learned,
            control: worker.connections.add(started),
            buffer_limit_bytes: listener.config.per_connection_buffer_limit_bytes,
            started,
            started_at,
            flags: Cell::default(),
            details: Cell::default(),
            bytes_received: Cell::default(),
            bytes_sent: Cell::default(),
            is_logged: Cell::new(false),
            own_pools: OwnPools::default(),
            chain: None,
            admission: Admission::default(),
            open: RefCell::default(),
            _places: places,
            _count: count,
            listener,
            worker,
        };
        (downstream, stream)
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.open.take();
        if !self.is_logged.get() {
            self.worker.access_logs.log_connection(&self.listener.config.access_log, self);
        }
    }
}

pub async fn serve(
    worker: Rc<Worker>,
    listener: Arc<ActiveListener>,
    stream: TcpStream,
    peer: SocketAddr,
    places: Places,
) {
    let count = worker.connection_opened();
    let (started, started_at) = (Instant::now(), SystemTime::now());
    let accepted = Accepted { worker, count, places, started, started_at };
    if let Err(error) = run(accepted, listener, stream, peer).await {
        tracing::debug!(%peer, %error, "connection ended before its filter chain had it");
    }
}

async fn run(accepted: Accepted, listener: Arc<ActiveListener>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut arrival = Arrival::new(stream, peer)?;
    let worker = accepted.worker.clone();
    let (listener, learned) = learn(&worker, listener, &mut arrival).await;
    let chain = if learned.is_ok() { listener.find_chain(&arrival.facts()).cloned() } else { None };
    let index = worker.index;
    // From here on its end is logged.
    let (mut downstream, stream) = Downstream::new(accepted, listener, arrival);
    let Ok(dialled) = learned else { return Ok(()) };
    let Some(chain) = chain else {
        downstream.listener.stats.cells.inc(index, ListenerStat::NoFilterChainMatch);
        downstream.flags.set(ResponseFlags::NO_ROUTE_FOUND);
        downstream.details.set(Some("filter_chain_not_found"));
        return Ok(());
    };
    downstream.chain = Some(chain.clone());
    downstream.open = RefCell::new(Some(OpenConnection::new(&downstream.listener.stats, index, downstream.started)));
    match network_filter::admit(&chain.connection_filters, index, Instant::now()) {
        Ok(admission) => downstream.admission = admission,
        Err(unwanted) => {
            if let ActiveFilter::Tcp(active) = &chain.filter {
                downstream.worker.access_logs.log_connection(&active.config.access_log, &downstream);
            }
            if let Some(delay) = unwanted.close_after {
                tokio::time::sleep(delay).await;
            }
            return Ok(());
        }
    }
    let (stream, tls) = secured(&chain.config, &downstream.listener.stats, index, stream).await?;
    downstream.learn_tls(tls);
    let dialled = dialled.filter(|dialled| Arc::ptr_eq(&dialled.chain, &chain));
    run_filter(&chain, Rc::new(downstream), stream, dialled).await;
    Ok(())
}

/// The connection is to be closed: it was counted why.
struct Ended;

/// Runs the filters of the listener, and of the one that it hands the connection to; with the one that had it last.
async fn learn(
    worker: &Rc<Worker>,
    listener: Arc<ActiveListener>,
    arrival: &mut Arrival,
) -> (Arc<ActiveListener>, Result<Option<Dialled>, Ended>) {
    let learned = filtered(worker, &listener, arrival).await;
    if learned.is_err() || !listener.config.use_original_dst || !arrival.is_destination_restored {
        return (listener, learned);
    }
    let snapshot = worker.snapshot();
    match snapshot.listener_of_destination(arrival.destination) {
        Some(next) if !Arc::ptr_eq(next, &listener) => {
            arrival.begin_filters();
            let learned = filtered(worker, next, arrival).await;
            (next.clone(), learned)
        }
        Some(_) | None => (listener, learned),
    }
}

async fn filtered(
    worker: &Rc<Worker>,
    listener: &Arc<ActiveListener>,
    arrival: &mut Arrival,
) -> Result<Option<Dialled>, Ended> {
    if listener.filters.is_empty() {
        return Ok(None);
    }
    let config = &listener.config;
    let pre_connection = PreConnection::new(&listener.stats, worker.index);
    let mut dialled = None;
    let filtering = server_first::filter(worker, listener, arrival, &mut dialled);
    let filtered = match config.listener_filters_timeout {
        None => Ok(filtering.await),
        Some(timeout) => tokio::time::timeout(timeout, filtering).await,
    };
    let ending = match filtered {
        Ok(Ok(())) => return Ok(dialled),
        Ok(Err(ending)) => ending.stat(),
        Err(_elapsed) => {
            pre_connection.count(ListenerStat::PreCxTimeout);
            return if config.continue_on_listener_filters_timeout { Ok(dialled) } else { Err(Ended) };
        }
    };
    if let Some(stat) = ending {
        pre_connection.count(stat);
    }
    Err(Ended)
}

/// TLS where the chain asks for it.
async fn secured(
    chain: &FilterChain,
    stats: &ListenerStats,
    worker: WorkerIndex,
    stream: TcpStream,
) -> io::Result<(Stream, Option<TlsSession>)> {
    let Some(tls) = &chain.transport_socket else { return Ok((Stream::plain(stream), None)) };
    let configs = tls.configs().ok_or_else(|| io::Error::other("Secret is not supplied by SDS"))?;
    let accepted = match chain.transport_socket_connect_timeout {
        None => handshake(&configs, stream).await,
        Some(timeout) => match tokio::time::timeout(timeout, handshake(&configs, stream)).await {
            Ok(accepted) => accepted,
            Err(_elapsed) => {
                stats.cells.inc(worker, ListenerStat::CxTransportSocketConnectTimeout);
                return Err(io::ErrorKind::TimedOut.into());
            }
        },
    };
    match accepted {
        Ok((stream, session)) => {
            stats.cells.inc(worker, ListenerStat::TlsHandshake);
            if session.is_resumed {
                stats.cells.inc(worker, ListenerStat::TlsSessionReused);
            }
            if session.peer_chain().is_empty() {
                stats.cells.inc(worker, ListenerStat::TlsNoCertificate);
            }
            Ok((stream, Some(session)))
        }
        Err(error) => {
            stats.cells.inc(worker, failure_stat(&error));
            Err(error)
        }
    }
}

async fn handshake(configs: &DownstreamConfigs, stream: TcpStream) -> io::Result<(Stream, TlsSession)> {
    let (stream, choice) = match configs.only() {
        Some(only) => (TlsAcceptor::from(only.config.clone()).accept(stream).await?, only),
        None => {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let choice = configs.choose(&start.client_hello());
            let choice = choice.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no server name"))?;
            (start.into_stream(choice.config.clone()).await?, choice)
        }
    };
    let session = TlsSession::new(stream.get_ref().1, choice.certificate.clone(), configs.validation.clone());
    Ok((Stream::tls(stream.into()), session))
}

/// Why a handshake failed, as Envoy counts it.
fn failure_stat(error: &io::Error) -> ListenerStat {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => ListenerStat::TlsFailVerifyNoCertificate,
        Some(rustls::Error::InvalidCertificate(cause)) => match Rejection::of(cause) {
            Some(Rejection::Names) => ListenerStat::TlsFailVerifyName,
            Some(Rejection::Pins) => ListenerStat::TlsFailVerifyHash,
            Some(Rejection::Chain(_) | Rejection::Spiffe(_) | Rejection::Unreadable) | None => {
                ListenerStat::TlsFailVerifyError
            }
        },
        _ => ListenerStat::TlsConnectionError,
    }
}

async fn run_filter(chain: &ActiveChain, downstream: Rc<Downstream>, stream: Stream, dialled: Option<Dialled>) {
    match &chain.filter {
        ActiveFilter::Http(active) => http::connection_manager::serve(active.clone(), downstream, stream).await,
        ActiveFilter::Tcp(active) => {
            tcp_proxy::serve(active.clone(), downstream, stream, dialled.map(|dialled| dialled.greeted)).await;
        }
        ActiveFilter::Echo => network_filter::echo(&downstream, stream).await,
        ActiveFilter::DirectResponse(bytes) => network_filter::direct_response(&downstream, stream, bytes).await,
        ActiveFilter::Close => {}
    }
}

impl OpenConnection {
    fn new(stats: &Arc<ListenerStats>, worker: WorkerIndex, since: Instant) -> OpenConnection {
        stats.cells.inc(worker, ListenerStat::CxTotal);
        stats.cells.inc(worker, ListenerStat::CxActive);
        OpenConnection { stats: stats.clone(), worker, since }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let cells = &self.stats.cells;
        cells.dec(self.worker, ListenerStat::CxActive);
        cells.inc(self.worker, ListenerStat::CxDestroy);
        self.stats.cx_length.record(self.worker, self.since.elapsed());
    }
}

impl PreConnection {
    fn new(stats: &Arc<ListenerStats>, worker: WorkerIndex) -> PreConnection {
        stats.cells.inc(worker, ListenerStat::PreCxActive);
        PreConnection { stats: stats.clone(), worker }
    }

    fn count(&self, stat: ListenerStat) {
        self.stats.cells.inc(self.worker, stat);
    }
}

impl Drop for PreConnection {
    fn drop(&mut self) {
        self.stats.cells.dec(self.worker, ListenerStat::PreCxActive);
    }
}
