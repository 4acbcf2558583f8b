//! The proxy and a control plane: what is asked, acknowledged and refused, in which order, and what traffic sees of it.

mod ads_server;
mod churn;
mod delta;
mod lifetimes;
mod proxy;
mod secrets;
mod sources;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ads_server::{AdsServer, AdsStream, DEADLINE};
use proxy::{Proxy, eventually, free_address, get, origin};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::rustls::{
    self,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tonic::Status;
use weft_xds::{
    pb::google::protobuf::Any,
    type_url::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, RUNTIME},
};

fn cluster(name: &str, connect_timeout: &str) -> String {
    format!(
        "{{name: {name}, connect_timeout: {connect_timeout}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}, \
         resource_api_version: V3}}}}}}"
    )
}

fn endpoints(name: &str, address: SocketAddr) -> String {
    format!(
        "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, \
         port_value: {}}}}}}}}}]}}]}}",
        address.ip(),
        address.port()
    )
}

fn listener(name: &str, address: SocketAddr, routes: &str) -> String {
    format!(
        "{{name: {name}, address: {{socket_address: {{address: {}, port_value: {}}}}}, filter_chains: [{{filters: \
         [{{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.\
         http_connection_manager.v3.HttpConnectionManager, stat_prefix: {name}, {routes}, http_filters: [{{name: router, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}",
        address.ip(),
        address.port()
    )
}

fn by_rds(name: &str) -> String {
    format!("rds: {{route_config_name: {name}, config_source: {{ads: {{}}, resource_api_version: V3}}}}")
}

fn routes(name: &str, cluster: &str) -> String {
    format!(
        "{{name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: \
         {cluster}}}}}]}}]}}"
    )
}

/// What a request through the listener gets: the name of the application that answered, or the status.
async fn answered_by(address: SocketAddr) -> String {
    match get(address, "/").await {
        Some(answer) if answer.status == 200 => answer.body,
        Some(answer) => answer.status.to_string(),
        None => "refused".to_owned(),
    }
}

/// A proxy with one listener that routes by `r` to the cluster `a`, every version and nonce being 1.
struct Serving {
    server: AdsServer,
    stream: AdsStream,
    proxy: Proxy,
    listening: SocketAddr,
}

async fn serving(application: SocketAddr) -> Serving {
    serving_from(AdsServer::start().await, application).await
}

async fn serving_from(mut server: AdsServer, application: SocketAddr) -> Serving {
    let proxy = Proxy::start(server.address).await;
    let listening = free_address().await;
    let mut stream = server.stream().await;
    stream.request_for(CLUSTER).await;
    stream.answer(CLUSTER, "1", "1", &[cluster("a", "1s")]);
    stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "1", "1", &[endpoints("a", application)]);
    stream.acknowledged(CLUSTER, "1", "1").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "1", "1").await;
    stream.request_for(LISTENER).await;
    stream.answer(LISTENER, "1", "1", &[listener("l", listening, &by_rds("r"))]);
    stream.acknowledged(LISTENER, "1", "1").await;
    stream.request_for(ROUTE_CONFIGURATION).await;
    stream.answer(ROUTE_CONFIGURATION, "1", "1", &[routes("r", "a")]);
    stream.acknowledged(ROUTE_CONFIGURATION, "1", "1").await;
    proxy.becomes_ready().await;
    Serving { server, stream, proxy, listening }
}

#[tokio::test]
async fn starts_in_order_and_serves_when_everything_is_there() {
    let application = origin("a").await;
    let mut server = AdsServer::start().await;
    let proxy = Proxy::start(server.address).await;
    let listening = free_address().await;
    let mut stream = server.stream().await;

    let first = stream.request_for(CLUSTER).await;
    let node = first.node.expect("the node comes first");
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("test-node", "test-cluster"));
    assert!(first.resource_names.is_empty() && first.version_info.is_empty() && first.response_nonce.is_empty());
    stream.silent().await;
    stream.answer(CLUSTER, "c1", "n1", &[cluster("a", "1s")]);

    let asked = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(asked.resource_names, ["a"]);
    assert_eq!(asked.node, None, "the node comes once a stream");
    stream.silent().await;
    assert_eq!(proxy.ready().await, Some(503));
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "e1", "n2", &[endpoints("a", application)]);

    stream.acknowledged(CLUSTER, "c1", "n1").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "e1", "n2").await;
    assert!(stream.request_for(LISTENER).await.resource_names.is_empty());
    stream.answer(LISTENER, "l1", "n3", &[listener("l", listening, &by_rds("r"))]);
    stream.acknowledged(LISTENER, "l1", "n3").await;
    assert_eq!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names, ["r"]);
    assert_eq!(answered_by(listening).await, "refused");
    assert_eq!(proxy.ready().await, Some(503));
    let listeners = proxy.dumped("ListenersConfigDump").await;
    assert_eq!(listeners["dynamic_listeners"][0]["warming_state"]["version_info"], "l1");

    stream.answer(ROUTE_CONFIGURATION, "r1", "n4", &[routes("r", "a")]);
    stream.acknowledged(ROUTE_CONFIGURATION, "r1", "n4").await;
    proxy.becomes_ready().await;
    assert_eq!(answered_by(listening).await, "a");
    stream.silent().await;

    let clusters = proxy.dumped("ClustersConfigDump").await;
    assert_eq!(clusters["version_info"], "c1");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "control-plane");
    assert_eq!(clusters["dynamic_active_clusters"][0]["cluster"]["name"], "a");
    let listeners = proxy.dumped("ListenersConfigDump").await;
    assert_eq!(listeners["dynamic_listeners"][0]["active_state"]["listener"]["name"], "l");
    let tables = proxy.dumped("RoutesConfigDump").await;
    assert_eq!(tables["dynamic_route_configs"][0]["route_config"]["name"], "r");
    let assignments = proxy.dumped("EndpointsConfigDump").await;
    assert_eq!(assignments["dynamic_endpoint_configs"][0]["endpoint_config"]["cluster_name"], "a");
    assert_eq!(proxy.counter("envoy_cluster_manager_cds_update_success").await, Some(1.0));
    assert_eq!(proxy.counter("envoy_control_plane_connected_state").await, Some(1.0));
}

#[tokio::test]
async fn an_answer_that_breaks_a_rule_changes_nothing() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    let other = free_address().await;
    let nameless_filter = listener("n", free_address().await, &by_rds("r")).replace("name: http,", "");
    stream.answer(LISTENER, "2", "2", &[listener("m", other, &by_rds("r")), nameless_filter]);
    let reason = stream.refused(LISTENER, "1", "2").await;
    assert!(reason.starts_with("Error adding/updating listener(s) n: filter_chains[0].filters[0].name: "), "{reason}");
    assert_eq!(answered_by(listening).await, "a");
    assert_eq!(answered_by(other).await, "refused", "nothing of that answer is applied");
    assert_eq!(proxy.counter("envoy_listener_manager_lds_update_rejected").await, Some(1.0));

    let undecodable = Any { type_url: CLUSTER.into(), value: vec![0xff] };
    stream.answer_with(CLUSTER, "2", "2", vec![undecodable]);
    let reason = stream.refused(CLUSTER, "1", "2").await;
    assert!(reason.starts_with("Error adding/updating cluster(s) resources[0]: "), "{reason}");
    stream.answer(CLUSTER, "3", "3", &[cluster("a", "1s"), cluster("a", "2s")]);
    let reason = stream.refused(CLUSTER, "1", "3").await;
    assert_eq!(reason, "Error adding/updating cluster(s) a: duplicate cluster a found");
    assert_eq!(answered_by(listening).await, "a");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_and_the_rest_of_its_answer_applied() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    let other = free_address().await;
    let strange = listener("n", free_address().await, &by_rds("r")).replace("router.v3.Router", "lua.v3.Lua");
    stream.answer(
        LISTENER,
        "2",
        "2",
        &[listener("l", listening, &by_rds("r")), strange, listener("m", other, &by_rds("r"))],
    );
    let reason = stream.refused(LISTENER, "1", "2").await;
    assert!(reason.starts_with("Error adding/updating listener(s) n: filter_chains[0].filters[0]"), "{reason}");
    eventually("the good one is applied", async || answered_by(other).await == "a").await;
    assert_eq!(answered_by(listening).await, "a");
    let dumped = proxy.dumped("ListenersConfigDump").await;
    let failed = dumped["dynamic_listeners"].as_array().expect("listeners").iter().find(|one| one["name"] == "n");
    let details = failed.expect("the refused one")["error_state"]["details"].as_str().expect("why").to_owned();
    assert!(reason.contains(&details), "{details}");
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_its_listener() {
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(origin("a").await).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    stream.answer(LISTENER, "2", "2", &[listener("l", listening, &by_rds("r")), listener("m", address, &by_rds("r"))]);
    let reason = stream.refused(LISTENER, "1", "2").await;
    assert!(reason.contains(&format!("m: cannot bind '{address}'")), "{reason}");
    assert_eq!(answered_by(listening).await, "a");
    drop(taken);
    stream.answer(LISTENER, "2", "3", &[listener("l", listening, &by_rds("r")), listener("m", address, &by_rds("r"))]);
    stream.acknowledged(LISTENER, "2", "3").await;
    eventually("it is tried again", async || answered_by(address).await == "a").await;
}

#[tokio::test]
async fn a_changed_cluster_serves_as_it_was_until_its_endpoints_come() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    stream.answer(CLUSTER, "2", "2", &[cluster("a", "2s")]);
    let again = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!((again.version_info.as_str(), again.response_nonce.as_str()), ("1", "1"));
    assert_eq!(again.resource_names, ["a"]);
    stream.silent().await;
    assert_eq!(answered_by(listening).await, "a");
    let dumped = proxy.dumped("ClustersConfigDump").await;
    assert_eq!(dumped["dynamic_warming_clusters"][0]["version_info"], "2");
    assert_eq!(dumped["dynamic_active_clusters"][0]["version_info"], "1");

    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "2", &[endpoints("a", origin("b").await)]);
    stream.acknowledged(CLUSTER, "2", "2").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "2").await;
    assert_eq!(answered_by(listening).await, "b");
}

#[tokio::test]
async fn routes_wait_for_a_cluster_that_comes_after_them() {
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(origin("a").await).await;
    stream.answer(ROUTE_CONFIGURATION, "2", "2", &[routes("r", "b")]);
    stream.acknowledged(ROUTE_CONFIGURATION, "2", "2").await;
    assert_eq!(answered_by(listening).await, "a");
    stream.answer(CLUSTER, "2", "2", &[cluster("b", "1s")]);
    assert_eq!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names, ["b"]);
    assert_eq!(answered_by(listening).await, "a", "a was dropped, but requests still go there");
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "2", &[endpoints("b", origin("b").await)]);
    stream.acknowledged(CLUSTER, "2", "2").await;
    assert_eq!(answered_by(listening).await, "b");
}

#[tokio::test]
async fn a_lost_control_plane_changes_nothing_and_is_asked_again() {
    let Serving { mut server, stream, proxy, listening } = serving(origin("a").await).await;
    stream.fail(Status::unavailable("going away"));
    let mut stream = server.stream().await;
    assert_eq!(answered_by(listening).await, "a");

    let clusters = stream.request_for(CLUSTER).await;
    assert_eq!(clusters.node.expect("the node of a new stream").id, "test-node");
    let assignments = stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await;
    let listeners = stream.request_for(LISTENER).await;
    let tables = stream.request_for(ROUTE_CONFIGURATION).await;
    for request in [&listeners, &assignments, &tables] {
        assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), ("1", ""));
    }
    assert_eq!((clusters.version_info.as_str(), clusters.response_nonce.as_str()), ("1", ""));
    assert_eq!(assignments.resource_names, ["a"]);
    assert_eq!(tables.resource_names, ["r"]);

    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "x", &[endpoints("a", origin("b").await)]);
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "x").await;
    assert_eq!(answered_by(listening).await, "b");
    assert_eq!(proxy.counter("envoy_cluster_manager_cds_update_failure").await, Some(1.0));
    assert_eq!(proxy.counter("envoy_control_plane_connected_state").await, Some(1.0));
}

#[tokio::test]
async fn a_control_plane_that_comes_late_is_found() {
    let address = free_address().await;
    let proxy = Proxy::start(address).await;
    eventually("an attempt failed", async || {
        proxy.counter("envoy_cluster_manager_cds_update_failure").await.is_some_and(|failures| failures >= 1.0)
    })
    .await;
    assert_eq!(proxy.ready().await, Some(503));
    let mut server = AdsServer::start_at(address).await;
    let mut stream = server.stream().await;
    stream.request_for(CLUSTER).await;
    stream.answer(CLUSTER, "1", "1", &[]);
    stream.acknowledged(CLUSTER, "1", "1").await;
    stream.request_for(LISTENER).await;
    stream.answer(LISTENER, "1", "1", &[]);
    stream.acknowledged(LISTENER, "1", "1").await;
    proxy.becomes_ready().await;
}

/// Wants a certificate of the tests' own authority, and HTTP/2 to be agreed on.
fn mutual_tls() -> Arc<rustls::ServerConfig> {
    let file = |name: &str| format!("tests/fixtures/tls/{name}.pem");
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let read = CertificateDer::pem_file_iter(file(name)).expect("a file").collect::<Result<_, _>>();
        read.expect("certificates")
    };
    let mut authorities = rustls::RootCertStore::empty();
    authorities.add_parsable_certificates(certificates("ca"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone()).build();
    let key = PrivateKeyDer::from_pem_file("tests/fixtures/tls/leaf.key").expect("a key");
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("versions")
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(certificates("leaf"), key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn a_control_plane_can_ask_for_mutual_tls() {
    const CERTIFICATES: &str = "tls_certificates: [{certificate_chain: {filename: tests/fixtures/tls/leaf.pem}, \
                                private_key: {filename: tests/fixtures/tls/leaf.key}}], \
                                validation_context: {trusted_ca: {filename: tests/fixtures/tls/ca.pem}}";
    let mut server = AdsServer::start_with_tls(mutual_tls()).await;
    let socket = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls\
         .v3.UpstreamTlsContext, sni: app.test, common_tls_context: {{{CERTIFICATES}}}}}}}"
    );
    let proxy = Proxy::start_with(server.address, &socket).await;
    let mut stream = server.stream().await;
    stream.request_for(CLUSTER).await;
    stream.answer(CLUSTER, "1", "1", &[]);
    stream.acknowledged(CLUSTER, "1", "1").await;
    assert_eq!(proxy.counter("envoy_control_plane_connected_state").await, Some(1.0));
}

#[tokio::test]
async fn an_answer_of_a_type_that_was_not_asked_for_is_ignored() {
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(origin("a").await).await;
    stream.answer(RUNTIME, "1", "1", &["{name: default}".to_owned()]);
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "2", &[endpoints("unknown", free_address().await)]);
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "2").await;
    stream.silent().await;
    assert_eq!(answered_by(listening).await, "a");
}

#[tokio::test]
async fn removed_listeners_and_clusters_go() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    stream.answer(LISTENER, "2", "2", &[]);
    stream.acknowledged(LISTENER, "2", "2").await;
    assert!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names.is_empty(), "nobody routes by it any more");
    eventually("the listener is gone", async || answered_by(listening).await == "refused").await;
    stream.answer(CLUSTER, "2", "2", &[]);
    stream.acknowledged(CLUSTER, "2", "2").await;
    assert!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names.is_empty());
    eventually("the cluster is gone", async || {
        proxy.admin("/clusters").await.is_some_and(|answer| !answer.body.lines().any(|line| line.starts_with("a::")))
    })
    .await;
}

#[tokio::test]
async fn the_configuration_goes_on_while_the_proxy_drains() {
    let never_answers = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let application = never_answers.local_addr().expect("an address");
    let Serving { mut stream, mut proxy, listening, server: _server } = serving(application).await;
    let mut under_way = TcpStream::connect(listening).await.expect("a connection");
    under_way.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    eventually("the request is under way", async || {
        proxy
            .admin("/stats/prometheus")
            .await
            .is_some_and(|answer| answer.body.contains("envoy_cluster_upstream_rq_active{envoy_cluster_name=\"a\"} 1"))
    })
    .await;
    proxy.terminate();
    eventually("it drains", async || proxy.admin("/ready").await.is_some_and(|answer| answer.body == "DRAINING\n"))
        .await;
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "2", &[endpoints("a", origin("b").await)]);
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "2").await;
    assert_eq!(proxy.dumped("ClustersConfigDump").await["version_info"], "1");
    drop(under_way);
    assert!(proxy.ends().await);
}

/// A large mesh, with the endpoints of each cluster in an answer of their own: work that grows with the square of the
/// number of clusters would not be done in time.
#[tokio::test]
async fn thousands_of_clusters_start_quickly() {
    const CLUSTERS: usize = 2000;
    let application = origin("a").await;
    let mut server = AdsServer::start().await;
    let proxy = Proxy::start(server.address).await;
    let listening = free_address().await;
    let mut stream = server.stream().await;
    let name = |index: usize| format!("outbound|80||service-{index}.namespace.svc.cluster.local");
    stream.request_for(CLUSTER).await;
    let clusters: Vec<String> = (0..CLUSTERS).map(|index| cluster(&format!("'{}'", name(index)), "1s")).collect();
    let begun = cpu_time();
    stream.answer(CLUSTER, "1", "1", &clusters);
    assert_eq!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names.len(), CLUSTERS);
    for index in 0..CLUSTERS {
        let text = endpoints(&format!("'{}'", name(index)), application);
        stream.answer(CLUSTER_LOAD_ASSIGNMENT, "1", &index.to_string(), &[text]);
    }
    while stream.request().await.type_url != LISTENER {}
    stream.answer(LISTENER, "1", "1", &[listener("l", listening, &by_rds("r"))]);
    while stream.request().await.type_url != ROUTE_CONFIGURATION {}
    stream.answer(ROUTE_CONFIGURATION, "1", "1", &[routes("r", &format!("'{}'", name(CLUSTERS - 1)))]);
    proxy.becomes_ready().await;
    assert_eq!(answered_by(listening).await, "a");
    let taken = cpu_time() - begun;
    assert!(taken < DEADLINE, "{taken:?}");
    println!("{CLUSTERS} clusters took {taken:?}");
}

/// Of this process: what a busy machine does not change.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("of a process that lives");
    // The name, which may hold anything, ends with the last bracket; user and system time are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
