//! Scalars between JSON and the wire: numbers as numbers or strings, their ranges, enums by name or number, bytes as base64.

use super::suggest;
use crate::error::{FieldError, wrong};
use crate::tables::layout::Kind;
use crate::tables::{Enum, Field};
use crate::wire;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

/// Hands the wire form of a scalar field's JSON `value` to `then`.
pub(crate) fn with_wire<R>(
    field: Field,
    value: &Value,
    then: impl FnOnce(wire::Value<'_>) -> R,
) -> Result<R, FieldError> {
    let kind = field.kind();
    Ok(match kind {
        Kind::String => match value {
            Value::String(text) => then(wire::Value::Bytes(text.as_bytes())),
            // As Envoy does it: `version: 1.5` is text where text is wanted, but an integer never is.
            Value::Number(number) if number.is_f64() => then(wire::Value::Bytes(number.to_string().as_bytes())),
            other => return wrong(expected("a string", other)),
        },
        Kind::Bytes => match value {
            Value::String(text) => then(wire::Value::Bytes(&base64(text)?)),
            other => return wrong(expected("a string of base64", other)),
        },
        Kind::Bool => then(wire::Value::Varint(u64::from(boolean(value)?))),
        Kind::Enum => then(wire::number(kind, enum_number(field.enumeration(), value)? as i64 as u64)),
        Kind::Double => then(wire::Value::Fixed64(float(value)?.to_bits())),
        Kind::Float => then(wire::Value::Fixed32(single(float(value)?)?.to_bits())),
        _ => then(wire::number(kind, integer_bits(kind, value)?)),
    })
}

/// The wire form of a map key, which JSON always writes as a string.
pub(crate) fn with_key<R>(field: Field, key: &str, then: impl FnOnce(wire::Value<'_>) -> R) -> Result<R, FieldError> {
    match field.kind() {
        Kind::String => Ok(then(wire::Value::Bytes(key.as_bytes()))),
        Kind::Bool => match key {
            "true" => Ok(then(wire::Value::Varint(1))),
            "false" => Ok(then(wire::Value::Varint(0))),
            _ => wrong("a key of this map is true or false"),
        },
        kind => {
            let number: i128 = key.parse().or_else(|_| wrong("a key of this map is an integer"))?;
            // One number has one spelling, or two keys could mean the same entry.
            if number.to_string() != key {
                return wrong("a key of this map is an integer without sign or leading zeros");
            }
            Ok(then(wire::number(kind, in_range(kind, number)?)))
        }
    }
}

/// The JSON form of a scalar on the wire.
pub(crate) fn to_json(field: Field, value: wire::Value<'_>) -> Result<Value, FieldError> {
    let bits = value.bits();
    Ok(match field.kind() {
        Kind::String => Value::from(wire::text(value.bytes())?),
        Kind::Bytes => Value::from(STANDARD.encode(value.bytes())),
        Kind::Bool => Value::from(bits != 0),
        Kind::Enum => enum_to_json(field.enumeration(), bits as i32),
        Kind::Double => float_to_json(f64::from_bits(bits)),
        Kind::Float => float_to_json(shortest(f32::from_bits(bits as u32))),
        Kind::Int32 | Kind::Sfixed32 => Value::from(bits as i32),
        Kind::Sint32 => Value::from(unzigzag(bits) as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::from(bits as u32),
        // 64-bit integers are strings: a JSON number is commonly read as a double.
        Kind::Int64 | Kind::Sfixed64 => Value::from((bits as i64).to_string()),
        Kind::Sint64 => Value::from(unzigzag(bits).to_string()),
        Kind::Uint64 | Kind::Fixed64 => Value::from(bits.to_string()),
        Kind::Message => return wrong("a message where a scalar was expected"),
    })
}

/// The text of a map key.
pub(crate) fn key_to_text(field: Field, value: wire::Value<'_>) -> Result<String, FieldError> {
    Ok(match to_json(field, value)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// The number of an integer field, sign and all.
pub(crate) fn integer(kind: Kind, bits: u64) -> i128 {
    match kind {
        Kind::Int32 | Kind::Sfixed32 | Kind::Enum => i128::from(bits as i32),
        Kind::Sint32 => i128::from(unzigzag(bits) as i32),
        Kind::Uint32 | Kind::Fixed32 => i128::from(bits as u32),
        Kind::Int64 | Kind::Sfixed64 => i128::from(bits as i64),
        Kind::Sint64 => i128::from(unzigzag(bits)),
        _ => i128::from(bits),
    }
}

/// "expected X, got Y", without the text of strings: they may be secrets.
pub(crate) fn expected(what: &str, got: &Value) -> String {
    match got {
        Value::Null => format!("expected {what}, got null"),
        Value::Bool(set) => format!("expected {what}, got the boolean {set}"),
        Value::Number(number) => format!("expected {what}, got the number {number}"),
        Value::String(_) => format!("expected {what}, got a string"),
        Value::Array(_) => format!("expected {what}, got a list"),
        Value::Object(_) => format!("expected {what}, got an object"),
    }
}

/// true, false, or a word that Envoy takes for one of them: YAML hands those over as strings.
fn boolean(value: &Value) -> Result<bool, FieldError> {
    let word = match value {
        Value::Bool(set) => return Ok(*set),
        Value::String(word) => word,
        other => return wrong(expected("true or false", other)),
    };
    let is_one_of = |words: [&str; 4]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    match (is_one_of(["true", "yes", "on", "y"]), is_one_of(["false", "no", "off", "n"])) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => wrong(expected("true or false", value)),
    }
}

/// By name, in any case as Envoy takes it, or by number: enums are open, so a number without a name will do.
fn enum_number(of: Enum, value: &Value) -> Result<i32, FieldError> {
    match value {
        Value::String(name) => {
            let known = of.number_of(name).or_else(|| name.parse().ok());
            let known = known
                .or_else(|| of.values().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(number, _)| number));
            known.ok_or_else(|| {
                let hint = suggest::hint(name, of.values().map(|(_, name)| name));
                FieldError::new("", format!("{} has no value {name:?}{hint}", of.full_name()))
            })
        }
        Value::Null if of.is_null_value() => Ok(0),
        Value::Number(_) => Ok(in_range(Kind::Int32, whole(value)?)? as u32 as i32),
        other => wrong(expected(&format!("a value of {}", of.full_name()), other)),
    }
}

fn enum_to_json(of: Enum, number: i32) -> Value {
    if of.is_null_value() {
        return Value::Null;
    }
    of.name_of(number).map_or_else(|| Value::from(number), Value::from)
}

fn integer_bits(kind: Kind, value: &Value) -> Result<u64, FieldError> {
    in_range(kind, whole(value)?)
}

/// A whole number from a JSON number or a string, as JSON allows 1.0 and 1e3 for it.
fn whole(value: &Value) -> Result<i128, FieldError> {
    let float = match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(signed), _, _) => return Ok(i128::from(signed)),
            (_, Some(unsigned), _) => return Ok(i128::from(unsigned)),
            (_, _, Some(float)) => float,
            _ => return wrong("not a number that fits a field"),
        },
        Value::String(text) if is_json_number(text) => match text.parse() {
            Ok(number) => return Ok(number),
            Err(_) => text.parse().or_else(|_| wrong("expected an integer, got a string"))?,
        },
        other => return wrong(expected("an integer", other)),
    };
    if float.fract() != 0.0 || !float.is_finite() {
        return wrong(format!("expected an integer, got {float}"));
    }
    Ok(float as i128)
}

/// The bits of `number` as a field of `kind` has them, if it is in that kind's range.
fn in_range(kind: Kind, number: i128) -> Result<u64, FieldError> {
    let range = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => i128::from(i32::MIN)..=i128::from(i32::MAX),
        Kind::Uint32 | Kind::Fixed32 => 0..=i128::from(u32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => i128::from(i64::MIN)..=i128::from(i64::MAX),
        _ => 0..=i128::from(u64::MAX),
    };
    if !range.contains(&number) {
        return wrong(format!("{number} is out of range: {} to {}", range.start(), range.end()));
    }
    Ok(match kind {
        Kind::Sint32 | Kind::Sint64 => ((number << 1) ^ (number >> 127)) as u64,
        _ => number as u64,
    })
}

fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

fn float(value: &Value) -> Result<f64, FieldError> {
    match value {
        Value::Number(number) => number.as_f64().ok_or_else(|| FieldError::new("", "not a number that fits a field")),
        Value::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            text if is_json_number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => wrong(format!("{text} is out of range")),
            },
            _ => wrong(expected("a number", value)),
        },
        other => wrong(expected("a number", other)),
    }
}

fn single(number: f64) -> Result<f32, FieldError> {
    let single = number as f32;
    if single.is_infinite() && number.is_finite() {
        return wrong(format!("{number} is out of range for a 32-bit float"));
    }
    Ok(single)
}

/// The double whose text is the shortest that reads back as `number`: 0.1 and not 0.10000000149011612.
pub(crate) fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn float_to_json(number: f64) -> Value {
    if number.is_nan() {
        return Value::from("NaN");
    }
    if number.is_infinite() {
        return Value::from(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    // Whole numbers print without a fraction, as protobuf prints them, where a double holds them exactly.
    if number.fract() == 0.0 && number.abs() < 9.0e15 && !(number == 0.0 && number.is_sign_negative()) {
        return Value::from(number as i64);
    }
    Value::from(number)
}

/// Whether `text` is a number by JSON's grammar: no plus sign, no leading zeros, no spaces.
fn is_json_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let no_leading_zero = whole == "0" || !whole.starts_with('0');
    digits(whole) && no_leading_zero && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

/// Base64 of either alphabet, padded or not, as the JSON mapping allows.
fn base64(text: &str) -> Result<Vec<u8>, FieldError> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const ANY_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const ANY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let engine = if text.contains(['-', '_']) { ANY_URL_SAFE } else { ANY_STANDARD };
    engine.decode(text).or_else(|_| wrong("not valid base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_number_grammar() {
        for good in ["0", "-0", "10", "1.5", "1e3", "-1.25E-7", "0.1e+2"] {
            assert!(is_json_number(good), "{good}");
        }
        for bad in ["", "-", "+1", "01", "1.", ".5", "1e", " 1", "1 ", "0x10", "1_000", "inf", "NaN"] {
            assert!(!is_json_number(bad), "{bad}");
        }
    }

    #[test]
    fn whole_numbers_take_every_spelling_of_a_whole_number() {
        for (json, number) in
            [("1", 1), ("1.0", 1), ("1e3", 1000), ("\"12\"", 12), ("\"-5\"", -5), ("\"1e2\"", 100), ("\"3.0\"", 3)]
        {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(whole(&value).unwrap(), number, "{json}");
        }
        for json in ["1.5", "\"1.5\"", "\"\"", "\" 1\"", "\"0x1\"", "true", "null", "[]"] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert!(whole(&value).is_err(), "{json}");
        }
    }

    #[test]
    fn ranges_end_where_the_types_do() {
        assert_eq!(in_range(Kind::Uint32, 4_294_967_295).unwrap(), 4_294_967_295);
        assert!(in_range(Kind::Uint32, 4_294_967_296).is_err());
        assert!(in_range(Kind::Uint64, -1).is_err());
        assert_eq!(in_range(Kind::Int64, i128::from(i64::MIN)).unwrap(), i64::MIN as u64);
        assert_eq!(in_range(Kind::Sint32, -1).unwrap(), 1);
        assert_eq!(in_range(Kind::Sint64, 1).unwrap(), 2);
        assert_eq!(unzigzag(1), -1);
        assert_eq!(unzigzag(u64::MAX), i64::MIN);
    }

    #[test]
    fn base64_of_either_alphabet() {
        for text in ["+/8=", "-_8=", "+/8", "-_8"] {
            assert_eq!(base64(text).unwrap(), [0xfb, 0xff], "{text}");
        }
        assert!(base64("+_8=").is_err(), "the alphabets do not mix");
        assert!(base64("a b=").is_err());
    }

    #[test]
    fn floats_print_as_short_as_they_read_back() {
        assert_eq!(float_to_json(shortest(0.1f32)).to_string(), "0.1");
        assert_eq!(float_to_json(1000.0).to_string(), "1000");
        assert_eq!(float_to_json(f64::NEG_INFINITY), Value::from("-Infinity"));
        assert_eq!(float_to_json(-0.0).to_string(), "-0.0");
    }
}
