//! `envoy.config.bootstrap.v3.LayeredRuntime`: values by name, in layers of which the last that has a name wins. Those of the
//! bootstrap are shown (`/runtime`); layers that change while the proxy runs are refused, but for the admin server's, which has
//! no way to get a value.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_xds::{
    FieldError,
    json::{self as proto_json, FieldNames},
    pb::{
        envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer, runtime_layer::LayerSpecifier},
        google::protobuf::Struct,
    },
};

use crate::config::field::{self, Result, unsupported};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeValues {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    name: String,
    values: BTreeMap<String, String>,
}

const LISTENER_LIMIT_PREFIX: &str = "envoy.resource_limits.listener.";
const LISTENER_LIMIT_SUFFIX: &str = ".connection_limit";
const PROCESS_LIMIT: &str = "overload.global_downstream_max_connections";
/// Deeper than any name is written.
const DEPTH_MAX: usize = 32;

impl RuntimeValues {
    pub(crate) fn from_proto(message: LayeredRuntime) -> Result<Self> {
        let LayeredRuntime { layers } = message;
        let mut names = Vec::new();
        let mut has_admin_layer = false;
        let layers = field::each(layers, "layers", |message| {
            let RuntimeLayer { name, layer_specifier } = message;
            if names.contains(&name) {
                return Err(FieldError::new("name", format!("Duplicate layer name: {name}")));
            }
            names.push(name.clone());
            let values = match layer_specifier {
                Some(LayerSpecifier::StaticLayer(layer)) => flattened(&layer)?,
                Some(LayerSpecifier::AdminLayer(_)) if has_admin_layer => {
                    let reason = "Too many admin layers specified in LayeredRuntime, at most one may be specified";
                    return Err(FieldError::new("admin_layer", reason));
                }
                Some(LayerSpecifier::AdminLayer(_)) => {
                    has_admin_layer = true;
                    BTreeMap::new()
                }
                Some(LayerSpecifier::DiskLayer(_)) => return Err(unsupported("disk_layer")),
                Some(LayerSpecifier::RtdsLayer(_)) => return Err(unsupported("rtds_layer")),
                None => return Err(FieldError::new("layer_specifier", "value is required")),
            };
            Ok(Layer { name, values })
        })?;
        Ok(Self { layers })
    }

    /// `default` where no layer has the name, or what it has is neither `true` nor `false`.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        let values = self.layers.iter().rev().filter_map(|layer| layer.values.get(name));
        values.filter_map(|value| value.parse().ok()).next().unwrap_or(default)
    }

    /// Every name that some layer has.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().flat_map(|layer| layer.values.keys()).map(String::as_str)
    }

    /// What the last layer that has the name says, where that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.layers.iter().rev().find_map(|layer| layer.values.get(name)).and_then(|value| value.parse().ok())
    }

    /// How many connections a listener may have open.
    pub fn listener_connections_max(&self, listener: &str) -> Option<usize> {
        let limit = self.number(&format!("{LISTENER_LIMIT_PREFIX}{listener}{LISTENER_LIMIT_SUFFIX}"))?;
        usize::try_from(limit).ok()
    }

    /// How many the process may have open, as it was said before there was a monitor of the overload manager for that.
    pub fn process_connections_max(&self) -> Option<usize> {
        usize::try_from(self.number(PROCESS_LIMIT)?).ok()
    }

    /// Names that nothing here depends on.
    pub fn unread_names(&self) -> impl Iterator<Item = &str> {
        let is_limit = |name: &str| name.starts_with(LISTENER_LIMIT_PREFIX) && name.ends_with(LISTENER_LIMIT_SUFFIX);
        self.names().filter(move |name| *name != PROCESS_LIMIT && !is_limit(name))
    }

    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// As Envoy's `/runtime` has it.
    pub fn to_json(&self) -> Value {
        let mut entries = BTreeMap::new();
        for name in self.names() {
            let values: Vec<&str> =
                self.layers.iter().map(|layer| layer.values.get(name).map_or("", String::as_str)).collect();
            let last = values.iter().rev().find(|value| !value.is_empty()).copied().unwrap_or_default();
            entries.insert(name, json!({ "final_value": last, "layer_values": values }));
        }
        let layers: Vec<&str> = self.layers.iter().map(|layer| layer.name.as_str()).collect();
        json!({ "entries": entries, "layers": layers })
    }
}

/// Names of nested values are joined by dots; what looks like a fraction is one value.
fn flattened(layer: &Struct) -> Result<BTreeMap<String, String>> {
    let value = proto_json::to_value(layer, FieldNames::Proto)?;
    let mut values = BTreeMap::new();
    flatten("", &value, 0, &mut values)?;
    Ok(values)
}

fn flatten(path: &str, value: &Value, depth: usize, values: &mut BTreeMap<String, String>) -> Result<()> {
    let refusal = |reason: &str| Err(FieldError::new(format!("static_layer[{path:?}]"), reason));
    let text = match value {
        _ if depth > DEPTH_MAX => return refusal("nested too deeply"),
        Value::Object(fields) if fields.contains_key("numerator") || fields.contains_key("denominator") => {
            value.to_string()
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, depth + 1, values)?;
            }
            return Ok(());
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => number_or_bool(value),
        Value::Array(_) | Value::Null => return refusal("Invalid runtime entry value"),
    };
    values.insert(path.to_owned(), text);
    Ok(())
}

/// A whole number without the fraction that every number of a Struct has.
fn number_or_bool(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn values(yaml: &str) -> Result<RuntimeValues> {
        RuntimeValues::from_proto(message(yaml))
    }

    #[test]
    fn the_last_layer_that_has_a_name_wins() {
        let values = values(
            "layers: [{name: base, static_layer: {a: {b: 1, c: text}, d: true, f: {numerator: 1}}}, {name: over, \
             static_layer: {a.b: 2.5}}, {name: admin, admin_layer: {}}]",
        )
        .unwrap();
        assert_eq!(
            values.to_json(),
            json!({
                "entries": {
                    "a.b": {"final_value": "2.5", "layer_values": ["1", "2.5", ""]},
                    "a.c": {"final_value": "text", "layer_values": ["text", "", ""]},
                    "d": {"final_value": "true", "layer_values": ["true", "", ""]},
                    "f": {"final_value": "{\"numerator\":1}", "layer_values": ["{\"numerator\":1}", "", ""]},
                },
                "layers": ["base", "over", "admin"],
            })
        );
    }

    #[test]
    fn connections_may_be_limited_by_the_runtime() {
        let values = values(
            "layers: [{name: a, static_layer: {envoy.resource_limits.listener.l.connection_limit: 7, x: 1}}, {name: b, \
             static_layer: {envoy: {resource_limits: {listener: {l: {connection_limit: 5}}}}, \
             overload.global_downstream_max_connections: 9}}]",
        )
        .unwrap();
        assert_eq!((values.listener_connections_max("l"), values.listener_connections_max("m")), (Some(5), None));
        assert_eq!(values.process_connections_max(), Some(9));
        assert_eq!(values.unread_names().collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn layers_that_change_are_refused() {
        for (layers, expected) in [
            ("{name: a, disk_layer: {symlink_root: x}}", "layers[0].disk_layer: not supported"),
            ("{name: a, static_layer: {}}, {name: a, static_layer: {}}", "layers[1].name: Duplicate layer name: a"),
            (
                "{name: a, admin_layer: {}}, {name: b, admin_layer: {}}",
                "layers[1].admin_layer: Too many admin layers specified in LayeredRuntime, at most one may be specified",
            ),
            ("{name: a, static_layer: {b: [1]}}", "layers[0].static_layer[\"b\"]: Invalid runtime entry value"),
        ] {
            assert_eq!(refusal(values(&format!("layers: [{layers}]"))), expected);
        }
    }
}
