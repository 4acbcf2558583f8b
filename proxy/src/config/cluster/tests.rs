use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const BASE: &str = "name: c";
const HTTP: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

fn cluster(fields: &str) -> ClusterConfig {
    ClusterConfig::from_proto(message(&format!("{BASE}\n{fields}"))).unwrap()
}

#[track_caller]
fn assert_each_refused(cases: &[(&str, &str)]) {
    assert_refused(BASE, ClusterConfig::from_proto, cases);
}

fn http_options(fields: &str) -> String {
    format!(
        "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': {HTTP}, {fields}}}}}"
    )
}

fn policy(policies: &[&str]) -> String {
    let policies: Vec<_> = policies
        .iter()
        .map(|policy| format!("{{typed_extension_config: {{name: x, typed_config: {{'@type': {policy}}}}}}}"))
        .collect();
    format!("load_balancing_policy: {{policies: [{}]}}", policies.join(", "))
}

#[test]
fn defaults_are_envoys() {
    let cluster = cluster("");
    assert_eq!((&*cluster.name, &*cluster.stat_name), ("c", "c"));
    assert!(matches!(&cluster.discovery, Discovery::Static(assignment) if assignment.priorities.is_empty()));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.load_balancing.policy, LbPolicy::RoundRobin);
    assert_eq!(cluster.load_balancing.panic_threshold_percent, 50);
    let thresholds = CircuitBreakerThresholds {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        max_connection_pools: u32::MAX,
        retry_budget: None,
        track_remaining: false,
    };
    assert_eq!((&cluster.circuit_breakers.default, &cluster.circuit_breakers.high), (&thresholds, &thresholds));
    assert!(matches!(cluster.protocol, UpstreamProtocol::Http1));
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((cluster.max_requests_per_connection, cluster.per_connection_buffer_limit_bytes), (None, 1 << 20));
    assert!(cluster.bind.is_none() && cluster.transport_socket.is_none() && !cluster.pool_per_downstream);
}

#[test]
fn endpoints_may_come_by_the_stream() {
    let cluster = cluster("type: EDS\neds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}");
    let Discovery::Eds(assignment) = &cluster.discovery else { panic!("{cluster:?}") };
    assert_eq!((&*assignment.key.name, assignment.initial_fetch_timeout), ("c", Some(Duration::from_secs(15))));
    let named = self::cluster("type: EDS\neds_cluster_config: {service_name: s, eds_config: {ads: {}}}");
    assert!(matches!(&named.discovery, Discovery::Eds(assignment) if &*assignment.key.name == "s"));
    assert_each_refused(&[
        ("type: EDS", "eds_cluster_config: value is required"),
        ("type: EDS\neds_cluster_config: {}", "eds_cluster_config.eds_config: value is required"),
        (
            "type: EDS\neds_cluster_config: {eds_config: {self: {}}}",
            "eds_cluster_config.eds_config.self: not supported",
        ),
        ("eds_cluster_config: {}", "eds_cluster_config: only for a cluster of type EDS"),
        ("type: EDS\nload_assignment: {}", "load_assignment: only for a cluster of type STATIC or DNS"),
    ]);
}

#[test]
fn the_control_planes_passthrough_is_read() {
    let cluster = cluster(
        "
type: ORIGINAL_DST
lb_policy: CLUSTER_PROVIDED
connect_timeout: 10s
upstream_bind_config:
  source_address: {address: 127.0.0.6, port_value: 0}
  extra_source_addresses: [{address: {address: '::6', port_value: 0}}]
circuit_breakers:
  thresholds:
  - {max_connections: 1, max_pending_requests: 2, max_requests: 3, max_retries: 4, track_remaining: true}
  - {max_connections: 9}
  - {priority: HIGH, max_retries: 8}
alt_stat_name: s",
    );
    assert!(matches!(cluster.discovery, Discovery::OriginalDst));
    assert_eq!((&cluster.load_balancing.policy, &*cluster.stat_name), (&LbPolicy::ClusterProvided, "s"));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    let bind = cluster.bind.as_ref().unwrap();
    assert_eq!(bind.v4.address, Some("127.0.0.6:0".parse().unwrap()));
    assert_eq!(bind.v6.address, Some("[::6]:0".parse().unwrap()));
    assert_eq!(
        cluster.circuit_breakers.default,
        CircuitBreakerThresholds {
            max_connections: 1,
            max_pending_requests: 2,
            max_requests: 3,
            max_retries: 4,
            track_remaining: true,
            ..Default::default()
        },
        "the first of several holds"
    );
    assert_eq!(cluster.circuit_breakers.high.max_retries, 8);
}

#[test]
fn protocols_are_chosen_by_the_extension_or_by_older_fields() {
    let extended = cluster(&http_options(
        "explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 9}},
         common_http_protocol_options: {idle_timeout: 0s, max_requests_per_connection: 5}",
    ));
    assert!(matches!(&extended.protocol, UpstreamProtocol::Http2(options) if options.max_concurrent_streams == 9));
    assert_eq!((extended.idle_timeout, extended.max_requests_per_connection), (None, Some(5)));
    let explicit_http1 = http_options("explicit_http_config: {http_protocol_options: {}}");
    assert!(matches!(cluster(&explicit_http1).protocol, UpstreamProtocol::Http1));
    let as_asked =
        cluster(&http_options("use_downstream_protocol_config: {http2_protocol_options: {max_concurrent_streams: 7}}"));
    let options = |protocol: &UpstreamProtocol| match protocol {
        UpstreamProtocol::AsDownstream(options) => Some(options.max_concurrent_streams),
        _ => None,
    };
    assert_eq!(options(&as_asked.protocol), Some(7));

    let legacy = cluster(
        "http2_protocol_options: {}\ncommon_http_protocol_options: {idle_timeout: 7s}\nmax_requests_per_connection: 3",
    );
    assert!(matches!(legacy.protocol, UpstreamProtocol::Http2(_)));
    assert_eq!((legacy.idle_timeout, legacy.max_requests_per_connection), (Some(Duration::from_secs(7)), Some(3)));

    let both = cluster(&format!("http2_protocol_options: {{}}\nmax_requests_per_connection: 3\n{explicit_http1}"));
    assert!(matches!(both.protocol, UpstreamProtocol::Http1), "the extension wins");
    assert_eq!(both.max_requests_per_connection, Some(3));
}

#[test]
fn load_balancers_are_chosen_by_the_list_or_by_the_enumeration() {
    let choose = |fields: &str| cluster(fields).load_balancing.policy;
    let least_of = |choice_count| LbPolicy::LeastRequest(LeastRequestConfig { choice_count, ..Default::default() });
    assert_eq!(choose("lb_policy: RANDOM"), LbPolicy::Random);
    assert_eq!(choose("lb_policy: LEAST_REQUEST"), least_of(2));
    let configured = "lb_policy: LEAST_REQUEST\nleast_request_lb_config: {choice_count: 5}";
    assert_eq!(choose(configured), least_of(5));
    assert_eq!(choose("least_request_lb_config: {choice_count: 5}"), LbPolicy::RoundRobin, "belongs to another policy");

    let round_robin = format!("{POLICIES}.round_robin.v3.RoundRobin");
    let least_request = format!("{POLICIES}.least_request.v3.LeastRequest, choice_count: 3");
    let random = format!("{POLICIES}.random.v3.Random");
    let unknown = "type.googleapis.com/google.protobuf.Empty, value: {}";
    assert_eq!(choose(&policy(&[&round_robin])), LbPolicy::RoundRobin);
    assert_eq!(choose(&policy(&[unknown, &least_request, &random])), least_of(3));
    assert_eq!(choose(&format!("lb_policy: MAGLEV\n{}", policy(&[&random]))), LbPolicy::Random);
    let provided = policy(&[&format!("{POLICIES}.cluster_provided.v3.ClusterProvided")]);
    assert_eq!(choose(&format!("type: ORIGINAL_DST\n{provided}")), LbPolicy::ClusterProvided);
}

#[test]
fn load_balancers_that_do_not_fit_are_refused() {
    let original_dst_only = "lb_policy: CLUSTER_PROVIDED is only for a cluster of type ORIGINAL_DST";
    assert_each_refused(&[
        ("lb_policy: LOAD_BALANCING_POLICY_CONFIG", "load_balancing_policy: value is required"),
        ("lb_policy: CLUSTER_PROVIDED", original_dst_only),
        ("type: ORIGINAL_DST", "lb_policy: a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED only"),
        (
            "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: {http_header_name: x}",
            "original_dst_lb_config.http_header_name: ORIGINAL_DST cluster: invalid config http_header_name and use_http_header is false",
        ),
        (
            "round_robin_lb_config: {slow_start_config: {aggression: {default_value: 0, runtime_key: x}}}",
            "round_robin_lb_config.slow_start_config.aggression: value must be greater than 0",
        ),
        (
            "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 9}",
            "maglev_lb_config.table_size: the table size of maglev must be prime number",
        ),
        (
            "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}",
            "ring_hash_lb_config.minimum_ring_size: minimum_ring_size (9) > maximum_ring_size (8)",
        ),
        (
            "lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]}",
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: cannot be equal to keys",
        ),
        (
            &format!("lb_subset_config: {{}}\n{}", policy(&[&format!("{POLICIES}.random.v3.Random")])),
            "lb_subset_config: load_balancing_policy cannot be combined with lb_subset_config",
        ),
        ("load_balancing_policy: {}", "load_balancing_policy.policies: none of the policies is supported"),
        (
            &policy(&["type.googleapis.com/google.protobuf.Empty, value: {}"]),
            "load_balancing_policy.policies: none of the policies is supported",
        ),
    ]);
}

#[test]
fn names_are_looked_up_as_configured() {
    let hosts = "load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.test, port_value: 80}}}}]}]}";
    let dns = |fields: &str| match cluster(&format!("{hosts}\n{fields}")).discovery {
        Discovery::Dns(dns) => Arc::unwrap_or_clone(dns),
        other => panic!("{other:?}"),
    };
    let plain = dns("type: STRICT_DNS");
    assert_eq!((plain.hosts, plain.refresh_rate, plain.respect_ttl), (DnsHosts::Each, Duration::from_secs(5), false));
    assert_eq!((plain.lookup_family, plain.resolver), (LookupFamily::Auto, ResolverConfig::default()));
    let logical = dns(
        "type: LOGICAL_DNS\ndns_lookup_family: V4_ONLY\nrespect_dns_ttl: true\ndns_refresh_rate: 7s\ndns_failure_refresh_rate: {base_interval: 2s}\nuse_tcp_for_dns_lookups: true\ndns_resolvers: [{socket_address: {address: 127.0.0.1, port_value: 53}}]",
    );
    assert_eq!((logical.hosts, logical.lookup_family), (DnsHosts::Logical, LookupFamily::V4Only));
    assert_eq!(logical.failure_refresh_rate, Some((Duration::from_secs(2), Duration::from_secs(20))));
    assert_eq!(
        (&logical.resolver.servers[..], logical.resolver.use_tcp),
        (&["127.0.0.1:53".parse().unwrap()][..], true)
    );
    let extension = dns(
        "cluster_type: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, all_addresses_in_single_endpoint: true, dns_lookup_family: ALL}}",
    );
    assert_eq!((extension.hosts, extension.lookup_family), (DnsHosts::Together, LookupFamily::All));
    assert_each_refused(&[
        (
            "type: LOGICAL_DNS",
            "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
        (
            &format!("type: STRICT_DNS\ndns_refresh_rate: 0.001s\n{hosts}"),
            "dns_refresh_rate: value must be greater than 0.001s",
        ),
        (
            &format!("type: STRICT_DNS\ndns_failure_refresh_rate: {{base_interval: 2s, max_interval: 1s}}\n{hosts}"),
            "dns_failure_refresh_rate.max_interval: must be greater than or equal to base_interval",
        ),
    ]);
}

#[test]
fn connections_are_kept_alive_as_configured() {
    let of = |fields: &str| cluster(&format!("upstream_connection_options: {{{fields}}}")).connection;
    let keepalive = of("tcp_keepalive: {keepalive_time: 7}").tcp_keepalive;
    assert_eq!(keepalive, Some(Keepalive { time: Some(Duration::from_secs(7)), ..Keepalive::default() }));
    assert_eq!(of("tcp_keepalive: {keepalive_probes: 0}").tcp_keepalive, None);
    let first = of("happy_eyeballs_config: {first_address_family_version: V4, first_address_family_count: 2}");
    assert_eq!(first.first_addresses, FirstAddresses { family: FirstFamily::V4, count: 2 });
}

#[test]
fn source_addresses_are_one_a_family() {
    let bind = |fields: &str| format!("upstream_bind_config: {{{fields}}}");
    let first = "source_address: {address: 127.0.0.6, port_value: 0}";
    let older = cluster(&bind(&format!("{first}, additional_source_addresses: [{{address: '::6', port_value: 0}}]")));
    let older = older.bind.unwrap();
    assert!(older.v4.address.is_some() && older.v6.address.is_some());
    let own =
        "extra_source_addresses: [{address: {address: '::6', port_value: 0}, socket_options: {socket_options: []}}]";
    let options = "freebind: true, socket_options: [{level: 1, name: 2, int_value: 3}]";
    let UpstreamBind { v4, v6 } =
        UpstreamBind::clone(&cluster(&bind(&format!("{first}, {options}, {own}"))).bind.unwrap());
    assert_eq!((v4.freebind, v4.options.len(), v6.freebind, v6.options.len()), (true, 1, true, 0));
    let unbound = cluster(&bind(options)).bind.unwrap();
    assert_eq!((unbound.v6.address, unbound.v6.options.len()), (None, 1));
    let second = "extra_source_addresses: [{address: {address: '::6', port_value: 0}}]";
    for (fields, expected) in [
        (second.to_owned(), "source_address: value is required before further addresses"),
        (
            format!("{first}, extra_source_addresses: [{{address: {{address: 127.0.0.7, port_value: 0}}}}]"),
            "extra_source_addresses[0]: a second source address of the same IP version",
        ),
        (
            format!("{first}, {second}, additional_source_addresses: [{{address: '::6', port_value: 0}}]"),
            "additional_source_addresses: extra_source_addresses is there too",
        ),
        (format!("{first}, socket_options: [{{}}]"), "socket_options[0].value: value is required"),
        (format!("{first}, local_address_selector: {{}}"), "local_address_selector: not supported"),
        ("source_address: {address: x, port_value: 0}".to_owned(), "source_address.address: malformed IP address: x"),
    ] {
        assert_each_refused(&[(&bind(&fields), &format!("upstream_bind_config.{expected}"))]);
    }
}

#[test]
fn settings_of_http1_connections() {
    let cluster = cluster(&http_options(
        "explicit_http_config: {http_protocol_options: {enable_trailers: true, send_fully_qualified_url: true}},
         common_http_protocol_options: {max_response_headers_kb: 8, max_headers_count: 7}",
    ));
    assert!(cluster.http1.codec.enable_trailers && cluster.http1.send_fully_qualified_url);
    assert_eq!((cluster.max_response_headers_bytes, cluster.max_headers_count), (Some(8192), 7));
}

#[test]
fn what_http_does_not_do_is_refused() {
    let path = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    let explicit = "explicit_http_config: {http_protocol_options: {}}";
    for (fields, expected) in [
        ("", "upstream_protocol_options: value is required"),
        (
            "use_downstream_protocol_config: {http3_protocol_options: {}}",
            "use_downstream_protocol_config.http3_protocol_options: not supported",
        ),
        ("auto_config: {}", "auto_config: not supported"),
        (
            "explicit_http_config: {http3_protocol_options: {}}",
            "explicit_http_config.http3_protocol_options: not supported",
        ),
        (
            "explicit_http_config: {http_protocol_options: {accept_http_10: true}}",
            "explicit_http_config.http_protocol_options.accept_http_10: not supported",
        ),
        (
            "explicit_http_config: {http2_protocol_options: {allow_metadata: true}}",
            "explicit_http_config.http2_protocol_options.allow_metadata: not supported",
        ),
        (
            &format!("{explicit}, upstream_http_protocol_options: {{auto_sni: true}}"),
            "upstream_http_protocol_options: not supported",
        ),
        (&format!("{explicit}, http_filters: [{{name: x}}]"), "http_filters: not supported"),
        (
            &format!("{explicit}, outlier_detection: {{error_matcher: {{any_match: true}}}}"),
            "outlier_detection: not supported",
        ),
        (&format!("{explicit}, retry_policy: {{}}"), "retry_policy: not supported"),
        (
            &format!("{explicit}, common_http_protocol_options: {{max_connection_duration: 1s}}"),
            "common_http_protocol_options.max_connection_duration: not supported",
        ),
    ] {
        let error = refusal(ClusterConfig::from_proto(
            weft_xds::json::from_yaml(&format!("{BASE}\n{}", http_options(fields))).unwrap(),
        ));
        assert_eq!(error, format!("{path}.{expected}"), "{fields}");
    }
    assert_each_refused(&[
        (
            &format!("typed_extension_protocol_options: {{x: {{'@type': {HTTP}, {explicit}}}}}"),
            "typed_extension_protocol_options[\"x\"]: not supported",
        ),
        ("http2_protocol_options: {allow_metadata: true}", "http2_protocol_options.allow_metadata: not supported"),
        (
            "http_protocol_options: {header_key_format: {stateful_formatter: {name: x}}}",
            "http_protocol_options.header_key_format.stateful_formatter.typed_config: value is required",
        ),
        (
            "common_http_protocol_options: {max_stream_duration: 1s}",
            "common_http_protocol_options.max_stream_duration: not supported",
        ),
    ]);
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        BASE,
        ClusterConfig::from_proto,
        &[
            "transport_socket_matcher: {}",
            "stats_matcher: {}",
            "per_connection_buffer_high_watermark_timeout: 1s",
            "upstream_http_protocol_options: {}",
            "protocol_selection: USE_DOWNSTREAM_PROTOCOL",
            "close_connections_on_host_health_failure: true",
            "filters: [{}]",
            "lrs_server: {}",
            "lrs_report_endpoint_metrics: [x]",
            "track_timeout_budgets: true",
            "upstream_config: {}",
            "track_cluster_stats: {}",
            "preconnect_policy: {}",
            "queuing_policies: {}",
        ],
    );
    assert_each_refused(&[
        ("connect_timeout: 0s", "connect_timeout: value must be greater than 0s"),
        (
            "upstream_connection_options: {set_local_interface_name_on_upstream_connections: true}",
            "upstream_connection_options.set_local_interface_name_on_upstream_connections: not supported",
        ),
        (
            "circuit_breakers: {per_host_thresholds: [{max_retries: 1}]}",
            "circuit_breakers.per_host_thresholds[0]: Unsupported field in per_host_thresholds",
        ),
        ("cluster_type: {name: x}", "cluster_type.typed_config: value is required"),
        ("transport_socket: {name: x}", "transport_socket.typed_config: value is required"),
        ("load_assignment: {endpoints: [{proximity: 1}]}", "load_assignment.endpoints[0].proximity: not supported"),
    ]);
}

proptest::proptest! {
    /// What a control plane sends is decoded, and may be wrong in any way.
    #[test]
    fn no_damage_panics(changes in proptest::collection::vec((0_usize..4096, proptest::num::u8::ANY), 1..6)) {
        use prost::Message as _;
        let endpoint = "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}}";
        let yaml = format!(
            "{BASE}\nload_assignment: {{cluster_name: c, endpoints: [{{priority: 1, lb_endpoints: [{endpoint}]}}]}}\n{}",
            http_options("explicit_http_config: {http2_protocol_options: {}}"),
        );
        let mut bytes = message::<Cluster>(&yaml).encode_to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(message) = Cluster::decode(&bytes[..]) {
            let _ = ClusterConfig::from_proto(message);
        }
    }
}
