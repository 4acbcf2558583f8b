//! What an X.509 certificate says of its holder (RFC 5280), worded as Envoy words it.
//!
//! The bytes may come from a peer. A certificate that cannot be read gives `None`; a name with a zero byte in it, which has
//! fooled many a matcher, or one that is not of its type's alphabet makes the whole certificate unreadable.

use std::net::IpAddr;

use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::{FromDer as _, ParsedExtension},
};

use super::distinguished_name;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// As RFC 2253 writes names: the most specific first.
    pub subject: String,
    pub issuer: String,
    /// The most specific common name.
    pub common_name: Option<String>,
    /// In hexadecimal digits.
    pub serial: String,
    pub uri_names: Vec<String>,
    pub dns_names: Vec<String>,
    pub email_names: Vec<String>,
    pub ip_names: Vec<IpAddr>,
    pub other_names: Vec<OtherName>,
    /// Seconds since 1970.
    pub not_before_s: i64,
    pub not_after_s: i64,
    pub is_ca: bool,
    /// May sign certificates or lists of revoked ones, by its key usage.
    pub may_certify: bool,
    /// May sign handshakes; a certificate that says nothing of its key's usage may.
    pub may_sign: bool,
    /// By its extended key usage; without one, for both.
    pub is_for_servers: bool,
    pub is_for_clients: bool,
    /// The SubjectPublicKeyInfo as it stands.
    pub public_key_info: Vec<u8>,
}

/// RFC 5280, section 4.2.1.6: a name of a type that its object identifier gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherName {
    /// Such as `1.3.6.1.4.1.311.20.2.3`.
    pub type_id: String,
    pub value: String,
}

impl CertificateFacts {
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let usage = certificate.key_usage().ok()?.map(|usage| usage.value);
        let purposes = certificate.extended_key_usage().ok()?.map(|purposes| purposes.value);
        let mut facts = Self {
            subject: distinguished_name::write(certificate.subject())?,
            issuer: distinguished_name::write(certificate.issuer())?,
            common_name: distinguished_name::common_name(certificate.subject()),
            serial: serial(certificate.raw_serial()),
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
            is_ca: certificate.basic_constraints().ok()?.is_some_and(|constraints| constraints.value.ca),
            may_certify: usage.is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()),
            may_sign: usage.is_none_or(|usage| usage.digital_signature()),
            is_for_servers: purposes.is_none_or(|purposes| purposes.any || purposes.server_auth),
            is_for_clients: purposes.is_none_or(|purposes| purposes.any || purposes.client_auth),
            public_key_info: certificate.public_key().raw.to_vec(),
            ..Self::default()
        };
        facts.read_alternative_names(&certificate)?;
        Some(facts)
    }

    fn read_alternative_names(&mut self, certificate: &X509Certificate<'_>) -> Option<()> {
        let Some(extension) = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME).ok()? else {
            return Some(());
        };
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { return None };
        for name in &names.general_names {
            match name {
                GeneralName::URI(name) => self.uri_names.push(ia5(name)?),
                GeneralName::DNSName(name) => self.dns_names.push(ia5(name)?),
                GeneralName::RFC822Name(name) => self.email_names.push(ia5(name)?),
                GeneralName::IPAddress(bytes) => self.ip_names.push(ip_address(bytes)?),
                GeneralName::OtherName(type_id, value) => {
                    let value = other_name(value)?;
                    self.other_names.push(OtherName { type_id: type_id.to_id_string(), value });
                }
                // No matcher and no log has these.
                GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::RegisteredID(_) => {}
                GeneralName::Invalid(..) => return None,
            }
        }
        Some(())
    }
}

/// An IA5String (RFC 5280, section 4.2.1.6) without zero bytes.
fn ia5(text: &str) -> Option<String> {
    (text.is_ascii() && !text.contains('\0')).then(|| text.to_owned())
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The text within `[0] EXPLICIT`; a value that is not text is empty, and matches nothing that names one.
fn other_name(explicit: &[u8]) -> Option<String> {
    let (_, outer) = x509_parser::der_parser::asn1_rs::Any::from_der(explicit).ok()?;
    let Ok((_, inner)) = x509_parser::der_parser::asn1_rs::Any::from_der(outer.data) else {
        return Some(String::new());
    };
    let text = std::str::from_utf8(inner.data).unwrap_or_default();
    (!text.contains('\0')).then(|| text.to_owned())
}

/// Without the zero that only keeps the number positive.
fn serial(bytes: &[u8]) -> String {
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    hex(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn facts(names: Vec<SanType>) -> Option<CertificateFacts> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "XK");
        params.distinguished_name.push(DnType::OrganizationName, "Weft, Inc");
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.serial_number = Some(vec![0x01, 0xab].into());
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateFacts::parse(certificate.der())
    }

    fn text(text: &str) -> Ia5String {
        text.try_into().unwrap()
    }

    #[test]
    fn a_certificate_says_whose_it_is() {
        let names = vec![
            SanType::URI(text("spiffe://a/ns/b/sa/c")),
            SanType::DnsName(text("a.test")),
            SanType::DnsName(text("*.b.test")),
            SanType::Rfc822Name(text("x@a.test")),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::OtherName((vec![1, 3, 6, 1], rcgen::OtherNameValue::Utf8String("user@realm".into()))),
        ];
        let facts = facts(names).expect("a certificate");
        assert_eq!((&*facts.subject, &*facts.issuer), ("CN=leaf,O=Weft\\, Inc,C=XK", "CN=leaf,O=Weft\\, Inc,C=XK"));
        assert_eq!((facts.common_name.as_deref(), &*facts.serial), (Some("leaf"), "01ab"));
        assert_eq!(facts.uri_names, ["spiffe://a/ns/b/sa/c"]);
        assert_eq!((facts.dns_names.len(), &*facts.email_names[0]), (2, "x@a.test"));
        assert_eq!(facts.ip_names, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(facts.other_names, [OtherName { type_id: "1.3.6.1".into(), value: "user@realm".into() }]);
        assert!(!facts.is_ca && facts.not_before_s < facts.not_after_s);
    }

    #[test]
    fn a_zero_byte_in_a_name_and_a_cut_certificate_are_refused() {
        assert_eq!(facts(vec![SanType::DnsName(text("a.test\0.evil.test"))]), None);
        assert_eq!(facts(vec![SanType::URI(text("spiffe://a\0b/c"))]), None);
        let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        assert!(CertificateFacts::parse(der).is_some());
        for length in 0..der.len() {
            assert_eq!(CertificateFacts::parse(&der[..length]), None, "{length} bytes");
        }
        assert_eq!(CertificateFacts::parse(&[der, &[0][..]].concat()), None);
    }
}
