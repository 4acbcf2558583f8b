//! weft-control drives weft-proxy and the real Envoy, alone and mixed in one path: the same probes, the same answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use weft_tests::facts::Facts;
use weft_tests::load::Connections;
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh, Plan, Sidecars};
use weft_tests::peers;
use weft_tests::services::{
    CLIENT, GREETER, REVIEWS, REVIEWS_AUTHORITY, REVIEWS_REPLICAS, REVIEWS_SLICE, TCP_ECHO, load_reviews,
};
use weft_tests::wait;

/// What a caller sees of the mesh, and what the application sees of the caller.
fn observe(sidecars: Sidecars) -> Result<Facts> {
    let manifests = vec![peers::demo_manifests(), peers::test_manifests()];
    let mut mesh = Mesh::start(&Plan { family: "weft-test", manifests, sidecars })?;
    let mut facts = Facts::default();
    // One replica, so that it is no matter of chance who answers and how often it is tried.
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    slice.keep(|pod| pod == REVIEWS_REPLICAS[0])?;
    wait::until("one replica", CHANGE_PATIENCE, || {
        for _ in 0..6 {
            let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, "/", &[])?;
            ensure!(answer.header("x-origin-pod") == Some(REVIEWS_REPLICAS[0]), "another answers");
        }
        Ok(())
    })?;
    let pod_port = SocketAddr::new(mesh.pod(REVIEWS_REPLICAS[0])?.address()?, REVIEWS.port());
    for (what, address, path) in [
        ("account", REVIEWS, "/headers"),
        ("error", REVIEWS, "/status/500"),
        ("unavailable", REVIEWS, "/status/503"),
        ("chunks", REVIEWS, "/chunks/3"),
        ("closed", REVIEWS, "/close"),
        ("by pod address", pod_port, "/headers"),
    ] {
        let answer = mesh.pod(CLIENT)?.get(address, REVIEWS_AUTHORITY, path, &[("x-test-key", what)]);
        let mut of_this = Facts::default();
        match answer {
            Ok(answer) => of_this.add_outcome(&Ok(answer)),
            Err(error) => of_this.add("outcome", format!("{error:#}")),
        }
        of_this.drop_derived();
        facts.append(of_this.within(what));
    }
    slice.keep(|_| true)?;
    observe_load(&mut mesh, &mut facts)?;
    let grpc = mesh.pod(CLIENT)?.run(
        "curl",
        &[
            "-sS",
            "--http2-prior-knowledge",
            "--max-time",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version} %{content_type}",
            "-H",
            "content-type: application/grpc",
            "-H",
            "x-origin-do: grpc-only/5",
            "-d",
            "",
            &format!("http://{GREETER}/x.Y/Z"),
        ],
    )?;
    facts.add("grpc", grpc);
    facts.add("bytes", echo(&mesh)?);
    Ok(facts)
}

/// What a TCP service answers line by line, and that it ends when the caller has said all.
fn echo(mesh: &Mesh) -> Result<String> {
    let mut stream =
        mesh.pod(CLIENT)?.namespace().enter(|| Ok(TcpStream::connect_timeout(&TCP_ECHO, CHANGE_PATIENCE)?))?;
    stream.set_read_timeout(Some(CHANGE_PATIENCE))?;
    stream.write_all(b"one\ntwo\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Scaling and a dead replica, under load.
fn observe_load(mesh: &mut Mesh, facts: &mut Facts) -> Result<()> {
    let load = load_reviews(mesh, "/", Connections::Kept)?;
    mesh.endpoint_slice(REVIEWS_SLICE)?.keep(|pod| pod != REVIEWS_REPLICAS[0])?;
    wait::until("the replica is left out", CHANGE_PATIENCE, || {
        load.take_tally().check_no_failure()?;
        wait::until("a window of requests", CHANGE_PATIENCE, || {
            ensure!(load.tally().requests() >= 60, "too few");
            Ok(())
        })?;
        ensure!(!load.tally().by_pod.contains_key(REVIEWS_REPLICAS[0]), "it still answers");
        Ok(())
    })?;
    mesh.pod_mut(REVIEWS_REPLICAS[1])?.application()?.kill()?;
    let before = load.tally().requests();
    wait::until("requests after the death", CHANGE_PATIENCE, || {
        ensure!(load.tally().requests() >= before + 200, "too few");
        Ok(())
    })?;
    let tally = load.finish()?;
    // Envoy picks the host of a retry by chance and gives up after some draws, so one in a thousand fails there.
    let share = tally.failed * 100 / tally.requests();
    facts.add(
        "failures with a dead replica",
        if share == 0 { "less than one in a hundred".to_owned() } else { format!("{share} %") },
    );
    mesh.restart_application(REVIEWS_REPLICAS[1])
}

#[test]
fn our_sidecars_and_envoys_show_the_same_mesh() -> Result<()> {
    let envoy = observe(Sidecars::Envoy).context("with Envoy on both sides")?;
    let mut complaints = Vec::new();
    for sidecars in [Sidecars::EnvoyByDelta, Sidecars::Weft, Sidecars::EnvoyToWeft, Sidecars::WeftToEnvoy] {
        let ours = observe(sidecars).with_context(|| format!("with {sidecars:?}"))?;
        complaints
            .extend(envoy.differences(&ours, &[]).into_iter().map(|difference| format!("{sidecars:?}: {difference}")));
    }
    ensure!(envoy.count() > 40, "only {} facts compared", envoy.count());
    ensure!(complaints.is_empty(), "{} differences:\n{}", complaints.len(), complaints.join("\n"));
    Ok(())
}
