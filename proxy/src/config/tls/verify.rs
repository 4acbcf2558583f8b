//! rustls' verifiers over a [`PeerValidation`].
//!
//! A server's certificate has to be one of `match_typed_subject_alt_names`; the server name is sent as SNI and its presence in the
//! certificate is asked for only by `auto_sni_san_validation`. In a mesh that name is the service's, and the certificate is the workload's.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{
    parameters::Parameters,
    validation::{PeerRole, PeerValidation, Rejection},
};
use crate::tls::CertificateFacts;

/// How the other side may sign.
struct Signatures {
    algorithms: WebPkiSupportedAlgorithms,
    allowed: Option<Arc<[SignatureScheme]>>,
}

impl Signatures {
    fn new(parameters: &Parameters) -> Self {
        Self {
            algorithms: parameters.provider.signature_verification_algorithms,
            allowed: parameters.signature_schemes.clone(),
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.retain(|scheme| self.allows(*scheme));
        schemes
    }

    fn allows(&self, scheme: SignatureScheme) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&scheme))
    }

    fn verify(
        &self,
        verify: Verify,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.allows(signature.scheme) {
            true => verify(message, certificate, signature, &self.algorithms),
            false => Err(PeerIncompatible::NoSignatureSchemesInCommon.into()),
        }
    }
}

type Verify = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error>;

/// Judges the certificates of servers.
pub(super) struct UpstreamVerifier {
    signatures: Signatures,
    /// None: whatever certificate is taken.
    validation: Option<Arc<PeerValidation>>,
    /// The server's name has to be one of the certificate's.
    checks_server_name: bool,
    /// RFC 5280, section 4.2.1.3: a key that signs handshakes is one for signatures.
    enforces_key_usage: bool,
}

impl UpstreamVerifier {
    pub(super) fn new(
        parameters: &Parameters,
        validation: Option<Arc<PeerValidation>>,
        checks_server_name: bool,
        enforces_key_usage: bool,
    ) -> Self {
        Self { signatures: Signatures::new(parameters), validation, checks_server_name, enforces_key_usage }
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
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(validation) = &self.validation {
            let host = server_name.to_str();
            let host = self.checks_server_name.then_some(&*host);
            validation.judge(end_entity, intermediates, now, PeerRole::Server, host).map_err(refusal)?;
        }
        if self.enforces_key_usage && !CertificateFacts::parse(end_entity).is_none_or(|facts| facts.may_sign) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify(verify_tls12_signature, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify(verify_tls13_signature, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// Judges the certificates of clients.
pub(super) struct DownstreamVerifier {
    signatures: Signatures,
    validation: Arc<PeerValidation>,
    hints: Vec<DistinguishedName>,
    is_required: bool,
}

impl DownstreamVerifier {
    pub(super) fn new(parameters: &Parameters, validation: Arc<PeerValidation>, is_required: bool) -> Self {
        let hints = match validation.suppresses_hints {
            true => Vec::new(),
            false => {
                let anchors = validation.anchors();
                anchors.iter().map(|anchor| DistinguishedName::in_sequence(anchor.subject.as_ref())).collect()
            }
        };
        Self { signatures: Signatures::new(parameters), validation, hints, is_required }
    }
}

impl fmt::Debug for DownstreamVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownstreamVerifier").field("validation", &self.validation).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for DownstreamVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.validation.judge(end_entity, intermediates, now, PeerRole::Client, None);
        judged.map(|()| ClientCertVerified::assertion()).map_err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify(verify_tls12_signature, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify(verify_tls13_signature, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// The alert that the peer gets goes by this. Counters tell the kinds apart by [`Rejection`] inside.
fn refusal(rejection: Rejection) -> Error {
    use webpki::Error as Chain;
    let kind = match &rejection {
        Rejection::Chain(Chain::CertExpired { .. }) => CertificateError::Expired,
        Rejection::Chain(Chain::CertNotValidYet { .. }) => CertificateError::NotValidYet,
        Rejection::Chain(Chain::CertRevoked) => CertificateError::Revoked,
        Rejection::Chain(Chain::UnknownIssuer) => CertificateError::UnknownIssuer,
        Rejection::Unreadable => CertificateError::BadEncoding,
        Rejection::Names => CertificateError::ApplicationVerificationFailure,
        Rejection::Chain(_) | Rejection::Pins | Rejection::Spiffe(_) => {
            CertificateError::Other(OtherError(Arc::new(rejection)))
        }
    };
    Error::InvalidCertificate(kind)
}
