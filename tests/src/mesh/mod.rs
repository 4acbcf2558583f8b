//! A whole mesh on one machine: a node, the pods of a folder of manifests with their sidecars, and the control plane that watches a copy
//! of that folder.
//!
//! Invariants: the original manifests are never written to; nothing outlives the [`Mesh`]; the fields are in the order in
//! which they have to end (processes, then networks, then names and folders).

mod pod;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use pod::Pod;

use crate::bootstrap::XdsVariant;
use crate::manifests::{self, EndpointSliceFile, Manifests};
use crate::netns::Node;
use crate::peers;
use crate::process::{Launch, Process, User};
use crate::slot::Slot;

/// What to build a mesh from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The family of names, see [`Slot`].
    pub family: &'static str,
    /// Folders of manifests, put together.
    pub manifests: Vec<PathBuf>,
    /// The sidecar of each pod.
    pub sidecars: Sidecars,
}

/// Which program is the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecars {
    Weft,
    /// The real Envoy, with the same redirection and the same control plane.
    Envoy,
    /// The same, configured by differences rather than by states of the world.
    EnvoyByDelta,
    /// Envoy where the traffic comes from (pods without an `app` of a Service), Weft where it goes to.
    EnvoyToWeft,
    WeftToEnvoy,
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    control: Option<Process>,
    pods: Vec<Pod>,
    node: Node,
    programs: Programs,
    originals: Vec<PathBuf>,
    manifests: PathBuf,
    slot: Slot,
}

/// Copies of the programs to run, where every user can reach them: the build folder is often below /root.
#[derive(Debug)]
struct Programs {
    control: PathBuf,
    init: PathBuf,
    origin: PathBuf,
    weft_proxy: Option<PathBuf>,
    envoy: Option<PathBuf>,
}

impl Mesh {
    /// Builds it and waits until every sidecar has its configuration and every application listens.
    pub fn start(plan: &Plan) -> Result<Self> {
        let mut mesh = Self::prepare(plan)?;
        mesh.start_control()?;
        let manifests = Manifests::read(&mesh.manifests)?;
        for pod in &manifests.pods {
            mesh.start_pod(&manifests, pod, plan.sidecars).with_context(|| format!("pod {}", pod.name))?;
        }
        for pod in &mut mesh.pods {
            pod.wait_ready()?;
        }
        Ok(mesh)
    }

    /// Names, folders, the node: everything before the first process.
    fn prepare(plan: &Plan) -> Result<Self> {
        let slot = Slot::acquire(plan.family)?;
        let programs = Programs::stage(&slot.work().join("bin"), plan.sidecars)?;
        let manifests = slot.work().join("manifests");
        for folder in &plan.manifests {
            manifests::copy(folder, &manifests)?;
        }
        let node = Node::create(&format!("{}-node", slot.prefix()), &[(NODE_V4.into(), 24), (NODE_V6.into(), 64)])?;
        Ok(Self { control: None, pods: Vec::new(), node, programs, originals: plan.manifests.clone(), manifests, slot })
    }

    /// Starts the control plane, again if it was stopped.
    pub fn start_control(&mut self) -> Result<()> {
        let launch = Launch::new(&self.programs.control)
            .args(["serve", "--manifests"])
            .args([&self.manifests])
            .args(["--plaintext-xds-address", &SocketAddr::from((NODE_V4, XDS_PORT)).to_string()])
            .args(["--monitoring-address", &SocketAddr::from((NODE_V4, MONITORING_PORT)).to_string()])
            .user(CONTROL_USER)
            .inside(self.node.namespace());
        self.control = Some(Process::spawn("weft-control", &launch, &self.slot.work().join("weft-control.log"))?);
        Ok(())
    }

    pub fn control(&mut self) -> Result<&mut Process> {
        self.control.as_mut().context("the control plane is stopped")
    }

    fn start_pod(&mut self, manifests: &Manifests, manifest: &manifests::Pod, sidecars: Sidecars) -> Result<()> {
        let proxy = self.programs.proxy_for(manifest, sidecars)?;
        let mut pod = Pod::create(&mut self.node, &self.slot, manifest, proxy)?;
        pod.namespace().set_hosts(&manifests.hosts_for(&manifest.namespace))?;
        pod.start_application(&self.programs.origin)?;
        pod.redirect(&self.programs.init)?;
        let variant = match sidecars {
            Sidecars::EnvoyByDelta => XdsVariant::Delta,
            _ => XdsVariant::StateOfTheWorld,
        };
        pod.start_sidecar((NODE_V4, XDS_PORT).into(), variant)?;
        self.pods.push(pod);
        Ok(())
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    pub fn pod_mut(&mut self, name: &str) -> Result<&mut Pod> {
        self.pods.iter_mut().find(|pod| pod.name() == name).with_context(|| format!("there is no pod {name}"))
    }

    /// The folder that the control plane watches.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// A file of the watched folder that can be edited, and put back as it was at first.
    pub fn endpoint_slice(&self, file: &str) -> Result<EndpointSliceFile> {
        let originals = self.originals.iter().map(|folder| folder.join(file));
        let original =
            originals.into_iter().find(|path| path.is_file()).with_context(|| format!("no manifest {file}"))?;
        EndpointSliceFile::open(&original, &self.manifests.join(file))
    }

    /// Starts the application of a pod that was killed, again.
    pub fn restart_application(&mut self, name: &str) -> Result<()> {
        let origin = self.programs.origin.clone();
        let pod = self.pod_mut(name)?;
        pod.start_application(&origin)?;
        pod.wait_application()
    }
}

impl Programs {
    fn stage(folder: &Path, sidecars: Sidecars) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let is_all_envoy = matches!(sidecars, Sidecars::Envoy | Sidecars::EnvoyByDelta);
        let stage = |program: PathBuf| -> Result<PathBuf> {
            let staged = folder.join(program.file_name().context("a program has a name")?);
            // A link where that is possible: these are large.
            fs::hard_link(&program, &staged)
                .or_else(|_| fs::copy(&program, &staged).map(|_| ()))
                .with_context(|| format!("cannot copy {}", program.display()))?;
            Ok(staged)
        };
        Ok(Self {
            control: stage(peers::weft("weft-control")?)?,
            init: stage(peers::weft("weft-init")?)?,
            origin: stage(peers::weft("weft-origin")?)?,
            weft_proxy: (!is_all_envoy).then(|| peers::weft("weft-proxy").and_then(stage)).transpose()?,
            envoy: (sidecars != Sidecars::Weft).then(|| peers::envoy().and_then(stage)).transpose()?,
        })
    }

    fn proxy_for(&self, pod: &manifests::Pod, sidecars: Sidecars) -> Result<&Path> {
        let serves = pod.command.first().is_some_and(|program| program == "weft-origin");
        let envoy = match sidecars {
            Sidecars::Weft => false,
            Sidecars::Envoy | Sidecars::EnvoyByDelta => true,
            Sidecars::EnvoyToWeft => !serves,
            Sidecars::WeftToEnvoy => serves,
        };
        let program = if envoy { &self.envoy } else { &self.weft_proxy };
        program.as_deref().context("the plan's sidecar is staged")
    }
}

const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 7, 1);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 7, 0, 0, 0, 0, 0, 1);
const XDS_PORT: u16 = 15010;
const MONITORING_PORT: u16 = 15014;
const CONTROL_USER: User = User { uid: 1338, gid: 1338 };
/// How long a mesh may take until all of it is up, on a slow machine.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a change may take until everybody has it.
pub const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// An address of the node, where nothing answers for Services.
pub fn node_address() -> IpAddr {
    NODE_V4.into()
}
