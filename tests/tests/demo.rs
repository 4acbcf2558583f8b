//! The demo, as a machine runs it: every check holds, and whatever way it ends it leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use weft_tests::wait;

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

fn demo() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weft-demo"))
}

/// What a run would leave behind if it did: namespaces, their files, folders.
fn traces() -> Result<BTreeSet<String>> {
    let mut traces = BTreeSet::new();
    for folder in ["/run/netns".into(), "/etc/netns".into(), std::env::temp_dir()] {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path().display().to_string();
            if path.contains("weft-demo") {
                traces.insert(path);
            }
        }
    }
    Ok(traces)
}

/// Starts `weft-demo --keep` and waits until it invites.
fn start_and_keep() -> Result<Child> {
    let mut child = demo().arg("--keep").stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let mut said = Vec::new();
    for line in output.lines() {
        said.push(line?);
        if said.last().is_some_and(|line| line.contains("/stats/prometheus") && line.contains("ip netns exec")) {
            return Ok(child);
        }
    }
    child.kill()?;
    child.wait()?;
    anyhow::bail!("it never invited:\n{}", said.join("\n"))
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn every_check_holds_and_nothing_is_left_behind() -> Result<()> {
    let before = traces()?;
    let output = demo().arg("--json").output()?;
    let text = String::from_utf8(output.stdout)?;
    let checks: Vec<Check> = serde_json::from_str(&text).with_context(|| text.clone())?;
    for check in &checks {
        ensure!(check.ok, "{}: {}", check.name, check.detail);
    }
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["redirected", "balanced", "scaled down", "scaled up", "retried", "tcp", "counters"]);
    ensure!(output.status.success(), "exit status {}", output.status);
    assert!(traces()?.is_subset(&before), "left behind: {:?}", traces()?.difference(&before));
    Ok(())
}

#[test]
fn an_interrupt_removes_everything() -> Result<()> {
    let before = traces()?;
    let mut child = start_and_keep()?;
    assert!(!traces()?.is_subset(&before), "while it runs there are namespaces");
    signal(&child, Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.success(), "all checks held, yet it ended with {status}");
    assert!(traces()?.is_subset(&before), "left behind: {:?}", traces()?.difference(&before));
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() -> Result<()> {
    let before = traces()?;
    let mut child = start_and_keep()?;
    child.kill()?;
    child.wait()?;
    assert!(!traces()?.is_subset(&before), "a killed run cannot clean up");
    let output = demo().arg("--json").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait::until("all traces are gone", Duration::from_secs(5), || {
        ensure!(traces()?.is_subset(&before), "left behind: {:?}", traces()?.difference(&before));
        Ok(())
    })
}

#[test]
fn it_fails_and_says_why_when_something_does_not_hold() -> Result<()> {
    let before = traces()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("bad.yaml"), "kind: Pod\nmetadata: {}\n")?;
    let output = demo().args(["--json", "--manifests"]).arg(folder.path()).output()?;
    assert_eq!(output.status.code(), Some(1));
    let checks: Vec<Check> = serde_json::from_slice(&output.stdout)?;
    assert!(checks.iter().any(|check| !check.ok && check.detail.contains("bad.yaml")), "{checks:?}");
    assert!(traces()?.is_subset(&before), "left behind: {:?}", traces()?.difference(&before));
    Ok(())
}
