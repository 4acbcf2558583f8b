//! Certificate signing requests: is this a key that may be signed, and does the request ask for nothing else? Pure.

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::transport::identity::Identity;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("csr: is longer than {REQUEST_BYTES_MAX} bytes")]
    Length,
    #[error("csr: is not one certificate request in PEM")]
    Pem,
    #[error("csr: is not a certificate request")]
    Form,
    #[error("csr: its signature is not of its key")]
    Signature,
    #[error("csr: signatures of the kind {0} are not taken")]
    SignatureKind(String),
    #[error("csr: its key is not taken: {0}")]
    Key(&'static str),
    #[error("csr: asks for the name {name:?}; the caller is proven to be {identity}")]
    Name { name: String, identity: String },
    #[error("csr: asks for a certificate authority")]
    Authority,
    #[error("csr: asks for the use {0}, which no workload has")]
    Use(&'static str),
    #[error("csr: asks for an extension that is not understood: {0}")]
    Extension(String),
}

/// The largest keys that are taken make a fraction of it.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The kinds of signatures by which a request may prove that its key is the caller's; none with a weak hash.
const SIGNATURES: [&str; 6] = [
    "1.2.840.113549.1.1.11", // RSA, SHA-256
    "1.2.840.113549.1.1.12", // RSA, SHA-384
    "1.2.840.113549.1.1.13", // RSA, SHA-512
    "1.2.840.10045.4.3.2",   // ECDSA, SHA-256
    "1.2.840.10045.4.3.3",   // ECDSA, SHA-384
    "1.3.101.112",           // Ed25519
];
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];
const ED25519: &str = "1.3.101.112";

/// The key of a request by `identity`, that asks for no more than this identity.
pub fn check(pem: &str, identity: &Identity) -> Result<SubjectPublicKeyInfo, RequestError> {
    if pem.len() > REQUEST_BYTES_MAX {
        return Err(RequestError::Length);
    }
    let mut requests = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(der)), None) = (requests.next(), requests.next()) else { return Err(RequestError::Pem) };
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
    if !rest.is_empty() {
        return Err(RequestError::Form);
    }
    let kind = request.signature_algorithm.algorithm.to_id_string();
    if !SIGNATURES.contains(&kind.as_str()) {
        return Err(RequestError::SignatureKind(kind));
    }
    let key = &request.certification_request_info.subject_pki;
    check_key(key)?;
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    for extension in request.requested_extensions().into_iter().flatten() {
        check_extension(extension, identity)?;
    }
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::Key("its algorithm is not known"))
}

fn check_key(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), RequestError> {
    match key.parsed().map_err(|_| RequestError::Key("it cannot be read"))? {
        PublicKey::RSA(rsa) => {
            if !RSA_BITS.contains(&rsa.key_size()) {
                return Err(RequestError::Key("RSA keys have 2048 to 8192 bits"));
            }
            match rsa.try_exponent() {
                Ok(exponent) if exponent >= 65_537 && exponent % 2 == 1 => Ok(()),
                _ => Err(RequestError::Key("exponents of RSA keys are odd, and 65537 at least")),
            }
        }
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            let is_known = curve.is_some_and(|curve| CURVES.contains(&curve.to_id_string().as_str()));
            if is_known { Ok(()) } else { Err(RequestError::Key("of elliptic curves, P-256 and P-384 are taken")) }
        }
        _ if key.algorithm.algorithm.to_id_string() == ED25519 => Ok(()),
        _ => Err(RequestError::Key("ECDSA, RSA and Ed25519 keys are taken")),
    }
}

fn check_extension(extension: &ParsedExtension<'_>, identity: &Identity) -> Result<(), RequestError> {
    let own_name = identity.to_string();
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => {
            let other =
                names.general_names.iter().find(|name| !matches!(name, GeneralName::URI(uri) if *uri == own_name));
            match other {
                Some(other) => Err(RequestError::Name { name: shown(other), identity: own_name }),
                None if names.general_names.len() > 1 => {
                    Err(RequestError::Name { name: "the same twice".to_owned(), identity: own_name })
                }
                None => Ok(()),
            }
        }
        ParsedExtension::BasicConstraints(constraints) if constraints.ca => Err(RequestError::Authority),
        ParsedExtension::BasicConstraints(_) => Ok(()),
        ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => Err(RequestError::Authority),
        ParsedExtension::KeyUsage(_) => Ok(()),
        ParsedExtension::ExtendedKeyUsage(usage) => {
            let others = [
                (usage.any, "any"),
                (usage.code_signing, "code signing"),
                (usage.email_protection, "email protection"),
                (usage.time_stamping, "time stamping"),
                (usage.ocsp_signing, "OCSP signing"),
                (!usage.other.is_empty(), "of an unknown kind"),
            ];
            others.iter().find(|(is_asked, _)| *is_asked).map_or(Ok(()), |(_, name)| Err(RequestError::Use(name)))
        }
        other => {
            let kind = format!("{other:?}");
            Err(RequestError::Extension(kind.split(['(', ' ']).next().unwrap_or_default().to_owned()))
        }
    }
}

fn shown(name: &GeneralName<'_>) -> String {
    let mut text = name.to_string();
    // What is far too long to be a name is not worth a log's line.
    text.truncate(text.floor_char_boundary(256));
    text
}

#[cfg(test)]
mod tests;
