//! Messages as JSON and YAML, by the proto3 JSON mapping, with an Any written as the fields of what it holds beside `@type`.
//!
//! Text goes through a `serde_json::Value` to the wire (`read`) and is decoded as the typed message; printing goes the same way
//! back (`print`). Input takes field names in snake_case and lowerCamelCase and refuses what it does not know, with the
//! path of the field.

pub(crate) mod print;
pub(crate) mod read;
pub(crate) mod scalar;
pub(crate) mod suggest;
pub(crate) mod text;
pub(crate) mod time;
mod yaml;

pub use yaml::yaml_to_value;

use crate::error::{FieldError, wrong};
use crate::pb::google::protobuf::Any;
use crate::tables::Message;
use prost::Name;
use serde_json::Value;

/// How field names are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldNames {
    /// snake_case as in the .proto files, and as Envoy's admin interface prints.
    Proto,
    /// lowerCamelCase as the JSON mapping prefers.
    Json,
}

/// Reads a message from YAML, or from JSON, which is YAML too.
pub fn from_yaml<T: Name + Default>(text: &str) -> Result<T, FieldError> {
    from_value(&yaml_to_value(text)?)
}

/// Reads a message from JSON. A key written twice is refused.
pub fn from_json<T: Name + Default>(text: &str) -> Result<T, FieldError> {
    from_value(&text::parse(text)?)
}

/// The value of a JSON text. A key written twice is refused.
pub fn json_to_value(text: &str) -> Result<Value, FieldError> {
    text::parse(text)
}

/// Reads a message from a JSON value.
pub fn from_value<T: Name + Default>(value: &Value) -> Result<T, FieldError> {
    decode(&encode::<T>(value)?)
}

/// The encoding of the message that a JSON value says: for whom the value's memory is too much to keep while decoding.
pub fn encode<T: Name>(value: &Value) -> Result<Vec<u8>, FieldError> {
    let mut bytes = Vec::new();
    read::message(descriptor::<T>()?, value, 0, &mut bytes)?;
    Ok(bytes)
}

/// Prints a message. Fields that are at their default are left out.
pub fn to_value<T: Name>(message: &T, names: FieldNames) -> Result<Value, FieldError> {
    print::message(descriptor::<T>()?, &message.encode_to_vec(), names, 0)
}

/// Prints what an Any holds, beside its `@type`; `@type` and base64 in `value` if the type is not known.
pub fn any_to_value(any: &Any, names: FieldNames) -> Result<Value, FieldError> {
    to_value(any, names)
}

/// Merges `over` into `base` as protobuf merges: singular fields of `over` win where they are set, messages are merged field by
/// field, lists are appended, map entries are replaced by key. This is what Envoy does with `--config-yaml` and `-c`.
pub fn merge<T: Name + Default>(base: &T, over: &T) -> Result<T, FieldError> {
    // Decoding the concatenation of two encodings is what protobuf defines merging to be.
    let mut bytes = base.encode_to_vec();
    bytes.extend(over.encode_to_vec());
    decode(&bytes)
}

/// [`merge`] for configurations that are not typed yet: objects are merged key by key, lists are appended, anything else is
/// replaced; an Any (an object with `@type`) is replaced as a whole, and null leaves the base as it is.
///
/// Values carry no types, so the two must spell a field alike, and setting another member of a oneof does not unset the
/// first. Where both parse on their own, [`merge`] is exact.
pub fn merge_yaml(base: Value, over: Value) -> Value {
    match (base, over) {
        (base, Value::Null) => base,
        (Value::Object(mut base), Value::Object(over)) => {
            if base.contains_key("@type") || over.contains_key("@type") {
                return Value::Object(over);
            }
            for (key, value) in over {
                let merged = merge_yaml(base.get_mut(&key).map(Value::take).unwrap_or_default(), value);
                base.insert(key, merged);
            }
            Value::Object(base)
        }
        (Value::Array(mut base), Value::Array(over)) => {
            base.extend(over);
            Value::Array(base)
        }
        (_, over) => over,
    }
}

/// The descriptor of `T`.
pub(crate) fn descriptor<T: Name>() -> Result<Message, FieldError> {
    let name = T::full_name();
    match Message::by_name(&name) {
        Some(message) => Ok(message),
        None => wrong(format!("{name} is not among the known message types")),
    }
}

pub(crate) fn decode<T: Name + Default>(bytes: &[u8]) -> Result<T, FieldError> {
    T::decode(bytes).or_else(|error| wrong(format!("not a valid {}: {error}", T::full_name())))
}
