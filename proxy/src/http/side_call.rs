//! Calls of the proxy's own: HTTP requests and gRPC calls to a cluster by its name, over the worker's pools as any request goes.
//! Mirrors, rate limit and authorization services and the like are asked this way. Dropping the future of a call cancels it.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request, response};

use crate::{
    config::route::RoutingPriority,
    http::{
        body::{Body, next_frame},
        informational::Informational,
        request_headers::X_FORWARDED_FOR,
        upstream_request::{self, Carrier, Terms, TryError, UpstreamStream},
    },
    net::local_address::local_address,
    stats::{CallerKind, ClusterStat},
    upstream::{
        aggregate,
        load_balancer::Wish,
        pool::{ClusterPools, HostPool},
    },
    worker::Worker,
};

/// To whom, and within what bounds.
#[derive(Clone, Copy)]
pub struct SideCall<'a> {
    pub worker: &'a Rc<Worker>,
    pub cluster: &'a Arc<str>,
    /// Of the whole call. None: no bound.
    pub timeout: Option<Duration>,
    pub response_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SideCallError {
    #[error("cluster is not there")]
    NoCluster,
    #[error("timeout")]
    Timeout,
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the response broke off")]
    Broken,
    #[error(transparent)]
    Try(#[from] TryError),
}

/// How a gRPC call ended that brought no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrpcError {
    #[error(transparent)]
    Call(#[from] SideCallError),
    #[error("HTTP status {0}")]
    Http(StatusCode),
    #[error("status {code}: {message}")]
    Status { code: u32, message: String },
    #[error("the answer is not one message")]
    Malformed,
}

const X_ENVOY_INTERNAL: header::HeaderName = header::HeaderName::from_static("x-envoy-internal");
const GRPC_STATUS: header::HeaderName = header::HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: header::HeaderName = header::HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: header::HeaderName = header::HeaderName::from_static("grpc-timeout");
/// A flag and the length stand before a message.
const GRPC_PREFIX_BYTES: usize = 5;

impl SideCall<'_> {
    /// The whole response. `:authority` and the path are the request's own.
    pub async fn http(&self, request: Request<Bytes>) -> Result<Response<Bytes>, SideCallError> {
        let (head, trailers_apart) = self.within_timeout(self.whole(request)).await?;
        let Whole { body, .. } = trailers_apart;
        Ok(Response::from_parts(head, body))
    }

    /// One message there and one back. `path`: `/package.Service/Method`.
    pub async fn grpc(&self, path: &str, metadata: HeaderMap, message: &[u8]) -> Result<Bytes, GrpcError> {
        let mut framed = BytesMut::with_capacity(GRPC_PREFIX_BYTES + message.len());
        framed.put_u8(0); // not compressed
        framed.put_u32(message.len() as u32);
        framed.put_slice(message);
        let mut request = Request::new(framed.freeze());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        // A cluster's name need not be a host's.
        let uri = http::Uri::builder().scheme("http").authority(&**self.cluster).path_and_query(path);
        *request.uri_mut() = match uri.build() {
            Ok(uri) => uri,
            Err(_) => http::Uri::builder()
                .scheme("http")
                .authority("cluster")
                .path_and_query(path)
                .build()
                .map_err(|_| GrpcError::Malformed)?,
        };
        let headers = request.headers_mut();
        *headers = metadata;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(timeout) = self.timeout
            && let Ok(value) = HeaderValue::try_from(format!("{}m", timeout.as_millis().min(99_999_999)))
        {
            headers.insert(GRPC_TIMEOUT, value);
        }
        let (head, whole) = self.within_timeout(self.whole(request)).await?;
        message_of(&head, whole)
    }

    /// The response as it comes, for those who pass it on or throw it away.
    pub async fn begin(
        &self,
        mut head: request::Parts,
        body: Body,
    ) -> Result<(response::Parts, Body, UpstreamStream), SideCallError> {
        let pools = self.worker.cluster(self.cluster).ok_or(SideCallError::NoCluster)?;
        sign(&mut head.headers);
        let chosen = self.choose_host(&pools);
        let answered = match chosen {
            None => {
                pools.count(ClusterStat::CxNoneHealthy);
                Err(TryError::NoHealthyUpstream)
            }
            Some(host) => {
                let terms = Terms {
                    priority: RoutingPriority::Default,
                    carrier: Carrier::Http,
                    informational: &Informational::new(false),
                    protocol: &Cell::new(None),
                };
                upstream_request::send(&host, terms, &mut head, body).await
            }
        };
        let status = answered.as_ref().map_or(StatusCode::SERVICE_UNAVAILABLE, |(head, ..)| head.status);
        pools.cluster().stats.count_response(self.worker.index, status, CallerKind::Internal);
        Ok(answered?)
    }

    fn choose_host(&self, pools: &Rc<ClusterPools>) -> Option<Rc<HostPool>> {
        aggregate::choose_host(self.worker, pools, Wish::default(), |_| false)
    }

    async fn whole(&self, request: Request<Bytes>) -> Result<(response::Parts, Whole), SideCallError> {
        let (mut head, body) = request.into_parts();
        if !body.is_empty() {
            head.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        let (head, mut body, stream) = self.begin(head, Body::Full(body)).await?;
        let mut whole = Whole::default();
        let mut bytes = BytesMut::new();
        while let Some(frame) = next_frame(&mut body).await {
            match frame.map_err(|_| SideCallError::Broken)?.into_data() {
                Ok(data) if bytes.len() + data.len() > self.response_bytes_max => {
                    return Err(SideCallError::TooLarge(self.response_bytes_max));
                }
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => whole.trailers = frame.into_trailers().ok(),
            }
        }
        stream.complete(CallerKind::Internal);
        whole.body = bytes.freeze();
        Ok((head, whole))
    }

    pub async fn within_timeout<T>(
        &self,
        call: impl Future<Output = Result<T, SideCallError>>,
    ) -> Result<T, SideCallError> {
        let Some(timeout) = self.timeout else { return call.await };
        match tokio::time::timeout(timeout, call).await {
            Ok(answered) => answered,
            Err(_elapsed) => {
                if let Some(pools) = self.worker.cluster(self.cluster) {
                    pools.count(ClusterStat::RqTimeout);
                    pools.cluster().stats.count_response(
                        self.worker.index,
                        StatusCode::GATEWAY_TIMEOUT,
                        CallerKind::Internal,
                    );
                }
                Err(SideCallError::Timeout)
            }
        }
    }
}

#[derive(Default)]
struct Whole {
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// Who asks: a proxy of the mesh.
fn sign(headers: &mut HeaderMap) {
    headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    let own = local_address().to_string();
    let joined = match headers.get(X_FORWARDED_FOR) {
        Some(before) => [before.as_bytes(), b",", own.as_bytes()].concat(),
        None => own.into_bytes(),
    };
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(X_FORWARDED_FOR, joined);
    }
}

/// gRPC over HTTP/2, "Responses": the status stands in the trailers, or in the headers of an answer that has no more.
fn message_of(head: &response::Parts, whole: Whole) -> Result<Bytes, GrpcError> {
    if head.status != StatusCode::OK {
        return Err(GrpcError::Http(head.status));
    }
    let of = |name: &header::HeaderName| {
        let trailers = whole.trailers.as_ref().and_then(|trailers| trailers.get(name));
        trailers.or_else(|| head.headers.get(name)).and_then(|value| value.to_str().ok())
    };
    let code = of(&GRPC_STATUS).and_then(|code| code.parse().ok()).ok_or(GrpcError::Malformed)?;
    if code != 0 {
        return Err(GrpcError::Status { code, message: of(&GRPC_MESSAGE).unwrap_or_default().to_owned() });
    }
    let body = whole.body;
    let length = body.get(1..GRPC_PREFIX_BYTES).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    match length {
        Some(length) if body[0] == 0 && body.len() - GRPC_PREFIX_BYTES == length as usize => {
            Ok(body.slice(GRPC_PREFIX_BYTES..))
        }
        Some(_) | None => Err(GrpcError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        headers: &[(&'static str, &'static str)],
        body: &'static [u8],
        status: Option<&'static str>,
    ) -> Result<Bytes, GrpcError> {
        let mut response = Response::builder().status(200);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).expect("a response").into_parts();
        let trailers = status.map(|status| HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static(status))]));
        message_of(&head, Whole { body: Bytes::from_static(body), trailers })
    }

    #[test]
    fn a_call_brings_one_message_or_says_why_not() {
        assert_eq!(answer(&[], b"\0\0\0\0\x02hi", Some("0")), Ok(Bytes::from_static(b"hi")));
        assert_eq!(answer(&[("grpc-status", "0")], b"\0\0\0\0\0", None), Ok(Bytes::new()));
        let unavailable = GrpcError::Status { code: 14, message: "away".into() };
        assert_eq!(answer(&[("grpc-status", "14"), ("grpc-message", "away")], b"", None), Err(unavailable));
        for (body, status) in [
            (&b"\0\0\0\0\x02h"[..], Some("0")),
            (b"\x01\0\0\0\x01h", Some("0")),
            (b"", Some("0")),
            (b"\0\0\0\0\0", None),
        ] {
            assert_eq!(answer(&[], body, status), Err(GrpcError::Malformed));
        }
    }

    #[test]
    fn a_call_is_signed() {
        let mut headers = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"))]);
        sign(&mut headers);
        assert_eq!(headers[X_FORWARDED_FOR], format!("1.2.3.4,{}", local_address()));
        assert_eq!(headers[X_ENVOY_INTERNAL], "true");
    }
}
