//! `envoy.filters.http.jwt_authn`: lets requests through that carry the tokens which are required, and hands on what the tokens
//! say. All tokens of a provider that a request carries have to be good: which of several the application would read is not
//! known here.

mod requirement;

use std::{rc::Rc, sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request};
use serde_json::Value as Json;

use self::requirement::{Good, Verdict};
use super::{Passing, override_of, realm, stats::count};
use crate::{
    config::{
        http_filter::{FetchedKeys, JwtAuthn, JwtOverride, Keys, Provider, RemoteKeys, Requirement, RouteFilter},
        metadata::{Fields, Value},
    },
    http::{
        exchange::Exchange,
        local_reply::LocalReply,
        request_headers::set_path,
        response_flags::ResponseFlags,
        route::{matcher, table::RouteQuery},
        side_call::SideCall,
    },
    jwt::{Failure, KeySet},
    matching::Facts,
    stats::{GroupStats, JwtStat},
};

const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
const KEYS_BYTES_MAX: usize = 1 << 20;

pub(super) async fn request(
    name: &str,
    config: &JwtAuthn,
    stats: Option<&GroupStats<JwtStat>>,
    passing: &mut Passing<'_>,
) -> Result<(), LocalReply> {
    for header in &config.own_headers {
        passing.head.headers.remove(header);
    }
    let exchange = passing.exchange;
    if config.bypass_cors_preflight && is_preflight(passing.head) {
        count(stats, exchange, JwtStat::CorsPreflightBypassed);
        count(stats, exchange, JwtStat::Allowed);
        return Ok(());
    }
    let requirement = match override_of(passing.route, name) {
        Some(RouteFilter::JwtAuthn(JwtOverride::Disabled)) => None,
        Some(RouteFilter::JwtAuthn(JwtOverride::Named(named))) => match config.named.get(named) {
            Some(requirement) => Some(requirement),
            None => {
                count(stats, exchange, JwtStat::Denied);
                return Err(unknown_requirement(named, config));
            }
        },
        _ => required_of(config, passing),
    };
    let Some(requirement) = requirement else {
        count(stats, exchange, JwtStat::Allowed);
        return Ok(());
    };
    let realm = realm(passing.head);
    let verdict = judge(config, requirement, stats, passing).await;
    let Verdict { good, failures, result } = verdict;
    note_failures(exchange, &failures);
    for good in good {
        hand_on(&config.providers[good.provider], &good, exchange, passing.head);
    }
    match result {
        Ok(()) => {
            count(stats, exchange, JwtStat::Allowed);
            Ok(())
        }
        Err(failure) => {
            count(stats, exchange, JwtStat::Denied);
            Err(refusal(failure, &realm, config.strip_failure_response))
        }
    }
}

/// Fetch standard, section 3.2.2.
fn is_preflight(head: &request::Parts) -> bool {
    let has = |name: HeaderName| head.headers.get(name).is_some_and(|value| !value.is_empty());
    head.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn required_of<'a>(config: &'a JwtAuthn, passing: &Passing<'_>) -> Option<&'a Requirement> {
    let exchange = passing.exchange;
    let downstream = &exchange.connection.downstream;
    let (metadata, filter_state) = (exchange.metadata.borrow(), exchange.filter_state.borrow());
    let query = RouteQuery {
        head: passing.head,
        facts: Facts {
            request: Some(passing.head),
            metadata: Some(&metadata),
            filter_state: Some(&filter_state),
            tls: downstream.tls.as_deref(),
            ..Facts::of_connection(downstream.facts())
        },
        random: downstream.worker.with_random(|random| random.u64(..)),
    };
    let path = passing.head.uri.path();
    let matched = config.rules.iter().find(|(rule, _)| matcher::matches(rule, path, &query));
    if let Some((_, requirement)) = matched {
        return requirement.as_ref();
    }
    let (key, by_value) = config.filter_state.as_ref()?;
    by_value.get(&**filter_state.text(key)?)
}

/// Keys that are not here or old are fetched as they turn out to be needed.
async fn judge<'a>(
    config: &'a JwtAuthn,
    requirement: &Requirement,
    stats: Option<&GroupStats<JwtStat>>,
    passing: &Passing<'_>,
) -> Verdict<'a> {
    let mut tried = vec![false; config.providers.len()];
    loop {
        match requirement::judge(config, requirement, passing.head, &tried) {
            Ok(verdict) => return verdict,
            Err(needed) => {
                tried[needed.0] = true;
                if let Keys::Remote(remote) = &config.providers[needed.0].keys {
                    let fetched = fetch(remote, passing.exchange).await;
                    let stat = if fetched.is_ok() { JwtStat::JwksFetchSuccess } else { JwtStat::JwksFetchFailed };
                    count(stats, passing.exchange, stat);
                    if let Ok(keys) = fetched {
                        let fetched = FetchedKeys { keys, fetched_at: Instant::now() };
                        remote.current.store(Some(Arc::new(fetched)));
                    }
                }
            }
        }
    }
}

async fn fetch(remote: &RemoteKeys, exchange: &Rc<Exchange>) -> Result<KeySet, Failure> {
    let call = SideCall {
        worker: &exchange.connection.downstream.worker,
        cluster: &remote.cluster,
        timeout: Some(remote.timeout),
        response_bytes_max: KEYS_BYTES_MAX,
    };
    for attempt in 0..=remote.retries {
        if attempt > 0 {
            tokio::time::sleep(remote.retry_interval).await;
        }
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = remote.uri.clone();
        let answered = call.http(request).await;
        if let Ok(response) = answered
            && response.status() == StatusCode::OK
        {
            return KeySet::parse(response.body());
        }
    }
    Err(Failure::FetchFailed)
}

fn refusal(failure: Failure, realm: &str, strips: bool) -> LocalReply {
    let status = match failure {
        Failure::AudienceNotAllowed => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let text = failure.to_string();
    let mut reply = LocalReply::new(status, ResponseFlags::default(), details(&text));
    if strips {
        return reply;
    }
    let error = if failure == Failure::Missing { "" } else { ", error=\"invalid_token\"" };
    if let Ok(value) = HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}")) {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    reply.with_body(text)
}

fn unknown_requirement(name: &str, config: &JwtAuthn) -> LocalReply {
    let names: Vec<&str> = config.named.keys().map(String::as_str).collect();
    let reason = format!("Wrong requirement_name: {name}. It should be one of [{}]", names.join(","));
    let reply = LocalReply::new(StatusCode::FORBIDDEN, ResponseFlags::default(), details(&reason));
    if config.strip_failure_response { reply } else { reply.with_body(format!("Failed JWT authentication: {reason}")) }
}

/// In one word.
fn details(text: &str) -> String {
    format!("jwt_authn_access_denied{{{}}}", text.replace(char::is_whitespace, "_"))
}

/// What a good token says, for the application and for filters behind this one.
fn hand_on(provider: &Provider, good: &Good, exchange: &Exchange, head: &mut request::Parts) {
    let Good { token, place, .. } = good;
    if let Some(name) = &provider.payload_header {
        let mut payload = token.payload_base64.clone();
        while provider.pads_payload && payload.len() % 4 != 0 {
            payload.push('=');
        }
        append(head, name, &payload);
    }
    for claim in &provider.claims_to_headers {
        let value = token.claim(claim.path.iter().map(String::as_str)).and_then(header_text);
        if let Some(text) = value.filter(|text| !text.is_empty()) {
            append(head, &claim.header, &text);
        }
    }
    if !provider.forward {
        place.remove_from(head);
    }
    let mut fields = Fields::new();
    if let Some(key) = &provider.header_in_metadata {
        fields.insert(key.as_str().into(), Value::from_json(&Json::Object(token.header.clone())));
    }
    if let Some(key) = &provider.payload_in_metadata {
        let mut payload = token.payload.clone();
        for claim in provider.normalized_claims.iter().flatten() {
            if let Some(Json::String(words)) = payload.get(claim) {
                let words = words.split(' ').filter(|word| !word.is_empty()).map(Json::from).collect();
                payload.insert(claim.clone(), words);
            }
        }
        fields.insert(key.as_str().into(), Value::from_json(&Json::Object(payload)));
    }
    if !fields.is_empty() {
        exchange.metadata.borrow_mut().merge(NAMESPACE, fields);
    }
}

fn note_failures(exchange: &Exchange, failures: &[(&str, Failure)]) {
    for (key, failure) in failures {
        let status = Fields::from_iter([
            (Arc::from("code"), Value::number(failure.code().into())),
            (Arc::from("message"), Value::Text(failure.to_string().into())),
        ]);
        let fields = Fields::from_iter([(Arc::from(*key), Value::Struct(status))]);
        exchange.metadata.borrow_mut().merge(NAMESPACE, fields);
    }
}

fn append(head: &mut request::Parts, name: &HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        head.headers.append(name.clone(), value);
    }
}

/// Lists and structs in base64 of their JSON.
fn header_text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::Bool(value) => Some(value.to_string()),
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => {
            let number = number.as_f64()?;
            let is_whole = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
            Some(if is_whole { (number as u64).to_string() } else { format!("{number:.6}") })
        }
        Json::Array(_) | Json::Object(_) => Some(general_purpose::STANDARD.encode(value.to_string())),
    }
}

/// Where a token stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Header(HeaderName),
    Parameter(String),
    Cookie(String),
}

impl Place {
    /// One in a cookie stays, as in Envoy.
    fn remove_from(&self, head: &mut request::Parts) {
        match self {
            Place::Header(name) => {
                head.headers.remove(name);
            }
            Place::Parameter(name) => {
                let Some(query) = head.uri.query() else { return };
                let is_other = |pair: &&str| pair.split_once('=').map_or(*pair, |(key, _)| key) != name;
                let rest: Vec<&str> = query.split('&').filter(is_other).collect();
                let path = head.uri.path();
                let path = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
                let _ = set_path(head, &path); // a part of a path that is one already
            }
            Place::Cookie(_) => {}
        }
    }
}
