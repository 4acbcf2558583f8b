//! The monitoring port: `/metrics`, `/ready`, `/live`, and the state of everything under `/debug/`.
//!
//! Read-only. What is under `/debug/` tells names, addresses and configuration (no keys), and is for those who may see it.

pub mod access;
mod debug;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::ads::registry::Connections;
use crate::snapshot::shared::Shared;
use crate::source::manifests::Health;

use access::Access;

pub use debug::{ConfigDump, DumpedResource, KindStatus, ProxyStatus, SyncStatus};

/// What there is to tell.
pub struct Monitoring {
    pub metrics: PrometheusHandle,
    pub connections: Arc<Connections>,
    pub shared: watch::Receiver<Arc<Shared>>,
    pub manifests: Arc<Health>,
    pub trust_domain: String,
    /// To what is under `/debug/`.
    pub access: Access,
}

/// More connections wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Metrics that are only added to are tidied this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

impl Monitoring {
    /// Serves for as long as it is polled; connections end with it.
    pub async fn serve(self, listener: TcpListener) {
        let state = Arc::new(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (stream, peer) = loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => break accepted,
                        Err(error) => {
                            tracing::warn!(%error, "the monitoring port cannot accept a connection");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    _ = upkeep.tick() => state.metrics.run_upkeep(),
                    Some(_) = connections.join_next() => {}
                }
            };
            let state = state.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let response = state.answer(&request, peer);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the monitoring port ended badly");
                }
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        if request.uri().path().starts_with("/debug/")
            && let Err(refusal) = self.access.check(peer, request.headers())
        {
            metrics::counter!("weft_debug_requests_refused").increment(1);
            tracing::warn!(%peer, path = request.uri().path(), reason = %refusal, "refused a debugging page");
            let mut response = text(StatusCode::UNAUTHORIZED, format!("{refusal}\n"));
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return response;
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "LIVE\n"),
            // It listens only once the manifests were read, so whoever gets here gets a ready server.
            "/ready" => text(StatusCode::OK, "READY\n"),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.render());
                let content_type = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            "/version" => json(&env!("CARGO_PKG_VERSION")),
            "/debug/syncz" => json(&debug::syncz(&self.connections, &self.shared.borrow(), &self.trust_domain)),
            "/debug/registry" => json(&debug::registry(&self.shared.borrow(), &self.manifests)),
            "/debug/config_dump" => match self.config_dump(request.uri().query()) {
                Ok(dump) => json(&dump),
                Err((status, reason)) => text(status, format!("{reason}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "/metrics /ready /live /version /debug/syncz /debug/registry /debug/config_dump?node=NAME.NAMESPACE\n",
            ),
        }
    }

    fn config_dump(&self, query: Option<&str>) -> Result<ConfigDump, (StatusCode, String)> {
        let wanted = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("node="));
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
            return Err((StatusCode::BAD_REQUEST, "?node=NAME.NAMESPACE or a whole node id is expected".to_owned()));
        };
        let wanted = percent_decoded(wanted);
        let connected = self.connections.list();
        let Some(connection) = connected.iter().find(|connection| debug::is_named(&connection.node, &wanted)) else {
            return Err((StatusCode::NOT_FOUND, format!("no proxy {wanted:?} is connected")));
        };
        debug::config_dump(&connection.node, &self.shared.borrow())
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

/// Out of file descriptors or the like: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Undoes `%41`; what is not of this form stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            let content_type = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn escapes_are_undone_and_anything_else_stays() {
        assert_eq!(percent_decoded("a%7Eb%20c"), "a~b c");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}
