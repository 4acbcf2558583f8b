//! When to rescan the folder: a burst of file events has ended, or long enough passed that an event may have been lost.
//!
//! A file that someone has open for writing is left alone until they close it, so that a half-written manifest is
//! never taken for a shorter one; a writer that never closes it is waited for `WRITE_WAIT_MAX`.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use super::folder::{Changes, Folder, FolderError};
use super::problem::{Problem, Severity};
use crate::model::mesh::Mesh;
use crate::model::registry::Registry;
use crate::source::debounce::{Burst, Debounce};

/// A folder of manifests, loaded; `run` keeps it up to date.
pub struct ManifestSource {
    state: Option<State>,
    debounce: Debounce,
    mesh: watch::Sender<Arc<Mesh>>,
    health: Arc<Health>,
}

/// What a rescan works on. It travels to a blocking thread and back.
struct State {
    folder: Folder,
    registry: Registry,
}

/// What is wrong with the manifests at the moment, for people who ask.
#[derive(Debug, Default)]
pub struct Health {
    problems: Mutex<Vec<Problem>>,
}

impl Health {
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problems: Vec<Problem>) {
        metrics::gauge!("weft_manifest_problems").set(problems.len() as f64);
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}

/// How long a writer may keep a file open before it is read all the same.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Events get lost (a full queue, a symbolic link's target elsewhere): look this often without any.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Events beyond these are dropped: one is enough to cause a rescan.
const EVENTS_MAX: usize = 1024;

impl ManifestSource {
    /// Reads the folder. Fails only if the folder itself can't be read; single files are reported.
    pub fn load(folder: &Path, debounce: Debounce) -> Result<Self, FolderError> {
        let root =
            std::path::absolute(folder).map_err(|source| FolderError::List { folder: folder.to_owned(), source })?;
        let mut state = State { folder: Folder::new(root), registry: Registry::default() };
        let health = Arc::new(Health::default());
        let mesh = state.rescan(&HashSet::new(), &health)?;
        let (mesh, _) = watch::channel(mesh.unwrap_or_default());
        Ok(Self { state: Some(state), debounce, mesh, health })
    }

    pub fn mesh(&self) -> watch::Receiver<Arc<Mesh>> {
        self.mesh.subscribe()
    }

    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Follows the folder for as long as it is polled. Not cancel-safe: a source dropped half-way is spent.
    pub async fn run(mut self) {
        let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
        let root = self.state.as_ref().map(|state| state.folder.root().to_owned()).unwrap_or_default();
        let mut watching = Watching::start(&root, &events_in);
        let mut writers = Writers::default();
        // Something may have changed between loading and watching.
        let mut burst = Some(Burst::start(Instant::now()));
        loop {
            let now = Instant::now();
            let due = match &burst {
                Some(burst) => burst.ends(self.debounce),
                None => writers.give_up_at().unwrap_or(now + RESCAN_INTERVAL).min(now + RESCAN_INTERVAL),
            };
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    let now = Instant::now();
                    writers.observe(&event, now);
                    match &mut burst {
                        Some(burst) => burst.event(now),
                        None => burst = Some(Burst::start(now)),
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {
                    burst = None;
                    watching.renew(&root, &events_in);
                    self.rescan(writers.in_progress(Instant::now())).await;
                }
            }
        }
    }

    async fn rescan(&mut self, in_progress: HashSet<PathBuf>) {
        let Some(mut state) = self.state.take() else { return };
        let health = self.health.clone();
        let rescanned = tokio::task::spawn_blocking(move || {
            let result = state.rescan(&in_progress, &health);
            (state, result)
        });
        let Ok((state, result)) = rescanned.await else {
            tracing::error!("reading the manifests stopped; the last good state stays");
            return;
        };
        self.state = Some(state);
        match result {
            Ok(Some(mesh)) => _ = self.mesh.send_replace(mesh),
            Ok(None) => {}
            Err(error) => {
                let source = error.source().map(ToString::to_string);
                tracing::error!(%error, source, "the last good state stays");
            }
        }
    }
}

impl State {
    /// The mesh, if it changed.
    fn rescan(&mut self, in_progress: &HashSet<PathBuf>, health: &Health) -> Result<Option<Arc<Mesh>>, FolderError> {
        let changes = self.folder.rescan(in_progress)?;
        log(&changes);
        health.set(self.folder.problems().cloned().collect());
        if changes.is_empty() {
            return Ok(None);
        }
        tracing::debug!(inserted = changes.inserted.len(), removed = changes.removed.len(), "manifests changed");
        for key in &changes.removed {
            self.registry.remove(key);
        }
        for object in changes.inserted {
            self.registry.insert(object);
        }
        Ok(Some(self.registry.publish()))
    }
}

fn log(changes: &Changes) {
    for problem in &changes.new_problems {
        match problem.severity {
            Severity::Refused => tracing::error!("{problem} (the file's last good state stays)"),
            Severity::Ignored => tracing::warn!("{problem}"),
        }
    }
    for file in &changes.mended {
        tracing::info!(file = %file.display(), "the problems of this file are gone");
    }
}

/// The kernel's watch on the folder, renewed when the folder becomes another one (a volume mounted over it).
struct Watching {
    watcher: Option<RecommendedWatcher>,
    identity: Option<(u64, u64)>,
}

impl Watching {
    fn start(root: &Path, events: &mpsc::Sender<notify::Event>) -> Self {
        let events = events.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Reading is an event too, and not news.
            Ok(event) if is_change(&event) => _ = events.try_send(event),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "watching the manifests"),
        })
        .and_then(|mut watcher| watcher.watch(root, RecursiveMode::Recursive).map(|()| watcher));
        if let Err(error) = &watcher {
            tracing::warn!(%error, interval = ?RESCAN_INTERVAL, "no file events; looking at the manifests at intervals");
        }
        Self { watcher: watcher.ok(), identity: identity(root) }
    }

    fn renew(&mut self, root: &Path, events: &mpsc::Sender<notify::Event>) {
        let identity = identity(root);
        if identity.is_some() && (self.watcher.is_none() || self.identity != identity) {
            *self = Self::start(root, events);
        }
    }
}

fn identity(root: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(root).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn is_change(event: &notify::Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

/// Files that someone is writing. Pure: the clock is passed in.
#[derive(Debug, Default)]
struct Writers {
    since: HashMap<PathBuf, Instant>,
}

impl Writers {
    fn observe(&mut self, event: &notify::Event, now: Instant) {
        match event.kind {
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                for path in &event.paths {
                    self.since.entry(path.clone()).or_insert(now);
                }
            }
            // A rename puts a whole file in place; what is gone has no writer.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => {
                for path in &event.paths {
                    self.since.remove(path);
                }
            }
            _ => {}
        }
    }

    /// The files to leave alone for now.
    fn in_progress(&mut self, now: Instant) -> HashSet<PathBuf> {
        self.since.retain(|_, since| now.duration_since(*since) < WRITE_WAIT_MAX);
        self.since.keys().cloned().collect()
    }

    /// When the longest-waiting writer has been waited for long enough.
    fn give_up_at(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + WRITE_WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, RenameMode};

    use super::*;

    fn event(kind: EventKind, path: &str) -> notify::Event {
        notify::Event::new(kind).add_path(PathBuf::from(path))
    }

    const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    #[test]
    fn a_file_is_in_progress_from_the_first_write_until_it_is_closed() {
        let (mut writers, now) = (Writers::default(), Instant::now());
        writers.observe(&event(WRITTEN, "/a.yaml"), now);
        assert_eq!(writers.in_progress(now), HashSet::from([PathBuf::from("/a.yaml")]));
        writers.observe(&event(CLOSED, "/a.yaml"), now);
        assert!(writers.in_progress(now).is_empty());
    }

    #[test]
    fn a_writer_that_never_closes_is_not_waited_for_forever() {
        let (mut writers, now) = (Writers::default(), Instant::now());
        writers.observe(&event(WRITTEN, "/a.yaml"), now);
        writers.observe(&event(WRITTEN, "/a.yaml"), now + WRITE_WAIT_MAX / 2);
        assert_eq!(writers.give_up_at(), Some(now + WRITE_WAIT_MAX));
        assert!(writers.in_progress(now + WRITE_WAIT_MAX).is_empty());
        assert_eq!(writers.give_up_at(), None);
    }

    #[test]
    fn a_rename_puts_a_whole_file_in_place() {
        let (mut writers, now) = (Writers::default(), Instant::now());
        writers.observe(&event(WRITTEN, "/a.yaml"), now);
        writers.observe(&event(EventKind::Modify(ModifyKind::Name(RenameMode::To)), "/a.yaml"), now);
        assert!(writers.in_progress(now).is_empty());
    }

    #[test]
    fn reading_is_not_news() {
        let read = event(EventKind::Access(AccessKind::Open(AccessMode::Read)), "/a.yaml");
        assert!(!is_change(&read));
        assert!(is_change(&event(CLOSED, "/a.yaml")));
    }
}
