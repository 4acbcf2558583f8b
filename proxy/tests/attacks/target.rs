//! A weft-proxy process of its own for each attack, with an application behind it, and connections to it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::frames::kind;

pub struct Target {
    process: Child,
    listener: SocketAddr,
    admin: SocketAddr,
    // Deleted when dropped.
    _bootstrap: tempfile::NamedTempFile,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Target {
    /// `manager` is a further setting of the connection manager.
    pub fn start(manager: &str) -> Target {
        let (listener, admin) = (free_address(), free_address());
        let mut bootstrap = tempfile::NamedTempFile::with_suffix(".yaml").expect("a temporary file");
        bootstrap.write_all(bootstrap_text(listener, admin, application(), manager).as_bytes()).expect("written");
        let process = Command::new(env!("CARGO_BIN_EXE_weft-proxy"))
            .arg("-c")
            .arg(bootstrap.path())
            .args(["--concurrency", "1", "-l", "error"])
            .stdin(Stdio::null())
            .spawn()
            .expect("weft-proxy starts");
        let target = Target { process, listener, admin, _bootstrap: bootstrap };
        target.serves("start");
        target
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.listener).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set");
        Connection { stream, is_writable: true, seen: Vec::new() }
    }

    /// Whether a request of somebody else is answered.
    pub fn serves(&self, when: &str) {
        eventually(&format!("{when}: others are served"), || {
            get(self.listener, "/").is_some_and(|text| text.ends_with("ok"))
        });
    }

    pub fn counts(&self, counter: &str, when: &str) {
        eventually(&format!("{when}: {counter} counts it"), || {
            let text = get(self.admin, "/stats/prometheus").unwrap_or_default();
            let mut values =
                text.lines().filter(|line| line.starts_with(counter)).filter_map(|line| line.rsplit(' ').next());
            values.any(|value| value != "0")
        });
    }

    pub fn memory_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that there ever was.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with(field)).expect("the kernel says so");
        let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kilobytes * 1024
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill(); // Err: it ended already
        let _ = self.process.wait();
    }
}

pub struct Connection {
    stream: TcpStream,
    is_writable: bool,
    seen: Vec<u8>,
}

impl Connection {
    /// As far as the peer takes it.
    pub fn send(&mut self, bytes: &[u8]) {
        self.is_writable &= self.stream.write_all(bytes).is_ok();
    }

    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// The peer closes the connection, in one way or the other.
    pub fn ends(&mut self, when: &str) {
        let mut buffer = vec![0; 1 << 16];
        let begun = Instant::now();
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => assert!(begun.elapsed() < DEADLINE, "{when}: goes on"),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{when}: stays open");
                    return;
                }
            }
        }
    }

    /// The status and body of the answer on a stream.
    pub fn answer(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let (mut status, mut body) = (None, Vec::new());
        loop {
            let (kind, flags, of, payload) = self.frame();
            if of != stream {
                continue;
            }
            match kind {
                kind::HEADERS => status = Some(status_of(&payload)),
                kind::DATA => body.extend(payload),
                kind::RST_STREAM => panic!("reset: {payload:?}"),
                _ => {}
            }
            if matches!(kind, kind::HEADERS | kind::DATA) && flags & crate::frames::END_STREAM != 0 {
                return (status.expect("a head comes first"), body);
            }
        }
    }

    fn frame(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let [a, b, c, kind, flags, d, e, f, g, rest @ ..] = &self.seen[..]
                && let Some(payload) = rest.get(..u32::from_be_bytes([0, *a, *b, *c]) as usize)
            {
                let found = (*kind, *flags, u32::from_be_bytes([*d, *e, *f, *g]), payload.to_vec());
                self.seen.drain(..9 + found.3.len());
                return found;
            }
            let read = self.stream.read(&mut buffer).expect("something comes in time");
            assert!(read > 0, "closed");
            self.seen.extend_from_slice(&buffer[..read]);
        }
    }
}

/// It is the first field of a response: an index (RFC 7541 appendix A), or a name's index and text.
fn status_of(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block }; // a change of the table's size
    match *block {
        [0x88, ..] => 200,
        [first, 3, a, b, c, ..] if first & 0x0f == 8 || first & 0x3f == 8 => {
            [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        [first, 0x82, a, b, ..] if first & 0x3f == 8 && (a, b) == (0x68, 0x1e) => 408,
        _ => panic!("not understood: {block:02x?}"),
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Answers every request, whatever it is.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    request.extend_from_slice(&buffer[..read]);
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
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
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn bootstrap_text(listener: SocketAddr, admin: SocketAddr, application: SocketAddr, manager: &str) -> String {
    let socket = |address: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    format!(
        r#"
admin: {{address: {admin}}}
static_resources:
  listeners:
  - name: in
    address: {listener}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          {manager}
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {application}}}}}]}}]
"#,
        admin = socket(admin),
        listener = socket(listener),
        application = socket(application),
    )
}
