//! HTTP through two sidecars: redirected, balanced, retried, and the application none the wiser.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::load::Connections;
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh, Plan, Sidecars};
use weft_tests::services::{
    CLIENT, GREETER, GREETER_UNKNOWN, INBOUND_SOURCE, REVIEWS, REVIEWS_AUTHORITY, REVIEWS_IPV6, REVIEWS_REPLICAS,
    is_reviews, load_reviews,
};
use weft_tests::{peers, wait};

fn mesh() -> Result<Mesh> {
    let manifests = vec![peers::demo_manifests(), peers::test_manifests()];
    Mesh::start(&Plan { family: "weft-test", manifests, sidecars: Sidecars::Weft })
}

/// What the application says that it was asked.
fn account(mesh: &Mesh, address: SocketAddr, headers: &[(&str, &str)]) -> Result<(Value, Vec<(String, String)>)> {
    let answer = mesh.pod(CLIENT)?.get(address, REVIEWS_AUTHORITY, "/headers", headers)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    Ok((serde_json::from_slice(&answer.body)?, answer.headers))
}

fn headers_of(account: &Value) -> Result<BTreeMap<String, String>> {
    let pairs: Vec<(String, String)> = serde_json::from_value(account["headers"].clone())?;
    Ok(pairs.into_iter().collect())
}

#[test]
fn a_request_passes_both_sidecars_and_is_otherwise_untouched() -> Result<()> {
    let mesh = mesh()?;
    let (seen, answered) = account(&mesh, REVIEWS, &[("x-own", "kept"), ("user-agent", "test")])?;
    assert_eq!(seen["peer"], INBOUND_SOURCE, "the application is called by its sidecar");
    assert_eq!(seen["path"], "/headers");
    let headers = headers_of(&seen)?;
    assert_eq!(headers["host"], REVIEWS_AUTHORITY);
    assert_eq!(headers["x-own"], "kept");
    assert_eq!(headers["user-agent"], "test");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-request-id"].len(), 36, "a sidecar gives a request its id");
    let added: Vec<&str> =
        answered.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("x-envoy")).collect();
    assert_eq!(added, ["x-envoy-upstream-service-time"]);

    let (seen, _) = account(&mesh, REVIEWS, &[("x-request-id", "11111111-2222-4333-8444-555555555555")])?;
    assert_eq!(
        headers_of(&seen)?["x-request-id"],
        "11111111-2222-4333-8444-555555555555",
        "a given id is kept on the way"
    );
    Ok(())
}

#[test]
fn each_request_is_counted_once_at_each_end() -> Result<()> {
    let mesh = mesh()?;
    let requests = 30;
    for _ in 0..requests {
        let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, "/", &[])?;
        ensure!(answer.status == 200, "status {}", answer.status);
    }
    let count = |pod: &str, name: &str| -> Result<f64> {
        Ok(mesh.pod(pod)?.scrape(mesh.node())?.sum(name, "envoy_cluster_name", is_reviews))
    };
    assert_eq!(count(CLIENT, "envoy_cluster_upstream_rq_total")?, f64::from(requests));
    let arrived: Result<Vec<f64>> =
        REVIEWS_REPLICAS.iter().map(|pod| count(pod, "envoy_cluster_upstream_rq_total")).collect();
    assert_eq!(arrived?.iter().sum::<f64>(), f64::from(requests));
    assert_eq!(count(CLIENT, "envoy_cluster_upstream_rq_retry")?, 0.0);
    Ok(())
}

#[test]
fn requests_spread_over_the_replicas_on_one_connection_or_many() -> Result<()> {
    let mesh = mesh()?;
    for connections in [Connections::Kept, Connections::OnePerRequest] {
        let load = load_reviews(&mesh, "/", connections)?;
        wait::until("600 requests", CHANGE_PATIENCE, || {
            ensure!(load.tally().requests() >= 600, "{} so far", load.tally().requests());
            Ok(())
        })?;
        let tally = load.finish()?;
        tally.check_flawless()?;
        for replica in REVIEWS_REPLICAS {
            let share = tally.by_pod.get(replica).copied().unwrap_or_default();
            ensure!(share * 5 >= tally.ok, "{connections:?}: {replica} got {share} of {}", tally.ok);
        }
    }
    Ok(())
}

#[test]
fn a_dead_replica_is_retried_around_and_without_any_the_caller_is_told() -> Result<()> {
    let mut mesh = mesh()?;
    let load = load_reviews(&mesh, "/", Connections::Kept)?;
    mesh.pod_mut(REVIEWS_REPLICAS[2])?.application()?.kill()?;
    wait::until("requests after the death", CHANGE_PATIENCE, || {
        ensure!(load.tally().requests() >= 600, "{} so far", load.tally().requests());
        Ok(())
    })?;
    load.finish()?.check_flawless()?;

    for replica in REVIEWS_REPLICAS {
        mesh.pod_mut(replica)?.application()?.kill()?;
    }
    let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, "/", &[])?;
    assert_eq!(answer.status, 503);

    mesh.restart_application(REVIEWS_REPLICAS[0])?;
    wait::until("one replica is enough", CHANGE_PATIENCE, || {
        let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, "/", &[])?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(())
    })
}

#[test]
fn an_answer_of_the_application_that_is_an_error_is_passed_on() -> Result<()> {
    let mesh = mesh()?;
    for status in [400, 404, 500, 501] {
        let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, &format!("/status/{status}"), &[])?;
        assert_eq!(answer.status, status);
    }
    Ok(())
}

#[test]
fn a_service_of_ipv6_addresses_is_served_the_same() -> Result<()> {
    let mesh = mesh()?;
    let (seen, _) = account(&mesh, REVIEWS_IPV6, &[])?;
    assert_eq!(seen["peer"], "::6", "the application is called by its sidecar");
    Ok(())
}

#[test]
fn a_pod_called_by_its_own_address_is_reached_through_its_sidecar() -> Result<()> {
    let mesh = mesh()?;
    let replica = SocketAddr::new(mesh.pod(REVIEWS_REPLICAS[0])?.address()?, REVIEWS.port());
    let (seen, _) = account(&mesh, replica, &[])?;
    assert_eq!(seen["peer"], INBOUND_SOURCE);
    Ok(())
}

#[test]
fn nobody_answers_for_a_service_that_is_not_there() -> Result<()> {
    let mesh = mesh()?;
    let nowhere = SocketAddr::from(([10, 96, 7, 99], 80));
    let outcome = mesh.pod(CLIENT)?.get(nowhere, "nowhere", "/", &[]);
    let error = outcome.err().context("somebody answered")?;
    ensure!(format!("{error:#}").contains("closed before any byte"), "{error:#}");
    Ok(())
}

/// Where nobody has told the protocol, it is seen from the first bytes, and calls are balanced all the same.
#[test]
fn grpc_passes_with_its_trailers_over_both_replicas() -> Result<()> {
    let mesh = mesh()?;
    for address in [GREETER, GREETER_UNKNOWN] {
        let pods = mesh.pod(CLIENT)?.namespace().enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(20), call_greeter(address, 40)).await })?
        })?;
        assert_eq!(pods.keys().map(String::as_str).collect::<Vec<_>>(), ["greeter-a", "greeter-b"], "{address}");
        assert_eq!(pods.values().sum::<u32>(), 40);
    }
    Ok(())
}

/// Calls one after the other on one connection; who answered how often.
async fn call_greeter(address: SocketAddr, calls: u32) -> Result<BTreeMap<String, u32>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut pods = BTreeMap::new();
    for call in 0..calls {
        sender = sender.ready().await?;
        let message = bytes::Bytes::from(format!("\0\0\0\0\x02{call:02}"));
        let request = http::Request::post(format!("http://greeter:{}/demo.Greeter/Greet", address.port()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-origin-do", "grpc/0")
            .body(())?;
        let (answer, mut body) = sender.send_request(request, false)?;
        body.send_data(message.clone(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        ensure!(head.status == 200, "status {}", head.status);
        let mut echoed = Vec::new();
        while let Some(data) = body.data().await {
            echoed.extend_from_slice(&data?);
        }
        ensure!(echoed == message, "sent {message:?}, got {echoed:?}");
        let trailers = body.trailers().await?.context("no trailers")?;
        ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
        *pods.entry(head.headers["x-origin-pod"].to_str()?.to_owned()).or_default() += 1;
    }
    driver.abort();
    Ok(pods)
}
