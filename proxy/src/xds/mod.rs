//! Configuration from a control plane by Envoy's xDS v3: the stream, what is asked for on it, and what its answers hold.
//!
//! `client` carries messages, `files` reads those that stand in files; `exchange` (`sotw` or `delta`) and `subscription` decide
//! which request goes next, `resource` turns answers into typed configuration, `dump` shows the received messages again.
//! Everything but `client`, `connect` and `files` is pure. What the
//! answers mean for traffic is decided in `runtime/`.

pub mod backoff;
pub mod client;
pub mod connect;
pub mod counters;
pub mod delta;
pub mod dump;
pub mod exchange;
pub mod expiry;
pub mod failures;
pub mod files;
pub mod kind;
pub mod rate_limit;
pub mod rate_limit_service;
pub mod resource;
pub mod sotw;
pub mod subscription;
