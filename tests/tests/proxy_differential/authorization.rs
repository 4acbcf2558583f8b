//! Role based access control: which requests and connections pass, by every kind of rule, and whatever a caller does to look
//! like another.

use serde_json::{Value, json};

use crate::scene::{Exchange, Scene, exchange, filter, filters, one_host, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![rules(), chained(), normalised(), per_route()]
}

fn scene(name: &'static str, mut manager: Value, chain: &[Value], routes: Value) -> Scene {
    manager["http_filters"] = filters(chain);
    manager["local_reply_config"] = json!({"mappers": [{
        "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "none"}}}},
        "headers_to_add": [{"header": {"key": "x-details", "value": "%RESPONSE_CODE_DETAILS%"}}],
    }]});
    Scene { name, manager, routes, internal: false }
}

fn rbac(name: &str, fields: Value) -> Value {
    filter(name, "rbac.v3.RBAC", fields)
}

fn policy(permission: Value, principal: Value) -> Value {
    json!({"permissions": [permission], "principals": [principal]})
}

fn any() -> Value {
    json!({"any": true})
}

/// One policy for each path, so that each kind of rule is asked alone.
fn rules() -> Scene {
    let path = |path: &str| json!({"url_path": {"path": {"exact": path}}});
    let and = |rules: &[Value]| json!({"and_rules": {"rules": rules}});
    let range = |address: &str, length: u32| json!({"address_prefix": address, "prefix_len": length});
    let header = |matcher: Value| json!({"header": matcher});
    let permissions = [
        ("/any", any()),
        ("/method", header(json!({"name": ":method", "string_match": {"exact": "GET"}}))),
        ("/exact", header(json!({"name": "x-h", "string_match": {"exact": "v"}}))),
        ("/case", header(json!({"name": "x-h", "string_match": {"exact": "V", "ignore_case": true}}))),
        ("/prefix", header(json!({"name": "x-h", "string_match": {"prefix": "v"}}))),
        ("/suffix", header(json!({"name": "x-h", "string_match": {"suffix": "v"}}))),
        ("/contains", header(json!({"name": "x-h", "string_match": {"contains": "v"}}))),
        ("/regex", header(json!({"name": "x-h", "string_match": {"safe_regex": {"regex": "v+"}}}))),
        ("/present", header(json!({"name": "x-h", "present_match": true}))),
        ("/absent", header(json!({"name": "x-h", "present_match": false}))),
        ("/inverted", header(json!({"name": "x-h", "string_match": {"exact": "v"}, "invert_match": true}))),
        (
            "/as-empty",
            header(json!({"name": "x-h", "string_match": {"exact": ""}, "treat_missing_header_as_empty": true})),
        ),
        ("/range", header(json!({"name": "x-h", "range_match": {"start": 5, "end": 10}}))),
        ("/authority", header(json!({"name": ":authority", "string_match": {"exact": "good.test"}}))),
        ("/host", header(json!({"name": "host", "string_match": {"exact": "good.test"}}))),
        ("/scheme", header(json!({"name": ":scheme", "string_match": {"exact": "http"}}))),
        ("/whole-path?q=1", header(json!({"name": ":path", "string_match": {"exact": "/whole-path?q=1"}}))),
        ("/destination", json!({"destination_ip": range("127.0.0.0", 8)})),
        ("/other-destination", json!({"destination_ip": range("10.0.0.0", 8)})),
        ("/port", json!({"destination_port": 1})),
        ("/ports", json!({"destination_port_range": {"start": 10000, "end": 12000}})),
        ("/other-ports", json!({"destination_port_range": {"start": 1, "end": 10000}})),
        ("/server-name", json!({"requested_server_name": {"exact": ""}})),
        ("/other-server-name", json!({"requested_server_name": {"exact": "a.test"}})),
        ("/not", json!({"not_rule": header(json!({"name": "x-h", "present_match": true}))})),
        (
            "/or",
            json!({"or_rules": {"rules": [
            header(json!({"name": "x-h", "present_match": true})), header(json!({"name": "x-g", "present_match": true}))]}}),
        ),
        (
            "/metadata",
            json!({"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"string_match": {"exact": "v"}}}}),
        ),
        (
            "/no-metadata",
            json!({"metadata": {
            "filter": "f", "path": [{"key": "k"}], "value": {"string_match": {"exact": "v"}}, "invert": true}}),
        ),
    ];
    let principals = [
        ("/authenticated", json!({"authenticated": {}})),
        ("/named", json!({"authenticated": {"principal_name": {"exact": ""}}})),
        ("/source", json!({"source_ip": range("127.0.0.1", 32)})),
        ("/direct", json!({"direct_remote_ip": range("127.0.0.1", 32)})),
        ("/remote", json!({"remote_ip": range("127.0.0.1", 32)})),
        ("/remote-forwarded", json!({"remote_ip": range("1.2.3.4", 32)})),
        ("/remote-v6", json!({"remote_ip": range("2001:db8::", 32)})),
        ("/direct-forwarded", json!({"direct_remote_ip": range("1.2.3.4", 32)})),
        ("/source-all", json!({"source_ip": range("0.0.0.0", 0)})),
        ("/principal-header", header(json!({"name": "x-h", "string_match": {"exact": "v"}}))),
        ("/principal-path", json!({"url_path": {"path": {"prefix": "/principal"}}})),
        ("/not-id", json!({"not_id": {"remote_ip": range("1.2.3.4", 32)}})),
        ("/and-ids", json!({"and_ids": {"ids": [any(), header(json!({"name": "x-h", "present_match": true}))]}})),
        (
            "/or-ids",
            json!({"or_ids": {"ids": [{"authenticated": {}}, header(json!({"name": "x-h", "present_match": true}))]}}),
        ),
    ];
    let mut policies = serde_json::Map::new();
    for (at, rule) in permissions {
        let at = at.split('?').next().unwrap_or(at);
        policies.insert(format!("permission {at}"), policy(and(&[path(at), rule]), any()));
    }
    for (at, rule) in principals {
        policies.insert(format!("principal {at}"), policy(path(at), rule));
    }
    let chain = [rbac("rbac", json!({"rules": {"action": "ALLOW", "policies": policies}}))];
    scene("rbac", json!({"use_remote_address": false}), &chain, one_host(&[to("/", "origin", json!({}))]))
}

/// One that denies, one that logs, one that only says what it would do, and a tree.
fn chained() -> Scene {
    let header = |value: &str| json!({"header": {"name": "x-h", "string_match": {"exact": value}}});
    let input = json!({"name": "h", "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", json!({"header_name": "x-tree"}))});
    let action = |name: &str, action: &str| json!({"action": {"name": "a", "typed_config": typed("envoy.config.rbac.v3.Action", json!({"name": name, "action": action}))}});
    let chain = [
        rbac(
            "denies",
            json!({"rules": {"action": "DENY", "policies": {
            "second of two": policy(header("bad"), any()), "bad  one": policy(header("worse"), any()), "a first": policy(header("bad"), any())}}}),
        ),
        rbac("logs", json!({"rules": {"action": "LOG", "policies": {"logged": policy(header("logged"), any())}}})),
        rbac(
            "shadow",
            json!({"shadow_rules": {"action": "ALLOW", "policies": {"never": policy(header("never"), any())}}}),
        ),
        rbac("nothing", json!({})),
        rbac(
            "tree",
            json!({"matcher": {
            "matcher_tree": {"input": input, "exact_match_map": {"map": {
                "deny": action("tree denies", "DENY"), "allow": action("tree allows", "ALLOW"), "log": action("tree logs", "LOG")}}},
            "on_no_match": action("otherwise", "ALLOW")}}),
        ),
        rbac(
            "bare tree",
            json!({"matcher": {
            "matcher_tree": {"input": {"name": "h", "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", json!({"header_name": "x-bare"}))},
                "exact_match_map": {"map": {"": action("bare", "ALLOW"), "yes": action("bare", "ALLOW")}}}}}),
        ),
    ];
    scene("rbac chain", json!({}), &chain, one_host(&[to("/", "origin", json!({}))]))
}

/// Where paths are made normal before anything looks at them: what is denied stays denied however it is written.
fn normalised() -> Scene {
    let denied = json!({"or_rules": {"rules": [
        {"url_path": {"path": {"prefix": "/admin"}}},
        {"url_path": {"path": {"exact": "/exactly"}}},
        {"header": {"name": ":path", "string_match": {"prefix": "/raw"}}},
        {"header": {"name": "x-role", "string_match": {"exact": "guest"}}},
        {"header": {"name": "x-role", "string_match": {"contains": "banned"}}},
        {"header": {"name": ":authority", "string_match": {"exact": "internal.test"}}},
        {"header": {"name": ":method", "string_match": {"exact": "DELETE"}}},
    ]}});
    let chain = [rbac("rbac", json!({"rules": {"action": "DENY", "policies": {"denied": policy(denied, any())}}}))];
    let manager = json!({
        "normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "strip_any_host_port": true, "use_remote_address": true,
    });
    scene("rbac normal", manager, &chain, one_host(&[to("/", "origin", json!({}))]))
}

fn per_route() -> Scene {
    let deny = |name: &str| json!({"rules": {"action": "DENY", "policies": {name: policy(any(), any())}}});
    let over = |fields: Value| json!({"typed_per_filter_config": {"rbac": typed("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", fields)}});
    let routes = one_host(&[
        to("/open", "origin", over(json!({}))),
        to("/own", "origin", over(json!({"rbac": deny("own")}))),
        to("/empty", "origin", over(json!({"rbac": {}}))),
        to(
            "/off",
            "origin",
            json!({"typed_per_filter_config": {"rbac": typed("envoy.config.route.v3.FilterConfig", json!({"disabled": true}))}}),
        ),
        to("/", "origin", json!({})),
    ]);
    scene("rbac routes", json!({}), &[rbac("rbac", deny("general"))], routes)
}

pub(crate) fn exchanges() -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut add = |scene: &'static str, name: &str, first: &str, headers: &str| {
        let host = if headers.starts_with("host:") { "" } else { "host: any.test\r\n" };
        let head = format!("{first} HTTP/1.1\r\n{host}{headers}x-origin-do: status/200\r\n");
        exchanges.push(exchange(scene, leaked(format!("{scene}: {name}")), leaked(head)));
    };
    for path in [
        "/any",
        "/exact",
        "/case",
        "/prefix",
        "/suffix",
        "/contains",
        "/regex",
        "/present",
        "/absent",
        "/inverted",
        "/as-empty",
        "/not",
        "/or",
        "/principal-header",
        "/and-ids",
        "/or-ids",
    ] {
        add("rbac", &format!("{path} with nothing"), &format!("GET {path}"), "");
        add("rbac", &format!("{path} with v"), &format!("GET {path}"), "x-h: v\r\n");
        add("rbac", &format!("{path} with xvx"), &format!("GET {path}"), "x-h: xvx\r\n");
        add("rbac", &format!("{path} with two"), &format!("GET {path}"), "x-h: a\r\nx-h: v\r\n");
    }
    for (name, first, headers) in [
        ("no policy", "GET /nobody", ""),
        ("method", "GET /method", ""),
        ("other method", "POST /method", "content-length: 0\r\n"),
        ("range below", "GET /range", "x-h: 4\r\n"),
        ("range within", "GET /range", "x-h: 5\r\n"),
        ("range end", "GET /range", "x-h: 10\r\n"),
        ("range of text", "GET /range", "x-h: 5x\r\n"),
        ("range signed", "GET /range", "x-h: +6\r\n"),
        ("empty value", "GET /as-empty", "x-h: \r\n"),
        ("authority", "GET /authority", "host: good.test\r\n"),
        ("authority in capitals", "GET /authority", "host: GOOD.test\r\n"),
        ("authority with port", "GET /authority", "host: good.test:80\r\n"),
        ("authority of an absolute form", "GET http://good.test/authority", "host: bad.test\r\n"),
        ("host", "GET /host", "host: good.test\r\n"),
        ("scheme", "GET /scheme", ""),
        ("scheme forwarded", "GET /scheme", "x-forwarded-proto: https\r\n"),
        ("whole path", "GET /whole-path?q=1", ""),
        ("whole path with another query", "GET /whole-path?q=2", ""),
        ("query does not count", "GET /any?x=/nobody", ""),
        ("destination", "GET /destination", ""),
        ("other destination", "GET /other-destination", ""),
        ("port", "GET /port", ""),
        ("ports", "GET /ports", ""),
        ("other ports", "GET /other-ports", ""),
        ("server name", "GET /server-name", ""),
        ("other server name", "GET /other-server-name", ""),
        ("metadata", "GET /metadata", ""),
        ("no metadata", "GET /no-metadata", ""),
        ("authenticated", "GET /authenticated", ""),
        ("named", "GET /named", ""),
        ("source", "GET /source", ""),
        ("source forwarded", "GET /source", "x-forwarded-for: 1.2.3.4\r\n"),
        ("direct", "GET /direct", "x-forwarded-for: 1.2.3.4\r\n"),
        ("remote", "GET /remote", ""),
        ("remote not forwarded", "GET /remote-forwarded", ""),
        ("remote forwarded", "GET /remote-forwarded", "x-forwarded-for: 1.2.3.4\r\n"),
        ("remote forwarded twice", "GET /remote-forwarded", "x-forwarded-for: 9.9.9.9, 1.2.3.4\r\n"),
        ("remote in v6", "GET /remote-v6", "x-forwarded-for: 2001:db8::1\r\n"),
        ("direct forwarded", "GET /direct-forwarded", "x-forwarded-for: 1.2.3.4\r\n"),
        ("all sources", "GET /source-all", ""),
        ("path of a principal", "GET /principal-path", ""),
        ("not that one", "GET /not-id", ""),
        ("that one", "GET /not-id", "x-forwarded-for: 1.2.3.4\r\n"),
        ("grpc", "POST /nobody", "content-type: application/grpc\r\ncontent-length: 0\r\n"),
        ("head", "HEAD /nobody", ""),
        ("with a body", "POST /nobody", "content-length: 0\r\n"),
    ] {
        add("rbac", name, first, headers);
    }
    for (name, headers) in [
        ("nothing", ""),
        ("first of two", "x-h: bad\r\n"),
        ("a name with spaces", "x-h: worse\r\n"),
        ("logged", "x-h: logged\r\n"),
        ("tree denies", "x-tree: deny\r\n"),
        ("tree allows", "x-tree: allow\r\nx-bare: yes\r\n"),
        ("tree logs", "x-tree: log\r\nx-bare: yes\r\n"),
        ("nothing in the tree", "x-tree: none\r\nx-bare: yes\r\n"),
        ("nothing in the bare tree", "x-tree: none\r\nx-bare: no\r\n"),
    ] {
        add("rbac chain", name, "GET /", headers);
    }
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/%2E./admin",
        "/%61dmin",
        "/admin%2fx",
        "/x%2f..%2fadmin",
        "/x%5c..%5cadmin",
        "/x\\..\\admin",
        "/ADMIN",
        "/admin;x=1",
        "/admin.",
        "/admin%20",
        "/./././admin",
        "/x/../../admin",
        "///admin///",
        "/%2fadmin",
        "/%5cadmin",
        "/admin?x",
        "/x?/admin",
        "/exactly",
        "/exactly/",
        "/exactly?x=1",
        "/exactly;a",
        "/exactl%79",
        "/EXACTLY",
        "/x/../exactly",
        "/raw",
        "/RAW",
        "/x/../raw",
        "/%72aw",
        "/x/..;/admin",
        "/.;/admin",
        "/%252e%252e/admin",
        "/x/.%2e/admin",
    ] {
        add("rbac normal", &format!("path {path}"), &format!("GET {path}"), "");
    }
    for (name, first, headers) in [
        ("one role", "GET /x", "x-role: guest\r\n"),
        ("two roles", "GET /x", "x-role: guest\r\nx-role: admin\r\n"),
        ("two roles the other way", "GET /x", "x-role: admin\r\nx-role: guest\r\n"),
        ("two roles in one", "GET /x", "x-role: guest, admin\r\n"),
        ("a banned one among them", "GET /x", "x-role: admin\r\nx-role: banned\r\n"),
        ("a role in capitals", "GET /x", "X-ROLE: guest\r\n"),
        ("a role of spaces", "GET /x", "x-role:    guest   \r\n"),
        ("a role of tabs", "GET /x", "x-role:\tguest\r\n"),
        ("another case of the role", "GET /x", "x-role: Guest\r\n"),
        ("a role with underscore", "GET /x", "x_role: guest\r\n"),
        ("inner authority", "GET /x", "host: internal.test\r\n"),
        ("inner authority with port", "GET /x", "host: internal.test:8080\r\n"),
        ("inner authority in capitals", "GET /x", "host: INTERNAL.test\r\n"),
        ("inner authority with a dot", "GET /x", "host: internal.test.\r\n"),
        ("inner authority of an absolute form", "GET http://internal.test/x", "host: any.test\r\n"),
        ("an absolute form of another", "GET http://any.test/admin", "host: any.test\r\n"),
        ("an absolute form up and down", "GET http://any.test/x/../admin", "host: any.test\r\n"),
        ("delete", "DELETE /x", ""),
        ("delete by another name", "POST /x", "x-http-method-override: DELETE\r\ncontent-length: 0\r\n"),
        (
            "a path by another name",
            "GET /x",
            "x-original-url: /admin\r\nx-rewrite-url: /admin\r\nx-envoy-original-path: /admin\r\n",
        ),
        ("a host by another name", "GET /x", "x-forwarded-host: internal.test\r\n"),
        ("an internal caller by name", "GET /x", "x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\n"),
    ] {
        add("rbac normal", name, first, headers);
    }
    for path in ["/open", "/own", "/empty", "/off", "/"] {
        add("rbac routes", path, &format!("GET {path}"), "");
    }
    exchanges
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
