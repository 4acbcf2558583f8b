//! `envoy.extensions.transport_sockets.tls.v3`: rustls configurations from downstream and upstream TLS contexts, whose
//! certificates stand in the configuration (inline or as files) or come as secrets.
//!
//! A context is made when all that it needs is there, and again when a secret changes: connections that exist keep what they
//! were made with.

use std::sync::Arc;

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign,
};
use weft_xds::{
    FieldError, json,
    pb::envoy::extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsCertificate,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    },
};

use self::{
    certificate::{CertifiedKey, certified_key},
    parameters::{Parameters, provider},
    secret::SecretValue,
};
pub use self::{
    downstream::{DownstreamConfigs, DownstreamTls},
    secret::Secret,
    selection::Choice,
    subject_alt_name::SubjectAltNameMatcher,
    upstream::UpstreamTls,
    validation::{PeerValidation, Rejection},
};
use crate::config::{
    config_source::{Discovered, ResourceKey},
    field::{self, Result, Within as _, refuse, required, unsupported},
};

mod certificate;
mod downstream;
mod parameters;
mod secret;
mod selection;
mod spiffe;
mod subject_alt_name;
mod tickets;
mod upstream;
mod validation;
mod verify;

/// Finds secrets that arrived.
pub type FindSecret<'a> = dyn Fn(&ResourceKey) -> Option<Arc<Secret>> + 'a;

/// What both sides have in common.
struct Common {
    parameters: Parameters,
    identities: Identities,
    alpn_protocols: Vec<Vec<u8>>,
    trust: Trust,
}

/// The own certificates.
enum Identities {
    Here(Vec<Arc<sign::CertifiedKey>>),
    Secrets(Vec<Discovered>),
}

/// What the peer's certificate must be.
struct Trust {
    /// Stands in the context.
    here: Option<CertificateValidationContext>,
    /// Adds to what stands here.
    secret: Option<Discovered>,
}

impl Common {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: CommonTlsContext) -> Result<Self> {
        let CommonTlsContext {
            tls_params,
            tls_certificates,
            tls_certificate_sds_secret_configs,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            alpn_protocols,
            custom_handshaker,
            key_log,
            validation_context_type,
        } = message;
        refuse!(tls_certificate_provider_instance);
        refuse!(custom_tls_certificate_selector, tls_certificate_certificate_provider);
        refuse!(tls_certificate_certificate_provider_instance, custom_handshaker, key_log);
        let parameters = Parameters::from_proto(tls_params.unwrap_or_default()).within("tls_params")?;
        let common = Self {
            identities: Identities::from_proto(tls_certificates, tls_certificate_sds_secret_configs, &parameters)?,
            parameters,
            alpn_protocols: field::each(alpn_protocols, "alpn_protocols", alpn_protocol)?,
            trust: Trust::from_proto(validation_context_type)?,
        };
        if let (Identities::Secrets(_), Some(here), None) =
            (&common.identities, &common.trust.here, &common.trust.secret)
        {
            // Told now, and not when the secret comes.
            PeerValidation::from_proto(here.clone(), None).within("validation_context")?;
        }
        Ok(common)
    }

    fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        let identities = match &self.identities {
            Identities::Secrets(secrets) => &secrets[..],
            Identities::Here(_) => &[],
        };
        identities.iter().chain(&self.trust.secret)
    }
}

impl Identities {
    fn from_proto(
        certificates: Vec<TlsCertificate>,
        secrets: Vec<SdsSecretConfig>,
        parameters: &Parameters,
    ) -> Result<Self> {
        let place = "tls_certificate_sds_secret_configs";
        if !secrets.is_empty() && !certificates.is_empty() {
            return Err(FieldError::new(place, "tls_certificates cannot stand beside it"));
        }
        if !secrets.is_empty() {
            return field::each(secrets, place, secret::reference).map(Self::Secrets);
        }
        let key = |message| {
            let key = certified_key(CertifiedKey::from_proto(message)?, provider())?;
            Ok(restricted(key, parameters))
        };
        field::each(certificates, "tls_certificates", key).map(Self::Here)
    }

    fn count(&self) -> usize {
        match self {
            Self::Here(keys) => keys.len(),
            Self::Secrets(secrets) => secrets.len(),
        }
    }

    /// None: a secret is missing.
    fn resolve(&self, find: &FindSecret<'_>, parameters: &Parameters) -> Result<Option<Vec<Arc<sign::CertifiedKey>>>> {
        let secrets = match self {
            Self::Here(keys) => return Ok(Some(keys.clone())),
            Self::Secrets(secrets) => secrets,
        };
        let mut keys = Vec::with_capacity(secrets.len());
        for named in secrets {
            let Some(secret) = find(&named.key) else { return Ok(None) };
            match &secret.value {
                SecretValue::TlsCertificate(key) => keys.push(restricted(key.clone(), parameters)),
                SecretValue::ValidationContext { .. } | SecretValue::SessionTicketKeys(_) => {
                    return Err(secret::mismatch(&secret, "tls_certificate"));
                }
            }
        }
        Ok(Some(keys))
    }
}

impl Trust {
    #[expect(deprecated, reason = "named to be refused")]
    fn from_proto(message: Option<ValidationContextType>) -> Result<Self> {
        let (here, secret) = match message {
            None => (None, None),
            Some(ValidationContextType::ValidationContext(message)) => (Some(message), None),
            Some(ValidationContextType::ValidationContextSdsSecretConfig(message)) => {
                (None, Some(secret::reference(message).within("validation_context_sds_secret_config")?))
            }
            Some(ValidationContextType::CombinedValidationContext(message)) => {
                Self::combined(message).within("combined_validation_context")?
            }
            Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
                return Err(unsupported("validation_context_certificate_provider"));
            }
            Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
                return Err(unsupported("validation_context_certificate_provider_instance"));
            }
        };
        Ok(Self { here, secret })
    }

    #[expect(deprecated, reason = "named to be refused")]
    fn combined(
        message: CombinedCertificateValidationContext,
    ) -> Result<(Option<CertificateValidationContext>, Option<Discovered>)> {
        let CombinedCertificateValidationContext {
            default_validation_context,
            validation_context_sds_secret_config,
            validation_context_certificate_provider,
            validation_context_certificate_provider_instance,
        } = message;
        refuse!(validation_context_certificate_provider, validation_context_certificate_provider_instance);
        let here = required(default_validation_context, "default_validation_context")?;
        let config = required(validation_context_sds_secret_config, "validation_context_sds_secret_config")?;
        let secret = secret::reference(config).within("validation_context_sds_secret_config")?;
        // Names and lists may need the roots that are to come.
        if here.match_typed_subject_alt_names.is_empty() && here.crl.is_none() || here.trusted_ca.is_some() {
            PeerValidation::from_proto(here.clone(), None).within("default_validation_context")?;
        }
        Ok((Some(here), Some(secret)))
    }

    /// Outer None: the secret is missing. Inner None: the peer's certificate is not asked for, or not looked at.
    fn resolve(&self, find: &FindSecret<'_>) -> Result<Option<Option<Arc<PeerValidation>>>> {
        let validation = |message, roots| Ok(PeerValidation::from_proto(message, roots)?.map(Arc::new));
        let Some(named) = &self.secret else {
            return match &self.here {
                None => Ok(Some(None)),
                Some(here) => validation(here.clone(), None).within("common_tls_context.validation_context").map(Some),
            };
        };
        let Some(secret) = find(&named.key) else { return Ok(None) };
        let SecretValue::ValidationContext { message, roots } = &secret.value else {
            return Err(secret::mismatch(&secret, "validation_context"));
        };
        let merged = match &self.here {
            None => CertificateValidationContext::clone(message),
            // As Envoy does: the secret's fields win, and lists are joined.
            Some(here) => json::merge(here, &**message)?,
        };
        validation(merged, roots.clone()).map(Some)
    }
}

/// A protocol's name is 1 to 255 bytes (RFC 7301, section 3.1).
fn alpn_protocol(protocol: String) -> Result<Vec<u8>> {
    match protocol.len() {
        1..=255 => Ok(protocol.into_bytes()),
        _ => Err(FieldError::new("", "the length must be 1 to 255 bytes")),
    }
}

/// The one certificate that there is, whoever asks.
#[derive(Debug)]
struct OneKey(Arc<sign::CertifiedKey>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for OneKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A key that signs by `signature_algorithms` only.
#[derive(Debug)]
struct RestrictedKey {
    key: Arc<dyn sign::SigningKey>,
    allowed: Arc<[SignatureScheme]>,
}

fn restricted(key: Arc<sign::CertifiedKey>, parameters: &Parameters) -> Arc<sign::CertifiedKey> {
    let Some(allowed) = &parameters.signature_schemes else { return key };
    let restricted = RestrictedKey { key: key.key.clone(), allowed: allowed.clone() };
    let mut key = sign::CertifiedKey::clone(&key);
    key.key = Arc::new(restricted);
    Arc::new(key)
}

impl sign::SigningKey for RestrictedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let common: Vec<_> = offered.iter().copied().filter(|scheme| self.allowed.contains(scheme)).collect();
        self.key.choose_scheme(&common)
    }

    fn public_key(&self) -> Option<rustls::pki_types::SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[cfg(test)]
mod tests;
