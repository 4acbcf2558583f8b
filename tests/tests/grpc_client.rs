//! gRPC's own xDS client (grpcio, `xds:///`) by our control plane: names, balance, and endpoints that come and go under load.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use weft_tests::netns::Namespace;
use weft_tests::peers;
use weft_tests::process::{Launch, Process};
use weft_tests::slot::Slot;
use weft_tests::wait;

const SERVERS: [&str; 3] = ["10.7.0.1:50051", "10.7.0.2:50051", "10.7.0.3:50051"];
const XDS: &str = "127.0.0.1:15010";
const SERVICE_NAME: &str = "xds:///echo.shop.svc.cluster.local:7070";
const PATIENCE: Duration = Duration::from_secs(20);
/// Enough calls to tell how they are spread.
const CALLS: u64 = 300;

/// A network of its own with a control plane and servers; nothing of it is outside.
struct Stage {
    // In the order in which they have to end.
    processes: Vec<Process>,
    namespace: Namespace,
    slot: Slot,
}

impl Stage {
    fn set(addresses: &[&str]) -> Result<Self> {
        let slot = Slot::acquire("weft-grpc")?;
        let namespace = Namespace::create(&format!("{}-net", slot.prefix()))?;
        let manifests = slot.work().join("manifests");
        fs::create_dir(&manifests)?;
        let mut stage = Self { processes: Vec::new(), namespace, slot };
        stage.set_endpoints(addresses)?;
        fs::write(
            manifests.join("service.yaml"),
            "apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: shop}\n\
             spec: {clusterIP: 10.96.7.70, ports: [{name: grpc, port: 7070, targetPort: 50051}]}\n",
        )?;
        for server in SERVERS {
            let (address, _) = server.split_once(':').context("an address and a port")?;
            stage.namespace.ip(&[&format!("addr add {address}/32 dev lo")])?;
            stage.spawn(
                "server",
                &Launch::new(python()?).args([&application(), Path::new("serve"), Path::new(server)]),
            )?;
        }
        let control = Launch::new(peers::weft("weft-control")?)
            .args(["serve", "--plaintext-xds-address", XDS, "--monitoring-address", "127.0.0.1:15014", "--manifests"])
            .args([&manifests]);
        stage.spawn("weft-control", &control)?;
        Ok(stage)
    }

    fn spawn(&mut self, name: &str, launch: &Launch) -> Result<()> {
        let number = self.processes.len();
        let launch = launch.clone().inside(&self.namespace);
        let process = Process::spawn(name, &launch, &self.slot.work().join(format!("{name}-{number}.log")))?;
        self.processes.push(process);
        Ok(())
    }

    /// Replaces the file the way that editors do.
    fn set_endpoints(&self, servers: &[&str]) -> Result<()> {
        let manifests = self.slot.work().join("manifests");
        let mut text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {name: echo-x, namespace: shop, labels: {kubernetes.io/service-name: echo}}\n\
             ports: [{name: grpc, port: 50051}]\nendpoints:\n"
            .to_owned();
        for server in servers {
            let (address, _) = server.split_once(':').context("an address and a port")?;
            text.push_str(&format!("- addresses: [{address}]\n"));
        }
        fs::write(manifests.join(".new"), text)?;
        Ok(fs::rename(manifests.join(".new"), manifests.join("endpoints.yaml"))?)
    }

    fn caller(&self, target: &str) -> Result<Caller> {
        let bootstrap = self.slot.work().join("grpc-xds.json");
        let document = serde_json::json!({
            "xds_servers": [
                {"server_uri": XDS, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]},
            ],
            "node": {"id": "caller", "locality": {"zone": "here"}},
        });
        fs::write(&bootstrap, document.to_string())?;
        let mut command = self.namespace.command(python()?);
        command.arg(application()).args(["call", target]).env("GRPC_XDS_BOOTSTRAP", &bootstrap);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let questions = child.stdin.take().context("its standard input is ours")?;
        let answers = BufReader::new(child.stdout.take().context("its standard output is ours")?).lines();
        Ok(Caller { child, questions, answers })
    }
}

/// The client; it calls for as long as it lives.
struct Caller {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What came of the calls since the last report.
#[derive(Debug, Default, Deserialize)]
struct Report {
    by_server: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
}

impl Report {
    fn calls(&self) -> u64 {
        self.by_server.values().sum()
    }

    fn add(&mut self, other: Self) {
        other.by_server.into_iter().for_each(|(server, calls)| *self.by_server.entry(server).or_default() += calls);
        other.failures.into_iter().for_each(|(reason, calls)| *self.failures.entry(reason).or_default() += calls);
    }
}

impl Caller {
    fn report(&mut self) -> Result<Report> {
        self.questions.write_all(b"\n")?;
        let line = self.answers.next().context("the client ended")??;
        serde_json::from_str(&line).with_context(|| format!("not a report: {line}"))
    }

    /// What came of enough calls.
    fn window(&mut self) -> Result<Report> {
        let mut window = Report::default();
        wait::until("a window of calls", PATIENCE, || {
            window.add(self.report()?);
            ensure!(window.calls() >= CALLS, "too few: {window:?}");
            Ok(())
        })?;
        Ok(window)
    }

    /// Waits until calls are spread evenly over these servers; none may fail meanwhile.
    fn until_balanced(&mut self, servers: &[&str]) -> Result<()> {
        wait::until(&format!("round robin over {servers:?}"), PATIENCE, || {
            let window = self.window()?;
            assert!(window.failures.is_empty(), "on the way to {servers:?}: {window:?}");
            is_balanced(&window, servers)
        })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn python() -> Result<PathBuf> {
    peers::python()
}

fn application() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/grpc_application.py")
}

/// Every one of these servers gets its share, and nobody else gets anything.
fn is_balanced(report: &Report, servers: &[&str]) -> Result<()> {
    ensure!(report.by_server.len() == servers.len(), "{report:?}");
    let share = report.calls() / servers.len() as u64;
    for server in servers {
        let calls = report.by_server.get(*server).copied().unwrap_or_default();
        ensure!(calls.abs_diff(share) <= share / 10 + 2, "{server} is not one of {share} each: {report:?}");
    }
    Ok(())
}

#[test]
fn grpc_balances_over_endpoints_that_come_and_go_and_no_call_fails() -> Result<()> {
    let stage = Stage::set(&SERVERS)?;
    let mut caller = stage.caller(SERVICE_NAME)?;
    // What failed before the servers listened is none of the control plane's.
    wait::until("no call fails any more", PATIENCE, || {
        let window = caller.window()?;
        ensure!(window.failures.is_empty(), "{window:?}");
        Ok(())
    })?;
    caller.until_balanced(&SERVERS)?;
    for left in [&SERVERS[..2], &SERVERS[1..], &SERVERS[2..], &SERVERS[..]] {
        stage.set_endpoints(left)?;
        caller.until_balanced(left)?;
    }
    Ok(())
}

#[test]
fn grpc_finds_a_service_by_each_of_its_names() -> Result<()> {
    let stage = Stage::set(&SERVERS[..1])?;
    for target in [SERVICE_NAME, "xds:///echo.shop.svc:7070", "xds:///echo.shop:7070"] {
        let mut caller = stage.caller(target)?;
        wait::until(target, PATIENCE, || {
            let report = caller.report()?;
            ensure!(report.by_server.keys().eq(&SERVERS[..1]), "{report:?}");
            Ok(())
        })?;
    }
    let mut nobody = stage.caller("xds:///nobody.shop:7070")?;
    wait::until("a name that does not exist is said not to", PATIENCE, || {
        let report = nobody.report()?;
        ensure!(report.failures.keys().any(|reason| reason.starts_with("UNAVAILABLE: ")), "{report:?}");
        Ok(())
    })
}
