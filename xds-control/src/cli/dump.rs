//! A proxy's configuration as this program works on it: from the control plane, or from a `/config_dump` of Envoy's.
//!
//! Secrets are taken out of whatever is read, before anything is done with it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_control::monitoring::{ConfigDump, DumpedResource};

#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) clusters: Vec<Dumped>,
    pub(crate) listeners: Vec<Dumped>,
    pub(crate) routes: Vec<Dumped>,
    pub(crate) endpoints: Vec<Dumped>,
    pub(crate) secrets: Vec<Dumped>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dumped {
    pub(crate) name: String,
    pub(crate) resource: Value,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    /// Not in use yet: something that it refers to is missing.
    Warming,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not JSON", file.display())]
    Json {
        file: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is no /config_dump: {reason}", file.display())]
    Form { file: PathBuf, reason: String },
}

const STANDARD_INPUT: &str = "-";
/// What stands for a secret that was taken out.
const REDACTED: &str = "[redacted]";
/// Fields that hold secrets, in whatever message.
const SECRET_FIELDS: [&str; 7] = [
    "private_key",
    "private_key_provider",
    "password",
    "pkcs12",
    "session_ticket_keys",
    "generic_secret",
    "inline_key",
];

impl Dump {
    pub(crate) fn of_control_plane(dump: ConfigDump) -> Self {
        let ConfigDump { proxy: _, clusters, endpoints, listeners, routes, secrets, extensions: _ } = dump;
        let take = |resources: Vec<DumpedResource>| {
            let dumped = |DumpedResource { name, version: _, resource }| Dumped::new(name, resource, State::Active);
            resources.into_iter().map(dumped).collect()
        };
        Self {
            clusters: take(clusters),
            listeners: take(listeners),
            routes: take(routes),
            endpoints: take(endpoints),
            secrets: take(secrets),
        }
    }

    pub(crate) fn read(file: &Path) -> Result<Self, DumpError> {
        let mut text = String::new();
        let outcome = if file == Path::new(STANDARD_INPUT) {
            std::io::stdin().read_to_string(&mut text).map(|_| ())
        } else {
            std::fs::read_to_string(file).map(|read| text = read)
        };
        outcome.map_err(|source| DumpError::Read { file: file.to_owned(), source })?;
        let value =
            serde_json::from_str::<Value>(&text).map_err(|source| DumpError::Json { file: file.to_owned(), source })?;
        Self::parse(value).map_err(|reason| DumpError::Form { file: file.to_owned(), reason })
    }

    fn parse(value: Value) -> Result<Self, String> {
        if value.get("configs").is_some() {
            return Self::of_envoy(&value);
        }
        let dump = serde_json::from_value::<ConfigDump>(value)
            .map_err(|error| format!("neither Envoy's (it has no \"configs\") nor ours ({error})"))?;
        Ok(Self::of_control_plane(dump))
    }

    /// A `envoy.admin.v3.ConfigDump`.
    fn of_envoy(value: &Value) -> Result<Self, String> {
        let configs = value["configs"].as_array().ok_or("\"configs\" is not a list")?;
        let mut dump = Self::default();
        for (index, config) in configs.iter().enumerate() {
            let type_url = config["@type"].as_str().ok_or_else(|| format!("configs[{index}] has no \"@type\""))?;
            match type_url.rsplit('.').next().unwrap_or_default() {
                "ClustersConfigDump" => dump.clusters = of_section(config, "cluster"),
                "ListenersConfigDump" => dump.listeners = of_section(config, "listener"),
                "RoutesConfigDump" => dump.routes = of_section(config, "route_config"),
                "EndpointsConfigDump" => dump.endpoints = of_section(config, "endpoint_config"),
                "SecretsConfigDump" => dump.secrets = of_section(config, "secret"),
                // The bootstrap and whatever else is no section of ours.
                _ => {}
            }
        }
        Ok(dump)
    }
}

/// Each list of a section holds wrappers of a resource; a listener's has one more layer by its state.
fn of_section(config: &Value, field: &str) -> Vec<Dumped> {
    let lists = config.as_object().into_iter().flatten().filter_map(|(key, list)| Some((key, list.as_array()?)));
    let mut found = Vec::new();
    for (key, wrappers) in lists {
        let state = if key.contains("warming") { State::Warming } else { State::Active };
        for wrapper in wrappers {
            let layers = [
                (&wrapper[field], state),
                (&wrapper["active_state"][field], State::Active),
                (&wrapper["warming_state"][field], State::Warming),
            ];
            for (resource, state) in layers.into_iter().filter(|(resource, _)| resource.is_object()) {
                let names = [&resource["name"], &resource["cluster_name"], &wrapper["name"]];
                let name = names.into_iter().find_map(Value::as_str).unwrap_or_default();
                found.push(Dumped::new(name.to_owned(), resource.clone(), state));
            }
        }
    }
    found
}

impl Dumped {
    fn new(name: String, mut resource: Value, state: State) -> Self {
        redact(&mut resource);
        Self { name, resource, state }
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if SECRET_FIELDS.contains(&key.as_str()) {
                    *value = Value::String(REDACTED.to_owned());
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_of_envoy_is_read_whatever_the_state_of_its_resources() {
        let dump = Dump::parse(json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {}},
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "version_info": "1",
             "static_clusters": [{"cluster": {"name": "a"}}],
             "dynamic_active_clusters": [{"cluster": {"name": "b"}}],
             "dynamic_warming_clusters": [{"cluster": {"name": "c"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
             "dynamic_listeners": [{"name": "l", "active_state": {"listener": {"name": "l"}},
                                    "warming_state": {"listener": {"name": "l"}}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
             "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "b"}}]},
        ]}))
        .unwrap();
        let of =
            |dumped: &[Dumped]| dumped.iter().map(|dumped| (dumped.name.clone(), dumped.state)).collect::<Vec<_>>();
        let expected = [("a", State::Active), ("b", State::Active), ("c", State::Warming)];
        assert_eq!(of(&dump.clusters), expected.map(|(name, state)| (name.to_owned(), state)));
        let expected = [("l", State::Active), ("l", State::Warming)];
        assert_eq!(of(&dump.listeners), expected.map(|(name, state)| (name.to_owned(), state)));
        assert_eq!(of(&dump.endpoints), [("b".to_owned(), State::Active)]);
    }

    #[test]
    fn secrets_do_not_come_in() {
        let dump = Dump::parse(json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump", "static_secrets": [
                {"name": "s", "secret": {"name": "s", "tls_certificate": {"private_key": {"inline_string": "KEY"}}}},
                {"name": "t", "secret": {"name": "t", "session_ticket_keys": {"keys": [{"inline_string": "KEY"}]}}},
                {"name": "g", "secret": {"name": "g", "generic_secret": {"secret": {"inline_string": "KEY"}}}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "static_clusters": [{"cluster":
                {"name": "c", "transport_socket": {"typed_config": {"common_tls_context": {"tls_certificates": [
                    {"private_key": {"inline_bytes": "KEY"}, "password": {"inline_string": "KEY"}}]}}}}}]},
        ]}))
        .unwrap();
        assert_eq!(dump.secrets.len(), 3);
        assert!(!format!("{dump:?}").contains("KEY"), "{dump:?}");
    }

    #[test]
    fn other_json_is_refused_with_what_it_lacks() {
        assert!(Dump::parse(json!([])).unwrap_err().contains("no \"configs\""));
        assert_eq!(Dump::parse(json!({"configs": 1})).unwrap_err(), "\"configs\" is not a list");
        assert_eq!(Dump::parse(json!({"configs": [{}]})).unwrap_err(), "configs[0] has no \"@type\"");
    }
}
