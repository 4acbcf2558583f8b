//! `envoy.config.core.v3.Metadata`: what a configuration says about a host or a route beyond its own fields, by
//! namespace, as values that can be compared and hashed.

use std::{collections::BTreeMap, sync::Arc};

use weft_xds::pb::{
    envoy::config::core::v3::Metadata as ProtoMetadata,
    google::protobuf::{ListValue, Struct, Value as ProtoValue, value::Kind},
};

/// What load balancing reads: of a host, what subsets go by; of a route, what it asks of a host.
pub const LB_NAMESPACE: &str = "envoy.lb";
/// Which of `transport_socket_matches` a host takes.
pub const TRANSPORT_SOCKET_MATCH_NAMESPACE: &str = "envoy.transport_socket_match";

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata(BTreeMap<Arc<str>, Fields>);

pub type Fields = BTreeMap<Arc<str>, Value>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Null,
    Bool(bool),
    /// The bits of the number, so that it can be hashed; zero has one form.
    Number(u64),
    Text(Arc<str>),
    List(Vec<Value>),
    Struct(Fields),
}

impl Metadata {
    pub(crate) fn from_proto(message: ProtoMetadata) -> Self {
        let ProtoMetadata {
            filter_metadata,
            typed_filter_metadata: _, // for extensions' eyes, and none reads it
        } = message;
        Self(filter_metadata.into_iter().map(|(namespace, fields)| (namespace.into(), fields_of(fields))).collect())
    }

    /// What a route or a weighted cluster asks of a host. None: nothing.
    pub(crate) fn load_balancing_criteria(message: ProtoMetadata) -> Option<Fields> {
        Self::from_proto(message).0.remove(LB_NAMESPACE)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to what the namespace has: structs field by field, everything else in the place of what was there.
    pub fn merge(&mut self, namespace: &str, fields: Fields) {
        match self.0.get_mut(namespace) {
            Some(known) => merge(known, fields),
            None => {
                self.0.insert(namespace.into(), fields);
            }
        }
    }

    /// In the place of all that the namespace has.
    pub fn replace(&mut self, namespace: &str, fields: Fields) {
        self.0.insert(namespace.into(), fields);
    }

    pub fn namespace(&self, name: &str) -> Option<&Fields> {
        self.0.get(name)
    }

    /// The value at a path of names below a namespace.
    pub fn value<'a>(&self, namespace: &str, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        let mut fields = Some(self.namespace(namespace)?);
        let mut found = None;
        for name in path {
            found = fields?.get(name);
            fields = match found? {
                Value::Struct(inner) => Some(inner),
                _ => None,
            };
        }
        found
    }
}

fn merge(known: &mut Fields, fields: Fields) {
    for (name, value) in fields {
        match (known.get_mut(&name), value) {
            (Some(Value::Struct(inner)), Value::Struct(fields)) => merge(inner, fields),
            (Some(Value::List(list)), Value::List(more)) => list.extend(more),
            (_, value) => {
                known.insert(name, value);
            }
        }
    }
}

impl Value {
    pub fn number(value: f64) -> Value {
        Value::Number((value + 0.0).to_bits())
    }

    pub fn from_json(value: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::number(number.as_f64().unwrap_or_default()),
            Json::String(text) => Value::Text(text.as_str().into()),
            Json::Array(values) => Value::List(values.iter().map(Value::from_json).collect()),
            Json::Object(fields) => Value::Struct(
                fields.iter().map(|(name, value)| (name.as_str().into(), Value::from_json(value))).collect(),
            ),
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(bits) => {
                let number = f64::from_bits(*bits);
                // What is an integer is written as one.
                let whole = number.fract() == 0.0 && number.abs() < 1e15;
                if whole { (number as i64).into() } else { number.into() }
            }
            Value::Text(text) => (**text).into(),
            Value::List(values) => values.iter().map(Value::to_json).collect(),
            Value::Struct(fields) => fields_to_json(fields),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn from_proto(message: ProtoValue) -> Self {
        let ProtoValue { kind } = message;
        match kind {
            None | Some(Kind::NullValue(_)) => Self::Null,
            Some(Kind::BoolValue(value)) => Self::Bool(value),
            Some(Kind::NumberValue(value)) => Self::number(value),
            Some(Kind::StringValue(text)) => Self::Text(text.into()),
            Some(Kind::ListValue(ListValue { values })) => {
                Self::List(values.into_iter().map(Self::from_proto).collect())
            }
            Some(Kind::StructValue(fields)) => Self::Struct(fields_of(fields)),
        }
    }
}

pub fn fields_to_json(fields: &Fields) -> serde_json::Value {
    serde_json::Value::Object(fields.iter().map(|(name, value)| (name.to_string(), value.to_json())).collect())
}

pub(crate) fn fields_of(message: Struct) -> Fields {
    let Struct { fields } = message;
    fields.into_iter().map(|(name, value)| (name.into(), Value::from_proto(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::message;

    #[test]
    fn structs_are_merged_and_other_values_replaced() {
        let fields = |yaml: &str| fields_of(message(yaml));
        let mut metadata = Metadata::default();
        metadata.merge("n", fields("{a: {b: 1, c: x}, d: [1], e: 1}"));
        metadata.merge("n", fields("{a: {c: y}, d: [2], e: [3]}"));
        let merged = fields_to_json(metadata.namespace("n").unwrap());
        assert_eq!(merged, serde_json::json!({"a": {"b": 1, "c": "y"}, "d": [1, 2], "e": [3]}));
        metadata.replace("n", fields("{f: 1.5}"));
        assert_eq!(fields_to_json(metadata.namespace("n").unwrap()), serde_json::json!({"f": 1.5}));
    }

    #[test]
    fn values_are_found_by_their_path() {
        let metadata = Metadata::from_proto(message("filter_metadata: {envoy.lb: {a: {b: [1, true]}, c: x, z: -0.0}}"));
        let value = |path: &[&str]| metadata.value(LB_NAMESPACE, path.iter().copied()).cloned();
        assert_eq!(value(&["a", "b"]), Some(Value::List(vec![Value::Number(1f64.to_bits()), Value::Bool(true)])));
        assert_eq!(value(&["c"]).and_then(|value| value.as_text().map(str::to_owned)), Some("x".to_owned()));
        assert_eq!(value(&["z"]), Some(Value::Number(0)));
        assert_eq!((value(&["c", "d"]), value(&["none"]), metadata.namespace("other")), (None, None, None));
    }
}
