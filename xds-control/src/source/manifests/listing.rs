//! The files on disk: which of them are manifests, and whether one may have changed. Reads texts, understands none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::document::Syntax;

/// Larger files are refused: a manifest of this size is a mistake, and reading it would hold everything else up.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Deeper folders are not entered; it also ends circles of symbolic links.
const DEPTH_MAX: usize = 16;
/// Clocks of file systems tick this coarsely at worst.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// The manifests below a folder, in path order.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) found: Vec<(PathBuf, io::Result<fs::Metadata>)>,
    /// Folders that are there and can't be read: what was known of them stays.
    pub(super) unlisted: Vec<PathBuf>,
    /// Symbolic links, to manifests or not, hidden or not.
    pub(super) has_links: bool,
}

impl Listing {
    /// Hidden entries are skipped: editors keep swap files there, and mounted ConfigMaps the real files that their
    /// visible names link to.
    pub(super) fn add(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in &entries {
            self.has_links |= entry.file_type().is_ok_and(|file_type| file_type.is_symlink());
            if is_hidden(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            // Follows symbolic links.
            let metadata = fs::metadata(&path);
            match &metadata {
                Ok(metadata) if metadata.is_dir() => self.add_below(path, depth + 1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ if syntax(&path).is_some() => self.found.push((path, metadata)),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_below(&mut self, folder: PathBuf, depth: usize) {
        if depth > DEPTH_MAX {
            tracing::warn!(folder = %folder.display(), "manifests nested this deep are not read");
            return;
        }
        match self.add(&folder, depth) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "cannot list a folder of manifests");
                self.unlisted.push(folder);
            }
            _ => {}
        }
    }
}

/// What is at a path that something happened to.
#[derive(Debug)]
pub(super) enum Found {
    /// A manifest.
    File(fs::Metadata),
    /// Something whose name is a manifest's or a folder's may have been here.
    Nothing,
    Irrelevant,
    /// A folder, a link, or what cannot be looked at: the whole has to be looked at to tell what it means.
    Unclear,
}

/// What a listing of `root` would find at one path below it, provided that there are no links on the way.
pub(super) fn at(root: &Path, path: &Path) -> Found {
    let Ok(relative) = path.strip_prefix(root) else { return Found::Unclear };
    if relative.iter().any(is_hidden) {
        // A link to what is hidden, once there is one, is seen at its own path.
        return match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => Found::Unclear,
            _ => Found::Irrelevant,
        };
    }
    let folders = relative.iter().count().saturating_sub(1);
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() || metadata.is_symlink() => Found::Unclear,
        Ok(metadata) if syntax(path).is_some() && folders <= DEPTH_MAX => Found::File(metadata),
        Ok(_) => Found::Irrelevant,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(_) => Found::Unclear,
    }
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Tells whether a file may have changed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Read so soon after its last change that another change could carry the same time.
    pub(super) may_be_stale: bool,
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified,
            may_be_stale: age.is_none_or(|age| age < CLOCK_TICK),
        }
    }
}

/// How a file's name says that it is written down; `None` where it is no manifest.
pub(super) fn syntax(path: &Path) -> Option<Syntax> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Syntax::Yaml),
        "json" => Some(Syntax::Json),
        _ => None,
    }
}

/// The text of a file, without the mark that some editors begin it with.
pub(super) fn read(path: &Path, metadata: &fs::Metadata) -> io::Result<String> {
    if !metadata.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let reason =
            format!("is {} bytes long, more than the {FILE_BYTES_MAX} that a manifest may have", metadata.len());
        return Err(io::Error::other(reason));
    }
    let text = fs::read_to_string(path)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(without_mark) => without_mark.to_owned(),
        None => text,
    })
}
