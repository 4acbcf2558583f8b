//! YAML text to a `serde_json::Value`, typed as Envoy types it as far as that is sane.
//!
//! Plain scalars: `null` and `~`, `true` and `false`, decimal, `0x` and octal (`0o17`, and `017` as Envoy reads it) integers and
//! floats in their shortest spelling are typed. Everything else is a string: what is quoted, `yes`, `on`, dates, and numbers
//! that would not print as they were written (1.10, a version more often than a number), which number fields take all the
//! same. Anchors, aliases and merge keys work. Bounds: [`DEPTH_MAX`] levels, counted after aliases are expanded, and
//! [`COPIED_BYTES_MAX`] in copies for anchors and aliases, so that a small document cannot unfold into a huge one.

use super::read::path_step;
use crate::error::{FieldError, wrong};
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

/// Levels of nesting. More than a message can have, as lists count here and not there.
const DEPTH_MAX: usize = 200;
/// What anchors and aliases may copy in all, about. People's configurations repeat kilobytes.
const COPIED_BYTES_MAX: usize = 64 << 20;
/// What a value takes beside its text, about.
const VALUE_BYTES: usize = 64;

/// Reads one YAML document. A key written twice is refused with its path and line, bad syntax with line and column.
pub fn yaml_to_value(text: &str) -> Result<Value, FieldError> {
    let mut options = granit_parser::options! { block_nesting_limit: DEPTH_MAX, flow_nesting_limit: DEPTH_MAX };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut loader = Loader { parser, anchors: HashMap::new(), copied_bytes: 0, syntax: None };
    loader.document().map_err(|error| loader.syntax.take().unwrap_or(error))
}

struct Loader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    /// What was copied for anchors and aliases so far.
    copied_bytes: usize,
    /// The error that ended parsing. It is about the text, so the path of the value at hand would only mislead.
    syntax: Option<FieldError>,
}

/// A value and what it costs to repeat it.
#[derive(Clone)]
struct Node {
    value: Value,
    /// What a copy takes, about.
    bytes: usize,
    /// The levels below it.
    height: usize,
}

impl<'t> Loader<'t> {
    fn document(&mut self) -> Result<Value, FieldError> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return document.map_or_else(|| wrong("the document is empty"), Ok),
                _ if document.is_some() => {
                    return Err(at(span.start, "there is a second document, only one is wanted"));
                }
                event => document = Some(self.node(event, span, 0)?.value),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), FieldError> {
        let error = match self.parser.next_event() {
            Some(Ok(event)) => return Ok(event),
            Some(Err(error)) => syntax(&error),
            None => FieldError::new("", "not valid YAML: the document ends too early"),
        };
        self.syntax = Some(error.clone());
        Err(error)
    }

    /// The node that `event` starts, at `depth` levels.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, FieldError> {
        if depth > DEPTH_MAX {
            return Err(at(span.start, &format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let bytes = VALUE_BYTES + text.len();
                let value =
                    scalar(text.into_owned(), style, tag.as_deref()).map_err(|reason| at(span.start, &reason))?;
                (Node { value, bytes, height: 0 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_tag(tag.as_deref(), "seq", span)?;
                (self.sequence(depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                no_tag(tag.as_deref(), "map", span)?;
                (self.mapping(depth)?, anchor)
            }
            _ => return Err(at(span.start, "not valid YAML: a value is missing")),
        };
        if anchor != 0 {
            self.copy(node.bytes, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Node, FieldError> {
        // An anchor is known once its node is complete, so an alias within its own anchor's node finds nothing.
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(at(span.start, "an alias stands within what it refers to"));
        };
        if depth + node.height > DEPTH_MAX {
            return Err(at(span.start, &format!("aliases nest deeper than {DEPTH_MAX} levels")));
        }
        let bytes = node.bytes;
        self.copy(bytes, span)?;
        Ok(self.anchors[&anchor].clone())
    }

    /// Accounts for a copy before it is made.
    fn copy(&mut self, bytes: usize, span: Span) -> Result<(), FieldError> {
        self.copied_bytes = self.copied_bytes.saturating_add(bytes);
        if self.copied_bytes > COPIED_BYTES_MAX {
            return Err(at(span.start, "anchors and aliases repeat more than 64 MiB"));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, FieldError> {
        let (mut items, mut bytes, mut height) = (Vec::new(), VALUE_BYTES, 0);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node { value: Value::Array(items), bytes, height: height + 1 });
            }
            let item =
                self.node(event, span, depth + 1).map_err(|error| error.within(&format!("[{}]", items.len())))?;
            bytes += item.bytes;
            height = height.max(item.height);
            items.push(item.value);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, FieldError> {
        let (mut object, mut bytes, mut height) = (Map::new(), VALUE_BYTES, 0);
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let (key, is_merge) = self.key(event, span, depth)?;
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1).map_err(|error| error.within(&path_step(&key)))?;
            bytes += key.len() + value.bytes;
            height = height.max(value.height);
            if is_merge {
                merges.push((value.value, value_span));
                continue;
            }
            if object.contains_key(&key) {
                let reason = format!("is written twice, again at line {}", span.start.line());
                return Err(FieldError::new(path_step(&key), reason));
            }
            object.insert(key, value.value);
        }
        for (value, span) in merges {
            merge_key(&mut object, value, span)?;
        }
        Ok(Node { value: Value::Object(object), bytes, height: height + 1 })
    }

    /// A key and whether it is the merge key. Protobuf maps may have numbers as keys, so any scalar's text will do.
    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<(String, bool), FieldError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                if anchor != 0 {
                    let (value, bytes) = (Value::from(text.as_ref()), VALUE_BYTES + text.len());
                    self.copy(bytes, span)?;
                    self.anchors.insert(anchor, Node { value, bytes, height: 0 });
                }
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                Ok((text.into_owned(), is_merge))
            }
            Event::Alias(anchor) => match self.alias(anchor, span, depth)?.value {
                Value::String(text) => Ok((text, false)),
                _ => Err(at(span.start, "a key must be a string")),
            },
            _ => Err(at(span.start, "a key must be a string")),
        }
    }
}

/// `<<: *base` or `<<: [*first, *second]`: keys that are there already win, and earlier ones win over later ones.
fn merge_key(object: &mut Map<String, Value>, value: Value, span: Span) -> Result<(), FieldError> {
    let sources = match value {
        Value::Array(sources) => sources,
        source => vec![source],
    };
    for source in sources {
        let Value::Object(source) = source else { return Err(at(span.start, "<< merges mappings only")) };
        for (key, value) in source {
            object.entry(key).or_insert(value);
        }
    }
    Ok(())
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::String(text) });
    };
    let name = tag.suffix_in_namespace("tag:yaml.org,2002:");
    match name.as_deref() {
        Some("str" | "binary") => return Ok(Value::String(text)),
        None if tag.original() == "!" => return Ok(Value::String(text)),
        _ => {}
    }
    let value = plain(text);
    match (name.as_deref(), &value) {
        (Some("null"), Value::Null) | (Some("bool"), Value::Bool(_)) | (Some("float"), Value::Number(_)) => Ok(value),
        (Some("int"), Value::Number(number)) if !number.is_f64() => Ok(value),
        (Some("null" | "bool" | "float" | "int"), _) => {
            Err(format!("the value is not what its tag {} says", tag.original()))
        }
        _ => Err(format!("tag {} is not supported", tag.original())),
    }
}

fn no_tag(tag: Option<&Tag>, allowed: &str, span: Span) -> Result<(), FieldError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(allowed) => {
            Err(at(span.start, &format!("tag {} is not supported", tag.original())))
        }
        _ => Ok(()),
    }
}

/// The type of an unquoted scalar.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::from("NaN"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::from("Infinity"),
        "-.inf" | "-.Inf" | "-.INF" => return Value::from("-Infinity"),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::String(text);
    }
    integer(&text).or_else(|| float(&text)).unwrap_or(Value::String(text))
}

/// An integer that 64 bits hold; a larger one stays text, which loses nothing.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        (16, hex)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        (8, octal)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None; // from_str_radix would take a second sign
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number).map(Value::from).or_else(|_| u64::try_from(number).map(Value::from)).ok()
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    let looks_like_one =
        unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.contains(['.', 'e', 'E']);
    if !looks_like_one || !unsigned.chars().all(decimal) {
        return None;
    }
    let number = Number::from_f64(text.parse().ok()?)?;
    (number.to_string() == text).then_some(Value::Number(number))
}

fn at(place: Marker, reason: &str) -> FieldError {
    FieldError::new("", format!("{reason} (line {}, column {})", place.line(), place.col() + 1))
}

fn syntax(error: &ScanError) -> FieldError {
    at(*error.marker(), &format!("not valid YAML: {}", error.info()))
}
