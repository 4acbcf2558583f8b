//! A whole bootstrap, with everything that is hard in it, through every step that a configuration takes.

use serde_json::{Value, json};
use weft_xds::json::{FieldNames, from_value, from_yaml, to_value, yaml_to_value};
use weft_xds::pb::envoy::config::bootstrap::v3::Bootstrap;
use weft_xds::pb::envoy::config::listener::v3::filter::ConfigType;
use weft_xds::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_filter,
};
use weft_xds::{any, canonical, validate};

const BOOTSTRAP: &str = include_str!("../fixtures/bootstrap.yaml");

fn bootstrap() -> Bootstrap {
    from_yaml(BOOTSTRAP).unwrap()
}

fn connection_manager(bootstrap: &Bootstrap) -> HttpConnectionManager {
    let listener = &bootstrap.static_resources.as_ref().unwrap().listeners[0];
    match listener.filter_chains[0].filters[0].config_type.as_ref().unwrap() {
        ConfigType::TypedConfig(config) => any::unpack_valid(config).unwrap(),
        ConfigType::ConfigDiscovery(_) => panic!("the fixture has it inline"),
    }
}

#[test]
fn reads_into_typed_messages() {
    let bootstrap = bootstrap();
    assert_eq!(bootstrap.node.as_ref().unwrap().id, "test-node");
    let manager = connection_manager(&bootstrap);
    assert_eq!(manager.stat_prefix, "inbound");
    assert_eq!(manager.http_filters.len(), 6);
    assert_eq!(manager.request_timeout.unwrap().nanos, 250_000_000);
}

#[test]
fn is_valid() {
    validate::validate(&bootstrap()).unwrap();
}

#[test]
fn a_typed_struct_unpacks_as_what_it_stands_for() {
    let manager = connection_manager(&bootstrap());
    let http_filter::ConfigType::TypedConfig(config) = manager.http_filters[0].config_type.as_ref().unwrap() else {
        panic!("the fixture has it inline")
    };
    assert_eq!(any::type_name(config), "udpa.type.v1.TypedStruct");
    assert_eq!(any::effective_type_name(config).unwrap(), "envoy.extensions.filters.http.fault.v3.HTTPFault");
    let fault: HttpFault = any::unpack_valid(config).unwrap();
    assert_eq!(fault.delay.unwrap().percentage.unwrap().numerator, 10);
}

/// What is printed says what was read, but for numbers and durations in their normal form and defaults left out.
#[test]
fn prints_back_what_was_read() {
    let printed = to_value(&bootstrap(), FieldNames::Proto).unwrap();
    let mut written = yaml_to_value(BOOTSTRAP).unwrap();
    let zeroed = ["protocol", "action", "codec_type", "priority", "denominator", "hash_function"]; // fields that the fixture sets to their default
    drop_defaults(&mut written, &zeroed);
    assert_same(&written, &printed, "");
}

fn drop_defaults(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| {
                let default =
                    [json!("TCP"), json!("AUTO"), json!("DEFAULT"), json!("HUNDRED"), json!("XX_HASH")].contains(value);
                !(names.contains(&key.as_str()) && default)
            });
            object.values_mut().for_each(|value| drop_defaults(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| drop_defaults(value, names)),
        _ => {}
    }
}

/// Everything in `written` is in `printed`; what differs may do so in the spelling of a duration or an enum's default only.
fn assert_same(written: &Value, printed: &Value, path: &str) {
    match (written, printed) {
        (Value::Object(written), Value::Object(printed)) => {
            assert_eq!(written.len(), printed.len(), "{path}: {written:?} {printed:?}");
            for (key, value) in written {
                assert_same(
                    value,
                    printed.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing")),
                    &format!("{path}.{key}"),
                );
            }
        }
        (Value::Array(written), Value::Array(printed)) => {
            assert_eq!(written.len(), printed.len(), "{path}");
            written
                .iter()
                .zip(printed)
                .for_each(|(written, printed)| assert_same(written, printed, &format!("{path}[]")));
        }
        (Value::String(written), Value::String(printed)) if written.ends_with('s') && printed.ends_with('s') => {
            let seconds = |text: &str| text.trim_end_matches('s').parse::<f64>();
            match (seconds(written), seconds(printed)) {
                (Ok(written), Ok(printed)) => assert_eq!(written, printed, "{path}"),
                _ => assert_eq!(written, printed, "{path}"),
            }
        }
        // 64-bit integers print as strings.
        (Value::Number(written), Value::String(printed)) => assert_eq!(&written.to_string(), printed, "{path}"),
        _ => assert_eq!(written, printed, "{path}"),
    }
}

#[test]
fn what_was_printed_reads_as_the_same_message() {
    let bootstrap = bootstrap();
    for names in [FieldNames::Proto, FieldNames::Json] {
        let printed = to_value(&bootstrap, names).unwrap();
        let again: Bootstrap = from_value(&printed).unwrap();
        assert_eq!(canonical::encode(&again), canonical::encode(&bootstrap));
        assert_eq!(to_value(&again, names).unwrap(), printed);
    }
}

#[test]
fn its_hash_does_not_depend_on_the_order_of_keys() {
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(object) => object.iter().rev().map(|(key, value)| (key.clone(), reversed(value))).collect(),
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }
    let written = yaml_to_value(BOOTSTRAP).unwrap();
    let forward: Bootstrap = from_value(&written).unwrap();
    let backward: Bootstrap = from_value(&reversed(&written)).unwrap();
    assert_eq!(canonical::hash(&forward), canonical::hash(&backward));
}
