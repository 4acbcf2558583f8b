//! A weft-proxy process that asks a test's control plane, and what a test sees of it from outside.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::ads_server::DEADLINE;

pub struct Proxy {
    process: Child,
    pub admin: SocketAddr,
    // Deleted when dropped.
    _bootstrap: tempfile::NamedTempFile,
}

impl Proxy {
    /// With listeners and clusters by ADS.
    pub async fn start(control_plane: SocketAddr) -> Proxy {
        Proxy::start_with(control_plane, "").await
    }

    /// The same, in the delta variant.
    pub async fn start_with_delta(control_plane: SocketAddr) -> Proxy {
        let admin = free_address().await;
        let text = bootstrap_text(admin, control_plane, "").replace("api_type: GRPC", "api_type: DELTA_GRPC");
        Proxy::run(admin, &text)
    }

    /// `cluster` are further fields of the control plane's cluster.
    pub async fn start_with(control_plane: SocketAddr, cluster: &str) -> Proxy {
        let admin = free_address().await;
        Proxy::run(admin, &bootstrap_text(admin, control_plane, cluster))
    }

    /// `dynamic` stands in the place of the dynamic resources.
    pub async fn start_from(control_plane: SocketAddr, dynamic: &str) -> Proxy {
        let admin = free_address().await;
        let text = bootstrap_text(admin, control_plane, "");
        let (before, rest) = text.split_once("dynamic_resources:").expect("they are there");
        let (_, after) = rest.split_once("static_resources:").expect("they are there");
        Proxy::run(admin, &format!("{before}dynamic_resources: {{{dynamic}}}\nstatic_resources:{after}"))
    }

    fn run(admin: SocketAddr, text: &str) -> Proxy {
        let mut bootstrap = tempfile::NamedTempFile::with_suffix(".yaml").expect("a temporary file");
        bootstrap.write_all(text.as_bytes()).expect("a written file");
        let process = Command::new(env!("CARGO_BIN_EXE_weft-proxy"))
            .arg("-c")
            .arg(bootstrap.path())
            .args(["--concurrency", "2"])
            .stdin(Stdio::null())
            .spawn()
            .expect("weft-proxy starts");
        Proxy { process, admin, _bootstrap: bootstrap }
    }

    pub async fn admin(&self, path: &str) -> Option<Answer> {
        get(self.admin, path).await
    }

    /// What `/ready` says.
    pub async fn ready(&self) -> Option<u16> {
        Some(self.admin("/ready").await?.status)
    }

    pub async fn becomes_ready(&self) {
        eventually("the proxy is ready", async || self.ready().await == Some(200)).await;
    }

    pub async fn config_dump(&self) -> serde_json::Value {
        let answer = self.admin("/config_dump?include_eds").await.expect("a dump");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// The part of the dump with this type.
    pub async fn dumped(&self, part: &str) -> serde_json::Value {
        let dump = self.config_dump().await;
        let parts = dump["configs"].as_array().expect("parts");
        let has_type =
            |value: &&serde_json::Value| value["@type"] == format!("type.googleapis.com/envoy.admin.v3.{part}");
        parts.iter().find(has_type).expect("the part").clone()
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Whether it ended as it should.
    pub async fn ends(&mut self) -> bool {
        let mut status = None;
        eventually("the proxy ends", async || {
            status = self.process.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.is_some_and(|status| status.success())
    }

    /// A counter or gauge without labels.
    pub async fn counter(&self, name: &str) -> Option<f64> {
        let text = self.admin("/stats/prometheus").await?.body;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start_matches("{}").strip_prefix(' ')?.parse().ok())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill(); // Err: it ended already
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// A request on a connection of its own. None: no connection, or no answer.
pub async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, body: body.to_owned() })
    };
    timeout(DEADLINE, exchange).await.expect("an answer in time")
}

/// An application that answers every request with its name.
pub async fn origin(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    request.extend_from_slice(&buffer[..read]);
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// Nobody else gets it for a while, as the kernel gives ports in turns.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}

/// Waits for the condition, and not for longer than is right.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn bootstrap_text(admin: SocketAddr, control_plane: SocketAddr, cluster: &str) -> String {
    let socket = |address: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    format!(
        r#"
node: {{id: test-node, cluster: test-cluster}}
admin: {{address: {admin}}}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{{envoy_grpc: {{cluster_name: control-plane}}}}]
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: control-plane
    type: STATIC
    connect_timeout: 1s
    {cluster}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {control_plane}}}}}]}}]
"#,
        admin = socket(admin),
        control_plane = socket(control_plane),
    )
}
