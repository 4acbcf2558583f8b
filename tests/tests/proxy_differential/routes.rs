//! Routes: what they match, what they change, and where they send requests instead.

use serde_json::{Value, json};

use crate::scene::{Exchange, Scene, acting, exchange, one_host, to};

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |name, routes| Scene { name, manager: json!({}), routes, internal: false };
    vec![
        scene("rewrites", rewrites()),
        scene("redirects", redirects()),
        scene("matches", matches()),
        scene("headers", headers(false)),
        scene("specific headers", headers(true)),
    ]
}

fn regex(pattern: &str, substitution: &str) -> Value {
    json!({"pattern": {"regex": pattern}, "substitution": substitution})
}

fn rewrites() -> Value {
    one_host(&[
        acting("/regex/", "origin", json!({"regex_rewrite": regex("/([a-z]+)/([0-9]+)", r"/\2/\1/\0")})),
        acting("/prefix", "origin", json!({"prefix_rewrite": "/new"})),
        json!({"match": {"safe_regex": {"regex": "/whole.*"}}, "route": {"cluster": "origin", "prefix_rewrite": "/new"}}),
        acting(
            "/host-literal",
            "origin",
            json!({"host_rewrite_literal": "other.test", "append_x_forwarded_host": true}),
        ),
        acting("/host-header", "origin", json!({"host_rewrite_header": "x-host"})),
        acting(
            "/host-path/",
            "origin",
            json!({"host_rewrite_path_regex": regex("^/host-path/([^/]+).*$", r"\1.test"), "append_x_forwarded_host": true}),
        ),
        acting("/host-auto", "origin", json!({"auto_host_rewrite": true})),
        json!({"match": {"prefix": "/by-header"}, "route": {"cluster_header": "x-cluster"}}),
        json!({"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "origin", "weight": 1, "host_rewrite_literal": "weighted.test",
             "request_headers_to_add": [{"header": {"key": "x-weighted", "value": "1"}}],
             "response_headers_to_remove": ["x-origin-version"]}]}}}),
        to("/", "origin", json!({})),
    ])
}

fn redirects() -> Value {
    let redirect = |prefix: &str, fields: Value| json!({"match": {"prefix": prefix}, "redirect": fields});
    one_host(&[
        redirect("/https", json!({"https_redirect": true})),
        redirect("/scheme", json!({"scheme_redirect": "ftp"})),
        redirect("/host", json!({"host_redirect": "new.test"})),
        redirect("/port", json!({"port_redirect": 8443})),
        redirect("/both", json!({"host_redirect": "new.test", "port_redirect": 8443, "https_redirect": true})),
        redirect("/path-with-query", json!({"path_redirect": "/p?own=1", "strip_query": true})),
        redirect("/path", json!({"path_redirect": "/p"})),
        redirect("/strip", json!({"path_redirect": "/p", "strip_query": true})),
        redirect("/prefix", json!({"prefix_rewrite": "/new"})),
        redirect("/regex", json!({"regex_rewrite": regex("^/regex/(.*)$", r"/r-\1")})),
        redirect("/found", json!({"response_code": "FOUND"})),
        redirect("/other", json!({"response_code": "SEE_OTHER"})),
        redirect("/temporary", json!({"response_code": "TEMPORARY_REDIRECT"})),
        redirect("/permanent", json!({"response_code": "PERMANENT_REDIRECT"})),
        json!({"match": {"prefix": "/headers-too"}, "redirect": {"host_redirect": "new.test"},
            "response_headers_to_add": [{"header": {"key": "x-added", "value": "%REQ(x-a)%"}}]}),
    ])
}

fn matches() -> Value {
    let matching = |more: Value, name: &str| {
        let mut rule = json!({"prefix": "/"});
        if let (Some(rule), Value::Object(more)) = (rule.as_object_mut(), more) {
            rule.extend(more);
        }
        json!({"match": rule, "direct_response": {"status": 200, "body": {"inline_string": name}}})
    };
    let header = |fields: Value| json!({"headers": [fields]});
    one_host(&[
        matching(json!({"cookies": [{"name": "session", "string_match": {"prefix": "a"}}]}), "cookie"),
        matching(
            json!({"cookies": [{"name": "absent", "string_match": {"exact": "a"}, "invert_match": true}], "headers": [{"name": "x-cookie"}]}),
            "no cookie",
        ),
        matching(json!({"runtime_fraction": {"default_value": {"numerator": 0}}}), "never"),
        matching(
            json!({"runtime_fraction": {"default_value": {"numerator": 100}}, "headers": [{"name": "x-always"}]}),
            "always",
        ),
        matching(header(json!({"name": "x-exact", "string_match": {"exact": "A", "ignore_case": true}})), "exact"),
        matching(header(json!({"name": "x-regex", "string_match": {"safe_regex": {"regex": "a+b"}}})), "regex"),
        matching(header(json!({"name": "x-range", "range_match": {"start": 5, "end": 10}})), "range"),
        matching(
            header(
                json!({"name": "x-suffix", "string_match": {"suffix": "z"}, "invert_match": true, "treat_missing_header_as_empty": false}),
            ),
            "not suffix",
        ),
        matching(json!({"query_parameters": [{"name": "q", "string_match": {"contains": "mid"}}]}), "query"),
        matching(json!({"query_parameters": [{"name": "p", "present_match": true}]}), "parameter"),
        matching(header(json!({"name": ":method", "string_match": {"exact": "PUT"}})), "method"),
        matching(json!({"prefix": "/case", "case_sensitive": false}), "case"),
        matching(json!({"grpc": {}}), "grpc"),
        matching(json!({}), "rest"),
    ])
}

/// A header that is set in all places, and one of each.
fn headers(most_specific_wins: bool) -> Value {
    let rules = |place: &str| {
        json!({
            "request_headers_to_add": [
                {"header": {"key": "x-place", "value": place}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-list", "value": place}},
                {"header": {"key": "x-if-absent", "value": place}, "append_action": "ADD_IF_ABSENT"},
            ],
            "request_headers_to_remove": [format!("x-remove-{place}")],
            "response_headers_to_add": [
                {"header": {"key": "x-place", "value": format!("{place} %RESPONSE_CODE%")}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "x-list", "value": format!("{place}-%REQ(x-a)%")}},
            ],
            "response_headers_to_remove": [format!("x-remove-{place}"), "x-origin-version"],
        })
    };
    let with = |mut value: Value, place: &str| {
        if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), rules(place)) {
            fields.extend(more);
        }
        value
    };
    let formats = json!([
        {"header": {"key": "x-protocol", "value": "%PROTOCOL% %REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)%"}},
        {"header": {"key": "x-peer", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}},
        {"header": {"key": "x-route", "value": "%ROUTE_NAME%"}},
        {"header": {"key": "x-none", "value": "%REQ(x-none)%"}},
        {"header": {"key": "x-none-kept", "value": "%REQ(x-none)%"}, "keep_empty_value": true},
        {"header": {"key": "x-cut", "value": "%REQ(x-long):3%"}},
        {"header": {"key": "x-environment", "value": "[%ENVIRONMENT(WEFT_NONE)%]"}},
    ]);
    let mut table = one_host(&[
        json!({"name": "formats", "match": {"prefix": "/formats"}, "route": {"cluster": "origin"}, "request_headers_to_add": formats}),
        with(to("/to-nobody", "nobody", json!({})), "route"),
        with(
            json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}),
            "route",
        ),
        with(to("/", "origin", json!({})), "route"),
    ]);
    table["virtual_hosts"][0] = with(table["virtual_hosts"][0].clone(), "host");
    let mut table = with(table, "table");
    table["most_specific_header_mutations_wins"] = json!(most_specific_wins);
    table
}

pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange(
        "rewrites",
        "rewrite: regex",
        "GET /regex/abc/12/x?q=/abc/12 HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("rewrites", "rewrite: prefix", "GET /prefix/x?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange(
        "rewrites",
        "rewrite: prefix of an expression",
        "GET /whole/x?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("rewrites", "rewrite: host", "GET /host-literal HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n"),
    exchange(
        "rewrites",
        "rewrite: host with one before",
        "GET /host-literal HTTP/1.1\r\nhost: any.test\r\nx-forwarded-host: first.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: host by header",
        "GET /host-header HTTP/1.1\r\nhost: any.test\r\nx-host: header.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: host by no header",
        "GET /host-header HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: host by path",
        "GET /host-path/sub/x?q HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: host of the upstream",
        "GET /host-auto HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: cluster by header",
        "GET /by-header HTTP/1.1\r\nhost: any.test\r\nx-cluster: other\r\nx-origin-do: headers\r\n",
    ),
    exchange(
        "rewrites",
        "rewrite: unknown cluster by header",
        "GET /by-header HTTP/1.1\r\nhost: any.test\r\nx-cluster: none\r\n",
    ),
    exchange("rewrites", "rewrite: cluster by no header", "GET /by-header HTTP/1.1\r\nhost: any.test\r\n"),
    exchange(
        "rewrites",
        "rewrite: of a weighted cluster",
        "GET /weighted HTTP/1.1\r\nhost: any.test\r\nx-origin-do: headers\r\n",
    ),
    exchange("redirects", "redirect: https", "GET /https/a?b HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: https from port 80", "GET /https HTTP/1.1\r\nhost: any.test:80\r\n"),
    exchange("redirects", "redirect: https from another port", "GET /https HTTP/1.1\r\nhost: any.test:81\r\n"),
    exchange("redirects", "redirect: https of IPv6", "GET /https HTTP/1.1\r\nhost: [::1]:80\r\n"),
    exchange(
        "redirects",
        "redirect: https behind https",
        "GET /https HTTP/1.1\r\nhost: any.test:443\r\nx-forwarded-proto: https\r\n",
    ),
    exchange("redirects", "redirect: scheme", "GET /scheme HTTP/1.1\r\nhost: any.test:80\r\n"),
    exchange("redirects", "redirect: host", "GET /host?x=1 HTTP/1.1\r\nhost: any.test:81\r\n"),
    exchange("redirects", "redirect: port", "GET /port HTTP/1.1\r\nhost: any.test:81\r\n"),
    exchange("redirects", "redirect: everything", "GET /both HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: path", "GET /path?x=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: path with a query", "GET /path-with-query?x=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: without the query", "GET /strip?x=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: prefix", "GET /prefix/a?x=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: regex", "GET /regex/a/b?x=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: found", "GET /found HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: see other", "GET /other HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: temporary", "POST /temporary HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\n"),
    exchange("redirects", "redirect: permanent", "GET /permanent HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("redirects", "redirect: with headers", "GET /headers-too HTTP/1.1\r\nhost: any.test\r\nx-a: 1\r\n"),
    exchange(
        "redirects",
        "redirect: of grpc",
        "POST /host HTTP/1.1\r\nhost: any.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n",
    ),
    exchange("matches", "match: cookie", "GET / HTTP/1.1\r\nhost: any.test\r\ncookie: x=1; session=abc\r\n"),
    exchange("matches", "match: another cookie", "GET / HTTP/1.1\r\nhost: any.test\r\ncookie: session=b\r\n"),
    exchange("matches", "match: no cookie", "GET / HTTP/1.1\r\nhost: any.test\r\nx-cookie: 1\r\n"),
    exchange("matches", "match: always", "GET / HTTP/1.1\r\nhost: any.test\r\nx-always: 1\r\n"),
    exchange("matches", "match: exact without case", "GET / HTTP/1.1\r\nhost: any.test\r\nx-exact: a\r\n"),
    exchange("matches", "match: regex", "GET / HTTP/1.1\r\nhost: any.test\r\nx-regex: aab\r\n"),
    exchange(
        "matches",
        "match: part of a regex",
        "GET / HTTP/1.1\r\nhost: any.test\r\nx-regex: xaab\r\nx-suffix: z\r\n",
    ),
    exchange("matches", "match: range", "GET / HTTP/1.1\r\nhost: any.test\r\nx-range: 9\r\n"),
    exchange(
        "matches",
        "match: end of the range",
        "GET / HTTP/1.1\r\nhost: any.test\r\nx-range: 10\r\nx-suffix: z\r\n",
    ),
    exchange("matches", "match: not the suffix", "GET / HTTP/1.1\r\nhost: any.test\r\nx-suffix: a\r\n"),
    exchange("matches", "match: query", "GET /?a=1&q=amidb HTTP/1.1\r\nhost: any.test\r\nx-suffix: z\r\n"),
    exchange("matches", "match: parameter", "GET /?p HTTP/1.1\r\nhost: any.test\r\nx-suffix: z\r\n"),
    exchange("matches", "match: method", "PUT / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\nx-suffix: z\r\n"),
    exchange("matches", "match: case", "GET /CaSe HTTP/1.1\r\nhost: any.test\r\nx-suffix: z\r\n"),
    exchange(
        "matches",
        "match: grpc",
        "POST / HTTP/1.1\r\nhost: any.test\r\ncontent-length: 0\r\ncontent-type: application/grpc+proto\r\nx-suffix: z\r\n",
    ),
    exchange("matches", "match: the rest", "GET / HTTP/1.1\r\nhost: any.test\r\nx-suffix: z\r\n"),
    exchange(
        "headers",
        "headers: all places",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-remove-route: 1\r\nx-remove-host: 1\r\nx-remove-table: 1\r\nx-a: v\r\nx-list: own\r\n",
    ),
    exchange(
        "specific headers",
        "headers: all places, the most specific last",
        "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-a: v\r\nx-if-absent: own\r\n",
    ),
    exchange("headers", "headers: of a local reply", "GET /to-nobody HTTP/1.1\r\nhost: any.test\r\nx-a: v\r\n"),
    exchange("headers", "headers: of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\nx-a: v\r\n"),
    exchange(
        "headers",
        "headers: written by formats",
        "GET /formats?x HTTP/1.1\r\nhost: any.test\r\nx-long: abcdef\r\nx-origin-do: headers\r\n",
    ),
];
