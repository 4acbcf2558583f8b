//! Fields that this version does not know: dropped from JSON where that is asked for, found in messages where these are to be
//! refused.

use prost::Name;
use serde_json::Value;

use crate::error::{At, FieldError, wrong};
use crate::json::descriptor;
use crate::tables::layout::{Kind, WellKnown};
use crate::tables::{Field, Message};
use crate::wire::{self, DEPTH_MAX};

/// Takes out of `value`, which is to be read as a `T`, every key that names no field. Gives their paths.
pub fn drop_unknown_fields<T: Name>(value: &mut Value) -> Result<Vec<String>, FieldError> {
    let mut dropped = Vec::new();
    drop_from(descriptor::<T>()?, value, "", 0, &mut dropped);
    Ok(dropped)
}

fn drop_from(message: Message, value: &mut Value, path: &str, depth: u32, dropped: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    if depth > DEPTH_MAX {
        return; // reading it refuses it
    }
    let message = match message.well_known() {
        WellKnown::None => message,
        WellKnown::Any => match object.get("@type").and_then(Value::as_str).and_then(held_by) {
            Some(held) if held.well_known() == WellKnown::None => held,
            _ => return,
        },
        _ => return,
    };
    object.retain(|key, value| {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match message.field_by_name(key) {
            Some(field) => drop_from_field(field, value, &place, depth, dropped),
            None if key == "@type" => {}
            None => {
                dropped.push(place);
                return false;
            }
        }
        true
    });
}

fn drop_from_field(field: Field, value: &mut Value, path: &str, depth: u32, dropped: &mut Vec<String>) {
    if field.is_map() {
        let (_, held) = field.map_entry();
        if let (Kind::Message, Value::Object(entries)) = (held.kind(), value) {
            for (key, value) in entries {
                drop_from(held.message(), value, &format!("{path}[{key:?}]"), depth + 1, dropped);
            }
        }
    } else if field.kind() == Kind::Message {
        match value {
            Value::Array(items) if field.is_repeated() => {
                for (index, value) in items.iter_mut().enumerate() {
                    drop_from(field.message(), value, &format!("{path}[{index}]"), depth + 1, dropped);
                }
            }
            value => drop_from(field.message(), value, path, depth + 1, dropped),
        }
    }
}

fn held_by(type_url: &str) -> Option<Message> {
    Message::by_name(type_url.rsplit_once('/').map_or(type_url, |(_, name)| name))
}

/// Refuses the bytes of a `T` that hold a field which is not known, at any depth and in what an Any holds.
pub fn refuse_unknown_fields<T: Name>(bytes: &[u8]) -> Result<(), FieldError> {
    refuse_in(descriptor::<T>()?, bytes, 0)
}

fn refuse_in(message: Message, bytes: &[u8], depth: u32) -> Result<(), FieldError> {
    if depth > DEPTH_MAX {
        return wrong(format!("nested deeper than {DEPTH_MAX} messages"));
    }
    if message.well_known() == WellKnown::Any {
        let (type_url, held) = wire::any_parts(message, bytes)?;
        return match held_by(type_url) {
            Some(message) => refuse_in(message, held, depth + 1),
            None => Ok(()), // a type that is not known is refused, or not, by who would use it
        };
    }
    let mut unknown = None;
    let entries = wire::entries_and_unknown(message, bytes, |number, _| unknown = unknown.or(Some(number)))?;
    if let Some(number) = unknown {
        let name = message.full_name();
        return wrong(format!("Protobuf message (type {name} with unknown field set {{{number}}}) has unknown fields"));
    }
    for (field, run) in wire::by_field(&entries) {
        for (index, entry) in run.iter().enumerate() {
            let checked = if field.is_map() {
                let (_, held) = field.map_entry();
                match held.kind() {
                    Kind::Message => refuse_in(held.message(), wire::map_pair(field, entry)?.1.bytes(), depth + 1),
                    _ => Ok(()),
                }
            } else if field.kind() == Kind::Message {
                refuse_in(field.message(), entry.value.bytes(), depth + 1)
            } else {
                Ok(())
            };
            match field.is_repeated() || field.is_map() {
                true => checked.at_index(field.name(), index)?,
                false => checked.at(field.name())?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::json;
    use crate::pb::envoy::config::{bootstrap::v3::Bootstrap, cluster::v3::Cluster};

    #[test]
    fn unknown_keys_are_dropped_wherever_they_stand() {
        let mut value = json!({
            "bogus": 1,
            "node": {"id": "a", "metadata": {"any": {"thing": 1}}},
            "static_resources": {"clusters": [{
                "name": "c", "other": {},
                "typed_extension_protocol_options": {"x": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http_protocol_options": {"new": true}},
                }},
            }]},
        });
        let dropped = drop_unknown_fields::<Bootstrap>(&mut value).expect("a known message");
        assert_eq!(
            dropped,
            [
                "bogus",
                "static_resources.clusters[0].other",
                "static_resources.clusters[0].typed_extension_protocol_options[\"x\"].explicit_http_config.\
                 http_protocol_options.new"
            ]
        );
        let read: Bootstrap = json::from_value(&value).expect("a bootstrap");
        assert_eq!(read.node.expect("a node").id, "a");
    }

    #[test]
    fn unknown_fields_on_the_wire_are_found() {
        let cluster = |extra: &[u8]| {
            let mut bytes = Cluster { name: "c".to_owned(), ..Default::default() }.encode_to_vec();
            bytes.extend_from_slice(extra);
            refuse_unknown_fields::<Cluster>(&bytes)
        };
        cluster(&[]).expect("all known");
        // Field 9999, a varint.
        let error = cluster(&[0xf8, 0xf0, 0x04, 0x01]).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "Protobuf message (type envoy.config.cluster.v3.Cluster with unknown field set {9999}) has unknown fields"
        );
        // The same inside of `connect_timeout` (4).
        let error = cluster(&[0x22, 0x04, 0xf8, 0xf0, 0x04, 0x01]).expect_err("unknown");
        assert!(error.path() == "connect_timeout" && error.reason().contains("google.protobuf.Duration"), "{error}");
    }
}
