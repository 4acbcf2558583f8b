//! Service account tokens: JWTs that Kubernetes' API server signed for a pod, checked against its keys in a file (JWKS).
//!
//! Invariants: only signatures by public keys count; the audience has to be ours; a token says who the caller is by `sub`.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::model::ObjectName;
use crate::transport::identity::Identity;

#[derive(Clone, Debug)]
pub struct TokenRules {
    /// Read at each call, so that it can be replaced.
    pub jwks_file: PathBuf,
    /// One of these has to be among the token's.
    pub audiences: Vec<String>,
    /// Where set, who has to have issued it.
    pub issuer: Option<String>,
    pub trust_domain: String,
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProof {
    pub identity: Identity,
    /// That it was made for, where it says so.
    pub pod: Option<ObjectName>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the keys in {} cannot be read", file.display())]
    Keys {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the token is not a JWT")]
    Form,
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    Length,
    #[error("tokens signed by {0} are not taken")]
    Algorithm(String),
    #[error("the token is signed by a key that is not known")]
    Key,
    #[error("the token is refused: {0}")]
    Claims(String),
    #[error("the token's subject {0:?} is no service account")]
    Subject(String),
}

const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Clocks differ; an expired token is not to live on.
const CLOCK_SKEW_SECONDS: u64 = 5;
/// Public keys only: with a shared secret whoever can check a token can make one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: Option<String>,
    pod: Option<Named>,
    serviceaccount: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl TokenRules {
    /// Fails where the keys can't be read now; a file that goes bad later lets nobody in.
    pub fn check_keys(&self) -> Result<(), TokenError> {
        keys(&self.jwks_file).map(|_| ())
    }

    pub fn verify(&self, token: &str) -> Result<TokenProof, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Length);
        }
        let header = decode_header(token).map_err(|_| TokenError::Form)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(TokenError::Algorithm(format!("{:?}", header.alg)));
        }
        let keys = keys(&self.jwks_file)?;
        let mut refusal = TokenError::Key;
        for key in keys.keys.iter().filter(|key| may_be_of(key, header.kid.as_deref())) {
            let Ok(key) = DecodingKey::from_jwk(key) else { continue };
            match decode::<Claims>(token, &key, &self.validation(header.alg)) {
                Ok(token) => return self.proof(token.claims),
                Err(error) => {
                    refusal = match error.kind() {
                        // Another of the keys may fit.
                        jsonwebtoken::errors::ErrorKind::InvalidSignature
                        | jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => continue,
                        _ => TokenError::Claims(error.to_string()),
                    }
                }
            }
        }
        Err(refusal)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = CLOCK_SKEW_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&self.audiences);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn proof(&self, claims: Claims) -> Result<TokenProof, TokenError> {
        let Claims { sub, kubernetes } = claims;
        let account = sub.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let (namespace, account) = account.ok_or_else(|| TokenError::Subject(sub.clone()))?;
        let identity = Identity::parse(&format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain))
            .map_err(|_| TokenError::Subject(sub.clone()))?;
        let Some(KubernetesClaims { namespace, pod, serviceaccount }) = kubernetes else {
            return Ok(TokenProof { identity, pod: None });
        };
        let is_other =
            |claimed: &Option<String>, proven: &str| claimed.as_ref().is_some_and(|claimed| claimed != proven);
        let account = serviceaccount.map(|account| account.name);
        if is_other(&namespace, &identity.namespace) || is_other(&account, &identity.service_account) {
            return Err(TokenError::Claims("its claims name two service accounts".to_owned()));
        }
        let pod = pod.map(|pod| ObjectName::new(&identity.namespace, &pod.name));
        Ok(TokenProof { identity, pod })
    }
}

fn keys(file: &Path) -> Result<JwkSet, TokenError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| TokenError::Keys { file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.into()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

fn may_be_of(key: &Jwk, key_id: Option<&str>) -> bool {
    let is_public = !matches!(key.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_));
    let is_named = match (&key.common.key_id, key_id) {
        (Some(known), Some(wanted)) => known == wanted,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    is_public && is_named
}

#[cfg(test)]
mod tests;
