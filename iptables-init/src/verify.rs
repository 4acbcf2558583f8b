//! Proves by real connections that traffic goes through the proxy, from inside of the network namespace.
//!
//! Last in the flow. [`crate::probe`] says which connections; each is made on behalf of its owner, and the kernel's table
//! of sockets says at which port it arrived. So it makes no difference whether the proxy is running: where nothing listens
//! on its ports yet, this does. What comes from other pods can't be made from inside, so that the rules lead it to the
//! proxy is read from the rules, where those may be read.
//!
//! Changes nothing. Rules may arrive while it runs (a CNI plugin's do), so what fails is tried again until the time is up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::backend::InPlace;
use crate::netlink::{Netlink, NetlinkError};
use crate::plan::Plan;
use crate::probe::{Owner, Probe, Probes, Side, Surroundings, family_name};
use crate::program::ProgramError;
use crate::rule::Family;
use crate::settings::{InboundPorts, Settings, Verification};
use ipnet::IpNet;

#[derive(Debug, Error)]
pub enum VerifyError {
    /// The redirection is not in place. The reason names the connection.
    #[error("traffic would bypass the proxy: {0}")]
    Bypass(String),
    #[error("nothing could be proved: {0}")]
    NothingProved(String),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("opening a socket to verify with")]
    Socket(#[source] io::Error),
}

/// Proves what the settings ask for, or says what is wrong.
pub fn verify(
    settings: &Settings,
    plan: &Plan,
    limits: Verification,
    lock_file: Option<&Path>,
) -> Result<(), VerifyError> {
    let mut netlink = Netlink::open()?;
    let addresses = redirected_addresses(settings, &mut netlink)?;
    let surroundings = Surroundings {
        owner: Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() },
        can_become: &can_become,
        addresses: &addresses,
        has_route: &has_route,
    };
    let Probes { probes, left_out } = Probes::choose(settings, &surroundings, limits.port);
    for reason in &left_out {
        warn!(reason, "not verified");
    }
    if probes.is_empty() {
        return Err(VerifyError::NothingProved(left_out.join("; ")));
    }
    let _listeners = listen(settings)?;
    prove(probes, limits.timeout)?;
    if !netlink.has_policy_route(plan)? {
        let reason = "the policy route of TPROXY mode is missing, so no answer finds back to the proxy";
        return Err(VerifyError::Bypass(reason.to_owned()));
    }
    check_inbound_rules(settings, lock_file)
}

/// Makes the connections again and again until all arrived at the proxy, or the time is up; at least once.
fn prove(mut pending: Vec<Probe>, timeout: Duration) -> Result<(), VerifyError> {
    let deadline = Instant::now() + timeout;
    loop {
        let mut failed = Vec::new();
        for probe in pending {
            match attempt(&probe) {
                Ok(()) => info!(probe = describe(&probe), port = probe.proxy_port, "arrives at the proxy"),
                Err(reason) => failed.push((probe, reason)),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let reasons = failed.iter().map(|(probe, reason)| format!("{} {reason}", describe(probe)));
            return Err(VerifyError::Bypass(reasons.collect::<Vec<_>>().join("; ")));
        }
        for (probe, reason) in &failed {
            debug!(probe = describe(probe), reason, "trying again");
        }
        thread::sleep(RETRY_INTERVAL);
        pending = failed.into_iter().map(|(probe, _)| probe).collect();
    }
}

fn describe(probe: &Probe) -> String {
    let side = match probe.side {
        Side::Outbound => "outbound",
        Side::Inbound => "inbound",
    };
    let family = if probe.destination.is_ipv4() { Family::V4 } else { Family::V6 };
    let Owner { uid, gid } = probe.owner;
    format!("{side} {} to {} as user {uid}, group {gid}", family_name(family), probe.destination)
}

/// Makes one connection and looks where it arrived.
fn attempt(probe: &Probe) -> Result<(), String> {
    let stream = connect(probe).map_err(|error| format!("is not answered ({error})"))?;
    let local = stream.local_addr().map_err(|error| format!("has no address ({error})"))?;
    match arrival_port(local) {
        Some(port) if port == probe.proxy_port => Ok(()),
        Some(port) => Err(format!("arrives at port {port} of this pod instead of {}", probe.proxy_port)),
        None => Err("is answered by somebody else".to_owned()),
    }
}

/// Makes a connection on somebody's behalf, for which a thread is spent.
fn connect(probe: &Probe) -> io::Result<TcpStream> {
    let connect = || {
        become_owner(probe.owner)?;
        let socket = Socket::new(Domain::for_address(probe.destination), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = probe.source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        socket.connect_timeout(&SockAddr::from(probe.destination), CONNECT_TIMEOUT)?;
        Ok(socket.into())
    };
    thread::scope(|scope| scope.spawn(connect).join()).unwrap_or_else(|_| Err(io::Error::other("the thread failed")))
}

/// The port of the socket in this namespace that a connection from `local` arrived at.
fn arrival_port(local: SocketAddr) -> Option<u16> {
    let tables = if local.is_ipv4() { ["tcp", "tcp6"] } else { ["tcp6", "tcp6"] };
    tables.iter().find_map(|table| {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).ok()?;
        text.lines().skip(1).find_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (here, there) = (socket_address(fields.next()?)?, socket_address(fields.next()?)?);
            (there == local).then_some(here.port())
        })
    })
}

/// Reads an address as the kernel's table of sockets writes it: words in the machine's byte order, in hexadecimal.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = if address.len() == 8 {
        IpAddr::from(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        // A socket for both families shows IPv4 as a part of IPv6.
        Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
    };
    Some(SocketAddr::new(address, port))
}

/// Listens on the proxy's ports wherever nothing does yet.
fn listen(settings: &Settings) -> Result<Vec<TcpListener>, VerifyError> {
    let mut listeners = Vec::new();
    for port in [settings.proxy_port, settings.inbound_port] {
        for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
            match listener(SocketAddr::new(address, port)) {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => debug!(%address, port, "the proxy is there"),
                // A family that is switched off.
                Err(error) if address.is_ipv6() => debug!(%error, "no IPv6 socket"),
                Err(error) => return Err(VerifyError::Socket(error)),
            }
        }
    }
    Ok(listeners)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// The addresses of this namespace, but for those of excluded interfaces.
fn redirected_addresses(settings: &Settings, netlink: &mut Netlink) -> Result<Vec<IpNet>, VerifyError> {
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| VerifyError::Socket(errno.into()))?;
    let is_excluded = |interface| {
        let Ok(name) = netdevice::index_to_name(&socket, interface) else { return false };
        settings.exclude_interfaces.iter().any(|excluded| excluded.is_called(&name))
    };
    let addresses = netlink.addresses()?;
    Ok(addresses.iter().filter(|address| !is_excluded(address.interface)).map(|address| address.net).collect())
}

/// Whether the kernel knows a way to an address. To connect a UDP socket looks the route up and sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

fn can_become(owner: Owner) -> bool {
    thread::scope(|scope| scope.spawn(|| become_owner(owner).is_ok()).join()).unwrap_or(false)
}

/// Takes an owner on. Credentials are the thread's.
fn become_owner(owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    if gid != getegid() {
        set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
    }
    if uid != geteuid() {
        set_thread_res_uid(Some(uid), Some(uid), Some(uid))?;
    }
    Ok(())
}

/// Checks in the rules that what comes from other pods is led to the proxy.
fn check_inbound_rules(settings: &Settings, lock_file: Option<&Path>) -> Result<(), VerifyError> {
    if settings.inbound_ports == InboundPorts::None {
        return Ok(());
    }
    match InPlace::read(None, lock_file) {
        Err(ProgramError::Permission { .. }) => {
            warn!("the rules may not be read without CAP_NET_ADMIN: traffic from other pods is not verified");
            Ok(())
        }
        Err(error) => {
            warn!(%error, "the rules can't be read: traffic from other pods is not verified");
            Ok(())
        }
        Ok(in_place) if in_place.is_empty() && !in_place.istio().is_empty() => {
            warn!(rules = ?in_place.istio(), "the rules are Istio's own: traffic from other pods is not verified");
            Ok(())
        }
        Ok(in_place) => in_place.check_inbound(settings.ipv6).map_err(VerifyError::Bypass),
    }
}

/// A redirected connection stays on this machine, where an answer takes microseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const LISTEN_BACKLOG: i32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn hexadecimal(octets: &[u8]) -> String {
        octets.chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()))).collect()
    }

    #[test]
    fn addresses_of_the_kernels_table_of_sockets() {
        let v4 = hexadecimal(&Ipv4Addr::LOCALHOST.octets());
        assert_eq!(socket_address(&format!("{v4}:3A99")), Some("127.0.0.1:15001".parse().unwrap()));
        let v6: Ipv6Addr = "fd00::1:2".parse().unwrap();
        assert_eq!(
            socket_address(&format!("{}:0050", hexadecimal(&v6.octets()))),
            Some("[fd00::1:2]:80".parse().unwrap())
        );
        let mapped = hexadecimal(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        assert_eq!(socket_address(&format!("{mapped}:0050")), Some("127.0.0.1:80".parse().unwrap()));
        for text in ["", ":", "0100007F", "0100007F:", "X100007F:0050", "0100007F:10000", "00:0050"] {
            assert_eq!(socket_address(text), None, "{text:?}");
        }
    }
}
