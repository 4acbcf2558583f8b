//! TLS for the xDS port: the server's certificate and, where a CA for clients is given, theirs; read anew when the files
//! change.
//!
//! Connections keep what they began with; `connection_age_max` bounds how long. A file that cannot be used leaves the last
//! good state in force and is logged once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::{Identity, IdentityError};

/// Where keys and certificates are, PEM all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's chain, leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The roots of clients' certificates; without, none is asked for.
    pub client_ca: Option<PathBuf>,
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
    #[error("the certificates in {} cannot be used as roots", file.display())]
    Roots {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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

/// The server's side of TLS, always with the newest files.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: watch::Receiver<Arc<ServerConfig>>,
    has_client_ca: bool,
    trust_domain: Arc<str>,
}

/// Reads the files again whenever they changed.
#[derive(Debug)]
pub struct Reload {
    files: TlsFiles,
    seen: Contents,
    config: watch::Sender<Arc<ServerConfig>>,
}

/// How soon a change of a file is noticed: a few small reads each time, and it works for whatever way files are replaced.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

impl ServerTls {
    pub fn load(files: TlsFiles, trust_domain: &str) -> Result<(Self, Reload), TlsError> {
        let seen = Contents::read(&files)?;
        let config = watch::Sender::new(Arc::new(seen.config(&files)?));
        let tls = Self {
            config: config.subscribe(),
            has_client_ca: files.client_ca.is_some(),
            trust_domain: trust_domain.into(),
        };
        Ok((tls, Reload { files, seen, config }))
    }

    /// The handshake, and who the client is where it has to say so. Not cancel-safe: the connection is lost.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<Identity>>), AcceptError> {
        let config = self.config.borrow().clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        if !self.has_client_ca {
            return Ok((stream, None));
        }
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = certificates.first().ok_or(IdentityError::Certificate)?;
        let identity = Identity::of_certificate(leaf, &self.trust_domain)?;
        Ok((stream, Some(Arc::new(identity))))
    }
}

impl Reload {
    pub async fn run(mut self) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            match self.check() {
                Ok(is_changed) => {
                    complaint = None;
                    if is_changed {
                        tracing::info!("the certificates of the xDS port were read again");
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
    fn check(&mut self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        if contents == self.seen {
            return Ok(false);
        }
        let config = contents.config(&self.files)?;
        self.seen = contents;
        self.config.send_replace(Arc::new(config));
        Ok(true)
    }
}

/// The bytes of the files. Keys are in it: never printed.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |file: &Path| std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source });
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(file)) => {
                let mut roots = RootCertStore::empty();
                let unusable =
                    |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Roots { file: file.clone(), source };
                for root in certificates(pem, file)? {
                    roots.add(root).map_err(|error| unusable(error.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| unusable(error.into()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            file: files.key.clone(),
            what: "private key",
            source: Some(source),
        })?;
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// At least one.
fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |source| TlsError::Pem { file: file.to_owned(), what: "certificate", source };
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| refused(Some(error)))?;
    if certificates.is_empty() { Err(refused(None)) } else { Ok(certificates) }
}
