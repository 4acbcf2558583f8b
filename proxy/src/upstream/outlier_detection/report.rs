//! The workers' side of outlier detection: what became of a try is counted on the host, by one or two atomics; who crosses
//! a threshold is told to the main thread.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

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
        } else if reaches(&record.consecutive_gateway_failures, self.config.consecutive_gateway_failure) {
            self.tell(Found::Consecutive(host.clone(), Cause::ConsecutiveGatewayFailure));
        }
        if reaches(&record.consecutive_5xx, self.config.consecutive_5xx) {
            self.tell(Found::Consecutive(host.clone(), Cause::Consecutive5xx));
        }
    }

    fn not_reached(&self, host: &Arc<Host>) {
        let record = &host.outlier;
        record.local.count(false);
        if reaches(&record.consecutive_local_origin_failures, self.config.consecutive_local_origin_failure) {
            self.tell(Found::Consecutive(host.clone(), Cause::ConsecutiveLocalOriginFailure));
        }
    }

    fn tell(&self, found: Found) {
        let _ = self.found.send(found); // Err: the cluster is gone, and nobody asks any more
    }
}

/// Counts one more failure. At the threshold the next row begins, whatever the main thread makes of this one: it ignores
/// those of a host that is ejected.
fn reaches(counter: &AtomicU32, threshold: u32) -> bool {
    let reaches = counter.fetch_add(1, Relaxed) + 1 == threshold;
    if reaches {
        counter.store(0, Relaxed);
    }
    reaches
}

fn reached(host: &Host) {
    host.outlier.local.count(true);
    host.outlier.consecutive_local_origin_failures.store(0, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_row_counts_by_itself() {
        let counter = AtomicU32::new(0);
        let reached: Vec<bool> = (0..7).map(|_| reaches(&counter, 3)).collect();
        assert_eq!(reached, [false, false, true, false, false, true, false]);
        assert!((0..9).all(|_| !reaches(&AtomicU32::new(0), 0)), "0 is never reached");
    }
}
