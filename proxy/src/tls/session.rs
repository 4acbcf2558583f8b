//! One TLS connection of a downstream, after its handshake. The certificates are read when somebody first asks.

use std::{cell::OnceCell, sync::Arc};

use aws_lc_rs::digest::{Algorithm, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection,
    pki_types::{CertificateDer, UnixTime},
    sign::CertifiedKey,
};

use super::{CertificateFacts, certificate::hex};
use crate::config::tls::PeerValidation;

/// Lives as long as its connection.
pub struct TlsSession {
    /// Leaf first; empty: the peer has shown none.
    peer_chain: Vec<CertificateDer<'static>>,
    local: Arc<CertifiedKey>,
    /// What the peer's certificate had to be.
    validation: Option<Arc<PeerValidation>>,
    pub version: Option<ProtocolVersion>,
    pub cipher_suite: Option<CipherSuite>,
    pub is_resumed: bool,
    /// What the client calls the server.
    pub server_name: Option<String>,
    peer_facts: OnceCell<Option<CertificateFacts>>,
    local_facts: OnceCell<Option<CertificateFacts>>,
    is_peer_validated: OnceCell<bool>,
}

impl TlsSession {
    pub fn new(
        connection: &ServerConnection,
        local: Arc<CertifiedKey>,
        validation: Option<Arc<PeerValidation>>,
    ) -> TlsSession {
        TlsSession {
            peer_chain: connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
            local,
            validation,
            version: connection.protocol_version(),
            cipher_suite: connection.negotiated_cipher_suite().map(|suite| suite.suite()),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name: connection.server_name().map(str::to_owned),
            peer_facts: OnceCell::new(),
            local_facts: OnceCell::new(),
            is_peer_validated: OnceCell::new(),
        }
    }

    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.peer_chain
    }

    pub fn local_chain(&self) -> &[CertificateDer<'static>] {
        &self.local.cert
    }

    /// None: it has shown none, or one that cannot be read.
    pub fn peer(&self) -> Option<&CertificateFacts> {
        self.peer_facts.get_or_init(|| CertificateFacts::parse(self.peer_chain.first()?)).as_ref()
    }

    pub fn local(&self) -> Option<&CertificateFacts> {
        self.local_facts.get_or_init(|| CertificateFacts::parse(self.local_chain().first()?)).as_ref()
    }

    /// Of the peer's certificates, leaf first, in hexadecimal digits.
    pub fn fingerprints(&self, algorithm: &'static Algorithm) -> impl Iterator<Item = String> {
        self.peer_chain.iter().map(move |certificate| hex(digest(algorithm, certificate).as_ref()))
    }

    /// The peer's leaf in PEM, encoded so that it can stand in a header or a log.
    pub fn peer_pem_encoded(&self) -> Option<String> {
        self.peer_chain.first().map(|leaf| pem_encoded(leaf))
    }

    /// Somebody who is trusted vouches for the peer's certificate. A connection without may go on where it is not asked for,
    /// or where whatever is shown is taken.
    pub fn is_peer_validated(&self) -> bool {
        *self.is_peer_validated.get_or_init(|| match (&self.validation, &self.peer_chain[..]) {
            (Some(validation), [leaf, intermediates @ ..]) => {
                validation.is_trusted(leaf, intermediates, UnixTime::now())
            }
            _ => false,
        })
    }
}

/// Percent-encoded where Envoy does.
pub fn pem_encoded(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = String::with_capacity(text.len() * 9 / 8 + 96);
    pem.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % PEM_LINE_CHARACTERS == 0 {
            pem.push_str("%0A");
        }
        match character {
            '+' => pem.push_str("%2B"),
            '/' => pem.push_str("%2F"),
            '=' => pem.push_str("%3D"),
            other => pem.push(other),
        }
    }
    pem.push_str("%0A-----END%20CERTIFICATE-----%0A");
    pem
}

const PEM_LINE_CHARACTERS: usize = 64;

/// As OpenSSL calls it.
pub fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "unknown",
    }
}

/// As BoringSSL calls them.
pub fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "unknown",
    }
}
