//! Extended CONNECT (RFC 8441) and the form that upgrades have inside the proxy (see `tunnel`): HTTP/2 says `:protocol`
//! where that has fields, and 200 where that has 101.

use http::{HeaderValue, StatusCode, header, request, response};

use crate::http::tunnel::is_upgrade;

/// The protocol that a request wants to go on with.
pub fn asked_of_upstream(head: &request::Parts) -> Option<&HeaderValue> {
    head.headers.get(header::UPGRADE).filter(|_| is_upgrade(&head.headers))
}

/// An upstream's answer to an upgrade.
pub fn accepted_by_upstream(head: &mut response::Parts, protocol: HeaderValue) {
    if head.status == StatusCode::OK {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
    }
}

/// The answer to a downstream's extended CONNECT. The fields about the upgrade are left out when it is encoded.
pub fn accepted_for_downstream(head: &mut response::Parts) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::OK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_asked_for_by_both_fields() {
        let head = |connection: &str| {
            let request = http::Request::get("/").header("upgrade", "websocket").header("connection", connection);
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(asked_of_upstream(&head("keep-alive, Upgrade")), Some(&HeaderValue::from_static("websocket")));
        assert_eq!(asked_of_upstream(&head("keep-alive")), None);
    }

    #[test]
    fn statuses_of_the_two_forms() {
        let response = |status: u16| http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        let mut head = response(200);
        accepted_by_upstream(&mut head, HeaderValue::from_static("websocket"));
        assert_eq!((head.status.as_u16(), &head.headers["upgrade"]), (101, &HeaderValue::from_static("websocket")));
        accepted_for_downstream(&mut head);
        assert_eq!(head.status.as_u16(), 200);
        let mut refused = response(403);
        accepted_by_upstream(&mut refused, HeaderValue::from_static("websocket"));
        assert_eq!((refused.status.as_u16(), refused.headers.len()), (403, 0));
    }
}
