//! The same connections under our rules and under rules that follow the order that Istio documents for its init container.
//!
//! The other rules are written by hand for iptables, one line a rule, in plain words of iptables; nothing of ours makes
//! them. Where the two pods answer differently, a pod that moves here would behave differently.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::pod::From::{App, Bypass, Proxy, SecondWorld, Somebody, World};
use crate::pod::To::{HostA, HostB, HostC, Loopback, Pod as ThePod, SecondHost, SecondPod};
use crate::pod::{FAMILIES, Family, From, Pod, To};

/// What Istio's init container is told, in the words of iptables. The other family's entries are left out.
struct Istio {
    uids: &'static [&'static str],
    gids: &'static [&'static str],
    is_tproxy: bool,
    /// `None` for none, an empty list for all.
    inbound_ports: Option<&'static [&'static str]>,
    inbound_ports_exclude: &'static [&'static str],
    /// `None` for all.
    ranges: Option<[&'static [&'static str]; 2]>,
    ranges_exclude: [&'static [&'static str]; 2],
    ranges_name_loopback: bool,
    ports: &'static [&'static str],
    ports_exclude: &'static [&'static str],
    interfaces: &'static [&'static str],
    virtual_interfaces: &'static [&'static str],
    /// `None` for all.
    groups: Option<&'static [&'static str]>,
    groups_exclude: &'static [&'static str],
    captures_dns: bool,
}

impl Istio {
    const fn injected() -> Self {
        Self {
            uids: &["1337"],
            gids: &["1337"],
            is_tproxy: false,
            inbound_ports: Some(&[]),
            inbound_ports_exclude: &["15090", "15021", "15020"],
            ranges: None,
            ranges_exclude: [&[], &[]],
            ranges_name_loopback: false,
            ports: &[],
            ports_exclude: &[],
            interfaces: &[],
            virtual_interfaces: &[],
            groups: None,
            groups_exclude: &[],
            captures_dns: false,
        }
    }

    fn set_up(&self, pod: &Pod) {
        for (family, program, ip) in
            [(Family::V4, "iptables-nft-restore", "ip"), (Family::V6, "ip6tables-nft-restore", "ip -6")]
        {
            pod.pod.feed(program, &["--noflush"], &self.rules(family));
            if self.is_tproxy {
                pod.pod.sh(&format!("{ip} rule add fwmark 1337 lookup 133"));
                pod.pod.sh(&format!("{ip} route add local default dev lo table 133"));
            }
        }
        pod.pod.sh("ip -6 addr add ::6/128 dev lo nodad");
    }

    fn rules(&self, family: Family) -> String {
        let mut tables = Tables::default();
        self.nat_inbound(&mut tables, family);
        self.nat_outbound(&mut tables, family);
        if self.captures_dns {
            self.zones(&mut tables);
        }
        if self.is_tproxy {
            self.mangle(&mut tables, family);
        }
        tables.text()
    }

    fn nat_inbound(&self, tables: &mut Tables, family: Family) {
        for interface in self.virtual_interfaces {
            for range in self.ranges(family) {
                tables.add("nat", "PREROUTING", format!("-i {interface} {range} -j ISTIO_REDIRECT"));
            }
        }
        for interface in self.virtual_interfaces {
            tables.add("nat", "PREROUTING", format!("-i {interface} -j RETURN"));
        }
        for interface in self.interfaces {
            tables.add("nat", "PREROUTING", format!("-i {interface} -j RETURN"));
            tables.add("nat", "OUTPUT", format!("-o {interface} -j RETURN"));
        }
        tables.add("nat", "ISTIO_INBOUND", "-p tcp --dport 15008 -j RETURN");
        tables.add("nat", "ISTIO_REDIRECT", "-p tcp -j REDIRECT --to-ports 15001");
        tables.add("nat", "ISTIO_IN_REDIRECT", "-p tcp -j REDIRECT --to-ports 15006");
        let Some(ports) = self.inbound_ports.filter(|_| !self.is_tproxy) else { return };
        tables.add("nat", "PREROUTING", "-p tcp -j ISTIO_INBOUND");
        if ports.is_empty() {
            for port in self.inbound_ports_exclude {
                tables.add("nat", "ISTIO_INBOUND", format!("-p tcp --dport {port} -j RETURN"));
            }
            tables.add("nat", "ISTIO_INBOUND", "-p tcp -j ISTIO_IN_REDIRECT");
        }
        for port in ports {
            tables.add("nat", "ISTIO_INBOUND", format!("-p tcp --dport {port} -j ISTIO_IN_REDIRECT"));
        }
    }

    fn nat_outbound(&self, tables: &mut Tables, family: Family) {
        let (loopback, bypass) = by_family(family, ("127.0.0.1/32", "127.0.0.6/32"), ("::1/128", "::6/128"));
        let mut output = |rule: String| tables.add("nat", "ISTIO_OUTPUT", rule);
        for port in self.ports_exclude {
            output(format!("-p tcp --dport {port} -j RETURN"));
            output(format!("-p udp --dport {port} -j RETURN"));
        }
        output(format!("-o lo -s {bypass} -j RETURN"));
        let to_itself = if self.captures_dns { "-p tcp ! --dport 53" } else { "" };
        let uids = self.uids.iter().map(|uid| ("--uid-owner", uid));
        for (owner, id) in uids.chain(self.gids.iter().map(|gid| ("--gid-owner", gid))) {
            let ports = if self.captures_dns && owner == "--uid-owner" {
                "-p tcp -m multiport ! --dports 53,15008"
            } else {
                "-p tcp ! --dport 15008"
            };
            output(format!("-o lo ! -d {loopback} {ports} -m owner {owner} {id} -j ISTIO_IN_REDIRECT"));
            if !self.ranges_name_loopback {
                output(format!("-o lo {to_itself} -m owner ! {owner} {id} -j RETURN"));
            }
            output(format!("-m owner {owner} {id} -j RETURN"));
        }
        match self.groups {
            None => self.groups_exclude.iter().for_each(|gid| output(format!("-m owner --gid-owner {gid} -j RETURN"))),
            Some(groups) => {
                let none_of: String = groups.iter().map(|gid| format!("-m owner ! --gid-owner {gid} ")).collect();
                output(format!("{none_of}-j RETURN"));
            }
        }
        if self.captures_dns {
            output("-j ISTIO_OUTPUT_DNS".to_owned());
        }
        output(format!("-d {loopback} -j RETURN"));
        for range in by_family(family, self.ranges_exclude[0], self.ranges_exclude[1]) {
            output(format!("-d {range} -j RETURN"));
        }
        for port in self.ports {
            output(format!("-p tcp --dport {port} -j ISTIO_REDIRECT"));
        }
        for range in self.ranges(family) {
            output(format!("{range} -j ISTIO_REDIRECT"));
        }
        tables.add("nat", "OUTPUT", "-j ISTIO_OUTPUT");
        if self.captures_dns {
            tables.add("nat", "ISTIO_OUTPUT_DNS", "-p tcp --dport 53 -j REDIRECT --to-ports 15053");
            tables.add("nat", "ISTIO_OUTPUT_DNS", "-p udp --dport 53 -j REDIRECT --to-ports 15053");
        }
    }

    fn zones(&self, tables: &mut Tables) {
        let uids = self.uids.iter().map(|uid| format!("--uid-owner {uid}"));
        for owner in uids.chain(self.gids.iter().map(|gid| format!("--gid-owner {gid}"))) {
            tables.add("raw", "ISTIO_OUTPUT_DNS", format!("-p udp --dport 53 -m owner {owner} -j CT --zone 1"));
            tables.add("raw", "ISTIO_OUTPUT_DNS", format!("-p udp --sport 15053 -m owner {owner} -j CT --zone 2"));
        }
        tables.add("raw", "ISTIO_OUTPUT_DNS", "-p udp --dport 53 -j CT --zone 2");
        tables.add("raw", "ISTIO_INBOUND", "-p udp --sport 53 -j CT --zone 1");
        tables.add("raw", "OUTPUT", "-j ISTIO_OUTPUT_DNS");
        tables.add("raw", "PREROUTING", "-j ISTIO_INBOUND");
    }

    fn mangle(&self, tables: &mut Tables, family: Family) {
        let (loopback, bypass) = by_family(family, ("127.0.0.1/32", "127.0.0.6/32"), ("::1/128", "::6/128"));
        for interface in self.interfaces {
            tables.add("mangle", "PREROUTING", format!("-i {interface} -j RETURN"));
            tables.add("mangle", "OUTPUT", format!("-o {interface} -j RETURN"));
        }
        tables.add("mangle", "PREROUTING", "-p tcp -j ISTIO_INBOUND");
        tables.add("mangle", "PREROUTING", "-p tcp -m mark --mark 1337 -j CONNMARK --save-mark");
        tables.add("mangle", "ISTIO_INBOUND", "-p tcp -m mark --mark 1337 -j RETURN");
        tables.add("mangle", "ISTIO_INBOUND", format!("-p tcp -s {bypass} -i lo -j RETURN"));
        tables.add("mangle", "ISTIO_INBOUND", "-p tcp -i lo -m mark ! --mark 1338 -j RETURN");
        for port in self.inbound_ports_exclude {
            tables.add("mangle", "ISTIO_INBOUND", format!("-p tcp --dport {port} -j RETURN"));
        }
        tables.add("mangle", "ISTIO_INBOUND", "-p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT");
        tables.add("mangle", "ISTIO_INBOUND", "-p tcp -j ISTIO_TPROXY");
        tables.add("mangle", "ISTIO_DIVERT", "-j MARK --set-mark 1337");
        tables.add("mangle", "ISTIO_DIVERT", "-j ACCEPT");
        let tproxy = format!("! -d {loopback} -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006");
        tables.add("mangle", "ISTIO_TPROXY", tproxy);
        tables.add("mangle", "OUTPUT", "-p tcp -o lo -m mark --mark 1337 -j RETURN");
        for owner in ["--uid-owner 1337", "--gid-owner 1337"] {
            let rule = format!("! -d {loopback} -p tcp -o lo -m owner {owner} -j MARK --set-mark 1338");
            tables.add("mangle", "OUTPUT", rule);
        }
        tables.add("mangle", "OUTPUT", "-p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark");
    }

    fn ranges(&self, family: Family) -> Vec<String> {
        match self.ranges {
            None => vec![String::new()],
            Some([v4, v6]) => by_family(family, v4, v6).iter().map(|range| format!("-d {range}")).collect(),
        }
    }
}

fn by_family<T>(family: Family, v4: T, v6: T) -> T {
    if family == Family::V4 { v4 } else { v6 }
}

/// Rules by table and chain, for `iptables-restore`.
#[derive(Default)]
struct Tables(BTreeMap<&'static str, Vec<(&'static str, String)>>);

impl Tables {
    fn add(&mut self, table: &'static str, chain: &'static str, rule: impl Into<String>) {
        self.0.entry(table).or_default().push((chain, rule.into()));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (table, rules) in &self.0 {
            writeln!(text, "*{table}").unwrap();
            let mut chains: Vec<_> = rules.iter().map(|(chain, _)| *chain).collect();
            // Some are jumped to though this configuration leaves them empty.
            chains.extend(["ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_DIVERT", "ISTIO_TPROXY"]);
            chains.sort_unstable();
            chains.dedup();
            for chain in chains.iter().filter(|chain| chain.starts_with("ISTIO")) {
                writeln!(text, ":{chain} - [0:0]").unwrap();
            }
            for (chain, rule) in rules {
                writeln!(text, "-A {chain} {rule}").unwrap();
            }
            writeln!(text, "COMMIT").unwrap();
        }
        text
    }
}

/// Where every connection of a large set arrives, and from where and to where as the server sees it.
fn answers(pod: &Pod) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    let mut ask = |from, to, port| {
        for family in FAMILIES {
            let answer = match pod.tcp_from(family, from, to, port) {
                Ok(answer) => format!("{} {} {}", answer.place, answer.local, answer.peer.ip()),
                Err(error) => format!("{:?}", error.kind()),
            };
            answers.insert(format!("{family:?} {from:?} to {to:?}:{port}"), answer);
        }
    };
    let inside = [App, Proxy, Somebody(1000, 1337), Somebody(1337, 1000), Somebody(2001, 2001), Somebody(1000, 2002)];
    for port in PORTS {
        for from in inside {
            for to in [HostA, HostB, HostC, SecondHost, ThePod, SecondPod, Loopback] {
                ask(from, to, port);
            }
        }
        for to in [ThePod, Loopback] {
            ask(Bypass, to, port);
        }
        ask(World, ThePod, port);
        ask(SecondWorld, SecondPod, port);
    }
    for family in FAMILIES {
        for from in inside {
            for (to, port) in [(HostA, 53), (HostB, 53), (HostA, 80), (Loopback, 53), (ThePod, 53)] {
                let answer = pod.udp(family, from, to, port);
                answers.insert(format!("{family:?} UDP {from:?} to {to:?}:{port}"), answer);
            }
        }
    }
    answers
}

const PORTS: [u16; 6] = [53, 80, 443, 8080, 15008, 15020];

/// Compares both backends with Istio's rules. `at_least` names connections that the case is about, and where they arrive,
/// so that two pods that both do nothing don't pass.
fn compare(arguments: &[&str], istio: &Istio, at_least: &[(From, To, u16, &str)]) {
    let theirs = {
        let pod = Pod::new();
        istio.set_up(&pod);
        answers(&pod)
    };
    for &(from, to, port, place) in at_least {
        let answer = &theirs[&format!("{:?} {from:?} to {to:?}:{port}", Family::V4)];
        assert!(
            answer.starts_with(place),
            "{from:?} to {to:?}:{port} arrives at {answer}, not {place}, with Istio's rules"
        );
    }
    for backend in ["nft", "iptables"] {
        let pod = Pod::new();
        pod.apply(&[&["--backend", backend], arguments].concat());
        let ours = answers(&pod);
        assert_eq!(ours.len(), theirs.len());
        let differences: Vec<_> = ours
            .iter()
            .zip(theirs.values())
            .filter(|((_, ours), theirs)| ours != theirs)
            .map(|((connection, ours), theirs)| format!("{connection}: ours {ours}, theirs {theirs}"))
            .collect();
        assert!(differences.is_empty(), "{backend} {arguments:?}: {differences:#?}\n{}", pod.rules());
    }
}

#[test]
fn injected() {
    let at_least = [(App, HostA, 80, "pod:15001"), (Proxy, ThePod, 80, "pod:15006"), (World, ThePod, 80, "pod:15006")];
    compare(&[], &Istio::injected(), &at_least);
}

#[test]
fn users_and_groups() {
    let istio = Istio { uids: &["2001", "1337"], gids: &["2002"], ..Istio::injected() };
    let at_least = [(Somebody(2001, 2001), HostA, 80, "world:80"), (Somebody(1000, 2002), HostA, 80, "world:80")];
    compare(&["-u", "2001,1337", "-g", "2002"], &istio, &at_least);
}

#[test]
fn inbound_ports() {
    let istio = Istio { inbound_ports: Some(&["443", "8080"]), ..Istio::injected() };
    compare(&["-b", "443,8080"], &istio, &[(World, ThePod, 443, "pod:15006"), (World, ThePod, 80, "pod:80")]);
    let istio = Istio { inbound_ports: None, ..Istio::injected() };
    compare(&["-b", ""], &istio, &[(World, ThePod, 443, "pod:443"), (Proxy, ThePod, 443, "pod:15006")]);
}

#[test]
fn outbound_ports() {
    let istio =
        Istio { ranges: Some([&[], &[]]), ports: &["443"], ports_exclude: &["8080", "53"], ..Istio::injected() };
    let at_least = [(App, HostA, 443, "pod:15001"), (App, HostA, 80, "world:80"), (Proxy, ThePod, 8080, "pod:8080")];
    compare(&["-i", "", "-q", "443", "-o", "8080,53"], &istio, &at_least);
}

#[test]
fn ranges() {
    let istio = Istio {
        ranges: Some([&["10.60.0.0/15", "10.62.0.1/32"], &["fd60::/15", "fd62::1/128"]]),
        ranges_exclude: [&["10.61.0.0/16"], &["fd61::/16"]],
        ..Istio::injected()
    };
    let arguments = ["-i", "10.60.0.0/15,fd60::/15,10.62.0.1/32,fd62::1/128", "-x", "10.61.0.0/16,fd61::/16"];
    let at_least = [(App, HostA, 80, "pod:15001"), (App, HostB, 80, "world:80"), (App, SecondHost, 80, "world:80")];
    compare(&arguments, &istio, &at_least);
}

#[test]
fn loopback_among_the_ranges() {
    let istio = Istio {
        ranges: Some([&["127.0.0.0/8", "10.44.0.0/16"], &["::1/128", "fd44::/16"]]),
        ranges_name_loopback: true,
        ..Istio::injected()
    };
    let at_least = [(App, Loopback, 80, "pod:80"), (App, ThePod, 80, "pod:15001"), (Proxy, ThePod, 80, "pod:15006")];
    compare(&["-i", "127.0.0.0/8,::1/128,10.44.0.0/16,fd44::/16"], &istio, &at_least);
}

#[test]
fn interfaces() {
    let istio = Istio { interfaces: &["net1"], ..Istio::injected() };
    compare(&["-c", "net1"], &istio, &[(App, SecondHost, 80, "world:80"), (SecondWorld, SecondPod, 80, "pod:80")]);
    let istio = Istio { virtual_interfaces: &["net1"], ..Istio::injected() };
    compare(&["-k", "net1"], &istio, &[(SecondWorld, SecondPod, 80, "pod:15001")]);
}

#[test]
fn owner_groups() {
    let istio = Istio { groups: Some(&["2001", "1000"]), ..Istio::injected() };
    let at_least = [(Somebody(2001, 2001), HostA, 80, "pod:15001"), (Somebody(1000, 2002), HostA, 80, "world:80")];
    compare(&["--istio-outbound-owner-groups", "2001,1000"], &istio, &at_least);
    let istio = Istio { groups_exclude: &["2001"], captures_dns: true, ..Istio::injected() };
    let arguments = ["--istio-outbound-owner-groups-exclude", "2001", "--redirect-dns", "--capture-all-dns"];
    compare(&arguments, &istio, &[(Somebody(2001, 2001), HostA, 80, "world:80"), (App, HostA, 53, "pod:15053")]);
}

#[test]
fn dns() {
    let istio = Istio { captures_dns: true, ..Istio::injected() };
    let at_least = [(App, HostA, 53, "pod:15053"), (App, Loopback, 53, "pod:15053"), (Proxy, HostA, 53, "world:53")];
    compare(&["--redirect-dns", "--capture-all-dns"], &istio, &at_least);
}

#[test]
fn tproxy() {
    let istio = Istio { is_tproxy: true, interfaces: &["net1"], ..Istio::injected() };
    let at_least = [(World, ThePod, 80, "pod:15006 10.44.0.2:80 10.44.0.1"), (Proxy, ThePod, 80, "pod:15006")];
    compare(&["-m", "TPROXY", "-c", "net1"], &istio, &at_least);
}
