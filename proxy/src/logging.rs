//! The process's own log: levels by component, lines by a spdlog pattern, to standard error or a file. Set up once in
//! `main`; levels can be changed while it runs (`/logging`), the file opened anew (SIGUSR1).
//!
//! Components are Envoy's names for the parts of a proxy, so that `--component-log-level upstream:debug` and scripts around
//! `/logging` mean here what they mean there.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

mod component;
mod line;
mod pattern;

pub use component::{Component, Level};
pub use pattern::Pattern;

/// Envoy's.
pub const DEFAULT_PATTERN: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// What the command line says of the log.
#[derive(Clone, Debug)]
pub struct Settings {
    pub level: Level,
    pub components: Vec<(Component, Level)>,
    /// As it was written.
    pub component_text: String,
    pub pattern: Pattern,
    /// As it was written.
    pub pattern_text: String,
    /// Line ends and control characters in messages are written as escape sequences.
    pub escaped: bool,
    /// None: standard error.
    pub path: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error("Failed to open log-file '{path}'")]
pub struct LogFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The running log, to change it.
#[derive(Clone)]
pub struct Log {
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
    file: Option<Arc<LogFile>>,
}

/// By component; one that is not there has the default.
#[derive(Clone, Debug)]
struct Levels {
    default: Level,
    components: BTreeMap<Component, Level>,
}

struct LogFile {
    path: PathBuf,
    file: ArcSwap<File>,
}

impl Log {
    /// Logs from now on. To be called once.
    pub fn start(settings: &Settings) -> Result<Log, LogFileError> {
        let file = settings.path.as_deref().map(LogFile::open).transpose()?.map(Arc::new);
        let levels = Levels { default: settings.level, components: settings.components.iter().copied().collect() };
        let (filter, handle) = reload::Layer::new(levels.targets());
        let format = line::Format { pattern: settings.pattern.clone(), escaped: settings.escaped };
        let lines = fmt::layer().event_format(format).with_writer(Output(file.clone()));
        // Err: a log runs already, as in a test.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Ok(Log { levels: Arc::new(Mutex::new(levels)), filter: handle, file })
    }

    /// Opens the file again, as after it was rotated.
    pub fn reopen(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.reopen()
        {
            tracing::error!(%error, "goes on in the old file");
        }
    }

    pub fn set_all(&self, level: Level) {
        self.change(|levels| *levels = Levels { default: level, components: BTreeMap::new() });
    }

    pub fn set(&self, changes: &[(Component, Level)]) {
        self.change(|levels| levels.components.extend(changes.iter().copied()));
    }

    /// Every component with its level.
    pub fn levels(&self) -> Vec<(Component, Level)> {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let level = |component| levels.components.get(&component).copied().unwrap_or(levels.default);
        Component::all().map(|component| (component, level(component))).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Levels)) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut levels);
        let _ = self.filter.reload(levels.targets()); // Err: the log is gone, and nobody reads it
    }
}

impl Levels {
    fn targets(&self) -> Targets {
        let others = LevelFilter::from(self.default).min(LIBRARIES_AT_MOST);
        let own = Targets::new().with_default(others).with_target("weft_proxy", self.default);
        let parts = self.components.iter().flat_map(|(component, level)| {
            component.targets().iter().map(move |target| (*target, LevelFilter::from(*level)))
        });
        own.with_targets(parts)
    }
}

/// What libraries say below this is about themselves.
const LIBRARIES_AT_MOST: LevelFilter = LevelFilter::INFO;

impl LogFile {
    fn open(path: &Path) -> Result<LogFile, LogFileError> {
        Ok(LogFile { path: path.to_owned(), file: ArcSwap::from_pointee(append_to(path)?) })
    }

    fn reopen(&self) -> Result<(), LogFileError> {
        self.file.store(Arc::new(append_to(&self.path)?));
        Ok(())
    }
}

fn append_to(path: &Path) -> Result<File, LogFileError> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map_err(|source| LogFileError { path: path.to_owned(), source })
}

/// Lines come whole, each in one write.
#[derive(Clone)]
struct Output(Option<Arc<LogFile>>);

impl<'a> MakeWriter<'a> for Output {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        match &self.0 {
            None => Writer::Standard(io::stderr()),
            Some(file) => Writer::File(file.file.load_full()),
        }
    }
}

enum Writer {
    Standard(io::Stderr),
    File(Arc<File>),
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Standard(output) => output.write(bytes),
            Writer::File(file) => (&**file).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is buffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_components_level_is_its_own() {
        let upstream = Component::from_name("upstream").expect("a component");
        let levels = Levels { default: Level::Warning, components: BTreeMap::from([(upstream, Level::Trace)]) };
        let targets = levels.targets();
        assert!(targets.would_enable("weft_proxy::upstream::cluster", &tracing::Level::TRACE));
        assert!(targets.would_enable("weft_proxy::http", &tracing::Level::WARN));
        assert!(!targets.would_enable("weft_proxy::http", &tracing::Level::INFO));
        assert!(!targets.would_enable("h2::codec", &tracing::Level::INFO));
    }

    #[test]
    fn a_rotated_file_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = LogFile::open(&path).expect("a file");
        let write = |text: &[u8]| io::Write::write_all(&mut &**log.file.load(), text).expect("written");
        write(b"one");
        std::fs::rename(&path, folder.path().join("old")).expect("renamed");
        log.reopen().expect("a new file");
        write(b"two");
        assert_eq!(std::fs::read(&path).expect("the new file"), b"two");
        assert_eq!(std::fs::read(folder.path().join("old")).expect("the old file"), b"one");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = LogFile::open("/nonexistent/x".as_ref()).err().expect("an error");
        assert_eq!(error.to_string(), "Failed to open log-file '/nonexistent/x'");
    }
}
