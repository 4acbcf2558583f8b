//! A slot: the right to use a family of names on this machine, and the duty to clean up after its last holder.
//!
//! Network namespaces live in the kernel and outlive a process that is killed. Each run therefore takes a numbered slot
//! (`weft-demo`, `weft-demo2`, ...) by a file lock, which the kernel gives back however the holder ends. Whoever holds the
//! lock owns every namespace and folder of that name, so leftovers can be removed without guessing whether somebody
//! still uses them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::netns;

/// The names that start with [`Slot::prefix`] are ours until this is dropped.
#[derive(Debug)]
pub struct Slot {
    prefix: String,
    work: PathBuf,
    lock: File,
}

impl Slot {
    /// Takes the first free slot of `family`, and removes what an earlier holder left behind.
    pub fn acquire(family: &str) -> Result<Self> {
        fs::create_dir_all(LOCKS).with_context(|| format!("cannot create {LOCKS}: are you root?"))?;
        for number in 1..=SLOTS_MAX {
            let prefix = if number == 1 { family.to_owned() } else { format!("{family}{number}") };
            let path = Path::new(LOCKS).join(format!("{prefix}.lock"));
            let mut lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            if lock.try_lock().is_err() {
                continue;
            }
            netns::remove_all(&format!("{prefix}-"))?;
            remove_recorded_folder(&mut lock, family)?;
            let work = create_work_folder(&mut lock, &prefix)?;
            return Ok(Self { prefix, work, lock });
        }
        bail!("{SLOTS_MAX} runs of {family} are active already")
    }

    /// `weft-demo` or `weft-demo2`: everything that is visible outside of this process starts with it and a dash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A folder of this run, readable by every user, removed with the slot.
    pub fn work(&self) -> &Path {
        &self.work
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let removed =
            netns::remove_all(&format!("{}-", self.prefix)).and_then(|()| Ok(fs::remove_dir_all(&self.work)?));
        match removed.and_then(|()| Ok(self.lock.set_len(0)?)) {
            Ok(()) => {}
            // The next holder of the slot tries again.
            Err(error) => eprintln!("{}: not everything could be removed: {error:#}", self.prefix),
        }
    }
}

/// Programs run from here as other users, so the folder is open to them, and it must not be one mounted `noexec` as /run is.
fn create_work_folder(lock: &mut File, prefix: &str) -> Result<PathBuf> {
    let work = tempfile::Builder::new()
        .prefix(&format!("{prefix}-"))
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .context("cannot create a temporary folder")?
        .keep();
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(work.to_str().context("the temporary folder's name is not UTF-8")?.as_bytes())?;
    Ok(work)
}

fn remove_recorded_folder(lock: &mut File, family: &str) -> Result<()> {
    let mut recorded = String::new();
    lock.read_to_string(&mut recorded)?;
    let folder = Path::new(&recorded);
    // Only ever a folder that `create_work_folder` can have made.
    let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(family));
    if ours && folder.is_absolute() && folder.is_dir() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {recorded}"))?;
    }
    Ok(())
}

const LOCKS: &str = "/run/weft-harness";
const SLOTS_MAX: u32 = 32;
