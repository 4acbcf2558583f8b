use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType,
};

use super::*;

fn web() -> Identity {
    Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn request_by(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
    request_by(&KeyPair::generate().unwrap(), change)
}

fn refusal(change: impl FnOnce(&mut CertificateParams)) -> RequestError {
    check(&request(change), &web()).unwrap_err()
}

#[test]
fn keys_of_all_kinds_are_taken_as_they_are() {
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let taken = check(&request_by(&key, |_| {}), &web()).unwrap();
        assert_eq!(taken.der_bytes(), key.der_bytes());
        check(&request_by(&key, |params| params.subject_alt_names = vec![uri(&web().to_string())]), &web()).unwrap();
    }
}

#[test]
fn another_name_than_the_proven_one_is_refused() {
    let own = || uri("spiffe://cluster.local/ns/shop/sa/web");
    for names in [
        vec![uri("spiffe://cluster.local/ns/shop/sa/admin")],
        vec![uri("spiffe://other.example/ns/shop/sa/web")],
        vec![own(), uri("spiffe://cluster.local/ns/shop/sa/admin")],
        vec![own(), own()],
        vec![own(), SanType::DnsName("reviews.shop".try_into().unwrap())],
        vec![SanType::DnsName("*".try_into().unwrap())],
        vec![SanType::DnsName("*.shop.svc.cluster.local".try_into().unwrap())],
        vec![SanType::IpAddress([10, 0, 0, 1].into())],
        vec![own(), SanType::IpAddress([10, 0, 0, 1].into())],
        vec![SanType::Rfc822Name("root@example.com".try_into().unwrap())],
    ] {
        let refused = refusal(|params| params.subject_alt_names.clone_from(&names));
        assert!(matches!(refused, RequestError::Name { .. }), "{names:?}: {refused}");
    }
}

#[test]
fn nobody_becomes_an_authority() {
    let unconstrained = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(refusal(|params| params.is_ca = unconstrained), RequestError::Authority);
    assert_eq!(refusal(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))), RequestError::Authority);
    assert_eq!(refusal(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]), RequestError::Authority);
    assert_eq!(refusal(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), RequestError::Authority);
    check(&request(|params| params.is_ca = IsCa::ExplicitNoCa), &web()).unwrap();
}

#[test]
fn uses_and_extensions_beyond_a_workload_s_are_refused() {
    let with_use = |purpose: ExtendedKeyUsagePurpose| {
        move |params: &mut CertificateParams| params.extended_key_usages = vec![purpose]
    };
    check(&request(with_use(ExtendedKeyUsagePurpose::ServerAuth)), &web()).unwrap();
    check(&request(with_use(ExtendedKeyUsagePurpose::ClientAuth)), &web()).unwrap();
    assert_eq!(refusal(with_use(ExtendedKeyUsagePurpose::CodeSigning)), RequestError::Use("code signing"));
    assert_eq!(refusal(with_use(ExtendedKeyUsagePurpose::Any)), RequestError::Use("any"));
    let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    let refused = refusal(|params| params.custom_extensions = vec![unknown]);
    assert!(matches!(refused, RequestError::Extension(_)), "{refused}");
}

#[test]
fn weak_keys_are_refused() {
    // Signed by keys that no library makes any more.
    for (name, weak) in [
        ("RSA of 1024 bits", include_str!("tests/rsa1024.pem")),
        ("RSA of 2048 bits and the exponent 3", include_str!("tests/rsa-exponent-3.pem")),
        ("an elliptic curve of 224 bits", include_str!("tests/secp224.pem")),
        ("another curve", include_str!("tests/secp256k1.pem")),
    ] {
        let refused = check(weak, &web()).unwrap_err();
        assert!(matches!(refused, RequestError::Key(_)), "{name}: {refused}");
    }
    let refused = check(include_str!("tests/sha1.pem"), &web()).unwrap_err();
    assert!(matches!(refused, RequestError::SignatureKind(_)), "{refused}");
}

#[test]
fn a_signature_has_to_be_of_the_key() {
    let pem = request(|_| {});
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    // In the key, and in the signature at the end.
    for position in [der.len() - 3, der.len() / 2] {
        let mut forged = der.to_vec();
        forged[position] ^= 1;
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &forged);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n");
        check(&forged, &web()).unwrap_err();
    }
    let mut longer = der.to_vec();
    longer.push(0);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &longer);
    let longer = format!("-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n");
    assert_eq!(check(&longer, &web()).unwrap_err(), RequestError::Form);
}

#[test]
fn what_is_no_request_is_refused() {
    let whole = request(|_| {});
    for text in ["", "x", &whole.repeat(2), &whole[..whole.len() / 2], &whole.replace("REQUEST", "PARAMS")] {
        assert_eq!(check(text, &web()).unwrap_err(), RequestError::Pem, "{text}");
    }
    let empty = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    assert_eq!(check(empty, &web()).unwrap_err(), RequestError::Form);
    assert_eq!(check(&"x".repeat(REQUEST_BYTES_MAX + 1), &web()).unwrap_err(), RequestError::Length);
}
