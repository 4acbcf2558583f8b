//! Sessions that name their host, and the filter that answers health checks.

use serde_json::{Value, json};

use crate::scene::{Exchange, Scene, exchange, filter, filters, one_host, to, typed};

fn scene(name: &'static str, http_filters: &[Value], routes: &[Value]) -> Scene {
    Scene { name, manager: json!({"http_filters": filters(http_filters)}), routes: one_host(routes), internal: false }
}

fn session(state: Value, more: Value) -> Value {
    let mut fields = json!({"session_state": state});
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    filter("session", "stateful_session.v3.StatefulSession", fields)
}

fn cookie(fields: Value) -> Value {
    let config =
        typed("envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState", json!({"cookie": fields}));
    json!({"name": "envoy.http.stateful_session.cookie", "typed_config": config})
}

fn header() -> Value {
    let config =
        typed("envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", json!({"name": "x-session"}));
    json!({"name": "envoy.http.stateful_session.header", "typed_config": config})
}

fn checks(fields: Value) -> Value {
    filter("checks", "health_check.v3.HealthCheck", fields)
}

fn at_path() -> Value {
    json!([{"name": ":path", "string_match": {"exact": "/healthz"}}])
}

pub(crate) fn scenes() -> Vec<Scene> {
    let plain = || vec![to("/", "origin", json!({}))];
    let of_route = |config: Value| {
        let per_route = typed("envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute", config);
        to("/own", "origin", json!({"typed_per_filter_config": {"session": per_route}}))
    };
    let percentages = |more: Value| json!({"pass_through_mode": false, "headers": at_path(), "cluster_min_healthy_percentages": more});
    vec![
        scene(
            "cookie",
            &[session(
                cookie(json!({"name": "s", "path": "/a", "attributes": [{"name": "SameSite", "value": "Lax"}]})),
                json!({}),
            )],
            &plain(),
        ),
        scene("cookie everywhere", &[session(cookie(json!({"name": "s"})), json!({"strict": true}))], &plain()),
        scene("header", &[session(header(), json!({}))], &plain()),
        scene("strict", &[session(header(), json!({"strict": true}))], &plain()),
        scene(
            "strict with a status",
            &[session(header(), json!({"strict": true, "status_on_strict_destination_not_found": 404}))],
            &plain(),
        ),
        scene("no state", &[filter("session", "stateful_session.v3.StatefulSession", json!({}))], &plain()),
        scene(
            "off for a route",
            &[session(header(), json!({}))],
            &[of_route(json!({"disabled": true})), to("/", "origin", json!({}))],
        ),
        scene(
            "other for a route",
            &[session(header(), json!({}))],
            &[
                of_route(json!({"stateful_session": {"session_state": cookie(json!({"name": "own"}))}})),
                to("/", "origin", json!({})),
            ],
        ),
        scene("answers", &[checks(json!({"pass_through_mode": false, "headers": at_path()}))], &plain()),
        scene("answers all", &[checks(json!({"pass_through_mode": false}))], &plain()),
        scene("enough", &[checks(percentages(json!({"origin": {"value": 100.0}})))], &plain()),
        scene("too few", &[checks(percentages(json!({"empty": {"value": 1.0}})))], &plain()),
        scene("none needed", &[checks(percentages(json!({"empty": {"value": 0.0}})))], &plain()),
        scene("no such cluster", &[checks(percentages(json!({"nowhere": {"value": 1.0}})))], &plain()),
        scene("passes", &[checks(json!({"pass_through_mode": true, "headers": at_path()}))], &plain()),
        scene(
            "keeps",
            &[checks(json!({"pass_through_mode": true, "headers": at_path(), "cache_time": "60s"}))],
            &[to("/", "nobody", json!({}))],
        ),
    ]
}

/// The application at 127.0.0.1:9080, and one that is not there, as sessions name them.
pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("cookie", "session: new", "GET /a HTTP/1.1\r\nhost: h\r\n"),
    exchange("cookie", "session: elsewhere", "GET /b HTTP/1.1\r\nhost: h\r\n"),
    exchange("cookie", "session: beside", "GET /ab HTTP/1.1\r\nhost: h\r\n"),
    exchange("cookie", "session: below", "GET /a/b?c HTTP/1.1\r\nhost: h\r\n"),
    exchange("cookie", "session: known", "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=Cg4xMjcuMC4wLjE6OTA4MA==\r\n"),
    exchange(
        "cookie",
        "session: known and quoted",
        "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=\"Cg4xMjcuMC4wLjE6OTA4MA==\"",
    ),
    exchange("cookie", "session: older", "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=MTI3LjAuMC4xOjkwODA=\r\n"),
    exchange("cookie", "session: gone", "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=MTI3LjAuMC4xOjE=\r\n"),
    exchange("cookie", "session: expired", "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=Cg4xMjcuMC4wLjE6OTA4MBAB\r\n"),
    exchange("cookie", "session: no base64", "GET /a HTTP/1.1\r\nhost: h\r\ncookie: s=@@\r\n"),
    exchange("cookie everywhere", "session: everywhere", "GET /x HTTP/1.1\r\nhost: h\r\n"),
    exchange(
        "cookie everywhere",
        "session: strictly gone",
        "GET /x HTTP/1.1\r\nhost: h\r\ncookie: s=MTI3LjAuMC4xOjE=\r\n",
    ),
    exchange("header", "session: new by header", "GET /a HTTP/1.1\r\nhost: h\r\n"),
    exchange("header", "session: known by header", "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjkwODA=\r\n"),
    exchange("header", "session: gone by header", "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjE=\r\n"),
    exchange("strict", "session: no address and strict", "GET /a HTTP/1.1\r\nhost: h\r\nx-session: YWJj\r\n"),
    exchange(
        "strict",
        "session: known and strict",
        "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjkwODA=\r\n",
    ),
    exchange("strict", "session: gone and strict", "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjE=\r\n"),
    exchange(
        "strict with a status",
        "session: gone, with a status",
        "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjE=",
    ),
    exchange("no state", "session: none", "GET /a HTTP/1.1\r\nhost: h\r\nx-session: MTI3LjAuMC4xOjE=\r\n"),
    exchange("off for a route", "session: off", "GET /own HTTP/1.1\r\nhost: h\r\n"),
    exchange("off for a route", "session: on", "GET /else HTTP/1.1\r\nhost: h\r\n"),
    exchange("other for a route", "session: other", "GET /own HTTP/1.1\r\nhost: h\r\n"),
    exchange("answers", "check: answered", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("answers", "check: of something else", "GET /other HTTP/1.1\r\nhost: h\r\n"),
    exchange("answers", "check: posted", "POST /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n").body("ok"),
    exchange("answers all", "check: anything", "GET /anything HTTP/1.1\r\nhost: h\r\n"),
    exchange("enough", "check: enough", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("too few", "check: too few", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("none needed", "check: none needed", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("no such cluster", "check: no such cluster", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("passes", "check: passed", "GET /healthz HTTP/1.1\r\nhost: h\r\n"),
    exchange("passes", "check: passed by", "GET /other HTTP/1.1\r\nhost: h\r\n"),
    exchange("keeps", "check: not kept", "GET /other HTTP/1.1\r\nhost: h\r\n"),
];
