//! The folder source: Kubernetes manifests in files, watched.
//!
//! `document` turns one YAML document into objects, `listing` finds the files, `folder` keeps what every file last said and
//! tells what another look at them changed, `watch` decides when to look at which and publishes. A file that can't be taken keeps its last good state and is
//! reported; all other files go on.

mod document;
mod folder;
mod listing;
mod parallel;
mod problem;
mod watch;

pub use folder::{Changes, Folder, FolderError};
pub use problem::{Problem, Severity};
pub use watch::{Health, ManifestSource};
