//! `/listeners`: names and addresses, as Envoy prints them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::runtime::snapshot::Snapshot;

pub(super) fn to_text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for listener in &snapshot.listeners {
        for at in &listener.config.addresses {
            let _ = writeln!(out, "{}::{}", listener.config.name, at.address);
        }
    }
    out
}

/// `envoy.admin.v3.Listeners`.
pub(super) fn to_json(snapshot: &Snapshot) -> Value {
    let statuses = snapshot.listeners.iter().map(|listener| {
        let mut addresses = listener.config.addresses.iter().map(|at| {
            json!({ "socket_address": { "address": at.address.ip().to_string(), "port_value": at.address.port() } })
        });
        let mut shown = json!({ "name": *listener.config.name, "local_address": addresses.next() });
        let additional: Vec<Value> = addresses.collect();
        if !additional.is_empty() {
            shown["additional_local_addresses"] = additional.into();
        }
        shown
    });
    json!({ "listener_statuses": statuses.collect::<Vec<_>>() })
}
