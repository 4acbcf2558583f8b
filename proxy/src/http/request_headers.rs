//! What happens to headers on their way through: hop-by-hop fields go, forwarding fields come. RFC 9110 section 7.6.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request, uri};

use crate::{
    config::http_connection_manager::{HostOptions, HttpConnectionManager, PathOptions, UnderscoresAction},
    http::{
        caller, client_cert,
        exchange::Exchange,
        header_mutation,
        local_reply::LocalReply,
        normalize::{self, NormalPath},
        request_id,
        response_flags::ResponseFlags,
        tunnel,
    },
    listener::connection::Downstream,
    stats::HttpStat,
};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Readies a request for routing, or says why it is refused.
pub fn prepare(head: &mut request::Parts, exchange: &Rc<Exchange>) -> Result<(), LocalReply> {
    let connection = &exchange.connection;
    let (config, downstream) = (&connection.active.config, &connection.downstream);
    header_mutation::mutate_request(&config.early_mutations, exchange, head)?;
    check_host(head, config)?;
    check_underscores(head, exchange)?;
    normalize_host(head, config.host, downstream)?;
    normalize_path(head, config.path, exchange)?;
    remove_hop_by_hop(&mut head.headers);
    let routes = connection.active.routes.load();
    let internal_only = routes.as_ref().map_or(&[][..], |routes| &routes.table().internal_only_headers);
    let caller = caller::identify(head, &config.caller, downstream, internal_only)?;
    exchange.remote_address.set(caller.address);
    exchange.caller.set(caller.kind);
    if let Some(scheme) = config.scheme.overwrite {
        force_scheme(head, scheme);
    }
    if let Some(via) = &config.via {
        append_via(&mut head.headers, via);
    }
    let keep_id = config.request_id.preserve_external || !caller.is_edge;
    if config.request_id.generate && (!keep_id || !head.headers.contains_key(X_REQUEST_ID)) {
        head.headers.insert(X_REQUEST_ID, downstream.worker.with_random(request_id::generate));
    }
    client_cert::forward(&mut head.headers, &config.client_cert, downstream);
    Ok(())
}

/// `headers_with_underscores_action`: to an application that takes them for dashes they are other headers.
fn check_underscores(head: &mut request::Parts, exchange: &Exchange) -> Result<(), LocalReply> {
    let action = exchange.connection.active.config.underscores;
    if action == UnderscoresAction::Allow {
        return Ok(());
    }
    let suspicious: Vec<HeaderName> = head.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    if suspicious.is_empty() {
        return Ok(());
    }
    if action == UnderscoresAction::Reject {
        let is_http2 = head.version == Version::HTTP_2;
        let details = if is_http2 { "http2.unexpected_underscore" } else { "http1.unexpected_underscore" };
        return Err(bad_request(details).with_body("Bad Request"));
    }
    for name in suspicious {
        head.headers.remove(name);
    }
    Ok(())
}

fn normalize_host(head: &mut request::Parts, options: HostOptions, downstream: &Downstream) -> Result<(), LocalReply> {
    if options == HostOptions::default() {
        return Ok(());
    }
    let Ok(host) = std::str::from_utf8(authority(head)) else { return Ok(()) };
    let changed = normalize::host(options, host, downstream.local_address.port());
    let Some(changed) = changed.and_then(|host| HeaderValue::from_str(&host).ok()) else { return Ok(()) };
    set_authority(head, &changed)
}

fn normalize_path(head: &mut request::Parts, options: PathOptions, exchange: &Exchange) -> Result<(), LocalReply> {
    if options == PathOptions::default() {
        return Ok(());
    }
    let Some(path) = head.uri.path_and_query() else { return Ok(()) };
    let rejected = || {
        exchange.count(HttpStat::RqFailedPathNormalization);
        Err(bad_request("path_normalization_failed"))
    };
    match normalize::path(options, path.as_str()) {
        NormalPath::Unchanged => Ok(()),
        NormalPath::Changed(path) => set_path(head, &path),
        NormalPath::Rejected(path) => {
            set_path(head, &path)?;
            rejected()
        }
        NormalPath::Redirect(path) => {
            set_path(head, &path)?;
            // gRPC follows no redirects.
            if exchange.is_grpc {
                return rejected();
            }
            exchange.count(HttpStat::RqRedirectedWithNormalizedPath);
            let mut reply = refused(http::StatusCode::TEMPORARY_REDIRECT, "path_normalization_failed");
            if let Ok(location) = HeaderValue::from_str(&path) {
                reply.headers_mut().insert(header::LOCATION, location);
            }
            Err(reply)
        }
    }
}

/// RFC 9112 section 3.2: an HTTP/1.1 request has exactly one Host.
fn check_host(head: &mut request::Parts, config: &HttpConnectionManager) -> Result<(), LocalReply> {
    if head.version < Version::HTTP_11
        && let Some(host) = &config.http1.default_host_for_http_10
        && !head.headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(host)
    {
        head.headers.insert(header::HOST, host);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad_request("duplicate_host"));
    }
    if head.uri.authority().is_none() && host.is_none_or(|host| host.as_bytes().is_empty()) {
        return Err(bad_request("missing_host_header"));
    }
    if head.uri.path_and_query().is_none() && head.method != http::Method::CONNECT {
        return Err(bad_request("missing_path_rejected"));
    }
    // RFC 9112 section 3.2.4: `*` is about the server as such, and the proxy is none.
    if head.uri.path() == "*" {
        return Err(refused(http::StatusCode::NOT_FOUND, "absolute_path_rejected"));
    }
    Ok(())
}

fn bad_request(details: &'static str) -> LocalReply {
    refused(http::StatusCode::BAD_REQUEST, details)
}

fn refused(status: http::StatusCode, details: &'static str) -> LocalReply {
    LocalReply::new(status, ResponseFlags::default(), details)
}

/// RFC 9110 section 7.6.1: what `connection` names, and the fields that are about one connection. `te: trailers` is said
/// anew on each hop, and gRPC needs it to stay; so does the wish to upgrade, which is granted or refused as such.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of these, and are spared a search for each.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let upgrade = if tunnel::is_upgrade(headers) { headers.remove(header::UPGRADE) } else { None };
    let connection = headers.remove(header::CONNECTION);
    if let Some(connection) = &connection {
        for nominated in connection.as_bytes().split(|&byte| byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(nominated.trim_ascii())
                && !is_needed(&name)
            {
                headers.remove(name);
            }
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        let wants_trailers = headers.get_all(header::TE).iter().any(|te| tunnel::has_token(te.as_bytes(), b"trailers"));
        headers.remove(header::TE);
        if wants_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if let (Some(protocol), Some(connection)) = (upgrade, connection) {
        headers.insert(header::CONNECTION, connection);
        headers.insert(header::UPGRADE, protocol);
    }
}

static HOP_BY_HOP: [HeaderName; 6] =
    [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];

/// Nominating these would let a client take away what the next hop needs to understand the message.
fn is_needed(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TE].contains(name)
}

/// The host that the request is for, with its port as given.
pub fn authority(head: &request::Parts) -> &[u8] {
    match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(header::HOST).map_or(b"", HeaderValue::as_bytes),
    }
}

/// `https` or `http`, as the caller said it, or as the proxy in front of us did.
pub fn scheme(head: &request::Parts) -> &str {
    match head.uri.scheme_str() {
        Some(scheme) => scheme,
        None => match head.headers.get(X_FORWARDED_PROTO) {
            Some(proto) if proto == "https" => "https",
            _ => "http",
        },
    }
}

/// Puts another path, with its query, in the place of the request's.
pub fn set_path(head: &mut request::Parts, path: &str) -> Result<(), LocalReply> {
    let unusable = || bad_request("path_rewrite_failed");
    let path = uri::PathAndQuery::from_maybe_shared(bytes::Bytes::copy_from_slice(path.as_bytes()));
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(path.map_err(|_| unusable())?);
    if parts.authority.is_some() != parts.scheme.is_some() {
        parts.scheme = parts.authority.as_ref().map(|_| uri::Scheme::HTTP);
    }
    head.uri = http::Uri::from_parts(parts).map_err(|_| unusable())?;
    Ok(())
}

/// Puts another host in the place of the request's.
pub fn set_authority(head: &mut request::Parts, host: &HeaderValue) -> Result<(), LocalReply> {
    head.headers.insert(header::HOST, host.clone());
    if head.uri.authority().is_some() {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = None;
        parts.scheme = None;
        head.uri = http::Uri::from_parts(parts).map_err(|_| bad_request("host_rewrite_failed"))?;
    }
    Ok(())
}

/// RFC 9110 section 7.6.3: behind those that are there.
pub fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let joined = match headers.get(header::VIA) {
        None => Ok(via.clone()),
        Some(before) => {
            HeaderValue::from_maybe_shared(bytes::Bytes::from([before.as_bytes(), b", ", via.as_bytes()].concat()))
        }
    };
    if let Ok(joined) = joined {
        headers.insert(header::VIA, joined);
    }
}

/// Whatever the request says of its scheme.
fn force_scheme(head: &mut request::Parts, scheme: &'static str) {
    head.headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    set_scheme(head, scheme);
}

/// Where the request has a scheme of its own; otherwise what says it is `x-forwarded-proto`.
pub fn set_scheme(head: &mut request::Parts, scheme: &str) {
    let mut parts = head.uri.clone().into_parts();
    if parts.scheme.is_some()
        && let Ok(scheme) = scheme.parse()
    {
        parts.scheme = Some(scheme);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            head.uri = uri;
        }
    }
}

/// The request as an HTTP/1.1 upstream wants it: origin form, with a Host field.
pub fn to_http1(head: &mut request::Parts) -> Result<(), http::Error> {
    head.version = Version::HTTP_11;
    join_cookies(&mut head.headers);
    if head.uri.authority().is_some() {
        let uri = std::mem::take(&mut head.uri).into_parts();
        if let Some(authority) = uri.authority {
            // RFC 9112 section 3.2.2: the absolute form's authority beats the Host field.
            head.headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
        }
        let mut origin = uri::Parts::default();
        origin.path_and_query = uri.path_and_query;
        head.uri = http::Uri::from_parts(origin)?;
    }
    Ok(())
}

/// RFC 9113 section 8.2.3: crumbs become one field again before they leave HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The request as an HTTP/2 upstream wants it: `:scheme`, `:authority`, no Host field (RFC 9113 section 8.3.1).
pub fn to_http2(head: &mut request::Parts, is_tls: bool) -> Result<(), http::Error> {
    head.version = Version::HTTP_2;
    let host = head.headers.remove(header::HOST);
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    if uri.authority.is_none() {
        let host = host.as_ref().map_or(&b""[..], HeaderValue::as_bytes); // empty is refused next
        uri.authority = Some(uri::Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host))?);
    }
    // RFC 9113 section 8.5: CONNECT has neither a scheme nor a path.
    if uri.scheme.is_none() && head.method != http::Method::CONNECT {
        uri.scheme = Some(if is_tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    }
    head.uri = http::Uri::from_parts(uri)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn fields_about_one_connection_go_and_needed_ones_stay() {
        let mut given = headers(&[
            ("connection", "close, X-Foo ,host,te"),
            ("x-foo", "1"),
            ("host", "a"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("x-bar", "2"),
        ]);
        remove_hop_by_hop(&mut given);
        assert_eq!(given, headers(&[("host", "a"), ("te", "trailers"), ("x-bar", "2")]));
        let mut te = headers(&[("te", "gzip")]);
        remove_hop_by_hop(&mut te);
        assert!(te.is_empty());
        let mut te = headers(&[("te", "gzip, Trailers")]);
        remove_hop_by_hop(&mut te);
        assert_eq!(te, headers(&[("te", "trailers")]));
    }

    #[test]
    fn cookie_crumbs_are_joined_for_http1() {
        let request = http::Request::get("http://a/").header("cookie", "a=1").header("cookie", "b=2");
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        to_http1(&mut head).expect("converted");
        assert_eq!(head.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn a_connect_names_an_authority_in_both_protocols() {
        let request = http::Request::connect("a.test:443").header("host", "a.test:443").body(()).expect("a request");
        let (mut head, ()) = request.into_parts();
        to_http1(&mut head).expect("converted");
        assert_eq!(head.headers["host"], "a.test:443");
        to_http2(&mut head, true).expect("converted");
        assert_eq!(head.uri.to_string(), "a.test:443");
    }

    #[test]
    fn forms_of_the_target() {
        let request = http::Request::get("http://a.test:80/x?y").header("host", "b.test").body(()).expect("a request");
        let (mut head, ()) = request.into_parts();
        to_http1(&mut head).expect("converted");
        assert_eq!(
            (head.uri.to_string().as_str(), &head.headers["host"]),
            ("/x?y", &HeaderValue::from_static("a.test:80"))
        );
        to_http2(&mut head, true).expect("converted");
        assert_eq!(head.uri.to_string(), "https://a.test:80/x?y");
        assert!(!head.headers.contains_key("host"));
    }
}
