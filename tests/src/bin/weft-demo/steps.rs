//! The steps of the demo. Each does something to the mesh that a person would do, and checks by answers and counters that what
//! it shows is so.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::bootstrap::PROMETHEUS_PORT;
use weft_tests::load::{Connections, Load, Tally};
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh};
use weft_tests::prometheus::Scrape;
use weft_tests::services::{
    CLIENT, INBOUND_SOURCE, REVIEWS_REPLICAS, REVIEWS_SLICE, TCP_ECHO, is_reviews, load_reviews,
};
use weft_tests::wait;

/// The lines that a step shows.
pub(crate) type Shown = Vec<String>;

type Step = fn(&mut Mesh) -> Result<Shown>;

/// In the order in which they are shown.
pub(crate) const STEPS: [(&str, Step); 7] = [
    ("redirected", redirected),
    ("balanced", balanced),
    ("scaled down", scaled_down),
    ("scaled up", scaled_up),
    ("retried", retried),
    ("tcp", tcp),
    ("counters", counters),
];

/// A plain curl by the Service's name passes the sidecar of the client and that of a replica.
fn redirected(mesh: &mut Mesh) -> Result<Shown> {
    let before = requests_seen(mesh)?;
    let answer = mesh.pod(CLIENT)?.run("curl", &["-sS", "--max-time", "10", "http://reviews:9080/"])?;
    let pod = answer.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    ensure!(REVIEWS_REPLICAS.contains(&pod.as_str()), "curl got {answer:?}");
    let after = requests_seen(mesh)?;
    let passed = |pod: &str| after[pod] - before[pod];
    ensure!(passed(CLIENT) == 1.0, "the client's sidecar counted {} requests to reviews, not 1", passed(CLIENT));
    ensure!(passed(&pod) == 1.0, "the sidecar of {pod} counted {} requests, not 1", passed(&pod));

    let seen = mesh.pod(CLIENT)?.run("curl", &["-sS", "--max-time", "10", "http://reviews:9080/headers"])?;
    let seen: Value = serde_json::from_str(&seen).with_context(|| format!("the application said {seen}"))?;
    let request_id = header_of(&seen, "x-request-id").context("no sidecar gave the request an x-request-id")?;
    let peer = seen["peer"].as_str().unwrap_or_default();
    ensure!(peer == INBOUND_SOURCE, "the application was called from {peer}, not by its sidecar from {INBOUND_SOURCE}");
    Ok(vec![
        format!("curl http://reviews:9080/  ->  {}", answer.trim()),
        format!("counted by the sidecars of {CLIENT} and {pod}; x-request-id {request_id}"),
    ])
}

/// Requests spread over all replicas.
fn balanced(mesh: &mut Mesh) -> Result<Shown> {
    let load = load_reviews(mesh, "/", Connections::OnePerRequest)?;
    wait::until("300 requests", CHANGE_PATIENCE, || enough_requests(&load, 300))?;
    let tally = load.finish()?;
    tally.check_flawless()?;
    for replica in REVIEWS_REPLICAS {
        let share = tally.by_pod.get(replica).copied().unwrap_or_default();
        ensure!(share * 10 >= tally.ok, "{replica} got only {share} of {} requests", tally.ok);
    }
    Ok(vec![format!("{} requests: {}", tally.requests(), describe(&tally.by_pod))])
}

/// Endpoints leave the file; under load, and nobody notices.
fn scaled_down(mesh: &mut Mesh) -> Result<Shown> {
    let (took, tally) = edit_under_load(mesh, &REVIEWS_REPLICAS[..1])?;
    Ok(vec![format!(
        "EndpointSlice edited, {} replicas -> 1: in effect after {} ms; {} requests meanwhile, 0 errors",
        REVIEWS_REPLICAS.len(),
        took.as_millis(),
        tally.requests()
    )])
}

/// They come back.
fn scaled_up(mesh: &mut Mesh) -> Result<Shown> {
    let (took, tally) = edit_under_load(mesh, &REVIEWS_REPLICAS)?;
    Ok(vec![format!(
        "EndpointSlice edited, 1 -> {} replicas: in effect after {} ms; {} requests meanwhile, 0 errors",
        REVIEWS_REPLICAS.len(),
        took.as_millis(),
        tally.requests()
    )])
}

/// Makes `wanted` the endpoints of reviews while requests go on, until exactly these answer. How long that took, and all that
/// happened since the edit.
fn edit_under_load(mesh: &Mesh, wanted: &[&str]) -> Result<(Duration, Tally)> {
    let load = load_reviews(mesh, "/", Connections::Kept)?;
    wait::until("load before the edit", CHANGE_PATIENCE, || enough_requests(&load, 50))?;
    load.take_tally().check_no_failure()?;
    mesh.endpoint_slice(REVIEWS_SLICE)?.keep(|pod| wanted.contains(&pod))?;
    let edited = Instant::now();
    let mut total = Tally::default();
    let settled = wait::until("the edit takes effect", CHANGE_PATIENCE, || {
        wait::until("a window of requests", CHANGE_PATIENCE, || enough_requests(&load, 60))?;
        let window = load.take_tally();
        total.merge(&window);
        let answering: Vec<&str> = window.by_pod.keys().map(String::as_str).collect();
        ensure!(
            answering.len() == wanted.len() && answering.iter().all(|pod| wanted.contains(pod)),
            "answers by {answering:?}"
        );
        Ok(())
    });
    total.merge(&load.finish()?);
    total.check_flawless()?;
    settled?;
    // In effect since those who left answered last, and those who came first.
    let moments =
        total.answering.iter().map(|(pod, span)| if wanted.contains(&pod.as_str()) { span.first } else { span.last });
    let in_effect = moments.max().map_or(Duration::ZERO, |moment| moment.saturating_duration_since(edited));
    Ok((in_effect, total))
}

fn enough_requests(load: &Load, wanted: u64) -> Result<()> {
    let done = load.tally().requests();
    ensure!(done >= wanted, "{done} requests so far");
    Ok(())
}

/// A replica's application dies; the client sees nothing but 200.
fn retried(mesh: &mut Mesh) -> Result<Shown> {
    let victim = REVIEWS_REPLICAS[REVIEWS_REPLICAS.len() - 1];
    let before = retries(mesh)?;
    mesh.pod_mut(victim)?.application()?.kill()?;
    let load = load_reviews(mesh, "/", Connections::Kept)?;
    let retried = wait::until("requests are retried", CHANGE_PATIENCE, || {
        enough_requests(&load, 300)?;
        let retried = retries(mesh)? - before;
        ensure!(retried > 0.0, "no request was retried");
        Ok(retried)
    });
    let tally = load.finish()?;
    tally.check_flawless()?;
    ensure!(!tally.by_pod.contains_key(victim), "the dead replica answered");
    let retried = retried?;
    mesh.restart_application(victim)?;
    Ok(vec![format!(
        "application of {victim} killed, its endpoint still listed: {} requests, all 200; {retried} tries sent elsewhere",
        tally.requests()
    )])
}

/// A protocol that is not HTTP.
fn tcp(mesh: &mut Mesh) -> Result<Shown> {
    let opened = |mesh: &Mesh| -> Result<f64> {
        let counters = scrape(mesh, CLIENT)?;
        Ok(counters.sum("envoy_cluster_upstream_cx_total", CLUSTER, |name| name.starts_with("outbound|9000||tcp-echo")))
    };
    let before = opened(mesh)?;
    let answer = mesh.pod(CLIENT)?.namespace().enter(|| {
        let mut stream = TcpStream::connect(TCP_ECHO)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"hello\n")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })?;
    ensure!(answer.trim() == "tcp-echo v1: hello", "tcp-echo answered {answer:?}");
    let connections = opened(mesh)? - before;
    ensure!(connections == 1.0, "the client's sidecar opened {connections} connections to tcp-echo, not 1");
    Ok(vec![format!("\"hello\" to tcp-echo:9000  ->  \"{}\", by the client's sidecar", answer.trim())])
}

/// Both sides' counters agree with each other and with what was asked.
fn counters(mesh: &mut Mesh) -> Result<Shown> {
    let before = requests_seen(mesh)?;
    let load = load_reviews(mesh, "/", Connections::Kept)?;
    wait::until("100 requests", CHANGE_PATIENCE, || enough_requests(&load, 100))?;
    let tally = load.finish()?;
    tally.check_flawless()?;
    let after = requests_seen(mesh)?;
    let counted = |pod: &str| after[pod] - before[pod];
    let (sent, arrived) = (counted(CLIENT), REVIEWS_REPLICAS.iter().map(|replica| counted(replica)).sum::<f64>());
    ensure!(
        sent == arrived && sent == tally.requests() as f64,
        "{} requests made, {sent} sent on by the client's sidecar, {arrived} by those of the replicas",
        tally.requests()
    );
    let mut shown =
        vec![format!("{sent} more requests, as many counted at both ends; scraped from port {PROMETHEUS_PORT}:")];
    for pod in [CLIENT, REVIEWS_REPLICAS[0]] {
        let counters = scrape(mesh, pod)?;
        let sample = counters
            .samples()
            .iter()
            .find(|sample| sample.name == REQUESTS && sample.labels.get(CLUSTER).is_some_and(|name| is_reviews(name)))
            .with_context(|| format!("{pod} has no {REQUESTS}"))?;
        shown.push(format!("{pod:<12} {REQUESTS}{{{CLUSTER}=\"{}\"}} {}", sample.labels[CLUSTER], sample.value));
    }
    Ok(shown)
}

/// By pod: requests of reviews that its sidecar sent on, tries counted singly.
fn requests_seen(mesh: &Mesh) -> Result<BTreeMap<&'static str, f64>> {
    let count = |name: &'static str| -> Result<(&'static str, f64)> {
        let counters = scrape(mesh, name)?;
        Ok((name, counters.sum(REQUESTS, CLUSTER, is_reviews)))
    };
    [CLIENT].into_iter().chain(REVIEWS_REPLICAS).map(count).collect()
}

fn retries(mesh: &Mesh) -> Result<f64> {
    Ok(scrape(mesh, CLIENT)?.sum("envoy_cluster_upstream_rq_retry", CLUSTER, is_reviews))
}

fn scrape(mesh: &Mesh, pod: &str) -> Result<Scrape> {
    mesh.pod(pod)?.scrape(mesh.node())
}

fn header_of(seen: &Value, name: &str) -> Option<String> {
    let headers = seen["headers"].as_array()?;
    headers.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str()).map(str::to_owned)
}

fn describe(by_pod: &BTreeMap<String, u64>) -> String {
    by_pod.iter().map(|(pod, count)| format!("{pod} {count}")).collect::<Vec<_>>().join("  ")
}

const REQUESTS: &str = "envoy_cluster_upstream_rq_total";
const CLUSTER: &str = "envoy_cluster_name";
