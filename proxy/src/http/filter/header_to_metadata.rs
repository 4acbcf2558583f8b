//! `envoy.filters.http.header_to_metadata`: what headers and cookies say becomes dynamic metadata, for routes, other filters and
//! logs.

use std::borrow::Cow;

use base64::Engine as _;
use http::{HeaderMap, Response, header};

use super::{Passing, override_of};
use crate::{
    config::{
        http_filter::{HeaderRule, HeaderSource, HeaderToMetadata, MetadataEntry, RouteFilter},
        metadata::{Fields, Metadata, Value},
    },
    http::{
        exchange::{Exchange, ResponseBody},
        route::{matcher::header_value_of, resolved::ResolvedRoute},
    },
};

/// As Envoy: longer values are overlooked.
const VALUE_BYTES_MAX: usize = 8 * 1024;

pub(super) fn request(name: &str, config: &HeaderToMetadata, passing: &mut Passing<'_>) {
    let config = config_for(name, config, passing.route);
    let mut metadata = passing.exchange.metadata.borrow_mut();
    apply(&config.request_rules, &mut passing.head.headers, &mut metadata);
}

pub(super) fn response(
    name: &str,
    config: &HeaderToMetadata,
    (exchange, route): (&Exchange, Option<&ResolvedRoute>),
    response: &mut Response<ResponseBody>,
) {
    let config = config_for(name, config, route);
    apply(&config.response_rules, response.headers_mut(), &mut exchange.metadata.borrow_mut());
}

fn config_for<'a>(name: &str, config: &'a HeaderToMetadata, route: Option<&'a ResolvedRoute>) -> &'a HeaderToMetadata {
    match override_of(route, name) {
        Some(RouteFilter::HeaderToMetadata(config)) => config,
        _ => config,
    }
}

fn apply(rules: &[HeaderRule], headers: &mut HeaderMap, metadata: &mut Metadata) {
    for rule in rules {
        let said = match &rule.source {
            HeaderSource::Header(name) => header_value_of(headers, name).map(Cow::into_owned),
            HeaderSource::Cookie(name) => cookie(headers, name).map(|value| value.as_bytes().to_vec()),
        };
        let entry = if said.is_some() { &rule.on_present } else { &rule.on_missing };
        if let Some(entry) = entry {
            add(entry, said.as_deref(), metadata);
        }
        if let (true, Some(_), HeaderSource::Header(name)) = (rule.remove, &said, &rule.source) {
            headers.remove(name);
        }
    }
}

fn add(entry: &MetadataEntry, said: Option<&[u8]>, metadata: &mut Metadata) {
    let text = match (&entry.value, said) {
        (Some(value), _) => Cow::Borrowed(value.as_str()),
        (None, Some(said)) => String::from_utf8_lossy(said),
        (None, None) => return,
    };
    let text = entry.rewrite.as_ref().map_or(text.clone(), |rewrite| rewrite.apply(&text).into());
    if text.is_empty() || text.len() > VALUE_BYTES_MAX {
        return;
    }
    let text = match entry.is_base64 {
        false => text,
        true => match base64::engine::general_purpose::STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
            Err(_) => return,
        },
    };
    let value = match entry.is_number {
        false => Value::Text((*text).into()),
        true => match text.trim().parse() {
            Ok(number) => Value::number(number),
            Err(_) => return,
        },
    };
    metadata.merge(&entry.namespace, Fields::from([(entry.key.clone(), value)]));
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let crumbs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = crumbs.flat_map(|crumb| crumb.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::{metadata::fields_to_json, testing::message};

    #[test]
    fn headers_become_metadata_of_their_kind() {
        let config = HeaderToMetadata::from_proto(message(
            "{request_rules: [\
             {header: x-a, on_header_present: {metadata_namespace: n, key: a, type: NUMBER}, remove: true}, \
             {header: x-b, on_header_missing: {metadata_namespace: n, key: b, value: none}}, \
             {cookie: c, on_header_present: {metadata_namespace: n, key: c}}, \
             {header: x-d, on_header_present: {metadata_namespace: n, key: d, encode: BASE64}}, \
             {header: x-e, on_header_present: {metadata_namespace: n, key: e, regex_value_rewrite: {pattern: {regex: '^v(.*)$'}, substitution: '\\1'}}}]}",
        ))
        .expect("rules");
        let pairs = [("x-a", "5"), ("cookie", "b=1; c=\"x\""), ("x-d", "aGk="), ("x-e", "v7")];
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut metadata = Metadata::default();
        apply(&config.request_rules, &mut headers, &mut metadata);
        let found = fields_to_json(metadata.namespace("n").expect("a namespace"));
        assert_eq!(found, serde_json::json!({"a": 5, "b": "none", "c": "x", "d": "hi", "e": "7"}));
        assert!(!headers.contains_key("x-a"));
    }
}
