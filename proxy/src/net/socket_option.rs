//! Setting configured options on sockets that are not connected yet.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use nix::libc;
use socket2::{SockRef, TcpKeepalive as Keepalive};

use crate::config::socket_option::{IpVersion, SocketOption, SocketState, TcpKeepalive};

/// Sets those of the options that are for this state and this family.
pub fn apply(socket: &impl AsFd, options: &[SocketOption], state: SocketState, is_v4: bool) -> io::Result<()> {
    options
        .iter()
        .filter(|option| option.state == state && option.applies_to(is_v4))
        .try_for_each(|option| set(socket, option))
}

/// Accepted sockets inherit it from the one that listens.
pub fn keep_alive(socket: &impl AsFd, config: &TcpKeepalive) -> io::Result<()> {
    let mut keepalive = Keepalive::new();
    if let Some(time) = config.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = config.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = config.probes {
        keepalive = keepalive.with_retries(probes);
    }
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// The queue of connections that carry data in their SYN (RFC 7413); 0: none.
pub fn fast_open(socket: &impl AsFd, queue_length: u32) -> io::Result<()> {
    let option = SocketOption {
        level: libc::IPPROTO_TCP,
        name: libc::TCP_FASTOPEN,
        value: i32::try_from(queue_length).unwrap_or(i32::MAX).to_ne_bytes().into(),
        state: SocketState::Bound,
        ip_version: IpVersion::Any,
    };
    set(socket, &option)
}

#[expect(unsafe_code, reason = "no safe wrapper takes options by number")]
fn set(socket: &impl AsFd, option: &SocketOption) -> io::Result<()> {
    let length = libc::socklen_t::try_from(option.value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `length` bytes of a buffer that has as many.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            option.level,
            option.name,
            option.value.as_ptr().cast::<libc::c_void>(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn option(name: i32, value: &[u8]) -> SocketOption {
        let (state, ip_version) = (SocketState::Prebind, IpVersion::V4);
        SocketOption { level: libc::SOL_SOCKET, name, value: value.into(), state, ip_version }
    }

    #[test]
    fn options_reach_the_kernel_in_their_state_and_family() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let options = [option(libc::SO_KEEPALIVE, &1_i32.to_ne_bytes())];
        apply(&socket, &options, SocketState::Bound, true).unwrap();
        apply(&socket, &options, SocketState::Prebind, false).unwrap();
        assert!(!socket.keepalive().unwrap());
        apply(&socket, &options, SocketState::Prebind, true).unwrap();
        assert!(socket.keepalive().unwrap());
        let unknown = apply(&socket, &[option(9999, b"")], SocketState::Prebind, true).unwrap_err();
        assert!(unknown.raw_os_error().is_some(), "{unknown}");
    }

    #[test]
    fn keepalive_is_set_as_far_as_it_is_given() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let config = TcpKeepalive { probes: Some(3), time: Some(Duration::from_secs(11)), interval: None };
        keep_alive(&socket, &config).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(11));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
