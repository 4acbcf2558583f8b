//! `envoy.service.ratelimit.v3.RateLimitService`: what the rate limit filter asks, and what it is answered, as bytes of a gRPC
//! message and as what they mean. Pure.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use prost::Message as _;
use weft_xds::pb::{
    envoy::{
        config::core::v3::HeaderValue as ProtoHeaderValue,
        extensions::common::ratelimit::v3::{
            RateLimitDescriptor,
            rate_limit_descriptor::{Entry, RateLimitOverride},
        },
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit},
        },
    },
    google::protobuf::UInt64Value,
};

use crate::config::{
    metadata::{Fields, fields_of},
    rate_limit::LimitOverride,
};

/// The method.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    pub entries: Vec<(String, String)>,
    pub limit: Option<LimitOverride>,
    pub hits: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Of the descriptors that have a limit.
    pub limits: Vec<LimitStatus>,
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
    pub metadata: Option<Fields>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    OverLimit,
    /// The service cannot say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    pub name: String,
    pub requests_per_unit: u32,
    /// None: of a unit that is not known.
    pub window: Option<Duration>,
    pub remaining: u32,
    pub until_reset: Duration,
}

pub fn request(domain: &str, descriptors: Vec<Descriptor>) -> Vec<u8> {
    let descriptors = descriptors.into_iter().map(|descriptor| RateLimitDescriptor {
        entries: descriptor.entries.into_iter().map(|(key, value)| Entry { key, value }).collect(),
        limit: descriptor
            .limit
            .map(|LimitOverride { requests_per_unit, unit }| RateLimitOverride { requests_per_unit, unit }),
        hits_addend: descriptor.hits.map(|value| UInt64Value { value }),
        ..Default::default()
    });
    RateLimitRequest { domain: domain.to_owned(), descriptors: descriptors.collect(), hits_addend: 0 }.encode_to_vec()
}

/// None: not such a message.
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let RateLimitResponse {
        overall_code,
        statuses,
        response_headers_to_add,
        request_headers_to_add,
        raw_body,
        dynamic_metadata,
        quota: _, // for those who keep count themselves
    } = RateLimitResponse::decode(bytes).ok()?;
    Some(Answer {
        verdict: match Code::try_from(overall_code) {
            Ok(Code::Ok) => Verdict::Ok,
            Ok(Code::OverLimit) => Verdict::OverLimit,
            Ok(Code::Unknown) | Err(_) => Verdict::Unknown,
        },
        limits: statuses.into_iter().filter_map(limit_status).collect(),
        response_headers: headers(response_headers_to_add),
        request_headers: headers(request_headers_to_add),
        body: raw_body,
        metadata: dynamic_metadata.map(fields_of),
    })
}

fn limit_status(message: DescriptorStatus) -> Option<LimitStatus> {
    let DescriptorStatus { code: _, current_limit, limit_remaining, duration_until_reset, quota: _ } = message;
    let limit = current_limit?;
    const DAY_S: u64 = 24 * 60 * 60;
    let seconds = match Unit::try_from(limit.unit) {
        Ok(Unit::Second) => 1,
        Ok(Unit::Minute) => 60,
        Ok(Unit::Hour) => 60 * 60,
        Ok(Unit::Day) => DAY_S,
        Ok(Unit::Week) => 7 * DAY_S,
        Ok(Unit::Month) => 30 * DAY_S,
        Ok(Unit::Year) => 365 * DAY_S,
        Ok(Unit::Unknown) | Err(_) => 0,
    };
    let until_reset =
        duration_until_reset.and_then(|duration| u64::try_from(duration.seconds).ok()).unwrap_or_default();
    Some(LimitStatus {
        name: limit.name,
        requests_per_unit: limit.requests_per_unit,
        window: Some(Duration::from_secs(seconds)).filter(|window| !window.is_zero()),
        remaining: limit_remaining,
        until_reset: Duration::from_secs(until_reset),
    })
}

/// What could not be a header is left out.
fn headers(messages: Vec<ProtoHeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    let header = |message: ProtoHeaderValue| {
        let ProtoHeaderValue { key, value, raw_value } = message;
        let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
        Some((HeaderName::from_bytes(key.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?))
    };
    messages.into_iter().filter_map(header).collect()
}

#[cfg(test)]
mod tests {
    use weft_xds::json;

    use super::*;

    #[test]
    fn descriptors_are_sent_and_the_answer_is_understood() {
        let limit = LimitOverride { requests_per_unit: 3, unit: 2 };
        let entries = vec![("k".to_owned(), "v".to_owned())];
        let bytes = request("d", vec![Descriptor { entries, limit: Some(limit), hits: Some(2) }]);
        let sent: RateLimitRequest = json::from_yaml(
            "{domain: d, descriptors: [{entries: [{key: k, value: v}], limit: {requests_per_unit: 3, unit: MINUTE}, hits_addend: 2}]}",
        )
        .expect("a request");
        assert_eq!(bytes, sent.encode_to_vec());
        let message: RateLimitResponse = json::from_yaml(
            "{overall_code: OVER_LIMIT, statuses: [{code: OK}, {current_limit: {name: n, requests_per_unit: 5, unit: HOUR}, limit_remaining: 1, duration_until_reset: 9s}], \
             response_headers_to_add: [{key: a, value: b}, {key: ' ', value: c}], dynamic_metadata: {x: y}}",
        )
        .expect("a response");
        let answer = answer(&message.encode_to_vec()).expect("an answer");
        assert_eq!((answer.verdict, answer.response_headers.len()), (Verdict::OverLimit, 1));
        let window = Some(Duration::from_secs(3600));
        let until_reset = Duration::from_secs(9);
        assert_eq!(
            answer.limits,
            [LimitStatus { name: "n".into(), requests_per_unit: 5, window, remaining: 1, until_reset }]
        );
        assert!(answer.metadata.is_some() && super::answer(b"\xff").is_none());
    }
}
