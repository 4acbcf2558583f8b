//! Rules on strings and bytes.

use super::format;
use super::rules::{Rule, Texts};
use crate::error::{FieldError, wrong};
use crate::tables::PATTERNS;
use crate::wire;
use regex::bytes::{Regex, RegexBuilder};
use std::sync::OnceLock;

/// The most memory that one of Envoy's few and short patterns may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// By the number that `build.rs` gave the pattern; compiled when first needed.
static COMPILED: [OnceLock<Option<Regex>>; PATTERNS] = [const { OnceLock::new() }; PATTERNS];

/// Checks one rule on `value`. Messages do not repeat the value: it may be a secret.
pub(super) fn check(rule: Rule, value: &[u8]) -> Result<(), FieldError> {
    let bytes = value.len() as u64;
    match rule {
        Rule::Const(wanted) if value != wanted => wrong(format!("value must equal {}", show(wanted))),
        Rule::Chars(count) if chars(value)? != count => wrong(format!("value length must be {count} characters")),
        Rule::MinChars(min) if chars(value)? < min => wrong(format!("value length must be at least {min} characters")),
        Rule::MaxChars(max) if chars(value)? > max => wrong(format!("value length must be at most {max} characters")),
        Rule::Bytes(count) if bytes != count => wrong(format!("value length must be {count} bytes")),
        Rule::MinBytes(min) if bytes < min => wrong(format!("value length must be at least {min} bytes")),
        Rule::MaxBytes(max) if bytes > max => wrong(format!("value length must be at most {max} bytes")),
        Rule::Pattern { number, text } if !matches(number, text, value)? => {
            wrong(format!("value does not match regex pattern {}", show(text)))
        }
        Rule::Prefix(prefix) if !value.starts_with(prefix) => {
            wrong(format!("value does not have prefix {}", show(prefix)))
        }
        Rule::Suffix(suffix) if !value.ends_with(suffix) => {
            wrong(format!("value does not have suffix {}", show(suffix)))
        }
        Rule::Contains(part) if !contains(value, part) => {
            wrong(format!("value does not contain substring {}", show(part)))
        }
        Rule::NotContains(part) if contains(value, part) => wrong(format!("value contains substring {}", show(part))),
        Rule::In(list) if !list.iter().any(|item| item == value) => {
            wrong(format!("value must be in list {}", super::listed(shown(list))))
        }
        Rule::NotIn(list) if list.iter().any(|item| item == value) => {
            wrong(format!("value must not be in list {}", super::listed(shown(list))))
        }
        Rule::Format(format) => format::check(format, value).or_else(wrong),
        _ => Ok(()),
    }
}

/// The items of a list rule, for a message.
pub(super) fn shown(list: Texts) -> impl Iterator<Item = String> {
    list.iter().map(show)
}

fn show(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(text))
}

fn chars(value: &[u8]) -> Result<u64, FieldError> {
    Ok(wire::text(value)?.chars().count() as u64)
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

fn matches(number: u16, pattern: &[u8], value: &[u8]) -> Result<bool, FieldError> {
    let compiled = COMPILED[usize::from(number)].get_or_init(|| {
        let pattern = std::str::from_utf8(pattern).ok()?;
        RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok()
    });
    match compiled {
        Some(regex) => Ok(regex.is_match(value)),
        None => wrong(format!("regex pattern {} cannot be compiled", show(pattern))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::layout::Format;

    #[test]
    fn each_rule_takes_the_good_and_says_what_is_wrong_with_the_bad() {
        let cases: [(Rule, &[u8], &[u8], &str); 14] = [
            (Rule::Const(b"a"), b"a", b"b", "value must equal \"a\""),
            (Rule::Chars(2), "ä1".as_bytes(), b"a", "value length must be 2 characters"),
            (Rule::MinChars(2), "ää".as_bytes(), "ä".as_bytes(), "value length must be at least 2 characters"),
            (Rule::MaxChars(1), "ä".as_bytes(), b"ab", "value length must be at most 1 characters"),
            (Rule::Bytes(2), "ä".as_bytes(), b"a", "value length must be 2 bytes"),
            (Rule::MinBytes(2), "ä".as_bytes(), b"a", "value length must be at least 2 bytes"),
            (Rule::MaxBytes(1), b"a", "ä".as_bytes(), "value length must be at most 1 bytes"),
            (Rule::Prefix(b"a"), b"ab", b"ba", "value does not have prefix \"a\""),
            (Rule::Suffix(b"a"), b"ba", b"ab", "value does not have suffix \"a\""),
            (Rule::Contains(b"bc"), b"abcd", b"acbd", "value does not contain substring \"bc\""),
            (Rule::Contains(b""), b"", b"\xff", ""),
            (Rule::NotContains(b"bc"), b"acbd", b"abcd", "value contains substring \"bc\""),
            (Rule::Format(Format::Uuid), b"123e4567-e89b-12d3-a456-426614174000", b"x", "value must be a valid UUID"),
            (Rule::Required, b"", b"x", ""),
        ];
        for (rule, good, bad, reason) in cases {
            assert!(check(rule, good).is_ok(), "{rule:?}");
            let told = check(rule, bad).map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(told, reason, "{rule:?}");
        }
    }

    #[test]
    fn characters_of_what_is_no_text_cannot_be_counted() {
        assert_eq!(check(Rule::MinChars(1), b"\xff").unwrap_err().to_string(), "not valid UTF-8");
    }
}
