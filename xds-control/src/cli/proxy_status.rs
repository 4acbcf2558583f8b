//! `weft proxy-status`: a line for each connected proxy.

use weft_control::monitoring::{ProxyStatus, SyncStatus};

use crate::table::table;

const KINDS: [&str; 4] = ["cds", "lds", "eds", "rds"];

pub(crate) fn table_of(statuses: &[ProxyStatus]) -> String {
    let rows = statuses.iter().map(|status| {
        let mut row = vec![status.proxy.clone()];
        row.extend(KINDS.map(|kind| match status.kinds.get(kind) {
            None => "-".to_owned(),
            Some(kind) => word(kind.status).to_owned(),
        }));
        row.extend([status.variant.clone(), status.peer.clone().unwrap_or_default()]);
        row
    });
    let mut text = table(&["NAME", "CDS", "LDS", "EDS", "RDS", "XDS", "PEER"], &rows.collect::<Vec<_>>());
    for status in statuses {
        for (kind, reason) in
            status.kinds.iter().filter_map(|(kind, state)| Some((kind, state.versions.nack_reason.as_ref()?)))
        {
            text.push_str(&format!("\n{} refused {kind}: {reason}\n", status.proxy));
        }
    }
    text
}

fn word(status: SyncStatus) -> &'static str {
    match status {
        SyncStatus::Synced => "SYNCED",
        SyncStatus::Stale => "STALE",
        SyncStatus::Error => "ERROR",
        SyncStatus::NotSent => "NOT SENT",
    }
}
