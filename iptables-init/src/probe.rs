//! Which connections would prove the redirection, from inside of the namespace.
//!
//! Used by [`crate::verify`], which makes them. Pure: what has to be known about the namespace comes in as
//! [`Surroundings`].
//!
//! Outbound, an application's connection to somewhere else has to arrive at the proxy's outbound port. Inbound, what comes
//! from elsewhere can't be made from inside; but the proxy's own connection to the pod's address takes the same way from
//! the redirecting chain on, so it has to arrive at the proxy's inbound port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::plan::bypass_source;
use crate::rule::Family;
use crate::settings::{OutboundRanges, OwnerGroups, Settings};
use crate::value::IdRange;

/// One connection, and where it has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub side: Side,
    /// The address to call from, where the kernel's own choice would not do.
    pub source: Option<IpAddr>,
    pub destination: SocketAddr,
    pub owner: Owner,
    pub proxy_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Outbound,
    Inbound,
}

/// On whose behalf a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What the choice depends on beside the settings.
pub struct Surroundings<'a> {
    pub owner: Owner,
    /// Whether somebody else can be taken on: that is a privilege, and in a user namespace not everybody exists.
    pub can_become: &'a dyn Fn(Owner) -> bool,
    /// Addresses of interfaces that are not excluded from redirection, the loopback's included.
    pub addresses: &'a [IpNet],
    /// Whether there is a route to an address.
    pub has_route: &'a dyn Fn(IpAddr) -> bool,
}

/// The connections to make, and why some are not made.
#[derive(Debug, Default)]
pub struct Probes {
    pub probes: Vec<Probe>,
    pub left_out: Vec<String>,
}

impl Probes {
    /// Chooses the connections for each family, to `port` or the next that is not excluded from redirection.
    pub fn choose(settings: &Settings, surroundings: &Surroundings<'_>, port: u16) -> Self {
        let mut chosen = Self::default();
        let families: &[_] = if settings.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] };
        for family in families {
            for (side, probe) in [
                ("outbound", outbound(settings, surroundings, *family, port)),
                ("inbound", inbound(settings, surroundings, *family, port)),
            ] {
                match probe {
                    Ok(probe) => chosen.probes.push(probe),
                    Err(reason) => chosen.left_out.push(format!("{side} {}: {reason}", family_name(*family))),
                }
            }
        }
        chosen
    }
}

pub fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn outbound(settings: &Settings, around: &Surroundings<'_>, family: Family, port: u16) -> Result<Probe, &'static str> {
    let owner = application_owner(settings, around)?;
    let port = free_port(settings, port).ok_or("all ports are excluded")?;
    let included_port = settings.outbound_ports.ranges().iter().map(|range| range.first);
    let included_port = included_port.clone().find(|port| !settings.outbound_ports_exclude.contains(*port));
    let candidates = match (&settings.outbound_ranges, included_port) {
        (OutboundRanges::All, _) => elsewhere(around, family, port),
        // Any address does for a port that is included whatever the address.
        (OutboundRanges::Only { .. }, Some(port)) => elsewhere(around, family, port),
        (OutboundRanges::Only { ranges, .. }, None) => {
            let ranges = ranges.iter().filter(|net| Family::from(*net) == family);
            ranges.flat_map(hosts_at_start).map(|address| SocketAddr::new(address, port)).collect()
        }
    };
    if candidates.is_empty() {
        return Err("no destination is included");
    }
    let is_elsewhere = |address: IpAddr| {
        let is_excluded = settings.outbound_ranges_exclude.iter().any(|net| net.contains(&address));
        let is_own = address.is_loopback() || around.addresses.iter().any(|own| own.addr() == address);
        !is_excluded && !is_own
    };
    let destination =
        candidates.into_iter().find(|candidate| is_elsewhere(candidate.ip()) && (around.has_route)(candidate.ip()));
    let destination = destination.ok_or("there is no route to any destination that is included")?;
    Ok(Probe { side: Side::Outbound, source: None, destination, owner, proxy_port: settings.proxy_port })
}

fn inbound(settings: &Settings, around: &Surroundings<'_>, family: Family, port: u16) -> Result<Probe, &'static str> {
    let is_proxy = |uid| settings.proxy_uids.iter().any(|ids| ids.contains(uid));
    let first = |ids: &[IdRange]| ids.first().map(|ids| ids.first);
    let owner = match (first(&settings.proxy_uids), first(&settings.proxy_gids)) {
        _ if is_proxy(around.owner.uid) => Some(around.owner),
        (Some(uid), Some(gid)) => Some(Owner { uid, gid }).filter(|owner| (around.can_become)(*owner)),
        (None, _) | (_, None) => None,
    };
    let owner = owner.ok_or("needs the proxy's user, or CAP_SETUID and CAP_SETGID to become it")?;
    // What the proxy's groups and users have in common as an exception: the tunnel and, for DNS, port 53.
    let port = free_port(settings, port).ok_or("all ports are excluded")?;
    let own = around.addresses.iter().map(IpNet::addr).filter(|address| Family::from(&IpNet::from(*address)) == family);
    let bypass = bypass_source(family).addr();
    // The pod's own address, or else one of the loopback that does not count as an application's own.
    let pod = own.clone().find(|address| !address.is_loopback() && !is_link_local(*address) && *address != bypass);
    let has_bypass = family == Family::V4 || own.clone().any(|own| own == bypass);
    let address = pod.or(has_bypass.then_some(bypass)).filter(|address| !settings.loopback.contains(address));
    let address = address.ok_or("there is no address of this pod to call")?;
    // Calls from the bypass address are left alone, and IPv6 would take it to call itself.
    let source = (pod.is_none() && family == Family::V6).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let destination = SocketAddr::new(address, port);
    Ok(Probe { side: Side::Inbound, source, destination, owner, proxy_port: settings.inbound_port })
}

/// Somebody whose outbound traffic is to be redirected.
fn application_owner(settings: &Settings, around: &Surroundings<'_>) -> Result<Owner, &'static str> {
    let is_in = |ids: &[IdRange], id| ids.iter().any(|ids| ids.contains(id));
    let is_included = |gid| match &settings.owner_groups {
        OwnerGroups::AllExcept(groups) => !is_in(groups, gid),
        OwnerGroups::Only(groups) => is_in(groups, gid),
    };
    let is_application = |owner: &Owner| {
        !is_in(&settings.proxy_uids, owner.uid) && !is_in(&settings.proxy_gids, owner.gid) && is_included(owner.gid)
    };
    if is_application(&around.owner) {
        return Ok(around.owner);
    }
    let uids = (0..ID_CANDIDATES).map(|below| NOBODY - below);
    let gids = match &settings.owner_groups {
        OwnerGroups::AllExcept(_) => (0..ID_CANDIDATES).map(|below| NOBODY - below).collect(),
        OwnerGroups::Only(groups) => groups.iter().map(|ids| ids.first).collect::<Vec<_>>(),
    };
    let uid = uids.into_iter().find(|uid| !is_in(&settings.proxy_uids, *uid));
    let gid = gids.into_iter().find(|gid| !is_in(&settings.proxy_gids, *gid) && is_included(*gid));
    let (Some(uid), Some(gid)) = (uid, gid) else { return Err("nobody's traffic is included") };
    let owner = Owner { uid, gid };
    let reason = "needs a user other than the proxy's, in an included group, or CAP_SETUID and CAP_SETGID to become it";
    if (around.can_become)(owner) { Ok(owner) } else { Err(reason) }
}

/// Addresses that belong to somebody else: those kept for documentation, and the neighbours of our own.
fn elsewhere(around: &Surroundings<'_>, family: Family, port: u16) -> Vec<SocketAddr> {
    let documentation = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let own = around.addresses.iter().filter(|own| Family::from(*own) == family && !own.addr().is_loopback());
    // A link-local address means nothing without an interface.
    let neighbours = own.filter(|own| !is_link_local(own.addr())).flat_map(hosts_at_start);
    [documentation].into_iter().chain(neighbours).map(|address| SocketAddr::new(address, port)).collect()
}

/// The port, or the next one that no exception is made for.
fn free_port(settings: &Settings, port: u16) -> Option<u16> {
    (port..=u16::MAX)
        .chain(1..port)
        .find(|port| !settings.outbound_ports_exclude.contains(*port) && *port != settings.tunnel_port && *port != 53)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The first few addresses of a range that a host may have.
fn hosts_at_start(net: &IpNet) -> Vec<IpAddr> {
    // The first of IPv6 is that of any router.
    let skip = usize::from(matches!(net, IpNet::V6(net) if net.prefix_len() < 127));
    net.hosts().skip(skip).take(HOST_CANDIDATES).collect()
}

/// The user and group of the least privilege.
const NOBODY: u32 = 65534;
const ID_CANDIDATES: u32 = 64;
const HOST_CANDIDATES: usize = 8;

#[cfg(test)]
mod tests;
