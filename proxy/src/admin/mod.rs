//! The admin server: Envoy's paths and answers. On the main thread; never on a worker.

mod clusters;
mod config_dump;
mod listeners;
mod logging;
mod memory;
mod paths;
mod server_info;
mod stats;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use regex::Regex;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

use self::config_dump::{Refusal, Wanted};
use crate::{
    access_log::AccessLogFiles,
    args::{self, Args},
    config::{admin::AdminServer, bootstrap::Node, runtime_values::RuntimeValues, socket_option::SocketState},
    logging::Log,
    net::socket_option,
    runtime::{DrainStep, Listeners, RuntimeQueries, publish::Shared},
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
    /// What `server.version` says.
    pub stats_version: u64,
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
const BACKLOG: i32 = 128;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

pub fn bind(server: &AdminServer) -> Result<TcpListener, AdminError> {
    let address = server.address;
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        let set = |state| socket_option::apply(&socket, &server.socket_options, state, address.is_ipv4());
        set(SocketState::Prebind)?;
        socket.bind(&address.into())?;
        set(SocketState::Bound)?;
        socket.listen(BACKLOG)?;
        set(SocketState::Listening)?;
        TcpListener::from_std(socket.into())
    };
    bound().map_err(|source| AdminError { address, source })
}

pub async fn run(admin: Arc<Admin>, server: Arc<AdminServer>, listening: TcpListener) {
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
        let (admin, server) = (admin.clone(), server.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (admin, server) = (admin.clone(), server.clone());
                async move {
                    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
                    Ok::<_, Infallible>(match server.allows(path) {
                        true => admin.answer(&request).await,
                        false => text(StatusCode::FORBIDDEN, format!("request to path {path} not allowed")),
                    })
                }
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

/// Mutexes are not on any path that matters here, and not traced.
const CONTENTION: &str =
    "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.";

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let mutates = paths::PATHS.iter().any(|known| known.path == path && known.mutates);
        if mutates && request.method() != Method::POST {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {} not allowed, POST required.", request.method()),
            );
        }
        let json = has(query, "format", "json");
        match path {
            "/" | "/help" => text(StatusCode::OK, paths::help()),
            "/ready" => self.ready(),
            "/stats" | "/stats/prometheus" => self.stats(path, query),
            "/reset_counters" => {
                self.reset_counters();
                done()
            }
            "/clusters" => self.clusters(query),
            "/listeners" if json => self.json(&listeners::to_json(&self.shared.snapshot.load())),
            "/listeners" => text(StatusCode::OK, listeners::to_text(&self.shared.snapshot.load())),
            "/server_info" => self.json(&self.server_info()),
            "/memory" => self.json(&memory::to_json()),
            "/contention" => text(StatusCode::OK, CONTENTION),
            "/config_dump" => self.config_dump(query).await,
            "/init_dump" => self.json(&self.init_dump()),
            "/runtime" => self.json(&self.runtime_values.to_json()),
            "/hot_restart_version" => text(StatusCode::OK, format!("{}\n", args::HOT_RESTART_VERSION)),
            "/logging" => self.logging(query),
            "/healthcheck/fail" => self.set_health(false),
            "/healthcheck/ok" => self.set_health(true),
            "/drain_listeners" => self.drain_listeners(query).await,
            "/reopen_logs" => {
                self.files.reopen();
                done()
            }
            "/quitquitquit" => {
                let _ = self.quit.try_send(()); // Err: asked before
                done()
            }
            _ => text(StatusCode::NOT_FOUND, format!("invalid path. {}", paths::help())),
        }
    }

    /// Whether health checks of this proxy are to pass; while they are not, connections end as they can.
    fn set_health(&self, is_good: bool) -> Answer {
        self.shared.health_checks_fail.store(!is_good, Relaxed);
        self.runtime.wake_connections();
        done()
    }

    async fn drain_listeners(&self, query: &str) -> Answer {
        let which = if names(query, "inboundonly") { Listeners::Inbound } else { Listeners::All };
        let (skip_exit, graceful) = (names(query, "skip_exit"), names(query, "graceful"));
        // Err, here and below: the runtime ended, and its listeners with it.
        if graceful || skip_exit {
            let _ = self.runtime.drain(DrainStep::Connections(which)).await;
            if !skip_exit {
                let (runtime, drain_time) = (self.runtime.clone(), self.args.drain_time);
                tokio::spawn(async move {
                    tokio::time::sleep(drain_time).await;
                    let _ = runtime.drain(DrainStep::Listeners(which)).await;
                });
            }
        } else {
            let _ = self.runtime.drain(DrainStep::Listeners(which)).await;
        }
        done()
    }

    /// What the start still waits for.
    fn init_dump(&self) -> serde_json::Value {
        if self.runtime.is_initialized() {
            return json!({});
        }
        json!({ "unready_targets_dumps": [{ "name": "init manager Server", "target_names": ["the first configuration"] }] })
    }

    fn ready(&self) -> Answer {
        let state = self.state();
        let status = if state == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{state}\n"))
    }

    /// As `envoy.admin.v3.ServerInfo.State` names them.
    fn state(&self) -> &'static str {
        if self.shared.ending.load(Relaxed) || self.shared.health_checks_fail.load(Relaxed) {
            "DRAINING"
        } else if self.runtime.is_initialized() {
            "LIVE"
        } else {
            "INITIALIZING"
        }
    }

    async fn config_dump(&self, query: &str) -> Answer {
        let endpoints = if names(query, "include_eds") { EndpointsInDump::Included } else { EndpointsInDump::Omitted };
        let dump = match self.runtime.config_dump(endpoints).await {
            Err(stopped) => return text(StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")),
            Ok(dump) => dump,
        };
        let value = match dump.to_json() {
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            Ok(value) => value,
        };
        match Wanted::parse(parameters(query)).and_then(|wanted| wanted.select(value)) {
            Ok(selected) => self.json(&selected),
            Err(Refusal::Bad(reason)) => text(StatusCode::BAD_REQUEST, reason),
            Err(Refusal::NotFound(reason)) => text(StatusCode::NOT_FOUND, reason),
        }
    }

    fn clusters(&self, query: &str) -> Answer {
        let filter = parameters(query).find(|(name, value)| name == "filter" && !value.is_empty());
        let Ok(filter) = filter.map(|(_, value)| Regex::new(&value)).transpose() else {
            return text(StatusCode::BAD_REQUEST, "Invalid re2 regex");
        };
        let snapshot = self.shared.snapshot.load();
        match has(query, "format", "json") {
            true => self.json(&clusters::to_json(&snapshot, filter.as_ref())),
            false => text(StatusCode::OK, clusters::to_text(&snapshot, filter.as_ref())),
        }
    }

    fn json(&self, value: &serde_json::Value) -> Answer {
        let mut answer = text(StatusCode::OK, format!("{value:#}\n"));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

fn done() -> Answer {
    text(StatusCode::OK, "OK\n")
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

/// Whether a query has the name, with or without a value.
fn names(query: &str, name: &str) -> bool {
    parameters(query).any(|(known, _)| known == name)
}

/// Whether a query says `name=value`.
fn has(query: &str, name: &str, value: &str) -> bool {
    parameters(query).any(|(known, said)| known == name && said == value)
}

/// `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), but that a plus stays one, as in Envoy.
fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}
