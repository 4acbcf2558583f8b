//! Applying, again, over something else, halfway, and cleaning up: what is in place afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, waitpid};

use crate::pod::From::{App, Proxy, World};
use crate::pod::To::{HostA, Pod as ThePod};
use crate::pod::{FAMILIES, Pod, become_owner, weft_init};

const BACKENDS: [&[&str]; 3] = [
    &["--backend", "nft"],
    &["--backend", "iptables", "--force-iptables-binary", "nft"],
    &["--backend", "iptables", "--force-iptables-binary", "legacy"],
];

/// Sets of arguments that differ in every part of what is set up.
const VARIANTS: [&[&str]; 5] = [
    &[],
    &["-p", "16001", "-b", "80,8080", "-i", "10.60.0.0/16,fd60::/16", "-x", "10.60.1.0/24", "-o", "22", "-c", "net1"],
    &["-m", "TPROXY", "--drop-invalid", "--redirect-dns", "--capture-all-dns"],
    &["-m", "TPROXY", "-t", "77", "-r", "78", "-k", "net1", "-q", "443"],
    &["--dual-stack=false", "--istio-outbound-owner-groups", "5,6"],
];

/// What a pod has when only these arguments were ever applied.
fn fresh(arguments: &[&str]) -> (String, String) {
    let pod = Pod::new();
    pod.apply(arguments);
    (pod.rules(), pod.routes())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn three_applies_leave_what_one_leaves() {
    for backend in BACKENDS {
        for variant in VARIANTS {
            let arguments = [backend, variant].concat();
            let pod = Pod::new();
            pod.apply(&arguments);
            let once = (pod.rules(), pod.routes());
            assert!(once.0.to_lowercase().contains("mesh"), "{arguments:?}");
            pod.apply(&arguments);
            pod.apply(&arguments);
            assert_eq!((pod.rules(), pod.routes()), once, "{arguments:?}");
        }
    }
}

#[test]
fn a_different_older_ruleset_is_replaced() {
    for backend in BACKENDS {
        let pod = Pod::new();
        for (variant, flag) in VARIANTS.iter().zip([&["--reconcile"][..], &[], &["--reconcile"], &[], &["--reconcile"]])
        {
            let arguments = [backend, variant].concat();
            pod.apply(&[&arguments, flag].concat());
            let (rules, routes) = fresh(&arguments);
            assert_eq!(pod.rules(), rules, "{arguments:?}");
            assert_eq!(pod.routes(), routes, "{arguments:?}");
        }
    }
}

#[test]
fn the_rules_of_another_backend_are_replaced() {
    let pod = Pod::new();
    for backend in [BACKENDS[0], BACKENDS[1], BACKENDS[0], BACKENDS[2], BACKENDS[1], BACKENDS[2], BACKENDS[0]] {
        pod.apply(backend);
        assert_eq!(pod.rules(), fresh(backend).0, "{backend:?}");
    }
}

#[test]
fn cleanup_leaves_nothing() {
    for backend in BACKENDS {
        for (variant, cleanup) in
            VARIANTS.iter().zip(["--cleanup", "--cleanup-only", "--cleanup", "--cleanup", "--cleanup"])
        {
            let pod = Pod::new();
            let (rules, routes) = (pod.rules(), pod.routes());
            pod.apply(&[backend, variant].concat());
            // Whatever the backend and the settings, which may be wrong by now.
            pod.apply(&[cleanup, "-p", "gone"]);
            assert_eq!(pod.rules(), rules, "{backend:?} {variant:?}");
            if backend == BACKENDS[0] {
                assert_eq!(pod.pod.sh("nft list ruleset"), "", "{variant:?}: not even an empty table");
            }
            assert_eq!(pod.routes(), routes, "{backend:?} {variant:?}");
            pod.apply(&["--cleanup"]);
            assert_eq!(pod.tcp(FAMILIES[0], App, HostA, 80), "world:80");
        }
    }
}

#[test]
fn what_others_set_up_is_left_alone() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.pod.feed(
            "nft",
            &["-f", "-"],
            "table inet other { chain output { type nat hook output priority 0; tcp dport 7 accept; }; }",
        );
        for program in ["iptables-nft", "iptables-legacy"] {
            pod.pod.sh(&format!("{program} -t nat -A OUTPUT -p tcp --dport 9 -j RETURN"));
            pod.pod.sh(&format!("{program} -t nat -N KUBE_MARK"));
            pod.pod.sh(&format!("{program} -t nat -A KUBE_MARK -j MARK --set-mark 9"));
        }
        pod.pod.sh("ip rule add fwmark 9 lookup 99");
        pod.pod.sh("ip route add local default dev lo table 99");
        let before = (pod.rules(), pod.routes());
        pod.apply(&[backend, &["-m", "TPROXY", "--reconcile"]].concat());
        assert_ne!(pod.rules(), before.0);
        pod.apply(&["--cleanup"]);
        assert_eq!((pod.rules(), pod.routes()), (before.0, before.1), "{backend:?}");
    }
}

#[test]
fn istios_own_redirection_is_never_doubled_by_accident() {
    let istio = "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 16001\nCOMMIT\n";
    let istio_nft = "table inet istio-proxy-nat { chain istio-output { tcp dport 80 redirect to :16001; }; }";
    for backend in BACKENDS {
        for (program, arguments, rules) in [
            ("iptables-nft-restore", &["--noflush"][..], istio),
            ("ip6tables-legacy-restore", &["--noflush"], istio),
            ("nft", &["-f", "-"], istio_nft),
        ] {
            let pod = Pod::new();
            pod.pod.feed(program, arguments, rules);
            let before = (pod.rules(), pod.routes());
            let refused = pod.init(backend);
            assert_eq!(refused.status.code(), Some(1), "{backend:?} {program}");
            assert!(stderr(&refused).contains("--reconcile"), "{}", stderr(&refused));
            assert_eq!((pod.rules(), pod.routes()), before, "{backend:?} {program}: refusing changes nothing");
            pod.apply(&[backend, &["--force-apply"]].concat());
            let both = pod.rules().to_lowercase();
            assert!(both.contains("istio") && both.contains("mesh"), "{backend:?} {program}: {both}");
            pod.apply(&[backend, &["--reconcile"]].concat());
            let ours = pod.rules();
            assert!(!ours.to_lowercase().contains("istio"), "{backend:?} {program}: {ours}");
            assert_eq!(pod.tcp(FAMILIES[0], App, HostA, 80), "pod:15001", "{backend:?} {program}");
        }
    }
}

/// A folder with programs that stand in for those of the same names, first in the path.
struct StandIns(PathBuf);

impl StandIns {
    fn new(name: &str, programs: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-init-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (program, script) in programs {
            let path = folder.join(program);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> String {
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.display())
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lists what nft lists, but changes nothing.
const NFT_THAT_REFUSES: &str = r#"case "$*" in *-f*) echo "Error: Could not process rule: Not supported" >&2; exit 1;; esac
exec /usr/sbin/nft "$@""#;
const REFUSE: &str = "echo 'no such table' >&2; exit 4";

#[test]
fn a_failure_leaves_what_was_there_before() {
    let tproxy = ["-m", "TPROXY", "-t", "99", "-r", "98"];
    let refusing = [("nft", NFT_THAT_REFUSES), ("ip6tables-nft-restore", REFUSE), ("ip6tables-legacy-restore", REFUSE)];
    let stand_ins = StandIns::new("refuse", &refusing);
    for backend in BACKENDS {
        for before in [None, Some(VARIANTS[1]), Some(VARIANTS[3])] {
            let pod = Pod::new();
            if let Some(before) = before {
                pod.apply(&[backend, before].concat());
            }
            let kept = (pod.rules(), pod.routes());
            let output = pod.init_with(&[backend, &tproxy[..]].concat(), &[("PATH", &stand_ins.path())]);
            assert_eq!(output.status.code(), Some(1), "{backend:?}");
            assert!(
                stderr(&output).contains("Not supported") || stderr(&output).contains("no such table"),
                "{}",
                stderr(&output)
            );
            assert_eq!((pod.rules(), pod.routes()), kept, "{backend:?} {before:?}");
        }
    }
}

#[test]
fn where_nftables_does_not_do_iptables_is_used_and_the_reason_logged() {
    let lists_nothing = "echo 'Error: Protocol not supported' >&2; exit 1";
    for (name, script, reason) in
        [("refuses", NFT_THAT_REFUSES, "Not supported"), ("absent", lists_nothing, "Protocol not supported")]
    {
        let stand_ins = StandIns::new(name, &[("nft", script)]);
        let pod = Pod::new();
        let output = pod.init_with(&["--backend", "auto"], &[("PATH", &stand_ins.path())]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains(reason) && stderr(&output).contains("iptables-nft"), "{}", stderr(&output));
        assert!(pod.rules().contains("MESH_OUTPUT"));
        assert_eq!(pod.tcp(FAMILIES[1], App, HostA, 80), "pod:15001");
        // What was asked for by name is not replaced by something else.
        let output = pod.init_with(&["--backend", "nft"], &[("PATH", &stand_ins.path())]);
        assert_eq!(output.status.code(), Some(1));
    }
    let pod = Pod::new();
    let output = pod.init(&[]);
    assert!(stderr(&output).contains("backend=\"nft\" reason=\"the program nft is installed\""), "{}", stderr(&output));
}

/// Starts weft-init in the pod and kills it, with or without the programs that it runs, after a delay. Whether it was
/// still at work.
fn kill_after(pod: &Pod, arguments: &[&str], delay: Duration, with_children: bool) -> bool {
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let before = children(std::process::id());
    let mut child = pod.pod.run(|| {
        let mut command = weft_init(arguments, &[]);
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let pid = Pid::from_child(&child);
    thread::sleep(delay);
    // It may be done already.
    let _ = if with_children { kill_process_group(pid, Signal::KILL) } else { kill_process(pid, Signal::KILL) };
    let was_at_work = child.wait().unwrap().code().is_none();
    // What it ran may still be at work when it alone was killed. Orphans become children of this process.
    for orphan in children(std::process::id()) {
        if !before.contains(&orphan) {
            let _ = waitpid(Some(orphan), WaitOptions::empty());
        }
    }
    was_at_work
}

fn children(of: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let texts = texts.collect::<Vec<_>>().join(" ");
    texts.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[test]
fn killed_at_any_point_the_old_or_the_new_ruleset_is_whole() {
    let (old, new) = ([&["-p", "16001"], VARIANTS[2]].concat(), [&["--reconcile"], VARIANTS[3]].concat());
    let pod = Pod::new();
    let list = || pod.pod.sh("nft list ruleset");
    let [old_rules, new_rules] = [&old, &new].map(|arguments| {
        pod.apply(arguments);
        list()
    });
    let new_routes = pod.routes();
    let (mut olds, mut news) = (0, 0);
    for round in 0..KILLS {
        pod.apply(&old);
        kill_after(&pod, &new, KILL_INTERVAL * round, round.is_multiple_of(2));
        let rules = list();
        let is_old = rules == old_rules;
        if is_old {
            olds += 1;
        } else {
            assert_eq!(rules, new_rules, "round {round}");
            news += 1;
        }
        // In both, marked packets find their way: the policy route comes before the rules and goes after them.
        let mark = if is_old { "0x539 lookup 133" } else { "0x4d lookup 78" };
        let routes = pod.routes();
        assert_eq!(routes.matches(mark).count(), 2, "round {round}: {routes}");
        assert_eq!(pod.tcp(FAMILIES[0], World, ThePod, 8080), "pod:15006", "round {round}");
    }
    assert!(olds > 0 && news > 0, "{olds} kills before and {news} after the change prove nothing about the middle");
    pod.apply(&new);
    assert_eq!((list(), pod.routes()), (new_rules, new_routes), "running again completes it");
}

#[test]
fn killed_at_any_point_the_iptables_backend_leaves_one_whole_ruleset() {
    for backend in [BACKENDS[1], BACKENDS[2]] {
        let (old, new) = ([backend, VARIANTS[1]].concat(), [backend, VARIANTS[2]].concat());
        let (old_state, new_state) = (fresh(&old), fresh(&new));
        let pod = Pod::new();
        let mut killed = 0;
        for round in 0..KILLS / 4 {
            pod.apply(&old);
            killed += u32::from(kill_after(&pod, &new, KILL_INTERVAL * round * 4, round.is_multiple_of(2)));
            let state = (pod.rules(), pod.routes());
            if state != old_state {
                assert_eq!(state, new_state, "{backend:?} round {round}");
            }
        }
        assert!(killed > KILLS / 16, "{killed} kills in time prove nothing");
    }
}

/// The processes below one process, itself not among them.
fn descendants(of: u32) -> Vec<Pid> {
    let below = |pid: Pid| descendants(pid.as_raw_nonzero().get().unsigned_abs());
    children(of).into_iter().flat_map(|pid| [vec![pid], below(pid)].concat()).collect()
}

#[test]
fn the_iptables_backend_outlives_the_death_of_what_it_runs() {
    let (old, new) = ([BACKENDS[1], VARIANTS[1]].concat(), [BACKENDS[1], VARIANTS[2]].concat());
    let (old_state, new_state) = (fresh(&old), fresh(&new));
    let pod = Pod::new();
    let mut killed = 0;
    for round in 0..KILLS / 4 {
        pod.apply(&old);
        let mut child = pod.pod.run(|| {
            let mut command = weft_init(&new, &[]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        thread::sleep(KILL_INTERVAL * round * 4);
        for pid in descendants(child.id()) {
            killed += u32::from(kill_process(pid, Signal::KILL).is_ok());
        }
        let status = child.wait().unwrap();
        let state = (pod.rules(), pod.routes());
        let expected = if status.success() { &new_state } else { &old_state };
        assert_eq!(&state, expected, "round {round}: {status}");
    }
    assert!(killed > 0, "nobody was killed, which proves nothing");
}

const KILLS: u32 = 80;
const KILL_INTERVAL: Duration = Duration::from_micros(400);

#[test]
fn ten_thousand_connections_of_the_proxy_never_loop() {
    let pod = Pod::new();
    pod.apply(&[]);
    for (to, expected) in [(HostA, "world:80"), (ThePod, "pod:15006")] {
        let looped = pod.pod.run(|| {
            become_owner(Proxy);
            let family = |round: u32| FAMILIES[usize::from(round.is_multiple_of(2))];
            let arrivals = (0..5_000).map(|round| pod.tcp_here(family(round), Proxy, to, 80));
            arrivals.filter(|arrived| arrived.as_ref().map_or(true, |answer| answer.place != expected)).count()
        });
        assert_eq!(looped, 0, "connections to {to:?} that did not arrive at {expected}");
    }
}

#[test]
fn nothing_is_applied_when_only_that_is_asked_for() {
    let pod = Pod::new();
    pod.apply(&["--skip-rule-apply"]);
    assert_eq!(pod.rules(), "");
    assert_eq!(pod.tcp(FAMILIES[0], App, HostA, 80), "world:80");
}

#[test]
fn ipv6_switched_off_is_no_obstacle() {
    let pod = Pod::new();
    pod.pod.run(|| fs::write(Path::new("/proc/sys/net/ipv6/conf/all/disable_ipv6"), "1").unwrap());
    for backend in BACKENDS {
        pod.apply(backend);
        assert_eq!(pod.tcp(FAMILIES[0], App, HostA, 80), "pod:15001", "{backend:?}");
    }
    pod.apply(&["--verify"]);
}
