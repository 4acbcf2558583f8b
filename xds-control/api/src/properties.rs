//! Properties that hold for every message type in the tables, on messages made up by the tables' help and on noise.

use crate::json::{FieldNames, print, read, yaml_to_value};
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message, Oneof};
use crate::{canonical, validate, wire};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A source of decisions that yields zeros once it is used up, so that whatever is made from it ends.
struct Entropy<'a> {
    bytes: &'a [u8],
}

impl Entropy<'_> {
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    fn bits(&mut self) -> u64 {
        // Few bits as often as many: small numbers are where encodings differ.
        let shift = u32::from(self.byte() % 64);
        u64::from_le_bytes(std::array::from_fn(|_| self.byte())) >> shift
    }

    fn choose<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[usize::from(self.byte()) % choices.len()]
    }
}

const TEXTS: [&str; 8] = ["", "a", "key", "ä\u{1F600}", "\"quoted\"", "a.b/c", "type.googleapis.com/x", "\0"];

fn all_messages() -> Vec<Message> {
    Message::all().collect()
}

/// The bytes of some valid message of this type: right wire types, valid UTF-8, times in range, one member a oneof.
fn some_message(message: Message, entropy: &mut Entropy<'_>, depth: u32) -> Vec<u8> {
    let mut out = Vec::new();
    match message.well_known() {
        WellKnown::Duration | WellKnown::Timestamp => {
            let seconds = wire::Value::Varint(entropy.bits() % 1_000_000_000);
            let nanos = wire::Value::Varint(entropy.bits() % 1_000_000_000);
            put(message, 1, seconds, &mut out);
            put(message, 2, nanos, &mut out);
        }
        WellKnown::Any => {
            if depth < 20 && entropy.byte() > 100 {
                let all = all_messages();
                let held = *all.get(usize::from(entropy.byte()) * 256 + usize::from(entropy.byte())).unwrap_or(&all[0]);
                wire::put_bytes(1, format!("type.googleapis.com/{}", held.full_name()).as_bytes(), &mut out);
                wire::put_bytes(2, &some_message(held, entropy, depth + 1), &mut out);
            }
        }
        WellKnown::FieldMask => wire::put_bytes(1, entropy.choose(&["a", "foo_bar.b", "x_y"]).as_bytes(), &mut out),
        WellKnown::Value => {
            let member = if depth < 20 { u32::from(entropy.byte() % 6) + 1 } else { 1 };
            put_field(message.field(member).unwrap(), entropy, depth, &mut out);
        }
        _ => some_fields(message, entropy, depth, &mut out),
    }
    out
}

fn some_fields(message: Message, entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    let mut used: Vec<Oneof> = Vec::new();
    for field in message.fields() {
        if entropy.byte() < 150 || depth > 20 {
            continue;
        }
        if let Some(oneof) = field.oneof(message) {
            if used.contains(&oneof) {
                continue;
            }
            used.push(oneof);
        }
        let count = if field.is_repeated() { 1 + entropy.byte() % 3 } else { 1 };
        for _ in 0..count {
            put_field(field, entropy, depth, out);
        }
    }
}

fn put(message: Message, number: u32, value: wire::Value<'_>, out: &mut Vec<u8>) {
    wire::put_key(message.field(number).unwrap(), out);
    wire::put_value(value, out);
}

fn put_field(field: Field, entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    let kind = field.kind();
    wire::put_key(field, out);
    match kind {
        // An entry without a value prints the default, which for a Value is null: not the same as none.
        Kind::Message if field.is_map() => {
            let (key, value) = field.map_entry();
            let mut entry = Vec::new();
            put_field(key, entropy, depth, &mut entry);
            put_field(value, entropy, depth + 1, &mut entry);
            wire::put_value(wire::Value::Bytes(&entry), out);
        }
        Kind::Message => {
            let inner = some_message(field.message(), entropy, depth + 1);
            wire::put_value(wire::Value::Bytes(&inner), out);
        }
        Kind::String => wire::put_value(wire::Value::Bytes(entropy.choose(&TEXTS).as_bytes()), out),
        Kind::Bytes => wire::put_value(wire::Value::Bytes(&entropy.bits().to_le_bytes()), out),
        Kind::Bool => wire::put_value(wire::Value::Varint(u64::from(entropy.byte() % 2)), out),
        Kind::Double => wire::put_value(wire::Value::Fixed64((entropy.bits() as i64 as f64 / 8.0).to_bits()), out),
        Kind::Float => wire::put_value(wire::Value::Fixed32((entropy.bits() as i16 as f32 / 10.0).to_bits()), out),
        Kind::Enum => {
            let numbers: Vec<i32> = field.enumeration().values().map(|(number, _)| number).collect();
            wire::put_value(wire::Value::Varint(*entropy.choose(&numbers) as i64 as u64), out);
        }
        Kind::Int32 => wire::put_value(wire::Value::Varint(entropy.bits() as i32 as i64 as u64), out),
        Kind::Uint32 | Kind::Sint32 => wire::put_value(wire::Value::Varint(u64::from(entropy.bits() as u32)), out),
        kind => wire::put_value(wire::number(kind, entropy.bits()), out),
    }
}

/// Some JSON, with keys and values that mean something to `message` more often than chance would have it.
fn some_json(message: Option<Message>, entropy: &mut Entropy<'_>, depth: u32) -> Value {
    let names: Vec<&str> = message.into_iter().flat_map(Message::fields).map(|field| field.name()).collect();
    match entropy.byte() % 12 {
        0 => Value::Null,
        1 => json!(entropy.byte().is_multiple_of(2)),
        2 => json!(entropy.bits()),
        // Few enough digits that serde_json reads them back exactly.
        3 => json!(entropy.bits() as i32 as f64 / 8.0),
        4 => json!(entropy.choose(&TEXTS)),
        5 => json!(entropy.choose(&[
            "1s",
            "-1.5s",
            "2026-01-01T00:00:00Z",
            "1",
            "NaN",
            "AA==",
            "DEFAULT",
            "true",
            "a.b"
        ])),
        6 | 7 if depth < 10 => (0..entropy.byte() % 4).map(|_| some_json(message, entropy, depth + 1)).collect(),
        _ if depth < 10 => {
            let mut object = Map::new();
            for _ in 0..entropy.byte() % 5 {
                let name = if names.is_empty() { "a" } else { *entropy.choose(&names) };
                let field = message.and_then(|message| message.field_by_name(name));
                let inner = field.filter(|field| field.kind() == Kind::Message).map(Field::message);
                object.insert(name.to_owned(), some_json(inner, entropy, depth + 1));
            }
            if entropy.byte() > 200 {
                let all = all_messages();
                let held = all[usize::from(entropy.byte()) * 5 % all.len()];
                object.insert("@type".to_owned(), json!(format!("a/{}", held.full_name())));
            }
            Value::Object(object)
        }
        _ => json!(0),
    }
}

fn canonical_of(message: Message, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    canonical::write(message, bytes, 0, &mut out).unwrap();
    out
}

fn read_back(message: Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    read::message(message, value, 0, &mut out)
        .unwrap_or_else(|error| panic!("{}: {error}\n{value:#}", message.full_name()));
    out
}

/// Not only the types that chance picks: each one prints, reads and encodes when it is empty and when it is full.
#[test]
fn every_message_round_trips() {
    for message in all_messages() {
        for entropy in [&[][..], &[0xff; 400], &[0xa7; 3000]] {
            let bytes = some_message(message, &mut Entropy { bytes: entropy }, 0);
            let printed = print::message(message, &bytes, FieldNames::Proto, 0).unwrap();
            assert_eq!(
                canonical_of(message, &read_back(message, &printed)),
                canonical_of(message, &bytes),
                "{}",
                message.full_name()
            );
        }
    }
}

fn a_message() -> impl Strategy<Value = Message> {
    let all = all_messages();
    (0..all.len()).prop_map(move |index| all[index])
}

fn some_entropy() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_as_the_same(message in a_message(), entropy in some_entropy()) {
        let bytes = some_message(message, &mut Entropy { bytes: &entropy }, 0);
        let expected = canonical_of(message, &bytes);
        for names in [FieldNames::Proto, FieldNames::Json] {
            let printed = print::message(message, &bytes, names, 0).unwrap();
            prop_assert_eq!(&canonical_of(message, &read_back(message, &printed)), &expected);
        }
    }

    #[test]
    fn the_canonical_form_is_its_own_and_prints_alike(message in a_message(), entropy in some_entropy()) {
        let bytes = some_message(message, &mut Entropy { bytes: &entropy }, 0);
        let canonical = canonical_of(message, &bytes);
        prop_assert_eq!(&canonical_of(message, &canonical), &canonical);
        let printed = |bytes: &[u8]| print::message(message, bytes, FieldNames::Proto, 0).unwrap();
        prop_assert_eq!(printed(&canonical), printed(&bytes));
    }

    #[test]
    fn what_is_read_prints(message in a_message(), entropy in some_entropy()) {
        let value = some_json(Some(message), &mut Entropy { bytes: &entropy }, 0);
        let mut bytes = Vec::new();
        if read::message(message, &value, 0, &mut bytes).is_ok() {
            let printed = print::message(message, &bytes, FieldNames::Json, 0).unwrap();
            prop_assert_eq!(canonical_of(message, &read_back(message, &printed)), canonical_of(message, &bytes));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(message in a_message(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        // Errors are as good as results here; a panic is what must not be.
        let _ = print::message(message, &noise, FieldNames::Proto, 0);
        let _ = validate::check_message(message, &noise, 0);
        let _ = canonical::write(message, &noise, 0, &mut Vec::new());
    }

    #[test]
    fn no_cut_or_changed_message_makes_it_panic(message in a_message(), entropy in some_entropy(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = some_message(message, &mut Entropy { bytes: &entropy }, 0);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = validate::check_message(message, &bytes, 0);
            let _ = print::message(message, &bytes, FieldNames::Proto, 0);
            let _ = canonical::write(message, &bytes[..at], 0, &mut Vec::new());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-\\[\\]{}:,&*!|>'\"#%@` \n\ta-c0-9.~<]{0,60}") {
        let _ = yaml_to_value(&text);
        let _ = crate::json::text::parse(&text);
    }

    #[test]
    fn json_read_as_yaml_is_the_same(entropy in some_entropy()) {
        let value = some_json(None, &mut Entropy { bytes: &entropy }, 0);
        let text = value.to_string();
        prop_assert_eq!(&crate::json::text::parse(&text).unwrap(), &value);
        prop_assert_eq!(&yaml_to_value(&text).unwrap(), &value);
    }
}
