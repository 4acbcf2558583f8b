//! Asks an authorization service by HTTP: a request that looks like the one in question, whose status is the answer.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};

use super::{PARTIAL_BODY, ToldBody, Unanswered, is_told};
use crate::{
    config::{
        check::{Changes, CheckAnswer, Refusal},
        http_filter::{ExtAuthz, HttpService},
        matcher::StringMatcher,
        metadata::{Fields, Value},
    },
    http::{filter::Passing, request_headers::authority, side_call::SideCall},
};

const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A list of headers that the application is not to see.
const HEADERS_TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

pub(super) async fn ask(
    config: &ExtAuthz,
    service: &HttpService,
    told: &ToldBody,
    passing: &Passing<'_>,
) -> Result<CheckAnswer, Unanswered> {
    let call = SideCall {
        worker: &passing.exchange.connection.downstream.worker,
        cluster: &service.cluster,
        timeout: Some(service.timeout).filter(|timeout| !timeout.is_zero()),
        response_bytes_max: ANSWER_BYTES_MAX,
    };
    let request = question(config, service, told, passing).ok_or(Unanswered)?;
    let response = call.http(request).await.map_err(|_| Unanswered)?;
    match response.status() {
        status if status.is_server_error() => Err(Unanswered),
        StatusCode::OK => Ok(allowed(service, &response)),
        _ => Ok(refused(service, response)),
    }
}

/// None: it cannot be put.
fn question(
    config: &ExtAuthz,
    service: &HttpService,
    told: &ToldBody,
    passing: &Passing<'_>,
) -> Option<Request<bytes::Bytes>> {
    let head = &passing.head;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = match service.path_override.is_empty() {
        true => format!("{}{path}", service.path_prefix),
        false => service.path_override.clone(),
    };
    let mut request = Request::new(told.bytes.clone());
    *request.method_mut() = head.method.clone();
    let host = std::str::from_utf8(authority(head)).ok()?;
    *request.uri_mut() = http::Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok()?;
    let headers = request.headers_mut();
    for (name, value) in &head.headers {
        let by_default = *name == header::AUTHORIZATION;
        let is_own = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
        if !is_own && (by_default || is_told(config, name.as_str(), false)) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &service.headers_to_add {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(is_partial) = told.is_partial {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if is_partial { "true" } else { "false" }));
    }
    headers.insert(header::CONTENT_LENGTH, told.bytes.len().into());
    Some(request)
}

fn allowed(service: &HttpService, response: &Response<bytes::Bytes>) -> CheckAnswer {
    let mut changes = Changes::default();
    let mut metadata = Fields::new();
    for (name, value) in response.headers() {
        if *name == HEADERS_TO_REMOVE {
            let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
            changes.remove.extend(names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
            continue;
        }
        let pair = || (name.clone(), value.clone());
        if is_among(&service.allowed_upstream, name) {
            changes.set.push(pair());
        }
        if is_among(&service.allowed_upstream_to_append, name) {
            changes.append.push(pair());
        }
        if is_among(&service.allowed_client_on_success, name) {
            changes.response_add.push(pair());
        }
        if is_among(&service.metadata_from, name) {
            let text = String::from_utf8_lossy(value.as_bytes());
            metadata.insert(Arc::from(name.as_str()), Value::Text(text.into()));
        }
    }
    CheckAnswer { changes, metadata: Some(metadata), ..CheckAnswer::default() }
}

fn refused(service: &HttpService, response: Response<bytes::Bytes>) -> CheckAnswer {
    let (head, body) = response.into_parts();
    let headers = told_to_caller(service, &head.headers);
    CheckAnswer { refusal: Some(Refusal { status: head.status, headers, body }), ..CheckAnswer::default() }
}

fn told_to_caller(service: &HttpService, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let always = [header::WWW_AUTHENTICATE, header::LOCATION];
    let is_told = |name: &HeaderName| match &service.allowed_client {
        None => *name != header::HOST,
        Some(allowed) => always.contains(name) || is_among(allowed, name),
    };
    headers.iter().filter(|(name, _)| is_told(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_among(matchers: &[StringMatcher], name: &HeaderName) -> bool {
    matchers.iter().any(|matcher| matcher.matches(name.as_str()))
}
