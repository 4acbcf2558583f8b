//! What a TLS connection agreed on and who its peer is: for filters, logs and counters, after the handshake.

mod certificate;
mod distinguished_name;
mod session;

pub use certificate::{CertificateFacts, OtherName};
pub use session::{TlsSession, cipher_name, pem_encoded, version_name};
