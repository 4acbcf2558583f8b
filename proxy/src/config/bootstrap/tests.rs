use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, refusal};

const SIDECAR: &str = include_str!("../../../tests/fixtures/sidecar.yaml");
const CLUSTER: &str = "{name: c, http2_protocol_options: {}}";
const ADS: &str = "api_type: GRPC, transport_api_version: V3";

fn dynamic(fields: &str) -> String {
    format!("static_resources: {{clusters: [{CLUSTER}]}}\ndynamic_resources: {{{fields}}}")
}

fn ads(service: &str) -> String {
    dynamic(&format!("ads_config: {{{ADS}, grpc_services: [{{{service}}}]}}"))
}

fn refused(yaml: &str) -> String {
    refusal(Bootstrap::parse(yaml))
}

#[test]
fn a_static_bootstrap_is_read() {
    let bootstrap = Bootstrap::parse(include_str!("../../../tests/fixtures/http.yaml")).unwrap();
    assert_eq!(bootstrap.node.id, "fixture");
    assert_eq!(bootstrap.admin.as_ref().unwrap().address, "127.0.0.1:0".parse().unwrap());
    assert_eq!((bootstrap.listeners.len(), bootstrap.clusters.len()), (1, 1));
    assert!(bootstrap.ads.is_none() && bootstrap.lds.is_none() && bootstrap.cds.is_none());
    assert_eq!(bootstrap.message.decode().static_resources.unwrap().listeners[0].name, "in");
}

#[test]
fn a_sidecars_bootstrap_is_read() {
    let bootstrap = Bootstrap::parse(SIDECAR).unwrap();
    let ads = bootstrap.ads.as_ref().unwrap();
    assert!(&*ads.cluster_name == "xds-grpc" && ads.set_node_on_first_message_only);
    assert!(bootstrap.lds.as_ref().unwrap().initial_fetch_timeout.is_none());
    assert_eq!(bootstrap.cds.as_ref().unwrap().initial_fetch_timeout.unwrap().as_secs(), 15);
    assert_eq!(bootstrap.admin.as_ref().unwrap().address, "127.0.0.1:15000".parse().unwrap());
    let error = bootstrap.check_node().unwrap_err();
    assert_eq!(error.to_string(), "node.cluster: value is required to speak to a control plane");
    let mut told = bootstrap;
    told.node.cluster = "from the command line".to_owned();
    told.check_node().unwrap();
}

#[test]
fn private_keys_stay_out_of_what_is_printed() {
    let key = include_str!("../../../tests/fixtures/tls/leaf.key").replace('\n', "\\n");
    let inline = include_str!("../../../tests/fixtures/mtls.yaml").replace(
        "private_key: {filename: tests/fixtures/tls/leaf.key}",
        &format!("private_key: {{inline_string: \"{key}\"}}"),
    );
    let bootstrap = Bootstrap::parse(&inline).unwrap();
    let printed = format!("{bootstrap:?}");
    assert!(printed.contains("DownstreamTls") && printed.contains("UpstreamTls"));
    assert!(!printed.contains("PRIVATE") && !printed.contains(key.split("\\n").nth(1).unwrap()));
}

#[test]
fn nothing_is_a_bootstrap_too() {
    let bootstrap = Bootstrap::parse("{}").unwrap();
    assert!(bootstrap.admin.is_none() && bootstrap.listeners.is_empty() && bootstrap.clusters.is_empty());
    bootstrap.check_node().unwrap();
}

#[test]
fn names_are_unique() {
    let listener = "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: \
        [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
        stat_prefix: t, cluster: nope}}]}]}";
    assert_eq!(
        refused(&format!("static_resources: {{listeners: [{listener}, {listener}]}}")),
        "static_resources.listeners[1].name: duplicate listener 'l'"
    );
    assert_eq!(
        refused(&format!("static_resources: {{clusters: [{CLUSTER}, {CLUSTER}]}}")),
        "static_resources.clusters[1].name: duplicate cluster 'c'"
    );
}

#[test]
fn static_routes_lead_to_clusters_that_exist() {
    let yaml =
        include_str!("../../../tests/fixtures/http.yaml").replacen("route: {cluster: app", "route: {cluster: nope", 1);
    assert_eq!(
        refused(&yaml),
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route\
         .cluster: unknown cluster 'nope'"
    );
}

#[test]
fn unknown_and_invalid_fields_are_refused_with_their_path() {
    let error = refused("static_resources: {clusters: [{name: c, nmae: x}]}");
    assert!(error.starts_with("static_resources.clusters[0].nmae: "), "{error}");
    let error = refused("static_resources: {clusters: [{name: ''}]}");
    assert!(error.starts_with("static_resources.clusters[0].name: "), "{error}");
}

#[test]
fn the_stream_needs_a_cluster_that_can_carry_it() {
    let cluster = |cluster: &str| ads("envoy_grpc: {cluster_name: c}").replace(CLUSTER, cluster);
    let path = "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name";
    for (yaml, reason) in [
        (ads("envoy_grpc: {cluster_name: q}"), "unknown cluster 'q'"),
        (cluster("{name: c}"), "cluster 'c' does not speak HTTP/2"),
        (
            cluster("{name: c, type: EDS, http2_protocol_options: {}, eds_cluster_config: {eds_config: {ads: {}}}}"),
            "cluster 'c' gets its endpoints by the stream it is for",
        ),
        (
            cluster("{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, http2_protocol_options: {}}"),
            "cluster 'c' has no endpoints",
        ),
    ] {
        assert_eq!(refused(&yaml), format!("{path}: {reason}"));
    }
}

#[test]
fn what_is_wrong_with_sources_is_named() {
    for (yaml, expected) in [
        (dynamic("lds_config: {ads: {}}"), "lds_config.ads: ads_config is not there"),
        (dynamic("cds_config: {ads: {}}"), "cds_config.ads: ads_config is not there"),
        (
            dynamic("lds_config: {path_config_source: {path: /none}}"),
            "lds_config.path_config_source.path: paths must refer to an existing path in the system: '/none' does not \
             exist",
        ),
        (
            dynamic(&format!(
                "cds_config: {{api_config_source: {{{ADS}, grpc_services: [{{envoy_grpc: {{cluster_name: \
                              q}}}}]}}}}"
            )),
            "cds_config: unknown cluster 'q'",
        ),
        (dynamic("cds_resources_locator: x"), "cds_resources_locator: not supported"),
        (ads("google_grpc: {target_uri: x, stat_prefix: x}"), "ads_config.grpc_services[0].google_grpc: not supported"),
        (
            ads("envoy_grpc: {cluster_name: c, authority: a b}"),
            "ads_config.grpc_services[0].envoy_grpc.authority: not an authority",
        ),
        (dynamic("ads_config: {api_type: AGGREGATED_GRPC}"), "ads_config.api_type: AGGREGATED_GRPC is not supported"),
        (dynamic("ads_config: {api_type: REST}"), "ads_config.api_type: REST is not supported"),
        (dynamic(&format!("ads_config: {{{ADS}}}")), "ads_config.grpc_services: exactly one is required"),
        (
            dynamic("ads_config: {api_type: GRPC, transport_api_version: V2}"),
            "ads_config.transport_api_version: V2 is not supported",
        ),
    ] {
        assert_eq!(refused(&yaml), format!("dynamic_resources.{expected}"));
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        "node: {id: x}",
        Bootstrap::from_proto,
        &[
            "node_context_params: [x]",
            "hds_config: {api_type: GRPC}",
            "flags_path: x",
            "stats_sinks: [{name: x}]",
            "watchdog: {}",
            "watchdogs: {}",
            "tracing: {}",
            "enable_dispatcher_stats: true",
            "header_prefix: x",
            "use_tcp_for_dns_lookups: true",
            "bootstrap_extensions: [{name: x, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}}]",
            "fatal_actions: [{}]",
            "config_sources: [{ads: {}}]",
            "default_config_source: {ads: {}}",
            "default_socket_interface: x",
            "perf_tracing_file_path: x",
            "application_log_config: {}",
            "enable_worker_cpu_affinity: true",
        ],
    );
    let admin = |fields: &str| format!("admin: {{{fields}}}");
    assert_refused(
        "node: {id: x}",
        Bootstrap::from_proto,
        &[
            (
                "static_resources: {secrets: [{name: x, generic_secret: {secret: {inline_string: x}}}]}",
                "static_resources.secrets[0].generic_secret: not supported",
            ),
            (
                "static_resources: {clusters: [{name: c, transport_socket: {name: tls, typed_config: {'@type': \
                 type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: \
                 {validation_context_sds_secret_config: {name: q}}}}}]}",
                "static_resources: unknown static secret 'q'",
            ),
            ("cluster_manager: {local_cluster_name: x}", "cluster_manager.local_cluster_name: not supported"),
            ("stats_config: {stats_matcher: {}}", "stats_config.stats_matcher.stats_matcher: value is required"),
            (
                "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: s, rtds_layer: {name: r}}]}",
                "layered_runtime.layers[1].rtds_layer: not supported",
            ),
            (
                "layered_runtime: {layers: [{name: a, disk_layer: {symlink_root: x}}]}",
                "layered_runtime.layers[0].disk_layer: not supported",
            ),
            (&admin("access_log_path: /tmp/x"), "admin.access_log_path: not supported"),
            (&admin("address: {pipe: {path: x}}"), "admin.address.pipe: not supported"),
            (
                &admin(
                    "access_log: [{name: x, typed_config: \
                     {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}]",
                ),
                "admin.access_log[0]: not supported",
            ),
        ],
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[ -~\n]{0,200}") {
        let _ = Bootstrap::parse(&text);
    }
}
