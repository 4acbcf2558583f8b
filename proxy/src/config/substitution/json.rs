//! A JSON object whose strings are format strings. Keys are written in order of their bytes, as Envoy does.

use weft_xds::{
    FieldError,
    pb::google::protobuf::{Struct, Value, value::Kind},
};

use super::{Command, Operator, parse};
use crate::config::field::{Result, Within as _, element};

#[derive(Clone, Debug, PartialEq)]
pub enum JsonTemplate {
    /// Sorted by key.
    Object(Vec<(String, JsonTemplate)>),
    Array(Vec<JsonTemplate>),
    Text(Vec<Operator>),
    /// As it is written: a number, a truth value or null.
    Constant(String),
}

impl JsonTemplate {
    pub(super) fn from_struct(message: Struct) -> Result<Self> {
        let mut fields = Vec::new();
        for (key, value) in message.fields {
            let template = Self::from_value(value).within(&key)?;
            fields.push((key, template));
        }
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self::Object(fields))
    }

    fn from_value(value: Value) -> Result<Self> {
        Ok(match value.kind {
            None | Some(Kind::NullValue(_)) => Self::Constant("null".into()),
            Some(Kind::BoolValue(truth)) => Self::Constant(truth.to_string()),
            Some(Kind::NumberValue(number)) if number.is_finite() => Self::Constant(number.to_string()),
            Some(Kind::NumberValue(_)) => return Err(FieldError::new("", "not a finite number")),
            Some(Kind::StringValue(text)) => Self::Text(parse(&text)?),
            Some(Kind::StructValue(inner)) => Self::from_struct(inner)?,
            Some(Kind::ListValue(list)) => {
                let mut items = Vec::new();
                for (index, item) in list.values.into_iter().enumerate() {
                    items.push(Self::from_value(item).within(&element("", index))?);
                }
                Self::Array(items)
            }
        })
    }

    pub(super) fn any(&self, is_such: &impl Fn(&Command) -> bool) -> bool {
        match self {
            Self::Object(fields) => fields.iter().any(|(_, value)| value.any(is_such)),
            Self::Array(items) => items.iter().any(|item| item.any(is_such)),
            Self::Text(operators) => operators.iter().any(|operator| is_such(&operator.command)),
            Self::Constant(_) => false,
        }
    }
}
