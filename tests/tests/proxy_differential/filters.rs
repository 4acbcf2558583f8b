//! HTTP filters: what they do to requests and responses, what routes set for them, and which statistics and flags tell of it.

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, acting, exchange, filter, filters, one_host, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![cors(), header_mutation(), fault(), buffer(), local_rate_limit(), grpc_web(), switched()]
}

fn scene(name: &'static str, chain: &[Value], routes: Value) -> Scene {
    Scene { name, manager: json!({"http_filters": filters(chain)}), routes, internal: false }
}

fn per_filter(name: &str, kind: &str, fields: Value) -> Value {
    json!({"typed_per_filter_config": {name: typed(&format!("envoy.extensions.filters.http.{kind}"), fields)}})
}

fn cors() -> Scene {
    let policy = |fields: Value| per_filter("cors", "cors.v3.CorsPolicy", fields);
    let mut routes = one_host(&[
        to(
            "/strict",
            "origin",
            policy(
                json!({"forward_not_matching_preflights": false, "allow_origin_string_match": [{"exact": "http://a.test"}]}),
            ),
        ),
        to(
            "/star",
            "origin",
            policy(
                json!({"allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}], "allow_methods": "*", "allow_headers": "*", "allow_private_network_access": true}),
            ),
        ),
        to("/off", "origin", policy(json!({"filter_enabled": {"default_value": {"numerator": 0}}}))),
        to("/to-nobody", "nobody", json!({})),
        to("/", "origin", json!({})),
    ]);
    routes["virtual_hosts"][0]["typed_per_filter_config"] = policy(json!({
        "allow_origin_string_match": [{"prefix": "http://good"}],
        "allow_methods": "GET, POST", "allow_headers": "x-a", "expose_headers": "x-b", "max_age": "60",
        "allow_credentials": true,
    }))["typed_per_filter_config"]
        .clone();
    scene("cors", &[filter("cors", "cors.v3.Cors", json!({}))], routes)
}

fn append(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": key, "value": value}, "append_action": action}})
}

fn header_mutation() -> Scene {
    let mutations = json!({"mutations": {
        "request_mutations": [
            append("x-one", "1", "APPEND_IF_EXISTS_OR_ADD"),
            append("x-given", "again", "APPEND_IF_EXISTS_OR_ADD"),
            append("x-absent", "only", "ADD_IF_ABSENT"),
            append("x-given-too", "not", "ADD_IF_ABSENT"),
            append("x-over", "%REQ(x-given)%-%REQ(:METHOD)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
            append("x-if", "replaced", "OVERWRITE_IF_EXISTS"),
            append("x-if-not", "never", "OVERWRITE_IF_EXISTS"),
            append("x-empty", "%REQ(x-none)%", "APPEND_IF_EXISTS_OR_ADD"),
            {"append": {"header": {"key": "x-kept-empty", "value": ""}, "keep_empty_value": true}},
            {"remove": "x-remove"},
            {"remove_on_match": {"key_matcher": {"prefix": "x-drop-"}}},
            append("x-percent", "100%%", "APPEND_IF_EXISTS_OR_ADD"),
        ],
        "query_parameter_mutations": [
            {"append": {"record": {"key": "added", "value": "%REQ(:METHOD)%"}, "action": "APPEND_IF_EXISTS_OR_ADD"}},
            {"append": {"record": {"key": "a", "value": "2"}, "action": "OVERWRITE_IF_EXISTS"}},
            {"remove": "gone"},
        ],
        "response_mutations": [
            append("x-response", "%RESPONSE_CODE%-%REQ(x-given)%", "APPEND_IF_EXISTS_OR_ADD"),
            append("x-origin-pod", "hidden", "OVERWRITE_IF_EXISTS"),
            {"remove": "x-origin-version"},
        ],
    }});
    let on_route = json!({"mutations": {
        "request_mutations": [append("x-one", "route", "OVERWRITE_IF_EXISTS_OR_ADD"), append("x-order", "route", "APPEND_IF_EXISTS_OR_ADD")],
        "response_mutations": [append("x-response", "route", "APPEND_IF_EXISTS_OR_ADD")],
    }});
    let on_host = json!({"mutations": {"request_mutations": [append("x-order", "host", "APPEND_IF_EXISTS_OR_ADD")]}});
    let per_route = |fields| per_filter("mutate", "header_mutation.v3.HeaderMutationPerRoute", fields);
    let mut routes = one_host(&[
        to("/route", "origin", per_route(on_route)),
        to("/to-nobody", "nobody", json!({})),
        json!({"match": {"path": "/direct"}, "direct_response": {"status": 403, "body": {"inline_string": "direct"}}}),
        to("/", "origin", json!({})),
    ]);
    routes["virtual_hosts"][0]["typed_per_filter_config"] = per_route(on_host)["typed_per_filter_config"].clone();
    scene("header mutation", &[filter("mutate", "header_mutation.v3.HeaderMutation", mutations)], routes)
}

fn always(mut fields: Value) -> Value {
    fields["percentage"] = json!({"numerator": 100});
    fields
}

fn fault() -> Scene {
    let fault = |fields: Value| per_filter("fault", "fault.v3.HTTPFault", fields);
    let routes = one_host(&[
        to("/abort", "origin", fault(json!({"abort": always(json!({"http_status": 503}))}))),
        to(
            "/worded",
            "origin",
            fault(json!({"abort": always(json!({"http_status": 429, "response_body": "worded"}))})),
        ),
        to("/grpc", "origin", fault(json!({"abort": always(json!({"grpc_status": 5}))}))),
        to("/never", "origin", fault(json!({"abort": {"http_status": 503, "percentage": {"numerator": 0}}}))),
        to(
            "/delay",
            "origin",
            fault(
                json!({"delay": always(json!({"fixed_delay": "0.1s"})), "abort": always(json!({"http_status": 500}))}),
            ),
        ),
        to(
            "/asked",
            "origin",
            fault(json!({
            "delay": always(json!({"header_delay": {}})), "abort": always(json!({"header_abort": {}}))})),
        ),
        to("/node", "origin", fault(json!({"downstream_nodes": ["n1"], "abort": always(json!({"http_status": 503}))}))),
        to(
            "/header",
            "origin",
            fault(json!({
            "headers": [{"name": "x-fault", "string_match": {"exact": "yes"}}], "abort": always(json!({"http_status": 503}))})),
        ),
        to(
            "/other",
            "origin",
            fault(json!({"upstream_cluster": "other", "abort": always(json!({"http_status": 503}))})),
        ),
        to(
            "/none-active",
            "origin",
            fault(json!({"max_active_faults": 0, "abort": always(json!({"http_status": 503}))})),
        ),
        to(
            "/slow",
            "origin",
            fault(json!({"response_rate_limit": always(json!({"fixed_limit": {"limit_kbps": 100}}))})),
        ),
        to("/", "origin", json!({})),
    ]);
    scene("fault", &[filter("fault", "fault.v3.HTTPFault", json!({}))], routes)
}

fn buffer() -> Scene {
    let buffer = |fields: Value| per_filter("buffer", "buffer.v3.BufferPerRoute", fields);
    let routes = one_host(&[
        to("/off", "origin", buffer(json!({"disabled": true}))),
        to("/larger", "origin", buffer(json!({"buffer": {"max_request_bytes": 20}}))),
        to("/", "origin", json!({})),
    ]);
    scene("buffer", &[filter("buffer", "buffer.v3.Buffer", json!({"max_request_bytes": 10}))], routes)
}

fn local_rate_limit() -> Scene {
    let limit = |more: Value| {
        let mut fields = json!({
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": {"default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 100}},
        });
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        per_filter("limit", "local_ratelimit.v3.LocalRateLimit", fields)
    };
    let none = json!({"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"});
    let routes = one_host(&[
        to("/status/200/limited", "origin", json!({})),
        to("/two", "origin", limit(json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"}))),
        to(
            "/custom",
            "origin",
            limit(json!({
                "status": {"code": "ServiceUnavailable"},
                "response_headers_to_add": [{"header": {"key": "x-limited", "value": "%REQ(:path)%"}}],
            })),
        ),
        to("/grpc", "origin", limit(json!({"rate_limited_as_resource_exhausted": true}))),
        to(
            "/lenient",
            "origin",
            limit(json!({
                "filter_enforced": {"default_value": {"numerator": 0}},
                "request_headers_to_add_when_not_enforced": [{"header": {"key": "x-over", "value": "limit"}}],
            })),
        ),
        to(
            "/connection",
            "origin",
            limit(json!({"local_rate_limit_per_downstream_connection": true, "token_bucket": none})),
        ),
        to("/", "origin", json!({})),
    ]);
    scene(
        "local rate limit",
        &[filter("limit", "local_ratelimit.v3.LocalRateLimit", json!({"stat_prefix": "limit"}))],
        routes,
    )
}

fn grpc_web() -> Scene {
    let routes = one_host(&[
        acting("/grpc-h1", "origin", json!({"prefix_rewrite": "/grpc"})),
        to("/plain", "origin", json!({})),
        to("/to-nobody", "nobody", json!({})),
        to("/", "origin-h2", json!({})),
    ]);
    scene("grpc web", &[filter("web", "grpc_web.v3.GrpcWeb", json!({}))], routes)
}

/// Filters that are off until a route has something for them, or on until it does not want them.
fn switched() -> Scene {
    let mutate = |value: &str| json!({"mutations": {"request_mutations": [append("x-mutated", value, "APPEND_IF_EXISTS_OR_ADD")]}});
    let mut asleep = filter("asleep", "header_mutation.v3.HeaderMutation", mutate("asleep"));
    asleep["disabled"] = json!(true);
    let awake = filter("awake", "header_mutation.v3.HeaderMutation", mutate("awake"));
    let unknown = json!({"name": "unknown", "is_optional": true, "typed_config": {
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "type.googleapis.com/no.such.Filter", "value": {}}});
    let config = |name: &str, fields: Value| json!({"typed_per_filter_config": {name: typed("envoy.config.route.v3.FilterConfig", fields)}});
    let per_route = typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute", mutate("route"));
    let weighted = |name: &str, more: Value| {
        let mut cluster = json!({"name": name, "weight": 1});
        if let (Some(cluster), Value::Object(more)) = (cluster.as_object_mut(), more) {
            cluster.extend(more);
        }
        json!({"clusters": [cluster]})
    };
    let routes = one_host(&[
        to("/awake-off", "origin", config("awake", json!({"disabled": true}))),
        to("/asleep-on", "origin", config("asleep", json!({"config": {}}))),
        to("/asleep-with", "origin", json!({"typed_per_filter_config": {"asleep": per_route}})),
        json!({
            "match": {"prefix": "/weighted"},
            "route": {"weighted_clusters": weighted("origin", config("awake", json!({"disabled": true})))},
            "typed_per_filter_config": {"awake": typed("envoy.config.route.v3.FilterConfig", json!({"disabled": false, "config": per_route}))},
        }),
        to("/", "origin", json!({})),
    ]);
    scene("switched", &[asleep, awake, unknown], routes)
}

pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("cors", "cors: no origin", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("cors", "cors: allowed origin", "GET /headers HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\n"),
    exchange("cors", "cors: other origin", "GET /headers HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\n"),
    exchange("cors", "cors: preflight", "OPTIONS /headers HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\naccess-control-request-method: GET\r\n"),
    exchange("cors", "cors: preflight of another origin", "OPTIONS /headers HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\naccess-control-request-method: GET\r\n"),
    exchange("cors", "cors: strict preflight", "OPTIONS /strict HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\naccess-control-request-method: GET\r\n"),
    exchange("cors", "cors: strict preflight, allowed", "OPTIONS /strict HTTP/1.1\r\nhost: any.test\r\norigin: http://a.test\r\naccess-control-request-method: GET\r\n"),
    exchange("cors", "cors: preflight of everything", "OPTIONS /star HTTP/1.1\r\nhost: any.test\r\norigin: http://x.test\r\naccess-control-request-method: PUT\r\naccess-control-request-headers: x-q, x-r\r\naccess-control-request-private-network: true\r\n"),
    exchange("cors", "cors: options that is no preflight", "OPTIONS /bytes/3 HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\n"),
    exchange("cors", "cors: switched off", "GET /off HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\n"),
    exchange("cors", "cors: on a local reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\norigin: http://good.test\r\n"),
    exchange("header mutation", "mutation: plain", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("header mutation", "mutation: with headers given", "GET /headers?gone=1&a=1&b=2&gone=2 HTTP/1.1\r\nhost: any.test\r\nx-given: 1\r\nx-given-too: 1\r\nx-over: 1\r\nx-if: 1\r\nx-remove: 1\r\nx-drop-a: 1\r\nx-drop-b: 2\r\nx-one: 0\r\n"),
    exchange("header mutation", "mutation: of the route", "GET /route HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("header mutation", "mutation: of a local reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\nx-given: g\r\n"),
    exchange("header mutation", "mutation: of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: abort", "GET /abort HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: abort of grpc", "POST /abort HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    exchange("fault", "fault: abort of a head", "HEAD /abort HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: worded", "GET /worded HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: grpc status to plain", "GET /grpc HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: grpc status to grpc", "POST /grpc HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    exchange("fault", "fault: never", "GET /never HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: delay and abort", "GET /delay HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: not asked for", "GET /asked HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: asked for", "GET /asked HTTP/1.1\r\nhost: any.test\r\nx-envoy-fault-abort-request: 403\r\nx-envoy-fault-delay-request: 50\r\n"),
    exchange("fault", "fault: asked for in grpc", "GET /asked HTTP/1.1\r\nhost: any.test\r\nx-envoy-fault-abort-grpc-request: 7\r\n"),
    exchange("fault", "fault: asked for as no status", "GET /asked HTTP/1.1\r\nhost: any.test\r\nx-envoy-fault-abort-request: 99\r\n"),
    exchange("fault", "fault: asked for never", "GET /asked HTTP/1.1\r\nhost: any.test\r\nx-envoy-fault-abort-request: 418\r\nx-envoy-fault-abort-request-percentage: 0\r\n"),
    exchange("fault", "fault: of a node", "GET /node HTTP/1.1\r\nhost: any.test\r\nx-envoy-downstream-service-node: n1\r\n"),
    exchange("fault", "fault: of another node", "GET /node HTTP/1.1\r\nhost: any.test\r\nx-envoy-downstream-service-node: n2\r\n"),
    exchange("fault", "fault: by header", "GET /header HTTP/1.1\r\nhost: any.test\r\nx-fault: yes\r\n"),
    exchange("fault", "fault: by no header", "GET /header HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: of another cluster", "GET /other HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: too many at a time", "GET /none-active HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("fault", "fault: slow response", "GET /slow HTTP/1.1\r\nhost: any.test\r\nx-origin-do: bytes/20000\r\n"),
    exchange("buffer", "buffer: fits", "POST /headers HTTP/1.1\r\nhost: any.test\r\ntransfer-encoding: chunked\r\n").body("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
    exchange("buffer", "buffer: with a length", "POST /headers HTTP/1.1\r\nhost: any.test\r\ncontent-length: 10\r\n").body("0123456789"),
    exchange("buffer", "buffer: no body", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("buffer", "buffer: too large", "POST /headers HTTP/1.1\r\nhost: any.test\r\ncontent-length: 11\r\n").body("01234567890").look(Look::Answer),
    exchange("buffer", "buffer: off", "POST /off HTTP/1.1\r\nhost: any.test\r\ncontent-length: 11\r\nx-origin-do: headers\r\n").body("01234567890"),
    exchange("buffer", "buffer: larger", "POST /larger HTTP/1.1\r\nhost: any.test\r\ncontent-length: 11\r\nx-origin-do: headers\r\n").body("01234567890"),
    exchange("local rate limit", "limit: none by default", "GET /status/200/limited HTTP/1.1\r\nhost: any.test\r\n").look(Look::Statuses(3)),
    exchange("local rate limit", "limit: of one, first", "GET /two HTTP/1.1\r\nhost: any.test\r\n").look(Look::Statuses(3)),
    exchange("local rate limit", "limit: of its own status", "GET /custom HTTP/1.1\r\nhost: any.test\r\n").look(Look::Statuses(2)),
    exchange("local rate limit", "limit: in grpc", "POST /grpc HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n").look(Look::Statuses(2)),
    exchange("local rate limit", "limit: not enforced", "GET /lenient HTTP/1.1\r\nhost: any.test\r\n").look(Look::Statuses(3)),
    exchange("local rate limit", "limit: of each connection", "GET /connection HTTP/1.1\r\nhost: any.test\r\n").look(Look::Statuses(3)),
    exchange("grpc web", "web: binary", "POST /grpc/0 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 7\r\n").body("\0\0\0\0\x02hi"),
    exchange("grpc web", "web: text", "POST /grpc/0 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web-text\r\naccept: application/grpc-web-text\r\ncontent-length: 12\r\n").body("AAAAAAJoaQ=="),
    exchange("grpc web", "web: error status", "POST /grpc/5 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 7\r\n").body("\0\0\0\0\x02hi"),
    exchange("grpc web", "web: trailers only", "POST /grpc-only/5 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 7\r\n").body("\0\0\0\0\x02hi"),
    exchange("grpc web", "web: not grpc", "POST /plain/status/404 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 0\r\nx-origin-do: status/404\r\n"),
    exchange("grpc web", "web: to nobody", "POST /to-nobody HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 0\r\n"),
    exchange("grpc web", "web: bad base64", "POST /grpc/0 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 12\r\n").body("AAAAAAJo!!=="),
    exchange("grpc web", "web: cut base64", "POST /grpc/0 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 11\r\n").body("AAAAAAJoaQ="),
    exchange("grpc web", "web: other content type", "POST /headers HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/json\r\ncontent-length: 0\r\n"),
    exchange("switched", "switched: as configured", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("switched", "switched: off by the route", "GET /awake-off HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("switched", "switched: on by the route", "GET /asleep-on HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("switched", "switched: on with its own", "GET /asleep-with HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("switched", "switched: off by the cluster", "GET /weighted HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
];
