//! Configuration in files: notices when one is replaced. Files are replaced whole (renamed over, or written and closed), or by
//! the switch of a symbolic link beside or above them, as Kubernetes does with what it mounts.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use tokio::sync::Notify;

/// Watches folders, one for all that is in them. Its thread is the watcher's own, and ends with it.
pub struct FileWatcher {
    watcher: Mutex<RecommendedWatcher>,
    folders: Folders,
}

/// Those who watch something in a folder.
type Folders = Arc<Mutex<HashMap<PathBuf, Vec<Weak<Subscription>>>>>;

/// Changes are heard of as long as this lives.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Subscription>);

#[derive(Debug)]
struct Subscription {
    /// None: everything in the folder counts.
    file_name: Option<std::ffi::OsString>,
    changed: Notify,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot watch '{path}'")]
pub struct WatchError {
    path: PathBuf,
    #[source]
    source: notify::Error,
}

impl FileWatcher {
    pub fn new() -> Result<FileWatcher, notify::Error> {
        let folders = Folders::default();
        let told = folders.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => tell(&lock(&told), &event),
            Err(error) => tracing::warn!(%error, "changes of files may go unnoticed"),
        })?;
        Ok(FileWatcher { watcher: Mutex::new(watcher), folders })
    }

    /// Of a file, or, where a folder is given, of whatever changes in that.
    pub fn watch(&self, path: &Path, directory: Option<&Path>) -> Result<Watch, WatchError> {
        let parent = || path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = directory.unwrap_or_else(parent);
        // Events name files below the path that was given for watching.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let file_name = if directory.is_some() { None } else { path.file_name().map(Into::into) };
        let subscription = Arc::new(Subscription { file_name, changed: Notify::new() });
        let mut folders = lock(&self.folders);
        let watched = folders.entry(folder.clone()).or_default();
        watched.retain(|subscription| subscription.strong_count() > 0);
        if watched.is_empty() {
            let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
            watcher
                .watch(&folder, RecursiveMode::NonRecursive)
                .map_err(|source| WatchError { path: folder.clone(), source })?;
        }
        watched.push(Arc::downgrade(&subscription));
        Ok(Watch(subscription))
    }
}

impl Watch {
    /// Waits for a change since the last one that was heard of. Cancel-safe.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

fn lock(folders: &Folders) -> MutexGuard<'_, HashMap<PathBuf, Vec<Weak<Subscription>>>> {
    // Each change of the map is one insert or push, so that a panic elsewhere leaves it whole.
    folders.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(folders: &HashMap<PathBuf, Vec<Weak<Subscription>>>, event: &Event) {
    if event.need_rescan() {
        for subscription in folders.values().flatten().filter_map(Weak::upgrade) {
            subscription.changed.notify_one();
        }
        return;
    }
    for path in event.paths.iter().filter(|path| is_complete(&event.kind, path)) {
        let Some((folder, name)) = path.parent().zip(path.file_name()) else { continue };
        for subscription in folders.get(folder).into_iter().flatten().filter_map(Weak::upgrade) {
            // `..data` and its like are what Kubernetes switches.
            let concerns = |wanted: &std::ffi::OsString| wanted == name || name.as_encoded_bytes().starts_with(b"..");
            if subscription.file_name.as_ref().is_none_or(concerns) {
                subscription.changed.notify_one();
            }
        }
    }
}

/// Whether something is now there that can be read: a file that was just created is empty still.
fn is_complete(kind: &EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both | RenameMode::Any))
        | EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Create(CreateKind::File | CreateKind::Any | CreateKind::Other) => path.is_symlink(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn noticed(watch: &Watch, change: impl FnOnce()) {
        change();
        tokio::time::timeout(DEADLINE, watch.changed()).await.expect("noticed in time");
    }

    #[tokio::test]
    async fn replaced_files_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str| std::fs::write(at(name), "x").expect("written");
        write("file");
        let watcher = FileWatcher::new().expect("a watcher");
        let watch = watcher.watch(&at("file"), None).expect("watched");
        noticed(&watch, || write("file")).await;
        noticed(&watch, || {
            write("new");
            std::fs::rename(at("new"), at("file")).expect("renamed");
        })
        .await;
        noticed(&watch, || {
            std::fs::create_dir(at("..1")).expect("a folder");
            std::os::unix::fs::symlink("..1", at("..tmp")).expect("a link");
            std::fs::rename(at("..tmp"), at("..data")).expect("renamed");
        })
        .await;
    }

    #[tokio::test]
    async fn a_watched_folder_stands_for_the_file() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let watcher = FileWatcher::new().expect("a watcher");
        let path = elsewhere.path().join("file");
        let watch = watcher.watch(&path, Some(folder.path())).expect("watched");
        let other = watcher.watch(&folder.path().join("other"), None).expect("watched");
        noticed(&watch, || std::fs::write(folder.path().join("any"), "x").expect("written")).await;
        let silence = tokio::time::timeout(Duration::from_millis(50), other.changed()).await;
        assert!(silence.is_err(), "another file's change");
    }
}
