//! `envoy.extensions.transport_sockets.tls.v3`: rustls configurations from downstream and upstream TLS contexts, whose
//! certificates stand in the configuration (inline or as files) or come as secrets.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;

use rustls::{
    ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign,
    version::{TLS12, TLS13},
};
use weft_xds::{
    FieldError, json,
    pb::envoy::extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsCertificate,
        TlsParameters, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        downstream_tls_context::SessionTicketKeysType,
        tls_parameters::TlsProtocol,
    },
};

use self::{
    certificate::{CertifiedKey, certified_key},
    secret::SecretValue,
    verify::{DownstreamVerifier, UpstreamVerifier, Validation},
};
use crate::config::{
    config_source::{Discovered, ResourceKey},
    field::{self, Result, Within as _, refuse, required, unsupported},
};

mod certificate;
mod secret;
mod subject_alt_name;
mod verify;

pub use secret::Secret;

/// Of a filter chain. Made when all that it needs is there, and again when a secret changes: connections that exist keep
/// what they were made with.
pub struct DownstreamTls {
    current: ArcSwapOption<ServerConfig>,
    /// None: it stands in the configuration as a whole, and never changes.
    template: Option<Box<DownstreamTemplate>>,
}

/// Of a cluster; the same.
pub struct UpstreamTls {
    current: ArcSwapOption<ClientConfig>,
    template: Option<Box<UpstreamTemplate>>,
    /// None: the server name is the endpoint's address, and no SNI is sent.
    pub sni: Option<ServerName<'static>>,
}

struct DownstreamTemplate {
    common: Common,
    is_client_certificate_required: bool,
    prefer_client_ciphers: bool,
    resumption: DownstreamResumption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DownstreamResumption {
    Stateful,
    Stateless,
    Disabled,
}

struct UpstreamTemplate {
    common: Common,
    max_session_keys: u32,
}

/// Finds secrets that arrived.
pub type FindSecret<'a> = dyn Fn(&ResourceKey) -> Option<Arc<Secret>> + 'a;

impl std::fmt::Debug for DownstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DownstreamTls") // holds a private key
    }
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamTls") // holds a private key
    }
}

/// Sessions that an upstream's configuration keeps for resumption, where nothing is said.
const MAX_SESSION_KEYS: u32 = 1;
/// Their store is allocated beforehand; more sessions than this no cluster has a use for.
const MAX_SESSION_KEYS_MAX: u32 = 1024;

impl DownstreamTls {
    pub(crate) fn from_proto(message: DownstreamTlsContext) -> Result<Self> {
        let DownstreamTlsContext {
            common_tls_context,
            require_client_certificate,
            require_sni,
            disable_stateful_session_resumption,
            session_timeout,
            ocsp_staple_policy,
            full_scan_certs_on_sni_mismatch: _, // there is one certificate to choose
            prefer_client_ciphers,
            session_ticket_keys_type,
        } = message;
        refuse!(session_timeout, ocsp_staple_policy);
        field::only(require_sni, false, "require_sni")?;
        let stateless = allows_stateless_resumption(session_ticket_keys_type)?;
        let common = Common::from_proto(common_tls_context.unwrap_or_default()).within("common_tls_context")?;
        if let Identity::Missing = common.identity {
            return Err(FieldError::new("common_tls_context.tls_certificates", "a server needs a certificate"));
        }
        let template = Box::new(DownstreamTemplate {
            common,
            is_client_certificate_required: field::bool_or(require_client_certificate, false),
            prefer_client_ciphers,
            resumption: match (disable_stateful_session_resumption, stateless) {
                (false, _) => DownstreamResumption::Stateful,
                (true, true) => DownstreamResumption::Stateless,
                (true, false) => DownstreamResumption::Disabled,
            },
        });
        if template.common.secrets().next().is_some() {
            return Ok(Self { current: ArcSwapOption::empty(), template: Some(template) });
        }
        let config = template.build(&|_| None)?;
        Ok(Self { current: ArcSwapOption::from(config), template: None })
    }

    /// None: secrets are missing.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current.load_full()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        self.template.iter().flat_map(|template| template.common.secrets())
    }

    /// Takes the secrets as they are now. What was there before stays where they are missing or do not fit.
    pub fn refresh(&self, find: &FindSecret<'_>) -> Result<()> {
        if let Some(template) = &self.template
            && let Some(config) = template.build(find)?
        {
            self.current.store(Some(config));
        }
        Ok(())
    }
}

impl DownstreamTemplate {
    /// None: secrets are missing.
    fn build(&self, find: &FindSecret<'_>) -> Result<Option<Arc<ServerConfig>>> {
        let Common { versions, identity, alpn_protocols, trust } = &self.common;
        let (Some(key), Some(validation)) = (identity.resolve(find)?, trust.resolve(find)?) else { return Ok(None) };
        let Some(key) = key else { return Ok(None) };
        let verifier = DownstreamVerifier::new(provider(), validation, self.is_client_certificate_required)?;
        let builder = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(OneKey(key)));
        config.alpn_protocols = alpn_protocols.clone();
        config.ignore_client_order = !self.prefer_client_ciphers;
        match self.resumption {
            DownstreamResumption::Stateful => {}
            DownstreamResumption::Stateless => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.ticketer = aws_lc_rs::Ticketer::new()
                    .map_err(|error| FieldError::new("session_ticket_keys", error.to_string()))?;
            }
            DownstreamResumption::Disabled => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(Some(Arc::new(config)))
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

/// Whether clients may keep their sessions themselves, sealed by a key that lives as long as this process.
fn allows_stateless_resumption(message: Option<SessionTicketKeysType>) -> Result<bool> {
    match message {
        None => Ok(true),
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disable)) => Ok(!disable),
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => Err(unsupported("session_ticket_keys")),
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            Err(unsupported("session_ticket_keys_sds_secret_config"))
        }
    }
}

impl UpstreamTls {
    #[expect(deprecated, reason = "named to be refused")]
    pub(crate) fn from_proto(message: UpstreamTlsContext) -> Result<Self> {
        let UpstreamTlsContext {
            common_tls_context,
            sni,
            auto_host_sni,
            auto_sni_san_validation,
            allow_renegotiation,
            max_session_keys,
            enforce_rsa_key_usage,
        } = message;
        refuse!(auto_host_sni, auto_sni_san_validation, allow_renegotiation, enforce_rsa_key_usage);
        let sni = server_name(sni)?;
        let common = Common::from_proto(common_tls_context.unwrap_or_default()).within("common_tls_context")?;
        let template = Box::new(UpstreamTemplate {
            common,
            max_session_keys: field::u32_or(max_session_keys, MAX_SESSION_KEYS).min(MAX_SESSION_KEYS_MAX),
        });
        if template.common.secrets().next().is_some() {
            return Ok(Self { current: ArcSwapOption::empty(), template: Some(template), sni });
        }
        let config = template.build(&|_| None)?;
        Ok(Self { current: ArcSwapOption::from(config), template: None, sni })
    }

    /// None: secrets are missing.
    pub fn config(&self) -> Option<Arc<ClientConfig>> {
        self.current.load_full()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        self.template.iter().flat_map(|template| template.common.secrets())
    }

    /// Takes the secrets as they are now. What was there before stays where they are missing or do not fit.
    pub fn refresh(&self, find: &FindSecret<'_>) -> Result<()> {
        if let Some(template) = &self.template
            && let Some(config) = template.build(find)?
        {
            self.current.store(Some(config));
        }
        Ok(())
    }
}

impl UpstreamTemplate {
    /// None: secrets are missing.
    fn build(&self, find: &FindSecret<'_>) -> Result<Option<Arc<ClientConfig>>> {
        let Common { versions, identity, alpn_protocols, trust } = &self.common;
        let (Some(key), Some(validation)) = (identity.resolve(find)?, trust.resolve(find)?) else { return Ok(None) };
        let verifier = UpstreamVerifier::new(provider(), validation);
        let builder = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match key {
            None => builder.with_no_client_auth(),
            Some(key) => builder.with_client_cert_resolver(Arc::new(OneKey(key))),
        };
        config.alpn_protocols = alpn_protocols.clone();
        config.resumption = match self.max_session_keys {
            0 => Resumption::disabled(),
            count => Resumption::in_memory_sessions(count as usize),
        };
        Ok(Some(Arc::new(config)))
    }
}

fn server_name(sni: String) -> Result<Option<ServerName<'static>>> {
    if sni.is_empty() {
        return Ok(None);
    }
    match ServerName::try_from(sni) {
        Ok(name @ ServerName::DnsName(_)) => Ok(Some(name)),
        // RFC 6066, section 3: literal addresses are not permitted.
        _ => Err(FieldError::new("sni", "not a DNS name")),
    }
}

/// What both sides have in common.
struct Common {
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Identity,
    alpn_protocols: Vec<Vec<u8>>,
    trust: Trust,
}

/// The own certificate.
enum Identity {
    Missing,
    Here(Arc<sign::CertifiedKey>),
    Secret(Discovered),
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
        let common = Self {
            versions: versions(tls_params.unwrap_or_default()).within("tls_params")?,
            identity: Identity::from_proto(tls_certificates, tls_certificate_sds_secret_configs)?,
            alpn_protocols: field::each(alpn_protocols, "alpn_protocols", alpn_protocol)?,
            trust: Trust::from_proto(validation_context_type)?,
        };
        if let (Identity::Secret(_), Some(here), None) = (&common.identity, &common.trust.here, &common.trust.secret) {
            // Told now, and not when the secret comes.
            Validation::from_proto(here.clone(), None).within("validation_context")?;
        }
        Ok(common)
    }

    fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        let identity = match &self.identity {
            Identity::Secret(secret) => Some(secret),
            Identity::Missing | Identity::Here(_) => None,
        };
        identity.into_iter().chain(&self.trust.secret)
    }
}

impl Identity {
    fn from_proto(certificates: Vec<TlsCertificate>, secrets: Vec<SdsSecretConfig>) -> Result<Self> {
        if certificates.len() > 1 {
            return Err(FieldError::new("tls_certificates[1]", "only one certificate is supported"));
        }
        let place = "tls_certificate_sds_secret_configs";
        if secrets.len() > 1 || !secrets.is_empty() && !certificates.is_empty() {
            return Err(FieldError::new(place, "only one certificate is supported"));
        }
        let key = |message| certified_key(CertifiedKey::from_proto(message)?, provider());
        if let Some(key) = field::each(certificates, "tls_certificates", key)?.pop() {
            return Ok(Self::Here(key));
        }
        let secret = field::each(secrets, place, secret::reference)?.pop();
        Ok(secret.map_or(Self::Missing, Self::Secret))
    }

    /// Outer None: the secret is missing.
    fn resolve(&self, find: &FindSecret<'_>) -> Result<Option<Option<Arc<sign::CertifiedKey>>>> {
        match self {
            Self::Missing => Ok(Some(None)),
            Self::Here(key) => Ok(Some(Some(key.clone()))),
            Self::Secret(named) => match find(&named.key) {
                None => Ok(None),
                Some(secret) => match &secret.value {
                    SecretValue::TlsCertificate(key) => Ok(Some(Some(key.clone()))),
                    SecretValue::ValidationContext { .. } => Err(secret::mismatch(&secret, "tls_certificate")),
                },
            },
        }
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
        if here.match_typed_subject_alt_names.is_empty() || here.trusted_ca.is_some() {
            Validation::from_proto(here.clone(), None).within("default_validation_context")?;
        }
        Ok((Some(here), Some(secret)))
    }

    /// Outer None: the secret is missing. Inner None: the peer's certificate is not asked for, or not looked at.
    fn resolve(&self, find: &FindSecret<'_>) -> Result<Option<Option<Validation>>> {
        let Some(named) = &self.secret else {
            return match &self.here {
                None => Ok(Some(None)),
                Some(here) => {
                    Validation::from_proto(here.clone(), None).within("common_tls_context.validation_context").map(Some)
                }
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
        Validation::from_proto(merged, roots.clone()).map(Some)
    }
}

/// One for all contexts.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// A protocol's name is 1 to 255 bytes (RFC 7301, section 3.1).
fn alpn_protocol(protocol: String) -> Result<Vec<u8>> {
    match protocol.len() {
        1..=255 => Ok(protocol.into_bytes()),
        _ => Err(FieldError::new("", "the length must be 1 to 255 bytes")),
    }
}

/// By default 1.2 and 1.3 on both sides; Envoy's clients would stay at 1.2 without a reason that holds here.
fn versions(message: TlsParameters) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = message;
    refuse!(cipher_suites, ecdh_curves, signature_algorithms, compliance_policies);
    let minimum = version(tls_minimum_protocol_version, "tls_minimum_protocol_version")?;
    let maximum = version(tls_maximum_protocol_version, "tls_maximum_protocol_version")?;
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

#[cfg(test)]
mod tests;
