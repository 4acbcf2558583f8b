use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const CHAIN: &str = "{filters: [{name: t, typed_config: \
    {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]}";
const ADDRESS: &str = "{socket_address: {address: 127.0.0.1, port_value: 8080}}";

fn base() -> String {
    format!("name: l\naddress: {ADDRESS}\nfilter_chains: [{CHAIN}]")
}

fn listener(fields: &str) -> Listener {
    Listener::from_proto(message(&format!("{}\n{fields}", base()))).unwrap()
}

fn refused(yaml: &str) -> String {
    refusal(Listener::from_proto(weft_xds::json::from_yaml(yaml).unwrap()))
}

#[test]
fn defaults_are_envoys() {
    let listener = listener("");
    assert_eq!((&*listener.name, &*listener.stat_prefix), ("l", "127.0.0.1_8080"));
    assert_eq!(listener.addresses, [plain_address("127.0.0.1:8080")]);
    assert!(listener.bind_to_port && !listener.use_original_dst);
    assert_eq!(listener.traffic_direction, TrafficDirection::Unspecified);
    let bind_options = BindOptions {
        enable_reuse_port: true,
        tcp_backlog_size: i32::MAX as u32,
        transparent: None,
        freebind: None,
        tcp_fast_open_queue_length: None,
        enable_mptcp: false,
    };
    assert_eq!((&listener.bind_options, listener.per_connection_buffer_limit_bytes), (&bind_options, 1 << 20));
    assert_eq!((listener.connection_balance, listener.accepts_per_turn), (ConnectionBalance::Kernel, 32));
    assert_eq!(listener.listener_filters_timeout, Some(Duration::from_secs(15)));
    assert!(listener.listener_filters.is_empty() && !listener.continue_on_listener_filters_timeout);
    assert_eq!((listener.filter_chains.len(), listener.access_log.len()), (1, 0));
    assert!(listener.default_filter_chain.is_none());
}

#[test]
fn the_first_chain_may_ask_for_the_proxy_protocol() {
    let asks = CHAIN.replacen('{', "{use_proxy_proto: true, ", 1);
    let of = |chains: &str| {
        let listener = format!("name: l\naddress: {ADDRESS}\nfilter_chains: [{chains}]");
        Listener::from_proto(message(&listener)).unwrap().listener_filters.pop()
    };
    let other = CHAIN.replacen('{', "{filter_chain_match: {destination_port: 1}, ", 1);
    let added = of(&format!("{asks}, {other}")).map(|filter| filter.kind);
    assert!(matches!(added, Some(ListenerFilterKind::ProxyProtocol(_))), "{added:?}");
    assert!(of(&other).is_none());
}

#[test]
fn settings_are_read() {
    let filter = |name: &str, message: &str| {
        format!(
            "{{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.{message}}}}}"
        )
    };
    let listener = listener(&format!(
        "
additional_addresses: [{{address: {{socket_address: {{address: '::', port_value: 8080, ipv4_compat: true}}}}}}]
bind_to_port: false
use_original_dst: true
traffic_direction: OUTBOUND
stat_prefix: s
tcp_backlog_size: 7
enable_reuse_port: false
per_connection_buffer_limit_bytes: 32768
listener_filters: [{}, {}, {}]
listener_filters_timeout: 0s
continue_on_listener_filters_timeout: true
default_filter_chain: {CHAIN}
access_log:
- name: x
  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}
metadata: {{filter_metadata: {{x: {{}}}}}}
max_connections_to_accept_per_socket_event: 1
transparent: false
freebind: true
tcp_fast_open_queue_length: 9
enable_mptcp: true
drain_type: MODIFY_ONLY
ignore_global_conn_limit: true
connection_balance_config: {{exact_balance: {{}}}}",
        filter("a", "original_dst.v3.OriginalDst"),
        filter("b", "tls_inspector.v3.TlsInspector"),
        filter("c", "http_inspector.v3.HttpInspector"),
    ));
    assert_eq!(listener.addresses[1], ListenerAddress { ipv4_compat: true, ..plain_address("[::]:8080") });
    assert!(!listener.bind_to_port && listener.use_original_dst && listener.ignore_global_limit);
    let bind_options = BindOptions {
        enable_reuse_port: false,
        tcp_backlog_size: 7,
        transparent: Some(false),
        freebind: Some(true),
        tcp_fast_open_queue_length: Some(9),
        enable_mptcp: true,
    };
    assert_eq!(listener.bind_options, bind_options);
    assert_eq!((listener.connection_balance, listener.accepts_per_turn), (ConnectionBalance::Exact, 1));
    assert_eq!((listener.traffic_direction, &*listener.stat_prefix), (TrafficDirection::Outbound, "s"));
    assert_eq!(listener.per_connection_buffer_limit_bytes, 32768);
    let kinds = listener.listener_filters.iter().map(|filter| &filter.kind).collect::<Vec<_>>();
    let tls = TlsInspector { hello_bytes_max: 16384, must_be_tls: false };
    assert!(
        matches!(
            kinds[..],
            [ListenerFilterKind::OriginalDst, ListenerFilterKind::TlsInspector(read), ListenerFilterKind::HttpInspector]
                if *read == tls
        ),
        "{kinds:?}"
    );
    assert!(listener.listener_filters_timeout.is_none() && listener.continue_on_listener_filters_timeout);
    assert!(listener.default_filter_chain.is_some() && listener.access_log.len() == 1);
    assert_eq!(listener.all_filter_chains().count(), 2);
}

#[test]
fn a_listener_without_a_name_is_known_by_its_address() {
    let yaml = format!("address: {{socket_address: {{address: '::1', port_value: 1}}}}\nfilter_chains: [{CHAIN}]");
    let listener = Listener::from_proto(message(&yaml)).unwrap();
    assert_eq!((&*listener.name, &*listener.stat_prefix), ("[::1]:1", "[__1]_1"));
}

#[test]
fn a_chain_stays_the_same_while_the_listener_changes_around_it() {
    let first = listener("");
    let renamed = listener("stat_prefix: x");
    assert_ne!(first.hash, renamed.hash);
    assert_eq!(first.filter_chains[0].hash, renamed.filter_chains[0].hash);
    for fields in ["per_connection_buffer_limit_bytes: 1", "traffic_direction: INBOUND"] {
        assert_ne!(first.filter_chains[0].hash, listener(fields).filter_chains[0].hash, "{fields}");
    }
}

#[test]
fn chains_are_checked_against_each_other() {
    assert_eq!(refused(&format!("address: {ADDRESS}")), "filter_chains: at least one filter chain is required");
    assert_eq!(
        refused(&format!("address: {ADDRESS}\nfilter_chains: [{CHAIN}, {CHAIN}]")),
        "filter_chains[1].filter_chain_match: overlaps with the matching rules of filter_chains[0]"
    );
    let matched = CHAIN.replacen('{', "{filter_chain_match: {destination_port: 1}, ", 1);
    assert_eq!(
        refused(&format!("address: {ADDRESS}\ndefault_filter_chain: {matched}")),
        "default_filter_chain.filter_chain_match: the default filter chain takes every connection left"
    );
    let only_default = format!("address: {ADDRESS}\ndefault_filter_chain: {CHAIN}");
    assert!(Listener::from_proto(message(&only_default)).unwrap().filter_chains.is_empty());
}

#[test]
fn errors_have_the_whole_path() {
    let broken = CHAIN.replace("cluster: c", "cluster: c, on_demand: {}");
    let path = "filters[0].typed_config.on_demand: not supported";
    assert_eq!(refused(&format!("address: {ADDRESS}\nfilter_chains: [{broken}]")), format!("filter_chains[0].{path}"));
    assert_eq!(
        refused(&format!("address: {ADDRESS}\ndefault_filter_chain: {broken}")),
        format!("default_filter_chain.{path}")
    );
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        &base(),
        Listener::from_proto,
        &[
            "stats_matcher: {}",
            "fcds_config: {}",
            "filter_chain_matcher: {}",
            "per_connection_buffer_high_watermark_timeout: 1s",
            "deprecated_v1: {}",
            "api_listener: {}",
            "reuse_port: true",
            "internal_listener: {}",
        ],
    );
    assert_refused(
        &base(),
        Listener::from_proto,
        &[
            ("socket_options: [{}]", "socket_options[0].value: value is required"),
            (
                "connection_balance_config: {extend_balance: {}}",
                "connection_balance_config.extend_balance: not supported",
            ),
            (
                "connection_balance_config: {cpu_locality_balance: {}}",
                "connection_balance_config.cpu_locality_balance: not supported",
            ),
            ("listener_filters_timeout: -1s", "listener_filters_timeout: duration must not be negative"),
            ("additional_addresses: [{}]", "additional_addresses[0].address: value is required"),
            (
                "additional_addresses: [{address: {pipe: {path: x}}}]",
                "additional_addresses[0].address.pipe: not supported",
            ),
            ("access_log: [{name: x}]", "access_log[0].typed_config: value is required"),
        ],
    );
    assert_eq!(refused(&format!("filter_chains: [{CHAIN}]")), "address: value is required");
}

#[test]
fn listener_filters_are_chosen_by_their_type() {
    for (filter, expected) in [
        ("{name: envoy.filters.listener.original_dst}", "typed_config: value is required"),
        ("{name: x, config_discovery: {}}", "config_discovery: not supported"),
        (
            "{name: x, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}}",
            "typed_config: google.protobuf.Empty is not supported",
        ),
        (
            "{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, \
             enable_ja3_fingerprinting: true}}",
            "typed_config.enable_ja3_fingerprinting: true is not supported",
        ),
    ] {
        let line = format!("listener_filters: [{filter}]");
        assert_refused(&base(), Listener::from_proto, &[(&line, &format!("listener_filters[0].{expected}"))]);
    }
    let typed_struct = "listener_filters: [{name: x, typed_config: {'@type': type.googleapis.com/xds.type.v3.TypedStruct, \
        type_url: type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]";
    assert!(matches!(listener(typed_struct).listener_filters[0].kind, ListenerFilterKind::OriginalDst));
}

#[test]
fn an_additional_address_has_the_listeners_socket_settings_or_its_own() {
    let listener = listener(
        "
socket_options: [{level: 1, name: 2, int_value: 3}]
tcp_keepalive: {keepalive_time: 5}
additional_addresses:
- address: {socket_address: {address: 127.0.0.1, port_value: 1}}
- address: {socket_address: {address: 127.0.0.1, port_value: 2}}
  socket_options: {}
  tcp_keepalive: {keepalive_probes: 0}",
    );
    let [first, second, third] = &listener.addresses[..] else { panic!("{listener:?}") };
    assert_eq!(
        (first.socket_options.len(), first.tcp_keepalive.and_then(|it| it.time)),
        (1, Some(Duration::from_secs(5)))
    );
    assert_eq!((&second.socket_options, second.tcp_keepalive), (&first.socket_options, first.tcp_keepalive));
    assert_eq!((third.socket_options.len(), third.tcp_keepalive), (0, None));
}

fn plain_address(address: &str) -> ListenerAddress {
    let address = address.parse().unwrap();
    ListenerAddress { address, ipv4_compat: false, socket_options: Vec::new(), tcp_keepalive: None }
}

proptest::proptest! {
    /// What a control plane sends is decoded, and may be wrong in any way.
    #[test]
    fn no_damage_panics(changes in proptest::collection::vec((0_usize..4096, proptest::num::u8::ANY), 1..6)) {
        use prost::Message as _;
        let message: ProtoListener = message(&base());
        let mut bytes = message.encode_to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(message) = ProtoListener::decode(&bytes[..]) {
            let _ = Listener::from_proto(message);
        }
    }
}
