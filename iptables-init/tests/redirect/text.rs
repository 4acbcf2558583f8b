//! What is printed: the ruleset of a dry run, and what is said about arguments that are wrong.

use std::process::{Command, Output};

use crate::pod::{Namespace, Pod, ReadableCopy, weft_init};

const VARIANTS: [&[&str]; 6] = [
    &[],
    &["-b", "", "-i", ""],
    &[
        "-b",
        "80,8080-8090",
        "-i",
        "10.0.0.0/8,192.0.2.1/32,fd00::/8,2001:db8::1/128",
        "-x",
        "10.9.0.0/16",
        "-q",
        "1,3,5",
    ],
    &["-m", "TPROXY", "--drop-invalid", "-k", "vir+,tap0", "-c", "net1,eth9", "-o", "22,53", "-d", ""],
    &["--redirect-dns", "--capture-all-dns", "-u", "5,7-9", "-g", "6", "--istio-outbound-owner-groups", "10,12-14,20"],
    &["--dual-stack=false", "--istio-outbound-owner-groups-exclude", "3,4", "-e", "999"],
];

fn run(arguments: &[&str]) -> Output {
    weft_init(arguments, &[]).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_printed_ruleset_is_the_one_that_is_applied() {
    for variant in VARIANTS {
        let applied = Pod::new();
        applied.apply(&[&["--backend", "nft"], variant].concat());
        let printed = Pod::new();
        // The pod's addresses decide about IPv6, so both are printed in a pod.
        let script =
            String::from_utf8(printed.init(&[&["--backend", "nft", "--dry-run"], variant].concat()).stdout).unwrap();
        printed.pod.feed("nft", &["-f", "-"], &script);
        assert_eq!(printed.rules(), applied.rules(), "{variant:?}");
        // It replaces, as applying does.
        printed.pod.feed("nft", &["-f", "-"], &script);
        assert_eq!(printed.rules(), applied.rules(), "{variant:?}");
    }
}

#[test]
fn the_printed_rules_of_iptables_are_those_that_are_applied() {
    for variant in VARIANTS {
        let arguments = [&["--backend", "iptables", "--force-iptables-binary", "nft"], variant].concat();
        let applied = Pod::new();
        applied.apply(&arguments);
        let printed = Pod::new();
        let text = String::from_utf8(printed.init(&[&arguments[..], &["-n"]].concat()).stdout).unwrap();
        let (v4, v6) = text.split_once("# ip6tables-restore --noflush\n").unwrap_or((&text, ""));
        printed.pod.feed("iptables-nft-restore", &["--noflush"], v4);
        printed.pod.feed("ip6tables-nft-restore", &["--noflush"], v6);
        assert_eq!(printed.rules(), applied.rules(), "{variant:?}");
    }
}

#[test]
fn a_dry_run_needs_no_privilege_and_changes_nothing() {
    let namespace = Namespace::new();
    let copy = ReadableCopy::new();
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
        command.arg(&copy.0).args(arguments);
        namespace.run(|| command.output().unwrap())
    };
    for arguments in [&["--dry-run"][..], &["-n", "--backend", "iptables"], &["--dry-run", "--cleanup"]] {
        let output = unprivileged(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty());
    }
    assert_eq!(namespace.sh("nft list ruleset"), "");
    let pod = Pod::new();
    pod.apply(&[]);
    let rules = pod.rules();
    for arguments in
        [&["--dry-run", "-m", "TPROXY"][..], &["--dry-run", "--cleanup"], &["-n", "--run-validation", "-p", "9"]]
    {
        pod.apply(arguments);
        assert_eq!(pod.rules(), rules, "{arguments:?}");
    }
}

#[test]
fn the_dry_run_of_a_cleanup_deletes_and_adds_nothing() {
    let script = stdout(&["--dry-run", "--cleanup", "--backend", "nft"]);
    assert!(script.contains("delete table inet mesh-nat"), "{script}");
    assert!(!script.contains("chain"), "{script}");
}

#[test]
fn an_argument_that_is_wrong_is_named_with_its_value() {
    for (arguments, expected) in [
        (&["-p", "0"][..], "-p, --envoy-port: \"0\": a port is a number"),
        (&["-p", "65536"], "\"65536\""),
        (&["-z", "+5"], "--inbound-capture-port: \"+5\""),
        (&["-p", "15006"], "-p, --envoy-port and -z, --inbound-capture-port are both 15006"),
        (&["-b", "80;flush ruleset"], "--istio-inbound-ports: \"80;flush ruleset\""),
        (&["-b", "80,*"], "\"*\" stands alone"),
        (&["-d", "90-80"], "the range ends before it starts"),
        (&["-i", "10.0.0.0/33"], "-i, --istio-service-cidr: \"10.0.0.0/33\": a range of addresses"),
        (&["-i", "10.0.0.1"], "is written as CIDR"),
        (&["-x", "*"], "--istio-service-exclude-cidr: \"*\""),
        (&["-u", "nobody-here"], "--proxy-uid: \"nobody-here\": neither a number"),
        (&["-g", "4294967295"], "--proxy-gid: \"4294967295\""),
        (&["-m", "redirect"], "expected one of: REDIRECT, TPROXY"),
        (&["-c", "eth0\" accept"], "--istio-exclude-interfaces: \"eth0\\\" accept\""),
        (&["-k", "a-name-that-is-too-long"], "--kube-virt-interfaces"),
        (&["-t", "1338"], "-t, --istio-inbound-tproxy-mark: \"1338\""),
        (&["-r", "254"], "-r, --istio-inbound-tproxy-route-table: \"254\""),
        (&["--istio-outbound-ipv4-loopback-cidr", "10.0.0.0/8"], "inside 127.0.0.0/8"),
        (&["--probe-timeout", "5"], "--probe-timeout: \"5\": a duration"),
        (&["--redirect-dns=maybe"], "--redirect-dns: \"maybe\": a switch is true or false"),
        (&["--backend", "ebtables"], "expected one of: auto, nft, iptables"),
        (&["--backend", "nft", "--native-nftables=false"], "contradict each other"),
        (&["--cleanup", "--verify"], "--cleanup and --verify contradict each other"),
        (&["--cni-mode"], "--cni-mode needs --network-namespace"),
        (&["--log_output_level", "loud"], "--log_output_level: \"loud\""),
        (&["--no-such-thing"], "--no-such-thing"),
        (&["stray"], "stray"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_environment_variable_that_is_wrong_is_named_with_its_value() {
    for (variable, value) in [("ISTIO_INBOUND_PORTS", "http"), ("INVALID_DROP", "2"), ("PROBE_TIMEOUT", "soon")] {
        let output = weft_init(&["--dry-run"], &[(variable, value)]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}: {stderr}");
        assert!(stderr.contains(&format!("environment variable {variable}: {value:?}")), "{stderr}");
    }
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    for (path, expected) in [("no-such-pod", "/run/netns/no-such-pod"), ("/proc/self/ns/mnt", "/proc/self/ns/mnt")] {
        let output = run(&["--network-namespace", path]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--network-namespace") && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn logs_go_to_stderr_in_the_form_asked_for() {
    let namespace = Namespace::new();
    let logs = |arguments: &[&str]| {
        let output = namespace.run(|| weft_init(arguments, &[]).output().unwrap());
        assert!(output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let json = logs(&["--log_as_json", "--log_output_level=ads:none,default:info"]);
    assert!(json.lines().count() > 0 && json.lines().all(|line| line.starts_with('{')), "{json}");
    assert_eq!(logs(&["--log_output_level=none"]), "");
    assert_eq!(logs(&["--log_output_level", "error"]), "");
}
