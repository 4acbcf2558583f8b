//! A pod and the world around it, as two network namespaces on one machine, and connections between them that say where
//! they arrived.
//!
//! The namespaces have no names and the servers are threads, so that nothing outlives the test's process. Both families
//! are laid out alike: a place of the tests ([`To`]) has an address in each.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::server::serve;

/// An address family of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Who makes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum From {
    /// An application in the pod.
    App,
    /// The proxy, by user and group.
    Proxy,
    /// Somebody in the pod: user, group.
    Somebody(u32, u32),
    /// The proxy, bound to the address by which it tells the rules to let it pass.
    Bypass,
    /// Somebody outside, by the pod's first interface.
    World,
    /// Somebody outside, by the pod's second interface.
    SecondWorld,
}

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    /// Three hosts elsewhere, in networks of their own.
    HostA,
    HostB,
    HostC,
    /// Elsewhere, by the pod's second interface.
    SecondHost,
    /// The pod by its address.
    Pod,
    SecondPod,
    Loopback,
    /// A loopback address other than the one that an application means itself by.
    OtherLoopback,
}

/// A network namespace, there as long as somebody holds it.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        thread::spawn(|| {
            #[expect(deprecated, reason = "the other form is unsafe; here the thread shares nothing and ends at once")]
            rustix::thread::unshare(UnshareFlags::NEWNET).expect("these tests need root");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        })
        .join()
        .unwrap()
    }

    /// Runs something inside, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let enter = || {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                inside()
            };
            scope.spawn(enter).join().unwrap()
        })
    }

    /// A path by which other programs find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a program inside that has to succeed, and gives back what it printed.
    pub(crate) fn sh(&self, command_line: &str) -> String {
        let mut words = command_line.split(' ');
        let output = self.run(|| Command::new(words.next().unwrap()).args(words).output());
        let output = output.unwrap_or_else(|error| panic!("{command_line}: {error}"));
        assert!(output.status.success(), "{command_line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a program inside on an input; it has to succeed.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], input: &str) {
        let output = self.run(|| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            let mut child = command.spawn()?;
            child.stdin.take().unwrap().write_all(input.as_bytes())?;
            child.wait_with_output()
        });
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The pod under test, and the world.
pub(crate) struct Pod {
    pub(crate) pod: Namespace,
    pub(crate) world: Namespace,
}

impl Pod {
    /// Lays out both namespaces. Servers listen on the ports of the proxy and on those of applications in the pod, and on
    /// all that the tests call in the world.
    pub(crate) fn new() -> Self {
        let (pod, world) = (Namespace::new(), Namespace::new());
        for namespace in [&pod, &world] {
            namespace.run(|| {
                // Nobody else is on these links, so there is no need to ask whether an address is taken.
                for interface in ["all", "default"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
                    std::fs::write(path, "0").unwrap();
                }
            });
            namespace.sh("ip link set lo up");
        }
        for (index, net) in [44, 45].iter().enumerate() {
            let name = if index == 0 { "eth0" } else { "net1" };
            world.sh(&format!("ip link add {name} type veth peer name {name} netns {}", pod.path()));
            for (namespace, host) in [(&world, 1), (&pod, 2)] {
                namespace.sh(&format!("ip addr add 10.{net}.0.{host}/24 dev {name}"));
                namespace.sh(&format!("ip addr add fd{net}::{host}/64 dev {name} nodad"));
            }
            for (namespace, own, other) in [(&world, 1, 2), (&pod, 2, 1)] {
                namespace.sh(&format!("ip link set {name} address 02:00:00:00:{net}:0{own} up"));
                // To find a neighbour by itself, IPv6 takes a second after a link comes up.
                let neighbour = format!("fd{net}::{other} lladdr 02:00:00:00:{net}:0{other} dev {name}");
                namespace.sh(&format!("ip -6 neigh replace {neighbour} nud permanent"));
            }
        }
        pod.sh("ip route add default via 10.44.0.1");
        pod.sh("ip -6 route add default via fd44::1");
        for net in [60, 61, 62] {
            world.sh(&format!("ip addr add 10.{net}.0.1/32 dev lo"));
            world.sh(&format!("ip -6 addr add fd{net}::1/128 dev lo"));
        }
        let it = Self { pod, world };
        it.wait_until_addressed();
        for port in POD_PORTS {
            it.pod.run(|| {
                // Answers to applications are tracked by the proxy's user.
                if *port == DNS_PROXY_PORT {
                    become_owner(From::Proxy);
                }
                serve("pod", *port);
            });
        }
        for port in WORLD_PORTS {
            it.world.run(|| serve("world", *port));
        }
        it.wait_until_connected();
        it
    }

    /// Waits until no address is tentative any more, so that it can be bound to.
    fn wait_until_addressed(&self) {
        let deadline = Instant::now() + CONNECTED_TIMEOUT;
        for namespace in [&self.pod, &self.world] {
            while !namespace.sh("ip -6 addr show tentative").is_empty() {
                assert!(Instant::now() < deadline, "an address stays tentative");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Waits for IPv6, which needs a moment after a link comes up. Packets sent too early are lost and sent again only after
    /// a second, so that many short attempts are quicker than one long one.
    fn wait_until_connected(&self) {
        let deadline = Instant::now() + CONNECTED_TIMEOUT;
        for (from, to) in [(From::World, To::Pod), (From::SecondWorld, To::SecondPod), (From::App, To::HostA)] {
            for family in FAMILIES {
                let destination = SockAddr::from(SocketAddr::new(address(family, to), 80));
                let connect = || {
                    let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
                    socket.connect_timeout(&destination, Duration::from_millis(20))
                };
                while let Err(error) = self.client(from).run(connect) {
                    assert!(Instant::now() < deadline, "{family:?} {from:?} to {to:?}: {error}");
                }
            }
        }
    }

    /// Runs weft-init inside of the pod, with nothing in its environment.
    pub(crate) fn init(&self, arguments: &[&str]) -> Output {
        self.init_with(arguments, &[])
    }

    pub(crate) fn init_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.pod.run(|| weft_init(arguments, variables).output().unwrap())
    }

    /// Runs weft-init inside of the pod; it has to succeed.
    pub(crate) fn apply(&self, arguments: &[&str]) {
        let output = self.init(arguments);
        assert!(output.status.success(), "weft-init {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs weft-init with another `/etc/resolv.conf`; it has to succeed.
    pub(crate) fn init_with_resolv_conf(&self, arguments: &[&str], resolv_conf: &str) {
        let path = std::env::temp_dir().join(format!("weft-init-{}-resolv.conf", std::process::id()));
        std::fs::write(&path, resolv_conf).unwrap();
        let script = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
        let output = self.pod.run(|| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-ec", script, "sh"]).arg(&path).arg(WEFT_INIT).args(arguments);
            command.output().unwrap()
        });
        std::fs::remove_file(&path).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sends the pod the second packet of a handshake that nobody began, and says whether it objects.
    pub(crate) fn answers_stray_acknowledgement(&self) -> bool {
        const SOURCE_PORT: u16 = 40_000;
        let [source, destination] = [[10, 44, 0, 1], [10, 44, 0, 2]];
        let mut segment = Vec::new();
        segment.extend(SOURCE_PORT.to_be_bytes());
        segment.extend(8080u16.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, SYN | ACK, 0xff, 0xff, 0, 0, 0, 0]);
        let checksum = tcp_checksum(source, destination, &segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.world.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.send_to(&segment, &SockAddr::from(SocketAddr::from((destination, 0)))).unwrap();
            let mut socket = File::from(std::os::fd::OwnedFd::from(socket));
            let mut packet = [0; 128];
            loop {
                let Ok(length) = socket.read(&mut packet) else { return false };
                // The IP header comes along; it has no options here.
                let reply = &packet[20..length];
                if reply[2..4] == SOURCE_PORT.to_be_bytes() && reply[13] & RST != 0 {
                    return true;
                }
            }
        })
    }

    /// The rules that the pod has, whatever holds them, in an order that does not depend on how they came about: chains are
    /// sorted, rules are not. Tables and chains of iptables' own that are empty count for nothing.
    pub(crate) fn rules(&self) -> String {
        let listed = self.pod.sh("nft list ruleset");
        let tables = listed.split_inclusive("\n}\n").filter(|table| table.starts_with("table inet"));
        let mut text: String = tables.collect();
        for save in ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] {
            let mut lines = Vec::new();
            let saved = self.pod.sh(save);
            let mut table = "";
            for line in saved.lines() {
                match line.split_once(' ') {
                    None if line.starts_with('*') => table = line,
                    Some(("-A", rule)) => lines.push((table, rule.split(' ').next(), rule)),
                    // A chain of somebody's has a dash for its policy.
                    Some((chain, "- [0:0]")) => lines.push((table, Some(chain), "")),
                    Some(_) | None => {}
                }
            }
            lines.sort_by_key(|(table, chain, _)| (*table, *chain));
            for (table, chain, rule) in lines {
                text += &format!("{save} {table} {} {rule}\n", chain.unwrap_or_default());
            }
        }
        text
    }

    /// What the pod has beside rules: policy routes, and addresses of the loopback.
    pub(crate) fn routes(&self) -> String {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            // The priority of a rule says only in which order they came.
            let rules = self.pod.sh(&format!("ip {family} rule"));
            lines.extend(
                rules.lines().filter_map(|line| line.split_once('\t')).map(|(_, rule)| format!("{family} {rule}")),
            );
            let routes = self.pod.sh(&format!("ip {family} route show table all type local"));
            let policy_routes = routes.lines().filter(|line| !line.contains("table local"));
            lines.extend(policy_routes.map(|route| format!("{family} {route}")));
        }
        let addresses = self.pod.sh("ip -6 addr show dev lo");
        lines.extend(addresses.lines().filter(|line| line.contains("inet6")).map(str::to_owned));
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Makes a TCP connection and says where it arrived, such as `pod:15001`, or how it failed.
    pub(crate) fn tcp(&self, family: Family, from: From, to: To, port: u16) -> String {
        self.tcp_from(family, from, to, port).map_or_else(failure, |answer| answer.place)
    }

    /// The same with all that the server saw.
    pub(crate) fn tcp_from(&self, family: Family, from: From, to: To, port: u16) -> io::Result<Answer> {
        self.client(from).run(|| {
            become_owner(from);
            self.tcp_here(family, from, to, port)
        })
    }

    /// The same on this thread, whose namespace and owner have to be right already.
    pub(crate) fn tcp_here(&self, family: Family, from: From, to: To, port: u16) -> io::Result<Answer> {
        let socket = Socket::new(family.domain(), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = source(family, from) {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        let destination = SocketAddr::new(address(family, to), port);
        socket.connect_timeout(&SockAddr::from(destination), TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut text = String::new();
        TcpStream::from(socket).read_to_string(&mut text)?;
        Answer::parse(&text)
    }

    /// Asks over UDP and says who answered.
    pub(crate) fn udp(&self, family: Family, from: From, to: To, port: u16) -> String {
        let answer = self.client(from).run(|| {
            become_owner(from);
            let any = source(family, from).unwrap_or_else(|| family.any());
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            // A connected socket takes an answer only from the address that it asked: the way back is tested too.
            socket.connect((address(family, to), port))?;
            socket.send(b"?")?;
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer)?;
            Answer::parse(&String::from_utf8_lossy(&buffer[..length]))
        });
        answer.map_or_else(failure, |answer| answer.place)
    }

    /// The address of the world that the pod sees.
    pub(crate) fn world_address(&self, family: Family) -> IpAddr {
        source(family, From::World).unwrap()
    }

    fn client(&self, from: From) -> &Namespace {
        match from {
            From::App | From::Proxy | From::Somebody(..) | From::Bypass => &self.pod,
            From::World | From::SecondWorld => &self.world,
        }
    }
}

/// What a server says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The namespace and the port that the server listens on.
    pub(crate) place: String,
    /// Its own address and the caller's, as it sees them.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let broken = || io::Error::other(format!("the connection was cut off: {text:?}"));
        let mut words = text.split(' ');
        let (Some(place), Some(local), Some(peer)) = (words.next(), words.next(), words.next()) else {
            return Err(broken());
        };
        let parse = |text: &str| text.parse().map_err(|_| broken());
        Ok(Self { place: place.to_owned(), local: parse(local)?, peer: parse(peer)? })
    }
}

impl Family {
    pub(crate) fn domain(self) -> Domain {
        if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 }
    }

    pub(crate) fn any(self) -> IpAddr {
        let any = if self == Self::V4 { "0.0.0.0" } else { "::" };
        any.parse().unwrap()
    }
}

pub(crate) fn address(family: Family, to: To) -> IpAddr {
    let [v4, v6] = match to {
        To::HostA => ["10.60.0.1", "fd60::1"],
        To::HostB => ["10.61.0.1", "fd61::1"],
        To::HostC => ["10.62.0.1", "fd62::1"],
        To::SecondHost => ["10.45.0.1", "fd45::1"],
        To::Pod => ["10.44.0.2", "fd44::2"],
        To::SecondPod => ["10.45.0.2", "fd45::2"],
        To::Loopback => ["127.0.0.1", "::1"],
        // IPv6 has no other that is there by itself.
        To::OtherLoopback => ["127.0.0.9", "::1"],
    };
    (if family == Family::V4 { v4 } else { v6 }).parse().unwrap()
}

/// A copy of the program that any user may run, wherever the build is.
pub(crate) struct ReadableCopy(pub(crate) PathBuf);

impl ReadableCopy {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("weft-init-copy-{}", std::process::id()));
        std::fs::copy(WEFT_INIT, &path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for ReadableCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The program with a clean environment.
pub(crate) fn weft_init(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(WEFT_INIT);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(variables.iter().copied());
    command
}

/// RFC 9293, section 3.1: the ones' complement sum over a pseudo header and the segment.
fn tcp_checksum(source: [u8; 4], destination: [u8; 4], segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo = [&source[..], &destination[..], &[0, 6], &length[..], segment].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// Takes on an owner, which is a matter of the thread alone.
pub(crate) fn become_owner(from: From) {
    let (uid, gid) = match from {
        From::App | From::World | From::SecondWorld => (1000, 1000),
        From::Proxy | From::Bypass => (PROXY, PROXY),
        From::Somebody(uid, gid) => (uid, gid),
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(Some(gid), Some(gid), Some(gid)).unwrap();
    set_thread_res_uid(Some(uid), Some(uid), Some(uid)).unwrap();
}

fn source(family: Family, from: From) -> Option<IpAddr> {
    let [v4, v6] = match from {
        From::Bypass => ["127.0.0.6", "::6"],
        From::SecondWorld => ["10.45.0.1", "fd45::1"],
        From::World => ["10.44.0.1", "fd44::1"],
        From::App | From::Proxy | From::Somebody(..) => return None,
    };
    Some((if family == Family::V4 { v4 } else { v6 }).parse().unwrap())
}

fn failure(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        _ => format!("{error}"),
    }
}

pub(crate) const WEFT_INIT: &str = env!("CARGO_BIN_EXE_weft-init");
pub(crate) const PROXY: u32 = 1337;
/// The proxy's ports, usual and unusual, and those of applications.
const POD_PORTS: &[u16] =
    &[15001, 15006, 15008, 15020, 15021, 15053, 15090, 16001, 16006, 16008, 53, 80, 443, 8080, 8081, 8090];
const DNS_PROXY_PORT: u16 = 15053;
const WORLD_PORTS: &[u16] = &[15008, 15020, 53, 80, 443, 8080, 8081, 8090];
const TIMEOUT: Duration = Duration::from_millis(700);
const CONNECTED_TIMEOUT: Duration = Duration::from_secs(10);
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
