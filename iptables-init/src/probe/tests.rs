use std::ffi::OsString;

use super::*;
use crate::args::Args;
use crate::settings::Facts;

/// The connections for IPv4 to be made by `owner` in a pod with these addresses, described in short.
fn probes(
    command_line: &[&str],
    owner: Owner,
    can_become: bool,
    addresses: &[&str],
    has_default_route: bool,
) -> Vec<String> {
    let args = Args::parse(["weft-init"].iter().chain(command_line).map(OsString::from), |_| None).unwrap();
    let facts = Facts { has_ipv6: false, has_ipv4_address: true, ..Facts::default() };
    let settings = Settings::resolve(&args, &facts).unwrap();
    let addresses: Vec<IpNet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let has_route = |address: IpAddr| has_default_route || addresses.iter().any(|net| net.contains(&address));
    let around = Surroundings { owner, can_become: &|_| can_become, addresses: &addresses, has_route: &has_route };
    let chosen = Probes::choose(&settings, &around, 15002);
    assert_eq!(chosen.probes.len() + chosen.left_out.len(), 2, "nothing is left out without a word");
    let describe = |probe: &Probe| {
        format!("{:?} {} {}:{} {}", probe.side, probe.destination, probe.owner.uid, probe.owner.gid, probe.proxy_port)
    };
    chosen.probes.iter().map(describe).collect()
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };
const PROXY: Owner = Owner { uid: 1337, gid: 1337 };
const POD: &[&str] = &["127.0.0.1/8", "10.1.2.3/24"];

#[test]
fn an_ordinary_pod() {
    let expected = ["Outbound 192.0.2.1:15002 0:0 15001", "Inbound 10.1.2.3:15002 1337:1337 15006"];
    assert_eq!(probes(&[], ROOT, true, POD, true), expected);
    assert_eq!(probes(&[], ROOT, true, POD, false)[0], "Outbound 10.1.2.1:15002 0:0 15001", "a neighbour will do");
}

#[test]
fn only_the_loopback() {
    assert_eq!(probes(&[], ROOT, true, &["127.0.0.1/8"], false), ["Inbound 127.0.0.6:15002 1337:1337 15006"]);
    let all_loopback = ["--istio-outbound-ipv4-loopback-cidr", "127.0.0.0/8"];
    assert_eq!(probes(&all_loopback, ROOT, true, &["127.0.0.1/8"], false), [""; 0]);
}

#[test]
fn without_the_privilege_to_become_somebody_else() {
    assert_eq!(probes(&[], ROOT, false, POD, true), ["Outbound 192.0.2.1:15002 0:0 15001"]);
    assert_eq!(probes(&[], PROXY, false, POD, true), ["Inbound 10.1.2.3:15002 1337:1337 15006"]);
    assert_eq!(probes(&[], PROXY, true, POD, true)[0], "Outbound 192.0.2.1:15002 65534:65534 15001");
}

#[test]
fn what_the_settings_exclude_is_not_tried() {
    let outbound = |command_line: &[&str]| probes(command_line, ROOT, true, POD, true)[0].clone();
    assert_eq!(outbound(&["-x", "192.0.2.0/24"]), "Outbound 10.1.2.1:15002 0:0 15001");
    assert_eq!(outbound(&["-i", "10.1.2.2/31"]), "Outbound 10.1.2.2:15002 0:0 15001", "not the pod itself");
    assert_eq!(outbound(&["-i", "", "-q", "443", "-o", "80"]), "Outbound 192.0.2.1:443 0:0 15001");
    assert_eq!(outbound(&["-o", "15002,15003"]), "Outbound 192.0.2.1:15004 0:0 15001");
    assert_eq!(outbound(&["-e", "15002"]), "Outbound 192.0.2.1:15003 0:0 15001");
    assert_eq!(outbound(&["-u", "0", "-g", "65534"]), "Outbound 192.0.2.1:15002 65534:65533 15001");
    assert_eq!(outbound(&["--istio-outbound-owner-groups", "1337,9"]), "Outbound 192.0.2.1:15002 65534:9 15001");
    let inbound_alone = ["Inbound 10.1.2.3:15002 1337:1337 15006"];
    assert_eq!(probes(&["-i", ""], ROOT, true, POD, true), inbound_alone);
    assert_eq!(probes(&["--istio-outbound-owner-groups", ""], ROOT, true, POD, true), inbound_alone);
    assert_eq!(probes(&["-x", "0.0.0.0/0"], ROOT, true, POD, true), inbound_alone);
}
