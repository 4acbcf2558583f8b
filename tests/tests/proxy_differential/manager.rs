//! The connection manager's own fields: paths, hosts, callers, local replies, timeouts.

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, acting, exchange, one_host, preserve_case, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    let headers = || one_host(&[to("/", "origin", json!({}))]);
    let scene = |name, manager| Scene { name, manager, routes: headers(), internal: false };
    let internal = |name, manager| Scene { internal: true, ..scene(name, manager) };
    let ours = json!({"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
    let detection = |kind: &str, fields: Value| json!({"original_ip_detection_extensions": [{"name": "d", "typed_config": typed(&format!("envoy.extensions.http.original_ip_detection.{kind}"), fields)}]});
    vec![
        scene("normalize", json!({"normalize_path": true})),
        scene("merge", json!({"merge_slashes": true})),
        scene(
            "all slashes",
            json!({"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}),
        ),
        scene("reject slashes", json!({"path_with_escaped_slashes_action": "REJECT_REQUEST"})),
        scene("redirect slashes", json!({"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"})),
        scene("any port", json!({"strip_any_host_port": true})),
        scene("matching port", json!({"strip_matching_host_port": true})),
        scene("trailing dot", json!({"strip_trailing_host_dot": true})),
        scene("https", json!({"scheme_header_transformation": {"scheme_to_overwrite": "https"}})),
        scene(
            "drop underscores",
            json!({"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}}),
        ),
        scene(
            "reject underscores",
            json!({"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}}),
        ),
        scene("edge", json!({"use_remote_address": true})),
        scene("hops", json!({"use_remote_address": true, "xff_num_trusted_hops": 1})),
        scene("no append", json!({"use_remote_address": true, "skip_xff_append": true})),
        internal("internal edge", json!({"use_remote_address": true, "internal_address_config": ours})),
        scene("mesh hops", json!({"xff_num_trusted_hops": 1, "internal_address_config": ours})),
        scene("mesh", json!({"internal_address_config": ours})),
        scene(
            "xff extension",
            detection("xff.v3.XffConfig", json!({"xff_num_trusted_hops": 1, "skip_xff_append": false})),
        ),
        scene(
            "xff cidrs",
            detection(
                "xff.v3.XffConfig",
                json!({"xff_trusted_cidrs": {"cidrs": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}}),
            ),
        ),
        scene(
            "custom header",
            detection(
                "custom_header.v3.CustomHeaderConfig",
                json!({"header_name": "x-real-ip", "allow_extension_to_set_address_as_trusted": true, "reject_with_status": {"code": "Unauthorized"}}),
            ),
        ),
        scene(
            "ids",
            json!({"use_remote_address": true, "preserve_external_request_id": true, "always_set_request_id_in_response": true}),
        ),
        scene("no ids", json!({"generate_request_id": false})),
        scene("via", json!({"via": "weft", "server_name": "s", "server_header_transformation": "APPEND_IF_ABSENT"})),
        Scene { routes: raw_routes(), ..scene("case lost", json!({})) },
        Scene { routes: raw_routes(), ..scene("case kept", case("DEFAULT")) },
        Scene { routes: raw_routes(), ..scene("case kept, others proper", case("PROPER_CASE")) },
        Scene { routes: raw_routes(), ..scene("stream errors", json!({"stream_error_on_invalid_http_message": true})) },
        Scene {
            routes: raw_routes(),
            ..scene(
                "stream errors of one",
                json!({"stream_error_on_invalid_http_message": true,
                       "http_protocol_options": {"override_stream_error_on_invalid_http_message": false}}),
            )
        },
        scene("cert sanitize", json!({"forward_client_cert_details": "SANITIZE"})),
        scene("cert forward", json!({"forward_client_cert_details": "FORWARD_ONLY"})),
        scene("cert always", json!({"forward_client_cert_details": "ALWAYS_FORWARD_ONLY"})),
        scene(
            "early",
            json!({"early_header_mutation_extensions": [{"name": "e", "typed_config": typed(
            "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            json!({"mutations": [
                {"append": {"header": {"key": "x-early", "value": "%REQ(x-a)%"}}},
                {"remove": "x-gone"},
            ]}))}]}),
        ),
        Scene { routes: local_reply_routes(), ..scene("local reply", local_reply()) },
        Scene {
            routes: local_reply_routes(),
            ..scene(
                "json reply",
                json!({"local_reply_config": {"body_format": {
            "json_format": {"status": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%", "path": "%REQ(:PATH)%", "none": "%REQ(x-none)%", "flags": "[%RESPONSE_FLAGS%]"}}}}),
            )
        },
        Scene {
            routes: duration_routes(),
            ..scene("durations", json!({"common_http_protocol_options": {"max_stream_duration": "0.3s"}}))
        },
    ]
}

fn case(otherwise: &str) -> Value {
    json!({"http_protocol_options": {"header_key_format": {"stateful_formatter": preserve_case(false, otherwise)}}})
}

fn raw_routes() -> Value {
    let kept = acting("/kept/", "raw-case", json!({"prefix_rewrite": "/"}));
    one_host(&[kept, to("/", "raw", json!({}))])
}

fn local_reply() -> Value {
    let status = |code: u32| json!({"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": "k"}}}});
    let header = |name: &str| json!({"header_filter": {"header": {"name": name, "present_match": true}}});
    json!({"local_reply_config": {
        "mappers": [
            {"filter": {"and_filter": {"filters": [status(503), header("x-special")]}}, "status_code": 406, "body": {"inline_string": "special"}},
            {"filter": {"response_flag_filter": {"flags": ["NR"]}}, "status_code": 410,
             "body_format_override": {"text_format_source": {"inline_string": "gone: %REQ(:PATH)% %RESPONSE_CODE% %LOCAL_REPLY_BODY%"}, "content_type": "text/html"}},
            {"filter": status(404), "headers_to_add": [{"header": {"key": "x-mapped", "value": "%RESPONSE_CODE%"}}, {"header": {"key": "x-for", "value": "%REQ(x-a)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]},
        ],
        "body_format": {"text_format_source": {"inline_string": "<%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:%PROTOCOL%>"}},
    }})
}

fn local_reply_routes() -> Value {
    one_host(&[
        to("/to-nobody", "nobody", json!({})),
        to("/to-unknown", "none", json!({})),
        acting("/not-found", "none", json!({"cluster_not_found_response_code": "NOT_FOUND"})),
        json!({"match": {"path": "/direct"}, "direct_response": {"status": 404, "body": {"inline_string": "direct"}}}),
        json!({"match": {"path": "/empty"}, "direct_response": {"status": 204}}),
        to("/origin", "origin", json!({})),
    ])
}

fn duration_routes() -> Value {
    let bound = |fields: Value| json!({"max_stream_duration": fields});
    one_host(&[
        acting("/own", "origin", bound(json!({"max_stream_duration": "0.15s"}))),
        acting("/none", "origin", bound(json!({"max_stream_duration": "0s"}))),
        acting("/grpc-max", "origin", bound(json!({"grpc_timeout_header_max": "1s"}))),
        acting(
            "/grpc-offset",
            "origin",
            bound(json!({"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "0.1s"})),
        ),
        to("/", "origin", json!({})),
    ])
}

pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange(
        "normalize",
        "path: dots",
        "GET /a/../headers/./b/%2e%2E/c?x=/../y HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "normalize",
        "path: escapes",
        "GET /x%41%7e%2F%3a%5c%20%c3%A9 HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("normalize", "path: backslash", "GET /x\\y\\..\\z HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange(
        "normalize",
        "path: above the root",
        "GET /../../x HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("normalize", "path: bad escape", "GET /x%zz%4 HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("normalize", "path: escaped zero", "GET /x%00y HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("normalize", "path: slashes stay", "GET //x///y HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("merge", "merge: slashes", "GET //x///y//?z=//a HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("merge", "merge: dots stay", "GET /x/../y HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange(
        "all slashes",
        "slashes: all",
        "GET /x%2f..%2Fy%5Cz//q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("reject slashes", "slashes: refused", "GET /x%2fy HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("reject slashes", "slashes: refused backslash", "GET /x%5Cy HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("reject slashes", "slashes: in the query", "GET /x?y=%2f HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirect slashes", "slashes: redirected", "GET /x%2fy%5cz?q=%2f HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "redirect slashes",
        "slashes: not redirected for grpc",
        "POST /x%2fy HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange("any port", "host: any port", "GET /headers HTTP/1.1\r\nhost: any.test:1234\r\n"),
    exchange("any port", "host: of IPv6", "GET /headers HTTP/1.1\r\nhost: [::1]:1234\r\n"),
    exchange("any port", "host: without a port", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("matching port", "host: another port", "GET /headers HTTP/1.1\r\nhost: any.test:1234\r\n"),
    exchange("trailing dot", "host: trailing dot", "GET /headers HTTP/1.1\r\nhost: any.test.\r\n"),
    exchange("trailing dot", "host: trailing dot and port", "GET /headers HTTP/1.1\r\nhost: any.test.:80\r\n"),
    exchange("https", "scheme: overwritten", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "https",
        "scheme: overwritten where given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-proto: http\r\n",
    ),
    exchange(
        "drop underscores",
        "underscores: dropped",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx_a: 1\r\nx-b: 2\r\n",
    ),
    exchange("reject underscores", "underscores: refused", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx_a: 1\r\n")
        .look(Look::Answer),
    exchange("edge", "edge: plain", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "edge",
        "edge: everything given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nx-forwarded-port: 9\r\nx-envoy-internal: true\r\nx-envoy-external-address: 1.1.1.1\r\nx-envoy-downstream-service-cluster: c\r\nx-envoy-ip-tags: t\r\nx-envoy-original-path: /o\r\nx-envoy-decorator-operation: d\r\nx-envoy-attempt-count: 9\r\nx-envoy-force-trace: 1\r\n",
    ),
    exchange(
        "hops",
        "hops: one trusted",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\n",
    ),
    exchange("hops", "hops: none given", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "no append",
        "no append: given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4\r\n",
    ),
    exchange("no append", "no append: none given", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "internal edge",
        "internal edge: plain",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-envoy-downstream-service-cluster: c\r\n",
    ),
    exchange(
        "internal edge",
        "internal edge: behind another",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2\r\nx-envoy-downstream-service-cluster: c\r\n",
    ),
    exchange(
        "mesh",
        "mesh: internal by header",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2\r\n",
    ),
    exchange(
        "mesh",
        "mesh: two by header",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2, 10.3.3.3\r\n",
    ),
    exchange(
        "mesh",
        "mesh: external by header",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 11.2.2.2\r\nx-envoy-downstream-service-node: n\r\n",
    ),
    exchange(
        "mesh hops",
        "mesh hops: given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2, 10.3.3.3\r\n",
    ),
    exchange(
        "xff extension",
        "xff extension: given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2, 10.3.3.3\r\n",
    ),
    exchange(
        "xff cidrs",
        "xff cidrs: given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 10.2.2.2, 127.0.0.9\r\n",
    ),
    exchange(
        "custom header",
        "custom header: given",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-real-ip: 10.2.2.2\r\n",
    ),
    exchange("custom header", "custom header: absent", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("ids", "ids: kept and told", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-request-id: mine\r\n"),
    exchange("ids", "ids: made and told", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("no ids", "ids: not made", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("via", "via: added", "GET /headers HTTP/1.1\r\nhost: any.test\r\nvia: 1.1 a\r\n"),
    exchange("via", "via: server kept", "GET /header/server/mine HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "cert sanitize",
        "cert: sanitized",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-client-cert: By=a\r\n",
    ),
    exchange(
        "cert forward",
        "cert: forwarded with TLS alone",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-client-cert: By=a\r\n",
    ),
    exchange(
        "cert always",
        "cert: always forwarded",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-forwarded-client-cert: By=a\r\n",
    ),
    exchange("early", "early: changed", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-a: 1\r\nx-gone: 1\r\n"),
    exchange("local reply", "reply: no route", "GET /nowhere HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("local reply", "reply: no cluster", "GET /to-unknown HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "local reply",
        "reply: no cluster, special",
        "GET /to-unknown HTTP/1.1\r\nhost: any.test\r\nx-special: 1\r\n",
    ),
    exchange("local reply", "reply: not found", "GET /not-found HTTP/1.1\r\nhost: any.test\r\nx-a: 7\r\n"),
    exchange("local reply", "reply: direct", "GET /direct HTTP/1.1\r\nhost: any.test\r\nx-a: 7\r\n"),
    exchange(
        "local reply",
        "reply: of the application",
        "GET /origin HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/404\r\n",
    ),
    exchange(
        "local reply",
        "reply: to grpc",
        "POST /nowhere HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange("local reply", "reply: to a head", "HEAD /nowhere HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("local reply", "reply: empty", "GET /empty HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("json reply", "json reply: no route", "GET /nowhere HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("json reply", "json reply: direct", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("durations", "duration: of the manager", "GET / HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/2s\r\n"),
    exchange("durations", "duration: of the route", "GET /own HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/2s\r\n"),
    exchange(
        "durations",
        "duration: of the route, in time",
        "GET /own HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "durations",
        "duration: none on the route",
        "GET /none HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/500ms\r\n",
    ),
    exchange(
        "durations",
        "duration: asked for by grpc",
        "POST /grpc-max HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ngrpc-timeout: 100m\r\ncontent-length: 0\r\nx-origin-do: delay/2s\r\n",
    ),
    exchange(
        "durations",
        "duration: not asked for by grpc",
        "POST /grpc-max HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nx-origin-do: delay/2s\r\n",
    ),
    exchange(
        "durations",
        "duration: asked for with an offset",
        "GET /grpc-offset HTTP/1.1\r\nhost: any.test\r\ngrpc-timeout: 300m\r\nx-origin-do: delay/2s\r\n",
    ),
    exchange(
        "durations",
        "duration: while the request comes",
        "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: early/delay/2s\r\n",
    )
    .body("abc"),
    exchange(
        "case lost",
        "case lost: raw",
        "GET /raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case lost",
        "case lost: raw, in chunks",
        "POST /raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange(
        "case lost",
        "case lost: kept",
        "GET /kept/raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case lost",
        "case lost: kept, in chunks",
        "POST /kept/raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange(
        "case kept",
        "case kept: raw",
        "GET /raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case kept",
        "case kept: raw, in chunks",
        "POST /raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange(
        "case kept",
        "case kept: kept",
        "GET /kept/raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case kept",
        "case kept: kept, in chunks",
        "POST /kept/raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange(
        "case kept, others proper",
        "case kept, others proper: raw",
        "GET /raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case kept, others proper",
        "case kept, others proper: raw, in chunks",
        "POST /raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange(
        "case kept, others proper",
        "case kept, others proper: kept",
        "GET /kept/raw/names HTTP/1.1\r\nHOST: a.test\r\nX-fOO: 1\r\nx-BAR: 2\r\nX-Foo: 3\r\n",
    )
    .look(Look::Answer),
    exchange(
        "case kept, others proper",
        "case kept, others proper: kept, in chunks",
        "POST /kept/raw/names HTTP/1.1\r\nHosT: a.test\r\nTransfer-ENCODING: chunked\r\n",
    )
    .body("0\r\n\r\n")
    .look(Look::Answer),
    exchange("stream errors", "stream errors: no host", "GET / HTTP/1.1\r\n").look(Look::Answer),
    exchange("stream errors", "stream errors: no header", "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n")
        .look(Look::Answer),
    exchange(
        "stream errors",
        "stream errors: upgrade",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n",
    )
    .look(Look::Answer),
    exchange("stream errors of one", "stream errors of one: no host", "GET / HTTP/1.1\r\n").look(Look::Answer),
    exchange("stream errors of one", "stream errors of one: no header", "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n")
        .look(Look::Answer),
    exchange(
        "stream errors of one",
        "stream errors of one: upgrade",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n",
    )
    .look(Look::Answer),
];
