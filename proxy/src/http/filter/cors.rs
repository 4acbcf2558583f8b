//! `envoy.filters.http.cors`: answers preflight requests, and tells browsers which origins may read a response (Fetch standard,
//! section 3.2).

use http::{HeaderName, HeaderValue, Method, Response, header};

use super::Passing;
use crate::{
    config::http_filter::{CorsPolicy, RouteFilter},
    http::exchange::ResponseBody,
    http::route::resolved::ResolvedRoute,
    stats::HttpStat,
};

/// What an answer to an allowed origin gets.
#[derive(Default)]
pub(super) struct Pass {
    origin: Option<HeaderValue>,
    allow_credentials: bool,
    expose_headers: Option<HeaderValue>,
}

const PRIVATE_NETWORK_REQUEST: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

pub(super) fn request(name: &str, passing: &Passing<'_>) -> (Pass, Option<Response<()>>) {
    let nothing = (Pass::default(), None);
    let Some(policies) = passing.route.filter(|route| route.is_forwarded()).map(|route| policies(name, route)) else {
        return nothing;
    };
    let Some(most_specific) = policies.first() else { return nothing };
    let worker = &passing.exchange.connection.downstream.worker;
    let enabled = worker.with_random(|random| most_specific.enabled.draw(random));
    if !enabled && !worker.with_random(|random| most_specific.shadow_enabled.draw(random)) {
        return nothing;
    }
    let headers = &passing.head.headers;
    let Some(origin) = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else { return nothing };
    let allowed = allows(&policies, origin);
    passing.exchange.count(if allowed { HttpStat::CorsOriginValid } else { HttpStat::CorsOriginInvalid });
    if !enabled {
        return nothing;
    }
    let pass = Pass {
        origin: allowed.then(|| origin.clone()),
        allow_credentials: first(&policies, |policy| policy.allow_credentials).unwrap_or(false),
        expose_headers: first(&policies, |policy| policy.expose_headers.clone()),
    };
    let asked_method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|method| !method.is_empty());
    let Some(asked_method) = asked_method.filter(|_| passing.head.method == Method::OPTIONS) else {
        return (pass, None);
    };
    if !allowed && first(&policies, |policy| policy.forward_not_matching_preflights).unwrap_or(true) {
        return (pass, None);
    }
    *passing.exchange.details.borrow_mut() = "cors_response".into();
    let answer = preflight(&policies, headers, asked_method, pass.origin.as_ref());
    (pass, Some(answer))
}

/// Most specific first. Those of the filter's own kind make those of the route's fields count for nothing.
fn policies<'a>(name: &str, route: &'a ResolvedRoute) -> Vec<&'a CorsPolicy> {
    let configured: Vec<&CorsPolicy> = route
        .filter_configs(name)
        .filter_map(|config| match &config.filter {
            Some(RouteFilter::Cors(policy)) => Some(policy),
            _ => None,
        })
        .collect();
    if configured.is_empty() { route.cors_policies().collect() } else { configured }
}

fn first<T>(policies: &[&CorsPolicy], setting: impl Fn(&CorsPolicy) -> Option<T>) -> Option<T> {
    policies.iter().find_map(|policy| setting(policy))
}

fn allows(policies: &[&CorsPolicy], origin: &HeaderValue) -> bool {
    let Some(policy) = policies.iter().find(|policy| !policy.allow_origins.is_empty()) else { return false };
    let Ok(origin) = origin.to_str() else { return false };
    policy.allow_origins.iter().any(|matcher| matcher.matches("*") || matcher.matches(origin))
}

fn preflight(
    policies: &[&CorsPolicy],
    asked: &http::HeaderMap,
    asked_method: &HeaderValue,
    origin: Option<&HeaderValue>,
) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    if first(policies, |policy| policy.allow_credentials).unwrap_or(false) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Some(methods) = first(policies, |policy| policy.allow_methods.clone()) {
        let methods = if methods == "*" { asked_method.clone() } else { methods };
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(allowed) = first(policies, |policy| policy.allow_headers.clone()) {
        let empty = HeaderValue::from_static("");
        let asked = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(empty);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, if allowed == "*" { asked } else { allowed });
    }
    if let Some(max_age) = first(policies, |policy| policy.max_age.clone()) {
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
    }
    if first(policies, |policy| policy.allow_private_network_access).unwrap_or(false)
        && asked.get(PRIVATE_NETWORK_REQUEST).is_some_and(|asked| asked == "true")
    {
        headers.insert(PRIVATE_NETWORK, TRUE);
    }
    response
}

pub(super) fn response(pass: Pass, response: &mut Response<ResponseBody>) {
    let Some(origin) = pass.origin else { return };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if pass.allow_credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Some(expose_headers) = pass.expose_headers {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose_headers);
    }
}
