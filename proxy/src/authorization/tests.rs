use super::*;
use crate::config::{authorization::Engines, testing::message};

fn engine(rules: &str) -> Engine {
    Engines::from_proto((Some(message(rules)), None), (None, None)).expect("rules").enforced.expect("an engine")
}

fn certificate() -> CertificateFacts {
    CertificateFacts {
        subject: "CN=c".into(),
        uri_names: vec!["spiffe://a/b".into(), "spiffe://a/c".into()],
        dns_names: vec!["d.test".into()],
        ..CertificateFacts::default()
    }
}

/// Decides about `GET /path` of 10.0.0.3, by way of 10.0.0.2, to 10.0.0.1:80.
fn decided(
    engine: &Engine,
    peer: Peer<'_>,
    headers: &[(&str, &str)],
) -> (bool, Option<String>, Option<(usize, usize)>) {
    let mut request = http::Request::get("/path?q");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let address = |text: &str| text.parse().expect("an address");
    let (destination, source) = (address("10.0.0.1:80"), address("10.0.0.2:4000"));
    let decision = engine.decide(&Facts {
        connection: ConnectionFacts {
            destination,
            server_name: Some("a.test"),
            transport_protocol: "tls",
            application_protocols: &[],
            direct_source: source.ip(),
            source,
        },
        source,
        direct_remote: source,
        remote: address("[::ffff:10.0.0.3]:0"),
        peer,
        tls: None,
        request: Some(&head),
        dynamic_metadata: None,
        route_metadata: None,
        filter_state: None,
    });
    (decision.is_allowed, decision.policy.map(|name| name.to_string()), decision.rules)
}

fn is_principal(rule: &str, peer: Peer<'_>) -> bool {
    let rules = format!("policies: {{p: {{permissions: [{{any: true}}], principals: [{rule}]}}}}");
    decided(&engine(&rules), peer, &[]).0
}

#[test]
fn a_decision_names_the_policy_and_its_rules() {
    let never = "{header: {name: x, string_match: {exact: never}}}";
    let engine = engine(&format!(
        "policies: {{a: {{permissions: [{never}], principals: [{{any: true}}]}}, b: {{permissions: [{never}, {{url_path: {{path: {{exact: \
         /path}}}}}}], principals: [{never}, {never}, {{any: true}}]}}, c: {{permissions: [{{any: true}}], principals: [{{any: true}}]}}}}"
    ));
    assert_eq!(decided(&engine, Peer::PlainText, &[]), (true, Some("b".into()), Some((1, 2))));
}

#[test]
fn actions_say_what_it_means_that_a_policy_holds() {
    let decision = |action: &str, value: &str| {
        let rules = format!(
            "action: {action}\npolicies: {{p: {{permissions: [{{header: {{name: x, string_match: {{exact: v}}}}}}], principals: [{{any: true}}]}}}}"
        );
        decided(&engine(&rules), Peer::PlainText, &[("x", value)]).0
    };
    assert!(decision("ALLOW", "v") && !decision("ALLOW", "w"));
    assert!(!decision("DENY", "v") && decision("DENY", "w"));
    assert!(decision("LOG", "v") && decision("LOG", "w"));
    assert!(
        !decided(&engine("action: ALLOW"), Peer::PlainText, &[]).0
            && decided(&engine("action: DENY"), Peer::PlainText, &[]).0
    );
}

#[test]
fn a_header_does_not_hide_behind_another() {
    let rules = "action: DENY\npolicies: {p: {permissions: [{header: {name: x, string_match: {exact: bad}}}], principals: [{any: true}]}}";
    let engine = engine(rules);
    for headers in [&[("x", "bad"), ("x", "good")][..], &[("x", "good"), ("x", "bad")], &[("X", "bad")]] {
        assert!(!decided(&engine, Peer::PlainText, headers).0, "{headers:?}");
    }
    assert!(decided(&engine, Peer::PlainText, &[("x", "good")]).0);
}

#[test]
fn peers_are_known_by_their_certificates() {
    let certificate = certificate();
    let shown = |is_validated| Peer::Tls { certificate: Some(&certificate), is_validated };
    let anonymous = Peer::Tls { certificate: None, is_validated: false };
    assert!(is_principal("{authenticated: {}}", anonymous) && !is_principal("{authenticated: {}}", Peer::PlainText));
    let named = |name: &str| format!("{{authenticated: {{principal_name: {{exact: '{name}'}}}}}}");
    for name in ["spiffe://a/b", "spiffe://a/c", "d.test", "CN=c"] {
        assert!(is_principal(&named(name), shown(true)), "{name}");
        assert!(!is_principal(&named(name), anonymous) && !is_principal(&named(name), Peer::PlainText), "{name}");
    }
    assert!(!is_principal(&named("spiffe://a/B"), shown(true)));
    let mtls = |fields: &str| {
        format!(
            "{{custom: {{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config, {fields}}}}}}}"
        )
    };
    let any = mtls("any_validated_client_certificate: true");
    assert!(is_principal(&any, shown(true)) && !is_principal(&any, shown(false)) && !is_principal(&any, anonymous));
    let one = mtls("san_matcher: {san_type: URI, matcher: {exact: 'spiffe://a/c'}}");
    assert!(is_principal(&one, shown(true)) && !is_principal(&one, shown(false)));
}

#[test]
fn addresses_are_told_apart() {
    for (rule, holds) in [
        ("{source_ip: {address_prefix: 10.0.0.2, prefix_len: 32}}", true),
        ("{direct_remote_ip: {address_prefix: 10.0.0.2, prefix_len: 32}}", true),
        ("{remote_ip: {address_prefix: 10.0.0.3, prefix_len: 32}}", true),
        ("{remote_ip: {address_prefix: 10.0.0.2, prefix_len: 32}}", false),
        ("{source_ip: {address_prefix: 10.0.0.3, prefix_len: 32}}", false),
    ] {
        assert_eq!(is_principal(rule, Peer::PlainText), holds, "{rule}");
    }
}
