//! Other sources than the aggregated stream: a stream for each kind, and files.

use std::path::Path;

use weft_xds::type_url::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

use crate::{
    ads_server::{AdsServer, AdsStream},
    answered_by, by_rds, cluster, endpoints, listener,
    proxy::{Proxy, eventually, free_address, origin},
    routes,
};

const OWN_STREAM: &str = "api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: \
                          {cluster_name: control-plane}, initial_metadata: [{key: x-token, value: secret}]}]}";

#[tokio::test]
async fn each_kind_can_have_a_stream_of_its_own() {
    let application = origin("a").await;
    let mut server = AdsServer::start().await;
    let dynamic = format!(
        "lds_config: {{resource_api_version: V3, {OWN_STREAM}}}, cds_config: {{resource_api_version: V3, {OWN_STREAM}}}"
    );
    let proxy = Proxy::start_from(server.address, &dynamic).await;
    let listening = free_address().await;
    let own = |text: String| text.replace("ads: {}", OWN_STREAM);

    let mut clusters = server.stream().await;
    assert_eq!(clusters.method, "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters");
    assert_eq!(clusters.metadata.get("x-token").map(|value| value.as_bytes()), Some(&b"secret"[..]));
    assert!(clusters.request_for(CLUSTER).await.node.is_some());
    clusters.answer(CLUSTER, "1", "1", &[own(cluster("a", "1s"))]);
    let mut assignments = server.stream().await;
    assert_eq!(assignments.method, "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints");
    assert_eq!(assignments.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names, ["a"]);
    assignments.answer(CLUSTER_LOAD_ASSIGNMENT, "1", "1", &[endpoints("a", application)]);
    clusters.acknowledged(CLUSTER, "1", "1").await;
    assignments.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "1", "1").await;

    let mut listeners = server.stream().await;
    assert_eq!(listeners.method, "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners");
    listeners.request_for(LISTENER).await;
    listeners.answer(LISTENER, "1", "1", &[own(listener("l", listening, &by_rds("r")))]);
    listeners.acknowledged(LISTENER, "1", "1").await;
    let mut tables = server.stream().await;
    assert_eq!(tables.method, "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes");
    assert_eq!(tables.request_for(ROUTE_CONFIGURATION).await.resource_names, ["r"]);
    tables.answer(ROUTE_CONFIGURATION, "1", "1", &[routes("r", "a")]);
    tables.acknowledged(ROUTE_CONFIGURATION, "1", "1").await;
    proxy.becomes_ready().await;
    assert_eq!(answered_by(listening).await, "a");

    // A stream that nothing comes by any more ends.
    listeners.answer(LISTENER, "2", "2", &[]);
    listeners.acknowledged(LISTENER, "2", "2").await;
    tables.ends().await;
    assert_eq!(proxy.counter("envoy_control_plane_connected_state").await, Some(1.0));
}

#[tokio::test]
async fn a_stream_to_nowhere_refuses_what_names_it() {
    let mut server = AdsServer::start().await;
    let _proxy = Proxy::start(server.address).await;
    let mut stream: AdsStream = server.stream().await;
    stream.request_for(CLUSTER).await;
    let nowhere = OWN_STREAM.replace("control-plane", "nowhere");
    stream.answer(CLUSTER, "1", "1", &[cluster("a", "1s").replace("ads: {}", &nowhere)]);
    let reason = stream.refused(CLUSTER, "", "1").await;
    assert!(reason.starts_with("Error adding/updating cluster(s) a: ") && reason.contains("'nowhere'"), "{reason}");
}

/// As a `DiscoveryResponse`; renamed over what is there.
fn write(path: &Path, type_url: &str, version: &str, resources: &[String]) {
    let resources: Vec<String> = resources
        .iter()
        .map(|text| format!("  - {}\n", text.replacen('{', &format!("{{'@type': {type_url}, "), 1)))
        .collect();
    let text = format!("version_info: '{version}'\nresources:\n{}", resources.concat());
    let text = if resources.is_empty() { format!("version_info: '{version}'\n") } else { text };
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

#[tokio::test]
async fn files_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(format!("{name}.yaml"));
    let listening = free_address().await;
    let by_file = |name: &str| format!("path_config_source: {{path: {}}}", file(name).display());
    let cluster_of = |name: &str| cluster(name, "1s").replace("ads: {}", &by_file("eds"));
    let routed = |name: &str| listener("l", listening, &format!("route_config: {}", routes("inline", name)));
    write(&file("eds"), CLUSTER_LOAD_ASSIGNMENT, "1", &[endpoints("a", origin("a").await)]);
    write(&file("cds"), CLUSTER, "1", &[cluster_of("a")]);
    write(&file("lds"), LISTENER, "1", &[routed("a")]);
    let dynamic = format!(
        "lds_config: {{resource_api_version: V3, {}}}, cds_config: {{resource_api_version: V3, {}}}",
        by_file("lds"),
        by_file("cds"),
    );
    let proxy = Proxy::start_from(free_address().await, &dynamic).await;
    proxy.becomes_ready().await;
    assert_eq!(answered_by(listening).await, "a");
    assert_eq!(proxy.dumped("ClustersConfigDump").await["version_info"], "1");

    write(&file("eds"), CLUSTER_LOAD_ASSIGNMENT, "2", &[endpoints("a", origin("b").await)]);
    eventually("endpoints are read again", async || answered_by(listening).await == "b").await;

    // What is wrong changes nothing, and is counted.
    std::fs::write(file("cds"), "resources: [").expect("written");
    eventually("it is counted", async || proxy.counter("envoy_cluster_manager_cds_update_failure").await == Some(1.0))
        .await;
    assert_eq!(answered_by(listening).await, "b");

    let both = [endpoints("a", origin("b").await), endpoints("c", origin("c").await)];
    write(&file("eds"), CLUSTER_LOAD_ASSIGNMENT, "3", &both);
    write(&file("cds"), CLUSTER, "2", &[cluster_of("c")]);
    write(&file("lds"), LISTENER, "2", &[routed("c")]);
    eventually("clusters and listeners are read again", async || answered_by(listening).await == "c").await;
    write(&file("lds"), LISTENER, "3", &[]);
    eventually("the listener is gone", async || answered_by(listening).await == "refused").await;
}

/// As Kubernetes mounts them: the file is a link below a link that is switched.
#[tokio::test]
async fn switched_links_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let listening = free_address().await;
    let mount = |version: &str, text: &str| {
        std::fs::create_dir(at(version)).expect("a folder");
        let body = format!("{{status: 200, body: {{inline_string: '{text}'}}}}");
        let table = format!(
            "{{name: inline, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, \
             direct_response: {body}}}]}}]}}"
        );
        let one = listener("l", listening, &format!("route_config: {table}"));
        write(&at(version).join("lds.yaml"), LISTENER, version, &[one]);
        std::os::unix::fs::symlink(version, at("..tmp")).expect("a link");
        std::fs::rename(at("..tmp"), at("..data")).expect("renamed");
    };
    mount("..1", "one");
    std::os::unix::fs::symlink("..data/lds.yaml", at("lds.yaml")).expect("a link");
    let source = format!(
        "path_config_source: {{path: {}, watched_directory: {{path: {}}}}}",
        at("lds.yaml").display(),
        folder.path().display()
    );
    let proxy =
        Proxy::start_from(free_address().await, &format!("lds_config: {{resource_api_version: V3, {source}}}")).await;
    proxy.becomes_ready().await;
    assert_eq!(answered_by(listening).await, "one");
    mount("..2", "two");
    eventually("the link is followed", async || answered_by(listening).await == "two").await;
}
