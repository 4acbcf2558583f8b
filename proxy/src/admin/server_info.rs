//! `/server_info`: version, state, uptime and command line, as `envoy.admin.v3.ServerInfo`.

use serde_json::{Value, json};
use weft_xds::json::{self as proto_json, FieldNames};

use crate::{
    admin::Admin,
    args::{self, HOT_RESTART_VERSION, UnknownFields},
};

impl Admin {
    pub(super) fn server_info(&self) -> Value {
        let uptime = seconds(self.started.elapsed());
        json!({
            "version": args::version(),
            "state": self.state(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": HOT_RESTART_VERSION,
            "command_line_options": self.command_line_options(),
            "node": proto_json::to_value(&self.node, FieldNames::Proto).unwrap_or_default(),
        })
    }

    fn command_line_options(&self) -> Value {
        let args = &self.args;
        json!({
            "base_id": args.base_id.to_string(),
            "concurrency": args.concurrency,
            "config_path": args.config_name(),
            "config_yaml": args.config_yaml,
            "allow_unknown_static_fields": args.static_fields == UnknownFields::Ignored,
            "reject_unknown_dynamic_fields": args.dynamic_fields == UnknownFields::Refused,
            "admin_address_path": args.admin_address_path.as_deref().unwrap_or("".as_ref()),
            "local_address_ip_version": args.local_address_ip_version.as_str(),
            "log_level": args.logging.level.name(),
            "component_log_level": args.logging.component_text,
            "log_format": args.logging.pattern_text,
            "log_format_escaped": args.logging.escaped,
            "log_path": args.logging.path.as_deref().unwrap_or("".as_ref()),
            "service_cluster": args.node.cluster,
            "service_node": args.node.id,
            "service_zone": args.node.zone,
            "file_flush_interval": seconds(args.file_flush_interval),
            "drain_time": seconds(args.drain_time),
            "drain_strategy": args.drain_strategy.as_str(),
            "parent_shutdown_time": seconds(args.parent_shutdown_time),
            "mode": args.mode.as_str(),
            "disable_hot_restart": true,
            "restart_epoch": args.restart_epoch,
            "base_id_path": args.base_id_path.as_deref().unwrap_or("".as_ref()),
            "stats_tag": args.stats_tags.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>(),
        })
    }
}

fn seconds(time: std::time::Duration) -> String {
    format!("{}s", time.as_secs())
}
