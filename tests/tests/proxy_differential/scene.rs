//! Connection managers by the dozen: each scene is a listener of its own in one bootstrap, with what its topic changes of the
//! connection manager and with its own routes; each exchange is one HTTP/1 request to it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster, with_http2};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;

use crate::config::{INTERNAL, LOG_FORMAT, NOBODY, ORIGIN_HTTP, ORIGIN_RAW, Ports, local};
use crate::pair::{Pair, TIMEOUT, Target};
use crate::{Case, compare_with, rate_limit_service};

/// A listener.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// Fields of the connection manager, over the plain ones.
    pub(crate) manager: Value,
    /// A route configuration.
    pub(crate) routes: Value,
    /// Called, and listening, at the internal address.
    pub(crate) internal: bool,
}

/// One request. The head goes without its last empty line.
#[derive(Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) scene: &'static str,
    pub(crate) name: &'static str,
    pub(crate) head: &'static str,
    pub(crate) body: &'static str,
    pub(crate) look: Look,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The answer and the access log.
    Whole,
    /// The answer alone.
    Answer,
    /// Both, and how often the application was asked.
    Attempts,
    /// The answer, and what different lines there are in the access log.
    Lines,
    /// Only the status, out of so many requests.
    Statuses(usize),
}

pub(crate) const fn exchange(scene: &'static str, name: &'static str, head: &'static str) -> Exchange {
    Exchange { scene, name, head, body: "", look: Look::Whole }
}

impl Exchange {
    pub(crate) const fn body(self, body: &'static str) -> Self {
        Self { body, ..self }
    }
    pub(crate) const fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }

    fn observe(&self, address: SocketAddr, target: &Target) -> Result<Facts> {
        let mut facts = Facts::default();
        if let Look::Statuses(count) = self.look {
            let statuses: Result<Vec<u16>> = (0..count).map(|_| self.status(address, target)).collect();
            facts.add("statuses", format!("{:?}", statuses?));
            return Ok(facts);
        }
        let mut connection = Connection::open(address, TIMEOUT)?;
        connection.send(self.request(target).as_bytes())?;
        facts.add_outcome(&connection.receive(self.head.starts_with("HEAD ")));
        match self.look {
            Look::Answer => {}
            Look::Lines => facts.add("log lines", target.different_lines(&target.key(self.name))?),
            _ => facts.append(target.logged(self.name)?),
        }
        if self.look == Look::Attempts {
            facts.add("attempts", target.attempts(self.name)?);
        }
        Ok(facts)
    }

    fn status(&self, address: SocketAddr, target: &Target) -> Result<u16> {
        let mut connection = Connection::open(address, TIMEOUT)?;
        connection.send(self.request(target).as_bytes())?;
        Ok(connection.receive(false).context("no answer")?.status)
    }

    fn request(&self, target: &Target) -> String {
        let (first, rest) = self.head.split_once("\r\n").unwrap_or((self.head, ""));
        let key = target.key(self.name);
        format!("{first}\r\nx-test-id: {key}\r\nx-test-key: {key}\r\n{rest}\r\n{}", self.body)
    }
}

/// Both proxies with all scenes, and each exchange with both.
pub(crate) fn compare_scenes(scenes: &[Scene], exchanges: &[Exchange]) -> Result<()> {
    compare_scenes_with(scenes, exchanges, |_| Ok(()))
}

/// `prepare` is given the namespace before either starts.
pub(crate) fn compare_scenes_with(
    scenes: &[Scene],
    exchanges: &[Exchange],
    prepare: impl FnOnce(&Namespace) -> Result<()>,
) -> Result<()> {
    let cases: Vec<Case> = exchanges
        .iter()
        .map(|exchange| {
            let at = scenes.iter().position(|scene| scene.name == exchange.scene);
            let at = at.with_context(|| format!("no scene {}", exchange.scene))?;
            let (exchange, internal) = (*exchange, scenes[at].internal);
            let observe = move |target: &Target| exchange.observe(address(target.ports, at, internal), target);
            Ok(Case { name: exchange.name, observe: Box::new(observe) })
        })
        .collect::<Result<_>>()?;
    let bootstrap = |ports: Ports, access_log: &Path| bootstrap(scenes, ports, access_log);
    compare_with(&cases, &Pair::start_with(&bootstrap, prepare)?)
}

fn address(ports: Ports, scene: usize, internal: bool) -> SocketAddr {
    let mut address = ports.scene(scene);
    if internal {
        address.set_ip(INTERNAL.into());
    }
    address
}

fn bootstrap(scenes: &[Scene], ports: Ports, access_log: &Path) -> String {
    let listeners: Vec<Value> = scenes
        .iter()
        .enumerate()
        .map(|(at, scene)| listener(scene, address(ports, at, scene.internal), access_log))
        .collect();
    let mut document = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {
            "clusters": [
                static_cluster("origin", local(ORIGIN_HTTP)),
                with_http2(static_cluster("origin-h2", local(ORIGIN_HTTP))),
                static_cluster("raw", local(ORIGIN_RAW)),
                case_keeping_cluster(),
                static_cluster("other", local(ORIGIN_HTTP)),
                static_cluster("nobody", local(NOBODY)),
                with_http2(static_cluster("nobody-h2", local(NOBODY))),
                with_http2(static_cluster("rate-limits", local(rate_limit_service::PORT))),
                {"name": "empty", "type": "STATIC", "connect_timeout": "1s"},
            ],
            "listeners": listeners,
        },
    });
    for cluster in document["static_resources"]["clusters"].as_array_mut().into_iter().flatten() {
        cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1000}]});
    }
    format!("{document:#}\n")
}

/// What it answers goes on as it writes it.
fn case_keeping_cluster() -> Value {
    let mut cluster = static_cluster("raw-case", local(ORIGIN_RAW));
    cluster["http_protocol_options"] =
        json!({"header_key_format": {"stateful_formatter": preserve_case(true, "DEFAULT")}});
    cluster
}

pub(crate) fn preserve_case(forward_reason_phrase: bool, otherwise: &str) -> Value {
    json!({"name": "preserve_case", "typed_config": typed(
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
        json!({"forward_reason_phrase": forward_reason_phrase, "formatter_type_on_envoy_headers": otherwise}),
    )})
}

fn listener(scene: &Scene, at: SocketAddr, access_log: &Path) -> Value {
    let mut routes = scene.routes.clone();
    routes["name"] = json!(scene.name);
    routes["validate_clusters"] = json!(false);
    let mut filter = http_filter(scene.name, &routes);
    let config = &mut filter["typed_config"];
    config["access_log"] = json!([file_log(access_log, &json!({"text_format_source": {"inline_string": LOG_FORMAT}}))]);
    if let (Some(config), Value::Object(manager)) = (config.as_object_mut(), scene.manager.clone()) {
        config.extend(manager);
    }
    let logs = config["access_log"].as_array_mut();
    for log in logs.into_iter().flatten() {
        if log["typed_config"]["path"] == json!("LOG") {
            log["typed_config"]["path"] = json!(access_log);
        }
    }
    let address = socket(&at.ip().to_string(), at.port());
    json!({"name": scene.name, "address": address, "filter_chains": [{"filters": [filter]}]})
}

/// A file log; the path `LOG` stands for the proxy's own.
pub(crate) fn file_log(path: &Path, log_format: &Value) -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": log_format,
        },
    })
}

/// These filters, and the router behind them.
pub(crate) fn filters(filters: &[Value]) -> Value {
    let router = filter("router", "router.v3.Router", json!({}));
    filters.iter().cloned().chain([router]).collect()
}

/// `kind`: what its message is called below `envoy.extensions.filters.http`.
pub(crate) fn filter(name: &str, kind: &str, fields: Value) -> Value {
    json!({"name": name, "typed_config": typed(&format!("envoy.extensions.filters.http.{kind}"), fields)})
}

pub(crate) fn typed(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/{kind}"));
    fields
}

/// One virtual host for everything.
pub(crate) fn one_host(routes: &[Value]) -> Value {
    json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

/// A route by prefix, with more fields of the route itself.
pub(crate) fn to(prefix: &str, cluster: &str, more: Value) -> Value {
    let mut route = json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}});
    if let (Some(route), Value::Object(more)) = (route.as_object_mut(), more) {
        route.extend(more);
    }
    route
}

/// A route by prefix, with more fields of its action.
pub(crate) fn acting(prefix: &str, cluster: &str, more: Value) -> Value {
    let mut route = to(prefix, cluster, json!({}));
    if let (Some(action), Value::Object(more)) = (route["route"].as_object_mut(), more) {
        action.extend(more);
    }
    route
}
