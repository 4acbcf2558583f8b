//! Each argument that decides where traffic goes: what arrives where, by both backends and both families.

use crate::pod::From::{App, Bypass, Proxy, SecondWorld, Somebody, World};
use crate::pod::To::{HostA, HostB, HostC, Loopback, OtherLoopback, Pod as ThePod, SecondHost, SecondPod};
use crate::pod::{FAMILIES, Family, From, Pod, To, weft_init};

type Expectation = (From, To, u16, &'static str);

/// Applies the arguments by each backend to a pod of its own, and makes the connections in each family.
fn check(arguments: &[&str], expectations: &[Expectation]) {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, arguments].concat());
        expect(&pod, backend, &FAMILIES, expectations);
    }
}

fn expect(pod: &Pod, backend: &[&str], families: &[Family], expectations: &[Expectation]) {
    let mut wrong = Vec::new();
    for family in families {
        for &(from, to, port, expected) in expectations {
            let arrived = pod.tcp(*family, from, to, port);
            if arrived != expected {
                wrong.push(format!("{family:?} {from:?} to {to:?}:{port} arrives at {arrived}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{backend:?}: {wrong:#?}\n{}", pod.rules());
}

const BACKENDS: [&[&str]; 3] = [
    &["--backend", "nft"],
    &["--backend", "iptables", "--force-iptables-binary", "nft"],
    &["--backend", "iptables", "--force-iptables-binary", "legacy"],
];

/// A user and a group of which only one is the proxy's.
const PROXY_GROUP: From = Somebody(1000, 1337);
const PROXY_USER: From = Somebody(1337, 1000);

#[test]
fn without_rules_everything_arrives_where_it_was_sent() {
    let pod = Pod::new();
    let direct = [
        (App, HostA, 80, "world:80"),
        (World, ThePod, 8080, "pod:8080"),
        (SecondWorld, SecondPod, 8080, "pod:8080"),
        (App, SecondHost, 80, "world:80"),
        (App, ThePod, 8080, "pod:8080"),
        (App, Loopback, 8080, "pod:8080"),
        (App, HostA, 1, "refused"),
    ];
    expect(&pod, &[], &FAMILIES, &direct);
}

#[test]
fn by_default_all_tcp_is_redirected_but_the_proxys() {
    check(
        &[],
        &[
            (App, HostA, 80, "pod:15001"),
            (App, HostA, 1, "pod:15001"),
            (App, SecondHost, 443, "pod:15001"),
            (Proxy, HostA, 80, "world:80"),
            (PROXY_GROUP, HostA, 80, "world:80"),
            (PROXY_USER, HostA, 80, "world:80"),
            (World, ThePod, 8080, "pod:15006"),
            (World, ThePod, 1, "pod:15006"),
            (SecondWorld, SecondPod, 8080, "pod:15006"),
            (World, ThePod, 15008, "pod:15008"),
            (World, ThePod, 15020, "pod:15020"),
            (World, ThePod, 15021, "pod:15021"),
            (World, ThePod, 15090, "pod:15090"),
        ],
    );
}

#[test]
fn calls_to_oneself_pass_the_inbound_side_only_from_the_proxy() {
    check(
        &[],
        &[
            (App, Loopback, 8080, "pod:8080"),
            (App, ThePod, 8080, "pod:8080"),
            (Proxy, Loopback, 8080, "pod:8080"),
            (Proxy, ThePod, 8080, "pod:15006"),
            (PROXY_USER, ThePod, 8080, "pod:15006"),
            (Proxy, ThePod, 15008, "pod:15008"),
            (Bypass, ThePod, 8080, "pod:8080"),
            (Bypass, Loopback, 8080, "pod:8080"),
        ],
    );
}

#[test]
fn ports_of_the_proxy() {
    let elsewhere = [
        (App, HostA, 80, "pod:16001"),
        (World, ThePod, 8080, "pod:16006"),
        (Proxy, ThePod, 8080, "pod:16006"),
        (World, ThePod, 16008, "pod:16008"),
        (Proxy, ThePod, 16008, "pod:16008"),
        (World, ThePod, 15008, "pod:16006"),
    ];
    check(&["-p", "16001", "-z", "16006", "-e", "16008"], &elsewhere);
    let long = ["--envoy-port=16001", "--inbound-capture-port=16006", "--inbound-tunnel-port=16008"];
    check(&long, &elsewhere);
}

#[test]
fn users_of_the_proxy() {
    check(
        &["-u", "2000,3000-3002,daemon", "-g", "2500"],
        &[
            (Somebody(2000, 1), HostA, 80, "world:80"),
            (Somebody(3001, 1), HostA, 80, "world:80"),
            // Debian's daemon is user 1.
            (Somebody(1, 1), HostA, 80, "world:80"),
            (Somebody(3003, 1), HostA, 80, "pod:15001"),
            (Somebody(1, 2500), HostA, 80, "world:80"),
            (Proxy, HostA, 80, "pod:15001"),
            (Somebody(2000, 1), ThePod, 8080, "pod:15006"),
        ],
    );
}

#[test]
fn groups_of_the_proxy() {
    check(
        &["--proxy-uid", "2000", "--proxy-gid", "2500,daemon"],
        &[
            (Somebody(1, 2500), HostA, 80, "world:80"),
            (Somebody(5, 1), HostA, 80, "world:80"),
            (Somebody(5, 2000), HostA, 80, "pod:15001"),
            (Somebody(2000, 5), HostA, 80, "world:80"),
        ],
    );
}

#[test]
fn the_group_is_the_user_where_only_that_is_given() {
    check(&["-u", "2000"], &[(Somebody(5, 2000), HostA, 80, "world:80"), (PROXY_GROUP, HostA, 80, "pod:15001")]);
}

#[test]
fn inbound_ports() {
    check(
        &["-b", "80, 8080:8081", "-d", "8080"],
        &[
            (World, ThePod, 80, "pod:15006"),
            // Exclusions count only where everything is included.
            (World, ThePod, 8080, "pod:15006"),
            (World, ThePod, 8081, "pod:15006"),
            (World, ThePod, 8090, "pod:8090"),
            (World, ThePod, 15008, "pod:15008"),
            (App, HostA, 80, "pod:15001"),
        ],
    );
}

#[test]
fn no_inbound_ports() {
    check(
        &["-b", ""],
        &[(World, ThePod, 80, "pod:80"), (Proxy, ThePod, 80, "pod:15006"), (App, HostA, 80, "pod:15001")],
    );
}

#[test]
fn excluded_inbound_ports() {
    check(
        &["-b", "*", "-d", "8080-8081,443"],
        &[
            (World, ThePod, 443, "pod:443"),
            (World, ThePod, 8080, "pod:8080"),
            (World, ThePod, 8081, "pod:8081"),
            (World, ThePod, 8090, "pod:15006"),
            // The defaults are replaced, not added to.
            (World, ThePod, 15020, "pod:15006"),
        ],
    );
}

#[test]
fn excluded_interfaces() {
    check(
        &["-c", "net1"],
        &[
            (SecondWorld, SecondPod, 8080, "pod:8080"),
            (App, SecondHost, 80, "world:80"),
            (World, ThePod, 8080, "pod:15006"),
            (App, HostA, 80, "pod:15001"),
        ],
    );
    check(&["-c", "absent,ne+"], &[(SecondWorld, SecondPod, 8080, "pod:8080"), (App, SecondHost, 80, "world:80")]);
    check(&["-c", "net"], &[(SecondWorld, SecondPod, 8080, "pod:15006"), (App, SecondHost, 80, "pod:15001")]);
}

#[test]
fn outbound_ranges() {
    check(
        &["-i", "10.60.0.0/16,fd60::/16,10.61.0.1/32,fd61::1/128"],
        &[
            (App, HostA, 80, "pod:15001"),
            (App, HostB, 80, "pod:15001"),
            (App, HostC, 80, "world:80"),
            (Proxy, HostA, 80, "world:80"),
            (World, ThePod, 8080, "pod:15006"),
        ],
    );
}

#[test]
fn no_outbound_ranges() {
    check(&["-i", ""], &[(App, HostA, 80, "world:80"), (World, ThePod, 8080, "pod:15006")]);
}

#[test]
fn excluded_outbound_ranges() {
    check(&["-i", "*", "-x", "10.60.0.0/16,fd60::/16"], &[(App, HostA, 80, "world:80"), (App, HostB, 80, "pod:15001")]);
    // Excluded wins over included.
    check(
        &["-i", "10.60.0.0/15,fd60::/15", "-x", "10.60.0.0/16,fd60::/16"],
        &[(App, HostA, 80, "world:80"), (App, HostB, 80, "pod:15001"), (App, HostC, 80, "world:80")],
    );
}

#[test]
fn included_outbound_ports() {
    check(
        &["-i", "", "-q", "443,8080-8081"],
        &[
            (App, HostA, 80, "world:80"),
            (App, HostA, 443, "pod:15001"),
            (App, HostB, 8081, "pod:15001"),
            (Proxy, HostA, 443, "world:443"),
        ],
    );
    // Excluded ranges win over included ports.
    let excluded = [(App, HostA, 443, "world:443"), (App, HostB, 443, "pod:15001"), (App, HostB, 80, "world:80")];
    check(&["-i", "", "-q", "443", "-x", "10.60.0.0/16,fd60::/16"], &excluded);
}

#[test]
fn excluded_outbound_ports() {
    check(
        &["-o", "443,8080:8081"],
        &[
            (App, HostA, 443, "world:443"),
            (App, HostA, 8081, "world:8081"),
            (App, HostA, 80, "pod:15001"),
            // Ahead of all else, as in Istio: the proxy's call to the pod as well.
            (Proxy, ThePod, 443, "pod:443"),
            (Proxy, ThePod, 8090, "pod:15006"),
        ],
    );
}

#[test]
fn interfaces_of_virtual_machines() {
    // The second interface plays the virtual machine's: what comes in there is on its way out.
    check(
        &["-k", "net1"],
        &[
            (SecondWorld, SecondPod, 8080, "pod:15001"),
            (SecondWorld, SecondPod, 15020, "pod:15001"),
            (World, ThePod, 8080, "pod:15006"),
        ],
    );
    check(
        &["-k", "net1", "-i", "10.45.0.2/32,fd45::2/128"],
        &[(SecondWorld, SecondPod, 8080, "pod:15001"), (App, HostA, 80, "world:80")],
    );
    // What is not to be redirected outbound is not redirected inbound either.
    check(&["-k", "net1", "-i", "10.60.0.1/32,fd60::1/128"], &[(SecondWorld, SecondPod, 8080, "pod:8080")]);
}

#[test]
fn owner_groups() {
    check(
        &["--istio-outbound-owner-groups", "2001,2003,daemon"],
        &[
            (Somebody(1000, 2001), HostA, 80, "pod:15001"),
            (Somebody(1000, 2003), HostA, 80, "pod:15001"),
            (Somebody(1000, 1), HostA, 80, "pod:15001"),
            (Somebody(1000, 2002), HostA, 80, "world:80"),
            (Proxy, HostA, 80, "world:80"),
            (World, ThePod, 8080, "pod:15006"),
        ],
    );
    check(&["--istio-outbound-owner-groups", ""], &[(App, HostA, 80, "world:80"), (World, ThePod, 80, "pod:15006")]);
}

#[test]
fn excluded_owner_groups() {
    check(
        &["--istio-outbound-owner-groups-exclude", "2001,3000-3005"],
        &[
            (Somebody(1000, 2001), HostA, 80, "world:80"),
            (Somebody(1000, 3004), HostA, 80, "world:80"),
            (Somebody(1000, 2002), HostA, 80, "pod:15001"),
        ],
    );
}

#[test]
fn loopback_range() {
    for backend in BACKENDS {
        let narrow = Pod::new();
        narrow.apply(backend);
        expect(&narrow, backend, &[Family::V4], &[(Proxy, OtherLoopback, 8080, "pod:15006")]);
        let wide = Pod::new();
        wide.apply(&[backend, &["--istio-outbound-ipv4-loopback-cidr", "127.0.0.0/8"]].concat());
        expect(&wide, backend, &[Family::V4], &[(Proxy, OtherLoopback, 8080, "pod:8080")]);
    }
}

#[test]
fn loopback_named_among_the_ranges_is_redirected() {
    // Without the return for calls to oneself, what is included is redirected, but 127.0.0.1 itself comes earlier.
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["-i", "127.0.0.0/8"]].concat());
        let probes = [(App, OtherLoopback, 8080, "pod:15001"), (App, Loopback, 8080, "pod:8080")];
        expect(&pod, backend, &[Family::V4], &probes);
    }
}

#[test]
fn dns_to_any_server() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["--redirect-dns", "--capture-all-dns"]].concat());
        for family in FAMILIES {
            for (from, to, expected) in [
                (App, HostA, "pod:15053"),
                (App, Loopback, "pod:15053"),
                (Proxy, HostA, "world:53"),
                (Proxy, Loopback, "pod:53"),
                (PROXY_GROUP, HostA, "world:53"),
            ] {
                assert_eq!(pod.tcp(family, from, to, 53), expected, "{backend:?} {family:?} {from:?} {to:?} over TCP");
                assert_eq!(pod.udp(family, from, to, 53), expected, "{backend:?} {family:?} {from:?} {to:?} over UDP");
            }
            assert_eq!(pod.udp(family, App, HostA, 80), "world:80", "other UDP is left alone");
            assert_eq!(pod.tcp(family, Proxy, ThePod, 8080), "pod:15006");
            // With DNS, port 53 of the pod is not the inbound side's from the proxy's user.
            assert_eq!(pod.tcp(family, Proxy, ThePod, 53), "pod:53");
        }
    }
}

#[test]
fn dns_to_the_servers_of_resolv_conf() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let resolv_conf = "search mesh\nnameserver 10.60.0.1\nnameserver fd60::1\nnameserver 10.61.0.1\n";
        pod.init_with_resolv_conf(&[backend, &["--redirect-dns"]].concat(), resolv_conf);
        for (family, to, expected) in [
            (Family::V4, HostA, "pod:15053"),
            (Family::V4, HostB, "pod:15053"),
            (Family::V4, HostC, "world:53"),
            (Family::V6, HostA, "pod:15053"),
            (Family::V6, HostC, "world:53"),
        ] {
            assert_eq!(pod.udp(family, App, to, 53), expected, "{backend:?} {family:?} {to:?} over UDP");
            let tcp = if expected == "world:53" { "pod:15001" } else { expected };
            assert_eq!(pod.tcp(family, App, to, 53), tcp, "{backend:?} {family:?} {to:?} over TCP");
            assert_eq!(pod.udp(family, Proxy, to, 53), "world:53", "{backend:?} {family:?} {to:?} from the proxy");
        }
    }
}

#[test]
fn dns_of_excluded_owner_groups_and_ports_is_left_alone() {
    let dns = ["--redirect-dns", "--capture-all-dns"];
    for backend in BACKENDS {
        let groups = Pod::new();
        groups.apply(&[backend, &dns, &["--istio-outbound-owner-groups-exclude", "2001"]].concat());
        let ports = Pod::new();
        ports.apply(&[backend, &dns, &["-o", "53"]].concat());
        for family in FAMILIES {
            assert_eq!(groups.udp(family, Somebody(1000, 2001), HostA, 53), "world:53");
            assert_eq!(groups.udp(family, App, HostA, 53), "pod:15053");
            assert_eq!(ports.udp(family, App, HostA, 53), "world:53");
            assert_eq!(ports.tcp(family, App, HostA, 53), "world:53");
        }
    }
}

#[test]
fn one_family_alone() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["--dual-stack=false"]].concat());
        expect(&pod, backend, &[Family::V4], &[(App, HostA, 80, "pod:15001"), (World, ThePod, 80, "pod:15006")]);
        expect(&pod, backend, &[Family::V6], &[(App, HostA, 80, "world:80"), (World, ThePod, 80, "pod:80")]);
        pod.apply(&[backend, &["--dual-stack"]].concat());
        expect(&pod, backend, &FAMILIES, &[(App, HostA, 80, "pod:15001"), (World, ThePod, 80, "pod:15006")]);
    }
}

#[test]
fn environment_variables_do_what_flags_do() {
    let pod = Pod::new();
    let variables = [
        ("ENVOY_PORT", "16001"),
        ("INBOUND_CAPTURE_PORT", "16006"),
        ("ISTIO_LOCAL_EXCLUDE_PORTS", "8080"),
        ("ISTIO_SERVICE_EXCLUDE_CIDR", "10.60.0.0/16,fd60::/16"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "2001"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("CAPTURE_ALL_DNS", "true"),
        ("ISTIO_DUAL_STACK", "true"),
        ("ISTIO_EXCLUDE_INTERFACES", "net1"),
        // A flag beats it.
        ("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", "80"),
        // Never filled in, so not given.
        ("PROBE_TIMEOUT", ""),
    ];
    assert!(pod.init_with(&["-o", "443"], &variables).status.success());
    let probes = [
        (App, HostA, 80, "world:80"),
        (App, HostB, 80, "pod:16001"),
        (App, HostB, 443, "world:443"),
        (World, ThePod, 8090, "pod:16006"),
        (World, ThePod, 8080, "pod:8080"),
        (Somebody(1000, 2001), HostB, 80, "world:80"),
        (SecondWorld, SecondPod, 80, "pod:80"),
        (App, HostA, 53, "pod:15053"),
    ];
    expect(&pod, &[], &FAMILIES, &probes);
}

#[test]
fn packets_of_no_known_connection_are_dropped_on_request() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.apply(&[backend, &["--drop-invalid"]].concat());
        expect(&pod, backend, &FAMILIES, &[(App, HostA, 80, "pod:15001"), (World, ThePod, 8080, "pod:15006")]);
        // A packet that acknowledges what was never said is answered by a reset, unless it is dropped.
        assert!(!pod.answers_stray_acknowledgement(), "{backend:?}: the packet was not dropped");
        pod.apply(backend);
        assert!(pod.answers_stray_acknowledgement(), "{backend:?}: without the rule there should be a reset");
    }
}

#[test]
fn another_network_namespace_is_worked_on_from_outside() {
    let pod = Pod::new();
    let output = weft_init(&["--network-namespace", &pod.pod.path()], &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    expect(&pod, &[], &FAMILIES, &[(App, HostA, 80, "pod:15001"), (World, ThePod, 8080, "pod:15006")]);
    let cni = ["--network-namespace", &pod.pod.path(), "--cni-mode", "--backend", "iptables"];
    assert!(weft_init(&cni, &[]).output().unwrap().status.success());
    expect(&pod, &[], &FAMILIES, &[(App, HostA, 80, "pod:15001"), (World, ThePod, 8080, "pod:15006")]);
}
