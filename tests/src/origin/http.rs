//! The HTTP half of the origin: HTTP/1.1 and HTTP/2 on one port, each request answered as its directive asks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::Identity;
use super::directive::{Body, Directive, Ending};
use super::rewind::Rewind;

/// A bound port, not yet accepting.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    origin: Arc<Origin>,
}

impl Server {
    /// Port 0 takes any free one.
    pub async fn bind(port: u16, identity: Identity) -> Result<Self> {
        Ok(Self { listener: super::listen(port).await?, origin: Arc::new(Origin { identity, seen: Mutex::default() }) })
    }

    pub fn port(&self) -> Result<u16> {
        super::port_of(&self.listener)
    }

    /// Accepts for ever.
    pub async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let origin = Arc::clone(&self.origin);
                    // A connection that ends badly is what some tests are about.
                    tokio::spawn(async move { serve_connection(stream, peer, origin).await.ok() });
                }
                // Out of file descriptors, most likely: others will end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

#[derive(Debug)]
struct Origin {
    identity: Identity,
    /// Requests by their `x-test-key`.
    seen: Mutex<HashMap<String, u64>>,
}

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed as asked")]
struct ClosedAsAsked;

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn serve_connection(stream: TcpStream, peer: SocketAddr, origin: Arc<Origin>) -> Result<()> {
    stream.set_nodelay(true)?;
    let (is_http2, stream) = Rewind::detect_http2(stream).await?;
    let service = service_fn(move |request| {
        let origin = Arc::clone(&origin);
        async move { origin.answer(request, peer).await }
    });
    if is_http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .await?;
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .await?;
    }
    Ok(())
}

impl Origin {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Answer, ClosedAsAsked> {
        let attempt = self.count(request.headers());
        let wish = request.headers().get("x-origin-do").and_then(|value| value.to_str().ok());
        let directive = match Directive::parse(request.uri().path(), wish) {
            Ok(directive) => directive,
            Err(complaint) => return Ok(plain(StatusCode::BAD_REQUEST, format!("origin: {complaint}\n"))),
        };
        if let Some(delay) = directive.delay {
            tokio::time::sleep(delay).await;
        }
        if directive.ending == Ending::CloseWithoutAnswer {
            return Err(ClosedAsAsked);
        }
        let version = request.version();
        let (status, mut answer) = match attempt {
            Some(attempt) if attempt <= directive.failures_first => {
                let status = directive.status.unwrap_or(503);
                (status, plain(StatusCode::OK, format!("failure {attempt} of {}\n", directive.failures_first)))
            }
            _ if directive.failures_first > 0 => (200, self.body(request, &directive, peer).await),
            _ => (directive.status.unwrap_or(200), self.body(request, &directive, peer).await),
        };
        *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.add_headers(answer.headers_mut(), &directive, attempt, version);
        Ok(answer)
    }

    /// Counts this request under its key and tells how often the key was seen, this time included.
    fn count(&self, headers: &HeaderMap) -> Option<u64> {
        let key = headers.get("x-test-key")?.to_str().ok()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KEYS_MAX {
            seen.clear();
        }
        let count = seen.entry(key.to_owned()).or_default();
        *count += 1;
        Some(*count)
    }

    async fn body(&self, request: Request<Incoming>, directive: &Directive, peer: SocketAddr) -> Answer {
        let Identity { service, pod, version } = &self.identity;
        match &directive.body {
            Body::Identity => {
                if !directive.answers_early {
                    discard(request.into_body()).await;
                }
                with_trailers(format!("{service} {version} from {pod}\n").into(), directive.trailers.then(own_trailers))
            }
            Body::Bytes(count) => with_trailers(vec![b'x'; *count].into(), directive.trailers.then(own_trailers)),
            Body::Chunks(count) => chunks(*count, directive.trailers),
            Body::Request => describe(request, peer).await,
            Body::Echo => with_trailers(read(request.into_body()).await.0, directive.trailers.then(own_trailers)),
            Body::Grpc(code) => grpc(read(request.into_body()).await.0, *code),
            Body::GrpcHeadersOnly(code) => grpc_headers_only(*code),
            Body::Seen(key) => {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                plain(StatusCode::OK, seen.get(key).copied().unwrap_or_default().to_string())
            }
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap, directive: &Directive, attempt: Option<u64>, version: Version) {
        let mut add = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.append(name, value);
            }
        };
        add("x-origin-pod", &self.identity.pod);
        add("x-origin-version", &self.identity.version);
        if let Some(attempt) = attempt {
            add("x-origin-attempt", &attempt.to_string());
        }
        for (name, value) in &directive.headers {
            add(name, value);
        }
        if directive.ending == Ending::CloseAfterAnswer && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// The request as the origin got it, in JSON.
async fn describe(request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let (head, body) = request.into_parts();
    let (body, trailers) = read(body).await;
    let pairs = |headers: &HeaderMap| -> Vec<(String, String)> {
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect()
    };
    let description = json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("", |path| path.as_str()),
        "scheme": head.uri.scheme_str(),
        "authority": head.uri.authority().map(|authority| authority.as_str()),
        "version": format!("{:?}", head.version),
        "peer": peer.ip().to_canonical().to_string(),
        "headers": pairs(&head.headers),
        "body_bytes": body.len(),
        "trailers": pairs(&trailers),
    });
    let mut answer = plain(StatusCode::OK, format!("{description:#}\n"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn plain(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

fn with_trailers(body: Bytes, trailers: Option<HeaderMap>) -> Answer {
    let Some(trailers) = trailers else {
        return Response::new(Full::new(body).boxed());
    };
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    // HTTP/1.1 sends only the trailers that were announced (RFC 9110 section 6.6.2).
    answer.headers_mut().insert("trailer", HeaderValue::from_static("x-origin-trailer"));
    answer
}

fn chunks(count: usize, trailers: bool) -> Answer {
    let pieces = (0..count).map(|number| Frame::data(Bytes::from(format!("chunk {number}\n"))));
    let frames: Vec<_> = pieces.chain(trailers.then(|| Frame::trailers(own_trailers()))).map(Ok).collect();
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    if trailers {
        answer.headers_mut().insert("trailer", HeaderValue::from_static("x-origin-trailer"));
    }
    answer
}

fn grpc(body: Bytes, code: u16) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    let mut frames = vec![Ok(Frame::data(body))];
    frames.push(Ok(Frame::trailers(trailers)));
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn grpc_headers_only(code: u16) -> Answer {
    let mut answer = Response::new(Full::default().boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer.headers_mut().insert("grpc-status", HeaderValue::from(code));
    answer
}

fn own_trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-origin-trailer"), HeaderValue::from_static("sent"))])
}

async fn discard(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// The whole body, up to a limit, and its trailers. A body that breaks off counts as what came of it.
async fn read(mut body: Incoming) -> (Bytes, HeaderMap) {
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() <= REQUEST_BYTES_MAX => bytes.extend_from_slice(&data),
            Ok(_) => break,
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    (bytes.freeze(), trailers)
}

const KEYS_MAX: usize = 100_000;
const REQUEST_BYTES_MAX: usize = 256 << 20;
