//! The golden files of the control plane's translation, taken by the real Envoy as its whole configuration.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{static_cluster, with_http2};
use weft_tests::peers;

/// The resources of a golden file.
fn golden(name: &str) -> Result<Vec<Value>> {
    let file = peers::control_golden_files().join(format!("weft_control__translate__tests__{name}.snap"));
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    // A head of insta's own stands before the first resource.
    let (_, resources) = text.split_once("\n---\n").context("a golden file has a head")?;
    let mut resources: Vec<Value> = serde_saphyr::from_str_multiple::<Value, _>(resources)
        .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    for fields in resources.iter_mut().filter_map(Value::as_object_mut) {
        // In a bootstrap their places say what they are.
        fields.remove("@type");
    }
    Ok(resources)
}

/// Its endpoints, in place of a source of them: `--mode validate` waits for no source.
fn with_endpoints(mut cluster: Value, endpoints: &[Value]) -> Value {
    let assignment = endpoints.iter().find(|assignment| assignment["cluster_name"] == cluster["name"]);
    if let (Some(assignment), Some(fields)) = (assignment, cluster.as_object_mut()) {
        fields.insert("type".to_owned(), json!("STATIC"));
        fields.remove("eds_cluster_config");
        fields.insert("load_assignment".to_owned(), assignment.clone());
    }
    cluster
}

/// A listener that needs nobody's route table but this one.
fn listener_of(table: &Value, port: usize) -> Value {
    json!({
        "name": format!("with {}", table["name"]),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [weft_tests::bootstrap::http_filter("routes", table)]}],
    })
}

fn check(clusters: Vec<Value>, endpoints: &[Value], listeners: Vec<Value>, tables: &[Value]) -> Result<()> {
    let clusters = clusters.into_iter().map(|cluster| with_endpoints(cluster, endpoints));
    let own = [with_http2(static_cluster("xds-grpc", ([127, 0, 0, 1], 1).into()))];
    let of_tables = tables.iter().enumerate().map(|(index, table)| listener_of(table, 20_000 + index));
    let bootstrap = json!({
        "node": {"id": "sidecar~10.244.0.10~reviews-v1-0.shop~shop.svc.cluster.local", "cluster": "reviews.shop"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": clusters.chain(own).collect::<Vec<_>>(),
            "listeners": listeners.into_iter().chain(of_tables).collect::<Vec<_>>(),
        },
    });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bootstrap.json");
    fs::write(&file, format!("{bootstrap:#}"))?;
    let output = Command::new(peers::envoy()?).args(["--mode", "validate", "-c"]).arg(&file).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let told = stderr.lines().filter(|line| !line.contains("[info]")).collect::<Vec<_>>().join("\n");
    ensure!(output.status.success(), "refused by Envoy:\n{told}");
    ensure!(!told.contains("deprecated"), "Envoy warns:\n{told}");
    Ok(())
}

#[test]
fn what_a_sidecar_is_sent_for_a_small_mesh() -> Result<()> {
    let (clusters, listeners, tables) = (golden("clusters")?, golden("listeners")?, golden("routes")?);
    ensure!(clusters.len() > 10 && listeners.len() > 5 && tables.len() > 3, "the files hold less than a mesh");
    check(clusters, &golden("endpoints")?, listeners, &tables)
}

#[test]
fn what_it_is_sent_for_services_of_every_reach() -> Result<()> {
    // Clusters that these refer to, and that other golden files show.
    let others =
        ["PassthroughCluster", "BlackHoleCluster"].map(|name| static_cluster(name, ([127, 0, 0, 1], 1).into()));
    let mut clusters = golden("services_without_an_address_have_clusters_without_endpoints")?;
    clusters.extend(others);
    let listeners = golden("services_without_an_address_share_a_listener_a_port")?;
    let tables = golden("services_without_an_address_are_told_apart_by_host")?;
    ensure!(clusters.len() > 4 && !listeners.is_empty() && !tables.is_empty(), "the files hold less than a mesh");
    check(clusters, &[], listeners, &tables)?;
    let mut sticky = golden("clients_that_stay_with_an_endpoint_are_hashed")?;
    let near = golden("endpoints_are_ranked_by_where_a_client_stands")?;
    let is = |field: &'static str| move |resource: &Value| resource.get(field).is_some();
    let tables = sticky.extract_if(.., |resource| is("virtual_hosts")(resource)).collect::<Vec<_>>();
    let listeners = sticky.extract_if(.., |resource| is("filter_chains")(resource)).collect::<Vec<_>>();
    let of_near = near
        .iter()
        .filter(|resource| is("cluster_name")(resource))
        .map(|assignment| json!({"name": assignment["cluster_name"], "connect_timeout": "1s"}));
    let clusters = sticky.into_iter().chain(of_near).collect();
    check(clusters, &near, listeners, &tables)
}
