//! What happens to headers on their way through: hop-by-hop fields go, forwarding fields come. RFC 9110 section 7.6.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request, uri};

use crate::{
    config::http_connection_manager::HttpConnectionManager,
    http::{local_reply::LocalReply, request_id, response_flags::ResponseFlags, tunnel::Tunnel},
    listener::connection::Downstream,
};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Readies a request for routing, or says why it is refused.
pub fn prepare(
    head: &mut request::Parts,
    config: &HttpConnectionManager,
    downstream: &Downstream,
) -> Result<(), LocalReply> {
    check_host(head, config)?;
    if Tunnel::requested_by(head) == Some(Tunnel::Upgrade) {
        return Err(refused(http::StatusCode::FORBIDDEN, "upgrade_failed"));
    }
    remove_hop_by_hop(&mut head.headers);
    if config.use_remote_address {
        // Without `internal_address_config` no caller at the edge is internal.
        distrust(&mut head.headers, downstream);
        if !config.skip_xff_append {
            append_forwarded_for(&mut head.headers, downstream);
        }
    }
    if config.use_remote_address || !head.headers.contains_key(X_FORWARDED_PROTO) {
        let scheme = if downstream.is_tls { "https" } else { "http" };
        head.headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(via) = &config.via {
        head.headers.append(header::VIA, via.clone());
    }
    let keep_id = config.preserve_external_request_id || !config.use_remote_address;
    if config.generate_request_id && (!keep_id || !head.headers.contains_key(X_REQUEST_ID)) {
        head.headers.insert(X_REQUEST_ID, downstream.worker.with_random(request_id::generate));
    }
    Ok(())
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
/// anew on each hop, and gRPC needs it to stay.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(connection) = headers.remove(header::CONNECTION) {
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
        headers.remove(header::TE);
    }
}

/// Nominating these would let a client take away what the next hop needs to understand the message.
fn is_needed(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TE].contains(name)
}

/// Takes from an external caller what only internal ones may ask for, and says where it comes from.
fn distrust(headers: &mut HeaderMap, downstream: &Downstream) {
    for name in INTERNAL_HEADERS {
        headers.remove(name);
    }
    if let Ok(address) = HeaderValue::from_str(&downstream.remote_address.ip().to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address);
    }
}

const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const INTERNAL_HEADERS: [HeaderName; 17] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
];

fn append_forwarded_for(headers: &mut HeaderMap, downstream: &Downstream) {
    let ip = downstream.remote_address.ip();
    let joined = match headers.get(X_FORWARDED_FOR) {
        Some(before) => [before.as_bytes(), b",", ip.to_string().as_bytes()].concat(),
        None => ip.to_string().into_bytes(),
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// The host that the request is for, with its port as given.
pub fn authority(head: &request::Parts) -> &[u8] {
    match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(header::HOST).map_or(b"", HeaderValue::as_bytes),
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
    if uri.scheme.is_none() {
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
    }

    #[test]
    fn cookie_crumbs_are_joined_for_http1() {
        let request = http::Request::get("http://a/").header("cookie", "a=1").header("cookie", "b=2");
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        to_http1(&mut head).expect("converted");
        assert_eq!(head.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
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
