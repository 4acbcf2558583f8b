//! Hostile text as the value of every argument: nothing panics, and what comes out as rules is what the typed plan holds.
//!
//! Pure, from the arguments to the text of both backends; nothing is applied. The texts are made from pieces of valid
//! values and pieces that mean something to a shell, to nft or to iptables, by a generator with a fixed seed.
#![expect(clippy::unwrap_used, reason = "in tests, a panic is the report; the lint's own exception misses helpers")]

use std::collections::{BTreeSet, HashSet};

use weft_init::args::{ARGUMENTS, Args, Argument, Given, Takes};
use weft_init::plan::Plan;
use weft_init::rule::{Match, Rule};
use weft_init::settings::{Facts, Settings, Task};
use weft_init::{accounts::Accounts, iptables, nft};

const TEXTS_PER_ARGUMENT: u32 = 100_000;
/// The arguments are shared out over as many tests, to be run side by side.
const SHARES: usize = 4;

const PIECES: &[&str] = &[
    "",
    "0",
    "1",
    "53",
    "80",
    "443",
    "15001",
    "15006",
    "1337",
    "1338",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "0x539",
    "*",
    ",",
    ",,",
    "-",
    "--",
    ":",
    "/",
    "+",
    "@",
    "!",
    " ",
    "\t",
    "\n",
    "\r",
    "\0",
    "\\",
    "\\n",
    "'",
    "\"",
    "`",
    "$",
    "#",
    ";",
    "|",
    "&",
    "(",
    ")",
    "{",
    "}",
    "<",
    ">",
    "=",
    "%",
    "~",
    "^",
    "?",
    "[",
    "]",
    "80-90",
    "90-80",
    "80:90",
    ":80",
    "80:",
    "1-2-3",
    "10.0.0.0/8",
    "10.0.0.1",
    "10.0.0.0/33",
    "0.0.0.0/0",
    "127.0.0.1/32",
    "127.0.0.0/8",
    "fd00::/8",
    "::/0",
    "::1/128",
    "::ffff:1.2.3.4/120",
    "fe80::1%eth0",
    "::",
    "1.2.3",
    "256.1.1.1/8",
    "root",
    "nobody",
    "istio-proxy",
    "eth0",
    "eth+",
    "eth*",
    "lo",
    "..",
    "REDIRECT",
    "TPROXY",
    "true",
    "false",
    "auto",
    "nft",
    "iptables",
    "legacy",
    "5s",
    "1m30s",
    "1e308h",
    "default:debug",
    "debug",
    "/proc/self/ns/net",
    "../../etc/passwd",
    "-j ACCEPT",
    "-A OUTPUT -j ACCEPT",
    "-t nat -F",
    "COMMIT",
    "*filter",
    ":INPUT DROP [0:0]",
    "--to-ports 1",
    "accept",
    "drop",
    "jump",
    "flush ruleset",
    "delete table inet mesh-nat",
    "} table ip x {",
    "\" accept comment \"",
    "include \"/etc/shadow\"",
    "@set",
    "{ 1, 2 }",
    "$(reboot)",
    "`id`",
    "; rm -rf /",
    "&& true",
    "| sh",
    "%s%n",
    "\u{202e}",
    "é",
    "１２３",
    "\u{0}80",
    "null",
    "NaN",
    "inf",
    "999999999999999999999999999",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// Marsaglia's xorshift: the same texts in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(5) {
            match self.below(8) {
                0 => text.extend(char::from_u32(u32::try_from(self.below(0x3000)).unwrap())),
                1 => text.push(','),
                _ => text += PIECES[self.below(PIECES.len())],
            }
        }
        text
    }
}

fn facts() -> Facts {
    Facts {
        accounts: Accounts::parse("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534:::\n", "root:x:0:\n"),
        resolv_conf: Some("nameserver 10.96.0.10\nnameserver fd00::a\n".to_owned()),
        has_ipv6: true,
        has_ipv4_address: true,
    }
}

/// Gives one share of the arguments every text, beside others that make as much as possible of the plan depend on it.
fn attack(share: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::try_from(share + 1).unwrap());
    let facts = facts();
    let mut taken = 0;
    for argument in ARGUMENTS.iter().skip(share).step_by(SHARES) {
        let mut seen = HashSet::new();
        for _ in 0..TEXTS_PER_ARGUMENT {
            let text = random.text();
            taken += u32::from(survives(argument, &text, &facts, &mut seen));
        }
    }
    assert!(taken > 0, "a generator of nothing but nonsense tests only the refusals");
}

/// Whether the text was taken as a value. Plans that were looked at before are not looked at again.
fn survives(argument: &Argument, text: &str, facts: &Facts, seen: &mut HashSet<String>) -> bool {
    let given = |text: &str| Given { text: text.to_owned(), variable: None };
    let others = [("istio-inbound-interception-mode", "TPROXY"), ("drop-invalid", "true"), ("redirect-dns", "true")]
        .map(|(long, text)| (by_name(long), given(text)));
    // Of two for the same argument, the last counts.
    let args: Args = others.into_iter().chain([(argument, given(text))]).collect();
    let (settings, task) = (Settings::resolve(&args, facts), Task::resolve(&args));
    for error in [settings.as_ref().err(), task.as_ref().err()].into_iter().flatten() {
        let message = error.to_string();
        assert!(!message.chars().any(char::is_control), "a message is one line: {message:?}");
    }
    let Ok(settings) = settings else { return false };
    if seen.insert(format!("{settings:?}")) {
        let plan = Plan::new(&settings);
        check_nft(&plan, text);
        check_iptables(&plan, text);
    }
    task.is_ok() && argument.takes != Takes::Switch
}

fn by_name(long: &str) -> &'static Argument {
    ARGUMENTS.iter().find(|argument| argument.long == long).unwrap()
}

/// Each line is one that the plan accounts for, and holds no character that would start something else.
fn check_nft(plan: &Plan, text: &str) {
    let script = nft::script(plan);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \t\n_.:/{},*\"@!=;'-".contains(c);
    assert!(script.chars().all(is_plain), "{text:?}: {script}");
    let rules = script.lines().filter(|line| line.starts_with("\t\t") && !line.contains(" hook "));
    for rule in rules.clone() {
        assert_eq!(rule.matches('"').count() % 2, 0, "{text:?}: {rule}");
        assert_eq!(rule.matches(" comment \"").count(), 1, "{text:?}: {rule}");
        assert!(!rule.contains(';'), "{text:?}: {rule}");
    }
    let batch = serde_json::to_value(nft::batch(plan)).unwrap();
    let commands = batch["nftables"].as_array().unwrap();
    let added = commands.iter().filter(|command| command["add"]["rule"].is_object()).count();
    assert_eq!(added, rules.count(), "{text:?}: both forms have the same rules");
    for command in commands {
        let object =
            &command.as_object().unwrap().values().next().unwrap().as_object().unwrap().values().next().unwrap();
        let table = object.get("table").or_else(|| object.get("name")).and_then(|name| name.as_str()).unwrap();
        assert!(["mesh-raw", "mesh-mangle", "mesh-nat"].contains(&table), "{text:?}: {command}");
    }
}

fn check_iptables(plan: &Plan, text: &str) {
    let script = iptables::script(plan);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \n_.:/,+@!*#[]-".contains(c);
    assert!(script.chars().all(is_plain), "{text:?}: {script}");
    let mut jumps = BTreeSet::new();
    let mut expected = 0;
    for (family, rules) in [("4", &plan.rules), ("6", &plan.rules)] {
        let is_of_family = |rule: &&Rule| rule.family().is_none_or(|of| format!("{of:?}").ends_with(family));
        for rule in rules.iter().filter(|_| family == "4" || plan.ipv6).filter(is_of_family) {
            expected += rule.matches.iter().map(alternatives).product::<usize>();
            if rule.chain.is_hooked() {
                jumps.insert((family, rule.table, rule.chain));
            }
        }
    }
    let rules = script.lines().filter(|line| line.starts_with("-A "));
    assert_eq!(rules.clone().count(), expected + jumps.len(), "{text:?}: {script}");
    for rule in rules {
        let chain = rule.split(' ').nth(1).unwrap();
        let is_ours = chain.starts_with("MESH_") || rule.split(' ').nth(3).unwrap().starts_with("MESH_");
        assert!(is_ours && rule.matches(" -j ").count() == 1, "{text:?}: {rule}");
    }
    assert!(
        script.lines().all(|line| ["-A ", ":MESH_", "*", "COMMIT", "# ip"].iter().any(|start| line.starts_with(start)))
    );
}

/// Into how many rules of iptables a match makes one of ours.
fn alternatives(m: &Match) -> usize {
    use weft_init::rule::Sense::Is;
    match m {
        Match::DestinationPorts { sense: Is, ports, .. } => ports.ranges().len(),
        Match::Destination(nets) => nets.len(),
        Match::Gid(Is, ids) => ids.len(),
        _ => 1,
    }
}

#[test]
fn hostile_texts_first_share() {
    attack(0);
}

#[test]
fn hostile_texts_second_share() {
    attack(1);
}

#[test]
fn hostile_texts_third_share() {
    attack(2);
}

#[test]
fn hostile_texts_fourth_share() {
    attack(3);
}
