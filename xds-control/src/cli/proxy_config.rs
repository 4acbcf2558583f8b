//! `weft proxy-config`: what a proxy is given, in columns or whole.

use serde_json::{Map, Value};
use weft_control::monitoring::{ConfigDump, DumpedResource};

use crate::args::Section;
use crate::table::table;

/// The resources themselves, as they are printed in JSON and YAML: a list, or for all sections a list each.
pub(crate) fn choose(dump: &ConfigDump, section: Section) -> Value {
    let bodies =
        |resources: &[DumpedResource]| Value::Array(resources.iter().map(|dumped| dumped.resource.clone()).collect());
    match section {
        Section::Listeners => bodies(&dump.listeners),
        Section::Routes => bodies(&dump.routes),
        Section::Clusters => bodies(&dump.clusters),
        Section::Endpoints => bodies(&dump.endpoints),
        Section::All => {
            let mut all = Map::new();
            all.insert("listeners".to_owned(), bodies(&dump.listeners));
            all.insert("routes".to_owned(), bodies(&dump.routes));
            all.insert("clusters".to_owned(), bodies(&dump.clusters));
            all.insert("endpoints".to_owned(), bodies(&dump.endpoints));
            Value::Object(all)
        }
    }
}

pub(crate) fn tables(dump: &ConfigDump, section: Section) -> String {
    match section {
        Section::Listeners => listeners(&dump.listeners),
        Section::Routes => routes(&dump.routes),
        Section::Clusters => clusters(&dump.clusters),
        Section::Endpoints => endpoints(&dump.endpoints),
        Section::All => {
            let sections = [Section::Clusters, Section::Listeners, Section::Routes, Section::Endpoints];
            sections.map(|section| tables(dump, section)).join("\n")
        }
    }
}

fn listeners(resources: &[DumpedResource]) -> String {
    let mut rows = Vec::new();
    for DumpedResource { resource, .. } in resources {
        let (address, port) = socket_address(&resource["address"]);
        for chain in items(&resource["filter_chains"]) {
            let row = [address.clone(), port.clone(), chain_match(&chain["filter_chain_match"]), destination(chain)];
            rows.push(row.to_vec());
        }
    }
    table(&["ADDRESS", "PORT", "MATCH", "DESTINATION"], &rows)
}

fn chain_match(value: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(port) = value["destination_port"].as_u64() {
        parts.push(format!("Port: {port}"));
    }
    let protocols = items(&value["application_protocols"]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    if !protocols.is_empty() {
        parts.push(format!("App: {}", protocols.join(",")));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(chain: &Value) -> String {
    let of_filter = |filter: &Value| {
        let config = &filter["typed_config"];
        let route = config["rds"]["route_config_name"].as_str().map(|name| format!("Route: {name}"));
        let inline = || config["route_config"]["name"].as_str().map(|name| format!("Inline Route: {name}"));
        let cluster = || config["cluster"].as_str().map(|name| format!("Cluster: {name}"));
        route.or_else(inline).or_else(cluster)
    };
    items(&chain["filters"]).iter().filter_map(of_filter).collect::<Vec<_>>().join("; ")
}

fn routes(resources: &[DumpedResource]) -> String {
    let mut rows = Vec::new();
    for DumpedResource { name, resource, .. } in resources {
        for host in items(&resource["virtual_hosts"]) {
            let domains = items(&host["domains"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
            for route in items(&host["routes"]) {
                let matched = &route["match"];
                let path = matched["prefix"].as_str().map(|prefix| format!("{prefix}*"));
                let path = path.or_else(|| matched["path"].as_str().map(ToOwned::to_owned)).unwrap_or_default();
                let target = text(&route["route"]["cluster"]);
                rows.push(vec![name.clone(), text(&host["name"]), domains.clone(), path, target]);
            }
        }
    }
    table(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "TARGET"], &rows)
}

fn clusters(resources: &[DumpedResource]) -> String {
    let row = |dumped: &DumpedResource| {
        // DIRECTION|PORT|SUBSET|HOST, or a name of its own.
        let parts = dumped.name.split('|').collect::<Vec<_>>();
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let discovery = or_dash(dumped.resource["type"].as_str().unwrap_or("STATIC"));
        match parts.as_slice() {
            [direction, port, subset, host] => {
                vec![or_dash(host), or_dash(port), or_dash(subset), or_dash(direction), discovery]
            }
            _ => vec![dumped.name.clone(), or_dash(""), or_dash(""), or_dash(""), discovery],
        }
    };
    let rows = resources.iter().map(row).collect::<Vec<_>>();
    table(&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE"], &rows)
}

fn endpoints(resources: &[DumpedResource]) -> String {
    let mut rows = Vec::new();
    for DumpedResource { name, resource, .. } in resources {
        for locality in items(&resource["endpoints"]) {
            let (region, zone) = (text(&locality["locality"]["region"]), text(&locality["locality"]["zone"]));
            let place = [region, zone].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            for endpoint in items(&locality["lb_endpoints"]) {
                let (address, port) = socket_address(&endpoint["endpoint"]["address"]);
                let joined =
                    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
                rows.push(vec![joined, text(&endpoint["health_status"]), place.clone(), name.clone()]);
            }
        }
    }
    table(&["ENDPOINT", "STATUS", "LOCALITY", "CLUSTER"], &rows)
}

fn socket_address(value: &Value) -> (String, String) {
    let address = &value["socket_address"];
    (text(&address["address"]), address["port_value"].as_u64().map(|port| port.to_string()).unwrap_or_default())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
