//! Configuration changes that traffic does not notice: endpoints come and go, files break and are mended, the control plane dies.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::load::{Connections, Load};
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh, Plan, Sidecars};
use weft_tests::services::{REVIEWS_REPLICAS, REVIEWS_SLICE, load_reviews};
use weft_tests::{peers, wait};

fn mesh() -> Result<Mesh> {
    Mesh::start(&Plan { family: "weft-test", manifests: vec![peers::demo_manifests()], sidecars: Sidecars::Weft })
}

/// Waits until for a while exactly `wanted` answer.
fn until_answered_by(load: &Load, wanted: &[&str]) -> Result<()> {
    wait::until(&format!("answers by {wanted:?}"), CHANGE_PATIENCE, || {
        let window = load.take_tally();
        let settled = wait::until("a window of requests", CHANGE_PATIENCE, || {
            let tally = load.tally();
            ensure!(tally.requests() >= 60, "{} requests", tally.requests());
            Ok(tally)
        })?;
        window.check_no_failure()?;
        let answering: Vec<&str> = settled.by_pod.keys().map(String::as_str).collect();
        ensure!(answering == wanted, "answers by {answering:?}");
        Ok(())
    })
}

#[test]
fn endpoints_come_and_go_under_load_without_an_error() -> Result<()> {
    let mesh = mesh()?;
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    for connections in [Connections::Kept, Connections::OnePerRequest] {
        let load = load_reviews(&mesh, "/", connections)?;
        for wanted in [&REVIEWS_REPLICAS[..1], &REVIEWS_REPLICAS[..2], &REVIEWS_REPLICAS[1..], &REVIEWS_REPLICAS[..]] {
            slice.keep(|pod| wanted.contains(&pod))?;
            until_answered_by(&load, wanted)?;
        }
        load.finish()?.check_flawless()?;
    }
    Ok(())
}

#[test]
fn an_endpoint_that_is_not_ready_gets_no_traffic() -> Result<()> {
    let mesh = mesh()?;
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    let load = load_reviews(&mesh, "/", Connections::Kept)?;
    slice.write(|endpoint| {
        let mut endpoint = endpoint.clone();
        if endpoint["targetRef"]["name"] == REVIEWS_REPLICAS[0] {
            endpoint["conditions"]["ready"] = false.into();
        }
        Some(endpoint)
    })?;
    until_answered_by(&load, &REVIEWS_REPLICAS[1..])?;
    load.finish()?.check_flawless()
}

#[test]
fn a_hundred_edits_in_a_row_end_in_the_last_one_without_an_error() -> Result<()> {
    let mesh = mesh()?;
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    let load = load_reviews(&mesh, "/", Connections::Kept)?;
    for edit in 0..100 {
        let left_out = REVIEWS_REPLICAS[edit % REVIEWS_REPLICAS.len()];
        slice.keep(|pod| pod != left_out)?;
        // Faster than they can take effect one by one, and yet not all at once.
        std::thread::sleep(Duration::from_millis(10));
    }
    slice.keep(|pod| pod == REVIEWS_REPLICAS[1])?;
    until_answered_by(&load, &REVIEWS_REPLICAS[1..2])?;
    load.finish()?.check_flawless()
}

#[test]
fn a_file_that_breaks_changes_nothing_until_it_is_mended() -> Result<()> {
    let mut mesh = mesh()?;
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    let load = load_reviews(&mesh, "/", Connections::Kept)?;
    fs::write(slice.path(), "kind: EndpointSlice\nendpoints: [{addresses: [10.244.7.11\n")?;
    let complaint = wait::until("the control plane complains", CHANGE_PATIENCE, || {
        let log = mesh.control()?.log();
        log.lines().find(|line| line.contains(REVIEWS_SLICE)).map(str::to_owned).context("not a word about the file")
    })?;
    ensure!(complaint.contains("reviews-endpoints.yaml"), "{complaint}");
    // The change that was not made would show within the debounce time, a tenth of a second.
    wait::throughout(Duration::from_millis(500), || load.tally().check_no_failure())?;
    until_answered_by(&load, &REVIEWS_REPLICAS)?;
    slice.keep(|pod| pod == REVIEWS_REPLICAS[0])?;
    until_answered_by(&load, &REVIEWS_REPLICAS[..1])?;
    load.finish()?.check_flawless()
}

#[test]
fn the_control_plane_dies_and_comes_back_under_load_without_an_error() -> Result<()> {
    let mut mesh = mesh()?;
    let slice = mesh.endpoint_slice(REVIEWS_SLICE)?;
    let load = load_reviews(&mesh, "/", Connections::OnePerRequest)?;
    for wanted in [&REVIEWS_REPLICAS[..1], &REVIEWS_REPLICAS[..]] {
        mesh.control()?.kill()?;
        let before = load.tally().requests();
        // Changed while nobody watches: found at the restart.
        slice.keep(|pod| wanted.contains(&pod))?;
        wait::until("traffic without a control plane", CHANGE_PATIENCE, || {
            ensure!(load.tally().requests() >= before + 300, "too few requests");
            Ok(())
        })?;
        mesh.start_control()?;
        until_answered_by(&load, wanted)?;
    }
    load.finish()?.check_flawless()
}
