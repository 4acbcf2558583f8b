use std::ffi::OsString;

use super::*;
use crate::args::Args;
use crate::settings::Facts;

fn plan_in(command_line: &[&str], facts: &Facts) -> Plan {
    let args = Args::parse(["weft-init"].iter().chain(command_line).map(OsString::from), |_| None).unwrap();
    Plan::new(&Settings::resolve(&args, facts).unwrap())
}

fn plan(command_line: &[&str]) -> Plan {
    plan_in(command_line, &Facts { has_ipv6: true, has_ipv4_address: true, ..Facts::default() })
}

/// The rules of one chain in nft's words.
fn chain(plan: &Plan, table: Table, chain: Chain) -> Vec<String> {
    let rules = plan.chain(table, chain).cloned().collect();
    let alone = Plan { rules, policy_route: None, ipv6: true };
    let script = crate::nft::script(&alone);
    let rules = script.lines().filter(|line| line.starts_with("\t\t") && !line.contains(" hook "));
    rules.map(|line| line.trim().split(" comment ").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_output_chain_is_in_istios_order() {
    let all = [
        "-c",
        "net1",
        "-o",
        "22",
        "-u",
        "5",
        "-g",
        "6",
        "--istio-outbound-owner-groups-exclude",
        "7",
        "--redirect-dns",
        "--capture-all-dns",
        "-x",
        "10.9.0.0/16",
        "-q",
        "443",
        "-i",
        "10.0.0.0/8",
        "--dual-stack=false",
    ];
    assert_eq!(
        chain(&plan(&all), Table::Nat, Chain::Output),
        [
            "oifname \"net1\" return",
            "tcp dport 22 return",
            "udp dport 22 return",
            "oifname \"lo\" ip saddr 127.0.0.6 return",
            "oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != { 53, 15008 } meta skuid 5 jump mesh-in-redirect",
            "oifname \"lo\" tcp dport != 53 meta skuid != 5 return",
            "meta skuid 5 return",
            "oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skgid 6 jump mesh-in-redirect",
            "oifname \"lo\" tcp dport != 53 meta skgid != 6 return",
            "meta skgid 6 return",
            "meta skgid 7 return",
            "jump mesh-output-dns",
            "ip daddr 127.0.0.1 return",
            "ip daddr 10.9.0.0/16 return",
            "tcp dport 443 jump mesh-redirect",
            "ip daddr 10.0.0.0/8 jump mesh-redirect",
        ]
    );
}

#[test]
fn the_inbound_chain_of_tproxy_mode() {
    let plan = plan(&["-m", "TPROXY", "--dual-stack=false", "-d", "443"]);
    assert_eq!(
        chain(&plan, Table::Mangle, Chain::Inbound),
        [
            "meta l4proto tcp meta mark 1337 return",
            "meta l4proto tcp ip saddr 127.0.0.6 iifname \"lo\" return",
            "meta l4proto tcp iifname \"lo\" meta mark != 1338 return",
            "tcp dport 443 return",
            "meta l4proto tcp ct state established,related jump mesh-divert",
            "meta l4proto tcp jump mesh-tproxy",
        ]
    );
    assert_eq!(plan.policy_route, Some(PolicyRoute { mark: 1337, table: 133 }));
    assert!(plan.commentary().contains("# ip rule add fwmark 1337 lookup 133\n"));
}

#[test]
fn chains_are_there_where_they_are_jumped_to_and_only_there() {
    let facts = |has_ipv6| Facts {
        resolv_conf: Some("nameserver fd00::a\n".to_owned()),
        has_ipv6,
        has_ipv4_address: true,
        ..Facts::default()
    };
    let variants: [&[&str]; 9] = [
        &[],
        &["-b", "", "-i", ""],
        &["-i", "fd00::/8", "-x", "fd01::/16"],
        &["-m", "TPROXY"],
        &["-m", "TPROXY", "-b", ""],
        &["-m", "TPROXY", "-b", "80", "-k", "a,b", "-c", "c"],
        &["--redirect-dns"],
        &["--redirect-dns", "--capture-all-dns", "--drop-invalid"],
        &["-k", "vir+", "-i", "fd00::/8"],
    ];
    for (variant, has_ipv6) in variants.iter().flat_map(|variant| [(variant, true), (variant, false)]) {
        let plan = plan_in(variant, &facts(has_ipv6));
        for rule in &plan.rules {
            if let Action::Jump(target) = rule.action {
                assert!(plan.chain(rule.table, target).next().is_some(), "{variant:?}: {target:?} is empty");
            }
            let is_called =
                |table, chain| plan.rules.iter().any(|rule| rule.table == table && rule.action == Action::Jump(chain));
            assert!(rule.chain.is_hooked() || is_called(rule.table, rule.chain), "{variant:?}: nobody calls {rule:?}");
            assert!(plan.ipv6 || rule.family() != Some(Family::V6), "{variant:?}: {rule:?}");
            let is_tproxy = matches!(rule.action, Action::Tproxy { .. });
            assert!(!is_tproxy || rule.family().is_some(), "{variant:?}: TPROXY is of one family: {rule:?}");
        }
    }
}

#[test]
fn the_same_settings_make_the_same_plan() {
    let variant = ["-m", "TPROXY", "--redirect-dns", "--capture-all-dns", "-b", "80,443", "-i", "10.0.0.0/8,fd00::/8"];
    assert_eq!(plan(&variant), plan(&variant));
    assert_eq!(crate::nft::script(&plan(&variant)), crate::nft::script(&plan(&variant)));
}
