//! One encoding for equal messages, and hashes of it: what versions of resources are made of.
//!
//! Protobuf leaves the order of map entries and of fields open, and prost keeps maps in hash maps, so the bytes of one message
//! differ from run to run. Here fields come by number, map entries by key, integers in their shortest form, defaults are left
//! out, and what an Any holds is treated the same way. Fields that the tables do not know are kept, after the others. The
//! result decodes to the message that it came from.

use crate::error::FieldError;
use crate::json::scalar;
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message};
use crate::wire::{self, DEPTH_MAX, Value};
use prost::Name;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The bytes of `message`, the same for equal messages whatever order their maps are in.
pub fn encode<T: Name>(message: &T) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    // A type that the tables do not have is no configuration, and one nested too deep is refused by every peer: for them
    // prost's encoding, which is deterministic but for maps, has to do.
    let Some(descriptor) = Message::by_name(&T::full_name()) else { return bytes };
    let mut out = Vec::with_capacity(bytes.len());
    match write(descriptor, &bytes, 0, &mut out) {
        Ok(()) => out,
        Err(_) => bytes,
    }
}

/// A hash of [`encode`]'s bytes.
pub fn hash<T: Name>(message: &T) -> u64 {
    xxh3_64(&encode(message))
}

/// A version for a set of resources, given by name and content hash; their order does not matter.
pub fn version<'a>(items: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_unstable();
    let mut all = Xxh3::new();
    for (name, hash) in items {
        all.update(&(name.len() as u64).to_le_bytes());
        all.update(name.as_bytes());
        all.update(&hash.to_le_bytes());
    }
    format!("{:016x}", all.digest())
}

/// Appends the canonical form of `bytes` read as a `message`. `depth` is the number of messages around it.
pub(crate) fn write(message: Message, bytes: &[u8], depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if depth > DEPTH_MAX {
        return Err(FieldError::new("", "nested too deep"));
    }
    if message.well_known() == WellKnown::Any {
        return write_any(message, bytes, depth, out);
    }
    let mut unknown = Vec::new();
    let entries = wire::entries_and_unknown(message, bytes, |number, value| unknown.push((number, value)))?;
    for (field, run) in wire::by_field(&entries) {
        if field.is_map() {
            write_map(field, run, depth, out)?;
        } else if field.is_repeated() {
            write_list(field, run, depth, out)?;
        } else if field.kind() == Kind::Message {
            wire::put_key(field, out);
            wire::put_delimited(out, |out| write(field.message(), &wire::merged(run), depth + 1, out))?;
        } else {
            let value = normal(field.kind(), wire::last(run));
            if field.has_presence() || !wire::is_default(value) {
                wire::put_key(field, out);
                wire::put_value(value, out);
            }
        }
    }
    unknown.sort_by_key(|(number, _)| *number);
    for (number, value) in unknown {
        wire::put_unknown(number, value, out);
    }
    Ok(())
}

fn write_list(field: Field, run: &[wire::Entry<'_>], depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let values = wire::items(run)?;
    if field.is_packed() && !values.is_empty() {
        wire::put_delimited_key(field.number(), out);
        return wire::put_delimited(out, |out| {
            values.iter().for_each(|value| wire::put_value(normal(field.kind(), *value), out));
            Ok(())
        });
    }
    for value in values {
        wire::put_key(field, out);
        match field.kind() {
            Kind::Message => wire::put_delimited(out, |out| write(field.message(), value.bytes(), depth + 1, out))?,
            kind => wire::put_value(normal(kind, value), out),
        }
    }
    Ok(())
}

/// Entries sorted by key, each with its key and value written out even if they are defaults.
fn write_map(field: Field, run: &[wire::Entry<'_>], depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let (key_field, value_field) = field.map_entry();
    let mut pairs = Vec::with_capacity(run.len());
    for entry in run {
        let (key, value) = wire::map_pair(field, entry)?;
        pairs.push((normal(key_field.kind(), key), value));
    }
    pairs.sort_by(|(left, _), (right, _)| compare_keys(key_field.kind(), *left, *right));
    for (index, (key, value)) in pairs.iter().enumerate() {
        // The sort is stable: of equal keys the last one on the wire counts, as it does for a decoder.
        if pairs.get(index + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        wire::put_key(field, out);
        wire::put_delimited(out, |out| {
            wire::put_key(key_field, out);
            wire::put_value(*key, out);
            wire::put_key(value_field, out);
            match value_field.kind() {
                Kind::Message => {
                    wire::put_delimited(out, |out| write(value_field.message(), value.bytes(), depth + 2, out))
                }
                kind => {
                    wire::put_value(normal(kind, *value), out);
                    Ok(())
                }
            }
        })?;
    }
    Ok(())
}

fn compare_keys(kind: Kind, left: Value<'_>, right: Value<'_>) -> std::cmp::Ordering {
    match kind {
        Kind::String => left.bytes().cmp(right.bytes()),
        kind => scalar::integer(kind, left.bits()).cmp(&scalar::integer(kind, right.bits())),
    }
}

/// An Any whose payload is not of a known type, or does not decode as it, keeps its bytes.
fn write_any(any: Message, bytes: &[u8], depth: u32, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let (type_url, payload) = wire::any_parts(any, bytes)?;
    let held = type_url.rsplit_once('/').and_then(|(_, name)| Message::by_name(name));
    let mut canonical = Vec::with_capacity(payload.len());
    let payload = match held.map(|held| write(held, payload, depth + 1, &mut canonical)) {
        Some(Ok(())) => &canonical,
        Some(Err(_)) | None => payload,
    };
    for (field, part) in any.fields().zip([type_url.as_bytes(), payload]) {
        if !part.is_empty() {
            wire::put_bytes(field.number(), part, out);
        }
    }
    Ok(())
}

/// A number as the standard encoders write it: sign-extended, without excess bits, booleans 0 or 1.
fn normal(kind: Kind, value: Value<'_>) -> Value<'_> {
    match (kind, value) {
        (Kind::Bool, Value::Varint(bits)) => Value::Varint(u64::from(bits != 0)),
        (Kind::Int32 | Kind::Enum, Value::Varint(bits)) => Value::Varint(bits as i32 as i64 as u64),
        (Kind::Uint32 | Kind::Sint32, Value::Varint(bits)) => Value::Varint(u64::from(bits as u32)),
        (_, value) => value,
    }
}
