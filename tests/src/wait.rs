//! Waiting for a condition with a deadline, and giving up at once when the user interrupts.
//!
//! Every wait of the harness goes through [`until`], so there is no sleep in the hope that something has happened by then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The user asked to stop (Ctrl-C, SIGTERM or SIGHUP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Makes every present and future wait of this process fail with [`Interrupted`].
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// `Err(Interrupted)` once [`interrupt`] was called.
pub fn check() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
}

/// Calls `probe` until it succeeds or `patience` is over; then the probe's last error says what was missing.
pub fn until<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        check()?;
        let missing = match probe() {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if Instant::now() >= deadline {
            return Err(missing).with_context(|| format!("{what}: not within {patience:?}"));
        }
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// Keeps calling `probe` for the whole of `span`: for what must *stay* true. Fails with the probe's first error.
pub fn throughout(span: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        check()?;
        probe()?;
        std::thread::sleep(PROBE_INTERVAL);
    }
    Ok(())
}

const PROBE_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_returns_what_the_probe_found() {
        let mut calls = 0;
        let found = until("third call", Duration::from_secs(5), || {
            calls += 1;
            anyhow::ensure!(calls == 3, "call {calls}");
            Ok("found")
        });
        assert_eq!(found.unwrap(), "found");
    }

    #[test]
    fn until_names_what_was_missing() {
        let error = until("the moon", Duration::ZERO, || -> Result<()> { anyhow::bail!("it is day") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "the moon: not within 0ns: it is day");
    }

    #[test]
    fn throughout_fails_with_the_first_error() {
        let mut calls = 0;
        let error = throughout(Duration::from_secs(5), || {
            calls += 1;
            anyhow::ensure!(calls < 2, "broke at {calls}");
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "broke at 2");
    }
}
