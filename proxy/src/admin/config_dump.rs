//! `/config_dump`: which parts of the dump are wanted, as the query says. Pure: on the dump's JSON.

use regex::Regex;
use serde_json::{Map, Value, json};

/// `resource`, `mask` and `name_regex` of a query.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    resource: Option<String>,
    /// Paths of fields.
    mask: Vec<String>,
    name_regex: Option<Regex>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What is asked for makes no sense.
    Bad(String),
    NotFound(String),
}

/// A repeated field of a part of the dump: what its elements are, and where the name of one is.
struct Resource {
    field: &'static str,
    type_name: &'static str,
    name_path: &'static [&'static str],
}

const fn resource(field: &'static str, type_name: &'static str, name_path: &'static [&'static str]) -> Resource {
    Resource { field, type_name, name_path }
}

const RESOURCES: &[Resource] = &[
    resource("static_clusters", "ClustersConfigDump.StaticCluster", &["cluster", "name"]),
    resource("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster", &["cluster", "name"]),
    resource("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster", &["cluster", "name"]),
    resource("static_listeners", "ListenersConfigDump.StaticListener", &["listener", "name"]),
    resource("dynamic_listeners", "ListenersConfigDump.DynamicListener", &["name"]),
    resource("static_route_configs", "RoutesConfigDump.StaticRouteConfig", &["route_config", "name"]),
    resource("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig", &["route_config", "name"]),
    resource("static_secrets", "SecretsConfigDump.StaticSecret", &["name"]),
    resource("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret", &["name"]),
    resource("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret", &["name"]),
    resource(
        "static_endpoint_configs",
        "EndpointsConfigDump.StaticEndpointConfig",
        &["endpoint_config", "cluster_name"],
    ),
    resource(
        "dynamic_endpoint_configs",
        "EndpointsConfigDump.DynamicEndpointConfig",
        &["endpoint_config", "cluster_name"],
    ),
];

/// Fields of the parts that are not repeated.
const SINGLE_FIELDS: [&str; 3] = ["bootstrap", "last_updated", "version_info"];

impl Wanted {
    pub(super) fn parse(query: impl Iterator<Item = (String, String)>) -> Result<Self, Refusal> {
        let mut wanted = Self::default();
        for (name, value) in query.filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "resource" => wanted.resource = Some(value),
                "mask" => wanted.mask = value.split(',').map(str::to_owned).collect(),
                "name_regex" => {
                    let regex = Regex::new(&value).map_err(|_| {
                        Refusal::Bad(format!("Error while parsing name_regex from {value}: not a regular expression"))
                    })?;
                    wanted.name_regex = Some(regex);
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// `{"configs": [...]}` of what is wanted.
    pub(super) fn select(&self, dump: Value) -> Result<Value, Refusal> {
        let Some(Value::Array(parts)) = dump.get("configs").cloned() else { return Ok(dump) };
        let configs = match &self.resource {
            Some(field) => self.elements(field, &parts)?,
            None => {
                let shown: Vec<Value> = parts.into_iter().filter_map(|part| self.part(part)).collect();
                if shown.is_empty() && !self.mask.is_empty() {
                    let mask = self.mask.join(",");
                    let reason = format!("FieldMask {mask} could not be successfully applied to any configs.");
                    return Err(Refusal::Bad(reason));
                }
                shown
            }
        };
        Ok(json!({ "configs": configs }))
    }

    fn elements(&self, field: &str, parts: &[Value]) -> Result<Vec<Value>, Refusal> {
        let Some(resource) = RESOURCES.iter().find(|resource| resource.field == field) else {
            return Err(match SINGLE_FIELDS.contains(&field) {
                true => {
                    Refusal::Bad(format!("{field} is not a repeated field. Use ?mask={field} to get only this field"))
                }
                false => Refusal::NotFound(format!("{field} not found in config dump")),
            });
        };
        let all = parts.iter().filter_map(|part| part.get(field)?.as_array()).flatten();
        let elements: Vec<&Value> = all.filter(|element| self.has_name(resource, element)).collect();
        let is_of_mask = |element: &&Value| self.masked(element).as_object().is_some_and(|fields| !fields.is_empty());
        if !self.mask.is_empty() && !elements.is_empty() && !elements.iter().any(is_of_mask) {
            let mask = self.mask.join(",");
            return Err(Refusal::Bad(format!("FieldMask {mask} could not be successfully used.")));
        }
        let wanted = elements.into_iter().map(|element| {
            let mut shown = Map::new();
            shown.insert(
                "@type".to_owned(),
                format!("type.googleapis.com/envoy.admin.v3.{}", resource.type_name).into(),
            );
            match self.masked(element) {
                Value::Object(fields) => shown.extend(fields),
                other => return other,
            }
            Value::Object(shown)
        });
        Ok(wanted.collect())
    }

    /// None: the mask is of another part.
    fn part(&self, mut part: Value) -> Option<Value> {
        let fields = part.as_object_mut()?;
        for resource in RESOURCES {
            if let Some(Value::Array(elements)) = fields.get_mut(resource.field) {
                elements.retain(|element| self.has_name(resource, element));
            }
        }
        if self.mask.is_empty() {
            return Some(part);
        }
        let is_of_part = |path: &String| part.get(path.split('.').next().unwrap_or_default()).is_some();
        self.mask.iter().all(is_of_part).then(|| self.masked(&part))
    }

    fn has_name(&self, resource: &Resource, element: &Value) -> bool {
        let Some(regex) = &self.name_regex else { return true };
        let name = resource.name_path.iter().try_fold(element, |value, field| value.get(field));
        name.and_then(Value::as_str).is_some_and(|name| regex.is_match(name))
    }

    /// Only the fields of the mask, as `google.protobuf.FieldMask` has it: a path ends at a repeated field.
    fn masked(&self, value: &Value) -> Value {
        if self.mask.is_empty() {
            return value.clone();
        }
        let mut kept = Value::Object(Map::new());
        for path in &self.mask {
            let path: Vec<&str> = path.split('.').collect();
            keep(value, &path, &mut kept);
        }
        kept
    }
}

fn keep(from: &Value, path: &[&str], into: &mut Value) {
    let (Value::Object(from), Value::Object(into)) = (from, into) else { return };
    if let Some(type_url) = from.get("@type") {
        into.entry("@type").or_insert_with(|| type_url.clone());
    }
    let Some((first, rest)) = path.split_first() else { return };
    let Some(value) = from.get(*first) else { return };
    if rest.is_empty() {
        into.insert((*first).to_owned(), value.clone());
    } else if value.is_object() {
        keep(value, rest, into.entry(*first).or_insert_with(|| Value::Object(Map::new())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Value {
        json!({ "configs": [
            { "@type": "B", "bootstrap": { "node": { "id": "n" }, "admin": {} } },
            { "@type": "C", "version_info": "1", "static_clusters": [
                { "cluster": { "@type": "T", "name": "a", "type": "EDS" }, "last_updated": "x" },
                { "cluster": { "@type": "T", "name": "b" } },
            ] },
        ] })
    }

    fn selected(query: &[(&str, &str)]) -> Result<Value, Refusal> {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut selected = Wanted::parse(query)?.select(dump())?;
        Ok(selected["configs"].take())
    }

    #[test]
    fn parts_are_selected_by_mask_and_name() {
        assert_eq!(selected(&[]).unwrap().as_array().map(Vec::len), Some(2));
        let masked = selected(&[("mask", "bootstrap.node")]).unwrap();
        assert_eq!(masked, json!([{ "@type": "B", "bootstrap": { "node": { "id": "n" } } }]));
        let named = selected(&[("name_regex", "^b$")]).unwrap();
        assert_eq!(named[1]["static_clusters"], json!([{ "cluster": { "@type": "T", "name": "b" } }]));
    }

    #[test]
    fn a_resource_is_told_element_by_element() {
        let clusters =
            selected(&[("resource", "static_clusters"), ("mask", "cluster.name"), ("name_regex", "a")]).unwrap();
        let expected = json!([{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
            "cluster": { "@type": "T", "name": "a" },
        }]);
        assert_eq!(clusters, expected);
        assert_eq!(selected(&[("resource", "dynamic_listeners")]).unwrap(), json!([]));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let refused = |query| selected(query).unwrap_err();
        assert_eq!(refused(&[("resource", "nope")]), Refusal::NotFound("nope not found in config dump".to_owned()));
        let single = "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field";
        assert_eq!(refused(&[("resource", "bootstrap")]), Refusal::Bad(single.to_owned()));
        let mask = "FieldMask nope could not be successfully applied to any configs.";
        assert_eq!(refused(&[("mask", "nope")]), Refusal::Bad(mask.to_owned()));
        let mask = "FieldMask nope could not be successfully used.";
        assert_eq!(refused(&[("resource", "static_clusters"), ("mask", "nope")]), Refusal::Bad(mask.to_owned()));
        assert!(matches!(refused(&[("name_regex", "(")]), Refusal::Bad(_)));
    }
}
