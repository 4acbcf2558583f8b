//! Reaching the control plane: the addresses, TLS and HTTP/2 settings of the bootstrap's cluster that the stream is configured
//! with, and one connection attempt. Names are looked up for each attempt, so that a control plane may move.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::{
        cluster::{ClusterConfig, Discovery, DnsDiscovery, UpstreamBind, UpstreamProtocol},
        http_connection_manager::Http2Options,
        tls::UpstreamTls,
    },
    upstream::{
        connect::Opening,
        dns::{self, LookupError},
        origin::Origin,
    },
};

/// The stream is silent for hours when nothing changes; a control plane that vanished without a word is to be noticed all
/// the same. HTTP/2 pings would do too, but servers may take unasked ones for abuse, so they go only where configured.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

#[derive(Clone, Debug)]
pub struct ControlPlane {
    endpoint: Endpoint,
    connector: Connector,
    addresses: Addresses,
}

/// Tried in turn.
#[derive(Clone, Debug)]
enum Addresses {
    /// Never empty.
    Fixed(Vec<SocketAddr>),
    Names(Arc<DnsDiscovery>),
}

#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    #[error("the configuration stream's cluster must be one of the bootstrap's: '{0}' is not there")]
    Unknown(Arc<str>),
    #[error("cluster '{0}' of the configuration stream must be STATIC, STRICT_DNS or LOGICAL_DNS")]
    NotReachable(Arc<str>),
    #[error("cluster '{0}' of the configuration stream has no endpoints")]
    NoEndpoints(Arc<str>),
    #[error("cluster '{0}' of the configuration stream must speak HTTP/2")]
    NotHttp2(Arc<str>),
    #[error("cluster '{0}' of the configuration stream needs secrets that would come by such a stream")]
    NeedsSecrets(Arc<str>),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to the control plane at {address}")]
    Connection {
        address: SocketAddr,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("cannot look up the control plane")]
    Lookup(#[source] LookupError),
    #[error("the control plane's name stands for no address")]
    NoAddress,
}

impl ControlPlane {
    /// `authority` is empty where it is the cluster's name.
    pub fn new(cluster: &ClusterConfig, authority: &str) -> Result<ControlPlane, ControlPlaneError> {
        let name = || cluster.name.clone();
        let UpstreamProtocol::Http2(options) = &cluster.protocol else {
            return Err(ControlPlaneError::NotHttp2(name()));
        };
        let addresses = match &cluster.discovery {
            Discovery::Static(assignment) => {
                let addresses: Vec<SocketAddr> = assignment.endpoints().map(|endpoint| endpoint.address).collect();
                if addresses.is_empty() {
                    return Err(ControlPlaneError::NoEndpoints(name()));
                }
                Addresses::Fixed(addresses)
            }
            Discovery::Dns(discovery) if discovery.assignment.endpoints().next().is_none() => {
                return Err(ControlPlaneError::NoEndpoints(name()));
            }
            Discovery::Dns(discovery) => Addresses::Names(discovery.clone()),
            Discovery::Eds(_) | Discovery::OriginalDst | Discovery::Aggregate(_) => {
                return Err(ControlPlaneError::NotReachable(name()));
            }
        };
        let connector = Connector {
            bind: cluster.bind.clone().unwrap_or_default(),
            tls: match cluster.transport_socket.as_deref() {
                None => None,
                Some(tls) => Some(Tls::new(tls).ok_or_else(|| ControlPlaneError::NeedsSecrets(name()))?),
            },
        };
        let authority = if authority.is_empty() { &cluster.name } else { authority };
        let origin = origin(authority, connector.tls.is_some());
        let endpoint = http2_settings(Endpoint::from(origin), options).connect_timeout(cluster.connect_timeout);
        Ok(ControlPlane { endpoint, connector, addresses })
    }

    /// Attempts count up; each takes the next address.
    pub async fn connect(&self, attempt: usize) -> Result<Channel, ConnectError> {
        let address = match &self.addresses {
            Addresses::Fixed(addresses) => addresses[attempt % addresses.len()],
            Addresses::Names(discovery) => {
                let addresses = dns::addresses(discovery).await.map_err(ConnectError::Lookup)?;
                let found = attempt.checked_rem(addresses.len()).map(|at| addresses[at]);
                found.ok_or(ConnectError::NoAddress)?
            }
        };
        let connector = self.connector.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect(address).await.map(TokioIo::new) }
        });
        self.endpoint
            .connect_with_connector(connect)
            .await
            .map_err(|source| ConnectError::Connection { address, source })
    }
}

/// The `:scheme` and `:authority` of the stream: the cluster's name where it can be one, as in Envoy.
fn origin(authority: &str, with_tls: bool) -> Uri {
    let scheme = if with_tls { "https" } else { "http" };
    let named = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    named.unwrap_or_else(|_| match with_tls {
        true => Uri::from_static("https://control-plane/"),
        false => Uri::from_static("http://control-plane/"),
    })
}

fn http2_settings(endpoint: Endpoint, options: &Http2Options) -> Endpoint {
    let endpoint = endpoint
        .initial_stream_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size);
    match &options.keepalive {
        Some(keepalive) => endpoint.http2_keep_alive_interval(keepalive.interval).keep_alive_timeout(keepalive.timeout),
        None => endpoint,
    }
}

#[derive(Clone, Debug)]
struct Connector {
    bind: Arc<UpstreamBind>,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<rustls::ClientConfig>,
    /// None: the name is the address.
    server_name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls") // holds a private key
    }
}

impl Tls {
    /// None: not all that it needs is there.
    fn new(tls: &UpstreamTls) -> Option<Tls> {
        let mut config = rustls::ClientConfig::clone(&*tls.config()?);
        if config.alpn_protocols.is_empty() {
            // RFC 9113 section 3.2: HTTP/2 over TLS is agreed on by ALPN.
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Some(Tls { config: Arc::new(config), server_name: tls.server_name("") })
    }
}

/// Either a TCP or a TLS stream.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connector {
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Duplex>> {
        let tcp = self.connect_tcp(address).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = tls.server_name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        let stream = tokio_rustls::TlsConnector::from(tls.config.clone()).connect(name, tcp).await?;
        Ok(Box::new(stream))
    }

    async fn connect_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let origin = Origin::default();
        let opening = Opening { bind: &self.bind, keepalive: None, origin: &origin };
        let stream = opening.open_tcp(address).await.map_err(io::Error::other)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use weft_xds::json;

    use super::*;

    const ENDPOINTS: &str = "endpoints: [{lb_endpoints: [\
        {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}, \
        {endpoint: {address: {socket_address: {address: '::1', port_value: 2}}}}]}]";
    const HTTP2: &str = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: {http2_protocol_options: {}}}}";

    fn control_plane(fields: &str) -> Result<ControlPlane, ControlPlaneError> {
        let message = json::from_yaml(&format!("{{name: c, {fields}}}")).expect("a cluster");
        ControlPlane::new(&ClusterConfig::from_proto(message).expect("a cluster"), "")
    }

    #[test]
    fn takes_a_static_cluster_that_speaks_http2() {
        let found = control_plane(&format!("type: STATIC, load_assignment: {{cluster_name: c, {ENDPOINTS}}}, {HTTP2}"));
        let Addresses::Fixed(addresses) = found.expect("a control plane").addresses else { panic!("fixed addresses") };
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "[::1]:2"]);
    }

    #[tokio::test]
    async fn names_are_looked_up_for_each_attempt() {
        let endpoint =
            |host: &str| format!("{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: 7}}}}}}}}");
        let assignment = |endpoints: &str| {
            format!("load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}")
        };
        let named = assignment(&format!("{}, {}", endpoint("127.0.0.2"), endpoint("127.0.0.1")));
        let found = control_plane(&format!("type: STRICT_DNS, {named}, {HTTP2}"));
        let Addresses::Names(discovery) = found.expect("a control plane").addresses else { panic!("names") };
        let addresses = dns::addresses(&discovery).await.expect("nothing to ask a server for");
        assert_eq!(addresses, ["127.0.0.2:7", "127.0.0.1:7"].map(|address| address.parse().expect("an address")));
        let none = control_plane(&format!("type: STRICT_DNS, {}, {HTTP2}", assignment("")));
        assert!(matches!(none, Err(ControlPlaneError::NoEndpoints(_))));
    }

    #[test]
    fn says_what_is_wrong_with_others() {
        let refusal = |fields: &str| control_plane(fields).expect_err("unusable").to_string();
        let assignment = format!("load_assignment: {{cluster_name: c, {ENDPOINTS}}}");
        assert!(refusal(&format!("type: STATIC, {assignment}")).ends_with("must speak HTTP/2"));
        assert!(
            refusal(&format!("type: STATIC, load_assignment: {{cluster_name: c}}, {HTTP2}")).ends_with("no endpoints")
        );
        let eds = "type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}";
        assert!(refusal(&format!("{eds}, {HTTP2}")).ends_with("must be STATIC, STRICT_DNS or LOGICAL_DNS"));
    }

    #[test]
    fn the_authority_is_the_clusters_name_where_it_can_be() {
        assert_eq!(origin("xds-grpc", false).to_string(), "http://xds-grpc/");
        assert_eq!(origin("outbound|15010||control plane", true).to_string(), "https://control-plane/");
    }
}
