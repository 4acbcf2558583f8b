//! Changes without end under load: nothing that does not concern a request or a connection is seen by it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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
    answered_by, by_rds, cluster, endpoints, listener,
    proxy::{eventually, free_address, origin},
    routes, serving, serving_from,
};

/// Requests, one after the other on connections of their own, until it is stopped. None of them may fail.
pub struct Load {
    stop: watch::Sender<bool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(listening: SocketAddr) -> Load {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicUsize::new(0));
        let caller = |_| tokio::spawn(request_until(listening, stopped.clone(), answered.clone()));
        let callers = (0..4).map(caller).collect();
        Load { stop, answered, callers }
    }

    /// How many were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were answered.
    pub async fn end(self) -> usize {
        self.stop.send_replace(true);
        for caller in self.callers {
            caller.await.expect("no request fails");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// Panics at the first request that is not answered as it should.
async fn request_until(address: SocketAddr, stopped: watch::Receiver<bool>, answered: Arc<AtomicUsize>) {
    while !*stopped.borrow() {
        assert_eq!(answered_by(address).await, "a", "after {} requests", answered.load(Ordering::Relaxed));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each change routes to a cluster that was not there before and drops the one before; some change the listener too.
#[tokio::test]
async fn no_request_fails_while_changes_arrive_in_any_order() {
    const CHANGES: usize = 1000;
    const REQUESTS: usize = 10_000;
    let application = origin("a").await;
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(application).await;
    let load = Load::start(listening);
    let mut random = fastrand::Rng::with_seed(7);
    let mut table = "r".to_owned();
    let mut change = 1;
    // Longer than asked where the machine is slow: what counts is how many requests meet how many changes.
    while change <= CHANGES || load.answered() < REQUESTS {
        change += 1;
        let (version, name) = (change.to_string(), format!("c{change}"));
        let mut answers =
            vec![(CLUSTER, cluster(&name, "1s")), (CLUSTER_LOAD_ASSIGNMENT, endpoints(&name, application))];
        if random.u8(..) < 80 {
            table = format!("r{change}");
            answers.push((LISTENER, listener("l", listening, &by_rds(&table))));
        }
        answers.push((ROUTE_CONFIGURATION, routes(&table, &name)));
        random.shuffle(&mut answers);
        for (type_url, resource) in answers {
            stream.answer(type_url, &version, &version, &[resource]);
            tokio::time::sleep(Duration::from_micros(random.u64(0..4000))).await;
        }
        while let Some(request) = stream.request_at_hand() {
            assert_eq!(request.error_detail, None);
        }
    }
    assert!(load.end().await >= REQUESTS);
}

#[tokio::test]
async fn endpoints_change_a_hundred_times_a_second() {
    const CHANGES: usize = 3000;
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

/// Agrees to any upgrade and then sends back what it gets.
async fn upgrading_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(answer).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// Reads up to the empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(DEADLINE, stream.read_u8()).await.expect("in time");
        head.push(byte.expect("the connection is open"));
    }
    String::from_utf8(head).expect("a head")
}

async fn websocket(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request).await.expect("the connection is open");
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Bytes both ways without a pause, until it is stopped; gives how many came back. None may be missing or changed.
async fn bulk(stream: TcpStream, stopped: watch::Receiver<bool>) -> usize {
    let (mut read, mut write) = stream.into_split();
    let pattern: Vec<u8> = (0..65_521_u32).map(|at| at.to_le_bytes()[usize::from(at % 2 == 1)]).collect();
    let expected = pattern.clone();
    let sending = tokio::spawn(async move {
        while !*stopped.borrow() {
            write.write_all(&pattern).await.expect("the connection is open");
        }
        write.shutdown().await.expect("the connection is open");
    });
    let mut received = 0;
    let mut buffer = vec![0; expected.len()];
    loop {
        let read = read.read_exact(&mut buffer).await;
        if read.is_err() {
            break;
        }
        assert!(buffer == expected, "changed after {received} bytes");
        received += buffer.len();
    }
    sending.await.expect("everything is sent");
    received
}

#[tokio::test]
async fn connections_survive_a_thousand_edits_of_other_listeners() {
    const EDITS: usize = 1000;
    let application = echo().await;
    let Serving { mut stream, proxy: _proxy, listening: _, server: _server } = serving(application).await;
    let upgrading = upgrading_echo().await;
    stream.answer(CLUSTER, "2", "2", &[cluster("a", "1s"), cluster("w", "1s")]);
    assert_eq!(stream.request_for(CLUSTER_LOAD_ASSIGNMENT).await.resource_names, ["a", "w"]);
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "2", "2", &[endpoints("a", application), endpoints("w", upgrading)]);
    stream.acknowledged(CLUSTER, "2", "2").await;
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "2").await;
    let (tcp, web, edited) = (free_address().await, free_address().await, free_address().await);
    let upgrades = format!("upgrade_configs: [{{upgrade_type: websocket}}], route_config: {}", routes("web", "w"));
    let versioned = |version: usize| {
        let table = format!("route_config: {}", routes(&format!("inline-{version}"), "a"));
        vec![tcp_listener(tcp, "a"), listener("w", web, &upgrades), listener("m", edited, &table)]
    };
    stream.answer(LISTENER, "2", "2", &versioned(2));
    stream.acknowledged(LISTENER, "2", "2").await;
    assert!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names.is_empty(), "l is gone");
    for address in [tcp, web] {
        eventually("it listens", async || TcpStream::connect(address).await.is_ok()).await;
    }
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(TcpStream::connect(tcp).await.expect("a connection"));
        connections.push(websocket(web).await);
    }
    for connection in &mut connections {
        echoes(connection, b"before").await;
    }
    let (stop, stopped) = watch::channel(false);
    let bulk = tokio::spawn(bulk(TcpStream::connect(tcp).await.expect("a connection"), stopped));
    for edit in 3..EDITS + 3 {
        let version = edit.to_string();
        stream.answer(LISTENER, &version, &version, &versioned(edit));
        stream.acknowledged(LISTENER, &version, &version).await;
        let at = edit % connections.len();
        echoes(&mut connections[at], version.as_bytes()).await;
    }
    stop.send_replace(true);
    assert!(bulk.await.expect("no byte is lost") > 1 << 20);
    for connection in &mut connections {
        echoes(connection, &[7; 100_000]).await;
    }
}
