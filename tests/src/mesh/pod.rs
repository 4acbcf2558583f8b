//! One pod: a namespace with an application and a sidecar in it, and what can be seen of both.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bootstrap::{self, ADMIN_PORT, PROMETHEUS_PORT, Sidecar, XdsVariant};
use crate::http1::{Connection, Response};
use crate::manifests::{self, Interception};
use crate::netns::{Namespace, Node};
use crate::process::{Launch, Process, User};
use crate::prometheus::Scrape;
use crate::slot::Slot;
use crate::wait;

/// A pod of the mesh.
#[derive(Debug)]
pub struct Pod {
    application: Option<Process>,
    sidecar: Option<Process>,
    manifest: manifests::Pod,
    proxy: PathBuf,
    folder: PathBuf,
    namespace: Namespace,
}

impl Pod {
    /// The pod's network, with nothing in it yet.
    pub(super) fn create(node: &mut Node, slot: &Slot, manifest: &manifests::Pod, proxy: &Path) -> Result<Self> {
        let namespace = Namespace::create(&format!("{}-{}", slot.prefix(), manifest.name))?;
        node.attach(&namespace, &manifest.addresses)?;
        let folder = slot.work().join(&manifest.name);
        fs::create_dir_all(&folder)?;
        // Log files are made by us, but the sidecar may want to write beside them.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let (manifest, proxy) = (manifest.clone(), proxy.to_owned());
        Ok(Self { application: None, sidecar: None, manifest, proxy, folder, namespace })
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    pub fn manifest(&self) -> &manifests::Pod {
        &self.manifest
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The pod's first address.
    pub fn address(&self) -> Result<IpAddr> {
        self.manifest.addresses.first().copied().with_context(|| format!("pod {} has no address", self.name()))
    }

    pub fn application(&mut self) -> Result<&mut Process> {
        self.application.as_mut().context("the application was not started")
    }

    pub fn sidecar(&mut self) -> Result<&mut Process> {
        self.sidecar.as_mut().context("the sidecar was not started")
    }

    /// Runs the manifest's command as its user; `weft-origin` is the program at `origin`.
    pub(super) fn start_application(&mut self, origin: &Path) -> Result<()> {
        let (program, args) = self.manifest.command.split_first().context("the container has a command")?;
        let program = if program == "weft-origin" { origin } else { Path::new(program) };
        let user = User { uid: self.manifest.uid, gid: self.manifest.uid };
        let launch = Launch::new(program).args(args).user(user).inside(&self.namespace);
        self.application = Some(Process::spawn("application", &launch, &self.folder.join("application.log"))?);
        Ok(())
    }

    /// Runs `weft-init` as an injected init container would be.
    pub(super) fn redirect(&self, init: &Path) -> Result<()> {
        let (uid, gid) = (PROXY_USER.uid.to_string(), PROXY_USER.gid.to_string());
        let mode = match self.manifest.interception {
            Interception::Redirect => "REDIRECT",
            Interception::Tproxy => "TPROXY",
        };
        Launch::new(init)
            .args(["-p", "15001", "-z", "15006", "-u", &uid, "-g", &gid, "-m", mode, "-i", "*", "-x", "", "-b", "*"])
            .args(["-d", "15090,15021,15020"])
            .inside(&self.namespace)
            .run()
            .map(|_| ())
    }

    pub(super) fn start_sidecar(&mut self, control: SocketAddr, variant: XdsVariant) -> Result<()> {
        let config = self.folder.join("bootstrap.yaml");
        let mut bootstrap = bootstrap::sidecar(&Sidecar {
            pod: &self.manifest.name,
            namespace: &self.manifest.namespace,
            address: self.address()?,
            labels: &self.manifest.labels,
            interception: self.manifest.interception,
            control,
            variant,
        });
        let is_envoy = self.proxy.file_name().is_some_and(|name| name == "envoy");
        if is_envoy {
            bootstrap = bootstrap::with_cluster_names_for_envoy(bootstrap);
        }
        // JSON is YAML.
        fs::write(&config, format!("{bootstrap:#}\n"))?;
        let mut launch = Launch::new(&self.proxy)
            .args(["-c".as_ref(), config.as_os_str()])
            .args(["--concurrency", "1", "-l", "info"])
            .user(match self.manifest.interception {
                Interception::Redirect => PROXY_USER,
                Interception::Tproxy => TRANSPARENT_PROXY_USER,
            })
            .inside(&self.namespace);
        if is_envoy {
            launch = launch.args(["--disable-hot-restart"]);
        }
        self.sidecar = Some(Process::spawn("sidecar", &launch, &self.folder.join("sidecar.log"))?);
        Ok(())
    }

    /// Waits until the sidecar has its configuration and the application listens.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let name = self.name().to_owned();
        wait::until(&format!("the sidecar of {name} is ready"), super::START_PATIENCE, || {
            self.sidecar()?.check_running()?;
            let ready = self.admin("/ready")?;
            ensure!(ready.status == 200, "/ready says {} {}", ready.status, ready.text().trim());
            Ok(())
        })?;
        self.wait_application()
    }

    /// Waits until each port that the application is told to listen on takes connections.
    pub fn wait_application(&mut self) -> Result<()> {
        let ports: Vec<u16> = self.manifest.command.iter().filter_map(|word| word.parse().ok()).collect();
        let name = self.name().to_owned();
        wait::until(&format!("the application of {name} listens"), super::START_PATIENCE, || {
            self.application()?.check_running()?;
            self.namespace.enter(|| {
                for port in &ports {
                    std::net::TcpStream::connect((LOOPBACK, *port)).with_context(|| format!("port {port}"))?;
                }
                Ok(())
            })
        })
    }

    /// A GET from inside of the pod, as its application would make it.
    pub fn get(&self, address: SocketAddr, authority: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        self.namespace.enter(|| Ok(Connection::open(address, GET_TIMEOUT)?.get(authority, path, headers)?))
    }

    /// A GET at the sidecar's admin address.
    pub fn admin(&self, path: &str) -> Result<Response> {
        self.get((LOOPBACK, ADMIN_PORT).into(), "localhost", path, &[])
    }

    /// The sidecar's counters, scraped from the node as Prometheus does.
    pub fn scrape(&self, node: &Node) -> Result<Scrape> {
        let target = SocketAddr::from((self.address()?, PROMETHEUS_PORT));
        let response = node
            .namespace()
            .enter(|| Ok(Connection::open(target, GET_TIMEOUT)?.get("prometheus", "/stats/prometheus", &[])?))?;
        ensure!(response.status == 200, "scraping {} gave {}", self.name(), response.status);
        Scrape::parse(&response.text()).with_context(|| format!("the scrape of {}", self.name()))
    }

    /// `program` run to its end inside of the pod as the application's user; what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let user = User { uid: self.manifest.uid, gid: self.manifest.uid };
        Launch::new(program).args(args).user(user).inside(&self.namespace).run()
    }
}

/// Whom sidecars run as, and who is not redirected.
const PROXY_USER: User = User { uid: 1337, gid: 1337 };
/// Binding others' addresses takes a privilege, so it is known by its group only.
const TRANSPARENT_PROXY_USER: User = User { uid: 0, ..PROXY_USER };
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const GET_TIMEOUT: Duration = Duration::from_secs(10);
