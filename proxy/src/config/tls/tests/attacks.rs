//! Certificates that must not be believed, made for the purpose.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A chain and its key, in PEM.
struct Identity {
    chain: String,
    key: String,
}

const ID: &str = "spiffe://cluster.local/ns/a/sa/b";

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(name: &str) -> Authority {
    let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

fn intermediate(name: &str, of: &Authority) -> Authority {
    let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
    let pem = params.signed_by(&key, &of.issuer).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

fn workload(ids: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = ids.iter().map(|id| SanType::URI((*id).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(7));
    params
}

fn signed(params: &CertificateParams, by: &Authority) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity { chain: params.signed_by(&key, &by.issuer).unwrap().pem(), key: key.serialize_pem() }
}

fn quoted(pem: &str) -> String {
    serde_json::to_string(pem).unwrap()
}

fn certificate(identity: &Identity) -> String {
    let (chain, key) = (quoted(&identity.chain), quoted(&identity.key));
    format!("{{certificate_chain: {{inline_string: {chain}}}, private_key: {{inline_string: {key}}}}}")
}

fn trusted(authority: &Authority) -> String {
    format!("trusted_ca: {{inline_string: {}}}", quoted(&authority.pem))
}

/// Whether a client with this certificate gets in where clients have to show one that fits this context.
fn admits(validation: &str, identity: &Identity) -> bool {
    let server = downstream(
        &format!("tls_certificates: [{CERTIFICATE}], validation_context: {{{validation}}}"),
        "require_client_certificate: true",
    );
    handshake(&server, &upstream(&format!("tls_certificates: [{}]", certificate(identity)))).is_ok()
}

/// Whether a client believes a server with this certificate.
fn believes(validation: &str, identity: &Identity) -> bool {
    let server = downstream(&format!("tls_certificates: [{}]", certificate(identity)), "");
    handshake(&server, &upstream(&format!("validation_context: {{{validation}}}"))).is_ok()
}

fn spiffe(domains: &[(&str, &Authority)]) -> String {
    let domains: Vec<String> = domains
        .iter()
        .map(|(name, authority)| {
            format!("{{name: {name}, trust_bundle: {{inline_string: {}}}}}", quoted(&authority.pem))
        })
        .collect();
    format!(
        "custom_validator_config: {{name: spiffe, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [{}]}}}}",
        domains.join(", ")
    )
}

#[test]
fn a_sound_certificate_is_believed() {
    let root = authority("root");
    let names = format!("match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{ID}'}}}}]");
    for validation in [trusted(&root), format!("{}, {names}", trusted(&root)), spiffe(&[("cluster.local", &root)])] {
        assert!(admits(&validation, &signed(&workload(&[ID]), &root)), "{validation}");
        assert!(believes(&validation, &signed(&workload(&[ID]), &root)), "{validation}");
    }
}

#[test]
fn time_and_purpose_hold() {
    let root = authority("root");
    let mut expired = workload(&[ID]);
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2001, 1, 2);
    let mut not_yet = workload(&[ID]);
    not_yet.not_before = date_time_ymd(4000, 1, 1);
    let mut server_only = workload(&[ID]);
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut client_only = workload(&[ID]);
    client_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut for_code = workload(&[ID]);
    for_code.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let mut authority_as_leaf = authority_params("leaf");
    authority_as_leaf.subject_alt_names = workload(&[ID]).subject_alt_names;
    for validation in [trusted(&root), spiffe(&[("cluster.local", &root)])] {
        for params in [&expired, &not_yet, &server_only, &for_code, &authority_as_leaf] {
            assert!(!admits(&validation, &signed(params, &root)), "{params:?}");
        }
        for params in [&expired, &not_yet, &client_only, &for_code, &authority_as_leaf] {
            assert!(!believes(&validation, &signed(params, &root)), "{params:?}");
        }
    }
    let lenient = format!("{}, allow_expired_certificate: true", trusted(&root));
    assert!(admits(&lenient, &signed(&expired, &root)) && admits(&lenient, &signed(&not_yet, &root)));
    assert!(!admits(&lenient, &signed(&expired, &authority("root"))), "its signature has to hold all the same");
    assert!(!admits(&lenient, &signed(&server_only, &root)));
}

#[test]
fn names_and_trust_domains_hold() {
    let (root, other) = (authority("root"), authority("other"));
    let names = |id: &str| {
        format!("{}, match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{id}'}}}}]", trusted(&root))
    };
    for id in
        ["spiffe://cluster.local/ns/a/sa/c", "spiffe://Cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa/b/"]
    {
        assert!(!admits(&names(ID), &signed(&workload(&[id]), &root)), "{id}");
    }
    let mut dns = workload(&[]);
    dns.subject_alt_names = vec![SanType::DnsName(ID.try_into().unwrap())];
    assert!(!admits(&names(ID), &signed(&dns, &root)), "a DNS name is no URI");

    let both = spiffe(&[("cluster.local", &root), ("other.test", &other)]);
    let elsewhere = "spiffe://other.test/ns/a/sa/b";
    assert!(admits(&both, &signed(&workload(&[elsewhere]), &other)));
    for (ids, by) in [
        (&[elsewhere][..], &root),
        (&[ID], &other),
        (&["spiffe://third.test/ns/a/sa/b"], &root),
        (&["spiffe://CLUSTER.LOCAL/ns/a/sa/b"], &root),
        (&[ID, elsewhere], &root),
        (&[ID, ID], &root),
        (&["https://cluster.local/"], &root),
        (&[], &root),
    ] {
        assert!(!admits(&both, &signed(&workload(ids), by)), "{ids:?}");
        assert!(!believes(&both, &signed(&workload(ids), by)), "{ids:?}");
    }
    assert!(!admits(&names("spiffe://cluster.local"), &signed(&workload(&["spiffe://cluster.local\0/x"]), &root)));
}

#[test]
fn chains_have_to_be_whole_and_of_the_authority() {
    let root = authority("root");
    let middle = intermediate("middle", &root);
    let bare = signed(&workload(&[ID]), &middle);
    let whole = Identity { chain: format!("{}{}", bare.chain, middle.pem), key: bare.key.clone() };
    assert!(!admits(&trusted(&root), &bare) && admits(&trusted(&root), &whole));
    assert!(admits(&trusted(&middle), &bare), "an authority that is named needs nobody above it");
    let depth = |depth: u32| format!("{}, max_verify_depth: {depth}", trusted(&root));
    assert!(!admits(&depth(0), &whole) && admits(&depth(1), &whole));
    assert!(admits(&depth(0), &signed(&workload(&[ID]), &root)));

    let key = KeyPair::generate().unwrap();
    let alone = Identity { chain: workload(&[ID]).self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    assert!(!admits(&trusted(&root), &alone) && !admits(&trusted(&authority("root")), &whole));
    let itself = Authority { issuer: Issuer::new(workload(&[ID]), key), pem: alone.chain.clone() };
    assert!(admits(&trusted(&itself), &alone) && believes(&trusted(&itself), &alone), "it is trusted by itself");
    assert!(!admits(&trusted(&itself), &signed(&workload(&[ID]), &root)));
}

#[test]
fn revoked_certificates_are_refused() {
    let root = authority("root");
    let middle = intermediate("middle", &root);
    let list = |by: &Authority, serials: &[u64], year: i32| {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&by.issuer).unwrap().pem().unwrap()
    };
    let with = |lists: &[String], more: &str| {
        format!("{}, crl: {{inline_string: {}}}{more}", trusted(&root), quoted(&lists.concat()))
    };
    let leaf = signed(&workload(&[ID]), &root);
    assert!(admits(&with(&[list(&root, &[8], 4000)], ""), &leaf));
    assert!(!admits(&with(&[list(&root, &[7], 4000)], ""), &leaf), "revoked");
    assert!(!believes(&with(&[list(&root, &[7], 4000)], ""), &leaf), "revoked");
    assert!(!admits(&with(&[list(&root, &[8], 2021)], ""), &leaf), "the list is too old");
    assert!(!admits(&with(&[list(&authority("root"), &[8], 4000)], ""), &leaf), "somebody else's list");
    let below = signed(&workload(&[ID]), &middle);
    let below = Identity { chain: format!("{}{}", below.chain, middle.pem), key: below.key };
    let of_middle = list(&middle, &[8], 4000);
    assert!(!admits(&with(std::slice::from_ref(&of_middle), ""), &below), "the intermediate's state is not known");
    assert!(admits(&with(std::slice::from_ref(&of_middle), ", only_verify_leaf_cert_crl: true"), &below));
    assert!(admits(&with(&[of_middle, list(&root, &[8], 4000)], ""), &below));
}

#[test]
fn pins_hold() {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use rustls::pki_types::pem::PemObject as _;

    let root = authority("root");
    let (known, other) = (signed(&workload(&[ID]), &root), signed(&workload(&[ID]), &root));
    let der = rustls::pki_types::CertificateDer::from_pem_slice(known.chain.as_bytes()).unwrap();
    let bytes: Vec<String> = digest(&SHA256, &der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let facts = crate::tls::CertificateFacts::parse(&der).unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, &facts.public_key_info));
    for pin in [
        format!("verify_certificate_hash: ['{}']", bytes.join(":")),
        format!("verify_certificate_hash: ['{}']", bytes.concat().to_lowercase()),
        format!("verify_certificate_spki: ['{key}']"),
        format!("verify_certificate_spki: ['{key}'], verify_certificate_hash: ['{}']", "00".repeat(32)),
    ] {
        for validation in [pin.clone(), format!("{}, {pin}", trusted(&root))] {
            assert!(admits(&validation, &known) && !admits(&validation, &other), "{validation}");
            assert!(believes(&validation, &known) && !believes(&validation, &other), "{validation}");
        }
        assert!(!admits(&format!("{}, {pin}", trusted(&authority("root"))), &known), "a pin is not instead of a chain");
    }
}

#[test]
fn whoever_comes_may_come_where_that_is_said() {
    let root = authority("root");
    let lenient = format!("{}, trust_chain_verification: ACCEPT_UNTRUSTED", trusted(&root));
    let stranger = signed(&workload(&[ID]), &authority("other"));
    assert!(admits(&lenient, &stranger) && believes(&lenient, &stranger));
    let judged = |validation: &str, identity: &Identity| {
        let validation =
            PeerValidation::from_proto(message(&validation.replacen(", ", "\n", 1)), None).unwrap().unwrap();
        let pem = identity.chain.as_bytes();
        let leaf = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem);
        validation.is_trusted(&leaf.unwrap(), &[], rustls::pki_types::UnixTime::now())
    };
    assert!(!judged(&lenient, &stranger) && judged(&lenient, &signed(&workload(&[ID]), &root)));
}

#[test]
fn versions_are_not_talked_down() {
    let server = server("tls_params: {tls_minimum_protocol_version: TLSv1_3}");
    let old = upstream("tls_params: {tls_maximum_protocol_version: TLSv1_2}");
    handshake(&server, &old).map(|_| ()).unwrap_err();
}

#[test]
fn a_key_that_is_not_for_signatures_does_not_sign_handshakes() {
    let root = authority("root");
    let mut params = workload(&[ID]);
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    assert!(!believes(&trusted(&root), &signed(&params, &root)));
}

#[test]
fn the_servers_name_is_checked_where_that_is_asked_for() {
    let root = authority("root");
    let mut params = workload(&[ID]);
    params.subject_alt_names.push(SanType::DnsName("app.test".try_into().unwrap()));
    let validation = format!("validation_context: {{{}}}", trusted(&root));
    let client = |sni: &str| {
        let fields = format!("sni: {sni}\nauto_sni_san_validation: true\ncommon_tls_context: {{{validation}}}");
        UpstreamTls::from_proto(message(&fields)).unwrap()
    };
    let server = downstream(&format!("tls_certificates: [{}]", certificate(&signed(&params, &root))), "");
    assert!(handshake(&server, &client("app.test")).is_ok() && handshake(&server, &client("b.test")).is_err());
}

#[test]
fn names_of_other_types_are_matched() {
    let root = authority("root");
    let mut params = workload(&[ID]);
    let type_id = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    params
        .subject_alt_names
        .push(SanType::OtherName((type_id, rcgen::OtherNameValue::Utf8String("user@realm".into()))));
    let names = |oid: &str, name: &str| {
        let matcher = format!("{{san_type: OTHER_NAME, oid: {oid}, matcher: {{exact: {name}}}}}");
        format!("{}, match_typed_subject_alt_names: [{matcher}]", trusted(&root))
    };
    let leaf = signed(&params, &root);
    assert!(admits(&names("1.3.6.1.4.1.311.20.2.3", "user@realm"), &leaf));
    assert!(!admits(&names("1.3.6.1.4.1.311.20.2.4", "user@realm"), &leaf));
    assert!(!admits(&names("1.3.6.1.4.1.311.20.2.3", "other@realm"), &leaf));
}
