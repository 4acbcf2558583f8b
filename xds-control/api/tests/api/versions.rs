//! Canonical bytes and hashes: what a resource's version is made of.

use prost::Message;
use serde_json::{Value, json};
use std::collections::HashSet;
use weft_xds::json::from_value;
use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::core::v3::Metadata;
use weft_xds::pb::google::protobuf::{Any, Struct};
use weft_xds::{any, canonical};

/// A struct with enough keys that a hash map's order differs between two of them.
fn struct_with_keys(keys: impl Iterator<Item = u32>) -> Struct {
    let object: serde_json::Map<String, Value> =
        keys.map(|key| (format!("key-{key}"), json!({"inner": {"a": key, "b": [key]}}))).collect();
    from_value(&Value::Object(object)).unwrap()
}

#[test]
fn maps_encode_alike_in_any_order() {
    let (forward, backward) = (struct_with_keys(0..50), struct_with_keys((0..50).rev()));
    let metadata =
        |inner: &Struct| Metadata { filter_metadata: [("a".to_owned(), inner.clone())].into(), ..Metadata::default() };
    let in_any = |inner: &Struct| any::pack(&metadata(inner));
    let in_any_in_any = |inner: &Struct| any::pack(&in_any(inner));
    assert_eq!(canonical::encode(&forward), canonical::encode(&backward));
    assert_eq!(canonical::encode(&metadata(&forward)), canonical::encode(&metadata(&backward)));
    assert_eq!(canonical::encode(&in_any(&forward)), canonical::encode(&in_any(&backward)));
    assert_eq!(canonical::encode(&in_any_in_any(&forward)), canonical::encode(&in_any_in_any(&backward)));
    let plain: HashSet<Vec<u8>> = (0..20).map(|_| struct_with_keys(0..50).encode_to_vec()).collect();
    assert!(plain.len() > 1, "prost's own encoding differs, or this test shows nothing");
}

#[test]
fn typed_structs_hash_alike_in_any_order() {
    let typed_struct = |value: Value| -> Any {
        from_value(&json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": "a/b", "value": value}))
            .unwrap()
    };
    let (one, other) =
        (typed_struct(json!({"a": 1, "b": {"c": 1, "d": 2}})), typed_struct(json!({"b": {"d": 2, "c": 1}, "a": 1})));
    assert_eq!(canonical::hash(&one), canonical::hash(&other));
}

#[test]
fn canonical_bytes_decode_to_the_same_message() {
    let cluster: Cluster = from_value(&json!({
        "name": "a",
        "type": "EDS",
        "connect_timeout": "0.25s",
        "per_connection_buffer_limit_bytes": 0,
        "metadata": {"filter_metadata": {"x": {"b": 1, "a": [null, true]}, "y": {}}},
        "typed_extension_protocol_options": {"p": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    }))
    .unwrap();
    assert_eq!(Cluster::decode(canonical::encode(&cluster).as_slice()).unwrap(), cluster);
}

/// Another library may order fields otherwise, spell numbers out longer, write defaults and not pack lists.
#[test]
fn a_payload_in_another_encoding_of_the_same_message_hashes_alike() {
    use weft_xds::pb::envoy::config::route::v3::RetryPolicy;
    let policy =
        RetryPolicy { retry_on: "5xx".to_owned(), retriable_status_codes: vec![503, 504], ..RetryPolicy::default() };
    let ours = any::pack(&policy);
    let mut theirs = ours.clone();
    theirs.value = vec![
        0x38, 0xf7, 0x83, 0x00, // 7 = 503, unpacked and with an excess byte
        0x38, 0xf8, 0x03, // 7 = 504
        0x0a, 0x00, // 1 = "", overridden below
        0x30, 0x00, // 6 = 0, the default
        0x0a, 0x03, b'5', b'x', b'x', // 1 = "5xx", after a higher number
    ];
    assert_eq!(any::unpack::<RetryPolicy>(&theirs).unwrap(), policy);
    assert_ne!(ours.value, theirs.value);
    assert_eq!(canonical::hash(&ours), canonical::hash(&theirs));
}

#[test]
fn different_messages_hash_differently() {
    let cluster = |name: &str| Cluster { name: name.to_owned(), ..Cluster::default() };
    assert_ne!(canonical::hash(&cluster("a")), canonical::hash(&cluster("b")));
    let unset_and_zero = [json!({}), json!({"per_connection_buffer_limit_bytes": 0})]
        .map(|value| from_value::<Cluster>(&value).unwrap());
    assert_ne!(canonical::hash(&unset_and_zero[0]), canonical::hash(&unset_and_zero[1]));
}

/// A version that ignored fields of a newer API would keep proxies from getting a change.
#[test]
fn fields_that_are_not_known_count() {
    let payload = |extra: &[u8]| {
        let mut held = any::pack(&Cluster { name: "a".to_owned(), ..Cluster::default() });
        held.value.extend_from_slice(extra);
        held
    };
    let unknown = [0xc2, 0xbb, 0x01, 0x01, b'x']; // field 3000, "x"
    assert_ne!(canonical::hash(&payload(&[])), canonical::hash(&payload(&unknown)));
    assert_eq!(canonical::encode(&payload(&unknown)), payload(&unknown).encode_to_vec());
}

#[test]
fn payloads_of_unknown_types_and_broken_ones_are_kept() {
    for held in [
        Any { type_url: "a/unknown.Type".to_owned(), value: vec![1, 2, 3] },
        Any { type_url: "no slash".to_owned(), value: vec![1] },
        Any { type_url: "a/envoy.config.cluster.v3.Cluster".to_owned(), value: vec![0xff] },
    ] {
        assert_eq!(canonical::encode(&held), held.encode_to_vec());
    }
}

#[test]
fn a_set_has_one_version_whatever_its_order() {
    let version = canonical::version([("a", 1), ("b", 2)]);
    assert_eq!(version, canonical::version([("b", 2), ("a", 1)]));
    assert_eq!(version.len(), 16);
    for other in
        [vec![("a", 2), ("b", 1)], vec![("a", 1)], vec![], vec![("a", 1), ("b", 2), ("b", 2)], vec![("ab", 1), ("", 2)]]
    {
        assert_ne!(version, canonical::version(other.clone()), "{other:?}");
    }
}

/// Versions are compared between replicas and over restarts, so neither hash may change by accident.
#[test]
fn hashes_are_stable() {
    let cluster = Cluster { name: "outbound|80||a".to_owned(), ..Cluster::default() };
    let hash = canonical::hash(&cluster);
    assert_eq!(hash, xxhash_rust::xxh3::xxh3_64(&cluster.encode_to_vec()));
    assert_eq!(canonical::version([]), "2d06800538d394c2");
}
