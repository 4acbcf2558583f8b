//! Which certificate a client gets.

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A server with a certificate for each of these lists of names; and whose names a client gets that asks for one.
fn served(certificates: &[&[&str]], fields: &str, sni: Option<&str>) -> Vec<String> {
    let one = |names: &&[&str]| {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let name = names.first().map_or("common.test", |name| *name);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let chain = serde_json::to_string(&params.self_signed(&key).unwrap().pem()).unwrap();
        let key = serde_json::to_string(&key.serialize_pem()).unwrap();
        format!("{{certificate_chain: {{inline_string: {chain}}}, private_key: {{inline_string: {key}}}}}")
    };
    let certificates: Vec<String> = certificates.iter().map(one).collect();
    let server = downstream(&format!("tls_certificates: [{}]", certificates.join(", ")), fields);
    let client = UpstreamTls::from_proto(message(&sni.map_or("{}".to_owned(), |sni| format!("sni: {sni}")))).unwrap();
    let (_, client) = handshake(&server, &client).unwrap();
    let facts = crate::tls::CertificateFacts::parse(&client.peer_certificates().unwrap()[0]).unwrap();
    if facts.dns_names.is_empty() { facts.common_name.into_iter().collect() } else { facts.dns_names }
}

#[test]
fn certificates_go_by_the_name_that_is_asked_for() {
    let certificates: &[&[&str]] = &[&["a.test"], &["*.b.test"], &["x.b.test", "c.test"], &[]];
    for (sni, first_name) in [
        (Some("a.test"), "a.test"),
        (Some("A.Test"), "a.test"),
        (Some("y.b.test"), "*.b.test"),
        (Some("x.b.test"), "x.b.test"),
        (Some("deep.y.b.test"), "a.test"),
        (Some("c.test"), "x.b.test"),
        (Some("common.test"), "common.test"),
        (Some("nobody.test"), "a.test"),
        (None, "a.test"),
    ] {
        assert_eq!(served(certificates, "", sni)[0], first_name, "{sni:?}");
    }
}

#[test]
fn a_server_name_may_be_required() {
    let server = downstream(&format!("tls_certificates: [{CERTIFICATE}]"), "require_sni: true");
    handshake(&server, &upstream("")).unwrap();
    let unnamed = UpstreamTls::from_proto(message("{}")).unwrap();
    handshake(&server, &unnamed).map(|_| ()).unwrap_err();
}

#[test]
fn groups_suites_and_schemes_can_be_chosen() {
    let server = server(
        "tls_params: {tls_maximum_protocol_version: TLSv1_2, cipher_suites: ['[ECDHE-ECDSA-AES256-GCM-SHA384|\
         ECDHE-RSA-AES256-GCM-SHA384]'], ecdh_curves: [P-256], signature_algorithms: [ecdsa_secp256r1_sha256]}",
    );
    let (_, client) = handshake(&server, &upstream("")).unwrap();
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::secp256r1);
    let other = upstream("tls_params: {signature_algorithms: [ed25519]}");
    handshake(&server, &other).map(|_| ()).unwrap_err();
    handshake(&server, &upstream("tls_params: {ecdh_curves: [X25519]}")).map(|_| ()).unwrap_err();
    let (_, client) = handshake(&self::server(""), &upstream("")).unwrap();
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768, "the one that is safe from quantum computers is the default");
}
