//! A check by an HTTP request, over HTTP/1.1 or HTTP/2. hyper speaks here: the workers' codecs belong to their threads.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::AbortHandle;

use super::{
    tcp,
    verdict::{CheckResult, Failure, FailureKind},
};
use crate::{config::cluster::HttpCheck, net::stream::Stream};

/// Its task ends with it.
pub(super) struct HttpConnection {
    requests: Requests,
    driver: AbortHandle,
}

enum Requests {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub(super) struct Answer {
    pub(super) result: CheckResult,
    /// The connection can carry another.
    pub(super) is_whole: bool,
    pub(super) verifies_service: bool,
}

pub(super) const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");
const HEALTH_CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
/// Of an answer that is only read to its end.
const UNREAD_BYTES_MAX: usize = 1 << 20;

impl HttpConnection {
    pub(super) async fn new(stream: Stream, is_http2: bool) -> Option<HttpConnection> {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
            let driver = tokio::spawn(async { drop(connection.await) }).abort_handle();
            return Some(HttpConnection { requests: Requests::Http2(requests), driver });
        }
        let (requests, connection) = http1::handshake(io).await.ok()?;
        let driver = tokio::spawn(async { drop(connection.await) }).abort_handle();
        Some(HttpConnection { requests: Requests::Http1(requests), driver })
    }

    /// False: the other side has closed it.
    pub(super) async fn is_ready(&mut self) -> bool {
        match &mut self.requests {
            Requests::Http1(requests) => requests.ready().await.is_ok(),
            Requests::Http2(requests) => requests.ready().await.is_ok(),
        }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.requests {
            Requests::Http1(requests) => requests.send_request(request).await,
            Requests::Http2(requests) => requests.send_request(request).await,
        }
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Err: there was no answer.
pub(super) async fn check(
    connection: &mut HttpConnection,
    check: &HttpCheck,
    host: &str,
    is_tls: bool,
) -> Result<Answer, NoAnswer> {
    let response = connection.send(request(check, host, is_tls)?).await.map_err(|_| NoAnswer)?;
    let (head, body) = response.into_parts();
    let (body, is_whole) = read(body, check.response_bytes_max, !check.receive.is_empty()).await?;
    let (result, verifies_service) = judge(check, head.status.as_u16(), &head.headers, &body);
    Ok(Answer { result, is_whole, verifies_service })
}

/// The connection failed.
pub(super) struct NoAnswer;

fn request(check: &HttpCheck, host: &str, is_tls: bool) -> Result<Request<Full<Bytes>>, NoAnswer> {
    let mut request = Request::new(Full::new(check.body.clone()));
    *request.method_mut() = check.method.clone();
    let path: PathAndQuery = check.path.parse().map_err(|_| NoAnswer)?;
    if check.http2 {
        *request.uri_mut() = absolute(host, path, is_tls)?;
    } else {
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(|_| NoAnswer)?);
    }
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    check.headers.apply(request.headers_mut());
    Ok(request)
}

pub(super) fn absolute(host: &str, path: PathAndQuery, is_tls: bool) -> Result<Uri, NoAnswer> {
    let scheme = if is_tls { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().map_err(|_| NoAnswer)
}

/// As much as is looked at; and whether it has come to its end.
async fn read(mut body: Incoming, bytes_max: usize, is_looked_at: bool) -> Result<(Bytes, bool), NoAnswer> {
    let mut kept = BytesMut::new();
    let mut passed = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| NoAnswer)?.into_data() else { continue };
        passed += data.len();
        if is_looked_at && kept.len() < bytes_max {
            kept.extend_from_slice(&data[..data.len().min(bytes_max - kept.len())]);
        }
        if passed > UNREAD_BYTES_MAX {
            return Ok((kept.freeze(), false));
        }
    }
    Ok((kept.freeze(), true))
}

/// And whether the service's name was looked at.
fn judge(check: &HttpCheck, status: u16, headers: &HeaderMap, body: &[u8]) -> (CheckResult, bool) {
    let failed =
        |retriable, excludes| CheckResult::Failed(Failure { kind: FailureKind::Active, retriable, status, excludes });
    if !check.expected_statuses.iter().any(|range| range.contains(status)) {
        let retriable = check.retriable_statuses.iter().any(|range| range.contains(status));
        return (failed(retriable, headers.contains_key(IMMEDIATE_FAIL)), false);
    }
    if !tcp::holds_in_order(body, &check.receive) {
        return (failed(false, false), false);
    }
    let passed = CheckResult::Passed { degraded: headers.contains_key(DEGRADED) };
    let Some(service_name) = &check.service_name else { return (passed, false) };
    let said = headers.get(HEALTH_CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
    let is_the_service = service_name.matches(&String::from_utf8_lossy(said));
    (if is_the_service { passed } else { failed(false, false) }, true)
}
