//! JSON text to a `serde_json::Value`, refusing an object that writes a key twice.

use super::read::path_step;
use crate::error::FieldError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// Reads one JSON document. Syntax errors tell line and column; serde_json bounds the depth.
pub(crate) fn parse(text: &str) -> Result<Value, FieldError> {
    let duplicate = RefCell::new(None);
    let mut input = serde_json::Deserializer::from_str(text);
    let parsed = Strict { duplicate: &duplicate }.deserialize(&mut input).and_then(|value| input.end().map(|()| value));
    parsed.map_err(|error| duplicate.take().unwrap_or_else(|| FieldError::new("", format!("not valid JSON: {error}"))))
}

/// Reads any value. serde's errors have no path, so the one for a duplicate key travels beside them and gains a step in
/// every object and list that it passes on its way up.
struct Strict<'d> {
    duplicate: &'d RefCell<Option<FieldError>>,
}

impl Strict<'_> {
    fn again(&self) -> Strict<'_> {
        Strict { duplicate: self.duplicate }
    }

    fn place<E>(&self, error: E, step: impl FnOnce() -> String) -> E {
        let found = self.duplicate.take();
        self.duplicate.replace(found.map(|found| found.within(&step())));
        error
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, set: bool) -> Result<Value, E> {
        Ok(Value::Bool(set))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let next = input.next_element_seed(self.again());
            match next.map_err(|error| self.place(error, || format!("[{}]", items.len())))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = input.next_key::<String>()? {
            if object.contains_key(&key) {
                let error = A::Error::custom("duplicate key");
                self.duplicate.replace(Some(FieldError::new(path_step(&key), "is written twice")));
                return Err(error);
            }
            let value = input.next_value_seed(self.again()).map_err(|error| self.place(error, || path_step(&key)))?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\n"],"b":{"c":{}},"d":18446744073709551615}"#;
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_duplicate_key_is_refused_with_its_path() {
        let error = parse(r#"{"a":[{"b":1},{"b":{"x":1,"c.d":2,"c.d":3}}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "a[1].b[\"c.d\"]: is written twice");
        assert_eq!(parse(r#"{"a":1,"a":1}"#).unwrap_err().path(), "a");
    }

    #[test]
    fn bad_syntax_tells_line_and_column() {
        let error = parse("{\n  \"a\": ]\n}").unwrap_err().to_string();
        assert!(error.contains("line 2 column 8"), "{error}");
        assert!(parse("{} {}").is_err());
        assert!(parse("").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert_eq!(parse(" 1 ").unwrap(), json!(1));
    }
}
