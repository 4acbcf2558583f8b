//! `envoy.filters.http.stateful_session`: reads from the request which host its session belongs to, and tells the client
//! when it has become another.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Response, header};

use super::Passing;
use crate::{
    config::{
        http_filter::{RouteFilter, SessionState, StatefulSession},
        route::HashCookie,
    },
    http::{
        exchange::{Exchange, ResponseBody, SessionHost},
        host_selection::{cookie_value, set_cookie},
    },
    upstream::load_balancer::OverrideHost,
};

/// Of a request that has, or may get, a session.
pub(super) struct Pass {
    session: Arc<StatefulSession>,
    /// The host that was asked for.
    asked: Option<String>,
}

pub(super) fn request(name: &str, session: &Arc<StatefulSession>, passing: &Passing<'_>) -> Option<Pass> {
    let session = match super::override_of(passing.route, name) {
        Some(RouteFilter::StatefulSession(of_route)) => of_route.as_ref()?,
        _ => session,
    };
    let head = &passing.head;
    let asked = match session.state.as_ref()? {
        SessionState::Cookie(cookie) => {
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            if !is_below(path, &cookie.path) {
                return None;
            }
            cookie_value(&head.headers, &cookie.name).and_then(|value| of_cookie(value, now_s()))
        }
        SessionState::Header(name) => head.headers.get(name).and_then(of_header),
    };
    if let Some(address) = &asked {
        passing.exchange.override_host.replace(Some(SessionHost {
            host: OverrideHost { address: address.parse().ok(), strict: session.strict },
            status_without_host: session.status_without_host,
        }));
    }
    Some(Pass { session: session.clone(), asked })
}

pub(super) fn response(pass: &Pass, exchange: &Exchange, response: &mut Response<ResponseBody>) {
    let Some(host) = exchange.upstream_host.get().map(|host| host.to_string()) else { return };
    if pass.asked.as_deref() == Some(&host) {
        return;
    }
    let headers: &mut HeaderMap = response.headers_mut();
    match &pass.session.state {
        Some(SessionState::Cookie(cookie)) => {
            if let Ok(value) =
                HeaderValue::try_from(set_cookie(cookie, &STANDARD.encode(of_host(cookie, &host, now_s()))))
            {
                headers.append(header::SET_COOKIE, value);
            }
        }
        Some(SessionState::Header(name)) => {
            if let Ok(value) = HeaderValue::try_from(STANDARD.encode(&host)) {
                headers.insert(name, value);
            }
        }
        None => {}
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether a cookie of that path comes with a request (RFC 6265, section 5.1.4).
fn is_below(path: &str, of_cookie: &str) -> bool {
    if matches!(of_cookie, "" | "/") {
        return true;
    }
    match path.strip_prefix(of_cookie) {
        Some(rest) => of_cookie.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?', '#']),
        None => false,
    }
}

/// Envoy's message: an address, and when it is no longer good; older cookies are the address itself.
fn of_cookie(value: &str, now_s: u64) -> Option<String> {
    let bytes = STANDARD.decode(value).ok()?;
    let Some((address, expires_s)) = decoded(&bytes) else { return String::from_utf8(bytes).ok() };
    (expires_s == 0 || now_s <= expires_s).then_some(address)
}

fn of_header(value: &HeaderValue) -> Option<String> {
    String::from_utf8(STANDARD.decode(value).ok()?).ok()
}

fn of_host(cookie: &HashCookie, host: &str, now_s: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::string::encode(1, &host.to_owned(), &mut bytes);
    if let Some(ttl) = cookie.ttl {
        prost::encoding::uint64::encode(2, &(now_s + ttl.as_secs()), &mut bytes);
    }
    bytes
}

/// None: no such message.
fn decoded(mut bytes: &[u8]) -> Option<(String, u64)> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field, string};
    let (mut address, mut expires_s) = (String::new(), 0);
    while !bytes.is_empty() {
        match decode_key(&mut bytes).ok()? {
            (1, wire) => string::merge(wire, &mut address, &mut bytes, DecodeContext::default()).ok()?,
            (2, WireType::Varint) => expires_s = decode_varint(&mut bytes).ok()?,
            (tag, wire) => skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?,
        }
    }
    (!address.is_empty()).then_some((address, expires_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_name_the_host_until_they_expire() {
        let cookie = HashCookie {
            name: "c".into(),
            ttl: Some(std::time::Duration::from_secs(120)),
            path: String::new(),
            attributes: Vec::new(),
        };
        let value = STANDARD.encode(of_host(&cookie, "127.0.0.1:18012", 1_795_206_062 - 120));
        assert_eq!(value, "Cg8xMjcuMC4wLjE6MTgwMTIQrtyC2AY=", "as Envoy writes it");
        assert_eq!(of_cookie(&value, 1_795_206_062).as_deref(), Some("127.0.0.1:18012"));
        assert_eq!(of_cookie(&value, 1_795_206_063), None);
        assert_eq!(of_cookie(&STANDARD.encode("10.0.0.1:1"), 0).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(of_cookie("@@@", 0), None);
    }

    #[test]
    fn paths_lie_below_the_cookies() {
        assert!(is_below("/a", "") && is_below("/a", "/") && is_below("/a?b", "/a") && is_below("/a/b", "/a"));
        assert!(is_below("/a/b", "/a/") && !is_below("/ab", "/a") && !is_below("/", "/a"));
    }
}
