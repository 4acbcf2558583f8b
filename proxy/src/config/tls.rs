//! `envoy.extensions.transport_sockets.tls.v3`: rustls configurations from downstream and upstream TLS contexts whose
//! certificates stand in the configuration (inline or as files).

use std::sync::Arc;

/// Built once for a filter chain.
pub struct DownstreamTls {
    pub config: Arc<rustls::ServerConfig>,
}

/// Built once for a cluster.
pub struct UpstreamTls {
    pub config: Arc<rustls::ClientConfig>,
    /// None: the server name is the endpoint's address, and no SNI is sent.
    pub sni: Option<rustls::pki_types::ServerName<'static>>,
}

impl std::fmt::Debug for DownstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DownstreamTls") // holds a private key
    }
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamTls") // holds a private key
    }
}
