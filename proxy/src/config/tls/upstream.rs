//! `UpstreamTlsContext`: TLS of a cluster.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};
use weft_xds::{FieldError, pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext};

use super::{Common, FindSecret, OneKey, verify::UpstreamVerifier};
use crate::config::{
    config_source::Discovered,
    field::{self, Result, Within as _, refuse},
};

/// Of a cluster.
pub struct UpstreamTls {
    current: ArcSwapOption<ClientConfig>,
    /// None: it stands in the configuration as a whole, and never changes.
    template: Option<Box<Template>>,
    /// None: the server name is the endpoint's address, and no SNI is sent.
    sni: Option<ServerName<'static>>,
    /// An endpoint with a host name goes by that.
    prefers_host_name: bool,
}

struct Template {
    common: Common,
    max_session_keys: u32,
    checks_server_name: bool,
    enforces_key_usage: bool,
}

/// Sessions that an upstream's configuration keeps for resumption, where nothing is said.
const MAX_SESSION_KEYS: u32 = 1;
/// Their store is allocated beforehand; more sessions than this no cluster has a use for.
const MAX_SESSION_KEYS_MAX: u32 = 1024;

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamTls") // holds a private key
    }
}

impl UpstreamTls {
    #[expect(deprecated, reason = "it can be switched off still")]
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
        refuse!(allow_renegotiation);
        let sni = server_name(sni)?;
        let common = Common::from_proto(common_tls_context.unwrap_or_default()).within("common_tls_context")?;
        if common.identities.count() > 1 {
            return Err(FieldError::new("common_tls_context.tls_certificates", "a client has one certificate"));
        }
        let template = Box::new(Template {
            common,
            max_session_keys: field::u32_or(max_session_keys, MAX_SESSION_KEYS).min(MAX_SESSION_KEYS_MAX),
            checks_server_name: auto_sni_san_validation,
            enforces_key_usage: field::bool_or(enforce_rsa_key_usage, true),
        });
        let with = |current, template| Self { current, template, sni, prefers_host_name: auto_host_sni };
        if template.common.secrets().next().is_some() {
            return Ok(with(ArcSwapOption::empty(), Some(template)));
        }
        let config = template.build(&|_| None)?;
        Ok(with(ArcSwapOption::from(config), None))
    }

    /// None: secrets are missing.
    pub fn config(&self) -> Option<Arc<ClientConfig>> {
        self.current.load_full()
    }

    /// What SNI says to an endpoint with this host name, if it has one. None: nothing.
    pub fn server_name(&self, host_name: &str) -> Option<ServerName<'static>> {
        let of_host = || match ServerName::try_from(host_name.to_owned()) {
            Ok(name @ ServerName::DnsName(_)) => Some(name),
            _ => None,
        };
        let of_host = if self.prefers_host_name { of_host() } else { None };
        of_host.or_else(|| self.sni.clone())
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

impl Template {
    /// None: secrets are missing.
    fn build(&self, find: &FindSecret<'_>) -> Result<Option<Arc<ClientConfig>>> {
        let Common { parameters, identities, alpn_protocols, trust } = &self.common;
        let Some(keys) = identities.resolve(find, parameters)? else { return Ok(None) };
        let Some(validation) = trust.resolve(find)? else { return Ok(None) };
        if validation.is_none() && self.checks_server_name {
            let reason = "auto_sni_san_validation was configured without configuring a validation context";
            return Err(FieldError::new("auto_sni_san_validation", reason));
        }
        let verifier = UpstreamVerifier::new(parameters, validation, self.checks_server_name, self.enforces_key_usage);
        let builder = ClientConfig::builder_with_provider(parameters.provider.clone())
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| FieldError::new("common_tls_context.tls_params", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match keys.into_iter().next() {
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
