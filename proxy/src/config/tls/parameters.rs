//! `TlsParameters`: versions, cipher suites, groups and signature schemes, by the names that BoringSSL gives them. What
//! rustls does not have is refused by its name.

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuite, NamedGroup, SignatureScheme, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, aws_lc_rs::kx_group},
    version::{TLS12, TLS13},
};
use weft_xds::{
    FieldError,
    pb::envoy::extensions::transport_sockets::tls::v3::{TlsParameters, tls_parameters::TlsProtocol},
};

use crate::config::field::{self, Result, refuse};

pub(super) struct Parameters {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// None: all that there are.
    pub(super) signature_schemes: Option<Arc<[SignatureScheme]>>,
}

/// One for all contexts that do not ask for anything else. Key exchange that a quantum computer will not undo comes first.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
        Arc::new(provider)
    });
    &PROVIDER
}

impl Parameters {
    pub(super) fn from_proto(message: TlsParameters) -> Result<Self> {
        let TlsParameters {
            tls_minimum_protocol_version,
            tls_maximum_protocol_version,
            cipher_suites,
            ecdh_curves,
            signature_algorithms,
            compliance_policies,
        } = message;
        refuse!(compliance_policies);
        let versions = versions(tls_minimum_protocol_version, tls_maximum_protocol_version)?;
        let schemes = field::each(signature_algorithms, "signature_algorithms", |name| signature_scheme(&name))?;
        let signature_schemes = (!schemes.is_empty()).then(|| schemes.into());
        if cipher_suites.is_empty() && ecdh_curves.is_empty() {
            return Ok(Self { provider: provider().clone(), versions, signature_schemes });
        }
        let mut provider = CryptoProvider::clone(provider());
        if !cipher_suites.is_empty() {
            let wanted = field::each(cipher_suites, "cipher_suites", |names| suites(&names))?.concat();
            // As in BoringSSL, those of TLS 1.3 cannot be chosen.
            provider.cipher_suites.retain(|suite| suite.tls13().is_some());
            for suite in aws_lc_rs::ALL_CIPHER_SUITES {
                if wanted.contains(&suite.suite()) {
                    provider.cipher_suites.push(*suite);
                }
            }
            let place = |suite: CipherSuite| wanted.iter().position(|wanted| *wanted == suite);
            provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
        }
        if !ecdh_curves.is_empty() {
            provider.kx_groups = field::each(ecdh_curves, "ecdh_curves", |name| group(&name))?;
        }
        Ok(Self { provider: Arc::new(provider), versions, signature_schemes })
    }
}

/// By default 1.2 and 1.3 on both sides; Envoy's clients would stay at 1.2 without a reason that holds here.
fn versions(minimum: i32, maximum: i32) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let minimum = version(minimum, "tls_minimum_protocol_version")?;
    let maximum = version(maximum, "tls_maximum_protocol_version")?;
    let versions: Vec<_> = [&TLS12, &TLS13]
        .into_iter()
        .filter(|version| minimum.is_none_or(|minimum| u16::from(version.version) >= u16::from(minimum.version)))
        .filter(|version| maximum.is_none_or(|maximum| u16::from(version.version) <= u16::from(maximum.version)))
        .collect();
    if versions.is_empty() {
        return Err(FieldError::new("tls_maximum_protocol_version", "less than tls_minimum_protocol_version"));
    }
    Ok(versions)
}

fn version(version: i32, path: &str) -> Result<Option<&'static SupportedProtocolVersion>> {
    match field::enumeration(version, path)? {
        TlsProtocol::TlsAuto => Ok(None),
        TlsProtocol::TlSv12 => Ok(Some(&TLS12)),
        TlsProtocol::TlSv13 => Ok(Some(&TLS13)),
        version @ (TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            Err(FieldError::new(path, format!("{} is not supported", version.as_str_name())))
        }
    }
}

/// One entry: a name, several between colons, or several of equal preference as `[A|B]`.
fn suites(names: &str) -> Result<Vec<CipherSuite>> {
    let names = names.split([':', '|']).map(|name| name.trim_matches(['[', ']']));
    names.map(|name| known(name, SUITES)).collect()
}

fn group(name: &str) -> Result<&'static dyn SupportedKxGroup> {
    known(name, GROUPS)
}

fn signature_scheme(name: &str) -> Result<SignatureScheme> {
    known(name, SCHEMES)
}

fn known<T: Copy>(name: &str, names: &[(&str, T)]) -> Result<T> {
    let found = names.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| FieldError::new("", format!("{name} is not supported")))
}

const SUITES: &[(&str, CipherSuite)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

const GROUPS: &[(&str, &dyn SupportedKxGroup)] = &[
    ("X25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
];

const SCHEMES: &[(&str, SignatureScheme)] = &[
    ("rsa_pkcs1_sha256", SignatureScheme::RSA_PKCS1_SHA256),
    ("rsa_pkcs1_sha384", SignatureScheme::RSA_PKCS1_SHA384),
    ("rsa_pkcs1_sha512", SignatureScheme::RSA_PKCS1_SHA512),
    ("ecdsa_secp256r1_sha256", SignatureScheme::ECDSA_NISTP256_SHA256),
    ("ecdsa_secp384r1_sha384", SignatureScheme::ECDSA_NISTP384_SHA384),
    ("ecdsa_secp521r1_sha512", SignatureScheme::ECDSA_NISTP521_SHA512),
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("rsa_pss_rsae_sha384", SignatureScheme::RSA_PSS_SHA384),
    ("rsa_pss_rsae_sha512", SignatureScheme::RSA_PSS_SHA512),
    ("ed25519", SignatureScheme::ED25519),
];
