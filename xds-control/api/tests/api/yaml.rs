//! YAML: what its scalars are, duplicate keys, anchors, and errors that tell where.

use serde_json::{Value, json};
use weft_xds::json::{from_yaml, merge, merge_yaml, yaml_to_value};
use weft_xds::pb::envoy::config::bootstrap::v3::Bootstrap;
use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::overload::v3::ThresholdTrigger;

fn read(text: &str) -> Value {
    yaml_to_value(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn error(text: &str) -> String {
    yaml_to_value(text).expect_err(text).to_string()
}

#[test]
fn plain_scalars_have_the_types_of_yaml_1_2() {
    for (text, value) in [
        ("null", json!(null)),
        ("~", json!(null)),
        ("true", json!(true)),
        ("False", json!(false)),
        ("12", json!(12)),
        ("-12", json!(-12)),
        ("+12", json!(12)),
        ("0x1F", json!(31)),
        ("0o17", json!(15)),
        ("0", json!(0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.5", json!(1.5)),
        ("-0.5", json!(-0.5)),
        ("1.0", json!(1.0)),
        (".inf", json!("Infinity")),
        ("-.INF", json!("-Infinity")),
        (".nan", json!("NaN")),
    ] {
        assert_eq!(read(&format!("a: {text}"))["a"], value, "{text}");
    }
    assert_eq!(read("a:"), json!({"a": null}));
}

#[test]
fn an_octal_number_is_octal_as_envoy_reads_it() {
    assert_eq!(read("mode: 0644")["mode"], json!(0o644));
    assert_eq!(read("mode: 089")["mode"], json!("089"), "no octal number, so text");
}

#[test]
fn everything_else_is_a_string() {
    let strings = [
        "yes",
        "on",
        "No",
        "y",
        "nULL",
        "1.2.3.4",
        "1s",
        "10.0.0.0/8",
        "2026-01-01",
        "12:30:45",
        "0x",
        "0xg",
        "1_000",
        "--1",
        "+-1",
        "0x-1",
        "e3",
        ".",
        "-",
        "+",
        "1e",
        "1.10",
        "-.5",
        "1.",
        "1e3",
        "99999999999999999999",
        "1e999",
        "inf",
        "*.example.com",
    ];
    for text in strings {
        let quoted = if text.starts_with('*') || text == "-" { format!("{text:?}") } else { text.to_owned() };
        assert_eq!(read(&format!("a: {quoted}"))["a"], json!(text), "{text}");
    }
    for text in ["\"1\"", "'true'", "\"null\"", "'~'", "!!str 1", "! 1"] {
        assert!(read(&format!("a: {text}"))["a"].is_string(), "{text}");
    }
    assert_eq!(read("a: |\n  1\n")["a"], json!("1\n"));
    assert_eq!(read("a: >-\n  x\n  y\n")["a"], json!("x y"));
}

#[test]
fn a_number_where_a_string_is_wanted_is_refused() {
    let refused = from_yaml::<Cluster>("name: 1").unwrap_err();
    assert_eq!(refused.to_string(), "name: expected a string, got the number 1");
    assert!(from_yaml::<Cluster>("name: true").is_err());
    for text in ["'1'", "'1.0'", "1.0", "1.10", "1e3", "on"] {
        assert_eq!(from_yaml::<Cluster>(&format!("name: {text}")).unwrap().name, text.trim_matches('\''));
    }
}

/// A number in another spelling than its shortest is text, which a number field reads.
#[test]
fn numbers_in_any_spelling_fill_number_fields() {
    for (text, value) in [("0.50", 0.5), ("1e-1", 0.1), ("1.0", 1.0), ("0.25", 0.25), ("1", 1.0)] {
        let trigger: ThresholdTrigger = from_yaml(&format!("value: {text}")).unwrap();
        assert_eq!(trigger.value, value, "{text}");
    }
    let cluster: Cluster = from_yaml("per_connection_buffer_limit_bytes: 1e3").unwrap();
    assert_eq!(cluster.per_connection_buffer_limit_bytes.unwrap().value, 1000);
}

#[test]
fn yes_and_on_fill_boolean_fields_and_string_fields() {
    let cluster: Cluster = from_yaml("{track_cluster_stats: {timeout_budgets: yes}, name: no}").unwrap();
    assert!(cluster.track_cluster_stats.unwrap().timeout_budgets);
    assert_eq!(cluster.name, "no");
}

#[test]
fn tags_say_the_type_and_unknown_ones_are_refused() {
    assert_eq!(
        read("a: !!int 5\nb: !!float 1.5\nc: !!bool true\nd: !!null ~\ne: !!map {}\nf: !!seq []")["a"],
        json!(5)
    );
    assert_eq!(error("a: !!int x"), "a: the value is not what its tag !!int says (line 1, column 10)");
    assert!(error("a: !custom x").starts_with("a: tag !custom is not supported"));
    assert!(error("a: !custom {}").starts_with("a: tag !custom is not supported"));
}

#[test]
fn json_is_yaml() {
    let text = r#"{"a": [1, 2.5, "x", null, true], "b": {"c": {}}, "@type": "t/x"}"#;
    assert_eq!(read(text), serde_json::from_str::<Value>(text).unwrap());
}

#[test]
fn json_with_tabs_and_escapes_is_yaml_too() {
    let text =
        "{\n\t\"a\": \"x\\/\\u00e4\\ud83d\\ude00\\n\",\n\t\"b\" : [\n\t\t1 ,2\n\t],\"c\":{},\"url\":\"http://a\"\n}\n";
    assert_eq!(read(text), serde_json::from_str::<Value>(text).unwrap());
    let long_key = format!("{{\"{}\": 1}}", "k".repeat(900));
    assert_eq!(read(&long_key), serde_json::from_str::<Value>(&long_key).unwrap());
}

#[test]
fn duplicate_keys_are_refused_with_path_and_line() {
    let text = "a:\n  b:\n  - c: 1\n    d: 2\n    c: 3\n";
    assert_eq!(error(text), "a.b[0].c: is written twice, again at line 5");
    assert_eq!(error("{a: 1, 'a': 2}"), "a: is written twice, again at line 1");
    assert_eq!(error("x.y: {a.b: 1, a.b: 2}"), "[\"x.y\"][\"a.b\"]: is written twice, again at line 1");
}

#[test]
fn bad_syntax_tells_line_and_column() {
    for (text, place) in [
        ("a: {\n", "line 1, column 4"),
        ("a: b\n  c: d", "line 2, column"),
        ("a: 1\nb: [1\nc: 2", "line "),
        ("\"a", "line 1"),
        ("a: *b", "line 1"),
    ] {
        let error = error(text);
        assert!(error.contains(place) && error.starts_with("not valid YAML: "), "{text:?}: {error}");
    }
}

#[test]
fn one_document_is_wanted() {
    assert_eq!(error(""), "the document is empty");
    assert_eq!(error("# nothing\n"), "the document is empty");
    assert!(error("a: 1\n---\nb: 2").starts_with("there is a second document"));
    assert_eq!(read("---\na: 1\n..."), json!({"a": 1}));
}

#[test]
fn keys_are_strings() {
    assert_eq!(read("1: a\ntrue: b\n~: c"), json!({"1": "a", "true": "b", "~": "c"}));
    assert!(error("[a]: b").contains("a key must be a string"));
    assert!(error("? {a: 1}\n: b").contains("a key must be a string"));
}

#[test]
fn anchors_and_aliases() {
    assert_eq!(
        read("a: &x {b: [1]}\nc: *x\nd: [*x, *x]"),
        json!({"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}, {"b": [1]}]})
    );
    assert_eq!(read("&k a: 1\nb: *k"), json!({"a": 1, "b": "a"}));
    assert_eq!(read("a: &x 1\nb: &x 2\nc: *x"), json!({"a": 1, "b": 2, "c": 2}), "the latest anchor counts");
    assert!(error("a: &x [*x]").contains("an alias stands within what it refers to"));
}

#[test]
fn merge_keys() {
    let text =
        "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\nuse: {<<: *base, a: 9}\nuses: {<<: [*base, *other]}\n";
    let value = read(text);
    assert_eq!(value["use"], json!({"a": 9, "b": 2}));
    assert_eq!(value["uses"], json!({"a": 1, "b": 2, "c": 4}));
    assert!(error("a: {<<: 1}").contains("<< merges mappings only"));
    assert_eq!(read("{'<<': 1}"), json!({"<<": 1}), "quoted it is a key like others");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
        text.push_str(&format!("l{level}: &l{level} [{aliases}]\n"));
    }
    assert!(error(&text).contains("anchors and aliases repeat more than 64 MiB"));
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 1000].join(", "));
    assert!(error(&long).contains("anchors and aliases repeat more than 64 MiB"), "long strings count by their length");
    let nested = (0..150).map(|n| format!("&a{n} [{}", "y, ".repeat(1000))).collect::<String>() + &"]".repeat(150);
    assert!(error(&nested).contains("anchors and aliases repeat more than 64 MiB"), "so do anchors within anchors");
}

#[test]
fn depth_is_bounded_with_and_without_aliases() {
    assert!(yaml_to_value(&"[".repeat(100_000)).is_err());
    assert!(yaml_to_value(&format!("{}{}", "[".repeat(150), "]".repeat(150))).is_ok());
    let mut text = String::from("l0: &l0 [x]\n");
    for level in 1..5000 {
        text.push_str(&format!("l{level}: &l{level} [*l{}]\n", level - 1));
    }
    assert!(error(&text).contains("aliases nest deeper"));
}

#[test]
fn merging_values_appends_lists_and_replaces_scalars() {
    let base = json!({"a": 1, "list": [1], "inner": {"x": 1, "y": 2}, "kept": true});
    let over = json!({"a": 2, "list": [2], "inner": {"y": 3}, "kept": null, "new": "n"});
    assert_eq!(
        merge_yaml(base, over),
        json!({"a": 2, "list": [1, 2], "inner": {"x": 1, "y": 3}, "kept": true, "new": "n"})
    );
}

#[test]
fn merging_values_replaces_an_any_as_a_whole() {
    let base = json!({"c": {"@type": "a/b", "x": 1}});
    let over = json!({"c": {"@type": "a/c", "y": 2}});
    assert_eq!(merge_yaml(base, over.clone()), over);
}

#[test]
fn merging_messages_is_what_protobuf_does() {
    let base: Bootstrap = from_yaml(
        "{node: {id: a, cluster: c}, static_resources: {clusters: [{name: x}]}, admin: {access_log_path: p}}",
    )
    .unwrap();
    let over: Bootstrap = from_yaml("{node: {id: b}, static_resources: {clusters: [{name: y}]}}").unwrap();
    let merged = merge(&base, &over).unwrap();
    let node = merged.node.unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("b", "c"));
    let names: Vec<_> = merged.static_resources.unwrap().clusters.into_iter().map(|cluster| cluster.name).collect();
    assert_eq!(names, ["x", "y"]);
}

/// Values merged before they are typed would have both members of the oneof.
#[test]
fn merging_messages_replaces_the_member_of_a_oneof() {
    use weft_xds::pb::envoy::config::core::v3::{SocketAddress, socket_address::PortSpecifier};
    let base: SocketAddress = from_yaml("{port_value: 1}").unwrap();
    let over: SocketAddress = from_yaml("{named_port: http}").unwrap();
    let merged = merge(&base, &over).unwrap();
    assert_eq!(merged.port_specifier, Some(PortSpecifier::NamedPort("http".to_owned())));
}
