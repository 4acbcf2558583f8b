//! Configuration from a control plane by Envoy's xDS v3: the stream, what is asked for on it, and what its answers hold.
//!
//! `client` carries messages, `sotw` and `subscription` decide which request goes next, `resource` turns answers into typed
//! configuration, `dump` shows the received messages again. Everything but `client` and `connect` is pure. What the
//! answers mean for traffic is decided in `runtime/`.

pub mod backoff;
pub mod client;
pub mod connect;
pub mod counters;
pub mod dump;
pub mod failures;
pub mod kind;
pub mod resource;
pub mod sotw;
pub mod subscription;
