//! Carries a change to its end though this process be killed.
//!
//! Used by [`crate::apply`] where a change takes several transactions: the iptables backend has one for each table of each
//! family. The program runs itself a second time, in a process group of its own, and waits: `kill -9` of the first, or of its
//! whole process group, leaves the second to finish; a second that is killed is started again by the first. Only when
//! both die at once is a change left halfway, and running again completes it.
//!
//! Invariants: a second never starts a third; it does all that the command line says, so that its exit status is the
//! answer.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use thiserror::Error;
use tracing::warn;

/// The name that the second process goes by. No user writes it: it is no argument and no environment variable.
const NAME: &str = "weft-init (guarded)";

/// How often a second is started. Whoever kills it this often means it.
const ATTEMPTS: u32 = 3;

#[derive(Debug, Error)]
pub enum GuardError {
    #[error("this program can't be run a second time")]
    Run(#[source] io::Error),
    #[error("the process that changes the rules was ended by a signal, {ATTEMPTS} times; run again to complete it")]
    Killed,
}

/// Whether this process is the second.
pub fn is_guarded() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Does what the command line says in a second process; its exit status.
pub fn run() -> Result<u8, GuardError> {
    let program = std::env::current_exe().map_err(GuardError::Run)?;
    for _ in 0..ATTEMPTS {
        let mut command = Command::new(&program);
        command.arg0(NAME).args(std::env::args_os().skip(1)).stdin(Stdio::null()).process_group(0);
        let status = command.status().map_err(GuardError::Run)?;
        match status.code() {
            Some(code) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            None => warn!(%status, "the process that changes the rules was ended by a signal"),
        }
    }
    Err(GuardError::Killed)
}
