//! Services that are reached in ways of their own, by our sidecars and by Envoy: headless ones, names of what is elsewhere, clients
//! that stay with an endpoint, endpoints that are not ready or on their way out, ports that no Service tells of, and pods whose
//! traffic is intercepted transparently.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::http1::Response;
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh, Plan, Sidecars};
use weft_tests::services::CLIENT;
use weft_tests::{peers, wait};

/// The endpoints of everything here, and their ports.
const PODS: [&str; 2] = ["stateful-0", "stateful-1"];
const HTTP_PORT: u16 = 9180;
const TCP_PORT: u16 = 9181;
const UNDECLARED_PORT: u16 = 9182;
const ALIAS_PORT: u16 = 9190;
const STICKY: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 70);
const EARLY: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 71);
const LEAVING: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 72);
const TRANSPARENT: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 73);
const PATIENCE: Duration = Duration::from_secs(15);

fn start(sidecars: Sidecars) -> Result<Mesh> {
    let manifests = vec![peers::demo_manifests(), peers::reach_manifests()];
    Mesh::start(&Plan { family: "weft-test", manifests, sidecars })
}

fn check(mesh: &Mesh) -> Result<()> {
    check_headless(mesh).context("headless")?;
    check_external_name(mesh).context("an external name")?;
    check_affinity(mesh).context("affinity")?;
    check_undeclared_port(mesh).context("a port that no Service tells of")?;
    check_not_ready(mesh).context("endpoints that are not ready")?;
    check_terminating(mesh).context("an endpoint on its way out")
}

/// The client chooses the pod, by its own name or address; one listener a port serves all pods.
fn check_headless(mesh: &Mesh) -> Result<()> {
    for pod in PODS {
        let address = mesh.pod(pod)?.address()?;
        for authority in [
            format!("{pod}.stateful.demo.svc.cluster.local:{HTTP_PORT}"),
            format!("{pod}.stateful:{HTTP_PORT}"),
            format!("stateful:{HTTP_PORT}"),
            "stateful.demo".to_owned(),
            format!("{address}:{HTTP_PORT}"),
            "somebody.else.example".to_owned(),
        ] {
            let answer = get(mesh, address, HTTP_PORT, &authority)?;
            ensure!(answered_by(&answer) == Some(pod), "{pod} as {authority}: {} {}", answer.status, answer.text());
        }
        assert_eq!(echo(mesh, address, TCP_PORT)?, format!("{pod} v1: hello\n"));
    }
    // Five of the six names of each pod are the Service's; the sixth passes through.
    assert_eq!(counted(mesh, CLIENT, "envoy_cluster_upstream_rq_total", "outbound|9180||stateful")?, 10.0);
    assert_eq!(counted(mesh, CLIENT, "envoy_cluster_upstream_cx_total", "outbound|9181||stateful")?, 2.0);
    let listeners = mesh.pod(CLIENT)?.admin("/listeners")?.text();
    let of_ports = listeners.lines().filter(|line| line.contains("_9180") || line.contains("_9181"));
    assert_eq!(of_ports.count(), 4, "one a port and family, whatever the number of pods:\n{listeners}");
    Ok(())
}

/// DNS decides where it leads; the application went to wherever its own DNS told.
fn check_external_name(mesh: &Mesh) -> Result<()> {
    for (pod, authority) in [("stateful-0", "alias:9190"), ("stateful-1", "alias.demo.svc.cluster.local")] {
        let answer = get(mesh, mesh.pod(pod)?.address()?, ALIAS_PORT, authority)?;
        ensure!(answered_by(&answer) == Some("stateful-1"), "{authority}: {} {}", answer.status, answer.text());
    }
    assert_eq!(counted(mesh, CLIENT, "envoy_cluster_upstream_rq_total", "outbound|9190||alias")?, 2.0);
    Ok(())
}

fn check_affinity(mesh: &Mesh) -> Result<()> {
    let pods = (0..20).map(|_| {
        let answer = get(mesh, STICKY.into(), 80, "sticky")?;
        answered_by(&answer).map(ToOwned::to_owned).with_context(|| format!("{} {}", answer.status, answer.text()))
    });
    let pods = pods.collect::<Result<BTreeSet<_>>>()?;
    ensure!(pods.len() == 1, "{pods:?}");
    let pods = (0..10).map(|_| echo(mesh, STICKY.into(), 81)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(pods.len() == 1 && pods.iter().all(|answer| answer.ends_with(" v1: hello\n")), "{pods:?}");
    Ok(())
}

fn check_undeclared_port(mesh: &Mesh) -> Result<()> {
    assert_eq!(echo(mesh, mesh.pod(PODS[0])?.address()?, UNDECLARED_PORT)?, "stateful-0 v1: hello\n");
    assert_eq!(counted(mesh, CLIENT, "envoy_cluster_upstream_cx_total", "PassthroughCluster")?, 2.0 + 1.0);
    assert_eq!(counted(mesh, PODS[0], "envoy_cluster_upstream_cx_total", "InboundPassthroughCluster")?, 1.0);
    Ok(())
}

fn check_not_ready(mesh: &Mesh) -> Result<()> {
    let ask = || get(mesh, EARLY.into(), 80, "early");
    ensure!(ask()?.status == 200, "it is published before it is ready");
    let file = mesh.manifests().join("early.yaml");
    let published = fs::read_to_string(&file)?;
    fs::write(&file, published.replace("publishNotReadyAddresses: true", "publishNotReadyAddresses: false"))?;
    wait::until("what is not ready is not reached", CHANGE_PATIENCE, || {
        let answer = ask()?;
        ensure!(answer.status == 503, "{}", answer.status);
        assert_eq!(answer.text(), "no healthy upstream");
        Ok(())
    })?;
    mesh.endpoint_slice("early-endpoints.yaml")?.write(|endpoint| {
        let mut endpoint = endpoint.clone();
        endpoint["conditions"] = serde_json::json!({"ready": endpoint["targetRef"]["name"] == PODS[1]});
        Some(endpoint)
    })?;
    wait::until("what is ready is reached", CHANGE_PATIENCE, || {
        let answer = ask()?;
        ensure!(answered_by(&answer) == Some(PODS[1]), "{} {}", answer.status, answer.text());
        Ok(())
    })
}

fn check_terminating(mesh: &Mesh) -> Result<()> {
    let ask = || get(mesh, LEAVING.into(), 80, "leaving");
    for _ in 0..10 {
        let answer = ask()?;
        ensure!(answered_by(&answer) == Some(PODS[1]), "{} {}", answer.status, answer.text());
    }
    mesh.endpoint_slice("leaving-endpoints.yaml")?.keep(|pod| pod == PODS[0])?;
    wait::until("while no other is there, it still serves", CHANGE_PATIENCE, || {
        let answer = ask()?;
        ensure!(answered_by(&answer) == Some(PODS[0]), "{} {}", answer.status, answer.text());
        Ok(())
    })
}

fn get(mesh: &Mesh, address: IpAddr, port: u16, authority: &str) -> Result<Response> {
    mesh.pod(CLIENT)?.get((address, port).into(), authority, "/", &[]).with_context(|| format!("GET as {authority}"))
}

fn answered_by(answer: &Response) -> Option<&str> {
    answer.header("x-origin-pod")
}

/// Says hello from the client's pod and hears what comes back.
fn echo(mesh: &Mesh, address: IpAddr, port: u16) -> Result<String> {
    let address = SocketAddr::from((address, port));
    let mut stream = mesh.pod(CLIENT)?.namespace().enter(|| {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })?;
    stream.write_all(b"hello\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("bytes to {address}"))?;
    Ok(answer)
}

fn counted(mesh: &Mesh, pod: &str, metric: &str, cluster: &str) -> Result<f64> {
    let scrape = mesh.pod(pod)?.scrape(mesh.node())?;
    Ok(scrape.sum(metric, "envoy_cluster_name", |name| name.starts_with(cluster)))
}

#[test]
fn our_sidecars_reach_what_was_meant() -> Result<()> {
    check(&start(Sidecars::Weft)?)
}

#[test]
fn envoys_reach_what_was_meant_and_take_all_that_there_is_to_send() -> Result<()> {
    let mesh = start(Sidecars::Envoy)?;
    check(&mesh)?;
    // Services of every sort, whose translation the golden files show.
    for fixture in ["mesh.yaml", "reach.yaml"] {
        fs::copy(peers::control_fixture(fixture), mesh.manifests().join(fixture))?;
    }
    let client = mesh.pod(CLIENT)?;
    // There is no DNS here, and Envoy gives the external name among them its time before it takes what comes next.
    wait::until("the new listeners are there", 4 * CHANGE_PATIENCE, || {
        let listeners = client.admin("/listeners")?.text();
        let wanted = ["10.96.0.10_9080", "fd00:10:96::11_80", "10.96.0.20_90", "0.0.0.0_443", "0.0.0.0_8080"];
        let missing = wanted.iter().filter(|name| !listeners.contains(**name)).collect::<Vec<_>>();
        ensure!(missing.is_empty(), "{missing:?} are missing");
        Ok(())
    })?;
    let refusals = client.admin("/stats?filter=update_rejected")?.text();
    for wanted in ["cluster_manager.cds.update_rejected: 0", "listener_manager.lds.update_rejected: 0"] {
        ensure!(refusals.contains(wanted), "{refusals}");
    }
    let refused = refusals.lines().filter(|line| !line.ends_with(": 0")).collect::<Vec<_>>();
    ensure!(refused.is_empty(), "refused by Envoy: {refused:?}");
    Ok(())
}

/// The application sees who called, as if there were no sidecar.
fn check_transparent(sidecars: Sidecars) -> Result<()> {
    let manifests = vec![peers::demo_manifests(), peers::tproxy_manifests()];
    let mesh = Mesh::start(&Plan { family: "weft-test", manifests, sidecars })?;
    let caller = mesh.pod(CLIENT)?.address()?;
    let pod = mesh.pod("transparent")?.address()?;
    for (address, port) in [(IpAddr::V4(TRANSPARENT), 80), (pod, 9280)] {
        let answer = mesh.pod(CLIENT)?.get((address, port).into(), "transparent", "/headers", &[])?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let seen: Value = serde_json::from_slice(&answer.body)?;
        assert_eq!(seen["peer"], caller.to_string(), "port {port}");
    }
    for (address, port) in [(IpAddr::V4(TRANSPARENT), 81), (pod, 9282)] {
        assert_eq!(echo(&mesh, address, port)?, "transparent v1: hello\n");
    }
    Ok(())
}

#[test]
fn envoy_intercepts_transparently() -> Result<()> {
    check_transparent(Sidecars::Envoy)
}
