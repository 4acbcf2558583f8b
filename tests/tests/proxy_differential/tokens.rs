//! JSON Web Tokens: which requests pass, what refusals say, and what the application gets of a token. The tokens and keys of
//! the fixture were made once; they are good until the year 2100.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::scene::{Exchange, Look, Scene, exchange, filter, filters, one_host, to, typed};

static FIXTURE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixtures/tokens.json")).expect("a fixture in JSON"));

pub(crate) fn scenes() -> Vec<Scene> {
    vec![plain(), places(), requirements(), handed_on(), lenient(), stripped()]
}

fn token(name: &str) -> &'static str {
    FIXTURE["tokens"][name].as_str().unwrap_or_else(|| panic!("no token {name}"))
}

fn keys() -> Value {
    json!({"inline_string": json!({"keys": FIXTURE["keys"]}).to_string()})
}

fn provider(more: Value) -> Value {
    let mut provider = json!({"issuer": "issuer-a", "local_jwks": keys(), "forward": true});
    if let (Some(provider), Value::Object(more)) = (provider.as_object_mut(), more) {
        provider.extend(more);
    }
    provider
}

/// Refusals tell their details in a header.
fn with_details(mut manager: Value) -> Value {
    manager["local_reply_config"] = json!({"mappers": [{
        "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "none"}}}},
        "headers_to_add": [{"header": {"key": "x-details", "value": "%RESPONSE_CODE_DETAILS%"}}],
    }]});
    manager
}

fn scene(name: &'static str, config: Value, routes: Value) -> Scene {
    let chain = filters(&[filter("jwt", "jwt_authn.v3.JwtAuthentication", config)]);
    Scene { name, manager: with_details(json!({"http_filters": chain})), routes, internal: false }
}

fn everywhere() -> Value {
    one_host(&[to("/", "origin", json!({}))])
}

fn required(prefix: &str, requires: Value) -> Value {
    json!({"match": {"prefix": prefix}, "requires": requires})
}

fn plain() -> Scene {
    let config = json!({
        "providers": {
            "a": provider(json!({"audiences": ["app"]})),
            "any-audience": provider(json!({})),
            "subjects": provider(json!({"subjects": {"prefix": "us"}})),
            "short": provider(json!({"max_lifetime": "3600s"})),
            "expiring": provider(json!({"require_expiration": true})),
            "patient": provider(json!({"clock_skew_seconds": 4_000_000_000_u32})),
            "any-issuer": provider(json!({"issuer": ""})),
        },
        "rules": [
            {"match": {"prefix": "/open"}},
            required("/any-audience", json!({"provider_name": "any-audience"})),
            required("/subjects", json!({"provider_name": "subjects"})),
            required("/short", json!({"provider_name": "short"})),
            required("/expiring", json!({"provider_name": "expiring"})),
            required("/patient", json!({"provider_name": "patient"})),
            required("/any-issuer", json!({"provider_name": "any-issuer"})),
            required("/other-audience", json!({"provider_and_audiences": {"provider_name": "a", "audiences": ["other"]}})),
            required("/", json!({"provider_name": "a"})),
        ],
        "bypass_cors_preflight": true,
    });
    scene("jwt", config, everywhere())
}

fn places() -> Scene {
    let config = json!({
        "providers": {"a": provider(json!({
            "forward": false,
            "from_headers": [{"name": "x-token"}, {"name": "x-prefixed", "value_prefix": "Token="}],
            "from_params": ["jwt"],
            "from_cookies": ["session"],
        }))},
        "rules": [required("/", json!({"provider_name": "a"}))],
    });
    scene("jwt places", config, everywhere())
}

fn requirements() -> Scene {
    let named = |name: &str| json!({"provider_name": name});
    let config = json!({
        "providers": {
            "a": provider(json!({"from_headers": [{"name": "x-a"}]})),
            "b": provider(json!({"issuer": "issuer-b", "from_headers": [{"name": "x-b"}]})),
        },
        "rules": [
            required("/any", json!({"requires_any": {"requirements": [named("a"), named("b")]}})),
            required("/all", json!({"requires_all": {"requirements": [named("a"), named("b")]}})),
            required("/optional", json!({"requires_any": {"requirements": [named("a"), {"allow_missing": {}}]}})),
            required("/lenient", json!({"requires_any": {"requirements": [named("a"), {"allow_missing_or_failed": {}}]}})),
            required("/missing", json!({"allow_missing": {}})),
            required("/failed", json!({"allow_missing_or_failed": {}})),
            {"match": {"prefix": "/named"}, "requirement_name": "both"},
            {"match": {"prefix": "/header", "headers": [{"name": "x-strict", "present_match": true}]}, "requires": named("a")},
        ],
        "requirement_map": {"both": {"requires_all": {"requirements": [named("a"), named("b")]}}, "one": named("a")},
    });
    let per_route = |fields: Value| json!({"typed_per_filter_config": {"jwt": typed("envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", fields)}});
    let routes = one_host(&[
        to("/all/off", "origin", per_route(json!({"disabled": true}))),
        to("/route-one", "origin", per_route(json!({"requirement_name": "one"}))),
        to("/route-unknown", "origin", per_route(json!({"requirement_name": "nobody"}))),
        to("/", "origin", json!({})),
    ]);
    scene("jwt requirements", config, routes)
}

fn handed_on() -> Scene {
    let claims: Vec<Value> = ["n", "f", "t", "nested.deep.x", "nested.deep", "list", "scope", "neg", "none", "big"]
        .iter()
        .map(|name| json!({"header_name": format!("x-claim-{}", name.replace('.', "-")), "claim_name": name}))
        .collect();
    let config = json!({
        "providers": {
            "a": provider(json!({"forward_payload_header": "x-payload", "claim_to_headers": claims})),
            "padded": provider(json!({
                "forward": false, "forward_payload_header": "x-padded", "pad_forward_payload_header": true,
                "from_headers": [{"name": "x-token"}],
            })),
        },
        "rules": [
            {"match": {"prefix": "/open"}},
            required("/padded", json!({"provider_name": "padded"})),
            required("/", json!({"provider_name": "a"})),
        ],
    });
    scene("jwt handed on", config, everywhere())
}

fn lenient() -> Scene {
    let config = json!({
        "providers": {"a": provider(json!({"forward": false, "forward_payload_header": "x-payload"}))},
        "rules": [required("/", json!({"allow_missing_or_failed": {}}))],
    });
    scene("jwt lenient", config, everywhere())
}

fn stripped() -> Scene {
    let config = json!({
        "providers": {"a": provider(json!({}))},
        "rules": [required("/", json!({"provider_name": "a"}))],
        "strip_failure_response": true,
    });
    scene("jwt stripped", config, everywhere())
}

pub(crate) fn exchanges() -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut add = |scene: &'static str, name: &str, first: &str, headers: String| {
        let head = format!("{first} HTTP/1.1\r\nhost: any.test\r\n{headers}");
        exchanges.push(exchange(scene, leaked(format!("{scene}: {name}")), leaked(head)));
    };
    let bearer = |name: &str| format!("authorization: Bearer {}\r\n", token(name));
    for name in [
        "good",
        "no_kid",
        "other_kid",
        "kid_number",
        "es384",
        "es512",
        "rs256",
        "rs384",
        "rs512",
        "ps256",
        "ps384",
        "ps512",
        "eddsa",
        "hs256",
        "hs384",
        "hs512",
        "expired",
        "early",
        "eternal",
        "issuer_b",
        "no_issuer",
        "aud_other",
        "aud_list",
        "no_aud",
        "exp_text",
        "exp_negative",
        "iss_number",
        "sub_number",
        "nbf_text",
        "iat_text",
        "jti_number",
        "aud_number",
        "aud_numbers",
        "not_json",
        "array",
        "two_parts",
        "four_parts",
        "bad_header",
        "header_not_json",
        "bad_payload",
        "bad_signature",
        "no_alg",
        "alg_number",
        "alg_none",
        "alg_strange",
        "wrong_signature",
        "no_signature",
        "changed_payload",
        "confused",
        "ed_short",
        "padded",
    ] {
        add("jwt", name, "GET /headers", bearer(name));
    }
    add("jwt", "missing", "GET /headers", String::new());
    add("jwt", "open", "GET /open", "x-origin-do: headers\r\n".to_owned());
    add("jwt", "of another scheme", "GET /headers", "authorization: Basic abc\r\n".to_owned());
    add("jwt", "empty bearer", "GET /headers", "authorization: Bearer \r\n".to_owned());
    add("jwt", "lower case bearer", "GET /headers", format!("authorization: bearer {}\r\n", token("good")));
    add("jwt", "spaces before it", "GET /headers", format!("authorization: Bearer    {}\r\n", token("good")));
    add("jwt", "twice", "GET /headers", bearer("good").repeat(2));
    add("jwt", "good and bad", "GET /headers", bearer("good") + &bearer("expired"));
    add("jwt", "bad and good", "GET /headers", bearer("expired") + &bearer("good"));
    add("jwt", "as a parameter", &format!("GET /headers?access_token={}", token("good")), String::new());
    add("jwt", "as both", &format!("GET /headers?access_token={}", token("expired")), bearer("good"));
    add(
        "jwt",
        "preflight",
        "OPTIONS /headers",
        "origin: http://a.test\r\naccess-control-request-method: GET\r\n".to_owned(),
    );
    add("jwt", "options", "OPTIONS /headers", String::new());
    add("jwt", "head", "HEAD /headers", String::new());
    add("jwt", "grpc", "POST /headers", "content-type: application/grpc\r\ncontent-length: 0\r\n".to_owned());
    add("jwt", "a long path", leaked(format!("GET /headers/{}", "a".repeat(400))), String::new());
    add("jwt", "a query", "GET /headers?a=b&c=d", String::new());
    let asking = |name: &str| bearer(name) + "x-origin-do: headers\r\n";
    for (path, name) in [
        ("/any-audience", "aud_other"),
        ("/subjects", "good"),
        ("/subjects", "sub_other"),
        ("/short", "good"),
        ("/short", "eternal"),
        ("/expiring", "good"),
        ("/expiring", "eternal"),
        ("/patient", "expired"),
        ("/any-issuer", "issuer_b"),
        ("/any-issuer", "no_issuer"),
        ("/other-audience", "aud_other"),
        ("/other-audience", "good"),
    ] {
        add("jwt", &format!("{} {name}", &path[1..]), &format!("GET {path}"), asking(name));
    }

    let good = token("good");
    add("jwt places", "header", "GET /headers", format!("x-token: {good}\r\n"));
    add("jwt places", "prefixed", "GET /headers", format!("x-prefixed: Token={good}\r\n"));
    add("jwt places", "another prefix", "GET /headers", format!("x-prefixed: Other={good}\r\n"));
    add("jwt places", "prefix within", "GET /headers", format!("x-prefixed: a Token={good}\r\n"));
    add("jwt places", "parameter", &format!("GET /headers?a=1&jwt={good}&b=2"), String::new());
    add("jwt places", "only parameter", &format!("GET /headers?jwt={good}"), String::new());
    add("jwt places", "cookie", "GET /headers", format!("cookie: a=b; session={good}; c=d\r\n"));
    add("jwt places", "other cookie", "GET /headers", format!("cookie: sessions={good}\r\n"));
    add("jwt places", "authorization", "GET /headers", bearer("good"));
    add("jwt places", "header and bad cookie", "GET /headers", format!("x-token: {good}\r\ncookie: session=x\r\n"));

    let a = |name: &str| format!("x-a: {}\r\nx-origin-do: headers\r\n", token(name));
    let b = |name: &str| format!("x-b: {}\r\nx-origin-do: headers\r\n", token(name));
    for path in ["/any", "/all", "/optional", "/lenient", "/missing", "/failed", "/named"] {
        let name = |what: &str| format!("{} {what}", &path[1..]);
        let first = format!("GET {path}");
        add("jwt requirements", &name("none"), &first, "x-origin-do: headers\r\n".to_owned());
        add("jwt requirements", &name("a"), &first, a("good"));
        add("jwt requirements", &name("b"), &first, b("issuer_b"));
        add("jwt requirements", &name("both"), &first, a("good") + &b("issuer_b"));
        add("jwt requirements", &name("bad a"), &first, a("expired"));
        add("jwt requirements", &name("bad a, good b"), &first, a("expired") + &b("issuer_b"));
        add("jwt requirements", &name("a of b"), &first, a("issuer_b"));
    }
    add("jwt requirements", "header not there", "GET /header", "x-origin-do: headers\r\n".to_owned());
    add("jwt requirements", "header there", "GET /header", "x-strict: 1\r\nx-origin-do: headers\r\n".to_owned());
    add("jwt requirements", "no rule", "GET /headers", String::new());
    add("jwt requirements", "off by the route", "GET /all/off", "x-origin-do: headers\r\n".to_owned());
    add("jwt requirements", "one by the route", "GET /route-one", a("good"));
    add("jwt requirements", "one by the route, none", "GET /route-one", String::new());
    add("jwt requirements", "unknown by the route", "GET /route-unknown", a("good"));

    add("jwt handed on", "claims", "GET /headers", bearer("claims"));
    add(
        "jwt handed on",
        "spoofed",
        "GET /headers",
        bearer("good") + "x-payload: evil\r\nx-claim-n: 99\r\nx-claim-scope: root\r\n",
    );
    add(
        "jwt handed on",
        "spoofed where nothing is required",
        "GET /open",
        "x-origin-do: headers\r\nx-payload: evil\r\nx-claim-n: 99\r\nx-padded: evil\r\n".to_owned(),
    );
    add("jwt handed on", "padded", "GET /padded", format!("x-origin-do: headers\r\nx-token: {}\r\n", token("good")));
    for name in ["good", "expired", "issuer_b", "two_parts"] {
        add("jwt lenient", name, "GET /headers", bearer(name));
    }
    add("jwt lenient", "none", "GET /headers", "x-payload: evil\r\n".to_owned());
    add("jwt stripped", "expired", "GET /headers", bearer("expired"));
    add("jwt stripped", "missing", "GET /headers", String::new());
    for exchange in &mut exchanges {
        exchange.look = Look::Whole;
    }
    exchanges
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
