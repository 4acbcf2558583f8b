//! The checks of one host, one after the other, over a connection that is kept where that is wanted.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Checking, Report, grpc,
    http::{self, HttpConnection},
    tcp,
    verdict::{CheckResult, Counts, Failure, FailureKind, pause},
};
use crate::{
    config::cluster::CheckKind,
    net::stream::Stream,
    stats::{ClusterStat, HealthCheckStat},
    upstream::{
        cluster::Cluster,
        connect::{self, ConnectError},
        host::Host,
    },
};

pub(super) struct Session {
    checking: Arc<Checking>,
    host: Arc<Host>,
    counts: Arc<Mutex<Counts>>,
    random: fastrand::Rng,
    connection: Kept,
}

/// What is kept from one check to the next.
enum Kept {
    Nothing,
    Http(HttpConnection),
    Tcp(Stream),
}

impl Session {
    pub(super) fn new(
        checking: Arc<Checking>,
        host: Arc<Host>,
        counts: Arc<Mutex<Counts>>,
        random: fastrand::Rng,
    ) -> Session {
        Session { checking, host, counts, random, connection: Kept::Nothing }
    }

    /// Until the cluster is gone; whoever started it ends it when the host goes.
    pub(super) async fn run(mut self) {
        let initial_jitter = self.checking.config.intervals.initial_jitter.as_millis() as u64;
        if initial_jitter > 0 {
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..initial_jitter))).await;
        }
        loop {
            let Some(cluster) = self.checking.cluster.upgrade() else { return };
            self.checking.stats.cells.inc(cluster.main_thread(), HealthCheckStat::Attempt);
            let timeout = self.checking.config.timeout;
            let result = match tokio::time::timeout(timeout, self.check(&cluster)).await {
                Ok(result) => result,
                Err(_elapsed) => {
                    self.connection = Kept::Nothing;
                    CheckResult::Failed(Failure::of(FailureKind::Timeout))
                }
            };
            if !self.checking.config.reuse_connection {
                self.connection = Kept::Nothing;
            }
            let verdict = self.checking.conclude(&cluster, &self.host, &self.counts, result);
            // Err: whoever started this is gone, and will end it.
            let _ = self.checking.reports.send(Report::Checked { host: self.host.id, changed: verdict.changed });
            let has_traffic = cluster.stats.cells.sum(ClusterStat::CxTotal) > 0;
            drop(cluster);
            let intervals = &self.checking.config.intervals;
            let pause = pause(intervals, result, verdict.pending, has_traffic, &mut self.random);
            tokio::time::sleep(pause).await;
        }
    }

    async fn check(&mut self, cluster: &Cluster) -> CheckResult {
        let network = CheckResult::Failed(Failure::of(FailureKind::Network));
        let config = self.checking.config.clone();
        match &config.kind {
            CheckKind::Tcp(check) => {
                let mut stream = match std::mem::replace(&mut self.connection, Kept::Nothing) {
                    Kept::Tcp(stream) if tcp::is_open(&stream) => stream,
                    _ => match self.connect(cluster).await {
                        Ok(stream) => stream,
                        Err(_) => return network,
                    },
                };
                let result = tcp::check(&mut stream, check).await;
                if matches!(result, CheckResult::Passed { .. }) {
                    self.connection = Kept::Tcp(stream);
                }
                result
            }
            CheckKind::Http(check) => {
                let Some(mut connection) = self.http_connection(cluster, check.http2).await else { return network };
                let host = name_of(&self.host, &check.host, cluster);
                let is_tls = cluster.config.tls_to(&self.host.metadata).is_some();
                let checked = http::check(&mut connection, check, host, is_tls).await;
                self.keep(connection, checked.as_ref().is_ok_and(|answer| answer.is_whole));
                let Ok(answer) = checked else { return network };
                if answer.verifies_service {
                    self.checking.stats.cells.inc(cluster.main_thread(), HealthCheckStat::VerifyCluster);
                }
                answer.result
            }
            CheckKind::Grpc(check) => {
                let Some(mut connection) = self.http_connection(cluster, true).await else { return network };
                let host = name_of(&self.host, &check.authority, cluster);
                let is_tls = cluster.config.tls_to(&self.host.metadata).is_some();
                let checked = grpc::check(&mut connection, check, host, is_tls).await;
                self.keep(connection, checked.is_ok());
                checked.unwrap_or(network)
            }
        }
    }

    fn keep(&mut self, connection: HttpConnection, is_usable: bool) {
        self.connection = if is_usable { Kept::Http(connection) } else { Kept::Nothing };
    }

    async fn http_connection(&mut self, cluster: &Cluster, http2: bool) -> Option<HttpConnection> {
        if let Kept::Http(mut connection) = std::mem::replace(&mut self.connection, Kept::Nothing)
            && connection.is_ready().await
        {
            return Some(connection);
        }
        let stream = self.connect(cluster).await.ok()?;
        HttpConnection::new(stream, http2).await
    }

    async fn connect(&self, cluster: &Cluster) -> Result<Stream, ConnectError> {
        let health_check = &self.host.health_check;
        let current = self.host.current_address();
        let address =
            SocketAddr::new(health_check.address.unwrap_or(current.ip()), health_check.port.unwrap_or(current.port()));
        connect::connect_to_check(cluster, &self.host, address, &self.checking.config.alpn_protocols).await
    }
}

/// What the host is called in a check: by its endpoint, by the check, or as the cluster.
fn name_of<'a>(host: &'a Host, of_check: &'a str, cluster: &'a Cluster) -> &'a str {
    let names = [&*host.health_check.hostname, of_check];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or(&cluster.config.name)
}
