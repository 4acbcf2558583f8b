//! `weft proxy-config`: what a proxy is given, in columns or whole.

use serde_json::{Map, Value};

use crate::args::Section;
use crate::dump::{Dump, Dumped};
use crate::filter::Filter;
use crate::secrets;
use crate::table::table;

/// The parts that a section shows: the resources that pass its filter.
pub(crate) fn select(dump: Dump, section: &Section) -> Dump {
    let filter = Filter::of(section);
    let Dump { clusters, listeners, routes, endpoints, secrets } = dump;
    let all = Dump {
        clusters: clusters.into_iter().filter(|cluster| filter.takes_cluster(cluster)).collect(),
        listeners: listeners.into_iter().filter(|listener| filter.takes_listener(listener)).collect(),
        routes: routes.into_iter().filter(|table| filter.takes_name(table)).collect(),
        endpoints: endpoints.into_iter().filter_map(|assignment| filter.narrow_endpoints(assignment)).collect(),
        secrets: secrets.into_iter().filter(|secret| filter.takes_name(secret)).collect(),
    };
    match section {
        Section::Clusters { .. } => Dump { clusters: all.clusters, ..Dump::default() },
        Section::Listeners { .. } => Dump { listeners: all.listeners, ..Dump::default() },
        Section::Routes { .. } => Dump { routes: all.routes, ..Dump::default() },
        Section::Endpoints { .. } => Dump { endpoints: all.endpoints, ..Dump::default() },
        Section::Secrets { .. } => Dump { secrets: all.secrets, ..Dump::default() },
        Section::All { .. } => all,
    }
}

/// The resources themselves, as they are printed in JSON and YAML: a list, or for all sections a list each.
pub(crate) fn bodies(dump: &Dump, section: &Section) -> Value {
    let list = |resources: &[Dumped]| Value::Array(resources.iter().map(|dumped| dumped.resource.clone()).collect());
    match section {
        Section::Clusters { .. } => list(&dump.clusters),
        Section::Listeners { .. } => list(&dump.listeners),
        Section::Routes { .. } => list(&dump.routes),
        Section::Endpoints { .. } => list(&dump.endpoints),
        Section::Secrets { .. } => list(&dump.secrets),
        Section::All { .. } => {
            let sections = [
                ("clusters", &dump.clusters),
                ("listeners", &dump.listeners),
                ("routes", &dump.routes),
                ("endpoints", &dump.endpoints),
                ("secrets", &dump.secrets),
            ];
            let lists = sections.map(|(name, resources)| (name.to_owned(), list(resources)));
            Value::Object(Map::from_iter(lists))
        }
    }
}

pub(crate) fn tables(dump: &Dump, section: &Section) -> String {
    match section {
        Section::Clusters { .. } => clusters(&dump.clusters),
        Section::Listeners { .. } => listeners(&dump.listeners),
        Section::Routes { .. } => routes(&dump.routes),
        Section::Endpoints { .. } => endpoints(&dump.endpoints),
        Section::Secrets { .. } => secrets::table_of(&dump.secrets),
        Section::All { .. } => [
            clusters(&dump.clusters),
            listeners(&dump.listeners),
            routes(&dump.routes),
            endpoints(&dump.endpoints),
            secrets::table_of(&dump.secrets),
        ]
        .join("\n"),
    }
}

fn listeners(resources: &[Dumped]) -> String {
    let mut rows = Vec::new();
    for Dumped { name, resource, .. } in resources {
        let (address, port) = socket_address(&resource["address"]);
        // What applications without a sidecar ask for has no address.
        let address = if address.is_empty() { name.clone() } else { address };
        let api = &resource["api_listener"]["api_listener"];
        if api.is_object() {
            rows.push(vec![address.clone(), port.clone(), "ALL".to_owned(), target(api).unwrap_or_default()]);
        }
        let default = Some(&resource["default_filter_chain"]).filter(|chain| chain.is_object());
        for chain in items(&resource["filter_chains"]).iter().chain(default) {
            let row = [address.clone(), port.clone(), chain_match(&chain["filter_chain_match"]), destination(chain)];
            rows.push(row.to_vec());
        }
    }
    table(&["ADDRESS", "PORT", "MATCH", "DESTINATION"], &rows)
}

fn chain_match(value: &Value) -> String {
    let texts = |value: &Value| items(value).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let mut parts = Vec::new();
    let names = texts(&value["server_names"]);
    if !names.is_empty() {
        parts.push(format!("SNI: {names}"));
    }
    if let Some(transport) = value["transport_protocol"].as_str() {
        parts.push(format!("Trans: {transport}"));
    }
    let protocols = texts(&value["application_protocols"]);
    if !protocols.is_empty() {
        parts.push(format!("App: {protocols}"));
    }
    let ranges = items(&value["prefix_ranges"]).iter().map(|range| {
        format!("{}/{}", text(&range["address_prefix"]), range["prefix_len"].as_u64().unwrap_or_default())
    });
    let ranges = ranges.collect::<Vec<_>>().join(",");
    if !ranges.is_empty() {
        parts.push(format!("Addr: {ranges}"));
    }
    if let Some(port) = value["destination_port"].as_u64() {
        parts.push(format!("Port: {port}"));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(chain: &Value) -> String {
    let targets = items(&chain["filters"]).iter().filter_map(|filter| target(&filter["typed_config"]));
    targets.collect::<Vec<_>>().join("; ")
}

/// Where the traffic of a filter goes.
fn target(config: &Value) -> Option<String> {
    let route = config["rds"]["route_config_name"].as_str().map(|name| format!("Route: {name}"));
    let inline = || config["route_config"]["name"].as_str().map(|name| format!("Inline Route: {name}"));
    let cluster = || config["cluster"].as_str().map(|name| format!("Cluster: {name}"));
    route.or_else(inline).or_else(cluster)
}

fn routes(resources: &[Dumped]) -> String {
    let mut rows = Vec::new();
    for Dumped { name, resource, .. } in resources {
        for host in items(&resource["virtual_hosts"]) {
            let domains = items(&host["domains"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
            for route in items(&host["routes"]) {
                let row =
                    [name.clone(), text(&host["name"]), domains.clone(), path(&route["match"]), route_target(route)];
                rows.push(row.to_vec());
            }
        }
    }
    table(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "TARGET"], &rows)
}

fn path(matched: &Value) -> String {
    let prefix = matched["prefix"].as_str().map(|prefix| format!("{prefix}*"));
    let separated = || matched["path_separated_prefix"].as_str().map(|prefix| format!("{prefix}[/...]"));
    let regex = || matched["safe_regex"]["regex"].as_str().map(|regex| format!("regex {regex}"));
    let exact = matched["path"].as_str().map(ToOwned::to_owned);
    prefix.or(exact).or_else(separated).or_else(regex).unwrap_or_default()
}

fn route_target(route: &Value) -> String {
    let action = &route["route"];
    let weighted = items(&action["weighted_clusters"]["clusters"])
        .iter()
        .map(|cluster| format!("{} ({})", text(&cluster["name"]), cluster["weight"].as_u64().unwrap_or_default()));
    let weighted = weighted.collect::<Vec<_>>().join(", ");
    let header = || action["cluster_header"].as_str().map(|name| format!("by header {name}"));
    let response = || route["direct_response"]["status"].as_u64().map(|status| format!("responds {status}"));
    let redirect = || route["redirect"].as_object().map(|_| "redirects".to_owned());
    let cluster = action["cluster"].as_str().map(ToOwned::to_owned);
    let weighted = Some(weighted).filter(|weighted| !weighted.is_empty());
    cluster.or(weighted).or_else(header).or_else(response).or_else(redirect).unwrap_or_default()
}

fn clusters(resources: &[Dumped]) -> String {
    let row = |dumped: &Dumped| {
        // DIRECTION|PORT|SUBSET|HOST, or a name of its own.
        let parts = dumped.name.split('|').collect::<Vec<_>>();
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let custom = dumped.resource["cluster_type"]["name"].as_str();
        let discovery = or_dash(dumped.resource["type"].as_str().or(custom).unwrap_or("STATIC"));
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

fn endpoints(resources: &[Dumped]) -> String {
    let mut rows = Vec::new();
    for Dumped { name, resource, .. } in resources {
        for locality in items(&resource["endpoints"]) {
            let (region, zone) = (text(&locality["locality"]["region"]), text(&locality["locality"]["zone"]));
            let place = [region, zone].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            for endpoint in items(&locality["lb_endpoints"]) {
                let (address, port) = socket_address(&endpoint["endpoint"]["address"]);
                let joined =
                    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
                rows.push(vec![joined, health(endpoint).to_owned(), place.clone(), name.clone()]);
            }
        }
    }
    table(&["ENDPOINT", "STATUS", "LOCALITY", "CLUSTER"], &rows)
}

/// An endpoint of unknown health gets traffic, as a healthy one does.
pub(crate) fn health(endpoint: &Value) -> &str {
    endpoint["health_status"].as_str().filter(|status| *status != "UNKNOWN").unwrap_or("HEALTHY")
}

/// The address, or what stands for it, and the port.
pub(crate) fn socket_address(value: &Value) -> (String, String) {
    let (address, pipe) = (&value["socket_address"], &value["pipe"]["path"]);
    let port = address["port_value"].as_u64().map(|port| port.to_string()).unwrap_or_default();
    (pipe.as_str().map_or_else(|| text(&address["address"]), ToOwned::to_owned), port)
}

pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
