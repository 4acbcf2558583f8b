//! The control plane's process: started on ephemeral ports, watched through /proc.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Killed on drop.
pub struct Control {
    child: Child,
    xds: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    pub rss_mb: f64,
}

const READY_LINES_MAX: usize = 1_000;

impl Control {
    /// Returns once it tells its address, which it does when the manifests are read.
    pub fn start(program: &Path, manifests: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--plaintext-xds-address", "127.0.0.1:0", "--monitoring-address", "127.0.0.1:0"])
            .args(["--log-format", "json", "--manifests"])
            .arg(manifests)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("its standard error is ours")?).lines();
        for line in lines.by_ref().take(READY_LINES_MAX) {
            let line = line?;
            let event =
                serde_json::from_str::<serde_json::Value>(&line).with_context(|| format!("not JSON: {line}"))?;
            if event["fields"]["message"] == "serving" {
                let xds = event["fields"]["xds"].as_str().context("it says where it serves")?.parse()?;
                // Read on, so that it never waits for us to.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, xds });
            }
        }
        bail!("the control plane ended before it served")
    }

    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    pub fn usage(&self) -> Result<Usage> {
        let process = Path::new("/proc").join(self.child.id().to_string());
        let stat = std::fs::read_to_string(process.join("stat"))?;
        // After the name, which stands in parentheses and may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let ticks =
            |index: usize| fields.get(index).context("a short line of /proc")?.parse::<u64>().map_err(Into::into);
        let [user, system]: [Result<u64>; 2] = [ticks(11), ticks(12)];
        let status = std::fs::read_to_string(process.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes = resident.trim().trim_end_matches(" kB").parse::<f64>()?;
        Ok(Usage {
            cpu: Duration::from_secs_f64((user? + system?) as f64 / TICKS_PER_SECOND),
            rss_mb: (kilobytes / 102.4).round() / 10.0,
        })
    }
}

/// USER_HZ, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Drop for Control {
    fn drop(&mut self) {
        // If it is gone already, there is nothing to end.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
