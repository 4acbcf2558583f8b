use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;

fn certificate() -> CertificateDer<'static> {
    let pem = include_bytes!("../../../../tests/fixtures/tls/leaf.pem");
    CertificateDer::from_pem_slice(pem).unwrap()
}

#[test]
fn names_of_every_kind_are_read() {
    let certificate = certificate();
    assert_eq!(
        subject_alt_names(&certificate).unwrap(),
        [
            SubjectAltName::Dns("app.test"),
            SubjectAltName::Dns("*.wild.test"),
            SubjectAltName::IpAddress("10.0.0.1".parse().unwrap()),
            SubjectAltName::IpAddress("2001:db8::1".parse().unwrap()),
            SubjectAltName::Email("app@test"),
            SubjectAltName::Uri("spiffe://cluster.local/ns/default/sa/app"),
        ]
    );
}

#[test]
fn a_certificate_without_names_has_none() {
    let pem = include_bytes!("../../../../tests/fixtures/tls/ca.pem");
    let certificate = CertificateDer::from_pem_slice(pem).unwrap();
    assert_eq!(subject_alt_names(&certificate).unwrap(), []);
}

#[test]
fn a_cut_certificate_is_none() {
    let certificate = certificate();
    for length in 0..certificate.len() {
        assert_eq!(subject_alt_names(&certificate[..length]), None, "{length} bytes");
    }
}

#[test]
fn a_name_with_a_zero_byte_is_refused() {
    let mut bytes = certificate().to_vec();
    let at = bytes.windows(8).position(|window| window == b"app.test").unwrap();
    bytes[at + 3] = 0;
    assert_eq!(subject_alt_names(&bytes), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = subject_alt_names(&bytes);
    }

    /// Closer to the mark: a certificate with some bytes changed.
    #[test]
    fn no_damage_panics(changes in proptest::collection::vec((0_usize..512, proptest::num::u8::ANY), 1..8)) {
        let mut bytes = certificate().to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = subject_alt_names(&bytes);
    }
}
