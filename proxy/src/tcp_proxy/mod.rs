//! The TCP proxy: a connection to a cluster's host, and bytes both ways until both sides have ended.

pub mod connect;
mod early;
mod relay;
pub mod tunnel;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    config::{access_log::LogType, tcp_proxy::TcpProxy},
    http::response_flags::ResponseFlags,
    listener::{active::ActiveTcp, connection::Downstream, registry::ConnectionLimits},
    net::stream::Stream,
    stats::TcpStat,
    tcp_proxy::{connect::Greeted, early::EarlyData},
};

/// One connection, for statistics and access logs.
pub struct TcpSession {
    pub active: Arc<ActiveTcp>,
    pub downstream: Rc<Downstream>,
    pub started: Instant,
    pub started_at: SystemTime,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
    pub flags: Cell<ResponseFlags>,
    pub details: RefCell<Cow<'static, str>>,
    pub upstream_host: Cell<Option<SocketAddr>>,
    pub upstream_cluster: RefCell<Option<Arc<str>>>,
    pub upstream_failure: RefCell<Option<String>>,
    pub attempts: Cell<u32>,
    /// On what occasion something is logged.
    pub log_type: Cell<LogType>,
}

/// `greeted`: the upstream, where it was dialled already.
pub async fn serve(active: Arc<ActiveTcp>, downstream: Rc<Downstream>, stream: Stream, greeted: Option<Greeted>) {
    let config = active.config.clone();
    let session = Rc::new(TcpSession::begin(active, downstream));
    if config.access_log_options.flush_on_start {
        session.log(LogType::TcpConnectionStart);
    }
    match config.access_log_options.flush_interval {
        None => session.run(stream, greeted).await,
        Some(interval) => {
            tokio::select! {
                () = session.run(stream, greeted) => {}
                () = session.log_every(interval) => {}
            }
        }
    }
}

impl TcpSession {
    fn begin(active: Arc<ActiveTcp>, downstream: Rc<Downstream>) -> TcpSession {
        downstream.control.limits.set(ConnectionLimits {
            idle_timeout: active.config.idle_timeout,
            max_duration: max_duration(&active.config, &downstream),
            drain_timeout: downstream.worker.shared.drain_time,
        });
        let session = TcpSession {
            started: downstream.started,
            started_at: downstream.started_at,
            active,
            downstream,
            bytes_received: Cell::new(0),
            bytes_sent: Cell::new(0),
            flags: Cell::default(),
            details: RefCell::new("-".into()),
            upstream_host: Cell::new(None),
            upstream_cluster: RefCell::default(),
            upstream_failure: RefCell::default(),
            attempts: Cell::new(0),
            log_type: Cell::default(),
        };
        session.count(TcpStat::CxTotal);
        session
    }

    async fn run(self: &Rc<Self>, mut downstream: Stream, greeted: Option<Greeted>) {
        if let Some(tunneling) = &self.active.config.tunneling {
            // Boxed: most connections do without.
            return Box::pin(self.run_tunnel(tunneling, downstream)).await;
        }
        let (upstream, early, greeting) = match greeted {
            Some(greeted) => {
                let (upstream, greeting) = self.take_up(greeted);
                (upstream, EarlyData::default(), EarlyData { bytes: greeting, is_ended: false })
            }
            None => match self.connect_with_early_data(&mut downstream).await {
                Some((upstream, early)) => (upstream, early, EarlyData::default()),
                None => return,
            },
        };
        self.sent(greeting.bytes.len());
        if self.active.config.access_log_options.flush_on_connected {
            self.log(LogType::TcpUpstreamConnected);
        }
        relay::run(self, downstream, upstream.stream, [early, greeting]).await;
    }

    /// Never ends.
    async fn log_every(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            self.log(LogType::TcpPeriodic);
        }
    }

    fn count(&self, stat: TcpStat) {
        self.add(stat, 1);
    }

    fn add(&self, stat: TcpStat, amount: u64) {
        self.active.stats.cells.add(self.downstream.worker.index, stat, amount);
    }

    fn flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
    }

    fn received(&self, bytes: usize) {
        self.bytes_received.set(self.bytes_received.get() + bytes as u64);
        self.add(TcpStat::CxRxBytesTotal, bytes as u64);
    }

    fn sent(&self, bytes: usize) {
        self.bytes_sent.set(self.bytes_sent.get() + bytes as u64);
        self.add(TcpStat::CxTxBytesTotal, bytes as u64);
    }

    fn log(&self, occasion: LogType) {
        self.log_type.set(occasion);
        self.downstream.worker.access_logs.log_tcp(&self.active.config.access_log, self);
    }
}

/// With its jitter.
fn max_duration(config: &TcpProxy, downstream: &Downstream) -> Option<Duration> {
    let random = || downstream.worker.with_random(fastrand::Rng::f64);
    let longer = |duration: Duration| match config.max_downstream_connection_duration_jitter {
        0.0 => duration,
        jitter => duration.mul_f64(1.0 + jitter * random()),
    };
    config.max_downstream_connection_duration.map(longer)
}

impl Drop for TcpSession {
    fn drop(&mut self) {
        self.log(LogType::TcpConnectionEnd);
        self.downstream.worker.access_logs.log_tcp(&self.downstream.listener.config.access_log, self);
        self.downstream.is_logged.set(true);
    }
}
