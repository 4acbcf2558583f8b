//! What has to be known about the machine, and moving into a pod's network namespace.
//!
//! The only file beside [`crate::apply`] and [`crate::verify`] that touches the system; it changes nothing.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::accounts::Accounts;
use crate::netlink::{Netlink, NetlinkError};
use crate::settings::Facts;

#[derive(Debug, Error)]
pub enum MachineError {
    #[error("--network-namespace: {path} can't be opened")]
    OpenNamespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--network-namespace: {path} can't be entered; that needs to be a network namespace, and CAP_SYS_ADMIN")]
    EnterNamespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Moves this thread, and every program that it starts from now on, into a network namespace.
pub fn enter_namespace(path: &Path) -> Result<(), MachineError> {
    let open = |source| MachineError::OpenNamespace { path: path.to_owned(), source };
    let namespace = File::open(path).map_err(open)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| MachineError::EnterNamespace { path: path.to_owned(), source: errno.into() })
}

/// Looks around, in the network namespace that the thread is in.
pub fn facts() -> Result<Facts, MachineError> {
    // A file that is not there names nobody.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let addresses = Netlink::open()?.addresses()?;
    Ok(Facts {
        accounts: Accounts::parse(&passwd, &group),
        resolv_conf: fs::read_to_string("/etc/resolv.conf").ok(),
        has_ipv6: Path::new("/proc/thread-self/net/if_inet6").exists(),
        has_ipv4_address: addresses.iter().any(|address| {
            let address = address.net.addr();
            address.is_ipv4() && !address.is_loopback()
        }),
    })
}
