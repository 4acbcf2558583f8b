//! SPIFFE identities of workloads, from the certificates of clients. Pure.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::ads::node::Claims;

/// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the client's certificate cannot be read")]
    Certificate,
    #[error("the client's certificate has {0} URI names; an identity has exactly one")]
    Names(usize),
    #[error("the client's identity {0:?} is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
    Form(String),
    #[error("the client's identity {identity} is not of the trust domain {expected:?}")]
    TrustDomain { identity: Identity, expected: String },
    #[error("the client's identity {identity} may not speak for the namespace {claimed:?} of its node")]
    Namespace { identity: Identity, claimed: String },
    #[error("the client's identity {identity} may not speak for the service account {claimed:?} of its node")]
    ServiceAccount { identity: Identity, claimed: String },
}

impl Identity {
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let parsed = uri.strip_prefix("spiffe://").and_then(|rest| match rest.split('/').collect::<Vec<_>>()[..] {
            [trust_domain, "ns", namespace, "sa", service_account] => {
                let parts = [trust_domain, namespace, service_account];
                parts.iter().all(|part| is_name(part)).then(|| parts.map(ToOwned::to_owned))
            }
            _ => None,
        });
        let [trust_domain, namespace, service_account] = parsed.ok_or_else(|| IdentityError::Form(uri.to_owned()))?;
        Ok(Self { trust_domain, namespace, service_account })
    }

    /// The identity that a certificate, whose chain was verified, is for.
    pub fn of_certificate(der: &[u8], trust_domain: &str) -> Result<Self, IdentityError> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|_| IdentityError::Certificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Certificate)?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let uris = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let uris = uris.collect::<Vec<_>>();
        let [uri] = uris[..] else { return Err(IdentityError::Names(uris.len())) };
        let identity = Self::parse(uri)?;
        if identity.trust_domain != trust_domain {
            return Err(IdentityError::TrustDomain { identity, expected: trust_domain.to_owned() });
        }
        Ok(identity)
    }

    /// Whether a node's claims are this identity's. `known_account` is the service account that its pod runs as, where
    /// the pod is known.
    pub fn check_claims(&self, claims: &Claims, known_account: Option<&str>) -> Result<(), IdentityError> {
        if let Some(claimed) = claims.namespaces.iter().find(|namespace| **namespace != self.namespace) {
            return Err(IdentityError::Namespace { identity: self.clone(), claimed: claimed.clone() });
        }
        let accounts = claims.service_account.as_deref().into_iter().chain(known_account);
        match accounts.into_iter().find(|account| *account != self.service_account) {
            Some(claimed) => Err(IdentityError::ServiceAccount { identity: self.clone(), claimed: claimed.to_owned() }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

/// Names of domains, namespaces and service accounts: no escapes, no case to fold, nothing that prints as something else.
fn is_name(text: &str) -> bool {
    let is_of_names =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_of_names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Identity {
        Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
    }

    #[test]
    fn identities_are_read_and_printed() {
        assert_eq!(web().namespace, "shop");
        assert_eq!(web().to_string(), "spiffe://cluster.local/ns/shop/sa/web");
        for text in [
            "",
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns/shop/sa/web/",
            "spiffe://cluster.local/ns/shop/sa/web\0",
            "spiffe://cluster.local/ns/shop/sa/we%62",
            "spiffe://Cluster.local/ns/shop/sa/web",
            "SPIFFE://cluster.local/ns/shop/sa/web",
            "https://cluster.local/ns/shop/sa/web",
        ] {
            assert_eq!(Identity::parse(text), Err(IdentityError::Form(text.to_owned())));
        }
    }

    #[test]
    fn a_node_may_claim_only_what_its_identity_is() {
        let claims = |namespaces: &[&str], service_account: Option<&str>| Claims {
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            service_account: service_account.map(ToOwned::to_owned),
        };
        assert_eq!(web().check_claims(&claims(&["shop"], Some("web")), Some("web")), Ok(()));
        assert_eq!(web().check_claims(&claims(&[], None), None), Ok(()));
        let namespace = web().check_claims(&claims(&["shop", "bank"], None), None).unwrap_err();
        assert!(matches!(namespace, IdentityError::Namespace { claimed, .. } if claimed == "bank"));
        let account = web().check_claims(&claims(&["shop"], Some("admin")), None).unwrap_err();
        assert!(matches!(account, IdentityError::ServiceAccount { claimed, .. } if claimed == "admin"));
        let pod = web().check_claims(&claims(&["shop"], Some("web")), Some("db")).unwrap_err();
        assert!(matches!(pod, IdentityError::ServiceAccount { claimed, .. } if claimed == "db"));
    }

    #[test]
    fn what_is_no_certificate_has_no_identity() {
        assert_eq!(Identity::of_certificate(b"\x30\x00", "cluster.local"), Err(IdentityError::Certificate));
    }
}
