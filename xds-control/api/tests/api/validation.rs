//! Envoy's validation rules, kind by kind, on messages that have a rule of the kind.

use prost::Name;
use serde_json::{Value, json};
use weft_xds::json::from_value;
use weft_xds::pb::envoy::config;
use weft_xds::pb::envoy::extensions;
use weft_xds::validate::validate;

/// The error of validating `value` as a `T`, or "valid".
fn check<T: Name + Default>(value: Value) -> String {
    let message: T = from_value(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
    validate(&message).map_or_else(|error| error.to_string(), |()| "valid".to_owned())
}

type Cluster = config::cluster::v3::Cluster;

#[test]
fn minimum_lengths_count_characters() {
    assert_eq!(check::<Cluster>(json!({})), "name: value length must be at least 1 characters");
    assert_eq!(check::<Cluster>(json!({"name": "ä"})), "valid");
    type Context = extensions::transport_sockets::tls::v3::CertificateValidationContext;
    let hashes = |hash: String| json!({"verify_certificate_spki": [hash]});
    assert_eq!(check::<Context>(hashes("x".repeat(44))), "valid");
    assert_eq!(
        check::<Context>(hashes("x".repeat(43))),
        "verify_certificate_spki[0]: value length must be at least 44 characters"
    );
    assert_eq!(
        check::<Context>(hashes("ä".repeat(44))),
        "verify_certificate_spki[0]: value length must be at most 44 bytes"
    );
}

#[test]
fn maximum_lengths_count_bytes_where_the_rule_says_so() {
    type Context = extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    assert_eq!(check::<Context>(json!({"sni": "a".repeat(255)})), "valid");
    assert_eq!(check::<Context>(json!({"sni": "ä".repeat(128)})), "sni: value length must be at most 255 bytes");
}

#[test]
fn paths_lead_through_lists_messages_and_maps() {
    type Assignment = config::endpoint::v3::ClusterLoadAssignment;
    let value = json!({"cluster_name": "a", "endpoints": [{}, {"lb_endpoints": [{"endpoint": {"address": {}}}]}]});
    assert_eq!(check::<Assignment>(value), "endpoints[1].lb_endpoints[0].endpoint.address.address: value is required");
    let value = json!({"cluster_name": "a", "named_endpoints": {"x": {"address": {"socket_address": {"address": "", "port_value": 1}}}}});
    let expected = "named_endpoints[\"x\"].address.socket_address.address: value length must be at least 1 characters";
    assert_eq!(check::<Assignment>(value), expected);
}

#[test]
fn required_messages_and_oneofs() {
    assert_eq!(check::<config::route::v3::Route>(json!({"route": {"cluster": "a"}})), "match: value is required");
    assert_eq!(check::<config::route::v3::Route>(json!({"match": {"prefix": "/"}})), "action: value is required");
    assert_eq!(
        check::<config::route::v3::Route>(json!({"match": {"prefix": "/"}, "route": {}})),
        "route.cluster_specifier: value is required"
    );
    assert_eq!(
        check::<config::route::v3::Route>(json!({"match": {"prefix": "/"}, "route": {"cluster": "a"}})),
        "valid"
    );
}

/// "Required" on a member of a oneof means: if it is the chosen member.
#[test]
fn a_member_of_a_oneof_is_checked_only_if_chosen() {
    type Matcher = weft_xds::pb::envoy::r#type::matcher::v3::StringMatcher;
    assert_eq!(check::<Matcher>(json!({"exact": ""})), "valid");
    assert_eq!(check::<Matcher>(json!({"prefix": ""})), "prefix: value length must be at least 1 characters");
    assert_eq!(check::<Matcher>(json!({})), "match_pattern: value is required");
    assert_eq!(
        check::<Matcher>(json!({"safe_regex": {}})),
        "safe_regex.regex: value length must be at least 1 characters"
    );
}

#[test]
fn an_any_can_be_required_and_its_inside_is_not_checked() {
    type Config = config::core::v3::TypedExtensionConfig;
    assert_eq!(check::<Config>(json!({"name": "a"})), "typed_config: value is required");
    let invalid_inside = json!({"@type": "type.googleapis.com/envoy.config.core.v3.SocketAddress"});
    assert_eq!(check::<Config>(json!({"name": "a", "typed_config": invalid_inside})), "valid");
}

#[test]
fn ranges_of_integers() {
    type Address = config::core::v3::SocketAddress;
    let port = |port: u32| json!({"address": "a", "port_value": port});
    assert_eq!(check::<Address>(port(65535)), "valid");
    assert_eq!(check::<Address>(port(65536)), "port_value: value must be less than or equal to 65535");
    type Hash = config::cluster::v3::cluster::MaglevLbConfig;
    assert_eq!(check::<Hash>(json!({"table_size": 5000011})), "valid");
    assert_eq!(
        check::<Hash>(json!({"table_size": 5000012})),
        "table_size: value must be less than or equal to 5000011"
    );
    type Id = extensions::filters::http::thrift_to_metadata::v3::FieldSelector;
    let id = |id: i32| json!({"name": "a", "id": id});
    assert_eq!(check::<Id>(id(-32768)), "valid");
    assert_eq!(check::<Id>(id(-32769)), "id: value must be inside range [-32768, 32767]");
    type Monitor = extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
    assert_eq!(check::<Monitor>(json!({})), "max_active_downstream_connections: value must be greater than 0");
}

#[test]
fn wrappers_carry_the_rules_of_scalars_and_may_be_absent() {
    type Outlier = config::cluster::v3::OutlierDetection;
    assert_eq!(check::<Outlier>(json!({})), "valid");
    assert_eq!(check::<Outlier>(json!({"max_ejection_percent": 100})), "valid");
    let expected = "max_ejection_percent: value must be less than or equal to 100";
    assert_eq!(check::<Outlier>(json!({"max_ejection_percent": 101})), expected);
    type Endpoint = config::endpoint::v3::LbEndpoint;
    assert_eq!(
        check::<Endpoint>(json!({"load_balancing_weight": 0})),
        "load_balancing_weight: value must be greater than or equal to 1"
    );
}

#[test]
fn floating_point_ranges() {
    type Threshold = config::overload::v3::ThresholdTrigger;
    assert_eq!(check::<Threshold>(json!({"value": 1.0})), "valid");
    assert_eq!(check::<Threshold>(json!({"value": 1.01})), "value: value must be inside range [0, 1]");
    assert_eq!(check::<Threshold>(json!({"value": "NaN"})), "value: value must be inside range [0, 1]");
    type Sampling = weft_xds::pb::envoy::data::accesslog::v3::AccessLogCommon;
    assert_eq!(check::<Sampling>(json!({"sample_rate": 0.5})), "valid");
    assert_eq!(check::<Sampling>(json!({"sample_rate": 0})), "sample_rate: value must be inside range (0, 1]");
}

#[test]
fn durations() {
    assert_eq!(check::<Cluster>(json!({"name": "a", "connect_timeout": "0.001s"})), "valid");
    assert_eq!(
        check::<Cluster>(json!({"name": "a", "connect_timeout": "0s"})),
        "connect_timeout: value must be greater than 0s"
    );
    assert_eq!(
        check::<Cluster>(json!({"name": "a", "connect_timeout": "-1s"})),
        "connect_timeout: value must be greater than 0s"
    );
    let expected = "dns_refresh_rate: value must be greater than 0.001s";
    assert_eq!(check::<Cluster>(json!({"name": "a", "dns_refresh_rate": "0.001s"})), expected);
    type Health = config::core::v3::HealthCheck;
    assert_eq!(check::<Health>(json!({})), "timeout: value is required");
}

#[test]
fn enums() {
    let expected = "lb_policy: value must be one of the defined enum values";
    assert_eq!(check::<Cluster>(json!({"name": "a", "lb_policy": 99})), expected);
    type Health = config::core::v3::health_check::HttpHealthCheck;
    assert_eq!(check::<Health>(json!({"path": "/", "method": "GET"})), "valid");
    assert_eq!(
        check::<Health>(json!({"path": "/", "method": "CONNECT"})),
        "method: value must not be in list [CONNECT]"
    );
}

#[test]
fn booleans_with_a_fixed_value() {
    type Lua = extensions::filters::http::lua::v3::LuaPerRoute;
    assert_eq!(check::<Lua>(json!({"disabled": true})), "valid");
    assert_eq!(check::<Lua>(json!({"disabled": false})), "disabled: value must equal true");
}

#[test]
fn lists_have_sizes_and_items_rules_of_their_own() {
    type Host = config::route::v3::VirtualHost;
    assert_eq!(check::<Host>(json!({"name": "a"})), "domains: value must contain at least 1 item(s)");
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "a"}});
    assert_eq!(check::<Host>(json!({"name": "a", "domains": ["*"], "routes": [route]})), "valid");
    let expected = "domains[1]: value must be an HTTP header value without NUL, CR or LF";
    assert_eq!(check::<Host>(json!({"name": "a", "domains": ["*", "a\n"]})), expected);
    let headers: Vec<Value> = (0..1001).map(|n| json!({"header": {"key": format!("k{n}")}})).collect();
    let expected = "request_headers_to_add: value must contain no more than 1000 item(s)";
    assert_eq!(check::<Host>(json!({"name": "a", "domains": ["*"], "request_headers_to_add": headers})), expected);
    type Codes = config::route::v3::InternalRedirectPolicy;
    let expected = "redirect_response_codes: value must contain no more than 5 item(s)";
    assert_eq!(check::<Codes>(json!({"redirect_response_codes": [1, 2, 3, 4, 5, 6]})), expected);
}

#[test]
fn unique_items() {
    type Compressor = extensions::filters::http::compressor::v3::compressor::ResponseDirectionConfig;
    assert_eq!(check::<Compressor>(json!({"uncompressible_response_codes": [200, 206]})), "valid");
    let expected = "uncompressible_response_codes: repeated value must contain unique items";
    assert_eq!(check::<Compressor>(json!({"uncompressible_response_codes": [206, 206]})), expected);
}

#[test]
fn maps_have_sizes_and_key_rules() {
    type Secret = extensions::formatter::generic_secret::v3::GenericSecret;
    assert_eq!(check::<Secret>(json!({})), "secret_configs: value must contain at least 1 pair(s)");
    type Bucket = weft_xds::pb::envoy::service::rate_limit_quota::v3::BucketId;
    assert_eq!(check::<Bucket>(json!({"bucket": {"a": "b"}})), "valid");
    assert_eq!(
        check::<Bucket>(json!({"bucket": {"": "b"}})),
        "bucket[\"\"]: value length must be at least 1 characters"
    );
    assert_eq!(
        check::<Bucket>(json!({"bucket": {"a": ""}})),
        "bucket[\"a\"]: value length must be at least 1 characters"
    );
}

#[test]
fn header_names_and_values() {
    type Header = config::core::v3::HeaderValue;
    assert_eq!(check::<Header>(json!({"key": "x-a", "value": "b c"})), "valid");
    assert_eq!(
        check::<Header>(json!({"key": "x\n", "value": ""})),
        "key: value must be an HTTP header name without NUL, CR or LF"
    );
    assert_eq!(
        check::<Header>(json!({"key": "x", "value": "\r"})),
        "value: value must be an HTTP header value without NUL, CR or LF"
    );
}

#[test]
fn prefixes_and_suffixes_unless_empty() {
    type Limit = config::route::v3::rate_limit::HitsAddend;
    assert_eq!(check::<Limit>(json!({"format": ""})), "valid");
    assert_eq!(check::<Limit>(json!({"format": "%A%"})), "valid");
    assert_eq!(check::<Limit>(json!({"format": "A%"})), "format: value does not have prefix \"%\"");
    assert_eq!(check::<Limit>(json!({"format": "%A"})), "format: value does not have suffix \"%\"");
}

#[test]
fn texts_from_a_list() {
    type Limit = extensions::filters::http::ratelimit::v3::RateLimit;
    let with_type = |request_type: &str| {
        json!({"domain": "a", "request_type": request_type,
            "rate_limit_service": {"grpc_service": {"envoy_grpc": {"cluster_name": "a"}}, "transport_api_version": "V3"}})
    };
    assert_eq!(check::<Limit>(with_type("both")), "valid");
    let expected = "request_type: value must be in list [\"internal\", \"external\", \"both\", \"\"]";
    assert_eq!(check::<Limit>(with_type("none")), expected);
}

#[test]
fn patterns() {
    type Redirect = config::route::v3::RouteMatch;
    assert_eq!(check::<Redirect>(json!({"path_separated_prefix": "/a"})), "valid");
    let error = check::<Redirect>(json!({"path_separated_prefix": "/a/"}));
    assert_eq!(error, "path_separated_prefix: value does not match regex pattern \"^[^?#]+[^?#/]$\"");
}

#[test]
fn bytes() {
    type Match = config::tap::v3::http_generic_body_match::GenericTextMatch;
    assert_eq!(check::<Match>(json!({"binary_match": "AA=="})), "valid");
    assert_eq!(check::<Match>(json!({"binary_match": ""})), "binary_match: value length must be at least 1 bytes");
}

#[test]
fn a_message_without_rules_is_valid() {
    assert_eq!(check::<weft_xds::pb::google::protobuf::Struct>(json!({"a": 1})), "valid");
}
