//! The control plane of the Weft mesh: Kubernetes objects in, xDS v3 out.
//!
//! watch event -> `source` -> `model` -> (debounced) `translate` -> `snapshot` -> `ads`, a stream for each connected
//! proxy -> `transport`. The proxies' traffic never waits for any of it.

pub mod ads;
pub mod args;
pub mod ca;
pub mod model;
pub mod monitoring;
pub mod serve;
pub mod snapshot;
pub mod source;
pub mod translate;
pub mod transport;
