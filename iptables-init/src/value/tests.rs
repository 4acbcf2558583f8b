use proptest::prelude::*;

use super::*;

fn ports(text: &str) -> Result<Vec<(u16, u16)>, ValueError> {
    PortSet::parse(text).map(|set| set.ranges().iter().map(|range| (range.first, range.last)).collect())
}

#[test]
fn lists_of_ports() {
    assert_eq!(ports(""), Ok(vec![]));
    assert_eq!(ports(" 80 ,,443, "), Ok(vec![(80, 80), (443, 443)]));
    assert_eq!(ports("8000-8080,9000:9001"), Ok(vec![(8000, 8080), (9000, 9001)]));
    assert_eq!(ports(":1023,60000:"), Ok(vec![(0, 1023), (60000, 65535)]));
    assert_eq!(ports("5,3,4,4-6,10"), Ok(vec![(3, 6), (10, 10)]), "what overlaps or touches is merged");
    assert_eq!(ports("0,65535"), Ok(vec![(0, 0), (65535, 65535)]));
    assert_eq!(ports("90-80"), Err(ValueError::RangeBackwards));
    assert_eq!(ports("80,*"), Err(ValueError::Wildcard));
    for text in ["65536", "-1", "+1", "1-", "-", ":", "1-2-3", "http", "0x50", "80 81", "１", "80\n81"] {
        assert_eq!(ports(text), Err(ValueError::PortRange), "{text:?}");
    }
}

#[test]
fn ports_to_listen_on() {
    assert_eq!(port("15001"), Ok(15001));
    for text in ["", "0", "65536", "+80", " 80", "8e1"] {
        assert_eq!(port(text), Err(ValueError::Port), "{text:?}");
    }
}

#[test]
fn lists_of_ranges() {
    let nets = |text| cidrs(text).map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    assert_eq!(nets("").as_deref(), Ok(""));
    assert_eq!(
        nets("10.1.2.3/8, fd00::1/8").as_deref(),
        Ok("10.0.0.0/8 fd00::/8"),
        "bits beyond the prefix are cleared"
    );
    assert_eq!(nets("10.0.0.0/9,10.128.0.0/9,10.0.0.0/16").as_deref(), Ok("10.0.0.0/8"));
    assert_eq!(nets("0.0.0.0/0").as_deref(), Ok("0.0.0.0/0"));
    assert_eq!(nets("10.0.0.0/8,*"), Err(ValueError::Wildcard));
    for text in
        ["10.0.0.1", "10.0.0.0/33", "::/129", "10.0.0/8", "010.0.0.0/8", "fe80::1%eth0/64", "any", "/8", "1.2.3.4/"]
    {
        assert_eq!(nets(text), Err(ValueError::Cidr), "{text:?}");
    }
    assert!(names_loopback("10.0.0.0/8,127.0.0.1/8") && names_loopback("::1/128"));
    assert!(!names_loopback("0.0.0.0/0,::/0"));
}

#[test]
fn the_loopback_range() {
    assert_eq!(loopback("127.0.0.1/32").map(|net| net.to_string()).as_deref(), Ok("127.0.0.1/32"));
    assert_eq!(loopback("127.9.0.1/8").map(|net| net.to_string()).as_deref(), Ok("127.0.0.0/8"));
    for text in ["127.0.0.1", "127.0.0.1/7", "10.0.0.0/8", "::1/128", ""] {
        assert_eq!(loopback(text), Err(ValueError::Loopback), "{text:?}");
    }
}

#[test]
fn owners() {
    let known =
        |name: &str| [("proxy", 7), ("a-b", 8), ("5", 9)].iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
    let owner = |text| owner(text, "user", known).map(|ids| (ids.first, ids.last));
    assert_eq!(owner("1337"), Ok((1337, 1337)));
    assert_eq!(owner("proxy"), Ok((7, 7)));
    assert_eq!(owner("a-b"), Ok((8, 8)), "a name may have a dash");
    assert_eq!(owner("5"), Ok((5, 5)), "a number is a number even where somebody is called so");
    assert_eq!(owner("10-20"), Ok((10, 20)));
    assert_eq!(owner("20-10"), Err(ValueError::RangeBackwards));
    for text in ["4294967295", "-1", "nobody", "1-x", "root\n", ""] {
        assert_eq!(owner(text), Err(ValueError::Owner("user")), "{text:?}");
    }
}

#[test]
fn interfaces() {
    let interface = |text| Interface::parse(text).map(|interface| (interface.name().to_owned(), interface.is_prefix()));
    assert_eq!(interface("eth0"), Ok(("eth0".to_owned(), false)));
    assert_eq!(interface("veth+"), Ok(("veth".to_owned(), true)));
    assert_eq!(interface("br-1.100@x_y"), Ok(("br-1.100@x_y".to_owned(), false)));
    for text in
        ["", "+", "*", "eth*", "eth 0", "-i", "a/b", "..", ".", "a:1", "sixteen-letters-", "eth0\"", "é", "a+b", "\0"]
    {
        assert_eq!(interface(text), Err(ValueError::Interface), "{text:?}");
    }
    let wildcard = Interface::parse("eth+").unwrap();
    assert!(wildcard.is_called("eth7") && wildcard.is_called("eth") && !wildcard.is_called("net1"));
    assert!(Interface::loopback().is_called("lo") && !Interface::loopback().is_called("lo0"));
}

#[test]
fn marks_and_route_tables() {
    assert_eq!(mark("1337"), Ok(1337));
    assert_eq!(mark("0xffffffff"), Ok(u32::MAX));
    for text in ["0", "1338", "0x53a", "4294967296", "0x", "0x+1", "-1", "1/1", "x"] {
        assert_eq!(mark(text), Err(ValueError::Mark), "{text:?}");
    }
    assert_eq!(route_table("133"), Ok(133));
    for text in ["0", "253", "254", "255", "main", "4294967296"] {
        assert_eq!(route_table(text), Err(ValueError::RouteTable), "{text:?}");
    }
}

#[test]
fn switches_are_spelled_as_in_go() {
    for (text, expected) in [("1", true), ("t", true), ("TRUE", true), ("0", false), ("F", false), ("False", false)] {
        assert_eq!(switch(text), Ok(expected));
    }
    for text in ["", "yes", "on", "tRUE", "2"] {
        assert_eq!(switch(text), Err(ValueError::Switch), "{text:?}");
    }
}

#[test]
fn durations_are_written_as_in_go() {
    for (text, milliseconds) in
        [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("2500us", 2), ("1h", 3_600_000)]
    {
        assert_eq!(duration(text).map(|duration| duration.as_millis()), Ok(milliseconds), "{text}");
    }
    for text in ["", "5", "s", "5 s", "-5s", "+5s", "0s", "1h1s", "1e9s", "1.2.3s", "5sec", "99999999999999999999s"] {
        assert_eq!(duration(text), Err(ValueError::Duration), "{text:?}");
    }
}

#[test]
fn name_servers_are_those_of_resolv_conf() {
    let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.96.0.10\nnameserver\tfe80::1%eth0 # comment\nnameserver broken\nnameserver\nnameserver 10.96.0.10\n";
    let expected: Vec<IpAddr> = ["10.96.0.10", "fe80::1"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(name_servers(text), expected);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = (PortSet::parse(&text), port(&text), cidrs(&text), names_loopback(&text), loopback(&text));
        let _ = (owner(&text, "user", |_| None), Interface::parse_list(&text), mark(&text), route_table(&text));
        let _ = (switch(&text), duration(&text), name_servers(&text));
    }

    #[test]
    fn a_set_contains_what_was_listed_and_nothing_else(ranges in prop::collection::vec((any::<u16>(), 0u16..50), 0..20), port: u16) {
        let ranges: Vec<_> = ranges.iter().map(|(first, more)| (*first, first.saturating_add(*more))).collect();
        let text = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",");
        let set = PortSet::parse(&text).unwrap();
        let is_listed = |port| ranges.iter().any(|(first, last)| (*first..=*last).contains(&port));
        prop_assert_eq!(set.contains(port), is_listed(port));
        for range in set.ranges() {
            prop_assert!(is_listed(range.first) && is_listed(range.last));
        }
        for pair in set.ranges().windows(2) {
            prop_assert!(u32::from(pair[0].last) + 1 < u32::from(pair[1].first), "ranges neither overlap nor touch");
        }
    }
}
