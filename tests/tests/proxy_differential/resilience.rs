//! Hosts that fail, recover and say how they are: outlier detection, health checks, retries and stateful sessions, as scenarios of a few steps
//! with a cluster each.
//!
//! The hosts are small servers of this file: what a request gets is said by the request itself, by port (`x-do`), and what a
//! health check gets by what was set before.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket};
use weft_tests::facts::Facts;
use weft_tests::http1::Connection;
use weft_tests::netns::Namespace;
use weft_tests::wait;

use crate::Case;
use crate::config::{Ports, local};
use crate::pair::{TIMEOUT, Target};

/// The hosts' ports.
pub(crate) const HOSTS: [u16; 5] = [9501, 9502, 9503, 9504, 9505];
/// Where nobody listens.
pub(crate) const DEAD: u16 = 9599;

/// A cluster with a route of its name, and what happens to it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) cluster: Value,
    /// Fields of the route's action.
    pub(crate) route: Value,
    pub(crate) steps: Vec<Step>,
}

pub(crate) enum Step {
    /// So many requests that say this to the hosts: `PORT=ANSWER;...`. Their statuses are compared, as a sorted list.
    Send(usize, &'static str),
    /// The same, but what comes back is not compared.
    Load(usize, &'static str),
    /// One request with these headers; its whole answer is compared, but for which host it was.
    Ask(&'static str, &'static [(&'static str, &'static str)]),
    /// A host answers health checks so from now on.
    Become(u16, &'static str),
    /// What the last health check of a host asked, line by line.
    Asked(u16),
    /// Until `/clusters` says this of a host's health.
    Flags(u16, &'static str),
    /// Until a statistic of the cluster has at least this value.
    AtLeast(&'static str, u64),
    Pause(u64),
    /// What `/clusters` says of the health of all hosts, and of their success rates.
    Look,
    /// The cluster's statistics that begin so, but for zeros.
    Count(&'static [&'static str]),
    /// Its lines in the log of outlier detection.
    Events,
}

pub(crate) fn scenario(name: &'static str, cluster: Value, steps: Vec<Step>) -> Scenario {
    Scenario { name, cluster, route: json!({}), steps }
}

impl Scenario {
    pub(crate) fn routed(self, route: Value) -> Self {
        Self { route, ..self }
    }

    fn observe(&self, target: &Target) -> Result<Facts> {
        let mut facts = Facts::default();
        for (at, step) in self.steps.iter().enumerate() {
            self.take(step, at, target, &mut facts).with_context(|| format!("step {at}"))?;
        }
        Ok(facts)
    }

    fn take(&self, step: &Step, at: usize, target: &Target, facts: &mut Facts) -> Result<()> {
        let name = self.name.replace(' ', "-");
        let send = |times: usize, doing: &str| -> Result<BTreeMap<u16, usize>> {
            let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
            let mut statuses = BTreeMap::new();
            for _ in 0..times {
                let answer = connection.get("any.test", &format!("/{name}/"), &[("x-do", doing)])?;
                *statuses.entry(answer.status).or_default() += 1;
                // What it means for the host travels to another thread and back.
                std::thread::sleep(Duration::from_millis(12));
            }
            Ok(statuses)
        };
        match step {
            Step::Send(times, doing) => facts.add(format!("{at}: statuses"), format!("{:?}", send(*times, doing)?)),
            Step::Load(times, doing) => drop(send(*times, doing)?),
            Step::Ask(doing, headers) => {
                let headers: Vec<_> = headers.iter().copied().chain([("x-do", *doing)]).collect();
                let mut connection = Connection::open(target.ports.http(), TIMEOUT)?;
                let mut asked = Facts::default();
                asked.add_outcome(&connection.get("any.test", &format!("/{name}/"), &headers));
                facts.append(asked.within(&format!("{at}: ")));
            }
            Step::Become(port, answer) => {
                let mut health = HEALTH.lock().expect("nobody panics with it");
                health.insert((*port, check_path(target.ports, self.name)), (*answer).to_owned());
            }
            Step::Asked(port) => {
                let path = check_path(target.ports, self.name);
                let asked = ASKED.lock().expect("nobody panics with it").get(&(*port, path.clone())).cloned();
                for (number, line) in asked.context("never asked")?.iter().enumerate() {
                    facts.add(format!("{at}: line {number}"), line.replace(&path, "CHECK"));
                }
            }
            Step::Flags(port, wanted) => {
                let reached = wait::until(&format!("{port} is {wanted}"), PATIENCE, || {
                    let found = flags(target, &name)?;
                    let found = found.get(&format!("127.0.0.1:{port}")).cloned().unwrap_or_default();
                    ensure!(found == *wanted, "{found}");
                    Ok(())
                });
                facts.add(
                    format!("{at}: {port} becomes {wanted}"),
                    format!("{:?}", reached.map_err(|error| format!("{error:#}"))),
                );
            }
            Step::AtLeast(stat, value) => {
                let full = format!("envoy_cluster_{stat}");
                wait::until(&format!("{full} is {value}"), PATIENCE, || {
                    let label = format!("envoy_cluster_name=\"{name}\"");
                    let text = admin(target, "/stats/prometheus")?;
                    let line =
                        text.lines().find(|line| line.starts_with(&format!("{full}{{")) && line.contains(&label));
                    let found: u64 = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0);
                    ensure!(found >= *value, "{found}");
                    Ok(())
                })?;
            }
            Step::Pause(ms) => std::thread::sleep(Duration::from_millis(*ms)),
            Step::Look => {
                for line in
                    admin(target, "/clusters")?.lines().filter_map(|line| line.strip_prefix(&format!("{name}::")))
                {
                    let is_wanted =
                        ["health_flags", "success_rate", "outlier::"].iter().any(|part| line.contains(part));
                    if let Some((what, value)) = line.rsplit_once("::").filter(|_| is_wanted) {
                        facts.add(format!("{at}: {what}"), value);
                    }
                }
            }
            Step::Count(prefixes) => {
                let full: Vec<String> = prefixes.iter().map(|prefix| format!("envoy_cluster_{prefix}")).collect();
                let full: Vec<&str> = full.iter().map(String::as_str).collect();
                let label = format!("envoy_cluster_name=\"{name}\"");
                facts.append(target.counters(&full)?.only(|name| name.contains(&label)).within(&format!("{at}: ")));
            }
            Step::Events => {
                std::thread::sleep(Duration::from_millis(300)); // both write what they have gathered within this time
                let log = std::fs::read_to_string(target.beside_access_log("outliers")).unwrap_or_default();
                let lines = log.lines().filter(|line| line.contains(&format!("\"cluster_name\":\"{name}\"")));
                for (number, line) in lines.enumerate() {
                    facts.add(format!("{at}: event {number}"), without_times(line)?);
                }
            }
        }
        Ok(())
    }
}

/// When, and how long ago, differs.
fn without_times(line: &str) -> Result<String> {
    let mut event: Value = serde_json::from_str(line)?;
    let stamp = event["timestamp"].as_str().unwrap_or_default().to_owned();
    ensure!(stamp.len() >= 20 && stamp.ends_with('Z'), "timestamp {stamp:?}");
    for name in ["timestamp", "secs_since_last_action"] {
        if !event[name].is_null() {
            event[name] = json!("some");
        }
    }
    Ok(event.to_string())
}

fn admin(target: &Target, path: &str) -> Result<String> {
    Ok(Connection::open(target.ports.admin(), TIMEOUT)?.get("admin", path, &[])?.text())
}

/// By address.
fn flags(target: &Target, cluster: &str) -> Result<BTreeMap<String, String>> {
    let text = admin(target, "/clusters")?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{cluster}::")));
    Ok(lines
        .filter_map(|line| line.split_once("::health_flags::"))
        .map(|(host, flags)| (host.to_owned(), flags.to_owned()))
        .collect())
}

const PATIENCE: Duration = Duration::from_secs(6);

pub(crate) fn cases(scenarios: Vec<Scenario>) -> Vec<Case> {
    let case =
        |scenario: Scenario| Case { name: scenario.name, observe: Box::new(move |target| scenario.observe(target)) };
    scenarios.into_iter().map(case).collect()
}

/// Of one locality.
pub(crate) fn hosts(ports: &[u16]) -> Value {
    let host = |port: &u16| json!({"endpoint": {"address": socket("127.0.0.1", *port)}});
    json!([{"lb_endpoints": ports.iter().map(host).collect::<Vec<_>>()}])
}

pub(crate) fn check_path(ports: Ports, name: &str) -> String {
    format!("/check/{}/{}", ports.first, name.replace(' ', "-"))
}

/// In the cluster's fields `CHECK` stands for the path of its health checks, and `LOG` for a log file.
pub(crate) fn bootstrap(scenarios: &[Scenario], ports: Ports, access_log: &Path) -> String {
    let filled = |scenario: &Scenario, value: &Value| -> Value {
        let log = access_log.with_extension("outliers");
        let text = value.to_string().replace("\"CHECK\"", &json!(check_path(ports, scenario.name)).to_string());
        serde_json::from_str(&text.replace("\"LOG\"", &json!(log).to_string())).expect("it was JSON before")
    };
    let clusters = scenarios.iter().map(|scenario| {
        let name = scenario.name.replace(' ', "-");
        let mut all = json!({"name": name, "type": "STATIC", "connect_timeout": "1s"});
        let mut fields = filled(scenario, &scenario.cluster);
        if fields["load_assignment"].is_null() {
            fields["load_assignment"] = json!({"endpoints": hosts(&HOSTS[..2])});
        }
        fields["load_assignment"]["cluster_name"] = json!(name);
        if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
            all.extend(fields);
        }
        all
    });
    let routes = scenarios.iter().map(|scenario| {
        let name = scenario.name.replace(' ', "-");
        let mut action = json!({"cluster": name});
        if let (Some(action), Value::Object(fields)) = (action.as_object_mut(), filled(scenario, &scenario.route)) {
            action.extend(fields);
        }
        json!({"match": {"prefix": format!("/{name}/")}, "route": action})
    });
    let routes = json!({"name": "routes", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": routes.collect::<Vec<_>>(),
    }]});
    let address = |at: std::net::SocketAddr| socket(&at.ip().to_string(), at.port());
    let document = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(ports.admin())},
        "cluster_manager": {"outlier_detection": {"event_log_path": access_log.with_extension("outliers")}},
        "static_resources": {
            "clusters": clusters.collect::<Vec<_>>(),
            "listeners": [{
                "name": "http",
                "address": address(ports.http()),
                "filter_chains": [{"filters": [http_filter("http", &routes)]}],
            }],
        },
    });
    format!("{document:#}\n")
}

/// What hosts answer to health checks, by port and path; 200 unless it says so.
static HEALTH: LazyLock<Mutex<HashMap<(u16, String), String>>> = LazyLock::new(Mutex::default);

/// What they were asked last.
type Heads = HashMap<(u16, String), Vec<String>>;
static ASKED: LazyLock<Mutex<Heads>> = LazyLock::new(Mutex::default);

/// The hosts, for as long as the test's process lives.
pub(crate) fn start_hosts(namespace: &Namespace) -> Result<()> {
    namespace.enter(|| {
        for port in HOSTS {
            let listener = TcpListener::bind(local(port)).context("a host")?;
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || serve(stream, port).ok());
                }
            });
        }
        Ok(())
    })
}

fn serve(stream: TcpStream, port: u16) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let field = |name: &str| {
            head.iter()
                .find_map(|line| line.split_once(':').filter(|(found, _)| *found == name))
                .map(|(_, value)| value.trim())
        };
        let length: u64 = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let set = HEALTH.lock().expect("nobody panics with it").get(&(port, path.to_owned())).cloned();
        if path.starts_with("/check/") {
            ASKED.lock().expect("nobody panics with it").insert((port, path.to_owned()), head.clone());
        }
        let said = field("x-do").unwrap_or_default();
        let of_port = said.split(';').find_map(|part| part.trim().strip_prefix(&format!("{port}=")));
        let with_body = !head.first().is_some_and(|line| line.starts_with("HEAD "));
        let answer = set.as_deref().or(of_port).unwrap_or("200");
        if !write_answer(&mut writer, answer, port, with_body)? {
            return Ok(());
        }
    }
}

/// `STATUS[,name:value...]`, `close`, `hang` or `slow`; false: the connection is to end.
fn write_answer(writer: &mut TcpStream, answer: &str, port: u16, with_body: bool) -> Result<bool> {
    let mut parts = answer.split(',');
    match parts.next().unwrap_or_default() {
        "close" => return Ok(false),
        "hang" => {
            std::thread::sleep(Duration::from_secs(5));
            return Ok(false);
        }
        "stall" => {
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")?;
            std::thread::sleep(Duration::from_secs(5));
            return Ok(false);
        }
        "half" => {
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")?;
            return Ok(false);
        }
        status => {
            let fields: String = parts.map(|field| format!("{}\r\n", field.replacen(':', ": ", 1))).collect();
            let body = if with_body { format!("from {port}") } else { String::new() };
            let length = body.len();
            writer.write_all(
                format!("HTTP/1.1 {status} x\r\n{fields}content-length: {length}\r\n\r\n{body}").as_bytes(),
            )?;
        }
    }
    Ok(true)
}
