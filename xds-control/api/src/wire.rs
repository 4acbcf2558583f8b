//! Protobuf's wire format: reading a message's bytes as entries grouped by field, and writing them.
//!
//! Every walk over bytes (printing, validation, the canonical form) starts here, so what counts as malformed is decided once:
//! a truncated value, a varint of more than ten bytes, field number 0, a group, or a wire type that does not fit the field.

use crate::error::{FieldError, wrong};
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message, Oneof};
use smallvec::SmallVec;

/// Nested messages, as protobuf bounds them. An Any's payload counts as nested, and so does a map entry.
pub(crate) const DEPTH_MAX: u32 = 100;

/// One value on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// One known field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) field: Field,
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
}

/// The entries of one message, by field number and then in the order of the wire.
pub(crate) type Entries<'a> = SmallVec<[Entry<'a>; 8]>;

/// The known fields in `bytes`. Unknown ones are passed over, as Envoy does: a newer peer may send them. Of the members of a
/// oneof only the last one on the wire is left, as every protobuf decoder has it.
pub(crate) fn entries(message: Message, bytes: &[u8]) -> Result<Entries<'_>, FieldError> {
    entries_and_unknown(message, bytes, |_, _| {})
}

/// [`entries`], with each field that the tables do not know handed to `unknown`.
pub(crate) fn entries_and_unknown<'a>(
    message: Message,
    bytes: &'a [u8],
    mut unknown: impl FnMut(u32, Value<'a>),
) -> Result<Entries<'a>, FieldError> {
    let mut entries = Entries::new();
    let mut chosen: SmallVec<[(Oneof, Field); 4]> = SmallVec::new();
    let mut rest = bytes;
    let (mut ordered, mut overridden, mut last) = (true, false, 0);
    while !rest.is_empty() {
        let (number, value) = take(&mut rest)?;
        let Some(field) = message.field(number) else {
            unknown(number, value);
            continue;
        };
        if !fits(field, value) {
            return Err(FieldError::new(field.name(), "wire type does not fit the field"));
        }
        if let Some(oneof) = field.oneof(message) {
            match chosen.iter_mut().find(|(known, _)| *known == oneof) {
                Some((_, member)) => overridden |= std::mem::replace(member, field) != field,
                None => chosen.push((oneof, field)),
            }
        }
        ordered &= last <= number;
        last = number;
        entries.push(Entry { field, number, value });
    }
    if overridden {
        entries.retain(|entry| entry.field.oneof(message).is_none_or(|oneof| chosen.contains(&(oneof, entry.field))));
    }
    if !ordered {
        entries.sort_by_key(|entry| entry.number);
    }
    Ok(entries)
}

/// Splits entries into one run a field.
pub(crate) fn by_field<'e, 'a>(entries: &'e [Entry<'a>]) -> impl Iterator<Item = (Field, &'e [Entry<'a>])> {
    entries.chunk_by(|left, right| left.number == right.number).map(|run| (run[0].field, run))
}

/// The value of a singular field: the last one wins.
pub(crate) fn last<'a>(run: &[Entry<'a>]) -> Value<'a> {
    run.last().expect("chunk_by yields no empty run").value
}

/// The bytes of a singular message field. Should it occur more than once, protobuf merges, which is what the
/// concatenation of the bytes decodes to.
pub(crate) fn merged<'a>(run: &[Entry<'a>]) -> std::borrow::Cow<'a, [u8]> {
    match run {
        [Entry { value: Value::Bytes(bytes), .. }] => (*bytes).into(),
        run => run.iter().flat_map(|entry| entry.value.bytes()).copied().collect::<Vec<u8>>().into(),
    }
}

impl<'a> Value<'a> {
    /// The payload of a length-delimited value; nothing for the others.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => &[],
        }
    }

    /// The bits of a number; zero for a length-delimited value.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Value::Varint(bits) | Value::Fixed64(bits) => bits,
            Value::Fixed32(bits) => u64::from(bits),
            Value::Bytes(_) => 0,
        }
    }
}

/// The items of a list, whose entries on the wire may hold one each or several packed.
pub(crate) fn items<'a>(run: &[Entry<'a>]) -> Result<SmallVec<[Value<'a>; 8]>, FieldError> {
    let mut items = SmallVec::with_capacity(run.len());
    for entry in run {
        match (wire_type(entry.field.kind()), entry.value) {
            (2, value) => items.push(value),
            (wire_type, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    items.push(take_value(wire_type, &mut packed)?);
                }
            }
            (_, value) => items.push(value),
        }
    }
    Ok(items)
}

/// The key and value of one entry of a map; the default where it has none.
pub(crate) fn map_pair<'a>(map: Field, entry: &Entry<'a>) -> Result<(Value<'a>, Value<'a>), FieldError> {
    let (key_field, value_field) = map.map_entry();
    let mut pair = (default(key_field.kind()), default(value_field.kind()));
    for part in entries(map.message(), entry.value.bytes())? {
        if part.field == key_field {
            pair.0 = part.value;
        } else {
            pair.1 = part.value;
        }
    }
    Ok(pair)
}

/// The default of a kind: zero or empty.
pub(crate) fn default(kind: Kind) -> Value<'static> {
    match wire_type(kind) {
        2 => Value::Bytes(&[]),
        _ => number(kind, 0),
    }
}

fn fits(field: Field, value: Value<'_>) -> bool {
    let expected = wire_type(field.kind());
    match value {
        Value::Varint(_) => expected == 0,
        Value::Fixed64(_) => expected == 1,
        Value::Fixed32(_) => expected == 5,
        Value::Bytes(_) => expected == 2 || field.is_repeated(),
    }
}

fn wire_type(kind: Kind) -> u8 {
    match kind {
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum => 0,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::String | Kind::Bytes | Kind::Message => 2,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
    }
}

/// The next field number and value.
fn take<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), FieldError> {
    let key = take_varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
    let Some(number) = number else { return wrong("malformed message: field number out of range") };
    Ok((number, take_value((key & 7) as u8, rest)?))
}

fn take_value<'a>(wire_type: u8, rest: &mut &'a [u8]) -> Result<Value<'a>, FieldError> {
    match wire_type {
        0 => take_varint(rest).map(Value::Varint),
        1 => take_array(rest).map(|bytes| Value::Fixed64(u64::from_le_bytes(bytes))),
        2 => {
            let length = take_varint(rest)?;
            match usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) {
                Some((value, after)) => {
                    *rest = after;
                    Ok(Value::Bytes(value))
                }
                None => wrong("malformed message: truncated"),
            }
        }
        5 => take_array(rest).map(|bytes| Value::Fixed32(u32::from_le_bytes(bytes))),
        3 | 4 => wrong("malformed message: groups are not part of proto3"),
        _ => wrong("malformed message: unknown wire type"),
    }
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FieldError> {
    match rest.split_first_chunk::<N>() {
        Some((value, after)) => {
            *rest = after;
            Ok(*value)
        }
        None => wrong("malformed message: truncated"),
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, FieldError> {
    let mut value = 0u64;
    for (index, byte) in rest.iter().take(10).enumerate() {
        // The tenth byte has room for the top bit only.
        if index == 9 && *byte > 1 {
            return wrong("malformed message: varint too long");
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    wrong("malformed message: truncated varint")
}

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_key(field: Field, out: &mut Vec<u8>) {
    put_varint(u64::from(field.number()) << 3 | u64::from(wire_type(field.kind())), out);
}

/// The key of a length-delimited field, whatever its kind: a packed list, or a field known by number only.
pub(crate) fn put_delimited_key(number: u32, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
}

pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_delimited_key(number, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Varint(bits) => put_varint(bits, out),
        Value::Fixed64(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Fixed32(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Bytes(bytes) => {
            put_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    }
}

/// A field that the tables do not know, as it came.
pub(crate) fn put_unknown(number: u32, value: Value<'_>, out: &mut Vec<u8>) {
    let wire_type = match value {
        Value::Varint(_) => 0,
        Value::Fixed64(_) => 1,
        Value::Bytes(_) => 2,
        Value::Fixed32(_) => 5,
    };
    put_varint(u64::from(number) << 3 | wire_type, out);
    put_value(value, out);
}

/// Writes what `write` appends as a length-delimited value: its length is put before it once it is known.
pub(crate) fn put_delimited<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    write(out)?;
    let end = out.len();
    put_varint((end - start) as u64, out);
    let length_bytes = out.len() - end;
    out[start..].rotate_right(length_bytes);
    Ok(())
}

/// The wire form of a field that holds the given number.
pub(crate) fn number(kind: Kind, bits: u64) -> Value<'static> {
    match wire_type(kind) {
        1 => Value::Fixed64(bits),
        5 => Value::Fixed32(bits as u32),
        _ => Value::Varint(bits),
    }
}

/// Whether a value is the default of its kind, which proto3 does not write where presence does not matter.
pub(crate) fn is_default(value: Value<'_>) -> bool {
    match value {
        Value::Bytes(bytes) => bytes.is_empty(),
        number => number.bits() == 0,
    }
}

/// The type URL and payload of an Any, whose descriptor is `any`.
pub(crate) fn any_parts(any: Message, bytes: &[u8]) -> Result<(&str, &[u8]), FieldError> {
    debug_assert_eq!(any.well_known(), WellKnown::Any);
    let entries = entries(any, bytes)?;
    let mut parts: (&str, &[u8]) = ("", &[]);
    for entry in &entries {
        match entry.number {
            1 => parts.0 = text(entry.value.bytes())?,
            _ => parts.1 = entry.value.bytes(),
        }
    }
    Ok(parts)
}

/// The seconds and nanoseconds of a Duration or Timestamp.
pub(crate) fn time_parts(message: Message, bytes: &[u8]) -> Result<(i64, i32), FieldError> {
    debug_assert!(matches!(message.well_known(), WellKnown::Duration | WellKnown::Timestamp));
    let (mut seconds, mut nanos) = (0, 0);
    for entry in entries(message, bytes)? {
        match entry.number {
            1 => seconds = entry.value.bits() as i64,
            _ => nanos = entry.value.bits() as i32,
        }
    }
    Ok((seconds, nanos))
}

/// The text of a string field.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, FieldError> {
    std::str::from_utf8(bytes).or_else(|_| wrong("not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> Message {
        Message::by_name(name).unwrap()
    }

    fn reason(name: &str, bytes: &[u8]) -> String {
        entries(message(name), bytes).unwrap_err().to_string()
    }

    const ADDRESS: &str = "envoy.config.core.v3.SocketAddress";

    #[test]
    fn groups_values_by_field_in_their_order() {
        let bytes = [0x22, 1, b'n', 0x12, 1, b'a', 0x12, 1, b'b', 0x08, 1];
        let entries = entries(message(ADDRESS), &bytes).unwrap();
        let runs: Vec<_> = by_field(&entries).map(|(field, run)| (field.name(), run.len(), last(run))).collect();
        let expected = [
            ("protocol", 1, Value::Varint(1)),
            ("address", 2, Value::Bytes(b"b")),
            ("named_port", 1, Value::Bytes(b"n")),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn the_last_member_of_a_oneof_counts() {
        let port_then_name = [0x18, 80, 0x22, 1, b'n'];
        let name_then_port = [0x22, 1, b'n', 0x18, 80];
        let left = |bytes: &[u8]| {
            entries(message(ADDRESS), bytes).unwrap().iter().map(|entry| entry.number).collect::<Vec<_>>()
        };
        assert_eq!(left(&port_then_name), [4]);
        assert_eq!(left(&name_then_port), [3]);
        assert_eq!(left(&[port_then_name, name_then_port].concat()), [3, 3], "the same member again stays");
    }

    #[test]
    fn a_message_in_parts_is_merged() {
        let any_field = [0x12, 2, 0x10, 1, 0x12, 2, 0x18, 2]; // Metadata-like: field 2 twice
        let percent = message("envoy.config.core.v3.RuntimeFractionalPercent");
        let bytes: Vec<u8> = any_field.iter().map(|byte| if *byte == 0x12 { 0x0a } else { *byte }).collect();
        let entries = entries(percent, &bytes).unwrap();
        let (_, run) = by_field(&entries).next().unwrap();
        assert_eq!(merged(run).as_ref(), [0x10, 1, 0x18, 2]);
    }

    #[test]
    fn packed_lists_unpack_whatever_the_descriptor_says() {
        let policy = message("envoy.config.route.v3.RetryPolicy");
        for bytes in [&[0x3a, 3, 1, 0xf7, 0x03][..], &[0x38, 1, 0x38, 0xf7, 0x03]] {
            let entries = entries(policy, bytes).unwrap();
            assert_eq!(items(&entries).unwrap().as_slice(), [Value::Varint(1), Value::Varint(503)]);
        }
        let truncated = entries(policy, &[0x3a, 1, 0x80]).unwrap();
        assert!(items(&truncated).is_err());
    }

    #[test]
    fn unknown_fields_are_passed_over_and_can_be_had() {
        let bytes = [0xc2, 0xbb, 0x01, 1, b'x', 0x12, 1, b'a', 0xc0, 0xbb, 0x01, 7];
        let mut unknown = Vec::new();
        let entries =
            entries_and_unknown(message(ADDRESS), &bytes, |number, value| unknown.push((number, value))).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(unknown, [(3000, Value::Bytes(b"x")), (3000, Value::Varint(7))]);
        let mut out = Vec::new();
        unknown.iter().for_each(|(number, value)| put_unknown(*number, *value, &mut out));
        assert_eq!(out, [&bytes[..5], &bytes[8..]].concat());
    }

    #[test]
    fn malformed_bytes_are_refused() {
        assert_eq!(reason(ADDRESS, &[0x12, 5, b'a']), "malformed message: truncated");
        assert_eq!(reason(ADDRESS, &[0x80]), "malformed message: truncated varint");
        assert_eq!(reason(ADDRESS, &[0xff; 11]), "malformed message: varint too long");
        assert_eq!(reason(ADDRESS, &[0x00, 1]), "malformed message: field number out of range");
        assert_eq!(reason(ADDRESS, &[0x13]), "malformed message: groups are not part of proto3");
        assert_eq!(reason(ADDRESS, &[0x17]), "malformed message: unknown wire type");
        assert_eq!(reason(ADDRESS, &[0x10, 1]), "address: wire type does not fit the field");
        assert_eq!(
            reason(ADDRESS, &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            "malformed message: truncated"
        );
    }

    #[test]
    fn varints_and_lengths_write_and_read() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(number, &mut bytes);
            assert_eq!(take_varint(&mut bytes.as_slice()).unwrap(), number);
        }
        for length in [0, 1, 127, 128, 20_000] {
            let mut bytes = vec![9];
            put_delimited(&mut bytes, |out| {
                out.extend(std::iter::repeat_n(7, length));
                Ok::<(), FieldError>(())
            })
            .unwrap();
            let Value::Bytes(inner) = take_value(2, &mut &bytes[1..]).unwrap() else { panic!("wire type 2 is bytes") };
            assert_eq!(inner, vec![7; length]);
        }
    }
}
