//! Changes without end under load: nothing that does not concern a request or a connection is seen by it.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
};
use weft_xds::type_url::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

use crate::{
    Serving,
    ads_server::{AdsServer, DEADLINE},
    cluster, endpoints, listener,
    proxy::{eventually, free_address, origin},
    request_until, routes, serving, serving_from,
};

/// Requests, one after the other on connections of their own, until it is stopped. None of them may fail.
struct Load {
    stop: watch::Sender<bool>,
    requests: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(listening: SocketAddr) -> Load {
        let (stop, stopped) = watch::channel(false);
        let requests = (0..4).map(|_| tokio::spawn(request_until(listening, stopped.clone()))).collect();
        Load { stop, requests }
    }

    /// How many were answered.
    async fn end(self) -> usize {
        self.stop.send_replace(true);
        let mut answered = 0;
        for task in self.requests {
            answered += task.await.expect("no request fails");
        }
        answered
    }
}

#[tokio::test]
async fn endpoints_change_a_hundred_times_a_second() {
    const CHANGES: usize = 300;
    let hosts = [origin("a").await, origin("a").await, origin("a").await];
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(hosts[0]).await;
    let load = Load::start(listening);
    for change in 2..CHANGES + 2 {
        let version = change.to_string();
        stream.answer(CLUSTER_LOAD_ASSIGNMENT, &version, &version, &[endpoints("a", hosts[change % hosts.len()])]);
        while let Some(request) = stream.request_at_hand() {
            assert_eq!(request.error_detail, None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(load.end().await > CHANGES);
}

/// A control plane that can be killed: its connections end with it.
struct Mortal {
    server: AdsServer,
    runtime: Runtime,
}

impl Mortal {
    async fn start_at(address: SocketAddr) -> Mortal {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.spawn(AdsServer::start_at(address)).await.expect("a server");
        Mortal { server, runtime }
    }

    async fn dies(self, address: SocketAddr) {
        self.runtime.shutdown_background();
        eventually("it lets go of its address", async || TcpListener::bind(address).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_control_plane_that_dies_ten_times_is_not_missed() {
    let address = free_address().await;
    let Mortal { server, runtime } = Mortal::start_at(address).await;
    let Serving { server, stream, proxy, listening } = serving_from(server, origin("a").await).await;
    drop(stream);
    let load = Load::start(listening);
    let mut mortal = Mortal { server, runtime };
    for _ in 0..10 {
        mortal.dies(address).await;
        mortal = Mortal::start_at(address).await;
        let mut stream = mortal.server.stream().await;
        stream.request_for(CLUSTER).await;
        while stream.request().await.type_url != ROUTE_CONFIGURATION {}
        // An answer, without which the proxy would take longer and longer to come back.
        stream.answer(CLUSTER, "1", "1", &[cluster("a", "1s")]);
        stream.acknowledged(CLUSTER, "1", "1").await;
    }
    mortal.dies(address).await;
    assert!(load.end().await > 100);
    let failures = proxy.counter("envoy_cluster_manager_cds_update_failure").await;
    assert!(failures.is_some_and(|failures| failures >= 10.0), "{failures:?}");
}

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

fn tcp_listener(address: SocketAddr, cluster: &str) -> String {
    format!(
        "{{name: t, address: {{socket_address: {{address: {}, port_value: {}}}}}, filter_chains: [{{filters: [{{name: tcp, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: \
         t, cluster: {cluster}}}}}]}}]}}",
        address.ip(),
        address.port()
    )
}

async fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.expect("the connection is open");
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("in time").expect("an echo");
    assert_eq!(answer, text);
}

#[tokio::test]
async fn connections_survive_a_thousand_edits_of_other_listeners() {
    const EDITS: usize = 1000;
    let application = echo().await;
    let Serving { mut stream, proxy: _proxy, listening: _, server: _server } = serving(application).await;
    let (tcp, edited) = (free_address().await, free_address().await);
    let versioned = |version: usize| {
        let table = format!("route_config: {}", routes(&format!("inline-{version}"), "a"));
        vec![tcp_listener(tcp, "a"), listener("m", edited, &table)]
    };
    stream.answer(LISTENER, "2", "2", &versioned(2));
    stream.acknowledged(LISTENER, "2", "2").await;
    assert!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names.is_empty(), "l is gone");
    eventually("it listens", async || TcpStream::connect(tcp).await.is_ok()).await;
    let mut connections = Vec::new();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(tcp).await.expect("a connection");
        echoes(&mut connection, b"before").await;
        connections.push(connection);
    }
    for edit in 3..EDITS + 3 {
        let version = edit.to_string();
        stream.answer(LISTENER, &version, &version, &versioned(edit));
        stream.acknowledged(LISTENER, &version, &version).await;
        let at = edit % connections.len();
        echoes(&mut connections[at], version.as_bytes()).await;
    }
    for connection in &mut connections {
        echoes(connection, &[7; 100_000]).await;
    }
}
