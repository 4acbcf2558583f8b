//! `istio.v1.auth.IstioCertificateService`: who calls, what they ask for, what they get; a line for each in the audit log
//! (target `audit`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};
use weft_xds::ca::{IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService};

use super::authority::{Authority, SignError};
use super::request::{self, RequestError};
use super::token::{TokenError, TokenProof, TokenRules};
use crate::model::ObjectName;
use crate::snapshot::shared::Shared;
use crate::transport::Peer;
use crate::transport::identity::Identity;

/// What signs for workloads, and how it knows them.
pub struct Certificates {
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Without, only who has a certificate gets another.
    pub tokens: Option<TokenRules>,
    pub shared: watch::Receiver<Arc<Shared>>,
    /// Given where none is asked for, and where more is.
    pub lifetime_max: Duration,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("who calls is proven neither by a certificate nor by a token (authorization: Bearer)")]
    Nobody,
    #[error("authorization: a single bearer token is expected")]
    Credentials,
    #[error("tokens are not taken here (--ca-jwks-file); a certificate is")]
    NoTokens,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the certificate proves {certificate} and the token {token}")]
    TwoIdentities { certificate: String, token: String },
    #[error("the token is of the pod {0}, which is not there")]
    Pod(ObjectName),
    #[error("the token is of the pod {pod}, which runs as {account:?}")]
    Account { pod: ObjectName, account: String },
    #[error("validity_duration: {0} seconds is no duration")]
    Lifetime(i64),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Self::Token(TokenError::Keys { .. }) => Code::Unavailable,
            Self::Nobody | Self::Credentials | Self::NoTokens | Self::Token(_) => Code::Unauthenticated,
            Self::TwoIdentities { .. } | Self::Pod(_) | Self::Account { .. } => Code::PermissionDenied,
            Self::Request(RequestError::Name { .. }) => Code::PermissionDenied,
            Self::Lifetime(_) | Self::Request(_) => Code::InvalidArgument,
            Self::Sign(_) => Code::Internal,
        }
    }
}

impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.to_string()).unwrap_or_default();
        let proven = self.prove(&request);
        let caller = proven.as_ref().ok().map(ToString::to_string);
        let signed = proven.and_then(|identity| self.sign(&identity, request.get_ref(), SystemTime::now()));
        match signed {
            Ok((cert_chain, not_after)) => {
                metrics::counter!("citadel_server_success_cert_issuance_count").increment(1);
                let until = not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                tracing::info!(target: "audit", peer, caller, until, "signed a certificate");
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(refusal) => {
                metrics::counter!("citadel_server_authentication_failure_count").increment(1);
                tracing::warn!(target: "audit", peer, caller, reason = %refusal, "refused to sign a certificate");
                Err(Status::new(refusal.code(), refusal.to_string()))
            }
        }
    }
}

impl Certificates {
    /// Who calls. Where there are two proofs, both have to say the same.
    fn prove<T>(&self, request: &Request<T>) -> Result<Identity, Refusal> {
        let certified = request.extensions().get::<Peer>().and_then(|peer| peer.identity.as_deref()).cloned();
        let mut given = request.metadata().get_all(header::AUTHORIZATION.as_str()).iter();
        let told =
            match (given.next(), given.next()) {
                (None, _) => None,
                (Some(value), None) => {
                    let (scheme, token) =
                        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refusal::Credentials)?;
                    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
                    let rules = self.tokens.as_ref().ok_or(Refusal::NoTokens)?;
                    Some(self.check_pod(
                        rules.verify(Some(token.trim()).filter(|_| is_bearer).ok_or(Refusal::Credentials)?)?,
                    )?)
                }
                (Some(_), Some(_)) => return Err(Refusal::Credentials),
            };
        match (certified, told) {
            (Some(certificate), Some(token)) if certificate != token => {
                Err(Refusal::TwoIdentities { certificate: certificate.to_string(), token: token.to_string() })
            }
            (Some(identity), _) | (None, Some(identity)) => Ok(identity),
            (None, None) => Err(Refusal::Nobody),
        }
    }

    /// A token outlives the pod that it was made for.
    fn check_pod(&self, proof: TokenProof) -> Result<Identity, Refusal> {
        let TokenProof { identity, pod } = proof;
        let Some(pod) = pod else { return Ok(identity) };
        let shared = self.shared.borrow();
        match shared.mesh.workloads.get(&pod) {
            None => Err(Refusal::Pod(pod)),
            Some(workload) if workload.service_account != identity.service_account => {
                Err(Refusal::Account { pod, account: workload.service_account.clone() })
            }
            Some(_) => Ok(identity),
        }
    }

    fn sign(
        &self,
        identity: &Identity,
        request: &IstioCertificateRequest,
        now: SystemTime,
    ) -> Result<(Vec<String>, SystemTime), Refusal> {
        // What the metadata hints at, signers and the like, is not offered.
        let IstioCertificateRequest { csr, validity_duration, metadata: _ } = request;
        let lifetime = match u64::try_from(*validity_duration) {
            Ok(0) => self.lifetime_max,
            Ok(seconds) => Duration::from_secs(seconds).min(self.lifetime_max),
            Err(_) => return Err(Refusal::Lifetime(*validity_duration)),
        };
        let key = request::check(csr, identity)?;
        let authority = self.authority.borrow().clone();
        let signed = authority.sign_workload(&key, identity, lifetime, now)?;
        let mut chain = signed.chain.iter().map(pem).collect::<Vec<_>>();
        // All roots are trusted while one takes the place of another.
        chain.push(authority.roots().iter().map(pem).collect());
        Ok((chain, signed.not_after))
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(certificate);
    let lines = encoded.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
