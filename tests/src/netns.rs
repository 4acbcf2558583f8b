//! Network namespaces: a pod's network, a node's bridge between pods, and the way into them for programs and threads.
//!
//! All of it happens inside of namespaces that the harness made: the bridge has one of its own (the "node"), so the
//! machine's interfaces, routes and firewall are never touched. Addresses, v4 and v6, are usable at once (no
//! duplicate address detection). `/etc/netns/NAME/hosts` gives each pod its own /etc/hosts by `ip netns exec`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// One network namespace, removed on drop together with whatever still runs in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    entrance: Entrance,
}

impl Namespace {
    /// A new namespace with only loopback, which is up.
    pub fn create(name: &str) -> Result<Self> {
        run_ip(&[&format!("netns add {name}")])?;
        let entrance = Entrance::open(name)?;
        let namespace = Self { name: name.to_owned(), entrance };
        run_ip(&[&format!("-n {name} link set lo up")])?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A way in that threads can keep.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Runs `work` on a thread inside of the namespace and waits for it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.entrance.enter()?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Lines of `ip`'s batch syntax, applied inside.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        run_ip(&lines.iter().map(|line| format!("-n {} {line}", self.name)).collect::<Vec<_>>())
    }

    /// What programs of this namespace see as /etc/hosts, besides localhost.
    pub fn set_hosts(&self, hosts: &[(IpAddr, Vec<String>)]) -> Result<()> {
        let folder = etc_folder(&self.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (address, names) in hosts {
            writeln!(text, "{address} {}", names.join(" "))?;
        }
        Ok(fs::write(folder.join("hosts"), text)?)
    }

    /// A command that runs `program` inside, as root, with the namespace's /etc/hosts.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Writes `value` below /proc/sys/net of this namespace.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.enter(|| {
            // Where /proc/sys is read-only (some containers), a value that is right already is good enough.
            if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
                return Ok(());
            }
            fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("cannot remove the network namespace {}: {error:#}", self.name);
        }
    }
}

/// An open namespace, cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<File>);

impl Entrance {
    fn open(name: &str) -> Result<Self> {
        let path = Path::new(NAMESPACES).join(name);
        Ok(Self(Arc::new(File::open(&path).with_context(|| format!("cannot open {}", path.display()))?)))
    }

    /// Moves the calling thread into the namespace, for good. Sockets that it opens from now on live there.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the network namespace")
    }
}

/// A bridge in a namespace of its own, and the pods' way to each other.
///
/// It routes nothing and has no route to anywhere else: a packet to a Service's virtual address that no sidecar took
/// comes this far and fails.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    addresses: Vec<(IpAddr, u8)>,
    ports: u32,
}

impl Node {
    /// `addresses` are the bridge's own, with prefix lengths: the pods' default gateways.
    pub fn create(name: &str, addresses: &[(IpAddr, u8)]) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        let mut lines = vec!["link add bridge type bridge forward_delay 0".to_owned()];
        lines.extend(addresses.iter().map(|(address, length)| address_line(*address, *length, "bridge")));
        lines.push("link set bridge up".to_owned());
        namespace.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        namespace.set_sysctl("ipv4/ip_forward", "0")?;
        namespace.set_sysctl("ipv6/conf/all/forwarding", "0")?;
        Ok(Self { namespace, addresses: addresses.to_vec(), ports: 0 })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs `pod` into the bridge as its eth0 with these addresses, the bridge being the default route.
    pub fn attach(&mut self, pod: &Namespace, addresses: &[IpAddr]) -> Result<()> {
        let port = format!("pod{}", self.ports);
        self.ports += 1;
        self.namespace.ip(&[
            &format!("link add {port} type veth peer name eth0 netns {}", pod.name()),
            &format!("link set {port} master bridge up"),
        ])?;
        let mut lines = Vec::new();
        for address in addresses {
            let (gateway, length) = self
                .addresses
                .iter()
                .find(|(gateway, _)| gateway.is_ipv4() == address.is_ipv4())
                .with_context(|| format!("the node has no gateway for {address}"))?;
            lines.push(address_line(*address, *length, "eth0"));
            // The interface has to be up before a route can use it.
            lines.push("link set eth0 up".to_owned());
            lines.push(format!("route add default via {gateway} dev eth0"));
        }
        pod.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Removes each namespace whose name starts with `prefix`, the processes in it first.
pub fn remove_all(prefix: &str) -> Result<()> {
    let entries = match fs::read_dir(NAMESPACES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {NAMESPACES}")),
    };
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) {
            remove(&name)?;
        }
    }
    Ok(())
}

fn remove(name: &str) -> Result<()> {
    let listed = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output()?;
    for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
        // Threads of this very process may be inside; a process that ended meanwhile is no error.
        if pid != std::process::id()
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            let _already_gone = kill_process(pid, Signal::KILL);
        }
    }
    if let Err(error) = fs::remove_dir_all(etc_folder(name))
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", etc_folder(name).display()));
    }
    run_ip(&[&format!("netns delete {name}")])
}

fn etc_folder(name: &str) -> PathBuf {
    Path::new("/etc/netns").join(name)
}

fn address_line(address: IpAddr, length: u8, interface: &str) -> String {
    let no_duplicate_detection = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address}/{length} dev {interface}{no_duplicate_detection}")
}

/// Runs each line of arguments through `ip`, stopping at the first that fails.
fn run_ip(lines: &[impl AsRef<str>]) -> Result<()> {
    for line in lines {
        let output = Command::new("ip")
            .args(line.as_ref().split_whitespace())
            .stdin(Stdio::null())
            .output()
            .context("cannot run ip (Debian package iproute2)")?;
        ensure!(output.status.success(), "ip {}: {}", line.as_ref(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

const NAMESPACES: &str = "/run/netns";
