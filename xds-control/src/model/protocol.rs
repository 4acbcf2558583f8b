//! What is spoken on a Service port, and how that follows from its declaration.
//!
//! `appProtocol` beats the port's name; where neither says anything, ports whose servers speak first are opaque and
//! the rest is left to be detected from the first bytes. Pure.

use serde::Serialize;

/// The protocol of a Service port as the mesh handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 (and WebSocket, which starts as it).
    Http1,
    /// HTTP/2 without TLS, known in advance.
    Http2,
    /// gRPC: HTTP/2 without TLS.
    Grpc,
    /// TLS of the application's own: opaque to the mesh.
    Tls,
    /// Bytes.
    Tcp,
    /// Not declared: told apart by the first bytes of the client.
    Detect,
}

impl Protocol {
    /// The protocol of a port from its `appProtocol`, its name and its number, in this order of precedence.
    pub fn select(app_protocol: Option<&str>, name: Option<&str>, port: u16) -> Self {
        if let Some(declared) = app_protocol.and_then(Self::from_app_protocol) {
            return declared;
        }
        if let Some(named) = name.and_then(Self::from_port_name) {
            return named;
        }
        if SERVER_FIRST_PORTS.contains(&port) { Self::Tcp } else { Self::Detect }
    }

    /// Whether requests are routed, rather than bytes forwarded.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// Whether the upstream is spoken to in HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Whether another Service's word for the same port counts more: any declaration beats none.
    pub fn gives_way_to(self, other: Self) -> bool {
        self == Self::Detect && other != Self::Detect
    }

    /// Whether both can be carried by the same configuration.
    pub fn agrees_with(self, other: Self) -> bool {
        let is_same_kind = self.is_http() == other.is_http() && self.is_http2() == other.is_http2();
        other == Self::Detect || (self != Self::Detect && is_same_kind)
    }

    fn from_app_protocol(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            // The prefixed names are those that Kubernetes itself defines (KEP-3726).
            "kubernetes.io/h2c" => Some(Self::Http2),
            "kubernetes.io/ws" => Some(Self::Http1),
            "kubernetes.io/wss" => Some(Self::Tls),
            other => Self::from_word(other),
        }
    }

    fn from_port_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        // `grpc-web` holds a dash of its own, so it is looked for before the suffix is cut off.
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Some(Self::Http1);
        }
        Self::from_word(name.split('-').next().unwrap_or(&name))
    }

    fn from_word(word: &str) -> Option<Self> {
        match word {
            // gRPC-Web is gRPC framed for HTTP/1.1 as browsers speak it.
            "http" | "grpc-web" => Some(Self::Http1),
            "http2" | "h2c" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "https" | "tls" => Some(Self::Tls),
            "tcp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// Ports whose protocols let the server speak first, or are known not to be HTTP: waiting for a client's first bytes
/// there would stall the connection. Mail, DNS, MySQL, Postgres, Redis, Galera, Elasticsearch, memcached, MongoDB.
const SERVER_FIRST_PORTS: [u16; 10] = [25, 53, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_beats_the_name() {
        assert_eq!(Protocol::select(Some("kubernetes.io/h2c"), Some("http"), 80), Protocol::Http2);
        assert_eq!(Protocol::select(Some("TCP"), Some("http"), 80), Protocol::Tcp);
        assert_eq!(Protocol::select(Some("kubernetes.io/ws"), None, 80), Protocol::Http1);
        assert_eq!(Protocol::select(Some("kubernetes.io/wss"), None, 443), Protocol::Tls);
    }

    #[test]
    fn an_unknown_app_protocol_leaves_it_to_the_name() {
        assert_eq!(Protocol::select(Some("example.com/own"), Some("grpc-api"), 80), Protocol::Grpc);
    }

    #[test]
    fn names_are_a_protocol_or_a_protocol_with_a_suffix() {
        for (name, expected) in [
            ("http", Protocol::Http1),
            ("http-web", Protocol::Http1),
            ("http2-x", Protocol::Http2),
            ("grpc", Protocol::Grpc),
            ("grpc-web", Protocol::Http1),
            ("grpc-web-admin", Protocol::Http1),
            ("grpc-webby", Protocol::Grpc),
            ("https", Protocol::Tls),
            ("tls-db", Protocol::Tls),
            ("mysql", Protocol::Tcp),
            ("HTTP", Protocol::Http1),
            ("httpx", Protocol::Detect),
            ("web", Protocol::Detect),
        ] {
            assert_eq!(Protocol::select(None, Some(name), 8080), expected, "{name}");
        }
    }

    #[test]
    fn ports_of_server_first_protocols_are_never_waited_on() {
        for port in [25, 53, 3306, 27017, 5432, 6379] {
            assert_eq!(Protocol::select(None, None, port), Protocol::Tcp, "{port}");
            assert_eq!(Protocol::select(None, Some("db"), port), Protocol::Tcp, "{port}");
        }
        assert_eq!(Protocol::select(None, None, 8080), Protocol::Detect);
    }
}
