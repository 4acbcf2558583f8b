//! `weft proxy-status`: a line for each connected proxy.

use std::collections::BTreeMap;

use weft_control::monitoring::{KindStatus, ProxyStatus, SyncStatus};

use crate::table::table;

const KINDS: [&str; 6] = ["cds", "lds", "eds", "rds", "sds", "ecds"];

/// A client's streams, which are several where it doesn't aggregate, in one.
struct Client<'a> {
    first: &'a ProxyStatus,
    kinds: BTreeMap<&'a str, &'a KindStatus>,
}

pub(crate) fn table_of(statuses: &[ProxyStatus]) -> String {
    let mut clients: BTreeMap<&str, Client<'_>> = BTreeMap::new();
    for status in statuses {
        let client = clients.entry(&status.node_id).or_insert_with(|| Client { first: status, kinds: BTreeMap::new() });
        for (kind, of_kind) in &status.kinds {
            let worst = client.kinds.entry(kind).or_insert(of_kind);
            if worst.status == SyncStatus::Synced {
                *worst = of_kind;
            }
        }
    }
    let rows = clients.values().map(|Client { first, kinds }| {
        let mut row = vec![first.proxy.clone()];
        row.extend(KINDS.map(|kind| kinds.get(kind).map_or("-", |of_kind| word(of_kind.status)).to_owned()));
        row.extend([first.variant.clone(), first.peer.clone().unwrap_or_default()]);
        row
    });
    let header = ["NAME", "CDS", "LDS", "EDS", "RDS", "SDS", "ECDS", "XDS", "PEER"];
    let mut text = table(&header, &rows.collect::<Vec<_>>());
    for Client { first, kinds } in clients.values() {
        for (kind, of_kind) in kinds {
            if let Some(reason) = &of_kind.versions.nack_reason {
                text.push_str(&format!("\n{} refused {kind}: {reason}\n", first.proxy));
            }
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

#[cfg(test)]
mod tests {
    use weft_control::monitoring::KindStatus;

    use super::*;

    fn stream(node_id: &str, kinds: &[(&str, SyncStatus)]) -> ProxyStatus {
        let kind = |(kind, status): &(&str, SyncStatus)| {
            ((*kind).to_owned(), KindStatus { versions: Default::default(), status: *status })
        };
        ProxyStatus {
            proxy: "web.shop".to_owned(),
            node_id: node_id.to_owned(),
            identity: None,
            peer: None,
            variant: "sotw".to_owned(),
            connected_at: 0,
            kinds: kinds.iter().map(kind).collect(),
        }
    }

    #[test]
    fn streams_of_one_client_are_one_line_and_the_worst_is_shown() {
        let streams = [
            stream("a", &[("cds", SyncStatus::Synced)]),
            stream("a", &[("eds", SyncStatus::Synced)]),
            stream("a", &[("eds", SyncStatus::Stale)]),
        ];
        let text = table_of(&streams);
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(lines[1..], [["web.shop", "SYNCED", "-", "STALE", "-", "-", "-", "sotw"]]);
    }
}
