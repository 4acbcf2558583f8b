//! Redirects of upstreams that the proxy follows itself: whether one is followed, and the request that follows it. It goes through
//! all filters and the route table again.

use http::{HeaderName, HeaderValue, Method, StatusCode, header, request, response};

use crate::{
    config::route::{InternalRedirects, RedirectPredicate},
    http::{
        exchange::Exchange,
        request_headers::{authority, scheme},
        route::resolved::ResolvedRoute,
    },
    stats::HttpStat,
};

const X_ENVOY_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// What a request has been through by redirects.
#[derive(Default)]
pub struct RedirectHistory {
    followed: u32,
    /// From which route to which, by name.
    hops: Vec<(String, String)>,
}

/// Where the request goes next, and by which route.
pub struct Redirected {
    pub head: request::Parts,
    pub route: ResolvedRoute,
    /// RFC 9110 section 15.4.4: it is asked for by GET, without the body.
    pub drops_body: bool,
}

struct Target<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: String,
}

/// None: the response goes to the caller, for whom it is counted why.
pub fn follow(
    policy: &InternalRedirects,
    exchange: &Exchange,
    from: &ResolvedRoute,
    request: &request::Parts,
    response: &response::Parts,
) -> Option<Redirected> {
    let location = response.headers.get(header::LOCATION).filter(|location| !location.is_empty())?;
    let Some(target) = location.to_str().ok().and_then(parse) else {
        exchange.count(HttpStat::RedirectBadLocation);
        return None;
    };
    let (was_https, is_https) = (scheme(request) == "https", target.scheme == "https");
    if was_https != is_https && !policy.allows_cross_scheme {
        exchange.count(HttpStat::RedirectUnsafeScheme);
        return None;
    }
    let mut history = exchange.redirects.borrow_mut();
    if history.followed >= policy.max {
        exchange.count(HttpStat::RedirectTooMany);
        return None;
    }
    let drops_body = response.status == StatusCode::SEE_OTHER && ![Method::GET, Method::HEAD].contains(&request.method);
    let Some(head) = redirected(policy, request, response, &target, drops_body) else {
        exchange.count(HttpStat::RedirectBadLocation);
        return None;
    };
    let Some(route) = exchange.resolve_route(&head) else {
        exchange.count(HttpStat::RedirectNoRoute);
        exchange.note_cluster(None);
        return None;
    };
    let hop = (from.route().name.to_string(), route.route().name.to_string());
    let accepted = policy.predicates.iter().all(|predicate| match predicate {
        RedirectPredicate::AllowListedRoutes(names) => names.contains(&hop.1),
        RedirectPredicate::PreviousRoutes => !history.hops.contains(&hop),
        RedirectPredicate::SafeCrossScheme => was_https || !is_https,
    });
    if !accepted {
        exchange.count(HttpStat::RedirectPredicate);
        exchange.note_cluster(route.cluster_name(&head));
        return None;
    }
    history.followed += 1;
    history.hops.push(hop);
    Some(Redirected { head, route, drops_body })
}

/// An absolute URL of HTTP.
fn parse(location: &str) -> Option<Target<'_>> {
    let (scheme, rest) = location.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Target { scheme, authority, path })
}

/// None: no request could have that target.
fn redirected(
    policy: &InternalRedirects,
    request: &request::Parts,
    response: &response::Parts,
    target: &Target<'_>,
    drops_body: bool,
) -> Option<request::Parts> {
    let mut head = request.clone();
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let original = [scheme(request).as_bytes(), b"://", authority(request), path.as_bytes()].concat();
    for name in &policy.response_headers_to_copy {
        head.headers.remove(name);
        for value in response.headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    let host = HeaderValue::from_str(target.authority).ok()?;
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(target.path.parse().ok()?);
    if request.uri.authority().is_some() {
        uri.scheme = Some(target.scheme.parse().ok()?);
        uri.authority = Some(target.authority.parse().ok()?);
    }
    head.uri = http::Uri::from_parts(uri).ok()?;
    head.headers.insert(header::HOST, host);
    if drops_body {
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head.headers.insert(X_ENVOY_ORIGINAL_URL, HeaderValue::from_maybe_shared(bytes::Bytes::from(original)).ok()?);
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_urls_of_http_are_followed() {
        let target = |location: &str| {
            parse(location).map(|target| format!("{} {} {}", target.scheme, target.authority, target.path))
        };
        assert_eq!(target("http://a.test/x?y#z").as_deref(), Some("http a.test /x?y"));
        assert_eq!(target("HTTPS://a.test:8443").as_deref(), Some("https a.test:8443 /"));
        assert_eq!(target("http://a.test?q").as_deref(), Some("http a.test /?q"));
        for location in ["/x", "ftp://a/", "http:///x", "a.test"] {
            assert_eq!(target(location), None, "{location}");
        }
    }
}
