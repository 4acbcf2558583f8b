//! A plan as an nftables ruleset: as objects for the kernel and as text for people.
//!
//! Fourth in the flow. Pure: [`crate::apply`] runs `nft`. Both forms replace our tables in one transaction: each table is
//! added (so that it exists), deleted (with all that is in it) and added again, and the kernel takes all of it or nothing.
//! Applying a plan twice therefore leaves the same ruleset, and a failure leaves what was there before.
//!
//! Invariants: nothing outside our own tables is named; the two forms say the same (a test loads both and compares).

use std::fmt::Write as _;

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range, SetItem};
use nftables::schema::{self, NfListObject, Nftables};
use nftables::stmt::{self, JumpTarget, Mangle, NAT, Operator, Statement, TProxy};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::plan::Plan;
use crate::rule::{Action, Chain, ConnectionState, Family, Match, Protocol, Rule, Sense, Table};
use crate::value::Interface;

/// The transaction that puts a plan in the place of whatever is in our tables.
pub fn batch(plan: &Plan) -> Nftables<'static> {
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.add(table_object(table));
        batch.delete(table_object(table));
        if !has_rules(plan, table) {
            continue;
        }
        batch.add(table_object(table));
        // All chains first: rules jump to them.
        for chain in chains(plan, table) {
            batch.add(chain_object(table, chain));
        }
        for chain in chains(plan, table) {
            let other_family = leaves_ipv6_alone(plan, chain).then(|| (ipv6_return(), IPV6_RETURN_COMMENT));
            for statements in other_family.into_iter().chain(plan.chain(table, chain).flat_map(statements)) {
                batch.add(rule_object(table, chain, statements));
            }
        }
    }
    batch.to_nftables()
}

/// The same transaction as text that `nft -f` takes.
pub fn script(plan: &Plan) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let name = table_name(table);
        let _ = writeln!(text, "table inet {name}\ndelete table inet {name}");
        if !has_rules(plan, table) {
            continue;
        }
        let _ = writeln!(text, "table inet {name} {{");
        for (index, chain) in chains(plan, table).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let _ = writeln!(text, "{separator}\tchain {} {{", chain_name(chain));
            if let Some(hook) = hook(table, chain) {
                let _ = writeln!(
                    text,
                    "\t\ttype {} hook {} priority {}; policy accept;",
                    hook.kind, hook.name, hook.priority
                );
            }
            if leaves_ipv6_alone(plan, chain) {
                let _ = writeln!(text, "\t\tmeta nfproto ipv6 return comment \"{IPV6_RETURN_COMMENT}\"");
            }
            for words in plan.chain(table, chain).flat_map(words) {
                let _ = writeln!(text, "\t\t{words}");
            }
            let _ = writeln!(text, "\t}}");
        }
        let _ = writeln!(text, "}}");
    }
    text
}

pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "mesh-raw",
        Table::Mangle => "mesh-mangle",
        Table::Nat => "mesh-nat",
    }
}

/// The chains that the kernel calls are named after their hooks. The others have a prefix, since several of the names would
/// be words of nft's syntax otherwise, and `nft list ruleset` could not be read back.
pub fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "prerouting",
        Chain::Output => "output",
        Chain::Inbound => "mesh-inbound",
        Chain::Redirect => "mesh-redirect",
        Chain::InRedirect => "mesh-in-redirect",
        Chain::OutputDns => "mesh-output-dns",
        Chain::Divert => "mesh-divert",
        Chain::Tproxy => "mesh-tproxy",
        Chain::Drop => "mesh-drop",
    }
}

/// Our tables are for both families. Where only IPv4 is redirected, the chains that the kernel calls turn IPv6 away.
fn leaves_ipv6_alone(plan: &Plan, chain: Chain) -> bool {
    !plan.ipv6 && chain.is_hooked()
}

fn ipv6_return() -> Vec<Statement<'static>> {
    vec![compare(meta(MetaKey::Nfproto), Operator::EQ, string("ipv6")), Statement::Return(None)]
}

const IPV6_RETURN_COMMENT: &str = "IPv6 is left alone";

fn has_rules(plan: &Plan, table: Table) -> bool {
    plan.rules.iter().any(|rule| rule.table == table)
}

fn chains(plan: &Plan, table: Table) -> impl Iterator<Item = Chain> {
    Chain::ALL.into_iter().filter(move |chain| plan.chain(table, *chain).next().is_some())
}

/// How the kernel calls a chain.
struct Hook {
    kind: &'static str,
    chain_type: NfChainType,
    name: &'static str,
    hook: NfHook,
    priority: i32,
}

fn hook(table: Table, chain: Chain) -> Option<Hook> {
    let (name, hook) = match chain {
        Chain::Prerouting => ("prerouting", NfHook::Prerouting),
        Chain::Output => ("output", NfHook::Output),
        Chain::Inbound
        | Chain::Redirect
        | Chain::InRedirect
        | Chain::OutputDns
        | Chain::Divert
        | Chain::Tproxy
        | Chain::Drop => return None,
    };
    let (kind, chain_type, priority) = match (table, chain) {
        (Table::Nat, _) => ("nat", NfChainType::NAT, -100),
        // Only this type looks the route up again when a mark has changed.
        (Table::Mangle, Chain::Output) => ("route", NfChainType::Route, -150),
        (Table::Mangle, _) => ("filter", NfChainType::Filter, -150),
        (Table::Raw, _) => ("filter", NfChainType::Filter, -300),
    };
    Some(Hook { kind, chain_type, name, hook, priority })
}

fn table_object(table: Table) -> NfListObject<'static> {
    NfListObject::Table(schema::Table { family: NfFamily::INet, name: table_name(table).into(), handle: None })
}

fn chain_object(table: Table, chain: Chain) -> NfListObject<'static> {
    let hook = hook(table, chain);
    NfListObject::Chain(schema::Chain {
        family: NfFamily::INet,
        table: table_name(table).into(),
        name: chain_name(chain).into(),
        newname: None,
        handle: None,
        _type: hook.as_ref().map(|hook| hook.chain_type),
        hook: hook.as_ref().map(|hook| hook.hook),
        prio: hook.as_ref().map(|hook| hook.priority),
        dev: None,
        policy: hook.as_ref().map(|_| NfChainPolicy::Accept),
    })
}

fn rule_object(
    table: Table,
    chain: Chain,
    (statements, comment): (Vec<Statement<'static>>, &'static str),
) -> NfListObject<'static> {
    NfListObject::Rule(schema::Rule {
        family: NfFamily::INet,
        table: table_name(table).into(),
        chain: chain_name(chain).into(),
        expr: statements.into(),
        handle: None,
        index: None,
        comment: Some(comment.into()),
    })
}

/// The actions of one rule's rules in nftables: there are two for TPROXY, whose statement in nftables lets a packet pass
/// when the proxy has no socket for it, where that of iptables drops it.
fn actions(rule: &Rule) -> Vec<(Action, &'static str)> {
    match rule.action {
        Action::Tproxy { .. } => vec![(rule.action, rule.comment), (Action::Drop, "the proxy is down")],
        action => vec![(action, rule.comment)],
    }
}

fn statements(rule: &Rule) -> impl Iterator<Item = (Vec<Statement<'static>>, &'static str)> {
    actions(rule).into_iter().map(|(action, comment)| {
        let matches = rule.matches.iter().map(match_statement);
        (matches.chain(action_statements(action, rule.family())).collect(), comment)
    })
}

fn match_statement(m: &Match) -> Statement<'static> {
    let is = Operator::EQ;
    match m {
        Match::Protocol(protocol) => compare(meta(MetaKey::L4proto), is, string(protocol_name(*protocol))),
        Match::DestinationPorts { protocol, sense, ports } => {
            let ports = ports.ranges().iter().map(|range| span(range.first.into(), range.last.into()));
            compare(field(protocol_name(*protocol), "dport"), operator(*sense), one_or_set(ports))
        }
        Match::SourcePort { protocol, port } => compare(field(protocol_name(*protocol), "sport"), is, number(*port)),
        Match::InInterface(interface) => compare(meta(MetaKey::Iifname), is, string(&interface_pattern(interface))),
        Match::OutInterface(interface) => compare(meta(MetaKey::Oifname), is, string(&interface_pattern(interface))),
        Match::Source(net) => compare(field(family_name(net.into()), "saddr"), is, prefix(net)),
        Match::Destination(nets) => {
            let family = nets.first().map_or(Family::V4, Family::from);
            compare(field(family_name(family), "daddr"), is, one_or_set(nets.iter().map(prefix)))
        }
        Match::DestinationIsNot(net) => compare(field(family_name(net.into()), "daddr"), Operator::NEQ, prefix(net)),
        Match::Uid(sense, ids) => compare(meta(MetaKey::Skuid), operator(*sense), span(ids.first, ids.last)),
        Match::Gid(sense, ids) => {
            let ids = ids.iter().map(|ids| span(ids.first, ids.last));
            compare(meta(MetaKey::Skgid), operator(*sense), one_or_set(ids))
        }
        Match::Connection(ConnectionState::Invalid) => compare(conntrack("state"), Operator::IN, string("invalid")),
        Match::Connection(ConnectionState::Established) => {
            let states = Expression::List(vec![string("established"), string("related")]);
            compare(conntrack("state"), Operator::IN, states)
        }
        Match::Mark(sense, mark) => compare(meta(MetaKey::Mark), operator(*sense), number(*mark)),
        Match::ConnectionMark(mark) => compare(conntrack("mark"), is, number(*mark)),
    }
}

fn action_statements(action: Action, family: Option<Family>) -> Vec<Statement<'static>> {
    let set = |key, value| Statement::Mangle(Mangle { key, value });
    match action {
        Action::Jump(chain) => vec![Statement::Jump(JumpTarget { target: chain_name(chain).into() })],
        Action::Return => vec![Statement::Return(None)],
        Action::Accept => vec![Statement::Accept(None)],
        Action::Drop => vec![Statement::Drop(None)],
        Action::Redirect { port } => {
            vec![Statement::Redirect(Some(NAT { addr: None, family: None, port: Some(number(port)), flags: None }))]
        }
        Action::Tproxy { port, mark } => vec![
            Statement::TProxy(TProxy { family: family.map(|family| family_name(family).into()), port, addr: None }),
            set(meta(MetaKey::Mark), number(mark)),
            Statement::Accept(None),
        ],
        Action::SetMark(mark) => vec![set(meta(MetaKey::Mark), number(mark))],
        Action::SaveMark => vec![set(conntrack("mark"), meta(MetaKey::Mark))],
        Action::RestoreMark => vec![set(meta(MetaKey::Mark), conntrack("mark"))],
        Action::Zone(zone) => vec![set(conntrack("zone"), number(zone))],
    }
}

fn compare(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(stmt::Match { left, right, op })
}

fn operator(sense: Sense) -> Operator {
    match sense {
        Sense::Is => Operator::EQ,
        Sense::IsNot => Operator::NEQ,
    }
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn conntrack(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn string(text: &str) -> Expression<'static> {
    Expression::String(text.to_owned().into())
}

fn number(number: impl Into<u32>) -> Expression<'static> {
    Expression::Number(number.into())
}

fn span(first: u32, last: u32) -> Expression<'static> {
    if first == last {
        number(first)
    } else {
        Expression::Range(Box::new(Range { range: [number(first), number(last)] }))
    }
}

fn prefix(net: &IpNet) -> Expression<'static> {
    let addr = string(&net.addr().to_string());
    if net.prefix_len() == net.max_prefix_len() {
        return addr;
    }
    Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(addr), len: net.prefix_len().into() }))
}

fn one_or_set(items: impl Iterator<Item = Expression<'static>>) -> Expression<'static> {
    let mut items: Vec<_> = items.collect();
    match items.len() {
        1 => items.remove(0),
        _ => Expression::Named(NamedExpression::Set(items.into_iter().map(SetItem::Element).collect())),
    }
}

fn interface_pattern(interface: &Interface) -> String {
    format!("{}{}", interface.name(), if interface.is_prefix() { "*" } else { "" })
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The lines of one rule in nft's own syntax.
fn words(rule: &Rule) -> impl Iterator<Item = String> {
    actions(rule).into_iter().map(|(action, comment)| {
        let mut words: Vec<_> = rule.matches.iter().map(match_words).collect();
        words.push(action_words(action, rule.family()));
        words.push(format!("comment \"{comment}\""));
        words.join(" ")
    })
}

fn match_words(m: &Match) -> String {
    match m {
        Match::Protocol(protocol) => format!("meta l4proto {}", protocol_name(*protocol)),
        Match::DestinationPorts { protocol, sense, ports } => {
            let ports = ports.ranges().iter().map(|range| span_words(range.first.into(), range.last.into()));
            format!("{} dport {}{}", protocol_name(*protocol), sense_word(*sense), list_words(ports))
        }
        Match::SourcePort { protocol, port } => format!("{} sport {port}", protocol_name(*protocol)),
        Match::InInterface(interface) => format!("iifname \"{}\"", interface_pattern(interface)),
        Match::OutInterface(interface) => format!("oifname \"{}\"", interface_pattern(interface)),
        Match::Source(net) => format!("{} saddr {}", family_name(net.into()), prefix_words(net)),
        Match::Destination(nets) => {
            let family = nets.first().map_or(Family::V4, Family::from);
            format!("{} daddr {}", family_name(family), list_words(nets.iter().map(prefix_words)))
        }
        Match::DestinationIsNot(net) => format!("{} daddr != {}", family_name(net.into()), prefix_words(net)),
        Match::Uid(sense, ids) => format!("meta skuid {}{}", sense_word(*sense), span_words(ids.first, ids.last)),
        Match::Gid(sense, ids) => {
            let ids = ids.iter().map(|ids| span_words(ids.first, ids.last));
            format!("meta skgid {}{}", sense_word(*sense), list_words(ids))
        }
        Match::Connection(ConnectionState::Invalid) => "ct state invalid".to_owned(),
        Match::Connection(ConnectionState::Established) => "ct state established,related".to_owned(),
        Match::Mark(sense, mark) => format!("meta mark {}{mark}", sense_word(*sense)),
        Match::ConnectionMark(mark) => format!("ct mark {mark}"),
    }
}

fn action_words(action: Action, family: Option<Family>) -> String {
    match action {
        Action::Jump(chain) => format!("jump {}", chain_name(chain)),
        Action::Return => "return".to_owned(),
        Action::Accept => "accept".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Redirect { port } => format!("redirect to :{port}"),
        Action::Tproxy { port, mark } => {
            let family = family.map_or("", family_name);
            format!("tproxy {family} to :{port} meta mark set {mark} accept")
        }
        Action::SetMark(mark) => format!("meta mark set {mark}"),
        Action::SaveMark => "ct mark set meta mark".to_owned(),
        Action::RestoreMark => "meta mark set ct mark".to_owned(),
        Action::Zone(zone) => format!("ct zone set {zone}"),
    }
}

fn sense_word(sense: Sense) -> &'static str {
    match sense {
        Sense::Is => "",
        Sense::IsNot => "!= ",
    }
}

fn span_words(first: u32, last: u32) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn prefix_words(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn list_words(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    match items.as_slice() {
        [item] => item.clone(),
        items => format!("{{ {} }}", items.join(", ")),
    }
}
