//! Filters that look at where a request comes from, and that leave something about it: CSRF, metadata, filter state.

use serde_json::{Value, json};

use crate::scene::{Exchange, Scene, exchange, filter, filters, one_host, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |name, chain: &[Value], routes| Scene {
        name,
        manager: json!({"http_filters": filters(chain)}),
        routes,
        internal: false,
    };
    vec![
        scene("csrf", &[filter("csrf", "csrf.v3.CsrfPolicy", policy(100, 0))], csrf()),
        scene("metadata", &[from_headers(), constant(), state()], metadata()),
    ]
}

fn policy(enabled: u32, shadow: u32) -> Value {
    json!({
        "filter_enabled": {"default_value": {"numerator": enabled}},
        "shadow_enabled": {"default_value": {"numerator": shadow}},
        "additional_origins": [{"suffix": ".good.test"}, {"exact": "port.test:81"}],
    })
}

fn csrf() -> Value {
    let with = |prefix: &str, fields: Value| {
        let config = typed("envoy.extensions.filters.http.csrf.v3.CsrfPolicy", fields);
        to(prefix, "origin", json!({"typed_per_filter_config": {"csrf": config}}))
    };
    one_host(&[with("/off", policy(0, 0)), with("/shadow", policy(0, 100)), to("/", "origin", json!({}))])
}

fn from_headers() -> Value {
    let pair = |key: &str, more: Value| {
        let mut pair = json!({"metadata_namespace": "m", "key": key});
        if let (Some(pair), Value::Object(more)) = (pair.as_object_mut(), more) {
            pair.extend(more);
        }
        pair
    };
    filter(
        "headers",
        "header_to_metadata.v3.Config",
        json!({
            "request_rules": [
                {"header": "x-text", "on_header_present": pair("text", json!({})), "on_header_missing": pair("text", json!({"value": "none"}))},
                {"header": "x-number", "on_header_present": pair("number", json!({"type": "NUMBER"})), "remove": true},
                {"header": "x-encoded", "on_header_present": pair("encoded", json!({"encode": "BASE64"}))},
                {"header": "x-fixed", "on_header_present": pair("fixed", json!({"value": "fixed"}))},
                {"header": "x-part", "on_header_present": pair("part", json!({"regex_value_rewrite": {"pattern": {"regex": "^/(cluster[\\d\\w-]+)/?.*$"}, "substitution": "\\1"}}))},
                {"cookie": "session", "on_header_present": pair("session", json!({})), "on_header_missing": pair("session", json!({"value": "no"}))},
            ],
            "response_rules": [{"header": "x-origin-pod", "on_header_present": pair("pod", json!({"value": "some"})), "remove": true}],
        }),
    )
}

fn constant() -> Value {
    filter(
        "constant",
        "set_metadata.v3.Config",
        json!({"metadata": [
            {"metadata_namespace": "c", "value": {"a": 1, "b": {"c": "x"}, "list": [1]}},
            {"metadata_namespace": "c", "value": {"a": 2}},
            {"metadata_namespace": "c", "allow_overwrite": true, "value": {"b": {"d": "y"}, "list": [2], "t": true}},
        ]}),
    )
}

fn state() -> Value {
    let value = |key: &str, text: &str, more: Value| {
        let mut value = json!({"object_key": key, "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": text}}});
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    };
    filter(
        "state",
        "set_filter_state.v3.Config",
        json!({"clear_route_cache": true, "on_request_headers": [
            value("s.plain", "v-%REQ(x-text)%", json!({})),
            value("s.empty", "%REQ(x-none)%", json!({"skip_if_empty": true})),
            value("s.metadata", "%DYNAMIC_METADATA(m:text)%", json!({})),
        ]}),
    )
}

fn metadata() -> Value {
    let is =
        |namespace: &str, key: &str, value: Value| json!({"filter": namespace, "path": [{"key": key}], "value": value});
    let direct = |rule: Value, text: &str| {
        let mut rule = rule;
        rule["prefix"] = json!("/route");
        json!({"match": rule, "direct_response": {"status": 200, "body": {"inline_string": text}}})
    };
    let written = json!([
        "%DYNAMIC_METADATA(m:text)%",
        "%DYNAMIC_METADATA(m:number)%",
        "%DYNAMIC_METADATA(m:encoded)%",
        "%DYNAMIC_METADATA(m:fixed)%",
        "%DYNAMIC_METADATA(m:part)%",
        "%DYNAMIC_METADATA(m:session)%",
        "%DYNAMIC_METADATA(c)%",
        "%DYNAMIC_METADATA(c:b:c)%",
        "%DYNAMIC_METADATA(c:b)%",
        "%DYNAMIC_METADATA(none)%",
        "%FILTER_STATE(s.plain:PLAIN)%",
        "%FILTER_STATE(s.plain)%",
        "%FILTER_STATE(s.empty:PLAIN)%",
        "%FILTER_STATE(s.metadata:PLAIN)%",
    ]);
    let headers: Vec<Value> = written
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(at, value)| json!({"header": {"key": format!("x-written-{at}"), "value": value}}))
        .collect();
    one_host(&[
        direct(json!({"dynamic_metadata": [is("m", "text", json!({"string_match": {"exact": "one"}}))]}), "one"),
        direct(
            json!({"dynamic_metadata": [is("m", "number", json!({"double_match": {"range": {"start": 5, "end": 6}}}))]}),
            "number",
        ),
        direct(
            json!({"dynamic_metadata": [is("c", "t", json!({"bool_match": true})), is("m", "fixed", json!({"present_match": true}))]}),
            "both",
        ),
        direct(json!({"filter_state": [{"key": "s.plain", "string_match": {"prefix": "v-state"}}]}), "state"),
        direct(json!({}), "rest"),
        to("/", "origin", json!({"request_headers_to_add": headers})),
    ])
}

#[rustfmt::skip] // one line an exchange
pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("csrf", "csrf: same host", "POST / HTTP/1.1\r\nhost: any.test\r\norigin: http://any.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: same host by referer", "PUT / HTTP/1.1\r\nhost: any.test\r\nreferer: http://any.test/page?q\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: same host and port", "POST / HTTP/1.1\r\nhost: any.test:81\r\norigin: http://any.test:81\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: another port", "POST / HTTP/1.1\r\nhost: any.test:81\r\norigin: http://any.test:82\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: another host", "POST / HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: an additional host", "DELETE / HTTP/1.1\r\nhost: any.test\r\norigin: https://a.good.test\r\n"),
    exchange("csrf", "csrf: an additional host and port", "PATCH / HTTP/1.1\r\nhost: any.test\r\norigin: https://port.test:81\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: no origin", "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: origin is no URL", "POST / HTTP/1.1\r\nhost: any.test\r\norigin: any.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: null origin", "POST / HTTP/1.1\r\nhost: any.test\r\norigin: null\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: reads", "GET / HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\n"),
    exchange("csrf", "csrf: off", "POST /off HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: shadow", "POST /shadow HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\ncontent-length: 0\r\n"),
    exchange("csrf", "csrf: of grpc", "POST / HTTP/1.1\r\nhost: any.test\r\norigin: http://bad.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    exchange("metadata", "metadata: nothing given", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("metadata", "metadata: everything given", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-text: t\r\nx-number: 5.5\r\nx-encoded: aGVsbG8=\r\nx-fixed: other\r\nx-part: /cluster-1/x\r\ncookie: a=b; session=s\r\n"),
    exchange("metadata", "metadata: no number", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-number: five\r\nx-encoded: ??\r\nx-part: nothing\r\n"),
    exchange("metadata", "metadata: two fields", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-text: a\r\nx-text: b\r\nx-number: 7\r\n"),
    exchange("metadata", "metadata: empty field", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-text:\r\nx-fixed:\r\n"),
    exchange("metadata", "metadata: route by text", "GET /route HTTP/1.1\r\nhost: any.test\r\nx-text: one\r\n"),
    exchange("metadata", "metadata: route by number", "GET /route HTTP/1.1\r\nhost: any.test\r\nx-number: 5.9\r\n"),
    exchange("metadata", "metadata: route by two", "GET /route HTTP/1.1\r\nhost: any.test\r\nx-fixed: 1\r\n"),
    exchange("metadata", "metadata: route by state", "GET /route HTTP/1.1\r\nhost: any.test\r\nx-text: state\r\n"),
    exchange("metadata", "metadata: route by nothing", "GET /route HTTP/1.1\r\nhost: any.test\r\n"),
];
