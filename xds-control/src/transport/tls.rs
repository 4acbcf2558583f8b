//! TLS for the xDS port: the server's certificate, from files or from the mesh's own authority, and the clients', where they
//! have to or may have one; renewed when files or the authority change, and when the own certificate ages.
//!
//! Connections keep what they began with; `connection_age_max` bounds how long. What cannot be used leaves the last good
//! state in force and is logged once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{Identity, IdentityError};
use crate::ca::authority::{Authority, Material};

/// Where keys and certificates come from.
#[derive(Clone, Debug)]
pub struct TlsSources {
    pub server: ServerSource,
    /// The roots of clients' certificates, PEM: each client has to have one.
    pub client_ca: Option<PathBuf>,
    /// It trusts its own too; who has none has to prove otherwise who it is.
    pub authority: Option<watch::Receiver<Arc<Authority>>>,
}

/// The server's own certificate.
#[derive(Clone, Debug)]
pub enum ServerSource {
    /// PEM; the chain's leaf first.
    Files { certificate: PathBuf, key: PathBuf },
    /// Signed by the authority, for these names.
    Authority { names: Vec<String> },
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no usable {what}", file.display())]
    Pem {
        file: PathBuf,
        what: &'static str,
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    #[error("the certificate and the key cannot be used")]
    Pair(#[source] rustls::Error),
    #[error("the certificates of {roots} cannot be used as roots")]
    Roots {
        roots: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("there is no authority to sign the server's certificate")]
    NoAuthority,
    #[error("the server's certificate cannot be made")]
    Own(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the TLS handshake failed")]
    Handshake(#[from] std::io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl AcceptError {
    pub fn cause(&self) -> Option<String> {
        std::error::Error::source(self).map(ToString::to_string)
    }
}

/// The server's side of TLS, always with the newest certificates.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: watch::Receiver<Arc<ServerConfig>>,
    asks_for_certificates: bool,
    trust_domain: Arc<str>,
}

/// Renews what is used whenever it changed.
#[derive(Debug)]
pub struct Reload {
    sources: TlsSources,
    seen: Contents,
    config: watch::Sender<Arc<ServerConfig>>,
}

/// How soon a change is noticed: a few small reads each time, and it works for whatever way files are replaced.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Of the server's own certificate; it is renewed when half of it is over.
const OWN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

impl ServerTls {
    pub fn load(sources: TlsSources, trust_domain: &str) -> Result<(Self, Reload), TlsError> {
        let seen = Contents::read(&sources, None, SystemTime::now())?;
        let config = watch::Sender::new(Arc::new(seen.config(&sources)?));
        let tls = Self {
            config: config.subscribe(),
            asks_for_certificates: sources.client_ca.is_some() || sources.authority.is_some(),
            trust_domain: trust_domain.into(),
        };
        Ok((tls, Reload { sources, seen, config }))
    }

    /// The handshake, and who the client is where it says so. Not cancel-safe: the connection is lost.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<Identity>>), AcceptError> {
        let config = self.config.borrow().clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        if !self.asks_for_certificates {
            return Ok((stream, None));
        }
        // Without one where one is required, the handshake failed.
        let Some(leaf) = stream.get_ref().1.peer_certificates().unwrap_or_default().first() else {
            return Ok((stream, None));
        };
        let identity = Identity::of_certificate(leaf, &self.trust_domain)?;
        Ok((stream, Some(Arc::new(identity))))
    }
}

impl Reload {
    pub async fn run(mut self) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            match self.check(SystemTime::now()) {
                Ok(is_changed) => {
                    complaint = None;
                    if is_changed {
                        tracing::info!("the certificates of the xDS port were renewed");
                    }
                }
                Err(error) => {
                    let text = Some(error.to_string());
                    if complaint != text {
                        let error = &error as &(dyn std::error::Error + 'static);
                        tracing::error!(error, "the certificates of the xDS port changed and cannot be used");
                    }
                    complaint = text;
                }
            }
        }
    }

    /// Whether there was a change.
    fn check(&mut self, now: SystemTime) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.sources, Some(&self.seen), now)?;
        if contents == self.seen {
            return Ok(false);
        }
        let config = contents.config(&self.sources)?;
        self.seen = contents;
        self.config.send_replace(Arc::new(config));
        Ok(true)
    }
}

/// What the sources held. Keys are in it: never printed.
#[derive(PartialEq, Eq)]
struct Contents {
    server: ServerContents,
    client_ca: Option<Vec<u8>>,
    authority_roots: Vec<CertificateDer<'static>>,
}

#[derive(PartialEq, Eq)]
enum ServerContents {
    Files { certificate: Vec<u8>, key: Vec<u8> },
    Own(Arc<Own>),
}

/// A certificate that the authority signed.
#[derive(PartialEq, Eq)]
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    signed_by: Material,
    renew_at: SystemTime,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl Own {
    fn sign(authority: &Authority, names: &[String], now: SystemTime) -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate().map_err(|error| TlsError::Own(error.into()))?;
        let signed =
            authority.sign_server(&key, names, OWN_LIFETIME, now).map_err(|error| TlsError::Own(error.into()))?;
        let lifetime = signed.not_after.duration_since(now).unwrap_or_default();
        Ok(Self {
            chain: signed.chain,
            key: key.serialize_der(),
            signed_by: authority.material().clone(),
            renew_at: now + lifetime / 2,
        })
    }
}

impl Contents {
    fn read(sources: &TlsSources, before: Option<&Self>, now: SystemTime) -> Result<Self, TlsError> {
        let read = |file: &Path| std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source });
        let authority = sources.authority.as_ref().map(|authority| authority.borrow().clone());
        let server = match &sources.server {
            ServerSource::Files { certificate, key } => {
                ServerContents::Files { certificate: read(certificate)?, key: read(key)? }
            }
            ServerSource::Authority { names } => {
                let authority = authority.as_ref().ok_or(TlsError::NoAuthority)?;
                match before.map(|before| &before.server) {
                    Some(ServerContents::Own(own)) if now < own.renew_at && own.signed_by == *authority.material() => {
                        ServerContents::Own(own.clone())
                    }
                    _ => ServerContents::Own(Arc::new(Own::sign(authority, names, now)?)),
                }
            }
        };
        let authority_roots = authority.map(|authority| authority.roots().to_vec()).unwrap_or_default();
        Ok(Self { server, client_ca: sources.client_ca.as_deref().map(read).transpose()?, authority_roots })
    }

    fn config(&self, sources: &TlsSources) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match self.client_roots(sources)? {
            None => builder.with_no_client_auth(),
            Some((roots, named)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                // Whose roots are in a file has been told that every client has a certificate.
                let verifier = if sources.client_ca.is_some() { verifier } else { verifier.allow_unauthenticated() };
                let verifier =
                    verifier.build().map_err(|error| TlsError::Roots { roots: named, source: error.into() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = match (&self.server, &sources.server) {
            (ServerContents::Files { certificate, key }, ServerSource::Files { certificate: file, key: key_file }) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
                    file: key_file.clone(),
                    what: "private key",
                    source: Some(source),
                })?;
                (certificates(certificate, file)?, key)
            }
            (ServerContents::Own(own), _) => (own.chain.clone(), PrivateKeyDer::Pkcs8(own.key.clone().into())),
            (ServerContents::Files { .. }, ServerSource::Authority { .. }) => return Err(TlsError::NoAuthority),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// With a name for people. None: no certificates are asked for.
    fn client_roots(&self, sources: &TlsSources) -> Result<Option<(RootCertStore, String)>, TlsError> {
        let (mut roots, mut named) = (RootCertStore::empty(), "the authority".to_owned());
        let mut all = self.authority_roots.clone();
        if let (Some(pem), Some(file)) = (&self.client_ca, &sources.client_ca) {
            named = file.display().to_string();
            all.extend(certificates(pem, file)?);
        }
        if all.is_empty() {
            return Ok(None);
        }
        for root in all {
            roots.add(root).map_err(|error| TlsError::Roots { roots: named.clone(), source: error.into() })?;
        }
        Ok(Some((roots, named)))
    }
}

/// At least one.
fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |source| TlsError::Pem { file: file.to_owned(), what: "certificate", source };
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| refused(Some(error)))?;
    if certificates.is_empty() { Err(refused(None)) } else { Ok(certificates) }
}
