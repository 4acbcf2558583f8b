//! Load from inside a pod: a few application-like callers that go on until told to stop, and count every answer.
//!
//! A caller behaves as a careful HTTP client: it keeps its connection, honours `connection: close`, and repeats a request on
//! a new connection only when the kept one turned out to be closed before a single byte of the answer came (RFC 9110
//! section 9.2.2 lets it: these are GETs). Everything else that is not a 200 is a failure and is counted as one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::http1::{Connection, Failure, Response};
use crate::netns::Entrance;

/// What to ask for, and how hard.
#[derive(Debug, Clone)]
pub struct Plan {
    pub target: SocketAddr,
    pub authority: String,
    pub path: String,
    pub callers: usize,
    /// Between two requests of one caller.
    pub pause: Duration,
    pub connections: Connections,
}

/// Whether callers keep their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    Kept,
    OnePerRequest,
}

/// What happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub ok: u64,
    pub failed: u64,
    /// Answers by the replica that gave them (its `x-origin-pod`).
    pub by_pod: BTreeMap<String, u64>,
    /// When each replica answered first and last.
    pub answering: BTreeMap<String, Span>,
    /// The first few failures, in words.
    pub failures: Vec<String>,
    /// Kept connections that turned out closed when they were used again.
    pub stale_connections: u64,
}

/// From a first to a last moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: Instant,
    pub last: Instant,
}

impl Tally {
    pub fn requests(&self) -> u64 {
        self.ok + self.failed
    }

    /// `Err` with the failures unless there was traffic and all of it succeeded.
    pub fn check_flawless(&self) -> Result<()> {
        ensure!(self.requests() > 0, "no request was made");
        self.check_no_failure()
    }

    /// `Err` with the failures, if there are any.
    pub fn check_no_failure(&self) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {}",
            self.failed,
            self.requests(),
            self.failures.join("; ")
        );
        Ok(())
    }

    /// Adds what another span of time counted.
    pub fn merge(&mut self, other: &Self) {
        let Self { ok, failed, by_pod, answering, failures, stale_connections } = other;
        self.ok += ok;
        self.failed += failed;
        self.stale_connections += stale_connections;
        for (pod, count) in by_pod {
            *self.by_pod.entry(pod.clone()).or_default() += count;
        }
        for (pod, span) in answering {
            let known = self.answering.entry(pod.clone()).or_insert(*span);
            known.first = known.first.min(span.first);
            known.last = known.last.max(span.last);
        }
        self.failures.extend(failures.iter().cloned());
        self.failures.truncate(FAILURES_KEPT);
    }

    fn count(&mut self, outcome: Result<Response, Failure>) {
        let failure = match outcome {
            Ok(response) if response.status == 200 => {
                self.ok += 1;
                let pod = response.header("x-origin-pod").unwrap_or("unknown").to_owned();
                let now = Instant::now();
                self.answering.entry(pod.clone()).or_insert(Span { first: now, last: now }).last = now;
                *self.by_pod.entry(pod).or_default() += 1;
                return;
            }
            Ok(response) => format!("status {}: {}", response.status, response.text()),
            Err(failure) => failure.to_string(),
        };
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure);
        }
    }
}

/// Callers at work; stopped on drop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

impl Load {
    /// Starts the callers inside of the namespace.
    pub fn start(entrance: &Entrance, plan: &Plan) -> Self {
        let shared = Arc::new(Shared::default());
        let callers = (0..plan.callers)
            .map(|_| {
                let (shared, plan, entrance) = (Arc::clone(&shared), plan.clone(), entrance.clone());
                std::thread::spawn(move || {
                    entrance.enter()?;
                    call_until_stopped(&shared, &plan);
                    Ok(())
                })
            })
            .collect();
        Self { shared, callers }
    }

    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tally so far; counting starts again from nothing.
    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut *self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets requests in flight complete, stops, and reports.
    pub fn finish(mut self) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for caller in self.callers.drain(..) {
            caller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for caller in self.callers.drain(..) {
            // Whoever drops a load without `finish` is failing for a reason of their own already.
            let _unreported = caller.join();
        }
    }
}

fn call_until_stopped(shared: &Shared, plan: &Plan) {
    let mut kept = None;
    while !shared.stop.load(Ordering::SeqCst) {
        let mut stale = false;
        let outcome = call(&mut kept, plan, &mut stale);
        {
            let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.stale_connections += u64::from(stale);
            tally.count(outcome);
        }
        std::thread::sleep(plan.pause);
    }
}

fn call(kept: &mut Option<Connection>, plan: &Plan, stale: &mut bool) -> Result<Response, Failure> {
    if let Some(mut connection) = kept.take() {
        match connection.get(&plan.authority, &plan.path, &[]) {
            Err(Failure::ClosedBeforeResponse) => *stale = true,
            outcome => {
                if outcome.is_ok() && connection.is_reusable() {
                    *kept = Some(connection);
                }
                return outcome;
            }
        }
    }
    let mut connection = Connection::open(plan.target, REQUEST_TIMEOUT)?;
    let outcome = connection.get(&plan.authority, &plan.path, &[]);
    if outcome.is_ok() && connection.is_reusable() && plan.connections == Connections::Kept {
        *kept = Some(connection);
    }
    outcome
}

const FAILURES_KEPT: usize = 5;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
