//! Envoy's validation rules (protoc-gen-validate) checked on a message, over its wire bytes.
//!
//! What is checked is what Envoy checks when a message is loaded: the message and all that it holds, but not what is inside an
//! Any, which whoever unpacks it validates ([`crate::any::unpack_valid`]). The first broken rule is reported. Parts of the
//! API that have no rules are not walked at all.

mod format;
mod rules;
mod text;

use crate::error::{At, FieldError, wrong};
use crate::json::{descriptor, scalar, time};
use crate::tables::layout::{Kind, WellKnown, bound};
use crate::tables::{Field, Message};
use crate::wire::{self, DEPTH_MAX, Value};
use prost::Name;
use rules::{Rule, Rules};
use std::collections::HashSet;
use std::fmt::Display;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Checks every rule on `message`.
pub fn validate<T: Name>(message: &T) -> Result<(), FieldError> {
    let descriptor = descriptor::<T>()?;
    if !descriptor.is_checked() {
        return Ok(());
    }
    check_message(descriptor, &message.encode_to_vec(), 0)
}

/// Checks the rules of `bytes` read as a `message`. `depth` is the number of messages around it.
pub(crate) fn check_message(message: Message, bytes: &[u8], depth: u32) -> Result<(), FieldError> {
    if !message.is_checked() {
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return wrong(format!("nested deeper than {DEPTH_MAX} messages"));
    }
    let entries = wire::entries(message, bytes)?;
    let mut rest = &entries[..];
    // Every field, not only those on the wire: absence breaks rules too.
    for field in message.fields() {
        let count = rest.iter().take_while(|entry| entry.field == field).count();
        let (run, after) = rest.split_at(count);
        rest = after;
        check_field(message, field, run, depth)?;
    }
    for oneof in message.oneofs().filter(|oneof| oneof.is_required()) {
        if !entries.iter().any(|entry| entry.field.oneof(message) == Some(oneof)) {
            return Err(FieldError::new(oneof.name(), "value is required"));
        }
    }
    Ok(())
}

fn check_field(message: Message, field: Field, run: &[wire::Entry<'_>], depth: u32) -> Result<(), FieldError> {
    let rules = match field.rules() {
        Some(code) => Rules::new(code),
        None if run.is_empty() || !holds_rules(field) => return Ok(()),
        None => Rules::NONE,
    };
    // Rules on a member of a oneof, "required" among them, hold once it is the chosen one.
    if run.is_empty() && field.oneof(message).is_some() {
        return Ok(());
    }
    if field.is_map() {
        return check_map(field, run, rules, depth);
    }
    if field.is_repeated() {
        return check_list(field, run, rules, depth);
    }
    let value = match (run, field.kind()) {
        ([], _) if field.has_presence() => None,
        ([], kind) => Some(wire::default(kind)),
        ([.., last], Kind::Message) if run.len() == 1 => Some(last.value),
        (_, Kind::Message) => {
            return check_value(field, Some(Value::Bytes(&wire::merged(run))), rules, depth).at(field.name());
        }
        (run, _) => Some(wire::last(run)),
    };
    check_value(field, value, rules, depth).at(field.name())
}

/// Whether what the field holds has rules of its own.
fn holds_rules(field: Field) -> bool {
    field.kind() == Kind::Message && field.message().is_checked()
}

fn check_list(field: Field, run: &[wire::Entry<'_>], rules: Rules, depth: u32) -> Result<(), FieldError> {
    let values = wire::items(run).at(field.name())?;
    let mut items = Rules::NONE;
    for rule in rules {
        match rule {
            Rule::IgnoreEmpty if values.is_empty() => return Ok(()),
            Rule::Items(rules) => items = rules,
            Rule::Unique if !are_unique(&values) => {
                return wrong("repeated value must contain unique items").at(field.name());
            }
            rule => check_count(rule, values.len() as u64).at(field.name())?,
        }
    }
    for (index, value) in values.into_iter().enumerate() {
        check_value(field, Some(value), items, depth).at_index(field.name(), index)?;
    }
    Ok(())
}

fn are_unique(values: &[Value<'_>]) -> bool {
    let mut seen = HashSet::with_capacity(values.len());
    values.iter().all(|value| seen.insert((value.bits(), value.bytes())))
}

fn check_map(field: Field, run: &[wire::Entry<'_>], rules: Rules, depth: u32) -> Result<(), FieldError> {
    let (key_field, value_field) = field.map_entry();
    let (mut keys, mut values) = (Rules::NONE, Rules::NONE);
    for rule in rules {
        match rule {
            Rule::IgnoreEmpty if run.is_empty() => return Ok(()),
            Rule::Keys(rules) => keys = rules,
            Rule::Values(rules) => values = rules,
            rule => check_count(rule, run.len() as u64).at(field.name())?,
        }
    }
    for entry in run {
        let (key, value) = wire::map_pair(field, entry).at(field.name())?;
        let checked = check_value(key_field, Some(key), keys, depth)
            .and_then(|()| check_value(value_field, Some(value), values, depth + 1));
        if let Err(error) = checked {
            return Err(error).at_key(field.name(), &scalar::key_to_text(key_field, key)?);
        }
    }
    Ok(())
}

fn check_count(rule: Rule, count: u64) -> Result<(), FieldError> {
    match rule {
        Rule::MinItems(min) if count < min => wrong(format!("value must contain at least {min} item(s)")),
        Rule::MaxItems(max) if count > max => wrong(format!("value must contain no more than {max} item(s)")),
        Rule::MinPairs(min) if count < min => wrong(format!("value must contain at least {min} pair(s)")),
        Rule::MaxPairs(max) if count > max => wrong(format!("value must contain no more than {max} pair(s)")),
        _ => Ok(()),
    }
}

/// One value of a field, be it singular or an item: `None` if it is unset.
fn check_value(field: Field, value: Option<Value<'_>>, rules: Rules, depth: u32) -> Result<(), FieldError> {
    let Some(value) = value else {
        return if rules.require() { wrong("value is required") } else { Ok(()) };
    };
    if field.kind() != Kind::Message {
        return check_scalar(field, value, rules);
    }
    let message = field.message();
    match message.well_known() {
        WellKnown::Wrapper => {
            let inner = message.fields().next().expect("a wrapper has the field value");
            let entries = wire::entries(message, value.bytes())?;
            let wrapped = entries.last().map_or_else(|| wire::default(inner.kind()), |entry| entry.value);
            check_scalar(inner, wrapped, rules)
        }
        WellKnown::Duration | WellKnown::Timestamp => {
            let (seconds, nanos) = wire::time_parts(message, value.bytes())?;
            let nanos = i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos);
            rules.into_iter().try_for_each(|rule| check_int(rule, nanos, duration_text))
        }
        WellKnown::Any => {
            let (type_url, _) = wire::any_parts(message, value.bytes())?;
            rules.into_iter().try_for_each(|rule| check_type_url(rule, type_url))
        }
        _ if rules.skip() => Ok(()),
        _ => check_message(message, value.bytes(), depth + 1),
    }
}

fn check_scalar(field: Field, value: Value<'_>, rules: Rules) -> Result<(), FieldError> {
    for rule in rules {
        if matches!(rule, Rule::IgnoreEmpty) && wire::is_default(value) {
            return Ok(());
        }
        let bits = value.bits();
        match field.kind() {
            Kind::String | Kind::Bytes => text::check(rule, value.bytes())?,
            Kind::Double => check_float(rule, f64::from_bits(bits))?,
            Kind::Float => check_float(rule, scalar::shortest(f32::from_bits(bits as u32)))?,
            Kind::Bool => match rule {
                Rule::BoolConst(wanted) if wanted != (bits != 0) => return wrong(format!("value must equal {wanted}")),
                _ => {}
            },
            Kind::Enum => match rule {
                Rule::EnumDefinedOnly if field.enumeration().name_of(bits as i32).is_none() => {
                    return wrong("value must be one of the defined enum values");
                }
                rule => {
                    let name = |number: i128| {
                        let name = i32::try_from(number).ok().and_then(|number| field.enumeration().name_of(number));
                        name.map_or_else(|| number.to_string(), str::to_owned)
                    };
                    check_int(rule, scalar::integer(Kind::Enum, bits), name)?;
                }
            },
            kind => check_int(rule, scalar::integer(kind, bits), |number| number.to_string())?,
        }
    }
    Ok(())
}

/// The rules on integers, and on times in nanoseconds; `show` writes one for the message.
fn check_int(rule: Rule, value: i128, show: impl Fn(i128) -> String) -> Result<(), FieldError> {
    match rule {
        Rule::IntConst(wanted) if value != wanted => wrong(format!("value must equal {}", show(wanted))),
        Rule::IntRange { bounds, lower, upper } if !is_within(bounds, &lower, &upper, &value) => {
            wrong(range_reason(bounds, lower <= upper, show(lower), show(upper)))
        }
        Rule::IntIn(list) if !list.iter().any(|item| item == value) => {
            wrong(format!("value must be in list {}", listed(list.iter().map(show))))
        }
        Rule::IntNotIn(list) if list.iter().any(|item| item == value) => {
            wrong(format!("value must not be in list {}", listed(list.iter().map(show))))
        }
        _ => Ok(()),
    }
}

fn check_float(rule: Rule, value: f64) -> Result<(), FieldError> {
    match rule {
        Rule::FloatConst(wanted) if value != wanted => wrong(format!("value must equal {wanted}")),
        Rule::FloatRange { bounds, lower, upper } if !is_within(bounds, &lower, &upper, &value) => {
            wrong(range_reason(bounds, lower <= upper, lower, upper))
        }
        Rule::FloatIn(list) if !list.iter().any(|item| item == value) => {
            wrong(format!("value must be in list {}", listed(list.iter())))
        }
        Rule::FloatNotIn(list) if list.iter().any(|item| item == value) => {
            wrong(format!("value must not be in list {}", listed(list.iter())))
        }
        _ => Ok(()),
    }
}

fn check_type_url(rule: Rule, type_url: &str) -> Result<(), FieldError> {
    let is_listed = |list: rules::Texts| list.iter().any(|item| item == type_url.as_bytes());
    match rule {
        Rule::AnyIn(list) if !is_listed(list) => {
            wrong(format!("type URL must be in list {}", listed(text::shown(list))))
        }
        Rule::AnyNotIn(list) if is_listed(list) => {
            wrong(format!("type URL must not be in list {}", listed(text::shown(list))))
        }
        _ => Ok(()),
    }
}

/// With both bounds, a lower one above the upper one means "outside of", as the rules have it. NaN is within nothing.
fn is_within<N: PartialOrd>(bounds: u8, lower: &N, upper: &N, value: &N) -> bool {
    let above = if bounds & bound::LOWER_INCLUSIVE != 0 { value >= lower } else { value > lower };
    let below = if bounds & bound::UPPER_INCLUSIVE != 0 { value <= upper } else { value < upper };
    match (bounds & bound::LOWER != 0, bounds & bound::UPPER != 0) {
        (true, true) if lower > upper => above || below,
        (true, true) => above && below,
        (true, false) => above,
        (false, _) => below,
    }
}

fn range_reason(bounds: u8, ordered: bool, lower: impl Display, upper: impl Display) -> String {
    let (lower_inclusive, upper_inclusive) =
        (bounds & bound::LOWER_INCLUSIVE != 0, bounds & bound::UPPER_INCLUSIVE != 0);
    let or_equal = |inclusive: bool| if inclusive { "or equal to " } else { "" };
    let open = |inclusive: bool| if inclusive { '[' } else { '(' };
    let close = |inclusive: bool| if inclusive { ']' } else { ')' };
    match (bounds & bound::LOWER != 0, bounds & bound::UPPER != 0) {
        (true, true) if ordered => {
            format!("value must be inside range {}{lower}, {upper}{}", open(lower_inclusive), close(upper_inclusive))
        }
        // What is forbidden lies between the upper and the lower bound, and has in it the bounds that are not allowed.
        (true, true) => {
            format!("value must be outside range {}{upper}, {lower}{}", open(!upper_inclusive), close(!lower_inclusive))
        }
        (true, false) => format!("value must be greater than {}{lower}", or_equal(lower_inclusive)),
        (false, _) => format!("value must be less than {}{upper}", or_equal(upper_inclusive)),
    }
}

/// `[a, b]`
fn listed(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// Nanoseconds as a duration's text, for a message.
fn duration_text(nanos: i128) -> String {
    let seconds = i64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(i64::MAX);
    time::print_duration(seconds, (nanos % NANOS_PER_SECOND) as i32).unwrap_or_else(|_| format!("{nanos}ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All rules of the tables, those of items, keys and values too.
    fn all_rules() -> Vec<Rule> {
        fn collect(rules: Rules, all: &mut Vec<Rule>) {
            for rule in rules {
                all.push(rule);
                if let Rule::Items(inner) | Rule::Keys(inner) | Rule::Values(inner) = rule {
                    collect(inner, all);
                }
            }
        }
        let mut all = Vec::new();
        let codes = Message::all().flat_map(Message::fields).filter_map(Field::rules);
        codes.for_each(|code| collect(Rules::new(code), &mut all));
        all
    }

    #[test]
    fn every_rule_decodes_and_every_pattern_compiles() {
        let rules = all_rules();
        assert!(rules.len() > 1000, "{}", rules.len());
        let patterns: Vec<_> = rules.into_iter().filter(|rule| matches!(rule, Rule::Pattern { .. })).collect();
        assert!(patterns.len() >= crate::tables::PATTERNS);
        for pattern in patterns {
            if let Err(error) = text::check(pattern, b"x") {
                assert!(error.reason().starts_with("value does not match regex pattern"), "{error}");
            }
        }
    }

    fn integer(rule: Rule, value: i128) -> String {
        check_int(rule, value, |number| number.to_string())
            .map_or_else(|error| error.to_string(), |()| "valid".to_owned())
    }

    #[test]
    fn ranges_of_every_shape() {
        let range = |bounds, lower, upper| Rule::IntRange { bounds, lower, upper };
        let (gt, gte, lt, lte) =
            (bound::LOWER, bound::LOWER | bound::LOWER_INCLUSIVE, bound::UPPER, bound::UPPER | bound::UPPER_INCLUSIVE);
        let cases = [
            (range(gt, 1, 0), [1, 2], "value must be greater than 1"),
            (range(gte, 1, 0), [0, 1], "value must be greater than or equal to 1"),
            (range(lt, 0, 5), [5, 4], "value must be less than 5"),
            (range(lte, 0, 5), [6, 5], "value must be less than or equal to 5"),
            (range(gte | lt, 1, 5), [5, 1], "value must be inside range [1, 5)"),
            (range(gt | lte, 1, 5), [1, 5], "value must be inside range (1, 5]"),
            // The bounds the other way round allow what lies outside of them.
            (range(gt | lt, 5, 1), [5, 6], "value must be outside range [1, 5]"),
            (range(gt | lt, 5, 1), [1, 0], "value must be outside range [1, 5]"),
            (range(gte | lte, 5, 1), [3, 5], "value must be outside range (1, 5)"),
        ];
        for (rule, [bad, good], reason) in cases {
            assert_eq!(integer(rule, bad), reason);
            assert_eq!(integer(rule, good), "valid", "{rule:?}");
        }
        assert_eq!(integer(Rule::IntConst(5), 5), "valid");
        assert_eq!(integer(Rule::IntConst(5), 6), "value must equal 5");
    }

    #[test]
    fn floats_equal_and_lie_within() {
        let reason =
            |rule, value| check_float(rule, value).map_or_else(|error| error.to_string(), |()| "valid".to_owned());
        assert_eq!(reason(Rule::FloatConst(0.5), 0.5), "valid");
        assert_eq!(reason(Rule::FloatConst(0.5), 0.6), "value must equal 0.5");
        let range = Rule::FloatRange { bounds: bound::LOWER, lower: 0.5, upper: 0.0 };
        assert_eq!(reason(range, 0.6), "valid");
        assert_eq!(reason(range, f64::NAN), "value must be greater than 0.5");
    }
}
