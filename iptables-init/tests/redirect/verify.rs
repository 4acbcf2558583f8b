//! `--verify` and `--run-validation`: what they prove, and the exit status when traffic would bypass the proxy.

use std::process::{Command, Output};

use crate::pod::{Namespace, Pod, ReadableCopy};

const BYPASS: Option<i32> = Some(126);
const BACKENDS: [&str; 2] = ["nft", "iptables"];

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn expect_bypass(pod: &Pod, arguments: &[&str], reasons: &[&str]) {
    let output = pod.init(&[arguments, &["--verify", "--probe-timeout", "300ms"]].concat());
    assert_eq!(output.status.code(), BYPASS, "{arguments:?}: {}", stderr(&output));
    for reason in reasons {
        assert!(stderr(&output).contains(reason), "{arguments:?} should say {reason}: {}", stderr(&output));
    }
}

#[test]
fn rules_that_redirect_are_proved_for_both_families_and_sides() {
    for backend in BACKENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            let pod = Pod::new();
            let output = pod.init(&["--backend", backend, "-m", mode, "--run-validation"]);
            assert!(output.status.success(), "{backend} {mode}: {}", stderr(&output));
            for probe in ["outbound IPv4", "outbound IPv6", "inbound IPv4", "inbound IPv6"] {
                assert!(stderr(&output).contains(&format!("probe=\"{probe}")), "{probe}: {}", stderr(&output));
            }
            // Verifying changes nothing, and needs the arguments no more than the rules do.
            let rules = pod.rules();
            pod.apply(&["--verify"]);
            pod.apply(&["--skip-rule-apply", "--run-validation", "-m", mode]);
            assert_eq!(pod.rules(), rules, "{backend} {mode}");
        }
    }
}

#[test]
fn it_works_beside_a_proxy_that_runs_and_in_its_absence() {
    // The pod's servers hold the proxy's ports; here nobody does.
    let pod = Pod::new();
    let arguments = ["-p", "17001", "-z", "17006"];
    pod.apply(&arguments);
    pod.apply(&[&arguments[..], &["--verify"]].concat());
}

#[test]
fn without_rules_every_side_and_family_is_named() {
    let pod = Pod::new();
    let unredirected =
        ["outbound IPv4 to 192.0.2.1:15002", "outbound IPv6", "inbound IPv4 to 10.44.0.2:15002", "inbound IPv6"];
    expect_bypass(&pod, &[], &unredirected);
    assert_eq!(pod.rules(), "");
}

#[test]
fn a_namespace_with_nothing_but_the_loopback() {
    let namespace = Namespace::new();
    namespace.sh("ip link set lo up");
    let verify =
        || namespace.run(|| crate::pod::weft_init(&["--verify", "--probe-timeout", "300ms"], &[]).output().unwrap());
    assert_eq!(verify().status.code(), BYPASS);
    namespace.run(|| crate::pod::weft_init(&[], &[]).output().unwrap());
    let output = verify();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn one_family_that_is_not_redirected_is_named() {
    let pod = Pod::new();
    pod.apply(&["--dual-stack=false"]);
    expect_bypass(&pod, &[], &["outbound IPv6", "inbound IPv6"]);
    pod.apply(&["--dual-stack=false", "--verify"]);
}

#[test]
fn the_wrong_proxy_port_is_named() {
    let pod = Pod::new();
    pod.apply(&["-p", "16001"]);
    expect_bypass(&pod, &[], &["arrives at port 16001 of this pod instead of 15001"]);
}

#[test]
fn an_inbound_side_that_is_cut_off_is_noticed() {
    let pod = Pod::new();
    pod.apply(&["--backend", "nft"]);
    pod.pod.sh("nft flush chain inet mesh-nat prerouting");
    expect_bypass(&pod, &[], &["no rule of weft-init leads traffic from other pods to the proxy"]);
    let pod = Pod::new();
    pod.apply(&["--backend", "iptables", "--force-iptables-binary", "nft"]);
    pod.pod.sh("ip6tables-nft -t nat -F MESH_INBOUND");
    expect_bypass(&pod, &[], &["no rule of weft-init leads traffic from other pods to the proxy"]);
    let pod = Pod::new();
    pod.apply(&["-m", "TPROXY"]);
    pod.pod.sh("ip -6 rule del fwmark 1337 lookup 133");
    expect_bypass(&pod, &["-m", "TPROXY"], &["policy route"]);
}

#[test]
fn what_the_arguments_leave_out_is_not_probed() {
    let pod = Pod::new();
    for arguments in [
        &["-i", "10.60.0.0/16", "-o", "15002"][..],
        &["-i", "", "-q", "443"],
        &["-x", "192.0.2.0/24,2001:db8::/32"],
        &["-b", "", "-i", ""],
        &["-u", "0", "-g", "0"],
        &["--istio-outbound-owner-groups", "2001"],
        &["--istio-outbound-owner-groups", ""],
        &["-c", "net1", "-e", "15002"],
    ] {
        pod.apply(arguments);
        pod.apply(&[arguments, &["--verify"]].concat());
    }
}

#[test]
fn as_the_proxys_user_without_any_privilege() {
    let pod = Pod::new();
    let copy = ReadableCopy::new();
    let unprivileged = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--bounding-set=-all"]);
        command.arg(&copy.0).args(["--skip-rule-apply", "--run-validation", "--probe-timeout", "300ms"]);
        pod.pod.run(|| command.output().unwrap())
    };
    for user in ["1337", "1000"] {
        let output = unprivileged(user);
        assert_eq!(output.status.code(), BYPASS, "{user}: {}", stderr(&output));
    }
    pod.apply(&[]);
    for user in ["1337", "1000"] {
        let output = unprivileged(user);
        assert!(output.status.success(), "{user}: {}", stderr(&output));
        assert!(stderr(&output).contains("not verified"), "{user}: what was left out is said");
    }
}

#[test]
fn rules_that_come_late_are_waited_for() {
    let pod = Pod::new();
    let verified = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| pod.init(&["--verify", "--probe-timeout", "20s"]));
        // The first attempts fail before the rules are there.
        std::thread::sleep(std::time::Duration::from_millis(200));
        pod.apply(&[]);
        verifying.join().unwrap()
    });
    assert!(verified.status.success(), "{}", stderr(&verified));
}
