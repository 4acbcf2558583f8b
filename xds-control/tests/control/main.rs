//! The control plane as others meet it: over gRPC, over HTTP, on the command line, and through any history of edits.

mod cli;
mod convergence;
mod harness;
mod scale;
mod xds;
