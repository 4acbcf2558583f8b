//! Servers that tell whoever connects who was reached: the place, the port, and both addresses as they see them.
//!
//! Threads of the test's process; a socket belongs to the namespace of the thread that opens it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::pod::{FAMILIES, To, address};

/// Listens on a port, TCP and UDP, both families, in this thread's namespace; whoever connects is told who was reached.
pub(crate) fn serve(place: &'static str, port: u16) {
    // An answer over UDP has to come from the address that was asked, so each has a socket of its own.
    let own: &[To] = match place {
        "pod" => &[To::Loopback, To::Pod, To::SecondPod],
        _ => &[To::HostA, To::HostB, To::HostC, To::SecondHost],
    };
    for family in FAMILIES {
        let tcp = open(SocketAddr::new(family.any(), port), Type::STREAM, Protocol::TCP);
        tcp.listen(1024).unwrap();
        thread::spawn(move || answer_tcp(&TcpListener::from(tcp), place, port));
        for to in own {
            let udp = UdpSocket::from(open(SocketAddr::new(address(family, *to), port), Type::DGRAM, Protocol::UDP));
            thread::spawn(move || answer_udp(&udp, place, port));
        }
    }
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> Socket {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol)).unwrap();
    socket.set_reuse_address(true).unwrap();
    // As TPROXY needs it; redirects don't mind.
    let is_transparent = matches!(address.port(), 15006 | 16006) && kind == Type::STREAM;
    match address {
        SocketAddr::V4(_) if is_transparent => socket.set_ip_transparent_v4(true).unwrap(),
        SocketAddr::V6(_) if is_transparent => socket.set_ip_transparent_v6(true).unwrap(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&SockAddr::from(address)).unwrap();
    socket
}

fn answer_tcp(listener: &TcpListener, place: &str, port: u16) {
    while let Ok((mut stream, peer)) = listener.accept() {
        // A caller that is gone already misses nothing.
        let _ = stream.local_addr().map(|local| write!(stream, "{place}:{port} {local} {peer}"));
    }
}

fn answer_udp(socket: &UdpSocket, place: &str, port: u16) {
    let mut buffer = [0; 16];
    while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
        let local = socket.local_addr().unwrap();
        let _ = socket.send_to(format!("{place}:{port} {local} {peer}").as_bytes(), peer);
    }
}
