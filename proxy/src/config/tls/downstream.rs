//! `DownstreamTlsContext`: TLS of a filter chain.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage},
};
use weft_xds::{
    FieldError,
    pb::envoy::extensions::transport_sockets::tls::v3::{
        DownstreamTlsContext, TlsSessionTicketKeys, downstream_tls_context::SessionTicketKeysType,
    },
};

use super::{
    Common, FindSecret, OneKey,
    secret::{self, SecretValue},
    selection::{Choice, Selection},
    tickets::{ExpiringSessions, LIFETIME, TicketKeys},
    validation::PeerValidation,
    verify::DownstreamVerifier,
};
use crate::config::{
    config_source::Discovered,
    field::{self, Result, Within as _, refuse},
};

/// Of a filter chain.
pub struct DownstreamTls {
    current: ArcSwapOption<DownstreamConfigs>,
    /// None: it stands in the configuration as a whole, and never changes.
    template: Option<Box<Template>>,
}

/// What handshakes are made with.
pub struct DownstreamConfigs {
    selection: Selection,
    /// Connections without a server name are refused.
    requires_server_name: bool,
    /// None: no certificate is asked for.
    pub validation: Option<Arc<PeerValidation>>,
}

struct Template {
    common: Common,
    is_client_certificate_required: bool,
    requires_server_name: bool,
    scans_all_certificates: bool,
    prefer_client_ciphers: bool,
    resumption: Resumption,
    session_lifetime: Option<Duration>,
}

enum Resumption {
    /// The server keeps sessions.
    Stateful,
    /// Clients do, sealed by keys of this process, or by these.
    Stateless(Option<Keys>),
    Disabled,
}

enum Keys {
    Here(TicketKeys),
    Secret(Discovered),
}

impl std::fmt::Debug for DownstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DownstreamTls") // holds a private key
    }
}

impl DownstreamTls {
    pub(crate) fn from_proto(message: DownstreamTlsContext) -> Result<Self> {
        let DownstreamTlsContext {
            common_tls_context,
            require_client_certificate,
            require_sni,
            disable_stateful_session_resumption,
            session_timeout,
            ocsp_staple_policy,
            full_scan_certs_on_sni_mismatch,
            prefer_client_ciphers,
            session_ticket_keys_type,
        } = message;
        refuse!(ocsp_staple_policy);
        let common = Common::from_proto(common_tls_context.unwrap_or_default()).within("common_tls_context")?;
        if common.identities.count() == 0 {
            return Err(FieldError::new("common_tls_context.tls_certificates", "a server needs a certificate"));
        }
        let template = Box::new(Template {
            common,
            is_client_certificate_required: field::bool_or(require_client_certificate, false),
            requires_server_name: field::bool_or(require_sni, false),
            scans_all_certificates: field::bool_or(full_scan_certs_on_sni_mismatch, false),
            prefer_client_ciphers,
            resumption: Resumption::from_proto(disable_stateful_session_resumption, session_ticket_keys_type)?,
            session_lifetime: field::duration(session_timeout, "session_timeout")?,
        });
        if template.secrets().next().is_some() {
            return Ok(Self { current: ArcSwapOption::empty(), template: Some(template) });
        }
        let configs = template.build(&|_| None)?;
        Ok(Self { current: ArcSwapOption::from(configs), template: None })
    }

    /// None: secrets are missing.
    pub fn configs(&self) -> Option<Arc<DownstreamConfigs>> {
        self.current.load_full()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        self.template.iter().flat_map(|template| template.secrets())
    }

    /// Takes the secrets as they are now. What was there before stays where they are missing or do not fit.
    pub fn refresh(&self, find: &FindSecret<'_>) -> Result<()> {
        if let Some(template) = &self.template
            && let Some(configs) = template.build(find)?
        {
            self.current.store(Some(configs));
        }
        Ok(())
    }
}

impl DownstreamConfigs {
    /// Where it does not depend on what the client says.
    pub fn only(&self) -> Option<&Choice> {
        self.selection.only().filter(|_| !self.requires_server_name)
    }

    /// None: the client has to name a server, and does not.
    pub fn choose(&self, hello: &ClientHello<'_>) -> Option<&Choice> {
        if self.requires_server_name && hello.server_name().is_none() {
            return None;
        }
        Some(self.selection.choose(hello))
    }
}

impl Template {
    fn secrets(&self) -> impl Iterator<Item = &Discovered> {
        let keys = match &self.resumption {
            Resumption::Stateless(Some(Keys::Secret(secret))) => Some(secret),
            _ => None,
        };
        self.common.secrets().chain(keys)
    }

    /// None: secrets are missing.
    fn build(&self, find: &FindSecret<'_>) -> Result<Option<Arc<DownstreamConfigs>>> {
        let Common { parameters, identities, alpn_protocols, trust } = &self.common;
        let Some(keys) = identities.resolve(find, parameters)? else { return Ok(None) };
        let Some(validation) = trust.resolve(find)? else { return Ok(None) };
        if validation.is_none() && self.is_client_certificate_required {
            // Envoy would ask for a certificate and believe any: whoever requires one means more than that.
            return Err(FieldError::new(
                "require_client_certificate",
                "a validation_context with trusted_ca is required",
            ));
        }
        let builder = ServerConfig::builder_with_provider(parameters.provider.clone())
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?;
        let builder = match &validation {
            Some(validation) => {
                let is_required = self.is_client_certificate_required;
                let verifier = DownstreamVerifier::new(parameters, validation.clone(), is_required);
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None => builder.with_no_client_auth(),
        };
        let Some(first) = keys.first() else { return Ok(None) };
        let mut config = builder.with_cert_resolver(Arc::new(OneKey(first.clone())));
        config.alpn_protocols = alpn_protocols.clone();
        config.ignore_client_order = !self.prefer_client_ciphers;
        if !self.set_resumption(&mut config, find)? {
            return Ok(None);
        }
        let choices = keys.into_iter().map(|certificate| {
            let mut config = config.clone();
            config.cert_resolver = Arc::new(OneKey(certificate.clone()));
            Choice { config: Arc::new(config), certificate }
        });
        Ok(Some(Arc::new(DownstreamConfigs {
            selection: Selection::new(choices.collect(), self.scans_all_certificates),
            requires_server_name: self.requires_server_name,
            validation,
        })))
    }

    /// False: the secret is missing.
    fn set_resumption(&self, config: &mut ServerConfig, find: &FindSecret<'_>) -> Result<bool> {
        let lifetime = self.session_lifetime.unwrap_or(LIFETIME);
        let keys = match &self.resumption {
            Resumption::Stateful => {
                config.session_storage = Arc::new(ExpiringSessions::new(lifetime));
                return Ok(true);
            }
            Resumption::Disabled => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                return Ok(true);
            }
            Resumption::Stateless(None) => TicketKeys::random()?,
            Resumption::Stateless(Some(Keys::Here(keys))) => keys.clone(),
            Resumption::Stateless(Some(Keys::Secret(named))) => {
                let Some(secret) = find(&named.key) else { return Ok(false) };
                let SecretValue::SessionTicketKeys(keys) = &secret.value else {
                    return Err(secret::mismatch(&secret, "session_ticket_keys"));
                };
                keys.clone()
            }
        };
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = keys.tickets(lifetime);
        Ok(true)
    }
}

impl Resumption {
    /// Keys that are given are there to be used; otherwise the server keeps sessions where it may, which costs less.
    fn from_proto(disable_stateful: bool, message: Option<SessionTicketKeysType>) -> Result<Self> {
        Ok(match message {
            Some(SessionTicketKeysType::SessionTicketKeys(TlsSessionTicketKeys { keys })) => {
                let keys = TicketKeys::read(keys).and_then(|keys| TicketKeys::from_bytes(&keys));
                Self::Stateless(Some(Keys::Here(keys.within("session_ticket_keys")?)))
            }
            Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
                let named = secret::reference(config).within("session_ticket_keys_sds_secret_config")?;
                Self::Stateless(Some(Keys::Secret(named)))
            }
            Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) if disable_stateful => Self::Disabled,
            None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(_)) => {
                if disable_stateful {
                    Self::Stateless(None)
                } else {
                    Self::Stateful
                }
            }
        })
    }
}
