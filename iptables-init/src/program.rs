//! The programs that change the firewall, and running them without a shell.
//!
//! Used by [`crate::apply`]. What a program is given is made by [`crate::nft`] and [`crate::iptables`] alone.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use thiserror::Error;

use crate::rule::Family;
use crate::settings::IptablesKind;

#[derive(Debug, Error)]
pub enum ProgramError {
    #[error("the program {program} can't be run")]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("CAP_NET_ADMIN is missing: {program} may not change this network namespace ({message})")]
    Permission { program: PathBuf, message: String },
    #[error("{program}: {message}")]
    Failed { program: PathBuf, message: String },
}

/// Runs a program on an input and gives back what it printed.
pub fn run(program: &Program, input: &str) -> Result<String, ProgramError> {
    let path = &program.path;
    let error = |source| ProgramError::Run { program: path.clone(), source };
    let mut command = Command::new(path);
    command.args(&program.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(lock_file) = &program.lock_file {
        command.env("XTABLES_LOCKFILE", lock_file);
    }
    let mut child = command.spawn().map_err(error)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // Beside reading its output, since a program may answer before it has read everything. One that fails early
        // closes its input; its message tells more than the broken pipe.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.map_err(error)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.is_empty() {
        message = output.status.to_string();
    }
    Err(failure(path.clone(), message))
}

/// Does something for both families side by side: starting programs is what takes the time.
pub fn for_both_families<T: Send>(run: impl Fn(Family) -> T + Sync) -> [T; 2] {
    thread::scope(|scope| {
        let v6 = scope.spawn(|| run(Family::V6));
        [run(Family::V4), v6.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))]
    })
}

/// Tells a missing privilege from other failures by the message: neither program has an exit status for it.
fn failure(program: PathBuf, message: String) -> ProgramError {
    let is_permission = ["Operation not permitted", "Permission denied", "you must be root"];
    if is_permission.iter().any(|text| message.contains(text)) {
        ProgramError::Permission { program, message }
    } else {
        ProgramError::Failed { program, message }
    }
}

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    /// What iptables locks instead of a file for the whole machine.
    pub lock_file: Option<PathBuf>,
}

impl Program {
    pub fn new(path: &Path, arguments: &[&str]) -> Self {
        Self { path: path.to_owned(), arguments: arguments.iter().map(OsString::from).collect(), lock_file: None }
    }
}

/// The iptables programs of one kind.
#[derive(Debug, Clone)]
pub struct Iptables {
    /// `iptables`, `iptables-legacy` or `iptables-nft`.
    pub name: &'static str,
    v4: [PathBuf; 2],
    /// An image for IPv4 alone has none for IPv6.
    v6: Option<[PathBuf; 2]>,
    lock_file: Option<PathBuf>,
}

impl Iptables {
    /// Finds the programs of a kind. Which kind is in use shows in the legacy tables of this network namespace.
    pub fn find(kind: IptablesKind, lock_file: Option<&Path>) -> Option<Self> {
        let names: &[[&'static str; 2]] = match kind {
            IptablesKind::Legacy => &[LEGACY],
            IptablesKind::Nft => &[NFT],
            IptablesKind::InUse if has_legacy_tables() => &[LEGACY, NFT, PLAIN],
            IptablesKind::InUse => &[NFT, PLAIN, LEGACY],
        };
        names.iter().find_map(|[v4, v6]| {
            let lock_file = lock_file.map(Path::to_owned);
            Some(Self { name: v4, v4: save_and_restore(v4)?, v6: save_and_restore(v6), lock_file })
        })
    }

    pub fn save(&self, family: Family) -> Option<Program> {
        let [save, _] = self.programs(family)?;
        Some(Program { path: save.clone(), arguments: vec![], lock_file: self.lock_file.clone() })
    }

    pub fn restore(&self, family: Family) -> Option<Program> {
        let [_, restore] = self.programs(family)?;
        let arguments = ["--noflush", "--wait=10"].map(OsString::from).to_vec();
        Some(Program { path: restore.clone(), arguments, lock_file: self.lock_file.clone() })
    }

    /// What people call the programs of a family.
    pub fn name_for(&self, family: Family) -> String {
        match family {
            Family::V4 => self.name.to_owned(),
            Family::V6 => self.name.replacen("ip", "ip6", 1),
        }
    }

    fn programs(&self, family: Family) -> Option<&[PathBuf; 2]> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// The path of a program by its name.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where the firewall's programs are, even if the path is an ordinary user's.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// Whether this network namespace has tables of iptables' older kind, which nft doesn't show.
pub fn has_legacy_tables() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|name| {
        // The file is there only when the kernel part is.
        std::fs::read_to_string(Path::new("/proc/thread-self/net").join(name)).is_ok_and(|tables| !tables.is_empty())
    })
}

fn save_and_restore(name: &str) -> Option<[PathBuf; 2]> {
    Some([find(&format!("{name}-save"))?, find(&format!("{name}-restore"))?])
}

const LEGACY: [&str; 2] = ["iptables-legacy", "ip6tables-legacy"];
const NFT: [&str; 2] = ["iptables-nft", "ip6tables-nft"];
const PLAIN: [&str; 2] = ["iptables", "ip6tables"];
