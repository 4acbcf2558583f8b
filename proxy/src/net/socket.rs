//! Socket options that the standard library has no word for, through safe wrappers.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::config::listener::ListenerAddress;

/// A listening socket. `reuse_port`: one of several on the same address, between which the kernel spreads connections.
pub fn listen(at: ListenerAddress, reuse_port: bool, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if at.address.is_ipv6() {
        socket.set_only_v6(!at.ipv4_compat)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Where the connection was going before redirection; its own address when it was not redirected.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = unmapped(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match found {
        Ok(address) => Ok(address.as_socket().unwrap_or(local)),
        // No NAT entry (or no NAT in this kernel): the connection came straight to us.
        Err(error) if matches!(error.raw_os_error(), Some(libc_enoent) if libc_enoent == ENOENT || libc_enoent == ENOPROTOOPT) => {
            Ok(local)
        }
        Err(error) => Err(error),
    }
}

const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
const ENOPROTOOPT: i32 = rustix::io::Errno::NOPROTOOPT.raw_os_error();

/// An IPv4 address that arrived on an IPv6 socket, as IPv4.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, address.port())),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// `0.0.0.0` or `::` with the port of `address`.
pub fn wildcard_of(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], address.port())),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())),
    }
}
