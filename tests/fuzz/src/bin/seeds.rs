//! Writes what the targets start from below `corpus/`: the bootstraps that the proxy's own tests use, whole and taken apart
//! into resources.

use std::{fs, path::Path};

use prost::Message;
use weft_xds::{
    any, json,
    pb::{
        envoy::{
            config::bootstrap::v3::Bootstrap,
            extensions::filters::network::http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
        },
        google::protobuf::Any,
    },
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proxy/tests/fixtures");
    for entry in fs::read_dir(fixtures)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        write("bootstrap", &stem, text.as_bytes())?;
        let Ok(bootstrap) = json::from_yaml::<Bootstrap>(&text) else { continue };
        let resources = bootstrap.static_resources.unwrap_or_default();
        for (index, cluster) in resources.clusters.iter().enumerate() {
            write("xds_cluster", &format!("{stem}-{index}"), &cluster.encode_to_vec())?;
            if let Some(endpoints) = &cluster.load_assignment {
                write("xds_endpoints", &format!("{stem}-{index}"), &endpoints.encode_to_vec())?;
            }
        }
        for (index, listener) in resources.listeners.iter().enumerate() {
            write("xds_listener", &format!("{stem}-{index}"), &listener.encode_to_vec())?;
            let filters = listener.filter_chains.iter().flat_map(|chain| &chain.filters);
            for (filter, config) in filters.filter_map(|filter| filter.config_type.as_ref()).enumerate() {
                if let Some(routes) = routes(config) {
                    write("xds_routes", &format!("{stem}-{index}-{filter}"), &routes)?;
                }
            }
        }
    }
    first_bytes()?;
    Ok(())
}

/// Of connections.
fn first_bytes() -> std::io::Result<()> {
    let hello = [&[22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    write("client_hello", "plain", &hello)?;
    write("http_inspector", "get", b"GET / HTTP/1.1\r\n")?;
    write("http_inspector", "preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    for (at, request) in REQUESTS.into_iter().enumerate() {
        write("h1_request", &at.to_string(), &[b"\0\x09", request].concat())?;
    }
    for (at, response) in RESPONSES.into_iter().enumerate() {
        write("h1_response", &at.to_string(), &[b"\x02\x09", response].concat())?;
    }
    write("proxy_protocol", "v1", b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000\r\n")?;
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11"[..], &[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4], b"\x04\0\x02hi"].concat();
    write("proxy_protocol", "v2", &v2)
}

const REQUESTS: [&[u8]; 3] = [
    b"GET /a?b=c HTTP/1.1\r\nhost: a.test\r\nconnection: te, x-a\r\nte: trailers\r\nx-a: 1\r\n y\r\n\r\n",
    b"POST http://u@b.test:81/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
    b"CONNECT a.test:80 HTTP/1.0\r\nhost: a.test:80\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
];
const RESPONSES: [&[u8]; 3] = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\t2\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00a ;x=\"y\"\r\n0123456789\r\n0;last\r\nX-T: 1\r\n\r\nHTTP/1.1",
    b"HTTP/1.0 304\nconnection: keep-alive\n\n",
];

fn routes(config: &weft_xds::pb::envoy::config::listener::v3::filter::ConfigType) -> Option<Vec<u8>> {
    use weft_xds::pb::envoy::config::listener::v3::filter::ConfigType;
    let ConfigType::TypedConfig(config) = config else { return None };
    let config: &Any = config;
    let manager = any::unpack::<HttpConnectionManager>(config).ok()?;
    match manager.route_specifier? {
        RouteSpecifier::RouteConfig(routes) => Some(routes.encode_to_vec()),
        _ => None,
    }
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)
}
