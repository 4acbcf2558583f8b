//! Compiles the validation rules of one field (`validate.rules`) into the opcodes of `layout::rule`.

use crate::layout::{Format, Kind, bound, rule};
use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage, Value};
use std::error::Error;

/// Regular expressions, numbered over all fields so that the library can keep each one compiled.
#[derive(Default)]
pub(crate) struct Patterns {
    seen: Vec<String>,
}

impl Patterns {
    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }

    fn number(&mut self, pattern: &str) -> u16 {
        let index = self.seen.iter().position(|known| known == pattern).unwrap_or_else(|| {
            self.seen.push(pattern.to_owned());
            self.seen.len() - 1
        });
        u16::try_from(index).expect("fewer than 65536 patterns")
    }
}

/// The opcodes for `rules`, a `validate.FieldRules`, without the final END.
pub(crate) fn compile(rules: &DynamicMessage, patterns: &mut Patterns) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    for (field, value) in rules.fields() {
        let message = value.as_message().ok_or("a rule that is no message")?;
        match field.name() {
            "message" => for_message(message, &mut out)?,
            "string" | "bytes" => for_text(message, field.name() == "bytes", patterns, &mut out)?,
            "bool" => for_bool(message, &mut out)?,
            "enum" => for_enum(message, &mut out)?,
            "repeated" => for_repeated(message, patterns, &mut out)?,
            "map" => for_map(message, patterns, &mut out)?,
            "any" => for_any(message, &mut out)?,
            "duration" | "timestamp" => for_time(message, &mut out)?,
            "float" | "double" | "int32" | "int64" | "uint32" | "uint64" | "sint32" | "sint64" | "fixed32"
            | "fixed64" | "sfixed32" | "sfixed64" => for_number(message, &mut out)?,
            other => return Err(unsupported(other)),
        }
    }
    Ok(out)
}

/// Refuses rules that do not fit the field that they stand on, which the library would otherwise never get to check.
pub(crate) fn check_fit(rules: &DynamicMessage, field: &FieldDescriptor, kind: Kind) -> Result<(), Box<dyn Error>> {
    for (rule, _) in rules.fields() {
        let fits = match rule.name() {
            "repeated" => field.is_list(),
            "map" => field.is_map(),
            "message" => kind == Kind::Message && !field.is_list(),
            // Envoy writes `any.required` on other messages too, where it means what `message.required` does.
            "any" => kind == Kind::Message,
            "duration" | "timestamp" => {
                field.kind().as_message().is_some_and(|message| message.name().eq_ignore_ascii_case(rule.name()))
            }
            scalar => fits_scalar(scalar, field, kind),
        };
        if !fits {
            return Err(format!("{} rules on {}", rule.name(), field.full_name()).into());
        }
    }
    Ok(())
}

fn fits_scalar(rule: &str, field: &FieldDescriptor, kind: Kind) -> bool {
    if let Some(message) = field.kind().as_message() {
        return message.full_name().to_ascii_lowercase() == format!("google.protobuf.{rule}value");
    }
    format!("{kind:?}").eq_ignore_ascii_case(rule)
}

fn unsupported(name: &str) -> Box<dyn Error> {
    format!("validation rule {name:?} is not supported: teach build/rules.rs and src/validate about it").into()
}

fn for_message(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    for (field, value) in rules.fields() {
        match (field.name(), value.as_bool()) {
            (_, Some(false)) => {}
            ("skip", _) => out.push(rule::SKIP),
            ("required", _) => out.push(rule::REQUIRED),
            (other, _) => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn for_any(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    for (field, value) in rules.fields() {
        match field.name() {
            "required" if value.as_bool() == Some(true) => out.push(rule::REQUIRED),
            "required" => {}
            "in" => texts(rule::ANY_IN, value, out)?,
            "not_in" => texts(rule::ANY_NOT_IN, value, out)?,
            other => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn for_bool(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    for (field, value) in rules.fields() {
        match field.name() {
            "const" => out.extend([rule::BOOL_CONST, u8::from(value.as_bool().ok_or("bool const")?)]),
            other => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn for_enum(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    for (field, value) in rules.fields() {
        match field.name() {
            "const" => int_operand(rule::INT_CONST, value, out)?,
            "in" => int_list(rule::INT_IN, value, out)?,
            "not_in" => int_list(rule::INT_NOT_IN, value, out)?,
            "defined_only" if value.as_bool() == Some(true) => out.push(rule::ENUM_DEFINED_ONLY),
            "defined_only" => {}
            other => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn for_number(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let float = matches!(rules.descriptor().name(), "FloatRules" | "DoubleRules");
    if ignores_empty(rules) {
        out.push(rule::IGNORE_EMPTY);
    }
    let mut range = Range::default();
    for (field, value) in rules.fields() {
        match (field.name(), float) {
            ("lt" | "lte" | "gt" | "gte", _) => range.bound(field.name(), value.clone())?,
            ("const", false) => int_operand(rule::INT_CONST, value, out)?,
            ("in", false) => int_list(rule::INT_IN, value, out)?,
            ("not_in", false) => int_list(rule::INT_NOT_IN, value, out)?,
            ("const", true) => float_operand(rule::FLOAT_CONST, value, out)?,
            ("in", true) => float_list(rule::FLOAT_IN, value, out)?,
            ("not_in", true) => float_list(rule::FLOAT_NOT_IN, value, out)?,
            ("ignore_empty", _) => {}
            (other, _) => return Err(unsupported(other)),
        }
    }
    range.write(float, out)
}

fn for_time(rules: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let mut range = Range::default();
    for (field, value) in rules.fields() {
        match field.name() {
            "required" if value.as_bool() == Some(true) => out.push(rule::REQUIRED),
            "required" => {}
            "lt" | "lte" | "gt" | "gte" => range.bound(field.name(), value.clone())?,
            "const" => int_operand(rule::INT_CONST, value, out)?,
            "in" => int_list(rule::INT_IN, value, out)?,
            "not_in" => int_list(rule::INT_NOT_IN, value, out)?,
            // "Before now" and the like would make validity depend on the clock; Envoy has none.
            other => return Err(unsupported(other)),
        }
    }
    range.write(false, out)
}

fn for_text(
    rules: &DynamicMessage,
    bytes: bool,
    patterns: &mut Patterns,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    if ignores_empty(rules) {
        out.push(rule::IGNORE_EMPTY);
    }
    let strict = rules.get_field_by_name("strict").is_none_or(|value| value.as_bool() != Some(false));
    for (field, value) in rules.fields() {
        // A string's length is in characters unless the rule says bytes; a bytes field has bytes only.
        let length = |chars: u8, byte_count: u8| if bytes { byte_count } else { chars };
        match field.name() {
            "const" => text(rule::CONST, value, out)?,
            "len" => count(length(rule::CHARS, rule::BYTES), value, out)?,
            "min_len" => count(length(rule::MIN_CHARS, rule::MIN_BYTES), value, out)?,
            "max_len" => count(length(rule::MAX_CHARS, rule::MAX_BYTES), value, out)?,
            "len_bytes" => count(rule::BYTES, value, out)?,
            "min_bytes" => count(rule::MIN_BYTES, value, out)?,
            "max_bytes" => count(rule::MAX_BYTES, value, out)?,
            "pattern" => {
                let pattern = value.as_str().ok_or("a pattern that is no string")?;
                out.push(rule::PATTERN);
                out.extend(patterns.number(pattern).to_le_bytes());
                put_text(pattern.as_bytes(), out)?;
            }
            "prefix" => text(rule::PREFIX, value, out)?,
            "suffix" => text(rule::SUFFIX, value, out)?,
            "contains" => text(rule::CONTAINS, value, out)?,
            "not_contains" => text(rule::NOT_CONTAINS, value, out)?,
            "in" => texts(rule::IN, value, out)?,
            "not_in" => texts(rule::NOT_IN, value, out)?,
            "strict" | "ignore_empty" => {}
            "well_known_regex" => {
                let format = match (value.as_enum_number(), strict) {
                    (Some(1), true) => Format::HeaderName,
                    (Some(1), false) => Format::HeaderNameLoose,
                    (Some(2), true) => Format::HeaderValue,
                    (Some(2), false) => Format::HeaderValueLoose,
                    _ => return Err(unsupported("well_known_regex")),
                };
                out.extend([rule::FORMAT, format as u8]);
            }
            name if value.as_bool() == Some(true) => out.extend([rule::FORMAT, format(name)? as u8]),
            name => return Err(unsupported(name)),
        }
    }
    Ok(())
}

fn format(name: &str) -> Result<Format, Box<dyn Error>> {
    Ok(match name {
        "email" => Format::Email,
        "hostname" => Format::Hostname,
        "ip" => Format::Ip,
        "ipv4" => Format::Ipv4,
        "ipv6" => Format::Ipv6,
        "uri" => Format::Uri,
        "uri_ref" => Format::UriRef,
        "address" => Format::Address,
        "uuid" => Format::Uuid,
        other => return Err(unsupported(other)),
    })
}

fn for_repeated(rules: &DynamicMessage, patterns: &mut Patterns, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    if ignores_empty(rules) {
        out.push(rule::IGNORE_EMPTY);
    }
    for (field, value) in rules.fields() {
        match field.name() {
            "min_items" => count(rule::MIN_ITEMS, value, out)?,
            "max_items" => count(rule::MAX_ITEMS, value, out)?,
            "unique" if value.as_bool() == Some(true) => out.push(rule::UNIQUE),
            "unique" | "ignore_empty" => {}
            "items" => block(rule::ITEMS, value, patterns, out)?,
            other => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn for_map(rules: &DynamicMessage, patterns: &mut Patterns, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    if ignores_empty(rules) {
        out.push(rule::IGNORE_EMPTY);
    }
    for (field, value) in rules.fields() {
        match field.name() {
            "min_pairs" => count(rule::MIN_PAIRS, value, out)?,
            "max_pairs" => count(rule::MAX_PAIRS, value, out)?,
            // A sparse map has null values; on the wire there is no such thing.
            "no_sparse" | "ignore_empty" => {}
            "keys" => block(rule::KEYS, value, patterns, out)?,
            "values" => block(rule::VALUES, value, patterns, out)?,
            other => return Err(unsupported(other)),
        }
    }
    Ok(())
}

fn ignores_empty(rules: &DynamicMessage) -> bool {
    rules.get_field_by_name("ignore_empty").is_some_and(|value| value.as_bool() == Some(true))
}

/// The lower and upper bound of a number, where given.
#[derive(Default)]
struct Range {
    flags: u8,
    lower: Option<Value>,
    upper: Option<Value>,
}

impl Range {
    fn bound(&mut self, name: &str, value: Value) -> Result<(), Box<dyn Error>> {
        let (flags, slot) = match name {
            "gt" => (bound::LOWER, &mut self.lower),
            "gte" => (bound::LOWER | bound::LOWER_INCLUSIVE, &mut self.lower),
            "lt" => (bound::UPPER, &mut self.upper),
            "lte" => (bound::UPPER | bound::UPPER_INCLUSIVE, &mut self.upper),
            other => return Err(unsupported(other)),
        };
        if slot.replace(value).is_some() {
            return Err(format!("a second bound by {name}").into());
        }
        self.flags |= flags;
        Ok(())
    }

    fn write(self, float: bool, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
        if self.flags == 0 {
            return Ok(());
        }
        out.extend([if float { rule::FLOAT_RANGE } else { rule::INT_RANGE }, self.flags]);
        for value in [self.lower, self.upper] {
            match (value, float) {
                (Some(value), false) => out.extend(int(&value)?.to_le_bytes()),
                (None, false) => out.extend(0i128.to_le_bytes()),
                (Some(value), true) => out.extend(float_of(&value)?.to_bits().to_le_bytes()),
                (None, true) => out.extend(0u64.to_le_bytes()),
            }
        }
        Ok(())
    }
}

fn block(opcode: u8, value: &Value, patterns: &mut Patterns, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let mut inner = compile(value.as_message().ok_or("rules that are no message")?, patterns)?;
    inner.push(rule::END);
    out.push(opcode);
    out.extend(u32::try_from(inner.len())?.to_le_bytes());
    out.extend(inner);
    Ok(())
}

fn count(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    out.push(opcode);
    out.extend(value.as_u64().ok_or("a length that is no number")?.to_le_bytes());
    Ok(())
}

fn text(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    out.push(opcode);
    put_text(text_of(value)?, out)
}

fn texts(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let list = value.as_list().ok_or("a list rule without a list")?;
    out.push(opcode);
    out.extend(u16::try_from(list.len())?.to_le_bytes());
    list.iter().try_for_each(|item| put_text(text_of(item)?, out))
}

fn text_of(value: &Value) -> Result<&[u8], Box<dyn Error>> {
    match value {
        Value::String(text) => Ok(text.as_bytes()),
        Value::Bytes(bytes) => Ok(bytes),
        other => Err(format!("{other} is neither a string nor bytes").into()),
    }
}

fn put_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    out.extend(u16::try_from(text.len())?.to_le_bytes());
    out.extend(text);
    Ok(())
}

fn int_list(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let list = value.as_list().ok_or("a list rule without a list")?;
    out.push(opcode);
    out.extend(u16::try_from(list.len())?.to_le_bytes());
    for item in list {
        out.extend(int(item)?.to_le_bytes());
    }
    Ok(())
}

fn int_operand(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    out.push(opcode);
    out.extend(int(value)?.to_le_bytes());
    Ok(())
}

fn float_list(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let list = value.as_list().ok_or("a list rule without a list")?;
    out.push(opcode);
    out.extend(u16::try_from(list.len())?.to_le_bytes());
    for item in list {
        out.extend(float_of(item)?.to_bits().to_le_bytes());
    }
    Ok(())
}

fn float_operand(opcode: u8, value: &Value, out: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    out.push(opcode);
    out.extend(float_of(value)?.to_bits().to_le_bytes());
    Ok(())
}

/// An integer, or a duration or timestamp in nanoseconds.
fn int(value: &Value) -> Result<i128, Box<dyn Error>> {
    Ok(match value {
        Value::I32(number) | Value::EnumNumber(number) => i128::from(*number),
        Value::I64(number) => i128::from(*number),
        Value::U32(number) => i128::from(*number),
        Value::U64(number) => i128::from(*number),
        Value::Message(time) => {
            let part = |name: &str| time.get_field_by_name(name).ok_or("a time without seconds and nanos");
            let seconds = part("seconds")?.as_i64().ok_or("seconds that are no number")?;
            let nanos = part("nanos")?.as_i32().ok_or("nanos that are no number")?;
            i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
        }
        other => return Err(format!("{other} is no integer").into()),
    })
}

fn float_of(value: &Value) -> Result<f64, Box<dyn Error>> {
    Ok(match value {
        // By way of its shortest text, so that a limit of 0.1 reads 0.1 in messages; comparisons are made in f32.
        Value::F32(number) => number.to_string().parse()?,
        Value::F64(number) => *number,
        other => return Err(format!("{other} is no floating point number").into()),
    })
}
