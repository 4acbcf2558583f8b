//! The proto3 JSON mapping, rule by rule, on messages of Envoy's that have a field of the kind.

use serde_json::{Value, json};
use weft_xds::json::{FieldNames, any_to_value, from_json, from_value, to_value};
use weft_xds::pb::cel::expr::{Constant, SourceInfo, constant};
use weft_xds::pb::envoy::config::cluster::v3::{Cluster, cluster};
use weft_xds::pb::envoy::config::core::v3::{DataSource, Metadata, SocketAddress, SocketOption, data_source};
use weft_xds::pb::envoy::config::metrics::v3::HistogramBucketSettings;
use weft_xds::pb::envoy::config::route::v3::RetryPolicy;
use weft_xds::pb::google::protobuf::{
    Any, BoolValue, BytesValue, DoubleValue, Duration, FloatValue, Int32Value, Int64Value, ListValue, StringValue,
    Struct, Timestamp, UInt32Value, UInt64Value, value::Kind,
};
use weft_xds::{any, canonical};

fn reason<T: std::fmt::Debug>(result: Result<T, weft_xds::FieldError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn names_in_snake_case_and_lower_camel_case() {
    let snake: Cluster = from_value(&json!({"name": "a", "alt_stat_name": "b", "lb_policy": "RANDOM"})).unwrap();
    let camel: Cluster = from_value(&json!({"name": "a", "altStatName": "b", "lbPolicy": "RANDOM"})).unwrap();
    assert_eq!(snake, camel);
    assert_eq!(
        to_value(&snake, FieldNames::Proto).unwrap(),
        json!({"name": "a", "alt_stat_name": "b", "lb_policy": "RANDOM"})
    );
    assert_eq!(
        to_value(&snake, FieldNames::Json).unwrap(),
        json!({"name": "a", "altStatName": "b", "lbPolicy": "RANDOM"})
    );
}

#[test]
fn integers_as_numbers_and_strings_within_their_range() {
    for (value, number) in
        [(json!(0), 0), (json!(4294967295u32), u32::MAX), (json!("7"), 7), (json!(7.0), 7), (json!("1e2"), 100)]
    {
        assert_eq!(from_value::<UInt32Value>(&value).unwrap(), UInt32Value { value: number }, "{value}");
    }
    for value in
        [json!(4294967296u64), json!(-1), json!(1.5), json!("x"), json!(""), json!("0x1"), json!(true), json!([1])]
    {
        assert!(from_value::<UInt32Value>(&value).is_err(), "{value}");
    }
    assert_eq!(from_value::<Int32Value>(&json!(-2147483648i64)).unwrap().value, i32::MIN);
    assert!(from_value::<Int32Value>(&json!(2147483648i64)).is_err());
    assert_eq!(from_value::<Int64Value>(&json!("-9223372036854775808")).unwrap().value, i64::MIN);
    assert_eq!(from_value::<Int64Value>(&json!(9223372036854775807i64)).unwrap().value, i64::MAX);
    assert!(from_value::<Int64Value>(&json!("9223372036854775808")).is_err());
    assert_eq!(from_value::<UInt64Value>(&json!(u64::MAX)).unwrap().value, u64::MAX);
    assert_eq!(
        reason(from_value::<UInt64Value>(&json!(1e20))),
        "100000000000000000000 is out of range: 0 to 18446744073709551615"
    );
}

#[test]
fn integers_of_64_bits_print_as_strings() {
    assert_eq!(to_value(&Int64Value { value: -5 }, FieldNames::Json).unwrap(), json!("-5"));
    assert_eq!(to_value(&UInt64Value { value: u64::MAX }, FieldNames::Json).unwrap(), json!("18446744073709551615"));
    assert_eq!(to_value(&Int32Value { value: -5 }, FieldNames::Json).unwrap(), json!(-5));
    let option: SocketOption =
        from_value(&json!({"level": "6", "name": 1, "int_value": 0, "state": "STATE_LISTENING"})).unwrap();
    let printed = json!({"level": "6", "name": "1", "int_value": "0", "state": "STATE_LISTENING"});
    assert_eq!(to_value(&option, FieldNames::Proto).unwrap(), printed, "a member of a oneof prints even if it is zero");
}

#[test]
fn floats_with_their_words_and_ranges() {
    for (value, number) in [
        (json!(0.5), 0.5),
        (json!("0.5"), 0.5),
        (json!(3), 3.0),
        (json!("-1e3"), -1000.0),
        (json!("Infinity"), f64::INFINITY),
        (json!("-Infinity"), f64::NEG_INFINITY),
    ] {
        assert_eq!(from_value::<DoubleValue>(&value).unwrap().value, number, "{value}");
    }
    assert!(from_value::<DoubleValue>(&json!("NaN")).unwrap().value.is_nan());
    for value in [json!("nan"), json!("inf"), json!("1e400"), json!(""), json!(" 1"), json!(false)] {
        assert!(from_value::<DoubleValue>(&value).is_err(), "{value}");
    }
    assert!(from_value::<FloatValue>(&json!(1e39)).is_err(), "beyond 32 bits");
    assert_eq!(to_value(&FloatValue { value: 0.1 }, FieldNames::Json).unwrap(), json!(0.1));
    assert_eq!(to_value(&DoubleValue { value: f64::NAN }, FieldNames::Json).unwrap(), json!("NaN"));
    let buckets: HistogramBucketSettings =
        from_value(&json!({"match": {"prefix": "a"}, "buckets": [1, "2.5", 1e3]})).unwrap();
    assert_eq!(buckets.buckets, [1.0, 2.5, 1000.0]);
}

#[test]
fn strings_are_strings_only() {
    assert_eq!(from_value::<StringValue>(&json!("a")).unwrap().value, "a");
    assert_eq!(reason(from_value::<StringValue>(&json!(1))), "expected a string, got the number 1");
    assert_eq!(
        from_value::<Cluster>(&json!({"name": 1.5})).unwrap().name,
        "1.5",
        "Envoy takes fractions, but no integers"
    );
    assert_eq!(reason(from_value::<Cluster>(&json!({"name": true}))), "name: expected a string, got the boolean true");
    assert_eq!(reason(from_value::<Cluster>(&json!({"name": {}}))), "name: expected a string, got an object");
}

#[test]
fn an_error_does_not_repeat_a_string_that_may_be_a_secret() {
    let error = reason(from_value::<DataSource>(&json!({"inline_bytes": "hunter2!"})));
    assert_eq!(error, "inline_bytes: not valid base64");
    let error = reason(from_value::<Cluster>(&json!({"name": "a", "per_connection_buffer_limit_bytes": "hunter2"})));
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn booleans_and_the_words_that_envoy_takes_for_them() {
    assert_eq!(from_value::<BoolValue>(&json!(true)).unwrap(), BoolValue { value: true });
    assert_eq!(from_value::<BoolValue>(&json!("on")).unwrap(), BoolValue { value: true });
    assert_eq!(from_value::<BoolValue>(&json!("false")).unwrap(), BoolValue { value: false });
    for value in [json!(1), json!("1"), json!("maybe"), json!("")] {
        assert!(from_value::<BoolValue>(&value).is_err(), "{value}");
    }
}

#[test]
fn bytes_in_either_base64_alphabet() {
    for text in ["+/8=", "-_8=", "+/8", "-_8"] {
        assert_eq!(from_value::<BytesValue>(&json!(text)).unwrap().value, [0xfb, 0xff], "{text}");
    }
    assert_eq!(to_value(&BytesValue { value: vec![0xfb, 0xff] }, FieldNames::Json).unwrap(), json!("+/8="));
    let source: DataSource = from_value(&json!({"inline_bytes": "AAE="})).unwrap();
    assert_eq!(source.specifier, Some(data_source::Specifier::InlineBytes(vec![0, 1])));
}

#[test]
fn enums_by_name_and_number() {
    let read = |value: Value| from_value::<Cluster>(&json!({"lb_policy": value}));
    assert_eq!(read(json!("RING_HASH")).unwrap().lb_policy(), cluster::LbPolicy::RingHash);
    assert_eq!(read(json!("ring_hash")).unwrap().lb_policy(), cluster::LbPolicy::RingHash, "Envoy takes any case");
    assert_eq!(read(json!(2)).unwrap().lb_policy(), cluster::LbPolicy::RingHash);
    assert_eq!(read(json!(99)).unwrap().lb_policy, 99, "enums are open; validation refuses it where the API says so");
    assert_eq!(to_value(&read(json!(99)).unwrap(), FieldNames::Proto).unwrap(), json!({"lb_policy": 99}));
    let error = reason(read(json!("RING_HAHS")));
    let expected =
        "lb_policy: envoy.config.cluster.v3.Cluster.LbPolicy has no value \"RING_HAHS\", did you mean \"RING_HASH\"?";
    assert_eq!(error, expected);
    assert!(
        reason(read(json!(true)))
            .starts_with("lb_policy: expected a value of envoy.config.cluster.v3.Cluster.LbPolicy")
    );
    assert!(read(json!(3000000000u32)).is_err());
}

#[test]
fn durations() {
    for (text, seconds, nanos, printed) in
        [("1.5s", 1, 500_000_000, "1.500s"), ("-3s", -3, 0, "-3s"), ("0s", 0, 0, "0s")]
    {
        let duration: Duration = from_value(&json!(text)).unwrap();
        assert_eq!(duration, Duration { seconds, nanos });
        assert_eq!(to_value(&duration, FieldNames::Json).unwrap(), json!(printed));
    }
    let as_object: Duration = from_value(&json!({"seconds": 1, "nanos": 5})).unwrap();
    assert_eq!(as_object, Duration { seconds: 1, nanos: 5 }, "as Envoy takes it");
    for value in [
        json!("1"),
        json!(1),
        json!("1ms"),
        json!("1.0000000001s"),
        json!("315576000001s"),
        json!({"seconds": 1, "nanos": -1}),
    ] {
        assert!(from_value::<Duration>(&value).is_err(), "{value}");
    }
    let error = reason(from_value::<Cluster>(&json!({"connect_timeout": "5"})));
    assert_eq!(error, "connect_timeout: \"5\" is not a duration: write seconds with an s, such as \"1.5s\"");
}

#[test]
fn timestamps() {
    let timestamp: Timestamp = from_value(&json!("2026-11-20T13:00:00.25+01:00")).unwrap();
    assert_eq!(timestamp, Timestamp { seconds: 1_795_176_000, nanos: 250_000_000 });
    assert_eq!(to_value(&timestamp, FieldNames::Json).unwrap(), json!("2026-11-20T12:00:00.250Z"));
    assert!(from_value::<Timestamp>(&json!("yesterday")).is_err());
    assert!(to_value(&Timestamp { seconds: i64::MAX, nanos: 0 }, FieldNames::Json).is_err());
}

#[test]
fn wrappers_are_their_value() {
    let cluster: Cluster = from_value(&json!({"per_connection_buffer_limit_bytes": 0})).unwrap();
    assert_eq!(cluster.per_connection_buffer_limit_bytes, Some(UInt32Value { value: 0 }), "set to zero is set");
    assert_eq!(to_value(&cluster, FieldNames::Proto).unwrap(), json!({"per_connection_buffer_limit_bytes": 0}));
    let as_object: Cluster = from_value(&json!({"per_connection_buffer_limit_bytes": {"value": 5}})).unwrap();
    assert_eq!(as_object.per_connection_buffer_limit_bytes, Some(UInt32Value { value: 5 }));
}

#[test]
fn structs_hold_any_json() {
    let written = json!({"a": null, "b": [1, 2.5, "x", true, null, {"c": []}], "d.e": {}, "": -1});
    let read: Struct = from_value(&written).unwrap();
    assert_eq!(read.fields["a"].kind, Some(Kind::NullValue(0)));
    assert_eq!(to_value(&read, FieldNames::Json).unwrap(), written);
    let list: ListValue = from_value(&json!([1, [], null])).unwrap();
    assert_eq!(to_value(&list, FieldNames::Json).unwrap(), json!([1, [], null]));
    assert_eq!(reason(from_value::<Struct>(&json!([]))), "expected an object, got a list");
}

#[test]
fn null_is_absent_but_for_the_types_that_it_is_a_value_of() {
    let cluster: Cluster =
        from_value(&json!({"name": null, "connect_timeout": null, "health_checks": null, "metadata": null})).unwrap();
    assert_eq!(cluster, Cluster::default());
    let constant: Constant = from_value(&json!({"null_value": null})).unwrap();
    assert_eq!(constant.constant_kind, Some(constant::ConstantKind::NullValue(0)));
    assert_eq!(to_value(&constant, FieldNames::Proto).unwrap(), json!({"null_value": null}));
    let error = reason(from_value::<Cluster>(&json!({"health_checks": [null]})));
    assert_eq!(error, "health_checks[0]: a list has no null items");
    let error = reason(from_value::<Metadata>(&json!({"filter_metadata": {"a": null}})));
    assert_eq!(error, "filter_metadata[\"a\"]: a map has no null values");
}

#[test]
fn maps_with_string_and_integer_keys() {
    let metadata: Metadata = from_value(&json!({"filter_metadata": {"b": {"x": 1}, "a": {}}})).unwrap();
    assert_eq!(
        to_value(&metadata, FieldNames::Proto).unwrap().to_string(),
        r#"{"filter_metadata":{"a":{},"b":{"x":1}}}"#
    );
    let info: SourceInfo = from_value(&json!({"positions": {"-1": 5, "0": 0, "10": 2}})).unwrap();
    assert_eq!(info.positions.len(), 3);
    assert_eq!(info.positions[&-1], 5);
    assert_eq!(to_value(&info, FieldNames::Proto).unwrap(), json!({"positions": {"-1": 5, "0": 0, "10": 2}}));
    for key in ["", "a", "01", "+1", "1.0", "9223372036854775808"] {
        let error = from_value::<SourceInfo>(&json!({"positions": {key: 1}})).unwrap_err();
        assert_eq!(error.path(), format!("positions[{key:?}]"));
    }
}

#[test]
fn lists_packed_and_not() {
    let policy: RetryPolicy = from_value(&json!({"retriable_status_codes": [503, "504"]})).unwrap();
    assert_eq!(policy.retriable_status_codes, [503, 504]);
    assert_eq!(to_value(&policy, FieldNames::Proto).unwrap(), json!({"retriable_status_codes": [503, 504]}));
    let empty: RetryPolicy = from_value(&json!({"retriable_status_codes": []})).unwrap();
    assert_eq!(empty, RetryPolicy::default());
    let error = reason(from_value::<RetryPolicy>(&json!({"retriable_status_codes": [1, "x"]})));
    assert_eq!(error, "retriable_status_codes[1]: expected an integer, got a string");
    let error = reason(from_value::<RetryPolicy>(&json!({"retriable_status_codes": 1})));
    assert_eq!(error, "retriable_status_codes: expected a list, got the number 1");
}

#[test]
fn one_member_of_a_oneof() {
    let address: SocketAddress = from_value(&json!({"address": "::", "port_value": 0})).unwrap();
    assert!(address.port_specifier.is_some(), "set to zero is set");
    let error = reason(from_value::<SocketAddress>(&json!({"port_value": 1, "named_port": "a"})));
    assert_eq!(error, "named_port: only one of port_specifier may be set, but port_value is set too");
    let one_is_null: SocketAddress = from_value(&json!({"port_value": 1, "named_port": null})).unwrap();
    assert_eq!(to_value(&one_is_null, FieldNames::Proto).unwrap(), json!({"port_value": 1}));
}

fn holding(value: Value) -> Result<Any, weft_xds::FieldError> {
    from_value(&value)
}

#[test]
fn an_any_is_written_as_what_it_holds() {
    let url = "type.googleapis.com/envoy.config.core.v3.SocketAddress";
    let held = holding(json!({"portValue": 80, "@type": url, "address": "1.2.3.4"})).unwrap();
    let address: SocketAddress = any::unpack(&held).unwrap();
    assert_eq!(address.address, "1.2.3.4");
    assert_eq!(
        any_to_value(&held, FieldNames::Proto).unwrap(),
        json!({"@type": url, "address": "1.2.3.4", "port_value": 80})
    );
    assert_eq!(holding(json!({})).unwrap(), Any::default());
    assert_eq!(any_to_value(&Any::default(), FieldNames::Proto).unwrap(), json!({}));
}

#[test]
fn well_known_types_in_an_any_stand_in_value() {
    for (name, value) in [
        ("Duration", json!("1.500s")),
        ("Timestamp", json!("2026-01-01T00:00:00Z")),
        ("FieldMask", json!("a.fooBar,c")),
        ("Struct", json!({"a": 1})),
        ("Value", json!([1, "x"])),
        ("Value", json!(null)),
        ("ListValue", json!([true])),
        ("UInt32Value", json!(5)),
        ("StringValue", json!("")),
    ] {
        let written = json!({"@type": format!("type.googleapis.com/google.protobuf.{name}"), "value": value});
        let held = holding(written.clone()).unwrap();
        assert_eq!(any_to_value(&held, FieldNames::Json).unwrap(), written);
    }
    let error = reason(holding(json!({"@type": "type.googleapis.com/google.protobuf.Duration"})));
    assert_eq!(error, "an Any of google.protobuf.Duration needs \"value\"");
    let error =
        reason(holding(json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s", "x": 1})));
    assert_eq!(error, "x: unknown field: an Any of google.protobuf.Duration has \"@type\" and \"value\" only");
    let error = reason(holding(json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1"})));
    assert!(error.starts_with("value: "), "{error}");
}

#[test]
fn empty_in_an_any_with_and_without_value() {
    let url = "type.googleapis.com/google.protobuf.Empty";
    let expected = Any { type_url: url.to_owned(), value: vec![] };
    assert_eq!(holding(json!({"@type": url})).unwrap(), expected);
    assert_eq!(holding(json!({"@type": url, "value": {}})).unwrap(), expected);
    assert_eq!(any_to_value(&expected, FieldNames::Json).unwrap(), json!({"@type": url}));
    assert!(holding(json!({"@type": url, "value": {"a": 1}})).is_err());
}

#[test]
fn a_field_mask_has_to_be_in_camel_case() {
    let mask = |paths: &str| holding(json!({"@type": "type.googleapis.com/google.protobuf.FieldMask", "value": paths}));
    assert!(mask("").unwrap().value.is_empty());
    for bad in ["foo_bar", "a,,b", "a b", ",", "ä"] {
        assert!(mask(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_any_nests_in_an_any() {
    let any_url = "type.googleapis.com/google.protobuf.Any";
    let duration_url = "type.googleapis.com/google.protobuf.Duration";
    let written =
        json!({"@type": any_url, "value": {"@type": any_url, "value": {"@type": duration_url, "value": "1s"}}});
    let held = holding(written.clone()).unwrap();
    assert_eq!(any_to_value(&held, FieldNames::Json).unwrap(), written);
}

#[test]
fn an_any_of_an_unknown_type_is_refused_on_input_and_marked_on_output() {
    let error = reason(from_value::<Cluster>(
        &json!({"transport_socket": {"name": "x", "typed_config": {"@type": "type.googleapis.com/a.B"}}}),
    ));
    assert_eq!(error, "transport_socket.typed_config: could not find @type 'type.googleapis.com/a.B'");
    let error = reason(holding(json!({"@type": "envoy.config.core.v3.SocketAddress"})));
    assert_eq!(error, "@type: a type URL is written as type.googleapis.com/NAME");
    assert_eq!(reason(holding(json!({"@type": 1}))), "@type: expected a string, got the number 1");
    assert_eq!(reason(holding(json!({"a": 1}))), "an Any needs \"@type\"");
    let strange = Any { type_url: "type.googleapis.com/a.B".to_owned(), value: vec![1, 2] };
    assert_eq!(
        any_to_value(&strange, FieldNames::Json).unwrap(),
        json!({"@type": "type.googleapis.com/a.B", "value": "AQI="})
    );
    let broken =
        Any { type_url: "type.googleapis.com/envoy.config.core.v3.SocketAddress".to_owned(), value: vec![0xff] };
    assert_eq!(
        any_to_value(&broken, FieldNames::Json).unwrap()["value"],
        json!("/w=="),
        "nor does a broken payload fail a dump"
    );
}

#[test]
fn typed_structs_of_both_kinds_print_as_they_were_written() {
    for kind in ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"] {
        let written = json!({
            "@type": format!("type.googleapis.com/{kind}"),
            "type_url": "type.googleapis.com/some.Unknown",
            "value": {"a": {"b": [1, "x", null]}},
        });
        let held = holding(written.clone()).unwrap();
        assert_eq!(any_to_value(&held, FieldNames::Proto).unwrap(), written);
        assert_eq!(any::effective_type_name(&held).unwrap(), "some.Unknown");
    }
}

#[test]
fn an_unknown_field_is_refused_with_its_whole_path() {
    let listener = json!({"static_resources": {"listeners": [{"filter_chains": [{"filters": [{"typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "route_config": {"virtual_hosts": [{"domians": ["*"]}]},
    }}]}]}]}});
    let error = from_value::<weft_xds::pb::envoy::config::bootstrap::v3::Bootstrap>(&listener).unwrap_err();
    assert_eq!(
        error.path(),
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].domians"
    );
    assert_eq!(error.reason(), "unknown field in envoy.config.route.v3.VirtualHost, did you mean \"domains\"?");
}

#[test]
fn a_hint_uses_the_spelling_at_hand() {
    let error = from_value::<Cluster>(&json!({"connectTimeuot": "1s"})).unwrap_err();
    assert!(error.reason().ends_with("did you mean \"connectTimeout\"?"), "{error}");
    let error = from_value::<Cluster>(&json!({"connect_timeuot": "1s"})).unwrap_err();
    assert!(error.reason().ends_with("did you mean \"connect_timeout\"?"), "{error}");
    let error = from_value::<Cluster>(&json!({"zzz": 1})).unwrap_err();
    assert_eq!(error.reason(), "unknown field in envoy.config.cluster.v3.Cluster");
}

#[test]
fn one_field_in_two_spellings_is_refused() {
    let error = reason(from_value::<Cluster>(&json!({"lb_policy": "RANDOM", "name": "a", "lbPolicy": "RANDOM"})));
    assert_eq!(error, "lb_policy: is written twice, as \"lb_policy\" and as \"lbPolicy\"");
}

#[test]
fn a_duplicate_key_in_json_is_refused_inside_an_any_too() {
    let text = r#"{"transport_socket": {"typed_config": {"@type": "x/y", "@type": "x/z"}}}"#;
    assert_eq!(reason(from_json::<Cluster>(text)), "transport_socket.typed_config.@type: is written twice");
}

#[test]
fn nesting_is_bounded() {
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    assert!(from_value::<ListValue>(&deep(49)).is_ok());
    for levels in [60, 120] {
        assert!(reason(from_value::<ListValue>(&deep(levels))).contains("nested deeper than 100 messages"));
    }
    // What is taken here has to be within what prost decodes.
    let deep_struct = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    assert!(from_value::<Struct>(&deep_struct(33)).is_ok());
    assert!(reason(from_value::<Struct>(&deep_struct(34))).contains("nested deeper than 100 messages"));
    let any_url = "type.googleapis.com/google.protobuf.Any";
    let deep_any = (0..150).fold(json!({}), |inner, _| json!({"@type": any_url, "value": inner}));
    assert!(reason(holding(deep_any)).contains("nested deeper"));
    assert!(from_json::<ListValue>(&"[".repeat(100_000)).is_err());
}

/// Bytes from a peer may nest deeper than any JSON; printing then marks the Any that holds them.
#[test]
fn deep_payloads_do_not_exhaust_the_stack() {
    let mut held = Any::default();
    for _ in 0..1000 {
        held = any::pack(&held);
    }
    let printed = any_to_value(&held, FieldNames::Json).unwrap().to_string();
    assert!(printed.contains("\"value\":\""), "base64 at the bottom");
    assert_eq!(canonical::encode(&held), canonical::encode(&held));
}

#[test]
fn a_type_that_has_no_descriptor_is_refused() {
    use weft_xds::pb::google::protobuf::FileDescriptorSet;
    let error = reason(to_value(&FileDescriptorSet::default(), FieldNames::Json));
    assert_eq!(error, "google.protobuf.FileDescriptorSet is not among the known message types");
}
