//! JSON to the wire: a `serde_json::Value` becomes a message's bytes, by the proto3 JSON mapping.
//!
//! Invariants: fields are written in the order of their numbers and defaults are left out where presence does not matter, so
//! the bytes are what a protobuf library would write; every refusal carries the path of the value that caused it.

use super::{scalar, suggest, time};
use crate::error::{At, FieldError, wrong};
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message, Oneof};
use crate::wire::{self, DEPTH_MAX};
use serde_json::{Map, Value};
use smallvec::SmallVec;

/// Appends the bytes of `value` read as a `message`. `depth` is the number of messages around it.
pub(crate) fn message(message: Message, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if depth > DEPTH_MAX {
        return wrong(format!("nested deeper than {DEPTH_MAX} messages"));
    }
    match message.well_known() {
        WellKnown::None => fields(message, object(value)?, None, depth, out),
        WellKnown::Any => any(message, object(value)?, depth, out),
        // Envoy takes wrappers and times as objects of their fields too, as old configurations write them.
        WellKnown::Wrapper => match value {
            Value::Object(object) => fields(message, object, None, depth, out),
            value => {
                let field = first_field(message);
                scalar::with_wire(field, value, |wire| put_unless_default(field, wire, out))
            }
        },
        WellKnown::Duration | WellKnown::Timestamp => time(message, value, depth, out),
        WellKnown::FieldMask => field_mask(message, string(value, "field paths separated by commas")?, out),
        // People write a struct's keys and a list's items themselves, so paths do not name the field that holds them.
        WellKnown::Struct => map(first_field(message), "", value, depth, out),
        WellKnown::ListValue => list(first_field(message), "", value, depth, out),
        WellKnown::Value => any_json(message, value, depth, out),
    }
}

/// The fields of an object. In an Any, `type_key` is the key that is no field.
fn fields(
    message: Message,
    object: &Map<String, Value>,
    type_key: Option<&str>,
    depth: u32,
    out: &mut Vec<u8>,
) -> Result<(), FieldError> {
    let mut found: SmallVec<[(Field, &str, &Value); 16]> = SmallVec::new();
    for (key, value) in object {
        if Some(key.as_str()) == type_key {
            continue;
        }
        match message.field_by_name(key) {
            Some(field) => found.push((field, key, value)),
            None => return Err(unknown_field(message, key)),
        }
    }
    found.sort_by_key(|(field, ..)| field.number());
    for pair in found.windows(2) {
        if pair[0].0 == pair[1].0 {
            let reason = format!("is written twice, as {:?} and as {:?}", pair[0].1, pair[1].1);
            return Err(FieldError::new(pair[0].0.name(), reason));
        }
    }
    // null means absent, but for the types whose value it is.
    found.retain(|(field, _, value)| !value.is_null() || (null_is_a_value(*field) && !field.is_repeated()));
    one_member_a_oneof(message, &found)?;
    for (field, _, value) in found {
        write_field(field, value, depth, out)?;
    }
    Ok(())
}

fn unknown_field(message: Message, key: &str) -> FieldError {
    // The hint uses the spelling that the writer uses.
    let camel = key.contains(|c: char| c.is_ascii_uppercase()) && !key.contains('_');
    let names = message.fields().map(|field| if camel { field.json_name() } else { field.name() });
    let hint = suggest::hint(key, names);
    FieldError::new(path_step(key), format!("unknown field in {}{hint}", message.full_name()))
}

/// A key as a step of a path: quoted if it could be read as something else.
pub(crate) fn path_step(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '@' | '$');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("[{key:?}]") }
}

fn one_member_a_oneof(message: Message, found: &[(Field, &str, &Value)]) -> Result<(), FieldError> {
    let mut chosen: SmallVec<[(Oneof, Field); 4]> = SmallVec::new();
    for (field, ..) in found {
        let Some(oneof) = field.oneof(message) else { continue };
        if let Some((_, other)) = chosen.iter().find(|(known, _)| *known == oneof) {
            let reason = format!("only one of {} may be set, but {} is set too", oneof.name(), other.name());
            return Err(FieldError::new(field.name(), reason));
        }
        chosen.push((oneof, *field));
    }
    Ok(())
}

/// Whether one value of the field can be null: it is a `google.protobuf.Value` or `NullValue`.
fn null_is_a_value(field: Field) -> bool {
    match field.kind() {
        Kind::Message => field.message().well_known() == WellKnown::Value,
        Kind::Enum => field.enumeration().is_null_value(),
        _ => false,
    }
}

fn write_field(field: Field, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if field.is_map() {
        return map(field, field.name(), value, depth, out);
    }
    if field.is_repeated() {
        return list(field, field.name(), value, depth, out);
    }
    singular(field, value, depth, out).at(field.name())
}

fn singular(field: Field, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if field.kind() == Kind::Message {
        return nested(field, value, depth, out);
    }
    scalar::with_wire(field, value, |wire| {
        if field.has_presence() {
            wire::put_key(field, out);
            wire::put_value(wire, out);
        } else {
            put_unless_default(field, wire, out);
        }
    })
}

fn nested(field: Field, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    wire::put_key(field, out);
    wire::put_delimited(out, |out| message(field.message(), value, depth + 1, out))
}

fn put_unless_default(field: Field, value: wire::Value<'_>, out: &mut Vec<u8>) {
    if !wire::is_default(value) {
        wire::put_key(field, out);
        wire::put_value(value, out);
    }
}

fn list(field: Field, name: &str, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let Value::Array(items) = value else { return wrong(scalar::expected("a list", value)).at(name) };
    let write = |out: &mut Vec<u8>| {
        for (index, value) in items.iter().enumerate() {
            list_item(field, value, depth, out).at_index(name, index)?;
        }
        Ok(())
    };
    if field.is_packed() && !items.is_empty() {
        wire::put_delimited_key(field.number(), out);
        return wire::put_delimited(out, write);
    }
    write(out)
}

fn list_item(field: Field, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if value.is_null() && !null_is_a_value(field) {
        return wrong("a list has no null items");
    }
    if field.kind() == Kind::Message {
        return nested(field, value, depth, out);
    }
    scalar::with_wire(field, value, |wire| {
        if !field.is_packed() {
            wire::put_key(field, out);
        }
        wire::put_value(wire, out);
    })
}

fn map(field: Field, name: &str, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let Value::Object(entries) = value else { return wrong(scalar::expected("an object", value)).at(name) };
    let (key_field, value_field) = field.map_entry();
    for (key, value) in entries {
        if value.is_null() && !null_is_a_value(value_field) {
            return wrong("a map has no null values").at_key(name, key);
        }
        wire::put_key(field, out);
        wire::put_delimited(out, |out| {
            scalar::with_key(key_field, key, |wire| put_unless_default(key_field, wire, out))?;
            singular(value_field, value, depth + 1, out)
        })
        .at_key(name, key)?;
    }
    Ok(())
}

fn any(any: Message, object: &Map<String, Value>, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let type_url = match object.get("@type") {
        Some(Value::String(url)) => url,
        Some(other) => return wrong(scalar::expected("a string", other)).at("@type"),
        None if object.is_empty() => return Ok(()),
        None => return wrong("an Any needs \"@type\""),
    };
    let held = match type_url.rsplit_once('/') {
        Some((_, name)) => Message::by_name(name),
        None => return wrong("a type URL is written as type.googleapis.com/NAME").at("@type"),
    };
    let Some(held) = held else { return wrong(format!("could not find @type '{type_url}'")) };
    let mut of_any = any.fields();
    let (Some(url_field), Some(value_field)) = (of_any.next(), of_any.next()) else {
        return wrong("Any has two fields");
    };
    wire::put_bytes(url_field.number(), type_url.as_bytes(), out);
    let start = out.len();
    wire::put_key(value_field, out);
    let before = out.len();
    wire::put_delimited(out, |out| held_fields(held, object, depth + 1, out))?;
    if out.len() == before + 1 {
        out.truncate(start); // an empty payload is the default of bytes
    }
    Ok(())
}

/// What an Any holds: the fields beside `@type`, or `value` for a type that JSON does not write as an object of fields.
fn held_fields(held: Message, object: &Map<String, Value>, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let empty_as_value = held.full_name() == "google.protobuf.Empty" && object.contains_key("value");
    if held.well_known() == WellKnown::None && !empty_as_value {
        if depth > DEPTH_MAX {
            return wrong(format!("nested deeper than {DEPTH_MAX} messages"));
        }
        return fields(held, object, Some("@type"), depth, out);
    }
    if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "@type" | "value")) {
        let reason = format!("unknown field: an Any of {} has \"@type\" and \"value\" only", held.full_name());
        return Err(FieldError::new(path_step(key), reason));
    }
    match object.get("value") {
        Some(value) => message(held, value, depth, out).at("value"),
        None => wrong(format!("an Any of {} needs \"value\"", held.full_name())),
    }
}

/// `google.protobuf.Value`: any JSON at all.
fn any_json(message: Message, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let member = match value {
        Value::Null => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Bool(_) => 4,
        Value::Object(_) => 5,
        Value::Array(_) => 6,
    };
    let field = message.field(member).expect("struct.proto numbers the members of Value 1 to 6");
    singular(field, value, depth, out)
}

/// A list of paths in lowerCamelCase, kept in snake_case.
fn field_mask(message: Message, text: &str, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let field = first_field(message);
    for path in text.split(',').filter(|_| !text.is_empty()) {
        if path.is_empty() || path.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '.')) {
            return wrong(format!("{path:?} is not a field path in lowerCamelCase"));
        }
        let mut snake = String::with_capacity(path.len() + 4);
        for c in path.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        wire::put_bytes(field.number(), snake.as_bytes(), out);
    }
    Ok(())
}

/// A Duration or Timestamp, which number their seconds and nanoseconds alike.
fn time(message: Message, value: &Value, depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let is_duration = message.well_known() == WellKnown::Duration;
    let (seconds, nanos) = match value {
        Value::Object(object) => {
            let mut bytes = Vec::new();
            fields(message, object, None, depth, &mut bytes)?;
            wire::time_parts(message, &bytes)?
        }
        Value::String(text) if is_duration => time::parse_duration(text)?,
        Value::String(text) => time::parse_timestamp(text)?,
        other if is_duration => return wrong(scalar::expected("a duration such as \"1.5s\"", other)),
        other => return wrong(scalar::expected("a time such as \"2026-01-31T12:00:00Z\"", other)),
    };
    if is_duration {
        time::check_duration(seconds, nanos)?;
    } else {
        time::check_timestamp(seconds, nanos)?;
    }
    for (field, number) in message.fields().zip([seconds, i64::from(nanos)]) {
        put_unless_default(field, wire::Value::Varint(number as u64), out);
    }
    Ok(())
}

fn first_field(message: Message) -> Field {
    message.fields().next().expect("wrappers, masks, structs and lists have a field")
}

fn object(value: &Value) -> Result<&Map<String, Value>, FieldError> {
    match value {
        Value::Object(object) => Ok(object),
        other => wrong(scalar::expected("an object", other)),
    }
}

fn string<'v>(value: &'v Value, what: &str) -> Result<&'v str, FieldError> {
    match value {
        Value::String(text) => Ok(text),
        other => wrong(scalar::expected(what, other)),
    }
}
