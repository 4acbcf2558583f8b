//! A check by `grpc.health.v1.Health/Check`.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, Limited};

use super::{
    http::{HttpConnection, NoAnswer, USER_AGENT, absolute},
    verdict::{CheckResult, Failure, FailureKind},
};
use crate::config::cluster::GrpcCheck;

const PATH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// Of an answer of two bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// A compressed flag and a length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Err: the connection failed.
pub(super) async fn check(
    connection: &mut HttpConnection,
    check: &GrpcCheck,
    host: &str,
    is_tls: bool,
) -> Result<CheckResult, NoAnswer> {
    let response = connection.send(request(check, host, is_tls)?).await.map_err(|_| NoAnswer)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| NoAnswer)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let serves = head.status == StatusCode::OK
        && is_ok(&head.headers, &trailers)
        && serving_status(&body.to_bytes()) == Some(SERVING);
    Ok(match serves {
        true => CheckResult::Passed { degraded: false },
        false => CheckResult::Failed(Failure::of(FailureKind::Active)),
    })
}

fn request(check: &GrpcCheck, host: &str, is_tls: bool) -> Result<Request<Full<Bytes>>, NoAnswer> {
    let mut request = Request::new(Full::new(asked(&check.service_name)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = absolute(host, PATH, is_tls)?;
    let headers = request.headers_mut();
    headers.insert(header::TE, TRAILERS);
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::USER_AGENT, USER_AGENT);
    check.headers.apply(headers);
    Ok(request)
}

/// `HealthCheckRequest`, whose first field is the service.
fn asked(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        prost::encoding::string::encode(1, &service.to_owned(), &mut message);
    }
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    framed.freeze()
}

fn is_ok(headers: &HeaderMap, trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").or_else(|| headers.get("grpc-status")).is_some_and(|status| status == "0")
}

/// The first field of `HealthCheckResponse`; 0 where it is not given. None: no such message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    if prefix[0] != 0 || length != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let (tag, wire) = prost::encoding::decode_key(&mut message).ok()?;
        match (tag, wire) {
            (1, prost::encoding::WireType::Varint) => status = prost::encoding::decode_varint(&mut message).ok()?,
            (tag, wire) => {
                prost::encoding::skip_field(wire, tag, &mut message, prost::encoding::DecodeContext::default()).ok()?;
            }
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        assert_eq!(&asked("ab")[..], &[0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(&asked("")[..], &[0, 0, 0, 0, 0]);
    }

    #[test]
    fn statuses_are_read_and_damage_is_none() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 4, 16, 9, 8, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        for damaged in [&[][..], &[0, 0, 0, 0, 2, 8], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]] {
            assert_eq!(serving_status(damaged), None);
        }
    }
}
