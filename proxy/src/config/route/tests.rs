use super::*;
use crate::config::fraction::Fraction;
use crate::config::testing::{assert_refused, assert_unsupported, message, refusal};

const TABLE: &str = "name: r";
/// A table's YAML with one route, to which the test adds fields.
fn with_route(fields: &str) -> String {
    format!("virtual_hosts: [{{name: v, domains: ['*'], routes: [{{{fields}}}]}}]")
}

fn with_action(fields: &str) -> String {
    with_route(&format!("match: {{prefix: /}}, route: {{{fields}}}"))
}

fn table(yaml: &str) -> RouteTable {
    RouteTable::from_proto(message(&format!("{TABLE}\n{yaml}"))).unwrap()
}

fn forward(yaml: &str) -> ForwardAction {
    let mut table = table(&with_action(yaml));
    let route = Arc::into_inner(table.virtual_hosts.remove(0).routes.remove(0)).unwrap();
    let RouteAction::Forward(action) = route.action else { panic!("not forwarded") };
    *action
}

/// Each pair is the fields of a route and the refusal below `virtual_hosts[0].routes[0]`.
#[track_caller]
fn assert_route_refused(cases: &[(&str, &str)]) {
    for (fields, expected) in cases {
        let line = with_route(fields);
        assert_refused(TABLE, RouteTable::from_proto, &[(&line, &format!("virtual_hosts[0].routes[0].{expected}"))]);
    }
}

#[test]
fn a_table_is_read() {
    let table = table(
        "
ignore_port_in_host_matching: true
virtual_hosts:
- name: a
  domains: [Reviews, '*.Example.com']
  include_request_attempt_count: true
  include_attempt_count_in_response: true
  routes:
  - name: first
    match: {prefix: /api, case_sensitive: false, grpc: {}, headers: [{name: x}], query_parameters: [{name: q}]}
    route: {cluster: c}
    decorator: {operation: x}
- {name: b, domains: ['*']}",
    );
    assert!(table.ignore_port_in_host_matching && !table.validate_clusters);
    let host = &table.virtual_hosts[0];
    assert_eq!(host.domains, ["reviews", "*.example.com"]);
    assert!(host.include_request_attempt_count && host.include_attempt_count_in_response);
    let rule = &host.routes[0].route_match;
    assert!(matches!(&rule.path, PathMatch::Prefix(prefix) if prefix == "/api"));
    assert!(!rule.case_sensitive && rule.grpc && rule.cookies.is_empty() && rule.share == Fraction::ALWAYS);
    assert_eq!((rule.headers.len(), rule.query_parameters.len(), &*host.routes[0].name), (1, 1, "first"));
    assert!(matches!(rule.query_parameters[0].value, QueryParameterValue::Present(true)));
}

#[test]
fn equal_tables_have_equal_hashes() {
    assert_eq!(table(&with_action("cluster: c")).hash, table(&with_action("cluster: c")).hash);
    assert_ne!(table(&with_action("cluster: c")).hash, table(&with_action("cluster: d")).hash);
}

#[test]
fn an_action_without_settings_has_envoys_defaults() {
    let action = forward("cluster: c");
    assert!(matches!(&action.cluster, ClusterSpecifier::Cluster(name) if &**name == "c"));
    assert_eq!(action.timeout, Some(Duration::from_secs(15)));
    assert_eq!(action.idle_timeout, None);
    assert_eq!(action.cluster_not_found_response_code, 503);
    assert_eq!(action.priority, RoutingPriority::Default);
    assert!(action.retry_policy.is_none() && action.path_rewrite.is_none() && action.host_rewrite.is_none());
}

#[test]
fn an_actions_settings_are_read() {
    let action = forward(
        "cluster: c, timeout: 0s, idle_timeout: 0s, priority: HIGH, prefix_rewrite: /x, host_rewrite_literal: h,
         cluster_not_found_response_code: NOT_FOUND, max_stream_duration: {max_stream_duration: 0s}",
    );
    assert_eq!((action.timeout, action.idle_timeout), (None, Some(None)));
    assert_eq!(action.priority, RoutingPriority::High);
    assert!(matches!(&action.path_rewrite, Some(PathRewrite::Prefix(prefix)) if prefix == "/x"));
    assert!(matches!(&action.host_rewrite, Some(HostRewrite::Literal(host)) if host == "h"));
    assert_eq!(action.cluster_not_found_response_code, 404);
    assert_eq!(forward("cluster: c, idle_timeout: 2s").idle_timeout, Some(Some(Duration::from_secs(2))));
}

#[test]
fn a_virtual_hosts_retry_policy_holds_for_routes_without_one() {
    let table = table(
        "
virtual_hosts:
- name: v
  domains: ['*']
  retry_policy: {num_retries: 7}
  routes:
  - {match: {prefix: /a}, route: {cluster: c}}
  - {match: {prefix: /b}, route: {cluster: c, retry_policy: {num_retries: 1}}}",
    );
    let retries = table.virtual_hosts[0].routes.iter().map(|route| match &route.action {
        RouteAction::Forward(action) => action.retry_policy.as_ref().map(|policy| policy.num_retries),
        RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => None,
    });
    assert_eq!(retries.collect::<Vec<_>>(), [Some(7), Some(1)]);
}

#[test]
fn weighted_clusters_are_read_and_named() {
    let table = table(&with_action(
        "weighted_clusters: {total_weight: 3, clusters: [{name: a, weight: 1}, {name: b, weight: 99}]}",
    ));
    let names: Vec<_> = table.clusters().map(|(path, name)| (path.to_string(), name.to_string())).collect();
    let path = "virtual_hosts[0].routes[0].route.weighted_clusters.clusters";
    assert_eq!(names, [(format!("{path}[0].name"), "a".to_owned()), (format!("{path}[1].name"), "b".to_owned())]);
}

#[test]
fn an_inline_table_checks_its_clusters_unless_told_otherwise() {
    let yaml = |extra: &str| message(&format!("{TABLE}\n{extra}\n{}", with_action("cluster: nope")));
    let known = |name: &str| name == "c";
    let error = RouteTable::inline(yaml("")).unwrap().check_clusters(known).unwrap_err();
    assert_eq!(error.to_string(), "virtual_hosts[0].routes[0].route.cluster: unknown cluster 'nope'");
    RouteTable::inline(yaml("validate_clusters: false")).unwrap().check_clusters(known).unwrap();
    RouteTable::from_proto(yaml("")).unwrap().check_clusters(known).unwrap();
    RouteTable::from_proto(yaml("validate_clusters: true")).unwrap().check_clusters(known).unwrap_err();
}

#[test]
fn a_direct_response_is_bounded() {
    let respond = |body: usize, limit: &str| {
        let body = "x".repeat(body);
        let route =
            format!("match: {{prefix: /}}, direct_response: {{status: 418, body: {{inline_string: '{body}'}}}}");
        RouteTable::from_proto(message(&format!("{TABLE}\n{limit}\n{}", with_route(&route))))
    };
    let table = respond(3, "").unwrap();
    let RouteAction::DirectResponse(response) = &table.virtual_hosts[0].routes[0].action else { panic!("{table:?}") };
    assert_eq!((response.status.as_u16(), &response.body[..]), (418, &b"xxx"[..]));
    respond(4096, "").unwrap();
    assert_eq!(
        refusal(respond(4097, "")),
        "virtual_hosts[0].routes[0].direct_response.body: body is 4097 bytes; maximum is 4096"
    );
    respond(4097, "max_direct_response_body_size_bytes: 5000").unwrap();
}

#[test]
fn a_matcher_takes_the_place_of_routes() {
    let input = "{name: i, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}";
    let route = "{name: a, typed_config: {'@type': type.googleapis.com/envoy.config.route.v3.Route, match: {prefix: /}, route: {cluster: c}}}";
    let matcher =
        format!("matcher: {{matcher_tree: {{input: {input}, exact_match_map: {{map: {{a: {{action: {route}}}}}}}}}}}");
    let host = |more: &str| format!("virtual_hosts: [{{name: v, domains: ['*'], {matcher}{more}}}]");
    let table = table(&host(", require_tls: ALL"));
    let host_of = &table.virtual_hosts[0];
    assert_eq!((host_of.routes.len(), host_of.matched_routes().len(), host_of.tls_redirect), (2, 0, Some(1)));
    assert_eq!(table.clusters().map(|(_, name)| &**name).collect::<Vec<_>>(), ["c"]);
    let both = host(", routes: [{match: {prefix: /}, route: {cluster: c}}]");
    let reason = "virtual_hosts[0].matcher: cannot be set together with routes";
    assert_refused(TABLE, RouteTable::from_proto, &[(&both, reason)]);
}

#[test]
fn mirrors_and_weights_are_read() {
    let action = forward(
        "request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 5}}}, \
         {cluster_header: x, disable_shadow_host_suffix_append: true}], \
         metadata_match: {filter_metadata: {envoy.lb: {a: x, b: y}}}, \
         weighted_clusters: {header_name: w, clusters: [{cluster_header: c, weight: 1}, \
         {name: n, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {b: z}}}}]}",
    );
    assert_eq!((action.mirrors.len(), action.mirrors[0].share.numerator), (2, 5));
    assert!(action.mirrors[0].appends_shadow && !action.mirrors[1].appends_shadow);
    let ClusterSpecifier::Weighted(weighted) = &action.cluster else { panic!("{action:?}") };
    assert!(matches!(&weighted.drawn_by, WeightedDraw::Header(name) if name == "w"));
    assert!(matches!(&weighted.clusters[0].cluster, WeightedTarget::Header(name) if name == "c"));
    let criteria = weighted.clusters[1].metadata_match.as_ref().unwrap();
    let texts: Vec<_> = criteria.values().filter_map(|value| value.as_text()).collect();
    assert_eq!(texts, ["x", "z"], "the cluster's own has the last word");
}

#[test]
fn a_body_is_kept_up_to_a_bound() {
    assert_eq!(BufferLimit::AtMost(10).bytes(5), 5);
    assert_eq!(BufferLimit::Exactly(10).bytes(5), 10);
    assert_route_refused(&[(
        "match: {prefix: /}, route: {cluster: c}, per_request_buffer_limit_bytes: 1, request_body_buffer_limit: 1",
        "request_body_buffer_limit: only one of per_request_buffer_limit_bytes and request_body_buffer_limit may be set",
    )]);
}

#[test]
fn templates_are_rewritten_by_templates() {
    let policy = |side: &str, field: &str, template: &str| {
        format!(
            "{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.path.{side}.uri_template.v3.UriTemplate{field}: \"{template}\"}}}}"
        )
    };
    let matched = policy("match", "MatchConfig, path_template", "/a/{id}");
    let rewrite = policy("rewrite", "RewriteConfig, path_template_rewrite", "/b/{id}");
    let table = table(&with_route(&format!(
        "match: {{path_match_policy: {matched}}}, route: {{cluster: c, path_rewrite_policy: {rewrite}}}"
    )));
    let RouteAction::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!("{table:?}") };
    assert!(matches!(action.path_rewrite, Some(PathRewrite::Template(_))));
    assert_route_refused(&[(
        &format!("match: {{prefix: /}}, route: {{cluster: c, path_rewrite_policy: {rewrite}}}"),
        "route.path_rewrite_policy.typed_config: needs a route that is matched by a template",
    )]);
}

#[test]
fn a_domain_stands_in_one_virtual_host() {
    let shared = |index: usize, item: usize, domain: &str| {
        format!("virtual_hosts[{index}].domains[{item}]: domain '{domain}' stands in route table 'r' already")
    };
    assert_refused(
        TABLE,
        RouteTable::from_proto,
        &[
            ("virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [y, X]}]", &shared(1, 1, "x")),
            ("virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: ['*']}]", &shared(1, 0, "*")),
            ("virtual_hosts: [{name: a, domains: [x, x]}]", &shared(0, 1, "x")),
        ],
    );
}

#[test]
fn a_tables_unsupported_fields_are_refused() {
    assert_unsupported(TABLE, RouteTable::from_proto, &["route_specifiers: [{}]"]);
}

#[test]
fn a_virtual_hosts_unsupported_fields_are_refused() {
    for line in [
        "virtual_clusters: [{}]",
        "retry_policy_typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}",
        "hedge_policy: {}",
        "include_is_timeout_retry_header: true",
        "route_specifiers: [{}]",
    ] {
        let (field, _) = line.split_once(':').unwrap();
        let host = format!("virtual_hosts: [{{name: v, domains: ['*'], {line}}}]");
        assert_refused(TABLE, RouteTable::from_proto, &[(&host, &format!("virtual_hosts[0].{field}: not supported"))]);
    }
}

#[test]
fn a_routes_unsupported_fields_are_refused() {
    for line in ["stat_prefix: x", "route_specifiers: [{}]"] {
        let (field, _) = line.split_once(':').unwrap();
        let fields = format!("match: {{prefix: /}}, route: {{cluster: c}}, {line}");
        assert_route_refused(&[(&fields, &format!("{field}: not supported"))]);
    }
    assert_route_refused(&[
        ("match: {prefix: /}, redirect: {port_redirect: 70000}", "redirect.port_redirect: not a port number"),
        ("match: {prefix: /}, filter_action: {}", "filter_action: not supported"),
        ("match: {prefix: /}, non_forwarding_action: {}", "non_forwarding_action: not supported"),
        ("match: {prefix: /}", "action: value is required"),
        ("route: {cluster: c}", "match: value is required"),
        ("match: {}, route: {cluster: c}", "match.path_specifier: value is required"),
        ("match: {safe_regex: {regex: '('}}, route: {cluster: c}", "match.safe_regex.regex: unclosed group"),
        (
            "match: {prefix: /, runtime_fraction: {}}, route: {cluster: c}",
            "match.runtime_fraction.default_value: value is required",
        ),
        ("match: {prefix: /, cookies: [{}]}, route: {cluster: c}", "match.cookies[0].string_match: value is required"),
        (
            "match: {prefix: /, headers: [{name: a}, {name: ' '}]}, route: {cluster: c}",
            "match.headers[1].name: not a header name",
        ),
        ("match: {prefix: /}, direct_response: {status: 70000}", "direct_response.status: not an HTTP status code"),
    ]);
}

#[test]
fn an_actions_unsupported_fields_are_refused() {
    for line in [
        "retry_policy_typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}",
        "hedge_policy: {}",
    ] {
        let (field, _) = line.split_once(':').unwrap();
        let fields = format!("match: {{prefix: /}}, route: {{cluster: c, {line}}}");
        assert_route_refused(&[(&fields, &format!("route.{field}: not supported"))]);
    }
    let action = |fields: &str| format!("match: {{prefix: /}}, route: {{{fields}}}");
    for (fields, expected) in [
        ("", "cluster_specifier: value is required"),
        ("cluster_specifier_plugin: x", "cluster_specifier_plugin: the table has no plugin 'x'"),
        ("inline_cluster_specifier_plugin: {}", "inline_cluster_specifier_plugin.extension: value is required"),
        ("cluster_header: ' '", "cluster_header: not a header name"),
        ("cluster: c, host_rewrite_header: ' '", "host_rewrite_header: not a header name"),
        ("cluster: c, regex_rewrite: {}", "regex_rewrite.pattern: value is required"),
        (
            "cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\\1'}",
            "regex_rewrite.substitution: names a group that the pattern does not have",
        ),
        (
            "cluster: c, prefix_rewrite: /, regex_rewrite: {pattern: {regex: a}}",
            "prefix_rewrite: only one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite may be set",
        ),
        ("cluster: c, timeout: -1s", "timeout: duration must not be negative"),
        ("cluster: c, host_rewrite_literal: \"a\\nb\"", "host_rewrite_literal: not a valid header value"),
        (
            "cluster: c, retry_policy: {retry_priority: {}}",
            "retry_policy.retry_priority.typed_config: value is required",
        ),
        ("cluster: c, priority: 7", "priority: 7 is not one of the defined enum values"),
    ] {
        assert_route_refused(&[(&action(fields), &format!("route.{expected}"))]);
    }
}

#[test]
fn weights_that_cannot_be_drawn_from_are_refused() {
    for (fields, expected) in [
        ("clusters: [{name: a, weight: 0}]", "clusters: sum of weights must be greater than 0"),
        ("clusters: [{name: a}]", "clusters[0].weight: value is required"),
        ("clusters: [{weight: 1}]", "clusters[0].name: value is required"),
        (
            "clusters: [{name: a, cluster_header: x, weight: 1}]",
            "clusters[0].name: cannot be set together with cluster_header",
        ),
        (
            "clusters: [{name: a, weight: 4000000000}, {name: b, weight: 4000000000}]",
            "clusters: sum of weights must not exceed 4294967295",
        ),
    ] {
        let fields = format!("match: {{prefix: /}}, route: {{weighted_clusters: {{{fields}}}}}");
        assert_route_refused(&[(&fields, &format!("route.weighted_clusters.{expected}"))]);
    }
}

#[test]
fn a_stream_may_have_a_bound_of_its_own() {
    let table = RouteTable::from_proto(message(
        "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c, \
         max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 9s, grpc_timeout_header_offset: 1s}}}]}]}",
    ))
    .unwrap();
    let RouteAction::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!("{table:?}") };
    let bound = MaxStreamDuration {
        duration: Some(Duration::ZERO),
        grpc_timeout_max: Some(Duration::from_secs(9)),
        grpc_timeout_offset: Duration::from_secs(1),
    };
    assert_eq!(action.max_stream_duration, Some(bound));
}

#[test]
fn headers_and_filters_are_set_at_each_level() {
    let level = "request_headers_to_add: [{header: {key: a, value: '%PROTOCOL%'}}], request_headers_to_remove: [b], \
                 response_headers_to_add: [{header: {key: c, value: '%REQ(d)%'}}], \
                 typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}";
    let table: RouteTable = RouteTable::from_proto(message(&format!(
        "{{name: r, {level}, virtual_hosts: [{{name: v, domains: ['*'], {level}, cors: {{max_age: '1'}}, routes: [{{match: {{prefix: /}}, {level}, \
         route: {{cors: {{}}, weighted_clusters: {{clusters: [{{name: w, weight: 1, host_rewrite_literal: h, {level}}}]}}}}}}]}}]}}"
    )))
    .unwrap();
    let host = &table.virtual_hosts[0];
    let RouteAction::Forward(action) = &host.routes[0].action else { panic!("{table:?}") };
    let ClusterSpecifier::Weighted(clusters) = &action.cluster else { panic!("{action:?}") };
    let levels = [
        (&table.request_headers, &table.response_headers, &table.filters),
        (&host.request_headers, &host.response_headers, &host.filters),
        (&host.routes[0].request_headers, &host.routes[0].response_headers, &host.routes[0].filters),
        (&clusters.clusters[0].request_headers, &clusters.clusters[0].response_headers, &clusters.clusters[0].filters),
    ];
    for (request, response, filters) in levels {
        assert_eq!((request.add.len(), request.remove.len(), response.add.len()), (1, 1, 1));
        assert!(!request.reads_request() && response.reads_request() && filters.of("f").is_some_and(|f| f.disabled));
    }
    assert!(table.has_response_formats && host.cors.is_some() && action.cors.is_some());
    let unknown = "typed_per_filter_config: {x: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}}";
    assert_refused(
        TABLE,
        RouteTable::from_proto,
        &[(unknown, "typed_per_filter_config[x].typed_config: google.protobuf.Empty is not supported")],
    );
}
