//! Access logs: what each command says, in text and in JSON, and of which requests.

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, acting, exchange, file_log, one_host, to};

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |name, format: Value| Scene {
        name,
        manager: json!({"access_log": [file_log("LOG".as_ref(), &format)]}),
        routes: routes(),
        internal: false,
    };
    let text = |format: &str| json!({"text_format_source": {"inline_string": format!("%REQ(X-TEST-ID)%\t{format}\n")}});
    // One line each: the name of the case, and then one fact only.
    vec![
        scene(
            "log messages",
            text(
                "%REQ(x-a?:authority)%|%REQ(x-none?x-b)%|%REQ(x-long):4%|%RESP(x-origin-pod?:status)%|%RESP(:status)%|%TRAILER(x-none)%|%PATH(NQ)%|%PATH(WQ:PATH)%|%QUERY_PARAM(q)%|%QUERY_PARAM(none)%",
            ),
        ),
        scene(
            "log facts",
            text(
                "%RESPONSE_CODE%|%RESPONSE_CODE_DETAILS%|%RESPONSE_FLAGS%|%RESPONSE_FLAGS_LONG%|%CONNECTION_TERMINATION_DETAILS%|%UPSTREAM_CLUSTER%|%UPSTREAM_CLUSTER_RAW%|%UPSTREAM_HOST%|%UPSTREAM_HOST_NAME%|%UPSTREAM_HOST_NAME_WITHOUT_PORT%|%UPSTREAM_REMOTE_ADDRESS%|%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%UPSTREAM_REMOTE_PORT%|%UPSTREAM_PROTOCOL%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            ),
        ),
        scene(
            "log connection",
            text(
                "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%|%REQUESTED_SERVER_NAME%|%FILTER_CHAIN_NAME%|%ROUTE_NAME%|%VIRTUAL_CLUSTER_NAME%|%TRACE_ID%|%ACCESS_LOG_TYPE%|%HOSTNAME%|%ENVIRONMENT(PATH):3%|%DYNAMIC_METADATA(a:b)%|%FILTER_STATE(a:PLAIN)%|%UPSTREAM_TRANSPORT_FAILURE_REASON%",
            ),
        ),
        scene("log grpc", text("%GRPC_STATUS%|%GRPC_STATUS(SNAKE_STRING)%|%GRPC_STATUS_NUMBER%")),
        scene(
            "log sizes",
            text(
                "%REQUEST_HEADERS_BYTES%|%RESPONSE_HEADERS_BYTES%|%RESPONSE_TRAILERS_BYTES%|%BYTES_RECEIVED%|%BYTES_SENT%",
            ),
        ),
        scene("log omits", {
            let mut format = text("[%REQ(x-none)%]|[%RESP(x-none)%]|[%ROUTE_NAME%]|[%UPSTREAM_HOST%]");
            format["omit_empty_values"] = json!(true);
            format
        }),
        conditional(),
        occasions("log start", json!({"access_log_options": {"flush_access_log_on_new_request": true}})),
        occasions("log start, as it was", json!({"flush_access_log_on_new_request": true})),
        occasions("log periodic", json!({"access_log_options": {"access_log_flush_interval": "0.1s"}})),
        occasions("log periodic, as it was", json!({"access_log_flush_interval": "0.1s"})),
    ]
}

/// Lines besides the one at the end; and of which of them some logs are.
fn occasions(name: &'static str, mut manager: Value) -> Scene {
    let said = "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %REQ(:PATH)% %RESP(x-origin-pod)%";
    let log = |which: &str, filter: Option<Value>| {
        let text = format!("%REQ(X-TEST-ID)%\t{which} {said}\n");
        let mut log = file_log("LOG".as_ref(), &json!({"text_format_source": {"inline_string": text}}));
        if let Some(filter) = filter {
            log["filter"] = json!({"log_type_filter": filter});
        }
        log
    };
    manager["access_log"] = json!([
        log("all", None),
        log("ends", Some(json!({"types": ["DownstreamEnd", "TcpConnectionEnd"]}))),
        log("others", Some(json!({"types": ["DownstreamEnd"], "exclude": true}))),
    ]);
    Scene { name, manager, routes: routes(), internal: false }
}

/// Lines that are written only of some requests; those of the others are missing.
fn conditional() -> Scene {
    let format = json!({"text_format_source": {"inline_string": "%REQ(X-TEST-ID)%\twritten\n"}});
    let log = |filter: Value| {
        let mut log = file_log("LOG".as_ref(), &format);
        log["filter"] = filter;
        log
    };
    let compare =
        |op: &str, value: u32| json!({"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "k"}}});
    let with = |name: &str, condition: Value| {
        let named = json!({"header_filter": {"header": {"name": "x-case", "string_match": {"exact": name}}}});
        log(json!({"and_filter": {"filters": [named, condition]}}))
    };
    Scene {
        name: "log some",
        manager: json!({"access_log": [
            with("status", json!({"status_code_filter": compare("GE", 400)})),
            with("duration", json!({"duration_filter": compare("GE", 100)})),
            with("health", json!({"not_health_check_filter": {}})),
            with("traced", json!({"traceable_filter": {}})),
            with("never", json!({"runtime_filter": {"runtime_key": "k", "percent_sampled": {"numerator": 0}}})),
            with("flags", json!({"response_flag_filter": {"flags": ["UF", "NR"]}})),
            with("any flag", json!({"response_flag_filter": {}})),
            with("grpc", json!({"grpc_status_filter": {"statuses": ["NOT_FOUND"]}})),
            with("not grpc", json!({"grpc_status_filter": {"statuses": ["OK"], "exclude": true}})),
            with("metadata", json!({"metadata_filter": {"matcher": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}, "match_if_key_not_found": false}})),
            with("type", json!({"log_type_filter": {"types": ["DownstreamEnd"]}})),
            with("other type", json!({"log_type_filter": {"types": ["DownstreamEnd"], "exclude": true}})),
        ]}),
        routes: routes(),
        internal: false,
    }
}

fn routes() -> Value {
    one_host(&[
        to("/to-nobody", "nobody", json!({})),
        json!({"name": "direct", "match": {"path": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}}}),
        acting("/rewritten", "origin", json!({"prefix_rewrite": "/new"})),
        acting("/h2", "origin-h2", json!({"prefix_rewrite": "/"})),
        {
            let mut route = to("/", "origin", json!({}));
            route["name"] = json!("rest");
            route
        },
    ])
}

pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange(
        "log messages",
        "log: messages",
        "GET /a?q=1&r=2 HTTP/1.1\r\nhost: any.test\r\nx-b: b\r\nx-long: abcdef\r\n",
    ),
    exchange("log messages", "log: rewritten path", "GET /rewritten?q HTTP/1.1\r\nhost: any.test\r\nx-a: a\r\n"),
    exchange("log messages", "log: messages of a reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log facts", "log: facts", "GET / HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log facts", "log: facts of a reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log facts", "log: facts of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log facts", "log: facts over HTTP/2", "GET /h2 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log connection", "log: connection", "GET / HTTP/1.1\r\nhost: any.test\r\nx-forwarded-for: 1.2.3.4\r\n"),
    exchange("log connection", "log: connection of a reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log connection", "log: connection of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "log grpc",
        "log: grpc status",
        "POST /grpc-only/7 HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange(
        "log grpc",
        "log: grpc status of a reply",
        "POST /to-nobody HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange("log grpc", "log: no grpc status", "GET / HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log sizes", "log: sizes of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log omits", "log: omitted values", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("log some", "log: low status", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: status\r\n"),
    exchange(
        "log some",
        "log: high status",
        "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: status\r\nx-origin-do: status/404\r\n",
    ),
    exchange("log some", "log: quick", "GET /direct HTTP/1.1\r\nhost: any.test\r\nx-case: duration\r\n"),
    exchange(
        "log some",
        "log: slow",
        "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: duration\r\nx-origin-do: delay/200ms\r\n",
    ),
    exchange("log some", "log: no health check", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: health\r\n"),
    exchange("log some", "log: not traced", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: traced\r\n"),
    exchange("log some", "log: never", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: never\r\n"),
    exchange("log some", "log: flagged", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\nx-case: flags\r\n"),
    exchange("log some", "log: not flagged", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: flags\r\n"),
    exchange("log some", "log: any flag", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\nx-case: any flag\r\n"),
    exchange("log some", "log: no flag", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: any flag\r\n"),
    exchange(
        "log some",
        "log: this grpc status",
        "POST /grpc-only/5 HTTP/1.1\r\nhost: any.test\r\nx-case: grpc\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange(
        "log some",
        "log: another grpc status",
        "POST /grpc-only/6 HTTP/1.1\r\nhost: any.test\r\nx-case: grpc\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange(
        "log some",
        "log: status that is no grpc",
        "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: not grpc\r\nx-origin-do: status/503\r\n",
    ),
    exchange("log some", "log: no metadata", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: metadata\r\n"),
    exchange("log some", "log: of its type", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: type\r\n"),
    exchange("log some", "log: of another type", "GET / HTTP/1.1\r\nhost: any.test\r\nx-case: other type\r\n"),
    exchange("log start", "log: at the start", "GET /origin HTTP/1.1\r\nhost: any.test\r\n").look(Look::Lines),
    exchange("log start", "log: at the start of nothing", "GET /nowhere-at-all HTTP/1.1\r\nhost: any.test\r\n")
        .look(Look::Lines),
    exchange("log start", "log: at the start of no request", "GET http:/// HTTP/1.1\r\nhost: any.test\r\n")
        .look(Look::Answer),
    exchange("log start, as it was", "log: at the start, as it was", "GET /origin HTTP/1.1\r\nhost: any.test\r\n")
        .look(Look::Lines),
    exchange(
        "log periodic",
        "log: every now and then",
        "GET /origin HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/350ms\r\n",
    )
    .look(Look::Lines),
    exchange("log periodic", "log: too short for that", "GET /origin HTTP/1.1\r\nhost: any.test\r\n").look(Look::Lines),
    exchange(
        "log periodic, as it was",
        "log: every now and then, as it was",
        "GET /origin HTTP/1.1\r\nhost: any.test\r\nx-origin-do: delay/350ms\r\n",
    )
    .look(Look::Lines),
];
