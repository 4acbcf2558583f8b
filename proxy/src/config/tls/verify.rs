//! `CertificateValidationContext`: what a peer's certificate must be, as Envoy has it and WebPKI does not.
//!
//! The chain must lead to `trusted_ca`, and a subject alternative name must satisfy one of the matchers, if there are any. The
//! name of the server plays no part: an upstream is who its SPIFFE URI says, whatever its address. Without a validation
//! context no certificate is looked at (TLS then hides, and proves nothing): that is Envoy's contract, and what a sidecar
//! says of a server outside of the mesh whose certificate it cannot judge.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::DataSource,
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, SubjectAltNameMatcher as ProtoSubjectAltNameMatcher,
            certificate_validation_context::TrustChainVerification, subject_alt_name_matcher::SanType,
        },
    },
};

use super::{
    certificate,
    subject_alt_name::{SubjectAltName, subject_alt_names},
};
use crate::config::{
    field::{self, Result, Within as _, refuse, required},
    matcher::{StringMatcher, StringPattern},
};

#[derive(Debug)]
pub(super) struct Validation {
    roots: Arc<RootCertStore>,
    matchers: SubjectAltNameMatchers,
    suppress_client_ca_list: bool,
}

impl Validation {
    /// None: the context asks for nothing. Whatever it asks for and is not known here is refused, so that no check is lost.
    /// `known_roots` are those of its `trusted_ca`, where they were read before.
    #[expect(deprecated, reason = "named to be refused")]
    pub(super) fn from_proto(
        message: CertificateValidationContext,
        known_roots: Option<Arc<RootCertStore>>,
    ) -> Result<Option<Self>> {
        let CertificateValidationContext {
            trusted_ca,
            ca_certificate_provider_instance,
            system_root_certs,
            watched_directory: _, // of secrets: what stands in a context is read once, as Envoy does
            verify_certificate_spki,
            verify_certificate_hash,
            match_typed_subject_alt_names,
            match_subject_alt_names,
            require_signed_certificate_timestamp,
            crl,
            allow_expired_certificate,
            trust_chain_verification,
            custom_validator_config,
            only_verify_leaf_cert_crl,
            max_verify_depth,
            suppress_client_ca_list,
        } = message;
        refuse!(ca_certificate_provider_instance, system_root_certs, verify_certificate_spki);
        refuse!(verify_certificate_hash, match_subject_alt_names, crl, allow_expired_certificate);
        refuse!(custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth);
        field::only(require_signed_certificate_timestamp, false, "require_signed_certificate_timestamp")?;
        match field::enumeration(trust_chain_verification, "trust_chain_verification")? {
            TrustChainVerification::VerifyTrustChain => {}
            TrustChainVerification::AcceptUntrusted => {
                return Err(FieldError::new("trust_chain_verification", "ACCEPT_UNTRUSTED is not supported"));
            }
        }
        let matchers = field::each(
            match_typed_subject_alt_names,
            "match_typed_subject_alt_names",
            SubjectAltNameMatcher::from_proto,
        )?;
        let Some(trusted_ca) = trusted_ca else {
            // Anybody can write any name into a certificate that nobody vouches for.
            return match matchers.is_empty() {
                true => Ok(None),
                false => Err(FieldError::new("match_typed_subject_alt_names", "names mean nothing without trusted_ca")),
            };
        };
        let roots = known_roots.map_or_else(|| roots(trusted_ca), Ok).within("trusted_ca")?;
        let matchers = SubjectAltNameMatchers(matchers);
        Ok(Some(Self { roots, matchers, suppress_client_ca_list }))
    }
}

pub(super) fn roots(trusted_ca: DataSource) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificate::certificates(trusted_ca)? {
        roots.add(certificate).map_err(|error| FieldError::new("", error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// Empty: any name will do.
#[derive(Debug)]
struct SubjectAltNameMatchers(Vec<SubjectAltNameMatcher>);

impl SubjectAltNameMatchers {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names = subject_alt_names(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match names.iter().any(|name| self.0.iter().any(|matcher| matcher.matches(name))) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }
}

#[derive(Debug)]
struct SubjectAltNameMatcher {
    san_type: SanType,
    matcher: StringMatcher,
}

impl SubjectAltNameMatcher {
    fn from_proto(message: ProtoSubjectAltNameMatcher) -> Result<Self> {
        let ProtoSubjectAltNameMatcher { san_type, matcher, oid } = message;
        refuse!(oid);
        let san_type: SanType = field::enumeration(san_type, "san_type")?;
        if let SanType::Unspecified | SanType::OtherName = san_type {
            return Err(FieldError::new("san_type", format!("{} is not supported", san_type.as_str_name())));
        }
        let matcher = StringMatcher::from_proto(required(matcher, "matcher")?).within("matcher")?;
        Ok(Self { san_type, matcher })
    }

    fn matches(&self, name: &SubjectAltName<'_>) -> bool {
        match (self.san_type, name) {
            (SanType::Dns, SubjectAltName::Dns(name)) => match &self.matcher.pattern {
                StringPattern::Exact(host) => dns_name_matches(name, host),
                _ => self.matcher.matches(name),
            },
            (SanType::Uri, SubjectAltName::Uri(name)) | (SanType::Email, SubjectAltName::Email(name)) => {
                self.matcher.matches(name)
            }
            (SanType::IpAddress, SubjectAltName::IpAddress(address)) => self.matcher.matches(&address.to_string()),
            _ => false,
        }
    }
}

/// A certificate's DNS name against a host: without regard to case, and `*` stands for one whole leftmost label (RFC 6125,
/// section 6.4.3).
fn dns_name_matches(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(suffix), Some((label, rest))) => !label.is_empty() && suffix.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

/// Judges the certificates of servers.
pub(super) struct UpstreamVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// None: whatever certificate is taken, as the contract above has it.
    validation: Option<Validation>,
}

impl UpstreamVerifier {
    pub(super) fn new(provider: &CryptoProvider, validation: Option<Validation>) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, validation }
    }
}

impl fmt::Debug for UpstreamVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamVerifier").field("validation", &self.validation).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(Validation { roots, matchers, .. }) = &self.validation {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            matchers.check(end_entity)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges the certificates of clients: WebPKI's verifier, then the names.
#[derive(Debug)]
pub(super) struct DownstreamVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    matchers: SubjectAltNameMatchers,
    is_required: bool,
    suppress_client_ca_list: bool,
}

impl DownstreamVerifier {
    /// None: no certificate is asked for.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        validation: Option<Validation>,
        is_required: bool,
    ) -> Result<Option<Self>> {
        let Some(Validation { roots, matchers, suppress_client_ca_list }) = validation else {
            // Envoy would ask for a certificate and believe any: whoever requires one means more than that.
            return match is_required {
                true => Err(FieldError::new(
                    "require_client_certificate",
                    "a validation_context with trusted_ca is required",
                )),
                false => Ok(None),
            };
        };
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let builder = if is_required { builder } else { builder.allow_unauthenticated() };
        let chain = builder
            .build()
            .map_err(|error| FieldError::new("common_tls_context.validation_context.trusted_ca", error.to_string()))?;
        Ok(Some(Self { chain, matchers, is_required, suppress_client_ca_list }))
    }
}

impl ClientCertVerifier for DownstreamVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        if self.suppress_client_ca_list { &[] } else { self.chain.root_hint_subjects() }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.matchers.check(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
