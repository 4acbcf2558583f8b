//! The configuration at work: takes the bootstrap and what the control plane sends, lets it warm up, and publishes it.
//!
//! One task on the main thread owns all of it: where resources come from (`feeds`), the warming state (`warming`, which
//! decides) and the data path (`apply`, which carries out). A lost control plane changes nothing here: what is there serves.

pub mod apply;
pub mod dependencies;
mod dump;
mod feeds;
pub mod handle;
pub mod publish;
mod secret_files;
pub mod snapshot;
pub mod start;
pub mod task;
mod tls_contexts;
pub mod warming;

pub use handle::{DrainStep, Listeners, RuntimeHandle, RuntimeQueries};
pub use start::{StartError, start};
pub use task::RuntimeError;
