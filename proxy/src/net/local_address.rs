//! The address by which this machine is known to others.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::OnceLock,
};

/// The first IPv4 address of an interface that is up and no loopback's; 127.0.0.1 without one. Looked up once.
pub fn local_address() -> IpAddr {
    static FOUND: OnceLock<IpAddr> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let mut ipv4 = addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
        ipv4.find(|ip| !ip.is_loopback()).unwrap_or(Ipv4Addr::LOCALHOST).into()
    })
}
