//! Active health checks: each host of a cluster is asked again and again, on the main thread, by a task of its own
//! (`session`); what it answers becomes the host's health (`verdict`, pure), and the workers are handed a new endpoint set.
//! A task a cluster follows its hosts as they come and go.

mod event_log;
mod grpc;
mod http;
mod session;
mod tcp;
mod verdict;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use self::{
    session::Session,
    verdict::{CheckResult, Counts, Failure, FailureKind, News, Verdict},
};
use crate::{
    config::cluster::{CheckKind, HealthCheck},
    stats::{GroupStats, HealthCheckStat},
    upstream::{
        background::Tasks,
        cluster::Cluster,
        event_log::{EventLog, EventLogs},
        host::{HealthFlag, Host},
    },
};

/// A cluster's checks, as workers see them.
pub struct HealthMonitor {
    pub config: Arc<HealthCheck>,
    stats: Arc<GroupStats<HealthCheckStat>>,
    reports: mpsc::UnboundedSender<Report>,
    /// Until the task takes it.
    received: Mutex<Option<mpsc::UnboundedReceiver<Report>>>,
}

/// To the task of the cluster. There is one a check, and one from the workers for each time that a host asks for it.
enum Report {
    /// A check has ended.
    Checked { host: u64, changed: bool },
    /// A host asks to be left alone at once.
    FailsAtOnce(Arc<Host>),
}

/// What sessions share.
struct Checking {
    cluster: Weak<Cluster>,
    config: Arc<HealthCheck>,
    stats: Arc<GroupStats<HealthCheckStat>>,
    logs: Vec<EventLog>,
    reports: mpsc::UnboundedSender<Report>,
}

/// When a cluster that is to be prepared is.
pub struct Preparation {
    /// Its hosts are known; None: they are from the start.
    pub looked_up: Option<oneshot::Receiver<()>>,
    pub prepared: Box<dyn FnOnce() + Send>,
}

impl HealthMonitor {
    pub fn new(config: &Arc<HealthCheck>, stats: Arc<GroupStats<HealthCheckStat>>) -> HealthMonitor {
        let (reports, received) = mpsc::unbounded_channel();
        HealthMonitor { config: config.clone(), stats, reports, received: Mutex::new(Some(received)) }
    }

    /// What is said of a host before its first check.
    pub fn mark_new(&self, host: &Host, excluded_until_checked: bool) {
        if host.health_check.disabled {
            return;
        }
        host.set(HealthFlag::FailedActiveCheck);
        if excluded_until_checked {
            host.set(HealthFlag::PendingActiveCheck);
        }
    }

    /// The host says so in an answer to somebody's request. From any thread.
    pub fn fail_at_once(&self, host: &Arc<Host>) {
        if !host.has(HealthFlag::ExcludedAtOnce) {
            host.set(HealthFlag::ExcludedAtOnce);
            let _ = self.reports.send(Report::FailsAtOnce(host.clone())); // Err: the cluster is gone
        }
    }

    /// Checks from now on. To be called once, on the main thread's runtime.
    pub fn start(
        &self,
        cluster: &Arc<Cluster>,
        hosts_changed: watch::Receiver<()>,
        logs: &EventLogs,
        tasks: &Tasks,
        preparation: Preparation,
    ) {
        let Some(received) = self.received.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let checking = Arc::new(Checking {
            cluster: Arc::downgrade(cluster),
            config: self.config.clone(),
            stats: self.stats.clone(),
            logs: self.config.event_logs.iter().map(|path| EventLog::new(logs.files.clone(), path)).collect(),
            reports: self.reports.clone(),
        });
        let supervisor = Supervisor { checking, sessions: HashMap::new(), random: fastrand::Rng::new() };
        tasks.spawn(supervisor.run(hosts_changed, received, preparation));
    }
}

/// The task of a cluster. Ends with it, and its sessions with it.
struct Supervisor {
    checking: Arc<Checking>,
    /// By the id of the host.
    sessions: HashMap<u64, Running>,
    random: fastrand::Rng,
}

struct Running {
    host: Arc<Host>,
    counts: Arc<Mutex<Counts>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    async fn run(
        mut self,
        mut hosts_changed: watch::Receiver<()>,
        mut reports: mpsc::UnboundedReceiver<Report>,
        preparation: Preparation,
    ) {
        let Preparation { mut looked_up, prepared } = preparation;
        let mut prepared = Some(prepared);
        self.follow_hosts();
        loop {
            if looked_up.is_none() && (prepared.is_some() && self.has_checked_all()) {
                self.publish();
                if let Some(prepared) = prepared.take() {
                    prepared();
                }
            }
            tokio::select! {
                changed = hosts_changed.changed() => match changed {
                    Ok(()) => self.follow_hosts(),
                    Err(_) => return,
                },
                report = reports.recv() => {
                    let Some(report) = report else { return };
                    let mut changed = self.take(report);
                    // Many hosts are checked at a time: one new endpoint set does for all of them.
                    while let Ok(report) = reports.try_recv() {
                        changed |= self.take(report);
                    }
                    if changed {
                        self.publish();
                    }
                }
                _ = async { looked_up.as_mut().expect("only asked where it is").await }, if looked_up.is_some() => {
                    looked_up = None;
                    self.follow_hosts();
                }
            }
        }
    }

    /// Each host is checked that is there, and no other.
    fn follow_hosts(&mut self) {
        let Some(cluster) = self.checking.cluster.upgrade() else { return };
        let set = cluster.endpoints.load_full();
        let present: HashSet<u64> = set.members.iter().map(|member| member.host.id).collect();
        self.sessions.retain(|id, _| present.contains(id));
        for member in &set.members {
            let host = &member.host;
            if host.health_check.disabled || self.sessions.contains_key(&host.id) {
                continue;
            }
            let counts: Arc<Mutex<Counts>> = Arc::default();
            let session = Session::new(self.checking.clone(), host.clone(), counts.clone(), self.random.fork());
            let task = tokio::spawn(session.run()).abort_handle();
            self.sessions.insert(host.id, Running { host: host.clone(), counts, task });
        }
        self.set_gauges(&cluster);
    }

    fn has_checked_all(&self) -> bool {
        self.sessions.values().all(|running| lock(&running.counts).has_checked())
    }

    /// Whether load balancing is to know.
    fn take(&mut self, report: Report) -> bool {
        match report {
            Report::Checked { host, changed } => changed && self.sessions.contains_key(&host),
            Report::FailsAtOnce(host) => {
                let Some(running) = self.sessions.get(&host.id) else { return false };
                let result = CheckResult::Failed(Failure::of(FailureKind::Passive));
                let Some(cluster) = self.checking.cluster.upgrade() else { return false };
                self.checking.conclude(&cluster, &host, &running.counts, result);
                true
            }
        }
    }

    fn publish(&self) {
        let Some(cluster) = self.checking.cluster.upgrade() else { return };
        self.set_gauges(&cluster);
        cluster.reassess();
        cluster.announce_hosts();
    }

    fn set_gauges(&self, cluster: &Cluster) {
        let count = |is_counted: &dyn Fn(&Host) -> bool| {
            self.sessions.values().filter(|running| is_counted(&running.host)).count() as u64
        };
        let healthy = count(&|host| !host.has(HealthFlag::FailedActiveCheck));
        let degraded = count(&|host| host.has(HealthFlag::DegradedByActiveCheck));
        self.checking.stats.cells.set(cluster.main_thread(), HealthCheckStat::Healthy, healthy);
        self.checking.stats.cells.set(cluster.main_thread(), HealthCheckStat::Degraded, degraded);
    }
}

impl Checking {
    /// What a result means for its host, counted and logged.
    fn conclude(&self, cluster: &Cluster, host: &Arc<Host>, counts: &Mutex<Counts>, result: CheckResult) -> Verdict {
        let verdict = lock(counts).apply(&self.config, host, result);
        let count = |stat| self.stats.cells.inc(cluster.main_thread(), stat);
        match result {
            CheckResult::Passed { .. } => {
                count(HealthCheckStat::Success);
                if let Some(outliers) = &cluster.outliers
                    && !host.has(HealthFlag::FailedActiveCheck)
                    && host.has(HealthFlag::Ejected)
                {
                    outliers.check_succeeded(host);
                }
            }
            CheckResult::Failed(failure) => {
                count(HealthCheckStat::Failure);
                match failure.kind {
                    FailureKind::Passive => count(HealthCheckStat::PassiveFailure),
                    FailureKind::Network | FailureKind::Timeout => count(HealthCheckStat::NetworkFailure),
                    FailureKind::Active => {}
                }
            }
        }
        self.log(cluster, host, &verdict.news);
        verdict
    }

    fn log(&self, cluster: &Cluster, host: &Host, news: &[News]) {
        if self.logs.is_empty() {
            return;
        }
        let set = cluster.endpoints.load();
        let member = set.members.iter().find(|member| member.host.id == host.id);
        let locality = member.map(|member| member.locality.clone()).unwrap_or_default();
        let kind = match self.config.kind {
            CheckKind::Http(_) => "HTTP",
            CheckKind::Tcp(_) => "TCP",
            CheckKind::Grpc(_) => "GRPC",
        };
        let now = std::time::SystemTime::now();
        for news in news {
            let line = event_log::line(kind, &cluster.config.name, (host.address, &locality), now, news);
            self.logs.iter().for_each(|log| log.write(&line));
        }
    }
}

/// Of the main thread alone; a panic elsewhere leaves the counts whole.
fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
