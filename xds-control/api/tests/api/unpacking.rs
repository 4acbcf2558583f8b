//! Any: packing, unpacking, and TypedStruct in place of the message.

use serde_json::{Value, json};
use weft_xds::any::{effective_type_name, pack, type_name, unpack, unpack_valid};
use weft_xds::json::from_value;
use weft_xds::pb::envoy::config::core::v3::SocketAddress;
use weft_xds::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::pb::google::protobuf::{Any, Duration};

const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

fn typed_struct(kind: &str, type_url: &str, value: Value) -> Any {
    from_value(&json!({"@type": format!("type.googleapis.com/{kind}"), "type_url": type_url, "value": value})).unwrap()
}

#[test]
fn unpacks_what_it_packed() {
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    let packed = pack(&router);
    assert_eq!(packed.type_url, "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router");
    assert_eq!(type_name(&packed), "envoy.extensions.filters.http.router.v3.Router");
    assert_eq!(effective_type_name(&packed).unwrap(), type_name(&packed));
    assert_eq!(unpack::<Router>(&packed).unwrap(), router);
}

#[test]
fn the_type_has_to_match() {
    let error = unpack::<Router>(&pack(&Duration::default())).unwrap_err();
    let expected = "expected a envoy.extensions.filters.http.router.v3.Router, got \"type.googleapis.com/google.protobuf.Duration\"";
    assert_eq!(error.to_string(), expected);
    assert!(unpack::<Router>(&Any::default()).is_err());
}

#[test]
fn the_prefix_of_the_type_url_does_not_matter() {
    let mut packed = pack(&Router::default());
    packed.type_url = "example.com/some/envoy.extensions.filters.http.router.v3.Router".to_owned();
    assert!(unpack::<Router>(&packed).is_ok());
}

#[test]
fn broken_bytes_are_refused() {
    let packed = Any { value: vec![0xff, 0xff], ..pack(&Router::default()) };
    let error = unpack::<Router>(&packed).unwrap_err().to_string();
    assert!(error.starts_with("not a valid envoy.extensions.filters.http.router.v3.Router: "), "{error}");
}

#[test]
fn typed_structs_of_both_kinds_unpack() {
    for kind in ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"] {
        let value = json!({"delay": {"fixedDelay": "0.5s", "percentage": {"numerator": 10, "denominator": "MILLION"}}, "abort": null});
        let packed = typed_struct(kind, FAULT, value);
        assert_eq!(effective_type_name(&packed).unwrap(), "envoy.extensions.filters.http.fault.v3.HTTPFault");
        let fault: HttpFault = unpack(&packed).unwrap();
        assert_eq!(fault.delay.unwrap().percentage.unwrap().numerator, 10);
        assert!(fault.abort.is_none());
    }
}

#[test]
fn a_typed_struct_without_a_value_is_an_empty_message() {
    let packed: Any =
        from_value(&json!({"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": FAULT})).unwrap();
    assert_eq!(unpack::<HttpFault>(&packed).unwrap(), HttpFault::default());
}

#[test]
fn a_typed_struct_is_read_as_strictly_as_json() {
    let refused =
        |value: Value| unpack::<HttpFault>(&typed_struct("xds.type.v3.TypedStruct", FAULT, value)).unwrap_err();
    let error = refused(json!({"delay": {"fixed_dealy": "1s"}}));
    assert_eq!(error.path(), "delay.fixed_dealy");
    assert!(error.reason().contains("did you mean \"fixed_delay\"?"), "{error}");
    assert_eq!(refused(json!({"delay": {"percentage": {"numerator": -1}}})).path(), "delay.percentage.numerator");
    let wrong_type = typed_struct("xds.type.v3.TypedStruct", "type.googleapis.com/a.B", json!({}));
    let error = unpack::<HttpFault>(&wrong_type).unwrap_err().to_string();
    assert!(error.contains("got a TypedStruct of \"type.googleapis.com/a.B\""), "{error}");
}

#[test]
fn unpacking_can_validate() {
    let address = SocketAddress::default();
    assert!(unpack::<SocketAddress>(&pack(&address)).is_ok());
    let error = unpack_valid::<SocketAddress>(&pack(&address)).unwrap_err();
    assert_eq!(error.to_string(), "address: value length must be at least 1 characters");
}
