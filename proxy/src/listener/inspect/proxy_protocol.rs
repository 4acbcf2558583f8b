//! The PROXY protocol's header, versions 1 and 2, as HAProxy's "The PROXY protocol" specifies it, read and written.
//! Where the specification leaves room, what is taken and what is refused is as in Envoy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::listener::inspect::Verdict;

/// Which beginnings of a connection are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    pub v1: bool,
    pub v2: bool,
    /// A connection that begins otherwise; a version that is not taken counts as such.
    pub no_header: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// What stands at the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning<'a> {
    Header(Header<'a>),
    /// No header, and none is needed.
    NoHeader,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no header, or none that could be told apart from other bytes.
    NotFound,
    Malformed(Version),
    /// A version that is not taken.
    Disallowed(Version),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub version: Version,
    /// Bytes, with everything that belongs to it.
    pub length: usize,
    /// None: the sender's own addresses are meant (`UNKNOWN`, `LOCAL`).
    pub addresses: Option<Addresses>,
    pub tlvs: Vec<(u8, &'a [u8])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Nothing before the end of a version 1 line is longer; with the line's end.
const V1_BYTES_MAX: usize = 108;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// The longest header there can be.
pub const HEADER_BYTES_MAX: usize = V2_FIXED_BYTES + u16::MAX as usize;
const V2_VERSION: u8 = 2;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const FAMILY_INET: u8 = 1;
const FAMILY_INET6: u8 = 2;
const TRANSPORT_STREAM: u8 = 1;
const TRANSPORT_DATAGRAM: u8 = 2;
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;

pub fn inspect(seen: &[u8], accepts: Accepts) -> Verdict<Beginning<'_>> {
    let begins = |signature: &[u8]| {
        let compared = seen.len().min(signature.len());
        seen[..compared] == signature[..compared]
    };
    if accepts.no_header && !(accepts.v2 && begins(V2_SIGNATURE)) && !(accepts.v1 && begins(V1_SIGNATURE)) {
        return Verdict::Done(Beginning::NoHeader);
    }
    if seen.len() >= V2_FIXED_BYTES {
        if begins(V2_SIGNATURE) {
            return match accepts.v2 {
                true => inspect_v2(seen),
                false => refused(Refusal::Disallowed(Version::V2)),
            };
        }
        if !begins(V1_SIGNATURE) {
            return refused(Refusal::NotFound);
        }
    }
    // A line's end at the very beginning may still become version 2's signature.
    let line_end = seen.windows(2).position(|pair| pair == b"\r\n").filter(|&at| at > 0);
    match line_end {
        Some(at) if at + 2 > V1_BYTES_MAX => refused(Refusal::NotFound),
        Some(_) if !accepts.v1 => refused(Refusal::Disallowed(Version::V1)),
        Some(at) => Verdict::Done(match read_v1(&seen[..at]) {
            Some(addresses) => {
                Beginning::Header(Header { version: Version::V1, length: at + 2, addresses, tlvs: Vec::new() })
            }
            None => Beginning::Refused(Refusal::Malformed(Version::V1)),
        }),
        None if seen.len() > V1_BYTES_MAX => refused(Refusal::NotFound),
        None => Verdict::NeedMore,
    }
}

fn refused<'a>(refusal: Refusal) -> Verdict<Beginning<'a>> {
    Verdict::Done(Beginning::Refused(refusal))
}

/// The line without its end. None: malformed; `Some(None)`: it names no addresses.
fn read_v1(line: &[u8]) -> Option<Option<Addresses>> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches([' ', '\t', '\r', '\n', '\x0b', '\x0c']);
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", "TCP4", source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                Some(SocketAddr::from((ip.parse::<Ipv4Addr>().ok()?, port.parse::<u16>().ok()?)))
            };
            Addresses::new(address(source, source_port)?, address(destination, destination_port)?).map(Some)
        }
        ["PROXY", "TCP6", source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                Some(SocketAddr::from((ip.parse::<Ipv6Addr>().ok()?, port.parse::<u16>().ok()?)))
            };
            Addresses::new(address(source, source_port)?, address(destination, destination_port)?).map(Some)
        }
        _ => None,
    }
}

/// `seen` has the fixed part.
fn inspect_v2(seen: &[u8]) -> Verdict<Beginning<'_>> {
    let malformed = refused(Refusal::Malformed(Version::V2));
    let (version, command) = (seen[12] >> 4, seen[12] & 0xf);
    let (family, transport) = (seen[13] >> 4, seen[13] & 0xf);
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([seen[14], seen[15]]));
    if version != V2_VERSION {
        return malformed;
    }
    let header =
        |addresses, tlvs| Verdict::Done(Beginning::Header(Header { version: Version::V2, length, addresses, tlvs }));
    if command == COMMAND_LOCAL {
        // What follows is passed over, addresses and extensions alike.
        return if seen.len() < length { Verdict::NeedMore } else { header(None, Vec::new()) };
    }
    let addresses_bytes = match family {
        FAMILY_INET => INET_BYTES,
        FAMILY_INET6 => INET6_BYTES,
        _ => return malformed,
    };
    if length < V2_FIXED_BYTES + addresses_bytes
        || command != COMMAND_PROXY
        || !matches!(transport, TRANSPORT_STREAM | TRANSPORT_DATAGRAM)
    {
        return malformed;
    }
    if seen.len() < length {
        return Verdict::NeedMore;
    }
    let (addresses, extensions) = seen[V2_FIXED_BYTES..length].split_at(addresses_bytes);
    match (read_addresses(addresses), read_tlvs(extensions)) {
        (Some(addresses), Some(tlvs)) => header(Some(addresses), tlvs),
        _ => malformed,
    }
}

/// Of either family, told by the length.
fn read_addresses(bytes: &[u8]) -> Option<Addresses> {
    let port = |at: usize| bytes.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let ip = |at: usize, length: usize| -> Option<IpAddr> {
        let bytes = bytes.get(at..at + length)?;
        match length {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let length = if bytes.len() == INET_BYTES { 4 } else { 16 };
    Addresses::new(
        SocketAddr::new(ip(0, length)?, port(2 * length)?),
        SocketAddr::new(ip(length, length)?, port(2 * length + 2)?),
    )
}

fn read_tlvs(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut tlvs = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_at_checked(2)?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([length[0], length[1]]).into())?;
        tlvs.push((kind, value));
        bytes = rest;
    }
    Some(tlvs)
}

impl Addresses {
    /// None: one of them is no address of a host.
    fn new(source: SocketAddr, destination: SocketAddr) -> Option<Addresses> {
        [source.ip(), destination.ip()].into_iter().all(is_unicast).then_some(Addresses { source, destination })
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Appends a header of version 1. Addresses of two families cannot be said in it: `UNKNOWN`.
pub fn write_v1(addresses: Option<Addresses>, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let family = match addresses {
        Some(Addresses { source: SocketAddr::V4(_), destination: SocketAddr::V4(_) }) => "TCP4",
        Some(Addresses { source: SocketAddr::V6(_), destination: SocketAddr::V6(_) }) => "TCP6",
        Some(_) | None => {
            out.extend_from_slice(b"PROXY UNKNOWN\r\n");
            return;
        }
    };
    let Some(Addresses { source, destination }) = addresses else { return };
    let (from, to) = (source.ip(), destination.ip());
    let line = write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    line.expect("a Vec takes every write");
}

/// Appends a header of version 2, as many of the extensions as fit in it. Without addresses: `LOCAL`, and no extensions.
pub fn write_v2<'a>(addresses: Option<Addresses>, tlvs: impl IntoIterator<Item = (u8, &'a [u8])>, out: &mut Vec<u8>) {
    out.extend_from_slice(V2_SIGNATURE);
    let Some(Addresses { source, destination }) = addresses else {
        out.extend_from_slice(&[V2_VERSION << 4 | COMMAND_LOCAL, 0, 0, 0]);
        return;
    };
    let is_v4 = source.is_ipv4() && destination.is_ipv4();
    let family = if is_v4 { FAMILY_INET } else { FAMILY_INET6 };
    out.extend_from_slice(&[V2_VERSION << 4 | COMMAND_PROXY, family << 4 | TRANSPORT_STREAM, 0, 0]);
    let begin = out.len();
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) if is_v4 => out.extend_from_slice(&ip.octets()),
            IpAddr::V4(ip) => out.extend_from_slice(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    for (kind, value) in tlvs {
        let Ok(length) = u16::try_from(value.len()) else { continue };
        if out.len() - begin + 3 + value.len() > usize::from(u16::MAX) {
            continue;
        }
        out.push(kind);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value);
    }
    let length = u16::try_from(out.len() - begin).expect("what would not fit was left out");
    out[begin - 2..begin].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
