//! Socket options that the standard library has no word for, through safe wrappers.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::{
    config::{
        listener::{BindOptions, ListenerAddress},
        socket_option::SocketState,
    },
    net::socket_option,
};

/// A listening socket. With `enable_reuse_port` it is one of several on the same address, between which the kernel spreads
/// connections.
pub fn listen(at: &ListenerAddress, options: &BindOptions) -> io::Result<Socket> {
    let protocol = if options.enable_mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(at.address), Type::STREAM, Some(protocol))?;
    let is_v4 = at.address.is_ipv4();
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.enable_reuse_port)?;
    if !is_v4 {
        socket.set_only_v6(!at.ipv4_compat)?;
    }
    if let Some(transparent) = options.transparent {
        if is_v4 { socket.set_ip_transparent_v4(transparent)? } else { socket.set_ip_transparent_v6(transparent)? }
    }
    if let Some(freebind) = options.freebind {
        if is_v4 { socket.set_freebind_v4(freebind)? } else { socket.set_freebind_v6(freebind)? }
    }
    if let Some(keepalive) = &at.tcp_keepalive {
        socket_option::keep_alive(&socket, keepalive)?;
    }
    socket.set_nonblocking(true)?;
    socket_option::apply(&socket, &at.socket_options, SocketState::Prebind, is_v4)?;
    socket.bind(&at.address.into())?;
    socket_option::apply(&socket, &at.socket_options, SocketState::Bound, is_v4)?;
    if let Some(length) = options.tcp_fast_open_queue_length {
        socket_option::fast_open(&socket, length)?;
    }
    socket.listen(i32::try_from(options.tcp_backlog_size).unwrap_or(i32::MAX))?;
    socket_option::apply(&socket, &at.socket_options, SocketState::Listening, is_v4)?;
    Ok(socket)
}

/// Where the connection was going before redirection; None: it was not redirected.
pub fn original_destination(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = unmapped(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match found {
        Ok(address) => Ok(address.as_socket().map(unmapped)),
        // No NAT entry (or no NAT in this kernel). By TPROXY the socket itself has the original address.
        Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ENOPROTOOPT)) => {
            let is_transparent = if local.is_ipv4() { socket.ip_transparent_v4() } else { socket.ip_transparent_v6() };
            Ok(is_transparent.unwrap_or(false).then_some(local))
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
