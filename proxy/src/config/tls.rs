//! `envoy.extensions.transport_sockets.tls.v3`: rustls configurations from downstream and upstream TLS contexts whose
//! certificates stand in the configuration (inline or as files).

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use weft_xds::{
    FieldError,
    pb::envoy::extensions::transport_sockets::tls::v3::{
        CommonTlsContext, DownstreamTlsContext, TlsCertificate, TlsParameters, UpstreamTlsContext,
        common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType,
        tls_parameters::TlsProtocol,
    },
};

use self::{
    certificate::CertifiedKey,
    verify::{DownstreamVerifier, UpstreamVerifier, Validation},
};
use crate::config::field::{self, Result, Within as _, refuse, unsupported};

mod certificate;
mod subject_alt_name;
mod verify;

/// Built once for a filter chain.
pub struct DownstreamTls {
    pub config: Arc<ServerConfig>,
}

/// Built once for a cluster.
pub struct UpstreamTls {
    pub config: Arc<ClientConfig>,
    /// None: the server name is the endpoint's address, and no SNI is sent.
    pub sni: Option<ServerName<'static>>,
}

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
        let Common { provider, versions, certificate, alpn_protocols, validation } = common;
        let missing = || FieldError::new("common_tls_context.tls_certificates", "a server needs a certificate");
        let CertifiedKey { chain, key } = certificate.ok_or_else(missing)?;
        let is_required = field::bool_or(require_client_certificate, false);
        let verifier = DownstreamVerifier::new(&provider, validation, is_required)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| FieldError::new("common_tls_context.tls_certificates[0]", error.to_string()))?;
        config.alpn_protocols = alpn_protocols;
        config.ignore_client_order = !prefer_client_ciphers;
        if disable_stateful_session_resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            if stateless {
                config.ticketer = aws_lc_rs::Ticketer::new()
                    .map_err(|error| FieldError::new("session_ticket_keys", error.to_string()))?;
            } else {
                config.send_tls13_tickets = 0;
            }
        }
        Ok(Self { config: Arc::new(config) })
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
        let Common { provider, versions, certificate, alpn_protocols, validation } = common;
        let verifier = UpstreamVerifier::new(&provider, validation);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(CertifiedKey { chain, key }) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| FieldError::new("common_tls_context.tls_certificates[0]", error.to_string()))?,
        };
        config.alpn_protocols = alpn_protocols;
        config.resumption = match field::u32_or(max_session_keys, MAX_SESSION_KEYS) {
            0 => Resumption::disabled(),
            count => Resumption::in_memory_sessions(count.min(MAX_SESSION_KEYS_MAX) as usize),
        };
        Ok(Self { config: Arc::new(config), sni })
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
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    certificate: Option<CertifiedKey>,
    alpn_protocols: Vec<Vec<u8>>,
    /// None: the peer's certificate is not asked for, or not looked at.
    validation: Option<Validation>,
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
        refuse!(tls_certificate_sds_secret_configs, tls_certificate_provider_instance);
        refuse!(custom_tls_certificate_selector, tls_certificate_certificate_provider);
        refuse!(tls_certificate_certificate_provider_instance, custom_handshaker, key_log);
        Ok(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            versions: versions(tls_params.unwrap_or_default()).within("tls_params")?,
            certificate: single_certificate(tls_certificates)?,
            alpn_protocols: field::each(alpn_protocols, "alpn_protocols", alpn_protocol)?,
            validation: validation(validation_context_type)?,
        })
    }
}

#[expect(deprecated, reason = "named to be refused")]
fn validation(message: Option<ValidationContextType>) -> Result<Option<Validation>> {
    match message {
        None => Ok(None),
        Some(ValidationContextType::ValidationContext(message)) => {
            Validation::from_proto(message).within("validation_context")
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(_)) => {
            Err(unsupported("validation_context_sds_secret_config"))
        }
        Some(ValidationContextType::CombinedValidationContext(_)) => Err(unsupported("combined_validation_context")),
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            Err(unsupported("validation_context_certificate_provider"))
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
            Err(unsupported("validation_context_certificate_provider_instance"))
        }
    }
}

fn single_certificate(messages: Vec<TlsCertificate>) -> Result<Option<CertifiedKey>> {
    if messages.len() > 1 {
        return Err(FieldError::new("tls_certificates[1]", "only one certificate is supported"));
    }
    Ok(field::each(messages, "tls_certificates", CertifiedKey::from_proto)?.pop())
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
