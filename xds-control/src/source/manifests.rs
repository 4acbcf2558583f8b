//! The folder source: Kubernetes manifests in files, watched.
//!
//! `document` turns one YAML document into objects, `folder` keeps what every file last said and tells what a rescan
//! changed, `watch` decides when to rescan and publishes. A file that can't be taken keeps its last good state and is
//! reported; all other files go on.

mod document;
mod folder;
mod problem;
mod watch;

pub use folder::{Folder, FolderError};
pub use problem::{Problem, Severity};
pub use watch::{Health, ManifestSource};
