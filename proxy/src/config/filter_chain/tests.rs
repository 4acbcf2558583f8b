use super::*;
use crate::config::testing::{assert_refused, message, refusal};

const TCP: &str = "{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
    stat_prefix: t, cluster: c}}";
const EMPTY: &str = "{'@type': type.googleapis.com/google.protobuf.Empty, value: {}}";

fn base() -> String {
    format!("filters: [{TCP}]")
}

fn chain(yaml: &str) -> FilterChain {
    FilterChain::from_proto(message(&format!("{}\n{yaml}", base())), 0).unwrap()
}

fn refused(yaml: &str) -> String {
    refusal(FilterChain::from_proto(weft_xds::json::from_yaml(yaml).unwrap(), 0))
}

fn criteria(yaml: &str) -> FilterChainMatch {
    FilterChainMatch::from_proto(message(yaml)).unwrap()
}

#[test]
fn a_chain_without_settings_takes_everything_in_plain_text() {
    let chain = chain("");
    assert_eq!(chain.filter_chain_match, FilterChainMatch::default());
    assert!(chain.transport_socket.is_none() && chain.transport_socket_connect_timeout.is_none());
    assert!(matches!(&chain.network_filter, NetworkFilter::TcpProxy(proxy) if &*proxy.stat_prefix == "t"));
}

#[test]
fn criteria_are_read() {
    let criteria = criteria(
        "
destination_port: 80
prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}]
server_names: [Example.com, '*.Example.com']
transport_protocol: tls
application_protocols: [h2]
direct_source_prefix_ranges: [{address_prefix: 10.0.0.1, prefix_len: 32}]
source_type: SAME_IP_OR_LOOPBACK
source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}]
source_ports: [1, 2]",
    );
    assert_eq!(criteria.destination_port, Some(80));
    assert_eq!(criteria.prefix_ranges, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(criteria.server_names, ["example.com", "*.example.com"]);
    assert_eq!(criteria.transport_protocol.as_deref(), Some("tls"));
    assert_eq!(
        (&criteria.application_protocols[..], criteria.source_type),
        (&["h2".to_owned()][..], SourceType::SameIpOrLoopback)
    );
    assert_eq!(criteria.direct_source_prefix_ranges, ["10.0.0.1/32".parse().unwrap()]);
    assert_eq!(criteria.source_prefix_ranges, ["::1/128".parse().unwrap()]);
    assert_eq!(criteria.source_ports, [1, 2]);
}

#[test]
fn a_hash_is_of_the_content_and_of_what_the_listener_adds() {
    let hash = |yaml: &str, seed| FilterChain::from_proto(message(&format!("{}\n{yaml}", base())), seed).unwrap().hash;
    assert_eq!(hash("", 1), hash("", 1));
    assert_ne!(hash("", 1), hash("", 2));
    assert_ne!(hash("", 1), hash("name: x", 1));
}

#[test]
fn plain_text_may_be_said() {
    let chain = chain(
        "transport_socket: {name: x, typed_config: \
         {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}\n\
         transport_socket_connect_timeout: 3s",
    );
    assert!(chain.transport_socket.is_none());
    assert_eq!(chain.transport_socket_connect_timeout, Some(Duration::from_secs(3)));
}

#[test]
fn overlaps_are_refused() {
    let overlap = "filter_chains[1].filter_chain_match: overlaps with the matching rules of filter_chains[0]";
    for (first, second) in [
        ("{}", "{}"),
        ("{server_names: [a, b]}", "{server_names: [c, B]}"),
        (
            "{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
            "{prefix_ranges: [{address_prefix: 10.0.0.1, prefix_len: 8}]}",
        ),
        ("{destination_port: 1, source_ports: [1, 2]}", "{destination_port: 1, source_ports: [2, 3]}"),
        ("{application_protocols: [h2]}", "{application_protocols: [h2, http/1.1]}"),
    ] {
        let matches = [criteria(first), criteria(second)];
        assert_eq!(refusal(refuse_overlaps(&matches)), overlap, "{first} {second}");
    }
}

#[test]
fn a_value_that_stands_twice_is_refused() {
    for (yaml, field) in [
        ("{server_names: [a, a]}", "server_names"),
        ("{source_ports: [1, 1]}", "source_ports"),
        (
            "{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}, {address_prefix: 10.0.0.1, prefix_len: 8}]}",
            "prefix_ranges",
        ),
    ] {
        let error = refusal(refuse_overlaps(&[criteria(yaml)]));
        assert_eq!(error, format!("filter_chains[0].filter_chain_match.{field}: a value stands twice"));
    }
}

#[test]
fn more_specific_chains_do_not_overlap_with_others() {
    refuse_overlaps(&[
        criteria("{}"),
        criteria("{destination_port: 1}"),
        criteria("{destination_port: 2}"),
        criteria("{server_names: [a]}"),
        criteria("{server_names: [a], source_type: EXTERNAL}"),
        criteria("{server_names: ['*.a']}"),
        criteria("{transport_protocol: tls}"),
        criteria("{transport_protocol: tls, application_protocols: [h2]}"),
        criteria("{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}"),
        criteria("{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 9}]}"),
    ])
    .unwrap();
}

#[test]
fn thousands_of_chains_are_compared_in_no_time() {
    let matches: Vec<_> = (0..20_000)
        .map(|index| FilterChainMatch { server_names: vec![format!("host-{index}")], ..FilterChainMatch::default() })
        .collect();
    refuse_overlaps(&matches).unwrap();
}

#[test]
fn what_is_not_supported_is_refused() {
    let convert = |message| FilterChain::from_proto(message, 0);
    assert_refused(
        &base(),
        convert,
        &[
            ("filter_chain_match: {address_suffix: x}", "filter_chain_match.address_suffix: not supported"),
            ("filter_chain_match: {suffix_len: 1}", "filter_chain_match.suffix_len: not supported"),
            (
                "filter_chain_match: {server_names: [a, '*']}",
                "filter_chain_match.server_names[1]: partial wildcards are not supported",
            ),
            (
                "filter_chain_match: {server_names: [a*.b]}",
                "filter_chain_match.server_names[0]: partial wildcards are not supported",
            ),
            (
                "filter_chain_match: {prefix_ranges: [{address_prefix: x}]}",
                "filter_chain_match.prefix_ranges[0].address_prefix: malformed IP address: x",
            ),
            (
                "filter_chain_match: {destination_port: 70000}",
                "filter_chain_match.destination_port: 70000 is not a port number",
            ),
            (
                "filter_chain_match: {source_ports: [70000]}",
                "filter_chain_match.source_ports[0]: 70000 is not a port number",
            ),
            ("transport_socket: {name: x}", "transport_socket.typed_config: value is required"),
            (
                &format!("transport_socket: {{name: x, typed_config: {EMPTY}}}"),
                "transport_socket.typed_config: google.protobuf.Empty is not supported",
            ),
        ],
    );
    let without = FilterChain::from_proto(message("name: x"), 0).unwrap();
    assert!(matches!(without.network_filter, NetworkFilter::Close), "its connections are closed, as Envoy does");
    assert_eq!(
        refused(&format!("filters: [{TCP}, {TCP}]")),
        "filters[0]: terminal filter t must be the last filter of its chain"
    );
    assert_eq!(
        refused("filters: [{name: envoy.filters.network.tcp_proxy}]"),
        "filters[0].typed_config: value is required"
    );
    assert_eq!(refused("filters: [{name: x, config_discovery: {}}]"), "filters[0].config_discovery: not supported");
    assert_eq!(
        refused(&format!("filters: [{{name: x, typed_config: {EMPTY}}}]")),
        "filters[0].typed_config: google.protobuf.Empty is not supported"
    );
}

#[test]
fn errors_inside_of_a_filter_have_the_whole_path() {
    let filter =
        TCP.replace("cluster: c", "cluster: c, tunneling_config: {hostname: h, propagate_response_headers: true}");
    assert_eq!(
        refused(&format!("filters: [{filter}]")),
        "filters[0].typed_config.tunneling_config.propagate_response_headers: not supported"
    );
    let invalid = TCP.replace("stat_prefix: t, ", "");
    let error = refused(&format!("filters: [{invalid}]"));
    assert!(error.starts_with("filters[0].typed_config.stat_prefix: "), "{error}");
}
