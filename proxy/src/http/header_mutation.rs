//! Header changes that configuration asks for, carried out: on requests before they go on, on responses before they go back.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header, request};

use crate::{
    config::{
        header_mutation::{AppendAction, AppendHeader, HeaderFormat, HeaderMutation, HeaderRules},
        matcher::StringMatcher,
        substitution::HeaderKey,
    },
    http::{
        exchange::{Exchange, ResponseBody},
        local_reply::LocalReply,
        request_headers::{set_authority, set_path, set_scheme},
    },
    substitution::{self, Context, Subject},
};

/// `..._headers_to_remove`, then `..._headers_to_add`, of a request.
pub fn apply_to_request(rules: &HeaderRules, exchange: &Rc<Exchange>, head: &mut request::Parts) {
    for name in &rules.remove {
        head.headers.remove(name);
    }
    append_to_request(&rules.add, exchange, head);
}

/// All values are written before the first is added.
pub fn append_to_request(add: &[AppendHeader], exchange: &Rc<Exchange>, head: &mut request::Parts) {
    if add.is_empty() {
        return;
    }
    let values = values(add, &Context { request: Some(head), ..Context::of_connection(Subject::Http(exchange)) });
    append_all(add, values, &mut head.headers);
}

/// The same of a response.
pub fn apply_to_response<B>(rules: &HeaderRules, exchange: &Exchange, response: &mut Response<B>) {
    for name in &rules.remove {
        response.headers_mut().remove(name);
    }
    append_to_response(&rules.add, exchange, response);
}

pub fn append_to_response<B>(add: &[AppendHeader], exchange: &Exchange, response: &mut Response<B>) {
    if add.is_empty() {
        return;
    }
    let values = exchange.with_messages(|messages| {
        let response = Some((response.status(), response.headers()));
        values(add, &Context { response, ..messages })
    });
    append_all(add, values, response.headers_mut());
}

/// Of a request that is no caller's.
pub fn append(add: &[AppendHeader], context: &Context<'_>, headers: &mut HeaderMap) {
    append_all(add, values(add, context), headers);
}

/// Of a reply that is only being made.
pub fn append_to_reply(add: &[AppendHeader], exchange: &Exchange, head: &request::Parts, headers: &mut HeaderMap) {
    let values = values(add, &Context { request: Some(head), ..Context::of_connection(Subject::Http(exchange)) });
    append_all(add, values, headers);
}

fn values(add: &[AppendHeader], context: &Context<'_>) -> Vec<Option<HeaderValue>> {
    add.iter().map(|append| value(append, context)).collect()
}

/// None: empty, and then not wanted, or nothing that a header could hold.
fn value(append: &AppendHeader, context: &Context<'_>) -> Option<HeaderValue> {
    let value = match &append.value {
        HeaderFormat::Literal(value) => value.clone(),
        HeaderFormat::Format(operators) => {
            let mut text = Vec::new();
            let access_logs = &context.subject.downstream().worker.access_logs;
            access_logs.with_clock(|clock| substitution::write_text(operators, context, b"", clock, &mut text));
            HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()?
        }
    };
    (append.keep_empty_value || !value.is_empty()).then_some(value)
}

/// Whether it was there is asked before anything is changed; what overwrites goes first.
fn append_all(add: &[AppendHeader], values: Vec<Option<HeaderValue>>, headers: &mut HeaderMap) {
    let mut appended: Vec<(&HeaderName, HeaderValue)> = Vec::new();
    let mut overwritten: Vec<(&HeaderName, HeaderValue)> = Vec::new();
    for (append, value) in add.iter().zip(values) {
        let (HeaderKey::Field(name), Some(value)) = (&append.key, value) else { continue };
        match append.action {
            AppendAction::AppendIfExistsOrAdd => appended.push((name, value)),
            AppendAction::AddIfAbsent if headers.contains_key(name) => {}
            AppendAction::AddIfAbsent => appended.push((name, value)),
            AppendAction::OverwriteIfExists if !headers.contains_key(name) => {}
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => overwritten.push((name, value)),
        }
    }
    for (name, value) in overwritten {
        headers.insert(name, value);
    }
    for (name, value) in appended {
        headers.append(name, value);
    }
}

/// Step by step, each seeing what the one before did.
pub fn mutate_request(
    mutations: &[HeaderMutation],
    exchange: &Rc<Exchange>,
    head: &mut request::Parts,
) -> Result<(), LocalReply> {
    for mutation in mutations {
        match mutation {
            HeaderMutation::Remove(name) => {
                head.headers.remove(name);
            }
            HeaderMutation::RemoveOnMatch(matcher) => remove_on_match(matcher, &mut head.headers),
            HeaderMutation::Append(append) => {
                let context = Context { request: Some(head), ..Context::of_connection(Subject::Http(exchange)) };
                let Some(value) = value(append, &context) else { continue };
                append_one(append, value, head)?;
            }
        }
    }
    Ok(())
}

fn append_one(append: &AppendHeader, value: HeaderValue, head: &mut request::Parts) -> Result<(), LocalReply> {
    let text = value.to_str().unwrap_or_default();
    // A request has each of these once: it can only be replaced.
    let replaces = append.action != AppendAction::AddIfAbsent;
    match &append.key {
        HeaderKey::Field(name) => append_field(append.action, name, value, &mut head.headers),
        HeaderKey::Path if replaces => set_path(head, text)?,
        HeaderKey::Authority if replaces => set_authority(head, &value)?,
        HeaderKey::Scheme if replaces => set_scheme(head, text),
        HeaderKey::Method if replaces => {
            if let Ok(method) = http::Method::from_bytes(value.as_bytes()) {
                head.method = method;
            }
        }
        HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme | HeaderKey::Method | HeaderKey::Status => {}
    }
    Ok(())
}

pub fn mutate_response(mutations: &[HeaderMutation], exchange: &Exchange, response: &mut Response<ResponseBody>) {
    for mutation in mutations {
        match mutation {
            HeaderMutation::Remove(name) => {
                response.headers_mut().remove(name);
            }
            HeaderMutation::RemoveOnMatch(matcher) => remove_on_match(matcher, response.headers_mut()),
            HeaderMutation::Append(append) => {
                let value = exchange.with_messages(|messages| {
                    let response = Some((response.status(), response.headers()));
                    value(append, &Context { response, ..messages })
                });
                match (&append.key, value) {
                    (HeaderKey::Field(name), Some(value)) => {
                        append_field(append.action, name, value, response.headers_mut());
                    }
                    (HeaderKey::Status, Some(value)) => {
                        if let Ok(status) = http::StatusCode::from_bytes(value.as_bytes()) {
                            *response.status_mut() = status;
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn append_field(action: AppendAction, name: &HeaderName, value: HeaderValue, headers: &mut HeaderMap) {
    match action {
        AppendAction::AppendIfExistsOrAdd => {
            headers.append(name, value);
        }
        AppendAction::AddIfAbsent => {
            headers.entry(name).or_insert(value);
        }
        AppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(name, value);
        }
        AppendAction::OverwriteIfExists => {
            if headers.contains_key(name) {
                headers.insert(name, value);
            }
        }
    }
}

fn remove_on_match(matcher: &StringMatcher, headers: &mut HeaderMap) {
    let matching: Vec<HeaderName> =
        headers.keys().filter(|name| **name != header::HOST && matcher.matches(name.as_str())).cloned().collect();
    for name in matching {
        headers.remove(name);
    }
}
