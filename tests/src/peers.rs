//! Finding the programs that the harness runs: ours, and the other people's that ours is compared with.
//!
//! A program that is missing is an error that says how to get it; nothing is skipped for want of a tool.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One of Weft's own binaries: the path in the variable `WEFT_PROXY` (`WEFT_INIT`, ...) if set, or else the one that was built
/// beside the running program.
pub fn weft(name: &str) -> Result<PathBuf> {
    let variable = name.to_uppercase().replace('-', "_");
    if let Some(path) = env::var_os(&variable) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { bail!("{variable}={}: no such file", path.display()) };
    }
    let running = env::current_exe().context("the running program's path is unknown")?;
    // Binaries lie in target/PROFILE, test programs in target/PROFILE/deps.
    running.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file()).with_context(|| {
        format!("{name} is not built: run `cargo build --profile e2e --workspace --bins`, or set {variable}")
    })
}

/// The real Envoy: `WEFT_ENVOY` if set, or else the one that tests/run installs into the virtual environment below the target folder.
pub fn envoy() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WEFT_ENVOY") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { bail!("WEFT_ENVOY={}: no such file", path.display()) };
    }
    python_environment()
        .and_then(|environment| find_envoy_in(&environment))
        .context("Envoy is not installed: tests/run does that, or set WEFT_ENVOY to its binary")
}

/// The Python of the virtual environment below the target folder, which has grpcio: `WEFT_PYTHON` if set.
pub fn python() -> Result<PathBuf> {
    let path = match env::var_os("WEFT_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            python_environment().context("Python's packages are not installed: tests/run does that")?.join("bin/python")
        }
    };
    if path.is_file() { Ok(path) } else { bail!("{}: no such file", path.display()) }
}

/// A tool of the machine, found by PATH and in the system's folders.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed (Debian package {})", debian_package(name)))
}

/// The manifests of the demo.
pub fn demo_manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/manifests")
}

/// The manifests that only the tests use, beside those of the demo.
pub fn test_manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// Services of every reach, beside those of the demo.
pub fn reach_manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests-reach")
}

/// A pod whose inbound traffic is intercepted transparently, beside those of the demo.
pub fn tproxy_manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests-tproxy")
}

/// A manifest that the golden files of the control plane's translation are made from.
pub fn control_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xds-control/tests/fixtures").join(name)
}

/// Where those golden files are.
pub fn control_golden_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xds-control/src/translate/snapshots")
}

fn python_environment() -> Option<PathBuf> {
    let running = env::current_exe().ok()?;
    running.ancestors().map(|folder| folder.join("python")).find(|folder| folder.join("pyvenv.cfg").is_file())
}

fn find_envoy_in(environment: &Path) -> Option<PathBuf> {
    let versions = environment.join("lib").read_dir().ok()?;
    versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file())
}

fn debian_package(tool: &str) -> &str {
    match tool {
        "ip" => "iproute2",
        "nft" => "nftables",
        "h2load" | "nghttp" => "nghttp2-client",
        "setpriv" | "nsenter" | "unshare" => "util-linux",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        assert_eq!(
            tool("h2load-of-another-world").unwrap_err().to_string(),
            "h2load-of-another-world is not installed (Debian package h2load-of-another-world)"
        );
        assert_eq!(debian_package("nghttp"), "nghttp2-client");
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = weft("weft-nothing").unwrap_err().to_string();
        assert!(error.contains("cargo build") && error.contains("WEFT_NOTHING"), "{error}");
    }
}
