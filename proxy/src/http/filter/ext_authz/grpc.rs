//! Asks an authorization service by gRPC.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::{PARTIAL_BODY, ToldBody, Unanswered, is_told};
use crate::{
    config::{
        check::{CHECK, Check, CheckAnswer},
        http_filter::{ExtAuthz, ExtAuthzOverride, GrpcTarget},
    },
    http::{
        filter::Passing,
        request_headers::{X_REQUEST_ID, authority, scheme},
        side_call::SideCall,
    },
    tls::{CertificateFacts, TlsSession},
};

const ANSWER_BYTES_MAX: usize = 4 << 20;

pub(super) async fn ask(
    config: &ExtAuthz,
    target: &GrpcTarget,
    said: Option<&ExtAuthzOverride>,
    told: &ToldBody,
    passing: &Passing<'_>,
) -> Result<CheckAnswer, Unanswered> {
    let worker = &passing.exchange.connection.downstream.worker;
    let call =
        SideCall { worker, cluster: &target.cluster, timeout: target.timeout, response_bytes_max: ANSWER_BYTES_MAX };
    let message = check(config, said, told, passing).encode();
    let mut metadata = HeaderMap::new();
    for (name, value) in &target.metadata {
        metadata.append(name.clone(), value.clone());
    }
    let answer = call.grpc(CHECK, metadata, &message).await.map_err(|_| Unanswered)?;
    CheckAnswer::decode(&answer).ok_or(Unanswered)
}

fn check<'a>(
    config: &'a ExtAuthz,
    said: Option<&ExtAuthzOverride>,
    told: &ToldBody,
    passing: &'a Passing<'_>,
) -> Check<'a> {
    let exchange = passing.exchange;
    let downstream = &exchange.connection.downstream;
    let head = &passing.head;
    let tls = downstream.tls.as_deref();
    let certificate = || tls.and_then(TlsSession::peer_pem_encoded).unwrap_or_default();
    let header = |name| head.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let length = header(http::header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    Check {
        source: downstream.remote_address,
        source_principal: tls.and_then(TlsSession::peer).map(principal).unwrap_or_default(),
        source_certificate: if config.include_peer_certificate { certificate() } else { String::new() },
        destination: downstream.local_address,
        destination_principal: tls.and_then(TlsSession::local).map(principal).unwrap_or_default(),
        at: exchange.started_at(),
        id: header(X_REQUEST_ID).unwrap_or_default().to_owned(),
        method: head.method.as_str(),
        headers: headers(config, told, passing),
        path: head.uri.path_and_query().map_or("", |path| path.as_str()),
        host: String::from_utf8_lossy(authority(head)).into_owned(),
        scheme: scheme(head),
        size: length,
        protocol: match exchange.protocol {
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        body: told.bytes.clone(),
        body_as_bytes: told.limit.is_some_and(|limit| limit.as_bytes),
        context: match said {
            Some(ExtAuthzOverride::Settings { context, .. }) => context.clone(),
            _ => BTreeMap::new(),
        },
        metadata: exchange.metadata.borrow().clone(),
        metadata_namespaces: &config.metadata_namespaces,
        server_name: downstream.requested_server_name.as_deref().filter(|_| config.include_tls_session),
    }
}

/// By what name somebody is known: as Envoy, a URI, else a DNS name, else the subject.
fn principal(facts: &CertificateFacts) -> String {
    facts.uri_names.first().or(facts.dns_names.first()).unwrap_or(&facts.subject).clone()
}

/// Several fields of a name as one.
fn headers(config: &ExtAuthz, told: &ToldBody, passing: &Passing<'_>) -> BTreeMap<String, String> {
    let head = &passing.head;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: &str, value: &[u8]| {
        if is_told(config, name, true) {
            let value = String::from_utf8_lossy(value);
            let known = headers.entry(name.to_owned()).or_default();
            if !known.is_empty() {
                known.push(',');
            }
            known.push_str(&value);
        }
    };
    add(":method", head.method.as_str().as_bytes());
    add(":path", head.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes());
    add(":authority", authority(head));
    add(":scheme", scheme(head).as_bytes());
    for (name, value) in &head.headers {
        if name != http::header::HOST {
            add(name.as_str(), value.as_bytes());
        }
    }
    if let Some(is_partial) = told.is_partial {
        headers.insert(PARTIAL_BODY.as_str().to_owned(), is_partial.to_string());
    }
    headers
}
