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
    Ok(())
}

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
