//! What weft-init needs to be allowed: CAP_NET_ADMIN in the network namespace, and nothing else.

use std::process::{Command, Output};

use crate::pod::From::{App, World};
use crate::pod::To::{HostA, Pod as ThePod};
use crate::pod::{FAMILIES, Pod, WEFT_INIT};

fn with_capabilities(pod: &Pod, set: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([format!("--bounding-set={set}"), format!("--inh-caps={set}")]).arg(WEFT_INIT).args(arguments);
    pod.pod.run(|| command.output().unwrap())
}

#[test]
fn the_missing_capability_is_named() {
    let pod = Pod::new();
    let variants: [&[&str]; 4] =
        [&["--backend", "nft"], &["--backend", "iptables"], &["-m", "TPROXY", "--backend", "auto"], &["--cleanup"]];
    for arguments in variants {
        let output = with_capabilities(&pod, "-net_admin", arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("CAP_NET_ADMIN is missing"), "{arguments:?}: {stderr}");
    }
    assert_eq!(pod.rules(), "");
}

#[test]
fn one_capability_is_enough() {
    let variants: [&[&str]; 3] = [
        &[],
        &["-m", "TPROXY", "--redirect-dns", "--capture-all-dns"],
        &["--backend", "iptables", "--force-iptables-binary", "nft"],
    ];
    for arguments in variants {
        let pod = Pod::new();
        let output = with_capabilities(&pod, "-all,+net_admin", arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        for family in FAMILIES {
            assert_eq!(pod.tcp(family, App, HostA, 80), "pod:15001", "{arguments:?}");
            assert_eq!(pod.tcp(family, World, ThePod, 8080), "pod:15006", "{arguments:?}");
        }
        let output = with_capabilities(&pod, "-all,+net_admin", &["--cleanup"]);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_user_namespace_will_do() {
    // Nobody but root exists in it, so the verification can't become the proxy, and says so.
    let script = r#"ip link set lo up
        ip link add eth0 type veth peer name eth1
        ip addr add 10.44.0.2/24 dev eth0
        ip link set eth0 up
        ip link set eth1 up
        "$0" -m TPROXY
        "$0" --verify -m TPROXY
        nft list ruleset
        "$0" --cleanup"#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-ec", script, WEFT_INIT])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("table inet mesh-nat"), "{stdout}");
}
