//! Requests that ask for the bare connection: upgrades (RFC 9110 section 7.8) and CONNECT (section 9.3.6).
//!
//! Inside the proxy an upgrade has HTTP/1's form whatever the codecs on the two sides speak: `connection: upgrade` and
//! `upgrade: PROTOCOL`, answered by 101. The codec for HTTP/2 turns extended CONNECT (RFC 8441) into that form and back.
//! From the head of such a request on, its body is the caller's raw bytes; the body of a response that accepts is the
//! raw bytes of the other side. A response that does not accept is framed as any other.

use http::{HeaderMap, Method, StatusCode, header, request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    Upgrade,
    Connect,
}

impl Tunnel {
    pub fn requested_by(head: &request::Parts) -> Option<Tunnel> {
        if head.method == Method::CONNECT {
            Some(Tunnel::Connect)
        } else if is_upgrade(&head.headers) {
            Some(Tunnel::Upgrade)
        } else {
            None
        }
    }

    /// Whether a final response of this status opens the tunnel.
    pub fn is_accepted_by(self, status: StatusCode) -> bool {
        match self {
            Tunnel::Upgrade => status == StatusCode::SWITCHING_PROTOCOLS,
            Tunnel::Connect => status.is_success(),
        }
    }
}

/// `upgrade` counts only where `connection` nominates it (RFC 9110 section 7.8).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers.get_all(header::CONNECTION).iter().any(|value| has_token(value.as_bytes(), b"upgrade"))
}

/// RFC 6455 section 4.1.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && is_upgrade(headers)
}

/// Whether a comma-separated list names `token`, which is lower case.
pub fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(method: &str, headers: &[(&str, &str)]) -> Option<Tunnel> {
        let mut request = http::Request::builder().method(method).uri("a:1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Tunnel::requested_by(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn who_asks_for_a_tunnel_and_who_grants_it() {
        assert_eq!(requested("CONNECT", &[]), Some(Tunnel::Connect));
        let upgrade = requested("GET", &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade, Some(Tunnel::Upgrade));
        assert_eq!(requested("GET", &[("upgrade", "websocket")]), None);
        assert_eq!(requested("GET", &[("connection", "upgrade")]), None);
        assert!(Tunnel::Upgrade.is_accepted_by(StatusCode::SWITCHING_PROTOCOLS));
        assert!(!Tunnel::Upgrade.is_accepted_by(StatusCode::OK) && Tunnel::Connect.is_accepted_by(StatusCode::OK));
        assert!(!Tunnel::Connect.is_accepted_by(StatusCode::FOUND));
    }
}
