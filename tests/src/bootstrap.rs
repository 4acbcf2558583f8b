//! The bootstrap that a sidecar is started with, as Istio's agent would write it; `weft-proxy` and Envoy both take it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::manifests::Interception;

/// Admin, on the pod's loopback.
pub const ADMIN_PORT: u16 = 15000;
/// Prometheus scrapes here, from outside of the pod.
pub const PROMETHEUS_PORT: u16 = 15090;

/// What differs from sidecar to sidecar.
#[derive(Debug, Clone)]
pub struct Sidecar<'a> {
    pub pod: &'a str,
    pub namespace: &'a str,
    pub address: IpAddr,
    pub labels: &'a BTreeMap<String, String>,
    pub interception: Interception,
    /// The control plane's plaintext xDS.
    pub control: SocketAddr,
    pub variant: XdsVariant,
}

/// How the configuration travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdsVariant {
    StateOfTheWorld,
    Delta,
}

/// The bootstrap.
pub fn sidecar(sidecar: &Sidecar<'_>) -> Value {
    let Sidecar { pod, namespace, address, labels, interception, control, variant } = sidecar;
    let api_type = match variant {
        XdsVariant::StateOfTheWorld => "GRPC",
        XdsVariant::Delta => "DELTA_GRPC",
    };
    let interception = match interception {
        Interception::Redirect => "REDIRECT",
        Interception::Tproxy => "TPROXY",
    };
    let app = labels.get("app").map_or(*pod, String::as_str);
    json!({
        "node": {
            "id": format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{app}.{namespace}"),
            "metadata": {
                "NAME": pod,
                "NAMESPACE": namespace,
                "LABELS": labels,
                "INSTANCE_IPS": address.to_string(),
                "INTERCEPTION_MODE": interception,
            },
        },
        "admin": {"address": socket("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [
                with_http2(static_cluster("xds-grpc", *control)),
                static_cluster("prometheus_stats", SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT))),
            ],
            "listeners": [prometheus_listener()],
        },
    })
}

/// The same bootstrap for Envoy, which has to be told that the names of clusters have dots in them; elsewhere it would cut them
/// at the first.
pub fn with_cluster_names_for_envoy(mut bootstrap: Value) -> Value {
    let regex = r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)";
    bootstrap["stats_config"] = json!({
        "use_all_default_tags": false,
        "stats_tags": [{"tag_name": "envoy.cluster_name", "regex": regex}],
    });
    bootstrap
}

/// A cluster of one fixed address.
pub fn static_cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(&address.ip().to_string(), address.port())}}]}],
        },
    })
}

/// The same cluster, spoken to in HTTP/2.
pub fn with_http2(cluster: Value) -> Value {
    with_protocol(cluster, &json!({"explicit_http_config": {"http2_protocol_options": {}}}))
}

/// The same cluster, spoken to as the caller speaks.
pub fn with_downstream_protocol(cluster: Value) -> Value {
    with_protocol(cluster, &json!({"use_downstream_protocol_config": {"http2_protocol_options": {}}}))
}

fn with_protocol(mut cluster: Value, options: &Value) -> Value {
    let mut options = options.clone();
    options["@type"] = json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    cluster
}

/// An `address` field.
pub fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// A network filter: HTTP with these routes and nothing but the router.
pub fn http_filter(stat_prefix: &str, route_config: &Value) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": stat_prefix,
            "route_config": route_config,
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    })
}

fn prometheus_listener() -> Value {
    let routes = json!({
        "name": "prometheus",
        "virtual_hosts": [{
            "name": "prometheus",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}}],
        }],
    });
    json!({
        "name": "prometheus",
        "address": socket("0.0.0.0", PROMETHEUS_PORT),
        "filter_chains": [{"filters": [http_filter("prometheus", &routes)]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_named_as_the_control_plane_expects() {
        let labels = BTreeMap::from([("app".to_owned(), "reviews".to_owned())]);
        let document = sidecar(&Sidecar {
            pod: "reviews-1",
            namespace: "demo",
            address: [10, 0, 0, 1].into(),
            labels: &labels,
            interception: Interception::Redirect,
            control: ([10, 0, 0, 254], 15010).into(),
            variant: XdsVariant::Delta,
        });
        assert_eq!(document["node"]["id"], "sidecar~10.0.0.1~reviews-1.demo~demo.svc.cluster.local");
        assert_eq!(document["node"]["cluster"], "reviews.demo");
        assert_eq!(document["dynamic_resources"]["ads_config"]["api_type"], "DELTA_GRPC");
        assert_eq!(document["node"]["metadata"]["LABELS"]["app"], "reviews");
    }
}
