//! A program that the harness started: in a namespace, as a user, with its output kept, ended by its process id alone.
//!
//! Invariants: the program dies with the thread that spawned it (the kernel sees to that, whatever happens to us), so
//! spawn from a thread that lives as long as the test. It has a process group of its own: a Ctrl-C in the terminal reaches
//! the harness, which then stops things in order.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt as _;

use crate::netns::Namespace;

/// Whom a program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
    user: Option<User>,
}

impl Launch {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), environment: Vec::new(), namespace: None, user: None }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it inside of `namespace`; without, it shares the harness's network.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    /// Runs it as `user`, without capabilities unless that is root.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Runs it to its end; an exit status other than 0 is an error that carries what it said.
    pub fn run(self) -> Result<String> {
        let program = self.program.display().to_string();
        let output = self.command().stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
        let said = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        ensure!(output.status.success(), "{program}: {}: {}", output.status, said.concat().trim());
        let [stdout, _] = said;
        Ok(stdout)
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(OsString::from));
        }
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        if let Some(User { uid, gid }) = self.user {
            words.extend(
                [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()].map(OsString::from),
            );
        }
        words.push("--".into());
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.process_group(0);
        command
    }
}

/// A running program; killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `launch`; stdout and stderr are appended to `log`.
    pub fn spawn(name: &str, launch: &Launch, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = launch
            .command()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", launch.program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it printed so far.
    pub fn log(&self) -> String {
        // A program may print bytes that are no text.
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// `Err` with the exit status and the last lines of its log once it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, last_lines(&self.log(), LOG_LINES_SHOWN)),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGTERM, then waits; a program that is still there after `patience` is killed and that is an error.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        bail!("{} did not end within {patience:?} of SIGTERM:\n{}", self.name, last_lines(&self.log(), LOG_LINES_SHOWN))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is what we want.
        let _already_gone = self.kill();
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

const LOG_LINES_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_of_a_short_and_a_long_text() {
        assert_eq!(last_lines("a\nb\n", 3), "a\nb");
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
    }

    #[test]
    fn a_failing_program_says_what_it_said() {
        let error = Launch::new("ls").args(["/no/such/place"]).run().unwrap_err().to_string();
        assert!(error.contains("ls: exit status: 2") && error.contains("/no/such/place"), "{error}");
    }

    #[test]
    fn terminate_reports_the_status_and_kill_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut sleeper =
            Process::spawn("sleep", &Launch::new("sleep").args(["600"]), &folder.path().join("log")).unwrap();
        sleeper.check_running().unwrap();
        let pid = sleeper.pid();
        let status = sleeper.terminate(Duration::from_secs(5)).unwrap();
        assert!(!status.success());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(sleeper.check_running().unwrap_err().to_string().starts_with("sleep ended"));
    }
}
