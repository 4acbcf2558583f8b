//! A plan as rules of iptables and ip6tables, for kernels and images without nftables.
//!
//! Fourth in the flow, beside [`crate::nft`]. Pure: [`crate::apply`] runs the programs. Rules live in chains of our own
//! (`MESH_...`), called from one rule each in the chains that the kernel calls, so that what others set up is left alone.
//! What `iptables-save` says and what a plan wants are both a [`Ruleset`], and [`transition`] leads from one to the other:
//! that is how a plan is applied, cleaned up, and taken back when the second half of it fails.
//!
//! Invariants: a transition changes each table in one transaction, and iptables has none for several tables or for both
//! families at once; it touches only chains with the prefix, and rules that jump to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;

use crate::plan::Plan;
use crate::rule::{Action, Chain, ConnectionState, Family, Match, Protocol, Rule, Sense, Table};
use crate::value::{IdRange, Interface, PortRange};

/// The chains of one owner in one family, and the rules that jump to them from the chains that the kernel calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset(BTreeMap<String, TableRules>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TableRules {
    /// The arguments of the rules, of each chain in their order.
    chains: BTreeMap<String, Vec<String>>,
    /// The chain that the kernel calls, and the arguments of the rule in it.
    jumps: Vec<(String, String)>,
}

impl Ruleset {
    /// What a plan wants of one family.
    pub fn of_plan(plan: &Plan, family: Family) -> Self {
        let mut ruleset = Self::default();
        for rule in plan.rules.iter().filter(|rule| rule.family().is_none_or(|of| of == family)) {
            let table = ruleset.0.entry(table_name(rule.table).to_owned()).or_default();
            if let Some(caller) = kernel_chain(rule.chain) {
                let jump = (caller.to_owned(), format!("-j {}", chain_name(rule.chain)));
                if !table.jumps.contains(&jump) {
                    table.jumps.push(jump);
                }
            }
            table.chains.entry(chain_name(rule.chain).to_owned()).or_default().extend(rule_arguments(rule));
        }
        // A chain that is jumped to has to exist, even if it has rules in the other family only.
        for rule in plan.rules.iter().filter(|rule| rule.family().is_none_or(|of| of == family)) {
            if let Action::Jump(target) = rule.action {
                let table = ruleset.0.entry(table_name(rule.table).to_owned()).or_default();
                table.chains.entry(chain_name(target).to_owned()).or_default();
            }
        }
        ruleset
    }

    /// What is in place, from the output of `iptables-save`: the chains whose names start with `prefix`.
    pub fn parse(save: &str, prefix: &str) -> Self {
        let mut ruleset = Self::default();
        let mut table = String::new();
        for line in save.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.trim().clone_into(&mut table);
            } else if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                if chain.starts_with(prefix) {
                    ruleset.0.entry(table.clone()).or_default().chains.entry(chain.to_owned()).or_default();
                }
            } else if let Some((chain, arguments)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
                let is_jump = jump_target(arguments).is_some_and(|target| target.starts_with(prefix));
                if chain.starts_with(prefix) {
                    let chains = &mut ruleset.0.entry(table.clone()).or_default().chains;
                    chains.entry(chain.to_owned()).or_default().push(arguments.to_owned());
                } else if is_jump {
                    let jumps = &mut ruleset.0.entry(table.clone()).or_default().jumps;
                    jumps.push((chain.to_owned(), arguments.to_owned()));
                }
            }
        }
        ruleset
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which chain jumps to which, by table.
    pub fn jumps(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().flat_map(|(table, rules)| {
            let own = rules.chains.iter().flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain, rule)));
            let all = own.chain(rules.jumps.iter().map(|(chain, rule)| (chain, rule)));
            all.filter_map(move |(chain, rule)| Some((table.as_str(), chain.as_str(), jump_target(rule)?)))
        })
    }
}

/// The input for `iptables-restore --noflush` that leads from one ruleset to another.
pub fn transition(current: &Ruleset, target: &Ruleset) -> String {
    let mut text = String::new();
    let none = TableRules::default();
    // The names happen to sort into an order in which each table builds on those before it less than on those after it:
    // marks and zones are in place when redirects begin.
    for table in ["raw", "mangle", "nat"] {
        let (current, target) = (current.0.get(table).unwrap_or(&none), target.0.get(table).unwrap_or(&none));
        if current == &none && target == &none {
            continue;
        }
        let _ = writeln!(text, "*{table}");
        // Naming a chain creates it, or empties it if it is there.
        let mut chains: Vec<_> = current.chains.keys().chain(target.chains.keys()).collect();
        chains.sort_unstable();
        chains.dedup();
        for chain in &chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for (chain, arguments) in &current.jumps {
            let _ = writeln!(text, "-D {chain} {arguments}");
        }
        for (chain, rules) in &target.chains {
            for arguments in rules {
                let _ = writeln!(text, "-A {chain} {arguments}");
            }
        }
        for (chain, arguments) in &target.jumps {
            let _ = writeln!(text, "-A {chain} {arguments}");
        }
        for chain in chains.iter().filter(|chain| !target.chains.contains_key(**chain)) {
            let _ = writeln!(text, "-X {chain}");
        }
        let _ = writeln!(text, "COMMIT");
    }
    text
}

/// A plan in the form of `iptables-save`, for both families.
pub fn script(plan: &Plan) -> String {
    let mut text = String::from("# iptables-restore --noflush\n");
    text += &transition(&Ruleset::default(), &Ruleset::of_plan(plan, Family::V4));
    if plan.ipv6 {
        text += "# ip6tables-restore --noflush\n";
        text += &transition(&Ruleset::default(), &Ruleset::of_plan(plan, Family::V6));
    }
    text
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Mangle => "mangle",
        Table::Nat => "nat",
    }
}

fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "MESH_PREROUTING",
        Chain::Output => "MESH_OUTPUT",
        Chain::Inbound => "MESH_INBOUND",
        Chain::Redirect => "MESH_REDIRECT",
        Chain::InRedirect => "MESH_IN_REDIRECT",
        Chain::OutputDns => "MESH_OUTPUT_DNS",
        Chain::Divert => "MESH_DIVERT",
        Chain::Tproxy => "MESH_TPROXY",
        Chain::Drop => "MESH_DROP",
    }
}

fn kernel_chain(chain: Chain) -> Option<&'static str> {
    match chain {
        Chain::Prerouting => Some("PREROUTING"),
        Chain::Output => Some("OUTPUT"),
        Chain::Inbound
        | Chain::Redirect
        | Chain::InRedirect
        | Chain::OutputDns
        | Chain::Divert
        | Chain::Tproxy
        | Chain::Drop => None,
    }
}

fn jump_target(arguments: &str) -> Option<&str> {
    let mut words = arguments.split(' ');
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}

/// The arguments of one rule's rules in iptables: a list that one match of nftables takes is a rule for each entry here.
fn rule_arguments(rule: &Rule) -> Vec<String> {
    let mut lines = vec![String::new()];
    for m in &rule.matches {
        let alternatives = match_arguments(m);
        lines = lines.iter().flat_map(|line| alternatives.iter().map(move |words| format!("{line}{words} "))).collect();
    }
    let target = target_arguments(rule.action);
    lines.into_iter().map(|line| format!("{line}{target}")).collect()
}

/// The ways in which a match can hold.
fn match_arguments(m: &Match) -> Vec<String> {
    let one = |words| vec![words];
    match m {
        Match::Protocol(protocol) => one(format!("-p {}", protocol_name(*protocol))),
        Match::DestinationPorts { protocol, sense: Sense::Is, ports } => {
            let name = protocol_name(*protocol);
            ports.ranges().iter().map(|range| format!("-p {name} --dport {}", port_words(*range))).collect()
        }
        Match::DestinationPorts { protocol, sense: Sense::IsNot, ports } => {
            let name = protocol_name(*protocol);
            let ports: Vec<_> = ports.ranges().iter().map(|range| port_words(*range)).collect();
            one(match ports.as_slice() {
                [port] => format!("-p {name} ! --dport {port}"),
                ports => format!("-p {name} -m multiport ! --dports {}", ports.join(",")),
            })
        }
        Match::SourcePort { protocol, port } => one(format!("-p {} --sport {port}", protocol_name(*protocol))),
        Match::InInterface(interface) => one(format!("-i {}", interface_words(interface))),
        Match::OutInterface(interface) => one(format!("-o {}", interface_words(interface))),
        Match::Source(net) => one(format!("-s {}", net_words(net))),
        Match::Destination(nets) => nets.iter().map(|net| format!("-d {}", net_words(net))).collect(),
        Match::DestinationIsNot(net) => one(format!("! -d {}", net_words(net))),
        Match::Uid(sense, ids) => one(format!("-m owner {}--uid-owner {}", sense_words(*sense), id_words(*ids))),
        Match::Gid(Sense::Is, ids) => {
            ids.iter().map(|ids| format!("-m owner --gid-owner {}", id_words(*ids))).collect()
        }
        Match::Gid(Sense::IsNot, ids) => {
            let words = ids.iter().map(|ids| format!("-m owner ! --gid-owner {}", id_words(*ids)));
            one(words.collect::<Vec<_>>().join(" "))
        }
        Match::Connection(ConnectionState::Invalid) => one("-m conntrack --ctstate INVALID".to_owned()),
        Match::Connection(ConnectionState::Established) => one("-m conntrack --ctstate RELATED,ESTABLISHED".to_owned()),
        Match::Mark(sense, mark) => one(format!("-m mark {}--mark {mark:#x}", sense_words(*sense))),
        Match::ConnectionMark(mark) => one(format!("-m connmark --mark {mark:#x}")),
    }
}

fn target_arguments(action: Action) -> String {
    match action {
        Action::Jump(chain) => format!("-j {}", chain_name(chain)),
        Action::Return => "-j RETURN".to_owned(),
        Action::Accept => "-j ACCEPT".to_owned(),
        Action::Drop => "-j DROP".to_owned(),
        Action::Redirect { port } => format!("-j REDIRECT --to-ports {port}"),
        Action::Tproxy { port, mark } => format!("-j TPROXY --on-port {port} --tproxy-mark {mark:#x}/0xffffffff"),
        Action::SetMark(mark) => format!("-j MARK --set-mark {mark:#x}"),
        Action::SaveMark => "-j CONNMARK --save-mark".to_owned(),
        Action::RestoreMark => "-j CONNMARK --restore-mark".to_owned(),
        Action::Zone(zone) => format!("-j CT --zone {zone}"),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn sense_words(sense: Sense) -> &'static str {
    match sense {
        Sense::Is => "",
        Sense::IsNot => "! ",
    }
}

fn port_words(range: PortRange) -> String {
    if range.first == range.last { range.first.to_string() } else { format!("{}:{}", range.first, range.last) }
}

fn id_words(ids: IdRange) -> String {
    if ids.first == ids.last { ids.first.to_string() } else { format!("{}-{}", ids.first, ids.last) }
}

fn interface_words(interface: &Interface) -> String {
    format!("{}{}", interface.name(), if interface.is_prefix() { "+" } else { "" })
}

fn net_words(net: &IpNet) -> String {
    net.to_string()
}

/// What the names of our chains start with, and those of Istio's.
pub const PREFIX: &str = "MESH_";
pub const ISTIO_PREFIX: &str = "ISTIO_";

#[cfg(test)]
mod tests;
