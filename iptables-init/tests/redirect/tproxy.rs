//! TPROXY mode: packets reach the proxy's transparent socket as they are, and what the proxy sends on behalf of a client
//! finds its way back to the proxy.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use rustix::process::Gid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_gid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::pod::From::{App, Bypass, Proxy, SecondWorld, World};
use crate::pod::To::{HostA, Loopback, Pod as ThePod, SecondPod};
use crate::pod::{FAMILIES, Family, From, PROXY, Pod, To, address};

const BACKENDS: [&[&str]; 3] = [
    &["--backend", "nft", "-m", "TPROXY"],
    &["--backend", "iptables", "--force-iptables-binary", "nft", "-m", "TPROXY"],
    &["--backend", "iptables", "--force-iptables-binary", "legacy", "-m", "TPROXY"],
];

fn expect(pod: &Pod, arguments: &[&str], expectations: &[(From, To, u16, &str)]) {
    for family in FAMILIES {
        for &(from, to, port, expected) in expectations {
            let arrived = pod.tcp(family, from, to, port);
            assert_eq!(arrived, expected, "{arguments:?} {family:?} {from:?} to {to:?}:{port}\n{}", pod.rules());
        }
    }
}

#[test]
fn the_proxy_sees_both_addresses_as_they_were() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(backend);
        for family in FAMILIES {
            let answer = pod.tcp_from(family, World, ThePod, 8080).unwrap();
            assert_eq!(answer.place, "pod:15006", "{backend:?} {family:?}");
            assert_eq!(answer.local, SocketAddr::new(address(family, ThePod), 8080), "{backend:?} {family:?}");
            assert_eq!(answer.peer.ip(), pod.world_address(family), "{backend:?} {family:?}");
        }
    }
}

#[test]
fn outbound_and_loopback_are_as_in_redirect_mode() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(backend);
        expect(
            &pod,
            backend,
            &[
                (App, HostA, 80, "pod:15001"),
                (Proxy, HostA, 80, "world:80"),
                (App, ThePod, 8080, "pod:8080"),
                (App, Loopback, 8080, "pod:8080"),
                (Proxy, ThePod, 8080, "pod:15006"),
                (Proxy, Loopback, 8080, "pod:8080"),
                (Bypass, ThePod, 8080, "pod:8080"),
                (World, ThePod, 15020, "pod:15020"),
            ],
        );
    }
}

#[test]
fn ports_and_interfaces() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let only = [backend, &["-b", "80,8080-8081", "-z", "16006", "-t", "0x100", "-r", "200"]].concat();
        pod.apply(&only);
        let expected = [(World, ThePod, 8081, "pod:16006"), (World, ThePod, 443, "pod:443")];
        expect(&pod, &only, &expected);
        for family in ["-4", "-6"] {
            let rules = pod.pod.sh(&format!("ip {family} rule show fwmark 0x100"));
            assert!(rules.contains("lookup 200"), "{rules}");
            let routes = pod.pod.sh(&format!("ip {family} route show table 200"));
            assert!(routes.contains("local default dev lo"), "{routes}");
        }
        let except = [backend, &["-d", "443", "-c", "net1"]].concat();
        pod.apply(&except);
        let expected = [
            (World, ThePod, 443, "pod:443"),
            (World, ThePod, 8080, "pod:15006"),
            (SecondWorld, SecondPod, 8080, "pod:8080"),
        ];
        expect(&pod, &except, &expected);
        let none = [backend, &["-b", ""]].concat();
        pod.apply(&none);
        expect(&pod, &none, &[(World, ThePod, 8080, "pod:8080"), (App, HostA, 80, "pod:15001")]);
        assert!(!pod.routes().contains("fwmark"), "nothing is marked, so nothing is to be routed");
    }
}

#[test]
fn traffic_of_virtual_machines_is_outbound() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["-k", "net1"]].concat());
        expect(&pod, backend, &[(SecondWorld, SecondPod, 8080, "pod:15001"), (World, ThePod, 8080, "pod:15006")]);
    }
}

#[test]
fn nothing_gets_past_a_proxy_that_is_down() {
    for backend in BACKENDS {
        let pod = Pod::new();
        // Nothing listens there. By itself nft's statement would let the packets through to the application.
        pod.apply(&[backend, &["-z", "17999"]].concat());
        expect(&pod, backend, &[(World, ThePod, 8080, "timeout"), (World, ThePod, 15020, "pod:15020")]);
    }
}

#[test]
fn the_application_sees_the_clients_address() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["-z", "17006"]].concat());
        for family in FAMILIES {
            pod.pod.run(|| relay(family, 17006));
            let answer = pod.tcp_from(family, World, ThePod, 8080).unwrap();
            assert_eq!(answer.place, "pod:8080", "{backend:?} {family:?}");
            assert_eq!(answer.peer.ip(), pod.world_address(family), "{backend:?} {family:?}: the source is kept");
        }
    }
}

/// A proxy's inbound side in a few lines: calls the application from the client's address, with the mark. It is of the
/// proxy's group; as its user it would lack the privilege that the proxy is given by other means.
fn relay(family: Family, port: u16) {
    let any: IpAddr = if family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listener = transparent(family);
    listener.set_reuse_address(true).unwrap();
    if family == Family::V6 {
        listener.set_only_v6(true).unwrap();
    }
    listener.bind(&SockAddr::from(SocketAddr::new(any, port))).unwrap();
    listener.listen(16).unwrap();
    // The sockets of the relay have to be made in the pod too.
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let group = Some(Gid::from_raw(PROXY));
        set_thread_res_gid(group, group, group).unwrap();
        while let Ok((mut downstream, client)) = TcpListener::from(listener.try_clone().unwrap()).accept() {
            let original = downstream.local_addr().unwrap();
            let upstream = transparent(family);
            upstream.set_mark(1337).unwrap();
            upstream.bind(&SockAddr::from(SocketAddr::new(client.ip(), 0))).unwrap();
            upstream.connect(&SockAddr::from(original)).unwrap();
            let mut answer = Vec::new();
            TcpStream::from(upstream).read_to_end(&mut answer).unwrap();
            downstream.write_all(&answer).unwrap();
        }
    });
}

fn transparent(family: Family) -> Socket {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    match family {
        Family::V4 => socket.set_ip_transparent_v4(true).unwrap(),
        Family::V6 => socket.set_ip_transparent_v6(true).unwrap(),
    }
    socket
}
