//! The wire to JSON: a message's bytes become a `serde_json::Value`, by the proto3 JSON mapping.
//!
//! Invariants: fields come in the order of their numbers and map entries in the order of their keys, so equal messages print
//! equally. An Any whose type is unknown, or whose payload does not decode, prints as `@type` and base64 in `value`: one
//! strange extension does not cost the whole dump.

use super::{FieldNames, scalar, time};
use crate::error::{At, FieldError, wrong};
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message};
use crate::wire::{self, DEPTH_MAX};
use base64::Engine;
use serde_json::{Map, Value};

/// The JSON of `bytes` read as a `message`. `depth` is the number of messages around it.
pub(crate) fn message(message: Message, bytes: &[u8], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    if depth > DEPTH_MAX {
        return wrong(format!("nested deeper than {DEPTH_MAX} messages"));
    }
    match message.well_known() {
        WellKnown::None => fields(message, bytes, names, depth).map(Value::Object),
        WellKnown::Any => any(message, bytes, names, depth),
        WellKnown::Wrapper => wrapped(message, bytes),
        WellKnown::Duration => wire::time_parts(message, bytes)
            .and_then(|(seconds, nanos)| time::print_duration(seconds, nanos))
            .map(Value::from),
        WellKnown::Timestamp => wire::time_parts(message, bytes)
            .and_then(|(seconds, nanos)| time::print_timestamp(seconds, nanos))
            .map(Value::from),
        WellKnown::FieldMask => field_mask(message, bytes).map(Value::from),
        WellKnown::Struct | WellKnown::ListValue => only_field(message, bytes, names, depth),
        WellKnown::Value => any_json(message, bytes, names, depth),
    }
}

fn fields(message: Message, bytes: &[u8], names: FieldNames, depth: u32) -> Result<Map<String, Value>, FieldError> {
    let entries = wire::entries(message, bytes)?;
    let mut object = Map::new();
    for (field, run) in wire::by_field(&entries) {
        let value = if field.is_map() {
            map(field, field.name(), run, names, depth)?
        } else if field.is_repeated() {
            list(field, field.name(), run, names, depth)?
        } else {
            if field.kind() != Kind::Message && !field.has_presence() && wire::is_default(wire::last(run)) {
                continue;
            }
            singular(field, run, names, depth).at(field.name())?
        };
        let name = match names {
            FieldNames::Proto => field.name(),
            FieldNames::Json => field.json_name(),
        };
        object.insert(name.to_owned(), value);
    }
    Ok(object)
}

fn singular(field: Field, run: &[wire::Entry<'_>], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    match field.kind() {
        Kind::Message => message(field.message(), &wire::merged(run), names, depth + 1),
        _ => scalar::to_json(field, wire::last(run)),
    }
}

fn list(field: Field, name: &str, run: &[wire::Entry<'_>], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    let values = wire::items(run).at(name)?;
    let items = values.into_iter().enumerate();
    items.map(|(index, value)| item(field, value, names, depth).at_index(name, index)).collect()
}

fn map(field: Field, name: &str, run: &[wire::Entry<'_>], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    let (key_field, value_field) = field.map_entry();
    let mut pairs: Vec<(String, Value)> = Vec::with_capacity(run.len());
    for entry in run {
        let (key, value) = wire::map_pair(field, entry).at(name)?;
        let key = scalar::key_to_text(key_field, key).at(name)?;
        let value = item(value_field, value, names, depth + 1);
        pairs.push((key.clone(), value.at_key(name, &key)?));
    }
    pairs.sort_by(|(left, _), (right, _)| left.cmp(right)); // stable: of equal keys the last one on the wire wins
    Ok(Value::Object(pairs.into_iter().collect()))
}

/// One value: an item of a list or the value of a map entry.
fn item(field: Field, value: wire::Value<'_>, names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    match field.kind() {
        Kind::Message => message(field.message(), value.bytes(), names, depth + 1),
        _ => scalar::to_json(field, value),
    }
}

fn any(any: Message, bytes: &[u8], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    let (type_url, payload) = wire::any_parts(any, bytes)?;
    if type_url.is_empty() && payload.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut object = Map::new();
    object.insert("@type".to_owned(), Value::from(type_url));
    let held = type_url.rsplit_once('/').and_then(|(_, name)| Message::by_name(name));
    match held.map(|held| (held.well_known(), message(held, payload, names, depth + 1))) {
        Some((WellKnown::None, Ok(Value::Object(fields)))) => object.extend(fields),
        Some((_, Ok(value))) => {
            object.insert("value".to_owned(), value);
        }
        Some((_, Err(_))) | None => {
            object.insert("value".to_owned(), Value::from(base64::engine::general_purpose::STANDARD.encode(payload)));
        }
    }
    Ok(Value::Object(object))
}

fn wrapped(message: Message, bytes: &[u8]) -> Result<Value, FieldError> {
    let entries = wire::entries(message, bytes)?;
    let field = message.fields().next().expect("a wrapper has the field value");
    scalar::to_json(field, entries.last().map_or_else(|| wire::default(field.kind()), |entry| entry.value))
}

fn field_mask(message: Message, bytes: &[u8]) -> Result<String, FieldError> {
    let mut paths = Vec::new();
    for entry in wire::entries(message, bytes)? {
        let path = wire::text(entry.value.bytes())?;
        let mut camel = String::with_capacity(path.len());
        let mut chars = path.chars();
        while let Some(c) = chars.next() {
            match c {
                '_' => match chars.next() {
                    Some(next) if next.is_ascii_lowercase() => camel.push(next.to_ascii_uppercase()),
                    _ => return wrong(format!("field path {path:?} has no JSON form")),
                },
                c if c.is_ascii_uppercase() => return wrong(format!("field path {path:?} has no JSON form")),
                c => camel.push(c),
            }
        }
        paths.push(camel);
    }
    Ok(paths.join(","))
}

/// Struct and ListValue: what their only field holds, or empty.
fn only_field(message: Message, bytes: &[u8], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    let entries = wire::entries(message, bytes)?;
    let field = message.fields().next().expect("a struct or list has a field");
    if field.is_map() {
        return map(field, "", &entries, names, depth);
    }
    list(field, "", &entries, names, depth)
}

fn any_json(message: Message, bytes: &[u8], names: FieldNames, depth: u32) -> Result<Value, FieldError> {
    let entries = wire::entries(message, bytes)?;
    match wire::by_field(&entries).next() {
        None => Ok(Value::Null),
        Some((field, run)) => singular(field, run, names, depth),
    }
}
