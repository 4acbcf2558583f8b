//! Whose request it is: the caller's address from the connection or from `x-forwarded-for`, whether it is one of ours, and
//! what it may therefore say in headers.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, request};

use crate::{
    config::http_connection_manager::{CallerOptions, IpDetection, TrustedProxies},
    http::{
        local_reply::LocalReply,
        request_headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO},
        response_flags::ResponseFlags,
    },
    listener::connection::Downstream,
    net::local_address::local_address,
    stats::CallerKind,
};

/// What was found out.
pub struct Caller {
    pub address: SocketAddr,
    pub kind: CallerKind,
    /// From outside, and we are the first of ours that it meets.
    pub is_edge: bool,
}

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// Finds out, and puts it into the request's headers.
pub fn identify(
    head: &mut request::Parts,
    options: &CallerOptions,
    downstream: &Downstream,
    internal_only_headers: &[HeaderName],
) -> Result<Caller, LocalReply> {
    let headers = &mut head.headers;
    headers.remove(X_ENVOY_INTERNAL);
    let (found, may_be_internal) = if options.use_remote_address {
        by_connection(headers, options, downstream)
    } else {
        by_headers(headers, options, downstream)?
    };
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, forwarded_proto(downstream));
    }
    let is_internal = may_be_internal && found.is_some_and(|address| options.internal.contains(address.ip()));
    let caller = Caller {
        address: found.unwrap_or(downstream.remote_address),
        kind: if is_internal { CallerKind::Internal } else { CallerKind::External },
        is_edge: !is_internal && options.use_remote_address,
    };
    if is_internal {
        headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else {
        distrust(headers, caller.is_edge, internal_only_headers);
    }
    if caller.is_edge {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, address_value(caller.address.ip()));
    }
    Ok(caller)
}

/// The one that is connected, or whom trusted proxies in front of us name. It may be one of ours if nobody stood between.
fn by_connection(
    headers: &mut HeaderMap,
    options: &CallerOptions,
    downstream: &Downstream,
) -> (Option<SocketAddr>, bool) {
    let may_be_internal = !headers.contains_key(X_FORWARDED_FOR);
    let trusted_hops = options.xff_trusted_hops as usize;
    let named =
        trusted_hops.checked_sub(1).and_then(|skip| forwarded_address(headers, skip)).map(|(address, _)| address);
    if !options.skip_xff_append {
        append_forwarded_for(headers, options, downstream.remote_address.ip());
    }
    if trusted_hops == 0 || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, forwarded_proto(downstream));
    }
    if options.append_x_forwarded_port && (trusted_hops == 0 || !headers.contains_key(X_FORWARDED_PORT)) {
        headers.insert(X_FORWARDED_PORT, downstream.local_address.port().into());
    }
    (Some(named.unwrap_or(downstream.remote_address)), may_be_internal)
}

/// Whom headers name.
fn by_headers(
    headers: &mut HeaderMap,
    options: &CallerOptions,
    downstream: &Downstream,
) -> Result<(Option<SocketAddr>, bool), LocalReply> {
    if options.detection.is_empty() {
        let found = forwarded_address(headers, options.xff_trusted_hops as usize);
        return Ok((found.map(|(address, _)| address), found.is_some_and(|(_, is_single)| is_single)));
    }
    for detection in &options.detection {
        match detection {
            IpDetection::ForwardedFor { trusted, skip_xff_append } => {
                let found = match trusted {
                    TrustedProxies::Hops(hops) => forwarded_address(headers, *hops as usize),
                    TrustedProxies::Ranges(ranges) => first_untrusted(headers, downstream.remote_address, |address| {
                        ranges.iter().any(|range| range.contains(&address))
                    }),
                };
                if !skip_xff_append {
                    append_forwarded_for(headers, options, downstream.remote_address.ip());
                }
                if let Some((address, is_single)) = found {
                    return Ok((Some(address), is_single));
                }
            }
            IpDetection::CustomHeader { name, trusted, reject_with } => {
                let named = headers.get(name).and_then(|value| parse_address(value.to_str().ok()?));
                match (named, reject_with) {
                    (Some(address), _) => return Ok((Some(address), *trusted)),
                    (None, Some(status)) => {
                        let details = "rejecting_because_detection_failed";
                        return Err(LocalReply::new(*status, ResponseFlags::default(), details));
                    }
                    (None, None) => {}
                }
            }
        }
    }
    Ok((None, false))
}

/// The last address of `x-forwarded-for` but `skip`, and whether it is the only one.
fn forwarded_address(headers: &HeaderMap, skip: usize) -> Option<(SocketAddr, bool)> {
    let value = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    let address = value.rsplit(',').nth(skip)?;
    Some((parse_address(address)?, skip == 0 && !value.contains(',')))
}

/// From the right, past those that are trusted; the leftmost if all are.
fn first_untrusted(
    headers: &HeaderMap,
    remote: SocketAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<(SocketAddr, bool)> {
    if !is_trusted(remote.ip()) {
        return None;
    }
    let value = headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
    let mut last = None;
    for text in value.rsplit(',') {
        let address = parse_address(text)?;
        last = Some((address, false));
        if !is_trusted(address.ip()) {
            break;
        }
    }
    last
}

/// With a port or without.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let bare = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse::<IpAddr>();
    bare().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

/// A caller on this machine is named by the machine's address: its own would mean something else to whoever reads it.
fn append_forwarded_for(headers: &mut HeaderMap, options: &CallerOptions, remote: IpAddr) {
    let address = if remote.is_loopback() { local_address() } else { remote };
    let text = match address {
        IpAddr::V4(ip) if options.ipv4_mapped => ip.to_ipv6_mapped().to_string(),
        ip => ip.to_string(),
    };
    let joined = match headers.get(X_FORWARDED_FOR) {
        Some(before) => [before.as_bytes(), b",", text.as_bytes()].concat(),
        None => text.into_bytes(),
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn address_value(ip: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&ip.to_string()).expect("an address is ASCII")
}

fn forwarded_proto(downstream: &Downstream) -> HeaderValue {
    HeaderValue::from_static(if downstream.tls.is_some() { "https" } else { "http" })
}

/// Takes from a caller what only our own may ask for.
fn distrust(headers: &mut HeaderMap, is_edge: bool, internal_only_headers: &[HeaderName]) {
    if is_edge {
        for name in EDGE_HEADERS {
            headers.remove(name);
        }
    }
    // Almost no request has one: most are told apart by the prefix that all of them share.
    if headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        for name in INTERNAL_HEADERS {
            headers.remove(name);
        }
    }
    for name in internal_only_headers {
        headers.remove(name);
    }
}

const EDGE_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

const INTERNAL_HEADERS: [HeaderName; 13] = [
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn the_last_address_but_so_many() {
        let found = |value: &str, skip| {
            forwarded_address(&forwarded(value), skip).map(|(address, is_single)| (address.ip().to_string(), is_single))
        };
        assert_eq!(found("1.1.1.1", 0), Some(("1.1.1.1".into(), true)));
        assert_eq!(found("1.1.1.1, 2.2.2.2", 0), Some(("2.2.2.2".into(), false)));
        assert_eq!(found("1.1.1.1, 2.2.2.2", 1), Some(("1.1.1.1".into(), false)));
        assert_eq!(found("1.1.1.1", 1), None);
        assert_eq!(found("unknown", 0), None);
        assert_eq!(found("::1", 0), Some(("::1".into(), true)));
    }

    #[test]
    fn trusted_proxies_are_passed_over() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let found = |value: &str, remote: &str| {
            let remote = SocketAddr::new(remote.parse().expect("an address"), 1);
            first_untrusted(&forwarded(value), remote, trusted).map(|(address, _)| address.ip().to_string())
        };
        assert_eq!(found("1.1.1.1, 10.0.0.1", "10.0.0.2").as_deref(), Some("1.1.1.1"));
        assert_eq!(found("10.0.0.3, 10.0.0.1", "10.0.0.2").as_deref(), Some("10.0.0.3"));
        assert_eq!(found("1.1.1.1", "9.9.9.9"), None);
    }
}
