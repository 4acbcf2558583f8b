//! SIGTERM to a sidecar under load: what is in flight completes, what comes next goes elsewhere, nothing is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_tests::http1::Connection;
use weft_tests::load::Connections;
use weft_tests::mesh::{CHANGE_PATIENCE, Mesh, Plan, Sidecars};
use weft_tests::services::{CLIENT, GREETER, REVIEWS, REVIEWS_AUTHORITY, REVIEWS_REPLICAS, load_reviews};
use weft_tests::{peers, wait};

fn mesh() -> Result<Mesh> {
    let manifests = vec![peers::demo_manifests(), peers::test_manifests()];
    Mesh::start(&Plan { family: "weft-test", manifests, sidecars: Sidecars::Weft })
}

#[test]
fn a_replicas_sidecar_ends_under_load_without_an_error() -> Result<()> {
    for connections in [Connections::Kept, Connections::OnePerRequest] {
        let mut mesh = mesh()?;
        let load = load_reviews(&mesh, "/delay/5ms", connections)?;
        wait::until("every replica is in use", CHANGE_PATIENCE, || {
            ensure!(load.tally().by_pod.len() == REVIEWS_REPLICAS.len(), "only {:?}", load.tally().by_pod);
            Ok(())
        })?;
        let status = mesh.pod_mut(REVIEWS_REPLICAS[1])?.sidecar()?.terminate(DRAIN_PATIENCE)?;
        let before = load.tally().requests();
        wait::until("traffic goes on", CHANGE_PATIENCE, || {
            ensure!(load.tally().requests() >= before + 200, "too few requests");
            Ok(())
        })?;
        load.finish()?.check_flawless().with_context(|| format!("{connections:?}"))?;
        ensure!(status.success(), "the sidecar ended with {status}");
    }
    Ok(())
}

/// One HTTP/2 connection for each of three callers, as gRPC clients keep theirs.
#[test]
fn a_replicas_sidecar_ends_under_http2_and_grpc_load_without_an_error() -> Result<()> {
    let http2 = Http2Calls { target: REVIEWS, authority: REVIEWS_AUTHORITY, path: "/delay/5ms", grpc: false };
    let grpc = Http2Calls { target: GREETER, authority: "greeter:9090", path: "/demo.Greeter/Greet", grpc: true };
    for (calls, ending) in [(http2, REVIEWS_REPLICAS[1]), (grpc, "greeter-a")] {
        let mut mesh = mesh()?;
        let load = Http2Load::start(&mesh, &calls)?;
        let begun = load.until_more(100);
        if begun.is_err() {
            load.finish()?;
            return begun.context(calls.path);
        }
        let status = mesh.pod_mut(ending)?.sidecar()?.terminate(DRAIN_PATIENCE)?;
        let goes_on = load.until_more(200);
        // What a caller has to say comes before that too few went on.
        load.finish().and(goes_on).with_context(|| format!("{ending} ended under {}", calls.path))?;
        ensure!(status.success(), "the sidecar ended with {status}");
    }
    Ok(())
}

/// What to call over HTTP/2.
#[derive(Clone, Copy)]
struct Http2Calls {
    target: SocketAddr,
    authority: &'static str,
    path: &'static str,
    grpc: bool,
}

/// Callers in the client's pod, until it is finished.
struct Http2Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Result<()>>>,
}

impl Http2Load {
    fn start(mesh: &Mesh, calls: &Http2Calls) -> Result<Self> {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = Vec::new();
        for _ in 0..3 {
            let (entrance, calls) = (mesh.pod(CLIENT)?.namespace().entrance(), *calls);
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            callers.push(std::thread::spawn(move || {
                entrance.enter()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(call_until_stopped(calls, &stop, &answered))
            }));
        }
        Ok(Self { stop, answered, callers })
    }

    fn until_more(&self, requests: usize) -> Result<()> {
        let before = self.answered.load(Ordering::SeqCst);
        wait::until("further answers", CHANGE_PATIENCE, || {
            let answered = self.answered.load(Ordering::SeqCst) - before;
            let callers = self.callers.iter().filter(|caller| !caller.is_finished()).count();
            ensure!(answered >= requests, "only {answered}, with {callers} callers left");
            Ok(())
        })
    }

    fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    }
}

async fn call_until_stopped(calls: Http2Calls, stop: &AtomicBool, answered: &AtomicUsize) -> Result<()> {
    let stream = tokio::net::TcpStream::connect(calls.target).await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    while !stop.load(Ordering::SeqCst) {
        let call = tokio::time::timeout(Duration::from_secs(10), call(&calls, sender.clone()));
        call.await?.with_context(|| format!("after {} answers", answered.load(Ordering::SeqCst)))?;
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    driver.abort();
    Ok(())
}

async fn call(calls: &Http2Calls, sender: h2::client::SendRequest<bytes::Bytes>) -> Result<()> {
    let uri = format!("http://{}{}", calls.authority, calls.path);
    let request = if calls.grpc {
        http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-origin-do", "delay/5ms/grpc/0")
            .body(())?
    } else {
        http::Request::get(uri).body(())?
    };
    let (answer, mut body) = sender.ready().await?.send_request(request, !calls.grpc)?;
    if calls.grpc {
        body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\0"), true)?;
    }
    let answer = answer.await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let (head, mut body) = answer.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?;
    if calls.grpc {
        let trailers = trailers.with_context(|| format!("no trailers after {head:?}"))?;
        ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
    }
    Ok(())
}

#[test]
fn an_answer_that_takes_its_time_is_waited_for_at_either_end() -> Result<()> {
    for ending in [CLIENT, REVIEWS_REPLICAS[0]] {
        let mut mesh = mesh()?;
        // One replica, so that it is clear through whom the request goes.
        mesh.endpoint_slice("reviews-endpoints.yaml")?.keep(|pod| pod == REVIEWS_REPLICAS[0])?;
        wait::until("one replica", CHANGE_PATIENCE, || {
            for _ in 0..6 {
                let answer = mesh.pod(CLIENT)?.get(REVIEWS, REVIEWS_AUTHORITY, "/", &[])?;
                ensure!(answer.header("x-origin-pod") == Some(REVIEWS_REPLICAS[0]), "another answers");
            }
            Ok(())
        })?;
        let mut connection =
            mesh.pod(CLIENT)?.namespace().enter(|| Ok(Connection::open(REVIEWS, Duration::from_secs(20))?))?;
        connection.send(b"GET /delay/1500ms HTTP/1.1\r\nhost: reviews:9080\r\nx-test-key: slow\r\n\r\n")?;
        wait_until_asked(&mesh, REVIEWS_REPLICAS[0], "slow")?;
        let sidecar = mesh.pod_mut(ending)?.sidecar()?;
        let started = Instant::now();
        let (status, answer) = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| connection.receive(false));
            let status = sidecar.terminate(DRAIN_PATIENCE);
            (status, waiting.join().expect("the receiver does not panic"))
        });
        let answer = answer.with_context(|| format!("the sidecar of {ending} ended"))?;
        assert_eq!(answer.status, 200, "the sidecar of {ending} ended");
        let status = status?;
        ensure!(status.success(), "the sidecar of {ending} ended with {status}");
        ensure!(started.elapsed() < DRAIN_PATIENCE, "draining took {:?}", started.elapsed());
    }
    Ok(())
}

#[test]
fn a_grpc_call_in_flight_completes_while_its_sidecar_drains() -> Result<()> {
    let mut mesh = mesh()?;
    let namespace = mesh.pod(CLIENT)?.namespace().entrance();
    let calling = std::thread::spawn(move || -> Result<String> {
        namespace.enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), slow_call()).await })?
    });
    for replica in ["greeter-a", "greeter-b"] {
        // It is one of the two; the other has counted nothing.
        if wait_until_asked(&mesh, replica, "slow-call").is_ok() {
            let status = mesh.pod_mut(replica)?.sidecar()?.terminate(DRAIN_PATIENCE)?;
            ensure!(status.success(), "the sidecar ended with {status}");
            break;
        }
    }
    let grpc_status = calling.join().expect("the caller does not panic")?;
    assert_eq!(grpc_status, "0");
    Ok(())
}

async fn slow_call() -> Result<String> {
    let stream = tokio::net::TcpStream::connect(GREETER).await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post("http://greeter:9090/demo.Greeter/Greet")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-test-key", "slow-call")
        .header("x-origin-do", "delay/4s/grpc/0")
        .body(())?;
    let (answer, mut body) = sender.ready().await?.send_request(request, false)?;
    body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\0"), true)?;
    let mut body = answer.await?.into_body();
    while let Some(data) = body.data().await {
        data?;
    }
    let trailers = body.trailers().await?.context("no trailers")?;
    driver.abort();
    Ok(trailers["grpc-status"].to_str()?.to_owned())
}

/// Waits until the application of `pod` has a request of this key; asked past the sidecars, on its own loopback.
fn wait_until_asked(mesh: &Mesh, pod: &str, key: &str) -> Result<()> {
    let port = if pod.starts_with("greeter") { GREETER.port() } else { REVIEWS.port() };
    let application = ([127, 0, 0, 1], port).into();
    wait::until(&format!("{pod} is asked"), Duration::from_millis(1500), || {
        let seen = mesh.pod(pod)?.get(application, "self", &format!("/seen/{key}"), &[])?.text();
        ensure!(seen == "1", "seen {seen} times");
        Ok(())
    })
}

const DRAIN_PATIENCE: Duration = Duration::from_secs(20);
