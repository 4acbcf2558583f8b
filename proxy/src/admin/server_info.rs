//! `/server_info`: version, state and uptime, as `envoy.admin.v3.ServerInfo`.

use serde_json::{Value, json};

use crate::admin::Admin;

impl Admin {
    pub(super) fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.started.elapsed().as_secs());
        json!({
            "version": concat!("weft-proxy/", env!("CARGO_PKG_VERSION")),
            "state": self.state(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "command_line_options": { "concurrency": self.concurrency },
        })
    }
}
