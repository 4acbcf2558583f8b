//! `envoy.filters.http.ext_authz`: asks a service, by HTTP or gRPC, whether a request may go on, and does to it what the service
//! says.

mod body;
mod grpc;
mod http_service;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{Passing, override_of, stats::count};
use crate::{
    config::{
        check::{Changes, CheckAnswer, Refusal},
        http_filter::{BodyLimit, ExtAuthz, ExtAuthzOverride, RouteFilter, Service},
        matcher::StringMatcher,
    },
    http::{exchange::ResponseBody, local_reply::LocalReply, request_headers::set_path, response_flags::ResponseFlags},
    stats::{ExtAuthzStat, GroupStats},
};

const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// What the service says of the response.
#[derive(Default)]
pub(super) struct Pass {
    add: Vec<(HeaderName, HeaderValue)>,
    set: Vec<(HeaderName, HeaderValue)>,
}

/// The service cannot be asked, or does not answer.
struct Unanswered;

pub(super) async fn request(
    name: &str,
    config: &ExtAuthz,
    stats: Option<&GroupStats<ExtAuthzStat>>,
    passing: &mut Passing<'_>,
) -> (Pass, Option<LocalReply>) {
    let exchange = passing.exchange;
    let said = match override_of(passing.route, name) {
        Some(RouteFilter::ExtAuthz(said)) => Some(said),
        _ => None,
    };
    if let Some(ExtAuthzOverride::Disabled) = said {
        return (Pass::default(), None);
    }
    let worker = &exchange.connection.downstream.worker;
    if !worker.with_random(|random| config.enabled.draw(random)) {
        count(stats, exchange, ExtAuthzStat::Disabled);
        let refused = config.deny_at_disable.then(|| failure(config.status_on_error));
        return (Pass::default(), refused);
    }
    let limit = match said {
        Some(ExtAuthzOverride::Settings { body: Some(limit), .. }) => *limit,
        _ => config.body,
    };
    let told = match body::gather(limit, passing).await {
        Ok(told) => told,
        Err(reply) => return (Pass::default(), Some(reply)),
    };
    let answered = match &config.service {
        Service::Grpc(target) => grpc::ask(config, target, said, &told, passing).await,
        Service::Http(service) => http_service::ask(config, service, &told, passing).await,
    };
    let Ok(answer) = answered else {
        count(stats, exchange, ExtAuthzStat::Error);
        if !config.failure_mode_allow {
            return (Pass::default(), Some(failure(config.status_on_error)));
        }
        count(stats, exchange, ExtAuthzStat::FailureModeAllowed);
        if config.adds_failure_header {
            passing.head.headers.insert(FAILURE_ALLOWED, HeaderValue::from_static("true"));
        }
        return (Pass::default(), None);
    };
    take(config, answer, stats, passing)
}

fn take(
    config: &ExtAuthz,
    answer: CheckAnswer,
    stats: Option<&GroupStats<ExtAuthzStat>>,
    passing: &mut Passing<'_>,
) -> (Pass, Option<LocalReply>) {
    let exchange = passing.exchange;
    let CheckAnswer { refusal, changes, metadata, has_invalid } = answer;
    if let Some(fields) = metadata.filter(|fields| !fields.is_empty()) {
        match config.takes_metadata {
            true => exchange.metadata.borrow_mut().merge(NAMESPACE, fields),
            false => count(stats, exchange, ExtAuthzStat::IgnoredDynamicMetadata),
        }
    }
    if has_invalid && config.validates_mutations {
        count(stats, exchange, ExtAuthzStat::Invalid);
        let flags = ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE;
        let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, flags, "ext_authz_invalid");
        return (Pass::default(), Some(reply));
    }
    if let Some(refusal) = refusal {
        count(stats, exchange, ExtAuthzStat::Denied);
        return (Pass::default(), Some(denied(refusal)));
    }
    count(stats, exchange, ExtAuthzStat::Ok);
    let pass = Pass { add: changes.response_add.clone(), set: changes.response_set.clone() };
    apply(changes, passing);
    (pass, None)
}

fn failure(status: StatusCode) -> LocalReply {
    LocalReply::new(status, ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE, "ext_authz_error")
}

fn denied(refusal: Refusal) -> LocalReply {
    let Refusal { status, headers, body } = refusal;
    let mut reply = LocalReply::new(status, ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE, "ext_authz_denied");
    for (name, value) in headers {
        // What says how long the body is belongs to the proxy.
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            reply.headers_mut().append(name, value);
        }
    }
    reply.with_body(body)
}

fn apply(changes: Changes, passing: &mut Passing<'_>) {
    let headers = &mut passing.head.headers;
    for (name, value) in changes.set {
        headers.insert(name, value);
    }
    for (name, value) in changes.append {
        headers.append(name, value);
    }
    for (name, value) in changes.add_if_absent {
        headers.entry(name).or_insert(value);
    }
    for name in changes.remove {
        // A request without a host is none.
        if name != header::HOST {
            headers.remove(name);
        }
    }
    if changes.query_set.is_empty() && changes.query_remove.is_empty() {
        return;
    }
    let query = passing.head.uri.query().unwrap_or_default();
    let key_of = |pair: &str| pair.split_once('=').map_or(pair, |(key, _)| key).to_owned();
    let is_changed =
        |key: &String| changes.query_set.iter().any(|(name, _)| name == key) || changes.query_remove.contains(key);
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty() && !is_changed(&key_of(pair))).map(str::to_owned).collect();
    let set = changes.query_set.iter().filter(|(name, _)| !changes.query_remove.contains(name));
    pairs.extend(set.map(|(name, value)| format!("{name}={value}")));
    // By name, as Envoy writes them.
    pairs.sort_by_key(|pair| key_of(pair));
    let path = passing.head.uri.path();
    let path = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
    let _ = set_path(passing.head, &path); // Err: what the service says is no query, and the old one stays
}

pub(super) fn response(pass: Pass, response: &mut Response<ResponseBody>) {
    let headers = response.headers_mut();
    for (name, value) in pass.add {
        headers.append(name, value);
    }
    for (name, value) in pass.set {
        headers.insert(name, value);
    }
}

/// Whether the service is told of a header.
fn is_told(config: &ExtAuthz, name: &str, by_default: bool) -> bool {
    let is_among = |matchers: &[StringMatcher]| matchers.iter().any(|matcher| matcher.matches(name));
    if is_among(&config.disallowed_headers) {
        return false;
    }
    config.allowed_headers.as_ref().map_or(by_default, |allowed| is_among(allowed))
}

/// Of the request's body, what the service is told.
#[derive(Default)]
struct ToldBody {
    bytes: bytes::Bytes,
    /// Some: whether it is only a part.
    is_partial: Option<bool>,
    limit: Option<BodyLimit>,
}
