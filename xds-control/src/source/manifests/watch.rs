//! When to look at which files: at those that a burst of events was about once it is over, and at all of them where events
//! don't tell enough, or long enough passed that one may have been lost.
//!
//! A file that someone has open for writing is left alone until they close it, so that a half-written manifest is
//! never taken for a shorter one; a writer that never closes it is waited for `WRITE_WAIT_MAX`.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// What a look at the files works on. It travels to a blocking thread and back.
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
/// Events get lost (a symbolic link's target elsewhere, a folder filled before it was watched): look at everything this
/// often, or less often where that would take more than a share of the time.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);
const RESCAN_PARTS: u32 = 200;
/// Events beyond these are dropped, and everything is looked at instead.
const EVENTS_MAX: usize = 4096;
/// With more paths than this, looking at everything is as fast.
const PATHS_MAX: usize = 4096;

impl ManifestSource {
    /// Reads the folder. Fails only if the folder itself can't be read; single files are reported.
    pub fn load(folder: &Path, debounce: Debounce) -> Result<Self, FolderError> {
        let root =
            std::path::absolute(folder).map_err(|source| FolderError::List { folder: folder.to_owned(), source })?;
        let mut state = State { folder: Folder::new(root), registry: Registry::default() };
        let health = Arc::new(Health::default());
        let mesh = state.look(&Scope::Everything, &HashSet::new(), &health)?;
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
        let root = self.state.as_ref().map(|state| state.folder.root().to_owned()).unwrap_or_default();
        let (events_in, mut events) = EventSender::new();
        let mut watching = Watching::start(&root, &events_in);
        let mut writers = Writers::default();
        // Something may have changed between loading and watching.
        let (mut scope, mut burst) = (Scope::Everything, Some(Burst::start(Instant::now())));
        let mut rescan_at = Instant::now();
        loop {
            let due = match &burst {
                Some(burst) => burst.ends(self.debounce),
                None => writers.give_up_at().unwrap_or(rescan_at).min(rescan_at),
            };
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    let now = Instant::now();
                    writers.observe(&event, now);
                    scope.add(event);
                    match &mut burst {
                        Some(burst) => burst.event(now),
                        None => burst = Some(Burst::start(now)),
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {
                    burst = None;
                    let started = Instant::now();
                    let is_another = watching.renew(&root, &events_in);
                    if is_another || events_in.take_lost() || started >= rescan_at {
                        scope = Scope::Everything;
                    }
                    let in_progress = writers.in_progress(started);
                    let now = std::mem::take(&mut scope);
                    scope = now.later(&in_progress);
                    let is_everything = matches!(now, Scope::Everything);
                    self.look(now, in_progress).await;
                    if is_everything {
                        rescan_at = Instant::now() + RESCAN_INTERVAL.max(started.elapsed() * RESCAN_PARTS);
                    }
                }
            }
        }
    }

    async fn look(&mut self, scope: Scope, in_progress: HashSet<PathBuf>) {
        let Some(mut state) = self.state.take() else { return };
        let health = self.health.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let result = state.look(&scope, &in_progress, &health);
            (state, result)
        });
        let Ok((state, result)) = looked.await else {
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
    fn look(
        &mut self,
        scope: &Scope,
        in_progress: &HashSet<PathBuf>,
        health: &Health,
    ) -> Result<Option<Arc<Mesh>>, FolderError> {
        let updated = match scope {
            Scope::Paths(paths) => self.folder.update(paths, in_progress),
            Scope::Everything => None,
        };
        let changes = match updated {
            Some(changes) => changes,
            None => self.folder.rescan(in_progress)?,
        };
        log(&changes);
        if changes.has_other_problems {
            health.set(self.folder.problems().collect());
        }
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

/// Which files to look at.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    Paths(HashSet<PathBuf>),
    Everything,
}

impl Default for Scope {
    fn default() -> Self {
        Self::Paths(HashSet::new())
    }
}

impl Scope {
    fn add(&mut self, event: notify::Event) {
        let Self::Paths(paths) = self else { return };
        let is_enough = !event.need_rescan() && !event.paths.is_empty();
        paths.extend(event.paths);
        if !is_enough || paths.len() > PATHS_MAX {
            *self = Self::Everything;
        }
    }

    /// What is left to look at when the files in progress are done.
    fn later(&self, in_progress: &HashSet<PathBuf>) -> Self {
        Self::Paths(match self {
            Self::Paths(paths) => paths.intersection(in_progress).cloned().collect(),
            Self::Everything => in_progress.clone(),
        })
    }
}

/// The watcher's way to the source; it never waits.
#[derive(Clone)]
struct EventSender {
    events: mpsc::Sender<notify::Event>,
    is_any_lost: Arc<AtomicBool>,
}

impl EventSender {
    fn new() -> (Self, mpsc::Receiver<notify::Event>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events, is_any_lost: Arc::default() }, receiver)
    }

    fn send(&self, event: notify::Event) {
        if self.events.try_send(event).is_err() {
            self.is_any_lost.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there were events that found no room since the last time.
    fn take_lost(&self) -> bool {
        self.is_any_lost.swap(false, Ordering::Relaxed)
    }
}

/// The kernel's watch on the folder, renewed when the folder becomes another one (a volume mounted over it).
struct Watching {
    watcher: Option<RecommendedWatcher>,
    identity: Option<(u64, u64)>,
}

impl Watching {
    fn start(root: &Path, events: &EventSender) -> Self {
        let events = events.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Reading is an event too, and not news.
            Ok(event) if is_change(&event) => events.send(event),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "watching the manifests"),
        })
        .and_then(|mut watcher| watcher.watch(root, RecursiveMode::Recursive).map(|()| watcher));
        if let Err(error) = &watcher {
            tracing::warn!(%error, interval = ?RESCAN_INTERVAL, "no file events; looking at the manifests at intervals");
        }
        Self { watcher: watcher.ok(), identity: identity(root) }
    }

    /// Whether it watches something else now.
    fn renew(&mut self, root: &Path, events: &EventSender) -> bool {
        let identity = identity(root);
        let is_another = identity.is_some() && (self.watcher.is_none() || self.identity != identity);
        if is_another {
            *self = Self::start(root, events);
        }
        is_another
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
    fn files_in_progress_are_looked_at_later() {
        let mut scope = Scope::default();
        for path in ["/a.yaml", "/b.yaml"] {
            scope.add(event(WRITTEN, path));
        }
        let in_progress = HashSet::from([PathBuf::from("/b.yaml"), PathBuf::from("/c.yaml")]);
        assert_eq!(scope.later(&in_progress), Scope::Paths([PathBuf::from("/b.yaml")].into()));
        assert_eq!(Scope::Everything.later(&in_progress), Scope::Paths(in_progress));
    }

    #[test]
    fn events_that_do_not_tell_enough_ask_for_everything() {
        let overflow = notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        let many = (0..=PATHS_MAX).fold(notify::Event::new(CLOSED), |event, n| event.add_path(n.to_string().into()));
        for event in [overflow, many, notify::Event::new(CLOSED)] {
            let mut scope = Scope::default();
            scope.add(event);
            assert_eq!(scope, Scope::Everything);
        }
    }

    #[test]
    fn an_event_without_room_is_not_forgotten() {
        let (sender, mut events) = EventSender::new();
        for _ in 0..EVENTS_MAX {
            sender.send(event(CLOSED, "/a.yaml"));
        }
        assert!(!sender.take_lost());
        sender.send(event(CLOSED, "/b.yaml"));
        assert!(sender.take_lost());
        assert!(!sender.take_lost(), "it is told once");
        assert!(events.try_recv().is_ok());
    }

    #[test]
    fn reading_is_not_news() {
        let read = event(EventKind::Access(AccessKind::Open(AccessMode::Read)), "/a.yaml");
        assert!(!is_change(&read));
        assert!(is_change(&event(CLOSED, "/a.yaml")));
    }
}
