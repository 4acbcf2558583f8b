//! Where a listener listens, and what its sockets are told.

use std::net::SocketAddr;

use weft_xds::{
    FieldError,
    pb::envoy::config::{
        core::v3::{
            Address, SocketOption as ProtoSocketOption, SocketOptionsOverride, TcpKeepalive as ProtoTcpKeepalive,
        },
        listener::v3::{
            AdditionalAddress,
            listener::{ConnectionBalanceConfig, connection_balance_config::BalanceType},
        },
    },
};

use crate::config::{
    address::TcpAddress,
    field::{self, Result, Within as _, required, unsupported},
    socket_option::{SocketOption, TcpKeepalive},
};

/// One address, and what is set on its socket only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerAddress {
    pub address: SocketAddr,
    /// An IPv6 wildcard that takes IPv4 as well.
    pub ipv4_compat: bool,
    pub socket_options: Vec<SocketOption>,
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// What is set on every socket of a listener. None leaves an option as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindOptions {
    /// One socket a worker; false: one socket, accepted from by every worker.
    pub enable_reuse_port: bool,
    pub tcp_backlog_size: u32,
    pub transparent: Option<bool>,
    pub freebind: Option<bool>,
    /// 0: off.
    pub tcp_fast_open_queue_length: Option<u32>,
    pub enable_mptcp: bool,
}

/// Which worker takes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionBalance {
    /// The one that accepts it.
    Kernel,
    /// The one that has the fewest.
    Exact,
}

/// The fields of the message that its addresses are made of.
pub(super) struct AddressFields {
    pub address: Option<Address>,
    pub additional_addresses: Vec<AdditionalAddress>,
    pub socket_options: Vec<ProtoSocketOption>,
    pub tcp_keepalive: Option<ProtoTcpKeepalive>,
}

impl AddressFields {
    /// The first is `address`.
    pub(super) fn into_addresses(self) -> Result<Vec<ListenerAddress>> {
        let own = Settings {
            socket_options: SocketOption::list(self.socket_options, "socket_options")?,
            tcp_keepalive: self.tcp_keepalive.and_then(TcpKeepalive::from_proto),
        };
        let first = own.clone().at(self.address).within("address")?;
        let others = field::each(self.additional_addresses, "additional_addresses", |message| {
            let AdditionalAddress { address, socket_options, tcp_keepalive } = message;
            let settings = Settings {
                // Given, even empty, they take the place of the listener's.
                socket_options: match socket_options {
                    Some(SocketOptionsOverride { socket_options }) => {
                        SocketOption::list(socket_options, "socket_options").within("socket_options")?
                    }
                    None => own.socket_options.clone(),
                },
                tcp_keepalive: match tcp_keepalive {
                    Some(message) => TcpKeepalive::from_proto(message),
                    None => own.tcp_keepalive,
                },
            };
            settings.at(address).within("address")
        })?;
        Ok(std::iter::once(first).chain(others).collect())
    }
}

#[derive(Clone)]
struct Settings {
    socket_options: Vec<SocketOption>,
    tcp_keepalive: Option<TcpKeepalive>,
}

impl Settings {
    fn at(self, address: Option<Address>) -> Result<ListenerAddress> {
        let Settings { socket_options, tcp_keepalive } = self;
        let TcpAddress { address, ipv4_compat } = TcpAddress::from_proto(required(address, "")?)?;
        Ok(ListenerAddress { address, ipv4_compat, socket_options, tcp_keepalive })
    }
}

impl ConnectionBalance {
    pub(super) fn from_proto(message: Option<ConnectionBalanceConfig>) -> Result<Self> {
        let Some(ConnectionBalanceConfig { balance_type }) = message else { return Ok(Self::Kernel) };
        match balance_type {
            Some(BalanceType::ExactBalance(_)) => Ok(Self::Exact),
            Some(BalanceType::ExtendBalance(_)) => Err(unsupported("extend_balance")),
            Some(BalanceType::CpuLocalityBalance(_)) => Err(unsupported("cpu_locality_balance")),
            None => Err(FieldError::new("balance_type", "value is required")),
        }
    }
}
