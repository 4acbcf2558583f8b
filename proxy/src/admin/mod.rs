//! The admin server: Envoy's paths and answers. On the main thread; never on a worker.

mod clusters;
mod listeners;
mod logging;
mod server_info;
mod stats;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

use crate::{
    access_log::AccessLogFiles,
    args::{self, Args},
    config::{bootstrap::Node, runtime_values::RuntimeValues},
    logging::Log,
    runtime::{RuntimeQueries, publish::Shared},
    stats::{Registry, StatsRules},
    xds::dump::EndpointsInDump,
};

/// What the answers are made from.
pub struct Admin {
    pub runtime: RuntimeQueries,
    pub registry: Arc<Registry>,
    pub shared: Arc<Shared>,
    pub files: Arc<AccessLogFiles>,
    pub started: Instant,
    pub args: Args,
    pub node: Node,
    pub stats_rules: StatsRules,
    /// None: intervals of histograms end whenever somebody looks.
    pub stats_flush_interval: Option<Duration>,
    pub runtime_values: RuntimeValues,
    pub log: Log,
    /// Ends the process.
    pub quit: mpsc::Sender<()>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot bind the admin address '{address}'")]
pub struct AdminError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

pub fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    let bound = std::net::TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    });
    bound.map_err(|source| AdminError { address, source })
}

pub async fn run(admin: Arc<Admin>, listening: TcpListener) {
    if let Some(interval) = admin.stats_flush_interval {
        tokio::spawn(stats::flush_regularly(admin.clone(), interval)); // ends with the process
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listening.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(place);
        });
    }
}

type Answer = Response<Full<Bytes>>;

/// (path, what it does, whether it changes something and so wants POST)
const PATHS: &[(&str, &str, bool)] = &[
    ("/clusters", "upstream cluster status; ?format=json", false),
    ("/config_dump", "dump current configuration; ?include_eds", false),
    ("/hot_restart_version", "print the hot restart compatibility version", false),
    ("/listeners", "print listener info; ?format=json", false),
    ("/logging", "query/change logging levels; ?level=, ?paths=name:level,..., ?name=level", true),
    ("/quitquitquit", "exit the server", true),
    ("/ready", "print server state, 200 if it is LIVE, otherwise 503", false),
    ("/reopen_logs", "reopen access logs", true),
    ("/reset_counters", "reset all counters to zero", true),
    ("/runtime", "print runtime values", false),
    ("/server_info", "print server version/status information", false),
    ("/stats", "print server stats; ?usedonly, ?filter=, ?invert_filter, ?format=, ?type=, ?histogram_buckets=", false),
    ("/stats/prometheus", "print server stats in Prometheus format", false),
];

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let mutates = PATHS.iter().any(|(known, _, mutates)| *known == path && *mutates);
        if mutates && request.method() != Method::POST {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {} not allowed, POST required.", request.method()),
            );
        }
        let json = has(query, "format", "json");
        match path {
            "/" | "/help" => text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/stats" | "/stats/prometheus" => self.stats(path, query),
            "/reset_counters" => {
                self.reset_counters();
                text(StatusCode::OK, "OK\n")
            }
            "/clusters" if json => self.json(&clusters::to_json(&self.shared.snapshot.load())),
            "/clusters" => text(StatusCode::OK, clusters::to_text(&self.shared.snapshot.load())),
            "/listeners" if json => self.json(&listeners::to_json(&self.shared.snapshot.load())),
            "/listeners" => text(StatusCode::OK, listeners::to_text(&self.shared.snapshot.load())),
            "/server_info" => self.json(&self.server_info()),
            "/config_dump" => self.config_dump(names(query, "include_eds")).await,
            "/runtime" => self.json(&self.runtime_values.to_json()),
            "/hot_restart_version" => text(StatusCode::OK, args::HOT_RESTART_VERSION),
            "/logging" => self.logging(query),
            "/reopen_logs" => {
                self.files.reopen();
                text(StatusCode::OK, "OK\n")
            }
            "/quitquitquit" => {
                let _ = self.quit.try_send(()); // Err: asked before
                text(StatusCode::OK, "OK\n")
            }
            unknown => {
                text(StatusCode::NOT_FOUND, format!("invalid path '{unknown}'. admin commands are:\n{}", help()))
            }
        }
    }

    fn ready(&self) -> Answer {
        let state = self.state();
        let status = if state == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{state}\n"))
    }

    /// As `envoy.admin.v3.ServerInfo.State` names them.
    fn state(&self) -> &'static str {
        if self.shared.drain.is_started() {
            "DRAINING"
        } else if self.runtime.is_initialized() {
            "LIVE"
        } else {
            "INITIALIZING"
        }
    }

    async fn config_dump(&self, include_endpoints: bool) -> Answer {
        let endpoints = if include_endpoints { EndpointsInDump::Included } else { EndpointsInDump::Omitted };
        match self.runtime.config_dump(endpoints).await {
            Err(stopped) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")),
            Ok(dump) => match dump.to_json() {
                Ok(value) => self.json(&value),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
        }
    }

    fn json(&self, value: &serde_json::Value) -> Answer {
        let mut answer = text(StatusCode::OK, format!("{value:#}\n"));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

fn help() -> String {
    let line = |(path, what, mutates): &(&str, &str, bool)| {
        format!("  {path}{}: {what}\n", if *mutates { " (POST)" } else { "" })
    };
    PATHS.iter().map(line).collect()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Whether a query says `name=value`.
fn has(query: &str, name: &str, value: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=') == Some((name, value)))
}

/// Whether a query has the name, with or without a value.
fn names(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=').map_or(pair, |(name, _)| name) == name)
}
