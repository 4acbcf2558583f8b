//! What every file of the folder last said. `rescan` looks at all files, `update` at those that something happened to;
//! both read what changed and tell which objects that added, changed or removed.
//!
//! Invariants: an object named by several files is the first file's, in path order; a document whose text did not
//! change keeps its very objects, so that what did not change is the same pointer all the way down.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::document::{self, Content, Document, Syntax};
use super::listing::{self, Found, Listing, Stamp, syntax};
use super::parallel;
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
    /// `Folder::problems` are not what they were.
    pub has_other_problems: bool,
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
    /// Objects that several files name.
    contested: BTreeSet<ObjectKey>,
    /// Symbolic links were among the entries of the last full scan, hidden ones too.
    has_links: bool,
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

/// A file to look at.
struct Due {
    path: PathBuf,
    stamp: Option<Stamp>,
    metadata: io::Result<fs::Metadata>,
}

/// What a look at a file found.
enum Look {
    Unreadable(io::Error),
    Same,
    Parsed { content_hash: u64, parsed: Parsed },
}

/// The documents and what was left out of them, or why none of them counts.
type Parsed = Result<(Documents, Vec<Problem>), Vec<Problem>>;

/// No text hashes to this, or it is parsed once more than needed.
const UNREAD: u64 = 0;

impl Folder {
    /// `root` should be absolute, so that paths compare with those that the kernel reports.
    pub fn new(root: PathBuf) -> Self {
        let (files, claims, contested) = Default::default();
        Self { root, files, claims, contested, has_links: false }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All problems as they stand.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        let of_files = self.files.values().flat_map(|file| &file.problems).cloned();
        of_files.chain(self.contested.iter().flat_map(|key| self.contest(key)))
    }

    /// Brings the state in line with all files. Those `in_progress` are being written by someone and keep their state.
    pub fn rescan(&mut self, in_progress: &HashSet<PathBuf>) -> Result<Changes, FolderError> {
        let mut listing = Listing::default();
        listing.add(&self.root, 0).map_err(|source| FolderError::List { folder: self.root.clone(), source })?;
        let Listing { found, unlisted, has_links } = listing;
        self.has_links = has_links;
        let present = found.iter().map(|(path, _)| path).collect::<HashSet<_>>();
        let is_gone = |path: &PathBuf| {
            !present.contains(path)
                && !in_progress.contains(path)
                && !unlisted.iter().any(|folder| path.starts_with(folder))
        };
        let gone = self.files.keys().filter(|path| is_gone(path)).cloned().collect::<Vec<_>>();
        let found = found.into_iter().filter(|(path, _)| !in_progress.contains(path)).collect();
        Ok(self.renew(gone, found))
    }

    /// The same, where something happened only at `paths`. `None`: more may have changed than what is at them.
    pub fn update(&mut self, paths: &HashSet<PathBuf>, in_progress: &HashSet<PathBuf>) -> Option<Changes> {
        if self.has_links {
            // A file may change by another name.
            return None;
        }
        let (mut gone, mut found) = (Vec::new(), Vec::new());
        for path in paths.difference(in_progress) {
            match listing::at(&self.root, path) {
                Found::File(metadata) => found.push((path.clone(), Ok(metadata))),
                Found::Nothing => {
                    // It may have been a folder.
                    let below = self.files.range(path.clone()..).take_while(|(file, _)| file.starts_with(path));
                    gone.extend(below.map(|(file, _)| file.clone()));
                }
                Found::Irrelevant => {}
                Found::Unclear => return None,
            }
        }
        Some(self.renew(gone, found))
    }

    fn renew(&mut self, gone: Vec<PathBuf>, found: Vec<(PathBuf, io::Result<fs::Metadata>)>) -> Changes {
        let mut changes = Changes::default();
        let mut touched = HashSet::new();
        for path in gone {
            let file = self.files.remove(&path).unwrap_or_default();
            report(&self.relative(&path), &file.problems, &[], &mut changes);
            self.claim(&path, &file.documents, &[], &mut touched);
        }
        let due = found.into_iter().filter_map(|(path, metadata)| self.due(path, metadata)).collect::<Vec<_>>();
        // Many files are shared out over the cores, and so are the documents of a few large ones.
        let of_files = workers().min(due.len().max(1));
        let of_documents = workers() / of_files;
        let looks = parallel::map(of_files, &due, |due| self.look_at(due, of_documents));
        for (Due { path, stamp, .. }, look) in due.into_iter().zip(looks) {
            self.take(&path, stamp, look, &mut touched, &mut changes);
        }
        self.resolve_claims(&touched, &mut changes);
        changes
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    /// A file that may have changed since it was last looked at.
    fn due(&self, path: PathBuf, metadata: io::Result<fs::Metadata>) -> Option<Due> {
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        if let (Some(file), Some(stamp)) = (self.files.get(&path), stamp)
            && file.stamp == Some(stamp)
            && !stamp.may_be_stale
        {
            return None;
        }
        Some(Due { path, stamp, metadata })
    }

    /// Reads a file and parses what is new in it.
    fn look_at(&self, due: &Due, workers: usize) -> Look {
        let known = self.files.get(&due.path);
        let text = match &due.metadata {
            Ok(metadata) => listing::read(&due.path, metadata),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return Look::Unreadable(error),
        };
        let content_hash = xxh3_64(text.as_bytes());
        if known.is_some_and(|file| file.content_hash == content_hash) {
            return Look::Same;
        }
        let known = known.map(|file| file.documents.as_slice()).unwrap_or_default();
        Look::Parsed { content_hash, parsed: parse(&self.relative(&due.path), &text, known, workers) }
    }

    fn take(
        &mut self,
        path: &Path,
        stamp: Option<Stamp>,
        look: Look,
        touched: &mut HashSet<ObjectKey>,
        changes: &mut Changes,
    ) {
        let relative = self.relative(path);
        match look {
            Look::Unreadable(error) => {
                self.keep_last_good(path, stamp, UNREAD, vec![whole_file(relative, &error)], changes);
            }
            Look::Same => {
                if let Some(file) = self.files.get_mut(path) {
                    file.stamp = stamp;
                }
            }
            Look::Parsed { content_hash, parsed: Ok((documents, problems)) } => {
                let before = self.files.remove(path).unwrap_or_default();
                report(&relative, &before.problems, &problems, changes);
                self.claim(path, &before.documents, &documents, touched);
                self.files.insert(path.to_owned(), File { stamp, content_hash, documents, problems });
            }
            Look::Parsed { content_hash, parsed: Err(problems) } => {
                self.keep_last_good(path, stamp, content_hash, problems, changes);
            }
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
        let mut contested = touched.iter().collect::<Vec<_>>();
        contested.sort();
        for key in contested {
            let is_contested = self.claims.get(key).is_some_and(|claims| claims.len() > 1);
            changes.has_other_problems |= is_contested || self.contested.contains(key);
            if is_contested {
                // Said again whenever it is touched.
                changes.new_problems.extend(self.contest(key));
                self.contested.insert(key.clone());
            } else {
                self.contested.remove(key);
            }
        }
    }

    /// A problem for each file whose word does not count.
    fn contest(&self, key: &ObjectKey) -> Vec<Problem> {
        let mut paths = self.claims.get(key).into_iter().flat_map(BTreeMap::keys);
        let Some(winner) = paths.next() else { return Vec::new() };
        let refused = |path: &PathBuf| Problem {
            file: self.relative(path),
            severity: Severity::Ignored,
            document: None,
            path: String::new(),
            reason: format!("{key} is already defined in {}, which counts", self.relative(winner).display()),
        };
        paths.map(refused).collect()
    }
}

type Documents = Vec<(u64, Arc<Content>)>;

/// Parses a file, taking documents whose text is known from before. Any document that is refused refuses the file.
fn parse(relative: &Path, text: &str, known: &[(u64, Arc<Content>)], workers: usize) -> Parsed {
    let known = known.iter().map(|(hash, content)| (*hash, content)).collect::<HashMap<_, _>>();
    let syntax = syntax(relative).unwrap_or(Syntax::Yaml);
    let cut = match syntax {
        Syntax::Yaml => document::split(text),
        Syntax::Json => vec![Document { number: 1, line: 1, text }],
    };
    let parsed = parallel::map(workers, &cut, |document| {
        // A document that moves within its file brings other blank lines along.
        let hash = xxh3_64(document.text.trim().as_bytes());
        let content = match known.get(&hash) {
            Some(content) => Ok(Arc::clone(content)),
            None => document::parse(document, syntax).map(Arc::new),
        };
        (hash, content)
    });
    let mut documents = Vec::with_capacity(cut.len());
    let (mut refused, mut ignored) = (Vec::new(), Vec::new());
    let mut names: HashMap<ObjectKey, usize> = HashMap::new();
    for (document, (hash, content)) in cut.into_iter().zip(parsed) {
        let problem = |severity, path, reason| Problem {
            file: relative.to_owned(),
            severity,
            document: Some((document.number, document.line)),
            path,
            reason,
        };
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                refused.push(problem(Severity::Refused, error.path, error.reason));
                continue;
            }
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

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn whole_file(file: PathBuf, error: &io::Error) -> Problem {
    Problem { file, severity: Severity::Refused, document: None, path: String::new(), reason: error.to_string() }
}

fn report(relative: &Path, before: &[Problem], after: &[Problem], changes: &mut Changes) {
    changes.has_other_problems |= before != after;
    changes.new_problems.extend(after.iter().filter(|problem| !before.contains(problem)).cloned());
    if !before.is_empty() && after.is_empty() {
        changes.mended.push(relative.to_owned());
    }
}

#[cfg(test)]
mod tests;
