use weft_xds::json;

use super::*;
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const BASE: &str = "stat_prefix: t\ncluster: c";

#[test]
fn defaults_are_envoys() {
    let proxy = TcpProxy::from_proto(message(BASE)).unwrap();
    assert_eq!(&*proxy.stat_prefix, "t");
    assert!(matches!(&proxy.cluster, TcpCluster::Single(name) if &**name == "c"));
    assert_eq!(proxy.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((proxy.max_downstream_connection_duration, proxy.max_connect_attempts), (None, 1));
    assert!(proxy.access_log.is_empty());
}

#[test]
fn settings_are_read() {
    let proxy = TcpProxy::from_proto(message(
        "
stat_prefix: t
weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}
idle_timeout: 0s
max_connect_attempts: 3
max_downstream_connection_duration: 60s
access_log:
- name: x
  typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}",
    ))
    .unwrap();
    let TcpCluster::Weighted(clusters) = &proxy.cluster else { panic!("{proxy:?}") };
    assert_eq!(
        clusters.iter().map(|cluster| (&*cluster.name, cluster.weight)).collect::<Vec<_>>(),
        [("a", 1), ("b", 2)]
    );
    assert_eq!((proxy.idle_timeout, proxy.max_connect_attempts, proxy.access_log.len()), (None, 3, 1));
    assert_eq!(proxy.max_downstream_connection_duration, Some(Duration::from_secs(60)));
}

#[test]
fn connecting_draining_and_logging_are_read() {
    let proxy = TcpProxy::from_proto(message(
        "
stat_prefix: t
cluster: c
upstream_connect_mode: ON_DOWNSTREAM_DATA
max_early_data_bytes: 7
backoff_options: {base_interval: 1s}
max_downstream_connection_duration: 60s
max_downstream_connection_duration_jitter_percentage: {value: 50}
check_drain_close: true
proxy_protocol_tlvs: [{type: 9, value: aGk=}]
proxy_protocol_tlv_merge_policy: APPEND_IF_EXISTS_OR_ADD
access_log_flush_interval: 3s
access_log_options: {access_log_flush_interval: 2s, flush_access_log_on_start: true}",
    ))
    .unwrap();
    assert_eq!((proxy.connect_on, proxy.early_data_bytes_max), (ConnectOn::FirstBytes, Some(7)));
    let second = Duration::from_secs(1);
    assert_eq!(proxy.back_off.unwrap(), BackOff { base_interval: second, max_interval: 10 * second });
    assert!((proxy.max_downstream_connection_duration_jitter - 0.5).abs() < f64::EPSILON && proxy.closes_on_drain);
    let options =
        AccessLogOptions { flush_interval: Some(2 * second), flush_on_connected: false, flush_on_start: true };
    assert_eq!(proxy.access_log_options, options, "the newer field goes before the older");
}

#[test]
fn connections_may_go_on_as_requests() {
    let tunneling = |fields: &str| {
        let yaml = format!("{BASE}\ntunneling_config: {{hostname: '%DOWNSTREAM_LOCAL_ADDRESS%', {fields}}}");
        TcpProxy::from_proto(message(&yaml)).unwrap().tunneling.unwrap()
    };
    assert!(tunneling("").post_path.is_none());
    let post = tunneling("use_post: true, headers_to_add: [{header: {key: a, value: b}}]");
    assert_eq!((post.post_path.unwrap().as_str(), post.headers.len()), ("/", 1));
    assert_eq!(tunneling("use_post: true, post_path: /p").post_path.unwrap(), "/p");
}

#[test]
fn connections_are_hashed_by_where_they_come_from_where_that_is_asked() {
    let hashes =
        |extra: &str| TcpProxy::from_proto(message(&format!("{BASE}\n{extra}"))).map(|proxy| proxy.hashes_source_ip);
    assert!(!hashes("").unwrap());
    assert!(hashes("hash_policy: [{source_ip: {}}]").unwrap());
    let error = hashes("hash_policy: [{filter_state: {key: k}}]").unwrap_err();
    assert_eq!(error.to_string(), "hash_policy[0].filter_state: not supported");
}

#[test]
fn what_is_not_supported_is_refused() {
    assert_unsupported(
        BASE,
        TcpProxy::from_proto,
        &[
            "on_demand: {}",
            "metadata_match: {}",
            "downstream_idle_timeout: 1s",
            "upstream_idle_timeout: 1s",
            "tunneling_config: {hostname: h, propagate_response_headers: true}",
            "tunneling_config: {hostname: h, request_id_header: x}",
        ],
    );
    assert_refused(
        BASE,
        TcpProxy::from_proto,
        &[
            (
                "upstream_connect_mode: ON_DOWNSTREAM_DATA",
                "max_early_data_bytes: value is required where upstream_connect_mode is not IMMEDIATE",
            ),
            (
                "proxy_protocol_tlvs: [{type: 1, format_string: {text_format: x}}]",
                "proxy_protocol_tlvs[0].format_string: not supported",
            ),
            ("backoff_options: {}", "backoff_options.base_interval: value is required"),
            (
                "backoff_options: {base_interval: 2s, max_interval: 1s}",
                "backoff_options.max_interval: value must not be less than base_interval",
            ),
            (
                "max_downstream_connection_duration: 0s",
                "max_downstream_connection_duration: value must be greater than 0s",
            ),
            ("tunneling_config: {hostname: '%FOO%'}", "tunneling_config.hostname: '%FOO%' is not supported"),
            ("tunneling_config: {hostname: h, post_path: /p}", "tunneling_config.post_path: needs use_post"),
            ("access_log: [{name: x}]", "access_log[0].typed_config: value is required"),
        ],
    );
    for (clusters, expected) in [
        ("{name: a}", "weighted_clusters.clusters: sum of weights must be greater than 0"),
        ("{name: a, weight: 1, metadata_match: {}}", "weighted_clusters.clusters[0].metadata_match: not supported"),
    ] {
        let yaml = format!("{{stat_prefix: t, weighted_clusters: {{clusters: [{clusters}]}}}}");
        assert_eq!(refusal(TcpProxy::from_proto(json::from_yaml(&yaml).unwrap())), expected);
    }
    let nowhere = json::from_yaml("stat_prefix: t").unwrap();
    assert_eq!(refusal(TcpProxy::from_proto(nowhere)), "cluster_specifier: value is required");
}
