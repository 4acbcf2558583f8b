//! What routes do beyond forwarding: mirrors, internal redirects, trees, templates, TLS requirements, formats, bounds.

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, acting, exchange, one_host, to, typed};

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |name, routes| Scene { name, manager: json!({}), routes, internal: false };
    vec![
        scene("internal redirects", internal_redirects()),
        scene("mirrors", mirrors()),
        scene("trees", trees()),
        scene("templates", templates()),
        scene("formats", formats()),
        scene("weights", weights()),
        scene("tls for all", tls("ALL")),
        scene("tls for outsiders", tls("EXTERNAL_ONLY")),
        Scene { internal: true, ..scene("tls for insiders", tls("EXTERNAL_ONLY")) },
        scene("path parameters", path_parameters()),
        scene("host by header", host_by_header()),
        scene("bounds", bounds()),
    ]
}

fn answer(path: &Value, text: &str) -> Value {
    json!({"match": path, "direct_response": {"status": 200, "body": {"inline_string": text}}})
}

fn extension(kind: &str, fields: Value) -> Value {
    json!({"name": "any", "typed_config": typed(kind, fields)})
}

/// The application redirects where the request's path says.
fn internal_redirects() -> Value {
    let predicate =
        |kind: &str, fields: Value| extension(&format!("envoy.extensions.internal_redirect.{kind}"), fields);
    let follow = |prefix: &str, policy: Value| {
        let mut route = acting(prefix, "origin", json!({"internal_redirect_policy": policy}));
        route["name"] = json!(prefix.trim_start_matches('/'));
        route
    };
    one_host(&[
        follow("/plain", json!({})),
        follow("/codes", json!({"redirect_response_codes": [301, 303, 307], "max_internal_redirects": 3})),
        follow("/many", json!({"max_internal_redirects": 3})),
        follow("/cross", json!({"allow_cross_scheme_redirect": true})),
        follow(
            "/safe",
            json!({"allow_cross_scheme_redirect": true, "predicates": [predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig", json!({}))]}),
        ),
        follow(
            "/listed",
            json!({"predicates": [predicate("allow_listed_routes.v3.AllowListedRoutesConfig", json!({"allowed_route_names": ["end"]}))]}),
        ),
        follow(
            "/previous",
            json!({"max_internal_redirects": 5, "predicates": [predicate("previous_routes.v3.PreviousRoutesConfig", json!({}))]}),
        ),
        follow("/copy", json!({"response_headers_to_copy": ["x-copied", "x-absent"]})),
        acting("/older", "origin", json!({"internal_redirect_action": "HANDLE_INTERNAL_REDIRECT"})),
        json!({"name": "end", "match": {"prefix": "/end"}, "route": {"cluster": "origin", "prefix_rewrite": "/headers"}}),
        json!({"name": "direct", "match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}}}),
    ])
}

fn mirrors() -> Value {
    let policy = |fields: Value| json!({"request_mirror_policies": [fields]});
    let mut routes = one_host(&[
        acting("/all", "origin", policy(json!({"cluster": "other"}))),
        acting(
            "/never",
            "origin",
            policy(json!({"cluster": "other", "runtime_fraction": {"default_value": {"numerator": 0}}})),
        ),
        acting("/header", "origin", policy(json!({"cluster_header": "x-mirror"}))),
        acting("/nobody", "origin", policy(json!({"cluster": "nobody"}))),
        acting("/unknown", "origin", policy(json!({"cluster": "unknown"}))),
        to("/host", "origin", json!({})),
    ]);
    routes["virtual_hosts"][0]["request_mirror_policies"] = json!([{"cluster": "other"}, {"cluster": "other"}]);
    routes
}

fn trees() -> Value {
    let input =
        |name: &str| extension("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", json!({"header_name": name}));
    let direct = |name: &str, path: &str| json!({"name": name, "match": {"prefix": path}, "direct_response": {"status": 200, "body": {"inline_string": name}}});
    let action = |name: &str, path: &str| json!({"action": {"name": "a", "typed_config": typed("envoy.config.route.v3.Route", direct(name, path))}});
    let list = |first: &str, second: &str| {
        let routes = json!({"routes": [direct(first, "/first"), direct(second, "/second")]});
        json!({"action": {"name": "a", "typed_config": typed("envoy.config.route.v3.RouteList", routes)}})
    };
    let single = |name: &str, value: Value| json!({"single_predicate": {"input": input(name), "value_match": value}});
    let nested = json!({"matcher": {"matcher_tree": {
        "input": input("x-inner"),
        "prefix_match_map": {"map": {"a": action("prefix a", "/"), "abc": action("prefix abc", "/"), "abd": action("prefix abd", "/deep")}},
    }}});
    let matcher = json!({
        "matcher_list": {"matchers": [
            {"predicate": single("x-list", json!({"exact": "yes"})), "on_match": list("one", "two")},
            {"predicate": {"and_matcher": {"predicate": [
                single("x-a", json!({"prefix": "a"})),
                {"not_matcher": single("x-b", json!({"suffix": "b"}))}]}}, "on_match": action("and not", "/")},
            {"predicate": {"or_matcher": {"predicate": [
                single("x-c", json!({"contains": "c"})), single("x-d", json!({"safe_regex": {"google_re2": {}, "regex": "d+"}}))]}},
                "on_match": action("or", "/")},
            {"predicate": single("x-nested", json!({"exact": "yes"})), "on_match": nested},
            {"predicate": single(":path", json!({"prefix": "/by-path"})), "on_match": action("path", "/")},
        ]},
        "on_no_match": action("no match", "/"),
    });
    json!({"virtual_hosts": [{"name": "tree", "domains": ["*"], "matcher": matcher}]})
}

fn templates() -> Value {
    let route = |template: &str, rewrite: Option<&str>| {
        let matched = extension(
            "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            json!({"path_template": template}),
        );
        let mut action = json!({"cluster": "origin"});
        if let Some(rewrite) = rewrite {
            action["path_rewrite_policy"] = extension(
                "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
                json!({"path_template_rewrite": rewrite}),
            );
        }
        json!({"match": {"path_match_policy": matched}, "route": action})
    };
    one_host(&[
        route("/users/{id}/files/{rest=**}", Some("/{rest}/of/{id}")),
        route("/one/*/end", None),
        route("/media/**.mpd", None),
        route("/named/{kind=a/*}/x", Some("/k/{kind}")),
    ])
}

fn formats() -> Value {
    one_host(&[
        acting("/path", "origin", json!({"path_rewrite": "/new/%REQ(x-part)%"})),
        acting("/host", "origin", json!({"host_rewrite": "pre-%REQ(x-part)%", "append_x_forwarded_host": true})),
        acting("/none", "origin", json!({"path_rewrite": "%REQ(x-part)%"})),
        json!({"match": {"prefix": "/redirect"}, "redirect": {"path_rewrite": "/to/%REQ(x-part)%"}}),
        json!({"match": {"prefix": "/text"}, "direct_response": {"status": 418,
            "body": {"inline_string": "unused"},
            "body_format": {"text_format_source": {"inline_string": "%REQ(:METHOD)% %RESPONSE_CODE% %REQ(x-part)%"}}}}),
        json!({"match": {"prefix": "/json"}, "direct_response": {"status": 200,
            "body_format": {"json_format": {"part": "%REQ(x-part)%"}}}}),
        json!({"match": {"prefix": "/typed"}, "direct_response": {"status": 200,
            "body_format": {"content_type": "text/x", "text_format_source": {"inline_string": "t"}}}}),
    ])
}

fn weights() -> Value {
    let clusters = json!([
        {"name": "origin", "weight": 30, "request_headers_to_add": [{"header": {"key": "x-chosen", "value": "first"}}]},
        {"name": "other", "weight": 70, "request_headers_to_add": [{"header": {"key": "x-chosen", "value": "second"}}]},
    ]);
    let by = |prefix: &str, key: &str, value: Value, more: Value| {
        let mut weighted = json!({"clusters": clusters});
        weighted[key] = value;
        let mut route = json!({"match": {"prefix": prefix}, "route": {"weighted_clusters": weighted}});
        if let (Some(action), Value::Object(more)) = (route["route"].as_object_mut(), more) {
            action.extend(more);
        }
        route
    };
    let named = json!([{"cluster_header": "x-cluster", "weight": 1}]);
    one_host(&[
        by("/header", "header_name", json!("x-number"), json!({})),
        by("/hash", "use_hash_policy", json!(true), json!({"hash_policy": [{"header": {"header_name": "x-key"}}]})),
        json!({"match": {"prefix": "/named"}, "route": {"weighted_clusters": {"clusters": named}}}),
    ])
}

fn tls(requirement: &str) -> Value {
    let mut routes = one_host(&[answer(&json!({"prefix": "/"}), "here")]);
    routes["virtual_hosts"][0]["require_tls"] = json!(requirement);
    routes
}

fn path_parameters() -> Value {
    let mut routes = one_host(&[
        answer(&json!({"path": "/exact"}), "exact"),
        answer(&json!({"path_separated_prefix": "/sep"}), "separated"),
        answer(&json!({"prefix": "/"}), "rest"),
    ]);
    routes["ignore_path_parameters_in_path_matching"] = json!(true);
    routes
}

fn host_by_header() -> Value {
    let host = |name: &str, domain: &str| json!({"name": name, "domains": [domain], "routes": [answer(&json!({"prefix": "/"}), name)]});
    json!({"vhost_header": "x-virtual-host", "virtual_hosts": [host("a", "a.test"), host("b", "*.b.test"), host("rest", "*")]})
}

fn bounds() -> Value {
    let retries = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let mut small = acting("/small", "origin", json!({"retry_policy": retries}));
    small["per_request_buffer_limit_bytes"] = json!(4);
    let mut large = acting("/large", "origin", json!({"retry_policy": retries}));
    large["request_body_buffer_limit"] = json!(1_000_000);
    one_host(&[
        small,
        large,
        acting("/grpc-max", "origin", json!({"max_grpc_timeout": "2s", "grpc_timeout_offset": "0.5s"})),
        acting("/grpc-any", "origin", json!({"max_grpc_timeout": "0s"})),
    ])
}

#[rustfmt::skip] // one line an exchange
pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("internal redirects", "redirected: to a direct response", "GET /plain?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~direct\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: to the application", "GET /plain?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers/status/302/location/http:~~b.test~end?x=1#f\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: with a body", "POST /plain HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: headers/status/302/location/http:~~b.test~end\r\n").body("hello").look(Look::Answer),
    exchange("internal redirects", "redirected: see other", "POST /codes HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: headers/status/303/location/http:~~b.test~end\r\n").body("hello").look(Look::Answer),
    exchange("internal redirects", "redirected: see other after a head", "HEAD /codes HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers/status/303/location/http:~~b.test~end\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: not this status", "GET /codes HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~end\r\n"),
    exchange("internal redirects", "redirected: without a location", "GET /plain HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302\r\n"),
    exchange("internal redirects", "redirected: to a path alone", "GET /plain HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/~end\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: to no URL", "GET /plain HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/nowhere\r\n"),
    exchange("internal redirects", "redirected: to no route", "GET /plain HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~nowhere\r\n"),
    exchange("internal redirects", "redirected: to another scheme", "GET /plain HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/https:~~b.test~end\r\n"),
    exchange("internal redirects", "redirected: to another scheme that may be", "GET /cross HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers/status/302/location/https:~~b.test~end\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: unsafely", "GET /safe HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/https:~~b.test~end\r\n"),
    exchange("internal redirects", "redirected: to a listed route", "GET /listed HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers/status/302/location/http:~~b.test~end\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: to another than listed", "GET /listed HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~direct\r\n"),
    exchange("internal redirects", "redirected: in a circle", "GET /many HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~many\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: to a former route", "GET /previous HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~previous\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: copies headers", "GET /copy HTTP/1.1\r\nhost: any.test\r\nx-absent: 1\r\nx-origin-do: headers/status/302/header/x-copied/v/location/http:~~b.test~end\r\n").look(Look::Answer),
    exchange("internal redirects", "redirected: by the older field", "GET /older HTTP/1.1\r\nhost: any.test\r\nx-origin-do: status/302/location/http:~~b.test~direct\r\n").look(Look::Answer),
    exchange("trees", "tree: first of a list", "GET /first HTTP/1.1\r\nhost: any.test\r\nx-list: yes\r\n"),
    exchange("trees", "tree: second of a list", "GET /second HTTP/1.1\r\nhost: any.test\r\nx-list: yes\r\n"),
    exchange("trees", "tree: none of a list", "GET /third HTTP/1.1\r\nhost: any.test\r\nx-list: yes\r\n"),
    exchange("trees", "tree: and not", "GET / HTTP/1.1\r\nhost: any.test\r\nx-a: ab\r\n"),
    exchange("trees", "tree: and not not", "GET / HTTP/1.1\r\nhost: any.test\r\nx-a: ab\r\nx-b: ab\r\n"),
    exchange("trees", "tree: or", "GET / HTTP/1.1\r\nhost: any.test\r\nx-d: ddd\r\n"),
    exchange("trees", "tree: or of the other", "GET / HTTP/1.1\r\nhost: any.test\r\nx-c: acb\r\n"),
    exchange("trees", "tree: longest prefix", "GET / HTTP/1.1\r\nhost: any.test\r\nx-nested: yes\r\nx-inner: abcd\r\n"),
    exchange("trees", "tree: shorter prefix", "GET / HTTP/1.1\r\nhost: any.test\r\nx-nested: yes\r\nx-inner: abz\r\n"),
    exchange("trees", "tree: prefix whose route does not match", "GET / HTTP/1.1\r\nhost: any.test\r\nx-nested: yes\r\nx-inner: abd\r\n"),
    exchange("trees", "tree: nested without a match", "GET /by-path HTTP/1.1\r\nhost: any.test\r\nx-nested: yes\r\nx-inner: z\r\n"),
    exchange("trees", "tree: nested without the input", "GET /by-path HTTP/1.1\r\nhost: any.test\r\nx-nested: yes\r\n"),
    exchange("trees", "tree: by path", "GET /by-path/x HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("trees", "tree: no match", "GET / HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("trees", "tree: two fields of a header", "GET / HTTP/1.1\r\nhost: any.test\r\nx-list: yes\r\nx-list: yes\r\n"),
    exchange("mirrors", "mirror: all", "POST /all HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\n").body("hello"),
    exchange("mirrors", "mirror: never", "GET /never HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    exchange("mirrors", "mirror: by no header", "GET /header HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    exchange("mirrors", "mirror: to nobody", "GET /nobody HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    exchange("mirrors", "mirror: to an unknown cluster", "GET /unknown HTTP/1.1\r\nhost: any.test\r\n").look(Look::Attempts),
    exchange("templates", "template: variables", "GET /users/7/files/a/b?q=1 HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("templates", "template: nothing for the rest", "GET /users/7/files/ HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("templates", "template: no variable", "GET /users//files/a HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("templates", "template: one segment", "GET /one/x/end HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("templates", "template: two segments for one", "GET /one/x/y/end HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("templates", "template: an ending", "GET /media/a/b.mpd HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("templates", "template: another ending", "GET /media/a/b.mp4 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("templates", "template: pattern of a variable", "GET /named/a/1/x HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("formats", "format: path", "GET /path/old?q=1 HTTP/1.1\r\nhost: any.test\r\nx-part: p\r\nx-origin-do: headers\r\n"),
    exchange("formats", "format: path without the header", "GET /path/old?q=1 HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("formats", "format: host", "GET /host HTTP/1.1\r\nhost: any.test\r\nx-part: p.test\r\nx-origin-do: headers\r\n"),
    exchange("formats", "format: nothing", "GET /none?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange("formats", "format: redirect", "GET /redirect?q=1 HTTP/1.1\r\nhost: any.test\r\nx-part: p\r\n"),
    exchange("formats", "format: direct response", "GET /text HTTP/1.1\r\nhost: any.test\r\nx-part: p\r\n"),
    exchange("formats", "format: direct response in JSON", "GET /json HTTP/1.1\r\nhost: any.test\r\nx-part: p\r\n"),
    exchange("formats", "format: direct response of a type", "GET /typed HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("weights", "weight: number of the first", "GET /header HTTP/1.1\r\nhost: any.test\r\nx-number: 29\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: number of the second", "GET /header HTTP/1.1\r\nhost: any.test\r\nx-number: 30\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: number beyond the sum", "GET /header HTTP/1.1\r\nhost: any.test\r\nx-number: 1029\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: hash a", "GET /hash HTTP/1.1\r\nhost: any.test\r\nx-key: a\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: hash b", "GET /hash HTTP/1.1\r\nhost: any.test\r\nx-key: b\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: hash c", "GET /hash HTTP/1.1\r\nhost: any.test\r\nx-key: c\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: hash d", "GET /hash HTTP/1.1\r\nhost: any.test\r\nx-key: d\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: cluster by header", "GET /named HTTP/1.1\r\nhost: any.test\r\nx-cluster: other\r\nx-origin-do: headers\r\n"),
    exchange("weights", "weight: cluster by no header", "GET /named HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("tls for all", "tls: required", "GET /a?b HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("tls for all", "tls: required with a port", "GET /a HTTP/1.1\r\nhost: any.test:80\r\n"),
    exchange("tls for all", "tls: post", "POST /a HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\n"),
    exchange("tls for outsiders", "tls: from outside", "GET /a HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("tls for insiders", "tls: from inside", "GET /a HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("path parameters", "parameters: exact", "GET /exact;a=b?q=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("path parameters", "parameters: separated", "GET /sep;a=b/c HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("path parameters", "parameters: in the query", "GET /exact?q;a HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("host by header", "virtual host: by header", "GET / HTTP/1.1\r\nhost: any.test\r\nx-virtual-host: A.test\r\n"),
    exchange("host by header", "virtual host: by a suffix in the header", "GET / HTTP/1.1\r\nhost: a.test\r\nx-virtual-host: x.b.test\r\n"),
    exchange("host by header", "virtual host: without the header", "GET / HTTP/1.1\r\nhost: a.test\r\n"),
    exchange("bounds", "bound: body fits", "POST /large/flaky HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: flaky/1\r\n").body("hello").look(Look::Attempts),
    exchange("bounds", "bound: body does not fit", "POST /small/flaky HTTP/1.1\r\nhost: any.test\r\ncontent-length: 5\r\nx-origin-do: flaky/1\r\n").body("hello").look(Look::Attempts),
    exchange("bounds", "bound: timeout of grpc", "POST /grpc-max HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\ngrpc-timeout: 1S\r\nx-origin-do: headers\r\n"),
    exchange("bounds", "bound: timeout of grpc over the most", "POST /grpc-max HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\ngrpc-timeout: 9S\r\nx-origin-do: headers\r\n"),
    exchange("bounds", "bound: no timeout of grpc", "POST /grpc-max HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nx-origin-do: headers\r\n"),
    exchange("bounds", "bound: any timeout of grpc", "POST /grpc-any HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\ngrpc-timeout: 100m\r\nx-origin-do: headers\r\n"),
    exchange("bounds", "bound: not grpc", "GET /grpc-max HTTP/1.1\r\nhost: any.test\r\ngrpc-timeout: 100m\r\nx-origin-do: headers\r\n"),
];
