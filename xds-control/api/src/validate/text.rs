//! Rules on strings and bytes.

use super::format;
use super::rules::{Rule, Texts};
use crate::error::{FieldError, wrong};
use crate::tables::PATTERNS;
use crate::wire;
use regex::bytes::{Regex, RegexBuilder};
use std::sync::OnceLock;

/// Compiled when first needed: the most memory that one of Envoy's few patterns may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;
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
