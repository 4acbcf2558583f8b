//! `envoy.filters.http.csrf`: a request that changes something must come from a page of the host that it is for, or of one that
//! the policy names (by `origin`, or else by `referer`).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Passing, override_of};
use crate::{
    config::http_filter::{CsrfPolicy, RouteFilter},
    http::{local_reply::LocalReply, request_headers::authority, response_flags::ResponseFlags},
    stats::HttpStat,
};

pub(super) fn request(name: &str, policy: &CsrfPolicy, passing: &Passing<'_>) -> Result<(), LocalReply> {
    let policy = match override_of(passing.route, name) {
        Some(RouteFilter::Csrf(policy)) => policy,
        _ => policy,
    };
    let worker = &passing.exchange.connection.downstream.worker;
    let enabled = worker.with_random(|random| policy.enabled.draw(random));
    if !enabled && !worker.with_random(|random| policy.shadow_enabled.draw(random)) {
        return Ok(());
    }
    if ![Method::POST, Method::PUT, Method::DELETE, Method::PATCH].contains(&passing.head.method) {
        return Ok(());
    }
    let verdict = match source(&passing.head.headers) {
        None => HttpStat::CsrfMissingSourceOrigin,
        Some(source) if is_good(policy, source, authority(passing.head)) => HttpStat::CsrfRequestValid,
        Some(_) => HttpStat::CsrfRequestInvalid,
    };
    passing.exchange.count(verdict);
    if verdict == HttpStat::CsrfRequestValid || !enabled {
        return Ok(());
    }
    let reply = LocalReply::new(StatusCode::FORBIDDEN, ResponseFlags::default(), "csrf_origin_mismatch");
    Err(reply.with_body("Invalid origin"))
}

fn is_good(policy: &CsrfPolicy, source: &str, target: &[u8]) -> bool {
    source.as_bytes() == target || policy.additional_origins.iter().any(|origin| origin.matches(source))
}

/// None: the request says nothing of the page that it comes from.
fn source(headers: &HeaderMap) -> Option<&str> {
    let of = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(host_and_port);
    let is_there = |host: &&str| !host.is_empty();
    of(header::ORIGIN)
        .filter(is_there)
        .filter(|origin| *origin != "null")
        .or_else(|| of(header::REFERER).filter(is_there))
}

/// Of an absolute URL; anything else as it stands.
fn host_and_port(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else { return url };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_told_by_its_origin_or_the_referer() {
        let source_of = |headers: &[(http::HeaderName, &'static str)]| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            source(&headers).map(str::to_owned)
        };
        assert_eq!(source_of(&[(header::ORIGIN, "http://a.test:81")]).as_deref(), Some("a.test:81"));
        assert_eq!(source_of(&[(header::REFERER, "http://u@a.test/p?q")]).as_deref(), Some("a.test"));
        let both = [(header::ORIGIN, "null"), (header::REFERER, "https://b.test/")];
        assert_eq!(source_of(&both).as_deref(), Some("b.test"));
        assert_eq!((source_of(&[]), source_of(&[(header::ORIGIN, "")])), (None, None));
    }
}
