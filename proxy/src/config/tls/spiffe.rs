//! `SPIFFECertValidatorConfig`: each trust domain has its own authorities, and a peer's certificate is judged by those of the
//! one domain that it names itself (SPIFFE's X.509-SVID, section 5).

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{DataSource, TypedExtensionConfig},
        extensions::transport_sockets::tls::v3::{
            SpiffeCertValidatorConfig, spiffe_cert_validator_config::TrustDomain,
        },
    },
};

use super::validation::{Rejection, Roots};
use crate::{
    config::{
        data_source,
        field::{Extension, Result, Within as _, refuse, required, without_typed_config},
    },
    tls::CertificateFacts,
};

#[derive(Debug)]
pub(super) struct TrustDomains(BTreeMap<String, Arc<Roots>>);

impl TrustDomains {
    pub(super) fn from_extension(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message;
        let extension = Extension::new(typed_config.ok_or_else(without_typed_config)?)?;
        if !extension.is::<SpiffeCertValidatorConfig>() {
            return Err(extension.unsupported());
        }
        Self::from_proto(extension.unpack()?).within("typed_config")
    }

    fn from_proto(message: SpiffeCertValidatorConfig) -> Result<Self> {
        let SpiffeCertValidatorConfig { trust_domains, trust_bundles } = message;
        if let Some(bundles) = trust_bundles {
            return Self::from_bundles(bundles).within("trust_bundles");
        }
        let mut domains = BTreeMap::new();
        for (index, domain) in trust_domains.into_iter().enumerate() {
            let TrustDomain { name, trust_bundle, workload_trust_domain } = domain;
            let roots = (|| {
                refuse!(workload_trust_domain);
                Roots::read(required(trust_bundle, "trust_bundle")?).within("trust_bundle")
            })();
            if domains.insert(name.clone(), roots.at("trust_domains", index)?).is_some() {
                let error = format!("Multiple trust bundles are given for one trust domain for {name}");
                return Err(FieldError::new("name", error)).at("trust_domains", index);
            }
        }
        Ok(Self(domains))
    }

    /// SPIFFE's trust bundle map: JSON, in which each domain has a JWK set whose certificates stand in `x5c`.
    fn from_bundles(source: DataSource) -> Result<Self> {
        let invalid = |reason: &str| FieldError::new("", reason.to_owned());
        let bytes = data_source::read(source)?;
        let map: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| invalid("Invalid SPIFFE bundle"))?;
        let domains = map.get("trust_domains").and_then(serde_json::Value::as_object);
        let mut found = BTreeMap::new();
        for (name, bundle) in domains.ok_or_else(|| invalid("no trust domains found"))? {
            let keys = bundle.get("keys").and_then(serde_json::Value::as_array);
            let mut certificates = Vec::new();
            for key in keys.ok_or_else(|| invalid("no keys found in a trust domain"))? {
                if key.get("use").and_then(serde_json::Value::as_str) != Some("x509-svid") {
                    continue;
                }
                for text in key.get("x5c").and_then(serde_json::Value::as_array).into_iter().flatten() {
                    let der = BASE64.decode(text.as_str().unwrap_or_default());
                    let der = der.map_err(|_| invalid("a certificate is not in base64"))?;
                    certificates.push(CertificateDer::from(der));
                }
            }
            found.insert(name.clone(), Roots::from_certificates(certificates)?);
        }
        if found.is_empty() {
            return Err(invalid("no trust domains found"));
        }
        Ok(Self(found))
    }

    pub(super) fn anchors(&self) -> Vec<&TrustAnchor<'static>> {
        self.0.values().flat_map(|roots| &roots.anchors).collect()
    }

    /// Those who may vouch for this leaf.
    pub(super) fn roots_of(&self, leaf: &CertificateFacts) -> Result<&Roots, Rejection> {
        if leaf.is_ca || leaf.may_certify {
            return Err(Rejection::Spiffe("an authority is no workload"));
        }
        let [id] = &leaf.uri_names[..] else {
            return Err(Rejection::Spiffe("exactly one URI is required"));
        };
        let domain = trust_domain(id).ok_or(Rejection::Spiffe("the URI is no SPIFFE ID"))?;
        self.0.get(domain).map(|roots| &**roots).ok_or(Rejection::Spiffe("its trust domain is not known"))
    }
}

/// SPIFFE ID, section 2: lower case letters, digits, dots, dashes and underscores, then a path.
fn trust_domain(id: &str) -> Option<&str> {
    let rest = id.strip_prefix("spiffe://")?;
    let domain = rest.split_once('/').map_or(rest, |(domain, _)| domain);
    let is_domain = domain.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    (is_domain && !domain.is_empty()).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domains_are_read_by_the_letter() {
        assert_eq!(trust_domain("spiffe://cluster.local/ns/a/sa/b"), Some("cluster.local"));
        assert_eq!(trust_domain("spiffe://cluster.local"), Some("cluster.local"));
        for id in
            ["SPIFFE://a/b", "spiffe://A/b", "spiffe:///b", "spiffe://a:1/b", "spiffe://u@a/b", "https://a/b", "a"]
        {
            assert_eq!(trust_domain(id), None, "{id}");
        }
    }
}
