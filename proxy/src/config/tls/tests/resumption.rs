//! Which sessions are taken up again.

use rustls::HandshakeKind;

use super::*;

/// The second handshake of a client with a server.
fn second(first: &DownstreamTls, then: &DownstreamTls) -> HandshakeKind {
    let client = upstream("");
    handshake(first, &client).unwrap();
    let (server, _) = handshake(then, &client).unwrap();
    server.handshake_kind().expect("it is over")
}

fn resuming(fields: &str) -> DownstreamTls {
    downstream(&format!("tls_certificates: [{CERTIFICATE}]"), fields)
}

#[test]
fn sessions_are_resumed_but_where_that_is_off() {
    for fields in ["", "disable_stateful_session_resumption: true", "disable_stateless_session_resumption: true"] {
        let server = resuming(fields);
        assert_eq!(second(&server, &server), HandshakeKind::Resumed, "{fields}");
    }
    for fields in [
        "disable_stateful_session_resumption: true\ndisable_stateless_session_resumption: true",
        "session_timeout: 0s",
        "disable_stateful_session_resumption: true\nsession_timeout: 0s",
    ] {
        let server = resuming(fields);
        assert_ne!(second(&server, &server), HandshakeKind::Resumed, "{fields}");
    }
}

#[test]
fn keys_that_are_shared_open_each_others_tickets() {
    let keys = |seeds: &[&str]| {
        let keys: Vec<String> = seeds.iter().map(|seed| format!("{{inline_string: {}}}", seed.repeat(80))).collect();
        resuming(&format!("session_ticket_keys: {{keys: [{}]}}", keys.join(", ")))
    };
    assert_eq!(second(&keys(&["a"]), &keys(&["b", "a"])), HandshakeKind::Resumed);
    assert_ne!(second(&keys(&["a"]), &keys(&["b"])), HandshakeKind::Resumed);
    assert_ne!(second(&resuming(""), &resuming("")), HandshakeKind::Resumed);
}

#[test]
fn keys_come_as_secrets() {
    let server = resuming("session_ticket_keys_sds_secret_config: {name: tickets}");
    assert!(server.configs().is_none());
    let tickets = secret("tickets", &format!("session_ticket_keys: {{keys: [{{inline_string: {}}}]}}", "k".repeat(80)));
    server.refresh(&|_| Some(tickets.clone())).unwrap();
    assert_eq!(second(&server, &server), HandshakeKind::Resumed);
}
