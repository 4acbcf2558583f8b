//! One file's text into documents, one document into objects of the model. Pure.
//!
//! Wrong types and values refuse the document; fields that Kubernetes doesn't know, and kinds that nobody knows, are
//! remarked on and left out.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::registry::{Object, ObjectKey};
use crate::source::kubernetes::{FieldProblem, Kind, Raw, is_irrelevant};

/// The text between two `---`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    /// The line of the file that its text begins on, counted from 1.
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// What a document says.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Each with the object that it converts to, if the mesh has a use for it.
    pub(super) objects: Vec<(ObjectKey, Option<Object>)>,
    pub(super) ignored: Vec<FieldProblem>,
}

/// How a file is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Yaml,
    Json,
}

/// Cuts a file at its document markers. A line that begins with `---` is one wherever it stands in YAML: neither a
/// quoted nor a block scalar may hold such a line.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            documents.push((start_line, &text[start..offset]));
            // What follows on the marker's line belongs to the new document.
            (start, start_line) = (offset + 3, index + 1);
        }
        offset += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents
        .into_iter()
        .filter(|(_, text)| !is_blank(text))
        .enumerate()
        .map(|(index, (line, text))| Document { number: index + 1, line, text })
        .collect()
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Only comments, directives and end markers: what stands before the first `---` of many files.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "...")
}

pub(super) fn parse(document: &Document<'_>, syntax: Syntax) -> Result<Content, FieldProblem> {
    let value: Value = match syntax {
        Syntax::Yaml => serde_saphyr::from_str_with_options(document.text, yaml_options()).map_err(|error| {
            let at = error.location().map_or(String::new(), |location| {
                format!("line {}, column {}: ", document.line + location.line() as usize - 1, location.column())
            });
            FieldProblem::new("", format!("{at}{}", first_line(&error.without_snippet().to_string())))
        })?,
        Syntax::Json => {
            serde_json::from_str(document.text).map_err(|error| FieldProblem::new("", error.to_string()))?
        }
    };
    let mut content = Content::default();
    read(value, "", None, &mut content)?;
    Ok(content)
}

fn yaml_options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    // A document may be a List of every object of a cluster: fifty thousand endpoints take less than half of it. Each node
    // takes some fifty bytes while it is read.
    budget.max_nodes = 2_000_000;
    budget.max_events = 4_000_000;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// Reads an object, or the objects of a list. `within` is the path of the object in its document, `implied` the kind of
/// a list's items, which the API server leaves out.
fn read(value: Value, within: &str, implied: Option<(&str, &str)>, content: &mut Content) -> Result<(), FieldProblem> {
    let at = |field: &str| if within.is_empty() { field.to_owned() } else { format!("{within}.{field}") };
    let Value::Object(mut fields) = value else {
        let path = if within.is_empty() { String::new() } else { within.to_owned() };
        return Err(FieldProblem::new(path, "is not an object with apiVersion and kind"));
    };
    let word = |field: &'static str, implied: Option<&str>| match (fields.get(field), implied) {
        (Some(Value::String(word)), _) => Ok(word.clone()),
        (Some(_), _) => Err(FieldProblem::new(at(field), "is not a string")),
        (None, Some(implied)) => Ok(implied.to_owned()),
        (None, None) => Err(FieldProblem::new(at(field), "is required")),
    };
    let api_version = word("apiVersion", implied.map(|(api_version, _)| api_version))?;
    let kind = word("kind", implied.map(|(_, kind)| kind))?;

    if let Some(item_kind) = kind.strip_suffix("List")
        && fields.contains_key("items")
    {
        let Some(Value::Array(items)) = fields.remove("items") else {
            return Err(FieldProblem::new(at("items"), "is not a list"));
        };
        if !within.is_empty() {
            return Err(FieldProblem::new(within, "is a list within a list"));
        }
        let implied = (!item_kind.is_empty()).then_some((api_version.as_str(), item_kind));
        for (index, item) in items.into_iter().enumerate() {
            read(item, &format!("items[{index}]"), implied, content)?;
        }
        return Ok(());
    }
    let Some(known) = Kind::of(&api_version, &kind) else {
        if is_irrelevant(&api_version, &kind) {
            tracing::debug!(api_version, kind, "this kind has no meaning to the mesh");
        } else {
            let reason = format!("apiVersion {api_version:?} with kind {kind:?} is not known");
            content.ignored.push(FieldProblem::new(within, reason));
        }
        return Ok(());
    };
    let raw = decode(known, Value::Object(fields), within, &mut content.ignored)?;
    let prefixed = |problem: FieldProblem| FieldProblem::new(at(&problem.path), problem.reason);
    content.ignored.extend(raw.unsupported().into_iter().map(prefixed));
    content.objects.push((raw.key().map_err(prefixed)?, raw.convert().map_err(prefixed)?));
    Ok(())
}

fn decode(kind: Kind, mut value: Value, within: &str, ignored: &mut Vec<FieldProblem>) -> Result<Raw, FieldProblem> {
    Ok(match kind {
        Kind::Service => Raw::Service(Box::new(typed::<Service>(&value, within, ignored)?)),
        Kind::EndpointSlice => Raw::EndpointSlice(Box::new(typed::<EndpointSlice>(&value, within, ignored)?)),
        Kind::Pod => {
            quantities_as_text(&mut value);
            Raw::Pod(Box::new(typed::<Pod>(&value, within, ignored)?))
        }
        Kind::Node => {
            quantities_as_text(&mut value);
            Raw::Node(Box::new(typed::<Node>(&value, within, ignored)?))
        }
        Kind::Namespace => Raw::Namespace(Box::new(typed::<Namespace>(&value, within, ignored)?)),
    })
}

fn typed<T: DeserializeOwned + Serialize>(
    value: &Value,
    within: &str,
    ignored: &mut Vec<FieldProblem>,
) -> Result<T, FieldProblem> {
    let typed = serde_path_to_error::deserialize::<_, T>(value).map_err(|error| {
        // The path of the object itself is written as a dot.
        let path = match error.path().to_string().as_str() {
            "." => within.to_owned(),
            path if within.is_empty() => path.to_owned(),
            path => format!("{within}.{path}"),
        };
        FieldProblem::new(path, error.inner().to_string())
    })?;
    // A field that the type does not know does not come back from it.
    let known = serde_json::to_value(&typed).map_err(|error| FieldProblem::new(within, error.to_string()))?;
    unknown_fields(value, &known, within, ignored);
    Ok(typed)
}

fn unknown_fields(value: &Value, known: &Value, path: &str, ignored: &mut Vec<FieldProblem>) {
    match (value, known) {
        (Value::Object(value), Value::Object(known)) => {
            for (key, value) in value.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => unknown_fields(value, known, &path, ignored),
                    None if ignored.len() < IGNORED_FIELDS_MAX => {
                        ignored.push(FieldProblem::new(path, "is not a field of this kind"));
                    }
                    None => return,
                }
            }
        }
        (Value::Array(value), Value::Array(known)) => {
            for (index, (value, known)) in value.iter().zip(known).enumerate() {
                unknown_fields(value, known, &format!("{path}[{index}]"), ignored);
            }
        }
        _ => {}
    }
}

/// How many unknown fields of one document are told of.
const IGNORED_FIELDS_MAX: usize = 32;

/// Amounts may be written as numbers (`cpu: 1`), which Kubernetes takes for their text.
fn quantities_as_text(value: &mut Value) {
    let to_text = |value: &mut Value| {
        if let Value::Number(number) = value {
            *value = Value::String(number.to_string());
        }
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("limits" | "requests" | "overhead" | "capacity" | "allocatable", Value::Object(amounts)) => {
                        amounts.values_mut().for_each(to_text);
                    }
                    ("sizeLimit" | "divisor", value) => to_text(value),
                    (_, value) => quantities_as_text(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_as_text),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
