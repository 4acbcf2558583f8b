//! `envoy.config.overload.v3.OverloadManager`: of it, the limit of open downstream connections.

use weft_xds::{
    FieldError,
    pb::envoy::{
        config::overload::v3::{OverloadManager, ResourceMonitor, resource_monitor::ConfigType},
        extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig,
    },
};

use crate::config::field::{self, Extension, Result, refuse, required};

/// None of a limit: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    /// Over all listeners but those that say that it is not for them; at least 1.
    pub downstream_connections_max: Option<usize>,
}

impl Overload {
    pub(crate) fn from_proto(message: OverloadManager) -> Result<Self> {
        let OverloadManager { refresh_interval: _, resource_monitors, actions, loadshed_points, buffer_factory_config } =
            message; // the interval is of monitors that poll
        refuse!(actions, loadshed_points, buffer_factory_config);
        let limits = field::each(resource_monitors, "resource_monitors", connections_max)?;
        match limits[..] {
            [] => Ok(Self::default()),
            [limit] => Ok(Self { downstream_connections_max: Some(limit) }),
            [..] => Err(FieldError::new("resource_monitors[1]", "a resource has one monitor")),
        }
    }
}

fn connections_max(message: ResourceMonitor) -> Result<usize> {
    let ResourceMonitor { name: _, config_type } = message;
    let ConfigType::TypedConfig(typed_config) = required(config_type, "typed_config")?;
    let extension = Extension::new(typed_config)?;
    if !extension.is::<DownstreamConnectionsConfig>() {
        return Err(extension.unsupported());
    }
    let DownstreamConnectionsConfig { max_active_downstream_connections: limit } = extension.unpack()?;
    usize::try_from(limit).ok().filter(|&limit| limit > 0).ok_or_else(|| {
        FieldError::new("typed_config.max_active_downstream_connections", "value must be greater than 0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn overload(monitors: &str) -> Result<Overload> {
        Overload::from_proto(message(&format!("resource_monitors: [{monitors}]")))
    }

    fn connections(limit: i64) -> String {
        format!(
            "{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.resource_monitors.\
             downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: {limit}}}}}"
        )
    }

    #[test]
    fn the_limit_of_connections_is_read() {
        assert_eq!(overload(&connections(5)).unwrap(), Overload { downstream_connections_max: Some(5) });
        assert_eq!(Overload::from_proto(OverloadManager::default()).unwrap(), Overload::default());
    }

    #[test]
    fn other_limits_are_refused() {
        let empty = "{name: x, typed_config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}}";
        let twice = format!("{}, {}", connections(5), connections(6));
        for (monitors, expected) in [
            (empty, "resource_monitors[0].typed_config: google.protobuf.Empty is not supported"),
            (&twice, "resource_monitors[1]: a resource has one monitor"),
        ] {
            assert_eq!(refusal(overload(monitors)), expected);
        }
        let actions = format!(
            "resource_monitors: [{}]\nactions: [{{name: x, triggers: [{{name: y, threshold: {{}}}}]}}]",
            connections(5)
        );
        assert_eq!(refusal(Overload::from_proto(message(&actions))), "actions: not supported");
    }
}
