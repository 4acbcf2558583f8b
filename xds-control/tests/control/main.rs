//! The control plane as others meet it: over gRPC, over HTTP, on the command line, and through any history of edits.

#![expect(clippy::unwrap_used, reason = "a broken assumption of a test is its failure")]

mod certificates;
mod cli;
mod client_status;
mod convergence;
mod harness;
mod hostile;
mod hostile_manifests;
mod memory;
mod scale;
mod transport;
mod xds;
