//! The workers' side of outlier detection: what became of a try is counted on the host, by one or two atomics; who crosses
//! a threshold is told to the main thread.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{OutlierMonitor, detector::Cause};
use crate::upstream::host::Host;

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered; of gRPC, the HTTP status that stands for its own.
    Status(u16),
    /// A connection is there; what is asked on it comes later.
    Connected,
    /// A connection is there, and that is all that was wanted.
    ConnectedFinally,
    /// No answer in time.
    TimedOut,
    /// No connection, or it broke.
    Failed,
}

/// What the main thread is told.
#[derive(Clone)]
pub enum Found {
    Consecutive(Arc<Host>, Cause),
    /// It says so itself.
    Degraded(Arc<Host>),
    /// An active check succeeded.
    Recovered(Arc<Host>),
}

const OK: u16 = 200;
const INTERNAL_SERVER_ERROR: u16 = 500;
const SERVICE_UNAVAILABLE: u16 = 503;
const GATEWAY_TIMEOUT: u16 = 504;

impl OutlierMonitor {
    pub fn report(&self, host: &Arc<Host>, outcome: Outcome) {
        if self.config.splits_local_origin {
            match outcome {
                Outcome::Status(status) => {
                    self.answered(host, status);
                    if status < INTERNAL_SERVER_ERROR {
                        reached(host);
                    }
                }
                Outcome::Connected | Outcome::ConnectedFinally => reached(host),
                Outcome::TimedOut | Outcome::Failed => self.not_reached(host),
            }
            return;
        }
        match outcome {
            Outcome::Status(status) => self.answered(host, status),
            Outcome::Connected => {}
            Outcome::ConnectedFinally => self.answered(host, OK),
            Outcome::TimedOut => self.answered(host, GATEWAY_TIMEOUT),
            Outcome::Failed => self.answered(host, SERVICE_UNAVAILABLE),
        }
    }

    /// A response says that its host would rather not.
    pub fn report_degraded(&self, host: &Arc<Host>) {
        if self.config.detects_degraded {
            self.tell(Found::Degraded(host.clone()));
        }
    }

    fn answered(&self, host: &Arc<Host>, status: u16) {
        let record = &host.outlier;
        let failed = (500..600).contains(&status);
        record.external.count(!failed);
        if !failed {
            // Reading is cheaper than writing what is there already.
            for counter in [&record.consecutive_5xx, &record.consecutive_gateway_failures] {
                if counter.load(Relaxed) != 0 {
                    counter.store(0, Relaxed);
                }
            }
            return;
        }
        if !(502..=504).contains(&status) {
            record.consecutive_gateway_failures.store(0, Relaxed);
        } else if record.consecutive_gateway_failures.fetch_add(1, Relaxed) + 1
            == self.config.consecutive_gateway_failure
        {
            self.tell(Found::Consecutive(host.clone(), Cause::ConsecutiveGatewayFailure));
        }
        if record.consecutive_5xx.fetch_add(1, Relaxed) + 1 == self.config.consecutive_5xx {
            self.tell(Found::Consecutive(host.clone(), Cause::Consecutive5xx));
        }
    }

    fn not_reached(&self, host: &Arc<Host>) {
        let record = &host.outlier;
        record.local.count(false);
        let failures = record.consecutive_local_origin_failures.fetch_add(1, Relaxed) + 1;
        if failures == self.config.consecutive_local_origin_failure {
            self.tell(Found::Consecutive(host.clone(), Cause::ConsecutiveLocalOriginFailure));
        }
    }

    fn tell(&self, found: Found) {
        let _ = self.found.send(found); // Err: the cluster is gone, and nobody asks any more
    }
}

fn reached(host: &Host) {
    host.outlier.local.count(true);
    host.outlier.consecutive_local_origin_failures.store(0, Relaxed);
}
