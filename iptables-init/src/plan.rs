//! What has to be in place for the settings to hold: the rules in their order, the policy route and the loopback address.
//!
//! Third in the flow, between [`crate::settings`] and a backend. Pure. The order of the rules is that of Istio's init
//! container, since it decides what combinations of settings mean: in the output chain, interfaces, excluded ports, the
//! proxy's bypass address, the proxy's users, its groups, owner groups, DNS, loopback, excluded ranges, included ports,
//! included ranges.
//!
//! Invariants: a chain other than the hooked ones is jumped to by some rule; an IPv6 rule is planned only if
//! [`Settings::ipv6`] is set; the plan is a function of the settings alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::rule::{Action, Chain, ConnectionState, Family, Match, Protocol, Rule, Sense, Table};
use crate::settings::{Dns, InboundPorts, Mode, OutboundRanges, OwnerGroups, Settings};
use crate::value::{Interface, OUTBOUND_MARK, PortSet};

/// Everything that weft-init sets up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of each chain, in their order.
    pub rules: Vec<Rule>,
    /// The route that brings marked packets to the proxy's transparent sockets.
    pub policy_route: Option<PolicyRoute>,
    /// Whether IPv6 is redirected. The loopback interface then gets the address `::6`, from which the proxy calls the
    /// application; IPv4 needs no such thing, since 127.0.0.6 is there anyway.
    pub ipv6: bool,
}

/// Packets with this mark look up this table, in which everything is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRoute {
    pub mark: u32,
    pub table: u32,
}

impl Plan {
    pub fn new(settings: &Settings) -> Self {
        let mut planner = Planner { settings, rules: Vec::new() };
        planner.dns_zones();
        planner.mangle_prerouting();
        planner.mangle_output();
        planner.nat_prerouting();
        planner.nat_output();
        planner.redirects();
        let policy_route = match settings.mode {
            Mode::Tproxy { mark, route_table } if settings.inbound_ports != InboundPorts::None => {
                Some(PolicyRoute { mark, table: route_table })
            }
            Mode::Tproxy { .. } | Mode::Redirect => None,
        };
        Self { rules: planner.rules, policy_route, ipv6: settings.ipv6 }
    }

    /// What there is beside the rules, as comments for people: the commands that would do the same.
    pub fn commentary(&self) -> String {
        let mut text = String::new();
        for (family, flag) in [(Family::V4, ""), (Family::V6, "-6 ")] {
            if family == Family::V6 && !self.ipv6 {
                continue;
            }
            if let Some(PolicyRoute { mark, table }) = self.policy_route {
                text += &format!("# ip {flag}rule add fwmark {mark} lookup {table}\n");
                text += &format!("# ip {flag}route add local default dev lo table {table}\n");
            }
        }
        if self.ipv6 {
            text += &format!("# ip -6 addr add {BYPASS_SOURCE_V6}/128 dev lo\n");
        }
        text
    }

    /// The plan that leaves nothing in place.
    pub fn nothing() -> Self {
        Self { rules: Vec::new(), policy_route: None, ipv6: false }
    }

    /// The rules of one chain.
    pub fn chain(&self, table: Table, chain: Chain) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.table == table && rule.chain == chain)
    }
}

struct Planner<'a> {
    settings: &'a Settings,
    rules: Vec<Rule>,
}

impl Planner<'_> {
    fn rule(&mut self, table: Table, chain: Chain, matches: Vec<Match>, action: Action, comment: &'static str) {
        let rule = Rule { table, chain, matches, action, comment };
        if self.settings.ipv6 || rule.family() != Some(Family::V6) {
            self.rules.push(rule);
        }
    }

    fn families(&self) -> &'static [Family] {
        if self.settings.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }

    /// The range by which an application means itself.
    fn loopback(&self, family: Family) -> IpNet {
        match family {
            Family::V4 => self.settings.loopback,
            Family::V6 => IpNet::V6(Ipv6Net::from(Ipv6Addr::LOCALHOST)),
        }
    }

    /// Queries to the proxy's DNS listener and the proxy's own queries to the servers may have the same addresses and
    /// ports, so they are tracked in zones of their own: 1 between proxy and servers, 2 between application and proxy.
    fn dns_zones(&mut self) {
        if self.settings.dns == Dns::Off {
            return;
        }
        let to_dns = || udp_to(DNS_PORT);
        let from_proxy = || Match::SourcePort { protocol: Protocol::Udp, port: DNS_PROXY_PORT };
        self.rule(Table::Raw, Chain::Output, vec![], Action::Jump(Chain::OutputDns), "zones for DNS");
        for owner in self.proxy_owners() {
            self.rule(
                Table::Raw,
                Chain::OutputDns,
                vec![to_dns(), owner.clone()],
                Action::Zone(1),
                "proxy asks server",
            );
            self.rule(
                Table::Raw,
                Chain::OutputDns,
                vec![from_proxy(), owner],
                Action::Zone(2),
                "proxy answers application",
            );
        }
        self.rule(Table::Raw, Chain::Prerouting, vec![], Action::Jump(Chain::Inbound), "zones for DNS");
        let from_server = || Match::SourcePort { protocol: Protocol::Udp, port: DNS_PORT };
        let servers = match &self.settings.dns {
            Dns::Servers(servers) => servers.iter().map(|server| Some(IpNet::from(*server))).collect(),
            Dns::All | Dns::Off => vec![None],
        };
        for server in servers {
            let destination = server.map(|net| Match::Destination(vec![net]));
            let asks = [Some(to_dns()), destination].into_iter().flatten().collect();
            self.rule(Table::Raw, Chain::OutputDns, asks, Action::Zone(2), "application asks");
            let answers = [Some(from_server()), server.map(Match::Source)].into_iter().flatten().collect();
            self.rule(Table::Raw, Chain::Inbound, answers, Action::Zone(1), "server answers proxy");
        }
    }

    fn proxy_owners(&self) -> Vec<Match> {
        let uids = self.settings.proxy_uids.iter().map(|uid| Match::Uid(Sense::Is, *uid));
        let gids = self.settings.proxy_gids.iter().map(|gid| Match::Gid(Sense::Is, vec![*gid]));
        uids.chain(gids).collect()
    }

    fn mangle_prerouting(&mut self) {
        use Table::Mangle;
        let tproxy = self.tproxy_mark();
        if tproxy.is_some() {
            for interface in &self.settings.exclude_interfaces {
                let from = vec![Match::InInterface(interface.clone())];
                self.rule(Mangle, Chain::Prerouting, from, Action::Return, "excluded interface");
            }
        }
        if self.settings.drop_invalid {
            let invalid = vec![Match::Connection(ConnectionState::Invalid)];
            self.rule(Mangle, Chain::Prerouting, invalid, Action::Jump(Chain::Drop), "of no known connection");
            self.rule(Mangle, Chain::Drop, vec![], Action::Drop, "would be answered by a reset");
        }
        let Some(mark) = tproxy else { return };
        for interface in &self.settings.virtual_interfaces {
            let from = vec![Match::InInterface(interface.clone())];
            self.rule(Mangle, Chain::Prerouting, from, Action::Return, "outbound of a virtual machine");
        }
        self.rule(Mangle, Chain::Prerouting, vec![tcp()], Action::Jump(Chain::Inbound), "inbound TCP");
        let marked = vec![tcp(), Match::Mark(Sense::Is, mark)];
        self.rule(Mangle, Chain::Prerouting, marked, Action::SaveMark, "for the answers to find back to the proxy");
        self.tproxy_inbound(mark);
    }

    /// What is handed to the proxy's transparent socket. Without TPROXY mode, nothing.
    fn tproxy_inbound(&mut self, mark: u32) {
        use Table::Mangle;
        let marked = vec![tcp(), Match::Mark(Sense::Is, mark)];
        self.rule(Mangle, Chain::Inbound, marked, Action::Return, "proxy to application");
        let lo = || Match::InInterface(Interface::loopback());
        for family in self.families() {
            let from_proxy = vec![tcp(), Match::Source(bypass_source(*family)), lo()];
            self.rule(Mangle, Chain::Inbound, from_proxy, Action::Return, "proxy to application by its bypass address");
        }
        let to_itself = vec![tcp(), lo(), Match::Mark(Sense::IsNot, OUTBOUND_MARK)];
        self.rule(Mangle, Chain::Inbound, to_itself, Action::Return, "application to itself");
        let captured = match &self.settings.inbound_ports {
            InboundPorts::Only(ports) => tcp_to(Sense::Is, ports.clone()),
            InboundPorts::AllExcept(_) | InboundPorts::None => tcp(),
        };
        if let InboundPorts::AllExcept(ports) = &self.settings.inbound_ports
            && !ports.is_empty()
        {
            let excluded = vec![tcp_to(Sense::Is, ports.clone())];
            self.rule(Mangle, Chain::Inbound, excluded, Action::Return, "excluded port");
        }
        let known = vec![captured.clone(), Match::Connection(ConnectionState::Established)];
        self.rule(Mangle, Chain::Inbound, known, Action::Jump(Chain::Divert), "known connection");
        self.rule(Mangle, Chain::Inbound, vec![captured], Action::Jump(Chain::Tproxy), "new connection");
        self.rule(Mangle, Chain::Divert, vec![], Action::SetMark(mark), "route to the proxy's socket");
        self.rule(Mangle, Chain::Divert, vec![], Action::Accept, "as is");
        let port = self.settings.inbound_port;
        for family in self.families() {
            let elsewhere = vec![tcp(), Match::DestinationIsNot(self.loopback(*family))];
            self.rule(Mangle, Chain::Tproxy, elsewhere, Action::Tproxy { port, mark }, "to the proxy as is");
        }
    }

    fn mangle_output(&mut self) {
        use Table::Mangle;
        let Some(mark) = self.tproxy_mark() else { return };
        for interface in &self.settings.exclude_interfaces {
            let to = vec![Match::OutInterface(interface.clone())];
            self.rule(Mangle, Chain::Output, to, Action::Return, "excluded interface");
        }
        let lo = || Match::OutInterface(Interface::loopback());
        let marked = vec![tcp(), lo(), Match::Mark(Sense::Is, mark)];
        self.rule(Mangle, Chain::Output, marked, Action::Return, "proxy to application");
        for owner in self.proxy_owners() {
            for family in self.families() {
                let elsewhere = Match::DestinationIsNot(self.loopback(*family));
                let to_inbound = vec![tcp(), elsewhere, lo(), owner.clone()];
                self.rule(
                    Mangle,
                    Chain::Output,
                    to_inbound,
                    Action::SetMark(OUTBOUND_MARK),
                    "proxy to its own inbound side",
                );
            }
        }
        let answer = vec![tcp(), Match::ConnectionMark(mark)];
        self.rule(Mangle, Chain::Output, answer, Action::RestoreMark, "answer of the application to the proxy");
    }

    fn nat_prerouting(&mut self) {
        use Table::Nat;
        let interfaces = &self.settings.virtual_interfaces;
        for interface in interfaces {
            for ranges in self.outbound_ranges() {
                let from = [Some(Match::InInterface(interface.clone())), ranges];
                let comment = "outbound of a virtual machine";
                self.rule(
                    Nat,
                    Chain::Prerouting,
                    from.into_iter().flatten().collect(),
                    Action::Jump(Chain::Redirect),
                    comment,
                );
            }
        }
        for interface in interfaces {
            let from = vec![Match::InInterface(interface.clone())];
            self.rule(Nat, Chain::Prerouting, from, Action::Return, "rest of a virtual machine");
        }
        for interface in &self.settings.exclude_interfaces {
            let from = vec![Match::InInterface(interface.clone())];
            self.rule(Nat, Chain::Prerouting, from, Action::Return, "excluded interface");
        }
        if self.settings.mode != Mode::Redirect || self.settings.inbound_ports == InboundPorts::None {
            return;
        }
        self.rule(Nat, Chain::Prerouting, vec![tcp()], Action::Jump(Chain::Inbound), "inbound TCP");
        let tunnel = vec![tcp_to(Sense::Is, PortSet::from_iter([self.settings.tunnel_port]))];
        self.rule(Nat, Chain::Inbound, tunnel, Action::Return, "tunnel of the proxy");
        let captured = match &self.settings.inbound_ports {
            InboundPorts::Only(ports) => tcp_to(Sense::Is, ports.clone()),
            InboundPorts::AllExcept(_) | InboundPorts::None => tcp(),
        };
        if let InboundPorts::AllExcept(ports) = &self.settings.inbound_ports
            && !ports.is_empty()
        {
            self.rule(Nat, Chain::Inbound, vec![tcp_to(Sense::Is, ports.clone())], Action::Return, "excluded port");
        }
        self.rule(Nat, Chain::Inbound, vec![captured], Action::Jump(Chain::InRedirect), "to the proxy");
    }

    fn nat_output(&mut self) {
        let ports = &self.settings.outbound_ports_exclude;
        for interface in &self.settings.exclude_interfaces {
            self.output(vec![Match::OutInterface(interface.clone())], Action::Return, "excluded interface");
        }
        if !ports.is_empty() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let excluded = Match::DestinationPorts { protocol, sense: Sense::Is, ports: ports.clone() };
                self.output(vec![excluded], Action::Return, "excluded port");
            }
        }
        let lo = || Match::OutInterface(Interface::loopback());
        for family in self.families() {
            let from_proxy = vec![lo(), Match::Source(bypass_source(*family))];
            self.output(from_proxy, Action::Return, "proxy to application by its bypass address");
        }
        if let Some(mark) = self.tproxy_mark() {
            // Istio has no such rule, and the next ones would send a call on behalf of a client back to the proxy.
            self.output(vec![lo(), Match::Mark(Sense::Is, mark)], Action::Return, "proxy to application for a client");
        }
        for uid in &self.settings.proxy_uids {
            let except = if self.settings.dns == Dns::Off { vec![] } else { vec![DNS_PORT] };
            self.proxy_owner(Match::Uid(Sense::Is, *uid), Match::Uid(Sense::IsNot, *uid), &except);
        }
        for gid in &self.settings.proxy_gids {
            self.proxy_owner(Match::Gid(Sense::Is, vec![*gid]), Match::Gid(Sense::IsNot, vec![*gid]), &[]);
        }
        self.owner_groups();
        self.dns_redirect();
        for family in self.families() {
            let own = vec![Match::Destination(vec![self.loopback(*family)])];
            self.output(own, Action::Return, "application to itself by loopback");
        }
        for ranges in by_family(&self.settings.outbound_ranges_exclude) {
            self.output(vec![Match::Destination(ranges)], Action::Return, "excluded range");
        }
        let ports = &self.settings.outbound_ports;
        if !ports.is_empty() {
            self.output(vec![tcp_to(Sense::Is, ports.clone())], Action::Jump(Chain::Redirect), "included port");
        }
        for ranges in self.outbound_ranges() {
            self.output(ranges.into_iter().collect(), Action::Jump(Chain::Redirect), "to the proxy");
        }
    }

    fn output(&mut self, matches: Vec<Match>, action: Action, comment: &'static str) {
        self.rule(Table::Nat, Chain::Output, matches, action, comment);
    }

    /// The three rules for one owner of the proxy. `inbound_ports_except` stay out of the first.
    fn proxy_owner(&mut self, is: Match, is_not: Match, inbound_ports_except: &[u16]) {
        let lo = || Match::OutInterface(Interface::loopback());
        let except: PortSet = inbound_ports_except.iter().copied().chain([self.settings.tunnel_port]).collect();
        for family in self.families() {
            let elsewhere = Match::DestinationIsNot(self.loopback(*family));
            let to_inbound = vec![lo(), elsewhere, tcp_to(Sense::IsNot, except.clone()), is.clone()];
            self.output(to_inbound, Action::Jump(Chain::InRedirect), "application to itself through the proxy");
        }
        let names_loopback = matches!(self.settings.outbound_ranges, OutboundRanges::Only { names_loopback: true, .. });
        if !names_loopback {
            // DNS of the application to a server on this machine is still to be redirected further down.
            let to_dns = (self.settings.dns != Dns::Off).then(|| tcp_to(Sense::IsNot, PortSet::from_iter([DNS_PORT])));
            let to_itself = [Some(lo()), to_dns, Some(is_not)].into_iter().flatten().collect();
            self.output(to_itself, Action::Return, "application to itself");
        }
        self.output(vec![is], Action::Return, "the proxy's own");
    }

    fn owner_groups(&mut self) {
        match &self.settings.owner_groups {
            OwnerGroups::AllExcept(groups) if groups.is_empty() => {}
            OwnerGroups::AllExcept(groups) => {
                self.output(vec![Match::Gid(Sense::Is, groups.clone())], Action::Return, "excluded group");
            }
            OwnerGroups::Only(groups) if groups.is_empty() => {
                self.output(vec![], Action::Return, "no group is included")
            }
            OwnerGroups::Only(groups) => {
                self.output(vec![Match::Gid(Sense::IsNot, groups.clone())], Action::Return, "not an included group");
            }
        }
    }

    fn dns_redirect(&mut self) {
        let servers = match &self.settings.dns {
            Dns::Off => return,
            Dns::All => vec![None],
            Dns::Servers(servers) => {
                let nets: Vec<_> = servers.iter().copied().map(IpNet::from).collect();
                by_family(&nets).into_iter().map(|nets| Some(Match::Destination(nets))).collect()
            }
        };
        self.output(vec![], Action::Jump(Chain::OutputDns), "DNS");
        for to_dns in [tcp_to(Sense::Is, PortSet::from_iter([DNS_PORT])), udp_to(DNS_PORT)] {
            for server in &servers {
                let matches = [server.clone(), Some(to_dns.clone())].into_iter().flatten().collect();
                let action = Action::Redirect { port: DNS_PROXY_PORT };
                self.rule(Table::Nat, Chain::OutputDns, matches, action, "DNS to the proxy");
            }
        }
    }

    /// The chains that end in the proxy, where something leads to them.
    fn redirects(&mut self) {
        let ends = [(Chain::Redirect, self.settings.proxy_port), (Chain::InRedirect, self.settings.inbound_port)];
        for (chain, port) in ends {
            if self.rules.iter().any(|rule| rule.action == Action::Jump(chain)) {
                self.rule(Table::Nat, chain, vec![tcp()], Action::Redirect { port }, "to the proxy");
            }
        }
    }

    /// The included ranges, one entry a rule; the entry `None` is everything.
    fn outbound_ranges(&self) -> Vec<Option<Match>> {
        match &self.settings.outbound_ranges {
            OutboundRanges::All => vec![None],
            OutboundRanges::Only { ranges, .. } => {
                by_family(ranges).into_iter().map(|ranges| Some(Match::Destination(ranges))).collect()
            }
        }
    }

    fn tproxy_mark(&self) -> Option<u32> {
        match self.settings.mode {
            Mode::Tproxy { mark, .. } if self.settings.inbound_ports != InboundPorts::None => Some(mark),
            Mode::Tproxy { .. } | Mode::Redirect => None,
        }
    }
}

/// The ranges of each family that has any.
fn by_family(nets: &[IpNet]) -> Vec<Vec<IpNet>> {
    let (v4, v6): (Vec<_>, Vec<_>) = nets.iter().partition(|net| matches!(net, IpNet::V4(_)));
    [v4, v6].into_iter().filter(|nets| !nets.is_empty()).collect()
}

/// The address that the proxy calls the application from, to be told from everyone else.
pub fn bypass_source(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::from(Ipv4Addr::new(127, 0, 0, 6))),
        Family::V6 => IpNet::V6(Ipv6Net::from(BYPASS_SOURCE_V6)),
    }
}

fn tcp() -> Match {
    Match::Protocol(Protocol::Tcp)
}

fn tcp_to(sense: Sense, ports: PortSet) -> Match {
    Match::DestinationPorts { protocol: Protocol::Tcp, sense, ports }
}

fn udp_to(port: u16) -> Match {
    Match::DestinationPorts { protocol: Protocol::Udp, sense: Sense::Is, ports: PortSet::from_iter([port]) }
}

/// The IPv6 counterpart of 127.0.0.6.
pub const BYPASS_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
const DNS_PORT: u16 = 53;
/// Where the proxy answers DNS.
pub const DNS_PROXY_PORT: u16 = 15053;

#[cfg(test)]
mod tests;
