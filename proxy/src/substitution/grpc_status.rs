//! The gRPC status of an exchange: from the trailers, or the headers of a trailers-only response, or by the HTTP status.

use http::{HeaderMap, HeaderValue};

use super::{Context, Subject};
use crate::{config::substitution::GrpcStatusForm, http::local_reply::grpc_status};

/// False: it is no gRPC.
pub(super) fn write(form: GrpcStatusForm, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
    let Subject::Http(exchange) = context.subject else { return false };
    if !exchange.is_grpc {
        return false;
    }
    let Some(status) = of(context.trailers, context.response) else { return false };
    let names = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    match (form, names) {
        (GrpcStatusForm::Camel, Some((camel, _))) => super::text(out, Some(camel)),
        (GrpcStatusForm::Snake, Some((_, snake))) => super::text(out, Some(snake)),
        _ => super::text(out, Some(status)),
    }
}

/// -1 for what is no number; None before there is a response.
pub fn of(trailers: Option<&HeaderMap>, response: Option<(http::StatusCode, &HeaderMap)>) -> Option<i64> {
    let said = |headers: &HeaderMap| headers.get("grpc-status").map(number);
    trailers
        .and_then(said)
        .or_else(|| response.and_then(|(_, headers)| said(headers)))
        .or_else(|| response.map(|(status, _)| i64::from(grpc_status(status))))
}

fn number(value: &HeaderValue) -> i64 {
    value.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok()).map_or(-1, i64::from)
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn trailers_come_before_headers_and_those_before_the_http_status() {
        let headers = |status: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.parse().expect("a value"))])
        };
        let (one, two, none) = (headers("1"), headers("2"), HeaderMap::new());
        assert_eq!(of(Some(&one), Some((StatusCode::OK, &two))), Some(1));
        assert_eq!(of(Some(&none), Some((StatusCode::OK, &two))), Some(2));
        assert_eq!(of(None, Some((StatusCode::NOT_FOUND, &none))), Some(12));
        assert_eq!(of(Some(&headers("x")), None), Some(-1));
        assert_eq!(of(None, None), None);
    }
}
