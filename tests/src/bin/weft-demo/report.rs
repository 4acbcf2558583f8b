//! What the demo says: a line a check for people, or all checks as JSON for machines.
//!
//! Colour only on a terminal and without `NO_COLOR` (<https://no-color.org>). A closed standard output ends nothing: the exit
//! status still says whether all held.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use serde::Serialize;
use weft_tests::bootstrap::{ADMIN_PORT, PROMETHEUS_PORT};
use weft_tests::mesh::Mesh;

use crate::steps::Shown;

/// Collects the checks and prints them.
#[derive(Debug)]
pub(crate) struct Report {
    checks: Vec<Check>,
    style: Style,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
    ms: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Json,
    Plain,
    Coloured,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        let colour_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = match (json, colour_wanted && std::io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Coloured,
            (false, false) => Style::Plain,
        };
        Self { checks: Vec::new(), style }
    }

    /// The pods, once they are up.
    pub(crate) fn introduce(&mut self, mesh: &Mesh, took: Duration) -> Result<()> {
        let title = format!(
            "{} pods, each a network namespace with its own sidecar, up in {:.1} s",
            mesh.pods().len(),
            took.as_secs_f64()
        );
        self.note(&format!("\n  {}\n", self.paint(BOLD, &title)));
        for pod in mesh.pods() {
            let command = pod.manifest().command.join(" ");
            self.note(&format!("    {:<14} {:<13} {}", pod.name(), pod.address()?, self.paint(DIM, &command)));
        }
        self.note("");
        Ok(())
    }

    /// Runs a step, and shows what it showed or why it failed.
    pub(crate) fn check(&mut self, name: &str, step: impl FnOnce() -> Result<Shown>) {
        let started = Instant::now();
        let outcome = step();
        let took = started.elapsed();
        let (ok, lines) = match outcome {
            Ok(lines) => (true, lines),
            Err(error) => (false, format!("{error:#}").lines().map(str::to_owned).collect()),
        };
        self.show(name, ok, &lines, took);
        self.checks.push(Check { name: name.to_owned(), ok, detail: lines.join("; "), ms: took.as_millis() });
    }

    /// Something failed that is no step of its own.
    pub(crate) fn fail(&mut self, name: &str, error: &Error) {
        self.check(name, || Err(anyhow::anyhow!("{error:#}")));
    }

    /// What to try while it is left running.
    pub(crate) fn invite(&mut self, mesh: &Mesh) -> Result<()> {
        let client = mesh.pod("client")?;
        let inside = format!("ip netns exec {}", client.namespace().name());
        let node = mesh.node().namespace().name();
        let slice = mesh.manifests().join("reviews-endpoints.yaml");
        self.note(&format!(
            "\n  {}\n",
            self.paint(BOLD, "The mesh stays up until Ctrl-C. In another terminal, as root, try:")
        ));
        for (purpose, command) in [
            ("ask again, from the client's pod", format!("{inside} curl -s http://reviews:9080/")),
            ("see what the application is sent", format!("{inside} curl -s http://reviews:9080/headers")),
            ("remove a replica, or add it again", format!("${{EDITOR:-vi}} {}", slice.display())),
            (
                "the client's endpoints, as its sidecar has them",
                format!("{inside} curl -s localhost:{ADMIN_PORT}/clusters"),
            ),
            ("its whole configuration", format!("{inside} curl -s localhost:{ADMIN_PORT}/config_dump")),
            (
                "its counters, as Prometheus scrapes them",
                format!("ip netns exec {node} curl -s {}:{PROMETHEUS_PORT}/stats/prometheus", client.address()?),
            ),
        ] {
            self.note(&format!("    {}\n    {command}\n", self.paint(DIM, &format!("# {purpose}"))));
        }
        Ok(())
    }

    /// A line for people.
    pub(crate) fn note(&self, line: &str) {
        if self.style != Style::Json {
            print_line(line);
        }
    }

    /// The last word, and the exit status.
    pub(crate) fn finish(&self) -> ExitCode {
        let failed: Vec<&str> = self.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
        if self.style == Style::Json {
            print_line(&serde_json::to_string_pretty(&self.checks).expect("checks are plain data"));
        }
        let all_held = failed.is_empty() && !self.checks.is_empty();
        if all_held {
            self.note(&format!("\n  {}\n", self.paint(GREEN, &format!("all {} checks held", self.checks.len()))));
            return ExitCode::SUCCESS;
        }
        self.note(&format!("\n  {}\n", self.paint(RED, &format!("did not hold: {}", failed.join(", ")))));
        ExitCode::FAILURE
    }

    fn show(&self, name: &str, ok: bool, lines: &[String], took: Duration) {
        let mark = if ok { self.paint(GREEN, "ok  ") } else { self.paint(RED, "FAIL") };
        let (first, more) = lines.split_first().map_or(("", &[][..]), |(first, more)| (first.as_str(), more));
        let took = self.paint(DIM, &format!("{:.1} s", took.as_secs_f64()));
        self.note(&format!("  {mark} {:<12} {first}  {took}", name));
        for line in more {
            self.note(&format!("  {:4} {:<12} {line}", "", ""));
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.style == Style::Coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn print_line(line: &str) {
    // Nobody may be listening any more (`| head`).
    let _closed = writeln!(std::io::stdout(), "{line}");
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
