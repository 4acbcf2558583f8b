//! Envoy's messages for the proxy, the control plane and the command line: typed, read from and written to JSON and YAML,
//! validated, and encoded deterministically.
//!
//! Everything but the typed messages themselves works on protobuf's wire bytes, guided by descriptor tables that `build.rs`
//! makes and the binary embeds; no descriptors are loaded or built at run time.

pub mod any;
pub mod canonical;
mod error;
pub mod json;
#[cfg(test)]
mod properties;
mod tables;
pub mod type_url;
pub mod validate;
mod wire;

pub use envoy_types::pb;
pub use error::FieldError;
