//! The rules that a plan consists of, in terms that both nftables and iptables have.
//!
//! [`crate::plan`] makes them, [`crate::nft`] and [`crate::iptables`] write them in their backend's terms.
//!
//! Invariant: a rule's matches all have to hold; the addresses in one rule are of one family.

use ipnet::IpNet;

use crate::value::{IdRange, Interface, PortSet};

/// Where rules live: one table for each purpose, as iptables has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Conntrack zones, before anything else.
    Raw,
    /// Marks and TPROXY.
    Mangle,
    /// Redirects, which see the first packet of each connection.
    Nat,
}

impl Table {
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];
}

/// A list of rules. The first two are called by the kernel, the others by a jump from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    Prerouting,
    Output,
    Inbound,
    Redirect,
    InRedirect,
    OutputDns,
    Divert,
    Tproxy,
    Drop,
}

impl Chain {
    pub const ALL: [Self; 9] = [
        Self::Prerouting,
        Self::Output,
        Self::Inbound,
        Self::Redirect,
        Self::InRedirect,
        Self::OutputDns,
        Self::Divert,
        Self::Tproxy,
        Self::Drop,
    ];

    /// The chains that the kernel calls.
    pub const HOOKED: [Self; 2] = [Self::Prerouting, Self::Output];

    pub fn is_hooked(self) -> bool {
        Self::HOOKED.contains(&self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub table: Table,
    pub chain: Chain,
    pub matches: Vec<Match>,
    pub action: Action,
    /// Why the rule is there, for people who read the ruleset.
    pub comment: &'static str,
}

impl Rule {
    /// The only family that the rule is about, or `None` for both.
    pub fn family(&self) -> Option<Family> {
        self.matches.iter().find_map(Match::family)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl From<&IpNet> for Family {
    fn from(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Whether a match is for what it names or for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    Is,
    IsNot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Protocol(Protocol),
    /// The protocol is matched along with the ports, of which there is at least one.
    DestinationPorts {
        protocol: Protocol,
        sense: Sense,
        ports: PortSet,
    },
    SourcePort {
        protocol: Protocol,
        port: u16,
    },
    InInterface(Interface),
    OutInterface(Interface),
    Source(IpNet),
    /// At least one range, all of one family.
    Destination(Vec<IpNet>),
    DestinationIsNot(IpNet),
    Uid(Sense, IdRange),
    /// `Is`: one of these groups; `IsNot`: none of them.
    Gid(Sense, Vec<IdRange>),
    Connection(ConnectionState),
    Mark(Sense, u32),
    ConnectionMark(u32),
}

impl Match {
    fn family(&self) -> Option<Family> {
        match self {
            Self::Source(net) | Self::DestinationIsNot(net) => Some(net.into()),
            Self::Destination(nets) => nets.first().map(Family::from),
            Self::Protocol(_)
            | Self::DestinationPorts { .. }
            | Self::SourcePort { .. }
            | Self::InInterface(_)
            | Self::OutInterface(_)
            | Self::Uid(..)
            | Self::Gid(..)
            | Self::Connection(_)
            | Self::Mark(..)
            | Self::ConnectionMark(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    Invalid,
    /// Established, or related to an established one.
    Established,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Jump(Chain),
    Return,
    Accept,
    Drop,
    /// Rewrites the destination to a port of this machine.
    Redirect {
        port: u16,
    },
    /// Marks the packet and hands it to the transparent socket on `port`; where there is none the packet is dropped, so
    /// that nothing gets past a proxy that is down.
    Tproxy {
        port: u16,
        mark: u32,
    },
    /// Marks the packet, and goes on.
    SetMark(u32),
    /// Marks the connection as the packet is marked, and goes on.
    SaveMark,
    /// Marks the packet as its connection is marked, and goes on.
    RestoreMark,
    /// Puts the packet's connection into a conntrack zone, unless it is in one already, and goes on.
    Zone(u16),
}
