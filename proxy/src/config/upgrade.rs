//! `upgrade_configs` of connection managers and routes: which protocols a connection may be upgraded to.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::route::v3::route_action::UpgradeConfig as RouteUpgrade,
        extensions::filters::network::http_connection_manager::v3::http_connection_manager::UpgradeConfig as ManagerUpgrade,
    },
};

use crate::config::field::{self, Result, refuse};

/// The protocols that are spoken of, and whether each is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades(Vec<(String, bool)>);

impl Upgrades {
    pub(crate) fn of_manager(messages: Vec<ManagerUpgrade>) -> Result<Self> {
        let entries = field::each(messages, "upgrade_configs", |message| {
            let ManagerUpgrade { upgrade_type, filters, enabled } = message;
            refuse!(filters);
            Ok((protocol(upgrade_type)?, field::bool_or(enabled, true)))
        })?;
        Self::without_duplicates(entries)
    }

    pub(crate) fn of_route(messages: Vec<RouteUpgrade>) -> Result<Self> {
        let entries = field::each(messages, "upgrade_configs", |message| {
            let RouteUpgrade { upgrade_type, enabled, connect_config } = message;
            refuse!(connect_config);
            Ok((protocol(upgrade_type)?, field::bool_or(enabled, true)))
        })?;
        Self::without_duplicates(entries)
    }

    fn without_duplicates(entries: Vec<(String, bool)>) -> Result<Self> {
        for (index, (protocol, _)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(earlier, _)| earlier == protocol) {
                return Err(FieldError::new("upgrade_configs", format!("duplicate upgrade {protocol}")));
            }
        }
        Ok(Self(entries))
    }

    /// None: nothing is said about it.
    pub fn allows(&self, protocol: &[u8]) -> Option<bool> {
        let entry = self.0.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(protocol))?;
        Some(entry.1)
    }
}

fn protocol(upgrade_type: String) -> Result<String> {
    let protocol = upgrade_type.to_ascii_lowercase();
    match protocol.as_str() {
        "connect" | "connect-udp" => Err(FieldError::new("upgrade_type", format!("{upgrade_type} is not supported"))),
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
        let upgrades = Upgrades::of_manager(vec![entry("WebSocket", true), entry("foo", false)]).unwrap();
        assert_eq!(upgrades.allows(b"websocket"), Some(true));
        assert_eq!(upgrades.allows(b"FOO"), Some(false));
        assert_eq!(upgrades.allows(b"bar"), None);
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_path() {
        let error = |messages| Upgrades::of_manager(messages).unwrap_err().to_string();
        assert_eq!(error(vec![entry("CONNECT", true)]), "upgrade_configs[0].upgrade_type: CONNECT is not supported");
        assert_eq!(error(vec![entry("a", true), entry("A", true)]), "upgrade_configs: duplicate upgrade a");
        let filtered = ManagerUpgrade { filters: vec![Default::default()], ..entry("a", true) };
        assert_eq!(error(vec![filtered]), "upgrade_configs[0].filters: not supported");
    }
}
