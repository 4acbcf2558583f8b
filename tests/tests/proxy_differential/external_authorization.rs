//! Authorization by somebody else: a service that is asked about each request, and users with passwords. The application's server
//! is the service, too: what it answers to a path is its opinion.

use serde_json::{Value, json};

use crate::scene::{Exchange, Scene, exchange, filter, filters, one_host, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        asking("authz allows", "/headers", json!({"allowed_headers": {"patterns": [{"prefix": "x-"}]}})),
        asking("authz denies", "/status/403", json!({})),
        asking("authz challenges", "/status/401", json!({})),
        asking("authz redirects", "/status/302", json!({})),
        asking("authz fails", "/status/500", json!({})),
        asking(
            "authz fails by its own status",
            "/status/503",
            json!({"status_on_error": {"code": "ServiceUnavailable"}}),
        ),
        away("authz away", json!({})),
        away("authz away and open", json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true})),
        asking("authz body", "/status/200", json!({"with_request_body": {"max_request_bytes": 5}})),
        asking(
            "authz part of a body",
            "/status/200",
            json!({"with_request_body": {"max_request_bytes": 5, "allow_partial_message": true}}),
        ),
        asking("authz off", "/status/403", json!({"filter_enabled": {"default_value": {"numerator": 0}}})),
        asking(
            "authz off and shut",
            "/status/200",
            json!({
                "filter_enabled": {"default_value": {"numerator": 0}},
                "deny_at_disable": {"default_value": true, "runtime_key": "none"},
            }),
        ),
        basic(json!({"forward_username_header": "x-user"}), "basic"),
        basic(
            json!({"allow_missing": true, "emit_dynamic_metadata": true, "authentication_header": "x-credentials"}),
            "basic lenient",
        ),
    ]
}

fn scene(name: &'static str, chain: &[Value], routes: Value) -> Scene {
    let mappers = json!([{
        "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 300, "runtime_key": "none"}}}},
        "headers_to_add": [{"header": {"key": "x-details", "value": "%RESPONSE_CODE_DETAILS%"}}],
    }]);
    let manager = json!({"http_filters": filters(chain), "local_reply_config": {"mappers": mappers}});
    Scene { name, manager, routes, internal: false }
}

fn routes() -> Value {
    let off = typed("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", json!({"disabled": true}));
    let unbuffered = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        json!({"check_settings": {"disable_request_body_buffering": true}}),
    );
    one_host(&[
        to("/off", "origin", json!({"typed_per_filter_config": {"authz": off}})),
        to("/unbuffered", "origin", json!({"typed_per_filter_config": {"authz": unbuffered}})),
        to("/", "origin", json!({})),
    ])
}

fn authz(cluster: &str, opinion: &str, more: Value) -> Value {
    let mut config = json!({"http_service": {
        "server_uri": {"uri": "http://authz.test", "cluster": cluster, "timeout": "2s"},
        "path_override": opinion,
        "authorization_request": {"headers_to_add": [{"key": "x-asked-by", "value": "the proxy"}]},
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [{"exact": "x-origin-version"}]},
            "allowed_upstream_headers_to_append": {"patterns": [{"exact": "x-origin-pod"}]},
            "allowed_client_headers": {"patterns": [{"exact": "x-origin-pod"}]},
            "allowed_client_headers_on_success": {"patterns": [{"exact": "x-origin-attempt"}]},
        },
    }});
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    filter("authz", "ext_authz.v3.ExtAuthz", config)
}

fn asking(name: &'static str, opinion: &str, more: Value) -> Scene {
    scene(name, &[authz("other", opinion, more)], routes())
}

fn away(name: &'static str, more: Value) -> Scene {
    scene(name, &[authz("nobody", "/", more)], routes())
}

fn basic(more: Value, name: &'static str) -> Scene {
    // test1 and test2.
    let users = "user1:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=\nuser2:{SHA}EJ9LPFDXsN9ynSmbxvjp75Bmlx8=\n";
    let mut config = json!({"users": {"inline_string": users}});
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let per_route = typed(
        "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute",
        json!({"users": {"inline_string": "user3:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=\n"}}),
    );
    let routes = one_host(&[
        to("/own", "origin", json!({"typed_per_filter_config": {"basic": per_route}})),
        to("/", "origin", json!({})),
    ]);
    scene(name, &[filter("basic", "basic_auth.v3.BasicAuth", config)], routes)
}

pub(crate) fn exchanges() -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut add = |scene: &'static str, name: &str, first: &str, headers: &str, body: &'static str| {
        let head = format!("{first} HTTP/1.1\r\nhost: any.test\r\n{headers}");
        exchanges.push(exchange(scene, leaked(format!("{scene}: {name}")), leaked(head)).body(body));
    };
    for scene in [
        "authz allows",
        "authz denies",
        "authz challenges",
        "authz redirects",
        "authz fails",
        "authz fails by its own status",
        "authz away",
        "authz away and open",
        "authz off",
        "authz off and shut",
    ] {
        add(scene, "get", "GET /headers?a=b", "x-own: 1\r\nx-origin-pod: mine\r\nx-origin-version: mine\r\n", "");
        add(scene, "post", "POST /headers", "content-length: 3\r\nauthorization: Bearer x\r\n", "abc");
        add(scene, "grpc", "POST /headers", "content-type: application/grpc\r\ncontent-length: 0\r\n", "");
        add(scene, "off by the route", "GET /off", "x-origin-do: headers\r\n", "");
    }
    for scene in ["authz body", "authz part of a body"] {
        add(scene, "none", "GET /headers", "", "");
        add(scene, "fits", "POST /headers", "content-length: 3\r\n", "abc");
        add(scene, "just fits", "POST /headers", "content-length: 5\r\n", "abcde");
        add(scene, "in chunks", "POST /headers", "transfer-encoding: chunked\r\n", "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
        add(scene, "not asked for", "POST /unbuffered", "content-length: 9\r\nx-origin-do: headers\r\n", "abcdefghi");
    }
    add("authz part of a body", "too long", "POST /headers", "content-length: 9\r\n", "abcdefghi");
    let credentials = [
        ("none", String::new()),
        ("user1", "Basic dXNlcjE6dGVzdDE=".to_owned()),
        ("user2 with the password of user1", "Basic dXNlcjI6dGVzdDE=".to_owned()),
        ("user3", "Basic dXNlcjM6dGVzdDE=".to_owned()),
        ("another scheme", "Bearer x".to_owned()),
        ("lower case", "basic dXNlcjE6dGVzdDE=".to_owned()),
        ("no colon", "Basic dXNlcjE=".to_owned()),
        ("not base64", "Basic %%%".to_owned()),
        ("without padding", "Basic dXNlcjE6dGVzdDE".to_owned()),
        ("empty", "Basic ".to_owned()),
    ];
    for (scene, header) in [("basic", "authorization"), ("basic lenient", "x-credentials")] {
        for (name, value) in &credentials {
            let headers = if value.is_empty() { String::new() } else { format!("{header}: {value}\r\n") };
            add(scene, name, "GET /headers", &(headers.clone() + "x-user: evil\r\n"), "");
            add(scene, &format!("{name}, of the route"), "GET /own", &(headers + "x-origin-do: headers\r\n"), "");
        }
    }
    exchanges
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
