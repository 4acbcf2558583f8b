//! The values that arguments are made of: ports, ranges of addresses, owners, interfaces, durations.
//!
//! First stop of every argument after the command line itself: text goes in, a typed value or a [`ValueError`] comes
//! out. Nothing behind this file handles text that a user wrote, so nothing that a user writes can become a rule.
//!
//! Invariants: a [`PortSet`] is sorted and its ranges neither overlap nor touch; an [`Interface`] holds only characters
//! that need no quoting anywhere; an [`IdRange`] and a [`PortRange`] have `first <= last`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

/// Why a piece of text is not a value of the kind that an argument takes. The argument and the text are named by the
/// error around it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("a port is a number from 1 to 65535")]
    Port,
    #[error("a port in a list is a number from 0 to 65535 or a range such as 8000-8080 (8000:8080 means the same)")]
    PortRange,
    #[error("the range ends before it starts")]
    RangeBackwards,
    #[error("a range of addresses is written as CIDR, such as 10.0.0.0/8 or fd00::/8")]
    Cidr,
    #[error("a loopback range is an IPv4 range inside 127.0.0.0/8, such as 127.0.0.1/32")]
    Loopback,
    #[error("\"*\" stands alone, for everything; it can't be part of a list and can't be excluded")]
    Wildcard,
    #[error("neither a number from 0 to 4294967294, a range of such numbers, nor the name of a {0} on this system")]
    Owner(&'static str),
    #[error(
        "an interface is named by at most 15 letters, digits, '.', '_', '-' or '@'; a '+' at the end stands for any rest"
    )]
    Interface,
    #[error("a mark is a number from 1 to 4294967295, decimal or as 0x...; 1338 is taken by the mesh")]
    Mark,
    #[error("a route table is a number from 1 to 4294967295 other than 253, 254 and 255, which are the system's")]
    RouteTable,
    #[error("a switch is true or false")]
    Switch,
    #[error("a duration is written as numbers with units, such as 5s, 1m30s or 500ms, and is at most an hour")]
    Duration,
    #[error("expected one of: {0}")]
    Choice(&'static str),
    #[error("expected a path without NUL characters, or the name of a namespace in /run/netns")]
    NetworkNamespace,
    #[error("at most {0} entries fit into one rule")]
    TooMany(usize),
}

/// Neighbouring ports, `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Reads a comma list of ports and ranges. Empty entries are skipped, so the empty text is the empty set.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        entries(text).map(port_range).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| (range.first..=range.last).contains(&port))
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<T: IntoIterator<Item = PortRange>>(ranges: T) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        ports.into_iter().map(|port| PortRange { first: port, last: port }).collect()
    }
}

/// Neighbouring user or group ids, `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    pub first: u32,
    pub last: u32,
}

impl IdRange {
    pub const fn one(id: u32) -> Self {
        Self { first: id, last: id }
    }

    pub fn contains(&self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// The name of a network interface, or the start that the names of several have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    name: String,
    is_prefix: bool,
}

impl Interface {
    pub fn loopback() -> Self {
        Self { name: "lo".to_owned(), is_prefix: false }
    }

    /// Reads one name; a `+` at the end makes it the start of names, as iptables has it.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (name, is_prefix) = match text.strip_suffix('+') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        // A name that starts with a dash would be taken for an option; the kernel itself knows neither "." nor "..".
        let is_name = !name.is_empty()
            && name.chars().all(is_plain)
            && !name.starts_with('-')
            && !name.trim_matches('.').is_empty();
        if !is_name || name.len() > NAME_LENGTH_MAX {
            return Err(ValueError::Interface);
        }
        Ok(Self { name: name.to_owned(), is_prefix })
    }

    /// Reads a comma list of names.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ValueError> {
        entries(text).map(Self::parse).collect()
    }

    /// The name, or the start of names, without a wildcard character.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_called(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.name) } else { name == self.name }
    }

    /// Whether every interface whose name starts with [`Self::name`] is meant.
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }
}

/// The entries of a comma list, without the blanks around them and without empty ones.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Reads a port that something listens on.
pub fn port(text: &str) -> Result<u16, ValueError> {
    match unsigned(text, u16::MAX.into()) {
        Some(port) if port > 0 => u16::try_from(port).map_err(|_| ValueError::Port),
        _ => Err(ValueError::Port),
    }
}

/// Reads a comma list of ranges of addresses. Bits beyond the prefix length are cleared, and ranges that overlap or
/// complete each other become one. `*` is for the caller to recognise first.
pub fn cidrs(text: &str) -> Result<Vec<IpNet>, ValueError> {
    let mut nets = Vec::new();
    for entry in entries(text) {
        if entry == "*" {
            return Err(ValueError::Wildcard);
        }
        nets.push(cidr(entry).ok_or(ValueError::Cidr)?.trunc());
    }
    Ok(IpNet::aggregate(&nets))
}

/// Whether a list of ranges names the loopback: some entry's address, as written, is a loopback address.
pub fn names_loopback(text: &str) -> bool {
    let mut nets = entries(text).filter_map(cidr);
    nets.any(|net| net.addr().is_loopback())
}

/// Reads the IPv4 range that counts as an application's own loopback.
pub fn loopback(text: &str) -> Result<IpNet, ValueError> {
    match cidr(text.trim()) {
        Some(IpNet::V4(net)) if net.addr().is_loopback() && net.prefix_len() >= 8 => Ok(IpNet::V4(net.trunc())),
        _ => Err(ValueError::Loopback),
    }
}

/// Reads an owner: a number, a range of numbers, or a name that `lookup` knows. `kind` is "user" or "group".
pub fn owner(text: &str, kind: &'static str, lookup: impl Fn(&str) -> Option<u32>) -> Result<IdRange, ValueError> {
    // The highest number is (uid_t)-1, which the kernel takes for "nobody in particular".
    let id = |text: &str| unsigned(text, ID_MAX);
    // A name wins over a range, since "a-b" is a valid name; a number wins over a name, as in iptables.
    if let Some(id) = id(text) {
        return Ok(IdRange::one(id));
    }
    if let Some(id) = lookup(text) {
        return Ok(IdRange::one(id));
    }
    let (first, last) = text.split_once('-').ok_or(ValueError::Owner(kind))?;
    match (id(first), id(last)) {
        (Some(first), Some(last)) if first <= last => Ok(IdRange { first, last }),
        (Some(_), Some(_)) => Err(ValueError::RangeBackwards),
        _ => Err(ValueError::Owner(kind)),
    }
}

/// Reads a packet mark, decimal or hexadecimal.
pub fn mark(text: &str) -> Result<u32, ValueError> {
    let mark = match text.strip_prefix("0x") {
        // `from_str_radix` would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => unsigned(text, u32::MAX),
    };
    mark.filter(|mark| *mark != 0 && *mark != OUTBOUND_MARK).ok_or(ValueError::Mark)
}

/// Reads the number of a route table that is free for us to fill.
pub fn route_table(text: &str) -> Result<u32, ValueError> {
    // A default route to the loopback in the system's own tables would cut the pod off.
    unsigned(text, u32::MAX).filter(|table| !matches!(table, 0 | 253..=255)).ok_or(ValueError::RouteTable)
}

/// Reads a switch, with the spellings that Go's flags take.
pub fn switch(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(ValueError::Switch),
    }
}

/// Reads a duration as Go writes it: numbers with units, one after the other.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ValueError::Duration)?;
        let number: f64 = rest[..digits].parse().map_err(|_| ValueError::Duration)?;
        rest = &rest[digits..];
        let units = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..units] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(ValueError::Duration),
        };
        rest = &rest[units..];
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_| ValueError::Duration)?;
        total = total.checked_add(part).filter(|total| *total <= DURATION_MAX).ok_or(ValueError::Duration)?;
    }
    if total.is_zero() { Err(ValueError::Duration) } else { Ok(total) }
}

/// The name servers that a resolv.conf names, each once. A scope such as `%eth0` is left off: rules match the address.
pub fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address =
            words.next().map(|word| word.split('%').next().unwrap_or(word)).and_then(|word| word.parse().ok());
        if let Some(address) = address
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

/// Reads an address and a prefix length. The crate's own parser would take zeros in front, which others read as octal.
fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.len() > 1 && length.starts_with('0') {
        return None;
    }
    let length = u8::try_from(unsigned(length, u8::MAX.into())?).ok()?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// Reads one entry of a list of ports. Istio's rules take iptables' `8000:8080`, with either end left open; its nftables
/// variant takes `8000-8080`. Both are understood here, whichever backend is used.
fn port_range(text: &str) -> Result<PortRange, ValueError> {
    let number = |text: &str| unsigned(text, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
    let range = match text.split_once([':', '-']) {
        None => number(text).map(|port| PortRange { first: port, last: port }),
        Some((first, last)) => {
            let is_open = text.contains(':') && text != ":";
            let end = |text: &str, open| if text.is_empty() && is_open { Some(open) } else { number(text) };
            end(first, 0).zip(end(last, u16::MAX)).map(|(first, last)| PortRange { first, last })
        }
    };
    match range {
        _ if text == "*" => Err(ValueError::Wildcard),
        Some(range) if range.first > range.last => Err(ValueError::RangeBackwards),
        range => range.ok_or(ValueError::PortRange),
    }
}

/// Reads digits and nothing but digits, up to a highest number.
fn unsigned(text: &str, max: u32) -> Option<u32> {
    // `parse` alone would take a plus sign.
    let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && *number <= max)
}

/// Packets that the proxy sends from its outbound to its own inbound side carry this mark in TPROXY mode.
pub const OUTBOUND_MARK: u32 = 1338;

/// The kernel's limit, IFNAMSIZ, less the NUL at the end.
const NAME_LENGTH_MAX: usize = 15;
const ID_MAX: u32 = u32::MAX - 1;
const DURATION_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
