//! A rate limit service that says what the first value of the first descriptor asks for, and what it was asked; with the scenes
//! and exchanges that ask it.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use prost::Message as _;
use serde_json::{Value, json};
use weft_tests::netns::Namespace;
use weft_xds::pb::envoy::config::core::v3::HeaderValue;
use weft_xds::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use weft_xds::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use crate::scene::{Exchange, Scene, exchange, filter, filters, one_host, typed};

pub(crate) const PORT: u16 = 9081;

/// Serves until the process ends.
pub(crate) fn start(namespace: &Namespace) -> Result<()> {
    let listener = namespace.enter(|| {
        let listener = TcpListener::bind(("127.0.0.1", PORT)).context("rate limit service")?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(serve(listener)));
    Ok(())
}

async fn serve(listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that ends badly is its client's business.
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(async move { answer(request.into_body(), respond).await.ok() });
            }
        });
    }
}

async fn answer(mut body: h2::RecvStream, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let asked = RateLimitRequest::decode(bytes.get(5..).context("no message")?)?;
    let wish = asked.descriptors.first().and_then(|descriptor| descriptor.entries.first());
    let wish = wish.map_or("", |entry| entry.value.as_str());
    if wish == "slow" {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let head = http::Response::builder().header("content-type", "application/grpc");
    if wish == "broken" {
        respond.send_response(head.header("grpc-status", "14").body(())?, true)?;
        return Ok(());
    }
    let message = response(wish, &asked).encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let mut stream = respond.send_response(head.body(())?, false)?;
    stream.send_data(framed.freeze(), false)?;
    stream.send_trailers(http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]))?;
    Ok(())
}

fn response(wish: &str, asked: &RateLimitRequest) -> RateLimitResponse {
    let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    let code = match wish {
        "ok" => Code::Ok,
        "unknown" => Code::Unknown,
        _ => Code::OverLimit,
    };
    let status = |name: &str, requests_per_unit, unit, limit_remaining| DescriptorStatus {
        code: code as i32,
        current_limit: Some(RateLimit { name: name.into(), requests_per_unit, unit }),
        limit_remaining,
        duration_until_reset: Some(weft_xds::pb::google::protobuf::Duration { seconds: 12, nanos: 0 }),
        ..Default::default()
    };
    let descriptors = asked.descriptors.iter().map(|descriptor| {
        let entries: Vec<String> =
            descriptor.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
        let limit = descriptor.limit.as_ref().map(|limit| format!("/{}.{}", limit.requests_per_unit, limit.unit));
        let hits = descriptor.hits_addend.as_ref().map(|hits| format!("*{}", hits.value));
        format!("[{}{}{}]", entries.join(","), limit.unwrap_or_default(), hits.unwrap_or_default())
    });
    RateLimitResponse {
        overall_code: code as i32,
        statuses: vec![status("", 10, 2, 3), status("named", 100, 3, 1)],
        response_headers_to_add: vec![header("x-from-service", "response")],
        request_headers_to_add: vec![header("x-from-service", "request")],
        raw_body: format!("{} {}", asked.domain, descriptors.collect::<String>()).into_bytes(),
        ..Default::default()
    }
}

fn limit(more: Value) -> Value {
    let mut fields = json!({
        "domain": "d", "timeout": "0.3s",
        "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "rate-limits"}}},
    });
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    filter("limit", "ratelimit.v3.RateLimit", fields)
}

fn header(key: &str) -> Value {
    json!({"request_headers": {"header_name": "x-wish", "descriptor_key": key}})
}

fn limited(prefix: &str, entries: Value) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": "origin", "rate_limits": entries},
        "metadata": {"filter_metadata": {"n": {"k": "of the route"}}}})
}

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |name, chain: &[Value], routes| Scene {
        name,
        manager: json!({"http_filters": filters(chain)}),
        routes,
        internal: false,
    };
    let wishes = || one_host(&[limited("/", json!([{"actions": [header("wish")]}]))]);
    vec![
        scene("service", &[limit(json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"}))], wishes()),
        scene(
            "service that is strict",
            &[limit(json!({
                "failure_mode_deny": true, "rate_limited_as_resource_exhausted": true,
                "rate_limited_status": {"code": 503}, "status_on_error": {"code": 502},
                "disable_x_envoy_ratelimited_header": true,
                "response_headers_to_add": [{"header": {"key": "x-limited", "value": "%REQ(:path)%"}}]}))],
            wishes(),
        ),
        scene(
            "service not enforced",
            &[limit(json!({"filter_enforced": {"default_value": {"numerator": 0}}}))],
            wishes(),
        ),
        scene("service for insiders", &[limit(json!({"request_type": "internal"}))], wishes()),
        scene(
            "service that is away",
            &[limit(json!({"rate_limit_service": {"transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "nobody-h2"}}}}))],
            wishes(),
        ),
        scene("descriptors", &[limit(json!({"stage": 1}))], descriptors()),
        scene(
            "own descriptors",
            &[limit(json!({"rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "filter"}}]}]}))],
            wishes(),
        ),
    ]
}

fn descriptors() -> Value {
    let one = |prefix: &str, action: Value| {
        limited(prefix, json!([{"stage": 1, "actions": [{"generic_key": {"descriptor_value": "echo"}}, action]}]))
    };
    let per_route = |prefix: &str, fields: Value| {
        let mut route =
            limited(prefix, json!([{"stage": 1, "actions": [{"generic_key": {"descriptor_value": "route"}}]}]));
        route["typed_per_filter_config"] =
            json!({"limit": typed("envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute", fields)});
        route
    };
    let exact = json!([{"name": "x-a", "string_match": {"exact": "1"}}]);
    let parameters = json!([{"name": "a", "string_match": {"exact": "1"}}]);
    let mut table = one_host(&[
        one("/destination", json!({"destination_cluster": {}})),
        one("/source", json!({"source_cluster": {}})),
        one("/remote", json!({"remote_address": {}})),
        one("/masked", json!({"masked_remote_address": {"v4_prefix_mask_len": 8}})),
        one(
            "/header-skipped",
            json!({"request_headers": {"header_name": "x-a", "descriptor_key": "a", "skip_if_absent": true}}),
        ),
        one("/header", json!({"request_headers": {"header_name": "x-a", "descriptor_key": "a"}})),
        one("/path", json!({"request_headers": {"header_name": ":path", "descriptor_key": "p"}})),
        one(
            "/query-skipped",
            json!({"query_parameters": {"query_parameter_name": "a", "descriptor_key": "q", "skip_if_absent": true}}),
        ),
        one("/query", json!({"query_parameters": {"query_parameter_name": "a", "descriptor_key": "q"}})),
        one("/key", json!({"generic_key": {"descriptor_key": "own", "descriptor_value": "v"}})),
        one(
            "/match-not",
            json!({"header_value_match": {"descriptor_value": "v", "expect_match": false, "headers": exact}}),
        ),
        one("/match", json!({"header_value_match": {"descriptor_value": "v", "headers": exact}})),
        one(
            "/parameter",
            json!({"query_parameter_value_match": {"descriptor_value": "v", "query_parameters": parameters}}),
        ),
        one(
            "/metadata-none",
            json!({"metadata": {"descriptor_key": "m", "default_value": "d", "metadata_key": {"key": "n", "path": [{"key": "none"}]}}}),
        ),
        one(
            "/metadata-route",
            json!({"metadata": {"descriptor_key": "m", "source": "ROUTE_ENTRY", "metadata_key": {"key": "n", "path": [{"key": "k"}]}}}),
        ),
        one(
            "/metadata-skipped",
            json!({"metadata": {"descriptor_key": "m", "skip_if_absent": true, "metadata_key": {"key": "n", "path": [{"key": "none"}]}}}),
        ),
        limited(
            "/several",
            json!([
                {"stage": 1, "actions": [{"generic_key": {"descriptor_value": "echo"}}], "limit": {"rate_limit": {"requests_per_unit": 7, "unit": "HOUR"}}},
                {"stage": 0, "actions": [{"generic_key": {"descriptor_value": "other stage"}}]},
                {"stage": 1, "actions": [{"remote_address": {}}]},
            ]),
        ),
        per_route("/host-too", json!({"vh_rate_limits": "INCLUDE"})),
        per_route("/host-never", json!({"vh_rate_limits": "IGNORE"})),
        per_route("/own-domain", json!({"domain": "other"})),
        per_route(
            "/own",
            json!({"rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "own"}}], "hits_addend": {"number": 5}}]}),
        ),
        json!({"match": {"prefix": "/host"}, "route": {"cluster": "origin"}}),
        json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 200}}),
    ]);
    table["virtual_hosts"][0]["rate_limits"] =
        json!([{"stage": 1, "actions": [{"generic_key": {"descriptor_value": "host"}}]}]);
    table
}

#[rustfmt::skip] // one line an exchange
pub(crate) const EXCHANGES: &[Exchange] = &[
    exchange("service", "rls: fine", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-wish: ok\r\n"),
    exchange("service", "rls: too many", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\n"),
    exchange("service", "rls: too many of grpc", "POST / HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    exchange("service", "rls: does not know", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: unknown\r\n"),
    exchange("service", "rls: fails", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: broken\r\n"),
    exchange("service", "rls: too slow", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: slow\r\n"),
    exchange("service", "rls: not asked", "GET /headers HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("service that is strict", "rls: strict, too many", "GET /p HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\n"),
    exchange("service that is strict", "rls: strict, too many of grpc", "POST /p HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n"),
    exchange("service that is strict", "rls: strict, fails", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: broken\r\n"),
    exchange("service that is strict", "rls: strict, too slow", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: slow\r\n"),
    exchange("service not enforced", "rls: not enforced", "GET /headers HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\n"),
    exchange("service for insiders", "rls: of insiders", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\n"),
    exchange("service that is away", "rls: away", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: over\r\n"),
    exchange("own descriptors", "rls: the filter's own descriptors", "GET / HTTP/1.1\r\nhost: any.test\r\nx-wish: ok\r\n"),
    exchange("descriptors", "descriptor: destination", "GET /destination HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: source", "GET /source HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: remote", "GET /remote HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: masked", "GET /masked HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: header", "GET /header HTTP/1.1\r\nhost: any.test\r\nx-a: 1\r\n"),
    exchange("descriptors", "descriptor: no header", "GET /header HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: header that may be absent", "GET /header-skipped HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: path", "GET /path?a HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: query", "GET /query?b=2&a=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: no query", "GET /query HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: query that may be absent", "GET /query-skipped HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: key", "GET /key HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: match", "GET /match HTTP/1.1\r\nhost: any.test\r\nx-a: 1\r\n"),
    exchange("descriptors", "descriptor: no match", "GET /match HTTP/1.1\r\nhost: any.test\r\nx-a: 2\r\n"),
    exchange("descriptors", "descriptor: no match as expected", "GET /match-not HTTP/1.1\r\nhost: any.test\r\nx-a: 2\r\n"),
    exchange("descriptors", "descriptor: parameter", "GET /parameter?a=1 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: no parameter", "GET /parameter?a=2 HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: metadata by default", "GET /metadata-none HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: metadata of the route", "GET /metadata-route HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: metadata that may be absent", "GET /metadata-skipped HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: several", "GET /several HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: of the host too", "GET /host-too HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: never of the host", "GET /host-never HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: of the host alone", "GET /host HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: of another domain", "GET /own-domain HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: of the route's filter", "GET /own HTTP/1.1\r\nhost: any.test\r\n"),
    exchange("descriptors", "descriptor: of a direct response", "GET /direct HTTP/1.1\r\nhost: any.test\r\n"),
];
