use std::ffi::OsString;

use super::*;

fn facts() -> Facts {
    Facts {
        accounts: Accounts::parse(
            "root:x:0:0::/:/bin/sh\nistio-proxy:x:1337:1337:::\nother:x:77:78:::\n",
            "wheel:x:10:\n",
        ),
        resolv_conf: Some("nameserver 10.96.0.10\nnameserver fd00::a\n".to_owned()),
        has_ipv6: true,
        has_ipv4_address: true,
    }
}

fn args(command_line: &[&str]) -> Args {
    Args::parse(["weft-init"].iter().chain(command_line).map(OsString::from), |_| None).unwrap()
}

fn settings(command_line: &[&str]) -> Settings {
    Settings::resolve(&args(command_line), &facts()).unwrap()
}

fn refusal(command_line: &[&str], facts: &Facts) -> String {
    Settings::resolve(&args(command_line), facts).unwrap_err().to_string()
}

fn task(command_line: &[&str]) -> Result<Task, SettingsError> {
    Task::resolve(&args(command_line))
}

#[test]
fn the_defaults_are_those_of_an_injected_init_container() {
    let given = ["-p", "15001", "-z", "15006", "-e", "15008", "-u", "1337", "-g", "1337", "-m", "REDIRECT"];
    let lists = ["-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020", "-o", "", "-q", "", "-c", "", "-k", ""];
    assert_eq!(settings(&[]), settings(&[&given[..], &lists].concat()));
    assert_eq!(settings(&["-m", "TPROXY"]), settings(&["-m", "TPROXY", "-t", "1337", "-r", "133"]));
    assert_eq!(settings(&["-m", ""]).mode, Mode::Redirect);
}

#[test]
fn the_proxys_users_and_groups() {
    let ids = |ids: &[u32]| ids.iter().copied().map(IdRange::one).collect::<Vec<_>>();
    let owners = |command_line: &[&str]| {
        let settings = settings(command_line);
        (settings.proxy_uids, settings.proxy_gids)
    };
    assert_eq!(owners(&["-u", "5,root"]), (ids(&[5, 0]), ids(&[5, 0])), "the group is the user's number");
    assert_eq!(owners(&["-u", "5", "-g", "wheel,11"]), (ids(&[5]), ids(&[10, 11])));
    assert_eq!(owners(&["--envoy-user", "other"]), (ids(&[77]), ids(&[77])), "the number of its group does not count");
    assert_eq!(owners(&["--envoy-user", "absent", "-u", "", "-g", ""]), (ids(&[1337]), ids(&[1337])));
}

#[test]
fn empty_star_and_lists() {
    assert_eq!(settings(&["-b", ""]).inbound_ports, InboundPorts::None);
    assert_eq!(settings(&["-b", "80", "-d", "81"]).inbound_ports, InboundPorts::Only([80].into_iter().collect()));
    assert_eq!(settings(&["-d", ""]).inbound_ports, InboundPorts::AllExcept(PortSet::default()));
    assert_eq!(settings(&["-i", ""]).outbound_ranges, OutboundRanges::Only { ranges: vec![], names_loopback: false });
    assert_eq!(settings(&["--istio-outbound-owner-groups", ""]).owner_groups, OwnerGroups::Only(vec![]));
    let both = ["--istio-outbound-owner-groups", "5", "--istio-outbound-owner-groups-exclude", "6"];
    assert_eq!(settings(&both).owner_groups, OwnerGroups::Only(vec![IdRange::one(5)]));
    let many = (0..65).map(|gid| gid.to_string()).collect::<Vec<_>>().join(",");
    assert!(refusal(&["--istio-outbound-owner-groups", &many], &facts()).contains("at most 64"));
}

#[test]
fn dns_goes_to_the_servers_that_the_pod_has() {
    let dns = |command_line: &[&str], facts: &Facts| {
        Settings::resolve(&args(command_line), facts).map(|settings| settings.dns)
    };
    let servers = |texts: &[&str]| Dns::Servers(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert_eq!(dns(&["--capture-all-dns"], &facts()), Ok(Dns::Off), "effective only along with the other");
    assert_eq!(dns(&["--redirect-dns", "--capture-all-dns"], &facts()), Ok(Dns::All));
    assert_eq!(dns(&["--redirect-dns"], &facts()), Ok(servers(&["10.96.0.10", "fd00::a"])));
    assert_eq!(dns(&["--redirect-dns", "--dual-stack=false"], &facts()), Ok(servers(&["10.96.0.10"])));
    let empty = Facts { resolv_conf: Some(String::new()), ..facts() };
    assert_eq!(dns(&["--redirect-dns"], &empty), Ok(Dns::Off));
    let absent = Facts { resolv_conf: None, ..facts() };
    assert_eq!(dns(&["--redirect-dns"], &absent), Err(SettingsError::NoResolvConf));
    assert_eq!(dns(&["--redirect-dns", "--capture-all-dns"], &absent), Ok(Dns::All));
}

#[test]
fn ipv6_is_redirected_unless_said_otherwise() {
    let ipv6 = |command_line: &[&str], has_ipv6, has_ipv4_address| {
        let facts = Facts { has_ipv6, has_ipv4_address, ..facts() };
        Settings::resolve(&args(command_line), &facts).map(|settings| settings.ipv6)
    };
    assert_eq!(ipv6(&[], true, true), Ok(true));
    assert_eq!(ipv6(&[], false, true), Ok(false));
    assert_eq!(ipv6(&["--dual-stack"], true, true), Ok(true));
    assert_eq!(ipv6(&["--dual-stack"], false, true), Err(SettingsError::NoIpv6));
    assert_eq!(ipv6(&["--dual-stack=false"], true, true), Ok(false));
    assert_eq!(ipv6(&["--dual-stack=false"], true, false), Ok(true), "a pod of IPv6 alone");
}

#[test]
fn what_is_to_be_done() {
    let action = |command_line: &[&str]| task(command_line).unwrap().action;
    let verification = Verification { port: 15002, timeout: Duration::from_secs(5) };
    assert_eq!(action(&[]), Action::Apply { foreign: Foreign::Refuse, verify: None });
    assert_eq!(action(&["--reconcile", "--force-apply"]), Action::Apply { foreign: Foreign::Replace, verify: None });
    assert_eq!(action(&["--force-apply"]), Action::Apply { foreign: Foreign::Keep, verify: None });
    let validated = Action::Apply { foreign: Foreign::Refuse, verify: Some(verification) };
    assert_eq!(action(&["--run-validation"]), validated);
    assert_eq!(action(&["--skip-rule-apply"]), Action::Nothing);
    assert_eq!(action(&["--skip-rule-apply", "--run-validation"]), Action::Verify(verification));
    let probe = Verification { port: 9, timeout: Duration::from_millis(10) };
    assert_eq!(action(&["--verify", "--iptables-probe-port", "9", "--probe-timeout", "10ms"]), Action::Verify(probe));
    assert_eq!(action(&["--cleanup"]), Action::Cleanup);
    assert_eq!(action(&["--cleanup-only", "--skip-rule-apply"]), Action::Cleanup);
    assert!(task(&["--cleanup", "--run-validation"]).is_err());
}

#[test]
fn backends() {
    let backend = |command_line: &[&str]| task(command_line).map(|task| task.backend);
    let in_use = IptablesKind::InUse;
    assert_eq!(backend(&[]), Ok(BackendChoice::Auto { iptables: in_use }));
    assert_eq!(backend(&["--native-nftables"]), Ok(BackendChoice::Nft));
    assert_eq!(backend(&["--native-nftables=false"]), Ok(BackendChoice::Iptables { iptables: in_use }));
    assert_eq!(backend(&["--backend", "auto", "--native-nftables"]), Ok(BackendChoice::Nft));
    let legacy = BackendChoice::Iptables { iptables: IptablesKind::Legacy };
    assert_eq!(backend(&["--backend", "iptables", "--force-iptables-binary", "legacy"]), Ok(legacy));
    assert!(backend(&["--backend", "iptables", "--native-nftables"]).is_err());
}

#[test]
fn namespaces_and_logs() {
    let namespace = |text| task(&["--network-namespace", text]).map(|task| task.network_namespace);
    assert_eq!(namespace("/proc/1/ns/net"), Ok(Some(PathBuf::from("/proc/1/ns/net"))));
    assert_eq!(namespace("pod-1"), Ok(Some(PathBuf::from("/run/netns/pod-1"))));
    assert!(namespace("").is_err() && namespace("..").is_err());
    let level = |text| task(&["--log_output_level", text]).map(|task| task.log.level);
    assert_eq!(level("debug"), Ok(LogLevel::Debug));
    assert_eq!(level("ads:debug,default:warn"), Ok(LogLevel::Warn));
    assert_eq!(level("ads:debug"), Ok(LogLevel::Info));
    assert!(level("default:loud").is_err());
}

#[test]
fn what_has_no_effect_is_told() {
    let told = |command_line: &[&str]| {
        let sentences = settings(command_line).without_effect(&args(command_line));
        sentences.iter().map(|sentence| sentence.split(" has no effect").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(&["-b", "80", "-d", "81"]), ["-d, --istio-local-exclude-ports"]);
    assert_eq!(told(&["-b", "80", "-d", ""]), [""; 0]);
    let groups = ["--istio-outbound-owner-groups", "5", "--istio-outbound-owner-groups-exclude", "6"];
    assert_eq!(told(&groups), ["--istio-outbound-owner-groups-exclude"]);
    assert_eq!(told(&["--capture-all-dns"]), ["--capture-all-dns"]);
    assert_eq!(told(&["--capture-all-dns", "--redirect-dns", "--redirect-dns=false"]), ["--capture-all-dns"]);
    assert_eq!(told(&["-t", "5", "-r", "6"]).len(), 2);
    assert_eq!(
        told(&["-m", "TPROXY", "-t", "5", "-r", "6", "--redirect-dns", "--capture-all-dns", "-d", "9"]),
        [""; 0]
    );
}
