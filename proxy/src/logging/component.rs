//! Envoy's names for the parts of a proxy and for levels, and which modules here they are. Pure.

use tracing::level_filters::LevelFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl Level {
    pub const ALL: [Level; 7] =
        [Level::Trace, Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical, Level::Off];

    pub fn from_name(name: &str) -> Option<Level> {
        match name {
            "warn" => Some(Level::Warning),
            name => Level::ALL.into_iter().find(|level| level.name() == name),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Off => "off",
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Trace => LevelFilter::TRACE,
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Error | Level::Critical => LevelFilter::ERROR,
            Level::Off => LevelFilter::OFF,
        }
    }
}

/// A part of a proxy under Envoy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component(usize);

impl Component {
    pub fn all() -> impl Iterator<Item = Component> {
        (0..COMPONENTS.len()).map(Component)
    }

    pub fn from_name(name: &str) -> Option<Component> {
        COMPONENTS.iter().position(|(known, _)| *known == name).map(Component)
    }

    /// The part that a module belongs to: that of the longest prefix.
    pub fn of_target(target: &str) -> Component {
        let belongs =
            |prefix: &str| target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let found = Component::all()
            .flat_map(|component| component.targets().iter().map(move |prefix| (prefix.len(), component, *prefix)))
            .filter(|(_, _, prefix)| belongs(prefix))
            .max_by_key(|(length, ..)| *length);
        let main = || Component::from_name("main").expect("it stands in the table");
        found.map_or_else(main, |(_, component, _)| component)
    }

    pub fn name(self) -> &'static str {
        COMPONENTS[self.0].0
    }

    /// Prefixes of module paths.
    pub(super) fn targets(self) -> &'static [&'static str] {
        COMPONENTS[self.0].1
    }
}

/// Those without modules are parts that this proxy does not have; their levels change nothing.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("admin", &["weft_proxy::admin"]),
    ("alternate_protocols_cache", &[]),
    ("assert", &[]),
    ("aws", &[]),
    ("backtrace", &[]),
    ("basic_auth", &[]),
    ("cache_filter", &[]),
    ("client", &[]),
    ("compression", &[]),
    ("config", &["weft_proxy::config", "weft_proxy::xds", "weft_proxy::runtime"]),
    ("conn_handler", &["weft_proxy::listener"]),
    ("connection", &["weft_proxy::net", "weft_proxy::listener::connection"]),
    ("credential_injector", &[]),
    ("decompression", &[]),
    ("dns", &["hickory_resolver", "hickory_proto", "weft_proxy::upstream::dns"]),
    ("ext_authz", &[]),
    ("ext_proc", &[]),
    ("file", &["weft_proxy::access_log"]),
    ("filter", &["weft_proxy::tcp_proxy", "weft_proxy::listener::inspect", "weft_proxy::http::filter"]),
    ("forward_proxy", &[]),
    ("grpc", &["tonic"]),
    ("happy_eyeballs", &[]),
    ("hc", &["weft_proxy::upstream::health_check"]),
    ("health_checker", &[]),
    ("http", &["weft_proxy::http", "hyper"]),
    ("http2", &["weft_proxy::http::h2", "h2"]),
    ("init", &["weft_proxy::runtime::warming"]),
    ("io", &[]),
    ("jwt", &[]),
    ("key_value_store", &[]),
    ("local_rate_limit", &[]),
    ("main", &["weft_proxy::server", "weft_proxy::worker", "weft_proxy::logging"]),
    ("lua", &[]),
    ("matcher", &[]),
    ("misc", &[]),
    ("multi_connection", &[]),
    ("notification", &[]),
    ("oauth2", &[]),
    ("pool", &["weft_proxy::upstream::pool"]),
    ("quic", &[]),
    ("quic_stream", &[]),
    ("rate_limit_quota", &[]),
    ("rbac", &[]),
    ("rds", &[]),
    ("redis", &[]),
    ("router", &["weft_proxy::http::router", "weft_proxy::http::upstream_request"]),
    ("runtime", &[]),
    ("secret", &["weft_proxy::config::tls"]),
    ("stats", &["weft_proxy::stats"]),
    ("tap", &[]),
    ("testing", &[]),
    ("thrift", &[]),
    ("tracing", &["weft_proxy::trace"]),
    ("udp", &[]),
    ("upstream", &["weft_proxy::upstream"]),
    ("wasm", &[]),
    ("websocket", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_belongs_to_the_narrowest_part() {
        let name = |target| Component::of_target(target).name();
        assert_eq!(name("weft_proxy::upstream::cluster"), "upstream");
        assert_eq!(name("weft_proxy::upstream::pool::http2"), "pool");
        assert_eq!(name("weft_proxy::httpx"), "main");
        assert_eq!(name("weft_proxy"), "main");
        assert_eq!(name("h2::codec"), "http2");
    }

    #[test]
    fn names_are_found_again() {
        assert!(Component::all().all(|component| Component::from_name(component.name()) == Some(component)));
        assert!(Level::ALL.into_iter().all(|level| Level::from_name(level.name()) == Some(level)));
        assert_eq!(Level::from_name("warn"), Some(Level::Warning));
        assert_eq!(Component::from_name("bogus"), None);
    }
}
