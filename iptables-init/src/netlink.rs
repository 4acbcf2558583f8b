//! What is set up outside of the firewall: the policy route of TPROXY mode and the loopback address `::6`, by rtnetlink.
//!
//! Used by [`crate::apply`]; [`crate::machine`] and [`crate::verify`] read addresses here. Spoken directly, since neither
//! a shell nor the `ip` program can be counted on in an image.
//!
//! Invariant: our rules and routes carry [`PROTOCOL`], and nothing else is ever deleted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use thiserror::Error;

use crate::plan::{BYPASS_SOURCE_V6, Plan, PolicyRoute};
use crate::rule::Family;

/// A question to the kernel, or a change, that failed.
#[derive(Debug, Error)]
#[error("{operation}")]
pub struct NetlinkError {
    operation: &'static str,
    #[source]
    errno: Errno,
}

impl NetlinkError {
    /// Whether the kernel said that the privilege is missing.
    pub fn is_permission(&self) -> bool {
        self.errno == Errno::PERM
    }
}

/// An address of this network namespace, with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub net: IpNet,
    pub interface: u32,
}

/// What of ours is in place outside of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    v4: Vec<PolicyRoute>,
    v6: Vec<PolicyRoute>,
    has_bypass_address: bool,
}

/// A conversation with the kernel about routes and addresses of one network namespace: that of the thread at opening.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> Result<Self, NetlinkError> {
        let error = |errno| NetlinkError { operation: "opening a netlink socket", errno };
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)
                .map_err(error)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(error)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The addresses of all interfaces, those of the loopback included.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        let header = [0; ADDRESS_HEADER_LENGTH];
        let replies = self.dump(GET_ADDRESS, NEW_ADDRESS, &header, "listing the addresses of this namespace")?;
        Ok(replies.iter().filter_map(|reply| interface_address(reply)).collect())
    }

    /// Puts a policy route in place, beside others that may be there.
    pub fn add_policy_route(&mut self, route: PolicyRoute, family: Family) -> Result<(), NetlinkError> {
        // The kernel would take the same rule again, at another priority.
        if !self.our_rules(family)?.contains(&route) {
            let add_rule = self.change(NEW_RULE, CREATE | EXCLUSIVE, &rule_message(route, family));
            accept(add_rule, Errno::EXIST, "adding the policy rule for marked packets")?;
        }
        let add_route = self.change(NEW_ROUTE, CREATE | REPLACE, &route_message(route.table, family));
        accept(add_route, Errno::EXIST, "adding the local route for marked packets")
    }

    /// Deletes all policy routes of ours but those to keep.
    pub fn delete_policy_routes_except(&mut self, keep: &[PolicyRoute], family: Family) -> Result<(), NetlinkError> {
        for route in self.our_rules(family)?.into_iter().filter(|route| !keep.contains(route)) {
            let deleted = self.change(DELETE_RULE, 0, &rule_message(route, family));
            accept(deleted, Errno::NOENT, "deleting an old policy rule")?;
        }
        let operation = "listing the routes";
        let routes = self.dump(GET_ROUTE, NEW_ROUTE, &route_header(family, 0), operation)?;
        // A kernel without the family answers with the routes of others.
        let of_family = routes.iter().filter(|reply| reply.first() == Some(&family_number(family)));
        for table in of_family.filter_map(|reply| our_route(reply)) {
            if keep.iter().all(|keep| keep.table != table) {
                let deleted = self.change(DELETE_ROUTE, 0, &route_message(table, family));
                accept(deleted, Errno::SRCH, "deleting an old local route")?;
            }
        }
        Ok(())
    }

    fn our_rules(&mut self, family: Family) -> Result<Vec<PolicyRoute>, NetlinkError> {
        match self.dump(GET_RULE, NEW_RULE, &rule_header(family, 0), "listing the policy rules") {
            Ok(rules) => Ok(rules.iter().filter_map(|reply| our_rule(reply)).collect()),
            // A kernel without the family has no rules for it.
            Err(NetlinkError { errno: Errno::AFNOSUPPORT | Errno::OPNOTSUPP, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Gives the loopback interface the address that the proxy calls the application from.
    pub fn add_bypass_address(&mut self) -> Result<(), NetlinkError> {
        match self.change(NEW_ADDRESS, CREATE | REPLACE, &bypass_address_message()) {
            // IPv6 is switched off on the loopback, so nobody calls anybody there.
            Err(Errno::ACCESS) => Ok(()),
            added => accept(added, Errno::EXIST, "adding the address ::6 to the loopback interface"),
        }
    }

    /// What is in place outside of the firewall.
    pub fn in_place(&mut self) -> Result<InPlace, NetlinkError> {
        Ok(InPlace {
            v4: self.our_rules(Family::V4)?,
            v6: self.our_rules(Family::V6)?,
            has_bypass_address: self.addresses()?.iter().any(|address| address.net.addr() == BYPASS_SOURCE_V6),
        })
    }

    /// Whether the policy route of a plan, if it has one, is there for all its families.
    pub fn has_policy_route(&mut self, plan: &Plan) -> Result<bool, NetlinkError> {
        let Some(route) = plan.policy_route else { return Ok(true) };
        let v4 = self.our_rules(Family::V4)?.contains(&route);
        Ok(v4 && (!plan.ipv6 || self.our_rules(Family::V6)?.contains(&route)))
    }

    /// Takes back what was added since `before`.
    pub fn restore(&mut self, before: &InPlace) -> Result<(), NetlinkError> {
        self.delete_policy_routes_except(&before.v4, Family::V4)?;
        self.delete_policy_routes_except(&before.v6, Family::V6)?;
        if before.has_bypass_address { Ok(()) } else { self.delete_bypass_address() }
    }

    pub fn delete_bypass_address(&mut self) -> Result<(), NetlinkError> {
        match self.change(DELETE_ADDRESS, 0, &bypass_address_message()) {
            // Without IPv6, in the kernel or on the loopback, there is no such address.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::NXIO) => Ok(()),
            deleted => accept(deleted, Errno::ADDRNOTAVAIL, "deleting the address ::6 of the loopback interface"),
        }
    }

    /// Sends one change and waits for its acknowledgement.
    fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        let sequence = self.send(kind, REQUEST | ACKNOWLEDGE | flags, body)?;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                if message.sequence == sequence && message.kind == ERROR {
                    return acknowledgement(message.body);
                }
            }
        }
    }

    /// Asks for everything of a kind.
    fn dump(
        &mut self,
        kind: u16,
        reply_kind: u16,
        header: &[u8],
        operation: &'static str,
    ) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let error = |errno| NetlinkError { operation, errno };
        let sequence = self.send(kind, REQUEST | DUMP, header).map_err(error)?;
        let mut replies = Vec::new();
        loop {
            let datagram = self.receive().map_err(error)?;
            for message in messages(&datagram).filter(|message| message.sequence == sequence) {
                match message.kind {
                    DONE => return Ok(replies),
                    ERROR => acknowledgement(message.body).map_err(error)?,
                    kind if kind == reply_kind => replies.push(message.body.to_vec()),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<u32, Errno> {
        self.sequence += 1;
        let length = u32::try_from(MESSAGE_HEADER_LENGTH + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut message = Vec::with_capacity(MESSAGE_HEADER_LENGTH + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; DATAGRAM_LENGTH_MAX];
        let (length, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Takes one error as success: what was to be is so already.
fn accept(result: Result<(), Errno>, as_success: Errno, operation: &'static str) -> Result<(), NetlinkError> {
    match result {
        Err(errno) if errno != as_success => Err(NetlinkError { operation, errno }),
        Ok(()) | Err(_) => Ok(()),
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram; what is cut off at its end is left out.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..MESSAGE_HEADER_LENGTH)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let body = datagram.get(MESSAGE_HEADER_LENGTH..length)?;
        let message = Message { kind: u16_at(header, 4)?, sequence: u32_at(header, 8)?, body };
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The kernel's answer to a change: zero, or the negative number of an error.
fn acknowledgement(body: &[u8]) -> Result<(), Errno> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        // The range that the kernel keeps for errors.
        Some(code @ -4095..=-1) => Err(Errno::from_raw_os_error(-code)),
        Some(_) | None => Err(Errno::BADMSG),
    }
}

/// The attributes after a header: type and value.
fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(body, 0)?);
        let value = body.get(ATTRIBUTE_HEADER_LENGTH..length)?;
        let kind = u16_at(body, 2)?;
        body = body.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn attribute(body: &[u8], header_length: usize, kind: u16) -> Option<&[u8]> {
    attributes(body.get(header_length..)?).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER_LENGTH + value.len()).expect("our attributes are a few bytes long");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(aligned(message.len()), 0);
}

fn interface_address(reply: &[u8]) -> Option<InterfaceAddress> {
    let prefix_length = *reply.get(1)?;
    let interface = u32_at(reply, 4)?;
    // On a point-to-point link the other attribute is the peer's.
    let value = attribute(reply, ADDRESS_HEADER_LENGTH, LOCAL_ADDRESS)
        .or_else(|| attribute(reply, ADDRESS_HEADER_LENGTH, ADDRESS))?;
    let address = match value.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    Some(InterfaceAddress { net: IpNet::new(address, prefix_length).ok()?, interface })
}

fn our_rule(reply: &[u8]) -> Option<PolicyRoute> {
    let protocol = attribute(reply, RULE_HEADER_LENGTH, RULE_PROTOCOL)?;
    let mark = u32_at(attribute(reply, RULE_HEADER_LENGTH, RULE_MARK)?, 0)?;
    let table = u32_at(attribute(reply, RULE_HEADER_LENGTH, RULE_TABLE)?, 0)?;
    (protocol == [PROTOCOL]).then_some(PolicyRoute { mark, table })
}

fn our_route(reply: &[u8]) -> Option<u32> {
    let protocol = *reply.get(5)?;
    let table = u32_at(attribute(reply, ROUTE_HEADER_LENGTH, ROUTE_TABLE)?, 0)?;
    (protocol == PROTOCOL).then_some(table)
}

fn rule_header(family: Family, action: u8) -> Vec<u8> {
    vec![family_number(family), 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0]
}

fn rule_message(route: PolicyRoute, family: Family) -> Vec<u8> {
    let mut message = rule_header(family, RULE_TO_TABLE);
    push_attribute(&mut message, RULE_TABLE, &route.table.to_ne_bytes());
    push_attribute(&mut message, RULE_MARK, &route.mark.to_ne_bytes());
    push_attribute(&mut message, RULE_PROTOCOL, &[PROTOCOL]);
    message
}

fn route_header(family: Family, kind: u8) -> Vec<u8> {
    let (protocol, scope) = if kind == 0 { (0, 0) } else { (PROTOCOL, SCOPE_HOST) };
    vec![family_number(family), 0, 0, 0, 0, protocol, scope, kind, 0, 0, 0, 0]
}

/// Everything is local: the equivalent of `ip route add local default dev lo`.
fn route_message(table: u32, family: Family) -> Vec<u8> {
    let mut message = route_header(family, ROUTE_LOCAL);
    push_attribute(&mut message, ROUTE_TABLE, &table.to_ne_bytes());
    push_attribute(&mut message, ROUTE_OUT_INTERFACE, &LOOPBACK_INDEX.to_ne_bytes());
    message
}

fn bypass_address_message() -> Vec<u8> {
    // Usable at once: there is nobody on a loopback to ask whether the address is taken.
    let mut message = vec![family_number(Family::V6), 128, NO_DUPLICATE_DETECTION, 0];
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    push_attribute(&mut message, LOCAL_ADDRESS, &BYPASS_SOURCE_V6.octets());
    push_attribute(&mut message, ADDRESS, &BYPASS_SOURCE_V6.octets());
    message
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Who made a rule or a route, in the field that the kernel keeps for that: a number that no routing daemon uses.
pub const PROTOCOL: u8 = 157;
/// The loopback interface is the first of every namespace.
pub const LOOPBACK_INDEX: u32 = 1;

const MESSAGE_HEADER_LENGTH: usize = 16;
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const ADDRESS_HEADER_LENGTH: usize = 8;
const RULE_HEADER_LENGTH: usize = 12;
const ROUTE_HEADER_LENGTH: usize = 12;
/// The kernel sends dumps in pieces of at most 32 KiB.
const DATAGRAM_LENGTH_MAX: usize = 64 * 1024;

// linux/netlink.h
/// The protocol of number zero, which is also the default.
const NETLINK_ROUTE: Option<Protocol> = None;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const DONE: u16 = 3;
// linux/rtnetlink.h
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const ROUTE_OUT_INTERFACE: u16 = 4;
const ROUTE_TABLE: u16 = 15;
const ROUTE_LOCAL: u8 = 2;
const SCOPE_HOST: u8 = 254;
// linux/if_addr.h
const NO_DUPLICATE_DETECTION: u8 = 0x02;
const ADDRESS: u16 = 1;
const LOCAL_ADDRESS: u16 = 2;
// linux/fib_rules.h
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const RULE_PROTOCOL: u16 = 21;
const RULE_TO_TABLE: u8 = 1;

#[cfg(test)]
mod tests;
