//! The programs as people run them: what they print and how they exit.

use std::process::{Command, Output};

use crate::harness::{Control, Process, binary, service};
use weft_control::translate::resource::Kind;

fn weft(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).env_remove("WEFT_CONTROL").output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `weft` beside a control plane with one connected sidecar.
async fn beside_a_sidecar(line: &'static str) -> Output {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]).await;
    let mut client = control.sotw().await;
    client.subscribe().await;
    // The last acknowledgement is on its way.
    crate::harness::eventually("the routes are taken", async || {
        control.json("/debug/syncz").await[0]["kinds"]["rds"]["status"] == "SYNCED"
    })
    .await;
    let address = control.monitoring.to_string();
    tokio::task::spawn_blocking(move || {
        weft(&[&["--control", &address], line.split(' ').collect::<Vec<_>>().as_slice()].concat())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn proxy_status_shows_who_is_in_sync() {
    let text = stdout(&beside_a_sidecar("proxy-status").await);
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(words[0], ["NAME", "CDS", "LDS", "EDS", "RDS", "SDS", "ECDS", "XDS", "PEER"]);
    assert_eq!(words[1][..8], ["reviews-0.shop", "SYNCED", "SYNCED", "SYNCED", "SYNCED", "-", "-", "sotw"]);
}

#[tokio::test]
async fn proxy_config_shows_what_a_proxy_is_given() {
    let text = stdout(&beside_a_sidecar("proxy-config all reviews-0.shop").await);
    for expected in ["a.shop.svc.cluster.local", "10.0.0.1:8080", "Port: 15006", "Route: outbound|80||a"] {
        assert!(text.contains(expected), "{expected} in:\n{text}");
    }
    let json = stdout(&beside_a_sidecar("proxy-config listener reviews-0.shop -o json").await);
    let listeners = serde_json::from_str::<serde_json::Value>(&json).unwrap();
    assert_eq!(listeners.as_array().unwrap().len(), 3);
    let yaml = stdout(&beside_a_sidecar("pc ep reviews-0.shop -o yaml").await);
    assert!(yaml.contains("cluster_name: outbound|80||a.shop.svc.cluster.local"), "{yaml}");
}

#[tokio::test]
async fn filters_show_less() {
    let lines = async |line: &'static str| stdout(&beside_a_sidecar(line).await).lines().count();
    assert_eq!(lines("proxy-config clusters reviews-0.shop --fqdn a.shop --port 80").await, 2);
    assert_eq!(lines("proxy-config clusters reviews-0.shop --direction inbound").await, 1);
    assert_eq!(lines("proxy-config listeners reviews-0.shop --address 10.96.0.1 --type http").await, 2);
    assert_eq!(lines("proxy-config routes reviews-0.shop --name nothing").await, 1);
    assert_eq!(lines("proxy-config endpoints reviews-0.shop --status healthy -o short").await, 2);
    assert_eq!(lines("proxy-config endpoints reviews-0.shop --address 10.0.0.9").await, 1);
    assert_eq!(lines("proxy-config secrets reviews-0.shop").await, 1);
}

#[tokio::test]
async fn a_dump_in_a_file_is_read_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.json");
    let path = file.to_str().unwrap();
    std::fs::write(&file, beside_a_sidecar("pc all reviews-0.shop -o json").await.stdout).unwrap();
    let of_sections = weft(&["pc", "clusters", "--file", path]);
    assert_eq!(of_sections.status.code(), Some(65), "lists of resources are no dump");
    std::fs::write(&file, "{").unwrap();
    assert_eq!(weft(&["pc", "clusters", "--file", path]).status.code(), Some(65));
    assert_eq!(weft(&["pc", "clusters", "--file", "/nowhere"]).status.code(), Some(1));
    let clusters = r#"{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
                       "static_clusters": [{"cluster": {"name": "outbound|80||a.shop", "type": "EDS"}}]}"#;
    std::fs::write(&file, format!("{{\"configs\": [{clusters}]}}")).unwrap();
    let text = stdout(&weft(&["pc", "clusters", "--file", path]));
    assert_eq!(
        text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["a.shop", "80", "-", "outbound", "EDS"]
    );
}

#[tokio::test]
async fn an_analysis_that_finds_something_says_so_by_its_code() {
    let control = Control::start(&[("a.yaml", &service("a", "10.96.0.1", &[]))]).await;
    let address = control.monitoring.to_string();
    let analyze = async || {
        let address = address.clone();
        tokio::task::spawn_blocking(move || weft(&["analyze", "--control", &address])).await.unwrap()
    };
    assert_eq!(stdout(&analyze().await), "no problems found\n");
    control.write("a.yaml", &service("a", "10.96.0.1", &[]).replace("port: 80,", "port: eighty,"));
    crate::harness::eventually("the problem is found", async || analyze().await.status.code() == Some(79)).await;
    let text = String::from_utf8(analyze().await.stdout).unwrap();
    assert!(text.contains("a.yaml: document 1 (line 1): spec.ports[0].port: "), "{text}");
}

#[tokio::test]
async fn versions_and_completions_are_printed() {
    let text = stdout(&beside_a_sidecar("version").await);
    assert!(text.contains("client version: ") && text.contains("control plane version: "), "{text}");
    assert!(stdout(&weft(&["version", "--remote=false", "-o", "json"])).contains("\"client\""));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&weft(&["completion", shell])).contains("proxy-status"), "{shell}");
    }
}

#[tokio::test]
async fn mistakes_have_codes_of_their_own() {
    assert_eq!(weft(&["proxy-statuses"]).status.code(), Some(64));
    assert_eq!(weft(&[]).status.code(), Some(64));
    assert_eq!(weft(&["--help"]).status.code(), Some(0));
    let unreachable = weft(&["--control", "127.0.0.1:1", "proxy-status"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unreachable.stderr).contains("cannot reach the control plane at 127.0.0.1:1"));
    let nobody = beside_a_sidecar("proxy-config all nobody.here").await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no proxy \"nobody.here\" is connected"));
}

fn weft_control(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

#[test]
fn a_control_plane_that_cannot_start_says_why() {
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let missing = weft_control(&["serve", "--manifests", "/nowhere/at/all", "--plaintext-xds-address", "127.0.0.1:0"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("cannot list the manifests in /nowhere/at/all"), "{}", stderr(&missing));
    let unknown = weft_control(&["serve", "--tls-xds-address", "127.0.0.1:0"]);
    assert_eq!(unknown.status.code(), Some(2));
    let level =
        weft_control(&["serve", "--manifests", "/", "--plaintext-xds-address", "127.0.0.1:0", "--log-level", "a=b=c"]);
    assert_eq!(level.status.code(), Some(1));
    assert!(stderr(&level).contains("--log-level"), "{}", stderr(&level));
}

#[tokio::test]
async fn metrics_are_counted_under_the_names_that_dashboards_read() {
    let process = Process::start(&[("a.yaml", &service("a", "10.96.0.1", &["10.0.0.1"]))]);
    let mut client = crate::harness::sotw_of(process.xds).await;
    client.subscribe().await;
    process.write("b.yaml", &service("b", "10.96.0.2", &["10.0.0.2"]));
    client.expect(Kind::Cluster).await;
    client.request(Kind::Cluster, &[], Some("outbound|80||b.shop.svc.cluster.local: bad")).await;
    client.expect(Kind::Listener).await;
    for expected in [
        "pilot_xds 1",
        "pilot_services 2",
        "pilot_xds_pushes{type=\"cds\"} 2",
        "pilot_total_xds_rejects{type=\"cds\"} 1",
        "pilot_xds_config_size_bytes_count{type=\"eds\"} 1",
        "pilot_xds_push_context_seconds_count 2",
        "istio_build{component=\"pilot\"",
    ] {
        crate::harness::eventually(expected, async || {
            crate::harness::page(process.monitoring, "/metrics").await.1.contains(expected)
        })
        .await;
    }
    process.wait_for_log("\"resources\":\"[\\\"outbound|80||b.shop.svc.cluster.local\\\"]\"");
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let mut process = Process::start(&[]);
    let told = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    process.wait_for_log("\"stopping\"");
}

#[test]
fn a_token_that_cannot_be_read_is_a_failure_that_names_its_flag() {
    let output = weft(&["--token-file", "/nowhere", "proxy-status"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/nowhere") && stderr.contains("--token-file"), "{stderr}");
}
