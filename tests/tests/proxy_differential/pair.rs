//! Envoy and weft-proxy side by side in a namespace with one application behind both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;
use weft_tests::process::{Launch, Process};
use weft_tests::slot::Slot;
use weft_tests::{peers, wait};

use crate::config::{self, LOG_FACTS, Ports};
use crate::{http2_upstream, raw_origin};

/// The bootstrap's text for one of the two, from its ports and the file that it logs to.
pub(crate) type Bootstrap<'a> = dyn Fn(Ports, &Path) -> String + Sync + 'a;

/// Both, until dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) envoy: Target,
    pub(crate) weft: Target,
    _origin: Process,
    namespace: Namespace,
    _slot: Slot,
}

/// One of the two.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) ports: Ports,
    access_log: PathBuf,
    process: Process,
}

impl Pair {
    pub(crate) fn start(bootstrap: &Bootstrap<'_>) -> Result<Self> {
        Self::start_with(bootstrap, |_| Ok(()))
    }

    /// `prepare` is given the namespace before either starts.
    pub(crate) fn start_with(
        bootstrap: &Bootstrap<'_>,
        prepare: impl FnOnce(&Namespace) -> Result<()>,
    ) -> Result<Self> {
        let slot = Slot::acquire("weft-pair")?;
        let namespace = Namespace::create(&format!("{}-both", slot.prefix()))?;
        // Who calls this address calls from it.
        namespace.ip(&[&format!("address add {}/32 dev lo", config::INTERNAL)])?;
        prepare(&namespace)?;
        let origin = Launch::new(peers::weft("weft-origin")?)
            .args(["--http", &config::ORIGIN_HTTP.to_string()])
            .args(["--tcp", &config::ORIGIN_TCP.to_string()])
            .args(["--tcp-server-first", &config::ORIGIN_SERVER_FIRST.to_string()])
            .inside(&namespace);
        let origin = Process::spawn("origin", &origin, &slot.work().join("origin.log"))?;
        namespace.enter(|| raw_origin::start(config::ORIGIN_RAW))?;
        http2_upstream::perform(&namespace)?;
        let envoy = Launch::new(peers::envoy()?).args(["--disable-hot-restart", "--file-flush-interval-msec", "20"]);
        let envoy = Target::start("Envoy", envoy, Ports { first: 10000 }, (&namespace, slot.work()), bootstrap)?;
        let weft = Launch::new(peers::weft("weft-proxy")?);
        let weft = Target::start("weft-proxy", weft, Ports { first: 11000 }, (&namespace, slot.work()), bootstrap)?;
        let mut pair = Self { envoy, weft, _origin: origin, namespace, _slot: slot };
        pair.wait_ready()?;
        Ok(pair)
    }

    /// Runs `work` on a thread in the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// The ends of both logs, for the one who has to find out.
    pub(crate) fn logs(&self) -> String {
        [&self.envoy, &self.weft].map(|target| format!("--- {}\n{}", target.name, target.process.log())).join("\n")
    }

    fn wait_ready(&mut self) -> Result<()> {
        for target in [&mut self.envoy, &mut self.weft] {
            wait::until(&format!("{} is ready", target.name), Duration::from_secs(20), || {
                target.process.check_running()?;
                let admin = target.ports.admin();
                self.namespace.enter(|| {
                    let ready = Connection::open(admin, TIMEOUT)?.get("admin", "/ready", &[])?;
                    ensure!(ready.status == 200, "/ready says {}", ready.status);
                    Ok(())
                })
            })?;
        }
        self.namespace.enter(|| {
            wait::until("the application listens", TIMEOUT, || {
                Ok(Connection::open(config::local(config::ORIGIN_HTTP), TIMEOUT).map(|_| ())?)
            })
        })
    }
}

impl Target {
    fn start(
        name: &'static str,
        launch: Launch,
        ports: Ports,
        (namespace, work): (&Namespace, &Path),
        write: &Bootstrap<'_>,
    ) -> Result<Self> {
        let access_log = work.join(format!("{name}.access.log"));
        let bootstrap = work.join(format!("{name}.yaml"));
        fs::write(&bootstrap, write(ports, &access_log))?;
        let launch = launch
            .args(["-c".as_ref(), bootstrap.as_os_str()])
            .args(["--concurrency", "1", "-l", "warning"])
            .inside(namespace);
        let process = Process::spawn(name, &launch, &work.join(format!("{name}.log")))?;
        Ok(Self { name, ports, access_log, process })
    }

    /// A name for requests of `case` that no other case, and not the other proxy, uses.
    pub(crate) fn key(&self, case: &str) -> String {
        // Of one length for both, so that lengths can be compared.
        let tag = self.name.get(..4).unwrap_or(self.name);
        format!("{tag}-{}", case.replace(' ', "-"))
    }

    /// How many requests of this case reached the application.
    pub(crate) fn attempts(&self, case: &str) -> Result<String> {
        let path = format!("/seen/{}", self.key(case));
        Ok(Connection::open(config::local(config::ORIGIN_HTTP), TIMEOUT)?.get("origin", &path, &[])?.text())
    }

    /// What the access log says about the request of this case; `log line` says whether it does.
    pub(crate) fn logged(&self, case: &str) -> Result<Facts> {
        let key = self.key(case);
        let line = wait::until("a line of the access log", LOG_PATIENCE, || {
            let log = fs::read_to_string(&self.access_log).context("no access log")?;
            let line = log
                .lines()
                .find_map(|line| line.strip_prefix(key.as_str())?.strip_prefix('\t'))
                .context("not among them")?;
            Ok(line.to_owned())
        });
        let mut facts = Facts::default();
        facts.add("log line", if line.is_ok() { "written" } else { "missing" });
        for (name, value) in LOG_FACTS.iter().zip(line.iter().flat_map(|line| line.split('\t'))) {
            facts.add(format!("log {name}"), if *name == "flags" { sorted(value) } else { value.to_owned() });
        }
        Ok(facts)
    }
}

impl Target {
    /// Where its files are, which are the other's, too.
    pub(crate) fn folder(&self) -> &Path {
        self.access_log.parent().expect("a file is in a folder")
    }

    /// What stands in the access log behind this key and a tab, in the last of its lines that says nothing new any more.
    pub(crate) fn last_line(&self, key: &str) -> Result<String> {
        let lines = self.lines(key)?;
        let log = self.log()?;
        let mut of_key = log.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        Ok(of_key.next_back().with_context(|| format!("none of {lines} lines"))?.to_owned())
    }

    /// A file of this name's extension.
    pub(crate) fn beside_access_log(&self, extension: &str) -> PathBuf {
        self.access_log.with_extension(extension)
    }

    /// The different texts behind this key and a tab, in order, once no more lines come.
    pub(crate) fn different_lines(&self, key: &str) -> Result<String> {
        self.lines(key)?;
        let log = self.log()?;
        let mut lines: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('\t')).collect();
        lines.sort_unstable();
        lines.dedup();
        Ok(lines.join(" / "))
    }

    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.access_log).context("no access log")
    }

    /// How many lines of the access log begin with this key and a tab, once no more come.
    pub(crate) fn lines(&self, key: &str) -> Result<usize> {
        let count = || -> Result<usize> {
            let log = self.log()?;
            Ok(log.lines().filter(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('\t'))).count())
        };
        let first = wait::until(&format!("a line of {key} in the access log"), LOG_PATIENCE, || {
            let count = count()?;
            ensure!(count > 0, "not among them");
            Ok(count)
        })?;
        // Both write what they have gathered within this time.
        std::thread::sleep(LOG_FLUSH);
        Ok(count()?.max(first))
    }

    /// The samples whose names begin so, but for zeros.
    pub(crate) fn counters(&self, prefixes: &[&str]) -> Result<Facts> {
        let text = Connection::open(self.ports.admin(), TIMEOUT)?.get("admin", "/stats/prometheus", &[])?.text();
        let mut facts = Facts::default();
        for line in text.lines().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix))) {
            if let Some((name, value)) = line.rsplit_once(' ')
                && value != "0"
            {
                facts.add(labels_sorted(name), value);
            }
        }
        Ok(facts)
    }
}

/// Which label comes first says nothing.
fn labels_sorted(name: &str) -> String {
    let Some((name, labels)) = name.strip_suffix('}').and_then(|name| name.split_once('{')) else {
        return name.to_owned();
    };
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// Flags are a set; their order says nothing.
fn sorted(flags: &str) -> String {
    let mut flags: Vec<&str> = flags.split(',').collect();
    flags.sort_unstable();
    flags.join(",")
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(8);
const LOG_FLUSH: Duration = Duration::from_millis(400);
const LOG_PATIENCE: Duration = Duration::from_secs(3);
