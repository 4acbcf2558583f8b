//! What every file of the folder last said. A rescan reads the files that changed and tells which objects that added,
//! changed or removed.
//!
//! Invariants: an object named by several files is the first file's, in path order; a document whose text did not
//! change keeps its very objects, so that what did not change is the same pointer all the way down.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use super::document::{self, Content, Document, Syntax};
use super::problem::{Problem, Severity};
use crate::model::registry::{Object, ObjectKey};

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot list the manifests in {folder}")]
    List {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a rescan changed.
#[derive(Debug, Default)]
pub struct Changes {
    pub inserted: Vec<Object>,
    pub removed: Vec<ObjectKey>,
    /// Problems that were not there before.
    pub new_problems: Vec<Problem>,
    /// Files that had problems and have none any more.
    pub mended: Vec<PathBuf>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.removed.is_empty()
    }
}

#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Who names an object, in path order; the first one counts.
    claims: HashMap<ObjectKey, BTreeMap<PathBuf, Option<Object>>>,
}

/// One file as it was last read.
#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// Of the text that was last looked at, good or not; `UNREAD` where it could not be read.
    content_hash: u64,
    /// The last good state: by hash of their text, so that an edit parses only the documents that it touched.
    documents: Vec<(u64, Arc<Content>)>,
    problems: Vec<Problem>,
}

/// Tells whether a file may have changed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Read so soon after its last change that another change could carry the same time.
    may_be_stale: bool,
}

/// No text hashes to this, or it is parsed once more than needed.
const UNREAD: u64 = 0;
/// Larger files are refused: a manifest of this size is a mistake, and reading it would hold everything else up.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Deeper folders are not entered; it also ends circles of symbolic links.
const DEPTH_MAX: usize = 16;
/// Clocks of file systems tick this coarsely at worst.
const CLOCK_TICK: Duration = Duration::from_secs(2);

impl Folder {
    /// `root` should be absolute, so that paths compare with those that the kernel reports.
    pub fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), claims: HashMap::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All problems as they stand.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.files.values().flat_map(|file| &file.problems)
    }

    /// Brings the state in line with the files. Those `in_progress` are being written by someone and keep their state.
    pub fn rescan(&mut self, in_progress: &HashSet<PathBuf>) -> Result<Changes, FolderError> {
        let mut listing = Listing::default();
        listing.add(&self.root, 0).map_err(|source| FolderError::List { folder: self.root.clone(), source })?;
        let Listing { found, unlisted } = listing;
        let mut changes = Changes::default();
        let mut touched = HashSet::new();

        let present = found.iter().map(|(path, _)| path).collect::<HashSet<_>>();
        let is_gone = |path: &PathBuf| {
            !present.contains(path)
                && !in_progress.contains(path)
                && !unlisted.iter().any(|folder| path.starts_with(folder))
        };
        let gone = self.files.keys().filter(|path| is_gone(path)).cloned().collect::<Vec<_>>();
        for path in gone {
            let file = self.files.remove(&path).unwrap_or_default();
            if !file.problems.is_empty() {
                changes.mended.push(self.relative(&path));
            }
            self.claim(&path, &file.documents, &[], &mut touched);
        }
        for (path, metadata) in found {
            if !in_progress.contains(&path) {
                self.refresh(&path, metadata, &mut touched, &mut changes);
            }
        }
        self.resolve_claims(&touched, &mut changes);
        Ok(changes)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    /// Reads a file again if it may have changed.
    fn refresh(
        &mut self,
        path: &Path,
        metadata: io::Result<fs::Metadata>,
        touched: &mut HashSet<ObjectKey>,
        changes: &mut Changes,
    ) {
        let file = self.files.get(path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        if let (Some(file), Some(stamp)) = (file, stamp)
            && file.stamp == Some(stamp)
            && !stamp.may_be_stale
        {
            return;
        }
        let relative = self.relative(path);
        let text = match metadata.and_then(|metadata| read(path, &metadata)) {
            Ok(text) => text,
            Err(error) => return self.keep_last_good(path, stamp, UNREAD, vec![whole_file(relative, &error)], changes),
        };
        let content_hash = xxh3_64(text.as_bytes());
        if let Some(file) = self.files.get_mut(path)
            && file.content_hash == content_hash
        {
            file.stamp = stamp;
            return;
        }
        let known = self.files.get(path).map(|file| file.documents.as_slice()).unwrap_or_default();
        match parse(&relative, &text, known) {
            Ok((documents, problems)) => {
                let before = self.files.remove(path).unwrap_or_default();
                report(&relative, &before.problems, &problems, changes);
                self.claim(path, &before.documents, &documents, touched);
                self.files.insert(path.to_owned(), File { stamp, content_hash, documents, problems });
            }
            Err(problems) => self.keep_last_good(path, stamp, content_hash, problems, changes),
        }
    }

    fn keep_last_good(
        &mut self,
        path: &Path,
        stamp: Option<Stamp>,
        content_hash: u64,
        problems: Vec<Problem>,
        changes: &mut Changes,
    ) {
        let relative = self.relative(path);
        let file = self.files.entry(path.to_owned()).or_default();
        report(&relative, &file.problems, &problems, changes);
        file.stamp = stamp;
        file.content_hash = content_hash;
        file.problems = problems;
    }

    /// Replaces what a file claims, and notes each key whose object may differ now.
    fn claim(
        &mut self,
        path: &Path,
        before: &[(u64, Arc<Content>)],
        after: &[(u64, Arc<Content>)],
        touched: &mut HashSet<ObjectKey>,
    ) {
        // Documents on both sides are the very same, and so is what they claim.
        let pointers = |documents: &[(u64, Arc<Content>)]| {
            documents.iter().map(|(_, content)| Arc::as_ptr(content)).collect::<HashSet<_>>()
        };
        let (old, new) = (pointers(before), pointers(after));
        for (_, content) in before.iter().filter(|(_, content)| !new.contains(&Arc::as_ptr(content))) {
            for (key, _) in &content.objects {
                if let Some(claims) = self.claims.get_mut(key) {
                    claims.remove(path);
                }
                touched.insert(key.clone());
            }
        }
        for (_, content) in after.iter().filter(|(_, content)| !old.contains(&Arc::as_ptr(content))) {
            for (key, object) in &content.objects {
                touched.insert(key.clone());
                self.claims.entry(key.clone()).or_default().insert(path.to_owned(), object.clone());
            }
        }
    }

    fn resolve_claims(&mut self, touched: &HashSet<ObjectKey>, changes: &mut Changes) {
        for key in touched {
            let winner = self.claims.get(key).and_then(|claims| claims.values().next());
            match winner {
                Some(Some(object)) => changes.inserted.push(object.clone()),
                Some(None) => changes.removed.push(key.clone()),
                None => {
                    self.claims.remove(key);
                    changes.removed.push(key.clone());
                }
            }
        }
        // What several files name is said again whenever it is touched: no state to keep in step.
        let mut contested = touched.iter().filter_map(|key| Some((key, self.claims.get(key)?))).collect::<Vec<_>>();
        contested.retain(|(_, claims)| claims.len() > 1);
        contested.sort_by_key(|(key, _)| *key);
        for (key, claims) in contested {
            let mut paths = claims.keys();
            let Some(winner) = paths.next() else { continue };
            changes.new_problems.extend(paths.map(|path| Problem {
                file: self.relative(path),
                severity: Severity::Ignored,
                document: None,
                path: String::new(),
                reason: format!("{key} is already defined in {}, which counts", self.relative(winner).display()),
            }));
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
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

/// The manifests below a folder, in path order.
#[derive(Default)]
struct Listing {
    found: Vec<(PathBuf, io::Result<fs::Metadata>)>,
    /// Folders that are there and can't be read: what was known of them stays.
    unlisted: Vec<PathBuf>,
}

impl Listing {
    /// Hidden entries are skipped: editors keep swap files there, and mounted ConfigMaps the real files that their
    /// visible names link to.
    fn add(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
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

fn syntax(path: &Path) -> Option<Syntax> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Syntax::Yaml),
        "json" => Some(Syntax::Json),
        _ => None,
    }
}

fn read(path: &Path, metadata: &fs::Metadata) -> io::Result<String> {
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

type Documents = Vec<(u64, Arc<Content>)>;

/// Parses a file, taking documents whose text is known from before. Any document that is refused refuses the file.
fn parse(
    relative: &Path,
    text: &str,
    known: &[(u64, Arc<Content>)],
) -> Result<(Documents, Vec<Problem>), Vec<Problem>> {
    let known = known.iter().map(|(hash, content)| (*hash, content)).collect::<HashMap<_, _>>();
    let syntax = syntax(relative).unwrap_or(Syntax::Yaml);
    let cut = match syntax {
        Syntax::Yaml => document::split(text),
        Syntax::Json => vec![Document { number: 1, line: 1, text }],
    };
    let mut documents = Vec::with_capacity(cut.len());
    let (mut refused, mut ignored) = (Vec::new(), Vec::new());
    let mut names: HashMap<ObjectKey, usize> = HashMap::new();
    for document in cut {
        let problem = |severity, path, reason| Problem {
            file: relative.to_owned(),
            severity,
            document: Some((document.number, document.line)),
            path,
            reason,
        };
        // A document that moves within its file brings other blank lines along.
        let hash = xxh3_64(document.text.trim().as_bytes());
        let content = match known.get(&hash) {
            Some(content) => Arc::clone(content),
            None => match document::parse(&document, syntax) {
                Ok(content) => Arc::new(content),
                Err(error) => {
                    refused.push(problem(Severity::Refused, error.path, error.reason));
                    continue;
                }
            },
        };
        for found in &content.ignored {
            ignored.push(problem(Severity::Ignored, found.path.clone(), found.reason.clone()));
        }
        for (key, _) in &content.objects {
            if let Some(earlier) = names.insert(key.clone(), document.number) {
                let reason = format!("{key} is already defined in document {earlier}");
                refused.push(problem(Severity::Refused, String::new(), reason));
            }
        }
        documents.push((hash, content));
    }
    if refused.is_empty() { Ok((documents, ignored)) } else { Err(refused.into_iter().chain(ignored).collect()) }
}

fn whole_file(file: PathBuf, error: &io::Error) -> Problem {
    Problem { file, severity: Severity::Refused, document: None, path: String::new(), reason: error.to_string() }
}

fn report(relative: &Path, before: &[Problem], after: &[Problem], changes: &mut Changes) {
    changes.new_problems.extend(after.iter().filter(|problem| !before.contains(problem)).cloned());
    if !before.is_empty() && after.is_empty() {
        changes.mended.push(relative.to_owned());
    }
}

#[cfg(test)]
mod tests;
