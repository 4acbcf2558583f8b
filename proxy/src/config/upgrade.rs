//! `upgrade_configs` of connection managers and routes: which protocols a connection may be upgraded to, CONNECT among them,
//! which filters such a request passes, and where a CONNECT ends.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::route_action::{UpgradeConfig as RouteUpgrade, upgrade_config::ConnectConfig},
        extensions::filters::network::http_connection_manager::v3::http_connection_manager::UpgradeConfig as ManagerUpgrade,
    },
};

use crate::config::{
    field::{self, Result, Within as _, refuse},
    http_filter::HttpFilters,
};

/// What is said of protocols, each at most once.
#[derive(Debug, Default)]
pub struct Upgrades(Vec<Upgrade>);

#[derive(Debug)]
pub struct Upgrade {
    /// In lower case.
    protocol: String,
    pub enabled: bool,
    /// Of a connection manager: the filters that such requests pass in place of its own.
    pub filters: Option<HttpFilters>,
    /// Of a route: requests end here, and their bytes go on over TCP.
    pub termination: Option<Termination>,
}

/// `connect_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// The body of a POST goes the same way.
    pub allow_post: bool,
}

/// The name of CONNECT among protocols.
pub const CONNECT: &str = "connect";

impl Upgrades {
    pub(crate) fn of_manager(messages: Vec<ManagerUpgrade>) -> Result<Self> {
        let entries = field::each(messages, "upgrade_configs", |message| {
            let ManagerUpgrade { upgrade_type, filters, enabled } = message;
            let filters = if filters.is_empty() { None } else { Some(HttpFilters::from_proto(filters, "filters")?) };
            let protocol = protocol(&upgrade_type)?;
            Ok(Upgrade { protocol, enabled: field::bool_or(enabled, true), filters, termination: None })
        })?;
        Self::without_duplicates(entries)
    }

    pub(crate) fn of_route(messages: Vec<RouteUpgrade>) -> Result<Self> {
        let entries = field::each(messages, "upgrade_configs", |message| {
            let RouteUpgrade { upgrade_type, enabled, connect_config } = message;
            let protocol = protocol(&upgrade_type)?;
            if connect_config.is_some() && protocol != CONNECT {
                return Err(FieldError::new("connect_config", format!("{upgrade_type} is not CONNECT")));
            }
            let termination = connect_config.map(Termination::from_proto).transpose().within("connect_config")?;
            Ok(Upgrade { protocol, enabled: field::bool_or(enabled, true), filters: None, termination })
        })?;
        Self::without_duplicates(entries)
    }

    fn without_duplicates(entries: Vec<Upgrade>) -> Result<Self> {
        for (index, Upgrade { protocol, .. }) in entries.iter().enumerate() {
            if entries[..index].iter().any(|earlier| earlier.protocol == *protocol) {
                return Err(FieldError::new("upgrade_configs", format!("duplicate upgrade {protocol}")));
            }
        }
        Ok(Self(entries))
    }

    /// None: nothing is said about it. Names of protocols are the same in any case.
    pub fn of(&self, protocol: &[u8]) -> Option<&Upgrade> {
        self.0.iter().find(|upgrade| upgrade.protocol.as_bytes().eq_ignore_ascii_case(protocol))
    }

    /// Where those filters stand among `filters` that requests for this protocol pass.
    pub fn filters_place(&self, protocol: &[u8]) -> Option<usize> {
        let at = self.0.iter().position(|upgrade| upgrade.protocol.as_bytes().eq_ignore_ascii_case(protocol))?;
        self.0[at].filters.as_ref().map(|_| self.0[..at].iter().filter(|upgrade| upgrade.filters.is_some()).count())
    }

    pub fn filters(&self) -> impl Iterator<Item = &HttpFilters> {
        self.0.iter().filter_map(|upgrade| upgrade.filters.as_ref())
    }

    pub fn termination(&self) -> Option<Termination> {
        self.0.iter().find_map(|upgrade| upgrade.termination)
    }
}

impl Termination {
    fn from_proto(message: ConnectConfig) -> Result<Self> {
        let ConnectConfig { proxy_protocol_config, allow_post } = message;
        refuse!(proxy_protocol_config);
        Ok(Self { allow_post })
    }
}

fn protocol(upgrade_type: &str) -> Result<String> {
    let protocol = upgrade_type.to_ascii_lowercase();
    match protocol.as_str() {
        "connect-udp" => Err(FieldError::new("upgrade_type", format!("{upgrade_type} is not supported"))),
        _ => Ok(protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(upgrade_type: &str, enabled: bool) -> ManagerUpgrade {
        ManagerUpgrade {
            upgrade_type: upgrade_type.to_owned(),
            enabled: Some(weft_xds::pb::google::protobuf::BoolValue { value: enabled }),
            ..Default::default()
        }
    }

    #[test]
    fn protocols_are_found_in_any_case() {
        let entries = vec![entry("WebSocket", true), entry("foo", false), entry("CONNECT", true)];
        let upgrades = Upgrades::of_manager(entries).unwrap();
        let enabled = |protocol: &[u8]| upgrades.of(protocol).map(|upgrade| upgrade.enabled);
        assert_eq!((enabled(b"websocket"), enabled(b"FOO"), enabled(b"bar")), (Some(true), Some(false), None));
        assert_eq!(enabled(CONNECT.as_bytes()), Some(true));
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_path() {
        let error = |messages| Upgrades::of_manager(messages).unwrap_err().to_string();
        let udp = entry("CONNECT-UDP", true);
        assert_eq!(error(vec![udp]), "upgrade_configs[0].upgrade_type: CONNECT-UDP is not supported");
        assert_eq!(error(vec![entry("a", true), entry("A", true)]), "upgrade_configs: duplicate upgrade a");
        let filtered = ManagerUpgrade { filters: vec![Default::default()], ..entry("a", true) };
        let path = Upgrades::of_manager(vec![filtered]).unwrap_err();
        assert!(path.path().starts_with("upgrade_configs[0].filters[0]"), "{path}");
    }

    #[test]
    fn only_a_connect_ends_here() {
        let route = |upgrade_type: &str| RouteUpgrade {
            upgrade_type: upgrade_type.to_owned(),
            enabled: None,
            connect_config: Some(ConnectConfig { proxy_protocol_config: None, allow_post: true }),
        };
        let upgrades = Upgrades::of_route(vec![route("CONNECT")]).unwrap();
        assert_eq!(upgrades.termination(), Some(Termination { allow_post: true }));
        let error = Upgrades::of_route(vec![route("websocket")]).unwrap_err();
        assert_eq!(error.to_string(), "upgrade_configs[0].connect_config: websocket is not CONNECT");
    }
}
