use rustls::{ClientConnection, Connection, pki_types::ServerName, server::Acceptor};

mod attacks;
mod resumption;
mod selection;

use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const CERTIFICATE: &str = "{certificate_chain: {filename: tests/fixtures/tls/leaf.pem}, \
    private_key: {filename: tests/fixtures/tls/leaf.key}}";
const OTHER: &str = "{certificate_chain: {filename: tests/fixtures/tls/other.pem}, \
    private_key: {filename: tests/fixtures/tls/other.key}}";
const CA: &str = "trusted_ca: {filename: tests/fixtures/tls/ca.pem}";

fn downstream(common: &str, fields: &str) -> DownstreamTls {
    DownstreamTls::from_proto(message(&format!("common_tls_context: {{{common}}}\n{fields}"))).unwrap()
}

fn server(common: &str) -> DownstreamTls {
    downstream(&format!("tls_certificates: [{CERTIFICATE}], {common}"), "")
}

/// One that wants certificates of ours.
fn strict_server() -> DownstreamTls {
    downstream(
        &format!("tls_certificates: [{CERTIFICATE}], validation_context: {{{CA}}}"),
        "require_client_certificate: true",
    )
}

fn upstream(common: &str) -> UpstreamTls {
    UpstreamTls::from_proto(message(&format!("sni: app.test\ncommon_tls_context: {{{common}}}"))).unwrap()
}

fn names(matcher: &str) -> UpstreamTls {
    upstream(&format!("validation_context: {{{CA}, match_typed_subject_alt_names: [{matcher}]}}"))
}

/// Both ends of a connection without a network in between.
fn handshake(server: &DownstreamTls, client: &UpstreamTls) -> Result<(Connection, Connection), rustls::Error> {
    let name = client.server_name("").unwrap_or_else(|| ServerName::from(std::net::Ipv4Addr::LOCALHOST));
    let mut client = Connection::from(ClientConnection::new(client.config().expect("complete"), name)?);
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes everything");
    acceptor.read_tls(&mut &hello[..]).expect("a slice gives everything");
    let accepted = acceptor.accept().map_err(|(error, _)| error)?.expect("a whole hello");
    let configs = server.configs().expect("complete");
    let no_name = || rustls::Error::General("no server name".into());
    let choice = configs.choose(&accepted.client_hello()).ok_or_else(no_name)?;
    let server = accepted.into_connection(choice.config.clone()).map_err(|(error, _)| error)?;
    let mut server = Connection::from(server);
    for _ in 0..8 {
        carry(&mut server, &mut client)?;
        carry(&mut client, &mut server)?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok((server, client))
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("a vector takes everything");
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("a slice gives everything");
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn both_sides_prove_who_they_are() {
    let client = upstream(&format!(
        "alpn_protocols: [h2], tls_certificates: [{CERTIFICATE}], validation_context: {{{CA}, match_typed_subject_alt_names: \
         [{{san_type: URI, matcher: {{exact: 'spiffe://cluster.local/ns/default/sa/app'}}}}]}}"
    ));
    let server = downstream(
        &format!("alpn_protocols: [h2, http/1.1], tls_certificates: [{CERTIFICATE}], validation_context: {{{CA}}}"),
        "require_client_certificate: true",
    );
    let (server, client) = handshake(&server, &client).unwrap();
    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn the_name_of_a_server_is_not_what_it_is_known_by() {
    let unnamed =
        UpstreamTls::from_proto(message(&format!("common_tls_context: {{validation_context: {{{CA}}}}}"))).unwrap();
    assert!(unnamed.server_name("").is_none());
    handshake(&server(""), &unnamed).unwrap();
    let misnamed = UpstreamTls::from_proto(message(&format!(
        "sni: outbound_.80_._.elsewhere.test\ncommon_tls_context: {{validation_context: {{{CA}}}}}"
    )))
    .unwrap();
    handshake(&server(""), &misnamed).unwrap();
}

#[test]
fn subject_alternative_names_decide() {
    for matcher in [
        "{san_type: URI, matcher: {prefix: 'spiffe://cluster.local/'}}",
        "{san_type: URI, matcher: {suffix: /sa/app}}",
        "{san_type: URI, matcher: {contains: /ns/default/}}",
        "{san_type: URI, matcher: {safe_regex: {regex: 'spiffe://[^/]+/ns/.*'}}}",
        "{san_type: DNS, matcher: {exact: APP.test}}",
        "{san_type: DNS, matcher: {exact: any.wild.test}}",
        "{san_type: EMAIL, matcher: {exact: app@test}}",
        "{san_type: IP_ADDRESS, matcher: {exact: 10.0.0.1}}",
        "{san_type: IP_ADDRESS, matcher: {exact: '2001:db8::1'}}",
        "{san_type: URI, matcher: {exact: nobody}}, {san_type: DNS, matcher: {exact: app.test}}",
    ] {
        handshake(&server(""), &names(matcher)).unwrap_or_else(|error| panic!("{matcher}: {error}"));
    }
    for matcher in [
        "{san_type: URI, matcher: {exact: 'spiffe://cluster.local/ns/default/sa/ap'}}",
        "{san_type: URI, matcher: {exact: app.test}}",
        "{san_type: DNS, matcher: {exact: deep.any.wild.test}}",
        "{san_type: DNS, matcher: {exact: wild.test}}",
        "{san_type: EMAIL, matcher: {prefix: spiffe}}",
        "{san_type: IP_ADDRESS, matcher: {exact: 10.0.0.2}}",
    ] {
        let error = handshake(&server(""), &names(matcher)).map(|_| ()).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{matcher}: {error}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_not_believed() {
    let foreign = downstream(&format!("tls_certificates: [{OTHER}]"), "");
    let checking = upstream(&format!("validation_context: {{{CA}}}"));
    handshake(&foreign, &checking).map(|_| ()).unwrap_err();
    // Without a validation context no certificate is looked at.
    handshake(&foreign, &upstream("")).unwrap();
    handshake(&foreign, &upstream("validation_context: {}")).unwrap();
}

#[test]
fn clients_are_asked_for_a_certificate_when_there_is_a_way_to_judge_it() {
    let anonymous = upstream("");
    let ours = upstream(&format!("tls_certificates: [{CERTIFICATE}]"));
    let foreign = upstream(&format!("tls_certificates: [{OTHER}]"));
    handshake(&strict_server(), &ours).unwrap();
    handshake(&strict_server(), &anonymous).map(|_| ()).unwrap_err();
    handshake(&strict_server(), &foreign).map(|_| ()).unwrap_err();

    let optional = server(&format!("validation_context: {{{CA}}}"));
    handshake(&optional, &anonymous).unwrap();
    handshake(&optional, &foreign).map(|_| ()).unwrap_err();

    let named = server(&format!(
        "validation_context: {{{CA}, suppress_client_ca_list: true, match_typed_subject_alt_names: \
         [{{san_type: URI, matcher: {{exact: nobody}}}}]}}"
    ));
    handshake(&named, &ours).map(|_| ()).unwrap_err();

    let (unasked, _) = handshake(&server(""), &ours).unwrap();
    assert!(unasked.peer_certificates().is_none());
}

#[test]
fn versions_are_kept_to() {
    let old = server("tls_params: {tls_maximum_protocol_version: TLSv1_2}");
    let (_, client) = handshake(&old, &upstream("")).unwrap();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let new = upstream("tls_params: {tls_minimum_protocol_version: TLSv1_3}");
    handshake(&old, &new).map(|_| ()).unwrap_err();
}

#[test]
fn sessions_may_be_forbidden() {
    for fields in [
        "disable_stateful_session_resumption: true",
        "disable_stateful_session_resumption: true\ndisable_stateless_session_resumption: true",
    ] {
        let server = downstream(&format!("tls_certificates: [{CERTIFICATE}]"), fields);
        handshake(&server, &upstream("")).unwrap();
    }
    let tls = downstream(&format!("tls_certificates: [{CERTIFICATE}]"), "disable_stateless_session_resumption: true");
    let configs = tls.configs().expect("complete");
    assert!(configs.only().expect("one certificate").config.session_storage.can_cache());
}

#[test]
fn a_store_of_sessions_is_bounded() {
    let tls = UpstreamTls::from_proto(message("max_session_keys: 4294967295")).unwrap();
    handshake(&server(""), &tls).unwrap();
}

#[test]
fn private_keys_are_not_printed() {
    assert_eq!(format!("{:?}", server("")), "DownstreamTls");
    assert_eq!(format!("{:?}", upstream(&format!("tls_certificates: [{CERTIFICATE}]"))), "UpstreamTls");
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let of = |certificate: &str| {
        let yaml = format!("common_tls_context: {{tls_certificates: [{certificate}]}}");
        refusal(DownstreamTls::from_proto(json::from_yaml(&yaml).unwrap()))
    };
    let path = "common_tls_context.tls_certificates[0]";
    let mismatch = "{certificate_chain: {filename: tests/fixtures/tls/leaf.pem}, \
        private_key: {filename: tests/fixtures/tls/other.key}}";
    assert!(of(mismatch).starts_with(&format!("{path}: ")), "{}", of(mismatch));
    assert_eq!(
        of("{certificate_chain: {filename: tests/fixtures/tls/none.pem}}"),
        format!(
            "{path}.certificate_chain.filename: cannot read tests/fixtures/tls/none.pem: No such file or directory (os error 2)"
        )
    );
    assert_eq!(
        of("{certificate_chain: {filename: tests/fixtures/tls/leaf.pem}}"),
        format!("{path}.private_key: value is required")
    );
    assert_eq!(
        of("{certificate_chain: {inline_string: secret}, private_key: {inline_string: secret}}"),
        format!("{path}.certificate_chain: no certificate in PEM found")
    );
    assert_eq!(
        of("{certificate_chain: {filename: tests/fixtures/tls/leaf.pem}, private_key: {inline_string: secret}}"),
        format!("{path}.private_key: no unencrypted private key in PEM found")
    );
    for line in [
        "pkcs12: {}",
        "private_key_provider: {provider_name: x}",
        "password: {}",
        "ocsp_staple: {}",
        "signed_certificate_timestamp: [{}]",
        "tls_params: {}",
    ] {
        let (field, _) = line.split_once(':').unwrap();
        assert_eq!(of(&format!("{{{line}}}")), format!("{path}.{field}: not supported"));
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    let base = format!("common_tls_context: {{tls_certificates: [{CERTIFICATE}]}}");
    assert_unsupported(&base, DownstreamTls::from_proto, &["ocsp_staple_policy: MUST_STAPLE"]);
    assert_refused(
        &base,
        DownstreamTls::from_proto,
        &[
            (
                "session_ticket_keys: {keys: [{inline_string: x}]}",
                "session_ticket_keys.keys[0]: 80 bytes are required, there are 1",
            ),
            (
                "require_client_certificate: true",
                "require_client_certificate: a validation_context with trusted_ca is required",
            ),
        ],
    );
    assert_eq!(
        refusal(DownstreamTls::from_proto(message("{}"))),
        "common_tls_context.tls_certificates: a server needs a certificate"
    );
    assert_unsupported("max_session_keys: 0", UpstreamTls::from_proto, &["allow_renegotiation: true"]);
    assert_refused(
        "max_session_keys: 0",
        UpstreamTls::from_proto,
        &[
            ("sni: 1.2.3.4", "sni: not a DNS name"),
            ("sni: a b", "sni: not a DNS name"),
            (
                "auto_sni_san_validation: true",
                "auto_sni_san_validation: auto_sni_san_validation was configured without configuring a validation context",
            ),
        ],
    );
}

#[test]
fn what_contexts_do_not_do_is_refused() {
    for (fields, expected) in [
        (
            "tls_certificate_sds_secret_configs: [{name: x}, {name: y}]",
            "tls_certificates: a client has one certificate",
        ),
        (
            "tls_certificate_sds_secret_configs: [{name: x, sds_config: {self: {}}}]",
            "tls_certificate_sds_secret_configs[0].sds_config.self: not supported",
        ),
        ("tls_certificate_provider_instance: {}", "tls_certificate_provider_instance: not supported"),
        ("custom_tls_certificate_selector: {}", "custom_tls_certificate_selector: not supported"),
        ("custom_handshaker: {}", "custom_handshaker: not supported"),
        ("key_log: {path: x}", "key_log: not supported"),
        ("alpn_protocols: [h2, '']", "alpn_protocols[1]: the length must be 1 to 255 bytes"),
        (
            "tls_params: {cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA]}",
            "tls_params.cipher_suites[1]: AES128-SHA is not supported",
        ),
        ("tls_params: {ecdh_curves: [P-521]}", "tls_params.ecdh_curves[0]: P-521 is not supported"),
        (
            "tls_params: {signature_algorithms: [rsa_pkcs1_sha1]}",
            "tls_params.signature_algorithms[0]: rsa_pkcs1_sha1 is not supported",
        ),
        ("tls_params: {compliance_policies: [FIPS_202205]}", "tls_params.compliance_policies: not supported"),
        (
            "tls_params: {tls_minimum_protocol_version: TLSv1_0}",
            "tls_params.tls_minimum_protocol_version: TLSv1_0 is not supported",
        ),
        (
            "tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}",
            "tls_params.tls_maximum_protocol_version: less than tls_minimum_protocol_version",
        ),
        ("validation_context: {system_root_certs: {}}", "validation_context.system_root_certs: not supported"),
        (
            "validation_context: {ca_certificate_provider_instance: {}}",
            "validation_context.ca_certificate_provider_instance: not supported",
        ),
        (
            "validation_context: {verify_certificate_spki: ['%']}",
            "validation_context.verify_certificate_spki[0]: Invalid base64-encoded SHA-256",
        ),
        (
            "validation_context: {verify_certificate_hash: [x]}",
            "validation_context.verify_certificate_hash[0]: Invalid hex-encoded SHA-256",
        ),
        (
            "validation_context: {match_subject_alt_names: [{}]}",
            "validation_context.match_subject_alt_names: not supported",
        ),
        (
            "validation_context: {crl: {inline_string: x}}",
            "validation_context.crl: Failed to load CRL: trusted_ca is required",
        ),
        (
            "validation_context: {trusted_ca: {filename: tests/fixtures/tls/ca.pem}, crl: {inline_string: x}}",
            "validation_context.crl: no CRL in PEM found",
        ),
        (
            "validation_context: {only_verify_leaf_cert_crl: true}",
            "validation_context.only_verify_leaf_cert_crl: means nothing without crl",
        ),
        (
            "validation_context: {custom_validator_config: {name: x}}",
            "validation_context.custom_validator_config.typed_config: value is required",
        ),
        (
            "validation_context: {require_signed_certificate_timestamp: true}",
            "validation_context.require_signed_certificate_timestamp: true is not supported",
        ),
        (
            "validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: x}}]}",
            "validation_context.match_typed_subject_alt_names: names mean nothing without trusted_ca",
        ),
        (
            "validation_context: {match_typed_subject_alt_names: [{san_type: OTHER_NAME, matcher: {exact: x}}]}",
            "validation_context.match_typed_subject_alt_names[0].oid: not an object identifier",
        ),
        (
            "validation_context: {trusted_ca: {inline_string: xx}}",
            "validation_context.trusted_ca: no certificate in PEM found",
        ),
    ] {
        let yaml = format!("common_tls_context: {{{fields}}}");
        let error = refusal(UpstreamTls::from_proto(json::from_yaml(&yaml).unwrap()));
        assert_eq!(error, format!("common_tls_context.{expected}"));
    }
}

fn secret(name: &str, fields: &str) -> Arc<Secret> {
    Arc::new(Secret::from_proto(message(&format!("name: {name}\n{fields}"))).unwrap())
}

#[test]
fn secrets_complete_a_context_and_renew_it() {
    let named = "tls_certificate_sds_secret_configs: [{name: own}], combined_validation_context: \
        {default_validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: app.test}}]}, \
        validation_context_sds_secret_config: {name: roots}}";
    let client = upstream(named);
    let names: Vec<&str> = client.secrets().map(|secret| &*secret.key.name).collect();
    assert_eq!(names, ["own", "roots"]);
    let own = secret("own", &format!("tls_certificate: {CERTIFICATE}"));
    let roots = secret("roots", &format!("validation_context: {{{CA}}}"));
    assert_eq!(own.files.len(), 2);
    client.refresh(&|key| (&*key.name == "own").then(|| own.clone())).unwrap();
    assert!(client.config().is_none(), "the roots are missing");
    let find = |key: &ResourceKey| Some(if &*key.name == "own" { own.clone() } else { roots.clone() });
    client.refresh(&find).unwrap();
    handshake(&strict_server(), &client).unwrap();
    // The names that the context itself asks for hold beside the secret's roots.
    let foreign = downstream(&format!("tls_certificates: [{OTHER}]"), "");
    handshake(&foreign, &client).map(|_| ()).unwrap_err();

    let server = downstream("tls_certificate_sds_secret_configs: [{name: own}]", "");
    assert!(server.configs().is_none());
    server.refresh(&find).unwrap();
    handshake(&server, &client).unwrap();
    let renewed = secret("own", &format!("tls_certificate: {OTHER}"));
    assert_ne!(renewed.hash, own.hash);
    server.refresh(&|_| Some(renewed.clone())).unwrap();
    handshake(&server, &client).map(|_| ()).unwrap_err();
    // A secret of another kind changes nothing.
    server.refresh(&|_| Some(roots.clone())).unwrap_err();
    assert!(server.configs().is_some());
}

#[test]
fn secrets_that_are_none_are_refused() {
    for (fields, expected) in [
        ("generic_secret: {secret: {inline_string: x}}", "generic_secret: not supported"),
        (
            "session_ticket_keys: {keys: [{inline_string: x}]}",
            "session_ticket_keys.keys[0]: 80 bytes are required, there are 1",
        ),
        (
            "tls_certificate: {certificate_chain: {inline_string: x}, private_key: {inline_string: y}}",
            "tls_certificate.certificate_chain: no certificate in PEM found",
        ),
        (
            "validation_context: {trusted_ca: {filename: /none}}",
            "validation_context.trusted_ca.filename: cannot read /none: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(refusal(Secret::from_proto(message(&format!("name: x\n{fields}")))), expected, "{fields}");
    }
    let error = Secret::from_proto(message(
        "name: x\ntls_certificate: {certificate_chain: {filename: tests/fixtures/tls/leaf.pem}, private_key: {filename: \
         tests/fixtures/tls/other.key}}",
    ));
    assert!(refusal(error).starts_with("tls_certificate: "));
}
